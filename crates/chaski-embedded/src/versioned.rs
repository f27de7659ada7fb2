//! Rows of which the greater version stays: one, and the slice below a prefix.
//!
//! Must not know: what they are of.

use crate::{
    keys::Key,
    tables::{self, Tables},
    values,
};
use bytes::Bytes;
use chaski_ports::PortError;
use std::{ops::Bound, str::FromStr};

/// Version and state.
pub(crate) type Versioned = (u64, Bytes);

/// One row. `what` names it where it is corrupt.
pub(crate) fn get(tables: &Tables, key: &[u8], what: &str) -> Result<Option<Versioned>, PortError> {
    tables::get(&tables.rows, key)?.map(|stored| split(&stored, what)).transpose()
}

/// The rows whose keys are `prefix` and an id, behind the key `after`, ascending.
pub(crate) fn slice<Id: FromStr>(
    tables: &Tables,
    prefix: &[u8],
    after: Option<&Key>,
    limit: usize,
    what: &str,
) -> Result<Vec<(Id, Versioned)>, PortError> {
    let from = Bound::Excluded(after.map_or(prefix, Vec::as_slice));
    // Above every byte of an id.
    let end = [prefix, &[0xff]].concat();
    let pairs = tables::range(&tables.rows, (from, Bound::Excluded(&end[..])));
    let rows = pairs.take(limit).map(|pair| {
        let (key, stored) = pair?;
        let id = id(&key, prefix).ok_or_else(|| tables::corrupt(what))?;
        Ok((id, split(&stored, what)?))
    });
    rows.collect()
}

/// The id at the end of a key.
pub(crate) fn id<Id: FromStr>(key: &[u8], prefix: &[u8]) -> Option<Id> {
    std::str::from_utf8(key.strip_prefix(prefix)?).ok()?.parse().ok()
}

fn split(stored: &Bytes, what: &str) -> Result<Versioned, PortError> {
    values::split_numbered(stored).ok_or_else(|| tables::corrupt(what))
}
