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
}

impl Default for AllocatorConfig {
    fn default() -> Self {
        Self { grace_ms: 0, retry_ms: 250 }
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
