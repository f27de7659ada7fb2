//! Who owns what, in memory: followed in the coordinator, read without asking it. While the
//! coordinator is not reachable, the table stays as it was.

use crate::{
    AllocatorConfig, AllocatorError, Host, Role, members::Members, registration::alive,
    znode::Assignment,
};
use chaski_core::{Partition, UserId, placement::Placement};
use chaski_ports::{Coordinator, ErrorKind, PortError, Watch};
use chaski_runtime::CancellationToken;
use futures::{StreamExt as _, future::try_join_all, stream::FuturesUnordered};
use std::{collections::HashMap, sync::Arc};
use tokio::sync::watch;

/// The table of one role. Clones share it; each waits for changes on its own.
#[derive(Clone, Debug)]
pub struct Assignments {
    table: watch::Receiver<Arc<Table>>,
}

/// Who owns a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The host's id.
    pub host: Arc<str>,
    /// Its advertised URL; empty where it has none, or is not there.
    pub url: Arc<str>,
    /// Grows with every change of owner: what a claim has to reach.
    pub epoch: u64,
    /// Whether it says that it serves the partition already ([`Host::warm`]).
    pub warm: bool,
}

impl Assignments {
    /// A table of `partitions` partitions, empty at first, and the loop that keeps it: the caller
    /// spawns [`Follower::run`].
    pub fn follow(
        coordinator: Arc<dyn Coordinator>,
        role: Role,
        partitions: u32,
        config: AllocatorConfig,
    ) -> (Self, Follower) {
        let (tell, table) = watch::channel(Arc::new(Table {
            session: 0,
            hosts: HashMap::new(),
            owners: vec![None; partitions as usize],
        }));
        let follower = Follower { coordinator, role, config, tell };
        (Self { table }, follower)
    }

    /// The owner of a partition; `None` where nobody owns it yet or there is no such partition.
    #[must_use]
    pub fn owner_of(&self, partition: Partition) -> Option<Owner> {
        self.table.borrow().owner_of(partition)
    }

    /// The owner of every partition that has one, ascending by partition.
    #[must_use]
    pub fn owners(&self) -> Vec<(Partition, Owner)> {
        let table = self.table.borrow();
        let partitions = (0..table.owners.len() as u32).map(Partition);
        partitions.filter_map(|p| Some((p, table.owner_of(p)?))).collect()
    }

    /// What a host owns, each partition with its epoch, ascending.
    #[must_use]
    pub fn mine(&self, host: &str) -> Vec<(Partition, u64)> {
        self.table.borrow().mine(host)
    }

    /// The same, as read in this session of the coordinator. Nothing while the table is of an
    /// earlier one: what stands in it may have been given to others since.
    #[must_use]
    pub fn mine_in(&self, session: u64, host: &str) -> Vec<(Partition, u64)> {
        let table = self.table.borrow();
        if table.session == session { table.mine(host) } else { Vec::new() }
    }

    /// The hosts that are there, ascending by id.
    #[must_use]
    pub fn hosts(&self) -> Vec<Host> {
        let mut hosts: Vec<_> = self.table.borrow().hosts.values().cloned().collect();
        hosts.sort_by(|a, b| a.id.cmp(&b.id));
        hosts
    }

    /// What stands there now is not a change any more for this handle.
    pub(crate) fn mark_seen(&mut self) {
        self.table.mark_unchanged();
    }

    /// Waits for a change of the table since the last wait of this handle. Cancel safe.
    ///
    /// # Errors
    /// `NotFollowed` once the [`Follower`] has stopped.
    pub async fn changed(&mut self) -> Result<(), AllocatorError> {
        let changed = self.table.changed().await;
        changed.map_err(|_| AllocatorError::NotFollowed)
    }

    /// Waits until every partition is owned by a host that is there. Cancel safe.
    ///
    /// # Errors
    /// `NotFollowed` once the [`Follower`] has stopped.
    pub async fn all_owned(&mut self) -> Result<(), AllocatorError> {
        let owned = self.table.wait_for(|table| {
            let mut owners = table.owners.iter();
            owners.all(|owner| matches!(owner, Some((host, _)) if table.hosts.contains_key(host)))
        });
        owned.await.map(drop).map_err(|_| AllocatorError::NotFollowed)
    }
}

/// Where the events of a user are to be found: partition and its owner.
#[derive(Clone, Debug)]
pub struct Lookup {
    assignments: Assignments,
    placement: Placement,
}

/// Where a user's events are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// The user's partition of `recipients`.
    pub partition: Partition,
    /// Who owns it.
    pub owner: Owner,
}

impl Lookup {
    /// The owners that it looks among.
    pub(crate) fn assignments(&self) -> &Assignments {
        &self.assignments
    }

    /// How users are spread over partitions.
    pub(crate) fn placement(&self) -> Placement {
        self.placement
    }

    /// Looks users up, as `placement` spreads them, among the owners in `assignments`.
    #[must_use]
    pub fn new(assignments: Assignments, placement: Placement) -> Self {
        Self { assignments, placement }
    }

