//! `chaski cluster`: every service as a process of its own, over the configured backends. The
//! processes live in files of `crate::cluster`, which the harnesses that kill and restart read.

mod probe;

use super::{Settings, table::Table};
use crate::{
    cluster::{self, Layout, Process},
    config::Config,
};
use anyhow::{Context as _, ensure};
use chaski_auth::DevKey;
use chaski_backends::{CoordinatorUrl, LogUrl, StoreUrl};
use clap::{Args, Subcommand};
use futures::future::{join_all, try_join_all};
use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

/// A start that takes longer has failed.
const READY_MAX: Duration = Duration::from_secs(60);
/// So has a drain; the process is killed then.
const DRAIN_MAX: Duration = Duration::from_secs(20);
/// Who stops together, the first ones first: a drain uses the services behind it.
const STOPS: [&[&str]; 4] = [
    &["gateway", "delivery"],
    &["sender", "generator", "connections"],
    &["messages"],
    &["allocator"],
];

const EXAMPLES: &str = "\
The backends must be up, and CHASKI_LOG, CHASKI_STORE and CHASKI_COORDINATOR name them:
  eval \"$(infra/local/backends.sh up)\"
  chaski cluster up
  export CHASKI_DEV_KEY=…                 as `up` prints it
  chaski chat --user ana --to ben
  chaski cluster status
  chaski cluster restart delivery-1
  chaski cluster down

CHASKI_LISTEN is the public address (127.0.0.1:8080). Logs: <dir>/<name>.log";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ClusterArgs {
    /// Where the processes' files, logs and the development key are kept
    #[arg(long, env = "CHASKI_CLUSTER_DIR", default_value = "target/cluster", global = true)]
    dir: PathBuf,
    #[command(subcommand)]
    command: ClusterCommand,
}

#[derive(Subcommand)]
enum ClusterCommand {
    /// Start what is not running, wait until all is ready, prove it by a message, return
    Up,
    /// Stop all processes in an orderly way (after a while, by force)
    Down,
    /// List the processes
    Status,
    /// Drain one process and start it again with the same command, environment and addresses
    Restart {
        /// As `status` names it
        name: String,
    },
}

pub(super) async fn run(
    config: Config,
    settings: &Settings,
    args: ClusterArgs,
) -> anyhow::Result<()> {
    let dir = std::path::absolute(&args.dir)?;
    match args.command {
        ClusterCommand::Up => up(config, settings, &dir).await,
        ClusterCommand::Down => down(&dir).await,
        ClusterCommand::Status => status(&dir).await,
        ClusterCommand::Restart { name } => restart(&dir, &name).await,
    }
}

async fn up(mut config: Config, settings: &Settings, dir: &Path) -> anyhow::Result<()> {
    let urls = config.urls()?;
    ensure!(
        matches!(urls.log, LogUrl::Kafka(_))
            && matches!(urls.store, StoreUrl::Scylla { .. })
            && matches!(urls.coordinator, CoordinatorUrl::ZooKeeper { .. }),
        "separate processes cannot share an embedded backend: set CHASKI_LOG, CHASKI_STORE and \
         CHASKI_COORDINATOR, such as by `eval \"$(infra/local/backends.sh up)\"`"
    );
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    config.data = dir.to_owned();
    let key = std::path::absolute(config.dev_key())?;
    DevKey::load_or_create(&key)?;

    let mut processes = present(dir, &config)?;
    if processes.iter().all(|process| !process.is_running()) {
        eprintln!("topics and tables");
        super::tools::apply_migrations(&config).await?;
        forget(dir, &processes)?;
        processes = layout(&config, settings, &key)?.plan(dir)?;
    }
    for process in processes.iter_mut().filter(|process| !process.is_running()) {
        eprintln!("starting {}", process.name);
        process.start(dir)?;
    }
    eprintln!("waiting until all are ready");
    try_join_all(processes.iter().map(|process| process.until_ready(READY_MAX))).await?;

    let gateway = processes.iter().find(|process| process.role == "gateway");
    let listen = gateway.and_then(|process| process.env.get("CHASKI_LISTEN"));
    let url = format!("http://{}", listen.context("there is no gateway among the processes")?);
    probe::send_and_hello(&config, &url)
        .await
        .with_context(|| format!("all are ready, but a message through {url} does not arrive"))?;
    println!("export CHASKI_DEV_KEY={}", key.display());
    println!("export CHASKI_URL={url}");
    println!("ready {url}");
    Ok(())
}

