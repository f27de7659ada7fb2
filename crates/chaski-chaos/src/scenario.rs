//! What a system is put through besides faults from a plan: a host with thousands of sockets that
//! dies, a spike of load, faults one at a time. A cluster of its own, load by real clients, figures
//! against what is wanted, and the judge over everything that was asked and shown.
//!
//! Must not know: how the system does it.

mod figures;
mod flow;
mod recovery;
mod spike;
mod storm;

pub use figures::{Line, ScenarioReport};
pub use flow::Percentiles;

use crate::{
    fault::{FaultRecord, Timeline},
    history::Evidence,
    judge::judge,
    load::{Load, LoadOptions, population::Population},
    progress::{say, tell},
    report::{Asked, Report, write_history},
    run::{Interrupted, tokens},
    system::{System, SystemOptions},
};
use chaski::replay::time_name;
use chaski_ports::{Clock as _, SystemClock};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write,
    path::PathBuf,
    sync::atomic::Ordering::Relaxed,
    time::Duration,
};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// What a system is put through.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scenario {
    /// A delivery host dies that so many sockets are on.
    Storm {
        /// How many.
        sockets: u32,
    },
    /// So many times the usual load for a minute.
    Spike {
        /// How many times.
        times: f64,
    },
    /// Hosts and brokers are killed one at a time, and owners stand still.
    Recovery,
}

impl Scenario {
    const fn name(self) -> &'static str {
        match self {
            Self::Storm { .. } => "storm",
            Self::Spike { .. } => "spike",
            Self::Recovery => "recovery",
        }
    }

    fn settings(self) -> BTreeMap<String, String> {
        match self {
            // Nobody is moved off the host that is to die.
            Self::Storm { .. } => {
                [("CHASKI_ALLOCATOR_OVERLOAD_LEAST".into(), "1000000".into())].into()
            }
            Self::Spike { .. } | Self::Recovery => BTreeMap::new(),
        }
    }
}

/// What is run, and where.
#[derive(Clone, Debug)]
pub struct ScenarioOptions {
    /// What it is put through.
    pub scenario: Scenario,
    /// Decides who does what and when.
    pub seed: u64,
    /// How long it may take in the end until all is settled and shown.
    pub quiet_timeout: Duration,
    /// The program of the system.
    pub program: PathBuf,
    /// Where the system has its files and logs.
    pub dir: PathBuf,
    /// Where the reports go.
    pub reports: PathBuf,
}

/// How long a read in the end is repeated that fails, or lacks something.
const READ_PATIENCE: Duration = Duration::from_secs(60);

/// Runs once; writes `<scenario>-<time>.json` and `<scenario>-<time>.history.jsonl.gz`, and the table
/// to `out`.
///
/// # Errors
/// The run could not be made, or [`Interrupted`]; a target that is missed is no error.
pub async fn run(
    options: &ScenarioOptions,
    stop: &CancellationToken,
    out: &mut impl Write,
) -> anyhow::Result<ScenarioReport> {
    let (timeline, now_ms) = (Timeline::start(), SystemClock.now_ms());
    fs::create_dir_all(&options.reports)?;
    say("starting the servers and the services");
    let system = SystemOptions {
        program: options.program.clone(),
        dir: options.dir.clone(),
        seed: options.seed,
        services: true,
        direct_sockets: matches!(options.scenario, Scenario::Storm { .. }),
        settings: options.scenario.settings(),
    };
    let mut system = System::start(system, timeline).await?;
    let name = format!("s{now_ms:x}");
    let mut stage = Stage {
        options,
        stop,
        name,
        timeline,
        started_at: time_name(now_ms)?,
        system: &mut system,
    };
    let played = tokio::select! {
        played = stage.play() => played,
        () = stop.cancelled() => Err(Interrupted.into()),
    };
    say("stopping the services and the servers");
    let stopped = system.stop().await;
    let report = played?;
    stopped?;
    let path = options.reports.join(format!("{}-{}.json", report.scenario, report.started_at));
    serde_json::to_writer_pretty(File::create(&path)?, &report)?;
    writeln!(out, "{report}\nreport: {}", path.display())?;
    Ok(report)
}

