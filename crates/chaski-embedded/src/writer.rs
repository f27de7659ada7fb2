//! The one thread that writes. It takes all that waits (bounded), lets each job decide and write
//! into one batch, commits that with one sync, publishes the records, and settles the jobs.
//!
//! After a failed commit nothing more can be promised, so the thread ends: what it held is
//! `Unknown` to whoever waits, all later calls are `Unavailable`, and a restart recovers.
//!
//! Must not know: what the rows mean.

use crate::{
    keys::{self, Key},
    tables::{self, Tables},
    tail::{PartitionLog, Recorded},
    values,
};
use bytes::Bytes;
use chaski_core::Offset;
use chaski_ports::PortError;
use fjall::{Keyspace, OwnedWriteBatch};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Instant,
};
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Most jobs of one commit: bounds how long the first of them waits for the last.
const COMMIT_JOBS_MAX: usize = 8_192;
/// Most bytes of one commit, roughly: the job that passes it is the last one.
const COMMIT_BYTES_MAX: u64 = 8 << 20;

/// Tells a job how its commit went.
pub(crate) type Settle = Box<dyn FnOnce(Result<(), PortError>) + Send>;

/// Something to write.
pub(crate) enum Job {
    /// A record, encoded.
    Append {
        partition: Arc<PartitionLog>,
        record: Bytes,
        settle: oneshot::Sender<Result<Offset, PortError>>,
    },
    /// A change of the other tables.
    Write(Box<dyn FnOnce(&mut Transaction<'_>) -> Settle + Send>),
}

/// A job with what it took from the budget.
pub(crate) struct Queued {
    pub(crate) job: Job,
    pub(crate) cost: u32,
}

/// What a commit will write. Rows written earlier in the same commit are seen.
pub(crate) struct Transaction<'a> {
    /// To read the other tables as they are committed.
    pub(crate) tables: &'a Tables,
    batch: OwnedWriteBatch,
    rows: HashMap<Key, Option<Bytes>>,
}

impl<'a> Transaction<'a> {
    fn new(tables: &'a Tables) -> Self {
        Self { tables, batch: tables.batch(), rows: HashMap::new() }
    }

    /// A row as this commit leaves it.
    pub(crate) fn row(&self, key: &[u8]) -> Result<Option<Bytes>, PortError> {
        match self.rows.get(key) {
            Some(row) => Ok(row.clone()),
            None => tables::get(&self.tables.rows, key),
        }
    }

    /// Writes a row.
    pub(crate) fn put_row(&mut self, key: Key, value: Bytes) {
        self.rows.insert(key, Some(value));
    }

    /// Removes a row.
    pub(crate) fn remove_row(&mut self, key: Key) {
        self.rows.insert(key, None);
    }

    /// Writes a row unless the stored one is at least as great in its first `by` bytes. Gives
    /// whether it did.
    pub(crate) fn put_greater(
        &mut self,
        key: Key,
        value: Bytes,
        by: usize,
    ) -> Result<bool, PortError> {
        let old = self.row(&key)?;
        let greater = old.is_none_or(|old| old.get(..by) < value.get(..by));
        if greater {
            self.put_row(key, value);
        }
        Ok(greater)
    }

    /// Writes into a table that no decision reads back before the commit.
    pub(crate) fn put(&mut self, table: &Keyspace, key: Key, value: Bytes) {
        self.batch.insert(table, key, value);
    }

    /// Commits and syncs. A row is written once however often it changed: all of a batch has one
    /// sequence number, so the order of two writes of one key would not count.
    fn commit(mut self) -> fjall::Result<()> {
        let rows = &self.tables.rows;
        for (key, row) in self.rows {
            match row {
                Some(value) => self.batch.insert(rows, key, value),
                None => self.batch.remove(rows, key),
            }
        }
        self.batch.commit()
    }

