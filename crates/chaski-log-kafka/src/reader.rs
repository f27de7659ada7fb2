//! A reader of one partition. librdkafka's own queue for the partition is its buffer: bounded, so
//! that a slow reader delays nobody else, and drained without blocking on the caller's task.
//!
//! Must not know: how consumers are shared (`pool`).

use crate::{error, pool::Lease};
use async_trait::async_trait;
use bytes::Bytes;
use chaski_core::Offset;
use chaski_ports::{Bounds, ErrorKind, LogReader, LogRecord, PortError};
use rdkafka::{
    Message,
    error::KafkaError,
    message::{BorrowedMessage, Headers as _},
};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::Notify,
    task::JoinHandle,
    time::{Instant, sleep_until},
};

pub(crate) const TRACEPARENT: &str = "traceparent";

/// The time of a record before 1970 or at its start, which librdkafka would take for "now".
pub(crate) const EARLY_TIME: &str = "timestamp-ms";

const BATCH_RECORDS_MAX: usize = 1000;
const BATCH_BYTES_MAX: usize = 1024 * 1024;

/// How long a reader waits before it asks whether there is something it should have received.
const STALL_CHECK: Duration = Duration::from_secs(5);

pub(crate) struct PartitionReader {
    lease: Lease,
    wake: Arc<Notify>,
    /// The least offset that the next record may have.
    next: Offset,
    /// An error behind the records that were given out last.
    held: Option<PortError>,
    /// librdkafka gave the partition up, so no wake-up will ever come.
    out_of_range: bool,
    watch: Watch,
}

impl PartitionReader {
    pub(crate) fn new(lease: Lease, wake: Arc<Notify>, from: Offset) -> Self {
        let watch = Watch::new(!lease.topic.is_compacted());
        Self { lease, wake, next: from, held: None, out_of_range: false, watch }
    }

    /// What has arrived, without waiting.
    fn drain(&mut self) -> Result<Vec<LogRecord>, PortError> {
        if let Some(held) = self.held.take() {
            return Err(held);
        }
        let (mut records, mut bytes) = (Vec::new(), 0);
        while records.len() < BATCH_RECORDS_MAX && bytes < BATCH_BYTES_MAX {
            match self.lease.queue().poll(Duration::ZERO) {
                None => break,
                Some(Ok(message)) => {
                    let record = record(&message);
                    if record.offset >= self.next {
                        self.next = record.offset.next();
                        bytes += record.key.len() + record.value.len();
                        records.push(record);
                    }
                }
                Some(Err(cause)) => {
                    let error = self.failure(cause);
                    if records.is_empty() {
                        return Err(error);
                    }
                    self.held = Some(error);
                    break;
                }
            }
        }
        Ok(records)
    }

    fn failure(&mut self, cause: KafkaError) -> PortError {
        let error = error::asking(format!("read {} at {}", self.lease.place(), self.next), cause);
        self.out_of_range |= error.kind == ErrorKind::OutOfRange;
        error
    }

    fn check_alive(&self) -> Result<(), PortError> {
        let context = || format!("read {} at {}", self.lease.place(), self.next);
        if self.out_of_range {
            return Err(PortError::new(ErrorKind::OutOfRange, context()));
        }
        match self.lease.broken() {
            Some(cause) => Err(PortError::new(ErrorKind::Unavailable, context()).caused_by(cause)),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl LogReader for PartitionReader {
    async fn next(&mut self) -> Result<Vec<LogRecord>, PortError> {
        // A long backlog is always ready: let others run. Nothing is taken before, so nothing is
        // lost if this is dropped here.
        tokio::task::coop::consume_budget().await;
        loop {
            // librdkafka wakes where the queue stops being empty, so it is emptied before waiting.
            let records = self.drain()?;
            if !records.is_empty() {
                self.watch.progress();
                return Ok(records);
            }
            self.check_alive()?;
            tokio::select! {
                () = self.wake.notified() => {}
                end = self.watch.ask(&self.lease) => {
                    if self.watch.stalled(self.next, end) {
                        self.lease.condemn();
                        metrics::counter!("chaski_log_reader_stalls_total").increment(1);
                        return Err(PortError::new(
                            ErrorKind::Unavailable,
                            format!("read {} at {}: records exist but none arrives", self.lease.place(), self.next),
                        ));
                    }
                }
            }
        }
    }
}

fn record(message: &BorrowedMessage<'_>) -> LogRecord {
    let copy = |bytes: Option<&[u8]>| bytes.map_or_else(Bytes::new, Bytes::copy_from_slice);
    let (mut traceparent, mut early) = (None, None);
    for header in message.headers().into_iter().flat_map(|h| h.iter()) {
        match header.key {
            TRACEPARENT => traceparent = header.value.map(Bytes::copy_from_slice),
            EARLY_TIME => early = header.value.and_then(|v| str::from_utf8(v).ok()?.parse().ok()),
            _ => {}
        }
    }
    LogRecord {
        offset: Offset(u64::try_from(message.offset()).expect("a fetched record has an offset")),
        key: copy(message.key()),
        value: copy(message.payload()),
        timestamp_ms: early.or(message.timestamp().to_millis()).unwrap_or_default(),
        traceparent,
    }
}

/// Finds a consumer that is assigned, has lag, and receives nothing (rust-rdkafka #638): two looks
/// at the log's end, with no record between them though the first saw some to come.
struct Watch {
    /// Not on compacted topics, where the newest offsets may hold no record any more.
    active: bool,
    due: Instant,
    /// Where the reader stood and where the log ended at the last look.
    before: Option<(Offset, Offset)>,
    /// Kept here so that a cancelled `next` does not lose the look.
    asking: Option<JoinHandle<Result<Bounds, PortError>>>,
}

impl Watch {
    fn new(active: bool) -> Self {
        Self { active, due: Instant::now() + STALL_CHECK, before: None, asking: None }
    }

    fn progress(&mut self) {
        self.before = None;
        self.due = Instant::now() + STALL_CHECK;
    }

    /// Waits until it is time, then asks where the log ends. `None` where that is not known.
    /// Cancel safe.
    async fn ask(&mut self, lease: &Lease) -> Option<Offset> {
        let asking = match &mut self.asking {
            Some(asking) => asking,
            None => {
                sleep_until(self.due).await;
                let (bounds, active) = (lease.bounds(), self.active);
                self.due = Instant::now() + STALL_CHECK;
                if !active {
                    return None;
                }
                self.asking.insert(tokio::task::spawn_blocking(bounds))
            }
        };
        let bounds = asking.await;
        self.asking = None;
        Some(bounds.ok()?.ok()?.end)
    }

    fn stalled(&mut self, next: Offset, end: Option<Offset>) -> bool {
        // Not where the end is unknown now: the brokers are away, and librdkafka finds them again.
        let stalled = end.is_some() && self.before.is_some_and(|(at, end)| at == next && at < end);
        self.before = end.map(|end| (next, end));
        stalled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stall_needs_lag_at_the_first_look_and_no_progress_until_the_second() {
        let look = |watch: &mut Watch, next, end| watch.stalled(Offset(next), Some(Offset(end)));
        let mut watch = Watch::new(true);
        assert!(!look(&mut watch, 5, 5));
        assert!(!look(&mut watch, 5, 6), "it came between the looks");
        assert!(look(&mut watch, 5, 6));

        watch.progress();
        assert!(!look(&mut watch, 6, 9));
        assert!(!look(&mut watch, 7, 9), "it moves");
        assert!(!watch.stalled(Offset(7), None), "the end is not known");
        assert!(!look(&mut watch, 7, 9));
    }
}
