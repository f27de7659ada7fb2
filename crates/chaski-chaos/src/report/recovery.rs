//! How long it took until clients were served again, by what had been done to the system. A fault is
//! *alone* where no other one went on beside it or shortly before: what it did is its own then.
//!
//! Must not know: how a fault is injected, and which times are good enough.

use super::times::{Gap, There};
use crate::{
    fault::{FaultKind, FaultRecord},
    history::{Ask, ClientHistory, Entry, Evidence},
    judge::Violation,
};
use chaski::replay::Percentiles;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};

/// What a time is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Cause {
    /// From the kill of a delivery host to the `welcome` of each client that it had.
    KilledHost,
    /// The same, of kills that were alone.
    KilledHostAlone,
    /// From the last frame of a draining delivery host to the next `welcome`.
    DrainedHost,
    /// From the beginning of a delivery host's pause, or the last frame heard after that, to the next
    /// `welcome`, of clients that lost their connection until it was back.
    PausedHost,
    /// The same, of pauses that were alone.
    PausedHostAlone,
    /// Sends that were open when a broker was killed or asked within the next ten seconds: from then
    /// on, or from being asked, to `messageAccepted`.
    KilledBrokerSends,
    /// The same, of kills that were alone.
    KilledBrokerSendsAlone,
    /// The same, where all brokers were killed.
    KafkaRestartSends,
}

/// How long it took until clients were served again.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Recovery {
    /// In milliseconds; what did not happen is not there.
    pub times_ms: BTreeMap<Cause, Percentiles>,
    /// Pauses, longer than a session, of processes that own something.
    pub owners_paused: u64,
    /// Violations (of those that are kept as examples) during such a pause or soon after it.
    pub stale_effects: u64,
    /// In microseconds: what the percentiles are of.
    #[serde(skip)]
    samples_us: BTreeMap<Cause, Vec<u64>>,
}

/// The clients of a killed host lose their connections at once.
const AT_ONCE_US: u64 = 2_000_000;
/// How long a send that is asked after a broker's end may still be held up by it.
const HELD_UP_US: u64 = 10_000_000;
/// A fault that ended longer ago is over.
const OVER_US: u64 = 5_000_000;
/// Of the kinds of processes, those that own partitions or lead.
const OWNERS: [&str; 5] = ["generator", "delivery", "messages", "connections", "allocator-leader"];

impl Recovery {
    pub(super) fn of(
        evidence: &Evidence,
        faults: &[FaultRecord],
        examples: &[Violation],
        aftermath_us: u64,
    ) -> Self {
        let mut recovery = Self::default();
        let gaps: Vec<Gap> = evidence.clients.iter().flat_map(gaps).collect();
        let sends: Vec<(u64, u64)> = evidence.clients.iter().flat_map(sends).collect();
        for fault in faults {
            recovery.fault(fault, is_alone(fault, faults), &gaps, &sends);
        }
        let is_pause =
            |f: &&FaultRecord| f.kind == FaultKind::Pause && OWNERS.contains(&f.process.as_str());
        let pauses: Vec<_> = faults.iter().filter(is_pause).collect();
        recovery.owners_paused = pauses.len() as u64;
        let near = |found: &&Violation| {
            let near =
                |f: &&FaultRecord| (f.from_us..=f.until_us + aftermath_us).contains(&found.at_us);
            pauses.iter().any(near)
        };
        recovery.stale_effects = examples.iter().filter(near).count() as u64;
        recovery.sum_up();
        recovery
    }

