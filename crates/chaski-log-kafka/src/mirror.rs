//! Shows positions as committed offsets, so that Kafka's stock tools print our lag. Display only:
//! positions are merged and committed once a second; the newest wins, and nothing waits for it.
//!
//! Must not know: whose positions these are.

use crate::{
    client::{self, PolledConsumer},
    options::KafkaOptions,
};
use chaski_core::{Offset, Partition};
use chaski_ports::{ErrorKind, PortError};
use parking_lot::Mutex;
use rdkafka::{
    ClientContext, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext},
    error::{KafkaError, KafkaResult},
};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tracing::debug;

/// L8: one client for each group, and a process has one group for each of its roles.
const GROUPS_MAX: usize = 16;

/// Every group this process shows.
#[derive(Default)]
pub(crate) struct Mirrors(Mutex<HashMap<String, Group>>);

struct Group {
    waiting: Arc<Waiting>,
    /// Commits with nothing assigned and no membership, which Kafka allows while nobody has
    /// joined the group.
    _client: PolledConsumer<Committing>,
}

type Waiting = Mutex<HashMap<(String, i32), i64>>;

impl Mirrors {
    pub(crate) fn show(
        &self,
        options: &KafkaOptions,
        group: &str,
        topic: &str,
        positions: &[(Partition, Offset)],
    ) -> Result<(), PortError> {
        let mut groups = self.0.lock();
        if !groups.contains_key(group) {
            if groups.len() >= GROUPS_MAX {
                return Err(PortError::new(
                    ErrorKind::Full,
                    format!("mirror {group}: too many groups"),
                ));
            }
            groups.insert(group.into(), Group::start(options, group)?);
        }
        let mut waiting = groups[group].waiting.lock();
        for (partition, next) in positions {
            let number = i32::try_from(partition.0);
            if let (Ok(number), Ok(next)) = (number, i64::try_from(next.0)) {
                waiting.insert((topic.into(), number), next);
            }
        }
        Ok(())
    }
}

impl Group {
    fn start(options: &KafkaOptions, group: &str) -> Result<Self, PortError> {
        let waiting = Arc::new(Waiting::default());
        let busy = Arc::new(AtomicBool::new(false));
        let (shown, committing) = (waiting.clone(), busy.clone());
        let tick = move |client: &BaseConsumer<Committing>| {
            if committing.load(Ordering::Acquire) || shown.lock().is_empty() {
                return;
            }
            committing.store(true, Ordering::Release);
            if let Err(cause) = commit(client, std::mem::take(&mut *shown.lock())) {
                committing.store(false, Ordering::Release);
                missed(&cause);
            }
        };
        let client = PolledConsumer::start(&options.mirror(group), Committing(busy), tick)?;
        Ok(Self { waiting, _client: client })
    }
}

fn commit(
    client: &BaseConsumer<Committing>,
    positions: HashMap<(String, i32), i64>,
) -> KafkaResult<()> {
    let mut list = TopicPartitionList::with_capacity(positions.len());
    for ((topic, partition), next) in positions {
        list.add_partition_offset(&topic, partition, rdkafka::Offset::Offset(next))?;
    }
    client.commit(&list, CommitMode::Async)
}

fn missed(cause: &KafkaError) {
    debug!(%cause, "committed offsets are not shown");
    metrics::counter!("chaski_log_mirror_failures_total").increment(1);
}

/// Whether a commit is under way.
struct Committing(Arc<AtomicBool>);

impl ClientContext for Committing {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        client::log(level, fac, message);
    }
    fn error(&self, error: KafkaError, reason: &str) {
        client::event(&error, reason);
    }
}

impl ConsumerContext for Committing {
    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        self.0.store(false, Ordering::Release);
        if let Err(cause) = result {
            missed(&cause);
        }
    }
}
