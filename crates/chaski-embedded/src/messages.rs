//! Messages, inboxes, verdicts, and writing rows of all kinds.
//!
//! Point reads run where they are called, slices (which may read many blocks) on a blocking
//! thread. Measured, optimised: a key that is not there 0.3-0.4 µs, a hop to a blocking thread
//! 22-54 µs. Not yet measured optimised: a row that has left the memtable
//! (`examples/append_rate.rs` does); where that costs more than the hop, move it there.

use crate::{
    Directory,
    expiry::{InboxExpiry, ItemExpiry, VerdictExpiry},
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
    HistoryRange, InboxDay, InboxRow, MessageRow, MessageStore, PortError, StoreBatch, Stored,
    VerdictRow,
};
/// How many places `items` reads without leaving the caller's thread.
const ITEMS_INLINE: usize = 8;

#[async_trait]
impl MessageStore for Directory {
    async fn write(&self, batch: StoreBatch) -> Result<(), PortError> {
        let encoded = Encoded::from(&batch);
        drop(batch);
        let (verdicts, inboxes) = (self.verdicts.clone(), self.inboxes.clone());
        let (items, bytes) = (self.items.clone(), encoded.bytes);
        let write =
            move |tx: &mut Transaction<'_>| encoded.write(tx, (&verdicts, &inboxes, &items));
        self.engine.write(bytes, write).await
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
        let now = self.items.now_ms();
        self.engine
            .read(move |tables| {
                let pairs = tables::range(&tables.messages, &from[..]..=&upto[..]);
                let place = |pair| place(pair, now);
                if !newest {
                    return pairs.take(limit).map(place).collect();
                }
                let rows: Result<Vec<_>, _> = pairs.rev().take(limit).map(place).collect();
                rows.map(|mut rows| {
                    rows.reverse();
                    rows
                })
            })
            .await
    }

    async fn items(&self, places: &[(ChatId, u64)]) -> Result<Vec<Option<Bytes>>, PortError> {
        let keys: Vec<Key> = places.iter().map(|(chat, seq)| keys::message(chat, *seq)).collect();
        let now = self.items.now_ms();
        let get = move |tables: &tables::Tables, keys: &[Key]| {
            let item = |key: &Key| {
                let stored = tables::get(&tables.messages, key)?;
                stored.map(|stored| item(&stored, now)).transpose()
            };
            keys.iter().map(item).collect()
        };
        if keys.len() <= ITEMS_INLINE {
            get(self.engine.tables(), &keys)
        } else {
            self.engine.read(move |tables| get(tables, &keys)).await
        }
    }

    async fn hidden(
        &self,
        user: &UserId,
        chat: &ChatId,
        (first, last): (u64, u64),
    ) -> Result<Vec<u64>, PortError> {
        if first > last {
            return Ok(Vec::new());
        }
        let (from, upto) = (keys::hidden(user, chat, first), keys::hidden(user, chat, last));
        self.engine
            .read(move |tables| {
                let pairs = tables::range(&tables.rows, &from[..]..=&upto[..]);
                let place =
                    |key: Bytes| keys::last_u64(&key).ok_or_else(|| tables::corrupt("place"));
                pairs.map(|pair| place(pair?.0)).collect()
            })
            .await
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
        let since = self.inboxes.kept_since();
        self.engine
            .read(move |tables| {
                let pairs = tables::range(&tables.inbox, &from[..]..=&upto[..]);
                let kept = pairs.filter(|pair| {
                    let stamp = pair.as_ref().ok().and_then(|(_, value)| values::stamp(value));
                    stamp.is_none_or(|at| at >= since)
                });
                kept.take(limit).map(stored).collect()
            })
            .await
    }

    async fn inbox_days(&self, partition: Partition) -> Result<Vec<InboxDay>, PortError> {
        let prefix = keys::inbox_days(partition);
        let first = keys::inbox_day(partition, self.inboxes.first_day());
        let last = keys::inbox_day(partition, u32::MAX);
        self.engine
            .read(move |tables| {
                let pairs = tables::range(&tables.rows, &first[..]..=&last[..]);
                let days = pairs.map(|pair| {
                    let (key, stored) = pair?;
                    let day = key.strip_prefix(&prefix[..]).and_then(|day| day.try_into().ok());
                    let (day, first) =
                        day.zip(values::number(&stored)).ok_or_else(|| tables::corrupt("day"))?;
                    let (day, first) = (u32::from_be_bytes(day), Position(first));
                    Ok(InboxDay { partition, day, first })
                });
                days.collect()
            })
            .await
    }

    async fn verdict(&self, request: &RequestId) -> Result<Option<Bytes>, PortError> {
        let stored = tables::get(&self.engine.tables().rows, &keys::verdict(request))?;
        stored.map(|stored| content(&stored)).transpose()
    }
}

