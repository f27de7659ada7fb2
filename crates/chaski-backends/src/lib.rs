//! From URLs to ports: the one place that knows all backends. Seen only by `main`s and tests.
//!
//! Must not know: what a service does with its ports.

mod urls;

pub use chaski_coordinator_zookeeper::ZooKeeperOptions;
pub use chaski_embedded::EmbeddedOptions;
pub use chaski_log_kafka::KafkaOptions;
pub use chaski_store_cql::CqlOptions;
pub use urls::{CoordinatorUrl, IllegalUrl, LogUrl, StoreUrl, Urls};

use chaski_coordinator_zookeeper::ZooKeeper;
use chaski_embedded::{Embedded, WeakEmbedded};
use chaski_log_kafka::KafkaLog;
use chaski_ports::{
    ChatStore, CheckpointStore, Clock, ConnectionStore, Coordinator, DeviceStore, ErrorKind, Log,
    MessageStore, PortError, Ports, SystemClock,
};
use chaski_store_cql::CqlStore;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// What a URL does not say. Each backend's own options; what its URL says replaces theirs.
#[derive(Clone)]
pub struct BackendOptions {
    /// How many days inboxes keep a row, from its record's time on. 30.
    pub inbox_days: u32,
    /// For `embedded:`; its clock is replaced by `clock`, its `inbox_ttl` by `inbox_days`.
    pub embedded: EmbeddedOptions,
    /// For `kafka:`; the topic prefix among them (`chaski.`).
    pub kafka: KafkaOptions,
    /// For `scylla:`; its `inbox_ttl` is replaced by `inbox_days`.
    pub cql: CqlOptions,
    /// For `zookeeper:`.
    pub zookeeper: ZooKeeperOptions,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

impl Default for BackendOptions {
    fn default() -> Self {
        Self {
            inbox_days: 30,
            embedded: EmbeddedOptions::default(),
            kafka: KafkaOptions::default(),
            cql: CqlOptions::default(),
            zookeeper: ZooKeeperOptions::default(),
            clock: Arc::new(SystemClock),
        }
    }
}

/// The stores, which one backend gives together.
#[derive(Clone)]
pub struct Stores {
    /// Messages, inboxes.
    pub messages: Arc<dyn MessageStore>,
    /// Chats, memberships, marks.
    pub chats: Arc<dyn ChatStore>,
    /// Contacts, blocks, settings.
    pub connections: Arc<dyn ConnectionStore>,
    /// Devices.
    pub devices: Arc<dyn DeviceStore>,
    /// Watermarks, snapshots, claims.
    pub checkpoints: Arc<dyn CheckpointStore>,
}

impl Stores {
    /// All that a process uses.
    #[must_use]
    pub fn into_ports(
        self,
        log: Arc<dyn Log>,
        coordinator: Arc<dyn Coordinator>,
        options: &BackendOptions,
    ) -> Ports {
        let Self { messages, chats, connections, devices, checkpoints } = self;
        let clock = Arc::clone(&options.clock);
        Ports { log, messages, chats, connections, devices, checkpoints, coordinator, clock }
    }
}

/// Opens all backends of a process; none is waited for.
///
/// # Errors
/// The first one's that cannot be opened; its context names the backend.
pub async fn open(urls: &Urls, options: &BackendOptions) -> Result<Ports, PortError> {
    let (log, stores, coordinator) = tokio::try_join!(
        open_log(&urls.log, options),
        open_stores(&urls.store, options),
        open_coordinator(&urls.coordinator, options),
    )?;
    Ok(stores.into_ports(log, coordinator, options))
}

/// Opens the log alone.
///
/// # Errors
/// As the backend's own.
pub async fn open_log(url: &LogUrl, options: &BackendOptions) -> Result<Arc<dyn Log>, PortError> {
    match url {
        LogUrl::Embedded(path) => Ok(open_embedded(path, options).await?.log()),
        LogUrl::Kafka(brokers) => {
            let options = KafkaOptions { brokers: brokers.clone(), ..options.kafka.clone() };
            Ok(KafkaLog::connect(options).await?)
        }
    }
}

/// Opens the stores alone.
///
/// # Errors
/// As the backend's own.
pub async fn open_stores(url: &StoreUrl, options: &BackendOptions) -> Result<Stores, PortError> {
    match url {
        StoreUrl::Embedded(path) => {
            let embedded = open_embedded(path, options).await?;
            Ok(Stores {
                messages: embedded.messages(),
                chats: embedded.chats(),
                connections: embedded.connections(),
                devices: embedded.devices(),
                checkpoints: embedded.checkpoints(),
            })
        }
        StoreUrl::Scylla { nodes, keyspace } => {
            let cql = cql_options(nodes, keyspace, options);
            let store = Box::pin(CqlStore::connect(cql, Arc::clone(&options.clock))).await?;
            Ok(Stores {
                messages: Arc::clone(&store) as _,
                chats: Arc::clone(&store) as _,
                connections: Arc::clone(&store) as _,
                devices: Arc::clone(&store) as _,
                checkpoints: store,
            })
        }
    }
}

/// Opens the coordinator alone.
///
/// # Errors
/// As the backend's own.
pub async fn open_coordinator(
    url: &CoordinatorUrl,
    options: &BackendOptions,
) -> Result<Arc<dyn Coordinator>, PortError> {
    match url {
        CoordinatorUrl::Embedded(path) => Ok(open_embedded(path, options).await?.coordinator()),
        CoordinatorUrl::ZooKeeper { servers, chroot } => {
            let options = ZooKeeperOptions {
                servers: servers.clone(),
                chroot: chroot.clone(),
                ..options.zookeeper.clone()
            };
            Ok(ZooKeeper::connect(options).await?)
        }
    }
}

/// Brings a store's tables up to date; gives the names of what was applied. The embedded store
/// needs none.
///
/// # Errors
/// As the backend's own.
pub async fn migrate(url: &StoreUrl, options: &BackendOptions) -> Result<Vec<String>, PortError> {
    match url {
        StoreUrl::Embedded(_) => Ok(Vec::new()),
        StoreUrl::Scylla { nodes, keyspace } => {
            CqlStore::migrate(&cql_options(nodes, keyspace, options)).await
        }
    }
}

fn cql_options(nodes: &[String], keyspace: &str, options: &BackendOptions) -> CqlOptions {
    CqlOptions {
        nodes: nodes.to_vec(),
        keyspace: keyspace.to_owned(),
        inbox_ttl: inbox_ttl(options),
        ..options.cql.clone()
    }
}

fn inbox_ttl(options: &BackendOptions) -> Duration {
    Duration::from_secs(u64::from(options.inbox_days) * 24 * 3_600)
}

/// The directories this process has open. Process-wide like the lock on the directory, so that
/// three URLs with one path are one [`Embedded`].
static OPEN: Mutex<Option<HashMap<PathBuf, WeakEmbedded>>> = Mutex::new(None);

async fn open_embedded(path: &Path, options: &BackendOptions) -> Result<Embedded, PortError> {
    let (path, clock) = (path.to_owned(), Arc::clone(&options.clock));
    let inbox_ttl = inbox_ttl(options);
    let options = EmbeddedOptions { clock, inbox_ttl, ..options.embedded.clone() };
    let open = move || {
        let refused = |e: std::io::Error| {
            let context = format!("open embedded:{}", path.display());
            PortError::new(ErrorKind::Unavailable, context).caused_by(e)
        };
        std::fs::create_dir_all(&path).map_err(refused)?;
        let path = path.canonicalize().map_err(refused)?;
        // Held while it opens: whoever comes meanwhile wants the same one.
        let mut open = OPEN.lock();
        let open = open.get_or_insert_default();
        open.retain(|_, embedded| embedded.upgrade().is_some());
        if let Some(embedded) = open.get(&path).and_then(WeakEmbedded::upgrade) {
            return Ok(embedded);
        }
        let embedded = Embedded::open(&path, options)?;
        open.insert(path, embedded.downgrade());
        Ok(embedded)
    };
    tokio::task::spawn_blocking(open).await.unwrap_or_else(|e| {
        Err(PortError::new(ErrorKind::Unavailable, "open embedded").caused_by(e))
    })
}
