//! The sockets of a pair of processes over one stream of frames: how much each may send, and whose
//! turn it is. Both ends are the same, but that only one of them opens.
//!
//! What a socket is sent waits in its own queue here, never more than it was given credit for, so
//! whoever reads the stream never waits for a socket, and a slow one holds up no other.
//!
//! Must not know: what moves the frames; there is no task, clock or network here.

mod tunnel;

pub use tunnel::Tunnel;

use crate::Limits;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes};
use bytes::Bytes;
use chaski_proto::{
    close,
    v1::{RelayAlive, RelayClose, RelayFrame, RelayOpen, relay_frame::What},
};
use futures::Stream;
use parking_lot::Mutex;
use std::{
    collections::{HashMap, VecDeque},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

/// What a socket may be sent before anything is said about it, in bytes.
const FIRST_WINDOW: usize = 65_536;
/// What a message costs beside its bytes, so that empty ones are bounded too.
const MESSAGE_COST: usize = 64;

/// Which end of the stream it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Where clients connect: opens tunnels.
    Accepting,
    /// Where clients are served.
    Serving,
}

impl Side {
    const fn name(self) -> &'static str {
        match self {
            Self::Accepting => "accepting",
            Self::Serving => "serving",
        }
    }
}

/// One end of the stream. Clones are the same end.
#[derive(Clone)]
pub struct Mux(Arc<Shared>);

struct Shared {
    side: Side,
    limits: Limits,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    sockets: HashMap<u32, Entry>,
    /// Who has something to be written, each once.
    turns: VecDeque<u32>,
    last: u32,
    ended: bool,
    writer: Option<Waker>,
}

/// A socket's half of both directions.
struct Entry {
    out: VecDeque<What>,
    /// What may still be sent; the last message may have exceeded it.
    credit: i64,
    alive: bool,
    /// Stands in `turns`.
    queued: bool,
    inbox: VecDeque<Message>,
    /// What the other end may still send.
    allowed: i64,
    /// What was taken and is not given back yet.
    owed: u32,
    /// From how much on it is given back.
    due: u32,
    /// The other end has ended, or the stream has.
    over: bool,
    /// This end has: its close is in `out`.
    dropped: bool,
    reader: Option<Waker>,
    sender: Option<Waker>,
    /// Waits for the end only.
    watcher: Option<Waker>,
}

