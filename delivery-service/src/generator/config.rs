//! Settings of the fan-out.

use chaski_core::record::{Managers, Rules};
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
    /// How often time is written into each partition of `new-messages`, in seconds: it moves by 60
    /// seconds at most each time, and idempotency keys are kept for 7 days of that time.
    pub tick_seconds: u64,
    /// Who may add, remove, rename and appoint: `admins` or `everyone`.
    pub managers: WhoManages,
    /// In chats with more participants receipts are not sent, clients ask for them.
    pub receipts_push_max: u32,
}

/// Who may change a chat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WhoManages {
    /// The creator, and whom they appoint.
    #[default]
    Admins,
    /// Every member.
    Everyone,
}

impl Default for GeneratorConfig {
    fn default() -> Self {
        Self {
            snapshot_seconds: 30,
            inflight_max: 10_000,
            restart_delay_ms: 500,
            tick_seconds: 60,
            managers: WhoManages::Admins,
            receipts_push_max: 20,
        }
    }
}

impl GeneratorConfig {
    /// The rules that ticks carry.
    #[must_use]
    pub fn rules(&self, participants_max: usize) -> Rules {
        Rules {
            participants_max: u32::try_from(participants_max).unwrap_or(u32::MAX),
            managers: match self.managers {
                WhoManages::Admins => Managers::Admins,
                WhoManages::Everyone => Managers::Everyone,
            },
            receipts_push_max: self.receipts_push_max,
        }
    }

    pub(super) fn restart_delay(&self) -> Duration {
        Duration::from_millis(self.restart_delay_ms)
    }
}
