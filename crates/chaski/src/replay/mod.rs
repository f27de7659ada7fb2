//! The replay harness: a recorded conversation log through real WebSocket clients, every person's
//! inbox checked at the end, while services may be killed. It sees the system only from outside:
//! the public contract, and processes.
//!
//! `input` reads the log, `plan` decides from a seed what will be done, `conductor` leads the
//! `device` tasks, `target` kills and starts, `reads` reads everything back, `check` judges.

mod check;
mod conductor;
mod device;
mod input;
mod names;
mod plan;
mod progress;
mod random;
mod reads;
mod report;
mod shared;
mod target;

pub use check::Verdict;
pub use names::{Name, Names};
pub use report::{Percentiles, ReplayReport};
pub use shared::TokenSource;
pub use target::Target;

use anyhow::{Context as _, ensure};
use chaski_ports::{Clock as _, SystemClock};
use check::{Evidence, Shown};
use conductor::{Conducted, Conductor, Terms};
use input::Log;
use plan::Plan;
use report::Asked;
use shared::Shared;
use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use target::Running;
use tokio::{sync::mpsc, task::JoinSet, time::Instant};

/// Makes a source of tokens from the file of a development key.
pub type Signer = Arc<dyn Fn(&Path) -> anyhow::Result<TokenSource> + Send + Sync>;

/// What is replayed, against what, and how.
#[derive(Clone)]
pub struct ReplayOptions {
    /// A directory with `chats.jsonl` and `messages.jsonl.gz`; `None`: a synthetic log.
    pub dir: Option<PathBuf>,
    /// The synthetic log's size; at least 120, one for each conversation.
    pub synthetic_messages: u64,
    /// What it is replayed against.
    pub target: Target,
    /// Decides the synthetic log and every choice of the run.
    pub seed: u64,
    /// Conversations in flight; at least 1.
    pub parallel: usize,
    /// How often every service process is killed meanwhile.
    pub kills: u32,
    /// For connecting, sending and catching up together.
    pub timeout: Duration,
    /// Where the reports go.
    pub reports: PathBuf,
    /// The development key; `None`: what the target says.
    pub dev_key: Option<PathBuf>,
    /// Signs the devices' tokens with it.
    pub signer: Signer,
}

impl ReplayOptions {
    /// The defaults of the command line.
    #[must_use]
    pub fn new(target: Target, signer: Signer) -> Self {
        Self {
            dir: None,
            synthetic_messages: 5_000,
            target,
            seed: 1,
            parallel: 256,
            kills: 0,
            timeout: Duration::from_secs(30 * 60),
            reports: "target/reports".into(),
            dev_key: None,
            signer,
        }
    }
}

/// Replays and judges; writes `replay-<time>.json` and `replay-<time>.shown.jsonl.gz`, and the
/// table to `out`. The caller's exit code is [`ReplayReport::passed`].
///
/// # Errors
/// The run could not be made: input, target or file descriptors; a violation is no error.
pub async fn run(options: ReplayOptions, out: &mut impl Write) -> anyhow::Result<ReplayReport> {
    ensure!(options.parallel > 0, "--parallel must be at least 1");
    ensure!(
        options.kills == 0 || !matches!(options.target, Target::Url(_)),
        "--kill needs --embedded or --cluster: processes behind a URL cannot be killed"
    );
    let started_ms = SystemClock.now_ms();
    let log = match &options.dir {
        Some(dir) => Log::read(dir)?,
        None => Log::synthetic(options.seed, options.synthetic_messages),
    };
    let plan = Plan::new(log, options.seed, format!("{started_ms:x}"));
    enough_files(plan.devices.len())?;
    fs::create_dir_all(&options.reports)?;
    let started_at = time_name(started_ms)?;
    let path = |end: &str| options.reports.join(format!("replay-{started_at}.{end}"));

    let mut running = Running::start(&options.target, &path("server.log")).await?;
    let key = options.dev_key.as_ref().or(running.dev_key.as_ref());
    let key = key.context("no development key: give CHASKI_DEV_KEY, as `chaski up` prints it")?;
    let shared = Arc::new(Shared::new(plan, running.url.clone(), (options.signer)(key)?));
    let (conducted, devices) = perform(&options, &shared, &mut running).await?;
    let read = reads::all(&shared, &conducted.chats, &devices).await?;

    let users: Vec<u32> = shared.plan.log.users.iter().map(|user| shared.names.of(user)).collect();
    let verdict = check::check(&Evidence {
        log: &shared.plan.log,
        users: &users,
        chats: &conducted.chats,
        accepted: &conducted.accepted,
        devices: &devices,
        histories: &read.histories,
        inboxes: &read.inboxes,
    });
    report::write_shown(&path("shown.jsonl.gz"), &shared, &conducted, &devices)?;
    let asked = Asked {
        target: options.target.name().into(),
        input: options.dir.as_ref().and_then(|d| d.file_name()).map_or_else(
            || format!("a synthetic log (seed {})", options.seed),
            |name| name.to_string_lossy().into_owned(),
        ),
        seed: options.seed,
        parallel: options.parallel as u64,
        started_at: started_at.clone(),
    };
    let mut report =
        ReplayReport::new(asked, &shared, &conducted, verdict, std::mem::take(&mut running.kills));
    report.reads_repeated = read.again;
    report.examples.extend(read.errors);
    serde_json::to_writer_pretty(File::create(path("json"))?, &report)?;
    // After the report is safe: a target that does not drain is an error of its own.
    writeln!(out, "{report}\nreport: {}", path("json").display())?;
    running.stop().await?;
    Ok(report)
}

