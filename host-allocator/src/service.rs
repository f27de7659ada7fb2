//! The allocator: one of many leads, watches the hosts of each role and assigns partitions.
//!
//! It keeps no state of its own: what is assigned stands in the coordinator, so a new leader goes
//! on where the old one was cut off. Every write is conditional and takes place only while this
//! process leads, so an old leader changes nothing (L6).

use crate::{
    AllocatorConfig, AllocatorError, Host, Role,
    loans::settle,
    members::Members,
    rebalance::Loads,
    registration::alive,
    znode::{ALLOCATOR, Assignment},
};
use chaski_core::Partition;
use chaski_ports::{Coordinator, ErrorKind, Expect, Leadership, Node, PortError};
use chaski_runtime::CancellationToken;
use futures::future::try_join_all;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    pin::pin,
    sync::Arc,
    time::Duration,
};
use tokio::time::{Instant, MissedTickBehavior, interval};

/// L8: so many reads or writes are on their way at once.
const CALLS_MAX: usize = 32;

/// How often a table that somebody else changed meanwhile is read again before giving up leading.
const ROUNDS_MAX: usize = 3;

/// How often it is looked whether a host has too much load.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Assigns partitions to hosts, while it leads.
pub struct Allocator {
    coordinator: Arc<dyn Coordinator>,
    id: String,
    roles: Vec<(Role, u32)>,
    config: AllocatorConfig,
}

impl Allocator {
    /// An allocator named `id` for these roles, each with its number of partitions.
    pub fn new(
        coordinator: Arc<dyn Coordinator>,
        id: impl Into<String>,
        roles: impl IntoIterator<Item = (Role, u32)>,
        config: AllocatorConfig,
    ) -> Self {
        Self { coordinator, id: id.into(), roles: roles.into_iter().collect(), config }
    }

    /// Contends for leading and assigns while it leads, until cancelled.
    ///
    /// # Errors
    /// Where the coordinator fails for good.
    pub async fn run(self, cancel: CancellationToken) -> Result<(), AllocatorError> {
        loop {
            let ended = tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                ended = self.term() => ended,
            };
            match ended {
                Ok(()) => tracing::warn!("leadership lost"),
                Err(error) if error.retryable() || error.kind == ErrorKind::Conflict => {
                    tracing::warn!(%error, "allocation interrupted");
                }
                Err(error) => return Err(error.into()),
            }
            tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                () = tokio::time::sleep(self.config.retry()) => {}
            }
        }
    }

    /// From the wait for leading to its loss.
    async fn term(&self) -> Result<(), PortError> {
        alive(&*self.coordinator).await;
        let leadership = self.coordinator.lead(ALLOCATOR, &self.id).await?;
        tracing::info!(id = self.id, "leading the allocation");
        let _leading = Leading::new();
        let governing = self.roles.iter().map(|(role, partitions)| {
            let reign = Reign {
                coordinator: &*self.coordinator,
                leadership: &*leadership,
                role: *role,
                partitions: *partitions,
                config: &self.config,
            };
            async move { reign.govern().await }
        });
        tokio::select! {
            () = leadership.lost() => Ok(()),
            ended = try_join_all(governing) => ended.map(drop),
        }
    }
}

/// Shows in the metrics that this process leads.
struct Leading;

impl Leading {
    fn new() -> Self {
        metrics::gauge!("chaski_allocator_leading").set(1.0);
        Self
    }
}

impl Drop for Leading {
    fn drop(&mut self) {
        metrics::gauge!("chaski_allocator_leading").set(0.0);
    }
}

/// The allocation of one role by the leader.
pub(crate) struct Reign<'a> {
    coordinator: &'a dyn Coordinator,
    pub(crate) leadership: &'a dyn Leadership,
    pub(crate) role: Role,
    partitions: u32,
    config: &'a AllocatorConfig,
}

/// What stands in the coordinator for one partition.
#[derive(PartialEq)]
pub(crate) struct Slot {
    pub(crate) assignment: Option<Assignment>,
    pub(crate) expect: Expect,
}

/// An owner that is not there.
struct Missing {
    grace_ends: Instant,
    weight: u32,
}

/// What the placement follows of the hosts: weight, and whether they are about to end.
fn standing(hosts: &HashMap<Arc<str>, Host>) -> BTreeMap<Arc<str>, (u32, bool)> {
    hosts.iter().map(|(id, host)| (Arc::clone(id), (host.capacity, host.draining))).collect()
}

/// Waits until the hosts stand otherwise. Of anything else that they say the placement must not
/// take notice: what an operator has moved by hand stays until hosts come or go.
async fn change(
    members: &mut Members<'_>,
    same: &BTreeMap<Arc<str>, (u32, bool)>,
) -> Result<(), PortError> {
    loop {
        members.changed().await?;
        if standing(&members.read().await?) != *same {
            return Ok(());
        }
    }
}

