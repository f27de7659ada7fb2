//! How much the partitions of this process have to do and how far behind they are: shown in the
//! metrics, and the load told in the registrations, so that the allocator can spread it.
//!
//! Must not know: what a role does with its partitions, what becomes of what is told.

use super::presence::Presence;
use chaski_core::{Offset, Partition};
use chaski_host_allocator::{Host, Role as Owner};
use chaski_ports::{Clock, Log, Ports, Topic};
use chaski_runtime::{Tasks, Work};
use futures::{StreamExt as _, stream};
use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval},
};

/// How often loads are looked at, and at most told.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const TELL_EVERY: Duration = Duration::from_secs(5);
/// What was so long ago counts half.
const HALF_LIFE: Duration = Duration::from_secs(10);
/// A load is told again once it is another one by so much, in thousandths of a core, and by a fifth.
const CHANGE: u32 = 2;
/// How often it is asked where the log ends, and of how many partitions at once (L8).
const LAG_EVERY: Duration = Duration::from_secs(5);
const CALLS_MAX: usize = 32;

/// Loads by partition, in thousandths of a core.
type Loads = BTreeMap<u32, u32>;

impl Presence {
    /// Shows and tells what the partitions of a role cost here, in which this process is registered.
    pub(super) fn tell_load(&self, owner: Owner, work: Work, ports: &Ports, tasks: &Tasks) {
        let Some(say) = self.said.lock().get(&owner).cloned() else { return };
        let (log, clock) = (Arc::clone(&ports.log), Arc::clone(&ports.clock));
        let stop = tasks.stop();
        tasks.spawn(format!("load/{owner}"), async move {
            tokio::select! {
                () = stop.cancelled() => {}
                never = follow_load(&work, &say) => match never {},
                never = follow_lag(owner, &work, &*log, &*clock) => match never {},
            }
            Ok::<_, Infallible>(())
        });
    }
}

async fn follow_load(work: &Work, say: &watch::Sender<Host>) -> Infallible {
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut rates, mut looked_at) = (BTreeMap::<Partition, Rate>::new(), Instant::now());
    let mut told_at: Option<Instant> = None;
    loop {
        look.tick().await;
        let (done, elapsed) = (work.done(), looked_at.elapsed());
        looked_at += elapsed;
        rates.retain(|partition, _| {
            let runs = done.contains_key(partition);
            if !runs {
                work.show_load(*partition, 0.0);
            }
            runs
        });
        for (partition, done) in done {
            let rate = rates.entry(partition).or_insert(Rate::new(done.spent));
            rate.add(done.spent, elapsed);
            work.show_load(partition, rate.cores().unwrap_or(0.0));
        }
        if told_at.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
            let millis = |cores: f64| (cores * 1000.0).round() as u32;
            let known = rates.iter().filter_map(|(p, rate)| Some((p.0, millis(rate.cores()?))));
            let now: Loads = known.collect();
            let tells = say.send_if_modified(|host| {
                let tells = is_news(host.load.as_ref(), &now);
                if tells {
                    host.load = Some(now);
                }
                tells
            });
            told_at = tells.then(Instant::now).or(told_at);
        }
    }
}

/// Whether loads are worth a write in the coordinator.
fn is_news(told: Option<&Loads>, now: &Loads) -> bool {
    told.is_none_or(|told| {
        let same = |(p, load): (&u32, &u32)| {
            told.get(p).is_some_and(|told| told.abs_diff(*load) <= CHANGE.max(told / 5))
        };
        told.len() != now.len() || !now.iter().all(same)
    })
}

/// CPU time spent by time gone by, the more recent counting more (an exponentially weighted moving
/// average). It holds from its first second on: the average is over what has been seen.
struct Rate {
    spent: Duration,
    cores: f64,
    /// How much of the average is seen.
    seen: f64,
}

impl Rate {
    const fn new(spent: Duration) -> Self {
        Self { spent, cores: 0.0, seen: 0.0 }
    }

    fn add(&mut self, spent: Duration, elapsed: Duration) {
        let Some(more) = spent.checked_sub(self.spent) else {
            // Counted anew.
            return *self = Self::new(spent);
        };
        self.spent = spent;
        if !elapsed.is_zero() {
            let keep = 0.5_f64.powf(elapsed.as_secs_f64() / HALF_LIFE.as_secs_f64());
            let now = more.as_secs_f64() / elapsed.as_secs_f64();
            self.cores = self.cores * keep + now * (1.0 - keep);
            self.seen = self.seen * keep + (1.0 - keep);
        }
    }

    fn cores(&self) -> Option<f64> {
        (self.seen > 0.0).then(|| self.cores / self.seen)
    }
}

