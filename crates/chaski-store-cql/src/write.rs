//! The write path. Its shape decides the cost of the whole system: rows of one CQL partition go as
//! one unlogged batch (14-17 µs of server CPU a row against 55-70 for single inserts), all
//! requests run at once up to a bound, and all are awaited before the first error is given.

use crate::{
    CqlStore,
    db::{self, WRITES_IN_FLIGHT},
    invalid,
    keys::{self, signed},
};
use chaski_core::{ChatId, record::UnixMs};
use chaski_ports::{BlockRow, PortError, StoreBatch};
use std::{collections::HashMap, hash::Hash};

/// The most rows in one request.
const BATCH_ROWS_MAX: usize = 50;
/// The most payload bytes in one request, unless a single row is greater.
const BATCH_BYTES_MAX: usize = 64 * 1024;
/// How much longer the row of an inbox bucket lives than the bucket's rows: it is written once a day.
const BUCKET_SLACK_MS: UnixMs = 2 * 24 * 3600 * 1000;

type MessageValues<'a> = (&'a str, i32, i64, &'a [u8], i64);
/// A place whose item expires.
type PlaceValues<'a> = (&'a str, i32, i64, i64);
/// Timestamp, life, item, place.
type ItemValues<'a> = (i64, i32, &'a [u8], &'a str, i32, i64);
type InboxValues<'a> = (i32, i8, i64, &'a str, i64, &'a [u8], i64, i32);
/// Key or keys, version, state, timestamp.
type ChatValues<'a> = (&'a str, i64, &'a [u8], i64);
type MembershipValues<'a> = (&'a str, &'a str, i64, &'a [u8], i64);
type BlockValues<'a> = (i32, &'a str, &'a str, i64, bool, i64, i64);