    /// The user's partition and its owner; `None` where nobody owns it yet.
    #[must_use]
    pub fn of_user(&self, user: &UserId) -> Option<Located> {
        let partition = self.placement.of_user(user);
        let owner = self.assignments.owner_of(partition)?;
        Some(Located { partition, owner })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Table {
    /// The coordinator's session in which it was read; 0 before the first.
    session: u64,
    /// The hosts that are there.
    hosts: HashMap<Arc<str>, Host>,
    /// Owner and epoch of each partition.
    owners: Vec<Option<(Arc<str>, u64)>>,
}

impl Table {
    fn mine(&self, host: &str) -> Vec<(Partition, u64)> {
        let owners = (0..).map(Partition).zip(&self.owners);
        owners
            .filter_map(|(partition, owner)| Some((partition, owner.as_ref()?)))
            .filter(|(_, (owner, _))| **owner == *host)
            .map(|(partition, (_, epoch))| (partition, *epoch))
            .collect()
    }

    fn owner_of(&self, partition: Partition) -> Option<Owner> {
        let (host, epoch) = self.owners.get(partition.0 as usize)?.as_ref()?;
        let known = self.hosts.get(host);
        let url = known.map(|host| Arc::clone(&host.advertised_url)).unwrap_or_default();
        let warm = known.is_some_and(|host| host.warm.contains(&partition.0));
        Some(Owner { host: Arc::clone(host), url, epoch: *epoch, warm })
    }
}

/// Keeps a table of [`Assignments`].
pub struct Follower {
    coordinator: Arc<dyn Coordinator>,
    role: Role,
    config: AllocatorConfig,
    tell: watch::Sender<Arc<Table>>,
}

/// What was read of a part.
enum News {
    Session(u64),
    Hosts(HashMap<Arc<str>, Host>),
    Owner(Partition, Option<(Arc<str>, u64)>),
}

impl Follower {
    /// Follows until cancelled. A coordinator that is not reachable for a time only delays.
    ///
    /// # Errors
    /// Where the coordinator fails for good. The table then stays as it is.
    pub async fn run(self, cancel: CancellationToken) -> Result<(), AllocatorError> {
        loop {
            let Err(error) = tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                ended = self.follow() => ended,
            };
            if !error.retryable() {
                return Err(error.into());
            }
            tracing::warn!(role = %self.role, %error, "following the assignments was interrupted");
            tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                () = tokio::time::sleep(self.config.retry()) => {}
            }
        }
    }

    async fn follow(&self) -> Result<std::convert::Infallible, PortError> {
        let session = alive(&*self.coordinator).await;
        let mut members = Members::watch(&*self.coordinator, self.role).await?;
        let partitions = self.tell.borrow().owners.len() as u32;
        // A watch on a node does not tell of its children's content, so every assignment has its
        // own. It comes first: what changes after the read wakes it.
        let starts = (0..partitions).map(Partition).map(|partition| async move {
            let watch = self.coordinator.watch(&self.role.assignment(partition)).await?;
            Ok::<_, PortError>((watch, partition, self.read(partition).await?))
        });
        let (mut waits, mut news) = (FuturesUnordered::new(), Vec::new());
        for (watch, partition, read) in try_join_all(starts).await? {
            waits.push(wait(watch, partition));
            news.extend(read);
        }
        news.push(News::Hosts(members.read().await?));
        // Each watch is of one session, but not all of them need be of the same.
        if self.coordinator.session().borrow().alive() != Some(session) {
            let another = "another session began while the assignments were read";
            return Err(PortError::new(ErrorKind::Unavailable, another));
        }
        news.push(News::Session(session));
        self.publish(news);
        loop {
            tokio::select! {
                Some(woken) = waits.next() => {
                    let (watch, partition) = woken?;
                    let read = self.read(partition).await?;
                    waits.push(wait(watch, partition));
                    self.publish(read);
                }
                changed = members.changed() => {
                    changed?;
                    self.publish([News::Hosts(members.read().await?)]);
                }
            }
        }
    }

    /// Reads an assignment; `None` where what stands there makes no sense, and the table stays as
    /// it is.
    async fn read(&self, partition: Partition) -> Result<Option<News>, PortError> {
        let path = self.role.assignment(partition);
        let Some(node) = self.coordinator.get(&path).await? else {
            return Ok(Some(News::Owner(partition, None)));
        };
        Ok(match Assignment::decode(&node.data) {
            Ok(assignment) => Some(News::Owner(partition, Some((assignment.host, node.epoch)))),
            Err(error) => {
                tracing::error!(path, %error, "assignment cannot be read");
                None
            }
        })
    }

    fn publish(&self, news: impl IntoIterator<Item = News>) {
        self.tell.send_if_modified(|told| {
            let mut table = Table::clone(told);
            for news in news {
                match news {
                    News::Session(session) => table.session = session,
                    News::Hosts(hosts) => table.hosts = hosts,
                    News::Owner(partition, owner) => table.owners[partition.0 as usize] = owner,
                }
            }
            let changed = table != **told;
            *told = Arc::new(table);
            changed
        });
    }
}

async fn wait(
    mut watch: Box<dyn Watch>,
    partition: Partition,
) -> Result<(Box<dyn Watch>, Partition), PortError> {
    watch.changed().await?;
    Ok((watch, partition))
}
