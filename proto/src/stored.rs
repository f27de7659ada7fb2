//! Stored payloads of the fan-out's state and of watermarks.

use crate::{
    Malformed,
    codec::{
        history_from_proto, history_to_proto, member_from_proto, member_to_proto, rules_from_proto,
        rules_to_proto,
    },
    v1,
};
use bytes::Bytes;
use chaski_core::{
    MessageId, Offset, Origin, Partition, SourceId, Watermark,
    fold::{Bucket, Chat, Control, MemberState},
    placement::Placement,
};
use prost::Message as _;

/// Encodes a bucket of the fan-out's state; equal states give equal bytes.
#[must_use]
pub fn encode_bucket(bucket: &Bucket) -> Bytes {
    let mut chats: Vec<_> = bucket.chats.iter().collect();
    chats.sort_unstable_by_key(|(id, _)| **id);
    let chats = chats
        .into_iter()
        .map(|(id, chat)| v1::StoredChatState {
            chat_id: id.to_string(),
            creation: chat.creation,
            name: chat.name.to_string(),
            history: history_to_proto(chat.history).into(),
            version: chat.version,
            last_seq: chat.last_seq,
            members: chat.members().iter().map(member_to_proto).collect(),
            former: chat.former.iter().map(|(member, _)| member_to_proto(member)).collect(),
            states: chat.states.iter().map(member_state_to_proto).collect(),
            history_days: chat.history_days,
            former_states: chat.former.iter().map(|(_, s)| member_state_to_proto(s)).collect(),
        })
        .collect();
    let seen = bucket.seen.days().map(|(day, seen)| {
        let mut keys: Vec<_> = seen.iter().collect();
        keys.sort_unstable();
        let mut bytes = Vec::with_capacity(keys.len() * 24);
        for (id, digest) in keys {
            bytes.extend_from_slice(&id.0);
            bytes.extend_from_slice(&digest.to_be_bytes());
        }
        v1::StoredSeen { day, keys: bytes.into() }
    });
    let seen = seen.collect();
    v1::StoredBucket { chats, seen }.encode_to_vec().into()
}

fn member_state_to_proto(state: &MemberState) -> v1::StoredMemberState {
    v1::StoredMemberState {
        delivered_seq: state.delivered,
        read_seq: state.read,
        public_read_seq: state.public_read,
        sent_seq: state.sent,
    }
}

fn member_state_from_proto(state: &v1::StoredMemberState) -> MemberState {
    MemberState {
        delivered: state.delivered_seq,
        read: state.read_seq,
        public_read: state.public_read_seq,
        sent: state.sent_seq,
    }
}

/// Encodes the fan-out's time and rules.
#[must_use]
pub fn encode_control(control: &Control, next: Offset) -> Bytes {
    let rules = Some(rules_to_proto(&control.rules));
    v1::StoredControl { now_ms: control.now, rules, next: Some(next.0) }.encode_to_vec().into()
}

/// Decodes the fan-out's time and rules as of `as_of`, and the input to go on with.
pub fn decode_control(bytes: Bytes, as_of: Offset) -> Result<(Control, Offset), Malformed> {
    let stored = v1::StoredControl::decode(bytes)?;
    let rules = stored.rules.as_ref().map(rules_from_proto).unwrap_or_default();
    let next = stored.next.map_or(as_of.next(), Offset);
    let as_of = next.0.checked_sub(1).map(Offset);
    Ok((Control { as_of, now: stored.now_ms, rules }, next))
}

/// Decodes a bucket of the fan-out's state as of `as_of`.
pub fn decode_bucket(
    bytes: Bytes,
    as_of: Offset,
    placement: Placement,
) -> Result<Bucket, Malformed> {
    let stored = v1::StoredBucket::decode(bytes)?;
    let mut bucket = Bucket { as_of: Some(as_of), ..Bucket::default() };
    for chat in stored.chats {
        let members = chat.members.iter().map(member_from_proto).collect::<Result<_, _>>()?;
        let mut state = Chat::new(
            placement,
            chat.creation,
            chat.name.as_str().into(),
            history_from_proto(chat.history()),
            (chat.version, chat.last_seq),
            members,
        );
        let former = chat.former.iter().map(member_from_proto).collect::<Result<Vec<_>, _>>()?;
        let states = chat.former_states.iter().map(member_state_from_proto);
        if chat.states.len() != state.states.len() || states.len() != former.len() {
            return Err(Malformed::because("a chat's state needs one state for each member"));
        }
        state.former = former.into_iter().zip(states).collect();
        state.states = chat.states.iter().map(member_state_from_proto).collect();
        state.history_days = chat.history_days;
        bucket.chats.insert(chat.chat_id.parse()?, state);
    }
    for seen in &stored.seen {
        let (keys, rest) = seen.keys.as_chunks::<24>();
        if !rest.is_empty() {
            return Err(Malformed::because("idempotency keys must be 24 bytes each"));
        }
        let key = |key: &[u8; 24]| {
            let (id, digest) = key.split_at(16);
            let digest = digest.try_into().expect("8 of 24 bytes");
            (MessageId(id.try_into().expect("16 of 24 bytes")), u64::from_be_bytes(digest))
        };
        bucket.seen.restore(seen.day, keys.iter().map(key).collect());
    }
    Ok(bucket)
}

/// A watermark for the wire.
#[must_use]
pub fn watermark_to_proto(mark: &Watermark) -> v1::StoredWatermark {
    let high = mark.high.iter().map(|((source, partition), origin)| v1::Origin {
        source: source.0,
        partition: partition.0,
        place: Some(v1::Place { offset: origin.offset.0, index: origin.index }),
    });
    v1::StoredWatermark { next_offset: mark.next.0, high: high.collect() }
}

/// A watermark from the wire.
#[must_use]
pub fn watermark_from_proto(mark: &v1::StoredWatermark) -> Watermark {
    let high = mark.high.iter().map(|o| {
        let place = o.place.unwrap_or_default();
        let origin = Origin { offset: Offset(place.offset), index: place.index };
        ((SourceId(o.source), Partition(o.partition)), origin)
    });
    Watermark { next: Offset(mark.next_offset), high: high.collect() }
}
