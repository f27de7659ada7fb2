//! How long what clients of this host send takes until it comes back through the log, and who is
//! told to wait where that is too long: a spike is refused early and cheaply, what is accepted is
//! shown soon, and the system goes on at the speed that it has. Must not know what is sent.
//!
//! Every command that enters the log leaves a record in its sender's own partition, which this host
//! reads: so it knows how much of what it let in is still under way, and how fast that comes back
//! (J. Little, "A Proof for the Queuing Formula L = λW", 1961). Where nothing comes back at all it
//! knows neither, and refuses nothing: the log is the buffer while a part of the system is replaced.

use chaski_core::{Offset, Partition, SourceId, Watermark};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};
use tokio::time::Instant;

/// What comes back is counted over about this long.
const MEMORY: Duration = Duration::from_secs(1);
/// Nothing came back for so long: nothing is known.
const STALL: Duration = Duration::from_secs(1);
/// What has not come back by then went to a partition that is read elsewhere by now.
const LOST: Duration = Duration::from_secs(60);
/// Nobody is asked to wait for less or for more than this.
const WAIT: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));
/// So few under way are no backlog: on a system that takes long for one, however little it has to do,
/// fewer and fewer would be let in.
const FEW: usize = 256;
/// More is not let in, whatever is known (L8).
const UNDER_WAY_MAX: usize = 200_000;

/// What clients sent and has not come back.
pub(super) struct Backlog {
    /// How long it may take; `None`: as long as it takes, and nothing is kept of it.
    most: Option<Duration>,
    state: Mutex<State>,
}

struct State {
    /// Let in, and not answered by the sender service yet.
    asking: usize,
    /// In the log, by their places there, and not back yet: when they were let in.
    out: BTreeMap<(Partition, Offset), Instant>,
    /// How far each partition of `new-messages` has come back.
    back: HashMap<Partition, Offset>,
    /// How many came back lately, those of before counting less, as of `counted`.
    lately: f64,
    counted: Instant,
    /// How long the last of them took.
    took: Duration,
    /// Up to when those who were told to wait have been given a time.
    promised: Instant,
    /// When it was last looked for what is lost.
    swept: Instant,
}

impl Backlog {
    /// Whose way through the log may take so many milliseconds; 0: no limit.
    pub(super) fn new(lag_ms_max: u64) -> Self {
        let now = Instant::now();
        let state = State {
            asking: 0,
            out: BTreeMap::new(),
            back: HashMap::new(),
            lately: 0.0,
            counted: now,
            took: Duration::ZERO,
            promised: now,
            swept: now,
        };
        let most = (lag_ms_max > 0).then(|| Duration::from_millis(lag_ms_max));
        Self { most, state: Mutex::new(state) }
    }

    /// Lets one more in; or how long it stays away, each one a little longer than the one before, so
    /// that they come back as fast as they can be taken.
    pub(super) fn ask(&self, now: Instant) -> Result<Sending<'_>, Duration> {
        let mut state = self.state.lock();
        if let Some(most) = self.most {
            let (waiting, per_second) = (state.waiting(), state.per_second(now));
            let takes = waiting as f64 / per_second;
            // What took no time shows that a sudden many are no backlog yet.
            let is_behind = state.took > most / 4 && takes > most.as_secs_f64();
            let is_known = now.saturating_duration_since(state.counted) < STALL;
            if (is_known && is_behind && waiting >= FEW) || waiting >= UNDER_WAY_MAX {
                state.sweep(now);
                return Err(state.promise(now, per_second));
            }
        }
        state.asking += 1;
        Ok(Sending { backlog: self, let_in: now })
    }

    /// A partition was read up to here: what its records of the fan-out come from has come back.
    pub(super) fn back(&self, fan_out: SourceId, read: &Watermark, now: Instant) {
        if self.most.is_none() {
            return;
        }
        let mut state = self.state.lock();
        for ((source, partition), origin) in &read.high {
            if *source == fan_out {
                state.back(*partition, origin.offset, now);
            }
        }
    }
}

