//! Planned moves. A partition that was given to another host is served here until that one is warm;
//! then its sockets are sent there, some at a time, and its ring is given up.
//!
//! Two hosts that serve a partition at once do no harm (L6): a host writes nothing that is keyed by
//! its partition, and what both show is the log.
//!
//! Must not know: who decides about owners, and how that is told.

use super::{DeliveryHost, close::CloseReason, ring::Ring, session::Who};
use chaski_core::{Partition, UserId};
use chaski_proto::v1;
use chaski_relay::When;
use chaski_runtime::Owned;
use futures::future::{BoxFuture, select_all};
use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
    time::Duration,
};
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// How long the last sockets of a partition have for their answers before its ring is given up.
const FAREWELL: Duration = Duration::from_secs(3);
/// How often it is looked whether they have gone.
const LOOK: Duration = Duration::from_millis(10);
/// Before a client tries again that cannot be told where, in milliseconds.
const NOWHERE_MS: u32 = 500;
/// The same while this host has no session: it may take a while until anybody knows.
const NO_SESSION_MS: u32 = 2_000;

/// Where partitions are served, as this host is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Whereabouts {
    /// The coordinator's session in which this is so, 0 for none. What was served in another one is
    /// given up at once.
    pub session: u64,
    /// What this host owns.
    pub owned: BTreeSet<Partition>,
    /// What other hosts own, as far as they are there.
    pub elsewhere: BTreeMap<Partition, Elsewhere>,
}

/// The owner of a partition, where that is another host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    /// What clients connect to.
    pub url: Arc<str>,
    /// Whether it says that its ring is full: it can serve at once.
    pub warm: bool,
}

/// Keeps in the host's `served` what it owns and what it has not handed over yet. Never ends.
pub(super) async fn run(host: &DeliveryHost) {
    let mut whereabouts = host.parts.whereabouts.clone();
    let mut leaving = BTreeMap::<Partition, BoxFuture<'_, Partition>>::new();
    loop {
        let (session, owned) = {
            let told = whereabouts.borrow_and_update();
            (told.session, told.owned.clone())
        };
        // Who is not among the hosts any more has nothing to hand over (L6).
        if host.served.borrow().session != session {
            leaving.clear();
            host.served.send_replace(Owned { session, ..Owned::default() });
        }
        for partition in host.served.borrow().partitions.keys().filter(|p| !owned.contains(p)) {
            let leave = || Box::pin(leave(host, *partition)) as _;
            leaving.entry(*partition).or_insert_with(leave);
        }
        let back: Vec<_> = leaving.keys().filter(|p| owned.contains(p)).copied().collect();
        for partition in back {
            leaving.remove(&partition);
            if let Some(ring) = host.ring(partition) {
                ring.reopen();
            }
        }
        // Epochs are of no concern: nothing is saved by partition, so a ring outlives them.
        let partitions = owned.iter().chain(leaving.keys()).map(|p| (*p, 0)).collect();
        let served = Owned { session, partitions };
        host.served.send_if_modified(|before| std::mem::replace(before, served) != *before);
        // Whoever waits for a ring looks again.
        host.warm.send_modify(|_| {});
        let left = async {
            match leaving.is_empty() {
                true => std::future::pending().await,
                false => select_all(leaving.values_mut()).await.0,
            }
        };
        tokio::select! {
            changed = whereabouts.changed() => if changed.is_err() {
                // Nobody tells any more: the process ends.
                return std::future::pending().await;
            },
            left = left => {
                leaving.remove(&left);
                host.served.send_modify(|served| {
                    served.partitions.remove(&left);
                });
            }
        }
    }
}