fn content(stamped: &Bytes) -> Result<Bytes, PortError> {
    let content = values::split_numbered(stamped).map(|(_, content)| content);
    content.ok_or_else(|| tables::corrupt("row"))
}

fn item(stored: &Bytes, now_ms: UnixMs) -> Result<Bytes, PortError> {
    values::split_item(stored, now_ms).ok_or_else(|| tables::corrupt("row"))
}

/// A place of a chat.
fn place(pair: Result<Pair, PortError>, now_ms: UnixMs) -> Result<Stored, PortError> {
    let (key, value) = pair?;
    let seq = keys::last_u64(&key).ok_or_else(|| tables::corrupt("place"))?;
    Ok((seq, item(&value, now_ms)?))
}

fn stored(pair: Result<Pair, PortError>) -> Result<Stored, PortError> {
    let (key, value) = pair?;
    let place = keys::last_u64(&key).ok_or_else(|| tables::corrupt("place"))?;
    Ok((place, content(&value)?))
}

/// A batch as it will be stored: encoding is the callers' work, not the one writer's.
#[derive(Default)]
struct Encoded {
    messages: Vec<(Key, (Bytes, Option<UnixMs>))>,
    inbox: Vec<(Key, Bytes)>,
    versioned: Vec<(Key, Bytes)>,
    plain: Vec<(Key, Bytes)>,
    verdicts: Vec<(Key, Bytes, Key)>,
    days: Vec<InboxDay>,
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
        let marks = batch.marks.iter().map(|row| {
            (keys::mark(&row.chat, &row.user), values::numbered(row.version, &row.state))
        });
        let hidden = batch
            .hidden
            .iter()
            .map(|row| (keys::hidden(&row.user, &row.chat, row.seq), Bytes::new()));
        let blocks = batch.blocks.iter().map(|row| {
            let (key, edge) = (keys::block(row.partition, &row.edge), &row.edge);
            (key, values::edge(edge.blocked, edge.at))
        });
        let message = |row: &MessageRow| {
            let value = values::item(row.at_ms, row.ends_ms, &row.item);
            (keys::message(&row.chat, row.seq), (value, row.ends_ms))
        };
        let inbox = |row: &InboxRow| {
            let key = keys::inbox(row.partition, &row.user, row.position);
            (key, values::stamped(row.at_ms, &row.event))
        };
        let verdict = |row: &VerdictRow| {
            let age = keys::verdict_age(row.at_ms, &row.request);
            (keys::verdict(&row.request), values::stamped(row.at_ms, &row.verdict), age)
        };
        let mut encoded = Self {
            messages: batch.messages.iter().map(message).collect(),
            inbox: batch.inbox.iter().map(inbox).collect(),
            versioned: chats.chain(memberships).chain(marks).collect(),
            plain: hidden.chain(blocks).collect(),
            verdicts: batch.verdicts.iter().map(verdict).collect(),
            days: batch.days.clone(),
            bytes: 0,
        };
        let messages = encoded.messages.iter().map(|(key, (value, _))| (key, value));
        let pairs = [&encoded.inbox, &encoded.versioned, &encoded.plain];
        let pairs = pairs.into_iter().flatten().map(|(key, value)| (key, value)).chain(messages);
        let pairs = pairs.map(|(key, value)| key.len() + value.len());
        let verdicts =
            encoded.verdicts.iter().map(|(key, value, age)| key.len() + value.len() + age.len());
        encoded.bytes = pairs.chain(verdicts).sum();
        encoded
    }
}

impl Encoded {
    fn write(
        self,
        tx: &mut Transaction<'_>,
        (verdicts, inboxes, items): (&VerdictExpiry, &InboxExpiry, &ItemExpiry),
    ) -> Result<(), PortError> {
        let (tables, arrived, decided) = (tx.tables, self.inbox.len(), self.verdicts.len());
        if arrived > 0 {
            inboxes.forget_some(tx, 2 * arrived)?;
        }
        // Before new ones: all writes of a batch have one place, and those that ended count.
        items.empty_some(tx, 2 * self.messages.len())?;
        for (key, row) in self.messages {
            items.put(tx, key, row);
        }
        for (key, value) in self.inbox {
            tx.put(&tables.inbox, key, value);
        }
        for (key, value) in self.versioned {
            tx.put_greater(key, value, 8)?;
        }
        for (key, value) in self.plain {
            tx.put_row(key, value);
        }
        for day in &self.days {
            inboxes.put_day(tx, day)?;
        }
        for (key, value, age) in self.verdicts {
            tx.put_row(key, value);
            tx.put_row(age, Bytes::new());
        }
        if decided > 0 { verdicts.forget_some(tx, 2 * decided) } else { Ok(()) }
    }
}
