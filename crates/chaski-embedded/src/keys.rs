//! Every stored key, in one place. Keys keep the order of what they name: numbers are
//! big-endian, and an id that is followed by something else ends with a zero byte, which no id
//! contains, so that no id is a prefix of another one's keys.
//!
//! | table | key | value ([`values`](crate::values)) |
//! |---|---|---|
//! | `log` | topic u8, partition u32, offset u64 | record |
//! | `messages` | chat 0, seq u64 | stamped bytes |
//! | `inbox` | partition u32, user 0, position u64 | stamped bytes |
//! | `chunks` | snapshot u128, number u32 | a piece of a snapshot |
//! | `rows` | `M` name | cluster id, format, epoch limit |
//! | `rows` | `T` topic u8 | partition count |
//! | `rows` | `C` chat | version, state |
//! | `rows` | `U` user 0 chat | version, state |
//! | `rows` | `D` user 0 device | cursor, last active |
//! | `rows` | `V` request | stamped bytes |
//! | `rows` | `A` record time u64, request | nothing: which verdicts are old |
//! | `rows` | `W` role 0, partition u32, epoch u64, offset u64 | origins |
//! | `rows` | `K` role 0, partition u32 | epoch |
//! | `rows` | `S` partition u32, bucket u32 | which snapshot is the newest |

use chaski_core::{
    ChatId, DeviceId, Offset, Partition, Position, UserId,
    record::{RequestId, UnixMs},
};
use chaski_ports::Topic;

/// A stored key.
pub(crate) type Key = Vec<u8>;

/// Name of the random id of this log.
pub(crate) const CLUSTER_ID: &[u8] = b"Mcluster-id";
/// Name of the version of all that this crate stores.
pub(crate) const FORMAT: &[u8] = b"Mformat";
/// Name of the number below which the coordinator may give epochs.
pub(crate) const EPOCH_LIMIT: &[u8] = b"Mepoch-limit";
/// All topics' partition counts.
pub(crate) const TOPICS: &[u8] = b"T";
/// All snapshots' heads.
pub(crate) const SNAPSHOTS: &[u8] = b"S";

/// The stored number of a topic. Never changes.
pub(crate) const fn topic_code(topic: Topic) -> u8 {
    match topic {
        Topic::NewMessages => 1,
        Topic::Recipients => 2,
        Topic::Connections => 3,
        Topic::Revocations => 4,
        Topic::Alerts => 5,
        Topic::DeadLetters => 6,
    }
}

fn key(parts: &[&[u8]]) -> Key {
    parts.concat()
}

/// The beginning of all records of a partition.
pub(crate) fn log_partition(topic: Topic, partition: Partition) -> Key {
    key(&[&[topic_code(topic)], &partition.0.to_be_bytes()])
}

/// A record.
pub(crate) fn log_record(topic: Topic, partition: Partition, offset: Offset) -> Key {
    key(&[&[topic_code(topic)], &partition.0.to_be_bytes(), &offset.0.to_be_bytes()])
}

/// A topic's partition count.
pub(crate) fn topic(topic: Topic) -> Key {
    key(&[TOPICS, &[topic_code(topic)]])
}

/// A place in a chat.
pub(crate) fn message(chat: &ChatId, seq: u64) -> Key {
    key(&[chat.as_str().as_bytes(), &[0], &seq.to_be_bytes()])
}

/// A place in a user's inbox.
pub(crate) fn inbox(partition: Partition, user: &UserId, position: Position) -> Key {
    key(&[&partition.0.to_be_bytes(), user.as_str().as_bytes(), &[0], &position.0.to_be_bytes()])
}

/// A chat.
pub(crate) fn chat(chat: &ChatId) -> Key {
    key(&[b"C", chat.as_str().as_bytes()])
}

/// The beginning of a user's memberships.
pub(crate) fn memberships(user: &UserId) -> Key {
    key(&[b"U", user.as_str().as_bytes(), &[0]])
}

/// A membership.
pub(crate) fn membership(user: &UserId, chat: &ChatId) -> Key {
    key(&[b"U", user.as_str().as_bytes(), &[0], chat.as_str().as_bytes()])
}

