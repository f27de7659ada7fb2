//! Snapshots: blobs of many megabytes in pieces, of which a reader takes the newest that is whole.

use crate::{CqlStore, invalid, keys};
use bytes::{Bytes, BytesMut};
use chaski_core::{Offset, fold::SNAPSHOTS, placement::murmur2};
use chaski_ports::{ErrorKind, PortError, Snapshot};
use futures::{StreamExt, TryStreamExt, stream};
use scylla::response::PagingState;

/// The size of a piece; CQL servers like mutations far below 16 MiB.
const CHUNK_BYTES: usize = 512 * 1024;
/// How many pieces of one snapshot are written at once.
const CHUNKS_IN_FLIGHT: usize = 4;
/// How many buckets are read at once.
const BUCKETS_IN_FLIGHT: usize = 16;

/// A stored piece: epoch, as_of, chunk, chunks, total, checksum, data.
type Chunk = (i64, i64, i32, i32, i64, i32, Bytes);

impl CqlStore {
    pub(crate) async fn write_snapshot(
        &self,
        partition: i32,
        snapshot: &Snapshot,
    ) -> Result<(), PortError> {
        if snapshot.bucket >= SNAPSHOTS {
            return Err(invalid(format!(
                "snapshot bucket {}: must be below {SNAPSHOTS}",
                snapshot.bucket
            )));
        }
        let bucket = snapshot.bucket as i32;
        let epoch = keys::signed("epoch", snapshot.epoch)?;
        let as_of = keys::signed("offset", snapshot.as_of.0)?;
        let at = keys::timestamp(self.clock.now_ms());
        let put = &self.statements.put_chunk;
        let mut writes = Vec::new();
        for (epoch, as_of, chunk, chunks, total, checksum, data) in
            cut(epoch, as_of, &snapshot.state)?
        {
            let values =
                (partition, bucket, epoch, as_of, chunk, chunks, total, checksum, data, at);
            writes.push(async move { self.db.write("put_chunk", put, values).await.map(drop) });
        }
        let mut settled = stream::iter(writes).buffer_unordered(CHUNKS_IN_FLIGHT);
        let mut outcome = Ok(());
        while let Some(result) = settled.next().await {
            outcome = outcome.and(result);
        }
        outcome?;
        // It is durable; what is not removed now is removed after the next one.
        if let Err(error) = self.drop_older(partition, bucket, epoch, as_of).await {
            tracing::warn!(partition, bucket, %error, "old snapshots not removed");
        }
        Ok(())
    }

    async fn drop_older(
        &self,
        partition: i32,
        bucket: i32,
        epoch: i64,
        as_of: i64,
    ) -> Result<(), PortError> {
        let s = &self.statements;
        let at = self.delete_timestamp();
        let values = (at, partition, bucket, epoch);
        self.db.write("drop_snapshots", &s.drop_snapshot_epochs, values).await?;
        let values = (at, partition, bucket, epoch, as_of);
        self.db.write("drop_snapshots", &s.drop_snapshots, values).await?;
        Ok(())
    }

    pub(crate) async fn read_snapshots(&self, partition: i32) -> Result<Vec<Snapshot>, PortError> {
        let reads: Vec<_> =
            (0..SNAPSHOTS).map(|bucket| self.read_snapshot(partition, bucket)).collect();
        stream::iter(reads)
            .buffered(BUCKETS_IN_FLIGHT)
            .try_filter_map(async |snapshot| Ok(snapshot))
            .try_collect()
            .await
    }

    /// The newest whole snapshot of a bucket: page by page, no further than needed.
    pub(crate) async fn read_snapshot(
        &self,
        partition: i32,
        bucket: u32,
    ) -> Result<Option<Snapshot>, PortError> {
        let mut assembly = Assembly::default();
        let mut page = Some(PagingState::start());
        while let Some(state) = page {
            let key = (partition, bucket as i32);
            let (rows, next) =
                self.db.page::<Chunk>("snapshots", &self.statements.chunks, key, state).await?;
            for row in rows {
                if let Some((epoch, as_of, state)) = assembly.add(row)? {
                    return Ok(Some(Snapshot {
                        bucket,
                        epoch: keys::unsigned(epoch),
                        as_of: Offset(keys::unsigned(as_of)),
                        state,
                    }));
                }
            }
            page = next;
        }
        Ok(None)
    }
}

