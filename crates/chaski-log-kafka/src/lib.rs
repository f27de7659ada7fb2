//! The log on Apache Kafka, through librdkafka.
//!
//! Few clients, because each has its threads and connections: one producer for each policy, as
//! many consumers as a partition has readers at once (usually one or two), one client for each
//! group whose lag is shown. No consumer groups, no transactions, no stored offsets: who owns a
//! partition and from where it reads is decided elsewhere.
//!
//! Must not know: what a record says, who owns a partition.

mod client;
mod error;
mod lanes;
mod mirror;
mod options;
mod pool;
mod producer;
mod reader;
mod topics;

pub use options::{KafkaOptions, RETENTION_MS_MIN};

use crate::{
    mirror::Mirrors,
    pool::{CALL_PATIENCE, Pool, blocking},
    producer::KafkaProducer,
};
use async_trait::async_trait;
use chaski_core::{Offset, Partition};
use chaski_ports::{Bounds, ErrorKind, Log, LogReader, PortError, ProducePolicy, Producer, Topic};
use parking_lot::Mutex;
use rdkafka::consumer::Consumer;
use std::{collections::HashMap, sync::Arc};

/// The log on Kafka. Dropping it closes its clients on threads of their own.
pub struct KafkaLog {
    cluster: String,
    pool: Arc<Pool>,
    producers: Mutex<HashMap<ProducePolicy, Arc<KafkaProducer>>>,
    mirrors: Mirrors,
}

impl KafkaLog {
    /// Connects, and asks the cluster for its id: `Unavailable` where no broker answers in 5 s,
    /// `Invalid` where the options are wrong.
    pub async fn connect(options: KafkaOptions) -> Result<Arc<Self>, PortError> {
        options.check()?;
        let pool = Pool::start(options).await?;
        let consumer = pool.any().await?;
        let cluster = blocking(move || {
            let id = consumer.consumer().client().fetch_cluster_id(CALL_PATIENCE);
            id.ok_or_else(|| PortError::new(ErrorKind::Unavailable, "ask kafka for its cluster id"))
        })
        .await?;
        Ok(Arc::new(Self {
            cluster,
            pool,
            producers: Mutex::default(),
            mirrors: Mirrors::default(),
        }))
    }
}

#[async_trait]
impl Log for KafkaLog {
    async fn cluster_id(&self) -> Result<String, PortError> {
        Ok(self.cluster.clone())
    }

    async fn partitions(&self, topic: Topic) -> Result<u32, PortError> {
        let (consumer, name) = (self.pool.any().await?, self.pool.options().topic(topic));
        blocking(move || topics::count(&consumer, &name, CALL_PATIENCE)).await
    }

    async fn create_topics(&self, partitions: u32) -> Result<(), PortError> {
        topics::create(&self.pool, partitions).await
    }

    async fn bounds(&self, topic: Topic, partition: Partition) -> Result<Bounds, PortError> {
        let (consumer, name) = (self.pool.any().await?, self.pool.options().topic(topic));
        blocking(move || pool::bounds(&consumer, &name, partition)).await
    }

    async fn reader(
        &self,
        topic: Topic,
        partition: Partition,
        from: Offset,
    ) -> Result<Box<dyn LogReader>, PortError> {
        let Bounds { start, end } = self.bounds(topic, partition).await?;
        if from < start || from > end {
            return Err(PortError::new(
                ErrorKind::OutOfRange,
                format!("read {}/{partition} from {from}, it has {start} to {end}", topic.name()),
            ));
        }
        Ok(Box::new(self.pool.read(topic, partition, from).await?))
    }

    fn producer(&self, policy: ProducePolicy) -> Result<Arc<dyn Producer>, PortError> {
        let mut producers = self.producers.lock();
        if let Some(producer) = producers.get(&policy).filter(|p| !p.is_dead()) {
            return Ok(producer.clone());
        }
        let producer = Arc::new(KafkaProducer::start(self.pool.options(), policy)?);
        producers.insert(policy, producer.clone());
        Ok(producer)
    }

    async fn mirror(
        &self,
        group: &str,
        topic: Topic,
        positions: &[(Partition, Offset)],
    ) -> Result<(), PortError> {
        let options = self.pool.options();
        self.mirrors.show(options, group, &options.topic(topic), positions)
    }
}

#[cfg(test)]
mod tests;
