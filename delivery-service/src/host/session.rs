//! One device on one socket: a cursor that moves through the user's events, first in pages from
//! the message service where it is behind the ring, then with the ring; and the commands it sends.

use super::{
    DeliveryHost,
    close::CloseReason,
    commands,
    ring::{Read, Ring, Subscriber},
    upgrade::{self, Incoming, Socket},
};
use bytes::Bytes;
use chaski_core::{DeviceId, Position, UserId};
use chaski_proto::{
    Problem, Timestamp,
    v1::{self, client_frame::Command, server_frame::Body},
};
use futures::{
    future::BoxFuture,
    poll,
    stream::{FuturesUnordered, StreamExt},
};
use std::{sync::Arc, task::Poll, time::Duration};
use tokio::time::Instant;
use tonic::Request;

/// Events in one page from the message service.
const PAGE: u32 = 200;
/// Pause before asking again where the message service is behind the ring or does not answer.
const PAGE_AGAIN: Duration = Duration::from_millis(100);
/// How long a session that ends waits for its commands.
const COMMANDS_PATIENCE: Duration = Duration::from_secs(2);

/// Whose socket it is.
#[derive(Clone, Debug)]
pub(super) struct Who {
    pub(super) user: UserId,
    pub(super) device: DeviceId,
}

impl Who {
    pub(super) fn caller(&self) -> v1::Caller {
        v1::Caller { user_id: self.user.to_string(), device_id: self.device.to_string() }
    }
}

/// Where a session begins.
pub(super) struct Start {
    position: Position,
    /// The device asked for a place that does not exist: it must read what it has missed.
    resync: bool,
}

/// Finds where the device resumes.
pub(super) async fn open(
    host: &DeliveryHost,
    ring: &Ring,
    who: &Who,
    resume_after: Option<u64>,
) -> Result<Start, Problem> {
    let position = match resume_after {
        Some(position) => Position(position),
        None => {
            // What was acknowledged a moment ago counts before it is saved; looked at first, so
            // that a save in between is seen in the store.
            let unsaved = host.acks.unsaved(&who.user, &who.device).unwrap_or_default();
            let device = host.parts.messages.open_device(Request::new(who.caller())).await?;
            unsaved.max(Position(device.into_inner().cursor))
        }
    };
    if ring.knows(position) {
        if resume_after.is_some() {
            host.acks.note(&who.user, &who.device, position);
        }
        Ok(Start { position, resync: false })
    } else {
        Ok(Start { position: ring.newest(), resync: true })
    }
}

type Page = Result<v1::InboxReply, tonic::Status>;

/// One device on one socket.
pub(super) struct Session {
    host: Arc<DeliveryHost>,
    ring: Arc<Ring>,
    socket: Socket,
    who: Who,
    subscriber: Subscriber,
    /// The device has been sent everything up to here.
    cursor: Position,
    /// Unix seconds.
    expires_at: i64,
    heard: Instant,
    commands: FuturesUnordered<BoxFuture<'static, v1::ServerFrame>>,
    /// The next page, while the device is behind the ring.
    page: Option<BoxFuture<'static, Page>>,
}

impl Session {
    pub(super) fn new(
        host: Arc<DeliveryHost>,
        ring: Arc<Ring>,
        socket: Socket,
        who: Who,
        expires_at: i64,
    ) -> Self {
        let subscriber = ring.subscribe(&who.user, &who.device);
        metrics::gauge!("chaski_sessions").increment(1);
        Self {
            host,
            ring,
            socket,
            who,
            subscriber,
            cursor: Position::BEGINNING,
            expires_at,
            heard: Instant::now(),
            commands: FuturesUnordered::new(),
            page: None,
        }
    }

    /// Serves the socket until its end.
    pub(super) async fn run(mut self, hello: u32, start: Start) {
        let reason = match self.serve(hello, start).await {
            Err(reason) => reason,
            Ok(never) => match never {},
        };
        self.ring.unsubscribe(&self.who.user, &self.subscriber);
        metrics::gauge!("chaski_sessions").decrement(1);
        let Some(reason) = reason else { return };
        if matches!(reason, CloseReason::Moved | CloseReason::Draining) {
            self.part(reason).await;
        }
        self.socket.close(reason).await;
    }

