//! How fast new sessions are let in: after a host has died, its clients come all at once, and
//! those who are served already must not notice. Must not know what a session is.

use parking_lot::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// Admits at a set rate (GCRA: ITU-T I.371, a leaky bucket without a timer), and tells the rest
/// when to come again: each further one a little later, so that they come back at that rate too.
pub(super) struct Admission {
    /// Between two who are admitted; `None`: everybody is, at once.
    every: Option<Duration>,
    /// So many may come in one moment: a second's worth.
    burst: Duration,
    state: Mutex<State>,
}

struct State {
    /// When the bucket is empty.
    admitted: Instant,
    /// Up to when those who were sent away have been given a time.
    promised: Instant,
}

/// A client without patience is not asked for more than this.
const WAIT_MAX: Duration = Duration::from_secs(60);

impl Admission {
    /// So many each second; 0: no limit.
    pub(super) fn new(per_second: u32) -> Self {
        let now = Instant::now();
        Self {
            every: (per_second > 0).then(|| Duration::from_secs(1) / per_second),
            burst: Duration::from_secs(1),
            state: Mutex::new(State { admitted: now, promised: now }),
        }
    }

    /// Whether one more may come in now; else how long it stays away.
    pub(super) fn ask(&self, now: Instant) -> Result<(), Duration> {
        let Some(every) = self.every else { return Ok(()) };
        let mut state = self.state.lock();
        let admitted = state.admitted.max(now) + every;
        if admitted <= now + self.burst.max(every) {
            state.admitted = admitted;
            return Ok(());
        }
        // Not before the bucket has room again.
        state.promised = state.promised.max(now + self.burst) + every;
        let wait = state.promised - now;
        if wait > WAIT_MAX {
            state.promised = now + WAIT_MAX;
        }
        Err(wait.min(WAIT_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l8_a_storm_is_let_in_at_the_set_rate_and_the_rest_is_spread() {
        let (admission, start) = (Admission::new(100), Instant::now());
        let waits: Vec<_> = (0..1000).filter_map(|_| admission.ask(start).err()).collect();
        assert_eq!(waits.len(), 900, "a second's worth at once");
        assert!(waits.is_sorted() && waits[0] > Duration::from_secs(1));
        let spread = *waits.last().unwrap() - waits[0];
        assert_eq!(spread, 899 * Duration::from_millis(10), "they come back at the same rate");

        let back = waits.iter().map(|wait| admission.ask(start + *wait));
        assert_eq!(back.filter(Result::is_err).count(), 0, "and find it open");
    }

    #[test]
    fn l8_nobody_is_sent_away_for_ever_and_without_a_rate_nobody_is() {
        let (admission, start) = (Admission::new(1), Instant::now());
        let most = (0..10_000).filter_map(|_| admission.ask(start).err()).max().unwrap();
        assert_eq!(most, WAIT_MAX);
        assert!(admission.ask(start + WAIT_MAX).is_ok());

        let open = Admission::new(0);
        assert!((0..10_000).all(|_| open.ask(start).is_ok()));
    }
}
