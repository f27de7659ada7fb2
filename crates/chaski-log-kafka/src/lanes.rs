//! What of a partition is given to librdkafka, and what waits in its lane for what is under way.
//!
//! Where five records of a partition or more are under way, an idempotent producer of librdkafka
//! sends no more of it, and its thread asks again without a pause until they have arrived: a core for
//! each broker while the log is slow, when it is needed most (seen in 2.12.1:
//! `rd_kafka_toppar_producer_serve` leaves with the wake-up time of a batch that is due and may not
//! be sent). So a lane gives it a few at once, and whatever came meanwhile, as one batch, when none
//! of them is left. That is how long a record waits for company, too: not at all while there is
//! little to do, for one round trip when there is much.
//!
//! Must not know: what a record says, how it is given over, and what becomes of it.

use chaski_core::Partition;
use chaski_ports::Topic;
use parking_lot::Mutex;
use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// So many of a partition may be under way one by one: librdkafka's `RD_KAFKA_IDEMP_MAX_INFLIGHT`.
const FEW: usize = 5;
/// What is given over at once, at most: less than a batch of librdkafka, and in less time than it
/// lingers, so that it is one batch.
const BATCH: usize = 250;
const BATCH_BYTES: usize = 512 * 1024;

type ByPartition<T> = HashMap<(Topic, Partition), Arc<Lane<T>>>;

/// The lanes of a producer, one for each partition it appends to.
pub(crate) struct Lanes<T> {
    lanes: Mutex<ByPartition<T>>,
    held: Arc<Held>,
    /// What has waited for longer is not given over any more.
    patience: Option<Duration>,
}

/// What all lanes hold, and may hold (L8).
struct Held {
    records: AtomicUsize,
    bytes: AtomicUsize,
    records_max: usize,
    bytes_max: usize,
}

/// One partition's.
pub(crate) struct Lane<T> {
    state: Mutex<State<T>>,
    patience: Option<Duration>,
}

struct State<T> {
    under_way: usize,
    waiting: VecDeque<Waiting<T>>,
}

struct Waiting<T> {
    record: T,
    place: Place,
    since: Instant,
}

/// That a record is held. Dropped, it is not.
pub(crate) struct Place {
    held: Arc<Held>,
    bytes: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.held.records.fetch_sub(1, Relaxed);
        self.held.bytes.fetch_sub(self.bytes, Relaxed);
    }
}

impl<T> Lanes<T> {
    pub(crate) fn new(records_max: usize, bytes_max: usize, patience: Option<Duration>) -> Self {
        let (records, bytes) = Default::default();
        let held = Arc::new(Held { records, bytes, records_max, bytes_max });
        Self { lanes: Mutex::default(), held, patience }
    }

    /// How many records are held.
    pub(crate) fn held(&self) -> usize {
        self.held.records.load(Relaxed)
    }

    /// The lane of a partition, and a place in it; `None` where no more may be held.
    pub(crate) fn enter(
        &self,
        topic: Topic,
        partition: Partition,
        bytes: usize,
    ) -> Option<(Arc<Lane<T>>, Place)> {
        let place = Place { held: Arc::clone(&self.held), bytes };
        let records = self.held.records.fetch_add(1, Relaxed);
        let held = self.held.bytes.fetch_add(bytes, Relaxed);
        if records >= self.held.records_max || held + bytes > self.held.bytes_max {
            return None; // and the place is left
        }
        let mut lanes = self.lanes.lock();
        let lane = lanes.entry((topic, partition)).or_insert_with(|| {
            let state = State { under_way: 0, waiting: VecDeque::new() };
            Arc::new(Lane { state: Mutex::new(state), patience: self.patience })
        });
        Some((Arc::clone(lane), place))
    }
}

impl<T> Lane<T> {
    /// Gives the record over, or lets it wait behind the others: the order of records is that of
    /// these calls. What `give` refuses is not held.
    pub(crate) fn add<E>(
        &self,
        record: T,
        place: Place,
        give: impl FnOnce(T, Place) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut state = self.state.lock();
        if state.under_way >= FEW || !state.waiting.is_empty() {
            state.waiting.push_back(Waiting { record, place, since: Instant::now() });
            return Ok(());
        }
        give(record, place)?;
        state.under_way += 1;
        Ok(())
    }

