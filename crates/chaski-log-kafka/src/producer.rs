//! The producer: one librdkafka client per policy, whose thread settles the appends.
//!
//! A *fatal* error (librdkafka: the idempotent producer has lost its sequence or its right to
//! write) ends a producer for good: what was admitted settles as `Unknown`, every later append is
//! refused with `Conflict`, and [`Log::producer`](chaski_ports::Log::producer) makes a new one for
//! whoever asks again. The old handle does not heal: a record appended to the new client could
//! overtake one that still settles in the old (order_of_admission).
//!
//! Must not know: encodings.

use crate::{
    client::{self, TICK},
    error,
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
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};
use tokio::sync::oneshot;
use tracing::{error, warn};

/// How long a producer that is dropped still tries to deliver what it holds.
const FLUSH_PATIENCE: Duration = Duration::from_secs(5);

type Settle = oneshot::Sender<Result<Offset, PortError>>;

/// A librdkafka producer with its thread. Dropping it stops the thread, which flushes and closes.
pub(crate) struct KafkaProducer {
    /// Taken by drop, before the thread is told: the thread's share is then the last one.
    producer: Option<Arc<BaseProducer<Settling>>>,
    stop: Arc<AtomicBool>,
    topics: HashMap<Topic, String>,
    policy: &'static str,
}

impl KafkaProducer {
    pub(crate) fn start(options: &KafkaOptions, policy: ProducePolicy) -> Result<Self, PortError> {
        let producer: BaseProducer<Settling> =
            options.producer(policy).create_with_context(Settling).map_err(error::making)?;
        let started = Self {
            producer: Some(Arc::new(producer)),
            stop: Arc::default(),
            topics: Topic::ALL.map(|t| (t, options.topic(t))).into(),
            policy: match policy {
                ProducePolicy::GiveUp => "give_up",
                ProducePolicy::Forever => "forever",
            },
        };
        let (producer, stop) = (started.client().clone(), started.stop.clone());
        let policy = started.policy;
        thread::Builder::new()
            .name("kafka-producer".into())
            .spawn(move || serve(producer, &stop, policy))
            .map_err(|e| error::making(KafkaError::ClientCreation(e.to_string())))?;
        Ok(started)
    }

    /// Whether it will never take a record again.
    pub(crate) fn is_dead(&self) -> bool {
        self.client().client().fatal_error().is_some()
    }

    fn client(&self) -> &Arc<BaseProducer<Settling>> {
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
        let name = &self.topics[&topic];
        let invalid = |why| PortError::new(ErrorKind::Invalid, format!("append to {name}: {why}"));
        let number = i32::try_from(partition.0).map_err(|_| invalid("no such partition"))?;
        let (settle, appending) = Appending::channel();
        // 0 is "now" to librdkafka; the record's own time is then in a header.
        let message = BaseRecord::with_opaque_to(name, Box::new(settle))
            .partition(number)
            .key(&record.key[..])
            .payload(&record.value[..])
            .timestamp(record.timestamp_ms.max(0))
            .headers(headers(&record));
        match self.client().send(message) {
            Ok(()) => Ok(appending),
            Err((cause, _)) => {
                let error = error::admitting(format!("append to {name}/{partition}"), cause);
                match error.kind {
                    ErrorKind::Full => {
                        metrics::counter!("chaski_log_appends_refused_full_total", "policy" => self.policy)
                            .increment(1);
                    }
                    kind => failed(kind),
                }
                Err(error)
            }
        }
    }
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

fn serve(producer: Arc<BaseProducer<Settling>>, stop: &AtomicBool, policy: &'static str) {
    let held = metrics::gauge!("chaski_log_producer_records", "policy" => policy);
    let mut dead = false;
    while !stop.load(Ordering::Acquire) {
        producer.poll(TICK);
        held.set(producer.in_flight_count());
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
struct Settling;

impl ClientContext for Settling {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        client::log(level, fac, message);
    }
    fn error(&self, error: KafkaError, reason: &str) {
        client::event(&error, reason);
    }
}

impl ProducerContext for Settling {
    type DeliveryOpaque = Box<Settle>;

    fn delivery(&self, delivered: &DeliveryResult<'_>, settle: Box<Settle>) {
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
        let _ = settle.send(outcome); // nobody waits for it any more
    }
}
