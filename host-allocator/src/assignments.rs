//! Who owns what, in memory: followed in the coordinator, read without asking it. While the
//! coordinator is not reachable, the table stays as it was.

use crate::{AllocatorConfig, AllocatorError, Host, Role, znode::Assignment};
use chaski_core::{Partition, UserId, placement::Placement};
use chaski_ports::{Coordinator, PortError, Watch};
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

    /// What a host owns, each partition with its epoch, ascending.
    #[must_use]
    pub fn mine(&self, host: &str) -> Vec<(Partition, u64)> {
        let table = self.table.borrow();
        let owners = (0..).map(Partition).zip(&table.owners);
        owners
            .filter_map(|(partition, owner)| Some((partition, owner.as_ref()?)))
            .filter(|(_, (owner, _))| **owner == *host)
            .map(|(partition, (_, epoch))| (partition, *epoch))
            .collect()
    }

    /// The hosts that are there, ascending by id.
    #[must_use]
    pub fn hosts(&self) -> Vec<Host> {
        let mut hosts: Vec<_> = self.table.borrow().hosts.values().cloned().collect();
        hosts.sort_by(|a, b| a.id.cmp(&b.id));
        hosts
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
    /// The hosts that are there.
    hosts: HashMap<Arc<str>, Host>,
    /// Owner and epoch of each partition.
    owners: Vec<Option<(Arc<str>, u64)>>,
}

impl Table {
    fn owner_of(&self, partition: Partition) -> Option<Owner> {
        let (host, epoch) = self.owners.get(partition.0 as usize)?.as_ref()?;
        let url = self.hosts.get(host).map(|host| Arc::clone(&host.advertised_url));
        Some(Owner { host: Arc::clone(host), url: url.unwrap_or_default(), epoch: *epoch })
    }
}

/// Keeps a table of [`Assignments`].
pub struct Follower {
    coordinator: Arc<dyn Coordinator>,
    role: Role,
    config: AllocatorConfig,
    tell: watch::Sender<Arc<Table>>,
}

/// What is followed. A watch on a node does not tell of its children's content, so every
/// assignment has its own.
#[derive(Clone, Copy)]
enum Part {
    Hosts,
    Owner(Partition),
}

/// What was read of a part.
enum News {
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
        let partitions = self.tell.borrow().owners.len() as u32;
        let owners = (0..partitions).map(|p| Part::Owner(Partition(p)));
        // The watch comes first: what changes after the read wakes it.
        let starts = std::iter::once(Part::Hosts).chain(owners).map(|part| async move {
            let watch = self.coordinator.watch(&self.path(part)).await?;
            Ok::<_, PortError>((watch, part, self.read(part).await?))
        });
        let mut waits = FuturesUnordered::new();
        let mut news = Vec::new();
        for (watch, part, read) in try_join_all(starts).await? {
            waits.push(wait(watch, part));
            news.extend(read);
        }
        self.publish(news);
        loop {
            let woken = waits.next().await.expect("the hosts at least are followed");
            let (watch, part) = woken?;
            let read = self.read(part).await?;
            waits.push(wait(watch, part));
            self.publish(read);
        }
    }

    fn path(&self, part: Part) -> String {
        match part {
            Part::Hosts => self.role.hosts(),
            Part::Owner(partition) => self.role.assignment(partition),
        }
    }

    /// Reads a part; `None` where what stands there makes no sense, and the table stays as it is.
    async fn read(&self, part: Part) -> Result<Option<News>, PortError> {
        match part {
            Part::Hosts => self.read_hosts().await.map(|hosts| Some(News::Hosts(hosts))),
            Part::Owner(partition) => {
                let path = self.path(part);
                let Some(node) = self.coordinator.get(&path).await? else {
                    return Ok(Some(News::Owner(partition, None)));
                };
                Ok(match Assignment::decode(&node.data) {
                    Ok(assignment) => {
                        Some(News::Owner(partition, Some((assignment.host, node.epoch))))
                    }
                    Err(error) => {
                        tracing::error!(path, %error, "assignment cannot be read");
                        None
                    }
                })
            }
        }
    }

    async fn read_hosts(&self) -> Result<HashMap<Arc<str>, Host>, PortError> {
        let ids = self.coordinator.children(&self.role.hosts()).await?;
        let mut hosts = HashMap::new();
        for id in ids {
            let path = self.role.host(&id);
            let Some(node) = self.coordinator.get(&path).await? else {
                continue; // gone meanwhile: the watch tells
            };
            match Host::decode(&node.data) {
                Ok(host) => drop(hosts.insert(id.into(), host)),
                Err(error) => tracing::error!(path, %error, "host cannot be read"),
            }
        }
        Ok(hosts)
    }

    fn publish(&self, news: impl IntoIterator<Item = News>) {
        self.tell.send_if_modified(|told| {
            let mut table = Table::clone(told);
            for news in news {
                match news {
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

async fn wait(mut watch: Box<dyn Watch>, part: Part) -> Result<(Box<dyn Watch>, Part), PortError> {
    watch.changed().await?;
    Ok((watch, part))
}
