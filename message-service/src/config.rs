//! Settings of the message service.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Settings of the message service.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MessagesConfig {
    /// How often a partition is written while records keep coming, in milliseconds: those that
    /// come together are stored together, which is what a store's CPU is spent on. The first one
    /// after a pause is written at once.
    pub write_every_ms: u64,
    /// How often a partition's watermark is saved while it moves, in milliseconds. Others that do
    /// not own the partition see its progress this late.
    pub watermark_ms: u64,
    /// How long a read that carries a write token waits to see that write, in milliseconds.
    pub read_your_write_ms: u64,
    /// How long a pointer waits for the body it points to, in milliseconds.
    pub body_wait_ms: u64,
    /// After how long a hole in a generator's outputs raises an alert, in seconds.
    pub hole_alert_seconds: u64,
    /// Pause before starting again after a failure, in milliseconds.
    pub restart_delay_ms: u64,
    /// How long the store keeps inboxes, in days: what the schema says, not what makes it so. A
    /// device that was away longer than this, less up to two days, is told to read again.
    pub inbox_days: u32,
    /// For how many days messages and changes of chats are kept; 0: for ever. A chat made with
    /// a shorter `historyDays` is kept for that. It counts for what is stored from then on.
    pub history_days: u32,
    /// Devices that a user may have at once. A new one above it is refused with 403
    /// `too_many_devices`.
    pub devices_max: usize,
    /// After how many days without a connection a device is retired: it does not count any more,
    /// and counts again as soon as it comes back.
    pub device_idle_days: u32,
}

impl Default for MessagesConfig {
    fn default() -> Self {
        Self {
            write_every_ms: 250,
            watermark_ms: 250,
            read_your_write_ms: 1000,
            body_wait_ms: 1000,
            hole_alert_seconds: 5,
            restart_delay_ms: 500,
            inbox_days: 30,
            history_days: 0,
            devices_max: 10,
            device_idle_days: 90,
        }
    }
}

impl MessagesConfig {
    pub(crate) fn read_your_write(&self) -> Duration {
        Duration::from_millis(self.read_your_write_ms)
    }
    /// For how many days a chat is kept that asks for `own` days; 0: for ever.
    pub(crate) fn kept_days(&self, own: u32) -> u32 {
        [own, self.history_days].into_iter().filter(|days| *days > 0).min().unwrap_or(0)
    }
    pub(crate) fn body_wait(&self) -> Duration {
        Duration::from_millis(self.body_wait_ms)
    }
}
