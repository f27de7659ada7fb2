//! The stores: messages and inboxes, chats, contacts and blocks, devices, and checkpoints
//! (watermarks, snapshots, claims).
//!
//! Rows have typed keys and opaque payloads; what the payloads hold is the services' business.
//!
//! Laws
//! - **durable_on_return**: what `write`, `save_*`, `put_*` returned `Ok` for survives kill -9 and
//!   is seen by every later read.
//! - **rewrite_is_a_no_op**: rows of messages, inbox, hidden places, blocks and verdicts are
//!   immutable with deterministic keys; writing one again changes nothing.
//! - **newer_version_wins**: of chats, memberships, marks, connections and settings the row with
//!   the greater `version` stays, in whatever order they are written; of a device's cursor the
//!   greater position.
//! - **the_first_of_a_day_stays**: of an inbox's days the lowest position stays.
//! - **greatest_epoch_then_offset_wins**: of watermarks and snapshots the greatest (epoch, offset)
//!   is what `watermarks` and `snapshots` give first, whoever wrote last (L6).
//! - **slices_are_ordered**: `history` and `inbox` give rows in order of seq and position, exactly
//!   those in the asked range, at most `limit`; so do `memberships`, `connections`, `blocks`,
//!   `pair_blocks` and `devices` in the order of their keys.
//! - **inboxes_forget**: an inbox row is not given any more once its record's time is longer ago
//!   than inboxes keep; nothing else is forgotten but verdicts and what has a time to end.
//! - **places_stay**: once `ends_ms` of a message row has come, its place is given with an empty
//!   item, also where the row is written (again) only then. So a place that is not there is not
//!   stored yet, never expired, and the last place of a chat stays known.
//! - **a_claim_grows**: every `claim` of one (role, partition) gives a greater epoch than all
//!   before, at least the assignment's number; of two racing claims both succeed with different
//!   epochs, or one gets `Conflict`.
//! - **a_late_claim_is_refused**: a claim on an earlier assignment than that of a claim before gets
//!   `Conflict`: who was paused and wakes must not claim past the present owner.
//! - **a_batch_is_not_atomic**: nothing may count on a batch being seen as a whole; `write`
//!   returns `Ok` only when all of it is durable.

use crate::PortError;
use async_trait::async_trait;
use bytes::Bytes;
use chaski_core::{
    ChatId, DeviceId, Offset, Partition, Position, UserId, Watermark,
    connection::BlockEdge,
    record::{RequestId, UnixMs},
};

/// A place taken in a chat: a message or an update. Immutable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageRow {
    /// The chat.
    pub chat: ChatId,
    /// The place.
    pub seq: u64,
    /// What stands there: a `StoredItem` of `proto/`. Not empty.
    pub item: Bytes,
    /// The record's time; the write timestamp follows from it.
    pub at_ms: UnixMs,
    /// When the item expires; the place stays. Where a rewrite names another end, either counts.
    pub ends_ms: Option<UnixMs>,
}

/// A pointer in a user's inbox: that something happened at a position. Immutable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboxRow {
    /// The user's partition of `recipients`.
    pub partition: Partition,
    /// The user.
    pub user: UserId,
    /// The place in the user's order.
    pub position: Position,
    /// What happened: a `StoredEvent` of `proto/`. A message is a pointer (chat, seq).
    pub event: Bytes,
    /// The record's time.
    pub at_ms: UnixMs,
}

/// The present state of a chat. The greater version stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatRow {
    /// The chat.
    pub chat: ChatId,
    /// Grows with every change of the row: the seq of the change.
    pub version: u64,
    /// A `StoredChat` of `proto/`.
    pub state: Bytes,
}

/// That a user is, or was, in a chat. The greater version stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MembershipRow {
    /// The user.
    pub user: UserId,
    /// The chat.
    pub chat: ChatId,
    /// The seq of the change that made this row.
    pub version: u64,
    /// A `StoredMembership` of `proto/`: the spans of seq the user may see.
    pub state: Bytes,
}

/// The answer to a command, kept for some minutes. Immutable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerdictRow {
    /// Which command.
    pub request: RequestId,
    /// A `StoredVerdict` of `proto/`.
    pub verdict: Bytes,
    /// The record's time.
    pub at_ms: UnixMs,
}

/// That a block withholds a place of a chat from a user. Immutable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HiddenRow {
    /// The blocker.
    pub user: UserId,
    /// The chat.
    pub chat: ChatId,
    /// The place.
    pub seq: u64,
}

/// How far a member has taken and read a chat. The greater version stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkRow {
    /// The chat.
    pub chat: ChatId,
    /// The member.
    pub user: UserId,
    /// Grows with every change of the row.
    pub version: u64,
    /// A `StoredMark` of `proto/`.
    pub state: Bytes,
}

/// Where a block begins or ends in a partition of `recipients`. Immutable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockRow {
    /// The blocker's partition.
    pub partition: Partition,
    /// The edge; user, peer and offset are its key.
    pub edge: BlockEdge,
}

