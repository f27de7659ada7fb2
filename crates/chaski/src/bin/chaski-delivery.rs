//! A delivery host as a binary of its own: `chaski up --role delivery`.

use chaski::node::Role;
use std::process::ExitCode;

fn main() -> ExitCode {
    chaski::role_main(Role::Delivery)
}
