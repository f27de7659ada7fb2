//! The message service as a binary of its own: `chaski up --role messages`.

use chaski::node::Role;
use std::process::ExitCode;

fn main() -> ExitCode {
    chaski::role_main(Role::Messages)
}
