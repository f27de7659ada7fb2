//! How far back the inboxes of a partition reach: the first position of each day is stored, and
//! days longer ago than inboxes keep are gone.
//!
//! Must not know: rows of inboxes, how they are forgotten.

use crate::service::MessageService;
use chaski_core::{Offset, Partition, record::UnixMs};
use chaski_ports::{InboxDay, PortError};
use parking_lot::Mutex;
use std::collections::HashMap;

pub(crate) const DAY_MS: UnixMs = 24 * 60 * 60 * 1000;

/// The day of a record, by its time: days since 1970-01-01.
pub(crate) fn day_of(at_ms: UnixMs) -> u32 {
    u32::try_from(at_ms.div_euclid(DAY_MS)).unwrap_or(0)
}

/// For how long a start that was computed does for reads by users; it only moves on.
const FRESH_MS: UnixMs = 60_000;

/// Where the inboxes of the partitions begin, as last computed.
#[derive(Default)]
pub(crate) struct InboxStarts(Mutex<HashMap<Partition, (UnixMs, Offset)>>);

impl MessageService {
    /// The first offset of a partition from which on inboxes are whole.
    pub(crate) async fn inbox_start(&self, partition: Partition) -> Result<Offset, PortError> {
        // First where it ends: what is stored after that is whole anyway.
        let end = self.progress.stored(partition).await?;
        let days = self.ports.messages.inbox_days(partition).await?;
        let now = self.ports.clock.now_ms();
        let start = inbox_start(&days, end, now, self.config.inbox_days);
        self.inbox_starts.0.lock().insert(partition, (now, start));
        Ok(start)
    }

    /// The same, as it was within the last minute.
    pub(crate) async fn recent_inbox_start(
        &self,
        partition: Partition,
    ) -> Result<Offset, PortError> {
        let known = self.inbox_starts.0.lock().get(&partition).copied();
        let now = self.ports.clock.now_ms();
        match known {
            Some((at, start)) if (0..FRESH_MS).contains(&(now - at)) => Ok(start),
            _ => self.inbox_start(partition).await,
        }
    }
}

/// The first offset from which on inboxes are whole; 0 where nothing is gone. `days` ascending,
/// `end` = where the partition is stored up to.
///
/// Records come a little out of the order of their times, so the day in which rows are being
/// forgotten now may reach into the day behind it: only what follows that one is surely whole.
/// Days that are wholly gone may lack.
pub(crate) fn inbox_start(
    days: &[InboxDay],
    end: Offset,
    now_ms: UnixMs,
    inbox_days: u32,
) -> Offset {
    let forgotten = now_ms.div_euclid(DAY_MS) - UnixMs::from(inbox_days);
    let gone = days.partition_point(|day| UnixMs::from(day.day) <= forgotten + 1);
    let (gone, kept) = days.split_at(gone);
    // A day whose first record stands before a forgotten one had a clock that was ahead.
    let behind = gone.iter().map(|day| day.first).max();
    // Nor is an older day always the earlier one: a record may come long after its time.
    let kept = kept.iter().filter(|day| behind.is_none_or(|gone| day.first > gone));
    let start = kept.min_by_key(|day| day.first);
    start.and_then(|day| day.first.first_offset_after()).map_or(end, |next| Offset(next.0 - 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use chaski_core::{Partition, Position};

    #[test]
    fn l5_what_may_be_forgotten_is_before_the_start() {
        #[track_caller]
        fn check(days: &[(u32, u64)], today: u32, expected: u64) {
            let day = |(day, offset): &(u32, u64)| InboxDay {
                partition: Partition(0),
                day: *day,
                first: Position::at(Offset(*offset)),
            };
            let days: Vec<_> = days.iter().map(day).collect();
            let noon = UnixMs::from(today) * DAY_MS + DAY_MS / 2;
            assert_eq!(inbox_start(&days, Offset(900), noon, 30), Offset(expected));
        }
        let days = [(100, 0), (101, 50), (102, 80)];
        check(&days, 102, 0);
        check(&days, 128, 0);
        // At noon of day 130 the morning of day 100 is gone, and what came late in it may stand
        // in day 101.
        check(&days, 129, 50);
        check(&days, 130, 80);
        check(&days, 131, 900);
        // The days that are gone lack.
        check(&days[1..], 130, 80);
        check(&[], 130, 900);
        check(&[(0, 0)], 3, 0);
        // A record came twelve days after its time: nothing is gone for that.
        check(&[(90, 70), (102, 0)], 102, 0);
        // A clock was ahead: its day begins among days that are gone.
        check(&[(100, 10), (101, 50), (102, 30), (103, 80)], 130, 80);
    }
}