    /// One is not under way any more. Where it was the last one, those that wait are given over, or
    /// are `too_late`. `give` tells whether it is under way.
    pub(crate) fn settled(
        &self,
        mut give: impl FnMut(T, Place) -> bool,
        mut too_late: impl FnMut(T),
    ) {
        let mut state = self.state.lock();
        state.under_way -= 1;
        if state.under_way > 0 || state.waiting.is_empty() {
            return;
        }
        let (now, mut bytes) = (Instant::now(), 0);
        while state.under_way < BATCH && bytes < BATCH_BYTES {
            let Some(Waiting { record, place, since }) = state.waiting.pop_front() else { break };
            if self.patience.is_some_and(|patience| now.duration_since(since) > patience) {
                too_late(record);
                continue;
            }
            let size = place.bytes;
            if give(record, place) {
                state.under_way += 1;
                bytes += size;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: (Topic, Partition) = (Topic::Recipients, Partition(0));

    /// A lane, and what was given over and not settled yet.
    struct Run {
        lanes: Lanes<usize>,
        under_way: VecDeque<(usize, Place)>,
        late: Vec<usize>,
    }

    impl Run {
        fn new(records: usize, bytes: usize, patience: Option<Duration>) -> Self {
            let (under_way, late) = Default::default();
            Self { lanes: Lanes::new(records, bytes, patience), under_way, late }
        }

        fn add(&mut self, n: usize, bytes: usize) -> bool {
            let Some((lane, place)) = self.lanes.enter(P.0, P.1, bytes) else { return false };
            let give = |n, place| {
                self.under_way.push_back((n, place));
                Ok::<_, ()>(())
            };
            lane.add(n, place, give).is_ok()
        }

        /// The oldest has arrived; how many are under way then.
        fn settle(&mut self, mut takes: impl FnMut(usize) -> bool) -> usize {
            let lane = Arc::clone(&self.lanes.lanes.lock()[&P]);
            self.under_way.pop_front().unwrap();
            let (under_way, late) = (&mut self.under_way, &mut self.late);
            let give = |n, place| {
                let taken = takes(n);
                if taken {
                    under_way.push_back((n, place));
                }
                taken
            };
            lane.settled(give, |n| late.push(n));
            self.under_way.len()
        }

        fn settle_all(&mut self, those: std::ops::Range<usize>) {
            for _ in those {
                self.settle(|_| true);
            }
        }
    }

    #[test]
    fn a_few_go_at_once_and_the_others_together_when_none_is_left() {
        let mut run = Run::new(1000, usize::MAX, None);
        (0..FEW + BATCH + 1).for_each(|n| assert!(run.add(n, 1)));
        assert_eq!(run.under_way.len(), FEW);
        for left in (1..FEW).rev() {
            assert_eq!(run.settle(|_| true), left);
        }
        assert_eq!(run.settle(|_| true), BATCH, "and one waits");
        assert!(run.under_way.iter().map(|(n, _)| *n).eq(FEW..FEW + BATCH), "in order");
        assert!(run.add(999, 1));
        assert_eq!(run.under_way.len(), BATCH, "behind those that wait");
        run.settle_all(1..BATCH);
        assert_eq!(run.settle(|_| true), 2);
        assert_eq!(run.under_way.back().unwrap().0, 999);
    }

    #[test]
    fn what_is_given_at_once_is_bounded_in_bytes_and_what_is_refused_holds_up_nobody() {
        let mut run = Run::new(1000, usize::MAX, None);
        (0..FEW + 10).for_each(|n| assert!(run.add(n, BATCH_BYTES / 2)));
        run.settle_all(1..FEW);
        assert_eq!(run.settle(|n| n > FEW), 2, "the first one was refused, and counts for nothing");
        run.settle(|_| true);
        assert_eq!(run.settle(|_| false), 0);
        assert_eq!(run.lanes.held(), 0, "all others were refused");
        assert!(run.add(0, 1) && run.under_way.len() == 1);
    }

    #[test]
    fn l8_so_many_records_and_bytes_are_held_and_not_one_more() {
        let mut run = Run::new(3, 100, None);
        assert!(run.add(0, 50) && run.add(1, 50));
        assert!(!run.add(2, 1), "a byte past the limit");
        assert!(run.add(2, 0));
        assert!(!run.add(3, 0), "a record past the limit");
        assert_eq!(run.lanes.held(), 3);
        run.settle(|_| true);
        assert!(run.add(3, 50));
    }

    #[test]
    fn who_has_waited_too_long_is_told_so() {
        let mut run = Run::new(100, 100, Some(Duration::ZERO));
        (0..FEW + 3).for_each(|n| assert!(run.add(n, 1)));
        run.settle_all(0..FEW);
        assert_eq!(run.late, [FEW, FEW + 1, FEW + 2]);
        assert!(run.under_way.is_empty() && run.lanes.held() == 0);
    }
}
