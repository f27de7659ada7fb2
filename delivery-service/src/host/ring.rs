//! The recent records of a partition in memory, and who of its users is here.
//!
//! Devices read it at their own pace: a record is kept once, its frame is encoded once, and a
//! user's events are found without looking at anybody else's.

use super::{catch_up::Waiting, close::CloseReason, entry::Entry, subscriber::Subscriber};
use chaski_core::{ChatId, DeviceId, Law, MessageId, Offset, Position, UserId, uphold};
use chaski_planted::Bug;
use chaski_proto::{new_message, v1};
use parking_lot::Mutex;
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

/// How far back a user's events are looked through for one of them.
const LOOK_BACK: usize = 1000;

/// What a device finds in the ring.
pub(super) enum Read {
    /// Its cursor is before the ring.
    Behind,
    /// Its cursor is before what inboxes keep, too: it goes on after this position.
    Expired(Position),
    /// Events after its cursor, in order; empty: it has seen all.
    Events {
        /// The next ones.
        events: Vec<(Arc<Entry>, u32)>,
        /// Whether there are more behind them.
        more: bool,
    },
}

/// The ring of one partition.
pub(super) struct Ring {
    inner: Mutex<Inner>,
    bytes_max: usize,
    /// Most receipts that wait for one session.
    receipts_max: usize,
    /// Who is further back than the ring, and than what is stored.
    pub(super) waiting: Waiting,
}

struct Inner {
    entries: VecDeque<Arc<Entry>>,
    bytes: usize,
    /// Every record from here to `end` with something to show is in `entries`.
    start: Offset,
    /// The next offset to be read from the log.
    end: Offset,
    /// What stands before is not kept in inboxes any more.
    inbox_start: Offset,
    users: HashMap<UserId, Slot>,
    sessions: usize,
    /// Why nobody is served here any more.
    closed: Option<CloseReason>,
}

/// A user of whom there are events in the ring, or sessions.
struct Slot {
    /// Every event of this user from here on is in `events`. Moves only when one of them leaves,
    /// so an idle device on a busy partition does not fall behind.
    known_from: Offset,
    events: VecDeque<(Arc<Entry>, u32)>,
    subscribers: Vec<Subscriber>,
    /// The user's `hideReadMarks`, where it is known here: a change of it that is or was in the
    /// ring, or what a session has asked for.
    hide_read: Option<bool>,
}

impl Slot {
    fn new(known_from: Offset) -> Self {
        Self { known_from, events: VecDeque::new(), subscribers: Vec::new(), hide_read: None }
    }
}

impl Ring {
    /// An empty ring that begins at `start`.
    pub(super) fn new(start: Offset, bytes_max: usize, receipts_max: usize) -> Self {
        let inner = Inner {
            entries: VecDeque::new(),
            bytes: 0,
            start,
            end: start,
            inbox_start: Offset::default(),
            users: HashMap::new(),
            sessions: 0,
            closed: None,
        };
        Self { inner: Mutex::new(inner), bytes_max, receipts_max, waiting: Waiting::default() }
    }

    /// Adds entries in order and moves the end; wakes the devices they are for.
    pub(super) fn push(&self, entries: Vec<Entry>, end: Offset) {
        let inner = &mut *self.inner.lock();
        uphold!(Law::L4, end >= inner.end, "the ring went back from {} to {end}", inner.end);
        inner.end = end;
        for entry in entries {
            let entry = Arc::new(entry);
            inner.bytes += entry.bytes;
            for (index, user) in (0..).zip(&entry.users) {
                let slot = match inner.users.get_mut(user) {
                    Some(slot) => slot,
                    None => inner.users.entry(user.clone()).or_insert(Slot::new(inner.start)),
                };
                slot.events.push_back((Arc::clone(&entry), index));
                slot.hide_read = entry.hide_read_marks().or(slot.hide_read);
                slot.subscribers.iter().for_each(Subscriber::wake);
            }
            inner.entries.push_back(entry);
        }
        while inner.bytes > self.bytes_max
            && let Some(oldest) = inner.entries.pop_front()
        {
            inner.evict(&oldest);
        }
    }

