//! The embedded backend: log, stores and coordinator of one process, durable in one directory.
//!
//! All writes go through one thread ([`writer`]): it takes what waits, writes it as one batch of
//! one fjall database, syncs once, then settles. So decisions that read before they write need
//! no locks, and a thousand appends cost one fsync.
//!
//! Must not know: what a message is, or that there are other backends.

mod chats;
mod checkpoints;
mod connections;
mod coordinator;
mod devices;
mod engine;
mod expiry;
mod keys;
mod log;
mod messages;
mod reader;
mod tables;
mod tail;
mod values;
mod versioned;
mod writer;

use chaski_ports::{
    ChatStore, CheckpointStore, Clock, ConnectionStore, Coordinator, DeviceStore, ErrorKind, Log,
    MessageStore, PortError, SystemClock,
};
use engine::Engine;
use std::{
    path::Path,
    sync::{Arc, Weak},
    time::Duration,
};

/// An open directory with all its ports: one value, so that whoever holds one port keeps all.
pub(crate) struct Directory {
    engine: Arc<Engine>,
    log: log::Topics,
    tree: coordinator::Coordination,
    verdicts: expiry::VerdictExpiry,
    inboxes: expiry::InboxExpiry,
    items: expiry::ItemExpiry,
    watermarks: Arc<checkpoints::KeptWatermarks>,
}

/// How the embedded backend behaves.
#[derive(Clone)]
pub struct EmbeddedOptions {
    /// Bytes that may wait for the writer; more appends are refused with `Full`, more store
    /// writes wait. 64 MiB: about half a second of what a slow disk takes.
    pub queue_bytes_max: u32,
    /// Bytes of recent records kept in memory for each partition. 4 MiB.
    pub tail_bytes_max: usize,
    /// Seed of the gaps between offsets.
    pub gap_seed: u64,
    /// How long inboxes keep a row, from its record's time on. 30 days.
    pub inbox_ttl: Duration,
    /// Tells which verdicts, inbox rows and items are old.
    pub clock: Arc<dyn Clock>,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self {
            queue_bytes_max: 64 << 20,
            tail_bytes_max: 4 << 20,
            gap_seed: 0x63_6861_736b_6921,
            inbox_ttl: Duration::from_secs(30 * 24 * 3_600),
            clock: Arc::new(SystemClock),
        }
    }
}

/// An open directory. The ports it gives keep it open; when all are dropped, it is closed.
#[derive(Clone)]
pub struct Embedded(Arc<Directory>);

/// Finds an [`Embedded`] again as long as it is open.
#[derive(Clone)]
pub struct WeakEmbedded(Weak<Directory>);

impl Embedded {
    /// Opens the directory, which is made if it is not there. Blocks while it recovers.
    ///
    /// # Errors
    /// `Conflict` where another process has it open, `Corrupt` where it cannot be read,
    /// `Unavailable` where the disk refuses, `Invalid` where inboxes would keep nothing.
    pub fn open(path: &Path, options: EmbeddedOptions) -> Result<Self, PortError> {
        if options.inbox_ttl < Duration::from_secs(1) {
            return Err(PortError::new(ErrorKind::Invalid, "inbox_ttl: must be at least 1 s"));
        }
        let engine = Arc::new(Engine::open(path, &options)?);
        Ok(Self(Arc::new(Directory {
            log: log::Topics::open(engine.tables(), options.tail_bytes_max)?,
            tree: coordinator::Coordination::open(engine.tables())?,
            inboxes: expiry::InboxExpiry::new(Arc::clone(&options.clock), options.inbox_ttl),
            items: expiry::ItemExpiry::new(Arc::clone(&options.clock)),
            verdicts: expiry::VerdictExpiry::new(options.clock),
            watermarks: Arc::default(),
            engine,
        })))
    }

    /// The log.
    #[must_use]
    pub fn log(&self) -> Arc<dyn Log> {
        Arc::clone(&self.0) as _
    }

    /// Messages, inboxes, verdicts.
    #[must_use]
    pub fn messages(&self) -> Arc<dyn MessageStore> {
        Arc::clone(&self.0) as _
    }

    /// Chats, memberships, marks.
    #[must_use]
    pub fn chats(&self) -> Arc<dyn ChatStore> {
        Arc::clone(&self.0) as _
    }

    /// Contacts, blocks, settings.
    #[must_use]
    pub fn connections(&self) -> Arc<dyn ConnectionStore> {
        Arc::clone(&self.0) as _
    }

    /// Devices.
    #[must_use]
    pub fn devices(&self) -> Arc<dyn DeviceStore> {
        Arc::clone(&self.0) as _
    }

    /// Watermarks, snapshots, claims.
    #[must_use]
    pub fn checkpoints(&self) -> Arc<dyn CheckpointStore> {
        Arc::clone(&self.0) as _
    }

    /// The coordinator. Its nodes live in memory and end with the process.
    #[must_use]
    pub fn coordinator(&self) -> Arc<dyn Coordinator> {
        Arc::clone(&self.0) as _
    }

    /// Does not keep the directory open.
    #[must_use]
    pub fn downgrade(&self) -> WeakEmbedded {
        WeakEmbedded(Arc::downgrade(&self.0))
    }
}

impl WeakEmbedded {
    /// The open directory; `None` once all its ports are dropped.
    #[must_use]
    pub fn upgrade(&self) -> Option<Embedded> {
        self.0.upgrade().map(Embedded)
    }
}
