//! Receipts on their way: what a session sent and its device has not acknowledged, what users of
//! this host have taken and read since it was last told, and what a session is to be told.
//!
//! Marks are cumulative state: of one (chat, user) the latest counts, so each of the three is
//! bounded by forgetting, and what fails may be sent again.

use super::is_final;
use chaski_core::{ChatId, Position, UserId};
use chaski_proto::{
    Problem,
    v1::{self, sender_server::Sender},
};
use chaski_runtime::CancellationToken;
use parking_lot::Mutex;
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};
use tokio::sync::Notify;
use tonic::Request;

/// Most marks in one request.
const BATCH: usize = 10_000;
/// Pause after marks could not be submitted.
const AGAIN: Duration = Duration::from_secs(1);

/// Marks of this host's users that are not yet submitted.
pub(super) struct Receipts {
    sender: Arc<dyn Sender>,
    pending: Mutex<HashMap<(ChatId, UserId), Mark>>,
    pending_max: usize,
    some: Notify,
    full: Notify,
}

/// Everything up to here is taken, and read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    delivered: u64,
    read: u64,
    hide_read: bool,
}

impl Mark {
    /// This mark and a newer one. Whether a read mark is hidden was decided when it was made: it
    /// stays with the mark that reaches further.
    fn then(self, newer: Self) -> Self {
        let further = newer.read >= self.read;
        Self {
            delivered: self.delivered.max(newer.delivered),
            read: self.read.max(newer.read),
            hide_read: if further { newer.hide_read } else { self.hide_read },
        }
    }
}

impl Receipts {
    pub(super) fn new(sender: Arc<dyn Sender>, pending_max: usize) -> Self {
        let pending = Mutex::default();
        Self { sender, pending, pending_max, some: Notify::new(), full: Notify::new() }
    }

    /// A device of the user has taken these places of chats and all before them.
    pub(super) fn delivered(&self, user: &UserId, taken: impl IntoIterator<Item = (ChatId, u64)>) {
        let mark = |seq| Mark { delivered: seq, read: 0, hide_read: false };
        self.note(taken.into_iter().map(|(chat, seq)| ((chat, user.clone()), mark(seq))));
    }

    /// The user has read the chat up to `seq`, which has therefore been delivered.
    pub(super) fn read(&self, user: &UserId, chat: ChatId, seq: u64, hide_read: bool) {
        let mark = Mark { delivered: seq, read: seq, hide_read };
        self.note([((chat, user.clone()), mark)]);
    }

    fn note(&self, marks: impl IntoIterator<Item = ((ChatId, UserId), Mark)>) {
        let mut pending = self.pending.lock();
        for (key, newer) in marks {
            self.merge(&mut pending, key, |older| older.map_or(newer, |older| older.then(newer)));
        }
        if pending.len() >= self.pending_max {
            self.full.notify_one();
        }
        if !pending.is_empty() {
            self.some.notify_one();
        }
    }

    fn merge(
        &self,
        pending: &mut HashMap<(ChatId, UserId), Mark>,
        key: (ChatId, UserId),
        merged: impl FnOnce(Option<Mark>) -> Mark,
    ) {
        if let Some(present) = pending.get_mut(&key) {
            *present = merged(Some(*present));
        } else if pending.len() < self.pending_max {
            pending.insert(key, merged(None));
        } else {
            // The next mark of this user covers it.
            metrics::counter!("chaski_receipts_dropped_total", "at" => "host").increment(1);
        }
    }

    /// Submits what is pending, `every` so often, until `stop`, and once more then.
    pub(super) async fn run(&self, every: Duration, stop: CancellationToken) {
        while !stop.is_cancelled() {
            tokio::select! {
                () = self.some.notified() => {}
                () = stop.cancelled() => {}
            }
            tokio::select! {
                () = tokio::time::sleep(every) => {}
                () = self.full.notified() => {}
                () = stop.cancelled() => {}
            }
            if !self.flush().await {
                tokio::select! {
                    () = tokio::time::sleep(AGAIN) => {}
                    () = stop.cancelled() => {}
                }
            }
        }
    }

    /// Submits what is pending; what fails is kept for the next time. Whether all was taken.
    pub(super) async fn flush(&self) -> bool {
        let mut marks: Vec<_> = std::mem::take(&mut *self.pending.lock()).into_iter().collect();
        marks.sort_unstable_by_key(|((chat, _), _)| *chat);
        let mut all = true;
        for batch in marks.chunks(BATCH) {
            let request = v1::SubmitReceiptsRequest { chats: by_chat(batch) };
            let Err(error) = self.sender.submit_receipts(Request::new(request)).await else {
                metrics::counter!("chaski_receipts_total").increment(batch.len() as u64);
                continue;
            };
            let problem = Problem::from(error);
            tracing::warn!(%problem, marks = batch.len(), "receipts are not submitted");
            if is_final(&problem) {
                metrics::counter!("chaski_receipts_dropped_total", "at" => "refused")
                    .increment(batch.len() as u64);
            } else {
                all = false;
                self.keep(batch);
            }
        }
        all
    }

    /// Puts back what was not taken, under what has come since.
    fn keep(&self, batch: &[((ChatId, UserId), Mark)]) {
        let mut pending = self.pending.lock();
        for (key, older) in batch {
            self.merge(&mut pending, key.clone(), |newer| {
                newer.map_or(*older, |newer| older.then(newer))
            });
        }
        self.some.notify_one();
    }
}