    /// A user's events after `after`, up to about `bytes_max` bytes.
    pub(super) fn read(&self, user: &UserId, after: Position, bytes_max: usize) -> Read {
        let inner = self.inner.lock();
        let slot = inner.users.get(user);
        let known_from = slot.map_or(inner.start, |slot| slot.known_from);
        let first = after.first_offset_after();
        if first.is_none_or(|first| first < known_from) {
            let last_expired = inner.inbox_start.0.checked_sub(1).map(Offset);
            return match last_expired {
                Some(last) if first.is_some_and(|first| first <= last) => {
                    Read::Expired(Position::at(last))
                }
                _ if chaski_planted::is(Bug::BehindIsExpired) => {
                    Read::Expired(Position::at(Offset(inner.end.0.saturating_sub(1))))
                }
                _ => Read::Behind,
            };
        }
        let Some(slot) = slot else { return Read::Events { events: Vec::new(), more: false } };
        let from = slot.events.partition_point(|(entry, _)| entry.position <= after);
        let mut bytes = 0;
        let events = slot.events.range(from..).take_while(|(entry, _)| {
            let fits = bytes < bytes_max;
            bytes += entry.bytes;
            fits
        });
        let events: Vec<_> = events.cloned().collect();
        let more = from + events.len() < slot.events.len();
        Read::Events { events, more }
    }

    /// Inboxes keep nothing before this any more.
    pub(super) fn expire_before(&self, inbox_start: Offset) {
        self.inner.lock().inbox_start = inbox_start;
    }

    /// The newest messages of others that a user was shown up to a position: chat and seq.
    pub(super) fn taken(&self, user: &UserId, upto: Position) -> Vec<(ChatId, u64)> {
        let inner = self.inner.lock();
        let Some(slot) = inner.users.get(user) else { return Vec::new() };
        let end = slot.events.partition_point(|(entry, _)| entry.position <= upto);
        let events = slot.events.range(end.saturating_sub(LOOK_BACK)..end);
        events
            .filter_map(|(entry, index)| entry.message(*index))
            .filter(|message| message.sender_id != user.as_str())
            .filter_map(|message| Some((message.chat_id.parse().ok()?, message.seq)))
            .collect()
    }

    /// A recent message of somebody else that the user was shown.
    pub(super) fn find(
        &self,
        user: &UserId,
        chat: &ChatId,
        id: MessageId,
    ) -> Option<v1::NewMessage> {
        let inner = self.inner.lock();
        let events = inner.users.get(user)?.events.iter().rev().take(LOOK_BACK);
        events
            .filter_map(|(entry, index)| entry.message(*index))
            .find(|message| message.message_id[..] == id.0 && message.chat_id == chat.as_str())
            .filter(|message| message.sender_id != user.as_str())
            .map(new_message)
    }

    /// Receipts for the sessions of these users; they have no place in the order.
    pub(super) fn tell(&self, users: &[UserId], marks: &v1::ReceiptMarks) {
        let Ok(chat) = marks.chat_id.parse::<ChatId>() else { return };
        let inner = self.inner.lock();
        for user in users {
            let Some(slot) = inner.users.get(user).filter(|s| !s.subscribers.is_empty()) else {
                continue;
            };
            // Users are told their own marks as they are, and of others what those show.
            let theirs = |mark: &&v1::MemberMark| (mark.user_id == user.as_str()) == marks.own;
            for mark in marks.marks.iter().filter(theirs) {
                let Ok(whose) = mark.user_id.parse::<UserId>() else { continue };
                let read = if marks.own { mark.read_seq } else { mark.public_read_seq };
                for subscriber in &slot.subscribers {
                    subscriber.tell(chat, whose.clone(), (mark.delivered_seq, read));
                }
            }
        }
    }

    /// The user's `hideReadMarks`, where it is known.
    pub(super) fn hide_read(&self, user: &UserId) -> Option<bool> {
        self.inner.lock().users.get(user)?.hide_read
    }

    /// What the settings say, as asked a moment ago: what has come by the log since is newer.
    /// Gives what holds.
    pub(super) fn learn_hide_read(&self, user: &UserId, hide: bool) -> bool {
        let mut inner = self.inner.lock();
        inner.users.get_mut(user).map_or(hide, |slot| *slot.hide_read.get_or_insert(hide))
    }

    /// The user has set it.
    pub(super) fn set_hide_read(&self, user: &UserId, hide: bool) {
        if let Some(slot) = self.inner.lock().users.get_mut(user) {
            slot.hide_read = Some(hide);
        }
    }

