//! Carries a client's socket through a tunnel: messages as they come, in both directions, each at
//! the pace of who takes them.

use crate::{Over, Relays, Tunnel, links::Shared};
use axum::{
    Error,
    extract::ws::{CloseFrame, Message},
};
use chaski_proto::{
    close,
    v1::{self, server_frame::Body},
};
use futures::{Sink, SinkExt as _, Stream, StreamExt as _};
use std::{future::poll_fn, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite;

/// How long a client may take to take the last frames and to close.
const FAREWELL: Duration = Duration::from_secs(2);
/// How often it is said that a client was heard of.
const ALIVE: Duration = Duration::from_secs(1);

/// Clients whose host was lost come again within this, each with a time of its own.
const AGAIN_MS: u32 = 500;

/// How it ended.
enum End {
    /// The client has gone, or takes nothing.
    Gone,
    /// The client sent more in one message than is ever read.
    TooLarge,
    /// Who serves it has closed it.
    Closed(CloseFrame),
    /// Who serves it has gone.
    Lost,
    /// This process goes.
    Drained,
}

impl Relays {
    /// Carries the socket through the tunnel until either has ended, `said` by the client first.
    pub async fn carry<W>(&self, socket: W, json: bool, said: Vec<Message>, tunnel: Tunnel)
    where
        W: Stream<Item = Result<Message, Error>> + Sink<Message, Error = Error> + Send,
    {
        let _carried = Carried::new(&self.shared);
        let (mut to, mut from) = socket.split();
        let end = {
            let late = async {
                poll_fn(|cx| tunnel.poll_over(cx)).await;
                sleep(FAREWELL).await;
            };
            tokio::select! {
                end = down(&tunnel, &mut to, json, &self.shared) => end,
                end = up(&tunnel, &mut from, said) => end,
                // What is left for the client is too much for it.
                () = late => End::Gone,
            }
        };
        let number = tunnel.number();
        // The other end is told before the client is waited for.
        drop(tunnel);
        let (frame, code, reason) = match end {
            End::Gone => return,
            End::TooLarge => (None, close::TOO_LARGE, "frame too large".into()),
            End::Closed(frame) => (None, frame.code, frame.reason),
            End::Lost => (Some(lost(number)), close::MOVED, "moved".into()),
            End::Drained => (None, close::DRAINING, "draining".into()),
        };
        let goodbye = async {
            if let Some(frame) = frame {
                to.feed(message(&frame, json)).await?;
            }
            to.send(Message::Close(Some(CloseFrame { code, reason }))).await?;
            // Read on, so that the client sees it.
            while let Some(Ok(_)) = from.next().await {}
            Ok::<_, Error>(())
        };
        let _ = timeout(FAREWELL, goodbye).await;
    }
}

/// From the client. Nothing is read for which there is no room: the client waits, not this process.
async fn up<R>(tunnel: &Tunnel, from: &mut R, said: Vec<Message>) -> End
where
    R: Stream<Item = Result<Message, Error>> + Unpin,
{
    let mut alive_at: Option<Instant> = None;
    let mut said = said.into_iter();
    loop {
        if poll_fn(|cx| tunnel.poll_room(cx)).await.is_err() {
            // The other direction has the reason.
            return std::future::pending().await;
        }
        let message = match said.next() {
            Some(message) => message,
            None => match from.next().await {
                Some(Ok(message)) => message,
                Some(Err(error)) if is_too_large(&error) => return End::TooLarge,
                Some(Err(_)) | None => return End::Gone,
            },
        };
        match message {
            Message::Text(_) | Message::Binary(_) => {
                if let Err(Over) = tunnel.send(message) {
                    return std::future::pending().await;
                }
            }
            Message::Ping(_) | Message::Pong(_) => {
                let now = Instant::now();
                if alive_at.is_none_or(|at| now >= at + ALIVE) {
                    alive_at = Some(now);
                    tunnel.alive();
                }
            }
            Message::Close(_) => return End::Gone,
        }
    }
}

/// Whether this error of a socket is that the client sent more in one message than is ever read.
#[must_use]
pub fn is_too_large(error: &Error) -> bool {
    let cause = std::error::Error::source(error);
    let cause = cause.and_then(|cause| cause.downcast_ref::<tungstenite::Error>());
    matches!(cause, Some(tungstenite::Error::Capacity(_)))
}

/// To the client. When this process drains, the client is told so and has a little time to hear
/// the answers to what it asked.
async fn down<S>(tunnel: &Tunnel, to: &mut S, json: bool, shared: &Shared) -> End
where
    S: Sink<Message, Error = Error> + Unpin,
{
    let mut until = None;
    loop {
        let time_is_up = async {
            match until {
                Some(until) => sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        let next = tokio::select! {
            biased;
            () = shared.draining.cancelled(), if until.is_none() => {
                until = Some(Instant::now() + FAREWELL);
                Some(message(&draining(), json))
            }
            next = poll_fn(|cx| tunnel.poll_recv(cx)) => next,
            () = time_is_up => return End::Drained,
        };
        let mut next = match next {
            Some(next) => Some(next),
            None => return End::Lost,
        };
        while let Some(message) = next {
            match message {
                Message::Close(Some(close)) => return End::Closed(close),
                Message::Text(_) | Message::Binary(_) => {
                    if to.feed(message).await.is_err() {
                        return End::Gone;
                    }
                }
                Message::Ping(_) | Message::Pong(_) | Message::Close(None) => {}
            }
            // What has come meanwhile goes with it; an end is looked at above.
            next = tunnel.try_recv();
        }
        if to.flush().await.is_err() {
            return End::Gone;
        }
    }
}

/// The frame as a message.
fn message(frame: &v1::ServerFrame, json: bool) -> Message {
    let bytes = frame.to_bytes(json);
    match json {
        true => Message::Text(bytes.try_into().expect("our JSON is UTF-8")),
        false => Message::Binary(bytes),
    }
}

/// Who served the client has gone, and who does so next is not known yet.
fn lost(number: u32) -> v1::ServerFrame {
    // Those that go together are not to come together.
    let retry_after_ms = AGAIN_MS / 2 + number.wrapping_mul(37) % (AGAIN_MS / 2);
    go_away("MOVED", retry_after_ms)
}

fn draining() -> v1::ServerFrame {
    go_away("DRAINING", 200)
}

fn go_away(reason: &str, retry_after_ms: u32) -> v1::ServerFrame {
    let go_away = v1::GoAway { reason: reason.into(), url: None, retry_after_ms };
    v1::ServerFrame::notice(Body::GoAway(go_away))
}

/// One more that is carried, as long as it is.
struct Carried(Arc<Shared>);

impl Carried {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.carried.send_modify(|carried| *carried += 1);
        Self(Arc::clone(shared))
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        self.0.carried.send_modify(|carried| *carried -= 1);
    }
}