/// The first position of a day (days since 1970-01-01 by the records' time) in the inboxes of a
/// partition. The lowest position stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InboxDay {
    /// The partition.
    pub partition: Partition,
    /// The day.
    pub day: u32,
    /// Its first position.
    pub first: Position,
}

/// Rows to write together.
#[derive(Clone, Debug, Default)]
pub struct StoreBatch {
    /// Messages and updates.
    pub messages: Vec<MessageRow>,
    /// Inbox pointers.
    pub inbox: Vec<InboxRow>,
    /// Chats.
    pub chats: Vec<ChatRow>,
    /// Memberships.
    pub memberships: Vec<MembershipRow>,
    /// Verdicts.
    pub verdicts: Vec<VerdictRow>,
    /// Places that blocks withhold.
    pub hidden: Vec<HiddenRow>,
    /// Marks.
    pub marks: Vec<MarkRow>,
    /// Edges of blocks.
    pub blocks: Vec<BlockRow>,
    /// First positions of days.
    pub days: Vec<InboxDay>,
}

/// Which slice of a chat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HistoryRange {
    /// The oldest rows with a seq above this, ascending.
    After(u64),
    /// The newest rows with a seq below this, given in ascending order. `u64::MAX` = the newest.
    Before(u64),
}

/// A row with its place in the order.
pub type Stored = (u64, Bytes);

/// Messages, inboxes, verdicts; and writing, which puts rows of all kinds side by side.
#[async_trait]
pub trait MessageStore: Send + Sync {
    /// Writes rows; all of them are durable on return.
    async fn write(&self, batch: StoreBatch) -> Result<(), PortError>;

    /// A slice of a chat, ascending by seq, at most `limit`; expired items are empty.
    async fn history(
        &self,
        chat: &ChatId,
        range: HistoryRange,
        limit: usize,
    ) -> Result<Vec<Stored>, PortError>;

    /// Single places of chats, in the order asked; `None` where nothing is stored (yet), empty
    /// where the item has expired.
    async fn items(&self, places: &[(ChatId, u64)]) -> Result<Vec<Option<Bytes>>, PortError>;

    /// The places of a chat from `first` to `last` that blocks withhold from the user, ascending.
    async fn hidden(
        &self,
        user: &UserId,
        chat: &ChatId,
        (first, last): (u64, u64),
    ) -> Result<Vec<u64>, PortError>;

    /// A user's events with `after` < position ≤ `upto`, ascending, at most `limit`.
    async fn inbox(
        &self,
        partition: Partition,
        user: &UserId,
        (after, upto): (Position, Position),
        limit: usize,
    ) -> Result<Vec<Stored>, PortError>;

    /// The days of a partition's inboxes, ascending; those longer ago than inboxes keep may lack.
    async fn inbox_days(&self, partition: Partition) -> Result<Vec<InboxDay>, PortError>;

    /// The answer to a command, where it is there and not yet forgotten (10 minutes at least).
    async fn verdict(&self, request: &RequestId) -> Result<Option<Bytes>, PortError>;
}

/// Chats, memberships, marks.
#[async_trait]
pub trait ChatStore: Send + Sync {
    /// The present state of a chat.
    async fn chat(&self, chat: &ChatId) -> Result<Option<ChatRow>, PortError>;

    /// One membership.
    async fn membership(
        &self,
        user: &UserId,
        chat: &ChatId,
    ) -> Result<Option<MembershipRow>, PortError>;

    /// A user's memberships with a chat id above `after`, ascending by chat id, at most `limit`.
    async fn memberships(
        &self,
        user: &UserId,
        after: Option<&ChatId>,
        limit: usize,
    ) -> Result<Vec<MembershipRow>, PortError>;

    /// One member's marks.
    async fn mark(&self, chat: &ChatId, user: &UserId) -> Result<Option<MarkRow>, PortError>;

    /// The marks of everybody who was ever in the chat and has any, ascending by user, at most
    /// `limit`.
    async fn marks(&self, chat: &ChatId, limit: usize) -> Result<Vec<MarkRow>, PortError>;
}

/// What one user is to another, as last decided. The greater version stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionRow {
    /// The user.
    pub user: UserId,
    /// The other one.
    pub peer: UserId,
    /// Counts the changes of the pair.
    pub version: u64,
    /// A `StoredConnection` of `proto/`.
    pub state: Bytes,
}

/// Contacts, blocks, settings.
#[async_trait]
pub trait ConnectionStore: Send + Sync {
    /// Saves connections.
    async fn save_connections(&self, rows: &[ConnectionRow]) -> Result<(), PortError>;

    /// One connection.
    async fn connection(
        &self,
        user: &UserId,
        peer: &UserId,
    ) -> Result<Option<ConnectionRow>, PortError>;

