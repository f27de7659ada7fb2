//! Watermarks, snapshots and claims.
//!
//! A snapshot may be many megabytes. Its chunks are written by jobs of their own, so that appends
//! get in between; then one small job decides whether it is the newest one and makes it so.

use crate::{
    Directory,
    engine::Engine,
    keys::{self, Key},
    tables::{self, Tables},
    values::{self, SnapshotHead},
    writer::Transaction,
};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use chaski_core::{Offset, Partition};
use chaski_ports::{CheckpointStore, Claimed, ErrorKind, PortError, Snapshot, WatermarkRow};
use fjall::Readable;
use parking_lot::Mutex;
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

const WATERMARKS_KEPT: usize = 100;
const CHUNK_BYTES: usize = 1 << 20;

/// The keys of the watermarks there are, for every consumer that has saved one since the open.
/// Kept beside the table so that dropping the oldest need not scan past what was dropped before.
pub(crate) type KeptWatermarks = Mutex<HashMap<Key, BTreeSet<Key>>>;

#[async_trait]
impl CheckpointStore for Directory {
    async fn save_watermark(
        &self,
        role: &str,
        partition: Partition,
        row: &WatermarkRow,
    ) -> Result<(), PortError> {
        check_role(role)?;
        let consumer = keys::watermarks(role, partition);
        let key = keys::watermark(role, partition, row.epoch, row.watermark.next);
        let (value, kept) = (values::origins(&row.watermark), Arc::clone(&self.watermarks));
        self.engine
            .write(key.len() + value.len(), move |tx| {
                let mut kept = kept.lock();
                if !kept.contains_key(&consumer) {
                    let stored = tables::prefix(&tx.tables.rows, &consumer);
                    let keys = stored.map(|pair| Ok(pair?.0.to_vec()));
                    kept.insert(consumer.clone(), keys.collect::<Result<_, PortError>>()?);
                }
                let kept = kept.entry(consumer).or_default();
                kept.insert(key.clone());
                tx.put_row(key, value);
                while kept.len() > WATERMARKS_KEPT
                    && let Some(oldest) = kept.pop_first()
                {
                    tx.remove_row(oldest);
                }
                Ok(())
            })
            .await
    }

    async fn watermarks(
        &self,
        role: &str,
        partition: Partition,
        limit: usize,
    ) -> Result<Vec<WatermarkRow>, PortError> {
        check_role(role)?;
        let consumer = keys::watermarks(role, partition);
        self.engine
            .read(move |tables| {
                let newest = tables::prefix(&tables.rows, &consumer).rev();
                let rows = newest.take(limit.min(WATERMARKS_KEPT)).map(|pair| {
                    let (key, stored) = pair?;
                    watermark(&key, &stored).ok_or_else(|| tables::corrupt("watermark"))
                });
                rows.collect()
            })
            .await
    }

    async fn put_snapshot(
        &self,
        partition: Partition,
        snapshot: &Snapshot,
    ) -> Result<(), PortError> {
        let pieces = snapshot.state.len().div_ceil(CHUNK_BYTES);
        let chunks = u32::try_from(pieces).map_err(|_| {
            PortError::new(ErrorKind::Invalid, "save a snapshot of more than 4 PiB")
        })?;
        let head = SnapshotHead {
            epoch: snapshot.epoch,
            as_of: snapshot.as_of,
            id: uuid::Uuid::new_v4().as_u128(),
            chunks,
        };
        let mut unfinished = Unfinished { engine: &self.engine, head: Some(head) };
        for number in 0..chunks {
            let from = number as usize * CHUNK_BYTES;
            let upto = snapshot.state.len().min(from + CHUNK_BYTES);
            let piece = snapshot.state.slice(from..upto);
            let write = move |tx: &mut Transaction<'_>| {
                let chunks = &tx.tables.chunks;
                tx.put(chunks, keys::chunk(head.id, number), piece);
                Ok(())
            };
            self.engine.write(upto - from, write).await?;
        }
        // From here on it is the writer's to keep or drop the chunks.
        unfinished.head = None;
        let key = keys::snapshot(partition, snapshot.bucket);
        self.engine
            .write(0, move |tx| {
                let old = tx.row(&key)?;
                // The first sixteen bytes are epoch and offset.
                let loser = if tx.put_greater(key, head.to_bytes(), 16)? {
                    old.as_ref().and_then(SnapshotHead::from_bytes)
                } else {
                    Some(head)
                };
                if let Some(loser) = loser {
                    drop_chunks(tx, loser);
                }
                Ok(())
            })
            .await
    }

    async fn snapshot(
        &self,
        partition: Partition,
        bucket: u32,
    ) -> Result<Option<Snapshot>, PortError> {
        let key = keys::snapshot(partition, bucket);
        let found = self.engine.read(move |tables| snapshots(tables, key)).await?;
        Ok(found.into_iter().next())
    }

    async fn snapshots(&self, partition: Partition) -> Result<Vec<Snapshot>, PortError> {
        let all = keys::snapshots(partition);
        self.engine.read(move |tables| snapshots(tables, all)).await
    }

    async fn claim(
        &self,
        role: &str,
        partition: Partition,
        assignment: u64,
    ) -> Result<Claimed, PortError> {
        check_role(role)?;
        let (key, what) = (keys::claim(role, partition), format!("claim {role}/{partition}"));
        self.engine
            .write(key.len(), move |tx| {
                let (old, claimed_on) = match tx.row(&key)? {
                    Some(old) => values::claim(&old).ok_or_else(|| tables::corrupt("claim"))?,
                    None => (0, 0),
                };
                if assignment < claimed_on {
                    return Err(PortError::late_claim(what, assignment, claimed_on));
                }
                let epoch = assignment.max(old + 1);
                tx.put_row(key, values::numbered(epoch, &assignment.to_be_bytes()));
                Ok(Claimed { epoch })
            })
            .await
    }
}

