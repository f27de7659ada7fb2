//! This process among the hosts of its roles: what it says of itself, and what it owns of each.

use chaski_core::Partition;
use chaski_delivery_service::host::{Elsewhere, Whereabouts};
use chaski_host_allocator::{AllocatorConfig, Assignments, Host, HostRegistration, Role as Owner};
use chaski_ports::Coordinator;
use chaski_runtime::{Owned, Tasks};
use futures::future::join_all;
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::Arc,
    time::Duration,
};
use tokio::sync::watch;

/// How long those who call this process have to hear that it is about to end.
const HEARD: Duration = Duration::from_millis(200);

/// This process among the hosts of its roles.
pub(super) struct Presence {
    pub(super) host_id: String,
    pub(super) coordinator: Arc<dyn Coordinator>,
    pub(super) config: AllocatorConfig,
    /// Who owns what, and who is there, role by role.
    pub(super) followed: BTreeMap<Owner, Assignments>,
    /// What this process says of itself in the roles it plays.
    pub(super) said: Mutex<BTreeMap<Owner, watch::Sender<Host>>>,
}

impl Presence {
    /// Says that this process plays the role; its session's end is this process's end.
    pub(super) fn register(&self, owner: Owner, host: Host, tasks: &Tasks) {
        let (say, said) = watch::channel(host.clone());
        self.said.lock().insert(owner, say);
        let (coordinator, config) = (Arc::clone(&self.coordinator), self.config.clone());
        let stop = tasks.stop();
        tasks.spawn(format!("registration/{owner}"), async move {
            let here = async {
                let registration =
                    HostRegistration::register(coordinator, owner, &host, &config).await?;
                registration.keep(said, &config).await
            };
            tokio::select! {
                () = stop.cancelled() => Ok(()),
                end = here => end.map(|never| match never {}),
            }
        });
    }

    /// Follows which partitions of the role this process owns.
    pub(super) fn owned(&self, owner: Owner, tasks: &Tasks) -> watch::Receiver<Owned> {
        let (tell, owned) = watch::channel(Owned::new());
        let host_id = self.host_id.clone();
        self.follow(owner, tasks, move |assignments| {
            let mine = assignments.mine(&host_id).into_iter().collect();
            tell.send_if_modified(|owned| std::mem::replace(owned, mine) != *owned);
        });
        owned
    }

    /// Follows where the partitions of the delivery hosts are, as one of them.
    pub(super) fn whereabouts(&self, tell: watch::Sender<Whereabouts>, tasks: &Tasks) {
        let host_id = self.host_id.clone();
        self.follow(Owner::Delivery, tasks, move |assignments| {
            let (mine, others): (Vec<_>, Vec<_>) =
                assignments.owners().into_iter().partition(|(_, owner)| *owner.host == *host_id);
            let there = others.into_iter().filter(|(_, owner)| !owner.url.is_empty());
            let map = Whereabouts {
                owned: mine.into_iter().map(|(partition, _)| partition).collect(),
                elsewhere: there
                    .map(|(p, owner)| (p, Elsewhere { url: owner.url, warm: owner.warm }))
                    .collect(),
            };
            tell.send_if_modified(|told| std::mem::replace(told, map) != *told);
        });
    }

    /// Says which partitions' rings are full, as that changes.
    pub(super) fn tell_warm(&self, mut warm: watch::Receiver<BTreeSet<Partition>>, tasks: &Tasks) {
        let Some(say) = self.said.lock().get(&Owner::Delivery).cloned() else { return };
        let stop = tasks.stop();
        tasks.spawn("warm", async move {
            loop {
                let now: BTreeSet<u32> = warm.borrow_and_update().iter().map(|p| p.0).collect();
                say.send_if_modified(|host| std::mem::replace(&mut host.warm, now) != host.warm);
                tokio::select! {
                    () = stop.cancelled() => return Ok::<_, Infallible>(()),
                    changed = warm.changed() => if changed.is_err() { return Ok(()) },
                }
            }
        });
    }

    fn follow(
        &self,
        owner: Owner,
        tasks: &Tasks,
        mut look: impl FnMut(&Assignments) + Send + 'static,
    ) {
        let (mut assignments, stop) = (self.followed[&owner].clone(), tasks.stop());
        tasks.spawn(format!("owned/{owner}"), async move {
            loop {
                look(&assignments);
                tokio::select! {
                    () = stop.cancelled() => return Ok::<_, Infallible>(()),
                    changed = assignments.changed() => if changed.is_err() { return Ok(()) },
                }
            }
        });
    }

    /// Says that this process is about to end, and waits until others own what it owned; where
    /// nobody else is there who stays, that is at once.
    pub(super) async fn leave(&self) {
        let roles: Vec<Owner> = {
            let said = self.said.lock();
            said.values().for_each(|say| say.send_modify(|host| host.draining = true));
            said.keys().copied().collect()
        };
        let others = |owner| self.others(&self.followed[&owner]);
        if roles.iter().any(|owner| others(*owner)) {
            // Callers go to those meanwhile.
            let heard = tokio::time::sleep(HEARD);
            tokio::join!(heard, join_all(roles.iter().map(|owner| self.handed_over(*owner))));
        }
    }

    /// Whether another host of the role is there that stays.
    fn others(&self, assignments: &Assignments) -> bool {
        assignments.hosts().iter().any(|host| *host.id != *self.host_id && !host.draining)
    }

    /// Whether this process owns nothing of the role (any more).
    pub(super) fn owns_nothing(&self, owner: Owner) -> bool {
        self.followed[&owner].mine(&self.host_id).is_empty()
    }

    async fn handed_over(&self, owner: Owner) {
        let mut assignments = self.followed[&owner].clone();
        while !self.owns_nothing(owner) && self.others(&assignments) {
            if assignments.changed().await.is_err() {
                return;
            }
        }
    }
}
