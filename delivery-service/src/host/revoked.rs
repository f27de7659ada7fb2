//! The latest revocations, for sockets that are being opened while one comes: their token was
//! verified before it, and the ring does not know them yet.

use chaski_core::{DeviceId, UserId};
use parking_lot::Mutex;
use std::collections::VecDeque;

/// Enough for all that come while a socket says `hello` and is opened; older ones the verifier
/// knows.
const MAX: usize = 1000;

/// The latest revocations, oldest first.
#[derive(Default)]
pub(super) struct Revoked(Mutex<VecDeque<(UserId, DeviceId, i64)>>);

impl Revoked {
    /// Tokens of this device issued in this second or before it are refused.
    pub(super) fn note(&self, user: &UserId, device: &DeviceId, revoked_at: i64) {
        let mut latest = self.0.lock();
        if latest.len() >= MAX {
            latest.pop_front();
        }
        latest.push_back((user.clone(), device.clone(), revoked_at));
    }

    /// When the device was revoked last, if lately.
    pub(super) fn of(&self, user: &UserId, device: &DeviceId) -> Option<i64> {
        let latest = self.0.lock();
        latest.iter().filter(|(u, d, _)| u == user && d == device).map(|(.., at)| *at).max()
    }
}
