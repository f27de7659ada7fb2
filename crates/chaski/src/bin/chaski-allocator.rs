//! The host allocator as a binary of its own: `chaski up --role allocator`.

use chaski::node::Role;
use std::process::ExitCode;

fn main() -> ExitCode {
    chaski::role_main(Role::Allocator)
}
