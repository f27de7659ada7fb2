//! Settings of the fan-out.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Settings of the fan-out.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GeneratorConfig {
    /// How often the state that changed is saved, in seconds. After a take-over at most this much
    /// is computed again.
    pub snapshot_seconds: u64,
    /// How many inputs may be on their way to `recipients` at once in a partition; at the limit
    /// reading waits.
    pub inflight_max: usize,
    /// Pause before starting again after a failure, in milliseconds.
    pub restart_delay_ms: u64,
}

impl Default for GeneratorConfig {
    fn default() -> Self {
        Self { snapshot_seconds: 30, inflight_max: 10_000, restart_delay_ms: 500 }
    }
}

impl GeneratorConfig {
    pub(super) fn restart_delay(&self) -> Duration {
        Duration::from_millis(self.restart_delay_ms)
    }
}
