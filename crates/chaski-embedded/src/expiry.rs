//! What is forgotten: verdicts, inbox rows and items that have ended, a few whenever new ones are written, so that no
//! write waits for a great removal and there are never many more rows than are kept.

use crate::{
    keys::{self, Key},
    tables, values,
    writer::Transaction,
};
use bytes::Bytes;
use chaski_core::record::UnixMs;
use chaski_ports::{Clock, PortError};
use parking_lot::Mutex;
use std::{ops::Bound, sync::Arc, time::Duration};

/// How long a verdict is kept at least, by the clock and the record's time.
const VERDICT_KEPT_MS: UnixMs = 15 * 60 * 1_000;
/// A day of the records' time.
pub(crate) const DAY_MS: UnixMs = 24 * 3_600 * 1_000;
/// How often all inboxes are gone through, where the life of their rows is longer.
const SWEEP_MS: UnixMs = DAY_MS;

/// Forgets old verdicts. By an index of their ages: most of them are old at any time.
#[derive(Clone)]
pub(crate) struct VerdictExpiry {
    clock: Arc<dyn Clock>,
    /// All ages up to this key are forgotten: a scan must not meet them again as tombstones.
    upto: Arc<Mutex<Key>>,
}

impl VerdictExpiry {
    /// Forgets what is old by this clock.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        let upto = Arc::new(Mutex::new(keys::verdict_ages(0)));
        Self { clock, upto }
    }

    pub(crate) fn forget_some(
        &self,
        tx: &mut Transaction<'_>,
        most: usize,
    ) -> Result<(), PortError> {
        let mut forgotten = self.upto.lock();
        let old = keys::verdict_ages(self.clock.now_ms() - VERDICT_KEPT_MS);
        if *forgotten >= old {
            return Ok(());
        }
        let tables = tx.tables;
        let mut last = None;
        for pair in tables::range(&tables.rows, &forgotten[..]..&old[..]).take(most) {
            let (age, _) = pair?;
            if let Some(request) = age.last_chunk() {
                tx.remove_row(keys::verdict(request));
            }
            tx.remove_row(age.to_vec());
            last = Some(age.to_vec());
        }
        if let Some(last) = last {
            *forgotten = last;
        }
        Ok(())
    }
}

/// Empties items whose end has come, by an index of their ends; few chats have a limit.
#[derive(Clone)]
pub(crate) struct ItemExpiry {
    clock: Arc<dyn Clock>,
    /// All ends up to this key are done: a scan must not meet them again as tombstones.
    upto: Arc<Mutex<Key>>,
}

impl ItemExpiry {
    /// Empties what has ended by this clock.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, upto: Arc::new(Mutex::new(keys::item_ends(0))) }
    }

    pub(crate) fn now_ms(&self) -> UnixMs {
        self.clock.now_ms()
    }

    /// Writes an item; one that has ended (a replay writes it again) only as its place.
    pub(crate) fn put(&self, tx: &mut Transaction<'_>, message: Key, row: (Bytes, Option<UnixMs>)) {
        let tables = tx.tables;
        let (mut value, ends) = row;
        if let Some(ends) = ends {
            if ends <= self.now_ms() {
                value = values::item(0, Some(ends), &[]);
            } else {
                tx.put_row(keys::item_end(ends, &message), Bytes::new());
            }
        }
        tx.put(&tables.messages, message, value);
    }

    pub(crate) fn empty_some(
        &self,
        tx: &mut Transaction<'_>,
        most: usize,
    ) -> Result<(), PortError> {
        let mut done = self.upto.lock();
        let old = keys::item_ends(self.now_ms());
        if *done >= old {
            return Ok(());
        }
        let tables = tx.tables;
        let mut last = None;
        for pair in tables::range(&tables.rows, &done[..]..&old[..]).take(most) {
            let (end, _) = pair?;
            if let Some(message) = keys::ended(&end) {
                // Over for good, whenever it was.
                tx.put(&tables.messages, message.to_vec(), values::item(0, Some(0), &[]));
            }
            tx.remove_row(end.to_vec());
            last = Some(end.to_vec());
        }
        if let Some(last) = last {
            *done = last;
        }
        Ok(())
    }
}

