//! Saving the fan-out's state, and starting from what was saved.

use super::{Generator, ROLE};
use chaski_core::{
    Offset, Partition, Watermark,
    fold::{CONTROL, Fold},
};
use chaski_ports::{ErrorKind, PortError, Snapshot, WatermarkRow};
use chaski_proto::{decode_bucket, decode_control, encode_bucket, encode_control};

/// The state as last saved, and the offset to go on from.
pub(super) async fn restore(
    g: &Generator,
    partition: Partition,
) -> Result<(Fold, Offset), PortError> {
    let mut fold = Fold::new(g.placement);
    let cursor = g.checkpoints.watermarks(ROLE, partition, 1).await?;
    let next = cursor.first().map_or(Offset(0), |row| row.watermark.next);
    for snapshot in g.checkpoints.snapshots(partition).await? {
        let Snapshot { bucket, as_of, state, .. } = snapshot;
        let restored = match bucket {
            CONTROL => decode_control(state, as_of).map(|control| fold.restore_control(control)),
            bucket => {
                decode_bucket(state, as_of, g.placement).map(|state| fold.restore(bucket, state))
            }
        };
        restored.map_err(|cause| {
            let what = format!("snapshot of partition {partition}, bucket {bucket}");
            PortError::new(ErrorKind::Corrupt, what).caused_by(cause)
        })?;
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
        let mut buckets: Vec<_> = buckets.collect();
        // Last: what was seen before time began is in the buckets under the day on which it did.
        let control = fold.control_mut();
        if std::mem::take(&mut control.dirty) {
            let state = encode_control(control);
            buckets.push(Snapshot { bucket: CONTROL, epoch, as_of, state });
        }
        Self { as_of, buckets }
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
