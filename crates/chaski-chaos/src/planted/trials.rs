//! For each planted bug the smallest plan that brings it to light, and what the judge must find.
//!
//! Must not know: how a trial is run.

use crate::{
    fault::FaultKind,
    judge::Kind::{self, *},
    plan::{
        Action, Plan,
        ProcessKind::{self, *},
        Step, Victim,
    },
};
use chaski_planted::Bug;
use std::time::Duration;

/// One trial.
#[derive(Clone, Debug)]
pub struct Trial {
    /// Its name for people.
    pub name: &'static str,
    /// What is wrong with the system; nothing: the judge must find nothing either.
    pub bug: Option<Bug>,
    /// One of these must be found.
    pub finds: &'static [Kind],
    /// What the services are told beside what they always are.
    pub settings: &'static [(&'static str, &'static str)],
    /// How long people talk, and what happens meanwhile.
    pub plan: Plan,
}

/// State is saved every second, so that a take-over has something to start from.
const SAVES_OFTEN: (&str, &str) = ("CHASKI_GENERATOR_SNAPSHOT_SECONDS", "1");
/// Who takes over does so soon, and takes one input at a time.
const SLOW_SUCCESSOR: &[(&str, &str)] =
    &[SAVES_OFTEN, ("CHASKI_GENERATOR_INFLIGHT_MAX", "1"), ("CHASKI_ALLOCATOR_GRACE_MS", "100")];
/// A host that cannot read keeps its clients.
const KEEPS_CLIENTS: (&str, &str) = ("CHASKI_DELIVERY_BEHIND_MS", "60000");
/// The ring holds a few seconds.
const SMALL_RING: (&str, &str) = ("CHASKI_DELIVERY_RING_BYTES", "20000");
/// A burst is a few events.
const SMALL_BURST: (&str, &str) = ("CHASKI_DELIVERY_BURST_BYTES", "2000");

impl Trial {
    /// The system without a bug, under what the others are found with: all of it must be passed.
    #[must_use]
    pub fn controls() -> Vec<Self> {
        let control = |name, settings, seconds, steps| {
            let plan = Plan::by_hand(s(seconds), steps);
            Self { name, bug: None, finds: &[], settings, plan }
        };
        let mut steps = kills(Generator, 2, 10.0, 0.5);
        steps.extend(delays("generator", 2, 500, 12.0, 8.0));
        steps.extend(kills(Messages, 2, 14.0, 0.5));
        steps.extend(kills(Delivery, 2, 25.0, 1.0));
        let lone = vec![step(8.0, Action::LoneBroker { lasts: s(8.0) })];
        vec![
            control("control", &[SAVES_OFTEN, SMALL_RING, SMALL_BURST], 40.0, steps),
            control("control-lone-broker", &[], 30.0, lone),
        ]
    }

    /// The trial of a bug.
    #[must_use]
    pub fn of(bug: Bug) -> Self {
        let (finds, settings, seconds, steps) = plan(bug);
        let name = bug.name();
        Self { name, bug: Some(bug), finds, settings, plan: Plan::by_hand(s(seconds), steps) }
    }
}

type Planned = (&'static [Kind], &'static [(&'static str, &'static str)], f64, Vec<Step>);

#[rustfmt::skip]
fn plan(bug: Bug) -> Planned {
    let none = Vec::new;
    match bug {
        // What only one broker has is gone with it.
        Bug::AcksOne => (&[Lost], &[], 30.0, vec![step(8.0, Action::LoneBroker { lasts: s(8.0) })]),
        // Records wait in the hosts, and the hosts are killed.
        Bug::AcceptedTooEarly => (&[Lost], &[KEEPS_CLIENTS], 25.0, {
            let mut steps = links(FaultKind::Cut, "delivery", 3, "kafka", false, 8.0, 8.0);
            steps.extend(kills(Delivery, 3, 11.0, 1.0));
            steps
        }),
        Bug::AcceptedWhileItLingers => (&[OutOfOrder], &[], 25.0, none()),
        Bug::WrongPartitioner => (&[Disagree, Lost, Duplicated], &[], 15.0, none()),
        Bug::BodiesAreCleaned => (&[Phantom], &[], 10.0, none()),
        // Records arrive, and nobody hears of it.
        Bug::UnknownIsRefused => (&[Phantom], &[KEEPS_CLIENTS], 28.0,
            links(FaultKind::OneWayCut, "delivery", 3, "kafka", true, 8.0, 14.0)),
        // Outputs wait in the generator while its state is saved; then it is killed.
        Bug::CursorBeforeOutputs => (&[Lost, Holes, Disagree], &[SAVES_OFTEN], 32.0, {
            let mut steps = delays("generator", 2, 1500, 6.0, 16.0);
            steps.extend(kills(Generator, 2, 18.0, 0.5));
            steps
        }),
        // The older owner hears late that it has lost its partitions, and saves once more; the newer
        // one goes on slowly, so that it has not come so far when both are killed.
        Bug::CursorWithoutEpoch => (&[Disagree, Duplicated, Lost, Holes], SLOW_SUCCESSOR, 56.0, {
            let mut steps = delays("generator", 2, 1000, 4.0, 46.0);
            // From the first one nothing is late.
            steps.remove(0);
            steps.extend(links(FaultKind::Cut, "generator", 1, "zookeeper", false, 8.0, 28.0));
            steps.extend(kills(Generator, 2, 34.0, 1.0));
            steps
        }),
        Bug::DropsWhenFull => (&[Holes, Lost], &[], 25.0, delays("generator", 2, 500, 6.0, 12.0)),
        Bug::HalfACheckpoint => (&[Disagree, Duplicated, Lost, Holes], &[SAVES_OFTEN], 25.0,
            kills(Generator, 2, 12.0, 0.5)),
        Bug::RejectionToldTwice => (&[RejectedTwice], &[], 45.0, none()),
        // Sends are in the log and not answered; until they come again the generators are others.
        Bug::WindowLost => (&[Duplicated], &[SAVES_OFTEN, KEEPS_CLIENTS], 32.0, {
            let mut steps = links(FaultKind::OneWayCut, "delivery", 3, "kafka", true, 8.0, 8.0);
            steps.extend(kills(Generator, 2, 12.0, 0.5));
            steps.extend(kills(Delivery, 3, 15.0, 1.0));
            steps
        }),
        Bug::HostWithoutFilter => (&[Duplicated], &[], 22.0, kills(Generator, 2, 10.0, 0.5)),
        Bug::HostShowsTheBlocked => (&[ShownAfterBlock], &[], 30.0, none()),
        Bug::BehindIsExpired => (&[PositionsBack], &[SMALL_RING], 25.0, none()),
        Bug::DropsForTheSlow => (&[Lost], &[SMALL_BURST], 20.0, none()),
        Bug::NeverAnswered => (&[Unsettled], &[], 20.0, none()),
        Bug::PageWithoutItsLast => (&[Lost], &[SMALL_RING], 25.0, none()),
        Bug::ResumesAtTheEnd => (&[Lost], &[], 25.0, kills(Delivery, 2, 10.0, 1.0)),
        Bug::FailedWritesPass => (&[Lost], &[], 25.0, kills(Cassandra, 1, 6.0, 5.0)),
        Bug::FilterWithoutPlace => (&[Lost], &[], 20.0, kills(Messages, 2, 10.0, 0.5)),
        Bug::SpansAreIgnored => (&[WrongChat], &[], 35.0, none()),
        Bug::StoreWithoutFilter => (&[Duplicated], &[], 22.0, kills(Generator, 2, 10.0, 0.5)),
        Bug::StoredInTheClear => (&[ShownAfterBlock], &[], 30.0, none()),
        // The record of a block is late, and its answer is not.
        Bug::BlockedTooEarly => (&[ShownAfterBlock], &[], 40.0,
            delays("connections", 2, 500, 5.0, 30.0)),
    }
}

