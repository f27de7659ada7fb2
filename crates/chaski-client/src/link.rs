//! One open socket: what is written and read on it, and its timers. Knows the session it serves;
//! does not know how a connection comes about or what follows after it.

use crate::{
    config::{Format, Token, TokenProvider},
    error::Disconnect,
    session::{Session, Signal},
    transport::{self, Lost, Opened, Socket},
};
use chaski_proto::{close, v1::ClientFrame};
use futures::{
    FutureExt as _, Sink as _, SinkExt as _, Stream as _, StreamExt as _, future::BoxFuture,
};
use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::{
    Error as WsError, Message,
    error::{CapacityError, ProtocolError},
};

/// How long a draining host may still answer what is in flight.
const DRAIN_MAX: Duration = Duration::from_secs(1);
/// With so little left for a welcome, 4502 says that the `hello` came too late (the machine slept, the
/// network stood still), not that this client breaks the protocol.
const HELLO_LATE: Duration = Duration::from_secs(5);
/// How long an orderly close may take.
const CLOSE_MAX: Duration = Duration::from_secs(1);
/// When a token could not be renewed, the next attempt.
const RENEW_AGAIN: Duration = Duration::from_secs(5);

/// What is to be done after this link.
pub(crate) enum Ended {
    /// Lost, and when the server named a time: how long to stay away at most.
    Lost(Lost, Option<Duration>),
    /// Go on at this address.
    Moved { url: String, retry_after: Duration },
    /// Come again here, not before this.
    Busy { retry_after: Duration },
}

pub(crate) struct Link {
    socket: Socket,
    format: Format,
    tokens: TokenProvider,
    needs_flush: bool,
    welcome_by: Instant,
    /// Since when the client is welcome here.
    pub(crate) welcomed_at: Option<Instant>,
    heartbeat: Duration,
    last_sent: Instant,
    last_received: Instant,
    last_ping: Instant,
    drain: Option<(Instant, Duration)>,
    renew_at: Option<Instant>,
    renewing: Option<BoxFuture<'static, Result<Token, String>>>,
}

impl Link {
    pub(crate) fn new(
        opened: Opened,
        (format, tokens): (Format, TokenProvider),
        welcome_by: Instant,
        session: &mut Session,
        now: Instant,
    ) -> Result<Self, Lost> {
        let mut link = Self {
            socket: opened.socket,
            format,
            tokens,
            needs_flush: false,
            welcome_by,
            welcomed_at: None,
            heartbeat: Duration::from_secs(3600),
            last_sent: now,
            last_received: now,
            last_ping: now,
            drain: None,
            renew_at: opened.token.renew_in.map(|span| now + span),
            renewing: None,
        };
        link.write(&session.hello(), now)?;
        Ok(link)
    }

    /// Writes what there is to write, reads at most one message, sees to the timers. `Ready(Ok)`
    /// means that something moved and the owner should look again.
    pub(crate) fn poll(
        &mut self,
        session: &mut Session,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> Poll<Result<(), Ended>> {
        session.check(now);
        self.poll_write(session, cx, now).map_err(|lost| Ended::Lost(lost, None))?;
        match Pin::new(&mut self.socket).poll_next(cx) {
            Poll::Ready(Some(Ok(message))) => {
                self.last_received = now;
                return Poll::Ready(self.read(&message, session, now));
            }
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(self.lost(broken(error)))),
            Poll::Ready(None) => {
                return Poll::Ready(Err(self.lost(Lost::closed(None))));
            }
            Poll::Pending => {}
        }
        self.poll_timers(session, cx, now)
    }

