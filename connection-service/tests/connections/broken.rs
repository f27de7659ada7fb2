//! Ports that fail once at a chosen step, before or after it took effect, or that hold their caller
//! at one.

use async_trait::async_trait;
use bytes::Bytes;
use chaski_core::{ChatId, Position};
use chaski_core::{Offset, Partition, UserId, connection::BlockEdge, record::RequestId};
use chaski_ports::{
    Appending, Bounds, CheckpointStore, Claimed, ConnectionRow, ConnectionStore, ErrorKind,
    HistoryRange, InboxDay, Log, LogReader, MessageStore, PortError, Ports, ProducePolicy,
    Producer, Record, Snapshot, StoreBatch, Stored, Topic, WatermarkRow,
};
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicI64, Ordering},
};
use tokio::sync::Notify;

/// Fails at the armed step; each write counts as one. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Fault(Arc<Steps>);

#[derive(Default)]
struct Steps {
    /// Steps until it fails; negative: it does not.
    left: AtomicI64,
    after: AtomicBool,
}

impl Fault {
    pub(crate) fn none() -> Self {
        let fault = Self::default();
        fault.0.left.store(-1, Ordering::SeqCst);
        fault
    }

    /// The `step`-th write from now on fails once: before or `after` it has taken effect.
    pub(crate) fn arm(&self, step: i64, after: bool) {
        self.0.after.store(after, Ordering::SeqCst);
        self.0.left.store(step, Ordering::SeqCst);
    }

    /// Whether it has failed; it does not fail any more.
    pub(crate) fn disarm(&self) -> bool {
        self.0.left.swap(-1, Ordering::SeqCst) < 0
    }

    /// How this step ends: `None` well, else with the error, after it took effect or before.
    fn step(&self) -> Option<(bool, PortError)> {
        let down = |left: i64| (left >= 0).then_some(left - 1);
        let left = self.0.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, down);
        (left == Ok(0)).then(|| {
            (self.0.after.load(Ordering::SeqCst), PortError::new(ErrorKind::Unknown, "a fault"))
        })
    }

    async fn around<T>(
        &self,
        step: impl Future<Output = Result<T, PortError>>,
    ) -> Result<T, PortError> {
        match self.step() {
            None => step.await,
            Some((true, error)) => step.await.and(Err(error)),
            Some((false, error)) => Err(error),
        }
    }
}

/// The ports, with the fault in everything that the fold writes.
pub(crate) fn faulty(ports: &Ports, fault: &Fault) -> Ports {
    let fault = fault.clone();
    Ports {
        log: Arc::new(FaultyLog { inner: Arc::clone(&ports.log), fault: fault.clone() }),
        messages: Arc::new(Faulty { inner: Arc::clone(&ports.messages), fault: fault.clone() }),
        connections: Arc::new(Faulty {
            inner: Arc::clone(&ports.connections),
            fault: fault.clone(),
        }),
        checkpoints: Arc::new(Faulty { inner: Arc::clone(&ports.checkpoints), fault }),
        ..ports.clone()
    }
}

/// Holds the first caller that has read a pair, or the first that is about to save one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Hold {
    Read,
    Save,
}

pub(crate) struct Holding {
    inner: Arc<dyn ConnectionStore>,
    at: Hold,
    free: AtomicBool,
    pub(crate) held: Notify,
    pub(crate) release: Notify,
}

impl Holding {
    pub(crate) fn new(inner: Arc<dyn ConnectionStore>, at: Hold) -> Arc<Self> {
        let (held, release) = (Notify::new(), Notify::new());
        Arc::new(Self { inner, at, free: AtomicBool::new(false), held, release })
    }

    async fn pass(&self, at: Hold) {
        if self.at == at && !self.free.swap(true, Ordering::SeqCst) {
            self.held.notify_one();
            self.release.notified().await;
        }
    }
}

struct FaultyLog {
    inner: Arc<dyn Log>,
    fault: Fault,
}

#[async_trait]
impl Log for FaultyLog {
    async fn cluster_id(&self) -> Result<String, PortError> {
        self.inner.cluster_id().await
    }
    async fn partitions(&self, topic: Topic) -> Result<u32, PortError> {
        self.inner.partitions(topic).await
    }
    async fn create_topics(&self, partitions: u32) -> Result<(), PortError> {
        self.inner.create_topics(partitions).await
    }
    async fn bounds(&self, topic: Topic, partition: Partition) -> Result<Bounds, PortError> {
        self.inner.bounds(topic, partition).await
    }
    async fn reader(
        &self,
        topic: Topic,
        partition: Partition,
        from: Offset,
    ) -> Result<Box<dyn LogReader>, PortError> {
        self.inner.reader(topic, partition, from).await
    }
    fn producer(&self, policy: ProducePolicy) -> Result<Arc<dyn Producer>, PortError> {
        let (inner, fault) = (self.inner.producer(policy)?, self.fault.clone());
        Ok(Arc::new(FaultyProducer { inner, fault }))
    }
    async fn mirror(
        &self,
        group: &str,
        topic: Topic,
        positions: &[(Partition, Offset)],
    ) -> Result<(), PortError> {
        self.inner.mirror(group, topic, positions).await
    }
}

struct FaultyProducer {
    inner: Arc<dyn Producer>,
    fault: Fault,
}

