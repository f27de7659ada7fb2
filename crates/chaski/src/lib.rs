//! The `chaski` binary: every role in one process or each in its own, and the tools to look at
//! and drive a running system.

pub mod cli;
pub mod cluster;
pub mod config;
pub mod node;
pub mod replay;

use std::process::ExitCode;

/// Runs a program to its end: the runtime around it, and its error on standard error.
pub fn main<F: Future<Output = anyhow::Result<()>>>(program: impl FnOnce() -> F) -> ExitCode {
    chaski_auth::install_crypto_provider();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(Box::pin(program())),
        Err(error) => Err(error.into()),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The program of one role, for the binary that is named after it.
#[must_use]
pub fn role_main(role: node::Role) -> ExitCode {
    main(|| cli::role_main(role))
}