    /// Removes from a table that no decision reads back before the commit.
    pub(crate) fn remove(&mut self, table: &Keyspace, key: Key) {
        self.batch.remove(table, key);
    }
}

/// The writer thread's own things.
pub(crate) struct Writer {
    tables: Tables,
    budget: Arc<Semaphore>,
    gaps: Gaps,
}

/// What waits for one commit.
#[derive(Default)]
struct Commit {
    jobs: usize,
    cost: u64,
    appends: Vec<(oneshot::Sender<Result<Offset, PortError>>, Offset)>,
    published: BTreeMap<(u8, u32), (Arc<PartitionLog>, Vec<Recorded>)>,
    settles: Vec<Settle>,
}

impl Writer {
    /// A writer that gives `budget` back what its jobs took.
    pub(crate) fn new(tables: Tables, budget: Arc<Semaphore>, gap_seed: u64) -> Self {
        Self { tables, budget, gaps: Gaps(gap_seed) }
    }

    /// Writes until nobody can send any more, or until the disk fails.
    pub(crate) fn run(mut self, mut queue: mpsc::Receiver<Queued>) {
        let _close = CloseOnDrop(Arc::clone(&self.budget));
        let tables = self.tables.clone();
        while let Some(first) = queue.blocking_recv() {
            let mut commit = Commit::default();
            let mut tx = Transaction::new(&tables);
            self.take(first, &mut tx, &mut commit);
            while commit.jobs < COMMIT_JOBS_MAX
                && commit.cost < COMMIT_BYTES_MAX
                && let Ok(next) = queue.try_recv()
            {
                self.take(next, &mut tx, &mut commit);
            }
            let begun = Instant::now();
            if let Err(error) = tx.commit() {
                tracing::error!(%error, "commit failed; nothing more is written until a restart");
                return;
            }
            metrics::histogram!("chaski_embedded_commit_seconds").record(begun.elapsed());
            metrics::counter!("chaski_embedded_jobs_total").increment(commit.jobs as u64);
            self.settle(commit);
        }
    }

    fn take(&mut self, queued: Queued, tx: &mut Transaction<'_>, commit: &mut Commit) {
        commit.jobs += 1;
        commit.cost += u64::from(queued.cost);
        match queued.job {
            Job::Write(change) => commit.settles.push(change(tx)),
            Job::Append { partition, record, settle } => {
                let offset = partition.assign(self.gaps.next());
                let key = keys::log_record(partition.topic, partition.partition, offset);
                let read = values::log_record(offset, &record)
                    .expect("admission encoded it with the inverse of this");
                let size = record.len();
                tx.put(&self.tables.log, key, record);
                commit.appends.push((settle, offset));
                commit
                    .published
                    .entry((keys::topic_code(partition.topic), partition.partition.0))
                    .or_insert_with(|| (partition, Vec::new()))
                    .1
                    .push((read, size));
            }
        }
    }

    fn settle(&self, commit: Commit) {
        for (partition, records) in commit.published.into_values() {
            partition.publish(records);
        }
        // Whoever dropped its end does not want to know.
        for (settle, offset) in commit.appends {
            let _ = settle.send(Ok(offset));
        }
        for settle in commit.settles {
            settle(Ok(()));
        }
        let cost = usize::try_from(commit.cost).expect("below the budget, a u32");
        self.budget.add_permits(cost);
    }
}

/// Whoever waits for room learns that there will be none, also after a panic.
struct CloseOnDrop(Arc<Semaphore>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// How many offsets to leave out before each record: 1 in 16 times 1-3, so that nobody counts on
/// dense offsets. The same seed gives the same gaps (splitmix64).
struct Gaps(u64);

impl Gaps {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        if mixed.is_multiple_of(16) { 1 + (mixed >> 32) % 3 } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_rare_small_and_repeatable() {
        let run = || {
            let mut gaps = Gaps(7);
            (0..16_000).map(|_| gaps.next()).collect::<Vec<_>>()
        };
        assert_eq!(run(), run());
        assert!(run().iter().all(|gap| *gap <= 3));
        let some = run().iter().filter(|gap| **gap > 0).count();
        assert!((800..1_200).contains(&some), "1 in 16, got {some}");
    }
}
