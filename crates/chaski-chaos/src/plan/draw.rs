//! Single faults: what is drawn from the seed within the limits of each kind.
//!
//! Must not know: which faults a plan needs, and when they come.

use super::{Action, ProcessKind, SESSION, Victim};
use crate::fault::FaultKind;
use fastrand::Rng;
use std::time::Duration;

/// Who speaks to whom: the source's group and how many there are of it, the destination's group,
/// and how many there are of that.
const LINKS: [(&str, usize, &str, usize); 21] = [
    ("clients", 0, "delivery", 3),
    ("delivery", 3, "kafka", 3),
    ("generator", 2, "kafka", 3),
    ("generator", 2, "zookeeper", 3),
    ("messages", 2, "cassandra", 1),
    ("delivery", 3, "zookeeper", 3),
    ("gateway", 2, "sender", 2),
    ("delivery", 3, "messages", 2),
    ("messages", 2, "kafka", 3),
    ("messages", 2, "zookeeper", 3),
    ("generator", 2, "cassandra", 1),
    ("connections", 2, "kafka", 3),
    ("connections", 2, "cassandra", 1),
    ("allocator", 2, "zookeeper", 3),
    ("sender", 2, "kafka", 3),
    ("clients", 0, "gateway", 2),
    ("gateway", 2, "messages", 2),
    ("gateway", 2, "connections", 2),
    ("delivery", 3, "connections", 2),
    ("connections", 2, "zookeeper", 3),
    ("gateway", 2, "zookeeper", 3),
];

pub(super) fn kill(kind: ProcessKind, random: &mut Rng) -> Action {
    Action::Kill { victim: victim(kind, random), down: between(random, 500, 5_000) }
}

/// Longer than a session.
pub(super) fn pause(kind: ProcessKind, random: &mut Rng) -> Action {
    let least = SESSION.as_millis() as u64 + 2_000;
    Action::Pause { victim: victim(kind, random), lasts: between(random, least, least + 4_000) }
}

pub(super) fn kafka_restart(random: &mut Rng) -> Action {
    Action::KafkaRestart { down: between(random, 500, 5_000) }
}

/// Faults on links come in turns, so that each pair has one before any has two.
pub(super) fn link(kind: FaultKind, turn: usize, random: &mut Rng) -> Action {
    let (from, sources, to, destinations) = LINKS[turn % LINKS.len()];
    let from = match sources {
        0 => from.to_owned(),
        many => format!("{from}-{}", random.usize(1..=many)),
    };
    // Cut off from one server, a process goes to another one; cut off from all, it cannot.
    let all = matches!(to, "kafka" | "zookeeper" | "cassandra") && random.u8(0..10) < 6;
    let to = match all {
        true => to.to_owned(),
        false => format!("{to}-{}", random.usize(1..=destinations)),
    };
    Action::Link {
        kind,
        from,
        to,
        back: kind == FaultKind::OneWayCut && random.bool(),
        by: match kind {
            FaultKind::Delay => between(random, 50, 300),
            _ => Duration::ZERO,
        },
        // Some are shorter than a session, some longer.
        lasts: between(random, 3_000, 12_000),
    }
}

fn victim(kind: ProcessKind, random: &mut Rng) -> Victim {
    Victim { kind, pick: random.usize(0..6) }
}

fn between(random: &mut Rng, least_ms: u64, most_ms: u64) -> Duration {
    Duration::from_millis(random.u64(least_ms..=most_ms))
}
