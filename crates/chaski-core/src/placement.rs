//! Which partition a key belongs to: jump consistent hashing (Lamping and Veach, "A Fast,
//! Minimal Memory, Consistent Hash Algorithm", 2014) over Kafka's murmur2 of the key, so that
//! growth moves only the keys that must move.

use crate::{ChatId, Partition, UserId};

/// The placement of keys on the partitions of one topic, for one generation of the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    partitions: u32,
}

impl Placement {
    /// Placement on `partitions` partitions.
    ///
    /// # Panics
    /// If there are none.
    #[must_use]
    pub fn new(partitions: u32) -> Self {
        assert!(partitions > 0, "a topic has at least one partition");
        Self { partitions }
    }

    /// How many partitions there are.
    #[must_use]
    pub fn partitions(self) -> u32 {
        self.partitions
    }

    /// The partition of `recipients` that holds this user's events.
    #[must_use]
    pub fn of_user(self, user: &UserId) -> Partition {
        self.of_key(user.as_str().as_bytes())
    }

    /// The partition of `new-messages` that orders this chat.
    #[must_use]
    pub fn of_chat(self, chat: &ChatId) -> Partition {
        self.of_key(chat.as_str().as_bytes())
    }

    fn of_key(self, key: &[u8]) -> Partition {
        Partition(jump(u64::from(murmur2(key)), self.partitions))
    }
}

/// Jump consistent hash: the bucket of `key` among `buckets`.
fn jump(mut key: u64, buckets: u32) -> u32 {
    let (mut bucket, mut next) = (-1_i64, 0_i64);
    while next < i64::from(buckets) {
        bucket = next;
        key = key.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        let scale = (1_u64 << 31) as f64 / ((key >> 33) + 1) as f64;
        next = ((bucket + 1) as f64 * scale) as i64;
    }
    bucket as u32
}

/// Kafka's 32-bit murmur2 (`org.apache.kafka.common.utils.Utils.murmur2`).
#[must_use]
pub fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ data.len() as u32;
    let (words, tail) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        for (i, byte) in tail.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * i);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur2_matches_kafka() {
        // The vectors of org.apache.kafka.common.utils.UtilsTest.testMurmur2.
        for (text, hash) in [
            ("21", -973_932_308_i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(text.as_bytes()), hash as u32, "{text}");
        }
    }

    #[test]
    fn growth_moves_only_what_must_move() {
        let (old, new) = (Placement::new(12), Placement::new(16));
        let users: Vec<UserId> = (0..10_000).map(|i| format!("user{i}").parse().unwrap()).collect();
        let moved: Vec<_> = users.iter().filter(|u| old.of_user(u) != new.of_user(u)).collect();
        assert!(
            moved.iter().all(|u| new.of_user(u).0 >= 12),
            "a moved user lands on a new partition"
        );
        assert!((2_200..2_800).contains(&moved.len()), "a quarter moves, moved {}", moved.len());
    }
}
