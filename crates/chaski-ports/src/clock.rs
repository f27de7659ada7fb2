//! Time as a parameter.

use chaski_core::record::UnixMs;

/// Tells the time. The only clock of the system; tests bring their own.
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
