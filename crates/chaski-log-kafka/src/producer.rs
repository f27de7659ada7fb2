//! The producer: one librdkafka client per policy, whose thread settles the appends.
//!
//! A *fatal* error (librdkafka: the idempotent producer has lost its sequence or its right to
//! write) ends a producer for good: what was admitted settles as `Unknown`, every later append is
//! refused with `Conflict`, and [`Log::producer`](chaski_ports::Log::producer) makes a new one for
//! whoever asks again. The old handle does not heal: a record appended to the new client could
//! overtake one that still settles in the old (order_of_admission).
//!
//! What may be given to librdkafka when is decided by the [`lanes`](crate::lanes).
//!
//! Must not know: encodings.

use crate::{
    client::{self, TICK},
    error,
    lanes::{Lane, Lanes, Place},
    options::KafkaOptions,
    reader::{EARLY_TIME, TRACEPARENT},
};
use chaski_core::{Offset, Partition};
use chaski_ports::{Appending, ErrorKind, PortError, ProducePolicy, Producer, Record, Topic};
use rdkafka::{
    ClientContext, Message,
    config::RDKafkaLogLevel,
    error::KafkaError,
    message::{DeliveryResult, Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext, PurgeConfig},
};
use std::{
    collections::HashMap,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};
use tokio::sync::oneshot;
use tracing::{error, warn};

/// How long a producer that is dropped still tries to deliver what it holds.
const FLUSH_PATIENCE: Duration = Duration::from_secs(5);

/// `GiveUp` gives a record that has waited in its lane for longer than this back; librdkafka has the
/// rest of the 10 s (`KafkaOptions::producer`).
const LANE_PATIENCE: Duration = Duration::from_secs(3);

type Settle = oneshot::Sender<Result<Offset, PortError>>;
type Client = BaseProducer<Settling>;

/// A librdkafka producer with its thread. Dropping it stops the thread, which flushes and closes.
pub(crate) struct KafkaProducer {
    /// Taken by drop, before the thread is told: the thread's share is then the last one.
    producer: Option<Arc<Client>>,
    stop: Arc<AtomicBool>,
    shared: Arc<Shared>,
}

struct Shared {
    lanes: Lanes<Admitted>,
    topics: HashMap<Topic, String>,
    policy: &'static str,
    /// The producer that this belongs to.
    producer: OnceLock<Weak<Client>>,
}

/// What a lane holds.
struct Admitted {
    topic: Topic,
    partition: i32,
    record: Record,
    settle: Settle,
}

/// What librdkafka gives back.
struct UnderWay {
    settle: Settle,
    lane: Arc<Lane<Admitted>>,
    place: Place,
}

impl KafkaProducer {
    pub(crate) fn start(options: &KafkaOptions, policy: ProducePolicy) -> Result<Self, PortError> {
        let (name, patience) = match policy {
            ProducePolicy::GiveUp => ("give_up", Some(LANE_PATIENCE)),
            ProducePolicy::Forever => ("forever", None),
        };
        let (records_max, bytes_max) =
            (options.producer_records_max as usize, options.producer_kib_max as usize * 1024);
        let shared = Arc::new(Shared {
            lanes: Lanes::new(records_max, bytes_max, patience),
            topics: Topic::ALL.map(|t| (t, options.topic(t))).into(),
            policy: name,
            producer: OnceLock::new(),
        });
        let settling = Settling(Arc::clone(&shared));
        let producer: Client =
            options.producer(policy).create_with_context(settling).map_err(error::making)?;
        let producer = Arc::new(producer);
        let _ = shared.producer.set(Arc::downgrade(&producer));
        let started = Self { producer: Some(producer), stop: Arc::default(), shared };
        let (producer, stop) = (started.client().clone(), started.stop.clone());
        let shared = Arc::clone(&started.shared);
        thread::Builder::new()
            .name("kafka-producer".into())
            .spawn(move || serve(producer, &stop, &shared))
            .map_err(|e| error::making(KafkaError::ClientCreation(e.to_string())))?;
        Ok(started)
    }

    /// Whether it will never take a record again.
    pub(crate) fn is_dead(&self) -> bool {
        self.client().client().fatal_error().is_some()
    }

    fn client(&self) -> &Arc<Client> {
        self.producer.as_ref().expect("only drop takes it")
    }
}

impl Producer for KafkaProducer {
    fn append(
        &self,
        topic: Topic,
        partition: Partition,
        record: Record,
    ) -> Result<Appending, PortError> {
        let shared = &*self.shared;
        let place = || format!("append to {}/{partition}", shared.topics[&topic]);
        let Ok(number) = i32::try_from(partition.0) else {
            return Err(PortError::new(ErrorKind::Invalid, place() + ": no such partition"));
        };
        let bytes = record.key.len() + record.value.len();
        let Some((lane, held)) = shared.lanes.enter(topic, partition, bytes) else {
            let policy = shared.policy;
            metrics::counter!("chaski_log_appends_refused_full_total", "policy" => policy)
                .increment(1);
            return Err(PortError::new(ErrorKind::Full, place() + ": the producer is full"));
        };
        let (settle, appending) = Appending::channel();
        let admitted = Admitted { topic, partition: number, record, settle };
        let given = lane.add(admitted, held, |admitted, held| {
            shared.give(self.client(), &lane, admitted, held)
        });
        given.map(|()| appending).map_err(|(cause, _)| {
            let error = error::admitting(place(), cause);
            failed(error.kind);
            error
        })
    }
}