fn check_role(role: &str) -> Result<(), PortError> {
    if role.contains('\0') {
        return Err(PortError::new(ErrorKind::Invalid, "a role with a zero byte"));
    }
    Ok(())
}

fn watermark(key: &[u8], stored: &Bytes) -> Option<WatermarkRow> {
    let (rest, next) = key.split_last_chunk()?;
    Some(WatermarkRow {
        epoch: keys::last_u64(rest)?,
        watermark: values::watermark(Offset(u64::from_be_bytes(*next)), stored)?,
    })
}

/// The newest snapshots whose keys begin so, as of one moment.
fn snapshots(tables: &Tables, keys: Key) -> Result<Vec<Snapshot>, PortError> {
    let (view, mut found) = (tables.view(), Vec::new());
    for pair in view.prefix(&tables.rows, keys) {
        let (key, head) = tables::pair(pair)?;
        let parts = key.last_chunk().zip(SnapshotHead::from_bytes(&head));
        let (bucket, head) = parts.ok_or_else(|| tables::corrupt("snapshot"))?;
        let mut state = BytesMut::new();
        for number in 0..head.chunks {
            let chunk = view.get(&tables.chunks, keys::chunk(head.id, number));
            let chunk = chunk.map_err(|e| tables::failed("read a snapshot", e))?;
            state.extend_from_slice(&chunk.ok_or_else(|| tables::corrupt("snapshot's chunk"))?);
        }
        found.push(Snapshot {
            bucket: u32::from_be_bytes(*bucket),
            epoch: head.epoch,
            as_of: head.as_of,
            state: state.freeze(),
        });
    }
    Ok(found)
}

fn drop_chunks(tx: &mut Transaction<'_>, head: SnapshotHead) {
    let chunks = &tx.tables.chunks;
    for number in 0..head.chunks {
        tx.remove(chunks, keys::chunk(head.id, number));
    }
}

/// Chunks whose put was given up half-way are dropped, or at the next open.
struct Unfinished<'a> {
    engine: &'a Engine,
    head: Option<SnapshotHead>,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(head) = self.head {
            self.engine.try_write(move |tx| drop_chunks(tx, head));
        }
    }
}

/// Drops the chunks that no head names: of puts that a crash cut short.
pub(crate) fn drop_orphans(tables: &Tables) -> Result<(), PortError> {
    let mut named = HashSet::new();
    for pair in tables::prefix(&tables.rows, keys::SNAPSHOTS) {
        let head = SnapshotHead::from_bytes(&pair?.1).ok_or_else(|| tables::corrupt("snapshot"))?;
        named.insert(head.id);
    }
    let mut batch = tables.batch();
    for chunk in tables.chunks.iter() {
        let key = chunk.key().map_err(|e| tables::failed("read", e))?;
        let id = key.first_chunk().map(|id| u128::from_be_bytes(*id));
        if id.is_none_or(|id| !named.contains(&id)) {
            batch.remove(&tables.chunks, key);
        }
    }
    batch.commit().map_err(|e| tables::failed("drop old snapshots", e))
}