    /// Several runs as one.
    pub(super) fn together<'a>(all: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut together = Self::default();
        for one in all {
            together.owners_paused += one.owners_paused;
            together.stale_effects += one.stale_effects;
            for (cause, samples) in &one.samples_us {
                together.samples_us.entry(*cause).or_default().extend(samples);
            }
        }
        together.sum_up();
        together
    }

    fn fault(&mut self, fault: &FaultRecord, alone: bool, gaps: &[Gap], sends: &[(u64, u64)]) {
        let from_us = fault.from_us;
        let group = fault.process.split('-').next().unwrap_or_default();
        match (fault.kind, group) {
            (FaultKind::Kill, "delivery") => {
                let its = |gap: &&Gap| {
                    !gap.is_orderly && (from_us..from_us + AT_ONCE_US).contains(&gap.noted_us)
                };
                let waits = gaps.iter().filter(its).map(|gap| gap.until_us - from_us);
                self.add((Cause::KilledHost, Cause::KilledHostAlone), alone, waits);
            }
            (FaultKind::Pause, "delivery") => {
                let until_us = fault.until_us + AT_ONCE_US;
                let its = |gap: &&Gap| (from_us..until_us).contains(&gap.noted_us);
                let waits = gaps.iter().filter(its);
                let waits = waits.map(|gap| gap.until_us - from_us.max(gap.heard_us));
                self.add((Cause::PausedHost, Cause::PausedHostAlone), alone, waits);
            }
            (FaultKind::RollingRestart, _) => {
                for part in fault.parts.iter().filter(|part| part.name.starts_with("delivery")) {
                    let drains = part.from_us..part.until_us + AT_ONCE_US / 4;
                    let its = |gap: &&Gap| gap.is_orderly && drains.contains(&gap.noted_us);
                    let waits = gaps.iter().filter(its).map(|gap| gap.until_us - gap.heard_us);
                    self.samples_us.entry(Cause::DrainedHost).or_default().extend(waits);
                }
            }
            (FaultKind::Kill, "kafka") => {
                let waits = held_up(from_us, sends);
                let causes = (Cause::KilledBrokerSends, Cause::KilledBrokerSendsAlone);
                self.add(causes, alone, waits);
            }
            (FaultKind::KafkaRestart, _) => {
                let waits = held_up(from_us, sends);
                self.samples_us.entry(Cause::KafkaRestartSends).or_default().extend(waits);
            }
            _ => {}
        }
    }

    fn add(&mut self, causes: (Cause, Cause), alone: bool, waits: impl Iterator<Item = u64>) {
        let waits: Vec<u64> = waits.collect();
        if alone {
            self.samples_us.entry(causes.1).or_default().extend(&waits);
        }
        self.samples_us.entry(causes.0).or_default().extend(waits);
    }

    fn sum_up(&mut self) {
        for (cause, samples) in self.samples_us.iter().filter(|(_, samples)| !samples.is_empty()) {
            let mut us = Histogram::<u64>::new_with_bounds(1, 3_600_000_000, 3)
                .expect("the bounds are in order");
            samples.iter().for_each(|sample| us.saturating_record(*sample));
            self.times_ms.insert(*cause, (&us).into());
        }
    }

    /// A line for each, for people.
    pub(super) fn lines(&self) -> Vec<String> {
        let time = |(cause, ms): (&Cause, &Percentiles)| format!("{:<24} {ms}", super::name(cause));
        let mut lines: Vec<String> = self.times_ms.iter().map(time).collect();
        if self.owners_paused > 0 {
            let (paused, stale) = (self.owners_paused, self.stale_effects);
            lines.push(format!("{:<24} {paused}, stale effects {stale}", "ownersPaused"));
        }
        lines
    }
}

fn held_up(from_us: u64, sends: &[(u64, u64)]) -> impl Iterator<Item = u64> {
    let its =
        move |(asked, accepted): &&(u64, u64)| *accepted > from_us && *asked < from_us + HELD_UP_US;
    sends.iter().filter(its).map(move |(asked, accepted)| accepted - from_us.max(*asked))
}

fn is_alone(fault: &FaultRecord, faults: &[FaultRecord]) -> bool {
    let is_it = |f: &FaultRecord| (f.from_us, &f.name) == (fault.from_us, &fault.name);
    let beside = |f: &&FaultRecord| {
        f.from_us < fault.until_us && fault.from_us < f.until_us + OVER_US && !is_it(f)
    };
    !faults.iter().any(|f| beside(&f))
}

fn gaps(client: &ClientHistory) -> Vec<Gap> {
    let mut there = There::default();
    client.entries.iter().filter_map(|noted| there.note(noted)).collect()
}

