//! The connection service as a binary of its own: `chaski up --role connections`.

use chaski::node::Role;
use std::process::ExitCode;

fn main() -> ExitCode {
    chaski::role_main(Role::Connections)
}
