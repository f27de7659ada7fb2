//! This process among the hosts of its roles: what it says of itself, and what it owns of each.

use chaski_core::Partition;
use chaski_delivery_service::host::{Elsewhere, Whereabouts};
use chaski_host_allocator::{AllocatorConfig, Assignments, Host, HostRegistration, Role as Owner};
use chaski_ports::Coordinator;
use chaski_runtime::{Gate, Owned, Tasks};
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
    /// Says that this process plays the role, from one session of the coordinator to the next.
    pub(super) fn register(&self, owner: Owner, host: Host, tasks: &Tasks) {
        let (say, said) = watch::channel(host);
        self.said.lock().insert(owner, say);
        let (coordinator, config) = (Arc::clone(&self.coordinator), self.config.clone());
        let stop = tasks.stop();
        tasks.spawn(format!("registration/{owner}"), async move {
            tokio::select! {
                () = stop.cancelled() => Ok(()),
                end = HostRegistration::hold(coordinator, owner, said, &config) => {
                    end.map(|never| match never {})
                }
            }
        });
    }

    /// Not ready while no session is alive: nothing is owned then.
    pub(super) fn gate_on_session(&self, gate: Gate, tasks: &Tasks) {
        let (mut sessions, stop) = (self.coordinator.session(), tasks.stop());
        tasks.spawn("ready/session", async move {
            loop {
                match sessions.borrow_and_update().alive() {
                    Some(_) => gate.open(),
                    None => gate.close(),
                }
                tokio::select! {
                    () = stop.cancelled() => return Ok::<_, Infallible>(()),
                    changed = sessions.changed() => if changed.is_err() { return Ok(()) },
                }
            }
        });
    }

    /// Follows which partitions of the role this process owns.
    pub(super) fn owned(&self, owner: Owner, tasks: &Tasks) -> watch::Receiver<Owned> {
        let (tell, owned) = watch::channel(Owned::default());
        let host_id = self.host_id.clone();
        self.follow(owner, tasks, move |assignments, session| {
            let partitions = assignments.mine_in(session, &host_id).into_iter().collect();
            let mine = Owned { session, partitions };
            tell.send_if_modified(|owned| std::mem::replace(owned, mine) != *owned);
        });
        owned
    }

    /// Follows where the partitions of the delivery hosts are, as one of them.
    pub(super) fn whereabouts(&self, tell: watch::Sender<Whereabouts>, tasks: &Tasks) {
        let host_id = self.host_id.clone();
        self.follow(Owner::Delivery, tasks, move |assignments, session| {
            let mine = assignments.mine_in(session, &host_id);
            let others = assignments.owners().into_iter().filter(|(_, o)| *o.host != *host_id);
            let there = others.filter(|(_, owner)| !owner.url.is_empty());
            let map = Whereabouts {
                session,
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

    /// Looks at the table at each change, in the session that is alive; 0 for none. A session's end
    /// ends all that is owned (L6).
    fn follow(
        &self,
        owner: Owner,
        tasks: &Tasks,
        mut look: impl FnMut(&Assignments, u64) + Send + 'static,
    ) {
        let (mut assignments, stop) = (self.followed[&owner].clone(), tasks.stop());
        let mut sessions = self.coordinator.session();
        tasks.spawn(format!("owned/{owner}"), async move {
            loop {
                let session = sessions.borrow_and_update().alive().unwrap_or(0);
                look(&assignments, session);
                let changed = tokio::select! {
                    () = stop.cancelled() => false,
                    changed = assignments.changed() => changed.is_ok(),
                    changed = sessions.changed() => changed.is_ok(),
                };
                if !changed {
                    return Ok::<_, Infallible>(());
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
