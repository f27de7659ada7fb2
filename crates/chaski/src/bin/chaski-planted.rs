//! `chaski` with bugs planted on purpose, one of which `CHASKI_PLANTED` lets show itself: what the
//! fault harness is tried on. Not built without the feature `planted`.

use std::process::ExitCode;

fn main() -> ExitCode {
    chaski::main(chaski::cli::main)
}