/// Serves the partition until its owner does, then sends its sockets there.
async fn leave(host: &DeliveryHost, partition: Partition) -> Partition {
    tracing::info!(%partition, "owned by another host now: served until it is warm there");
    let warm = owner_is_warm(host, partition).await;
    let Some(ring) = host.ring(partition) else { return partition };
    // One partition after the other: the pace is the host's.
    let turn = host.parting.lock().await;
    let sessions = ring.close(CloseReason::Moved);
    tracing::info!(%partition, warm, sockets = sessions.len(), "sockets are sent to the new owner");
    for slice in sessions.chunks(host.config.move_slice) {
        slice.iter().for_each(|session| session.dismiss(CloseReason::Moved));
        sleep(Duration::from_millis(host.config.move_every_ms)).await;
    }
    drop(turn);
    // Their last answers may come by this ring.
    let _ = timeout(FAREWELL, gone(&ring)).await;
    metrics::counter!("chaski_partitions_handed_over_total").increment(1);
    partition
}

/// Waits until the owner of the partition is warm, or has had its time for it; whether it is. While
/// nobody who is there owns it, there is nothing to wait for but that.
async fn owner_is_warm(host: &DeliveryHost, partition: Partition) -> bool {
    let mut whereabouts = host.parts.whereabouts.clone();
    let mut time_is_up = None;
    loop {
        match whereabouts.borrow_and_update().elsewhere.get(&partition) {
            Some(elsewhere) if elsewhere.warm => return true,
            Some(_) => {
                let most = Duration::from_millis(host.config.move_ms);
                time_is_up.get_or_insert_with(|| Instant::now() + most);
            }
            None => time_is_up = None,
        }
        let time = async {
            match time_is_up {
                Some(end) => sleep_until(end).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = whereabouts.changed() => if changed.is_err() {
                return std::future::pending().await;
            },
            () = time => return false,
        }
    }
}

/// Waits until nobody is served by this ring.
pub(super) async fn gone(ring: &Ring) {
    while ring.sessions() > 0 {
        sleep(LOOK).await;
    }
}

impl DeliveryHost {
    /// The ring that serves this user. Waits, as long as a `hello` may take, while it is this
    /// host's and not warm yet; `None` where another one is to be asked.
    pub(super) async fn ring_when_warm(&self, user: &UserId) -> Option<Arc<Ring>> {
        let partition = self.parts.placement.of_user(user);
        let mut warm = self.warm.subscribe();
        let found = warm.wait_for(|_| self.ring_or_refusal(partition).is_some());
        let patience = Duration::from_secs(self.config.hello_seconds);
        let _ = timeout(patience, found).await.ok()?.ok()?;
        self.ring_or_refusal(partition)?
    }

    /// The open ring, or that there will be none; `None`: wait.
    fn ring_or_refusal(&self, partition: Partition) -> Option<Option<Arc<Ring>>> {
        let ring = self.ring(partition).filter(|ring| ring.is_open());
        let waits = ring.is_none()
            && !self.is_draining()
            && self.parts.whereabouts.borrow().owned.contains(&partition);
        (!waits).then_some(ring)
    }

    /// Where the user is served, for who is not served here (any more); without a URL: come again.
    pub(super) fn moved(&self, who: &Who, retry_after_ms: u32) -> v1::GoAway {
        let partition = self.parts.placement.of_user(&who.user);
        let whereabouts = self.parts.whereabouts.borrow();
        let url = whereabouts.elsewhere.get(&partition).map(|elsewhere| elsewhere.url.to_string());
        let retry_after_ms = match (&url, whereabouts.session) {
            (Some(_), _) => retry_after_ms,
            (None, 0) => NO_SESSION_MS,
            (None, _) => NOWHERE_MS,
        };
        // Who only comes through others has no use for an address.
        let url = url.filter(|_| self.config.relay != When::Always);
        v1::GoAway { reason: "MOVED".into(), url, retry_after_ms }
    }

    /// A pause of its own for each device, so that those that go together do not come together.
    pub(super) fn spread_ms(&self, who: &Who) -> u32 {
        let mut hasher = DefaultHasher::new();
        (who.user.as_str(), who.device.as_str()).hash(&mut hasher);
        (hasher.finish() % u64::from(self.config.move_spread_ms).max(1)) as u32
    }
}
