//! The idempotency keys: which message was seen with which content, for at least seven days of
//! the log's time (L2). Kept by day, so that a day is forgotten as a whole.

use crate::{MessageId, record::UnixMs};
use std::collections::{BTreeMap, HashMap};

/// Days for which a key is kept at least, beside the day on which it was made.
const DAYS_KEPT: u32 = 7;
const DAY_MS: UnixMs = 24 * 60 * 60 * 1000;

/// Idempotency keys by day of the log's time (days since 1970-01-01).
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Seen {
    days: BTreeMap<u32, HashMap<MessageId, u64>>,
}

impl Seen {
    /// The content under which the message was seen, where that is not forgotten.
    #[must_use]
    pub fn get(&self, id: &MessageId, now: UnixMs) -> Option<u64> {
        let oldest = day(now).saturating_sub(DAYS_KEPT);
        self.days.range(oldest..).rev().find_map(|(_, keys)| keys.get(id).copied())
    }

    /// Remembers a message; false where it was known.
    pub fn add(&mut self, id: MessageId, content: u64, now: UnixMs) -> bool {
        if self.get(&id, now).is_some() {
            return false;
        }
        let today = day(now);
        let oldest = today.saturating_sub(DAYS_KEPT);
        if self.days.first_key_value().is_some_and(|(day, _)| *day < oldest) {
            self.days = self.days.split_off(&oldest);
        }
        self.days.entry(today).or_default().insert(id, content);
        true
    }

    /// Time begins: what was seen before the first tick counts from now on.
    /// Whether there was any.
    pub(super) fn begin(&mut self, now: UnixMs) -> bool {
        let before = self.days.remove(&0);
        let any = before.is_some();
        self.days.entry(day(now)).or_default().extend(before.into_iter().flatten());
        any
    }

    /// How many keys are not forgotten, and when the day began on which the oldest was made.
    #[must_use]
    pub fn window(&self, now: UnixMs) -> (usize, Option<UnixMs>) {
        let oldest = day(now).saturating_sub(DAYS_KEPT);
        let mut kept = self.days.range(oldest..).filter(|(_, keys)| !keys.is_empty()).peekable();
        let begin = kept.peek().map(|(day, _)| UnixMs::from(**day) * DAY_MS);
        (kept.map(|(_, keys)| keys.len()).sum(), begin)
    }

    /// Puts back a day from a snapshot.
    pub fn restore(&mut self, day: u32, keys: HashMap<MessageId, u64>) {
        self.days.insert(day, keys);
    }

    /// The days and their keys, oldest first, for snapshots.
    pub fn days(&self) -> impl Iterator<Item = (u32, &HashMap<MessageId, u64>)> {
        self.days.iter().map(|(day, keys)| (*day, keys))
    }
}

fn day(now: UnixMs) -> u32 {
    u32::try_from(now / DAY_MS).unwrap_or_default()
}