/// Forgets old inbox rows. Without an index, which would double what the busiest table costs: a
/// sweep goes from inbox to inbox, takes the old rows at the beginning of each, and begins anew a
/// day after it began.
#[derive(Clone)]
pub(crate) struct InboxExpiry {
    clock: Arc<dyn Clock>,
    life_ms: UnixMs,
    sweep: Arc<Mutex<Sweep>>,
}

#[derive(Default)]
struct Sweep {
    /// Before this there is no sweep.
    next_ms: UnixMs,
    /// Where the present one goes on.
    from: Option<Key>,
}

impl InboxExpiry {
    /// Forgets what is older than `life` by this clock.
    pub(crate) fn new(clock: Arc<dyn Clock>, life: Duration) -> Self {
        let life_ms = UnixMs::try_from(life.as_millis()).unwrap_or(UnixMs::MAX);
        Self { clock, life_ms, sweep: Arc::default() }
    }

    /// Records of before this are forgotten.
    pub(crate) fn kept_since(&self) -> UnixMs {
        self.clock.now_ms().saturating_sub(self.life_ms)
    }

    /// The first day that is not yet being forgotten.
    pub(crate) fn first_day(&self) -> u32 {
        let days = self.kept_since().max(0).cast_unsigned().div_ceil(DAY_MS.unsigned_abs());
        u32::try_from(days).unwrap_or(u32::MAX)
    }

    /// Goes on with the sweep for so many steps: rows removed, inboxes looked at.
    pub(crate) fn forget_some(
        &self,
        tx: &mut Transaction<'_>,
        mut steps: usize,
    ) -> Result<(), PortError> {
        let (now, since) = (self.clock.now_ms(), self.kept_since());
        let mut sweep = self.sweep.lock();
        if sweep.from.is_none() {
            if now < sweep.next_ms {
                return Ok(());
            }
            sweep.next_ms = now.saturating_add(SWEEP_MS.min(self.life_ms));
            sweep.from = Some(Key::new());
        }
        let inbox = &tx.tables.inbox;
        while steps > 0
            && let Some(from) = sweep.from.take()
        {
            let mut pairs = tables::range(inbox, (Bound::Excluded(&from[..]), Bound::Unbounded));
            while steps > 0
                && let Some(pair) = pairs.next()
            {
                let (key, stored) = pair?;
                steps -= 1;
                if values::stamp(&stored).ok_or_else(|| tables::corrupt("row"))? < since {
                    sweep.from = Some(key.to_vec());
                    tx.remove(inbox, key.into());
                } else {
                    // The rest of this inbox is younger.
                    let end = keys::inbox_end(&key).ok_or_else(|| tables::corrupt("place"))?;
                    sweep.from = Some(end);
                    break;
                }
            }
        }
        Ok(())
    }

