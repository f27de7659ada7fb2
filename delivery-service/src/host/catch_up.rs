//! One read of the log for all devices of a partition that are further back than its ring and than
//! what the message service has stored, or while that one is away: so live chat does not wait for
//! the store.
//!
//! Devices take seats; a read begins at a watermark at or before the furthest of them, filters by
//! origin as the feed does, gives each device its own events, and ends inside the ring. There is one
//! read of a partition at a time, at half speed, and what it has found and nobody took is bounded. A
//! device that holds others up for longer than a second loses its seat and takes one in the next
//! read; so there are never more reads than devices that are slow.
//!
//! Must not know: sockets, the message service.

use super::{
    DeliveryHost, entry::Entry, feed::fresh, past::Past, ring::Ring, subscriber::Subscriber,
};
use chaski_core::{Offset, Partition, Position, UserId, Watermark};
use chaski_ports::{ErrorKind, LogRecord, PortError, Topic};
use chaski_proto::{connection_change, v1::recipients_record::Event};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    convert::Infallible,
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout, timeout_at},
};

/// Reads of a host that look into what they have read at once.
pub(super) const READS_MAX: usize = 2;
/// So long the first one waits for others.
const GATHER: Duration = Duration::from_millis(50);
/// How long a full read waits for room before others go on without the fullest seat.
const STALL: Duration = Duration::from_secs(1);
/// How long the log may take for a batch.
const LOG_PATIENCE: Duration = Duration::from_secs(30);
/// The pause before a read that failed is tried again.
const AGAIN: Duration = Duration::from_millis(500);
/// The least pause between two batches.
const BREATH: Duration = Duration::from_millis(1);

/// Reads the log again whenever somebody waits for it.
pub(super) async fn run(
    host: &DeliveryHost,
    partition: Partition,
    ring: &Ring,
    past: &Mutex<Past>,
) -> Infallible {
    loop {
        ring.waiting.wanted().await;
        sleep(GATHER).await;
        if let Err(error) = read(host, partition, ring, past).await {
            tracing::warn!(%partition, %error, "the log is not read again for devices that are behind, trying again");
            ring.waiting.interrupt();
            sleep(AGAIN).await;
        }
    }
}

/// Serves all who wait, once.
async fn read(
    host: &DeliveryHost,
    partition: Partition,
    ring: &Ring,
    past: &Mutex<Past>,
) -> Result<(), PortError> {
    let (log, waiting) = (&host.parts.log, &ring.waiting);
    let kept_from = log.bounds(Topic::Recipients, partition).await?.start;
    let mark = {
        let mut past = past.lock();
        past.forget_before(kept_from);
        waiting.keeps(past.begins(), kept_from);
        waiting.lowest().and_then(|from| past.mark_at(from))
    };
    let Some(mut mark) = mark else { return Ok(()) };
    let mut reader = log.reader(Topic::Recipients, partition, mark.next).await?;
    let begun_at = mark.next;
    waiting.begin(begun_at);
    metrics::counter!("chaski_catch_up_reads_total").increment(1);
    loop {
        // What the feed has not read yet is not read here: it knows the blocks.
        let goal = ring.meeting();
        if mark.next >= goal || waiting.is_empty() {
            break;
        }
        let records = timeout(LOG_PATIENCE, reader.next()).await;
        let records = records.map_err(|_| {
            PortError::new(ErrorKind::Unavailable, "the log gives nothing before its end")
        })??;
        metrics::counter!("chaski_catch_up_records_total").increment(records.len() as u64);
        let arrived = {
            let _turn = host.catching_up.acquire().await.expect("it is never closed");
            let begun = Instant::now();
            let arrived = waiting.sift(&past.lock(), &mut mark, records, goal);
            // At most half of the time: the feeds come first.
            sleep(begun.elapsed().max(BREATH)).await;
            arrived
        };
        // The rest of the batch is passed over: the reader is behind it, wherever the ring is now.
        if arrived {
            break;
        }
        waiting.room(host.config.catch_up_bytes).await;
    }
    tracing::info!(%partition, from = %begun_at, to = %mark.next, "the log was read again for devices that were behind");
    waiting.finish(mark.next);
    Ok(())
}

/// An event, and which of its users it is for.
type Found = (Arc<Entry>, u32);

/// Who of a partition waits for a read of the log, and what it has found for them.
#[derive(Default)]
pub(super) struct Waiting {
    inner: Mutex<Inner>,
    /// Somebody came, took something, or left.
    changed: Notify,
}

