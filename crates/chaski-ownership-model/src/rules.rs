//! The rules of the protocol that may be broken, one at a time, and what each rule decides.

use crate::state::Kind;

/// A rule that is not kept. The checker must find what each of them does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// A claim on an assignment older than the one that the last claim was made on is not refused:
    /// a paused host that wakes claims past the present owner.
    LateClaims,
    /// A new owner saves nothing before its first checkpoint: an older one's cursor may then stand
    /// beside its snapshot of an earlier place.
    CursorNotTaken,
    /// The log's time is saved and read apart from the cursor, as one more snapshot.
    ClockApart,
    /// A claim is a read and a write, without a condition.
    ClaimsWithoutLwt,
    /// The epoch is the version of the assignment's znode, which begins anew with the znode.
    EpochsFromVersions,
    /// A checkpoint is saved before its outputs are acknowledged.
    SavesUnacknowledged,
    /// The cursor is saved before the snapshot that it counts on.
    SavesCursorFirst,
    /// The cursor is read after the snapshot that it counts on.
    ReadsCursorLast,
    /// Rows are neither ordered by epoch nor by place: the last write is the one that is read.
    LastWriteWins,
    /// Rows are ordered by place alone.
    RowsByPlace,
    /// The consumer has no origin filter.
    NoFilter,
    /// The consumer skips repeats, and does not look at `prev`.
    NoPrev,
}

use Kind::{Chat, Clock, Cursor};

/// The writes of a checkpoint in their order; the rows of one write become durable together.
#[must_use]
pub(crate) fn writes(flaws: &[Flaw]) -> &'static [&'static [Kind]] {
    if flaws.contains(&Flaw::ClockApart) {
        &[&[Chat], &[Clock], &[Cursor]]
    } else if flaws.contains(&Flaw::SavesCursorFirst) {
        &[&[Clock, Cursor], &[Chat]]
    } else {
        &[&[Chat], &[Clock, Cursor]]
    }
}

/// The reads of a new owner in their order.
#[must_use]
pub(crate) fn reads(flaws: &[Flaw]) -> &'static [&'static [Kind]] {
    if flaws.contains(&Flaw::ClockApart) {
        &[&[Cursor], &[Chat], &[Clock]]
    } else if flaws.contains(&Flaw::ReadsCursorLast) {
        &[&[Chat], &[Clock, Cursor]]
    } else {
        &[&[Clock, Cursor], &[Chat]]
    }
}
