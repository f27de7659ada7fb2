//! Saving the fan-out's state, and starting from what was saved.

use super::{Generator, ROLE};
use bytes::Bytes;
use chaski_core::{
    Offset, Partition, Watermark,
    fold::{CONTROL, Fold, Seen},
};
use chaski_planted::Bug;
use chaski_ports::{ErrorKind, PortError, Snapshot, WatermarkRow};
use chaski_proto::{decode_bucket, decode_control, encode_bucket, encode_control};

/// The state as last saved, and the offset to go on from; from here on the cursor is this owner's.
///
/// The order matters, and `chaski-ownership-model` shows why. The cursor comes first, and with it,
/// in one row, time and rules: a bucket that an older owner saves meanwhile is then ahead of them,
/// never behind. It is written back under this owner's epoch before anything else is: else an older
/// owner's cursor could stand beside this one's bucket of an earlier place.
pub(super) async fn restore(
    g: &Generator,
    partition: Partition,
    epoch: u64,
) -> Result<(Fold, Offset), PortError> {
    let corrupt = |bucket: u32, cause| {
        let what = format!("snapshot of partition {partition}, bucket {bucket}");
        PortError::new(ErrorKind::Corrupt, what).caused_by(cause)
    };
    let saved = g.checkpoints.snapshot(partition, CONTROL).await?;
    let saved = saved.map(|Snapshot { as_of, state, .. }| decode_control(state, as_of));
    let (control, next) =
        saved.transpose().map_err(|cause| corrupt(CONTROL, cause))?.unwrap_or_default();
    put_cursor(g, partition, epoch, next, encode_control(&control, next)).await?;

    let mut fold = Fold::new(g.placement);
    fold.restore_control(control);
    for snapshot in g.checkpoints.snapshots(partition).await? {
        let Snapshot { bucket, as_of, state, .. } = snapshot;
        if bucket == CONTROL {
            continue;
        }
        let restored = decode_bucket(state, as_of, g.placement);
        let mut restored = restored.map_err(|cause| corrupt(bucket, cause))?;
        if chaski_planted::is(Bug::WindowLost) {
            restored.seen = Seen::default();
        }
        fold.restore(bucket, restored);
    }
    Ok((fold, next))
}

async fn put_cursor(
    g: &Generator,
    partition: Partition,
    epoch: u64,
    next: Offset,
    state: Bytes,
) -> Result<(), PortError> {
    let epoch = if chaski_planted::is(Bug::CursorWithoutEpoch) { 1 << 40 } else { epoch };
    // The cursor itself, not the offset before it: there is none before the first one.
    let snapshot = Snapshot { bucket: CONTROL, epoch, as_of: next, state };
    g.checkpoints.put_snapshot(partition, &snapshot).await?;
    // For whoever looks at how far this is.
    let watermark = Watermark { next, ..Watermark::default() };
    g.checkpoints.save_watermark(ROLE, partition, &WatermarkRow { epoch, watermark }).await
}

/// A checkpoint that is not yet written: the buckets that changed, as of an offset that the
/// frontier has yet to reach.
pub(super) struct Checkpoint {
    pub(super) as_of: Offset,
    buckets: Vec<Snapshot>,
    control: Bytes,
}

impl Checkpoint {
    /// Takes the buckets that changed. Everything up to `as_of` is in them.
    pub(super) fn take(fold: &mut Fold, epoch: u64, as_of: Offset) -> Self {
        let dirty = fold.buckets_mut().filter(|(_, bucket)| bucket.dirty);
        let buckets = dirty.map(|(index, bucket)| {
            bucket.dirty = false;
            Snapshot { bucket: index, epoch, as_of, state: encode_bucket(bucket) }
        });
        let forgets = |s: &Snapshot| s.bucket % 2 == 1 && chaski_planted::is(Bug::HalfACheckpoint);
        let buckets = buckets.filter(|snapshot| !forgets(snapshot)).collect();
        Self { as_of, buckets, control: encode_control(fold.control(), as_of.next()) }
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
        put_cursor(g, partition, epoch, self.as_of.next(), self.control).await
    }
}

#[cfg(test)]
#[path = "checkpoint_tests.rs"]
mod tests;
