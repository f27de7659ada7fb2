//! The fold of one partition of `connection-requests`: decide, tell, store, and only then go on (L5).
//!
//! A decision follows from the stored state of its pair, in which every request before it has taken
//! effect: so it is the same however often, and by however many owners, it is made. In `recipients`
//! a repeat has the same origin and is passed over there (L6); in the store the greater version
//! stays.

use crate::{ROLE, service::ConnectionService};
use bytes::Bytes;
use chaski_core::{
    Offset, Origin, Partition, UserId, Watermark,
    connection::{Ask, Connection, ConnectionChange, Decision, Request},
    record::{Event, Output},
};
use chaski_ports::{
    ConnectionRow, ErrorKind, LogRecord, PortError, ProducePolicy, Producer, Record, StoreBatch,
    Topic, VerdictRow, WatermarkRow,
};
use chaski_proto::{
    EncodedEvent, Malformed, SCHEMA, decode_connection_request, status_from_proto, status_to_proto,
    v1,
};
use chaski_records::Undertaker;
use chaski_runtime::CancellationToken;
use prost::Message as _;
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

/// How often the cursor is shown to the log's stock tools.
const MIRROR_EVERY: Duration = Duration::from_secs(2);
/// So long a full producer is left alone.
const FULL_PAUSE: Duration = Duration::from_millis(2);

/// Folds the partition until `stop`; after a failure that may pass, starts again from the last
/// watermark.
pub(crate) async fn run(
    service: &ConnectionService,
    partition: Partition,
    epoch: u64,
    stop: CancellationToken,
) -> Result<(), PortError> {
    loop {
        let error = match fold(service, partition, epoch, &stop).await {
            Err(error) if error.retryable() => error,
            end => return end,
        };
        metrics::counter!("chaski_connections_restarts_total").increment(1);
        tracing::warn!(%partition, %error, cause = ?error.source, "deciding starts again from the last watermark");
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(service.config.restart_delay()) => {}
        }
    }
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
    };
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
        for record in records {
            tokio::select! {
                biased;
                // A request cut off in the middle is decided again by the next owner.
                () = stop.cancelled() => return Ok(()),
                applied = self.apply(record) => applied?,
            }
            self.next = record.offset.next();
            if self.save_at <= Instant::now() {
                self.save().await?;
            }
        }
        Ok(())
    }

    async fn apply(&mut self, record: &LogRecord) -> Result<(), PortError> {
        let request = match self.decode(record) {
            Ok(request) => request,
            Err(cause) => return self.bury(record, &cause).await,
        };
        let verdict = match &request.ask {
            Ask::Connection { peer, status, based_on } => {
                let asked = (*status, *based_on);
                self.connection(record.offset, &request, peer, asked).await?
            }
            Ask::Settings { hide_read_marks } => {
                Some(self.settings(record.offset, &request, *hide_read_marks).await?)
            }
        };
        match verdict {
            Some(verdict) => self.tell(&request, verdict).await,
            None => Ok(()),
        }
    }

    fn decode(&self, record: &LogRecord) -> Result<Request, Malformed> {
        let request = decode_connection_request(record.value.clone())?;
        match self.service.placement.of_user(&request.user) == self.partition {
            true => Ok(request),
            false => Err(Malformed::because("a request in the partition of other users")),
        }
    }

    /// What becomes of a request for a pair; `None` where all of that is done already.
    async fn connection(
        &mut self,
        offset: Offset,
        request: &Request,
        peer: &UserId,
        (asked, based_on): (chaski_core::connection::Status, Option<u64>),
    ) -> Result<Option<v1::ConnectionVerdict>, PortError> {
        let stored = self.stored(&request.user, peer).await?;
        let present = stored.as_ref().map(|pair| pair.state).unwrap_or_default();
        let told = |to: Connection, conflict, offset: Option<Offset>| v1::ConnectionVerdict {
            connection: Some(v1::Connection {
                user_id: peer.to_string(),
                status: status_to_proto(to.status).into(),
                version: to.version,
            }),
            conflict,
            offset: offset.map(|offset| offset.0),
        };
        match stored.map(|pair| pair.request) {
            // A later request is stored, and each begins when the one before it is done.
            Some(decided) if decided > offset => return Ok(None),
            // This one is stored; what follows that may be missing.
            Some(decided) if decided == offset => {
                self.publish(request, peer, present).await?;
                return Ok(Some(told(present, false, None)));
            }
            _ => {}
        }
        let (outcome, verdict) = match present.decide(asked, based_on) {
            Decision::Already(present) => ("already", told(present, false, None)),
            Decision::Conflict(present) => ("conflict", told(present, true, None)),
            Decision::Changed { to, lifted } => {
                let device = request.device.clone();
                let change =
                    ConnectionChange { peer: peer.clone(), to, device, lifted, at: request.at };
                // From this place on the block holds, or holds no more (L7).
                let place = self.append(offset, request, Event::Connection(change)).await?;
                self.save_pair(offset, request, peer, to).await?;
                self.publish(request, peer, to).await?;
                ("changed", told(to, false, Some(place)))
            }
        };
        metrics::counter!("chaski_connections_decided_total", "outcome" => outcome).increment(1);
        Ok(Some(verdict))
    }

    async fn settings(
        &mut self,
        offset: Offset,
        request: &Request,
        hide_read_marks: bool,
    ) -> Result<v1::ConnectionVerdict, PortError> {
        let (device, at) = (request.device.clone(), request.at);
        let place =
            self.append(offset, request, Event::Settings { hide_read_marks, device, at }).await?;
        let state = v1::StoredSettings { hide_read_marks }.encode_to_vec().into();
        // Versions begin at 1.
        let version = offset.next().0;
        self.service.ports.connections.save_settings(&request.user, version, state).await?;
        metrics::counter!("chaski_connections_decided_total", "outcome" => "settings").increment(1);
        Ok(v1::ConnectionVerdict { connection: None, conflict: false, offset: Some(place.0) })
    }

    /// Puts a decision into the user's order; where it stands.
    async fn append(
        &mut self,
        offset: Offset,
        request: &Request,
        event: Event,
    ) -> Result<Offset, PortError> {
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
        // What is not acknowledged ends this incarnation, so it is not told of as sent before.
        let place = self.send(Topic::Recipients, self.partition, record).await?;
        self.prev = Some(Origin { offset, index: 0 });
        Ok(place)
    }

    /// Appends to the log; waits while the producer's queue is full.
    async fn send(
        &self,
        topic: Topic,
        partition: Partition,
        record: Record,
    ) -> Result<Offset, PortError> {
        loop {
            match self.producer.append(topic, partition, record.clone()) {
                Ok(appending) => return appending.await,
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
        self.send(Topic::Connections, Partition(0), record).await.map(drop)
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
