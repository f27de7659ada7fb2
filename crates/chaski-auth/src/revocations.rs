//! Which devices were revoked, in memory: read with every token, written rarely. Whoever follows the
//! log of revocations fills it.

use crate::{AuthConfig, Identity};
use chaski_core::{DeviceId, UserId};
use parking_lot::RwLock;
use std::{collections::HashMap, sync::Arc};

/// What has been revoked. Clones share it.
///
/// Bounded in time (L8): a revocation is forgotten once every token that it refuses has expired.
#[derive(Clone, Debug)]
pub struct Revocations {
    token_life_s: i64,
    shared: Arc<RwLock<Revoked>>,
}

#[derive(Debug, Default)]
struct Revoked {
    /// User → device → the second of the revocation.
    users: HashMap<UserId, HashMap<DeviceId, i64>>,
    /// No entry is older than this.
    oldest: i64,
}

impl Revocations {
    /// Nothing is revoked yet.
    #[must_use]
    pub fn new(config: &AuthConfig) -> Self {
        let token_life_s = i64::from(config.token_days_max) * 86_400;
        Self { token_life_s, shared: Arc::default() }
    }

    /// From now on tokens of this device issued in the second `revoked_at` or before it are
    /// refused. `now_s` tells which revocations may be forgotten.
    pub fn note(&self, user: UserId, device: DeviceId, revoked_at: i64, now_s: i64) {
        let forgotten = now_s.saturating_sub(self.token_life_s);
        let mut revoked = self.shared.write();
        if revoked_at >= forgotten {
            revoked.oldest = revoked.oldest.min(revoked_at);
            let devices = revoked.users.entry(user).or_default();
            let at = devices.entry(device).or_insert(revoked_at);
            *at = revoked_at.max(*at);
        }
        revoked.forget_before(forgotten);
    }

    /// Whether the token that this identity was read from is refused.
    #[must_use]
    pub fn refuse(&self, identity: &Identity) -> bool {
        let revoked = self.shared.read();
        let at = revoked.users.get(&identity.user).and_then(|d| d.get(&identity.device));
        at.is_some_and(|revoked_at| identity.issued_at <= *revoked_at)
    }

    /// How many devices are remembered as revoked.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.shared.read().users.values().map(HashMap::len).sum()
    }

    /// The longest life of a token, in seconds.
    pub(crate) fn token_life_s(&self) -> i64 {
        self.token_life_s
    }
}

impl Default for Revocations {
    fn default() -> Self {
        Self::new(&AuthConfig::default())
    }
}

impl Revoked {
    /// Looks through all entries, so only once a day of them has come together.
    fn forget_before(&mut self, second: i64) {
        const DAY: i64 = 86_400;
        if self.oldest > second - DAY {
            return;
        }
        self.users.retain(|_, devices| {
            devices.retain(|_, revoked_at| *revoked_at >= second);
            !devices.is_empty()
        });
        let left = self.users.values().flat_map(HashMap::values);
        self.oldest = left.copied().min().unwrap_or(i64::MAX);
    }
}