impl Shared {
    /// To librdkafka.
    fn give(
        &self,
        client: &Client,
        lane: &Arc<Lane<Admitted>>,
        Admitted { topic, partition, record, settle }: Admitted,
        place: Place,
    ) -> Result<(), (KafkaError, Settle)> {
        let under_way = Box::new(UnderWay { settle, lane: Arc::clone(lane), place });
        // 0 is "now" to librdkafka; the record's own time is then in a header.
        let message = BaseRecord::with_opaque_to(&self.topics[&topic], under_way)
            .partition(partition)
            .key(&record.key[..])
            .payload(&record.value[..])
            .timestamp(record.timestamp_ms.max(0))
            .headers(headers(&record));
        client.send(message).map_err(|(cause, message)| (cause, message.delivery_opaque.settle))
    }

    /// Gives over what waited for those that are settled now.
    fn next(&self, lane: &Arc<Lane<Admitted>>) {
        let give = |admitted: Admitted, place| {
            // A producer that is being dropped: who waits is told that it stopped.
            let Some(client) = self.producer.get().and_then(Weak::upgrade) else { return false };
            let (topic, partition) = (admitted.topic, admitted.partition);
            let given = self.give(&client, lane, admitted, place);
            let refused = |(cause, settle)| {
                fail(settle, error::delivering(self.what(topic, partition), cause));
            };
            given.map_err(refused).is_ok()
        };
        lane.settled(give, |Admitted { topic, partition, settle, .. }: Admitted| {
            let why = self.what(topic, partition) + ": those before it take too long";
            fail(settle, PortError::new(ErrorKind::Unavailable, why));
        });
    }

    fn what(&self, topic: Topic, partition: i32) -> String {
        format!("append to {}/{partition}", self.topics[&topic])
    }
}

fn fail(settle: Settle, error: PortError) {
    failed(error.kind);
    let _ = settle.send(Err(error)); // nobody waits for it any more
}

impl Drop for KafkaProducer {
    fn drop(&mut self) {
        drop(self.producer.take());
        self.stop.store(true, Ordering::Release);
    }
}

fn headers(record: &Record) -> OwnedHeaders {
    let schema = record.schema.to_string();
    let mut headers = OwnedHeaders::new_with_capacity(3)
        .insert(Header { key: "type", value: Some(record.record_type) })
        .insert(Header { key: "schema", value: Some(&schema) });
    if let Some(trace) = &record.traceparent {
        headers = headers.insert(Header { key: TRACEPARENT, value: Some(&trace[..]) });
    }
    if record.timestamp_ms <= 0 {
        headers = headers
            .insert(Header { key: EARLY_TIME, value: Some(&record.timestamp_ms.to_string()) });
    }
    headers
}

fn serve(producer: Arc<Client>, stop: &AtomicBool, shared: &Shared) {
    let policy = shared.policy;
    let held = metrics::gauge!("chaski_log_producer_records", "policy" => policy);
    let mut dead = false;
    while !stop.load(Ordering::Acquire) {
        producer.poll(TICK);
        held.set(shared.lanes.held() as f64);
        if dead {
            continue;
        }
        if let Some((code, reason)) = producer.client().fatal_error() {
            dead = true;
            error!(%code, reason, policy, "kafka producer is dead, its users need a new one");
            metrics::counter!("chaski_log_producer_fatal_total", "policy" => policy).increment(1);
            producer.purge(PurgeConfig::default().queue().inflight()); // settles what it holds
        }
    }
    client::close("producer", move || {
        if let Err(cause) = producer.flush(FLUSH_PATIENCE) {
            warn!(%cause, policy, "records were not delivered before the end");
        }
        held.set(0.0);
        drop(producer);
    });
}

fn failed(kind: ErrorKind) {
    metrics::counter!("chaski_log_append_failures_total", "kind" => format!("{kind:?}"))
        .increment(1);
}

/// Settles each append when librdkafka reports on it, on the producer's thread.
struct Settling(Arc<Shared>);

impl ClientContext for Settling {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        client::log(level, fac, message);
    }
    fn error(&self, error: KafkaError, reason: &str) {
        client::event(&error, reason);
    }
}

impl ProducerContext for Settling {
    type DeliveryOpaque = Box<UnderWay>;

    fn delivery(&self, delivered: &DeliveryResult<'_>, under_way: Box<UnderWay>) {
        let UnderWay { settle, lane, place } = *under_way;
        let outcome = match delivered {
            // It is written, but a broker that only knows "a repeat" does not say where.
            Ok(m) => u64::try_from(m.offset()).map(Offset).map_err(|_| {
                PortError::new(ErrorKind::Unknown, format!("append to {}: no offset", m.topic()))
            }),
            Err((cause, m)) => Err(error::delivering(
                format!("append to {}/{}", m.topic(), m.partition()),
                cause.clone(),
            )),
        };
        if let Err(error) = &outcome {
            failed(error.kind);
        }
        drop(place);
        let _ = settle.send(outcome); // nobody waits for it any more
        self.0.next(&lane);
    }
}
