//! One device on one socket: a cursor that moves through the user's events, with the ring, or on its
//! way there where it is behind ([`behind`]); and the commands it sends.

mod behind;

use super::{
    DeliveryHost,
    close::CloseReason,
    commands::{self, Asker},
    cost, is_final,
    marks::Unacked,
    opening::{Opening, Start, open_device},
    ring::{Read, Ring},
    socket::{Incoming, Socket},
    subscriber::Subscriber,
    upgrade,
};
use behind::Behind;
use bytes::Bytes;
use chaski_auth::Identity;
use chaski_core::{ChatId, DeviceId, Position, UserId};
use chaski_planted::Bug;
use chaski_proto::{
    Problem, Timestamp,
    v1::{self, client_frame::Command, server_frame::Body},
};
use chaski_runtime::Tally;
use futures::{
    future::BoxFuture,
    poll,
    stream::{FuturesUnordered, StreamExt},
};
use std::{collections::VecDeque, convert::Infallible, sync::Arc, task::Poll, time::Duration};
use tokio::time::Instant;

/// How long a session that ends waits for its device to be opened.
const OPEN_PATIENCE: Duration = Duration::from_secs(2);
/// Pause before a device is opened again where the message service does not answer.
const OPEN_AGAIN: Duration = Duration::from_secs(1);
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

/// The end of a session: the reason to close, or `None` where the client is gone.
type End = Option<CloseReason>;

/// One device on one socket.
pub(super) struct Session {
    host: Arc<DeliveryHost>,
    ring: Arc<Ring>,
    socket: Socket,
    who: Who,
    subscriber: Subscriber,
    /// The device has been sent everything up to here.
    cursor: Position,
    /// What of it is not acknowledged.
    unacked: Unacked,
    /// While the device is being opened.
    opening: Option<Opening>,
    /// What it has acknowledged meanwhile: a device that may not be there has no cursor.
    acked: Position,
    /// The `hello`.
    hello: u32,
    /// Unix seconds.
    expires_at: i64,
    commands: FuturesUnordered<BoxFuture<'static, Option<v1::ServerFrame>>>,
    /// While the device is behind the ring.
    behind: Behind,
    /// What it costs.
    tally: Arc<Tally>,
}

impl Session {
    pub(super) fn new(
        host: Arc<DeliveryHost>,
        ring: Arc<Ring>,
        socket: Socket,
        identity: Identity,
        hello: u32,
    ) -> Self {
        let who = Who { user: identity.user, device: identity.device };
        let subscriber =
            ring.subscribe((&who.user, &who.device), identity.issued_at, socket.number);
        if let Some(revoked_at) = host.revoked.of(&who.user, &who.device) {
            subscriber.revoke(revoked_at);
        }
        metrics::gauge!("chaski_sessions").increment(1);
        let unacked = Unacked::new(host.config.receipts_unacked_max);
        let tally = host.work.tally(host.parts.placement.of_user(&who.user));
        Self {
            host,
            ring,
            socket,
            who,
            subscriber,
            cursor: Position::BEGINNING,
            unacked,
            opening: None,
            acked: Position::BEGINNING,
            hello,
            expires_at: identity.expires_at,
            commands: FuturesUnordered::new(),
            behind: Behind::default(),
            tally,
        }
    }

    /// Serves the socket until its end.
    pub(super) async fn run(mut self, start: Start) {
        let reason = match self.serve(start).await {
            Err(reason) => reason,
            Ok(never) => match never {},
        };
        self.ring.unsubscribe(&self.who.user, &self.subscriber);
        metrics::gauge!("chaski_sessions").decrement(1);
        // What the device has acknowledged counts, however short its visit was.
        if let Some(opening) = self.opening.take()
            && let Ok(Ok(_)) = tokio::time::timeout(OPEN_PATIENCE, opening).await
        {
            self.host.acks.note(&self.who.user, &self.who.device, self.acked);
        }
        let Some(reason) = reason else { return };
        if matches!(reason, CloseReason::Moved | CloseReason::Draining) {
            self.part(reason).await;
        }
        self.socket.close(reason).await;
    }

