//! Every stored value, in one place: small hand-written frames, numbers big-endian, so that
//! values which replace one another compare by their first bytes.

use bytes::{BufMut, Bytes, BytesMut};
use chaski_core::{Offset, Origin, Partition, SourceId, Watermark, record::UnixMs};
use chaski_ports::{LogRecord, Record};

/// The version of all that this crate stores.
pub(crate) const FORMAT: u64 = 1;

const NO_TRACEPARENT: u8 = u8::MAX;

/// Takes a stored value apart; `None` where it is shorter than it says.
struct Cut<'a>(&'a Bytes, usize);

impl Cut<'_> {
    fn bytes(&mut self, len: usize) -> Option<Bytes> {
        let end = self.1.checked_add(len).filter(|end| *end <= self.0.len())?;
        let bytes = self.0.slice(self.1..end);
        self.1 = end;
        Some(bytes)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let array = *self.0.get(self.1..)?.first_chunk()?;
        self.1 += N;
        Some(array)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_be_bytes)
    }

    fn rest(self) -> Bytes {
        self.0.slice(self.1..)
    }
}

/// A record: time i64, schema u16, type (u8 and bytes), traceparent (u8 and bytes, 255 = none),
/// key (u32 and bytes), value. `None` where type, traceparent or key is too long for its frame.
pub(crate) fn record(record: &Record) -> Option<Bytes> {
    let traceparent = record.traceparent.as_deref();
    let size = 24 + record.record_type.len() + record.key.len() + record.value.len();
    let mut out = BytesMut::with_capacity(size + traceparent.map_or(0, <[u8]>::len));
    out.put_i64(record.timestamp_ms);
    out.put_u16(record.schema);
    out.put_u8(u8::try_from(record.record_type.len()).ok()?);
    out.put_slice(record.record_type.as_bytes());
    match traceparent {
        None => out.put_u8(NO_TRACEPARENT),
        Some(text) => {
            let len = u8::try_from(text.len()).ok();
            out.put_u8(len.filter(|len| *len != NO_TRACEPARENT)?);
            out.put_slice(text);
        }
    }
    out.put_u32(u32::try_from(record.key.len()).ok()?);
    out.put_slice(&record.key);
    out.put_slice(&record.value);
    Some(out.freeze())
}

/// A record as a reader gets it: key and value are slices of what is stored.
pub(crate) fn log_record(offset: Offset, stored: &Bytes) -> Option<LogRecord> {
    let mut cut = Cut(stored, 0);
    let timestamp_ms = cut.i64()?;
    let _schema: [u8; 2] = cut.array()?;
    let type_len = cut.u8()?;
    cut.bytes(type_len.into())?;
    let traceparent = match cut.u8()? {
        NO_TRACEPARENT => None,
        len => Some(cut.bytes(len.into())?),
    };
    let key_len = cut.u32()? as usize;
    Some(LogRecord {
        offset,
        key: cut.bytes(key_len)?,
        value: cut.rest(),
        timestamp_ms,
        traceparent,
    })
}

/// A number and bytes: version and state, or record time and content.
pub(crate) fn numbered(number: u64, bytes: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(8 + bytes.len());
    out.put_u64(number);
    out.put_slice(bytes);
    out.freeze()
}

/// Content with its record's time.
pub(crate) fn stamped(at_ms: UnixMs, bytes: &[u8]) -> Bytes {
    numbered(at_ms.cast_unsigned(), bytes)
}

/// The record's time of a [`stamped`] value.
pub(crate) fn stamp(stored: &Bytes) -> Option<UnixMs> {
    Cut(stored, 0).i64()
}

/// What a message row's first number says where its item expires: below it, when. Above every
/// record's time.
const ENDS: u64 = 1 << 62;

/// An item with its record's time, or with its end where it has one.
pub(crate) fn item(at_ms: UnixMs, ends_ms: Option<UnixMs>, item: &[u8]) -> Bytes {
    match ends_ms {
        None => stamped(at_ms, item),
        Some(ends) => numbered(ENDS | ends.clamp(0, ENDS.cast_signed() - 1).cast_unsigned(), item),
    }
}

