//! The command line: what is asked, signals, and the exit code.

use crate::{
    load::LoadOptions,
    planted::{self, PlantedOptions},
    progress::say,
    report::{Report, table},
    run::{Interrupted, RunOptions, Target, run},
    scenario::{self, Scenario, ScenarioOptions},
};
use anyhow::ensure;
use clap::Parser;
use std::{
    io::{Write as _, stdout},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Kills, pauses and cuts everything in a cluster of its own while hundreds of real clients talk
/// over it, then checks that no law was broken.
#[derive(Parser)]
#[command(name = "chaski-chaos", version, after_help = MORE)]
struct Cli {
    /// Decides the load and the faults: the same seed plans the same run
    #[arg(long, default_value_t = 1, conflicts_with = "seeds")]
    seed: u64,
    /// Several runs, one after the other, and a table of them: both ends included
    #[arg(long, value_name = "A..B", value_parser = seeds)]
    seeds: Option<(u64, u64)>,
    /// How long load and faults go on, in minutes; what follows takes some more
    #[arg(long, default_value_t = 15.0, value_name = "M")]
    minutes: f64,
    /// People; three in ten have a second device
    #[arg(long, default_value_t = 200, value_name = "N")]
    users: u32,
    /// Chats: three in five of two people, the others groups of 3 to 20
    #[arg(long, default_value_t = 100, value_name = "N")]
    chats: u32,
    /// Messages of a second over all chats, whether or not the ones before were answered
    #[arg(long, default_value_t = 60.0, value_name = "N")]
    rate: f64,
    /// How long it may take, when all faults are healed, until everything is settled and shown
    #[arg(long, default_value_t = 120, value_name = "SECONDS")]
    quiet_timeout: u64,
    /// Load and check a system that somebody else runs; no faults
    #[arg(long, requires = "dev_key")]
    url: Option<String>,
    /// The development key of that system, as `chaski up --dev` prints it
    #[arg(long, env = "CHASKI_DEV_KEY", value_name = "FILE")]
    dev_key: Option<PathBuf>,
    /// The program of the system [default: `chaski` beside this one]
    #[arg(long, value_name = "FILE", conflicts_with = "url")]
    program: Option<PathBuf>,
    /// Where the system has its files and logs
    #[arg(long, default_value = "target/chaos", value_name = "DIR", conflicts_with = "url")]
    dir: PathBuf,
    /// Start the system, load and check it, and leave it in peace
    #[arg(long, conflicts_with = "url")]
    no_faults: bool,
    /// Whether bugs are found: a system with one of them planted, for each name, a short plan made
    /// for it; NAME,..., `all`, or `list`. The program is `chaski-planted`
    #[arg(long, value_name = "NAME", conflicts_with_all = ["url", "no_faults", "seeds"])]
    planted: Option<String>,
    /// Kills a delivery host with so many sockets on it, in place of the plan's faults: all must come
    /// back and catch up within 60 s, and the other hosts' latency hold
    #[arg(long, value_name = "SOCKETS", conflicts_with_all = ["url", "seeds", "planted"],
          value_parser = clap::value_parser!(u32).range(1..=20_000))]
    storm: Option<u32>,
    /// Finds what the system can do, then asks for so many times the usual load for a minute
    #[arg(long, value_name = "TIMES", conflicts_with_all = ["url", "seeds", "planted", "storm"])]
    spike: Option<f64>,
    /// Kills hosts and brokers one at a time and has owners stand still a hundred times: how long
    /// clients are without service, against what is wanted
    #[arg(long, conflicts_with_all = ["url", "seeds", "planted", "storm", "spike"])]
    recovery: bool,
    /// Where the reports go
    #[arg(long, default_value = "target/reports", value_name = "DIR")]
    reports: PathBuf,
}

const MORE: &str = "\
What happens: all backends and service processes are started. The people connect, make chats and
talk at planned times; some have two devices, some stop reading for a while, some come and go,
some are removed from groups and added again, some block one another. Meanwhile processes are
killed (-9), paused for longer than a session and restarted, links are cut, cut in one direction,
delayed and made lossy. In the end all is healed, everybody waits until nothing is under way, a
new device of everybody and HTTP read everything back, and the judge looks at it all.

It stops only what it started. Ctrl-C heals, stops everything and ends with 130.

Written to target/reports: chaos-<time>.json (the result) and chaos-<time>.history.jsonl.gz (what
every client asked and was shown, with times). Violations are counted by kind: lost, duplicated,
disagree, holes, outOfOrder, phantom, wrongChat, shownAfterBlock, positionsBack, unsettled,
rejectedTwice; each example names the records and the faults around them.

Exit code: 0 no violation; 1 a violation, or a target of --storm, --spike or --recovery was missed; 2 the run could not be made, or proves nothing.

Examples:
  chaski-chaos --seed 1 --minutes 15       as before a release
  chaski-chaos --seeds 1..10               ten runs and a table
  chaski-chaos --seed 7 --minutes 3        a quick look
  chaski-chaos --storm 5000                a host dies with 5,000 sockets on it
  chaski-chaos --spike 10                  ten times the usual load for a minute
  chaski-chaos --recovery                  how long until clients are served again
  chaski-chaos --planted all               does the judge find bugs that are there on purpose?
  chaski-chaos --minutes 1 --url http://127.0.0.1:8080 --dev-key data/dev-key.pem";

