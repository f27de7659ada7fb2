//! The judge: a pure function over what every client asked and was shown, in the manner of Jepsen's
//! analyses of Kafka and of sets. No I/O, no clock; each kind of violation is planted in a test and
//! found.
//!
//! What it may conclude rests on three things only. One clock for all clients: what was answered
//! before something else was asked came before it. The log: what stands at a place of a chat, or at
//! a position of a user, stands there for everybody and for ever. And the rules of the contract:
//! `facts` knows who may see a place, and what a block hides.

mod chats;
mod clients;
mod facts;
mod reads;
#[cfg(test)]
mod tests;

use crate::history::Evidence;
use facts::Facts;
use serde::Serialize;
use std::{collections::BTreeMap, fmt::Display};

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// Accepted, or shown to somebody, and missing where it must be: at a device, in a history, in
    /// an inbox; each place counted. Also: rejected or hidden without a reason.
    Lost,
    /// Shown twice to a device at different positions, or a message at two places of its chat.
    Duplicated,
    /// Something else at the same place or position than somebody else was shown; two answers about
    /// one message.
    Disagree,
    /// A number that a chat never used.
    Holes,
    /// A chat's numbers go back on a device; a message ordered before one that was accepted before
    /// it was asked.
    OutOfOrder,
    /// What nobody asked for, or not so, or what was refused.
    Phantom,
    /// Shown to somebody who was no member at its place, or in another chat than it was sent to.
    WrongChat,
    /// Shown, though it lies between a block and its lifting.
    ShownAfterBlock,
    /// A position at or below one that the device was shown already; `resync`, where nothing can
    /// have expired.
    PositionsBack,
    /// Asked, and neither accepted nor refused to the end.
    Unsettled,
    /// More than one rejection for one message.
    RejectedTwice,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 11] = [
        Self::Lost,
        Self::Duplicated,
        Self::Disagree,
        Self::Holes,
        Self::OutOfOrder,
        Self::Phantom,
        Self::WrongChat,
        Self::ShownAfterBlock,
        Self::PositionsBack,
        Self::Unsettled,
        Self::RejectedTwice,
    ];
}

/// Something that is wrong.
#[derive(Clone, Debug)]
pub struct Violation {
    /// What it is.
    pub kind: Kind,
    /// The time of the record that shows it: faults near it are suspects.
    pub at_us: u64,
    /// The offending records, for people.
    pub text: String,
}

/// What the evidence says.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// How often what is wrong; every kind is there.
    pub violations: BTreeMap<Kind, u64>,
    /// The first few of each kind.
    pub examples: Vec<Violation>,
    /// How the sends went.
    pub sends: Sends,
    /// Reads that failed to the end.
    pub unread: u64,
}

/// How the sends went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sends {
    /// Given to a client.
    pub asked: u64,
    /// Accepted, sooner or later.
    pub accepted: u64,
    /// Refused, and never accepted.
    pub refused: u64,
    /// Accepted, and then rejected by the chat.
    pub rejected: u64,
    /// In doubt for a while: the connection ended, or the client gave up, before the answer.
    pub unknown: u64,
    /// Of those: accepted or refused in the end.
    pub unknown_settled: u64,
}

/// Examples of each kind that are kept.
const EXAMPLES_MAX: u64 = 10;

impl Verdict {
    /// All violations together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.violations.values().sum()
    }

    /// How often.
    #[must_use]
    pub fn of(&self, kind: Kind) -> u64 {
        self.violations.get(&kind).copied().unwrap_or_default()
    }

    fn add(&mut self, kind: Kind, at_us: u64, text: impl Display) {
        let count = self.violations.entry(kind).or_default();
        *count += 1;
        if *count <= EXAMPLES_MAX {
            self.examples.push(Violation { kind, at_us, text: text.to_string() });
        }
    }
}

/// Judges a run. Clients that noted nothing and reads that were not made are left out, so that a
/// run can be judged while it goes on: what is still under way is `Lost` or `Unsettled` then.
#[must_use]
pub fn judge(evidence: &Evidence) -> Verdict {
    let mut verdict = Verdict {
        violations: Kind::ALL.into_iter().map(|kind| (kind, 0)).collect(),
        ..Verdict::default()
    };
    let facts = Facts::new(evidence, &mut verdict);
    clients::judge(&facts, &mut verdict);
    chats::judge(&facts, &mut verdict);
    reads::judge(&facts, &mut verdict);
    verdict
}
