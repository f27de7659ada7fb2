//! The coordinator of one process: a tree in memory. Only epochs outlive it: they are taken from
//! blocks that are reserved on disk, so that they grow over restarts without an fsync each.
//!
//! Must not know: hosts, partitions, or what the nodes hold.

use crate::{
    Directory,
    engine::Engine,
    keys,
    tables::{self, Tables},
    values,
    writer::Transaction,
};
use async_trait::async_trait;
use bytes::Bytes;
use chaski_ports::{
    Coordinator, ErrorKind, Expect, Leadership, Node, PortError, Registration, Session,
    SessionState, Watch,
};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    ops::Bound,
    sync::Arc,
};
use tokio::sync::watch;

/// How many epochs are reserved at once.
const EPOCH_BLOCK: u64 = 1 << 16;
/// How many epochs one change can take: the node and the parents it makes.
const DEPTH_MAX: u64 = 64;

/// The tree, and the one session of the process, which ends only where it is told to.
pub(crate) struct Coordination {
    nodes: Arc<Mutex<Tree>>,
    session: watch::Sender<Session>,
}

#[derive(Default)]
struct Tree {
    nodes: BTreeMap<String, Held>,
    /// Bumped with every change of a node or of the set of its children. Only watched paths.
    watched: HashMap<String, watch::Sender<()>>,
    /// Who leads (the first) and who waits.
    queues: HashMap<String, VecDeque<u64>>,
    /// Wakes those who wait in queues.
    turns: watch::Sender<()>,
    epoch: u64,
    epoch_limit: u64,
    /// Names registrations and places in queues.
    last_ticket: u64,
    /// How many sessions have ended.
    sessions_ended: u64,
}

struct Held {
    node: Node,
    /// The registration it belongs to.
    owner: Option<u64>,
}

impl Coordination {
    /// An empty tree whose epochs are above all that were given in this directory.
    pub(crate) fn open(tables: &Tables) -> Result<Self, PortError> {
        let stored = tables::get(&tables.rows, keys::EPOCH_LIMIT)?;
        let limit = stored.map(|row| values::number(&row).ok_or_else(|| tables::corrupt("epoch")));
        let epoch = limit.transpose()?.unwrap_or(0);
        let tree = Tree {
            epoch,
            // The first change reserves the first block.
            epoch_limit: epoch,
            ..Tree::default()
        };
        Ok(Self {
            nodes: Arc::new(Mutex::new(tree)),
            session: watch::Sender::new(Session { number: 1, state: SessionState::Connected }),
        })
    }
}

/// Changes the tree, with epochs to spare for it. What is reserved and not given is never given.
async fn change<T>(
    engine: &Engine,
    tree: &Mutex<Tree>,
    change: impl FnOnce(&mut Tree) -> Result<T, PortError>,
) -> Result<T, PortError> {
    loop {
        {
            let mut tree = tree.lock();
            if tree.epoch + DEPTH_MAX <= tree.epoch_limit {
                return change(&mut tree);
            }
        }
        let reserve = |tx: &mut Transaction<'_>| {
            let old = tx.row(keys::EPOCH_LIMIT)?.as_deref().and_then(values::number).unwrap_or(0);
            let limit = old + EPOCH_BLOCK;
            let stored = Bytes::copy_from_slice(&limit.to_be_bytes());
            tx.put_row(keys::EPOCH_LIMIT.to_vec(), stored);
            Ok(limit)
        };
        let limit = engine.write(0, reserve).await?;
        let mut tree = tree.lock();
        tree.epoch_limit = tree.epoch_limit.max(limit);
    }
}

fn conflict(path: &str) -> PortError {
    PortError::new(ErrorKind::Conflict, format!("write {path}"))
}

fn session_over(what: &str) -> PortError {
    PortError::new(ErrorKind::Unavailable, format!("{what}: the session has ended"))
}

fn check_path(path: &str) -> Result<(), PortError> {
    let names = path.strip_prefix('/').map(|rest| rest.split('/'));
    let legal = names.is_some_and(|names| {
        let (mut count, mut named) = (0, true);
        for name in names {
            count += 1;
            named &= !name.is_empty();
        }
        named && count < DEPTH_MAX
    });
    if legal { Ok(()) } else { Err(PortError::new(ErrorKind::Invalid, format!("path {path:?}"))) }
}

fn parent(path: &str) -> Option<&str> {
    path.rsplit_once('/').map(|(parent, _)| parent).filter(|parent| !parent.is_empty())
}

impl Tree {
    fn ticket(&mut self) -> u64 {
        self.last_ticket += 1;
        self.last_ticket
    }

    fn wake(&self, path: &str) {
        if let Some(watched) = self.watched.get(path) {
            watched.send_replace(());
        }
    }