/// The beginning of a user's devices.
pub(crate) fn devices(user: &UserId) -> Key {
    key(&[b"D", user.as_str().as_bytes(), &[0]])
}

/// A device.
pub(crate) fn device(user: &UserId, device: &DeviceId) -> Key {
    key(&[b"D", user.as_str().as_bytes(), &[0], device.as_str().as_bytes()])
}

/// A verdict.
pub(crate) fn verdict(request: &RequestId) -> Key {
    key(&[b"V", request])
}

/// The age of a verdict. A time before 1970 counts as 1970.
pub(crate) fn verdict_age(at_ms: UnixMs, request: &RequestId) -> Key {
    key(&[&verdict_ages(at_ms), request])
}

/// Before the ages of all verdicts made at `at_ms`.
pub(crate) fn verdict_ages(at_ms: UnixMs) -> Key {
    key(&[b"A", &at_ms.max(0).cast_unsigned().to_be_bytes()])
}

/// The beginning of a consumer's watermarks.
pub(crate) fn watermarks(role: &str, partition: Partition) -> Key {
    key(&[b"W", role.as_bytes(), &[0], &partition.0.to_be_bytes()])
}

/// A watermark.
pub(crate) fn watermark(role: &str, partition: Partition, epoch: u64, next: Offset) -> Key {
    key(&[&watermarks(role, partition), &epoch.to_be_bytes(), &next.0.to_be_bytes()])
}

/// A claim.
pub(crate) fn claim(role: &str, partition: Partition) -> Key {
    key(&[b"K", role.as_bytes(), &[0], &partition.0.to_be_bytes()])
}

/// The beginning of a partition's snapshot heads.
pub(crate) fn snapshots(partition: Partition) -> Key {
    key(&[SNAPSHOTS, &partition.0.to_be_bytes()])
}

/// The head of a bucket's newest snapshot.
pub(crate) fn snapshot(partition: Partition, bucket: u32) -> Key {
    key(&[SNAPSHOTS, &partition.0.to_be_bytes(), &bucket.to_be_bytes()])
}

/// A piece of a snapshot.
pub(crate) fn chunk(snapshot: u128, number: u32) -> Key {
    key(&[&snapshot.to_be_bytes(), &number.to_be_bytes()])
}

/// The number at the end of a key.
pub(crate) fn last_u64(key: &[u8]) -> Option<u64> {
    key.last_chunk().map(|last| u64::from_be_bytes(*last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(key: Key, golden: &[u8]) {
        assert_eq!(key.escape_ascii().to_string(), golden.escape_ascii().to_string());
    }

    #[test]
    fn stored_keys_never_change() {
        let (user, chat): (UserId, ChatId) = ("ana".parse().unwrap(), "g.1".parse().unwrap());
        let request = [7; 16];
        check(
            log_record(Topic::Recipients, Partition(3), Offset(258)),
            b"\x02\0\0\0\x03\0\0\0\0\0\0\x01\x02",
        );
        check(topic(Topic::DeadLetters), b"T\x06");
        check(message(&chat, 258), b"g.1\0\0\0\0\0\0\0\x01\x02");
        check(inbox(Partition(1), &user, Position(1 << 48)), b"\0\0\0\x01ana\0\0\x01\0\0\0\0\0\0");
        check(super::chat(&chat), b"Cg.1");
        check(membership(&user, &chat), b"Uana\0g.1");
        check(device(&user, &"d1".parse().unwrap()), b"Dana\0d1");
        check(verdict(&request), &[b"V", &request[..]].concat());
        check(verdict_age(258, &request), &[b"A\0\0\0\0\0\0\x01\x02", &request[..]].concat());
        check(
            watermark("generator", Partition(2), 3, Offset(4)),
            b"Wgenerator\0\0\0\0\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x04",
        );
        check(claim("messages", Partition(2)), b"Kmessages\0\0\0\0\x02");
        check(snapshot(Partition(2), 9), b"S\0\0\0\x02\0\0\0\x09");
        check(chunk(1, 2), b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\x02");
    }
}
