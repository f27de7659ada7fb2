//! `chaski`: one binary that can play every role, and the tools around it.

use std::process::ExitCode;

fn main() -> ExitCode {
    chaski::main(chaski::cli::main)
}