    /// Writes the first position of a day where there is no lower one, and forgets the days of
    /// its partition that are over.
    pub(crate) fn put_day(
        &self,
        tx: &mut Transaction<'_>,
        day: &chaski_ports::InboxDay,
    ) -> Result<(), PortError> {
        if day.day < self.first_day() {
            return Ok(());
        }
        let key = keys::inbox_day(day.partition, day.day);
        let stored = tx.row(&key)?.and_then(|stored| values::number(&stored));
        if stored.is_none_or(|first| day.first.0 < first) {
            tx.put_row(key, Bytes::copy_from_slice(&day.first.0.to_be_bytes()));
        }
        let (all, kept) =
            (keys::inbox_days(day.partition), keys::inbox_day(day.partition, self.first_day()));
        let tables = tx.tables;
        for pair in tables::range(&tables.rows, &all[..]..&kept[..]) {
            tx.remove_row(pair?.0.to_vec());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::{Embedded, EmbeddedOptions};
    use chaski_core::{Offset, Partition, Position, UserId};
    use chaski_ports::{Clock, InboxDay, InboxRow, StoreBatch};
    use std::{
        sync::{
            Arc,
            atomic::{AtomicI64, Ordering},
        },
        time::Duration,
    };

    const DAYS: u64 = 5;
    const USERS: u64 = 10;

    /// The day it is.
    struct Day(AtomicI64);

    impl Clock for Day {
        fn now_ms(&self) -> i64 {
            self.0.load(Ordering::SeqCst) * super::DAY_MS
        }
    }

    /// What one day brings: two rows for each user, in two partitions, one batch for each row.
    async fn live_through(embedded: &Embedded, day: i64) {
        for n in 0..2 * USERS {
            let partition = Partition((n % 2) as u32);
            let position = Position::at(Offset(day.unsigned_abs() * 1_000 + n));
            let at_ms = day * super::DAY_MS;
            let day = u32::try_from(day).unwrap();
            let user: UserId = format!("user{}", n % USERS).parse().unwrap();
            let batch = StoreBatch {
                inbox: vec![InboxRow { partition, user, position, event: "x".into(), at_ms }],
                days: vec![InboxDay { partition, day, first: position }],
                ..StoreBatch::default()
            };
            embedded.messages().write(batch).await.unwrap();
        }
    }

    async fn given(embedded: &Embedded, user: &str) -> usize {
        let (user, mut rows) = (user.parse().unwrap(), 0);
        for partition in [0, 1].map(Partition) {
            let all = (Position::BEGINNING, Position(u64::MAX >> 1));
            rows += embedded.messages().inbox(partition, &user, all, 1_000).await.unwrap().len();
        }
        rows
    }

    #[tokio::test]
    async fn old_inbox_rows_and_days_are_removed_while_new_ones_come() {
        let (directory, day) = (tempfile::tempdir().unwrap(), Arc::new(Day(AtomicI64::new(1_000))));
        let open = || {
            let inbox_ttl = Duration::from_secs(DAYS * 24 * 3_600);
            let clock = Arc::clone(&day) as Arc<dyn Clock>;
            let options = EmbeddedOptions { inbox_ttl, clock, ..EmbeddedOptions::default() };
            Embedded::open(directory.path(), options).unwrap()
        };
        let stored = |embedded: &Embedded| {
            let tables = embedded.0.engine.tables();
            let days = crate::tables::prefix(&tables.rows, b"Y").count();
            (tables.inbox.iter().count(), days)
        };
        let mut embedded = open();
        for today in 1_000..1_020 {
            day.0.store(today, Ordering::SeqCst);
            live_through(&embedded, today).await;
            if today == 1_010 {
                drop(embedded);
                embedded = open();
            }
            // A row of just so many days ago is still kept.
            let lived = usize::try_from(today - 999).unwrap().min(DAYS as usize + 1);
            assert_eq!(given(&embedded, "user7").await, 2 * lived, "on day {today}");
            let (rows, days) = stored(&embedded);
            let most = 2 * USERS as usize * (lived + 1);
            assert!(rows <= most, "{rows} rows on day {today}, {most} are well");
            assert_eq!(days, 2 * lived, "on day {today}");
        }
        // Whoever was away for long finds nothing, before it is removed and after.
        day.0.store(1_200, Ordering::SeqCst);
        assert_eq!(given(&embedded, "user7").await, 0);
        assert_eq!(embedded.messages().inbox_days(Partition(0)).await.unwrap(), []);
        for today in 1_200..1_210 {
            day.0.store(today, Ordering::SeqCst);
            live_through(&embedded, today).await;
        }
        assert!(stored(&embedded).0 <= 2 * USERS as usize * (DAYS as usize + 2));
    }
}
