//! What all parts of one session share: the client, the conditional writes, and the background task
//! that deletes.

use crate::{
    error::{Access, port_error, session_over},
    registration::{Reap, Registry, reap_all},
};
use bytes::Bytes;
use chaski_ports::{ErrorKind, Expect, Node, PortError};
use std::{
    future::Future,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};
use tokio::{sync::mpsc, task::JoinHandle};
use zookeeper_client as zk;

pub(crate) const PERSISTENT: zk::CreateOptions<'static> =
    zk::CreateMode::Persistent.with_acls(zk::Acls::anyone_all());

/// L8: so many nodes can wait for their deletion.
const REAPS_MAX: usize = 1024;

pub(crate) struct Shared {
    pub(crate) client: zk::Client,
    pub(crate) registry: Arc<Registry>,
    pub(crate) reaps: mpsc::Sender<Reap>,
    /// Numbers the candidacies of this session.
    pub(crate) candidates: AtomicU64,
    pub(crate) operation_timeout: Duration,
    background: JoinHandle<()>,
}

impl Drop for Shared {
    /// What still waits to be deleted goes with the session, which ends when its last client does.
    fn drop(&mut self) {
        self.background.abort();
    }
}

impl Shared {
    pub(crate) fn new(client: zk::Client, operation_timeout: Duration) -> Arc<Self> {
        let (reaps, to_reap) = mpsc::channel(REAPS_MAX);
        let registry = Arc::new(Registry::default());
        let reaping = reap_all(client.clone(), Arc::clone(&registry), to_reap);
        #[expect(
            clippy::disallowed_methods,
            reason = "the adapter owns it: aborted when the last part of the session is dropped"
        )]
        let background = tokio::spawn(reaping);
        Arc::new(Self {
            client,
            registry,
            reaps,
            candidates: AtomicU64::new(0),
            operation_timeout,
            background,
        })
    }

    /// Waits for an answer, not for ever: the client keeps requests while it is disconnected.
    pub(crate) async fn answer<T>(
        &self,
        call: impl Future<Output = Result<T, zk::Error>>,
    ) -> Result<T, zk::Error> {
        let answered = tokio::time::timeout(self.operation_timeout, call).await;
        answered.unwrap_or(Err(zk::Error::Timeout))
    }

    /// A read that sees all that was written before it by anybody, not only by this session:
    /// the server catches up with the leader first. Both go out at once and are answered in order.
    pub(crate) async fn fresh<'a, T, F>(
        &'a self,
        read: impl FnOnce(&'a zk::Client) -> F,
    ) -> Result<T, zk::Error>
    where
        F: Future<Output = Result<T, zk::Error>> + 'a,
    {
        let caught_up = self.client.sync("/");
        let (caught_up, read) = tokio::join!(caught_up, read(&self.client));
        caught_up.and(read)
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Option<Node>, PortError> {
        let read = self.fresh(|client| client.get_data(path));
        match self.answer(read).await {
            Ok((data, stat)) => Ok(Some(node(data.into(), &stat))),
            Err(zk::Error::NoNode) => Ok(None),
            Err(error) => Err(port_error(error, Access::Read, format!("read {path}"))),
        }
    }

    /// Writes a node. With a `fence` the write takes place only while that node is there.
    pub(crate) async fn put(
        &self,
        fence: Option<&str>,
        path: &str,
        data: Bytes,
        expect: Expect,
    ) -> Result<Node, PortError> {
        let written = self.answer(self.put_expecting(fence, path, &data, expect)).await;
        let stat = written.map_err(|error| {
            let context = format!("write {path}");
            if error == zk::Error::NoNode || (fence.is_some() && session_over(&error)) {
                PortError::new(ErrorKind::Conflict, context).caused_by(error)
            } else {
                port_error(error, Access::Write, context)
            }
        })?;
        Ok(node(data, &stat))
    }

    async fn put_expecting(
        &self,
        fence: Option<&str>,
        path: &str,
        data: &[u8],
        expect: Expect,
    ) -> Result<zk::Stat, zk::Error> {
        match expect {
            Expect::Absent => self.create(fence, path, data).await,
            Expect::Version(version) => {
                self.set(fence, path, data, Some(known_version(version)?)).await
            }
            Expect::Anything => loop {
                match self.set(fence, path, data, None).await {
                    Err(zk::Error::NoNode) => {}
                    written => return written,
                }
                match self.create(fence, path, data).await {
                    Err(zk::Error::NodeExists) => {} // somebody was faster
                    written => return written,
                }
            },
        }
    }

    async fn set(
        &self,
        fence: Option<&str>,
        path: &str,
        data: &[u8],
        version: Option<i32>,
    ) -> Result<zk::Stat, zk::Error> {
        let Some(fence) = fence else {
            return self.client.set_data(path, data, version).await;
        };
        let mut writer = self.client.new_check_writer(fence, None)?;
        writer.add_set_data(path, data, version)?;
        match writer.commit().await?.pop() {
            Some(zk::MultiWriteResult::SetData { stat }) => Ok(stat),
            other => Err(unexpected(&other)),
        }
    }

    async fn create(
        &self,
        fence: Option<&str>,
        path: &str,
        data: &[u8],
    ) -> Result<zk::Stat, zk::Error> {
        let Some(fence) = fence else {
            return self.create_with_parents(path, data, zk::CreateMode::Persistent).await;
        };
        if let Some(parent) = parent(path) {
            self.client.mkdir(parent, &PERSISTENT).await?;
        }
        let mut writer = self.client.new_check_writer(fence, None)?;
        writer.add_create(path, data, &PERSISTENT)?;
        match writer.commit().await?.pop() {
            Some(zk::MultiWriteResult::Create { stat, .. }) => Ok(stat),
            other => Err(unexpected(&other)),
        }
    }

    pub(crate) async fn create_with_parents(
        &self,
        path: &str,
        data: &[u8],
        mode: zk::CreateMode,
    ) -> Result<zk::Stat, zk::Error> {
        let options = mode.with_acls(zk::Acls::anyone_all());
        match (self.client.create(path, data, &options).await, parent(path)) {
            (Err(zk::Error::NoNode), Some(parent)) => {
                self.client.mkdir(parent, &PERSISTENT).await?;
                let (stat, _) = self.client.create(path, data, &options).await?;
                Ok(stat)
            }
            (created, _) => created.map(|(stat, _)| stat),
        }
    }

    pub(crate) async fn delete(&self, path: &str, expect: Expect) -> Result<(), PortError> {
        let context = || format!("delete {path}");
        let version = match expect {
            Expect::Absent => {
                return match self.get(path).await? {
                    None => Ok(()),
                    Some(_) => Err(PortError::new(ErrorKind::Conflict, context())),
                };
            }
            Expect::Version(version) => known_version(version).map(Some),
            Expect::Anything => Ok(None),
        };
        let deleted = match version {
            Ok(version) => self.answer(self.client.delete(path, version)).await,
            Err(error) => Err(error),
        };
        match deleted {
            Err(zk::Error::NoNode) if expect == Expect::Anything => Ok(()),
            Err(zk::Error::NoNode) => Err(PortError::new(ErrorKind::Conflict, context())),
            deleted => deleted.map_err(|error| port_error(error, Access::Write, context())),
        }
    }
}

/// The version as ZooKeeper counts. What it cannot count cannot be there either; and its -1 would
/// mean "any".
fn known_version(version: i64) -> Result<i32, zk::Error> {
    i32::try_from(version).ok().filter(|version| *version >= 0).ok_or(zk::Error::BadVersion)
}

fn node(data: Bytes, stat: &zk::Stat) -> Node {
    Node { data, version: i64::from(stat.version), epoch: stat.mzxid.unsigned_abs() }
}

fn parent(path: &str) -> Option<&str> {
    match path.rfind('/') {
        None | Some(0) => None,
        Some(end) => Some(&path[..end]),
    }
}

fn unexpected(result: &Option<zk::MultiWriteResult>) -> zk::Error {
    zk::Error::UnexpectedError(format!("a conditional write was answered by {result:?}"))
}
