//! Moving partitions off hosts with too much load: what the hosts tell of their loads goes to the
//! balancer, what it says is written as a loan.
//!
//! Must not know: when that is worth it (`balance`), how a partition is handed over.

use crate::{
    AllocatorConfig, Host,
    balance::{Balancer, Held, Move},
    loans::home,
    service::{Reign, Slot},
    znode::Assignment,
};
use chaski_core::Partition;
use chaski_ports::{ErrorKind, PortError};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};
use tokio::time::Instant;

/// What is known of the loads of one role.
pub(crate) struct Loads {
    balancer: Balancer,
    /// What was last told of each partition: who has just been given one does not tell at once.
    known: BTreeMap<Partition, u32>,
    begun: Instant,
}

impl Loads {
    pub(crate) fn new(config: AllocatorConfig) -> Self {
        let (known, begun) = (BTreeMap::new(), Instant::now());
        Self { balancer: Balancer::new(config), known, begun }
    }

    /// The partitions with their loads. `None` where they cannot be compared: a host does not tell
    /// its load, is not there, or a partition has no owner.
    fn held(
        &mut self,
        hosts: &HashMap<Arc<str>, Host>,
        weights: &BTreeMap<Arc<str>, u32>,
        slots: &[Slot],
    ) -> Option<Vec<Held>> {
        let tells = |id| hosts.get(id).is_some_and(|host| host.load.is_some());
        if !weights.keys().all(tells) {
            return None;
        }
        let held = (0..).map(Partition).zip(slots).map(|(partition, slot)| {
            let assignment = slot.assignment.as_ref()?;
            let host = weights.get_key_value(&assignment.host)?.0;
            let load = told(&hosts[host], partition).or_else(|| {
                // Who had it before may still serve it.
                hosts.values().filter_map(|host| told(host, partition)).max()
            });
            let load = match load {
                Some(load) => *self.known.entry(partition).insert_entry(load).get(),
                None => self.known.get(&partition).copied().unwrap_or(0),
            };
            Some(Held { host: Arc::clone(host), home: Arc::clone(home(assignment, weights)), load })
        });
        held.collect()
    }
}

fn told(host: &Host, partition: Partition) -> Option<u32> {
    host.load.as_ref()?.get(&partition.0).copied()
}

impl Reign<'_> {
    /// Moves a partition, where the loads ask for it.
    pub(crate) async fn rebalance(
        &self,
        loads: &mut Loads,
        hosts: &HashMap<Arc<str>, Host>,
        weights: &BTreeMap<Arc<str>, u32>,
        slots: &mut Vec<Slot>,
    ) -> Result<(), PortError> {
        let Some(held) = loads.held(hosts, weights, slots) else { return Ok(()) };
        let now = loads.begun.elapsed();
        let due = loads.balancer.look(now, &held, weights);
        let role = self.role.name();
        metrics::gauge!("chaski_allocator_overloaded", "role" => role)
            .set(loads.balancer.overloaded() as f64);
        let Some(Move { partition, to }) = due else { return Ok(()) };
        // An operator may have written since.
        let fresh = self.read().await?;
        if fresh != *slots {
            *slots = fresh;
            return Ok(());
        }
        let Held { host: from, home, load } = &held[partition.0 as usize];
        let assignment =
            Assignment { home: (*home != to).then(|| Arc::clone(home)), host: Arc::clone(&to) };
        let path = self.role.assignment(partition);
        let slot = &mut slots[partition.0 as usize];
        match self.leadership.put(&path, assignment.encode(), slot.expect).await {
            Ok(node) => *slot = self.slot(partition, Some(&node)),
            Err(error) if error.kind == ErrorKind::Conflict => {
                *slots = self.read().await?;
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        loads.balancer.moved(now, partition);
        tracing::info!(role, %partition, %from, %to, %home, load, "partition moved because of load");
        metrics::counter!("chaski_allocator_moves_total", "role" => role).increment(1);
        metrics::counter!("chaski_allocator_rebalanced_total", "role" => role).increment(1);
        Ok(())
    }
}
