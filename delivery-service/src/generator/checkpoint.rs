//! Saving the fan-out's state, and starting from what was saved.

use super::{Generator, ROLE};
use chaski_core::{Offset, Partition, Watermark, fold::Fold};
use chaski_ports::{ErrorKind, PortError, Snapshot, WatermarkRow};
use chaski_proto::{decode_bucket, encode_bucket};

/// The state as last saved, and the offset to go on from.
pub(super) async fn restore(
    g: &Generator,
    partition: Partition,
) -> Result<(Fold, Offset), PortError> {
    let mut fold = Fold::new(g.placement);
    let cursor = g.checkpoints.watermarks(ROLE, partition, 1).await?;
    let next = cursor.first().map_or(Offset(0), |row| row.watermark.next);
    for snapshot in g.checkpoints.snapshots(partition).await? {
        let bucket =
            decode_bucket(snapshot.state, snapshot.as_of, g.placement).map_err(|cause| {
                let what = format!("snapshot of partition {partition}, bucket {}", snapshot.bucket);
                PortError::new(ErrorKind::Corrupt, what).caused_by(cause)
            })?;
        fold.restore(snapshot.bucket, bucket);
    }
    Ok((fold, next))
}

/// A checkpoint that is not yet written: the buckets that changed, as of an offset that the
/// frontier has yet to reach.
pub(super) struct Checkpoint {
    pub(super) as_of: Offset,
    buckets: Vec<Snapshot>,
}

impl Checkpoint {
    /// Takes the buckets that changed. Everything up to `as_of` is in them.
    pub(super) fn take(fold: &mut Fold, epoch: u64, as_of: Offset) -> Self {
        let dirty = fold.buckets_mut().filter(|(_, bucket)| bucket.dirty);
        let buckets = dirty.map(|(index, bucket)| {
            bucket.dirty = false;
            Snapshot { bucket: index, epoch, as_of, state: encode_bucket(bucket) }
        });
        Self { as_of, buckets: buckets.collect() }
    }

    /// Writes it: first the buckets, then the cursor that counts on them.
    pub(super) async fn write(
        self,
        g: &Generator,
        partition: Partition,
        epoch: u64,
    ) -> Result<(), PortError> {
        for snapshot in &self.buckets {
            g.checkpoints.put_snapshot(partition, snapshot).await?;
        }
        let watermark = Watermark { next: self.as_of.next(), ..Watermark::default() };
        g.checkpoints.save_watermark(ROLE, partition, &WatermarkRow { epoch, watermark }).await
    }
}
