//! The stored form of a watermark's vector: a version byte, the count, then (source, partition,
//! offset, index) for each in order, all big-endian. Part of the stored format.

use chaski_core::{Offset, Origin, Partition, SourceId};
use std::collections::BTreeMap;

const VERSION: u8 = 1;
const HEADER: usize = 5;
const ENTRY: usize = 8 + 4 + 8 + 4;

/// The highest applied origin by (source, source partition).
pub(crate) type Vector = BTreeMap<(SourceId, Partition), Origin>;

pub(crate) fn encode(vector: &Vector) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + ENTRY * vector.len());
    out.push(VERSION);
    out.extend((vector.len() as u32).to_be_bytes());
    for ((source, partition), origin) in vector {
        out.extend(source.0.to_be_bytes());
        out.extend(partition.0.to_be_bytes());
        out.extend(origin.offset.0.to_be_bytes());
        out.extend(origin.index.to_be_bytes());
    }
    out
}

/// `None` where the bytes are not a vector of this version.
pub(crate) fn decode(bytes: &[u8]) -> Option<Vector> {
    let (header, entries) = bytes.split_at_checked(HEADER)?;
    let count = u32::from_be_bytes(header[1..].try_into().ok()?);
    let (entries, rest) = entries.as_chunks::<ENTRY>();
    if header[0] != VERSION || !rest.is_empty() || entries.len() != count as usize {
        return None;
    }
    let vector: Vector = entries
        .iter()
        .map(|entry| {
            let long =
                |at: usize| u64::from_be_bytes(entry[at..at + 8].try_into().expect("eight bytes"));
            let int =
                |at: usize| u32::from_be_bytes(entry[at..at + 4].try_into().expect("four bytes"));
            let origin = Origin { offset: Offset(long(12)), index: int(20) };
            ((SourceId(long(0)), Partition(int(8))), origin)
        })
        .collect();
    (vector.len() == entries.len()).then_some(vector)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stored_bytes_never_change() {
        let vector = Vector::from([
            (
                (SourceId(0x0102_0304_0506_0708), Partition(11)),
                Origin { offset: Offset(0x1_0000_0002), index: 7 },
            ),
            ((SourceId(u64::MAX), Partition(0)), Origin { offset: Offset(0), index: 0 }),
        ]);
        let golden: Vec<u8> = [
            &[1, 0, 0, 0, 2][..],
            &[1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 11],
            &[0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 7],
            &[255; 8],
            &[0; 16],
        ]
        .concat();
        assert_eq!(encode(&vector), golden);
        assert_eq!(decode(&golden), Some(vector));
        assert_eq!(decode(&encode(&Vector::new())), Some(Vector::new()));
        for broken in [&golden[..52], &golden[..29], &[], &[2, 0, 0, 0, 0]] {
            assert_eq!(decode(broken), None, "{broken:?}");
        }
    }
}
