//! One partition as its readers see it: the end, and the recent records in memory.
//!
//! Must not know: the disk. Records come here when they are durable, never before.

use chaski_core::{Offset, Partition};
use chaski_ports::{LogRecord, Topic};
use parking_lot::Mutex;
use std::{
    collections::VecDeque,
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};
use tokio::sync::watch;

/// What a record in the tail costs beside its bytes.
const RECORD_BYTES: usize = 200;

/// A partition.
pub(crate) struct PartitionLog {
    pub(crate) topic: Topic,
    pub(crate) partition: Partition,
    /// The offset after the newest record that was given one. Only the writer uses it.
    assigned: AtomicU64,
    /// The offset after the newest durable record.
    end: watch::Sender<Offset>,
    tail: Mutex<Tail>,
    tail_bytes_max: usize,
}

/// A record with its stored size.
pub(crate) type Recorded = (LogRecord, usize);

struct Tail {
    /// All records from here on are in `records`.
    from: Offset,
    records: VecDeque<Recorded>,
    bytes: usize,
}

/// What the tail has for a reader.
pub(crate) enum Recent {
    /// The next records; none at the end of the log.
    Records(Vec<LogRecord>),
    /// Only the disk has them.
    TooOld,
}

impl PartitionLog {
    /// A partition whose newest record is before `end`.
    pub(crate) fn new(
        topic: Topic,
        partition: Partition,
        end: Offset,
        tail_bytes_max: usize,
    ) -> Self {
        Self {
            topic,
            partition,
            assigned: AtomicU64::new(end.0),
            end: watch::Sender::new(end),
            tail: Mutex::new(Tail { from: end, records: VecDeque::new(), bytes: 0 }),
            tail_bytes_max,
        }
    }

    /// The offset after the newest durable record, now and later.
    pub(crate) fn end(&self) -> watch::Receiver<Offset> {
        self.end.subscribe()
    }

    /// Gives the next record its offset, `gap` behind the one before. Only the writer calls it.
    pub(crate) fn assign(&self, gap: u64) -> Offset {
        let offset = Offset(self.assigned.load(Ordering::Relaxed) + gap);
        self.assigned.store(offset.next().0, Ordering::Relaxed);
        offset
    }

    /// Shows durable records, each with its stored size, and then wakes the readers.
    pub(crate) fn publish(&self, records: Vec<Recorded>) {
        let Some((newest, _)) = records.last() else {
            return;
        };
        let end = newest.offset.next();
        let mut tail = self.tail.lock();
        for (record, size) in records {
            tail.bytes += size + RECORD_BYTES;
            tail.records.push_back((record, size));
        }
        while tail.bytes > self.tail_bytes_max
            && let Some((oldest, size)) = tail.records.pop_front()
        {
            tail.bytes -= size + RECORD_BYTES;
            tail.from = oldest.offset.next();
        }
        drop(tail);
        self.end.send_replace(end);
    }

    /// The records from `from` on, up to the limits but at least one.
    pub(crate) fn recent(&self, from: Offset, (records_max, bytes_max): (usize, usize)) -> Recent {
        let tail = self.tail.lock();
        if from < tail.from {
            return Recent::TooOld;
        }
        let first = tail.records.partition_point(|(record, _)| record.offset < from);
        let mut bytes = 0;
        let records = tail
            .records
            .range(first..)
            .take(records_max)
            .take_while(|(_, size)| {
                let fits = bytes == 0 || bytes + size <= bytes_max;
                bytes += size;
                fits
            })
            .map(|(record, _)| record.clone());
        Recent::Records(records.collect())
    }
}

impl fmt::Display for PartitionLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic.name(), self.partition)
    }
}
