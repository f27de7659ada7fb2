//! Leadership: the client's lock recipe (ephemeral sequential nodes, each waits for the one before
//! it), with every write fenced by the existence of the lock's node.

use crate::{
    error::{Access, connection_lost, port_error, session_over},
    registration::{Reap, not_reaped},
    shared::{PERSISTENT, Shared},
};
use async_trait::async_trait;
use bytes::Bytes;
use chaski_ports::{ErrorKind, Expect, Leadership, Node, PortError};
use std::sync::{Arc, atomic::Ordering};
use zookeeper_client as zk;

/// Ends the name of every candidate's node, before its sequence number.
const LATCH: &str = "latch-";

/// Waits until this process leads at `path`.
pub(crate) async fn lead(shared: &Arc<Shared>, path: &str, id: &str) -> Result<Leading, PortError> {
    let context = || format!("lead at {path}");
    if id.contains('/') {
        let error = PortError::new(ErrorKind::Invalid, context());
        return Err(error.caused_by("an id must not contain a slash"));
    }
    let options = zk::LockOptions::new(zk::Acls::anyone_all())
        .with_ancestor_options(PERSISTENT)
        .expect("a persistent node may be a parent");
    loop {
        let candidate = Candidate::new(shared, path, id);
        let name = format!("{path}/{}", candidate.prefix);
        let locked = match zk::LockPrefix::new_custom(name, LATCH) {
            Ok(name) => {
                let lock = shared.client.lock(name, id.as_bytes(), options.clone());
                lock.await.map(zk::LockClient::into_owned)
            }
            Err(error) => Err(error),
        };
        match locked {
            Ok(lock) => {
                return Ok(Leading { lock, candidate });
            }
            // Somebody deleted the candidate's node, or it may or may not be there: queue anew.
            Err(error) if error == zk::Error::RuntimeInconsistent || connection_lost(&error) => {}
            Err(error) => return Err(port_error(error, Access::Write, context())),
        }
    }
}

/// Being in the queue. Dropped, the place in it is given up: the recipe's own clean-up gives up
/// itself when the connection breaks in any other way than by being closed, and a forgotten node
/// at the head of the queue would keep everybody from leading while this session lives.
struct Candidate {
    shared: Arc<Shared>,
    directory: String,
    prefix: String,
}

impl Candidate {
    fn new(shared: &Arc<Shared>, directory: &str, id: &str) -> Self {
        let number = shared.candidates.fetch_add(1, Ordering::Relaxed);
        let session = shared.client.session_id();
        Self {
            shared: Arc::clone(shared),
            directory: directory.to_owned(),
            prefix: format!("{id}-{session}-{number}-{LATCH}"),
        }
    }
}

impl Drop for Candidate {
    fn drop(&mut self) {
        let reap = Reap::Candidate {
            directory: std::mem::take(&mut self.directory),
            prefix: std::mem::take(&mut self.prefix),
        };
        if let Err(refused) = self.shared.reaps.try_send(reap)
            && let Reap::Candidate { prefix, .. } = refused.into_inner()
        {
            not_reaped(&prefix);
        }
    }
}

/// Being the leader.
pub(crate) struct Leading {
    lock: zk::OwnedLockClient,
    candidate: Candidate,
}

#[async_trait]
impl Leadership for Leading {
    async fn lost(&self) {
        let client = &self.candidate.shared.client;
        loop {
            match client.check_and_watch_stat(self.lock.lock_path()).await {
                Ok((None, _)) => return, // deleted by hand
                Ok((Some(_), gone)) => drop(gone.changed().await),
                Err(error) if session_over(&error) => return,
                Err(error) if connection_lost(&error) => {} // the session may live on
                Err(error) => {
                    tracing::error!(%error, "leadership cannot be watched, giving it up");
                    return;
                }
            }
        }
    }

    async fn put(&self, path: &str, data: Bytes, expect: Expect) -> Result<Node, PortError> {
        let fence = Some(self.lock.lock_path());
        let shared = &self.candidate.shared;
        shared.put(fence, path, data, expect).await
    }
}
