//! Watermarks and claims; snapshots stand in their own file.

use crate::{CqlStore, error, invalid, keys, vector};
use bytes::Bytes;
use chaski_core::{Offset, Partition, Watermark};
use chaski_ports::{CheckpointStore, Claimed, ErrorKind, PortError, Snapshot, WatermarkRow};
use scylla::{
    response::query_result::QueryResult,
    value::{CqlValue, Row},
};
use std::time::Duration;

/// How many watermarks of a (role, partition) are kept.
const KEPT: usize = 100;
/// After how many saves the older ones are removed.
const TRIM_EVERY: u32 = 50;
/// How often a claim is tried against others before it is a conflict.
const CLAIM_TRIES: u32 = 16;
/// How often the outcome of a claim may be unknown before the caller is told.
const UNKNOWN_TRIES: u32 = 6;

#[async_trait::async_trait]
impl CheckpointStore for CqlStore {
    async fn save_watermark(
        &self,
        role: &str,
        partition: Partition,
        row: &WatermarkRow,
    ) -> Result<(), PortError> {
        let partition = keys::partition(partition)?;
        let values = (
            role,
            partition,
            keys::signed("epoch", row.epoch)?,
            keys::signed("offset", row.watermark.next.0)?,
            vector::encode(&row.watermark.high),
            keys::timestamp(self.clock.now_ms()),
        );
        self.db.write("put_watermark", &self.statements.put_watermark, values).await?;
        if self.trim_is_due(role, partition) {
            // The watermark is durable; what is not removed now is removed by a later trim.
            if let Err(error) = self.trim_watermarks(role, partition).await {
                tracing::warn!(role, partition, %error, "old watermarks not removed");
            }
        }
        Ok(())
    }

    async fn watermarks(
        &self,
        role: &str,
        partition: Partition,
        limit: usize,
    ) -> Result<Vec<WatermarkRow>, PortError> {
        let limit = limit.min(KEPT);
        if limit == 0 {
            return Ok(Vec::new());
        }
        let values = (role, keys::partition(partition)?, keys::limit(limit));
        let rows: Vec<(i64, i64, Bytes)> =
            self.db.rows("watermarks", &self.statements.watermarks, values, limit).await?;
        rows.into_iter()
            .map(|(epoch, next, high)| {
                let high = vector::decode(&high)
                    .ok_or_else(|| error::corrupt("watermarks.vector", "not a vector"))?;
                Ok(WatermarkRow {
                    epoch: keys::unsigned(epoch),
                    watermark: Watermark { next: Offset(keys::unsigned(next)), high },
                })
            })
            .collect()
    }

    async fn put_snapshot(
        &self,
        partition: Partition,
        snapshot: &Snapshot,
    ) -> Result<(), PortError> {
        self.write_snapshot(keys::partition(partition)?, snapshot).await
    }

    async fn snapshot(
        &self,
        partition: Partition,
        bucket: u32,
    ) -> Result<Option<Snapshot>, PortError> {
        self.read_snapshot(keys::partition(partition)?, bucket).await
    }

    async fn snapshots(&self, partition: Partition) -> Result<Vec<Snapshot>, PortError> {
        self.read_snapshots(keys::partition(partition)?).await
    }

    async fn claim(
        &self,
        role: &str,
        partition: Partition,
        assignment: u64,
    ) -> Result<Claimed, PortError> {
        let key = (role, keys::partition(partition)?);
        let assignment = keys::signed("assignment", assignment)?;
        let mut unknown = 0;
        for attempt in 0..CLAIM_TRIES {
            if attempt > 0 {
                // Rivals differ in the time a round takes; a growing pause is enough to part them.
                tokio::time::sleep(Duration::from_millis(u64::from(5 * attempt))).await;
            }
            match self.try_claim(key, assignment).await {
                Ok(Some(epoch)) => return Ok(Claimed { epoch }),
                Ok(None) => {}
                // It may have been written, by us or by a rival with the same number: who reads
                // it cannot tell. So the next try takes a greater one. A serial read that rivals
                // hold up times out as well.
                Err(e)
                    if matches!(e.kind, ErrorKind::Unknown | ErrorKind::Unavailable)
                        && unknown < UNKNOWN_TRIES =>
                {
                    unknown += 1;
                }
                Err(e) => return Err(e),
            }
        }
        Err(PortError::new(
            ErrorKind::Conflict,
            format!("claim {role}/{partition}: others were faster {CLAIM_TRIES} times"),
        ))
    }
}