    /// Whether a device may resume here: its position is not one that this partition never gave.
    pub(super) fn knows(&self, position: Position) -> bool {
        position.first_offset_after().is_some_and(|first| first <= self.inner.lock().end)
    }

    /// The newest position that was read from the log.
    pub(super) fn newest(&self) -> Position {
        match self.inner.lock().end.0.checked_sub(1) {
            Some(last) => Position::at(Offset(last)),
            None => Position::BEGINNING,
        }
    }

    /// Where the ring begins.
    pub(super) fn begins(&self) -> Offset {
        self.inner.lock().start
    }

    /// Where a read of the log that comes from before the ring hands over to it: half way into it, so
    /// that there is time to before it is forgotten.
    pub(super) fn meeting(&self) -> Offset {
        let inner = self.inner.lock();
        Offset(inner.start.0 + (inner.end.0 - inner.start.0) / 2)
    }

    /// A session of this device begins, on the socket of this number. Of two sockets of a device the
    /// one that was opened first is sent away: the `hello` of one that its client gave up may come
    /// late.
    pub(super) fn subscribe(
        &self,
        (user, device): (&UserId, &DeviceId),
        issued_at: i64,
        socket: u64,
    ) -> Subscriber {
        let inner = &mut *self.inner.lock();
        inner.sessions += 1;
        let whose = (user.clone(), device.clone());
        let subscriber = Subscriber::new(socket, whose, issued_at, self.receipts_max);
        let slot = inner.users.entry(user.clone()).or_insert(Slot::new(inner.start));
        for other in slot.subscribers.iter().filter(|other| other.device() == device) {
            let older = if other.socket() < socket { other } else { &subscriber };
            older.dismiss(CloseReason::Replaced);
        }
        slot.subscribers.push(subscriber.clone());
        if let Some(reason) = inner.closed {
            subscriber.dismiss(reason);
        }
        subscriber
    }

    /// Ends the sessions of a device whose token was issued in this second or before it.
    pub(super) fn revoke(&self, user: &UserId, device: &DeviceId, revoked_at: i64) {
        let inner = self.inner.lock();
        let subscribers = inner.users.get(user).into_iter().flat_map(|slot| &slot.subscribers);
        subscribers.filter(|s| s.device() == device).for_each(|s| s.revoke(revoked_at));
    }

    /// The session is over.
    pub(super) fn unsubscribe(&self, user: &UserId, subscriber: &Subscriber) {
        let inner = &mut *self.inner.lock();
        inner.sessions -= 1;
        if let Some(slot) = inner.users.get_mut(user) {
            slot.subscribers.retain(|s| !s.is(subscriber));
            inner.forget_if_idle(user);
        }
    }

    /// Sends all sessions away, and those that come while they go.
    pub(super) fn dismiss(&self, reason: CloseReason) {
        self.close(reason).iter().for_each(|session| session.dismiss(reason));
    }

    /// Serves nobody from here on; gives the sessions that are to be sent away.
    pub(super) fn close(&self, reason: CloseReason) -> Vec<Subscriber> {
        let inner = &mut *self.inner.lock();
        inner.closed.get_or_insert(reason);
        inner.users.values().flat_map(|slot| &slot.subscribers).cloned().collect()
    }

    /// Serves again who comes.
    pub(super) fn reopen(&self) {
        self.inner.lock().closed = None;
    }

    /// Whether it serves who comes.
    pub(super) fn is_open(&self) -> bool {
        self.inner.lock().closed.is_none()
    }

    /// How many sessions there are.
    pub(super) fn sessions(&self) -> usize {
        self.inner.lock().sessions
    }
}

impl Inner {
    fn evict(&mut self, oldest: &Entry) {
        self.bytes -= oldest.bytes;
        self.start =
            oldest.position.first_offset_after().expect("the ring holds its own positions");
        for user in &oldest.users {
            if let Some(slot) = self.users.get_mut(user) {
                slot.events.pop_front();
                slot.known_from = self.start;
                self.forget_if_idle(user);
            }
        }
    }

    fn forget_if_idle(&mut self, user: &UserId) {
        if self.users.get(user).is_some_and(|s| s.events.is_empty() && s.subscribers.is_empty()) {
            self.users.remove(user);
        }
    }
}

#[cfg(test)]
#[path = "ring_tests.rs"]
mod tests;
