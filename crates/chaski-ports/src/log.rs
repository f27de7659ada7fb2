//! The log: topics of partitions, each an ordered, durable sequence of records.
//!
//! Laws
//! - **append_is_durable**: an [`Appending`] yields an offset only after the record is on all
//!   in-sync replicas (Kafka: `acks=all`, idempotent; embedded: after fsync).
//! - **order_of_admission**: records admitted to one partition through one producer get growing
//!   offsets in that order; where one fails, later ones may fail too, never overtake it.
//! - **offsets_grow**: offsets of a partition only grow. They are not dense: a reader must not
//!   count on offset + 1.
//! - **read_from_offset**: a reader yields every record at or after its offset, once, in order.
//! - **reads_wait**: at the end of the log `next` waits for the next record.
//! - **next_is_cancel_safe**: a dropped `next` loses nothing.
//! - **out_of_range_is_an_error**: an offset before the start or past the end gives
//!   [`ErrorKind::OutOfRange`](crate::ErrorKind), never a reset (L5).
//! - **full_is_refused**: a producer whose queue is full refuses admission at once with `Full` (L8).
//! - **bytes_are_kept**: key and value come back byte for byte, empty ones and large ones too.

use crate::PortError;
use async_trait::async_trait;
use bytes::Bytes;
use chaski_core::{Offset, Partition, record::UnixMs};
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::sync::oneshot;

/// The topics of chaski.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Topic {
    /// Key chat id: all that may change a chat.
    NewMessages,
    /// Key user id, or `#<partition>`: all that a user's devices must know.
    Recipients,
    /// Key user id: what users ask of contacts, blocks and settings.
    ConnectionRequests,
    /// Key `<userId>/<peerId>`, compacted, derived: contacts and blocks.
    Connections,
    /// Key `<userId>/<deviceId>`: revoked devices.
    Revocations,
    /// What the developers must hear of.
    Alerts,
    /// Records that could not be processed, with their cause.
    DeadLetters,
}

impl Topic {
    /// All of them.
    pub const ALL: [Topic; 7] = [
        Topic::NewMessages,
        Topic::Recipients,
        Topic::ConnectionRequests,
        Topic::Connections,
        Topic::Revocations,
        Topic::Alerts,
        Topic::DeadLetters,
    ];

    /// The name, after the configured prefix (`chaski.` by default).
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Topic::NewMessages => "new-messages",
            Topic::Recipients => "recipients",
            Topic::ConnectionRequests => "connection-requests",
            Topic::Connections => "connections",
            Topic::Revocations => "revocations",
            Topic::Alerts => "alerts",
            Topic::DeadLetters => "dead-letters",
        }
    }

    /// Whether the topic is cut into the configured number of partitions; the others have one.
    #[must_use]
    pub const fn is_partitioned(self) -> bool {
        matches!(self, Topic::NewMessages | Topic::Recipients | Topic::ConnectionRequests)
    }

    /// Whether only the newest record of a key is kept.
    #[must_use]
    pub const fn is_compacted(self) -> bool {
        matches!(self, Topic::Connections | Topic::Revocations)
    }
}

/// A record to append.
#[derive(Clone, Debug)]
pub struct Record {
    /// Plain UTF-8 by convention.
    pub key: Bytes,
    /// A protobuf message.
    pub value: Bytes,
    /// The record's time. A replay yields the same one, so it comes from the input.
    pub timestamp_ms: UnixMs,
    /// Header `type`.
    pub record_type: &'static str,
    /// Header `schema`.
    pub schema: u16,
    /// Header `traceparent` (W3C trace context), where there is one.
    pub traceparent: Option<Bytes>,
}

/// A record as read.
#[derive(Clone, Debug)]
pub struct LogRecord {
    /// Its place.
    pub offset: Offset,
    /// As appended.
    pub key: Bytes,
    /// As appended.
    pub value: Bytes,
    /// As appended.
    pub timestamp_ms: UnixMs,
    /// As appended.
    pub traceparent: Option<Bytes>,
}

/// Where a partition begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The oldest kept offset.
    pub start: Offset,
    /// The offset after the newest record.
    pub end: Offset,
}

/// What a producer does when the log does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProducePolicy {
    /// Gives up within 10 s, because somebody waits for an answer: with `Unknown`, or with
    /// `Unavailable` where the record was not even tried.
    GiveUp,
    /// Never gives up: the fan-out, whose outputs must all arrive.
    Forever,
}

/// The log.
#[async_trait]
pub trait Log: Send + Sync {
    /// A name of this log that no other one ever has (Kafka: the cluster id).
    async fn cluster_id(&self) -> Result<String, PortError>;

    /// How many partitions the topic has; `NotFound` where it does not exist.
    async fn partitions(&self, topic: Topic) -> Result<u32, PortError>;

    /// Creates what is missing of [`Topic::ALL`]: `partitions` for the partitioned ones, 1 for
    /// the others. What exists stays as it is. Idempotent.
    async fn create_topics(&self, partitions: u32) -> Result<(), PortError>;

    /// Where the partition begins and ends now.
    async fn bounds(&self, topic: Topic, partition: Partition) -> Result<Bounds, PortError>;

    /// Reads from `from` on; `OutOfRange` comes from here or from the first `next`.
    async fn reader(
        &self,
        topic: Topic,
        partition: Partition,
        from: Offset,
    ) -> Result<Box<dyn LogReader>, PortError>;

    /// The producer for this policy; one a process and policy, shared.
    fn producer(&self, policy: ProducePolicy) -> Result<Arc<dyn Producer>, PortError>;

    /// Shows `next` as the committed offset of `group` to the log's stock tools. For display
    /// only; best effort; nothing reads it back.
    async fn mirror(
        &self,
        group: &str,
        topic: Topic,
        positions: &[(Partition, Offset)],
    ) -> Result<(), PortError>;
}

/// Appends records.
pub trait Producer: Send + Sync {
    /// Admits a record, or refuses it at once with `Full`. Durability is told by the
    /// [`Appending`]; dropping that does not undo the append.
    fn append(
        &self,
        topic: Topic,
        partition: Partition,
        record: Record,
    ) -> Result<Appending, PortError>;
}

/// Reads one partition.
#[async_trait]
pub trait LogReader: Send {
    /// The next records in order, at least one; waits at the end of the log. At most about
    /// 1 MiB or 1,000 records at once.
    async fn next(&mut self) -> Result<Vec<LogRecord>, PortError>;
}

/// An admitted append: yields its offset once durable. `Unknown` means that it may have happened.
#[derive(Debug)]
pub struct Appending(oneshot::Receiver<Result<Offset, PortError>>);

impl Appending {
    /// An append and the end that settles it.
    #[must_use]
    pub fn channel() -> (oneshot::Sender<Result<Offset, PortError>>, Self) {
        let (settle, settled) = oneshot::channel();
        (settle, Self(settled))
    }
}

impl Future for Appending {
    type Output = Result<Offset, PortError>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|settled| {
            settled.unwrap_or_else(|_| {
                Err(PortError::new(
                    crate::ErrorKind::Unknown,
                    "the producer stopped before it answered",
                ))
            })
        })
    }
}