/// The stream cannot go on: what came is not of this protocol.
#[derive(Debug, thiserror::Error)]
#[error("relay: {0}")]
pub struct Broken(&'static str);

/// The socket has ended at the other end, or with its stream.
#[derive(Debug, thiserror::Error)]
#[error("the relayed socket is over")]
pub struct Over;

impl Mux {
    /// One end of a new stream.
    #[must_use]
    pub fn new(side: Side, limits: Limits) -> Self {
        Self(Arc::new(Shared { side, limits, inner: Mutex::default() }))
    }

    /// A new tunnel; `None` where there are as many as there may be, or the stream has ended.
    #[must_use]
    pub fn open(&self, open: RelayOpen) -> Option<Tunnel> {
        let mut inner = self.0.inner.lock();
        let id = inner.last.checked_add(1)?;
        if inner.ended || inner.sockets.len() >= self.0.limits.sockets_max {
            return None;
        }
        inner.last = id;
        let mut entry = self.entry();
        entry.out.push_front(What::Open(open));
        inner.sockets.insert(id, entry);
        inner.touch(id);
        drop(inner);
        Some(self.tunnel(id))
    }

    /// Takes in a frame; a tunnel where it opened one.
    ///
    /// # Errors
    /// The other end does not keep to the protocol: the stream is to be ended.
    pub fn take(&self, frame: RelayFrame) -> Result<Option<(RelayOpen, Tunnel)>, Broken> {
        let id = frame.socket;
        let mut inner = self.0.inner.lock();
        let what = match frame.what {
            Some(What::Open(open)) => {
                let opened = self.opened(&mut inner, id)?;
                drop(inner);
                return Ok(opened.then(|| (open, self.tunnel(id))));
            }
            Some(what) => what,
            // A newer peer's.
            None => return Ok(None),
        };
        // What crossed with our close is for nobody.
        let Some(entry) = inner.sockets.get_mut(&id) else { return Ok(None) };
        match what {
            What::Text(bytes) => {
                let text = Utf8Bytes::try_from(own(&bytes));
                let text = text.map_err(|_| Broken("text is not UTF-8"))?;
                entry.deliver(Message::Text(text), self.0.side)?;
            }
            What::Binary(bytes) => {
                entry.deliver(Message::Binary(own(&bytes)), self.0.side)?;
            }
            What::Credit(bytes) => {
                entry.credit = entry.credit.saturating_add(bytes.into());
                wake(&mut entry.sender);
            }
            What::Alive(RelayAlive {}) => {
                if !entry.dropped && !matches!(entry.inbox.back(), Some(Message::Pong(_))) {
                    entry.inbox.push_back(Message::Pong(Bytes::new()));
                    wake(&mut entry.reader);
                }
            }
            What::Close(RelayClose { code, reason }) => {
                if let Some(code) = u16::try_from(code).ok().filter(|code| *code > 0) {
                    let frame = CloseFrame { code, reason: reason.into() };
                    entry.inbox.push_back(Message::Close(Some(frame)));
                }
                entry.end();
                if entry.dropped {
                    inner.sockets.remove(&id);
                }
            }
            What::Open(_) => unreachable!("taken above"),
        }
        Ok(None)
    }

    fn opened(&self, inner: &mut Inner, id: u32) -> Result<bool, Broken> {
        if self.0.side == Side::Accepting || id <= inner.last {
            return Err(Broken("a socket was opened that must not be"));
        }
        let (open, most) = (inner.sockets.len(), self.0.limits.sockets_max);
        if open >= 2 * most.max(1) {
            return Err(Broken("far too many sockets were opened"));
        }
        inner.last = id;
        let mut entry = self.entry();
        if inner.ended {
            return Ok(false);
        }
        let full = open >= most;
        if full {
            metrics::counter!("chaski_relay_refused_total", "why" => "full").increment(1);
            entry.dropped = true;
            entry.out =
                [What::Close(RelayClose { code: close::DRAINING.into(), reason: "full".into() })]
                    .into();
        }
        inner.sockets.insert(id, entry);
        inner.touch(id);
        Ok(!full)
    }

    /// What this end writes, to be read by whatever moves it. Where that lets it go, the stream has
    /// ended.
    #[must_use]
    pub fn outgoing(&self) -> Outgoing {
        Outgoing(self.clone())
    }

    /// The stream has ended: all tunnels have.
    pub fn end(&self) {
        let inner = &mut *self.0.inner.lock();
        inner.ended = true;
        inner.sockets.retain(|_, entry| {
            entry.out.clear();
            entry.end();
            !entry.dropped
        });
        wake(&mut inner.writer);
    }

    /// Whether the stream has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.0.inner.lock().ended
    }

    /// Whether it is the same end of the same stream.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    fn entry(&self) -> Entry {
        let window = self.0.limits.window_bytes.max(FIRST_WINDOW);
        let more = u32::try_from(window - FIRST_WINDOW).unwrap_or(u32::MAX);
        let out = (more > 0).then_some(What::Credit(more));
        Entry {
            out: out.into_iter().collect(),
            credit: FIRST_WINDOW as i64,
            alive: false,
            queued: false,
            inbox: VecDeque::new(),
            allowed: FIRST_WINDOW as i64 + i64::from(more),
            owed: 0,
            due: u32::try_from(window / 2).unwrap_or(u32::MAX),
            over: false,
            dropped: false,
            reader: None,
            sender: None,
            watcher: None,
        }
    }

    fn tunnel(&self, id: u32) -> Tunnel {
        metrics::gauge!("chaski_relayed_sockets", "side" => self.0.side.name()).increment(1);
        Tunnel { mux: self.clone(), id }
    }
}