    /// The end comes as the reason to close, or as `None` where the client is gone.
    async fn serve(
        &mut self,
        hello: u32,
        start: Start,
    ) -> Result<std::convert::Infallible, Option<CloseReason>> {
        self.cursor = start.position;
        let welcome = v1::Welcome {
            user_id: self.who.user.to_string(),
            device_id: self.who.device.to_string(),
            position: self.cursor.0,
            heartbeat_seconds: self.host.config.heartbeat_seconds,
            expires_at: Some(Timestamp { seconds: self.expires_at, nanos: 0 }),
        };
        self.send(&v1::ServerFrame::reply(hello, Body::Welcome(welcome))).await?;
        if start.resync {
            let reason = "this position is not known here".into();
            let resync = v1::Resync { reason, from_position: self.cursor.0 };
            self.send(&v1::ServerFrame::event(self.cursor.0, Body::Resync(resync))).await?;
        }
        self.pump().await?;
        loop {
            if let Some(reason) = self.subscriber.dismissed() {
                return Err(Some(reason));
            }
            let deadline = self.deadline()?;
            let wake = Arc::clone(&self.subscriber.wake);
            let room = self.commands.len() < self.host.config.commands_inflight_max;
            tokio::select! {
                () = wake.notified() => self.pump().await?,
                incoming = self.socket.receive(), if room => self.take(incoming).await?,
                Some(reply) = self.commands.next() => self.send(&reply).await?,
                page = async { self.page.as_mut().expect("guarded by the condition").await }, if self.page.is_some() => {
                    self.page = None;
                    self.show_page(page).await?;
                    self.pump().await?;
                }
                () = tokio::time::sleep_until(deadline) => {}
            }
        }
    }

    /// The next moment to look at the clock, or the reason why there is none.
    fn deadline(&self) -> Result<Instant, Option<CloseReason>> {
        let silence = Duration::from_secs(u64::from(2 * self.host.config.heartbeat_seconds));
        let left_ms = self.expires_at.saturating_mul(1000) - self.host.parts.clock.now_ms();
        if left_ms <= 0 {
            return Err(Some(CloseReason::TokenExpired));
        }
        if self.heard.elapsed() >= silence {
            return Err(Some(CloseReason::Silent));
        }
        // Not further ahead than the timer can go.
        let left = Duration::from_millis(left_ms.unsigned_abs()).min(Duration::from_secs(86_400));
        Ok((self.heard + silence).min(Instant::now() + left))
    }

    async fn take(&mut self, incoming: Incoming) -> Result<(), Option<CloseReason>> {
        self.heard = Instant::now();
        let bytes = match incoming {
            Incoming::Frame(bytes) => bytes,
            Incoming::Alive => return Ok(()),
            Incoming::Over(reason) => return Err(reason),
        };
        let frame = match commands::read(&bytes, self.socket.json) {
            Ok(frame) => frame,
            Err(error) => return self.send(&error).await,
        };
        if let Some(ack) = frame.ack {
            if ack.position > self.cursor.0 {
                return Err(Some(CloseReason::ProtocolError));
            }
            self.host.acks.note(&self.who.user, &self.who.device, Position(ack.position));
        }
        match frame.command {
            Some(Command::Authenticate(authenticate)) => {
                let reply = self.authenticate(frame.id, &authenticate.token);
                self.send(&reply).await
            }
            Some(command) => {
                let command =
                    commands::run(Arc::clone(&self.host), self.who.clone(), frame.id, command);
                // Begun at once, so that what a client sends in a row enters the log in that row.
                let mut command: BoxFuture<'static, _> = Box::pin(command);
                match poll!(&mut command) {
                    Poll::Ready(reply) => self.send(&reply).await,
                    Poll::Pending => {
                        self.commands.push(command);
                        Ok(())
                    }
                }
            }
            None => Ok(()),
        }
    }