    /// Wakes the watches of a path that came or went, and of its parent.
    fn wake_both(&self, path: &str) {
        self.wake(path);
        if let Some(parent) = parent(path) {
            self.wake(parent);
        }
    }

    fn check(&self, path: &str, expect: Expect) -> Result<(), PortError> {
        let version = self.nodes.get(path).map(|held| held.node.version);
        match (expect, version) {
            (Expect::Anything, _) | (Expect::Absent, None) => Ok(()),
            (Expect::Version(wanted), Some(version)) if wanted == version => Ok(()),
            _ => Err(conflict(path)),
        }
    }

    fn put(&mut self, path: &str, data: Bytes, expect: Expect) -> Result<Node, PortError> {
        self.check(path, expect)?;
        if let Some(held) = self.nodes.get_mut(path) {
            self.epoch += 1;
            held.node = Node { data, version: held.node.version + 1, epoch: self.epoch };
            let node = held.node.clone();
            self.wake(path);
            return Ok(node);
        }
        if let Some(parent) = parent(path)
            && !self.nodes.contains_key(parent)
        {
            self.put(parent, Bytes::new(), Expect::Absent)?;
        }
        self.epoch += 1;
        let node = Node { data, version: 0, epoch: self.epoch };
        let held = Held { node: node.clone(), owner: None };
        self.nodes.insert(path.to_owned(), held);
        self.wake_both(path);
        Ok(node)
    }

    fn delete(&mut self, path: &str, expect: Expect) -> Result<(), PortError> {
        self.check(path, expect)?;
        if self.children(path).next().is_some() {
            return Err(conflict(path));
        }
        if self.nodes.remove(path).is_some() {
            self.epoch += 1;
            self.wake_both(path);
        }
        Ok(())
    }

    /// Ends what the session has registered, watches and leads.
    fn end_session(&mut self) {
        self.sessions_ended += 1;
        let registered = self.nodes.iter().filter(|(_, held)| held.owner.is_some());
        for path in registered.map(|(path, _)| path.clone()).collect::<Vec<_>>() {
            self.nodes.remove(&path);
        }
        self.watched.clear();
        self.queues.clear();
        self.turns.send_replace(());
    }

    fn children<'a>(&'a self, path: &'a str) -> impl Iterator<Item = &'a str> {
        let below = format!("{path}/");
        let range = (Bound::Excluded(below.as_str()), Bound::Unbounded);
        let below_len = below.len();
        let nodes = self.nodes.range::<str, _>(range);
        let names =
            nodes.map_while(move |(node, _)| node.starts_with(&below).then(|| &node[below_len..]));
        names.filter(|name| !name.contains('/'))
    }
}

#[async_trait]
impl Coordinator for Directory {
    async fn get(&self, path: &str) -> Result<Option<Node>, PortError> {
        check_path(path)?;
        Ok(self.tree.nodes.lock().nodes.get(path).map(|held| held.node.clone()))
    }

    async fn children(&self, path: &str) -> Result<Vec<String>, PortError> {
        check_path(path)?;
        // A path orders as text, and `/` comes before the letters but not before `-` and `.`.
        let mut names: Vec<String> =
            self.tree.nodes.lock().children(path).map(str::to_owned).collect();
        names.sort_unstable();
        Ok(names)
    }

    async fn put(&self, path: &str, data: Bytes, expect: Expect) -> Result<Node, PortError> {
        check_path(path)?;
        change(&self.engine, &self.tree.nodes, |tree| tree.put(path, data, expect)).await
    }

    async fn delete(&self, path: &str, expect: Expect) -> Result<(), PortError> {
        check_path(path)?;
        change(&self.engine, &self.tree.nodes, |tree| tree.delete(path, expect)).await
    }

    async fn register(&self, path: &str, data: Bytes) -> Result<Box<dyn Registration>, PortError> {
        check_path(path)?;
        let ticket = change(&self.engine, &self.tree.nodes, |tree| {
            tree.put(path, data, Expect::Absent)?;
            let ticket = tree.ticket();
            if let Some(held) = tree.nodes.get_mut(path) {
                held.owner = Some(ticket);
            }
            Ok(ticket)
        });
        let ticket = ticket.await?;
        Ok(Box::new(MemoryRegistration {
            engine: Arc::clone(&self.engine),
            tree: Arc::clone(&self.tree.nodes),
            path: path.to_owned(),
            ticket,
        }))
    }

    async fn watch(&self, path: &str) -> Result<Box<dyn Watch>, PortError> {
        check_path(path)?;
        let mut tree = self.tree.nodes.lock();
        let changes = tree.watched.entry(path.to_owned()).or_default().subscribe();
        Ok(Box::new(MemoryWatch {
            tree: Arc::clone(&self.tree.nodes),
            path: path.to_owned(),
            changes,
            session: tree.sessions_ended,
        }))
    }