impl Inner {
    /// Gives the socket its turn, where it has something to be written.
    fn touch(&mut self, id: u32) {
        let Some(entry) = self.sockets.get_mut(&id) else { return };
        if !entry.queued && entry.has_more() {
            entry.queued = true;
            self.turns.push_back(id);
            wake(&mut self.writer);
        }
    }

    fn pop(&mut self, id: u32) -> Option<Message> {
        let entry = self.sockets.get_mut(&id)?;
        let message = entry.inbox.pop_front()?;
        if matches!(message, Message::Text(_) | Message::Binary(_)) && !entry.over {
            entry.owed = entry.owed.saturating_add(cost(&message));
            self.touch(id);
        }
        Some(message)
    }

    fn next(&mut self) -> Option<RelayFrame> {
        while let Some(socket) = self.turns.pop_front() {
            let Some(entry) = self.sockets.get_mut(&socket) else { continue };
            entry.queued = false;
            let Some(what) = entry.next() else { continue };
            if matches!(what, What::Close(_)) {
                self.sockets.remove(&socket);
            } else {
                if entry.out.is_empty() {
                    wake(&mut entry.sender);
                }
                self.touch(socket);
            }
            return Some(RelayFrame { socket, what: Some(what) });
        }
        None
    }
}

impl Entry {
    fn has_more(&self) -> bool {
        !self.out.is_empty() || self.alive || self.owed >= self.due
    }

    fn next(&mut self) -> Option<What> {
        // Nothing of a socket goes before what opens it.
        if !matches!(self.out.front(), Some(What::Open(_))) {
            if self.owed >= self.due {
                let owed = std::mem::take(&mut self.owed);
                self.allowed += i64::from(owed);
                return Some(What::Credit(owed));
            }
            if std::mem::take(&mut self.alive) {
                return Some(What::Alive(RelayAlive {}));
            }
        }
        self.out.pop_front()
    }

    fn deliver(&mut self, message: Message, side: Side) -> Result<(), Broken> {
        if self.allowed <= 0 {
            return Err(Broken("more was sent than there was credit for"));
        }
        let cost = cost(&message);
        self.allowed -= i64::from(cost);
        count(side, "in", cost);
        if !self.dropped {
            self.inbox.push_back(message);
            wake(&mut self.reader);
        }
        Ok(())
    }

    fn end(&mut self) {
        self.over = true;
        wake(&mut self.reader);
        wake(&mut self.sender);
        wake(&mut self.watcher);
    }
}

/// The frames that one end writes, the sockets by turns.
pub struct Outgoing(Mux);

impl Stream for Outgoing {
    type Item = RelayFrame;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<RelayFrame>> {
        let inner = &mut *self.0.0.inner.lock();
        if inner.ended {
            return Poll::Ready(None);
        }
        match inner.next() {
            Some(frame) => Poll::Ready(Some(frame)),
            None => {
                inner.writer = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.0.end();
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

/// A slice would keep the whole buffer that it was read into, for as long as it waits.
fn own(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

/// What a message costs of the credit.
fn cost(message: &Message) -> u32 {
    let bytes = match message {
        Message::Text(text) => text.len(),
        Message::Binary(bytes) => bytes.len(),
        Message::Ping(_) | Message::Pong(_) | Message::Close(_) => 0,
    };
    u32::try_from(bytes.saturating_add(MESSAGE_COST)).unwrap_or(u32::MAX)
}

fn count(side: Side, way: &'static str, cost: u32) {
    let bytes = u64::from(cost) - MESSAGE_COST as u64;
    metrics::counter!("chaski_relayed_bytes_total", "side" => side.name(), "way" => way)
        .increment(bytes);
}

#[cfg(test)]
#[path = "mux_tests.rs"]
mod tests;
