//! The topics that are cut alike. A user stands in the same partition of `recipients` and of
//! `connection-requests`, and a chat is placed by the same number: that number is one.

use anyhow::Context as _;
use chaski_ports::{ErrorKind, Log, Topic};

/// Makes the topics that are missing: cut like those that are there, into `wanted` partitions where
/// none is. Gives the number of partitions.
pub(crate) async fn create(log: &dyn Log, wanted: u32) -> anyhow::Result<u32> {
    let present = counts(log).await?.first().map(|(_, count)| *count);
    log.create_topics(present.unwrap_or(wanted)).await?;
    partitions(log).await
}

/// The number of partitions of the topics that are cut alike; an error where they are not.
pub(crate) async fn partitions(log: &dyn Log) -> anyhow::Result<u32> {
    let counts = counts(log).await?;
    let recipients = counts.iter().find(|(topic, _)| *topic == Topic::Recipients);
    let (_, count) = recipients.context("the topics are not there: `chaski migrate` makes them")?;
    if let Some((other, differs)) = counts.iter().find(|(_, other)| other != count) {
        anyhow::bail!(
            "partitions_differ: topic {} has {differs} partitions, {} has {count}; they must have \
             the same number",
            other.name(),
            Topic::Recipients.name(),
        );
    }
    Ok(*count)
}

/// The topics that are cut alike, as far as they are there.
async fn counts(log: &dyn Log) -> anyhow::Result<Vec<(Topic, u32)>> {
    let mut counts = Vec::new();
    for topic in Topic::ALL.into_iter().filter(|topic| topic.is_partitioned()) {
        match log.partitions(topic).await {
            Ok(count) => counts.push((topic, count)),
            Err(error) if error.kind == ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_trait::async_trait;
    use chaski_core::{Offset, Partition};
    use chaski_ports::{Bounds, LogReader, PortError, ProducePolicy, Producer};
    use std::{
        collections::HashMap,
        sync::{Arc, Mutex},
    };

    /// A log of which only the topics count.
    #[derive(Default)]
    struct Topics(Mutex<HashMap<Topic, u32>>);

    fn none<T>() -> Result<T, PortError> {
        Err(PortError::new(ErrorKind::NotFound, "no records here"))
    }

    #[async_trait]
    impl Log for Topics {
        async fn cluster_id(&self) -> Result<String, PortError> {
            none()
        }
        async fn partitions(&self, topic: Topic) -> Result<u32, PortError> {
            self.0.lock().unwrap().get(&topic).copied().map_or_else(none, Ok)
        }
        async fn create_topics(&self, partitions: u32) -> Result<(), PortError> {
            for topic in Topic::ALL {
                let count = if topic.is_partitioned() { partitions } else { 1 };
                self.0.lock().unwrap().entry(topic).or_insert(count);
            }
            Ok(())
        }
        async fn bounds(&self, _: Topic, _: Partition) -> Result<Bounds, PortError> {
            none()
        }
        async fn reader(
            &self,
            _: Topic,
            _: Partition,
            _: Offset,
        ) -> Result<Box<dyn LogReader>, PortError> {
            none()
        }
        fn producer(&self, _: ProducePolicy) -> Result<Arc<dyn Producer>, PortError> {
            none()
        }
        async fn mirror(
            &self,
            _: &str,
            _: Topic,
            _: &[(Partition, Offset)],
        ) -> Result<(), PortError> {
            none()
        }
    }

    #[tokio::test]
    async fn a_topic_that_comes_later_is_cut_like_the_others_and_one_that_is_not_is_refused() {
        let log = Topics::default();
        let missing = partitions(&log).await.unwrap_err().to_string();
        assert!(missing.contains("chaski migrate"), "{missing}");
        assert_eq!(create(&log, 4).await.unwrap(), 4);
        // As an older version left it, and now configured otherwise.
        log.0.lock().unwrap().remove(&Topic::ConnectionRequests);
        assert_eq!(create(&log, 12).await.unwrap(), 4);
        assert_eq!(log.partitions(Topic::ConnectionRequests).await.unwrap(), 4);
        assert_eq!(log.partitions(Topic::DeadLetters).await.unwrap(), 1);
        for topic in Topic::ALL.into_iter().filter(|topic| topic.is_partitioned()) {
            let before = log.0.lock().unwrap().insert(topic, 5).unwrap();
            let error = partitions(&log).await.unwrap_err().to_string();
            assert!(error.starts_with("partitions_differ: topic "), "{error}");
            log.0.lock().unwrap().insert(topic, before);
        }
    }
}