/// What goes to the server as one request.
enum Request<'a> {
    ChatBucket(ChatId, i32),
    InboxBucket(i32, i64),
    Messages(Vec<MessageValues<'a>>),
    Places(Vec<PlaceValues<'a>>),
    Items(Vec<ItemValues<'a>>),
    Inbox(Vec<InboxValues<'a>>),
    Chat(ChatValues<'a>),
    Memberships(Vec<MembershipValues<'a>>),
    Verdict(&'a [u8], &'a [u8], i64),
    Hidden(Vec<(&'a str, &'a str, i64)>),
    Marks(Vec<MembershipValues<'a>>),
    Blocks(Vec<BlockValues<'a>>),
    Days(Vec<(i32, i32, i64, i64, i32)>),
}

/// The requests of a batch. Those that make buckets known come before those that fill them, and
/// items that expire before their places: a place without its item is taken for an expired one.
#[derive(Default)]
struct Plan<'a> {
    buckets: Vec<Request<'a>>,
    items: Vec<Request<'a>>,
    rows: Vec<Request<'a>>,
}

impl CqlStore {
    /// Writes all rows. What is asked wrongly is refused before anything is written.
    pub(crate) async fn write_batch(&self, batch: &StoreBatch) -> Result<(), PortError> {
        let plan = self.plan(batch)?;
        self.run(plan.buckets).await?;
        self.run(plan.items).await?;
        self.run(plan.rows).await
    }

    /// Sends all requests and gives the first error, if any, when all are settled.
    async fn run(&self, requests: Vec<Request<'_>>) -> Result<(), PortError> {
        let sent: Vec<_> = requests.into_iter().map(|r| self.send(r)).collect();
        db::settle(sent, WRITES_IN_FLIGHT).await
    }

    async fn send(&self, request: Request<'_>) -> Result<(), PortError> {
        let (db, s) = (&self.db, &self.statements);
        let now = self.clock.now_ms();
        match request {
            Request::ChatBucket(chat, bucket) => {
                let values = (chat.as_str(), bucket);
                db.write("put_chat_bucket", &s.put_chat_bucket, values).await?;
                self.chat_buckets.learn((chat, bucket), now);
            }
            Request::InboxBucket(partition, bucket) => {
                let life = self.inbox_ttl_ms.saturating_add(BUCKET_SLACK_MS);
                let ttl = keys::ttl(life, now, now).expect("the slack alone is two days");
                db.write("put_inbox_bucket", &s.put_inbox_bucket, (partition, bucket, ttl)).await?;
                self.inbox_buckets.learn((partition, bucket), now);
            }
            Request::Messages(rows) => {
                db.write_together("put_message", &s.put_message, &rows).await?;
            }
            Request::Places(rows) => db.write_together("put_place", &s.put_place, &rows).await?,
            Request::Items(rows) => db.write_together("put_item", &s.put_item, &rows).await?,
            Request::Inbox(rows) => db.write_together("put_inbox", &s.put_inbox, &rows).await?,
            Request::Chat(row) => drop(db.write("put_chat", &s.put_chat, row).await?),
            Request::Memberships(rows) => {
                db.write_together("put_membership", &s.put_membership, &rows).await?;
            }
            Request::Verdict(request, verdict, timestamp) => {
                let values = (request, verdict, timestamp);
                db.write("put_verdict", &s.put_verdict, values).await?;
            }
            Request::Hidden(rows) => db.write_together("put_hidden", &s.put_hidden, &rows).await?,
            Request::Marks(rows) => db.write_together("put_mark", &s.put_mark, &rows).await?,
            Request::Blocks(rows) => db.write_together("put_block", &s.put_block, &rows).await?,
            Request::Days(rows) => {
                db.write_together("put_inbox_day", &s.put_inbox_day, &rows).await?;
            }
        }
        Ok(())
    }

    fn plan<'a>(&self, batch: &'a StoreBatch) -> Result<Plan<'a>, PortError> {
        let mut plan = Plan::default();
        self.plan_messages(batch, &mut plan)?;
        self.plan_inbox(batch, &mut plan)?;
        self.plan_days(batch, &mut plan)?;
        plan_blocks(batch, &mut plan)?;
        for row in &batch.chats {
            let version = signed("version", row.version)?;
            plan.rows.push(Request::Chat((row.chat.as_str(), version, &row.state, version)));
        }
        let mut memberships = Packer::default();
        for row in &batch.memberships {
            let version = signed("version", row.version)?;
            let (user, chat) = (row.user.as_str(), row.chat.as_str());
            let values = (user, chat, version, &row.state[..], version);
            memberships.push(user, row.state.len(), values);
        }
        plan.rows.extend(memberships.finish().map(Request::Memberships));
        let mut marks = Packer::default();
        for row in &batch.marks {
            let version = signed("version", row.version)?;
            let (chat, user) = (row.chat.as_str(), row.user.as_str());
            marks.push(chat, row.state.len(), (chat, user, version, &row.state[..], version));
        }
        plan.rows.extend(marks.finish().map(Request::Marks));
        for row in &batch.verdicts {
            let timestamp = keys::timestamp(row.at_ms);
            plan.rows.push(Request::Verdict(&row.request, &row.verdict, timestamp));
        }
        Ok(plan)
    }

    fn plan_messages<'a>(
        &self,
        batch: &'a StoreBatch,
        plan: &mut Plan<'a>,
    ) -> Result<(), PortError> {
        let now = self.clock.now_ms();
        let (mut messages, mut places) = (Packer::default(), Packer::default());
        let mut items = Packer::default();
        for row in &batch.messages {
            let seq = signed("seq", row.seq)?;
            let key = (row.chat, keys::message_bucket(seq)?);
            let (chat, timestamp) = (row.chat.as_str(), keys::timestamp(row.at_ms));
            // What is to live for longer than a cell can is kept for ever.
            let near = |ends: &UnixMs| ends.saturating_sub(now) / 1000 <= keys::TTL_MAX_S;
            let first = match row.ends_ms.filter(near) {
                None => {
                    let values = (chat, key.1, seq, &row.item[..], timestamp);
                    messages.push(key, row.item.len(), values)
                }
                Some(ends) => {
                    // A replay must not revive what expired.
                    if let Some(ttl) = keys::ttl(ends.saturating_sub(now), now, now) {
                        let values = (timestamp, ttl, &row.item[..], chat, key.1, seq);
                        items.push(key, row.item.len(), values);
                    }
                    places.push(key, 0, (chat, key.1, seq, timestamp))
                }
            };
            if first && key.1 > 0 && !self.chat_buckets.has(&key, now) {
                plan.buckets.push(Request::ChatBucket(key.0, key.1));
            }
        }
        plan.rows.extend(messages.finish().map(Request::Messages));
        plan.items.extend(items.finish().map(Request::Items));
        plan.rows.extend(places.finish().map(Request::Places));
        Ok(())
    }

    fn plan_inbox<'a>(&self, batch: &'a StoreBatch, plan: &mut Plan<'a>) -> Result<(), PortError> {
        let now = self.clock.now_ms();
        let mut inbox = Packer::default();
        let mut buckets = std::collections::HashSet::new();
        let mut expired = 0;
        for row in &batch.inbox {
            let partition = keys::partition(row.partition)?;
            let position = signed("position", row.position.0)?;
            // A replay must not revive what expired.
            let Some(ttl) = keys::ttl(self.inbox_ttl_ms, row.at_ms, now) else {
                expired += 1;
                continue;
            };
            let (shard, bucket) = (keys::shard(&row.user), keys::inbox_bucket(position));
            let values = (
                partition,
                shard,
                bucket,
                row.user.as_str(),
                position,
                &row.event[..],
                keys::timestamp(row.at_ms),
                ttl,
            );
            if inbox.push((partition, shard, bucket), row.event.len(), values)
                && !self.inbox_buckets.has(&(partition, bucket), now)
                && buckets.insert((partition, bucket))
            {
                plan.buckets.push(Request::InboxBucket(partition, bucket));
            }
        }
        plan.rows.extend(inbox.finish().map(Request::Inbox));
        if expired > 0 {
            metrics::counter!("chaski_store_inbox_expired_total").increment(expired);
        }
        Ok(())
    }

    /// A day lives until the first of its inbox rows may expire.
    fn plan_days<'a>(&self, batch: &'a StoreBatch, plan: &mut Plan<'a>) -> Result<(), PortError> {
        let now = self.clock.now_ms();
        let mut days = Packer::default();
        for row in &batch.days {
            let partition = keys::partition(row.partition)?;
            let first = signed("position", row.first.0)?;
            let day = i32::try_from(row.day).map_err(|_| invalid("day: must be below 2^31"))?;
            let begun = keys::day_ms(row.day);
            if let Some(ttl) = keys::ttl(self.inbox_ttl_ms, begun, now) {
                let values = (partition, day, first, keys::timestamp(begun), ttl);
                days.push(partition, 0, values);
            }
        }
        plan.rows.extend(days.finish().map(Request::Days));
        Ok(())
    }
}

/// Edges of blocks, and the places that blocks withhold.
fn plan_blocks<'a>(batch: &'a StoreBatch, plan: &mut Plan<'a>) -> Result<(), PortError> {
    let mut blocks = Packer::default();
    for BlockRow { partition, edge } in &batch.blocks {
        let partition = keys::partition(*partition)?;
        let (user, peer) = (edge.user.as_str(), edge.peer.as_str());
        let offset = signed("offset", edge.offset.0)?;
        let at = keys::timestamp(edge.at);
        blocks.push(partition, 0, (partition, user, peer, offset, edge.blocked, edge.at, at));
    }
    plan.rows.extend(blocks.finish().map(Request::Blocks));
    let mut hidden = Packer::default();
    for row in &batch.hidden {
        let key = (row.user.as_str(), row.chat.as_str());
        hidden.push(key, 0, (key.0, key.1, signed("seq", row.seq)?));
    }
    plan.rows.extend(hidden.finish().map(Request::Hidden));
    Ok(())
}