#[derive(Default)]
struct Inner {
    seats: BTreeMap<u64, Seated>,
    by_user: HashMap<UserId, Vec<u64>>,
    last_number: u64,
    /// What was found and is not taken, over all seats.
    bytes: usize,
    /// How far the read has come that is under way.
    at: Option<Offset>,
    /// The first place that a read can begin at.
    begins: Offset,
    /// The first place that the log keeps, when last looked at.
    kept_from: Offset,
}

struct Seated {
    user: UserId,
    subscriber: Subscriber,
    /// The first place that it has not seen.
    from: Offset,
    state: State,
    found: VecDeque<Found>,
    bytes: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// For the next read.
    Waits,
    /// The read that is under way gives it what it finds.
    Served,
    /// Everything before this place was found.
    Over(Offset),
    /// There is no more for it here.
    Lost,
}

/// What becomes of a device that wants a seat.
pub(super) enum Join {
    /// It is woken where there is something to take.
    Seat(Seat),
    /// The log does not keep its place any more: it can go on after this one.
    Gone(Position),
    /// No read can begin there.
    No,
}

/// What a seat gives.
pub(super) enum Taken {
    /// The next events.
    Events(Vec<Found>),
    /// Nothing yet.
    Nothing,
    /// Everything up to here was given.
    Over(Position),
    /// It held the others up, or the log forgot its place.
    Lost,
}

/// The seat of one session; dropped, it is free.
pub(super) struct Seat {
    ring: Arc<Ring>,
    number: u64,
}

impl Ring {
    /// A seat for a session that has seen everything up to `after`.
    pub(super) fn seat(self: &Arc<Self>, user: &UserId, after: Position, who: &Subscriber) -> Join {
        let begins_here = self.begins();
        let inner = &mut *self.waiting.inner.lock();
        let Some(from) = after.first_offset_after() else { return Join::No };
        if from < inner.begins {
            let next = inner.begins.min(begins_here);
            return match next.0.checked_sub(1) {
                Some(last) if from < inner.kept_from => Join::Gone(Position::at(Offset(last))),
                _ => Join::No,
            };
        }
        inner.last_number += 1;
        let number = inner.last_number;
        let served = inner.at.is_some_and(|at| from >= at);
        let state = if served { State::Served } else { State::Waits };
        let (user, subscriber) = (user.clone(), who.clone());
        inner.by_user.entry(user.clone()).or_default().push(number);
        let found = VecDeque::new();
        inner.seats.insert(number, Seated { user, subscriber, from, state, found, bytes: 0 });
        self.waiting.changed.notify_one();
        metrics::gauge!("chaski_catch_up_waiting").increment(1);
        Join::Seat(Seat { ring: Arc::clone(self), number })
    }
}

