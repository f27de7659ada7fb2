//! A log of which a host hears nothing new, as long as it is deaf: like one whose broker is cut off,
//! it is neither told records nor where the log ends. It may forget its beginning, and counts how
//! often it is read.

use chaski_core::{Offset, Partition};
use chaski_ports::{Bounds, Log, LogReader, LogRecord, PortError, ProducePolicy, Producer, Topic};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use tokio::sync::watch;
use tonic::async_trait;

pub(crate) struct Hearing {
    pub(crate) log: Arc<dyn Log>,
    pub(crate) deaf: watch::Receiver<bool>,
    pub(crate) kept: watch::Receiver<Offset>,
    pub(crate) reads: Arc<AtomicU64>,
}

async fn hears(deaf: &watch::Receiver<bool>) {
    // Who could change it is gone: the test ends.
    let _ = deaf.clone().wait_for(|deaf| !deaf).await;
}

#[async_trait]
impl Log for Hearing {
    async fn cluster_id(&self) -> Result<String, PortError> {
        self.log.cluster_id().await
    }

    async fn partitions(&self, topic: Topic) -> Result<u32, PortError> {
        self.log.partitions(topic).await
    }

    async fn create_topics(&self, partitions: u32) -> Result<(), PortError> {
        self.log.create_topics(partitions).await
    }

    async fn bounds(&self, topic: Topic, partition: Partition) -> Result<Bounds, PortError> {
        hears(&self.deaf).await;
        let Bounds { start, end } = self.log.bounds(topic, partition).await?;
        Ok(Bounds { start: start.max(*self.kept.borrow()), end })
    }

    async fn reader(
        &self,
        topic: Topic,
        partition: Partition,
        from: Offset,
    ) -> Result<Box<dyn LogReader>, PortError> {
        let reader = self.log.reader(topic, partition, from).await?;
        self.reads.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(HearingReader { reader, deaf: self.deaf.clone(), heard: None }))
    }

    fn producer(&self, policy: ProducePolicy) -> Result<Arc<dyn Producer>, PortError> {
        self.log.producer(policy)
    }

    async fn mirror(
        &self,
        group: &str,
        topic: Topic,
        positions: &[(Partition, Offset)],
    ) -> Result<(), PortError> {
        self.log.mirror(group, topic, positions).await
    }
}

struct HearingReader {
    reader: Box<dyn LogReader>,
    deaf: watch::Receiver<bool>,
    /// Read, and not told yet.
    heard: Option<Vec<LogRecord>>,
}

#[async_trait]
impl LogReader for HearingReader {
    async fn next(&mut self) -> Result<Vec<LogRecord>, PortError> {
        if self.heard.is_none() {
            self.heard = Some(self.reader.next().await?);
        }
        hears(&self.deaf).await;
        Ok(self.heard.take().expect("read above"))
    }
}
