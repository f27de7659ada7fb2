//! A WebSocket in one of the two formats, accepted here or relayed by another process. It hears
//! while it writes, so that a client whose network takes little is not taken for a silent one.
//!
//! Must not know: whose socket it is.

use super::close::CloseReason;
use axum::{
    body::Bytes,
    extract::ws::{CloseFrame, Message, WebSocket},
};
use chaski_proto::v1;
use chaski_relay::{Tunnel, is_too_large};
use futures::{SinkExt, StreamExt, future::Either};
use std::{
    collections::VecDeque,
    future::poll_fn,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::Instant;

/// How much is heard ahead while the socket writes; past it the client waits.
const AHEAD_BYTES: usize = 64 << 10;
/// How many messages are.
const AHEAD_MESSAGES: usize = 64;

type Heard = Option<Result<Message, axum::Error>>;

/// The client's own socket, or one that another process relays.
pub(super) type Wire = Either<WebSocket, Tunnel>;

/// A WebSocket in one of the two formats.
pub(super) struct Socket {
    socket: Wire,
    pub(super) json: bool,
    /// Sockets of a host are numbered as they are opened.
    pub(super) number: u64,
    /// The size limit of a frame.
    frame_max: usize,
    /// When the client was last heard of.
    pub(super) heard: Instant,
    /// What came in while the socket was writing.
    ahead: VecDeque<Heard>,
    ahead_bytes: usize,
}

/// What came in.
pub(super) enum Incoming {
    Frame(Bytes),
    /// A ping or pong of the transport.
    Alive,
    /// The client is gone, or broke the protocol and was told so.
    Over(Option<CloseReason>),
}

impl Socket {
    pub(super) fn new(socket: Wire, number: u64, json: bool, frame_max: usize) -> Self {
        let ahead = VecDeque::new();
        Self { socket, number, json, frame_max, heard: Instant::now(), ahead, ahead_bytes: 0 }
    }

    /// The client's own socket, and what it has said that nobody looked at; `None` where it is
    /// relayed already.
    pub(super) fn into_wire(self) -> Option<(WebSocket, impl Iterator<Item = Message>)> {
        match self.socket {
            Either::Left(socket) => Some((socket, self.ahead.into_iter().flatten().flatten())),
            Either::Right(_) => None,
        }
    }

    /// The next frame. Cancel safe.
    pub(super) async fn receive(&mut self) -> Incoming {
        let message = match self.ahead.pop_front() {
            Some(message) => {
                self.ahead_bytes -= bytes_of(&message);
                message
            }
            None => {
                let message = self.socket.next().await;
                self.heard = Instant::now();
                message
            }
        };
        if bytes_of(&message) > self.frame_max {
            return Incoming::Over(Some(CloseReason::TooLarge));
        }
        match message {
            Some(Ok(Message::Text(text))) if self.json => Incoming::Frame(text.into()),
            Some(Ok(Message::Binary(bytes))) if !self.json => Incoming::Frame(bytes),
            Some(Ok(Message::Text(_) | Message::Binary(_))) => {
                Incoming::Over(Some(CloseReason::ProtocolError))
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => Incoming::Alive,
            Some(Ok(Message::Close(_))) | None => Incoming::Over(None),
            Some(Err(error)) => {
                let too_large = is_too_large(&error);
                Incoming::Over(too_large.then_some(CloseReason::TooLarge))
            }
        }
    }

    /// Writes encoded frames and flushes once. Cancel safe: what is written is taken out.
    pub(super) async fn write(&mut self, frames: &mut VecDeque<Bytes>) -> Result<(), axum::Error> {
        poll_fn(|cx| {
            let written = self.poll_write(cx, frames);
            if written.is_pending() {
                self.hear(cx);
            }
            written
        })
        .await
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        frames: &mut VecDeque<Bytes>,
    ) -> Poll<Result<(), axum::Error>> {
        while !frames.is_empty() {
            if self.socket.poll_ready_unpin(cx)?.is_pending() {
                return Poll::Pending;
            }
            if let Some(frame) = frames.pop_front() {
                let message = match self.json {
                    true => Message::Text(frame.try_into().expect("our JSON is UTF-8")),
                    false => Message::Binary(frame),
                };
                self.socket.start_send_unpin(message)?;
            }
        }
        self.socket.poll_flush_unpin(cx)
    }

    /// Takes in what has come already; does not wait.
    pub(super) async fn listen(&mut self) {
        poll_fn(|cx| {
            self.hear(cx);
            Poll::Ready(())
        })
        .await;
    }

    /// Takes in what is there, as far as there is room.
    fn hear(&mut self, cx: &mut Context<'_>) {
        while self.ahead.len() < AHEAD_MESSAGES
            && self.ahead_bytes < AHEAD_BYTES
            && !matches!(self.ahead.back(), Some(None | Some(Err(_))))
            && let Poll::Ready(message) = self.socket.poll_next_unpin(cx)
        {
            self.heard = Instant::now();
            self.ahead_bytes += bytes_of(&message);
            self.ahead.push_back(message);
        }
    }

    pub(super) async fn send(&mut self, frame: &v1::ServerFrame) -> Result<(), axum::Error> {
        self.write(&mut VecDeque::from([frame.to_bytes(self.json)])).await
    }

    /// Closes with a code, and reads on a little so that the client sees it.
    pub(super) async fn close(self, reason: CloseReason) {
        metrics::counter!("chaski_closes_total", "code" => reason.code().to_string()).increment(1);
        let mut socket = match self.socket {
            Either::Left(socket) => socket,
            // Who relays sees to the rest.
            Either::Right(tunnel) => return tunnel.close(reason.code(), reason.text()),
        };
        let frame = CloseFrame { code: reason.code(), reason: reason.text().into() };
        let goodbye = async {
            socket.send(Message::Close(Some(frame))).await?;
            while let Some(Ok(_)) = socket.recv().await {}
            Ok::<_, axum::Error>(())
        };
        // A client that does not answer the close is simply dropped.
        let _ = tokio::time::timeout(Duration::from_secs(2), goodbye).await;
    }
}

fn bytes_of(message: &Heard) -> usize {
    match message {
        Some(Ok(Message::Text(text))) => text.len(),
        Some(Ok(Message::Binary(bytes) | Message::Ping(bytes) | Message::Pong(bytes))) => {
            bytes.len()
        }
        _ => 0,
    }
}