impl CqlStore {
    /// One round: read the present claim, write a greater one if it is still the same.
    async fn try_claim(
        &self,
        (role, partition): (&str, i32),
        assignment: i64,
    ) -> Result<Option<u64>, PortError> {
        let s = &self.statements;
        let key = (role, partition);
        let rows: Vec<(i64, i64)> = self.db.rows("claimed", &s.claimed, key, 1).await?;
        let (epoch, result) = match rows.first() {
            None => {
                // Of before schema 5.
                let old: Vec<(i64,)> =
                    self.db.rows("claimed_before", &s.claimed_before, key, 1).await?;
                let epoch = assignment.max(old.first().map_or(0, |(old,)| *old) + 1);
                let values = (role, partition, epoch, assignment);
                (epoch, self.db.write("claim", &s.first_claim, values).await?)
            }
            Some((_, claimed_on)) if assignment < *claimed_on => {
                let what = format!("claim {role}/{partition}");
                let (ours, theirs) = (keys::unsigned(assignment), keys::unsigned(*claimed_on));
                return Err(PortError::late_claim(what, ours, theirs));
            }
            Some((old, _)) => {
                let next = old
                    .checked_add(1)
                    .ok_or_else(|| invalid(format!("claim {role}: no epoch above {old}")))?;
                let epoch = assignment.max(next);
                let values = (epoch, assignment, role, partition, old);
                (epoch, self.db.write("claim", &s.next_claim, values).await?)
            }
        };
        Ok(applied(result)?.then(|| keys::unsigned(epoch)))
    }

    /// The first save of a process trims too: processes may live for fewer than fifty saves.
    fn trim_is_due(&self, role: &str, partition: i32) -> bool {
        let mut saves = self.saves.lock();
        let count = saves.entry((role.into(), partition)).or_default();
        *count += 1;
        *count % TRIM_EVERY == 1
    }

    /// Removes what is older than the newest hundred. Two deletes by one column each and not
    /// one by both, which ScyllaDB may refuse.
    async fn trim_watermarks(&self, role: &str, partition: i32) -> Result<(), PortError> {
        let s = &self.statements;
        let values = (role, partition, keys::limit(KEPT));
        let kept: Vec<(i64, i64)> =
            self.db.rows("watermark_keys", &s.watermark_keys, values, KEPT).await?;
        let Some((epoch, next)) = kept.get(KEPT - 1) else {
            return Ok(());
        };
        let at = self.delete_timestamp();
        let values = (at, role, partition, epoch);
        self.db.write("trim_watermarks", &s.drop_watermark_epochs, values).await?;
        let values = (at, role, partition, epoch, next);
        self.db.write("trim_watermarks", &s.drop_watermarks, values).await?;
        Ok(())
    }

    /// The write timestamp of range deletes: ten minutes ahead, so that rows written by a host whose
    /// clock is fast go too. The ranges never cover a row that is to stay, whenever it is written.
    pub(crate) fn delete_timestamp(&self) -> i64 {
        keys::timestamp(self.clock.now_ms().saturating_add(600_000))
    }
}

/// Whether a lightweight transaction was applied: the first column on either vendor, whatever
/// follows it.
pub(crate) fn applied(result: QueryResult) -> Result<bool, PortError> {
    let rows = result.into_rows_result().map_err(|e| error::corrupt("[applied]", e))?;
    let row: Row = rows.first_row().map_err(|e| error::corrupt("[applied]", e))?;
    match row.columns.into_iter().next() {
        Some(Some(CqlValue::Boolean(applied))) => Ok(applied),
        _ => Err(error::corrupt("[applied]", "not a boolean")),
    }
}