    async fn serve(&mut self, start: Start) -> Result<Infallible, End> {
        self.cursor = start.position;
        self.opening = start.opening;
        if self.opening.is_some() && !start.resync {
            self.resumed();
        }
        let welcome = v1::Welcome {
            user_id: self.who.user.to_string(),
            device_id: self.who.device.to_string(),
            position: self.cursor.0,
            heartbeat_seconds: self.host.config.heartbeat_seconds,
            expires_at: Some(Timestamp { seconds: self.expires_at, nanos: 0 }),
        };
        self.send(&v1::ServerFrame::reply(self.hello, Body::Welcome(welcome))).await?;
        if start.resync {
            self.resync("UNKNOWN_POSITION").await?;
        }
        self.pump().await?;
        loop {
            if let Some(reason) = self.subscriber.dismissed() {
                return Err(Some(reason));
            }
            let deadline = self.deadline().await?;
            let subscriber = self.subscriber.clone();
            let room = self.commands.len() < self.host.config.commands_inflight_max;
            tokio::select! {
                () = subscriber.woken() => self.pump().await?,
                reason = subscriber.dismissal() => return Err(Some(reason)),
                incoming = self.socket.receive(), if room => self.take(incoming).await?,
                Some(reply) = self.commands.next() => self.reply(reply).await?,
                page = next(&mut self.behind.page) => {
                    self.behind.page = None;
                    self.show_page(page).await?;
                    self.pump().await?;
                }
                opened = next(&mut self.opening) => {
                    self.opening = None;
                    self.opened(opened).await?;
                }
                () = tokio::time::sleep_until(deadline) => {}
            }
        }
    }

    /// The place where a device says that it resumes counts as an acknowledgement: its session
    /// before may have ended without one.
    fn resumed(&mut self) {
        self.ack(self.cursor);
        let taken = self.ring.taken(&self.who.user, self.cursor);
        self.has_taken(self.cursor, taken);
    }

    /// The device has taken everything up to here, these places of chats among it.
    fn has_taken(&self, upto: Position, taken: Vec<(ChatId, u64)>) {
        self.subscriber.acked(upto, &taken);
        self.host.receipts.delivered(&self.who.user, taken);
    }

    /// The device is known now, or must go.
    async fn opened(&mut self, opened: Result<Position, Problem>) -> Result<(), End> {
        match opened {
            Ok(_) => {
                self.host.acks.note(&self.who.user, &self.who.device, self.acked);
                Ok(())
            }
            Err(problem) if is_final(&problem) => {
                let error = Body::Error(problem.to_frame());
                self.send(&v1::ServerFrame::reply(self.hello, error)).await?;
                Err(Some(CloseReason::NotAuthenticated))
            }
            Err(_) => {
                self.opening = Some(open_device(&self.host, &self.who, OPEN_AGAIN));
                Ok(())
            }
        }
    }

    fn ack(&mut self, position: Position) {
        let taken = self.unacked.acked(position).collect();
        self.has_taken(position, taken);
        self.acked = position.max(self.acked);
        if self.opening.is_none() {
            self.host.acks.note(&self.who.user, &self.who.device, position);
        }
    }

    fn silence(&self) -> Duration {
        Duration::from_secs(2 * u64::from(self.host.config.heartbeat_seconds))
    }

    /// Whether the client was not heard of for two heartbeats. What has come in and was not looked
    /// at yet, because the session or its process was busy, counts.
    async fn is_silent(&mut self) -> bool {
        if self.socket.heard.elapsed() >= self.silence() {
            tokio::task::yield_now().await;
            self.socket.listen().await;
        }
        self.socket.heard.elapsed() >= self.silence()
    }

    /// The next moment to look at the clock, or the reason why there is none.
    async fn deadline(&mut self) -> Result<Instant, End> {
        let left_ms = self.expires_at.saturating_mul(1000) - self.host.parts.clock.now_ms();
        if left_ms <= 0 {
            return Err(Some(CloseReason::TokenExpired));
        }
        if self.is_silent().await {
            return Err(Some(CloseReason::Silent));
        }
        // Not further ahead than the timer can go.
        let left = Duration::from_millis(left_ms.unsigned_abs()).min(Duration::from_secs(86_400));
        Ok((self.socket.heard + self.silence()).min(Instant::now() + left))
    }

