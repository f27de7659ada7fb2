//! `chaski up`.

use crate::{
    config::Config,
    node::{Node, Role, Roles, end_signal},
};
use clap::Args;

#[derive(Args)]
pub(super) struct UpArgs {
    /// Development mode: make a signing key on first use and the topics and tables as needed
    #[arg(long, env = "CHASKI_DEV")]
    dev: bool,
    /// Play only this role; may be repeated [default: all]
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<Role>,
}

/// Serves until SIGTERM or Ctrl-C, then drains.
pub(super) async fn run(config: Config, args: UpArgs) -> anyhow::Result<()> {
    Box::pin(serve(config, &Roles::of(&args.roles), args.dev)).await
}

/// The same for given roles.
pub(super) async fn serve(config: Config, roles: &Roles, dev: bool) -> anyhow::Result<()> {
    if let Some(warning) = chaski_planted::warning() {
        tracing::error!("{warning}");
    }
    // A signal that comes while the process starts counts too.
    let signal = end_signal();
    tokio::pin!(signal);
    let start = Node::start(config.clone(), roles, dev);
    let node = tokio::select! {
        node = start => node?,
        ended = &mut signal => return ended,
    };
    if node.dev_key.is_some() {
        let file = std::path::absolute(config.dev_key())?;
        println!("export CHASKI_DEV_KEY={}", file.display());
    }
    tokio::select! {
        ready = node.ready() => match ready {
            Ok(()) => println!("ready {}", node.public_url),
            // What failed is told by the orderly end below.
            Err(error) => tracing::error!(%error, "not ready"),
        },
        ended = &mut signal => {
            ended?;
            return node.run_until(async {}).await;
        }
    }
    let ended = async {
        if let Err(error) = signal.await {
            tracing::error!(%error, "cannot listen for signals");
        }
    };
    node.run_until(ended).await
}