    async fn lead(&self, path: &str, _id: &str) -> Result<Box<dyn Leadership>, PortError> {
        check_path(path)?;
        let (place, mut turns) = {
            let mut tree = self.tree.nodes.lock();
            let ticket = tree.ticket();
            tree.queues.entry(path.to_owned()).or_default().push_back(ticket);
            let place = Place {
                engine: Arc::clone(&self.engine),
                tree: Arc::clone(&self.tree.nodes),
                path: path.to_owned(),
                ticket,
            };
            (place, tree.turns.subscribe())
        };
        loop {
            match place.standing(&place.tree.lock()) {
                Some(0) => break,
                Some(_) => {}
                None => return Err(session_over(&format!("lead at {path}"))),
            }
            turns.changed().await.map_err(|_| conflict(path))?;
        }
        Ok(Box::new(place))
    }

    fn session(&self) -> watch::Receiver<Session> {
        self.tree.session.subscribe()
    }

    async fn end_session(&self) -> Result<(), PortError> {
        // Told before anybody can register anew.
        let mut tree = self.tree.nodes.lock();
        let number = tree.sessions_ended + 1;
        let tell = |number, state| self.tree.session.send_replace(Session { number, state });
        tell(number, SessionState::Expired);
        tree.end_session();
        tell(number + 1, SessionState::Connected);
        Ok(())
    }
}

struct MemoryRegistration {
    engine: Arc<Engine>,
    tree: Arc<Mutex<Tree>>,
    path: String,
    ticket: u64,
}

impl MemoryRegistration {
    fn holds(&self, tree: &Tree) -> bool {
        let held = tree.nodes.get(&self.path);
        held.is_some_and(|held| held.owner == Some(self.ticket))
    }
}

#[async_trait]
impl Registration for MemoryRegistration {
    async fn update(&self, data: Bytes) -> Result<(), PortError> {
        change(&self.engine, &self.tree, |tree| {
            if !self.holds(tree) {
                return Err(conflict(&self.path));
            }
            tree.put(&self.path, data, Expect::Anything).map(|_| ())
        })
        .await
    }
}

impl Drop for MemoryRegistration {
    fn drop(&mut self) {
        let mut tree = self.tree.lock();
        if self.holds(&tree) {
            tree.nodes.remove(&self.path);
            tree.wake_both(&self.path);
        }
    }
}

struct MemoryWatch {
    tree: Arc<Mutex<Tree>>,
    path: String,
    changes: watch::Receiver<()>,
    /// How many sessions had ended before its own.
    session: u64,
}

#[async_trait]
impl Watch for MemoryWatch {
    async fn changed(&mut self) -> Result<(), PortError> {
        self.changes.changed().await.map_err(|_| session_over(&format!("watch {}", self.path)))
    }
}

impl Drop for MemoryWatch {
    fn drop(&mut self) {
        let mut tree = self.tree.lock();
        // What is watched there now is another session's.
        if tree.sessions_ended != self.session {
            return;
        }
        // This one is still counted.
        if tree.watched.get(&self.path).is_some_and(|w| w.receiver_count() <= 1) {
            tree.watched.remove(&self.path);
        }
    }
}

/// A place in a queue; the first one leads.
struct Place {
    engine: Arc<Engine>,
    tree: Arc<Mutex<Tree>>,
    path: String,
    ticket: u64,
}

impl Place {
    /// How many are before it; `None` where its session has ended.
    fn standing(&self, tree: &Tree) -> Option<usize> {
        tree.queues.get(&self.path)?.iter().position(|ticket| *ticket == self.ticket)
    }
}

#[async_trait]
impl Leadership for Place {
    async fn lost(&self) {
        let mut turns = self.tree.lock().turns.subscribe();
        while self.standing(&self.tree.lock()).is_some() {
            if turns.changed().await.is_err() {
                return;
            }
        }
    }

    async fn put(&self, path: &str, data: Bytes, expect: Expect) -> Result<Node, PortError> {
        check_path(path)?;
        change(&self.engine, &self.tree, |tree| {
            if self.standing(tree) != Some(0) {
                return Err(conflict(path));
            }
            tree.put(path, data, expect)
        })
        .await
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut tree = self.tree.lock();
        if let Some(queue) = tree.queues.get_mut(&self.path) {
            queue.retain(|ticket| *ticket != self.ticket);
            if queue.is_empty() {
                tree.queues.remove(&self.path);
            }
        }
        tree.turns.send_replace(());
    }
}
