//! How the allocator behaves.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How the allocator behaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AllocatorConfig {
    /// So long a host that has gone keeps its partitions, in milliseconds. 0: they move at once,
    /// for its session has run out before it counts as gone, which is grace enough.
    pub grace_ms: u64,
    /// The pause before trying again after the coordinator failed, in milliseconds.
    pub retry_ms: u64,
    /// Whether partitions are moved off hosts with too much load.
    pub rebalance: bool,
    /// A host with more than so much of its fair share, in percent, is overloaded.
    pub overload_percent: u32,
    /// A host with less load than this is not, in thousandths of a core.
    pub overload_least: u32,
    /// So long it has to be overloaded before a partition is moved, in seconds; and again before the
    /// next one.
    pub overload_seconds: u64,
    /// Most such moves of a role in a minute.
    pub moves_per_minute: u32,
    /// So long a partition is not moved again, and its home must have room before it is given back,
    /// in seconds.
    pub move_again_seconds: u64,
}

impl Default for AllocatorConfig {
    fn default() -> Self {
        Self {
            grace_ms: 0,
            retry_ms: 250,
            rebalance: true,
            overload_percent: 130,
            overload_least: 100,
            overload_seconds: 30,
            moves_per_minute: 2,
            move_again_seconds: 300,
        }
    }
}

impl AllocatorConfig {
    pub(crate) fn grace(&self) -> Duration {
        Duration::from_millis(self.grace_ms)
    }

    pub(crate) fn retry(&self) -> Duration {
        Duration::from_millis(self.retry_ms)
    }
}
