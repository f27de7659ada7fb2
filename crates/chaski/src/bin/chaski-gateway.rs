//! The public address as a binary of its own: `chaski up --role gateway`.

use chaski::node::Role;
use std::process::ExitCode;

fn main() -> ExitCode {
    chaski::role_main(Role::Gateway)
}
