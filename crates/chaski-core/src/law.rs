//! The eight laws that decide what "correct" means. Assertions, test suites and documents name
//! them by these ids; the full text stands in ARCHITECTURE.md.

use std::fmt;

/// One law of the delivery contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Law {
    /// Accepted is durable: "accepted" is said only after the record is on all in-sync replicas.
    L1,
    /// One effect per message: (sender, chat, clientMessageId) takes effect once.
    L2,
    /// One order per chat: seq is 1, 2, 3 … without holes, the same for everybody.
    L3,
    /// One order per user: all devices of a user see the same events at the same positions.
    L4,
    /// Nothing is skipped: no cursor moves past a record whose effects are not durable.
    L5,
    /// Stale owners do no harm.
    L6,
    /// A block is exact.
    L7,
    /// Bounded: every queue, batch, frame, retry, cache and connection has a limit.
    L8,
}

impl Law {
    /// The law's name in one line.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Law::L1 => "accepted is durable",
            Law::L2 => "one effect per message",
            Law::L3 => "one order per chat",
            Law::L4 => "one order per user",
            Law::L5 => "nothing is skipped",
            Law::L6 => "stale owners do no harm",
            Law::L7 => "a block is exact",
            Law::L8 => "bounded",
        }
    }
}

impl fmt::Display for Law {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?} ({})", self.title())
    }
}

/// Asserts what a law promises, also in release builds: a process that would break a law stops.
#[macro_export]
macro_rules! uphold {
    ($law:expr, $cond:expr, $($why:tt)+) => {
        assert!($cond, "{} would be broken: {}", $law, format_args!($($why)+))
    };
}
