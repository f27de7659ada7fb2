//! Whether the judge has teeth: a system with one bug planted on purpose, load, a few faults made for
//! it, and the judge must find it. One after the other on the same servers; for each bug the services
//! begin anew on topics, tables and nodes of their own.
//!
//! Must not know: how a bug is planted.

mod trials;

pub use trials::Trial;

use crate::{
    fault::Timeline,
    history::Evidence,
    judge::{Kind, Verdict, Violation, judge},
    load::{Load, LoadOptions},
    progress::{say, tell},
    run::{Interrupted, tokens},
    system::{System, SystemOptions},
};
use anyhow::{Context as _, ensure};
use chaski::replay::time_name;
use chaski_planted::{Bug, VARIABLE};
use chaski_ports::{Clock as _, SystemClock};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    fmt::{self, Display},
    fs::{self, File},
    io::Write,
    path::PathBuf,
    time::Duration,
};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// What is tried, and where.
#[derive(Clone, Debug)]
pub struct PlantedOptions {
    /// `all`, or names of bugs, separated by commas.
    pub names: String,
    /// Decides the load.
    pub seed: u64,
    /// The program with the bugs.
    pub program: PathBuf,
    /// Where the system has its files and logs.
    pub dir: PathBuf,
    /// Where the report goes.
    pub reports: PathBuf,
}

/// Enough people for every habit; few, because a development build starts anew for each bug.
const USERS: u32 = 36;
const CHATS: u32 = 24;
const RATE: f64 = 25.0;
/// With a bug it may never become quiet, and reads may never be whole. But what is only late must not
/// be taken for lost: nothing is open any more, and nothing came for so long.
const QUIET: Duration = Duration::from_secs(60);
const STILL: Duration = Duration::from_secs(10);
const READ_PATIENCE: Duration = Duration::from_secs(6);
/// Without one it must.
const CONTROL_PATIENCE: Duration = Duration::from_secs(120);
/// Violations of one trial that the report repeats.
const EXAMPLES_MAX: usize = 5;
const NO_BUG: &str = "No bug: nothing may be found.";
/// Within this a bug must be found.
const FOUND_WITHIN_S: f64 = 300.0;

/// What came of all trials; `planted-<time>.json`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names say it")]
pub struct PlantedReport {
    pub started_at: String,
    pub seed: u64,
    pub trials: Vec<Outcome>,
    pub found: usize,
    pub passed: bool,
}

/// What came of one trial.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names say it")]
pub struct Outcome {
    pub bug: &'static str,
    pub tier: &'static str,
    pub what: &'static str,
    /// One of these kinds had to be found.
    pub expected: Vec<Kind>,
    pub violations: BTreeMap<Kind, u64>,
    pub accepted: u64,
    /// From the start of the services to the verdict.
    pub seconds: f64,
    /// The first violations of the expected kinds, or of any where nothing may be found.
    pub examples: Vec<String>,
    /// Why the trial could not be made to its end.
    pub error: Option<String>,
    /// Found as expected and in time; for the control: nothing was found.
    pub passed: bool,
}

/// The trials of these names.
///
/// # Errors
/// There is no such bug.
pub fn named(names: &str) -> anyhow::Result<Vec<Trial>> {
    if names == "all" {
        let bugs = Bug::ALL.iter().map(|bug| Trial::of(*bug));
        return Ok(Trial::controls().into_iter().chain(bugs).collect());
    }
    let trial = |name: &str| {
        let control = Trial::controls().into_iter().find(|trial| trial.name == name);
        let trial = control.or_else(|| Bug::of(name).map(Trial::of));
        trial.with_context(|| format!("there is no bug {name}: see `--planted list`"))
    };
    names.split(',').map(trial).collect()
}

/// All bugs, for people.
#[must_use]
pub fn list() -> String {
    let bugs = Bug::ALL
        .iter()
        .map(|bug| format!("{:<24} {:<12} {}\n", bug.name(), bug.tier().name(), bug.what()));
    let controls = Trial::controls().into_iter();
    let controls = controls.map(|trial| format!("{:<24} {:<12} {NO_BUG}\n", trial.name, "-"));
    controls.chain(bugs).collect()
}

/// Tries them one after the other; writes `planted-<time>.json`, and the table to `out`.
///
/// # Errors
/// The servers do not start, or [`Interrupted`].
pub async fn run(
    options: &PlantedOptions,
    stop: &CancellationToken,
    out: &mut impl Write,
) -> anyhow::Result<PlantedReport> {
    let trials = named(&options.names)?;
    let started_at = time_name(SystemClock.now_ms())?;
    fs::create_dir_all(&options.reports)?;
    say("starting the servers");
    let system = SystemOptions {
        program: options.program.clone(),
        dir: options.dir.clone(),
        seed: options.seed,
        services: false,
        direct_sockets: false,
        settings: BTreeMap::new(),
    };
    let mut system = System::start(system, Timeline::start()).await?;
    let mut report =
        PlantedReport { started_at, seed: options.seed, trials: vec![], found: 0, passed: false };
    let path = options.reports.join(format!("planted-{}.json", report.started_at));
    for (number, trial) in trials.iter().enumerate() {
        say(&format!("{} of {}: {}", number + 1, trials.len(), trial.name));
        let begun = Instant::now();
        let tried = tokio::select! {
            tried = attempt(&mut system, trial, options.seed, number) => tried,
            () = stop.cancelled() => break,
        };
        let outcome = Outcome::new(trial, tried, begun.elapsed());
        say(&outcome.to_string());
        report.trials.push(outcome);
        report.found = report.trials.iter().filter(|t| !t.is_control() && t.passed).count();
        report.passed =
            report.trials.len() == trials.len() && report.trials.iter().all(|t| t.passed);
        // What was found so far is there, whatever comes of the next one.
        serde_json::to_writer_pretty(File::create(&path)?, &report)?;
    }
    say("stopping the services and the servers");
    system.stop().await?;
    writeln!(out, "{report}\nreport: {}", path.display())?;
    match stop.is_cancelled() {
        true => Err(Interrupted.into()),
        false => Ok(report),
    }
}

