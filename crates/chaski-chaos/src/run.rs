//! One run: start, load and faults together, heal, quiet, read, judge, report. Composes; decides
//! nothing about right and wrong.

use crate::{
    fault::{FaultRecord, Timeline},
    judge::judge,
    load::{Load, LoadOptions},
    plan::Plan,
    progress::{say, tell},
    report::{Asked, Report, write_history},
    system::{System, SystemOptions},
};
use anyhow::Context as _;
use chaski::replay::{TokenSource, time_name};
use chaski_auth::DevKey;
use chaski_ports::{Clock as _, SystemClock};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// What is run, against what.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// How much load, and the seed of it all.
    pub load: LoadOptions,
    /// How long the load goes on.
    pub length: Duration,
    /// How long it may take afterwards until all is settled and shown.
    pub quiet_timeout: Duration,
    /// What it runs against.
    pub target: Target,
    /// Where the reports go.
    pub reports: PathBuf,
}

/// What a run is made against.
#[derive(Clone, Debug)]
pub enum Target {
    /// A system of its own.
    System {
        /// The `chaski` binary.
        program: PathBuf,
        /// Where its files and logs are.
        dir: PathBuf,
        /// Whether faults are injected.
        faults: bool,
    },
    /// A system that somebody else runs: load and judge, no faults.
    Url {
        /// Its public address.
        url: String,
        /// The development key that it takes tokens of.
        dev_key: PathBuf,
    },
}

/// The run was ended by a signal, after everything that it had started was stopped.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

/// How long the harness's own tokens are good.
const TTL: Duration = Duration::from_secs(24 * 3600);

/// Signs tokens with the development key of a system.
pub(crate) fn tokens(dev_key: &Path) -> anyhow::Result<TokenSource> {
    let key = DevKey::load_or_create(dev_key)
        .with_context(|| format!("no development key in {}", dev_key.display()))?;
    Ok(Arc::new(move |user, device| {
        Ok(key.sign(&user.parse()?, &device.parse()?, TTL, SystemClock.now_ms()))
    }))
}

/// Runs once; writes `chaos-<time>.json` and `chaos-<time>.history.jsonl.gz`, and the table to
/// `out`.
///
/// # Errors
/// The run could not be made, or [`Interrupted`]; a violation is no error.
pub async fn run(
    options: &RunOptions,
    stop: &CancellationToken,
    out: &mut impl Write,
) -> anyhow::Result<Report> {
    let timeline = Timeline::start();
    let started_ms = SystemClock.now_ms();
    let mut run = Run {
        options,
        stop,
        timeline,
        name: format!("c{started_ms:x}"),
        started_at: time_name(started_ms)?,
        problems: Vec::new(),
        ended: BTreeMap::new(),
    };
    fs::create_dir_all(&options.reports)?;
    let report = match &options.target {
        Target::System { program, dir, faults } => {
            let options = SystemOptions {
                program: program.clone(),
                dir: dir.clone(),
                seed: options.load.seed,
                services: true,
                direct_sockets: false,
                settings: BTreeMap::new(),
            };
            run.against_system(options, *faults).await?
        }
        Target::Url { url, dev_key } => run.against_url(url, dev_key).await?,
    };
    let path = run.path("json");
    serde_json::to_writer_pretty(File::create(&path)?, &report)?;
    writeln!(out, "{report}\nreport: {}", path.display())?;
    Ok(report)
}

struct Run<'a> {
    options: &'a RunOptions,
    stop: &'a CancellationToken,
    timeline: Timeline,
    name: String,
    started_at: String,
    problems: Vec<String>,
    /// Service processes that ended without being killed.
    ended: BTreeMap<String, u32>,
}