impl State {
    fn back(&mut self, partition: Partition, offset: Offset, now: Instant) {
        let known = self.back.entry(partition).or_insert(offset);
        *known = offset.max(*known);
        let first = (partition, Offset(0));
        while let Some((&place, &let_in)) = self.out.range(first..=(partition, offset)).next() {
            self.out.remove(&place);
            self.came(let_in, now);
        }
    }

    fn waiting(&self) -> usize {
        self.asking + self.out.len()
    }

    fn per_second(&self, now: Instant) -> f64 {
        let ago = now.saturating_duration_since(self.counted);
        self.lately * (-ago.as_secs_f64() / MEMORY.as_secs_f64()).exp() / MEMORY.as_secs_f64()
    }

    fn came(&mut self, let_in: Instant, now: Instant) {
        self.lately = self.per_second(now) * MEMORY.as_secs_f64() + 1.0;
        self.counted = self.counted.max(now);
        self.took = now.saturating_duration_since(let_in);
    }

    fn promise(&mut self, now: Instant, per_second: f64) -> Duration {
        let (least, most) = WAIT;
        let each = Duration::from_secs_f64(1.0 / per_second.max(1.0));
        self.promised = (self.promised.max(now + least) + each).min(now + most);
        self.promised - now
    }

    fn sweep(&mut self, now: Instant) {
        if now.saturating_duration_since(self.swept) >= MEMORY {
            self.swept = now;
            self.out.retain(|_, let_in| now.saturating_duration_since(*let_in) < LOST);
        }
    }
}

/// One that was let in. Dropped, it counts no more: it was refused, or nobody knows.
pub(super) struct Sending<'a> {
    backlog: &'a Backlog,
    let_in: Instant,
}

