//! `chaski`: one binary that can play every role, and the tools around it.

fn main() -> anyhow::Result<()> {
    chaski_auth::install_crypto_provider();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(Box::pin(chaski::cli::main()))
}