/// Packs rows of one key into requests of bounded size.
struct Packer<K, V> {
    open: HashMap<K, (usize, Vec<V>)>,
    full: Vec<Vec<V>>,
}

impl<K, V> Default for Packer<K, V> {
    fn default() -> Self {
        Self { open: HashMap::new(), full: Vec::new() }
    }
}

impl<K: Eq + Hash, V> Packer<K, V> {
    /// Adds a row of `bytes` payload bytes; whether it is the key's first.
    fn push(&mut self, key: K, bytes: usize, row: V) -> bool {
        let mut first = false;
        let (filled, rows) = self.open.entry(key).or_insert_with(|| {
            first = true;
            (0, Vec::new())
        });
        let fits = rows.len() < BATCH_ROWS_MAX && *filled + bytes <= BATCH_BYTES_MAX;
        if !fits && !rows.is_empty() {
            self.full.push(std::mem::take(rows));
            *filled = 0;
        }
        *filled += bytes;
        rows.push(row);
        first
    }

    fn finish(self) -> impl Iterator<Item = Vec<V>> {
        let open = self.open.into_values().map(|(_, rows)| rows);
        self.full.into_iter().chain(open)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_bounded_in_rows_and_bytes_and_lose_nothing() {
        let mut packer = Packer::default();
        assert!(packer.push("a", 1, 0));
        assert!(!packer.push("a", 1, 1));
        for row in 2..120 {
            packer.push("a", 1, row);
        }
        for row in 120..130 {
            packer.push("b", 30 * 1024, row);
        }
        packer.push("c", 10 * BATCH_BYTES_MAX, 130);
        let requests: Vec<Vec<i32>> = packer.finish().collect();
        let mut sizes: Vec<usize> = requests.iter().map(Vec::len).collect();
        sizes.sort_unstable();
        assert_eq!(sizes, [1, 2, 2, 2, 2, 2, 20, 50, 50]);
        let mut rows: Vec<i32> = requests.concat();
        rows.sort_unstable();
        assert_eq!(rows, (0..131).collect::<Vec<_>>());
    }
}
