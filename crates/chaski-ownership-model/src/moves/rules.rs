//! The rules of ADR 18 and 19 that may be broken, one at a time.

/// A rule that is not kept. The checker must find what each of them does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// The barrier of requests is appended together with the others.
    BarriersTogether,
    /// The barrier of requests is appended as soon as the others are in their logs, whoever has read
    /// them. This alone does no harm.
    RequestsAfterAppends,
    /// The barriers of a map are appended before the map before it is everywhere.
    MapsOverlap,
    /// A barrier of an older map counts where it comes again.
    OldBarriersCount,
    /// A reader shows a moved user's events before the partition they came from has ended.
    QDoesNotWait,
    /// A partition counts as ended once one source has said so.
    EndFromOneSource,
    /// A partition counts as ended once those of `new-messages` have said so.
    EndWithoutRequests,
    /// The message service's reader looks for the end in the log, for blocks in the store.
    EndBeforeItIsStored,
    /// A stay begins without the blocks of the one before.
    BlocksLeftBehind,
    /// A stay begins, and takes over blocks, only with an event of the user: where there is none, the
    /// stay behind it finds nothing.
    BlocksOnlyWithAnEvent,
    /// A stay begins with the blocks that hold in the old partition when it is asked, not at its end.
    BlocksAsOfNow,
    /// The blocks of the stay before hold from the last barrier in the new partition on.
    BlocksFromTheLastBarrier,
    /// What was blocked at the end of an earlier stay in the same partition still counts in this one.
    OldEdgesCount,
    /// A new owner goes on with the first map, whatever its cursor.
    MapNotSaved,
    /// A new owner begins with the newest map there is, whatever its cursor.
    NewestMapAtStart,
    /// A reader's watermark is saved without the barriers.
    EndNotSaved,
    /// A barrier is told to the partition to which the user moves, and not to the one they leave.
    BarrierToTheNewHomeOnly,
    /// The fold of requests sends on before the outputs of the round before are in the log.
    RequestsInFlight,
    /// The reader has no origin filter.
    NoFilter,
    /// The reader skips repeats, and does not look at `prev`.
    NoPrev,
}