/// A system that runs, and what is done with it.
struct Stage<'a> {
    options: &'a ScenarioOptions,
    stop: &'a CancellationToken,
    /// Stands in the ids of all users.
    name: String,
    timeline: Timeline,
    started_at: String,
    system: &'a mut System,
}

/// What came of it, before it is judged as a whole.
struct Played {
    load: Load,
    faults: Vec<FaultRecord>,
    /// What the evidence, and the report on it, say of what was wanted.
    measure: Box<Measure>,
}

/// The lines, and the figures that they rest on.
type Measure = dyn FnOnce(&Evidence, &Report) -> (Vec<Line>, serde_json::Value) + Send;

impl Stage<'_> {
    async fn play(&mut self) -> anyhow::Result<ScenarioReport> {
        let played = match self.options.scenario {
            Scenario::Storm { sockets } => storm::play(self, sockets).await?,
            Scenario::Spike { times } => spike::play(self, times).await?,
            Scenario::Recovery => recovery::play(self).await?,
        };
        self.judge(played).await
    }

    async fn load(&self, population: Population, rate: f64) -> anyhow::Result<Load> {
        let options = LoadOptions {
            seed: self.options.seed,
            users: population.users,
            chats: population.chats.len() as u32,
            rate,
            read_patience: READ_PATIENCE,
        };
        say(&format!("{} people connect and make {} chats", options.users, options.chats));
        let (name, url) = (self.name.clone(), self.system.url().to_owned());
        let tokens = tokens(self.system.dev_key())?;
        Load::of(population, options, name, url, tokens, self.timeline).await
    }

    async fn judge(&mut self, played: Played) -> anyhow::Result<ScenarioReport> {
        let Played { mut load, faults, measure } = played;
        let (shared, mut problems) = (load.shared(), Vec::new());
        let timeout = self.options.quiet_timeout;
        let quiet = tokio::select! {
            quiet = load.quiet(timeout) => quiet?,
            () = tell(&shared, "settling") => unreachable!("it tells for ever"),
        };
        if !quiet {
            problems.push(format!("not everything was settled within {} s", timeout.as_secs()));
        }
        let ended_by_themselves = self.system.ended_by_themselves();
        say("reading everything back");
        let evidence = load.finish().await?;
        say("judging");
        let kind = self.options.scenario.name();
        let history = format!("{kind}-{}.history.jsonl.gz", self.started_at);
        let history = self.options.reports.join(history);
        let asked = Asked {
            seed: self.options.seed,
            minutes: self.timeline.now_us() as f64 / 60e6,
            started_at: self.started_at.clone(),
            target: format!("a cluster of its own: {:?}", self.options.scenario),
            not_asked: shared.counts.not_asked.load(Relaxed),
            ended_by_themselves,
            problems,
        };
        let names = shared.names.texts();
        let judged = tokio::task::spawn_blocking(move || {
            write_history(&history, &evidence, &names)?;
            let verdict = judge(&evidence);
            let report = Report::new(asked, &evidence, &verdict, faults);
            let (lines, figures) = measure(&evidence, &report);
            anyhow::Ok((report, lines, figures))
        });
        let (run, lines, figures) = judged.await??;
        Ok(ScenarioReport::new(kind, self.started_at.clone(), lines, figures, run))
    }
}

/// Talks at this rate while something is done, and no longer.
async fn talk_while<T>(load: &Load, rate: f64, what: &str, doing: impl Future<Output = T>) -> T {
    let (over, shared) = (CancellationToken::new(), load.shared());
    let done = async {
        let done = doing.await;
        over.cancel();
        done
    };
    tokio::select! {
        (done, ()) = async { tokio::join!(done, load.talk_at(rate, &over)) } => done,
        () = tell(&shared, what) => unreachable!("it tells for ever"),
    }
}

/// Until nothing is asked that is not settled, for a moment; at most so long. Whether it came to that.
async fn until_settled(load: &Load, most: Duration) -> bool {
    let shared = load.shared();
    let settled = async {
        let mut before = u64::MAX;
        loop {
            let shown = shared.counts.shown.load(Relaxed);
            if shared.counts.open.load(Relaxed) == 0 && shown == before {
                return;
            }
            before = shown;
            sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::time::timeout(most, settled).await.is_ok()
}