impl Reign<'_> {
    /// Assigns, then again whenever the hosts change.
    async fn govern(&self) -> Result<std::convert::Infallible, PortError> {
        let mut members = Members::watch(self.coordinator, self.role).await?;
        let (mut gone, mut weights) = (HashMap::new(), HashMap::new());
        let mut loads = Loads::new(self.config.clone());
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // Read every time: an operator may have written since.
            let mut slots = self.read().await?;
            let hosts = members.read().await?;
            let now = Instant::now();
            self.note_missing(&mut gone, now, &hosts, &weights, &slots);
            weights = hosts.iter().map(|(id, host)| (Arc::clone(id), host.capacity)).collect();
            let waited_for = gone.iter().filter(|(_, missing)| missing.grace_ends > now);
            let next = waited_for.clone().map(|(_, missing)| missing.grace_ends).min();
            let counted = waited_for.map(|(host, missing)| (Arc::clone(host), missing.weight));
            // Who is about to end counts as gone; its grace is that it still serves.
            let staying = hosts.iter().filter(|(_, host)| !host.draining);
            let staying = staying.map(|(id, host)| (Arc::clone(id), host.capacity));
            let counted: BTreeMap<_, _> = staying.chain(counted).collect();
            metrics::gauge!("chaski_allocator_hosts", "role" => self.role.name())
                .set(counted.len() as f64);
            self.assign(&mut slots, &counted).await?;
            let grace_ends = async {
                match next {
                    Some(next) => tokio::time::sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            let same = standing(&hosts);
            let mut grace_ends = pin!(grace_ends);
            loop {
                tokio::select! {
                    changed = change(&mut members, &same) => break changed?,
                    () = &mut grace_ends => break,
                    _ = look.tick(), if self.config.rebalance => {}
                }
                let hosts = members.read().await?;
                if standing(&hosts) != same {
                    break;
                }
                self.rebalance(&mut loads, &hosts, &counted, &mut slots).await?;
            }
        }
    }

    /// Keeps in `gone` the owners that are not there, each with the end of its grace and the weight
    /// it had when it was last seen.
    fn note_missing(
        &self,
        gone: &mut HashMap<Arc<str>, Missing>,
        now: Instant,
        hosts: &HashMap<Arc<str>, Host>,
        weights: &HashMap<Arc<str>, u32>,
        slots: &[Slot],
    ) {
        let owners =
            slots.iter().filter_map(|slot| Some(Arc::clone(&slot.assignment.as_ref()?.host)));
        let missing: BTreeSet<_> = owners.filter(|owner| !hosts.contains_key(owner)).collect();
        gone.retain(|host, _| missing.contains(host));
        for host in missing {
            let weight = weights.get(&host).copied().unwrap_or(1);
            gone.entry(host).or_insert(Missing { grace_ends: now + self.config.grace(), weight });
        }
    }

    pub(crate) async fn read(&self) -> Result<Vec<Slot>, PortError> {
        let mut slots = Vec::new();
        let all: Vec<_> = (0..self.partitions).map(Partition).collect();
        for some in all.chunks(CALLS_MAX) {
            let reads = some.iter().map(|partition| async move {
                let path = self.role.assignment(*partition);
                let node = self.coordinator.get(&path).await?;
                Ok::<_, PortError>(self.slot(*partition, node.as_ref()))
            });
            slots.extend(try_join_all(reads).await?);
        }
        Ok(slots)
    }

    pub(crate) fn slot(&self, partition: Partition, node: Option<&Node>) -> Slot {
        let Some(node) = node else {
            return Slot { assignment: None, expect: Expect::Absent };
        };
        let assignment = Assignment::decode(&node.data);
        if let Err(error) = &assignment {
            // Written anew, as if nobody owned it.
            tracing::error!(role = %self.role, %partition, %error, "assignment cannot be read");
        }
        Slot { assignment: assignment.ok(), expect: Expect::Version(node.version) }
    }

    /// Writes what has to change for these hosts.
    async fn assign(
        &self,
        slots: &mut Vec<Slot>,
        hosts: &BTreeMap<Arc<str>, u32>,
    ) -> Result<(), PortError> {
        for round in 1.. {
            match self.write(slots, hosts).await {
                // Not this leader's write: an operator's, or another leader has taken over.
                Err(error) if error.kind == ErrorKind::Conflict && round < ROUNDS_MAX => {
                    *slots = self.read().await?;
                }
                written => return written,
            }
        }
        Ok(())
    }

    async fn write(
        &self,
        slots: &mut [Slot],
        hosts: &BTreeMap<Arc<str>, u32>,
    ) -> Result<(), PortError> {
        let current: Vec<_> = slots.iter().map(|slot| slot.assignment.clone()).collect();
        let placed = settle(&current, hosts);
        let moved = (0..).map(Partition).zip(placed).zip(&current);
        let moved: Vec<_> = moved
            .filter(|((_, new), old)| new != *old)
            .filter_map(|((partition, new), _)| Some((partition, new?)))
            .collect();
        for some in moved.chunks(CALLS_MAX) {
            let expects = some.iter().map(|(p, _)| slots[p.0 as usize].expect);
            let writes = some.iter().zip(expects).map(|((partition, assignment), expect)| {
                let data = assignment.encode();
                async move {
                    let path = self.role.assignment(*partition);
                    self.leadership.put(&path, data, expect).await
                }
            });
            let written = try_join_all(writes).await?;
            for ((partition, _), node) in some.iter().zip(&written) {
                slots[partition.0 as usize] = self.slot(*partition, Some(node));
            }
        }
        if !moved.is_empty() {
            let role = self.role.name();
            tracing::info!(role, moved = moved.len(), hosts = hosts.len(), "partitions assigned");
            metrics::counter!("chaski_allocator_moves_total", "role" => role)
                .increment(moved.len() as u64);
        }
        Ok(())
    }
}