    /// A new token before the old one ends.
    fn authenticate(&mut self, id: u32, token: &str) -> v1::ServerFrame {
        let body = match upgrade::verify(&self.host, token) {
            Ok(new) if new.user == self.who.user && new.device == self.who.device => {
                self.expires_at = new.expires_at;
                let expires_at = Some(Timestamp { seconds: new.expires_at, nanos: 0 });
                Body::Authenticated(v1::Authenticated { expires_at })
            }
            Ok(_) => {
                let problem =
                    Problem::new(403, "other_identity", "the token is for another user or device");
                Body::Error(problem.to_frame())
            }
            Err(problem) => Body::Error(problem.to_frame()),
        };
        v1::ServerFrame::reply(id, body)
    }

    /// Sends what the ring has after the cursor; asks for a page where the ring begins later.
    async fn pump(&mut self) -> Result<(), Option<CloseReason>> {
        while self.page.is_none() && self.subscriber.dismissed().is_none() {
            match self.ring.read(&self.who.user, self.cursor, self.host.config.burst_bytes) {
                Read::Behind => self.page = Some(self.ask_page(Duration::ZERO)),
                Read::Events(events) => {
                    let Some((last, _)) = events.last() else {
                        return Ok(());
                    };
                    self.cursor = last.position;
                    let json = self.socket.json;
                    let frames: Vec<Bytes> =
                        events.iter().map(|(e, index)| e.frame(*index, json)).collect();
                    metrics::counter!("chaski_delivered_total").increment(frames.len() as u64);
                    self.send_all(frames).await?;
                }
            }
        }
        Ok(())
    }

    fn ask_page(&self, pause: Duration) -> BoxFuture<'static, Page> {
        let messages = Arc::clone(&self.host.parts.messages);
        let request = v1::InboxRequest {
            caller: Some(self.who.caller()),
            after: self.cursor.0,
            limit: PAGE,
            ..Default::default()
        };
        Box::pin(async move {
            tokio::time::sleep(pause).await;
            messages.inbox(Request::new(request)).await.map(tonic::Response::into_inner)
        })
    }

    async fn show_page(&mut self, page: Page) -> Result<(), Option<CloseReason>> {
        let page = match page {
            Ok(page) => page,
            Err(error) => {
                tracing::warn!(%error, "a page of older events does not come, asking again");
                self.page = Some(self.ask_page(PAGE_AGAIN * 5));
                return Ok(());
            }
        };
        let moved = page.upto > self.cursor.0;
        let json = self.socket.json;
        let fresh = page.events.iter().filter(|e| e.position.is_some_and(|p| p > self.cursor.0));
        let frames: Vec<Bytes> = fresh.map(|event| event.to_bytes(json)).collect();
        self.cursor = self.cursor.max(Position(page.upto));
        metrics::counter!("chaski_delivered_total").increment(frames.len() as u64);
        self.send_all(frames).await?;
        if !moved {
            self.page = Some(self.ask_page(PAGE_AGAIN));
        }
        Ok(())
    }

    async fn send(&mut self, frame: &v1::ServerFrame) -> Result<(), Option<CloseReason>> {
        self.send_all(vec![frame.to_bytes(self.socket.json)]).await
    }

    /// Feeds all frames, then flushes once; a socket that takes nothing for too long is cut.
    async fn send_all(&mut self, frames: Vec<Bytes>) -> Result<(), Option<CloseReason>> {
        let all = async {
            for frame in frames {
                self.socket.feed(frame).await?;
            }
            self.socket.flush().await
        };
        let patience = Duration::from_secs(self.host.config.write_seconds);
        match tokio::time::timeout(patience, all).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_gone)) => Err(None),
            Err(_) => Err(Some(CloseReason::SlowConsumer)),
        }
    }

    /// Before going away: commands in flight are answered, and the client is told where to.
    async fn part(&mut self, reason: CloseReason) {
        let answers = async {
            while let Some(reply) = self.commands.next().await {
                let frame = reply.to_bytes(self.socket.json);
                if self.socket.feed(frame).await.is_err() {
                    return;
                }
            }
        };
        // Who is not answered by then sends again elsewhere.
        let _ = tokio::time::timeout(COMMANDS_PATIENCE, answers).await;
        let go_away = match reason {
            CloseReason::Moved => upgrade::moved(&self.host, &self.who).await,
            _ => upgrade::draining(),
        };
        let _ = self.send(&v1::ServerFrame::notice(Body::GoAway(go_away))).await;
    }
}
