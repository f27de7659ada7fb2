//! The coordinator on ZooKeeper (3.9.5 or later): nodes, ephemerals, watches and leadership for
//! many processes.
//!
//! What the port calls epoch is the mzxid, what it calls version is the data version. All paths
//! lie below a chroot that is made on connecting. When a session has ended, the adapter opens the
//! next one by itself; what was registered, watched and led is made anew by who wants it.
//!
//! Must not know: what the nodes mean.

mod error;
mod lead;
mod registration;
mod sessions;
mod shared;
mod watch;

use async_trait::async_trait;
use bytes::Bytes;
use chaski_ports::{
    Coordinator, ErrorKind, Expect, Leadership, Node, PortError, Registration, Session, Watch,
};
use error::{Access, port_error};
use sessions::Sessions;
use std::{sync::Arc, time::Duration};
use tokio::task::JoinHandle;
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

/// A ZooKeeper ensemble, by one session at a time. The session is closed, and its ephemerals are
/// gone, when this value and all that came from it (registrations, watches, leaderships) are
/// dropped.
pub struct ZooKeeper {
    sessions: Arc<Sessions>,
    keeper: JoinHandle<()>,
}

impl Drop for ZooKeeper {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl ZooKeeper {
    /// Opens the first session and makes the chroot; waits at most about the session timeout.
    ///
    /// # Errors
    /// `Unavailable` where no server answers, `Invalid` where the options make no sense.
    pub async fn connect(options: ZooKeeperOptions) -> Result<Arc<Self>, PortError> {
        if options.servers.contains('/') {
            let context = format!("connect to zookeeper {}", options.servers);
            let error = PortError::new(ErrorKind::Invalid, context);
            return Err(error.caused_by("the chroot is an option of its own"));
        }
        let sessions = Arc::new(Sessions::open(options).await?);
        let kept = Arc::clone(&sessions);
        #[expect(
            clippy::disallowed_methods,
            reason = "the adapter owns it: aborted when it is dropped"
        )]
        let keeper = tokio::spawn(async move { kept.keep().await });
        Ok(Arc::new(Self { sessions, keeper }))
    }
}

#[async_trait]
impl Coordinator for ZooKeeper {
    async fn get(&self, path: &str) -> Result<Option<Node>, PortError> {
        self.sessions.present()?.get(path).await
    }

    async fn children(&self, path: &str) -> Result<Vec<String>, PortError> {
        let context = || format!("list the children of {path}");
        let session = self.sessions.present()?;
        let list = session.fresh(|client| client.list_children(path));
        match session.answer(list).await {
            Ok(mut names) => {
                names.sort_unstable();
                Ok(names)
            }
            Err(zk::Error::NoNode) => Ok(Vec::new()),
            Err(error) => Err(port_error(error, Access::Read, context())),
        }
    }

    async fn put(&self, path: &str, data: Bytes, expect: Expect) -> Result<Node, PortError> {
        self.sessions.present()?.put(None, path, data, expect).await
    }

    async fn delete(&self, path: &str, expect: Expect) -> Result<(), PortError> {
        self.sessions.present()?.delete(path, expect).await
    }

    async fn register(&self, path: &str, data: Bytes) -> Result<Box<dyn Registration>, PortError> {
        let registered = registration::register(&self.sessions.present()?, path, &data).await?;
        Ok(Box::new(registered))
    }

    async fn watch(&self, path: &str) -> Result<Box<dyn Watch>, PortError> {
        let watch = watch::NodeWatch::new(&self.sessions.present()?, path).await?;
        Ok(Box::new(watch))
    }

    async fn lead(&self, path: &str, id: &str) -> Result<Box<dyn Leadership>, PortError> {
        let leading = lead::lead(&self.sessions.present()?, path, id).await?;
        Ok(Box::new(leading))
    }

    fn session(&self) -> tokio::sync::watch::Receiver<Session> {
        self.sessions.told()
    }

    async fn end_session(&self) -> Result<(), PortError> {
        self.sessions.end().await
    }
}
