//! What the tasks of a run share: the plan, the names, the clock and the counters.

use super::{names::Names, plan::Plan};
use chaski_client::{Disconnect, TokenProvider};
use hdrhistogram::Histogram;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::{sync::Semaphore, time::Instant};

/// Signs a token for a user's device.
pub type TokenSource = Arc<dyn Fn(&str, &str) -> anyhow::Result<String> + Send + Sync>;

pub(super) struct Shared {
    pub(super) plan: Plan,
    pub(super) url: String,
    pub(super) tokens: TokenSource,
    pub(super) names: Names,
    /// The message of each idempotency key.
    pub(super) messages: HashMap<String, u32>,
    /// The id of each chat that was made.
    pub(super) chat_ids: Vec<OnceLock<String>>,
    started: Instant,
    /// When each message was to be sent; 0: not yet.
    sent_us: Vec<AtomicU64>,
    latencies: Mutex<Latencies>,
    /// How many connections may be made at once.
    pub(super) connecting: Semaphore,
    /// Copies of this run's messages that were shown.
    pub(super) copies: AtomicU64,
    /// Devices that were shown all they must be shown.
    pub(super) complete: AtomicU64,
    pub(super) reconnects: AtomicU64,
    /// How often connections ended or did not come about, by cause.
    pub(super) disconnects: Mutex<BTreeMap<&'static str, u64>>,
    pub(super) repeats_ignored: AtomicU64,
    pub(super) rejected: AtomicU64,
    pub(super) resyncs: AtomicU64,
}

#[derive(Clone)]
pub(super) struct Latencies {
    pub(super) accept_us: Histogram<u64>,
    /// To devices whose socket was open from the send on.
    pub(super) delivery_us: Histogram<u64>,
    /// To devices that were meant to be online, whatever the kills did to their sockets.
    pub(super) delivery_with_reconnects_us: Histogram<u64>,
}

impl Shared {
    pub(super) fn new(plan: Plan, url: String, tokens: TokenSource) -> Self {
        let count = plan.log.messages.len();
        let nothing_due = plan.devices.iter().filter(|d| d.messages == 0).count() as u64;
        let histogram =
            || Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("the bounds are in order");
        Self {
            messages: (0..count as u32).map(|m| (plan.client_message_id(m), m)).collect(),
            chat_ids: plan.log.chats.iter().map(|_| OnceLock::new()).collect(),
            plan,
            url,
            tokens,
            names: Names::default(),
            started: Instant::now(),
            sent_us: (0..count).map(|_| AtomicU64::new(0)).collect(),
            latencies: Mutex::new(Latencies {
                accept_us: histogram(),
                delivery_us: histogram(),
                delivery_with_reconnects_us: histogram(),
            }),
            connecting: Semaphore::new(200),
            copies: AtomicU64::new(0),
            complete: AtomicU64::new(nothing_due),
            reconnects: AtomicU64::new(0),
            disconnects: Mutex::default(),
            repeats_ignored: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            resyncs: AtomicU64::new(0),
        }
    }

    pub(super) fn now_us(&self) -> u64 {
        self.started.elapsed().as_micros().try_into().unwrap_or(u64::MAX)
    }

    pub(super) fn mark_sent(&self, message: u32) {
        self.sent_us[message as usize].store(self.now_us().max(1), Ordering::Relaxed);
    }

    /// When a message was to be sent, if it was.
    pub(super) fn sent_us(&self, message: u32) -> Option<u64> {
        Some(self.sent_us[message as usize].load(Ordering::Relaxed)).filter(|at| *at > 0)
    }

    pub(super) fn count_disconnect(&self, cause: &Disconnect) {
        let name = match cause {
            Disconnect::Closed { .. } => "closed",
            Disconnect::Moved(_) => "moved",
            Disconnect::Draining => "draining",
            Disconnect::Busy => "busy",
            Disconnect::Silent(what) => what,
            Disconnect::Io(_) => "io",
            Disconnect::Unreadable(_) => "unreadable",
            Disconnect::Refused { .. } => "refused",
            Disconnect::NoToken(_) => "noToken",
        };
        let mut counts = self.disconnects.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(name).or_default() += 1;
    }

    pub(super) fn latencies<T>(&self, with: impl FnOnce(&mut Latencies) -> T) -> T {
        with(&mut self.latencies.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Tokens of a device.
    pub(super) fn token_provider(&self, device: u32) -> TokenProvider {
        let device = &self.plan.devices[device as usize];
        let (user, name) = (self.plan.log.users[device.user as usize].clone(), device.name.clone());
        let tokens = self.tokens.clone();
        TokenProvider::local(move || {
            let bearer = tokens(&user, &name).map_err(|error| format!("{error:#}"))?;
            Ok(chaski_client::Token { bearer, renew_in: None })
        })
    }
}
