//! Few consumers for many readers. A consumer serves any number of partitions but each of them
//! once, so a second reader of the same partition goes to a second consumer. All consumers are
//! alike: none belongs to a topic.
//!
//! Must not know: what readers do with records.

use crate::{
    client::{self, PolledConsumer, Quiet},
    error,
    options::KafkaOptions,
    reader::PartitionReader,
};
use chaski_core::{Offset, Partition};
use chaski_ports::{Bounds, ErrorKind, PortError, Topic};
use parking_lot::Mutex;
use rdkafka::{
    TopicPartitionList,
    consumer::{Consumer, base_consumer::PartitionQueue},
    error::KafkaError,
    types::RDKafkaErrorCode as Code,
};
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::Notify;

/// L8: with two readers of a partition in a process and some that catch up, 2-4 are in use.
const CONSUMERS_MAX: usize = 16;

/// Kept though idle, because a new one costs threads and connections.
const CONSUMERS_WARM: usize = 2;

/// How long a call waits for the brokers.
pub(crate) const CALL_PATIENCE: Duration = Duration::from_secs(5);

type Place = (Topic, Partition);
pub(crate) type Reading = PolledConsumer<Quiet>;

pub(crate) struct Pool {
    options: KafkaOptions,
    slots: Mutex<Vec<Slot>>,
    /// Told when a place becomes free.
    freed: Notify,
    /// Held while a consumer is made, so that two who need one do not make two.
    growing: tokio::sync::Mutex<()>,
}

struct Slot {
    consumer: Arc<Reading>,
    taken: HashMap<Place, Use>,
}

#[derive(Clone, Copy, PartialEq)]
enum Use {
    Read,
    /// Its reader was dropped, and the consumer is being told.
    Leaving,
}

impl Pool {
    pub(crate) async fn start(options: KafkaOptions) -> Result<Arc<Self>, PortError> {
        let pool = Arc::new(Self {
            options,
            slots: Mutex::default(),
            freed: Notify::new(),
            growing: tokio::sync::Mutex::default(),
        });
        pool.any().await?;
        Ok(pool)
    }

    /// A consumer to ask something; not to read with.
    pub(crate) async fn any(&self) -> Result<Arc<Reading>, PortError> {
        let first = || self.slots.lock().first().map(|s| s.consumer.clone());
        if let Some(consumer) = first() {
            return Ok(consumer);
        }
        let _growing = self.growing.lock().await;
        match first() {
            Some(consumer) => Ok(consumer),
            None => self.grow(None).await,
        }
    }

    /// A reader of the partition from this offset, which is in range.
    pub(crate) async fn read(
        self: &Arc<Self>,
        topic: Topic,
        partition: Partition,
        from: Offset,
    ) -> Result<PartitionReader, PortError> {
        let consumer = self.take((topic, partition)).await?;
        let mut lease =
            Lease { pool: self.clone(), consumer: Some(consumer), queue: None, topic, partition };
        let assign = move || lease.assign(from).map(|wake| (lease, wake));
        let (lease, wake) = blocking(assign).await?;
        Ok(PartitionReader::new(lease, wake, from))
    }

