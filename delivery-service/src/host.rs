//! The delivery host: owns partitions of `recipients` and the WebSockets of their users.
//!
//! Each owned partition has a [`ring`] of recent records, filled by its [`feed`]; a device is a
//! cursor that reads the ring at its own pace, or pages from the message service where it is
//! further back. Snapshot and tail meet on one position: no gap, no overlap.

mod acks;
mod blocks;
mod close;
mod commands;
mod config;
mod entry;
mod feed;
mod marks;
mod opening;
mod revoked;
mod ring;
mod session;
mod socket;
mod subscriber;
mod upgrade;

pub use config::HostConfig;

use acks::Acks;
use chaski_auth::Verifier;
use chaski_core::{DeviceId, Partition, UserId, placement::Placement};
use chaski_ports::{Clock, Log};
use chaski_proto::{
    Problem,
    v1::{
        connections_server::Connections, hosts_server::Hosts, messages_server::Messages,
        sender_server::Sender,
    },
};
use chaski_runtime::{Gate, Owned, Tasks, run_owned};
use close::CloseReason;
use commands::Verdicts;
use marks::Receipts;
use parking_lot::RwLock;
use revoked::Revoked;
use ring::Ring;
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::sync::watch;

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
    /// Says who serves a user.
    pub hosts: Arc<dyn Hosts>,
    /// Checks tokens.
    pub verifier: Arc<Verifier>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where users are placed.
    pub placement: Placement,
}

/// A delivery host.
pub struct DeliveryHost {
    parts: HostParts,
    config: HostConfig,
    rings: RwLock<HashMap<Partition, Arc<Ring>>>,
    acks: Acks,
    receipts: Receipts,
    verdicts: Verdicts,
    revoked: Revoked,
    draining: AtomicBool,
}

impl DeliveryHost {
    /// A host that owns nothing yet.
    #[must_use]
    pub fn new(parts: HostParts, config: HostConfig) -> Arc<Self> {
        let acks = Acks::new(Arc::clone(&parts.messages), config.cursors_unsaved_max);
        let receipts = Receipts::new(Arc::clone(&parts.sender), config.receipts_pending_max);
        Arc::new(Self {
            parts,
            config,
            rings: RwLock::default(),
            acks,
            receipts,
            verdicts: Verdicts::default(),
            revoked: Revoked::default(),
            draining: AtomicBool::new(false),
        })
    }

    /// The WebSocket endpoint, `/v1/ws`.
    pub fn router(self: &Arc<Self>) -> axum::Router {
        upgrade::router(Arc::clone(self))
    }

    /// Serves the owned partitions until the tasks stop. `gate` opens once all of them are warm, not
    /// before `settled`: partitions come one by one, and the first few are not all.
    pub async fn run(
        self: Arc<Self>,
        tasks: &Tasks,
        owned: watch::Receiver<Owned>,
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
        let (warm, mut warmed) = watch::channel(());
        let (host, wanted) = (Arc::clone(&self), owned.clone());
        let opener = async {
            settled.await;
            loop {
                if wanted.borrow().keys().all(|p| host.rings.read().contains_key(p)) {
                    gate.open();
                }
                if warmed.changed().await.is_err() {
                    return;
                }
            }
        };
        let serving = run_owned(tasks, ROLE, owned, |partition, _epoch, stop| {
            feed::run(Arc::clone(&self), partition, stop, warm.clone())
        });
        tokio::select! {
            () = serving => {}
            () = opener => {}
        }
    }

    /// Sends all clients away, their commands answered first, and saves what they acknowledged.
    pub async fn drain(&self, patience: Duration) {
        self.draining.store(true, Ordering::Relaxed);
        let rings: Vec<_> = self.rings.read().values().cloned().collect();
        rings.iter().for_each(|ring| ring.dismiss(CloseReason::Draining));
        let gone = async {
            while rings.iter().any(|ring| ring.sessions() > 0) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
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

    /// The ring of a user's partition, where this host owns it.
    fn ring_of(&self, user: &UserId) -> Option<Arc<Ring>> {
        self.rings.read().get(&self.parts.placement.of_user(user)).cloned()
    }
}

/// Whether it would be refused again, however often it is tried.
fn is_final(problem: &Problem) -> bool {
    problem.status < 500 && problem.retry_after_ms.is_none()
}
