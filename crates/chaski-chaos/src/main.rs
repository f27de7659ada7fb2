//! The program of the fault harness.

use std::process::ExitCode;

fn main() -> ExitCode {
    chaski_chaos::cli::main()
}
