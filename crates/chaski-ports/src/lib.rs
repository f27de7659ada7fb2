//! What chaski needs from the outside world: a log, stores, a coordinator and a clock, as narrow
//! traits. The laws stand in the trait docs; every "must" has a conformance case of the same name
//! in `chaski-ports-conformance`, run on every backend.
//!
//! Must not know: any vendor, any encoding of the records and rows it carries.

pub mod clock;
pub mod coordinator;
pub mod error;
pub mod log;
pub mod store;

pub use clock::{Clock, StandingClock, SystemClock};
pub use coordinator::{
    Coordinator, Expect, Leadership, Node, Registration, Session, SessionState, Watch,
};
pub use error::{ErrorKind, PortError};
pub use log::{
    Appending, Bounds, Log, LogReader, LogRecord, ProducePolicy, Producer, Record, Topic,
};
pub use store::{
    BlockRow, ChatRow, ChatStore, CheckpointStore, Claimed, ConnectionRow, ConnectionStore,
    DeviceNote, DeviceRow, DeviceStore, HiddenRow, HistoryRange, InboxDay, InboxRow, KnownDevice,
    MarkRow, MembershipRow, MessageRow, MessageStore, Snapshot, StoreBatch, Stored, VerdictRow,
    WatermarkRow,
};

/// The backends that one process uses.
#[derive(Clone)]
pub struct Ports {
    /// `new-messages`, `recipients` and the other topics.
    pub log: std::sync::Arc<dyn Log>,
    /// Messages, inboxes.
    pub messages: std::sync::Arc<dyn MessageStore>,
    /// Chats, memberships, marks.
    pub chats: std::sync::Arc<dyn ChatStore>,
    /// Contacts, blocks, settings.
    pub connections: std::sync::Arc<dyn ConnectionStore>,
    /// Devices and their cursors.
    pub devices: std::sync::Arc<dyn DeviceStore>,
    /// Watermarks, snapshots, claims.
    pub checkpoints: std::sync::Arc<dyn CheckpointStore>,
    /// Hosts and assignments.
    pub coordinator: std::sync::Arc<dyn Coordinator>,
    /// Time.
    pub clock: std::sync::Arc<dyn Clock>,
}