impl Run<'_> {
    fn path(&self, end: &str) -> PathBuf {
        self.options.reports.join(format!("chaos-{}.{end}", self.started_at))
    }

    async fn against_url(&mut self, url: &str, dev_key: &Path) -> anyhow::Result<Report> {
        let mut load = self.load(url, dev_key).await?;
        self.under_load(&load, async { Ok(Vec::new()) }).await?;
        self.settle(&mut load).await?;
        self.judge(load, Vec::new(), url.to_owned()).await
    }

    async fn against_system(
        &mut self,
        options: SystemOptions,
        faults: bool,
    ) -> anyhow::Result<Report> {
        say("starting the servers and the services");
        let mut system = System::start(options, self.timeline).await?;
        let report = self.with_system(&mut system, faults).await;
        // Whatever came of the run: nothing that it started stays.
        say("stopping the services and the servers");
        let stopped = system.stop().await;
        let report = report?;
        stopped?;
        Ok(report)
    }

    async fn with_system(&mut self, system: &mut System, faults: bool) -> anyhow::Result<Report> {
        let (url, dev_key) = (system.url().to_owned(), system.dev_key().to_owned());
        let mut load = self.load(&url, &dev_key).await?;
        let plan = faults.then(|| Plan::new(self.options.load.seed, self.options.length));
        let play = async {
            match &plan {
                Some(plan) => {
                    say(&format!("faults: {plan}"));
                    system.play(plan, self.stop.clone()).await
                }
                None => Ok(Vec::new()),
            }
        };
        let records = self.under_load(&load, play).await;
        // Also where it was ended, or a process did not come back.
        say("healing");
        let healed = system.heal().await;
        let records = records?;
        healed?;
        if let Some(plan) = &plan {
            self.compare(plan, &records);
        }
        self.settle(&mut load).await?;
        self.ended = system.ended_by_themselves();
        let target = if faults { "a cluster of its own" } else { "a cluster without faults" };
        self.judge(load, records, target.into()).await
    }

    /// A run proves nothing of a fault that did not happen.
    fn compare(&mut self, plan: &Plan, records: &[FaultRecord]) {
        if plan.steps.is_empty() {
            self.problems.push("too short for any fault".into());
        }
        for (kind, planned) in plan.kinds() {
            let happened = records.iter().filter(|record| record.kind == kind).count();
            if happened == 0 {
                self.problems.push(format!("{kind:?}: {planned} planned, and none happened"));
            }
        }
    }

    /// What is to be done, unless the run is ended before.
    async fn unless_stopped<T>(
        &self,
        doing: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        tokio::select! {
            done = doing => done,
            () = self.stop.cancelled() => Err(Interrupted.into()),
        }
    }

    async fn load(&self, url: &str, dev_key: &Path) -> anyhow::Result<Load> {
        let tokens = tokens(dev_key)?;
        let options = self.options.load;
        say(&format!("{} people connect and make {} chats", options.users, options.chats));
        let start = Load::start(options, self.name.clone(), url.into(), tokens, self.timeline);
        self.unless_stopped(start).await
    }

    /// Talks while the faults are injected, and for the whole length at least. Faults that end
    /// late are not cut short.
    async fn under_load(
        &self,
        load: &Load,
        faults: impl Future<Output = anyhow::Result<Vec<FaultRecord>>>,
    ) -> anyhow::Result<Vec<FaultRecord>> {
        let over = CancellationToken::new();
        let (shared, length) = (load.shared(), self.options.length);
        let whole_length = async {
            tokio::select! {
                () = sleep(length) => Ok(()),
                () = self.stop.cancelled() => Ok(()),
            }
        };
        let both = async {
            let injected = tokio::try_join!(faults, whole_length);
            over.cancel();
            injected.map(|(records, ())| records)
        };
        let work = async { tokio::join!(both, load.talk(&over)).0 };
        tokio::select! {
            injected = work => injected,
            () = tell(&shared, "talking") => unreachable!("it tells for ever"),
        }
    }

    async fn settle(&mut self, load: &mut Load) -> anyhow::Result<()> {
        let shared = load.shared();
        let timeout = self.options.quiet_timeout;
        let quiet = async {
            tokio::select! {
                quiet = load.quiet(timeout) => quiet,
                () = tell(&shared, "settling") => unreachable!("it tells for ever"),
            }
        };
        if !self.unless_stopped(quiet).await? {
            self.problems.push(format!(
                "not everything was settled and shown within {} s",
                timeout.as_secs()
            ));
        }
        Ok(())
    }

    async fn judge(
        &mut self,
        load: Load,
        faults: Vec<FaultRecord>,
        target: String,
    ) -> anyhow::Result<Report> {
        say("reading everything back");
        let shared = load.shared();
        let evidence = self.unless_stopped(load.finish()).await?;
        say("judging");
        let history = self.path("history.jsonl.gz");
        let names = shared.names.texts();
        let judged = tokio::task::spawn_blocking(move || {
            write_history(&history, &evidence, &names)?;
            let verdict = judge(&evidence);
            anyhow::Ok((evidence, verdict))
        });
        let (evidence, verdict) = judged.await??;
        let asked = Asked {
            seed: self.options.load.seed,
            minutes: self.options.length.as_secs_f64() / 60.0,
            started_at: self.started_at.clone(),
            target,
            not_asked: shared.counts.not_asked.load(Relaxed),
            ended_by_themselves: std::mem::take(&mut self.ended),
            problems: std::mem::take(&mut self.problems),
        };
        Ok(Report::new(asked, &evidence, &verdict, faults))
    }
}
