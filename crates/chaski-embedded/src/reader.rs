//! Reads one partition: near the end from memory, older records from the disk in chunks.

use crate::{
    engine::Engine,
    keys, tables,
    tail::{PartitionLog, Recent},
    values,
};
use async_trait::async_trait;
use chaski_core::Offset;
use chaski_ports::{ErrorKind, LogReader, LogRecord, PortError};
use std::sync::Arc;
use tokio::sync::watch;

const RECORDS_MAX: usize = 1_000;
const BYTES_MAX: usize = 1 << 20;

/// A reader. It moves only when it returns records, so a dropped `next` loses nothing.
pub(crate) struct EmbeddedReader {
    engine: Arc<Engine>,
    partition: Arc<PartitionLog>,
    end: watch::Receiver<Offset>,
    next: Offset,
}

impl EmbeddedReader {
    /// Reads from `from` on.
    pub(crate) fn new(
        engine: Arc<Engine>,
        partition: Arc<PartitionLog>,
        from: Offset,
    ) -> Result<Self, PortError> {
        let end = partition.end();
        let newest = *end.borrow();
        if from > newest {
            let why = format!("read {partition} from {from}: it ends at {newest}");
            return Err(PortError::new(ErrorKind::OutOfRange, why));
        }
        Ok(Self { engine, partition, end, next: from })
    }

    async fn read_disk(&self) -> Result<Vec<LogRecord>, PortError> {
        let (topic, partition) = (self.partition.topic, self.partition.partition);
        let from = keys::log_record(topic, partition, self.next);
        let upto = keys::log_record(topic, partition, Offset(u64::MAX));
        self.engine
            .read(move |tables| {
                let (mut records, mut bytes) = (Vec::new(), 0);
                for pair in tables::range(&tables.log, &from[..]..&upto[..]) {
                    let (key, stored) = pair?;
                    bytes += stored.len();
                    if !records.is_empty() && bytes > BYTES_MAX {
                        break;
                    }
                    let record = keys::last_u64(&key)
                        .and_then(|offset| values::log_record(Offset(offset), &stored));
                    records.push(record.ok_or_else(|| tables::corrupt("record"))?);
                    if records.len() == RECORDS_MAX {
                        break;
                    }
                }
                Ok(records)
            })
            .await
    }
}

#[async_trait]
impl LogReader for EmbeddedReader {
    async fn next(&mut self) -> Result<Vec<LogRecord>, PortError> {
        let from = self.next;
        // The end moves after the record is in the tail: past this wait there is one to read.
        self.end
            .wait_for(|end| *end > from)
            .await
            .map_err(|_| PortError::new(ErrorKind::Unavailable, "the log is closed"))?;
        let records = match self.partition.recent(from, (RECORDS_MAX, BYTES_MAX)) {
            Recent::Records(records) => records,
            Recent::TooOld => self.read_disk().await?,
        };
        let Some(last) = records.last() else {
            let why = format!("read {} from {from}: a record is missing", self.partition);
            return Err(PortError::new(ErrorKind::Corrupt, why));
        };
        self.next = last.offset.next();
        Ok(records)
    }
}
