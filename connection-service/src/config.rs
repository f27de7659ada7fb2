//! Settings of the connection service.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Settings of the connection service.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConnectionsConfig {
    /// How long a change of a contact, a block or a setting waits for its verdict, in
    /// milliseconds (503 `outcome_unknown`).
    pub verdict_ms: u64,
    /// Longest name of a device, in Unicode scalar values.
    pub device_name_chars_max: usize,
    /// Whether a block may only be lifted once every device in use of its user has acknowledged it
    /// (409 `block_not_synced`).
    pub unblock_needs_sync: bool,
    /// How often a partition's watermark is saved while it moves, in milliseconds.
    pub watermark_ms: u64,
    /// Pause before starting again after a failure, in milliseconds.
    pub restart_delay_ms: u64,
}

impl Default for ConnectionsConfig {
    fn default() -> Self {
        Self {
            verdict_ms: 5000,
            device_name_chars_max: 64,
            unblock_needs_sync: false,
            watermark_ms: 250,
            restart_delay_ms: 500,
        }
    }
}

impl ConnectionsConfig {
    pub(crate) fn verdict(&self) -> Duration {
        Duration::from_millis(self.verdict_ms)
    }
    pub(crate) fn watermark(&self) -> Duration {
        Duration::from_millis(self.watermark_ms)
    }
    pub(crate) fn restart_delay(&self) -> Duration {
        Duration::from_millis(self.restart_delay_ms)
    }
}
