//! The log port: topics and partitions over the engine.

use crate::{
    Directory,
    engine::Engine,
    keys,
    reader::EmbeddedReader,
    tables::{self, Tables},
    tail::PartitionLog,
    values,
};
use async_trait::async_trait;
use chaski_core::{Offset, Partition};
use chaski_ports::{
    Appending, Bounds, ErrorKind, Log, LogReader, PortError, ProducePolicy, Producer, Record, Topic,
};
use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

/// The partitions of every topic, once it exists; their number never changes.
#[derive(Clone)]
pub(crate) struct Topics {
    cluster_id: Arc<str>,
    partitions: Arc<BTreeMap<Topic, OnceLock<Vec<Arc<PartitionLog>>>>>,
    tail_bytes_max: usize,
}

impl Topics {
    /// The topics that are stored.
    pub(crate) fn open(tables: &Tables, tail_bytes_max: usize) -> Result<Self, PortError> {
        let id = tables::get(&tables.rows, keys::CLUSTER_ID)?;
        let id = id.and_then(|id| String::from_utf8(id.into()).ok());
        let topics = Self {
            cluster_id: id.ok_or_else(|| tables::corrupt("cluster id"))?.into(),
            partitions: Arc::new(Topic::ALL.map(|topic| (topic, OnceLock::new())).into()),
            tail_bytes_max,
        };
        for topic in Topic::ALL {
            if let Some(count) = stored_count(tables::get(&tables.rows, &keys::topic(topic))?)? {
                topics.install(tables, topic, count)?;
            }
        }
        Ok(topics)
    }

    fn get(&self, topic: Topic) -> Result<&[Arc<PartitionLog>], PortError> {
        let partitions = self.partitions.get(&topic).and_then(OnceLock::get);
        partitions
            .map(Vec::as_slice)
            .ok_or_else(|| PortError::new(ErrorKind::NotFound, format!("topic {}", topic.name())))
    }

    fn partition(
        &self,
        topic: Topic,
        partition: Partition,
    ) -> Result<&Arc<PartitionLog>, PortError> {
        self.get(topic)?.get(partition.0 as usize).ok_or_else(|| {
            PortError::new(ErrorKind::NotFound, format!("{}/{partition}", topic.name()))
        })
    }

    /// Makes the partitions known, each with its end on disk.
    fn install(&self, tables: &Tables, topic: Topic, count: u32) -> Result<(), PortError> {
        let mut partitions = Vec::new();
        for partition in (0..count).map(Partition) {
            let newest =
                tables::prefix(&tables.log, &keys::log_partition(topic, partition)).next_back();
            let end = match newest.transpose()? {
                Some((key, _)) => {
                    let offset = keys::last_u64(&key).ok_or_else(|| tables::corrupt("offset"))?;
                    Offset(offset).next()
                }
                None => Offset(0),
            };
            partitions.push(Arc::new(PartitionLog::new(
                topic,
                partition,
                end,
                self.tail_bytes_max,
            )));
        }
        // Another call may have been first; then its partitions stay.
        self.partitions[&topic].get_or_init(|| partitions);
        Ok(())
    }
}

fn stored_count(stored: Option<bytes::Bytes>) -> Result<Option<u32>, PortError> {
    let count = |stored: &bytes::Bytes| values::number(stored).and_then(|n| u32::try_from(n).ok());
    stored
        .map(|stored| count(&stored).ok_or_else(|| tables::corrupt("partition count")))
        .transpose()
}

#[async_trait]
impl Log for Directory {
    async fn cluster_id(&self) -> Result<String, PortError> {
        Ok(self.log.cluster_id.to_string())
    }

    async fn partitions(&self, topic: Topic) -> Result<u32, PortError> {
        let count = self.log.get(topic)?.len();
        Ok(u32::try_from(count).expect("counted by a u32"))
    }

    async fn create_topics(&self, partitions: u32) -> Result<(), PortError> {
        if partitions == 0 {
            return Err(PortError::new(ErrorKind::Invalid, "create topics without partitions"));
        }
        let counts = self.engine.write(0, move |tx| {
            let mut counts = Vec::new();
            for topic in Topic::ALL {
                let key = keys::topic(topic);
                let count = match stored_count(tx.row(&key)?)? {
                    Some(count) => count,
                    None => {
                        let count = if topic.is_partitioned() { partitions } else { 1 };
                        let stored = u64::from(count).to_be_bytes();
                        tx.put_row(key, bytes::Bytes::copy_from_slice(&stored));
                        count
                    }
                };
                counts.push((topic, count));
            }
            Ok(counts)
        });
        let (counts, topics) = (counts.await?, self.log.clone());
        let install = move |tables: &Tables| {
            let missing = counts.into_iter().filter(|(topic, _)| topics.get(*topic).is_err());
            missing
                .map(|(topic, count)| topics.install(tables, topic, count))
                .try_for_each(|done| done)
        };
        self.engine.read(install).await
    }

    async fn bounds(&self, topic: Topic, partition: Partition) -> Result<Bounds, PortError> {
        let end = self.log.partition(topic, partition)?.end();
        let end = *end.borrow();
        Ok(Bounds { start: Offset(0), end })
    }

    async fn reader(
        &self,
        topic: Topic,
        partition: Partition,
        from: Offset,
    ) -> Result<Box<dyn LogReader>, PortError> {
        let partition = Arc::clone(self.log.partition(topic, partition)?);
        let reader = EmbeddedReader::new(Arc::clone(&self.engine), partition, from)?;
        Ok(Box::new(reader))
    }

    /// One producer serves both policies: a local disk answers or fails, nobody gives up on it.
    fn producer(&self, _policy: ProducePolicy) -> Result<Arc<dyn Producer>, PortError> {
        Ok(Arc::new(EmbeddedProducer {
            engine: Arc::clone(&self.engine),
            topics: self.log.clone(),
        }))
    }

    /// There are no stock tools to show it to.
    async fn mirror(
        &self,
        _group: &str,
        _topic: Topic,
        _positions: &[(Partition, Offset)],
    ) -> Result<(), PortError> {
        Ok(())
    }
}

struct EmbeddedProducer {
    engine: Arc<Engine>,
    topics: Topics,
}

impl Producer for EmbeddedProducer {
    fn append(
        &self,
        topic: Topic,
        partition: Partition,
        record: Record,
    ) -> Result<Appending, PortError> {
        let partition = Arc::clone(self.topics.partition(topic, partition)?);
        let stored = values::record(&record).ok_or_else(|| {
            PortError::new(
                ErrorKind::Invalid,
                format!("append to {partition}: a header is too long"),
            )
        })?;
        self.engine.append(partition, stored)
    }
}
