//! Reads: history by seq, the inbox by position, chats, and what a delivery host asks of a
//! partition. All see a prefix: where a place is not stored yet (its copy comes through another
//! partition), a page ends before it.

mod before_join;
pub(crate) mod chats;
pub(crate) mod find;
mod floor;
pub(crate) mod history;
pub(crate) mod inbox;
pub(crate) mod partition;
mod visible;

use chaski_ports::{ErrorKind, PortError};
use chaski_proto::Problem;

/// Rows read at once where rows are filtered.
const SCAN: usize = 500;
/// Reads in flight for one request.
const PARALLEL: usize = 16;

/// What a request asks for at most.
fn limit(asked: u32) -> usize {
    (asked.clamp(1, 500)) as usize
}

/// A store that fails is told as "try again", what cannot be read as an error of ours; the cause
/// stays in the log.
pub(crate) fn failed(error: &PortError) -> Problem {
    if error.kind == ErrorKind::Corrupt {
        tracing::error!(%error, cause = ?error.source, "a stored row cannot be read");
        return Problem::new(500, "corrupt", "a stored row cannot be read; the operators are told");
    }
    tracing::warn!(%error, cause = ?error.source, "the store failed");
    Problem::unavailable("the store does not answer at the moment; try again")
}

/// A row of this column that cannot be decoded.
fn corrupt(column: &'static str) -> impl Fn(prost::DecodeError) -> PortError {
    move |error| PortError::new(ErrorKind::Corrupt, column).caused_by(error)
}

/// A row that can be decoded, but holds what cannot be there.
fn impossible(what: &'static str) -> Problem {
    failed(&PortError::new(ErrorKind::Corrupt, what))
}