async fn follow_lag(owner: Owner, work: &Work, log: &dyn Log, clock: &dyn Clock) -> Infallible {
    let topic = match owner {
        Owner::Generator => Topic::NewMessages,
        Owner::Delivery | Owner::Messages => Topic::Recipients,
        Owner::Connections => Topic::ConnectionRequests,
        Owner::Sender => return std::future::pending().await,
    };
    let mut look = interval(LAG_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut lags, mut looked_at) = (BTreeMap::<Partition, Lag>::new(), Instant::now());
    loop {
        look.tick().await;
        let partitions: Vec<_> = work.done().into_keys().collect();
        let ends = stream::iter(partitions).map(|partition| async move {
            // Where there is no answer the next one corrects it.
            Some((partition, log.bounds(topic, partition).await.ok()?.end))
        });
        let ends: BTreeMap<_, _> =
            ends.buffer_unordered(CALLS_MAX).filter_map(std::future::ready).collect().await;
        // After the ends: so a reader that keeps up has come to them.
        let (done, now_ms) = (work.done(), clock.now_ms());
        let elapsed = looked_at.elapsed();
        looked_at += elapsed;
        let gone: BTreeSet<_> = lags.keys().filter(|p| !done.contains_key(p)).copied().collect();
        for partition in gone {
            lags.remove(&partition);
            work.show_lag(partition, 0, Duration::ZERO);
        }
        for (partition, done) in done {
            let (Some(next), Some(end)) = (done.next, ends.get(&partition)) else { continue };
            let lag = lags.entry(partition).or_insert(Lag::at(next));
            let behind = lag.look(next, *end, now_ms - done.at_ms, elapsed);
            work.show_lag(partition, behind, Duration::from_millis(lag.ms));
        }
    }
}

/// How far a reader is behind the end of its partition.
struct Lag {
    next: Offset,
    behind: u64,
    /// In milliseconds: how old what it reads now was when it was read; where it stands still, how
    /// much older that is by now.
    ms: u64,
}

impl Lag {
    const fn at(next: Offset) -> Self {
        Self { next, behind: 0, ms: 0 }
    }

    /// The reader stands at `next`, the log ends at `end`, what was read last is `age_ms` old, and
    /// the last look was `elapsed` ago. Gives how many places are between them, which is at least
    /// as many as there are records.
    fn look(&mut self, next: Offset, end: Offset, age_ms: i64, elapsed: Duration) -> u64 {
        let behind = end.0.saturating_sub(next.0);
        self.ms = match (behind, self.behind) {
            (0, _) => 0,
            _ if next != self.next => u64::try_from(age_ms).unwrap_or(0),
            (_, 0) => 0,
            _ => self.ms + elapsed.as_millis() as u64,
        };
        (self.next, self.behind) = (next, behind);
        behind
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_rate_is_true_from_its_first_second_on_and_forgets_by_halves() {
        let mut rate = Rate::new(7 * SECOND);
        assert_eq!(rate.cores(), None);
        let mut spent = 7 * SECOND;
        let mut after = |milli_cores, seconds| {
            for _ in 0..seconds {
                spent += Duration::from_millis(milli_cores);
                rate.add(spent, SECOND);
            }
            (rate.cores().unwrap() * 1000.0).round()
        };
        assert_eq!(after(400, 1), 400.0);
        assert_eq!(after(400, 600), 400.0);
        assert_eq!(after(0, 10), 200.0);
        assert_eq!(after(0, 10), 100.0);
        rate.add(SECOND, SECOND);
        assert_eq!(rate.cores(), None, "counted anew, nothing is known yet");
    }

    #[test]
    fn loads_are_told_when_they_are_others_by_enough() {
        let loads = |all: &[(u32, u32)]| -> Loads { all.iter().copied().collect() };
        let told = loads(&[(1, 10), (2, 1000)]);
        assert!(is_news(None, &loads(&[])), "that it tells at all");
        for same in [&[(1, 10), (2, 1000)], &[(1, 12), (2, 1200)], &[(1, 8), (2, 800)]] {
            assert!(!is_news(Some(&told), &loads(same)), "{same:?}");
        }
        let others: [&[_]; 4] =
            [&[(1, 13), (2, 1000)], &[(1, 10), (2, 1201)], &[(1, 10)], &[(1, 10), (3, 1000)]];
        for other in others {
            assert!(is_news(Some(&told), &loads(other)), "{other:?}");
        }
    }

    #[test]
    fn a_lag_is_the_age_of_what_is_read_and_grows_where_nothing_is() {
        let mut lag = Lag::at(Offset(10));
        let mut look = |next, end, age_ms| {
            let behind = lag.look(Offset(next), Offset(end), age_ms, 5 * SECOND);
            (behind, lag.ms)
        };
        let idle_ms = 600_000;
        assert_eq!(look(10, 10, idle_ms), (0, 0), "nothing was written for long: no lag");
        assert_eq!(look(10, 12, idle_ms), (2, 0), "something has come since the last look");
        assert_eq!(look(10, 13, idle_ms), (3, 5_000), "and is still there");
        assert_eq!(look(11, 30, 9_000), (19, 9_000), "it reads what is 9 s old");
        assert_eq!(look(11, 40, 14_000), (29, 14_000), "and no more");
        assert_eq!(look(40, 40, 20), (0, 0));
        assert_eq!(look(41, 42, -3), (1, 0), "a clock that is ahead");
    }
}
