//! How far each partition has been stored, for readers that wait to see a write, and for those
//! who ask up to where the store is complete.

use crate::ROLE;
use chaski_core::{Offset, Partition, SourceId, Watermark};
use chaski_ports::{CheckpointStore, PortError};
use chaski_proto::WriteToken;
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::sync::watch;

/// How often a reader looks again at a partition that another process stores.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How far each partition has been stored.
pub(crate) struct Progress {
    checkpoints: Arc<dyn CheckpointStore>,
    /// Of the partitions stored by this process.
    own: Mutex<HashMap<Partition, Watermark>>,
    moved: watch::Sender<()>,
}

impl Progress {
    pub(crate) fn new(checkpoints: Arc<dyn CheckpointStore>) -> Self {
        Self { checkpoints, own: Mutex::default(), moved: watch::Sender::new(()) }
    }

    /// Everything up to this watermark is durable.
    pub(crate) fn advance(&self, partition: Partition, watermark: &Watermark) {
        self.own.lock().insert(partition, watermark.clone());
        self.moved.send_replace(());
    }

    /// The partition is stored by somebody else from now on.
    pub(crate) fn leave(&self, partition: Partition) {
        self.own.lock().remove(&partition);
    }

    /// The offset up to which (exclusive) the partition is stored.
    pub(crate) async fn stored(&self, partition: Partition) -> Result<Offset, PortError> {
        self.with(partition, |mark| mark.next).await
    }

    /// How far the partition is stored: its watermark.
    pub(crate) async fn mark(&self, partition: Partition) -> Result<Watermark, PortError> {
        self.with(partition, Watermark::clone).await
    }

    async fn with<T>(
        &self,
        partition: Partition,
        read: impl Fn(&Watermark) -> T,
    ) -> Result<T, PortError> {
        if let Some(own) = self.own.lock().get(&partition) {
            return Ok(read(own));
        }
        let rows = self.checkpoints.watermarks(ROLE, partition, 1).await?;
        Ok(read(&rows.into_iter().next().map(|row| row.watermark).unwrap_or_default()))
    }

    /// Waits until the effects of the write on a user's `partition` are stored; false after
    /// `patience`. `source` = the log of submitted writes.
    pub(crate) async fn wait_for(
        &self,
        partition: Partition,
        source: SourceId,
        token: WriteToken,
        patience: Duration,
    ) -> Result<bool, PortError> {
        let look = || async {
            let seen = match token {
                WriteToken::Submitted(from, offset) => {
                    self.with(partition, |mark| mark.has_seen((source, from), offset)).await
                }
                WriteToken::Told(at, offset) => self.with(at, |mark| mark.next > offset).await,
            };
            Ok(seen?.then_some(()))
        };
        self.until(patience, look).await.map(|seen| seen.is_some())
    }

    /// Looks again whenever something was stored, until there is an answer or `patience` ends.
    pub(crate) async fn until<T, F>(
        &self,
        patience: Duration,
        look: impl Fn() -> F,
    ) -> Result<Option<T>, PortError>
    where
        F: Future<Output = Result<Option<T>, PortError>>,
    {
        let deadline = tokio::time::Instant::now() + patience;
        let mut moved = self.moved.subscribe();
        loop {
            moved.borrow_and_update();
            if let Some(answer) = look().await? {
                return Ok(Some(answer));
            }
            if tokio::time::Instant::now() >= deadline {
                return Ok(None);
            }
            let again = (tokio::time::Instant::now() + LOOK_AGAIN).min(deadline);
            // The sender lives as long as `self`, so this only ends early on a change.
            let _ = tokio::time::timeout_at(again, moved.changed()).await;
        }
    }
}
