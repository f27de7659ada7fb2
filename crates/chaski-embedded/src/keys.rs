//! Every stored key, in one place. Keys keep the order of what they name: numbers are
//! big-endian, and an id that is followed by something else ends with a zero byte, which no id
//! contains, so that no id is a prefix of another one's keys.
//!
//! | table | key | value ([`values`](crate::values)) |
//! |---|---|---|
//! | `log` | topic u8, partition u32, offset u64 | record |
//! | `messages` | chat 0, seq u64 | stamped bytes, or bytes with their end |
//! | `inbox` | partition u32, user 0, position u64 | stamped bytes |
//! | `chunks` | snapshot u128, number u32 | a piece of a snapshot |
//! | `rows` | `M` name | cluster id, format, epoch limit |
//! | `rows` | `T` topic u8 | partition count |
//! | `rows` | `C` chat | version, state |
//! | `rows` | `U` user 0 chat | version, state |
//! | `rows` | `D` user 0 device | cursor, last active, notes |
//! | `rows` | `H` user 0 chat 0, seq u64 | nothing: a block withholds this place |
//! | `rows` | `R` chat 0 user | version, state: marks |
//! | `rows` | `N` user 0 peer | version, state: a connection |
//! | `rows` | `G` user | version, state: settings |
//! | `rows` | `B` partition u32, user 0 peer 0, offset u64 | blocked, time |
//! | `rows` | `Y` partition u32, day u32 | first position |
//! | `rows` | `V` request | stamped bytes |
//! | `rows` | `A` record time u64, request | nothing: which verdicts are old |
//! | `rows` | `E` end u64, chat 0, seq u64 | nothing: which items have expired |
//! | `rows` | `W` role 0, partition u32, epoch u64, offset u64 | origins |
//! | `rows` | `K` role 0, partition u32 | epoch |
//! | `rows` | `S` partition u32, bucket u32 | which snapshot is the newest |

use chaski_core::{
    ChatId, DeviceId, Offset, Partition, Position, UserId,
    connection::BlockEdge,
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
        Topic::ConnectionRequests => 7,
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

/// Behind all places of the inbox that this place is in.
pub(crate) fn inbox_end(place: &[u8]) -> Option<Key> {
    let (inbox, _) = place.split_last_chunk::<8>()?;
    Some(key(&[inbox, &[0xff; 8]]))
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

/// A place that blocks withhold from a user.
pub(crate) fn hidden(user: &UserId, chat: &ChatId, seq: u64) -> Key {
    let (user, chat) = (user.as_str().as_bytes(), chat.as_str().as_bytes());
    key(&[b"H", user, &[0], chat, &[0], &seq.to_be_bytes()])
}

/// The beginning of a chat's marks.
pub(crate) fn marks(chat: &ChatId) -> Key {
    key(&[b"R", chat.as_str().as_bytes(), &[0]])
}

/// A member's marks.
pub(crate) fn mark(chat: &ChatId, user: &UserId) -> Key {
    key(&[&marks(chat), user.as_str().as_bytes()])
}

/// The beginning of a user's connections.
pub(crate) fn connections(user: &UserId) -> Key {
    key(&[b"N", user.as_str().as_bytes(), &[0]])
}

/// A connection.
pub(crate) fn connection(user: &UserId, peer: &UserId) -> Key {
    key(&[&connections(user), peer.as_str().as_bytes()])
}

/// A user's settings.
pub(crate) fn settings(user: &UserId) -> Key {
    key(&[b"G", user.as_str().as_bytes()])
}

/// The beginning of a partition's edges of blocks.
pub(crate) fn blocks(partition: Partition) -> Key {
    key(&[b"B", &partition.0.to_be_bytes()])
}

/// Where a block begins or ends.
pub(crate) fn block(partition: Partition, edge: &BlockEdge) -> Key {
    pair_block(&blocks(partition), (&edge.user, &edge.peer), edge.offset)
}

/// Where a block of a pair begins or ends, behind its partition's `prefix`.
pub(crate) fn pair_block(prefix: &[u8], (user, peer): (&UserId, &UserId), at: Offset) -> Key {
    let (user, peer) = (user.as_str().as_bytes(), peer.as_str().as_bytes());
    key(&[prefix, user, &[0], peer, &[0], &at.0.to_be_bytes()])
}

/// User, peer and offset of a [`block`] behind its partition's `prefix`.
pub(crate) fn split_block(key: &[u8], prefix: &[u8]) -> Option<(UserId, UserId, Offset)> {
    let (ids, offset) = key.strip_prefix(prefix)?.split_last_chunk()?;
    let ids = std::str::from_utf8(ids.strip_suffix(&[0])?).ok()?;
    let (user, peer) = ids.split_once('\0')?;
    Some((user.parse().ok()?, peer.parse().ok()?, Offset(u64::from_be_bytes(*offset))))
}

/// The beginning of the days of a partition's inboxes.
pub(crate) fn inbox_days(partition: Partition) -> Key {
    key(&[b"Y", &partition.0.to_be_bytes()])
}

/// A day of a partition's inboxes.
pub(crate) fn inbox_day(partition: Partition, day: u32) -> Key {
    key(&[&inbox_days(partition), &day.to_be_bytes()])
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

/// That an item expires. An end before 1970 counts as 1970.
pub(crate) fn item_end(ends_ms: UnixMs, message: &[u8]) -> Key {
    key(&[&item_ends(ends_ms), message])
}

/// Before all items that expire at `ends_ms`.
pub(crate) fn item_ends(ends_ms: UnixMs) -> Key {
    key(&[b"E", &ends_ms.max(0).cast_unsigned().to_be_bytes()])
}

/// The key of the [`message`] that an [`item_end`] names.
pub(crate) fn ended(item_end: &[u8]) -> Option<&[u8]> {
    item_end.get(9..)
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
        check(hidden(&user, &chat, 258), b"Hana\0g.1\0\0\0\0\0\0\0\x01\x02");
        check(mark(&chat, &user), b"Rg.1\0ana");
        check(connection(&user, &"eve".parse().unwrap()), b"Nana\0eve");
        check(settings(&user), b"Gana");
        let edge = BlockEdge {
            user,
            peer: "eve".parse().unwrap(),
            offset: Offset(258),
            blocked: true,
            at: 7,
        };
        let stored = block(Partition(3), &edge);
        let split = split_block(&stored, &blocks(Partition(3)));
        assert_eq!(split, Some((edge.user, edge.peer, edge.offset)));
        check(stored, b"B\0\0\0\x03ana\0eve\0\0\0\0\0\0\0\x01\x02");
        check(inbox_day(Partition(3), 258), b"Y\0\0\0\x03\0\0\x01\x02");
        check(topic(Topic::ConnectionRequests), b"T\x07");
        check(verdict(&request), &[b"V", &request[..]].concat());
        check(verdict_age(258, &request), &[b"A\0\0\0\0\0\0\x01\x02", &request[..]].concat());
        let end = item_end(258, &message(&chat, 3));
        assert_eq!(ended(&end), Some(&message(&chat, 3)[..]));
        check(end, b"E\0\0\0\0\0\0\x01\x02g.1\0\0\0\0\0\0\0\0\x03");
        check(
            watermark("generator", Partition(2), 3, Offset(4)),
            b"Wgenerator\0\0\0\0\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x04",
        );
        check(claim("messages", Partition(2)), b"Kmessages\0\0\0\0\x02");
        check(snapshot(Partition(2), 9), b"S\0\0\0\x02\0\0\0\x09");
        check(chunk(1, 2), b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\x02");
    }
}