    /// A user's connections with a peer above `after`, ascending by peer, at most `limit`.
    async fn connections(
        &self,
        user: &UserId,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<Vec<ConnectionRow>, PortError>;

    /// The edges of blocks of a partition behind `after` (user, peer, offset), ascending by that
    /// key, at most `limit`.
    async fn blocks(
        &self,
        partition: Partition,
        after: Option<&BlockEdge>,
        limit: usize,
    ) -> Result<Vec<BlockEdge>, PortError>;

    /// The edges of one pair from `from` on, ascending by offset, at most `limit`.
    async fn pair_blocks(
        &self,
        partition: Partition,
        (user, peer): (&UserId, &UserId),
        from: Offset,
        limit: usize,
    ) -> Result<Vec<BlockEdge>, PortError>;

    /// Saves a user's settings, a `StoredSettings` of `proto/`; the greater version stays.
    async fn save_settings(
        &self,
        user: &UserId,
        version: u64,
        state: Bytes,
    ) -> Result<(), PortError>;

    /// A user's settings.
    async fn settings(&self, user: &UserId) -> Result<Option<Bytes>, PortError>;
}

/// A device of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRow {
    /// The user.
    pub user: UserId,
    /// The device.
    pub device: DeviceId,
    /// What it has acknowledged, cumulative.
    pub cursor: Position,
    /// When it was last there.
    pub last_active_ms: UnixMs,
}

/// A device with what is noted of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownDevice {
    /// The device; one that only has notes has cursor 0 and was never active (0).
    pub row: DeviceRow,
    /// What its user calls it; empty: nothing.
    pub name: String,
    /// When it was revoked last; 0: never.
    pub revoked_ms: UnixMs,
}

/// How long after its revocation what a device had acknowledged may still be saved, in
/// milliseconds: it is not back by that.
const LATE_MS: UnixMs = 10_000;

impl KnownDevice {
    /// Whether the device counts: it was there within the time of `idle_ms`, and was not revoked
    /// since it was last there.
    #[must_use]
    pub fn is_in_use(&self, now_ms: UnixMs, idle_ms: UnixMs) -> bool {
        let last = self.row.last_active_ms;
        let revoked = self.revoked_ms > 0 && last <= self.revoked_ms.saturating_add(LATE_MS);
        last > 0 && !revoked && now_ms.saturating_sub(last) <= idle_ms
    }
}

/// What is noted of a device. Of one kind the later `at_ms` stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceNote {
    /// Its name.
    Name(String),
    /// It is revoked; the note's time says when.
    Revoked,
}

/// Devices and their cursors.
#[async_trait]
pub trait DeviceStore: Send + Sync {
    /// Saves cursors; one that would go back changes nothing but, where it is later, the time of
    /// its device's last activity.
    async fn save_cursors(&self, rows: &[DeviceRow]) -> Result<(), PortError>;

    /// Notes something of a device.
    async fn note(
        &self,
        user: &UserId,
        device: &DeviceId,
        note: DeviceNote,
        at_ms: UnixMs,
    ) -> Result<(), PortError>;

    /// One device.
    async fn device(
        &self,
        user: &UserId,
        device: &DeviceId,
    ) -> Result<Option<KnownDevice>, PortError>;

    /// A user's devices, ascending by id, at most `limit`.
    async fn devices(&self, user: &UserId, limit: usize) -> Result<Vec<KnownDevice>, PortError>;
}

/// A stored watermark of a consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatermarkRow {
    /// The owner's epoch.
    pub epoch: u64,
    /// Where to go on, with the vector that belongs to that place.
    pub watermark: Watermark,
}

/// A part of the fan-out's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Which part.
    pub bucket: u32,
    /// The owner's epoch.
    pub epoch: u64,
    /// Records at or below this are in it.
    pub as_of: Offset,
    /// A `StoredBucket` of `proto/`; may be many megabytes.
    pub state: Bytes,
}

/// The outcome of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// The owner's epoch from now on.
    pub epoch: u64,
}

/// Watermarks, snapshots and claims. `role` names the consumer: `generator`, `messages`, …
#[async_trait]
pub trait CheckpointStore: Send + Sync {
    /// Saves a watermark. The newest 100 of a (role, partition) are kept.
    async fn save_watermark(
        &self,
        role: &str,
        partition: Partition,
        row: &WatermarkRow,
    ) -> Result<(), PortError>;

    /// The kept watermarks, greatest (epoch, offset) first, at most `limit`.
    async fn watermarks(
        &self,
        role: &str,
        partition: Partition,
        limit: usize,
    ) -> Result<Vec<WatermarkRow>, PortError>;

    /// Saves a part of the fan-out's state for a `new-messages` partition; older ones of the
    /// same bucket may be dropped once it is durable.
    async fn put_snapshot(
        &self,
        partition: Partition,
        snapshot: &Snapshot,
    ) -> Result<(), PortError>;

    /// The newest snapshot of one bucket.
    async fn snapshot(
        &self,
        partition: Partition,
        bucket: u32,
    ) -> Result<Option<Snapshot>, PortError>;

    /// The newest snapshot of every bucket.
    async fn snapshots(&self, partition: Partition) -> Result<Vec<Snapshot>, PortError>;

    /// Claims a partition for a role, as it was assigned: an epoch greater than every one before and
    /// ≥ `assignment`; `Conflict` where a later assignment was claimed on.
    async fn claim(
        &self,
        role: &str,
        partition: Partition,
        assignment: u64,
    ) -> Result<Claimed, PortError>;
}
