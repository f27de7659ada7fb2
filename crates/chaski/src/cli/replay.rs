//! `chaski replay`.

use crate::{
    config::Config,
    replay::{ReplayOptions, Signer, Target, TokenSource, run},
};
use chaski_auth::DevKey;
use chaski_ports::{Clock as _, SystemClock};
use clap::Args;
use std::{path::PathBuf, sync::Arc, time::Duration};

/// How long the harness's own tokens are good.
const TTL: Duration = Duration::from_secs(6 * 3600);

#[derive(Args)]
pub(super) struct ReplayArgs {
    /// A recorded log: a directory with chats.jsonl and messages.jsonl.gz [default: a synthetic one]
    dir: Option<PathBuf>,
    /// Against a system of its own in one process, with data of its own [default]
    #[arg(long, conflicts_with_all = ["cluster", "url"])]
    embedded: bool,
    /// Against the processes that `chaski cluster up` started
    #[arg(long, conflicts_with = "url")]
    cluster: bool,
    /// Where `chaski cluster up` keeps its state
    #[arg(long, env = "CHASKI_CLUSTER_DIR", default_value = "target/cluster")]
    cluster_dir: PathBuf,
    /// Against a system that somebody else runs
    #[arg(long)]
    url: Option<String>,
    /// Kill every service process with -9 this many times meanwhile, and start it again
    #[arg(long, value_name = "N", default_value_t = 0)]
    kill: u32,
    /// Decides the synthetic log and every choice of the run
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Messages of the synthetic log
    #[arg(long, default_value_t = 5_000, value_name = "N")]
    messages: u64,
    /// Conversations in flight
    #[arg(long, default_value_t = 256)]
    parallel: usize,
    /// Give up after this long
    #[arg(long, default_value = "30m", value_parser = super::duration)]
    timeout: Duration,
}

/// Replays, prints the table and ends with an error where a law was violated.
pub(super) async fn replay(config: &Config, args: ReplayArgs) -> anyhow::Result<()> {
    // A tool has no metrics address.
    let _metrics = chaski_runtime::init_telemetry("warn", false);
    let target = match args.url {
        Some(url) => Target::Url(url),
        None if args.cluster => Target::Cluster { dir: args.cluster_dir, url: None },
        None => Target::Embedded { program: None },
    };
    let own_key = matches!(target, Target::Embedded { .. });
    let signer: Signer = Arc::new(|file| {
        let key = DevKey::load_or_create(file)?;
        let sign: TokenSource = Arc::new(move |user, device| {
            Ok(key.sign(&user.parse()?, &device.parse()?, TTL, SystemClock.now_ms()))
        });
        Ok(sign)
    });
    let options = ReplayOptions {
        dir: args.dir,
        synthetic_messages: args.messages,
        seed: args.seed,
        parallel: args.parallel,
        kills: args.kill,
        timeout: args.timeout,
        dev_key: (!own_key && config.dev_key().exists()).then(|| config.dev_key()),
        ..ReplayOptions::new(target, signer)
    };
    let report = Box::pin(run(options, &mut std::io::stdout())).await?;
    anyhow::ensure!(report.passed(), "the replay found violations: see the report");
    Ok(())
}