fn s(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn step(at: f64, action: Action) -> Step {
    Step { at: s(at), action }
}

/// The first `many` processes of a kind, at once.
fn kills(kind: ProcessKind, many: usize, at: f64, down: f64) -> Vec<Step> {
    let kill = |pick| Action::Kill { victim: Victim { kind, pick }, down: s(down) };
    (0..many).map(|pick| step(at, kill(pick))).collect()
}

/// From the first `many` processes of a group to all of another one.
fn links(
    kind: FaultKind,
    from: &str,
    many: usize,
    to: &str,
    back: bool,
    at: f64,
    lasts: f64,
) -> Vec<Step> {
    let link = |n: usize| Action::Link {
        kind,
        from: format!("{from}-{n}"),
        to: to.to_owned(),
        back,
        by: Duration::ZERO,
        lasts: s(lasts),
    };
    (1..=many).map(|n| step(at, link(n))).collect()
}

/// What goes to Kafka and comes from there is late.
fn delays(from: &str, many: usize, by_ms: u64, at: f64, lasts: f64) -> Vec<Step> {
    let mut steps = links(FaultKind::Delay, from, many, "kafka", false, at, lasts);
    for step in &mut steps {
        if let Action::Link { by, .. } = &mut step.action {
            *by = Duration::from_millis(by_ms);
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::BTreeSet, fs, path::Path};

    #[test]
    fn twenty_bugs_of_all_tiers_bring_every_kind_of_violation_within_five_minutes() {
        let trials: Vec<Trial> = Bug::ALL.iter().map(|bug| Trial::of(*bug)).collect();
        assert!(trials.len() >= 20);
        let tiers: BTreeSet<_> = Bug::ALL.iter().map(|bug| bug.tier()).collect();
        assert_eq!(tiers.len(), 6);
        let found: BTreeSet<Kind> = trials.iter().flat_map(|trial| trial.finds).copied().collect();
        assert_eq!(found, Kind::ALL.into());
        for trial in trials {
            assert!(!trial.finds.is_empty(), "{}", trial.name);
            assert!(trial.plan.length <= s(60.0), "{}", trial.name);
            let within = |step: &Step| step.at < trial.plan.length;
            assert!(trial.plan.steps.iter().all(within), "{}", trial.name);
        }
    }

    /// Somebody who takes a hook out, or forgets to tell of a bug, hears of it here.
    #[test]
    fn every_bug_has_a_hook_in_the_product_and_a_row_in_the_documents() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let told = fs::read_to_string(root.join("docs/ops/faults.md")).unwrap();
        let mut code = String::new();
        let services =
            ["sender", "delivery", "message", "connection"].map(|s| format!("{s}-service"));
        let mut open: Vec<_> =
            services.iter().map(|service| root.join(service).join("src")).collect();
        open.push(root.join("crates/chaski-log-kafka/src"));
        while let Some(path) = open.pop() {
            match path.is_dir() {
                true => open.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path())),
                false => code.push_str(&fs::read_to_string(path).unwrap()),
            }
        }
        for bug in Bug::ALL {
            let hooks = [format!("Bug::{bug:?})"), format!("is({bug:?})")];
            assert!(hooks.iter().any(|hook| code.contains(hook)), "{bug:?} is nowhere planted");
            assert!(told.contains(&format!("`{}`", bug.name())), "{bug:?}: faults.md says nothing");
        }
    }
}