impl Seat {
    /// The next events, up to about `bytes_max` bytes.
    pub(super) fn take(&self, bytes_max: usize) -> Taken {
        let waiting = &self.ring.waiting;
        let inner = &mut *waiting.inner.lock();
        let seated = inner.seats.get_mut(&self.number).expect("it is there as long as its seat");
        let (mut events, mut bytes) = (Vec::new(), 0);
        while bytes < bytes_max
            && let Some(event) = seated.found.pop_front()
        {
            bytes += event.0.bytes;
            events.push(event);
        }
        seated.bytes -= bytes;
        inner.bytes -= bytes;
        if !events.is_empty() {
            waiting.changed.notify_one();
            return Taken::Events(events);
        }
        match seated.state {
            State::Waits | State::Served => Taken::Nothing,
            State::Over(at) => Taken::Over(
                at.0.checked_sub(1).map_or(Position::BEGINNING, |last| Position::at(Offset(last))),
            ),
            State::Lost => Taken::Lost,
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let waiting = &self.ring.waiting;
        let inner = &mut *waiting.inner.lock();
        if let Some(seated) = inner.seats.remove(&self.number) {
            inner.bytes -= seated.bytes;
            if let Some(numbers) = inner.by_user.get_mut(&seated.user) {
                numbers.retain(|number| *number != self.number);
                if numbers.is_empty() {
                    inner.by_user.remove(&seated.user);
                }
            }
        }
        waiting.changed.notify_one();
        metrics::gauge!("chaski_catch_up_waiting").decrement(1);
    }
}

impl Waiting {
    /// How many seats are taken.
    pub(super) fn len(&self) -> usize {
        self.inner.lock().seats.len()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// From where on the log can be read again, and what it keeps. Who waits for more than that
    /// waits in vain.
    pub(super) fn keeps(&self, begins: Offset, kept_from: Offset) {
        let inner = &mut *self.inner.lock();
        (inner.begins, inner.kept_from) = (begins, kept_from);
        for seated in inner.seats.values_mut() {
            let waits = seated.state == State::Waits;
            if waits && seated.from < begins {
                inner.bytes -= seated.lose();
            }
        }
    }

    /// Waits until somebody waits.
    async fn wanted(&self) {
        while self.lowest().is_none() {
            self.changed.notified().await;
        }
    }

    /// The first place that somebody waits for.
    fn lowest(&self) -> Option<Offset> {
        let inner = self.inner.lock();
        let waits = inner.seats.values().filter(|seated| seated.state == State::Waits);
        waits.map(|seated| seated.from).min()
    }

    /// A read begins here. Who comes while it has not reached their place is served by it, too.
    fn begin(&self, at: Offset) {
        let inner = &mut *self.inner.lock();
        inner.at = Some(at);
        for seated in inner.seats.values_mut() {
            if seated.state == State::Waits && seated.from >= at {
                seated.state = State::Served;
            }
        }
    }

    /// Gives what is found in these records, up to `goal`, to whom it is for; whether it came there
    /// with records left.
    fn sift(
        &self,
        past: &Past,
        mark: &mut Watermark,
        records: Vec<LogRecord>,
        goal: Offset,
    ) -> bool {
        let inner = &mut *self.inner.lock();
        let mut arrived = false;
        for record in records {
            arrived = record.offset >= goal;
            if arrived {
                mark.next = goal;
                break;
            }
            mark.next = record.offset.next();
            let bytes = record.value.len();
            // The feed has told of what it could not show.
            let Ok(Some(entry)) = fresh(mark, record.value, |_counted| {}) else { continue };
            if !entry.users.iter().any(|user| inner.by_user.contains_key(user)) {
                continue;
            }
            let hidden = match &entry.event {
                Event::Message(message) => {
                    past.hidden_from(&entry.users, &message.sender_id, record.offset)
                }
                Event::ConnectionChange(change)
                    if connection_change(change, entry.at_ms).is_err() =>
                {
                    continue;
                }
                Event::Verdict(_) | Event::Duplicate(_) | Event::Marks(_) => continue,
                _ => Vec::new(),
            };
            let entry = Entry::new(record.offset, entry.users, entry.event, bytes);
            inner.give(record.offset, &Arc::new(entry.hide_from(hidden)));
        }
        inner.at = Some(mark.next);
        arrived
    }

    /// Waits until no more than `bytes_max` wait to be taken; who holds others up loses the seat.
    async fn room(&self, bytes_max: usize) {
        let mut patience = Instant::now() + STALL;
        while self.inner.lock().bytes > bytes_max {
            if timeout_at(patience, self.changed.notified()).await.is_err() {
                self.inner.lock().drop_fullest();
                patience = Instant::now() + STALL;
            }
        }
    }

    /// The read failed: who was served waits again, for what was not read.
    fn interrupt(&self) {
        let inner = &mut *self.inner.lock();
        let Some(at) = inner.at.take() else { return };
        for seated in inner.seats.values_mut() {
            if seated.state == State::Served {
                (seated.state, seated.from) = (State::Waits, seated.from.max(at));
            }
        }
    }

    /// The read has come to its end, in the ring.
    fn finish(&self, at: Offset) {
        let inner = &mut *self.inner.lock();
        inner.at = None;
        for seated in inner.seats.values_mut() {
            if seated.state == State::Served {
                seated.state = State::Over(at);
                seated.subscriber.wake();
            }
        }
    }
}

impl Inner {
    fn give(&mut self, offset: Offset, entry: &Arc<Entry>) {
        for (index, user) in (0..).zip(&entry.users) {
            for number in self.by_user.get(user).into_iter().flatten() {
                let seated = self.seats.get_mut(number).expect("both are kept together");
                if seated.state == State::Served && seated.from <= offset {
                    seated.found.push_back((Arc::clone(entry), index));
                    seated.bytes += entry.bytes;
                    self.bytes += entry.bytes;
                    seated.subscriber.wake();
                }
            }
        }
    }

    /// The fullest seat is lost, where others are served meanwhile.
    fn drop_fullest(&mut self) {
        let fullest = self.seats.iter().max_by_key(|(_, seated)| seated.bytes);
        let Some(number) = fullest.map(|(number, _)| *number) else { return };
        let served = |(n, seated): (&u64, &Seated)| *n != number && seated.state == State::Served;
        if self.seats.iter().any(served)
            && let Some(fullest) = self.seats.get_mut(&number)
        {
            self.bytes -= fullest.lose();
            metrics::counter!("chaski_catch_up_seats_lost_total").increment(1);
        }
    }
}

impl Seated {
    /// Gives up what was found for it and not taken; so many bytes.
    fn lose(&mut self) -> usize {
        self.state = State::Lost;
        self.found.clear();
        self.subscriber.wake();
        std::mem::take(&mut self.bytes)
    }
}
