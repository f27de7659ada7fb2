//! Topics: which exist, and making those that do not.
//!
//! Must not know: records.

use crate::{
    client::{self, Quiet},
    error,
    options::{KafkaOptions, RECORD_BYTES_MAX, RETENTION_MS_MIN},
    pool::{CALL_PATIENCE, Pool, Reading, blocking},
};
use chaski_ports::{ErrorKind, PortError, Topic};
use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    consumer::Consumer,
    error::KafkaError,
    types::RDKafkaErrorCode as Code,
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// How long new topics may take until all can be used.
const CREATE_PATIENCE: Duration = Duration::from_secs(30);

/// How many partitions the topic has. Blocks.
pub(crate) fn count(consumer: &Reading, name: &str, patience: Duration) -> Result<u32, PortError> {
    let at = |e| error::asking(format!("partitions of {name}"), e);
    let consumer = consumer.consumer();
    let metadata = consumer.fetch_metadata(Some(name), patience).map_err(at)?;
    let Some(topic) = metadata.topics().first() else {
        return Err(at(KafkaError::MetadataFetch(Code::UnknownTopic)));
    };
    match topic.error() {
        Some(cause) => Err(at(KafkaError::MetadataFetch(cause.into()))),
        None => Ok(u32::try_from(topic.partitions().len()).expect("a count is not so high")),
    }
}

/// Makes what is missing of all topics and waits until each of their partitions has a leader.
pub(crate) async fn create(pool: &Arc<Pool>, partitions: u32) -> Result<(), PortError> {
    let consumer = pool.any().await?;
    let options = pool.options().clone();
    let missing = {
        let (consumer, options) = (consumer.clone(), options.clone());
        blocking(move || missing(&consumer, &options)).await?
    };
    if missing.is_empty() {
        return Ok(());
    }
    if partitions == 0 {
        return Err(PortError::new(ErrorKind::Invalid, "a topic needs a partition"));
    }
    let admin: AdminClient<Quiet> =
        options.client().create_with_context(Quiet).map_err(error::making)?;
    let made = make(&admin, &options, &missing, partitions).await;
    client::close("admin", move || drop(admin));
    made?;
    blocking(move || await_leaders(&consumer, &options, &missing)).await
}

fn missing(consumer: &Reading, options: &KafkaOptions) -> Result<Vec<Topic>, PortError> {
    let mut missing = Vec::new();
    for topic in Topic::ALL {
        match count(consumer, &options.topic(topic), CALL_PATIENCE) {
            Ok(_) => {}
            Err(e) if e.kind == ErrorKind::NotFound => missing.push(topic),
            Err(e) => return Err(e),
        }
    }
    Ok(missing)
}

async fn make(
    admin: &AdminClient<Quiet>,
    options: &KafkaOptions,
    missing: &[Topic],
    partitions: u32,
) -> Result<(), PortError> {
    let names: Vec<_> = missing.iter().map(|t| (*t, options.topic(*t))).collect();
    let retention = options.retention_ms.unwrap_or(RETENTION_MS_MIN).to_string();
    let record_max = RECORD_BYTES_MAX.to_string();
    let wanted: Vec<_> = names
        .iter()
        .map(|(topic, name)| {
            let count = if topic.is_partitioned() { partitions } else { 1 };
            // -1: the broker's default (KIP-464).
            let replicas = TopicReplication::Fixed(options.replication.unwrap_or(-1));
            let count = i32::try_from(count).unwrap_or(i32::MAX);
            let new = NewTopic::new(name, count, replicas)
                .set("max.message.bytes", &record_max)
                .set("message.timestamp.type", "CreateTime");
            if topic.is_compacted() {
                return new.set("cleanup.policy", "compact");
            }
            new.set("cleanup.policy", "delete")
                .set("retention.ms", &retention)
                .set("retention.bytes", "-1")
        })
        .collect();
    let patience = AdminOptions::new()
        .request_timeout(Some(CREATE_PATIENCE))
        .operation_timeout(Some(CREATE_PATIENCE));
    let outcomes = admin
        .create_topics(&wanted, &patience)
        .await
        .map_err(|e| error::asking("create topics", e))?;
    for outcome in outcomes {
        match outcome {
            Ok(_) | Err((_, Code::TopicAlreadyExists)) => {} // another process was faster
            Err((name, code)) => {
                let cause = KafkaError::AdminOp(code);
                return Err(error::asking(format!("create {name}"), cause));
            }
        }
    }
    Ok(())
}

fn await_leaders(
    consumer: &Reading,
    options: &KafkaOptions,
    made: &[Topic],
) -> Result<(), PortError> {
    let deadline = Instant::now() + CREATE_PATIENCE;
    for topic in made {
        let name = options.topic(*topic);
        loop {
            let metadata = consumer.consumer().fetch_metadata(Some(&name), CALL_PATIENCE);
            let ready = metadata.is_ok_and(|m| {
                m.topics().first().is_some_and(|t| {
                    t.error().is_none()
                        && !t.partitions().is_empty()
                        && t.partitions().iter().all(|p| p.leader() >= 0)
                })
            });
            if ready {
                break;
            }
            if Instant::now() > deadline {
                let context = format!("{name} was created but has no leaders");
                return Err(PortError::new(ErrorKind::Unavailable, context));
            }
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }
    Ok(())
}