    fn poll_write(
        &mut self,
        session: &mut Session,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> Result<(), Lost> {
        if self.welcomed_at.is_some() {
            let commands = self.drain.is_none();
            while let Poll::Ready(ready) = Pin::new(&mut self.socket).poll_ready(cx) {
                ready.map_err(broken)?;
                let Some(frame) = session.next_frame(now, commands) else {
                    break;
                };
                self.write(&frame, now)?;
            }
        }
        if self.needs_flush
            && let Poll::Ready(flushed) = Pin::new(&mut self.socket).poll_flush(cx)
        {
            flushed.map_err(broken)?;
            self.needs_flush = false;
        }
        Ok(())
    }

    /// Feeds a frame; its bytes leave with the next flush. A few small frames (hello, ping,
    /// authenticate) come here without `poll_ready`: the write buffer has room for them.
    fn write(&mut self, frame: &ClientFrame, now: Instant) -> Result<(), Lost> {
        let message = transport::encode(frame, self.format);
        Pin::new(&mut self.socket).start_send(message).map_err(broken)?;
        self.needs_flush = true;
        self.last_sent = now;
        Ok(())
    }

    fn read(
        &mut self,
        message: &Message,
        session: &mut Session,
        now: Instant,
    ) -> Result<(), Ended> {
        let frame = match message {
            Message::Text(_) | Message::Binary(_) => {
                transport::decode(message, self.format).map_err(|e| self.lost(Lost::For(e)))?
            }
            Message::Close(frame) => {
                if frame.as_ref().is_some_and(|f| u16::from(f.code) == close::TOO_LARGE) {
                    session.refuse_largest();
                }
                let late = self.welcomed_at.is_none() && now + HELLO_LATE >= self.welcome_by;
                return Err(self.lost(match frame {
                    Some(f) if u16::from(f.code) == close::PROTOCOL_ERROR && late => {
                        Lost::For(Disconnect::Silent("the hello came too late"))
                    }
                    frame => Lost::closed(frame.clone()),
                }));
            }
            // The answer to a WebSocket ping is queued by the library and leaves with a flush.
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {
                self.needs_flush = true;
                return Ok(());
            }
        };
        match session.receive(frame, now) {
            Signal::None => Ok(()),
            Signal::Welcomed { heartbeat } => {
                self.heartbeat = heartbeat;
                self.welcomed_at = Some(now);
                Ok(())
            }
            Signal::Authenticated { accepted } => {
                if !accepted {
                    self.renew_at = Some(now + RENEW_AGAIN);
                }
                Ok(())
            }
            Signal::Moved { url, retry_after } => Err(Ended::Moved { url, retry_after }),
            Signal::Busy { retry_after } => Err(Ended::Busy { retry_after }),
            Signal::Draining { retry_after } => {
                self.drain.get_or_insert((now + DRAIN_MAX, retry_after));
                Ok(())
            }
            Signal::HelloRefused { status, code, message } => {
                Err(self.lost(Lost::refused(status, &code, message)))
            }
            Signal::Unreadable(why) => {
                Err(self.lost(Lost::For(Disconnect::Unreadable(why.into()))))
            }
        }
    }

    /// Something ended the link; while the host drains, that is the drain's end.
    fn lost(&self, lost: Lost) -> Ended {
        match (lost, self.drain) {
            (Lost::For(_), Some((_, retry_after))) => {
                Ended::Lost(Lost::For(Disconnect::Draining), Some(retry_after))
            }
            (lost, _) => Ended::Lost(lost, None),
        }
    }

    fn poll_timers(
        &mut self,
        session: &mut Session,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> Poll<Result<(), Ended>> {
        let silent = |why| Poll::Ready(Err(Ended::Lost(Lost::For(Disconnect::Silent(why)), None)));
        if self.welcomed_at.is_none() {
            return if now >= self.welcome_by { silent("no welcome") } else { Poll::Pending };
        }
        if let Some((until, _)) = self.drain
            && (now >= until || session.in_flight() == 0)
        {
            return Poll::Ready(Err(self.lost(Lost::For(Disconnect::Draining))));
        }
        if now >= self.last_received + 2 * self.heartbeat {
            return silent("no frame for twice the heartbeat");
        }
        if now >= self.ping_at() {
            let ping = session.ping();
            self.last_ping = now;
            return Poll::Ready(self.write(&ping, now).map_err(|lost| self.lost(lost)));
        }
        if self.renew_at.is_some_and(|at| now >= at) {
            self.renew_at = None;
            self.renewing = Some(self.tokens.ask());
        }
        let Some(renewing) = &mut self.renewing else {
            return Poll::Pending;
        };
        let Poll::Ready(renewed) = renewing.poll_unpin(cx) else {
            return Poll::Pending;
        };
        self.renewing = None;
        match renewed {
            Ok(token) => {
                self.renew_at = token.renew_in.map(|span| now + span);
                let frame = session.authenticate(token.bearer);
                Poll::Ready(self.write(&frame, now).map_err(|lost| self.lost(lost)))
            }
            Err(error) => {
                tracing::warn!(error, "no new token");
                self.renew_at = Some(now + RENEW_AGAIN);
                Poll::Ready(Ok(()))
            }
        }
    }

    /// When this client has been quiet for one heartbeat, or has heard nothing for one.
    fn ping_at(&self) -> Instant {
        self.last_sent.min(self.last_received.max(self.last_ping)) + self.heartbeat
    }

    /// When [`Self::poll`] has something to do at the latest.
    pub(crate) fn deadline(&self, session: &Session) -> Instant {
        let Some(_) = self.welcomed_at else {
            return self.welcome_by;
        };
        let quiet = self.ping_at().min(self.last_received + 2 * self.heartbeat);
        [session.ack_due(), session.check_at(), self.renew_at, self.drain.map(|(until, _)| until)]
            .into_iter()
            .flatten()
            .fold(quiet, Instant::min)
    }

    /// Acknowledges what was taken and closes in order, within a second.
    pub(crate) async fn close(mut self, session: &mut Session) {
        let ack = session.ack().filter(|_| self.welcomed_at.is_some());
        let closing = async {
            if let Some(frame) = ack {
                self.socket.feed(transport::encode(&frame, self.format)).await?;
            }
            self.socket.close(None).await?;
            // Until the server's close frame: a socket dropped with unread bytes is reset, and
            // the reset can overtake the ack.
            while let Some(Ok(_)) = self.socket.next().await {}
            Ok::<_, WsError>(())
        };
        if let Ok(Err(error)) = tokio::time::timeout(CLOSE_MAX, closing).await {
            tracing::debug!(%error, "close");
        }
    }
}

/// What a broken socket means.
fn broken(error: WsError) -> Lost {
    match error {
        WsError::Capacity(CapacityError::MessageTooLong { .. }) => {
            Lost::For(Disconnect::Unreadable("a message over the size limit".into()))
        }
        // A process that was killed says no goodbye.
        WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Lost::io(error),
        WsError::Protocol(_) | WsError::Utf8(_) => {
            Lost::For(Disconnect::Unreadable(error.to_string()))
        }
        error => Lost::io(error),
    }
}
