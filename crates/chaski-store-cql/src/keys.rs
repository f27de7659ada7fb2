//! How places become keys: buckets, shards, write timestamps, remaining life. All of it is part
//! of the stored format.

use crate::invalid;
use chaski_core::{UserId, placement::murmur2, record::UnixMs};
use chaski_ports::PortError;

/// The longest life a cell may have: 20 years.
pub(crate) const TTL_MAX_S: i64 = 20 * 365 * 24 * 3600;

/// A day of the records' time.
const DAY_MS: UnixMs = 24 * 3600 * 1000;

/// The last millisecond of the year 9999; greater times count as this one.
const TIME_MAX_MS: UnixMs = 253_402_300_799_999;

/// A number as a bigint. `what` names it in the error.
pub(crate) fn signed(what: &str, number: u64) -> Result<i64, PortError> {
    i64::try_from(number).map_err(|_| invalid(format!("{what} {number}: must be below 2^63")))
}

/// A bigint as the number it was made from.
pub(crate) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// A partition as an int.
pub(crate) fn partition(partition: chaski_core::Partition) -> Result<i32, PortError> {
    i32::try_from(partition.0)
        .map_err(|_| invalid(format!("partition {partition}: must be below 2^31")))
}

/// A limit as an int.
pub(crate) fn limit(limit: usize) -> i32 {
    i32::try_from(limit).unwrap_or(i32::MAX)
}

/// The bucket of a seq, where it can be stored: 4096 messages each.
pub(crate) fn message_bucket(seq: i64) -> Result<i32, PortError> {
    i32::try_from(seq >> 12).map_err(|_| invalid(format!("seq {seq}: must be below 2^43")))
}

/// The bucket of a seq that is only looked for: beyond the last one there is nothing.
pub(crate) fn message_bucket_or_last(seq: u64) -> i32 {
    i32::try_from(seq >> 12).unwrap_or(i32::MAX)
}

/// The bucket of a position: 2^20 records of a partition, together with the generation.
pub(crate) fn inbox_bucket(position: i64) -> i64 {
    position >> 20
}

/// The shard of a user. Not the low bits: partitions are chosen by the same hash.
pub(crate) fn shard(user: &UserId) -> i8 {
    ((murmur2(user.as_str().as_bytes()) >> 8) % 8) as i8
}

/// The write timestamp, in microseconds, of what never changes: the record's time.
pub(crate) fn timestamp(at_ms: UnixMs) -> i64 {
    at_ms.clamp(0, TIME_MAX_MS) * 1000 + 1
}

/// When a day since 1970-01-01 begins.
pub(crate) fn day_ms(day: u32) -> UnixMs {
    UnixMs::from(day) * DAY_MS
}

/// The first day that began at `since_ms` or later.
pub(crate) fn first_day(since_ms: UnixMs) -> i32 {
    let days = since_ms.max(0).unsigned_abs().div_ceil(DAY_MS.unsigned_abs());
    i32::try_from(days).unwrap_or(i32::MAX)
}

/// The seconds that are left of a life of `life_ms` since `at_ms`; `None` if it is over.
pub(crate) fn ttl(life_ms: UnixMs, at_ms: UnixMs, now_ms: UnixMs) -> Option<i32> {
    let age_ms = now_ms.saturating_sub(at_ms).max(0);
    let left_s = life_ms.saturating_sub(age_ms) / 1000;
    // At least 1: a TTL of 0 would mean for ever.
    (left_s > 0).then(|| i32::try_from(left_s.min(TTL_MAX_S)).expect("20 years fit"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_and_shards_never_change() {
        assert_eq!(message_bucket(4095).unwrap(), 0);
        assert_eq!(message_bucket(4096).unwrap(), 1);
        assert!(message_bucket(1 << 43).is_err());
        assert_eq!(message_bucket_or_last(u64::MAX), i32::MAX);
        assert_eq!(inbox_bucket((1 << 48) + (1 << 20) - 1), 1 << 28);
        assert_eq!(inbox_bucket((1 << 48) + (1 << 20)), (1 << 28) + 1);
        let shards: Vec<i8> = ["ana", "ben", "eva", "leo", "mia"]
            .iter()
            .map(|u| shard(&u.parse().unwrap()))
            .collect();
        assert_eq!(shards, GOLDEN_SHARDS);
        assert!(signed("position", 1 << 63).is_err());
    }

    const GOLDEN_SHARDS: [i8; 5] = [1, 1, 5, 3, 5];

    #[test]
    fn users_spread_over_all_shards() {
        let mut counts = [0; 8];
        for i in 0..8_000 {
            counts[usize::try_from(shard(&format!("user{i}").parse().unwrap())).unwrap()] += 1;
        }
        assert!(counts.iter().all(|n| (850..1150).contains(n)), "{counts:?}");
    }

    #[test]
    fn a_row_lives_for_what_is_left_since_its_record() {
        assert_eq!(ttl(60_000, 1_000, 1_000), Some(60));
        assert_eq!(ttl(60_000, 1_000, 31_000), Some(30));
        assert_eq!(ttl(60_000, 1_000, 60_000), Some(1));
        assert_eq!(ttl(60_000, 1_000, 60_001), None);
        assert_eq!(ttl(60_000, 90_000, 1_000), Some(60), "from the future");
        assert_eq!(ttl(60_000, UnixMs::MIN, UnixMs::MAX), None);
        assert_eq!(ttl(UnixMs::MAX, 0, 0), Some(630_720_000));
        assert_eq!([first_day(-1), first_day(day_ms(3)), first_day(day_ms(3) + 1)], [0, 3, 4]);
        assert_eq!(timestamp(UnixMs::MIN), 1);
        assert_eq!(timestamp(UnixMs::MAX), TIME_MAX_MS * 1000 + 1);
    }
}
