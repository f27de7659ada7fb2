//! How each backend lends the suite a fresh place, and takes it back.

use anyhow::{Context, Result};
use chaski_backends::{
    BackendOptions, CoordinatorUrl, LogUrl, StoreUrl, Stores, migrate, open_coordinator, open_log,
    open_stores,
};
use chaski_ports::{
    ChatStore, CheckpointStore, ConnectionStore, Coordinator, DeviceStore, Expect, Log,
    MessageStore, Topic,
};
use chaski_ports_conformance::{
    Beside, Fixture, INBOX_DAYS, LogFixture, chats_cases, checkpoints_cases, connections_cases,
    devices_cases, messages_cases,
};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
};
use scylla::client::session_builder::SessionBuilder;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tempfile::TempDir;
use tokio::sync::OnceCell;

/// The URL of a real server.
fn server(variable: &str, scheme: &str) -> String {
    let url = std::env::var(variable).unwrap_or_default();
    assert!(
        url.starts_with(scheme),
        "{variable} must name a {scheme}… server (is {url:?}): these cases need a real one. \
         `infra/local/backends.sh up` starts one and prints the variable",
    );
    url
}

fn random() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// Where a fixture's data is, and how it is taken back.
enum Place {
    Directory(TempDir),
    Topics { brokers: String, prefix: String },
    Keyspace,
    Chroot { parent: CoordinatorUrl, name: String },
}

/// A log in a place of its own.
pub(crate) struct LogPlace {
    url: LogUrl,
    options: BackendOptions,
    place: Place,
}

/// A log in a directory.
pub(crate) async fn embedded_log() -> LogPlace {
    let directory = TempDir::new().expect("a temporary directory");
    LogPlace {
        url: LogUrl::Embedded(directory.path().into()),
        options: BackendOptions::default(),
        place: Place::Directory(directory),
    }
}

/// A log on Kafka, with a topic prefix of its own.
pub(crate) async fn kafka_log() -> LogPlace {
    let url = server("CHASKI_LOG", "kafka://").parse().expect("a legal URL");
    let LogUrl::Kafka(brokers) = &url else { unreachable!("the scheme is checked") };
    let prefix = format!("chaski-test-{}.", random());
    let mut options = BackendOptions::default();
    options.kafka.topic_prefix.clone_from(&prefix);
    let brokers = brokers.clone();
    let place = Place::Topics { brokers, prefix };
    LogPlace { url, options, place }
}

impl Fixture for LogPlace {
    type Port = dyn Log;

    async fn open(&self) -> Result<Arc<dyn Log>> {
        Ok(open_log(&self.url, &self.options).await?)
    }

    async fn clean_up(self) -> Result<()> {
        self.place.clean_up().await
    }
}

impl LogFixture for LogPlace {
    async fn open_small(&self) -> Result<Arc<dyn Log>> {
        let mut small = self.options.clone();
        small.embedded.queue_bytes_max = Self::SMALL_QUEUE as u32 * 10_000;
        small.kafka.producer_records_max = Self::SMALL_QUEUE as u32;
        Ok(open_log(&self.url, &small).await?)
    }
}

/// All stores in a place of their own, of which a suite takes one port.
pub(crate) struct StorePlace<P: ?Sized> {
    url: StoreUrl,
    pick: fn(Stores) -> Arc<P>,
    place: Place,
}

/// Which of the stores a suite is for.
pub(crate) trait Pick {
    fn pick(stores: Stores) -> Arc<Self>;
}
impl Pick for dyn MessageStore {
    fn pick(stores: Stores) -> Arc<Self> {
        stores.messages
    }
}
impl Pick for Beside<dyn ChatStore> {
    fn pick(stores: Stores) -> Arc<Self> {
        Arc::new(Self { port: stores.chats, messages: stores.messages })
    }
}
impl Pick for Beside<dyn ConnectionStore> {
    fn pick(stores: Stores) -> Arc<Self> {
        Arc::new(Self { port: stores.connections, messages: stores.messages })
    }
}
impl Pick for dyn DeviceStore {
    fn pick(stores: Stores) -> Arc<Self> {
        stores.devices
    }
}
impl Pick for dyn CheckpointStore {
    fn pick(stores: Stores) -> Arc<Self> {
        stores.checkpoints
    }
}

/// Stores in a directory.
pub(crate) async fn embedded_store<P: Pick + ?Sized>() -> StorePlace<P> {
    let directory = TempDir::new().expect("a temporary directory");
    StorePlace {
        url: StoreUrl::Embedded(directory.path().into()),
        pick: P::pick,
        place: Place::Directory(directory),
    }
}

/// Stores in the process's keyspace; the cases use random ids in it.
pub(crate) async fn cql_store<P: Pick + ?Sized>() -> StorePlace<P> {
    let keyspace = KEYSPACE.get_or_init(make_keyspace).await;
    StorePlace { url: keyspace.clone(), pick: P::pick, place: Place::Keyspace }
}

impl<P: ?Sized> Fixture for StorePlace<P> {
    type Port = P;

    async fn open(&self) -> Result<Arc<P>> {
        let options = BackendOptions { inbox_days: INBOX_DAYS, ..BackendOptions::default() };
        let stores = open_stores(&self.url, &options).await?;
        Ok((self.pick)(stores))
    }

    async fn clean_up(self) -> Result<()> {
        self.place.clean_up().await
    }
}

/// A coordinator in a place of its own.
pub(crate) struct CoordinatorPlace {
    url: CoordinatorUrl,
    place: Place,
}