    async fn take(&mut self, incoming: Incoming) -> Result<(), End> {
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
            self.ack(Position(ack.position));
        }
        match frame.command {
            Some(Command::Authenticate(authenticate)) => {
                let reply = self.authenticate(frame.id, &authenticate.token);
                self.send(&reply).await
            }
            Some(command) => {
                self.tally.spend(cost::COMMAND);
                let (host, ring) = (Arc::clone(&self.host), Arc::clone(&self.ring));
                let (who, subscriber) = (self.who.clone(), self.subscriber.clone());
                let asker = Asker { host, ring, who, subscriber };
                // Begun at once, so that what a client sends in a row enters the log in that row.
                let mut command: BoxFuture<'static, _> =
                    Box::pin(commands::run(asker, frame.id, command));
                match poll!(&mut command) {
                    Poll::Ready(reply) => self.reply(reply).await,
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
                self.subscriber.renew(new.issued_at);
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

    /// Sends the receipts that wait and a burst of what stands after the cursor; looks further back
    /// where the ring begins later. Where there may be more it is woken again, so that a device that
    /// catches up is heard meanwhile.
    async fn pump(&mut self) -> Result<(), End> {
        let receipts = self.subscriber.receipts(self.cursor);
        if !receipts.is_empty() {
            let frame = |r| v1::ServerFrame::notice(Body::Receipt(r)).to_bytes(self.socket.json);
            let frames = receipts.into_iter().map(frame).collect();
            self.send_all(frames).await?;
        }
        if self.behind.page.is_some() {
            return Ok(());
        }
        match self.read() {
            Read::Behind => self.look_back().await?,
            Read::Expired(last) => self.expired(last).await?,
            Read::Events { events, more } => {
                let Some((last, _)) = events.last() else {
                    return Ok(());
                };
                self.cursor = last.position;
                if more && chaski_planted::is(Bug::DropsForTheSlow) {
                    self.cursor = self.ring.newest();
                } else if more {
                    self.subscriber.wake();
                }
                let json = self.socket.json;
                let mut frames = VecDeque::with_capacity(events.len());
                for (entry, index) in &events {
                    frames.extend(entry.frame(*index, json));
                    if let Some(message) = entry.message(*index) {
                        let place = (entry.position, message.chat_id.as_str(), message.seq);
                        self.remember(place, &message.sender_id);
                    }
                }
                self.delivers(frames.len());
                self.send_all(frames).await?;
            }
        }
        Ok(())
    }

    fn delivers(&self, frames: usize) {
        metrics::counter!("chaski_delivered_total").increment(frames as u64);
        self.tally.spend(cost::DELIVERY * frames as u32);
    }

    /// What others wrote counts as delivered once the device acknowledges it.
    fn remember(&mut self, (position, chat, seq): (Position, &str, u64), sender: &str) {
        if sender != self.who.user.as_str()
            && let Ok(chat) = chat.parse()
        {
            self.unacked.sent(position, chat, seq);
        }
    }

    /// What stands up to here cannot be shown any more: the device goes on behind it.
    async fn expired(&mut self, last: Position) -> Result<(), End> {
        self.cursor = last;
        self.subscriber.wake();
        self.resync("EXPIRED").await
    }

    /// The device missed events that cannot be shown any more, or asked for a strange place: it
    /// reads what stands now and goes on behind the cursor.
    async fn resync(&mut self, reason: &str) -> Result<(), End> {
        let resync = v1::Resync { reason: reason.into(), from_position: self.cursor.0 };
        self.send(&v1::ServerFrame::event(self.cursor.0, Body::Resync(resync))).await
    }

    async fn reply(&mut self, reply: Option<v1::ServerFrame>) -> Result<(), End> {
        match reply {
            Some(reply) => self.send(&reply).await,
            None => Ok(()),
        }
    }

    async fn send(&mut self, frame: &v1::ServerFrame) -> Result<(), End> {
        self.send_all(VecDeque::from([frame.to_bytes(self.socket.json)])).await
    }

    /// Writes all frames, then flushes once. A socket that takes nothing for too long is cut, as
    /// is one that is not heard of meanwhile, and one whose session is to end.
    async fn send_all(&mut self, mut frames: VecDeque<Bytes>) -> Result<(), End> {
        let slow_at = Instant::now() + Duration::from_secs(self.host.config.write_seconds);
        loop {
            let silent_at = self.socket.heard + self.silence();
            tokio::select! {
                biased;
                written = self.socket.write(&mut frames) => return written.map_err(|_gone| None),
                reason = self.subscriber.dismissal() => return Err(Some(reason)),
                () = tokio::time::sleep_until(slow_at.min(silent_at)) => {}
            }
            if Instant::now() >= slow_at {
                return Err(Some(CloseReason::SlowConsumer));
            }
            if self.is_silent().await {
                return Err(Some(CloseReason::Silent));
            }
        }
    }

    /// Before going away: commands in flight are answered, and the client is told where to.
    async fn part(&mut self, reason: CloseReason) {
        let answers = async {
            while let Some(reply) = self.commands.next().await {
                if let Some(reply) = reply
                    && self.socket.send(&reply).await.is_err()
                {
                    return;
                }
            }
        };
        // Who is not answered by then sends again elsewhere.
        let _ = tokio::time::timeout(COMMANDS_PATIENCE, answers).await;
        let go_away = match reason {
            CloseReason::Moved => self.host.moved(&self.who, self.host.spread_ms(&self.who)),
            _ => upgrade::draining(),
        };
        let farewell = v1::ServerFrame::notice(Body::GoAway(go_away));
        // The session is dismissed, so this is the socket's own patience.
        let patience = Duration::from_secs(self.host.config.write_seconds);
        let _ = tokio::time::timeout(patience, self.socket.send(&farewell)).await;
    }
}

/// What comes of it, where there is something to wait for. Cancel safe.
async fn next<T>(waiting: &mut Option<BoxFuture<'static, T>>) -> T {
    match waiting {
        Some(waiting) => waiting.await,
        None => std::future::pending().await,
    }
}