/// Runs the devices, the conductor and the killer; what came of it, and what each device was
/// shown.
async fn perform(
    options: &ReplayOptions,
    shared: &Arc<Shared>,
    running: &mut Running,
) -> anyhow::Result<(Conducted, Vec<(u32, Vec<Shown>)>)> {
    let (report, reports) = mpsc::channel(8192);
    let mut devices = JoinSet::new();
    let mut orders = Vec::new();
    for device in 0..shared.plan.devices.len() as u32 {
        // One order for each chat in flight, and its turns.
        let (order, taken) = mpsc::channel(options.parallel + 8);
        orders.push(order);
        devices.spawn(device::run(shared.clone(), device, taken, report.clone()));
    }
    drop(report);
    let (kill, mut kills) = mpsc::channel(options.kills.max(1) as usize);
    let terms = Terms {
        parallel: options.parallel,
        kills: options.kills,
        deadline: Instant::now() + options.timeout,
    };
    let conductor = Conductor::new(shared.clone(), terms, orders, reports, kill);
    let killer = async {
        while kills.recv().await.is_some() {
            running.kill_all().await?;
        }
        anyhow::Ok(())
    };
    let both = async { tokio::try_join!(conductor.run(), killer) };
    let mut shown = vec![None; shared.plan.devices.len()];
    tokio::pin!(both);
    let conducted = loop {
        tokio::select! {
            biased;
            done = &mut both => break done?.0,
            // None ends before the conductor does, unless it has failed.
            Some(ended) = devices.join_next() => {
                let (device, events) = ended??;
                shown[device as usize] = Some(events);
            }
        }
    };
    while let Some(ended) = devices.join_next().await {
        let (device, events) = ended??;
        shown[device as usize] = Some(events);
    }
    let users = shared.plan.devices.iter().map(|device| device.user);
    Ok((conducted, users.zip(shown.into_iter().map(Option::unwrap_or_default)).collect()))
}

/// Raises the limit of open files as far as allowed, for this many devices.
///
/// # Errors
/// That is not enough.
pub fn enough_files(devices: usize) -> anyhow::Result<()> {
    let needed = devices as u64 + 512;
    let limit = rlimit::increase_nofile_limit(u64::MAX)?;
    ensure!(
        limit >= needed,
        "{devices} devices need {needed} open files and the hard limit is {limit}: raise it \
         (`ulimit -Hn`) or replay a smaller log"
    );
    Ok(())
}

/// `20261121T151313Z`: what the files of a run are named after.
///
/// # Errors
/// The time is outside of the calendar's years.
pub fn time_name(unix_ms: i64) -> anyhow::Result<String> {
    let at = time::OffsetDateTime::from_unix_timestamp(unix_ms.div_euclid(1000))?;
    let form = time::macros::format_description!("[year][month][day]T[hour][minute][second]Z");
    Ok(at.format(form)?)
}

#[cfg(test)]
mod run_tests;
