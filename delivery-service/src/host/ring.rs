//! The recent records of a partition in memory, and who of its users is here.
//!
//! Devices read it at their own pace: a record is kept once, its frame is encoded once, and a
//! user's events are found without looking at anybody else's.

use super::close::CloseReason;
use bytes::Bytes;
use chaski_core::{DeviceId, Law, Offset, Position, UserId, uphold};
use chaski_proto::{
    event_body,
    v1::{self, recipients_record},
};
use parking_lot::Mutex;
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, OnceLock},
};
use tokio::sync::Notify;

/// An applied record with something to show.
pub(super) struct Entry {
    pub(super) position: Position,
    users: Vec<UserId>,
    event: recipients_record::Event,
    bytes: usize,
    json: OnceLock<Bytes>,
    protobuf: OnceLock<Bytes>,
}

impl Entry {
    pub(super) fn new(
        offset: Offset,
        users: Vec<UserId>,
        event: recipients_record::Event,
        bytes: usize,
    ) -> Self {
        let position = Position::at(offset);
        // The frame in one format and the bookkeeping are about as much again.
        let bytes = 2 * bytes + 200;
        Self { position, users, event, bytes, json: OnceLock::new(), protobuf: OnceLock::new() }
    }

    /// The frame for the `index`-th user, encoded once where all see the same.
    pub(super) fn frame(&self, index: u32, json: bool) -> Bytes {
        let encode = || {
            let body = event_body(&self.event, index as usize);
            let body = body.expect("only records with something to show enter the ring");
            v1::ServerFrame::event(self.position.0, body).to_bytes(json)
        };
        if matches!(self.event, recipients_record::Event::ChatChange(_)) {
            return encode(); // visibleFrom is each user's own
        }
        let cache = if json { &self.json } else { &self.protobuf };
        cache.get_or_init(encode).clone()
    }
}

/// A session that wants to hear of its user's events.
pub(super) struct Subscriber {
    id: u64,
    device: DeviceId,
    /// Told when there is something to read, or a reason to close.
    pub(super) wake: Arc<Notify>,
    dismissed: Arc<OnceLock<CloseReason>>,
}

impl Subscriber {
    /// Why the session is to end, if it is.
    pub(super) fn dismissed(&self) -> Option<CloseReason> {
        self.dismissed.get().copied()
    }

    fn dismiss(&self, reason: CloseReason) {
        // The first reason stands.
        let _ = self.dismissed.set(reason);
        self.wake.notify_one();
    }

    fn twin(&self) -> Self {
        Self {
            id: self.id,
            device: self.device.clone(),
            wake: Arc::clone(&self.wake),
            dismissed: Arc::clone(&self.dismissed),
        }
    }
}

/// What a device finds in the ring.
pub(super) enum Read {
    /// Its cursor is before the ring.
    Behind,
    /// Events after its cursor, in order; empty: it has seen all.
    Events(Vec<(Arc<Entry>, u32)>),
}

/// The ring of one partition.
pub(super) struct Ring {
    inner: Mutex<Inner>,
    bytes_max: usize,
}

impl Slot {
    fn new(known_from: Offset) -> Self {
        Self { known_from, events: VecDeque::new(), subscribers: Vec::new() }
    }
}

struct Inner {
    entries: VecDeque<Arc<Entry>>,
    bytes: usize,
    /// Every record from here to `end` with something to show is in `entries`.
    start: Offset,
    /// The next offset to be read from the log.
    end: Offset,
    users: HashMap<UserId, Slot>,
    next_id: u64,
    sessions: usize,
}

/// A user of whom there are events in the ring, or sessions.
struct Slot {
    /// Every event of this user from here on is in `events`. Moves only when one of them leaves,
    /// so an idle device on a busy partition does not fall behind.
    known_from: Offset,
    events: VecDeque<(Arc<Entry>, u32)>,
    subscribers: Vec<Subscriber>,
}

