//! Which faults a plan has, and when each begins.
//!
//! Must not know: what a fault consists of.

use super::{Action, ProcessKind as P, Step, draw};
use crate::fault::FaultKind as F;
use fastrand::Rng;
use std::{collections::VecDeque, time::Duration};

/// So many faults go on at the same time.
const LANES: usize = 2;
/// How much of the time is planned: processes take longer than expected, and the last one is
/// healed before the end.
const PLANNED: f64 = 0.85;
/// The system runs undisturbed for a moment before the first fault.
const BEGINNING: Duration = Duration::from_secs(3);
/// Between two faults, at most.
const GAP_MS_MAX: u64 = 3_000;

/// What a plan needs, the most important first. A short one has its beginning, one of some ten
/// minutes has all of it.
fn needed(turn: &mut usize, random: &mut Rng) -> Vec<Action> {
    let kill = |kinds: &[P], random: &mut Rng| -> Vec<Action> {
        kinds.iter().map(|kind| draw::kill(*kind, random)).collect()
    };
    let pause = |kinds: &[P], random: &mut Rng| -> Vec<Action> {
        kinds.iter().map(|kind| draw::pause(*kind, random)).collect()
    };
    let mut links = |kinds: &[F], random: &mut Rng| -> Vec<Action> {
        let link = |kind: &F| {
            *turn += 1;
            draw::link(*kind, *turn - 1, random)
        };
        kinds.iter().map(link).collect()
    };
    let mut all = kill(&[P::Delivery, P::Generator, P::Messages], random);
    all.extend(pause(&[P::Delivery, P::Generator], random));
    all.extend(links(&[F::Cut], random));
    all.extend(kill(&[P::Sender, P::Gateway, P::Connections, P::AllocatorLeader], random));
    all.extend(links(&[F::OneWayCut], random));
    all.extend(kill(&[P::KafkaFollower], random));
    all.extend(pause(&[P::Messages], random));
    all.extend(links(&[F::Delay, F::Cut], random));
    all.extend(kill(&[P::ZookeeperLeader], random));
    all.extend(pause(&[P::KafkaLeader], random));
    all.extend(links(&[F::Loss], random));
    all.push(draw::kafka_restart(random));
    all.push(Action::RollingRestart);
    all.extend(kill(&[P::KafkaLeader, P::Cassandra, P::ZookeeperFollower], random));
    all.extend(kill(&[P::AllocatorFollower], random));
    all.extend(pause(&[P::Sender, P::Gateway, P::Connections, P::AllocatorLeader], random));
    all.extend(pause(&[P::AllocatorFollower, P::KafkaFollower, P::Cassandra], random));
    all.extend(pause(&[P::ZookeeperLeader, P::ZookeeperFollower], random));
    for _ in 0..4 {
        all.extend(links(&[F::OneWayCut, F::Delay, F::Cut, F::Loss], random));
    }
    all
}

/// What the time that is left is filled with.
fn more(turn: &mut usize, random: &mut Rng) -> Action {
    let kind = P::ALL[random.usize(..P::ALL.len())];
    match random.u8(0..10) {
        0..3 => draw::kill(kind, random),
        3..5 => draw::pause(kind, random),
        _ => {
            *turn += 1;
            let kinds = [F::Cut, F::OneWayCut, F::Delay, F::Loss];
            draw::link(kinds[random.usize(..kinds.len())], *turn - 1, random)
        }
    }
}

/// The steps of a plan in the order of their beginnings.
pub(super) fn steps(length: Duration, random: &mut Rng) -> Vec<Step> {
    let end = length.mul_f64(PLANNED);
    let mut turn = 0;
    let needed = needed(&mut turn, random);
    // As many of them as there is time for, then in any order.
    let mut chosen = needed.len();
    let mut steps = loop {
        let mut some = needed[..chosen].to_vec();
        random.shuffle(&mut some);
        let steps = Lanes::default().place(some, random);
        let healed = steps.iter().map(|step| step.at + step.action.length()).max();
        if healed.is_none_or(|healed| healed <= end) {
            break steps;
        }
        chosen -= 1;
    };
    let mut lanes = Lanes::after(&steps);
    while chosen == needed.len() {
        let step = lanes.place(vec![more(&mut turn, random)], random).remove(0);
        if step.at + step.action.length() > end {
            break;
        }
        steps.push(step);
    }
    steps.sort_by_key(|step| step.at);
    steps
}

/// What goes on side by side.
#[derive(Default)]
struct Lanes {
    /// The last step of each.
    last: [Option<Step>; LANES],
}

impl Lanes {
    fn after(steps: &[Step]) -> Self {
        let mut lanes = Self::default();
        for step in steps {
            lanes.note(step);
        }
        lanes
    }

    fn end(last: Option<&Step>) -> Duration {
        last.map_or(BEGINNING, |step| step.at + step.action.length())
    }

    fn note(&mut self, step: &Step) {
        let free = self.last.iter_mut().min_by_key(|last| Self::end(last.as_ref()));
        if let Some(last) = free {
            *last = Some(step.clone());
        }
        if matches!(step.action, Action::KafkaRestart { .. } | Action::RollingRestart) {
            self.last.fill(Some(step.clone()));
        }
    }

    /// Gives each one its beginning: the first that may go beside what goes on is next.
    fn place(&mut self, actions: Vec<Action>, random: &mut Rng) -> Vec<Step> {
        let mut waiting = VecDeque::from(actions);
        let mut steps = Vec::new();
        while !waiting.is_empty() {
            let mut ends: Vec<_> = self.last.iter().map(|last| Self::end(last.as_ref())).collect();
            ends.sort_unstable();
            let gap = Duration::from_millis(random.u64(500..=GAP_MS_MAX));
            let at = ends[0] + gap;
            let goes_on: Vec<_> =
                self.last.iter().flatten().filter(|s| at < s.at + s.action.length()).collect();
            let fits = |action: &Action| goes_on.iter().all(|s| action.may_overlap(&s.action));
            let next = waiting.iter().position(fits);
            // Where none may, the first one waits for the end of all.
            let at = if next.is_some() { at } else { ends[LANES - 1] + gap };
            let Some(action) = waiting.remove(next.unwrap_or(0)) else { break };
            let step = Step { at, action };
            self.note(&step);
            steps.push(step);
        }
        steps
    }
}
