//! A watch on one node: its content, its coming and going, and the set of its children.
//!
//! It is made of ZooKeeper's one-shot watches, armed anew before a wake-up is handed on, so that
//! whatever changes after the caller's next read fires. Not of persistent ones (AddWatch): client
//! 0.11.2 does not send those again after a reconnect (`resend_watches` never gets past
//! SetWatches), and the server does not replay what they missed (ZOOKEEPER-4698), whereas it does
//! for one-shot watches.

use crate::{
    error::{Access, connection_lost, port_error},
    shared::Shared,
};
use async_trait::async_trait;
use chaski_ports::{PortError, Watch};
use futures::future::{BoxFuture, FutureExt as _, select};
use std::sync::Arc;
use zookeeper_client as zk;

pub(crate) struct NodeWatch {
    shared: Arc<Shared>,
    path: String,
    /// Fires at the next change. Kept here while nobody waits, so a dropped wait loses nothing;
    /// `None` where it has fired and is not armed anew yet.
    armed: Option<BoxFuture<'static, zk::WatchedEvent>>,
}

impl NodeWatch {
    pub(crate) async fn new(shared: &Arc<Shared>, path: &str) -> Result<Self, PortError> {
        let armed = shared.answer(arm(&shared.client, path)).await;
        let armed = armed.map_err(|error| watch_error(error, path))?;
        Ok(Self { shared: Arc::clone(shared), path: path.to_owned(), armed: Some(armed) })
    }
}

#[async_trait]
impl Watch for NodeWatch {
    async fn changed(&mut self) -> Result<(), PortError> {
        if let Some(armed) = &mut self.armed {
            // A session that ends fires too; then arming anew fails.
            armed.await;
            self.armed = None;
        }
        // Without a time limit: while the session is suspended there is nothing to tell.
        let armed = arm(&self.shared.client, &self.path).await;
        self.armed = Some(armed.map_err(|error| watch_error(error, &self.path))?);
        Ok(())
    }
}

fn watch_error(error: zk::Error, path: &str) -> PortError {
    port_error(error, Access::Read, format!("watch {path}"))
}

async fn arm(
    client: &zk::Client,
    path: &str,
) -> Result<BoxFuture<'static, zk::WatchedEvent>, zk::Error> {
    loop {
        match arm_once(client, path).await {
            Err(error) if connection_lost(&error) => {} // the client waits until it is back
            armed => return armed,
        }
    }
}

async fn arm_once(
    client: &zk::Client,
    path: &str,
) -> Result<BoxFuture<'static, zk::WatchedEvent>, zk::Error> {
    let (stat, node) = client.check_and_watch_stat(path).await?;
    if stat.is_none() {
        return Ok(node.changed().boxed());
    }
    match client.list_and_watch_children(path).await {
        Ok((_, children)) => {
            let either = select(node.changed().boxed(), children.changed().boxed());
            Ok(either.map(|first| first.factor_first().0).boxed())
        }
        // Deleted in between: the watch on the node has fired.
        Err(zk::Error::NoNode) => Ok(node.changed().boxed()),
        Err(error) => Err(error),
    }
}