/// Cuts a state into pieces, at least one.
fn cut(epoch: i64, as_of: i64, state: &Bytes) -> Result<Vec<Chunk>, PortError> {
    let total = i64::try_from(state.len()).map_err(|_| invalid("snapshot: too large"))?;
    let count = state.len().div_ceil(CHUNK_BYTES).max(1);
    let chunks = i32::try_from(count).map_err(|_| invalid("snapshot: too large"))?;
    let checksum = murmur2(state).cast_signed();
    let piece = |chunk: i32| {
        let from = chunk as usize * CHUNK_BYTES;
        let data = state.slice(from..state.len().min(from + CHUNK_BYTES));
        (epoch, as_of, chunk, chunks, total, checksum, data)
    };
    Ok((0..chunks).map(piece).collect())
}

/// Puts pieces, newest snapshot first and in order within one, together again.
#[derive(Default)]
struct Assembly {
    /// Epoch, as_of, chunks, total, checksum: pieces that differ in one belong to different writes.
    of: Option<(i64, i64, i32, i64, i32)>,
    parts: Vec<Bytes>,
}

impl Assembly {
    /// Adds a piece; gives (epoch, as_of, state) with the last piece of a whole snapshot. One whose
    /// put never ended has gaps and is passed over.
    fn add(&mut self, row: Chunk) -> Result<Option<(i64, i64, Bytes)>, PortError> {
        let (epoch, as_of, chunk, chunks, total, checksum, data) = row;
        let of = (epoch, as_of, chunks, total, checksum);
        if self.of != Some(of) {
            self.of = Some(of);
            self.parts.clear();
        }
        if chunk as usize == self.parts.len() {
            self.parts.push(data);
        }
        if chunk + 1 != chunks || self.parts.len() != chunks as usize {
            return Ok(None);
        }
        let mut state = BytesMut::with_capacity(usize::try_from(total).unwrap_or(0));
        for part in &self.parts {
            state.extend_from_slice(part);
        }
        let state = state.freeze();
        if state.len() as i64 != total || murmur2(&state).cast_signed() != checksum {
            return Err(PortError::new(
                ErrorKind::Corrupt,
                format!("snapshot of epoch {epoch} as of {as_of}: its pieces do not fit"),
            ));
        }
        Ok(Some((epoch, as_of, state)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(len: usize) -> Bytes {
        (0..len).map(|i| (i % 251) as u8).collect()
    }

    /// What a reader gets of these pieces.
    fn read(rows: impl IntoIterator<Item = Chunk>) -> Option<(i64, i64, Bytes)> {
        let mut assembly = Assembly::default();
        rows.into_iter().find_map(|row| assembly.add(row).unwrap())
    }

    #[test]
    fn a_state_is_cut_and_put_together_at_every_size() {
        for len in [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES] {
            let state = state(len);
            let rows = cut(7, 9, &state).unwrap();
            assert_eq!(rows.len(), len.div_ceil(CHUNK_BYTES).max(1));
            assert_eq!(read(rows), Some((7, 9, state)), "{len} bytes");
        }
    }

    #[test]
    fn a_put_that_never_ended_is_passed_over() {
        let old = state(2 * CHUNK_BYTES);
        let whole = cut(1, 5, &old).unwrap();
        let torn = cut(2, 6, &state(3 * CHUNK_BYTES)).unwrap();
        for missing in 0..3 {
            let mut rows = torn.clone();
            rows.remove(missing);
            rows.extend(whole.clone());
            assert_eq!(read(rows), Some((1, 5, old.clone())), "without {missing}");
        }
        assert_eq!(read(torn[..2].to_vec()), None);
    }

    #[test]
    fn pieces_of_different_puts_are_never_mixed() {
        let mut rows = cut(1, 5, &state(2 * CHUNK_BYTES)).unwrap();
        let other = cut(1, 5, &Bytes::from(vec![1; 2 * CHUNK_BYTES])).unwrap();
        rows[1] = other[1].clone();
        assert_eq!(read(rows), None);
        let mut rows = cut(1, 5, &state(10)).unwrap();
        rows[0].6 = Bytes::from_static(b"0123456780");
        assert!(Assembly::default().add(rows.remove(0)).is_err());
    }
}
