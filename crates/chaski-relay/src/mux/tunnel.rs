//! A client's socket at one end of a stream: queues and credit stand in the [`Mux`].
//!
//! Must not know: whose turn it is.

use super::{Entry, Mux, Over, cost, count};
use axum::extract::ws::Message;
use chaski_proto::v1::{RelayClose, relay_frame::What};
use futures::{Sink, Stream};
use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll},
};

/// A client's socket, at either end. Read and written like the WebSocket; what is heard of the
/// client without a message is a pong. To be let go is to say that this end is over.
pub struct Tunnel {
    pub(super) mux: Mux,
    pub(super) id: u32,
}

impl Tunnel {
    /// The next message; a close is the last one, and may be missing.
    pub fn poll_recv(&self, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        let inner = &mut *self.mux.0.inner.lock();
        if let Some(message) = inner.pop(self.id) {
            return Poll::Ready(Some(message));
        }
        match inner.sockets.get_mut(&self.id) {
            Some(entry) if !entry.over => {
                entry.reader = Some(cx.waker().clone());
                Poll::Pending
            }
            _ => Poll::Ready(None),
        }
    }

    /// The next message, where there is one.
    #[must_use]
    pub fn try_recv(&self) -> Option<Message> {
        let inner = &mut *self.mux.0.inner.lock();
        inner.pop(self.id)
    }

    /// Waits until a message may be sent.
    pub fn poll_room(&self, cx: &mut Context<'_>) -> Poll<Result<(), Over>> {
        self.poll_sender(cx, |entry| entry.credit > 0)
    }

    /// Waits until everything sent is on its way.
    pub fn poll_sent(&self, cx: &mut Context<'_>) -> Poll<Result<(), Over>> {
        self.poll_sender(cx, |entry| entry.out.is_empty())
    }

    fn poll_sender(
        &self,
        cx: &mut Context<'_>,
        ready: impl FnOnce(&Entry) -> bool,
    ) -> Poll<Result<(), Over>> {
        let inner = &mut *self.mux.0.inner.lock();
        match inner.sockets.get_mut(&self.id) {
            Some(entry) if entry.over => Poll::Ready(Err(Over)),
            Some(entry) if ready(entry) => Poll::Ready(Ok(())),
            Some(entry) => {
                entry.sender = Some(cx.waker().clone());
                Poll::Pending
            }
            None => Poll::Ready(Err(Over)),
        }
    }

    /// Sends a message; to be called when there is room. Nothing but texts and binaries goes.
    ///
    /// # Errors
    /// It is over.
    pub fn send(&self, message: Message) -> Result<(), Over> {
        let cost = cost(&message);
        let what = match message {
            Message::Text(text) => What::Text(text.into()),
            Message::Binary(bytes) => What::Binary(bytes),
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) => return Ok(()),
        };
        let inner = &mut *self.mux.0.inner.lock();
        let entry = inner.sockets.get_mut(&self.id).filter(|entry| !entry.over).ok_or(Over)?;
        count(self.mux.0.side, "out", cost);
        entry.credit -= i64::from(cost);
        entry.out.push_back(what);
        inner.touch(self.id);
        Ok(())
    }

    /// Says that the client was heard of.
    pub fn alive(&self) {
        let inner = &mut *self.mux.0.inner.lock();
        if let Some(entry) = inner.sockets.get_mut(&self.id).filter(|entry| !entry.over) {
            entry.alive = true;
            inner.touch(self.id);
        }
    }

    /// Ends it with a close code for the client, behind all that was sent; needs no credit.
    pub fn close(self, code: u16, reason: &str) {
        self.end(RelayClose { code: code.into(), reason: reason.into() });
    }

    /// Waits until the other end has ended, or the stream; there may still be messages.
    pub fn poll_over(&self, cx: &mut Context<'_>) -> Poll<()> {
        let inner = &mut *self.mux.0.inner.lock();
        match inner.sockets.get_mut(&self.id) {
            Some(entry) if !entry.over => {
                entry.watcher = Some(cx.waker().clone());
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }

    /// Its number among those of its stream.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.id
    }

    fn end(&self, close: RelayClose) {
        let inner = &mut *self.mux.0.inner.lock();
        let Some(entry) = inner.sockets.get_mut(&self.id) else { return };
        if entry.over {
            inner.sockets.remove(&self.id);
        } else if !entry.dropped {
            entry.dropped = true;
            entry.inbox = VecDeque::new();
            entry.out.push_back(What::Close(close));
            inner.touch(self.id);
        }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.end(RelayClose::default());
        let side = self.mux.0.side.name();
        metrics::gauge!("chaski_relayed_sockets", "side" => side).decrement(1);
    }
}

impl Stream for Tunnel {
    type Item = Result<Message, axum::Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_recv(cx).map(|message| message.map(Ok))
    }
}

impl Sink<Message> for Tunnel {
    type Error = axum::Error;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.poll_room(cx).map_err(axum::Error::new)
    }

    fn start_send(self: Pin<&mut Self>, message: Message) -> Result<(), Self::Error> {
        self.send(message).map_err(axum::Error::new)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.poll_sent(cx).map_err(axum::Error::new)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.poll_flush(cx)
    }
}
