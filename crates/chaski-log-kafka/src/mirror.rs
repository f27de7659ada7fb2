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
    sync::Arc,
    time::{Duration, Instant},
};
use tracing::debug;

/// L8: one client for each group, and a process has one group for each of its roles.
const GROUPS_MAX: usize = 16;

/// A commit that has not ended by then is begun anew.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Every group this process shows.
#[derive(Default)]
pub(crate) struct Mirrors(Mutex<HashMap<String, Group>>);

struct Group {
    commits: Arc<Mutex<Commits>>,
    /// Commits with nothing assigned and no membership, which Kafka allows while nobody has
    /// joined the group.
    _client: PolledConsumer<Committing>,
}

type Positions = HashMap<(String, i32), i64>;

/// What is to be committed, and what is being committed.
#[derive(Default)]
struct Commits {
    waiting: Positions,
    under_way: Option<(Instant, Positions)>,
}

impl Commits {
    /// The positions to commit now, if it is time.
    fn next(&mut self) -> Option<Positions> {
        if let Some((since, _)) = self.under_way {
            if since.elapsed() < ANSWER_MAX {
                return None;
            }
            // The client does not always tell how a commit ended.
            self.settle(false);
        }
        if self.waiting.is_empty() {
            return None;
        }
        let positions = std::mem::take(&mut self.waiting);
        self.under_way = Some((Instant::now(), positions.clone()));
        Some(positions)
    }

    /// A commit has ended; what failed waits again, unless there is something newer.
    fn settle(&mut self, shown: bool) {
        let under_way = self.under_way.take().filter(|_| !shown);
        for (place, next) in under_way.into_iter().flat_map(|(_, positions)| positions) {
            self.waiting.entry(place).or_insert(next);
        }
    }
}

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
        let mut commits = groups[group].commits.lock();
        for (partition, next) in positions {
            let number = i32::try_from(partition.0);
            if let (Ok(number), Ok(next)) = (number, i64::try_from(next.0)) {
                commits.waiting.insert((topic.into(), number), next);
            }
        }
        Ok(())
    }
}

impl Group {
    fn start(options: &KafkaOptions, group: &str) -> Result<Self, PortError> {
        let commits = Arc::new(Mutex::new(Commits::default()));
        let shown = commits.clone();
        let tick = move |client: &BaseConsumer<Committing>| {
            let Some(positions) = shown.lock().next() else { return };
            if let Err(cause) = commit(client, positions) {
                shown.lock().settle(false);
                missed(&cause);
            }
        };
        let context = Committing(commits.clone());
        let client = PolledConsumer::start(&options.mirror(group), context, tick)?;
        Ok(Self { commits, _client: client })
    }
}

fn commit(client: &BaseConsumer<Committing>, positions: Positions) -> KafkaResult<()> {
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

/// Hears how a commit ended.
struct Committing(Arc<Mutex<Commits>>);

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
        self.0.lock().settle(result.is_ok());
        if let Err(cause) = result {
            missed(&cause);
        }
    }
}
