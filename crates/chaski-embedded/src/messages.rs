//! Messages, inboxes, chats, memberships and verdicts.
//!
//! Point reads run where they are called, slices (which may read many blocks) on a blocking
//! thread. Measured, optimised: a key that is not there 0.3-0.4 µs, a hop to a blocking thread
//! 22-54 µs. Not yet measured optimised: a row that has left the memtable
//! (`examples/append_rate.rs` does); where that costs more than the hop, move it there.

use crate::{
    Directory,
    keys::{self, Key},
    tables::{self, Pair},
    values,
    writer::Transaction,
};
use async_trait::async_trait;
use bytes::Bytes;
use chaski_core::{
    ChatId, Partition, Position, UserId,
    record::{RequestId, UnixMs},
};
use chaski_ports::{
    ChatRow, Clock, HistoryRange, MembershipRow, MessageStore, PortError, StoreBatch, Stored,
};
use parking_lot::Mutex;
use std::{ops::Bound, sync::Arc};

/// How long a verdict is kept at least, by the clock and the record's time.
const VERDICT_KEPT_MS: UnixMs = 15 * 60 * 1_000;
/// How many places `items` reads without leaving the caller's thread.
const ITEMS_INLINE: usize = 8;

#[async_trait]
impl MessageStore for Directory {
    async fn write(&self, batch: StoreBatch) -> Result<(), PortError> {
        let (encoded, expiry) = (Encoded::from(&batch), self.verdicts.clone());
        drop(batch);
        self.engine.write(encoded.bytes, move |tx| encoded.write(tx, &expiry)).await
    }

    async fn history(
        &self,
        chat: &ChatId,
        range: HistoryRange,
        limit: usize,
    ) -> Result<Vec<Stored>, PortError> {
        let (from, upto, newest) = match range {
            HistoryRange::After(u64::MAX) | HistoryRange::Before(0) => return Ok(Vec::new()),
            HistoryRange::After(seq) => (seq + 1, u64::MAX, false),
            HistoryRange::Before(seq) => (0, seq - 1, true),
        };
        let (from, upto) = (keys::message(chat, from), keys::message(chat, upto));
        self.engine
            .read(move |tables| {
                let pairs = tables::range(&tables.messages, &from[..]..=&upto[..]);
                if !newest {
                    return pairs.take(limit).map(stored).collect();
                }
                let rows: Result<Vec<_>, _> = pairs.rev().take(limit).map(stored).collect();
                rows.map(|mut rows| {
                    rows.reverse();
                    rows
                })
            })
            .await
    }

    async fn items(&self, places: &[(ChatId, u64)]) -> Result<Vec<Option<Bytes>>, PortError> {
        let keys: Vec<Key> = places.iter().map(|(chat, seq)| keys::message(chat, *seq)).collect();
        let get = |tables: &tables::Tables, keys: &[Key]| {
            let item = |key: &Key| {
                let stored = tables::get(&tables.messages, key)?;
                stored.map(|stored| content(&stored)).transpose()
            };
            keys.iter().map(item).collect()
        };
        if keys.len() <= ITEMS_INLINE {
            get(self.engine.tables(), &keys)
        } else {
            self.engine.read(move |tables| get(tables, &keys)).await
        }
    }

    async fn inbox(
        &self,
        partition: Partition,
        user: &UserId,
        (after, upto): (Position, Position),
        limit: usize,
    ) -> Result<Vec<Stored>, PortError> {
        if after >= upto {
            return Ok(Vec::new());
        }
        let from = keys::inbox(partition, user, Position(after.0 + 1));
        let upto = keys::inbox(partition, user, upto);
        self.engine
            .read(move |tables| {
                let pairs = tables::range(&tables.inbox, &from[..]..=&upto[..]);
                pairs.take(limit).map(stored).collect()
            })
            .await
    }

    async fn chat(&self, chat: &ChatId) -> Result<Option<ChatRow>, PortError> {
        let stored = tables::get(&self.engine.tables().rows, &keys::chat(chat))?;
        let row = |stored: Bytes| {
            let (version, state) =
                values::split_numbered(&stored).ok_or_else(|| tables::corrupt("chat"))?;
            Ok(ChatRow { chat: *chat, version, state })
        };
        stored.map(row).transpose()
    }

    async fn membership(
        &self,
        user: &UserId,
        chat: &ChatId,
    ) -> Result<Option<MembershipRow>, PortError> {
        let stored = tables::get(&self.engine.tables().rows, &keys::membership(user, chat))?;
        stored.map(|stored| membership(user, *chat, &stored)).transpose()
    }

    async fn memberships(
        &self,
        user: &UserId,
        after: Option<&ChatId>,
        limit: usize,
    ) -> Result<Vec<MembershipRow>, PortError> {
        let (user, prefix) = (user.clone(), keys::memberships(user));
        let after = after.map(|chat| keys::membership(&user, chat));
        self.engine
            .read(move |tables| {
                let from = Bound::Excluded(after.as_deref().unwrap_or(&prefix));
                // Above every byte of an id.
                let end = [&prefix[..], &[0xff]].concat();
                let pairs = tables::range(&tables.rows, (from, Bound::Excluded(&end[..])));
                let rows = pairs.take(limit).map(|pair| {
                    let (key, stored) = pair?;
                    let chat = id(&key, &prefix).ok_or_else(|| tables::corrupt("membership"))?;
                    membership(&user, chat, &stored)
                });
                rows.collect()
            })
            .await
    }