/// How long a read in the end is repeated that fails, or lacks something.
const READ_PATIENCE: Duration = Duration::from_secs(30);
const VIOLATED: u8 = 1;
const NO_RUN: u8 = 2;
const INTERRUPTED: u8 = 130;

/// Runs the command line to its end.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    chaski_auth::install_crypto_provider();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(Box::pin(main_async(cli))),
        Err(error) => Err(error.into()),
    };
    match ended {
        Ok(code) => code.into(),
        Err(error) if error.is::<Interrupted>() => {
            say("interrupted; everything that was started is stopped");
            INTERRUPTED.into()
        }
        Err(error) => {
            say(&format!("error: {error:#}"));
            NO_RUN.into()
        }
    }
}

async fn main_async(cli: Cli) -> anyhow::Result<u8> {
    // A tool has no metrics address.
    let _metrics =
        chaski_runtime::init_telemetry("warn,chaski_client=error,chaski_chaos=info", false);
    let stop = CancellationToken::new();
    let runs = runs(&cli, &stop);
    tokio::pin!(runs);
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    loop {
        tokio::select! {
            ended = &mut runs => return ended,
            Some(()) = interrupt.recv() => {}
            Some(()) = terminate.recv() => {}
        }
        say("stopping: healing and ending everything that was started");
        stop.cancel();
    }
}

async fn runs(cli: &Cli, stop: &CancellationToken) -> anyhow::Result<u8> {
    ensure!(cli.minutes > 0.0 && cli.minutes <= 24.0 * 60.0, "--minutes must be above 0");
    if let Some(names) = &cli.planted {
        return planted(cli, names, stop).await;
    }
    if let Some(scenario) = cli.scenario() {
        return put_through(cli, scenario, stop).await;
    }
    let length = Duration::from_secs_f64(cli.minutes * 60.0);
    let (first, last) = cli.seeds.unwrap_or((cli.seed, cli.seed));
    let mut reports: Vec<Report> = Vec::new();
    for seed in first..=last {
        let options = RunOptions {
            load: LoadOptions {
                seed,
                users: cli.users,
                chats: cli.chats,
                rate: cli.rate,
                read_patience: READ_PATIENCE,
            },
            length,
            quiet_timeout: Duration::from_secs(cli.quiet_timeout),
            target: target(cli)?,
            reports: cli.reports.clone(),
        };
        match run(&options, stop, &mut stdout()).await {
            Ok(report) => reports.push(report),
            Err(error) => {
                // What was found before is not lost.
                show(&reports)?;
                return Err(error.context(format!("the run with seed {seed}")));
            }
        }
    }
    show(&reports)?;
    Ok(if reports.iter().any(|report| report.violated() > 0) {
        VIOLATED
    } else if reports.iter().any(|report| !report.passed) {
        NO_RUN
    } else {
        0
    })
}

async fn planted(cli: &Cli, names: &str, stop: &CancellationToken) -> anyhow::Result<u8> {
    if names == "list" {
        write!(stdout(), "{}", planted::list())?;
        return Ok(0);
    }
    let options = PlantedOptions {
        names: names.to_owned(),
        seed: cli.seed,
        program: program(cli, "chaski-planted")?,
        dir: cli.dir.clone(),
        reports: cli.reports.clone(),
    };
    let report = planted::run(&options, stop, &mut stdout()).await?;
    Ok(if report.passed { 0 } else { VIOLATED })
}

async fn put_through(
    cli: &Cli,
    scenario: Scenario,
    stop: &CancellationToken,
) -> anyhow::Result<u8> {
    let options = ScenarioOptions {
        scenario,
        seed: cli.seed,
        quiet_timeout: Duration::from_secs(cli.quiet_timeout),
        program: program(cli, "chaski")?,
        dir: cli.dir.clone(),
        reports: cli.reports.clone(),
    };
    let report = Box::pin(scenario::run(&options, stop, &mut stdout())).await?;
    Ok(if report.passed { 0 } else { VIOLATED })
}

impl Cli {
    fn scenario(&self) -> Option<Scenario> {
        let storm = self.storm.map(|sockets| Scenario::Storm { sockets });
        let spike = self.spike.map(|times| Scenario::Spike { times });
        storm.or(spike).or(self.recovery.then_some(Scenario::Recovery))
    }
}

fn show(reports: &[Report]) -> anyhow::Result<()> {
    if reports.len() > 1 {
        write!(stdout(), "\n{}", table(reports))?;
    }
    Ok(())
}

fn target(cli: &Cli) -> anyhow::Result<Target> {
    if let (Some(url), Some(dev_key)) = (cli.url.clone(), cli.dev_key.clone()) {
        return Ok(Target::Url { url, dev_key });
    }
    let (program, dir) = (program(cli, "chaski")?, cli.dir.clone());
    Ok(Target::System { program, dir, faults: !cli.no_faults })
}

/// What was given, or else the one of this name beside this program.
fn program(cli: &Cli, name: &str) -> anyhow::Result<PathBuf> {
    let beside = || anyhow::Ok(std::env::current_exe()?.with_file_name(name));
    let program = cli.program.clone().map_or_else(beside, Ok)?;
    ensure!(program.is_file(), "there is no program {}: give --program", program.display());
    Ok(program)
}

fn seeds(text: &str) -> Result<(u64, u64), String> {
    let ends = text.split_once("..").and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    match ends {
        Some((first, last)) if first <= last => Ok((first, last)),
        _ => Err("two numbers as in 1..10".into()),
    }
}
