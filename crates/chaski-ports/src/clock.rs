//! Time as a parameter.

use chaski_core::record::UnixMs;
use std::sync::atomic::{AtomicI64, Ordering};

/// Tells the time. The only clock of the system; tests use a [`StandingClock`].
pub trait Clock: Send + Sync {
    /// Milliseconds since 1970.
    fn now_ms(&self) -> UnixMs;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    fn now_ms(&self) -> UnixMs {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.map_or(0, |d| UnixMs::try_from(d.as_millis()).unwrap_or(UnixMs::MAX))
    }
}

/// A clock that stands until it is set, for tests.
#[derive(Debug)]
pub struct StandingClock(AtomicI64);

impl StandingClock {
    /// Stands at `now`.
    #[must_use]
    pub fn new(now: UnixMs) -> Self {
        Self(AtomicI64::new(now))
    }

    /// Stands at `now` from here on.
    pub fn set(&self, now: UnixMs) {
        self.0.store(now, Ordering::SeqCst);
    }
}

impl Clock for StandingClock {
    fn now_ms(&self) -> UnixMs {
        self.0.load(Ordering::SeqCst)
    }
}