    /// A consumer on which the place is free, and is now taken.
    async fn take(&self, place: Place) -> Result<Arc<Reading>, PortError> {
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            let leaving = {
                let mut slots = self.slots.lock();
                if let Some(slot) = slots.iter_mut().find(|s| !s.taken.contains_key(&place)) {
                    slot.taken.insert(place, Use::Read);
                    return Ok(slot.consumer.clone());
                }
                slots.iter().any(|s| s.taken.get(&place) == Some(&Use::Leaving))
            };
            if leaving && tokio::time::timeout(CALL_PATIENCE, freed).await.is_ok() {
                continue;
            }
            let _growing = self.growing.lock().await;
            let free = |s: &Slot| !s.taken.contains_key(&place);
            if !self.slots.lock().iter().any(free) {
                return self.grow(Some(place)).await;
            }
        }
    }

    async fn grow(&self, place: Option<Place>) -> Result<Arc<Reading>, PortError> {
        if self.slots.lock().len() >= CONSUMERS_MAX {
            return Err(PortError::new(ErrorKind::Full, "too many readers of one partition"));
        }
        let config = self.options.consumer();
        let make = move || PolledConsumer::start(&config, Quiet, |_| ());
        let consumer = Arc::new(blocking(make).await?);
        self.slots.lock().push(Slot {
            consumer: consumer.clone(),
            taken: place.map(|p| (p, Use::Read)).into_iter().collect(),
        });
        Ok(consumer)
    }

    fn set(&self, consumer: &Arc<Reading>, place: Place, state: Option<Use>) {
        let mut slots = self.slots.lock();
        let Some(at) = slots.iter().position(|s| Arc::ptr_eq(&s.consumer, consumer)) else {
            return; // condemned
        };
        match state {
            Some(state) => slots[at].taken.insert(place, state),
            None => slots[at].taken.remove(&place),
        };
        if slots[at].taken.is_empty() && slots.len() > CONSUMERS_WARM {
            slots.remove(at);
        }
        drop(slots);
        self.freed.notify_waiters();
    }

    /// No new reader gets this consumer; it ends with its last reader.
    fn condemn(&self, consumer: &Arc<Reading>) {
        self.slots.lock().retain(|s| !Arc::ptr_eq(&s.consumer, consumer));
        self.freed.notify_waiters();
    }

    pub(crate) fn options(&self) -> &KafkaOptions {
        &self.options
    }
}

/// A reader's hold on a partition of a consumer. Dropping it gives the partition back.
pub(crate) struct Lease {
    pool: Arc<Pool>,
    consumer: Option<Arc<Reading>>,
    queue: Option<PartitionQueue<Quiet>>,
    pub(crate) topic: Topic,
    partition: Partition,
}

impl Lease {
    /// Tells the consumer to fetch the partition; the answer is woken when records arrive. Blocks.
    fn assign(&mut self, from: Offset) -> Result<Arc<Notify>, PortError> {
        let at = |e| error::asking(format!("read {} from {from}", self.place()), e);
        let name = self.pool.options.topic(self.topic);
        let consumer = self.polled().consumer();
        let number = number(self.partition)?;
        // First the queue, then the partition: the other way round, records that arrive in between
        // go to the consumer's common queue (confluentinc/librdkafka#3231).
        let mut queue = consumer
            .split_partition_queue(&name, number)
            .ok_or_else(|| PortError::new(ErrorKind::NotFound, format!("read {}", self.place())))?;
        let wake = Arc::new(Notify::new());
        let woken = wake.clone();
        queue.set_nonempty_callback(move || woken.notify_one());
        let mut list = TopicPartitionList::with_capacity(1);
        let offset =
            i64::try_from(from.0).map_or(rdkafka::Offset::Invalid, rdkafka::Offset::Offset);
        list.add_partition_offset(&name, number, offset).map_err(at)?;
        consumer.incremental_assign(&list).map_err(at)?;
        self.queue = Some(queue);
        Ok(wake)
    }

    pub(crate) fn queue(&self) -> &PartitionQueue<Quiet> {
        self.queue.as_ref().expect("a reader is made after assign")
    }

    pub(crate) fn broken(&self) -> Option<String> {
        let cause = self.polled().broken()?;
        self.condemn();
        Some(cause)
    }

    pub(crate) fn condemn(&self) {
        self.pool.condemn(self.polled());
    }

