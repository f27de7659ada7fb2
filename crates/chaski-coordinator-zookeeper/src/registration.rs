//! Ephemeral nodes: making one exactly once, whatever happens to the connection meanwhile, and
//! deleting it in the background when its owner drops it.

use crate::{
    error::{Access, connection_lost, port_error, session_over},
    shared::Shared,
};
use async_trait::async_trait;
use bytes::Bytes;
use chaski_ports::{ErrorKind, PortError, Registration};
use parking_lot::Mutex;
use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};
use tokio::sync::{Notify, mpsc};
use zookeeper_client as zk;

/// Makes the ephemeral node.
pub(crate) async fn register(
    shared: &Arc<Shared>,
    path: &str,
    data: &[u8],
) -> Result<Registered, PortError> {
    let context = || format!("register {path}");
    if shared.client.state().is_terminated() {
        // What this session still holds on paper is gone.
        return Err(port_error(zk::Error::SessionExpired, Access::Read, context()));
    }
    let reserving = async { Ok(reserve(shared, path).await) };
    let reserved = shared.answer(reserving).await;
    // Nothing was asked of the server yet: as a read, a timeout here is `Unavailable`.
    let reserved = reserved.map_err(|error| port_error(error, Access::Read, context()))?;
    // From here on a failure or a dropped wait deletes what may have been made.
    let registered = reserved.ok_or_else(|| PortError::new(ErrorKind::Conflict, context()))?;
    let made = shared.answer(make(shared, path, data)).await;
    made.map_err(|error| port_error(error, Access::Write, context()))?;
    Ok(registered)
}

/// Takes the path for one registration of this session; `None` where another one has it. Waits
/// while a dropped one is still being deleted.
async fn reserve(shared: &Arc<Shared>, path: &str) -> Option<Registered> {
    loop {
        let mut released = std::pin::pin!(shared.registry.released.notified());
        released.as_mut().enable();
        match shared.registry.paths.lock().entry(path.to_owned()) {
            Entry::Vacant(free) => {
                free.insert(Held::Live);
                return Some(Registered { shared: Arc::clone(shared), path: path.to_owned() });
            }
            Entry::Occupied(held) if *held.get() == Held::Live => return None,
            Entry::Occupied(_) => {}
        }
        released.await;
    }
}

async fn make(shared: &Shared, path: &str, data: &[u8]) -> Result<(), zk::Error> {
    loop {
        let mode = zk::CreateMode::Ephemeral;
        match shared.create_with_parents(path, data, mode).await {
            Ok(_) => return Ok(()),
            Err(error) if connection_lost(&error) => {} // made or not: the next turn tells
            Err(zk::Error::NodeExists) => match adopt(shared, path, data).await {
                Err(zk::Error::NoNode) => {} // the older session's node has just gone
                Err(error) if connection_lost(&error) => {}
                adopted => return adopted,
            },
            Err(error) => return Err(error),
        }
    }
}

/// Takes over a node that this session made without hearing so.
async fn adopt(shared: &Shared, path: &str, data: &[u8]) -> Result<(), zk::Error> {
    let stat = shared.client.check_stat(path).await?;
    if stat.ok_or(zk::Error::NoNode)?.ephemeral_owner != shared.client.session_id().0 {
        return Err(zk::Error::NodeExists);
    }
    shared.client.set_data(path, data, None).await.map(drop)
}

/// An ephemeral node of this session.
pub(crate) struct Registered {
    shared: Arc<Shared>,
    path: String,
}

#[async_trait]
impl Registration for Registered {
    async fn update(&self, data: Bytes) -> Result<(), PortError> {
        let context = || format!("update {}", self.path);
        let set = self.shared.client.set_data(&self.path, &data, None);
        match self.shared.answer(set).await {
            Ok(_) => Ok(()),
            // With its session the node has gone.
            Err(error) if error == zk::Error::NoNode || session_over(&error) => {
                let gone = PortError::new(ErrorKind::Conflict, context());
                Err(gone.caused_by(error))
            }
            Err(error) => Err(port_error(error, Access::Write, context())),
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let path = std::mem::take(&mut self.path);
        let registry = &self.shared.registry;
        registry.paths.lock().insert(path.clone(), Held::Releasing);
        if let Err(refused) = self.shared.reaps.try_send(Reap::Node(path)) {
            let Reap::Node(path) = refused.into_inner() else {
                return;
            };
            not_reaped(&path);
            registry.release(&path);
        }
    }
}

/// The paths that registrations of this session hold.
#[derive(Default)]
pub(crate) struct Registry {
    paths: Mutex<HashMap<String, Held>>,
    released: Notify,
}

#[derive(PartialEq, Eq)]
enum Held {
    Live,
    Releasing,
}

impl Registry {
    fn release(&self, path: &str) {
        self.paths.lock().remove(path);
        self.released.notify_waiters();
    }
}

/// What is to be deleted in the background.
pub(crate) enum Reap {
    /// An ephemeral node, if it is this session's.
    Node(String),
    /// A candidate for leadership: the children of a directory whose name begins so.
    Candidate { directory: String, prefix: String },
}

/// The queue of deletions is full: the node stays until the session ends.
pub(crate) fn not_reaped(path: &str) {
    metrics::counter!("chaski_coordinator_reaps_refused_total").increment(1);
    tracing::error!(path, "node is not deleted before the session ends");
}

/// Deletes what it is told to, one after the other, until the session is over.
pub(crate) async fn reap_all(
    client: zk::Client,
    registry: Arc<Registry>,
    mut to_reap: mpsc::Receiver<Reap>,
) {
    while let Some(reap) = to_reap.recv().await {
        loop {
            match reap_one(&client, &reap).await {
                Err(error) if connection_lost(&error) => {}
                Err(error) => {
                    if !session_over(&error) && error != zk::Error::NoNode {
                        tracing::warn!(%error, "node is not deleted before the session ends");
                    }
                    break;
                }
                Ok(()) => break,
            }
        }
        if let Reap::Node(path) = &reap {
            registry.release(path);
        }
    }
}

async fn reap_one(client: &zk::Client, reap: &Reap) -> Result<(), zk::Error> {
    // What was written over a connection that broke may not be visible on the next server yet.
    client.sync("/").await?;
    match reap {
        Reap::Node(path) => match client.check_stat(path).await? {
            Some(stat) if stat.ephemeral_owner == client.session_id().0 => {
                gone(client.delete(path, None).await)
            }
            _ => Ok(()),
        },
        Reap::Candidate { directory, prefix } => {
            for name in client.list_children(directory).await? {
                if name.starts_with(prefix) {
                    gone(client.delete(&format!("{directory}/{name}"), None).await)?;
                }
            }
            Ok(())
        }
    }
}

fn gone(deleted: Result<(), zk::Error>) -> Result<(), zk::Error> {
    match deleted {
        Err(zk::Error::NoNode) => Ok(()),
        deleted => deleted,
    }
}