/// A coordinator in memory.
pub(crate) async fn embedded_coordinator() -> CoordinatorPlace {
    let directory = TempDir::new().expect("a temporary directory");
    CoordinatorPlace {
        url: CoordinatorUrl::Embedded(directory.path().into()),
        place: Place::Directory(directory),
    }
}

/// A coordinator on ZooKeeper, below a node of its own.
pub(crate) async fn zookeeper_coordinator() -> CoordinatorPlace {
    let parent: CoordinatorUrl =
        server("CHASKI_COORDINATOR", "zookeeper://").parse().expect("a legal URL");
    let CoordinatorUrl::ZooKeeper { servers, chroot } = &parent else {
        unreachable!("the scheme is checked")
    };
    let name = format!("/test-{}", random());
    let url =
        CoordinatorUrl::ZooKeeper { servers: servers.clone(), chroot: format!("{chroot}{name}") };
    let place = Place::Chroot { parent, name };
    CoordinatorPlace { url, place }
}

impl Fixture for CoordinatorPlace {
    type Port = dyn Coordinator;

    async fn open(&self) -> Result<Arc<dyn Coordinator>> {
        Ok(open_coordinator(&self.url, &BackendOptions::default()).await?)
    }

    async fn clean_up(self) -> Result<()> {
        self.place.clean_up().await
    }
}

impl Place {
    async fn clean_up(self) -> Result<()> {
        match self {
            Self::Directory(directory) => Ok(directory.close()?),
            Self::Topics { brokers, prefix } => delete_topics(&brokers, &prefix).await,
            Self::Keyspace => drop_keyspace_after_the_last().await,
            Self::Chroot { parent, name } => {
                let tree = open_coordinator(&parent, &BackendOptions::default()).await?;
                delete_tree(&*tree, name).await
            }
        }
    }
}

async fn delete_topics(brokers: &str, prefix: &str) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).create()?;
    let names = Topic::ALL.map(|topic| format!("{prefix}{}", topic.name()));
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(10)));
    for deleted in admin.delete_topics(&names, &options).await? {
        deleted.map_err(|(topic, code)| anyhow::anyhow!("delete {topic}: {code}"))?;
    }
    Ok(())
}

async fn delete_tree(tree: &dyn Coordinator, root: String) -> Result<()> {
    let (mut open, mut found) = (vec![root], Vec::new());
    while let Some(path) = open.pop() {
        let children = tree.children(&path).await?;
        open.extend(children.into_iter().map(|name| format!("{path}/{name}")));
        found.push(path);
    }
    // Children were found after their parents.
    for path in found.into_iter().rev() {
        tree.delete(&path, Expect::Anything).await?;
    }
    Ok(())
}

const KEYSPACE_PREFIX: &str = "chaski_test_";
/// One keyspace for the process: making one takes Cassandra seconds.
static KEYSPACE: OnceCell<StoreUrl> = OnceCell::const_new();
static CASES_ENDED: AtomicUsize = AtomicUsize::new(0);

macro_rules! count {
    ($suite:ident : $($case:ident)+) => {
        [$(stringify!($case)),+].len()
    };
}

async fn make_keyspace() -> StoreUrl {
    let StoreUrl::Scylla { nodes, .. } =
        server("CHASKI_STORE", "scylla://").parse().expect("a legal URL")
    else {
        unreachable!("the scheme is checked")
    };
    drop_old_keyspaces(&nodes).await.expect("the server is reachable");
    let (now, random) = (now_s(), random());
    let url =
        StoreUrl::Scylla { nodes, keyspace: format!("{KEYSPACE_PREFIX}{now}_{}", &random[..8]) };
    migrate(&url, &BackendOptions::default()).await.expect("migrate");
    url
}

#[expect(clippy::disallowed_methods, reason = "names a keyspace that outlives the process")]
fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// Drops what runs of more than an hour ago left, because they were killed or ran in part.
async fn drop_old_keyspaces(nodes: &[String]) -> Result<()> {
    let session = SessionBuilder::new().known_nodes(nodes).build().await?;
    let old = now_s() - 3_600;
    let keyspaces: Vec<String> = {
        let cluster = session.get_cluster_state();
        cluster.keyspaces_iter().map(|(name, _)| name.to_owned()).collect()
    };
    for keyspace in keyspaces {
        let made = keyspace.strip_prefix(KEYSPACE_PREFIX).and_then(|rest| rest.split_once('_'));
        if made.and_then(|(at, _)| at.parse().ok()).is_some_and(|at: u64| at < old) {
            session.query_unpaged(format!("DROP KEYSPACE IF EXISTS {keyspace}"), ()).await?;
        }
    }
    Ok(())
}

/// There is no hook behind the last test, so the last case of a whole run does it.
async fn drop_keyspace_after_the_last() -> Result<()> {
    let all = messages_cases!(count)
        + chats_cases!(count)
        + connections_cases!(count)
        + devices_cases!(count)
        + checkpoints_cases!(count);
    if CASES_ENDED.fetch_add(1, Ordering::SeqCst) + 1 < all {
        return Ok(());
    }
    let Some(StoreUrl::Scylla { nodes, keyspace }) = KEYSPACE.get() else {
        return Ok(());
    };
    let session = SessionBuilder::new().known_nodes(nodes).build().await?;
    let dropped = session.query_unpaged(format!("DROP KEYSPACE IF EXISTS {keyspace}"), ()).await;
    dropped.map(|_| ()).with_context(|| format!("drop {keyspace}"))
}