/// The content of an [`item`]; empty where it has expired.
pub(crate) fn split_item(stored: &Bytes, now_ms: UnixMs) -> Option<Bytes> {
    let (number, item) = split_numbered(stored)?;
    Some(if ends(number).is_some_and(|ends| ends <= now_ms) { Bytes::new() } else { item })
}

/// When an item with this first number expires. A record's time before 1970 has both high bits.
fn ends(number: u64) -> Option<UnixMs> {
    (number >> 62 == 1).then(|| (number & !ENDS).cast_signed())
}

/// The number and the bytes of a [`numbered`] value.
pub(crate) fn split_numbered(stored: &Bytes) -> Option<(u64, Bytes)> {
    let mut cut = Cut(stored, 0);
    Some((cut.u64()?, cut.rest()))
}

/// A claim's epoch, and the assignment it was made on (not known of old ones).
pub(crate) fn claim(stored: &[u8]) -> Option<(u64, u64)> {
    match stored.split_first_chunk()? {
        (epoch, []) => Some((u64::from_be_bytes(*epoch), 0)),
        (epoch, assignment) => Some((u64::from_be_bytes(*epoch), number(assignment)?)),
    }
}

/// A number alone.
pub(crate) fn number(stored: &[u8]) -> Option<u64> {
    stored.try_into().ok().map(u64::from_be_bytes)
}

/// A device with what is noted of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Device {
    /// What it has acknowledged.
    pub(crate) cursor: u64,
    /// When it was last there.
    pub(crate) last_active_ms: UnixMs,
    /// When it was named last.
    pub(crate) named_ms: UnixMs,
    /// When it was revoked last.
    pub(crate) revoked_ms: UnixMs,
    /// Its name.
    pub(crate) name: Bytes,
}

impl Device {
    /// Cursor u64, last active i64; behind them, where something is noted, named i64, revoked i64
    /// and the name.
    pub(crate) fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(32 + self.name.len());
        out.put_u64(self.cursor);
        out.put_i64(self.last_active_ms);
        if self.named_ms != 0 || self.revoked_ms != 0 {
            out.put_i64(self.named_ms);
            out.put_i64(self.revoked_ms);
            out.put_slice(&self.name);
        }
        out.freeze()
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote.
    pub(crate) fn from_bytes(stored: &Bytes) -> Option<Self> {
        let mut cut = Cut(stored, 0);
        let mut device = Self { cursor: cut.u64()?, last_active_ms: cut.i64()?, ..Self::default() };
        if cut.1 < stored.len() {
            (device.named_ms, device.revoked_ms) = (cut.i64()?, cut.i64()?);
            device.name = cut.rest();
        }
        Some(device)
    }
}

/// An edge of a block behind its key: whether it begins u8, when it was asked i64.
pub(crate) fn edge(blocked: bool, at: UnixMs) -> Bytes {
    let mut out = BytesMut::with_capacity(9);
    out.put_u8(blocked.into());
    out.put_i64(at);
    out.freeze()
}

/// Reads what [`edge`] wrote.
pub(crate) fn split_edge(stored: &Bytes) -> Option<(bool, UnixMs)> {
    let mut cut = Cut(stored, 0);
    Some((cut.u8()? != 0, cut.i64()?))
}

/// The origins of a watermark: for each, source u64, partition u32, offset u64, index u32.
pub(crate) fn origins(watermark: &Watermark) -> Bytes {
    let mut out = BytesMut::with_capacity(watermark.high.len() * 24);
    for ((source, partition), origin) in &watermark.high {
        out.put_u64(source.0);
        out.put_u32(partition.0);
        out.put_u64(origin.offset.0);
        out.put_u32(origin.index);
    }
    out.freeze()
}

/// The watermark with these origins.
pub(crate) fn watermark(next: Offset, origins: &Bytes) -> Option<Watermark> {
    let mut cut = Cut(origins, 0);
    let mut watermark = Watermark { next, ..Watermark::default() };
    while cut.1 < origins.len() {
        let source = (SourceId(cut.u64()?), Partition(cut.u32()?));
        let origin = Origin { offset: Offset(cut.u64()?), index: cut.u32()? };
        watermark.high.insert(source, origin);
    }
    Some(watermark)
}

