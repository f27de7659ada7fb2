//! The stores on CQL: ScyllaDB or Apache Cassandra 5. Tables stand in `infra/scylla/schema`.
//!
//! Every write may be repeated and reordered without harm: immutable rows have deterministic keys and
//! the record's time as write timestamp, mutable cells have their version as timestamp, and claims
//! are lightweight transactions. So "unknown" (a timeout) is answered by doing it again.
//!
//! Must not know: what the payloads hold, or which service asks.

mod chats;
mod checkpoints;
mod connections;
mod db;
mod devices;
mod error;
mod keys;
mod migrate;
mod options;
mod read;
mod registry;
mod snapshots;
mod statements;
mod vector;
mod write;

pub use options::CqlOptions;

use chaski_core::{
    ChatId, Partition, Position, UserId,
    record::{RequestId, UnixMs},
};
use chaski_ports::{
    Clock, ErrorKind, HistoryRange, InboxDay, MessageStore, PortError, StoreBatch, Stored,
};
use db::Db;
use parking_lot::Mutex;
use registry::Registry;
use statements::Statements;
use std::{collections::HashMap, sync::Arc};

/// The stores on CQL. One for a process; all its requests share two connections per node (per
/// shard, on ScyllaDB).
pub struct CqlStore {
    db: Db,
    statements: Statements,
    clock: Arc<dyn Clock>,
    inbox_ttl_ms: UnixMs,
    chat_buckets: Registry<(ChatId, i32)>,
    inbox_buckets: Registry<(i32, i64)>,
    /// How many watermarks were saved since the last trim, by (role, partition).
    saves: Mutex<HashMap<(Box<str>, i32), u32>>,
}

impl CqlStore {
    /// Connects to a migrated keyspace and prepares everything once.
    ///
    /// # Errors
    /// `Unavailable` where no node answers; `Invalid`, saying "run chaski migrate", where the
    /// schema's version is not the one this program was built with.
    pub async fn connect(
        options: CqlOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, PortError> {
        options.check()?;
        let session = options.session().await?;
        migrate::check_version(&session, &options.keyspace).await?;
        // The statements are large: not on the stack of whoever connects.
        let statements = Box::pin(Statements::prepare(&session, &options.keyspace)).await?;
        Ok(Arc::new(Self {
            db: Db::new(session),
            statements,
            clock,
            inbox_ttl_ms: UnixMs::try_from(options.inbox_ttl.as_millis()).unwrap_or(UnixMs::MAX),
            chat_buckets: Registry::permanent(),
            inbox_buckets: Registry::refreshed_daily(),
            saves: Mutex::default(),
        }))
    }

    /// Makes the keyspace if it is missing and applies the migrations that are not applied yet.
    /// Two at once are safe: one works, the other waits for it. Gives the names of those applied.
    ///
    /// # Errors
    /// `Invalid` where the schema is newer than this program, `Conflict` where another migration
    /// does not come to an end.
    pub async fn migrate(options: &CqlOptions) -> Result<Vec<String>, PortError> {
        options.check()?;
        migrate::migrate(options).await
    }
}

#[async_trait::async_trait]
impl MessageStore for CqlStore {
    async fn write(&self, batch: StoreBatch) -> Result<(), PortError> {
        self.write_batch(&batch).await
    }

    async fn history(
        &self,
        chat: &ChatId,
        range: HistoryRange,
        limit: usize,
    ) -> Result<Vec<Stored>, PortError> {
        match range {
            HistoryRange::After(seq) => self.history_after(chat, seq, limit).await,
            HistoryRange::Before(seq) => self.history_before(chat, seq, limit).await,
        }
    }

    async fn items(
        &self,
        places: &[(ChatId, u64)],
    ) -> Result<Vec<Option<bytes::Bytes>>, PortError> {
        self.read_items(places).await
    }

    async fn hidden(
        &self,
        user: &UserId,
        chat: &ChatId,
        places: (u64, u64),
    ) -> Result<Vec<u64>, PortError> {
        self.read_hidden(user, chat, places).await
    }

    async fn inbox(
        &self,
        partition: Partition,
        user: &UserId,
        (after, upto): (Position, Position),
        limit: usize,
    ) -> Result<Vec<Stored>, PortError> {
        self.read_inbox(partition, user, (after.0, upto.0), limit).await
    }

    async fn inbox_days(&self, partition: Partition) -> Result<Vec<InboxDay>, PortError> {
        self.read_inbox_days(partition).await
    }

    async fn verdict(&self, request: &RequestId) -> Result<Option<bytes::Bytes>, PortError> {
        let rows: Vec<(bytes::Bytes,)> =
            self.db.rows("verdict", &self.statements.verdict, (&request[..],), 1).await?;
        Ok(rows.into_iter().next().map(|(verdict,)| verdict))
    }
}

impl std::fmt::Debug for CqlStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CqlStore").finish_non_exhaustive()
    }
}

fn invalid(context: impl Into<String>) -> PortError {
    PortError::new(ErrorKind::Invalid, context)
}
