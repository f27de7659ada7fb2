//! The fan-out as a binary of its own: `chaski up --role generator`.

use chaski::node::Role;
use std::process::ExitCode;

fn main() -> ExitCode {
    chaski::role_main(Role::Generator)
}
