//! What can be done to a running system, and the record that it was done: what the injector
//! writes, the judge and the report read.

use serde::Serialize;
use std::time::Instant;

/// The harness's one clock, for clients and faults alike.
#[derive(Clone, Copy, Debug)]
pub struct Timeline(Instant);

impl Timeline {
    /// Begins now.
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Microseconds since its start.
    #[must_use]
    pub fn now_us(self) -> u64 {
        u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// A kind of fault; its name is the key in the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum FaultKind {
    /// `kill -9`, and started again after a while.
    Kill,
    /// SIGSTOP for longer than a session, then SIGCONT.
    Pause,
    /// No byte passes a link in either direction; the connections stay open.
    Cut,
    /// No byte passes a link in one direction.
    OneWayCut,
    /// Every byte of a link comes late.
    Delay,
    /// A link loses: stalls as of retransmissions, and connections that break.
    Loss,
    /// All brokers killed at once, and started again.
    KafkaRestart,
    /// All brokers but one stand still; then that one is killed and the others go on: what only it
    /// had is gone.
    LoneBroker,
    /// Every service process drained and started again, one after the other.
    RollingRestart,
}

/// One fault that was injected and healed.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FaultRecord {
    /// What was done.
    pub kind: FaultKind,
    /// The kind of process that it was done to (`delivery`, `kafka-leader`, …); for a link, that
    /// of its first end.
    pub process: String,
    /// The process (`delivery-2`) or the link (`delivery-2 -> kafka-1`).
    pub name: String,
    /// When it began on the [`Timeline`].
    pub from_us: u64,
    /// When it was healed: the process is ready, the link whole.
    pub until_us: u64,
    /// What was done to many one after the other: each of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Part>,
}

/// What a rolling restart did to one process.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Part {
    /// The process.
    pub name: String,
    /// When it was told to drain.
    pub from_us: u64,
    /// When it had ended.
    pub until_us: u64,
}