impl Ring {
    /// An empty ring that begins at `start`.
    pub(super) fn new(start: Offset, bytes_max: usize) -> Self {
        let inner = Inner {
            entries: VecDeque::new(),
            bytes: 0,
            start,
            end: start,
            users: HashMap::new(),
            next_id: 0,
            sessions: 0,
        };
        Self { inner: Mutex::new(inner), bytes_max }
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
                slot.subscribers.iter().for_each(|s| s.wake.notify_one());
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
        if after.first_offset_after().is_none_or(|first| first < known_from) {
            return Read::Behind;
        }
        let Some(slot) = slot else { return Read::Events(Vec::new()) };
        let from = slot.events.partition_point(|(entry, _)| entry.position <= after);
        let mut bytes = 0;
        let events = slot.events.range(from..).take_while(|(entry, _)| {
            let fits = bytes < bytes_max;
            bytes += entry.bytes;
            fits
        });
        Read::Events(events.cloned().collect())
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

    /// A session of this device begins; an older one of the same device is sent away.
    pub(super) fn subscribe(&self, user: &UserId, device: &DeviceId) -> Subscriber {
        let inner = &mut *self.inner.lock();
        inner.next_id += 1;
        inner.sessions += 1;
        let subscriber = Subscriber {
            id: inner.next_id,
            device: device.clone(),
            wake: Arc::default(),
            dismissed: Arc::default(),
        };
        let slot = inner.users.entry(user.clone()).or_insert(Slot::new(inner.start));
        slot.subscribers
            .iter()
            .filter(|other| other.device == *device)
            .for_each(|other| other.dismiss(CloseReason::Replaced));
        slot.subscribers.push(subscriber.twin());
        subscriber
    }

    /// The session is over.
    pub(super) fn unsubscribe(&self, user: &UserId, subscriber: &Subscriber) {
        let inner = &mut *self.inner.lock();
        inner.sessions -= 1;
        if let Some(slot) = inner.users.get_mut(user) {
            slot.subscribers.retain(|s| s.id != subscriber.id);
            inner.forget_if_idle(user);
        }
    }

    /// Sends all sessions away.
    pub(super) fn dismiss(&self, reason: CloseReason) {
        let inner = self.inner.lock();
        inner.users.values().flat_map(|slot| &slot.subscribers).for_each(|s| s.dismiss(reason));
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
mod tests {
    use super::*;

    fn user(text: &str) -> UserId {
        text.parse().unwrap()
    }

    fn entry(offset: u64, users: &[&str]) -> Entry {
        let rejection = recipients_record::Event::Rejection(v1::Rejection::default());
        Entry::new(Offset(offset), users.iter().map(|u| user(u)).collect(), rejection, 100)
    }

    #[track_caller]
    fn check(ring: &Ring, who: &str, after: Position, expected: Option<&[u64]>) {
        let found = match ring.read(&user(who), after, 1 << 20) {
            Read::Behind => None,
            Read::Events(events) => {
                Some(events.iter().map(|(e, _)| e.position.0 & 0xffff).collect::<Vec<_>>())
            }
        };
        assert_eq!(found.as_deref(), expected);
    }

    #[test]
    fn a_user_finds_exactly_their_own_events_after_a_cursor() {
        let ring = Ring::new(Offset(0), 1 << 20);
        ring.push(
            vec![entry(1, &["ana", "ben"]), entry(4, &["ben"]), entry(5, &["ana"])],
            Offset(6),
        );
        check(&ring, "ana", Position::BEGINNING, Some(&[1, 5]));
        check(&ring, "ana", Position::at(Offset(1)), Some(&[5]));
        check(&ring, "ben", Position::at(Offset(2)), Some(&[4]));
        check(&ring, "eve", Position::BEGINNING, Some(&[]));
        assert!(ring.knows(Position::at(Offset(5))) && !ring.knows(Position::at(Offset(6))));
    }

    #[test]
    fn l5_a_cursor_before_the_ring_is_behind_never_skipped() {
        let ring = Ring::new(Offset(0), 1000); // two entries of 400 bytes
        ring.push(vec![entry(1, &["ana"]), entry(3, &["ben"]), entry(7, &["ana"])], Offset(8));
        check(&ring, "ana", Position::BEGINNING, None);
        check(&ring, "ana", Position::at(Offset(1)), Some(&[7]));
        let warm = Ring::new(Offset(10), 1000);
        check(&warm, "ana", Position::at(Offset(8)), None);
        check(&warm, "ana", Position::at(Offset(9)), Some(&[]));
    }

    #[test]
    fn an_idle_device_does_not_fall_behind_a_busy_partition() {
        let ring = Ring::new(Offset(0), 1000);
        let here = ring.subscribe(&user("ana"), &"phone".parse().unwrap());
        ring.push((1..50).map(|offset| entry(offset, &["ben"])).collect(), Offset(50));
        check(&ring, "ana", Position::BEGINNING, Some(&[]));
        check(&ring, "eve", Position::BEGINNING, None);
        ring.push(vec![entry(50, &["ana"])], Offset(51));
        check(&ring, "ana", Position::BEGINNING, Some(&[50]));
        ring.push((51..99).map(|offset| entry(offset, &["ben"])).collect(), Offset(99));
        check(&ring, "ana", Position::BEGINNING, None);
        ring.unsubscribe(&user("ana"), &here);
    }

    #[test]
    fn a_newer_socket_of_a_device_replaces_the_older_one() {
        let ring = Ring::new(Offset(0), 1000);
        let (phone, desk) = ("phone".parse().unwrap(), "desk".parse().unwrap());
        let first = ring.subscribe(&user("ana"), &phone);
        let other = ring.subscribe(&user("ana"), &desk);
        let second = ring.subscribe(&user("ana"), &phone);
        assert_eq!(first.dismissed(), Some(CloseReason::Replaced));
        assert_eq!((other.dismissed(), second.dismissed()), (None, None));
        for subscriber in [&first, &other, &second] {
            ring.unsubscribe(&user("ana"), subscriber);
        }
        assert_eq!(ring.sessions(), 0);
        assert!(ring.inner.lock().users.is_empty(), "nothing is kept for who is not here");
    }
}