/// One trial to its verdict.
async fn attempt(
    system: &mut System,
    trial: &Trial,
    seed: u64,
    number: usize,
) -> anyhow::Result<Verdict> {
    let timeline = Timeline::start();
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let mut settings: BTreeMap<String, String> = trial.settings.iter().map(own).collect();
    settings.insert(VARIABLE.into(), trial.bug.map_or("", Bug::name).into());
    // Half of them are enough for these few people, and are made sooner.
    settings.insert("CHASKI_PARTITIONS".into(), "6".into());
    system.begin_anew(&format!("trial{number}"), settings, timeline).await?;

    let is_control = trial.bug.is_none();
    let (quiet, read_patience) = match is_control {
        true => (CONTROL_PATIENCE, CONTROL_PATIENCE / 4),
        false => (QUIET, READ_PATIENCE),
    };
    let load = LoadOptions { seed, users: USERS, chats: CHATS, rate: RATE, read_patience };
    let name = format!("p{:x}", SystemClock.now_ms());
    let tokens = tokens(system.dev_key())?;
    let mut load = Load::start(load, name, system.url().to_owned(), tokens, timeline).await?;
    let talked = talk(system, &load, trial).await;
    system.heal().await?;
    let faults = talked?;
    ensure!(faults == trial.plan.steps.len(), "only {faults} of the faults happened");
    let shared = load.shared();
    let was_quiet = tokio::select! {
        quiet = load.settle(quiet, STILL) => quiet?,
        () = tell(&shared, "settling") => unreachable!("it tells for ever"),
    };
    let verdict = judged(load.shared().evidence()).await?;
    let is_found = match is_control {
        true => !was_quiet,
        false => trial.finds.iter().any(|kind| verdict.of(*kind) > 0),
    };
    if is_found {
        load.abort().await;
        return Ok(verdict);
    }
    say("reading everything back");
    let evidence = load.finish().await?;
    let verdict = judged(evidence).await?;
    ensure!(verdict.unread == 0 || !is_control, "{} reads failed", verdict.unread);
    Ok(verdict)
}

/// Talks while the faults happen; how many did.
async fn talk(system: &mut System, load: &Load, trial: &Trial) -> anyhow::Result<usize> {
    let (over, shared) = (CancellationToken::new(), load.shared());
    let length = trial.plan.length;
    let both = async {
        let play = system.play(&trial.plan, CancellationToken::new());
        let (played, ()) = tokio::join!(play, sleep(length));
        over.cancel();
        played.map(|faults| faults.len())
    };
    tokio::select! {
        (played, ()) = async { tokio::join!(both, load.talk(&over)) } => played,
        () = tell(&shared, "talking") => unreachable!("it tells for ever"),
    }
}

async fn judged(evidence: Evidence) -> anyhow::Result<Verdict> {
    Ok(tokio::task::spawn_blocking(move || judge(&evidence)).await?)
}

impl Outcome {
    fn is_control(&self) -> bool {
        self.expected.is_empty()
    }

    fn new(trial: &Trial, tried: anyhow::Result<Verdict>, took: Duration) -> Self {
        let seconds = (took.as_secs_f64() * 10.0).round() / 10.0;
        let mut outcome = Self {
            bug: trial.name,
            tier: trial.bug.map_or("-", |bug| bug.tier().name()),
            what: trial.bug.map_or(NO_BUG, Bug::what),
            expected: trial.finds.to_vec(),
            seconds,
            ..Self::default()
        };
        let verdict = match tried {
            Ok(verdict) => verdict,
            Err(error) => {
                outcome.error = Some(format!("{error:#}"));
                return outcome;
            }
        };
        let expected = |kind: Kind| trial.bug.is_none() || trial.finds.contains(&kind);
        let examples = verdict.examples.iter().filter(|found| expected(found.kind));
        let text = |found: &Violation| format!("{:?}: {}", found.kind, found.text);
        outcome.examples = examples.take(EXAMPLES_MAX).map(text).collect();
        outcome.accepted = verdict.sends.accepted;
        outcome.passed = match trial.bug {
            Some(_) => {
                trial.finds.iter().any(|kind| verdict.of(*kind) > 0) && seconds <= FOUND_WITHIN_S
            }
            None => verdict.total() == 0 && verdict.sends.accepted > 0,
        };
        outcome.violations = verdict.violations;
        outcome.violations.retain(|_, count| *count > 0);
        outcome
    }
}

impl Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds: Vec<String> =
            self.violations.iter().map(|(kind, count)| format!("{kind:?} {count}")).collect();
        let kinds = if kinds.is_empty() { "nothing".into() } else { kinds.join(", ") };
        let said = match (self.passed, self.is_control()) {
            (true, true) => "passed",
            (true, _) => "FOUND",
            (false, _) => "FAILED",
        };
        write!(f, "{:<24} {:<12} {said:<7} {:>6.1} s  {kinds}", self.bug, self.tier, self.seconds)?;
        match &self.error {
            Some(error) => write!(f, "; {error}"),
            None => Ok(()),
        }
    }
}

impl Display for PlantedReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for trial in &self.trials {
            writeln!(f, "{trial}")?;
        }
        let bugs = self.trials.iter().filter(|trial| !trial.is_control()).count();
        write!(f, "{} of {bugs} planted bugs found", self.found)
    }
}
