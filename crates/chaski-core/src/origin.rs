//! Places in the logs, and the origin filter: how a consumer of `recipients` tells a fresh record
//! from a repeat and from a hole.

use std::{collections::BTreeMap, fmt};

/// A partition of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition(pub u32);

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A place in a partition; offsets grow but are not dense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Offset(pub u64);

impl Offset {
    /// The next place a record may stand at.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}
impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A user's resume cursor: generation of the partition map (16 bits) ‹‹ 48 | offset. It only
/// grows for one user; 0 is the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Position(pub u64);

impl Position {
    /// Before the first event.
    pub const BEGINNING: Self = Self(0);
    /// The generation that all positions carry until the map first changes.
    pub const GENERATION: u16 = 1;

    /// The position of the record at `offset` of the user's partition.
    #[must_use]
    pub fn at(offset: Offset) -> Self {
        debug_assert!(offset.0 < 1 << 48, "an offset takes 48 bits");
        Self((u64::from(Self::GENERATION) << 48) | offset.0)
    }

    /// The first offset that may hold an event after this position; `None` where the position
    /// belongs to a generation that does not exist (the client is told to `resync`).
    #[must_use]
    pub fn first_offset_after(self) -> Option<Offset> {
        match (self.0 >> 48) as u16 {
            0 if self == Self::BEGINNING => Some(Offset(0)),
            Self::GENERATION => Some(Offset((self.0 & ((1 << 48) - 1)) + 1)),
            _ => None,
        }
    }
}
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names cluster, topic and generation of a `new-messages` log; never reused. A hash of those.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceId(pub u64);

impl SourceId {
    /// The id of `topic` in `cluster`, in this generation of the partition map.
    #[must_use]
    pub fn of(cluster: &str, topic: &str, generation: u16) -> Self {
        let hash = crate::id::hash16(
            b"chaski source",
            &[cluster.as_bytes(), topic.as_bytes(), &generation.to_be_bytes()],
        );
        Self(u64::from_be_bytes(hash[..8].try_into().expect("eight of sixteen bytes")))
    }
}

/// Where an output of the fan-out came from: the `index`-th output of the record at `offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    /// Offset of the input in its `new-messages` partition.
    pub offset: Offset,
    /// Which of that input's outputs; 0 is the sender's copy.
    pub index: u32,
}

/// What the origin filter says of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Fresh: apply it.
    Apply,
    /// Already applied: skip it.
    Repeat,
    /// A record before it is missing (a lost or overtaken produce): do not apply it; the
    /// generator sends the missing ones and this one again.
    Hole,
}

/// A place in a `recipients` partition together with the highest origin seen of every source
/// partition up to there. A consumer starts only at an offset whose watermark is known (L5).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Watermark {
    /// The next offset to read.
    pub next: Offset,
    /// The highest applied origin by (source, source partition).
    pub high: BTreeMap<(SourceId, Partition), Origin>,
}

impl Watermark {
    /// The origin filter (L2, L5, L6). Moves the watermark where the record is to be applied.
    ///
    /// `prev` is the origin this incarnation of the generator last sent to the same partition,
    /// absent on its first.
    pub fn admit(
        &mut self,
        source: (SourceId, Partition),
        origin: Origin,
        prev: Option<Origin>,
    ) -> Verdict {
        let high = self.high.get(&source).copied();
        if high.is_some_and(|high| origin <= high) {
            return Verdict::Repeat;
        }
        if prev.is_some_and(|prev| high.is_none_or(|high| prev > high)) {
            return Verdict::Hole;
        }
        self.high.insert(source, origin);
        Verdict::Apply
    }

    /// Whether every effect of the input at `offset` on this partition has been applied, given
    /// that the input has at least one output here.
    #[must_use]
    pub fn has_seen(&self, source: (SourceId, Partition), offset: Offset) -> bool {
        self.high.get(&source).is_some_and(|high| high.offset >= offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: (SourceId, Partition) = (SourceId(1), Partition(0));

    fn at(offset: u64, index: u32) -> Origin {
        Origin { offset: Offset(offset), index }
    }

    #[track_caller]
    fn check(records: &[(Origin, Option<Origin>)], expected: &[Verdict]) {
        let mut mark = Watermark::default();
        let verdicts: Vec<_> = records.iter().map(|(o, p)| mark.admit(SOURCE, *o, *p)).collect();
        assert_eq!(verdicts, expected);
    }

    #[test]
    fn repeats_after_a_restart_are_skipped_and_the_chain_goes_on() {
        use Verdict::{Apply, Repeat};
        check(
            &[
                (at(1, 0), None),
                (at(2, 0), Some(at(1, 0))),
                (at(1, 0), None), // a new incarnation starts from its checkpoint
                (at(2, 0), Some(at(1, 0))),
                (at(5, 3), Some(at(2, 0))),
            ],
            &[Apply, Apply, Repeat, Repeat, Apply],
        );
    }

    #[test]
    fn a_lost_produce_is_a_hole_until_it_is_sent_again() {
        use Verdict::{Apply, Hole, Repeat};
        check(
            &[
                (at(1, 0), None),
                (at(3, 0), Some(at(2, 0))), // 2 was dropped on its way
                (at(4, 0), Some(at(3, 0))),
                (at(1, 0), None),
                (at(2, 0), Some(at(1, 0))),
                (at(3, 0), Some(at(2, 0))),
                (at(4, 0), Some(at(3, 0))),
            ],
            &[Apply, Hole, Hole, Repeat, Apply, Apply, Apply],
        );
    }

    #[test]
    fn a_zombie_ahead_or_behind_changes_nothing() {
        use Verdict::{Apply, Hole, Repeat};
        check(
            &[
                (at(1, 0), None),
                (at(9, 0), Some(at(8, 0))), // a zombie whose 8 is still on its way
                (at(8, 0), None),           // the new owner
                (at(8, 0), Some(at(7, 0))), // the zombie's 8 arrives after all
                (at(9, 0), Some(at(8, 0))),
            ],
            &[Apply, Hole, Apply, Repeat, Apply],
        );
    }

    #[test]
    fn positions_know_their_beginning_and_strangers() {
        assert_eq!(Position::BEGINNING.first_offset_after(), Some(Offset(0)));
        assert_eq!(Position::at(Offset(7)).first_offset_after(), Some(Offset(8)));
        assert_eq!(Position(7).first_offset_after(), None);
        assert_eq!(Position(9 << 48).first_offset_after(), None);
        assert!(Position::at(Offset(0)) > Position::BEGINNING);
    }
}
