//! The fold of one partition of `connection-requests`: decide, tell, store, and only then go on (L5).
//!
//! A decision follows from the stored state of its pair, in which every request before it has taken
//! effect: so it is the same however often, and by however many owners, it is made. In `recipients`
//! a repeat has the same origin and is passed over there (L6); in the store the greater version
//! stays. Requests of different users do not depend on one another: they are decided side by side,
//! so that a partition's requests do not each wait for the durable steps of the one before.

use crate::{ROLE, service::ConnectionService};
use bytes::Bytes;
use chaski_core::{
    Offset, Origin, Partition, UserId, Watermark,
    connection::{Ask, Connection, ConnectionChange, Decision, Request},
    record::{Event, Output},
};
use chaski_planted::Bug;
use chaski_ports::{
    Appending, ConnectionRow, ErrorKind, LogRecord, PortError, ProducePolicy, Producer, Record,
    StoreBatch, Topic, VerdictRow, WatermarkRow,
};
use chaski_proto::{
    EncodedEvent, Malformed, SCHEMA, decode_connection_request, status_from_proto, status_to_proto,
    v1,
};
use chaski_records::Undertaker;
use chaski_runtime::{CancellationToken, Restarts, Tally};
use futures::{FutureExt, TryFutureExt, future::try_join_all};
use prost::Message as _;
use std::{collections::HashSet, sync::Arc, time::Duration};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

/// How often the cursor is shown to the log's stock tools.
const MIRROR_EVERY: Duration = Duration::from_secs(2);
/// What a request costs here, about ([`Tally`]).
const REQUEST_COST: Duration = Duration::from_micros(150);
/// So long a full producer is left alone.
const FULL_PAUSE: Duration = Duration::from_millis(2);
/// Most requests that are decided side by side.
const TOGETHER: usize = 64;

/// Folds the partition until `stop`; after a failure that may pass, starts again from the last
/// watermark.
pub(crate) async fn run(
    service: &ConnectionService,
    partition: Partition,
    epoch: u64,
    stop: CancellationToken,
) -> Result<(), PortError> {
    let restarts = Restarts {
        partition,
        what: "deciding starts again from the last watermark",
        counter: "chaski_connections_restarts_total",
        pause: service.config.restart_delay(),
    };
    let again = || fold(service, partition, epoch, &stop);
    restarts.run(&stop, PortError::owner_may_retry, again).await
}

async fn fold(
    service: &ConnectionService,
    partition: Partition,
    epoch: u64,
    stop: &CancellationToken,
) -> Result<(), PortError> {
    let ports = &service.ports;
    // From the claim on, what an older owner saves counts less than what this one saves (L6).
    let epoch = ports.checkpoints.claim(ROLE, partition, epoch).await?.epoch;
    let rows = ports.checkpoints.watermarks(ROLE, partition, 1).await?;
    let next = rows.into_iter().next().map(|row| row.watermark.next).unwrap_or_default();
    tracing::info!(%partition, epoch, from = %next, "deciding starts");
    let producer = ports.log.producer(ProducePolicy::Forever)?;
    let mut reader = ports.log.reader(Topic::ConnectionRequests, partition, next).await?;
    let mut fold = Fold {
        service,
        producer,
        partition,
        epoch,
        next,
        saved: next,
        save_at: Instant::now() + service.config.watermark(),
        prev: None,
        tally: service.work.tally(partition),
    };
    fold.tally.begin(next);
    let mut mirror = interval(MIRROR_EVERY);
    mirror.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut mirrored = None;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return fold.save().await,
            () = sleep_until(fold.save_at), if fold.saved != fold.next => fold.save().await?,
            _ = mirror.tick(), if mirrored != Some(fold.next) => {
                mirrored = Some(fold.next);
                let at = [(partition, fold.next)];
                // For display only; the next one corrects a failure.
                let _ = ports.log.mirror("chaski.mirror.connections", Topic::ConnectionRequests, &at).await;
            }
            records = reader.next() => fold.take(&records?, stop).await?,
        }
    }
}

struct Fold<'a> {
    service: &'a ConnectionService,
    /// Never gives up.
    producer: Arc<dyn Producer>,
    partition: Partition,
    epoch: u64,
    /// Everything before it has taken effect.
    next: Offset,
    saved: Offset,
    save_at: Instant,
    /// What this incarnation last sent to `recipients`.
    prev: Option<Origin>,
    tally: Arc<Tally>,
}

