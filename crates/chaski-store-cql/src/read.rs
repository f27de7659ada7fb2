//! Slices of chats and inboxes, over as many buckets as they need.

use crate::{CqlStore, keys};
use bytes::Bytes;
use chaski_core::{ChatId, Partition, Position, UserId};
use chaski_ports::{InboxDay, PortError, Stored};
use futures::{StreamExt, TryStreamExt, future::try_join_all, stream};
use std::collections::{HashMap, HashSet};

/// How many buckets of one inbox, or groups of places, are read at once.
const READS_IN_FLIGHT: usize = 8;
/// How many buckets are looked up at a time.
const BUCKETS_AT_A_TIME: usize = 64;
/// How many places are asked for in one request: a message may have 400 KB.
const PLACES_AT_A_TIME: usize = 50;

impl CqlStore {
    /// The oldest rows above `after`. Most slices end in the bucket they begin in; only where it
    /// gives too few the chat's later buckets are looked up.
    pub(crate) async fn history_after(
        &self,
        chat: &ChatId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Stored>, PortError> {
        let mut out = Vec::new();
        let Some(first) = below_2_63(after).filter(|_| limit > 0) else {
            return Ok(out);
        };
        let mut bucket = keys::message_bucket_or_last(after.saturating_add(1));
        let mut later = Vec::new().into_iter();
        loop {
            let left = limit - out.len();
            let values = (chat.as_str(), bucket, first, keys::limit(left));
            let rows: Vec<(i64, Option<Bytes>)> =
                self.db.rows("history", &self.statements.messages_up, values, left).await?;
            out.extend(rows.into_iter().map(place));
            if out.len() >= limit {
                return Ok(out);
            }
            bucket = match later.next() {
                Some(next) => next,
                None => {
                    later = self.chat_buckets_after(chat, bucket).await?.into_iter();
                    match later.next() {
                        Some(next) => next,
                        None => return Ok(out),
                    }
                }
            };
        }
    }

    /// The newest rows below `before`, ascending.
    pub(crate) async fn history_before(
        &self,
        chat: &ChatId,
        before: u64,
        limit: usize,
    ) -> Result<Vec<Stored>, PortError> {
        let mut out = Vec::new();
        if before == 0 || limit == 0 {
            return Ok(out);
        }
        let end = below_2_63(before).unwrap_or(i64::MAX);
        let mut last = keys::message_bucket_or_last(before - 1);
        loop {
            // Bucket 0 is in no table: every chat begins there.
            let mut buckets = match last {
                0 => Vec::new(),
                _ => self.chat_buckets_upto(chat, last).await?,
            };
            let exhausted = buckets.len() < BUCKETS_AT_A_TIME;
            if exhausted {
                buckets.push(0);
            }
            for bucket in buckets {
                let left = limit - out.len();
                let values = (chat.as_str(), bucket, end, keys::limit(left));
                let rows: Vec<(i64, Option<Bytes>)> =
                    self.db.rows("history", &self.statements.messages_down, values, left).await?;
                out.extend(rows.into_iter().map(place));
                last = bucket - 1;
                if out.len() >= limit {
                    break;
                }
            }
            if exhausted || out.len() >= limit {
                out.reverse();
                return Ok(out);
            }
        }
    }

    async fn chat_buckets_after(&self, chat: &ChatId, bucket: i32) -> Result<Vec<i32>, PortError> {
        let values = (chat.as_str(), bucket, keys::limit(BUCKETS_AT_A_TIME));
        let statement = &self.statements.chat_buckets_up;
        self.buckets("chat_buckets", statement, values).await
    }

    async fn chat_buckets_upto(&self, chat: &ChatId, bucket: i32) -> Result<Vec<i32>, PortError> {
        let values = (chat.as_str(), bucket, keys::limit(BUCKETS_AT_A_TIME));
        let statement = &self.statements.chat_buckets_down;
        self.buckets("chat_buckets", statement, values).await
    }

    async fn buckets<B>(
        &self,
        op: &'static str,
        statement: &scylla::statement::prepared::PreparedStatement,
        values: impl scylla::serialize::row::SerializeRow,
    ) -> Result<Vec<B>, PortError>
    where
        (B,): for<'f> scylla::deserialize::row::DeserializeRow<'f, 'f>,
    {
        let rows: Vec<(B,)> = self.db.rows(op, statement, values, BUCKETS_AT_A_TIME).await?;
        Ok(rows.into_iter().map(|(bucket,)| bucket).collect())
    }

    /// Single places, in the order asked; those of one bucket are read together.
    pub(crate) async fn read_items(
        &self,
        places: &[(ChatId, u64)],
    ) -> Result<Vec<Option<Bytes>>, PortError> {
        let mut groups = HashMap::<(ChatId, i32), HashSet<i64>>::new();
        for (chat, seq) in places {
            let bucket = keys::message_bucket_or_last(*seq);
            if let Some(seq) = below_2_63(*seq) {
                groups.entry((*chat, bucket)).or_default().insert(seq);
            }
        }
        let mut reads = Vec::new();
        for ((chat, bucket), seqs) in groups {
            let seqs: Vec<i64> = seqs.into_iter().collect();
            for seqs in seqs.chunks(PLACES_AT_A_TIME) {
                reads.push(self.items_of(chat, bucket, seqs.to_vec()));
            }
        }
        let found: HashMap<(ChatId, u64), Bytes> = stream::iter(reads)
            .buffer_unordered(READS_IN_FLIGHT)
            .try_fold(HashMap::new(), |mut found, items| async move {
                found.extend(items);
                Ok(found)
            })
            .await?;
        Ok(places.iter().map(|p| found.get(p).cloned()).collect())
    }

    async fn items_of(
        &self,
        chat: ChatId,
        bucket: i32,
        seqs: Vec<i64>,
    ) -> Result<Vec<((ChatId, u64), Bytes)>, PortError> {
        let statement = &self.statements.messages_at;
        let values = (chat.as_str(), bucket, &seqs);
        let rows: Vec<(i64, Option<Bytes>)> =
            self.db.rows("items", statement, values, seqs.len()).await?;
        let places = rows.into_iter().map(place);
        Ok(places.map(|(seq, item)| ((chat, seq), item)).collect())
    }

    /// A user's events with `after` < position ≤ `upto`: only the buckets that exist, first one,
    /// then two, four and eight at once, since most readers need only the first.
    pub(crate) async fn read_inbox(
        &self,
        partition: Partition,
        user: &UserId,
        (after, upto): (u64, u64),
        limit: usize,
    ) -> Result<Vec<Stored>, PortError> {
        let mut out = Vec::new();
        let Some(after) = below_2_63(after).filter(|_| limit > 0 && after < upto) else {
            return Ok(out);
        };
        let range = (after, below_2_63(upto).unwrap_or(i64::MAX));
        let partition = keys::partition(partition)?;
        let last = keys::inbox_bucket(range.1);
        let mut from = keys::inbox_bucket(after.saturating_add(1));
        loop {
            let values = (partition, from, last, keys::limit(BUCKETS_AT_A_TIME));
            let statement = &self.statements.inbox_buckets;
            let buckets: Vec<i64> = self.buckets("inbox_buckets", statement, values).await?;
            let mut rest = &buckets[..];
            let mut width = 1;
            while !rest.is_empty() {
                let (now, later) = rest.split_at(width.min(rest.len()));
                let left = limit - out.len();
                let reads = now
                    .iter()
                    .map(|bucket| self.inbox_slice(partition, *bucket, user, range, left));
                out.extend(try_join_all(reads).await?.into_iter().flatten());
                if out.len() >= limit {
                    out.truncate(limit);
                    return Ok(out);
                }
                rest = later;
                width = READS_IN_FLIGHT.min(2 * width);
            }
            match buckets.last() {
                Some(bucket) if buckets.len() == BUCKETS_AT_A_TIME => from = bucket + 1,
                _ => return Ok(out),
            }
        }
    }

    /// The days of a partition that began within the life of inbox rows.
    pub(crate) async fn read_inbox_days(
        &self,
        partition: Partition,
    ) -> Result<Vec<InboxDay>, PortError> {
        let since = self.clock.now_ms().saturating_sub(self.inbox_ttl_ms);
        let values = (keys::partition(partition)?, keys::first_day(since));
        let statement = &self.statements.inbox_days;
        let rows: Vec<(i32, i64)> =
            self.db.rows("inbox_days", statement, values, usize::MAX).await?;
        let mut days: Vec<InboxDay> = rows
            .into_iter()
            .map(|(day, first)| InboxDay {
                partition,
                day: day.unsigned_abs(),
                first: Position(keys::unsigned(first)),
            })
            .collect();
        // The lowest position of a day comes first.
        days.dedup_by_key(|row| row.day);
        Ok(days)
    }

    /// The places of a chat, both ends included, that blocks withhold from the user.
    pub(crate) async fn read_hidden(
        &self,
        user: &UserId,
        chat: &ChatId,
        (first, last): (u64, u64),
    ) -> Result<Vec<u64>, PortError> {
        let Some(first) = below_2_63(first).filter(|_| first <= last) else {
            return Ok(Vec::new());
        };
        let last = below_2_63(last).unwrap_or(i64::MAX);
        let values = (user.as_str(), chat.as_str(), first, last);
        let rows: Vec<(i64,)> =
            self.db.rows("hidden", &self.statements.hidden, values, usize::MAX).await?;
        Ok(rows.into_iter().map(|(seq,)| keys::unsigned(seq)).collect())
    }

    async fn inbox_slice(
        &self,
        partition: i32,
        bucket: i64,
        user: &UserId,
        (after, upto): (i64, i64),
        limit: usize,
    ) -> Result<Vec<Stored>, PortError> {
        let values =
            (partition, keys::shard(user), bucket, user.as_str(), after, upto, keys::limit(limit));
        let rows: Vec<(i64, Bytes)> =
            self.db.rows("inbox", &self.statements.inbox, values, limit).await?;
        Ok(rows.into_iter().map(stored).collect())
    }
}

/// A place of a chat; one whose item has expired is empty.
fn place((seq, item): (i64, Option<Bytes>)) -> Stored {
    (keys::unsigned(seq), item.unwrap_or_default())
}

fn stored((place, bytes): (i64, Bytes)) -> Stored {
    (keys::unsigned(place), bytes)
}

/// Nothing is stored at or above 2^63.
fn below_2_63(place: u64) -> Option<i64> {
    i64::try_from(place).ok()
}
