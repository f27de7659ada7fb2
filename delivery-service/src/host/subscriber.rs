//! A session as the ring knows it: whom to wake, whom to send away, and the receipts that wait for
//! it beside the order.

use super::{
    close::CloseReason,
    marks::{Put, Told},
};
use chaski_core::{ChatId, DeviceId, Position, UserId};
use chaski_proto::v1;
use parking_lot::Mutex;
use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};
use tokio::sync::{Notify, SetOnce};

/// A session that wants to hear of its user's events. Clones are the same session.
#[derive(Clone)]
pub(super) struct Subscriber(Arc<Shared>);

struct Shared {
    /// Sockets are numbered as they are opened.
    socket: u64,
    device: DeviceId,
    /// When its token was issued; Unix seconds.
    issued_at: AtomicI64,
    wake: Notify,
    dismissed: SetOnce<CloseReason>,
    receipts: Mutex<Told>,
}

impl Subscriber {
    pub(super) fn new(
        socket: u64,
        (user, device): (UserId, DeviceId),
        issued_at: i64,
        receipts_max: usize,
    ) -> Self {
        Self(Arc::new(Shared {
            socket,
            device,
            issued_at: issued_at.into(),
            wake: Notify::new(),
            dismissed: SetOnce::new(),
            receipts: Mutex::new(Told::new(user, receipts_max)),
        }))
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        self.0.socket == other.0.socket
    }

    pub(super) fn socket(&self) -> u64 {
        self.0.socket
    }

    pub(super) fn device(&self) -> &DeviceId {
        &self.0.device
    }

    /// There is something to read. A wake-up that finds nobody waiting is kept.
    pub(super) fn wake(&self) {
        self.0.wake.notify_one();
    }

    /// Waits for something to read.
    pub(super) async fn woken(&self) {
        self.0.wake.notified().await;
    }

    /// Ends the session; the first reason stands.
    pub(super) fn dismiss(&self, reason: CloseReason) {
        let _ = self.0.dismissed.set(reason);
    }

    /// Why the session is to end, if it is.
    pub(super) fn dismissed(&self) -> Option<CloseReason> {
        self.0.dismissed.get().copied()
    }

    /// Waits until the session is to end.
    pub(super) async fn dismissal(&self) -> CloseReason {
        *self.0.dismissed.wait().await
    }

    /// The session has a new token.
    pub(super) fn renew(&self, issued_at: i64) {
        self.0.issued_at.store(issued_at, Ordering::Relaxed);
    }

    /// Ends the session where its token was issued in this second or before it.
    pub(super) fn revoke(&self, revoked_at: i64) {
        if self.0.issued_at.load(Ordering::Relaxed) <= revoked_at {
            self.dismiss(CloseReason::Revoked);
        }
    }

    /// A receipt for this session: of one (chat, user) only the latest waits.
    pub(super) fn tell(&self, chat: ChatId, user: UserId, (delivered, read): (u64, u64)) {
        match self.0.receipts.lock().put(chat, user, (delivered, read)) {
            Put::Waits => self.wake(),
            Put::Known => metrics::counter!("chaski_receipts_known_total").increment(1),
            Put::NoRoom => {
                metrics::counter!("chaski_receipts_dropped_total", "at" => "session").increment(1);
            }
        }
    }

    /// The receipts that wait, to be sent behind the event at `sent`.
    pub(super) fn receipts(&self, sent: Position) -> Vec<v1::Receipt> {
        self.0.receipts.lock().take(sent)
    }

    /// The device has acknowledged everything up to here, these places of chats among it.
    pub(super) fn acked(&self, upto: Position, taken: &[(ChatId, u64)]) {
        let mut receipts = self.0.receipts.lock();
        receipts.acked(upto);
        taken.iter().for_each(|(chat, seq)| receipts.said(*chat, (*seq, 0)));
    }

    /// The device has read the chat up to here.
    pub(super) fn has_read(&self, chat: ChatId, seq: u64) {
        self.0.receipts.lock().said(chat, (seq, seq));
    }
}