    /// A blocking call that asks where the partition begins and ends.
    pub(crate) fn bounds(&self) -> impl FnOnce() -> Result<Bounds, PortError> + Send + 'static {
        let (consumer, name) = (self.polled().clone(), self.pool.options.topic(self.topic));
        let partition = self.partition;
        move || bounds(&consumer, &name, partition)
    }

    pub(crate) fn place(&self) -> String {
        format!("{}/{}", self.pool.options.topic(self.topic), self.partition)
    }

    fn polled(&self) -> &Arc<Reading> {
        self.consumer.as_ref().expect("only drop takes it")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(consumer) = self.consumer.take() else {
            return;
        };
        let (pool, queue) = (self.pool.clone(), self.queue.take());
        let place = (self.topic, self.partition);
        let Some(queue) = queue else {
            return pool.set(&consumer, place, None); // was never assigned
        };
        pool.set(&consumer, place, Some(Use::Leaving));
        client::close("reader", move || {
            let name = pool.options.topic(place.0);
            let mut list = TopicPartitionList::with_capacity(1);
            list.add_partition(&name, place.1.0.cast_signed());
            if let Err(cause) = consumer.consumer().incremental_unassign(&list) {
                tracing::warn!(%cause, topic = name, partition = %place.1, "partition is not given back");
                pool.condemn(&consumer);
            }
            // What was fetched ahead would keep the partition's state alive in the consumer.
            while queue.poll(Duration::ZERO).is_some() {}
            drop(queue);
            pool.set(&consumer, place, None);
        });
    }
}

/// Where a partition begins and ends. Blocks.
pub(crate) fn bounds(
    consumer: &Reading,
    name: &str,
    partition: Partition,
) -> Result<Bounds, PortError> {
    let number = number(partition)?;
    let at = |e| error::asking(format!("bounds of {name}/{partition}"), e);
    let deadline = Instant::now() + CALL_PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match consumer.consumer().fetch_watermarks(name, number, left) {
            Ok((start, end)) => {
                let offset = |o| u64::try_from(o).map(Offset);
                return match (offset(start), offset(end)) {
                    (Ok(start), Ok(end)) => Ok(Bounds { start, end }),
                    _ => Err(at(KafkaError::MetadataFetch(Code::NoOffset))),
                };
            }
            // A leader is being chosen, or its broker has not heard of a new topic yet.
            Err(cause) if deadline > Instant::now() && is_passing(&cause) => {
                if !partition_exists(consumer, name, number, deadline)? {
                    return Err(at(KafkaError::MetadataFetch(Code::UnknownPartition)));
                }
                std::thread::park_timeout(Duration::from_millis(50));
            }
            Err(cause) => return Err(at(cause)),
        }
    }
}

fn is_passing(cause: &KafkaError) -> bool {
    matches!(
        cause.rdkafka_error_code(),
        Some(
            Code::LeaderNotAvailable
                | Code::NotLeaderForPartition
                | Code::UnknownTopicOrPartition
                | Code::UnknownTopic
                | Code::UnknownPartition
                | Code::OffsetNotAvailable
                | Code::FencedLeaderEpoch
                | Code::UnknownLeaderEpoch
        )
    )
}

fn partition_exists(
    consumer: &Reading,
    name: &str,
    partition: i32,
    deadline: Instant,
) -> Result<bool, PortError> {
    let left = deadline.saturating_duration_since(Instant::now());
    match crate::topics::count(consumer, name, left) {
        Ok(count) => Ok(partition.cast_unsigned() < count),
        Err(e) if e.kind == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

fn number(partition: Partition) -> Result<i32, PortError> {
    i32::try_from(partition.0)
        .map_err(|_| PortError::new(ErrorKind::NotFound, format!("partition {partition}")))
}

/// Runs a call that blocks its thread.
pub(crate) async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> Result<T, PortError> + Send + 'static,
) -> Result<T, PortError> {
    match tokio::task::spawn_blocking(call).await {
        Ok(outcome) => outcome,
        Err(cause) => {
            Err(PortError::new(ErrorKind::Unavailable, "a call to kafka").caused_by(cause))
        }
    }
}

#[cfg(test)]
impl crate::KafkaLog {
    pub(crate) fn consumers(&self) -> usize {
        self.pool.slots.lock().len()
    }
}