/// The processes of an earlier `up`, which must have been over the same backends where some run.
fn present(dir: &Path, config: &Config) -> anyhow::Result<Vec<Process>> {
    let processes = cluster::load(dir)?;
    if processes.iter().any(Process::is_running) {
        for (name, url) in backends(config) {
            ensure!(
                processes.iter().all(|process| process.env.get(name) == Some(url)),
                "the cluster in {} runs over another {name}: `chaski cluster down` first",
                dir.display()
            );
        }
    }
    Ok(processes)
}

async fn down(dir: &Path) -> anyhow::Result<()> {
    let processes = if dir.exists() { cluster::load(dir)? } else { Vec::new() };
    for roles in STOPS {
        let together = processes.iter().filter(|process| roles.contains(&process.role.as_str()));
        for stopped in join_all(together.map(stop)).await {
            stopped?;
        }
    }
    forget(dir, &processes)?;
    eprintln!("stopped; the logs are in {}", dir.display());
    Ok(())
}

/// Only a process that is the one that was started is ever signalled.
async fn stop(process: &Process) -> anyhow::Result<()> {
    if !process.is_running() {
        return Ok(());
    }
    eprintln!("stopping {}", process.name);
    if let Err(error) = process.terminate(DRAIN_MAX).await {
        if !process.is_running() {
            return Ok(());
        }
        eprintln!("{error:#}: killing it");
        process.kill9().await?;
    }
    Ok(())
}

fn forget(dir: &Path, processes: &[Process]) -> anyhow::Result<()> {
    for process in processes {
        ensure!(!process.is_running(), "{} (pid {}) still runs", process.name, process.pid);
        fs::remove_file(dir.join(format!("{}.json", process.name)))?;
    }
    Ok(())
}

async fn restart(dir: &Path, name: &str) -> anyhow::Result<()> {
    let mut processes = cluster::load(dir)?;
    let names: Vec<_> = processes.iter().map(|process| process.name.clone()).collect();
    let process = processes.iter_mut().find(|process| process.name == name);
    let process = process
        .with_context(|| format!("there is no process {name}; there are: {}", names.join(", ")))?;
    stop(process).await?;
    eprintln!("starting {name}");
    process.start(dir)?;
    process.until_ready(READY_MAX).await?;
    println!("ready {name} pid {}", process.pid);
    Ok(())
}

async fn status(dir: &Path) -> anyhow::Result<()> {
    let processes = cluster::load(dir)?;
    let mut table = Table::new(["NAME", "ROLE", "PID", "STATE", "READY", "RSS_MIB", "ADMIN"]);
    let mut down = 0;
    for process in &processes {
        let running = process.is_running();
        down += usize::from(!running);
        let ready = match running {
            true => process.ready().await.map_or_else(|why| why, |()| "yes".into()),
            false => "no".into(),
        };
        table.row([
            process.name.clone(),
            process.role.clone(),
            process.pid.to_string(),
            if running { "up" } else { "down" }.into(),
            ready,
            rss_mib(process.pid).filter(|_| running).map_or_else(|| "-".into(), |m| m.to_string()),
            process.env.get("CHASKI_ADMIN_LISTEN").cloned().unwrap_or_default(),
        ]);
    }
    write!(std::io::stdout().lock(), "{table}")?;
    ensure!(!processes.is_empty(), "no cluster in {}: `chaski cluster up`", dir.display());
    ensure!(down == 0, "{down} of {} are down: `chaski cluster up` starts them", processes.len());
    Ok(())
}

fn rss_mib(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? / 1024)
}

/// The processes that these settings ask for.
fn layout(config: &Config, settings: &Settings, key: &Path) -> anyhow::Result<Layout> {
    let mut env = inherited();
    env.extend(backends(config).map(|(name, url)| (name.to_owned(), url.clone())));
    Ok(Layout {
        program: std::env::current_exe().context("cannot tell where this program is")?,
        args: settings.as_args()?,
        env,
        listen: config.listen.clone(),
        dev_key: key.to_owned(),
    })
}

fn backends(config: &Config) -> [(&'static str, &String); 3] {
    let [log, store, coordinator] = Layout::BACKENDS;
    [(log, &config.log), (store, &config.store), (coordinator, &config.coordinator)]
}

/// The caller's `CHASKI_*`, which a later `restart` from another shell must not lose.
fn inherited() -> BTreeMap<String, String> {
    let private = ["CHASKI_URL", "CHASKI_TOKEN", "CHASKI_DEV", "CHASKI_CONFIG"];
    std::env::vars()
        .filter(|(name, _)| name.starts_with("CHASKI_") && !private.contains(&name.as_str()))
        .collect()
}
