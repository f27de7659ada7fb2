//! The delivery host: owns partitions of `recipients` and the WebSockets of their users.
//!
//! Each owned partition has a [`ring`] of recent records, filled by its [`feed`]; a device is a
//! cursor that reads the ring at its own pace, or pages from the message service where it is
//! further back; where what is stored ends before the ring, all such devices share one read of the
//! log ([`catch_up`]). Snapshot and tail meet on one position: no gap, no overlap.

mod acks;
mod admission;
mod backlog;
mod blocks;
mod catch_up;
mod close;
mod commands;
mod config;
mod cost;
mod entry;
mod feed;
mod marks;
mod moves;
mod opening;
mod past;
mod pulse;
mod relay;
mod revoked;
mod ring;
mod session;
mod socket;
mod subscriber;
mod upgrade;

pub use config::HostConfig;
pub use moves::{Elsewhere, Whereabouts};
pub use relay::RelayService;

use acks::Acks;
use admission::Admission;
use backlog::Backlog;
use chaski_auth::Verifier;
use chaski_core::{DeviceId, Partition, SourceId, UserId, placement::Placement};
use chaski_ports::{Clock, Log};
use chaski_proto::{
    Problem,
    v1::{connections_server::Connections, messages_server::Messages, sender_server::Sender},
};
use chaski_relay::Relays;
use chaski_runtime::{Gate, Owned, Tasks, Work, run_owned};
use close::CloseReason;
use commands::Verdicts;
use marks::Receipts;
use parking_lot::RwLock;
use revoked::Revoked;
use ring::Ring;
use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::{Mutex, Semaphore, watch};

/// The role's name in claims and assignments.
pub const ROLE: &str = "delivery";

/// What a delivery host needs from others.
#[derive(Clone)]
pub struct HostParts {
    /// The log.
    pub log: Arc<dyn Log>,
    /// Takes what clients send.
    pub sender: Arc<dyn Sender>,
    /// Serves what is older than the ring, and keeps device cursors.
    pub messages: Arc<dyn Messages>,
    /// Takes changes of contacts, blocks and settings.
    pub connections: Arc<dyn Connections>,
    /// Where partitions are served.
    pub whereabouts: watch::Receiver<Whereabouts>,
    /// Carries clients to other hosts; none: nobody is relayed from here.
    pub relays: Option<Relays>,
    /// Checks tokens.
    pub verifier: Arc<Verifier>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where users are placed.
    pub placement: Placement,
    /// What the fan-out's records name as their source.
    pub source: SourceId,
    /// Whether sender services refuse who is blocked, and are to be watched whether they do.
    pub blocks_visible: bool,
}

/// A delivery host.
pub struct DeliveryHost {
    parts: HostParts,
    config: HostConfig,
    /// What is served here: what is owned, and what is not handed over yet.
    served: watch::Sender<Owned>,
    rings: RwLock<HashMap<Partition, Arc<Ring>>>,
    /// The partitions of the rings. Also touched where somebody who waits for one has to look again.
    warm: watch::Sender<BTreeSet<Partition>>,
    /// Whose sockets are being sent away.
    parting: Mutex<()>,
    acks: Acks,
    receipts: Receipts,
    verdicts: Verdicts,
    revoked: Revoked,
    admission: Admission,
    backlog: Backlog,
    /// Turns of those who read the log again.
    catching_up: Semaphore,
    /// How many sockets were opened.
    sockets: AtomicU64,
    draining: AtomicBool,
    work: Work,
}

impl DeliveryHost {
    /// A host that owns nothing yet.
    #[must_use]
    pub fn new(parts: HostParts, config: HostConfig) -> Arc<Self> {
        let acks = Acks::new(Arc::clone(&parts.messages), config.cursors_unsaved_max);
        let receipts = Receipts::new(Arc::clone(&parts.sender), config.receipts_pending_max);
        let admission = Admission::new(config.hellos_per_second);
        let backlog = Backlog::new(config.backlog_ms_max);
        Arc::new(Self {
            parts,
            config,
            admission,
            backlog,
            catching_up: Semaphore::new(catch_up::READS_MAX),
            served: watch::Sender::default(),
            rings: RwLock::default(),
            warm: watch::Sender::default(),
            parting: Mutex::default(),
            acks,
            receipts,
            verdicts: Verdicts::default(),
            revoked: Revoked::default(),
            sockets: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            work: Work::new(ROLE),
        })
    }

    /// The WebSocket endpoint, `/v1/ws`.
    pub fn router(self: &Arc<Self>) -> axum::Router {
        upgrade::router(Arc::clone(self))
    }

