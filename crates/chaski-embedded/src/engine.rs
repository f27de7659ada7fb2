//! The open directory: its tables, the queue to the writer thread, and the end of both.
//!
//! Must not know: what is written.

use crate::{
    EmbeddedOptions, checkpoints, keys,
    tables::{self, Tables},
    tail::PartitionLog,
    values,
    writer::{Job, Queued, Transaction, Writer},
};
use bytes::Bytes;
use chaski_ports::{Appending, ErrorKind, PortError};
use std::{fs::File, path::Path, sync::Arc, thread::JoinHandle};
use tokio::sync::{Semaphore, TryAcquireError, mpsc, oneshot};

/// What a job costs beside its bytes. Also bounds how many jobs can wait.
const JOB_BYTES: u32 = 256;

/// The open directory. The last one that holds it closes it.
pub(crate) struct Engine {
    /// Bytes that may still be queued: admission takes them, the writer gives them back.
    budget: Arc<Semaphore>,
    budget_bytes: u32,
    jobs: Option<mpsc::Sender<Queued>>,
    writer: Option<JoinHandle<()>>,
    tables: Tables,
    _lock: File,
}

impl Engine {
    /// Opens the directory and starts its writer.
    pub(crate) fn open(path: &Path, options: &EmbeddedOptions) -> Result<Self, PortError> {
        let lock = tables::lock(path)?;
        let tables = Tables::open(path)?;
        check_format(&tables)?;
        checkpoints::drop_orphans(&tables)?;
        let budget_bytes = options.queue_bytes_max.max(JOB_BYTES);
        let budget = Arc::new(Semaphore::new(budget_bytes as usize));
        let (jobs, queue) = mpsc::channel((budget_bytes / JOB_BYTES) as usize);
        let writer = Writer::new(tables.clone(), Arc::clone(&budget), options.gap_seed);
        let writer = std::thread::Builder::new()
            .name("chaski-writer".into())
            .spawn(move || writer.run(queue))
            .map_err(|e| {
                PortError::new(ErrorKind::Unavailable, "start the writer thread").caused_by(e)
            })?;
        Ok(Self {
            budget,
            budget_bytes,
            jobs: Some(jobs),
            writer: Some(writer),
            tables,
            _lock: lock,
        })
    }

    /// The tables, for reads that take microseconds; longer ones go through [`read`](Self::read).
    pub(crate) fn tables(&self) -> &Tables {
        &self.tables
    }

    /// Admits an encoded record, or refuses it at once.
    pub(crate) fn append(
        &self,
        partition: Arc<PartitionLog>,
        record: Bytes,
    ) -> Result<Appending, PortError> {
        let cost = u32::try_from(record.len()).unwrap_or(u32::MAX).saturating_add(JOB_BYTES);
        if cost > self.budget_bytes {
            let why = format!("append to {partition}: larger than the whole queue");
            return Err(PortError::new(ErrorKind::Invalid, why));
        }
        match self.budget.try_acquire_many(cost) {
            Ok(taken) => taken.forget(),
            Err(TryAcquireError::Closed) => return Err(stopped()),
            Err(TryAcquireError::NoPermits) => {
                metrics::counter!("chaski_embedded_refused_total").increment(1);
                return Err(PortError::new(ErrorKind::Full, format!("append to {partition}")));
            }
        }
        let (settle, appending) = Appending::channel();
        let append = Job::Append { partition, record, settle };
        self.enqueue(append, cost)?;
        Ok(appending)
    }

    /// Lets `change` decide and write inside the writer; what it gives is returned once all it
    /// wrote is durable. `bytes` is about what it holds. A dropped call may still take effect.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        bytes: usize,
        change: impl FnOnce(&mut Transaction<'_>) -> Result<T, PortError> + Send + 'static,
    ) -> Result<T, PortError> {
        let cost = u32::try_from(bytes).unwrap_or(u32::MAX).saturating_add(JOB_BYTES);
        let cost = cost.min(self.budget_bytes);
        self.budget.acquire_many(cost).await.map_err(|_| stopped())?.forget();
        let (done, outcome) = oneshot::channel();
        let change = Box::new(move |tx: &mut Transaction<'_>| {
            let given = change(tx);
            Box::new(move |committed: Result<(), PortError>| {
                // Nobody may be waiting any more: the write has taken effect all the same.
                let _ = done.send(committed.and(given));
            }) as _
        });
        self.enqueue(Job::Write(change), cost)?;
        outcome.await.unwrap_or_else(|_| {
            Err(PortError::new(ErrorKind::Unknown, "write: the writer stopped before it answered"))
        })
    }

    /// Enqueues without waiting for room or outcome; drops `change` where there is no room.
    pub(crate) fn try_write(&self, change: impl FnOnce(&mut Transaction<'_>) + Send + 'static) {
        if let Ok(taken) = self.budget.try_acquire_many(JOB_BYTES) {
            taken.forget();
            let change = Box::new(move |tx: &mut Transaction<'_>| {
                change(tx);
                Box::new(|_| ()) as _
            });
            // A stopped writer writes nothing any more.
            let _ = self.enqueue(Job::Write(change), JOB_BYTES);
        }
    }

    fn enqueue(&self, job: Job, cost: u32) -> Result<(), PortError> {
        let jobs = self.jobs.as_ref().expect("only drop takes it");
        // The budget leaves room for every admitted job, so only a stopped writer refuses.
        jobs.try_send(Queued { job, cost }).map_err(|_| stopped())
    }

    /// Reads off the runtime's threads, for whatever may touch the disk at length.
    pub(crate) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&Tables) -> Result<T, PortError> + Send + 'static,
    ) -> Result<T, PortError> {
        let engine = Arc::clone(self);
        tokio::task::spawn_blocking(move || read(&engine.tables)).await.unwrap_or_else(|e| {
            Err(PortError::new(ErrorKind::Unavailable, "read from the store").caused_by(e))
        })
    }
}

impl Drop for Engine {
    /// Waits for what was admitted: at most one queue, usually one fsync.
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the writer thread panicked");
        }
    }
}

fn stopped() -> PortError {
    PortError::new(
        ErrorKind::Unavailable,
        "the writer has stopped after a failure; restart to recover",
    )
}

fn check_format(tables: &Tables) -> Result<(), PortError> {
    match tables::get(&tables.rows, keys::FORMAT)? {
        Some(stored) if values::number(&stored) == Some(values::FORMAT) => Ok(()),
        Some(_) => {
            let why = "this directory was written by another version";
            Err(PortError::new(ErrorKind::Invalid, why))
        }
        None => {
            let mut batch = tables.batch();
            batch.insert(&tables.rows, keys::FORMAT, values::FORMAT.to_be_bytes());
            let id = uuid::Uuid::new_v4().to_string();
            batch.insert(&tables.rows, keys::CLUSTER_ID, id.as_bytes());
            batch.commit().map_err(|e| tables::failed("name the log", e))
        }
    }
}
