//! The coordinator: a small tree of nodes that all processes see, with conditional writes,
//! ephemeral nodes, watches and leadership. ZooKeeper, or memory where there is one process.
//!
//! Paths look like `/hosts/delivery/h1`, below a configured root; parents are made as needed.
//!
//! Laws
//! - **put_is_conditional**: a `put` or `delete` whose [`Expect`] does not hold gives `Conflict`
//!   and changes nothing.
//! - **epochs_grow**: `Node::epoch` grows with every change of any node, over deletion and
//!   re-creation too (ZooKeeper: mzxid).
//! - **ephemerals_end**: a registered node is there until its [`Registration`] is dropped or the
//!   session expires, and then goes away by itself.
//! - **watch_misses_nothing**: after `changed` returns, a read sees at least the change that woke
//!   it; changes between two waits are not lost (they may be merged into one).
//! - **one_leader**: of all who `lead` at one path, one holds a [`Leadership`] at a time, as far as
//!   its session is alive; when it ends, another one gets it.
//! - **sessions_tell**: `session` tells Connected, Suspended (serve on, claim nothing) and Expired
//!   (over: what this session registered is gone, and nothing is owned by it any more).
//! - **a_session_is_followed**: after Expired a new session comes by itself, with a greater number.
//!   What belongs to an earlier one stays over: its registrations and leaderships write nothing
//!   (`Conflict`), its watches and waits end (`Unavailable` or `Unknown`), and dropping them touches
//!   nothing of the new session. Who holds them makes them anew. Between two sessions calls give
//!   `Unavailable`; a write that was on its way, `Unknown`.

use crate::PortError;
use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its content.
    pub data: Bytes,
    /// For conditional writes; begins anew when the node is made again.
    pub version: i64,
    /// Of the last change of its content; only grows, over all nodes (ZooKeeper: mzxid).
    pub epoch: u64,
}

/// What must hold for a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The node is not there.
    Absent,
    /// The node has this version.
    Version(i64),
    /// Whatever.
    Anything,
}

/// A session of this process, and how it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// Counts the sessions of this coordinator's value; only grows.
    pub number: u64,
    /// How it stands.
    pub state: SessionState,
}

/// How a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// Reads and writes work.
    Connected,
    /// Not reachable for now: serve on, claim nothing.
    Suspended,
    /// Ended for good; another one follows.
    Expired,
}

impl Session {
    /// The number of a session that has not ended, as far as this process knows.
    #[must_use]
    pub fn alive(self) -> Option<u64> {
        (self.state != SessionState::Expired).then_some(self.number)
    }
}

/// The coordinator.
#[async_trait]
pub trait Coordinator: Send + Sync {
    /// A node.
    async fn get(&self, path: &str) -> Result<Option<Node>, PortError>;

    /// The names of a node's children, sorted; empty where the node is not there.
    async fn children(&self, path: &str) -> Result<Vec<String>, PortError>;

    /// Writes a node; gives it as written.
    async fn put(&self, path: &str, data: Bytes, expect: Expect) -> Result<Node, PortError>;

    /// Deletes a node. Deleting what is not there is `Ok` with [`Expect::Anything`].
    async fn delete(&self, path: &str, expect: Expect) -> Result<(), PortError>;

    /// Makes an ephemeral node; `Conflict` where another session holds one there.
    async fn register(&self, path: &str, data: Bytes) -> Result<Box<dyn Registration>, PortError>;

    /// Watches a node's content and the set of its children.
    async fn watch(&self, path: &str) -> Result<Box<dyn Watch>, PortError>;

    /// Waits until this process leads at `path`. Cancel safe: a dropped wait leaves the queue.
    async fn lead(&self, path: &str, id: &str) -> Result<Box<dyn Leadership>, PortError>;

    /// How the session stands, now and later. Who looks seldom may miss that one has ended, never
    /// that its number is another one.
    fn session(&self) -> watch::Receiver<Session>;

    /// Has the present session end as if nothing had been heard of this process for too long:
    /// for drills and tests.
    async fn end_session(&self) -> Result<(), PortError>;
}

/// An ephemeral node; dropped, it goes away (in the background).
#[async_trait]
pub trait Registration: Send + Sync {
    /// Changes the node's content.
    async fn update(&self, data: Bytes) -> Result<(), PortError>;
}

/// A watch.
#[async_trait]
pub trait Watch: Send {
    /// Waits for a change since the watch was made or last waited for. An error where its session
    /// has ended.
    async fn changed(&mut self) -> Result<(), PortError>;
}

/// Being the leader; dropped, another one may lead.
#[async_trait]
pub trait Leadership: Send + Sync {
    /// Returns when the leadership is lost (its session has ended).
    async fn lost(&self);
    /// A write that only takes place while this process still leads; else `Conflict`.
    async fn put(&self, path: &str, data: Bytes, expect: Expect) -> Result<Node, PortError>;
}