/// A request, or why it cannot be read.
type Asked<'a> = (&'a LogRecord, Result<Request, Malformed>);

/// How many of the first requests are of different users, at most [`TOGETHER`]: none of them
/// depends on another.
fn together(asked: &[Asked<'_>]) -> usize {
    let mut users = HashSet::new();
    let first = asked.iter().take(TOGETHER);
    first.take_while(|(_, a)| a.as_ref().map_or(true, |r| users.insert(&r.user))).count()
}

/// What becomes of a request.
enum Outcome<'a> {
    /// Nothing any more: a later one of its pair is stored.
    Done,
    /// The pair stays as it is, which may be a conflict.
    Stays { peer: &'a UserId, present: Connection, conflict: bool },
    /// The pair became so by this request. What follows that may be missing.
    Stored { peer: &'a UserId, present: Connection },
    /// The pair becomes so; a block of it may be lifted.
    Changes { peer: &'a UserId, to: Connection, lifted: bool },
    /// The user's settings become so.
    Settings { hide_read_marks: bool },
}

impl Outcome<'_> {
    /// What the user's devices are told, where it is not told yet.
    fn event(&self, request: &Request) -> Option<Event> {
        let (device, at) = (request.device.clone(), request.at);
        match *self {
            Outcome::Done | Outcome::Stays { .. } | Outcome::Stored { .. } => None,
            Outcome::Changes { peer, to, lifted } => {
                let peer = peer.clone();
                Some(Event::Connection(ConnectionChange { peer, to, device, lifted, at }))
            }
            Outcome::Settings { hide_read_marks } => {
                Some(Event::Settings { hide_read_marks, device, at })
            }
        }
    }
}

/// What becomes of the request at `offset`; `stored` is its pair.
fn outcome(offset: Offset, request: &Request, stored: Option<StoredPair>) -> Outcome<'_> {
    let (peer, asked, based_on) = match &request.ask {
        Ask::Connection { peer, status, based_on } => (peer, *status, *based_on),
        Ask::Settings { hide_read_marks } => {
            return Outcome::Settings { hide_read_marks: *hide_read_marks };
        }
    };
    let present = stored.as_ref().map(|pair| pair.state).unwrap_or_default();
    match stored.map(|pair| pair.request) {
        // A later request is stored, and each begins when the one before it is done.
        Some(decided) if decided > offset => return Outcome::Done,
        Some(decided) if decided == offset => return Outcome::Stored { peer, present },
        _ => {}
    }
    match present.decide(asked, based_on) {
        Decision::Already(present) => Outcome::Stays { peer, present, conflict: false },
        Decision::Conflict(present) => Outcome::Stays { peer, present, conflict: true },
        Decision::Changed { to, lifted } => Outcome::Changes { peer, to, lifted },
    }
}

/// A pair as it is stored.
struct StoredPair {
    state: Connection,
    /// The request that made it so.
    request: Offset,
}

impl Fold<'_> {
    async fn take(
        &mut self,
        records: &[LogRecord],
        stop: &CancellationToken,
    ) -> Result<(), PortError> {
        let asked: Vec<Asked<'_>> = records.iter().map(|r| (r, self.decode(r))).collect();
        let mut asked = &asked[..];
        while !asked.is_empty() {
            let (round, rest) = asked.split_at(together(asked));
            tokio::select! {
                biased;
                // Requests cut off in the middle are decided again by the next owner.
                () = stop.cancelled() => return Ok(()),
                decided = self.decide(round) => decided?,
            }
            if let Some((last, _)) = round.last() {
                self.next = last.offset.next();
                let cost = REQUEST_COST * round.len() as u32;
                self.tally.took(round.len(), cost, self.next, last.timestamp_ms);
            }
            asked = rest;
            if self.save_at <= Instant::now() {
                self.save().await?;
            }
        }
        Ok(())
    }

    /// Decides requests of different users. What they change is appended in their order, each
    /// record behind the one before (`prev`), and nothing is stored until all of it is in the log:
    /// where one is lost, consumers pass over those behind it until they are sent again, and what
    /// is stored is not sent again.
    async fn decide(&mut self, round: &[Asked<'_>]) -> Result<(), PortError> {
        let stored = try_join_all(round.iter().map(|(_, asked)| self.look_up(asked))).await?;
        let (mut decided, mut appends) = (Vec::new(), Vec::new());
        for ((record, asked), stored) in round.iter().zip(stored) {
            let Ok(request) = asked else { continue };
            let outcome = outcome(record.offset, request, stored);
            appends.push(match outcome.event(request) {
                Some(event) => {
                    self.append(record.offset, request, event).await?.map_ok(Some).boxed()
                }
                None => std::future::ready(Ok(None)).boxed(),
            });
            decided.push((record.offset, request, outcome));
        }
        // From these places on blocks hold, or hold no more (L7).
        let places = match chaski_planted::is(Bug::BlockedTooEarly) {
            true => vec![Some(Offset(0)); decided.len()],
            false => try_join_all(appends).await?,
        };
        let settled = decided.iter().zip(places).map(|(one, place)| self.settle(one, place));
        let unreadable =
            round.iter().filter_map(|(record, asked)| Some((record, asked.as_ref().err()?)));
        let buried = unreadable.map(|(record, cause)| self.bury(record, cause));
        tokio::try_join!(try_join_all(settled), try_join_all(buried))?;
        Ok(())
    }

    fn decode(&self, record: &LogRecord) -> Result<Request, Malformed> {
        let request = decode_connection_request(record.value.clone())?;
        match self.service.placement.of_user(&request.user) == self.partition {
            true => Ok(request),
            false => Err(Malformed::because("a request in the partition of other users")),
        }
    }

    /// The pair that a request is about, as it is stored.
    async fn look_up(
        &self,
        asked: &Result<Request, Malformed>,
    ) -> Result<Option<StoredPair>, PortError> {
        match asked {
            Ok(Request { user, ask: Ask::Connection { peer, .. }, .. }) => {
                self.stored(user, peer).await
            }
            _ => Ok(None),
        }
    }

    /// Stores and tells what becomes of a request; its record, where it has one, is in the log.
    async fn settle(
        &self,
        (offset, request, outcome): &(Offset, &Request, Outcome<'_>),
        place: Option<Offset>,
    ) -> Result<(), PortError> {
        let told = |peer: &UserId, state: Connection, conflict| v1::ConnectionVerdict {
            connection: Some(v1::Connection {
                user_id: peer.to_string(),
                status: status_to_proto(state.status).into(),
                version: state.version,
            }),
            conflict,
            offset: place.map(|place| place.0),
        };
        let (name, verdict) = match outcome {
            Outcome::Done => return Ok(()),
            Outcome::Stays { peer, present, conflict } => {
                let name = if *conflict { "conflict" } else { "already" };
                (name, told(peer, *present, *conflict))
            }
            Outcome::Stored { peer, present } => {
                self.publish(request, peer, *present).await?;
                return self.tell(request, told(peer, *present, false)).await;
            }
            Outcome::Changes { peer, to, .. } => {
                self.save_pair(*offset, request, peer, *to).await?;
                self.publish(request, peer, *to).await?;
                ("changed", told(peer, *to, false))
            }
            Outcome::Settings { hide_read_marks } => {
                let hide_read_marks = *hide_read_marks;
                let state = v1::StoredSettings { hide_read_marks }.encode_to_vec().into();
                // Versions begin at 1.
                let (user, version) = (&request.user, offset.next().0);
                self.service.ports.connections.save_settings(user, version, state).await?;
                let offset = place.map(|place| place.0);
                ("settings", v1::ConnectionVerdict { connection: None, conflict: false, offset })
            }
        };
        metrics::counter!("chaski_connections_decided_total", "outcome" => name).increment(1);
        self.tell(request, verdict).await
    }

    /// Puts a decision into the user's order; the answer is where it stands.
    async fn append(
        &mut self,
        offset: Offset,
        request: &Request,
        event: Event,
    ) -> Result<Appending, PortError> {
        let output = Output {
            partition: self.partition,
            index: 0,
            users: [request.user.clone()].into(),
            visible_from: None,
            event,
        };
        let encoded = EncodedEvent::of(&output);
        let source = (self.service.source, self.partition, offset);
        let (key, value) = encoded.for_output(&output, source, self.prev);
        let record = Record {
            key,
            value,
            timestamp_ms: encoded.at_ms(),
            record_type: encoded.record_type,
            schema: SCHEMA,
            traceparent: None,
        };
        let appending = self.send(Topic::Recipients, self.partition, record).await?;
        self.prev = Some(Origin { offset, index: 0 });
        Ok(appending)
    }

    /// Appends to the log; waits while the producer's queue is full.
    async fn send(
        &self,
        topic: Topic,
        partition: Partition,
        record: Record,
    ) -> Result<Appending, PortError> {
        loop {
            match self.producer.append(topic, partition, record.clone()) {
                Ok(appending) => return Ok(appending),
                Err(error) if error.kind == ErrorKind::Full => {
                    tokio::time::sleep(FULL_PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn stored(&self, user: &UserId, peer: &UserId) -> Result<Option<StoredPair>, PortError> {
        let Some(row) = self.service.ports.connections.connection(user, peer).await? else {
            return Ok(None);
        };
        let state = v1::StoredConnection::decode(row.state).map_err(|error| {
            let what = format!("the connection of {user} and {peer}");
            PortError::new(ErrorKind::Corrupt, what).caused_by(error)
        })?;
        Ok(Some(StoredPair {
            request: Offset(state.request_offset),
            state: Connection { status: status_from_proto(state.status()), version: row.version },
        }))
    }

    async fn save_pair(
        &self,
        offset: Offset,
        request: &Request,
        peer: &UserId,
        to: Connection,
    ) -> Result<(), PortError> {
        let state = v1::StoredConnection {
            status: status_to_proto(to.status).into(),
            request_offset: offset.0,
            by_device_id: request.device.to_string(),
            at_ms: request.at,
        };
        let row = ConnectionRow {
            user: request.user.clone(),
            peer: peer.clone(),
            version: to.version,
            state: state.encode_to_vec().into(),
        };
        self.service.ports.connections.save_connections(&[row]).await
    }

    /// Tells the derived topic how a pair stands, for those who keep it in memory. An owner that was
    /// overtaken may tell an old state here; it takes that back as it goes on to the request that
    /// made the present one.
    async fn publish(
        &self,
        request: &Request,
        peer: &UserId,
        state: Connection,
    ) -> Result<(), PortError> {
        let status = status_to_proto(state.status).into();
        let value = v1::ConnectionState { status, version: state.version };
        let record = Record {
            key: Bytes::from(format!("{}/{peer}", request.user)),
            value: value.encode_to_vec().into(),
            timestamp_ms: request.at,
            record_type: "connection",
            schema: SCHEMA,
            traceparent: None,
        };
        let appending = self.send(Topic::Connections, Partition(0), record).await?;
        match chaski_planted::is(Bug::BlockedTooEarly) {
            true => Ok(()),
            false => appending.await.map(drop),
        }
    }

    /// Stores the verdict and tells who waits for it.
    async fn tell(
        &self,
        request: &Request,
        verdict: v1::ConnectionVerdict,
    ) -> Result<(), PortError> {
        let stored = v1::StoredVerdict { verdict: None, connection: Some(verdict.clone()) };
        let row = VerdictRow {
            request: request.id,
            verdict: stored.encode_to_vec().into(),
            at_ms: request.at,
        };
        let batch = StoreBatch { verdicts: vec![row], ..StoreBatch::default() };
        self.service.ports.messages.write(batch).await?;
        self.service.verdicts.settle(&request.id, &verdict);
        Ok(())
    }

    async fn bury(&self, record: &LogRecord, cause: &Malformed) -> Result<(), PortError> {
        let undertaker = Undertaker { producer: &*self.producer, role: ROLE };
        let place = (Topic::ConnectionRequests, self.partition);
        let now = self.service.ports.clock.now_ms();
        for append in undertaker.bury(place, record, cause, now)? {
            append.await?;
        }
        Ok(())
    }

    async fn save(&mut self) -> Result<(), PortError> {
        if self.saved != self.next {
            let watermark = Watermark { next: self.next, ..Watermark::default() };
            let row = WatermarkRow { epoch: self.epoch, watermark };
            self.service.ports.checkpoints.save_watermark(ROLE, self.partition, &row).await?;
            self.saved = self.next;
        }
        self.save_at = Instant::now() + self.service.config.watermark();
        Ok(())
    }
}
