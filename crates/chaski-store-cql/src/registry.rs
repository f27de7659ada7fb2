//! Which rows of the small tables of buckets this process has written already, so that writing
//! them costs one request per bucket and not one per row.

use chaski_core::record::UnixMs;
use parking_lot::Mutex;
use std::{collections::HashMap, hash::Hash};

/// Past this all is forgotten: a row is then written once more, which changes nothing (L8).
const CAPACITY: usize = 65_536;

/// Keys with the time when their row was written.
pub(crate) struct Registry<K> {
    written: Mutex<HashMap<K, UnixMs>>,
    refresh_ms: Option<UnixMs>,
}

impl<K: Eq + Hash> Registry<K> {
    /// For rows that stay for ever.
    pub(crate) fn permanent() -> Self {
        Self { written: Mutex::default(), refresh_ms: None }
    }

    /// For rows that expire, and live a day longer than what they stand for.
    pub(crate) fn refreshed_daily() -> Self {
        Self { written: Mutex::default(), refresh_ms: Some(24 * 3600 * 1000) }
    }

    /// Whether the row need not be written.
    pub(crate) fn has(&self, key: &K, now: UnixMs) -> bool {
        self.written.lock().get(key).is_some_and(|at| {
            self.refresh_ms.is_none_or(|refresh| now.abs_diff(*at) < refresh.unsigned_abs())
        })
    }

    /// To be called when the row is durable, not before.
    pub(crate) fn learn(&self, key: K, now: UnixMs) {
        let mut written = self.written.lock();
        if written.len() >= CAPACITY {
            written.clear();
        }
        written.insert(key, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_expires_is_written_again_after_a_day() {
        let registry = Registry::refreshed_daily();
        assert!(!registry.has(&1, 0));
        registry.learn(1, 0);
        assert!(registry.has(&1, 86_399_999));
        assert!(!registry.has(&1, 86_400_000));
    }

    #[test]
    fn it_forgets_rather_than_grow() {
        let registry = Registry::permanent();
        for key in 0..=CAPACITY {
            registry.learn(key, 0);
        }
        assert!(registry.has(&CAPACITY, UnixMs::MAX));
        assert!(!registry.has(&0, 0));
    }
}