/// Marks that stand in the order of their chats, as a request has them.
fn by_chat(marks: &[((ChatId, UserId), Mark)]) -> Vec<v1::ChatReceipts> {
    marks
        .chunk_by(|((a, _), _), ((b, _), _)| a == b)
        .map(|of_chat| v1::ChatReceipts {
            chat_id: of_chat[0].0.0.to_string(),
            marks: of_chat
                .iter()
                .map(|((_, user), mark)| v1::UserMark {
                    user_id: user.to_string(),
                    delivered_seq: mark.delivered,
                    read_seq: mark.read,
                    hide_read: mark.hide_read,
                })
                .collect(),
        })
        .collect()
}

/// Messages of others that a session sent and its device has not acknowledged.
pub(super) struct Unacked {
    sent: VecDeque<(Position, ChatId, u64)>,
    max: usize,
}

impl Unacked {
    pub(super) fn new(max: usize) -> Self {
        Self { sent: VecDeque::new(), max }
    }

    /// A message was sent. At the limit the oldest is forgotten: a later one of its chat covers it.
    pub(super) fn sent(&mut self, position: Position, chat: ChatId, seq: u64) {
        if self.sent.len() >= self.max {
            self.sent.pop_front();
            metrics::counter!("chaski_receipts_dropped_total", "at" => "unacked").increment(1);
        }
        if self.max > 0 {
            self.sent.push_back((position, chat, seq));
        }
    }

    /// The device has taken everything up to here: what that was.
    pub(super) fn acked(&mut self, upto: Position) -> impl Iterator<Item = (ChatId, u64)> {
        let taken = self.sent.partition_point(|(position, ..)| *position <= upto);
        self.sent.drain(..taken).map(|(_, chat, seq)| (chat, seq))
    }
}

/// The receipts that a session is to be told.
pub(super) struct Told {
    whose: UserId,
    latest: HashMap<(ChatId, UserId), (u64, u64)>,
    /// What the session said itself.
    said: Said,
    max: usize,
}

/// What becomes of a receipt for a session.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Put {
    Waits,
    /// The session's device said so itself.
    Known,
    NoRoom,
}

impl Told {
    pub(super) fn new(whose: UserId, max: usize) -> Self {
        Self { whose, latest: HashMap::new(), said: Said::default(), max }
    }

    /// Keeps the latest of a (chat, user).
    pub(super) fn put(&mut self, chat: ChatId, user: UserId, marks: (u64, u64)) -> Put {
        if user == self.whose && self.said.covers(&chat, marks) {
            self.latest.remove(&(chat, user));
            return Put::Known;
        }
        let (key, full) = ((chat, user), self.latest.len() >= self.max);
        if full && !self.latest.contains_key(&key) {
            return Put::NoRoom;
        }
        self.latest.insert(key, marks);
        Put::Waits
    }

    /// What waits, to be sent behind the event at `sent`.
    pub(super) fn take(&mut self, sent: Position) -> Vec<v1::Receipt> {
        let own = self.latest.keys().filter(|(_, user)| *user == self.whose);
        own.for_each(|(chat, _)| self.said.contradicted(*chat, sent, self.max));
        let receipt = |((chat, user), (delivered_seq, read_seq)): ((ChatId, UserId), _)| {
            let (chat_id, user_id) = (chat.to_string(), user.to_string());
            v1::Receipt { chat_id, user_id, delivered_seq, read_seq }
        };
        self.latest.drain().map(receipt).collect()
    }

    /// The session's device has taken, and read, the chat up to here.
    pub(super) fn said(&mut self, chat: ChatId, marks: (u64, u64)) {
        self.said.note(chat, marks, self.max);
        let own = (chat, self.whose.clone());
        if self.latest.get(&own).is_some_and(|waits| self.said.covers(&chat, *waits)) {
            self.latest.remove(&own);
        }
    }

    /// The session's device has everything that was sent before the event at `upto`.
    pub(super) fn acked(&mut self, upto: Position) {
        self.said.crossing.retain(|_, sent| *sent >= upto);
    }
}

/// The marks that a session's device set itself: it need not be told of them. What is forgotten, or
/// finds no room, it is told.
#[derive(Default)]
struct Said {
    marks: HashMap<ChatId, (u64, u64)>,
    /// Chats of which the device was told its user's marks, behind the event at this place. Until
    /// something behind it is acknowledged, that may cross what the device says; and as the latest
    /// receipt counts, the device must be told again.
    crossing: HashMap<ChatId, Position>,
    /// There were more of those than may be remembered.
    lost: bool,
}

impl Said {
    fn covers(&self, chat: &ChatId, (delivered, read): (u64, u64)) -> bool {
        let said = self.marks.get(chat).is_some_and(|(d, r)| delivered <= *d && read <= *r);
        said && !self.lost
    }

    fn note(&mut self, chat: ChatId, (delivered, read): (u64, u64), max: usize) {
        if self.crossing.contains_key(&chat) {
            return;
        }
        if let Some(said) = self.marks.get_mut(&chat) {
            *said = (said.0.max(delivered), said.1.max(read));
        } else if self.marks.len() < max {
            self.marks.insert(chat, (delivered, read));
        }
    }

    fn contradicted(&mut self, chat: ChatId, sent: Position, max: usize) {
        if self.crossing.len() < max || self.crossing.contains_key(&chat) {
            self.crossing.insert(chat, sent);
        } else {
            self.lost = true;
        }
    }
}

#[cfg(test)]
#[path = "marks_tests.rs"]
mod tests;