    /// Serves what it owns, and what it is handing over, until the tasks stop. `gate` opens once all
    /// that it owns is warm, not before `settled`: partitions come one by one, and the first few are
    /// not all.
    pub async fn run(
        self: Arc<Self>,
        tasks: &Tasks,
        settled: impl Future<Output = ()>,
        gate: Gate,
    ) {
        let (host, stop) = (Arc::clone(&self), tasks.stop());
        tasks.spawn("delivery/cursors", async move {
            host.acks.run(Duration::from_millis(host.config.cursor_save_ms), stop).await;
            Ok::<_, std::convert::Infallible>(())
        });
        let (host, stop) = (Arc::clone(&self), tasks.stop());
        tasks.spawn("delivery/receipts", async move {
            let every = Duration::from_millis(host.config.receipts_every_ms);
            host.receipts.run(every, stop).await;
            Ok::<_, std::convert::Infallible>(())
        });
        let opener = async {
            settled.await;
            let mut warm = self.warm.subscribe();
            let all = |warm: &BTreeSet<_>| self.parts.whereabouts.borrow().owned.is_subset(warm);
            if warm.wait_for(all).await.is_ok() {
                gate.open();
            }
            std::future::pending().await
        };
        let serving = run_owned(tasks, ROLE, self.served.subscribe(), |partition, _epoch, stop| {
            feed::run(Arc::clone(&self), partition, stop)
        });
        tokio::select! {
            () = serving => {}
            () = moves::run(&self) => {}
            () = opener => {}
        }
    }

    /// The partitions that this host can serve at once, for those who hand one over to it.
    pub fn warm(&self) -> watch::Receiver<BTreeSet<Partition>> {
        self.warm.subscribe()
    }

    /// What its partitions do and cost.
    pub fn work(&self) -> Work {
        self.work.clone()
    }

    /// How many devices wait for a read of the log, or are served by one.
    #[must_use]
    pub fn catching_up(&self) -> usize {
        self.rings.read().values().map(|ring| ring.waiting.len()).sum()
    }

    /// Waits until nothing is served here any more, because others own it and serve it; at most
    /// about as long as an owner is waited for.
    pub async fn handed_over(&self) {
        let mut served = self.served.subscribe();
        let most = Duration::from_millis(self.config.move_ms);
        let _ = tokio::time::timeout(most, served.wait_for(|served| served.partitions.is_empty()))
            .await;
    }

    /// Sends all clients away, their commands answered first, and saves what they acknowledged.
    pub async fn drain(&self, ending: Ending, patience: Duration) {
        self.draining.store(true, Ordering::Relaxed);
        // Who waits for a ring is told.
        self.warm.send_modify(|_| {});
        let rings: Vec<_> = self.rings.read().values().cloned().collect();
        rings.iter().for_each(|ring| ring.dismiss(ending.reason()));
        let gone = futures::future::join_all(rings.iter().map(|ring| moves::gone(ring)));
        // Who has not gone by then resumes elsewhere all the same.
        let _ = tokio::time::timeout(patience, gone).await;
        tokio::join!(self.acks.save(), self.receipts.flush());
    }

    /// Closes the sockets of a device whose token was issued in the second `revoked_at` (Unix) or
    /// before it. To be called for every revocation, behind the verifier's own knowledge of it.
    pub fn revoke(&self, user: &UserId, device: &DeviceId, revoked_at: i64) {
        // Remembered first: a socket that is just being opened looks here once it is in the ring.
        self.revoked.note(user, device, revoked_at);
        if let Some(ring) = self.ring_of(user) {
            ring.revoke(user, device, revoked_at);
        }
    }

    /// Whether this host sends everybody away.
    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// The ring of a user's partition, where it is served here.
    fn ring_of(&self, user: &UserId) -> Option<Arc<Ring>> {
        self.ring(self.parts.placement.of_user(user))
    }

    fn ring(&self, partition: Partition) -> Option<Arc<Ring>> {
        self.rings.read().get(&partition).cloned()
    }

    /// The partition's ring is full: its users are served here.
    fn serve(&self, partition: Partition, ring: &Arc<Ring>) {
        ring.reopen();
        self.rings.write().insert(partition, Arc::clone(ring));
        self.warm.send_modify(|warm| {
            warm.insert(partition);
        });
    }

    /// The partition's users are not served here any more: they are sent away.
    fn withdraw(&self, partition: Partition) {
        self.warm.send_modify(|warm| {
            warm.remove(&partition);
        });
        if let Some(ring) = self.rings.write().remove(&partition) {
            ring.dismiss(CloseReason::Moved);
        }
    }
}

/// Why a host sends all its clients away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It was asked to end: its clients come again, here or elsewhere.
    Planned,
    /// It cannot go on, and is not the one to ask any more: its clients are to ask anew who is.
    Lost,
}

impl Ending {
    const fn reason(self) -> CloseReason {
        match self {
            Self::Planned => CloseReason::Draining,
            Self::Lost => CloseReason::Moved,
        }
    }
}

/// Whether it would be refused again, however often it is tried.
fn is_final(problem: &Problem) -> bool {
    problem.status < 500 && problem.retry_after_ms.is_none()
}
