//! Where a world keeps its data: a directory, or topics, a keyspace and a znode of its own on the
//! real servers.
//!
//! Must not know: what is kept there.

use crate::random;
use anyhow::{Context as _, Result, ensure};
use chaski::config::Config;
use chaski_backends::{CoordinatorUrl, LogUrl, StoreUrl, migrate, open_coordinator, open_log};
use chaski_ports::{Clock as _, Coordinator, Expect, SystemClock};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer as _},
};
use scylla::client::session_builder::SessionBuilder;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::OnceCell;

/// A set of backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Set {
    /// All embedded, in a directory.
    Embedded,
    /// Kafka, CQL and ZooKeeper, named by the environment.
    Real,
}

impl Set {
    /// As in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Real => "real",
        }
    }
}

const PARTITIONS: u32 = 4;
const TOPICS: &str = "chaski-e2e-";
const KEYSPACE: &str = "chaski_e2e_";
/// Below the configured chroot.
const ZNODES: &str = "/e2e";
const OLD_S: i64 = 3600;

/// What runs of an hour ago and more left, because they were killed or ran in part, is removed once.
static SWEPT: OnceCell<()> = OnceCell::const_new();

/// A place for a world's data.
pub(crate) struct Place {
    set: Set,
    dir: TempDir,
    config: Config,
}

impl Place {
    /// A fresh place.
    ///
    /// # Panics
    /// Where a real server is not named.
    pub(crate) async fn new(set: Set) -> Result<Self> {
        let dir = TempDir::new()?;
        let config = Config {
            data: dir.path().into(),
            listen: "127.0.0.1:0".into(),
            admin_listen: "127.0.0.1:0".into(),
            partitions: PARTITIONS,
            log_filter: "off".into(),
            ..Config::default()
        };
        let mut place = Self { set, dir, config };
        if set == Set::Real {
            place.on_real_servers().await?;
        }
        Ok(place)
    }

    /// Configuration of a process that works here.
    pub(crate) fn config(&self) -> Config {
        self.config.clone()
    }

    async fn on_real_servers(&mut self) -> Result<()> {
        let (log, store, coordinator) = (
            server("CHASKI_LOG", "kafka://"),
            server("CHASKI_STORE", "scylla://"),
            server("CHASKI_COORDINATOR", "zookeeper://"),
        );
        let name = format!("{}_{}", SystemClock.now_ms() / 1000, random());
        let (nodes, _) = store.rsplit_once('/').context("CHASKI_STORE names a keyspace")?;
        self.config.topic_prefix = format!("{TOPICS}{name}.");
        self.config.store = format!("{nodes}/{KEYSPACE}{name}");
        self.config.coordinator = format!("{}{ZNODES}/{name}", coordinator.trim_end_matches('/'));
        self.config.log = log;
        SWEPT.get_or_try_init(|| self.sweep(&coordinator)).await?;
        let (urls, options) = (self.config.urls()?, self.config.backends());
        let topics = async {
            let log = open_log(&urls.log, &options).await?;
            log.create_topics(PARTITIONS).await
        };
        let tables = migrate(&urls.store, &options);
        tokio::try_join!(topics, tables)?;
        Ok(())
    }

    /// Removes what a world left here.
    pub(crate) async fn remove(self) -> Result<()> {
        if self.set == Set::Real {
            let urls = self.config.urls()?;
            if let LogUrl::Kafka(brokers) = &urls.log {
                delete_topics(brokers, |topic| topic.starts_with(&self.config.topic_prefix))
                    .await?;
            }
            if let StoreUrl::Scylla { nodes, keyspace } = &urls.store {
                drop_keyspaces(nodes, |name| name == keyspace).await?;
            }
            let (parent, name) =
                self.config.coordinator.rsplit_once('/').context("a znode of its own")?;
            let parent = parent.strip_suffix(ZNODES).context("below the configured chroot")?;
            delete_znodes(parent, |znode| znode == name).await?;
        }
        Ok(self.dir.close()?)
    }

    async fn sweep(&self, coordinator: &str) -> Result<()> {
        let now = SystemClock.now_ms() / 1000;
        let old = |name: &str, prefix: &str| {
            let at = name.strip_prefix(prefix).and_then(|rest| rest.split_once('_'));
            at.and_then(|(at, _)| at.parse().ok()).is_some_and(|at: i64| at < now - OLD_S)
        };
        let urls = self.config.urls()?;
        let LogUrl::Kafka(brokers) = &urls.log else { unreachable!("the scheme is checked") };
        delete_topics(brokers, |topic| old(topic, TOPICS)).await?;
        let StoreUrl::Scylla { nodes, .. } = &urls.store else {
            unreachable!("the scheme is checked")
        };
        drop_keyspaces(nodes, |keyspace| old(keyspace, KEYSPACE)).await?;
        delete_znodes(coordinator, |znode| old(znode, "")).await
    }
}

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

async fn delete_topics(brokers: &str, which: impl Fn(&str) -> bool) -> Result<()> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    let consumer: BaseConsumer = config.create()?;
    let listing = move || consumer.fetch_metadata(None, Duration::from_secs(10));
    let topics = tokio::task::spawn_blocking(listing).await??;
    let names: Vec<_> = topics.topics().iter().map(|topic| topic.name()).collect();
    let names: Vec<_> = names.into_iter().filter(|name| which(name)).collect();
    if names.is_empty() {
        return Ok(());
    }
    let admin: AdminClient<DefaultClientContext> = config.create()?;
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(10)));
    for deleted in admin.delete_topics(&names, &options).await? {
        ensure!(deleted.is_ok(), "delete a topic: {deleted:?}");
    }
    Ok(())
}

async fn drop_keyspaces(nodes: &[String], which: impl Fn(&str) -> bool) -> Result<()> {
    let session = SessionBuilder::new().known_nodes(nodes).build().await?;
    let keyspaces: Vec<String> = {
        let cluster = session.get_cluster_state();
        cluster.keyspaces_iter().map(|(name, _)| name.to_owned()).collect()
    };
    for keyspace in keyspaces.iter().filter(|name| which(name)) {
        session.query_unpaged(format!("DROP KEYSPACE IF EXISTS {keyspace}"), ()).await?;
    }
    Ok(())
}

async fn delete_znodes(parent: &str, which: impl Fn(&str) -> bool) -> Result<()> {
    let parent: CoordinatorUrl = parent.parse()?;
    let tree = open_coordinator(&parent, &chaski_backends::BackendOptions::default()).await?;
    if tree.get(ZNODES).await?.is_none() {
        return Ok(());
    }
    for znode in tree.children(ZNODES).await? {
        if which(&znode) {
            delete_tree(&*tree, format!("{ZNODES}/{znode}")).await?;
        }
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
