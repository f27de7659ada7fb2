//! The coordinator on ZooKeeper (3.9.5 or later): nodes, ephemerals, watches and leadership for
//! many processes.
//!
//! What the port calls epoch is the mzxid, what it calls version is the data version. All paths
//! lie below a chroot that is made on connecting. A session that has expired stays expired: every
//! later call fails for good, and whoever owns this adapter builds a new one.
//!
//! Must not know: what the nodes mean.

mod error;
mod lead;
mod registration;
mod shared;
mod watch;

use async_trait::async_trait;
use bytes::Bytes;
use chaski_ports::{
    Coordinator, ErrorKind, Expect, Leadership, Node, PortError, Registration, Session, Watch,
};
use error::{Access, port_error};
use shared::{PERSISTENT, Shared};
use std::{sync::Arc, time::Duration};
use zookeeper_client as zk;

/// How to reach ZooKeeper.
#[derive(Clone, Debug)]
pub struct ZooKeeperOptions {
    /// The servers, `host:port,host:port`.
    pub servers: String,
    /// All paths lie below this one: `/chaski`, or empty for the root. Made if it is not there.
    pub chroot: String,
    /// After this time without contact the ensemble ends the session. Short: the partitions of a
    /// dead host move soon; long: a long pause of a process does no harm.
    pub session_timeout: Duration,
    /// The longest wait for the answer to one call; after it the call is `Unavailable` or, for a
    /// write, `Unknown`. While the session is suspended, calls wait up to this time.
    pub operation_timeout: Duration,
}

impl Default for ZooKeeperOptions {
    fn default() -> Self {
        Self {
            servers: String::new(),
            chroot: "/chaski".into(),
            session_timeout: Duration::from_secs(6),
            operation_timeout: Duration::from_secs(5),
        }
    }
}

/// One session with a ZooKeeper ensemble. It is closed, and its ephemerals are gone, when this
/// value and all that came from it (registrations, watches, leaderships) are dropped.
pub struct ZooKeeper {
    shared: Arc<Shared>,
}

impl ZooKeeper {
    /// Opens a session and makes the chroot; waits at most about the session timeout.
    ///
    /// # Errors
    /// `Unavailable` where no server answers, `Invalid` where the options make no sense.
    pub async fn connect(options: ZooKeeperOptions) -> Result<Arc<Self>, PortError> {
        let context = format!("connect to zookeeper {}", options.servers);
        if options.servers.contains('/') {
            let error = PortError::new(ErrorKind::Invalid, context);
            return Err(error.caused_by("the chroot is an option of its own"));
        }
        let client = zk::Client::connector()
            .with_session_timeout(options.session_timeout)
            .connect(&options.servers)
            .await
            .map_err(|error| port_error(error, Access::Read, context.clone()))?;
        let chroot = options.chroot.trim_end_matches('/');
        let client = if chroot.is_empty() {
            client
        } else {
            let made = client.mkdir(chroot, &PERSISTENT).await;
            made.map_err(|error| port_error(error, Access::Write, format!("make {chroot}")))?;
            client
                .chroot(chroot.to_owned())
                .map_err(|_| PortError::new(ErrorKind::Invalid, format!("{chroot} is no chroot")))?
        };
        Ok(Arc::new(Self { shared: Shared::new(client, options.operation_timeout) }))
    }
}

#[async_trait]
impl Coordinator for ZooKeeper {
    async fn get(&self, path: &str) -> Result<Option<Node>, PortError> {
        self.shared.get(path).await
    }

    async fn children(&self, path: &str) -> Result<Vec<String>, PortError> {
        let context = || format!("list the children of {path}");
        let list = self.shared.fresh(|client| client.list_children(path));
        match self.shared.answer(list).await {
            Ok(mut names) => {
                names.sort_unstable();
                Ok(names)
            }
            Err(zk::Error::NoNode) => Ok(Vec::new()),
            Err(error) => Err(port_error(error, Access::Read, context())),
        }
    }

    async fn put(&self, path: &str, data: Bytes, expect: Expect) -> Result<Node, PortError> {
        self.shared.put(None, path, data, expect).await
    }

    async fn delete(&self, path: &str, expect: Expect) -> Result<(), PortError> {
        self.shared.delete(path, expect).await
    }

    async fn register(&self, path: &str, data: Bytes) -> Result<Box<dyn Registration>, PortError> {
        let registered = registration::register(&self.shared, path, &data).await?;
        Ok(Box::new(registered))
    }

    async fn watch(&self, path: &str) -> Result<Box<dyn Watch>, PortError> {
        let watch = watch::NodeWatch::new(&self.shared, path).await?;
        Ok(Box::new(watch))
    }

    async fn lead(&self, path: &str, id: &str) -> Result<Box<dyn Leadership>, PortError> {
        let leading = lead::lead(&self.shared, path, id).await?;
        Ok(Box::new(leading))
    }

    fn session(&self) -> tokio::sync::watch::Receiver<Session> {
        self.shared.session.clone()
    }
}
