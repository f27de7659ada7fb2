//! Stored payloads of the fan-out's state and of watermarks.

use crate::{
    Malformed,
    codec::{history_from_proto, history_to_proto, member_from_proto, member_to_proto},
    v1,
};
use bytes::Bytes;
use chaski_core::{
    MessageId, Offset, Origin, Partition, SourceId, Watermark,
    fold::{Bucket, Chat},
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
            members: chat.members.iter().map(member_to_proto).collect(),
        })
        .collect();
    let mut keys: Vec<_> = bucket.seen.iter().collect();
    keys.sort_unstable();
    let mut seen = Vec::with_capacity(keys.len() * 24);
    for (id, digest) in keys {
        seen.extend_from_slice(&id.0);
        seen.extend_from_slice(&digest.to_be_bytes());
    }
    v1::StoredBucket { chats, seen: seen.into() }.encode_to_vec().into()
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
        let state = Chat::new(
            placement,
            chat.creation,
            chat.name.as_str().into(),
            history_from_proto(chat.history()),
            (chat.version, chat.last_seq),
            members,
        );
        bucket.chats.insert(chat.chat_id.parse()?, state);
    }
    let (keys, rest) = stored.seen.as_chunks::<24>();
    if !rest.is_empty() {
        return Err(Malformed::because("idempotency keys must be 24 bytes each"));
    }
    for key in keys {
        let (id, digest) = key.split_at(16);
        let id = MessageId(id.try_into().expect("16 of 24 bytes"));
        bucket.seen.insert(id, u64::from_be_bytes(digest.try_into().expect("8 of 24 bytes")));
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
