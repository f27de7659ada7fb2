//! What the partitions that run here do and cost, and how far their readers have come. Workers and
//! sessions write it down; whoever shows or tells it reads it.
//!
//! The cost is an estimate in CPU time: so much for each record, for each frame. The machine does not
//! tell which partition its time went to, and an estimate that is wrong by a factor is wrong by the
//! same factor on every host of the role; only those are compared.
//!
//! Must not know: what a record is, where the log ends, who compares.

use chaski_core::{Offset, Partition, record::UnixMs};
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

/// The next offset of a partition without a reader.
const NOWHERE: u64 = u64::MAX;

/// The partitions that run in one role of this process. Clones share them.
#[derive(Clone)]
pub struct Work {
    role: &'static str,
    running: Arc<Mutex<BTreeMap<Partition, Weak<Tally>>>>,
}

/// What one partition did and cost here, since somebody began to hold this.
pub struct Tally {
    shown: metrics::Counter,
    records: AtomicU64,
    spent_ns: AtomicU64,
    next: AtomicU64,
    at_ms: AtomicI64,
}

/// How a [`Tally`] stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// Records taken.
    pub records: u64,
    /// What all cost.
    pub spent: Duration,
    /// Where its reader stands, once there is one.
    pub next: Option<Offset>,
    /// The time of the last record taken.
    pub at_ms: UnixMs,
}

impl Work {
    /// Of the role of this name; nothing runs yet.
    #[must_use]
    pub fn new(role: &'static str) -> Self {
        Self { role, running: Arc::default() }
    }

    /// The partition's tally: the one that is held by others already, else a new one. The partition
    /// counts as running here while somebody holds it.
    #[must_use]
    pub fn tally(&self, partition: Partition) -> Arc<Tally> {
        let mut running = self.running.lock();
        if let Some(tally) = running.get(&partition).and_then(Weak::upgrade) {
            return tally;
        }
        let name = partition.to_string();
        let tally = Arc::new(Tally {
            shown: metrics::counter!("chaski_partition_records_total", "role" => self.role, "partition" => name),
            records: AtomicU64::new(0),
            spent_ns: AtomicU64::new(0),
            next: AtomicU64::new(NOWHERE),
            at_ms: AtomicI64::new(0),
        });
        running.insert(partition, Arc::downgrade(&tally));
        tally
    }

    /// How the partitions that run here stand.
    #[must_use]
    pub fn done(&self) -> BTreeMap<Partition, Done> {
        let mut running = self.running.lock();
        running.retain(|_, tally| tally.strong_count() > 0);
        let held = running.iter().filter_map(|(p, tally)| Some((*p, tally.upgrade()?.done())));
        held.collect()
    }

    /// Shows what the partition costs, in cores; 0 once it does not run here.
    pub fn show_load(&self, partition: Partition, cores: f64) {
        let (role, partition) = (self.role, partition.to_string());
        metrics::gauge!("chaski_partition_load_cores", "role" => role, "partition" => partition)
            .set(cores);
    }

    /// Shows how far its reader is behind the end of the log; 0 once it does not run here.
    pub fn show_lag(&self, partition: Partition, records: u64, lag: Duration) {
        let (role, partition) = (self.role, partition.to_string());
        let labels = [("role", role.to_owned()), ("partition", partition)];
        metrics::gauge!("chaski_partition_lag_records", &labels).set(records as f64);
        metrics::gauge!("chaski_partition_lag_seconds", &labels).set(lag.as_secs_f64());
    }
}

impl Tally {
    /// The partition's reader stands here.
    pub fn begin(&self, next: Offset) {
        self.next.store(next.0, Ordering::Relaxed);
    }

    /// Records were taken, which cost so much; the last of them stands before `next`, and is of this
    /// time.
    pub fn took(&self, records: usize, cost: Duration, next: Offset, at_ms: UnixMs) {
        self.shown.increment(records as u64);
        self.records.fetch_add(records as u64, Ordering::Relaxed);
        self.at_ms.store(at_ms, Ordering::Relaxed);
        self.next.store(next.0, Ordering::Relaxed);
        self.spend(cost);
    }

    /// Something else cost so much.
    pub fn spend(&self, cost: Duration) {
        self.spent_ns.fetch_add(cost.as_nanos() as u64, Ordering::Relaxed);
    }

    fn done(&self) -> Done {
        let next = self.next.load(Ordering::Relaxed);
        Done {
            records: self.records.load(Ordering::Relaxed),
            spent: Duration::from_nanos(self.spent_ns.load(Ordering::Relaxed)),
            next: (next != NOWHERE).then_some(Offset(next)),
            at_ms: self.at_ms.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_runs_here_while_somebody_holds_its_tally() {
        let work = Work::new("test");
        let (feed, session) = (work.tally(Partition(3)), work.tally(Partition(3)));
        assert_eq!(feed.done().next, None, "no reader yet");
        feed.begin(Offset(7));
        assert_eq!(feed.done().next, Some(Offset(7)));
        feed.took(2, Duration::from_micros(20), Offset(9), 1_000);
        session.spend(Duration::from_micros(5));
        let done = Done {
            records: 2,
            spent: Duration::from_micros(25),
            next: Some(Offset(9)),
            at_ms: 1_000,
        };
        assert_eq!(work.done(), [(Partition(3), done)].into());
        drop(feed);
        assert_eq!(work.done().len(), 1, "a session goes on");
        drop(session);
        assert_eq!(work.done().len(), 0);
        assert_eq!(work.tally(Partition(3)).done().next, None, "a new one begins anew");
    }
}