/// When each send was asked and accepted, of clients that were meant to be there all the while.
fn sends(client: &ClientHistory) -> Vec<(u64, u64)> {
    let mut there = There::default();
    let mut asked: HashMap<u32, u64> = HashMap::new();
    let mut sends = Vec::new();
    for noted in &client.entries {
        there.note(noted);
        match noted.entry {
            Entry::Invoked { ask: Ask::Send { message } } => {
                asked.entry(message).or_insert(noted.at_us);
            }
            Entry::Accepted { ask: Ask::Send { message }, .. } => {
                let at_us = asked.remove(&message).filter(|at| there.since(*at));
                sends.extend(at_us.map(|at_us| (at_us, noted.at_us)));
            }
            _ => {}
        }
    }
    sends
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fault::Part, history::Noted, judge::Kind};

    const S: u64 = 1_000_000;

    fn fault(kind: FaultKind, process: &str, from_s: u64, until_s: u64) -> FaultRecord {
        FaultRecord {
            kind,
            process: process.into(),
            name: format!("{process}-1"),
            from_us: from_s * S,
            until_us: until_s * S,
            parts: Vec::new(),
        }
    }

    fn client(entries: Vec<(u64, Entry)>) -> ClientHistory {
        let noted = |(at_s, entry)| Noted { at_us: at_s * S, entry };
        ClientHistory { user: 0, entries: entries.into_iter().map(noted).collect() }
    }

    fn connected() -> Entry {
        Entry::Connected { position: 0 }
    }

    fn cut(heard_s: u64, cause: &str) -> Entry {
        Entry::Disconnected { heard_us: heard_s * S, cause: cause.into() }
    }

    /// How many, and the longest in seconds.
    #[track_caller]
    fn check(faults: &[FaultRecord], clients: Vec<ClientHistory>, expected: &[(Cause, u64, u64)]) {
        let evidence = Evidence { clients, ..Evidence::default() };
        let recovery = Recovery::of(&evidence, faults, &[], 0);
        let seconds = |ms: f64| (ms / 1000.0).round() as u64;
        let found: Vec<_> =
            recovery.times_ms.iter().map(|(c, ms)| (*c, ms.count, seconds(ms.max))).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_gap_belongs_to_the_fault_that_made_it_and_counts_from_there() {
        let lost = |heard, at, back, cause: &str| {
            client(vec![(0, connected()), (at, cut(heard, cause)), (back, connected())])
        };
        let kill = fault(FaultKind::Kill, "delivery", 10, 17);
        // One heard nothing for a while before; one was sent away by another host; one lost its
        // connection later, by something else.
        let clients = vec![
            lost(6, 11, 17, "broken"),
            lost(11, 11, 12, "moved to ws://h"),
            lost(14, 15, 40, "broken"),
        ];
        let expected = [(Cause::KilledHost, 1, 7), (Cause::KilledHostAlone, 1, 7)];
        check(std::slice::from_ref(&kill), clients.clone(), &expected);
        let beside = [kill, fault(FaultKind::Delay, "generator", 4, 9)];
        check(&beside, clients, &expected[..1]);

        let pause = fault(FaultKind::Pause, "delivery", 10, 20);
        let paused = lost(8, 19, 22, "moved to ws://h");
        let expected = [(Cause::PausedHost, 1, 12), (Cause::PausedHostAlone, 1, 12)];
        check(&[pause], vec![paused], &expected);

        let mut restart = fault(FaultKind::RollingRestart, "services", 10, 60);
        let part = |name: &str, from: u64| Part {
            name: name.into(),
            from_us: from * S,
            until_us: (from + 3) * S,
        };
        restart.parts = vec![part("delivery-1", 20), part("gateway-1", 30)];
        let drained = [lost(21, 21, 23, "the host is draining"), lost(31, 31, 39, "moved to x")];
        check(&[restart], drained.into(), &[(Cause::DrainedHost, 1, 2)]);
    }

    #[test]
    fn sends_wait_for_a_broker_from_its_end_or_from_being_asked() {
        let send = |message, asked, accepted| {
            let ask = Ask::Send { message };
            [(asked, Entry::Invoked { ask }), (accepted, Entry::Accepted { ask, id: 1 })]
        };
        // Open when it was killed; asked soon after; accepted before; asked long after.
        let mut entries = vec![(0, connected())];
        for one in [send(2, 2, 3), send(0, 9, 14), send(1, 12, 15), send(3, 30, 60)] {
            entries.extend(one);
        }
        let kill = fault(FaultKind::Kill, "kafka-leader", 10, 20);
        let expected = [(Cause::KilledBrokerSends, 2, 4), (Cause::KilledBrokerSendsAlone, 2, 4)];
        check(&[kill], vec![client(entries)], &expected);
    }

    #[test]
    fn what_is_wrong_around_the_pause_of_an_owner_is_a_stale_effect() {
        let faults = [
            fault(FaultKind::Pause, "generator", 10, 20),
            fault(FaultKind::Pause, "cassandra", 40, 50),
        ];
        let at = |s: u64| Violation { kind: Kind::Duplicated, at_us: s * S, text: String::new() };
        let recovery = Recovery::of(&Evidence::default(), &faults, &[at(9), at(24), at(45)], 5 * S);
        assert_eq!((recovery.owners_paused, recovery.stale_effects), (1, 1));
        let twice = Recovery::together([&recovery, &recovery]);
        assert_eq!((twice.owners_paused, twice.stale_effects), (2, 2));
    }
}