    async fn verdict(&self, request: &RequestId) -> Result<Option<Bytes>, PortError> {
        let stored = tables::get(&self.engine.tables().rows, &keys::verdict(request))?;
        stored.map(|stored| content(&stored)).transpose()
    }
}

/// The id at the end of a key.
pub(crate) fn id<T: std::str::FromStr>(key: &[u8], prefix: &[u8]) -> Option<T> {
    std::str::from_utf8(key.strip_prefix(prefix)?).ok()?.parse().ok()
}

fn membership(user: &UserId, chat: ChatId, stored: &Bytes) -> Result<MembershipRow, PortError> {
    let (version, state) =
        values::split_numbered(stored).ok_or_else(|| tables::corrupt("membership"))?;
    Ok(MembershipRow { user: user.clone(), chat, version, state })
}

fn content(stamped: &Bytes) -> Result<Bytes, PortError> {
    let content = values::split_numbered(stamped).map(|(_, content)| content);
    content.ok_or_else(|| tables::corrupt("row"))
}

fn stored(pair: Result<Pair, PortError>) -> Result<Stored, PortError> {
    let (key, value) = pair?;
    let place = keys::last_u64(&key).ok_or_else(|| tables::corrupt("place"))?;
    Ok((place, content(&value)?))
}

/// A batch as it will be stored: encoding is the callers' work, not the one writer's.
struct Encoded {
    messages: Vec<(Key, Bytes)>,
    inbox: Vec<(Key, Bytes)>,
    versioned: Vec<(Key, Bytes)>,
    verdicts: Vec<(Key, Bytes, Key)>,
    bytes: usize,
}

impl From<&StoreBatch> for Encoded {
    fn from(batch: &StoreBatch) -> Self {
        let chats = batch
            .chats
            .iter()
            .map(|row| (keys::chat(&row.chat), values::numbered(row.version, &row.state)));
        let memberships = batch.memberships.iter().map(|row| {
            let key = keys::membership(&row.user, &row.chat);
            (key, values::numbered(row.version, &row.state))
        });
        let message = |row: &chaski_ports::MessageRow| {
            (keys::message(&row.chat, row.seq), values::stamped(row.at_ms, &row.item))
        };
        let inbox = |row: &chaski_ports::InboxRow| {
            let key = keys::inbox(row.partition, &row.user, row.position);
            (key, values::stamped(row.at_ms, &row.event))
        };
        let verdict = |row: &chaski_ports::VerdictRow| {
            let age = keys::verdict_age(row.at_ms, &row.request);
            (keys::verdict(&row.request), values::stamped(row.at_ms, &row.verdict), age)
        };
        let mut encoded = Self {
            messages: batch.messages.iter().map(message).collect(),
            inbox: batch.inbox.iter().map(inbox).collect(),
            versioned: chats.chain(memberships).collect(),
            verdicts: batch.verdicts.iter().map(verdict).collect(),
            bytes: 0,
        };
        let pairs = [&encoded.messages, &encoded.inbox, &encoded.versioned];
        let pairs = pairs.into_iter().flatten().map(|(key, value)| key.len() + value.len());
        let verdicts =
            encoded.verdicts.iter().map(|(key, value, age)| key.len() + value.len() + age.len());
        encoded.bytes = pairs.chain(verdicts).sum();
        encoded
    }
}

impl Encoded {
    fn write(self, tx: &mut Transaction<'_>, expiry: &VerdictExpiry) -> Result<(), PortError> {
        let tables = tx.tables;
        for (key, value) in self.messages {
            tx.put(&tables.messages, key, value);
        }
        for (key, value) in self.inbox {
            tx.put(&tables.inbox, key, value);
        }
        for (key, value) in self.versioned {
            tx.put_greater(key, value, 8)?;
        }
        let written = self.verdicts.len();
        for (key, value, age) in self.verdicts {
            tx.put_row(key, value);
            tx.put_row(age, Bytes::new());
        }
        if written > 0 { expiry.forget_some(tx, 2 * written) } else { Ok(()) }
    }
}

/// Forgets old verdicts, a few whenever new ones are written: so there are never many more than
/// were made in the time they are kept.
#[derive(Clone)]
pub(crate) struct VerdictExpiry {
    clock: Arc<dyn Clock>,
    /// All ages up to this key are forgotten: a scan must not meet them again as tombstones.
    upto: Arc<Mutex<Key>>,
}

impl VerdictExpiry {
    /// Forgets what is old by this clock.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        let upto = Arc::new(Mutex::new(keys::verdict_ages(0)));
        Self { clock, upto }
    }

    fn forget_some(&self, tx: &mut Transaction<'_>, most: usize) -> Result<(), PortError> {
        let mut forgotten = self.upto.lock();
        let old = keys::verdict_ages(self.clock.now_ms() - VERDICT_KEPT_MS);
        if *forgotten >= old {
            return Ok(());
        }
        let tables = tx.tables;
        let mut last = None;
        for pair in tables::range(&tables.rows, &forgotten[..]..&old[..]).take(most) {
            let (age, _) = pair?;
            if let Some(request) = age.last_chunk() {
                tx.remove_row(keys::verdict(request));
            }
            tx.remove_row(age.to_vec());
            last = Some(age.to_vec());
        }
        if let Some(last) = last {
            *forgotten = last;
        }
        Ok(())
    }
}