/// Which snapshot of a bucket is the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SnapshotHead {
    /// The owner's epoch.
    pub(crate) epoch: u64,
    /// Records at or below this are in it.
    pub(crate) as_of: Offset,
    /// Names its chunks.
    pub(crate) id: u128,
    /// How many chunks there are.
    pub(crate) chunks: u32,
}

impl SnapshotHead {
    /// Epoch u64, as-of u64, id u128, chunks u32. The greater (epoch, as-of) stays.
    pub(crate) fn to_bytes(self) -> Bytes {
        let mut out = BytesMut::with_capacity(36);
        out.put_u64(self.epoch);
        out.put_u64(self.as_of.0);
        out.put_u128(self.id);
        out.put_u32(self.chunks);
        out.freeze()
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote.
    pub(crate) fn from_bytes(stored: &Bytes) -> Option<Self> {
        let mut cut = Cut(stored, 0);
        Some(Self {
            epoch: cut.u64()?,
            as_of: Offset(cut.u64()?),
            id: cut.array().map(u128::from_be_bytes)?,
            chunks: cut.u32()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(stored: &Bytes, golden: &[u8]) {
        let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
        assert_eq!(text(stored), text(golden));
    }

    #[test]
    fn a_stored_record_never_changes() {
        let mut input = Record {
            key: Bytes::from_static(b"k"),
            value: Bytes::from_static(b"value"),
            timestamp_ms: 258,
            record_type: "send",
            schema: 1,
            traceparent: None,
        };
        let plain = record(&input).unwrap();
        check(&plain, b"\0\0\0\0\0\0\x01\x02\0\x01\x04send\xff\0\0\0\x01kvalue");
        input.traceparent = Some(Bytes::from_static(b"00-a"));
        let traced = record(&input).unwrap();
        check(&traced, b"\0\0\0\0\0\0\x01\x02\0\x01\x04send\x0400-a\0\0\0\x01kvalue");
        let read = log_record(Offset(9), &traced).unwrap();
        assert_eq!((read.offset, read.timestamp_ms), (Offset(9), 258));
        assert_eq!((&read.key[..], &read.value[..]), (&b"k"[..], &b"value"[..]));
        assert_eq!(read.traceparent, input.traceparent);
        for len in 0..plain.len() - input.value.len() {
            assert!(log_record(Offset(9), &plain.slice(..len)).is_none(), "cut at {len}");
        }
        input.traceparent = Some(vec![0; 255].into());
        assert!(record(&input).is_none());
    }

    #[test]
    fn stored_rows_never_change() {
        check(&stamped(258, b"item"), b"\0\0\0\0\0\0\x01\x02item");
        assert_eq!(stamp(&stamped(-2, b"item")), Some(-2));
        let mut device = Device { cursor: 3, last_active_ms: 258, ..Device::default() };
        check(&device.to_bytes(), b"\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\x01\x02");
        assert_eq!(Device::from_bytes(&device.to_bytes()), Some(device.clone()));
        (device.named_ms, device.revoked_ms, device.name) = (4, 5, "phone".into());
        check(&device.to_bytes().slice(16..), b"\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0\x05phone");
        assert_eq!(Device::from_bytes(&device.to_bytes()), Some(device));
        check(&edge(true, 258), b"\x01\0\0\0\0\0\0\x01\x02");
        assert_eq!(split_edge(&edge(true, 258)), Some((true, 258)));
        let head = SnapshotHead { epoch: 1, as_of: Offset(2), id: 3, chunks: 4 };
        check(
            &head.to_bytes(),
            b"\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x03\0\0\0\x04",
        );
        assert_eq!(SnapshotHead::from_bytes(&head.to_bytes()), Some(head));
        let mut mark = Watermark { next: Offset(5), ..Watermark::default() };
        let origin = Origin { offset: Offset(3), index: 4 };
        mark.high.insert((SourceId(1), Partition(2)), origin);
        check(&origins(&mark), b"\0\0\0\0\0\0\0\x01\0\0\0\x02\0\0\0\0\0\0\0\x03\0\0\0\x04");
        assert_eq!(watermark(Offset(5), &origins(&mark)), Some(mark));
        assert_eq!(watermark(Offset(5), &Bytes::from_static(b"torn")), None);
    }
}