impl Sending<'_> {
    /// It is in the log.
    pub(super) fn stands_at(self, partition: Partition, offset: Offset, now: Instant) {
        if self.backlog.most.is_none() {
            return;
        }
        let mut state = self.backlog.state.lock();
        // It may have come back before its answer.
        if state.back.get(&partition).is_some_and(|back| offset <= *back) {
            state.came(self.let_in, now);
        } else {
            state.out.insert((partition, offset), self.let_in);
        }
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        self.backlog.state.lock().asking -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: Partition = Partition(0);
    const MS: Duration = Duration::from_millis(1);

    /// A system that takes so many each second, and is asked for `offered` of them: how many were
    /// let in, what the last took, and how long the refused wait.
    struct Run {
        taken: usize,
        took: Duration,
        waits: Vec<Duration>,
    }

    fn run(backlog: &Backlog, start: Instant, offered: u64, takes: u64, seconds: u64) -> Run {
        let (mut let_in, mut done, mut waits) = (0_u64, 0_u64, Vec::new());
        for ms in 0..seconds * 1000 {
            let now = start + MS * ms as u32;
            for _ in ms * offered / 1000..(ms + 1) * offered / 1000 {
                match backlog.ask(now) {
                    Ok(sending) => {
                        sending.stands_at(P, Offset(let_in), now);
                        let_in += 1;
                    }
                    Err(wait) => waits.push(wait),
                }
            }
            let room = (ms + 1) * takes / 1000 - ms * takes / 1000;
            for _ in 0..room.min(let_in - done) {
                backlog.state.lock().back(P, Offset(done), now);
                done += 1;
            }
        }
        Run { taken: done as usize, took: backlog.state.lock().took, waits }
    }

    #[test]
    fn l8_a_spike_is_let_in_as_fast_as_it_comes_back_and_the_rest_waits() {
        let (backlog, start) = (Backlog::new(2000), Instant::now());
        let calm = run(&backlog, start, 900, 1000, 5);
        assert_eq!((calm.waits.len(), calm.taken), (0, 4500), "below what it takes");

        let backlog = Backlog::new(2000);
        let spike = run(&backlog, start, 10_000, 1000, 20);
        assert!(spike.taken >= 19_900, "it never has nothing to do: {}", spike.taken);
        assert!(spike.took < 2100 * MS, "{:?}", spike.took);
        assert!(spike.waits.len() > 170_000);
        assert!(spike.waits.iter().all(|wait| (WAIT.0..=WAIT.1).contains(wait)));
        // Each a millisecond or two behind the one before, as fast as they are taken, not at once.
        let spread = spike.waits[100] - spike.waits[0];
        assert!((80 * MS..300 * MS).contains(&spread), "{spread:?}");
    }

    #[test]
    fn l8_so_many_may_be_under_way_and_not_one_more() {
        let (backlog, start) = (Backlog::new(1000), Instant::now());
        // They come back one each millisecond, the last one after 400 ms.
        for n in 0..1400 {
            backlog.ask(start).ok().unwrap().stands_at(P, Offset(n), start);
        }
        (0..400).for_each(|n| backlog.state.lock().back(P, Offset(n), start + MS * n as u32));
        let now = start + MS * 400;
        let speed = backlog.state.lock().per_second(now);
        let room = speed as usize;
        let gone = Offset(1399 - room as u64);
        backlog.state.lock().out.retain(|(_, offset), _| *offset > gone);
        assert_eq!(backlog.state.lock().waiting(), room, "what comes back within the limit");
        let one = backlog.ask(now).ok().unwrap();
        assert!(backlog.ask(now).is_err(), "one past it");
        drop(one);
        assert!(backlog.ask(now).is_ok(), "refused by the sender service, it counts no more");
    }

    #[test]
    fn who_knows_nothing_refuses_nothing() {
        let (backlog, start) = (Backlog::new(1000), Instant::now());
        // A sudden many, at a system that had nothing to do.
        backlog.ask(start).ok().unwrap().stands_at(P, Offset(0), start);
        backlog.state.lock().back(P, Offset(0), start);
        let many: Vec<_> = (0..5000).map(|_| backlog.ask(start).ok().unwrap()).collect();
        drop(many);
        // Nothing comes back: the fan-out has a new owner, and the log keeps what comes.
        (1..5000).for_each(|n| backlog.ask(start).ok().unwrap().stands_at(P, Offset(n), start));
        let late = start + Duration::from_secs(3);
        backlog.state.lock().back(P, Offset(1), late);
        assert!(backlog.ask(late).is_err(), "it comes back again, and is far behind");
        let stall = late + STALL;
        assert!(backlog.ask(stall).is_ok());
        // What is read elsewhere by now is forgotten, and what came back before its answer is back.
        backlog.state.lock().back(P, Offset(2), start + LOST);
        assert!(backlog.ask(start + LOST).is_err());
        assert_eq!(backlog.state.lock().waiting(), 0);
        let sending = backlog.ask(start + LOST).ok().unwrap();
        backlog.state.lock().back(P, Offset(9000), start + LOST);
        sending.stands_at(P, Offset(8000), start + LOST);
        assert_eq!(backlog.state.lock().waiting(), 0);

        // A system that takes three seconds for one, and has hardly anything to do.
        let slow = Backlog::new(2000);
        for n in 0..1000 {
            let now = start + 20 * MS * n as u32;
            slow.ask(now).ok().unwrap().stands_at(P, Offset(n), now);
            if n >= 150 {
                slow.state.lock().back(P, Offset(n - 150), now);
            }
        }

        let open = Backlog::new(0);
        let all = run(&open, start, 10_000, 100, 5);
        assert_eq!(all.waits.len(), 0);
    }

    #[test]
    fn l8_what_is_kept_is_bounded_whatever_comes_back() {
        let start = Instant::now();
        let (limited, open) = (Backlog::new(2000), Backlog::new(0));
        for (backlog, kept) in [(&limited, UNDER_WAY_MAX), (&open, 0)] {
            // Nothing comes back at all.
            for n in 0..UNDER_WAY_MAX as u64 {
                backlog.ask(start).ok().unwrap().stands_at(P, Offset(n), start);
            }
            assert_eq!(backlog.state.lock().waiting(), kept);
        }
        assert!(limited.ask(start).is_err(), "one past it");
        assert!(open.ask(start).is_ok());
    }
}
