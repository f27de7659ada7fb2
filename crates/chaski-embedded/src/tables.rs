//! The fjall database of one directory: its tables, and how it comes into being. The only file
//! beside [`writer`](crate::writer) that knows fjall's options.
//!
//! Must not know: what the tables hold.

use bytes::Bytes;
use chaski_ports::{ErrorKind, PortError};
use fjall::{
    Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, OwnedWriteBatch, PersistMode,
};
use std::{
    fs::{self, File, TryLockError},
    ops::RangeBounds,
    path::Path,
    time::{Duration, Instant},
};

/// How long an open waits for the process (or the handle of this one) that is just closing.
const LOCK_WAIT: Duration = Duration::from_secs(2);
/// Small, so that little is replayed from the journal at the next open.
const MEMTABLE_BYTES: u64 = 16 << 20;
/// What rarely written tables may hold back; the upper limit of what an open replays.
const JOURNAL_BYTES: u64 = 64 << 20;

/// The tables. A clone is a handle of the same ones.
#[derive(Clone)]
pub(crate) struct Tables {
    db: Database,
    /// Records of all topics.
    pub(crate) log: Keyspace,
    /// Places of chats.
    pub(crate) messages: Keyspace,
    /// Users' inboxes.
    pub(crate) inbox: Keyspace,
    /// All small rows, by their first byte.
    pub(crate) rows: Keyspace,
    /// Pieces of snapshots.
    pub(crate) chunks: Keyspace,
}

/// A key with its value.
pub(crate) type Pair = (Bytes, Bytes);

impl Tables {
    /// Opens the tables in `directory`. A new database is made aside and moved into place, so a
    /// crash meanwhile leaves nothing that cannot be opened.
    pub(crate) fn open(directory: &Path) -> Result<Self, PortError> {
        let (place, aside) = (directory.join("store"), directory.join("store.new"));
        let refused = |e: std::io::Error| {
            PortError::new(ErrorKind::Unavailable, format!("make {}", place.display())).caused_by(e)
        };
        if !place.try_exists().map_err(refused)? {
            if aside.try_exists().map_err(refused)? {
                fs::remove_dir_all(&aside).map_err(refused)?;
            }
            Self::open_database(&aside).map_err(|e| failed("make the store", e))?;
            fs::rename(&aside, &place).map_err(refused)?;
            File::open(directory).and_then(|d| d.sync_all()).map_err(refused)?;
        }
        Self::open_database(&place).map_err(|e| failed(&format!("open {}", place.display()), e))
    }

    fn open_database(path: &Path) -> fjall::Result<Self> {
        let db = Database::builder(path)
            .max_journaling_size(JOURNAL_BYTES)
            .manual_journal_persist(true)
            .worker_threads(2)
            .open()?;
        let table = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
        // Snapshots are written once and read once: compaction must not copy them around.
        let apart = || table().with_kv_separation(Some(KvSeparationOptions::default()));
        Ok(Self {
            log: db.keyspace("log", table)?,
            messages: db.keyspace("messages", table)?,
            inbox: db.keyspace("inbox", table)?,
            rows: db.keyspace("rows", table)?,
            chunks: db.keyspace("chunks", apart)?,
            db,
        })
    }

    /// An empty batch that is synced when it is committed. By `fdatasync`: it also writes the
    /// metadata that reading back needs, and only leaves out times. Measured beside `fsync` (one
    /// append at a time, busy machine): no difference above the noise, p50 0.3-1.4 and 0.8-1.3 ms.
    pub(crate) fn batch(&self) -> OwnedWriteBatch {
        self.db.batch().durability(Some(PersistMode::SyncData))
    }

    /// A view of all tables at one moment.
    pub(crate) fn view(&self) -> fjall::Snapshot {
        self.db.snapshot()
    }
}

/// One value.
pub(crate) fn get(table: &Keyspace, key: &[u8]) -> Result<Option<Bytes>, PortError> {
    let value = table.get(key).map_err(|e| failed("read", e))?;
    Ok(value.map(Bytes::from))
}

/// The pairs of a range, lazily, from both ends.
pub(crate) fn range<'k>(
    table: &Keyspace,
    range: impl RangeBounds<&'k [u8]>,
) -> impl DoubleEndedIterator<Item = Result<Pair, PortError>> {
    let range = (range.start_bound().cloned(), range.end_bound().cloned());
    table.range::<&[u8], _>(range).map(pair)
}

/// The pairs whose key begins with `prefix`, lazily, from both ends.
pub(crate) fn prefix(
    table: &Keyspace,
    prefix: &[u8],
) -> impl DoubleEndedIterator<Item = Result<Pair, PortError>> {
    table.prefix(prefix).map(pair)
}

/// The key and the value behind fjall's guard.
pub(crate) fn pair(guard: fjall::Guard) -> Result<Pair, PortError> {
    let (key, value) = guard.into_inner().map_err(|e| failed("read", e))?;
    Ok((key.into(), value.into()))
}

/// fjall's error as the ports'.
pub(crate) fn failed(context: &str, error: fjall::Error) -> PortError {
    let kind = match error {
        fjall::Error::Io(_) | fjall::Error::Poisoned => ErrorKind::Unavailable,
        fjall::Error::Locked => ErrorKind::Conflict,
        _ => ErrorKind::Corrupt,
    };
    PortError::new(kind, context).caused_by(error)
}

/// A stored value that does not have its form.
pub(crate) fn corrupt(what: &str) -> PortError {
    PortError::new(ErrorKind::Corrupt, format!("read a stored {what}"))
}

/// Takes the directory for this process, until the file is dropped.
#[expect(clippy::disallowed_methods, reason = "open is documented to block")]
pub(crate) fn lock(directory: &Path) -> Result<File, PortError> {
    let path = directory.join("lock");
    let refused = |e: std::io::Error| {
        PortError::new(ErrorKind::Unavailable, format!("lock {}", path.display())).caused_by(e)
    };
    fs::create_dir_all(directory).map_err(refused)?;
    let file = File::create(&path).map_err(refused)?;
    let until = Instant::now() + LOCK_WAIT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(PortError::new(
                    ErrorKind::Conflict,
                    format!("another process has {} open", directory.display()),
                ));
            }
            Err(TryLockError::Error(e)) => return Err(refused(e)),
        }
    }
}