impl Producer for FaultyProducer {
    fn append(
        &self,
        topic: Topic,
        partition: Partition,
        record: Record,
    ) -> Result<Appending, PortError> {
        let append = || self.inner.append(topic, partition, record);
        // What is asked is not what the fold writes.
        if topic == Topic::ConnectionRequests {
            return append();
        }
        match self.fault.step() {
            None => append(),
            // Dropped, an append is not undone.
            Some((true, error)) => append().and(Err(error)),
            // As librdkafka may: this one is lost, and those behind it are not.
            Some((false, error)) => {
                let (settle, appending) = Appending::channel();
                let _ = settle.send(Err(error));
                Ok(appending)
            }
        }
    }
}

struct Faulty<T: ?Sized> {
    inner: Arc<T>,
    fault: Fault,
}

#[async_trait]
impl MessageStore for Faulty<dyn MessageStore> {
    async fn write(&self, batch: StoreBatch) -> Result<(), PortError> {
        self.fault.around(self.inner.write(batch)).await
    }
    async fn history(
        &self,
        chat: &ChatId,
        range: HistoryRange,
        limit: usize,
    ) -> Result<Vec<Stored>, PortError> {
        self.inner.history(chat, range, limit).await
    }
    async fn items(&self, places: &[(ChatId, u64)]) -> Result<Vec<Option<Bytes>>, PortError> {
        self.inner.items(places).await
    }
    async fn hidden(
        &self,
        user: &UserId,
        chat: &ChatId,
        range: (u64, u64),
    ) -> Result<Vec<u64>, PortError> {
        self.inner.hidden(user, chat, range).await
    }
    async fn inbox(
        &self,
        partition: Partition,
        user: &UserId,
        range: (Position, Position),
        limit: usize,
    ) -> Result<Vec<Stored>, PortError> {
        self.inner.inbox(partition, user, range, limit).await
    }
    async fn inbox_days(&self, partition: Partition) -> Result<Vec<InboxDay>, PortError> {
        self.inner.inbox_days(partition).await
    }
    async fn verdict(&self, request: &RequestId) -> Result<Option<Bytes>, PortError> {
        self.inner.verdict(request).await
    }
}

#[async_trait]
impl CheckpointStore for Faulty<dyn CheckpointStore> {
    async fn save_watermark(
        &self,
        role: &str,
        partition: Partition,
        row: &WatermarkRow,
    ) -> Result<(), PortError> {
        self.fault.around(self.inner.save_watermark(role, partition, row)).await
    }
    async fn watermarks(
        &self,
        role: &str,
        partition: Partition,
        limit: usize,
    ) -> Result<Vec<WatermarkRow>, PortError> {
        self.inner.watermarks(role, partition, limit).await
    }
    async fn put_snapshot(&self, p: Partition, snapshot: &Snapshot) -> Result<(), PortError> {
        self.inner.put_snapshot(p, snapshot).await
    }
    async fn snapshot(&self, p: Partition, bucket: u32) -> Result<Option<Snapshot>, PortError> {
        self.inner.snapshot(p, bucket).await
    }
    async fn snapshots(&self, partition: Partition) -> Result<Vec<Snapshot>, PortError> {
        self.inner.snapshots(partition).await
    }
    async fn claim(
        &self,
        role: &str,
        partition: Partition,
        assignment: u64,
    ) -> Result<Claimed, PortError> {
        self.inner.claim(role, partition, assignment).await
    }
}

/// Both decorations of the store of connections, which differ in `save` and `read` only.
macro_rules! store {
    ($name:ty, |$this:ident, $save:ident| $saved:expr, |$of:ident, $read:ident| $found:expr) => {
        #[async_trait]
        impl ConnectionStore for $name {
            async fn save_connections(&self, rows: &[ConnectionRow]) -> Result<(), PortError> {
                let ($this, $save) = (self, self.inner.save_connections(rows));
                $saved
            }
            async fn connection(
                &self,
                user: &UserId,
                peer: &UserId,
            ) -> Result<Option<ConnectionRow>, PortError> {
                let ($of, $read) = (self, self.inner.connection(user, peer));
                $found
            }
            async fn connections(
                &self,
                user: &UserId,
                after: Option<&UserId>,
                limit: usize,
            ) -> Result<Vec<ConnectionRow>, PortError> {
                self.inner.connections(user, after, limit).await
            }
            async fn blocks(
                &self,
                partition: Partition,
                after: Option<&BlockEdge>,
                limit: usize,
            ) -> Result<Vec<BlockEdge>, PortError> {
                self.inner.blocks(partition, after, limit).await
            }
            async fn pair_blocks(
                &self,
                partition: Partition,
                pair: (&UserId, &UserId),
                from: Offset,
                limit: usize,
            ) -> Result<Vec<BlockEdge>, PortError> {
                self.inner.pair_blocks(partition, pair, from, limit).await
            }
            async fn save_settings(
                &self,
                user: &UserId,
                version: u64,
                state: Bytes,
            ) -> Result<(), PortError> {
                let ($this, $save) = (self, self.inner.save_settings(user, version, state));
                $saved
            }
            async fn settings(&self, user: &UserId) -> Result<Option<Bytes>, PortError> {
                self.inner.settings(user).await
            }
        }
    };
}

store!(Faulty<dyn ConnectionStore>, |this, save| this.fault.around(save).await, |_this, read| {
    read.await
});

store!(
    Holding,
    |this, save| {
        this.pass(Hold::Save).await;
        save.await
    },
    |this, read| {
        let found = read.await;
        this.pass(Hold::Read).await;
        found
    }
);
