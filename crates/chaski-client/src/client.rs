//! The client: connects, resumes, moves, backs off; one state machine that its owner polls.

use crate::{
    config::{Config, socket_url},
    error::{Disconnect, Error, SendError},
    event::{CommandId, Deferred, Event},
    link::{Ended, Link},
    session::Session,
    transport::{self, Lost, Opened},
};
use ::http::Uri;
use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use chaski_proto::v1::client_frame::Command;
use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep_until};

/// A welcome has to last this long before the back-off begins anew, so that a host which fails
/// right after each welcome is not stormed.
const STABLE_AFTER: Duration = Duration::from_secs(2);
/// Hosts that send a client on without a welcome in between, before it backs off.
const MOVES_MAX: u32 = 3;

/// A client of one device.
///
/// Everything happens inside [`Client::next`]: who does not call it is not connected and sends
/// nothing. It may be dropped and called again at any time.
pub struct Client {
    config: Config,
    home: Uri,
    /// Where `goAway` sent this client; forgotten when it cannot be reached.
    moved_to: Option<Uri>,
    moves: u32,
    /// Since when it cannot reach the host that it is told.
    homeless: Option<Instant>,
    session: Session,
    backoff: ExponentialBackoff,
    state: State,
    timer: Pin<Box<Sleep>>,
}

enum State {
    Waiting(Instant),
    Connecting { opening: Opening, by: Instant },
    Open(Box<Link>),
    Stopped(Error),
}

type Opening = Pin<Box<dyn Future<Output = Result<Opened, Lost>> + Send>>;

impl Client {
    /// A client that connects as soon as [`Client::next`] is called. Must be made in a tokio
    /// runtime.
    ///
    /// # Errors
    /// [`Error::BadUrl`] and [`Error::TlsNotBuilt`].
    pub fn new(config: Config) -> Result<Self, Error> {
        let home = socket_url(&config.url)?;
        let now = Instant::now();
        Ok(Self {
            session: Session::new(&config),
            config,
            home,
            moved_to: None,
            moves: 0,
            homeless: None,
            backoff: backoff(),
            state: State::Waiting(now),
            timer: Box::pin(sleep_until(now)),
        })
    }

    /// Takes a command into the outbox; it is written by [`Client::next`], and settled by exactly
    /// one [`Event::Settled`]. `sendMessage` and `createChat` survive any number of connections;
    /// order is kept among what is sent, but what the server defers (429, 503) falls behind: who
    /// needs order in a chat sends one at a time.
    ///
    /// # Errors
    /// The command was not taken.
    pub fn send(&mut self, command: Command) -> Result<CommandId, SendError> {
        if let State::Stopped(error) = &self.state {
            return Err(error.clone().into());
        }
        self.session.send(command, Instant::now())
    }

    /// The next event. A durable event counts as taken when `next` is called again after it.
    /// Cancel safe: nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// The client has stopped for good, after all commands were settled; every further call
    /// gives the same.
    pub async fn next(&mut self) -> Result<Event, Error> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Acknowledges what was taken, including the last event that [`Client::next`] gave, and
    /// closes in order. Commands that are not settled are forgotten: wait for them before.
    /// Returns the highest position taken, to resume after.
    pub async fn close(mut self) -> Option<u64> {
        self.session.take(Instant::now());
        if let State::Open(link) = self.state {
            link.close(&mut self.session).await;
        }
        self.session.taken()
    }

    /// The highest position that the owner has taken.
    #[must_use]
    pub fn taken(&self) -> Option<u64> {
        self.session.taken()
    }

    /// Whether the server has welcomed the present connection.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        matches!(&self.state, State::Open(link) if link.welcomed_at.is_some())
    }

    /// How many commands wait for their outcome.
    #[must_use]
    pub fn unsettled(&self) -> usize {
        self.session.unsettled()
    }

    /// How many events came again, at or below the highest position, and were ignored.
    #[must_use]
    pub fn repeats_ignored(&self) -> u64 {
        self.session.repeats_ignored()
    }

    /// How often the server told this client to send a command again later (429, 503).
    #[must_use]
    pub fn deferred(&self) -> Deferred {
        self.session.deferred()
    }

    /// When the last frame came, on whichever connection.
    #[must_use]
    pub fn heard_at(&self) -> Option<Instant> {
        self.session.heard_at()
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, Error>> {
        loop {
            let now = Instant::now();
            self.session.take(now);
            if let Some(event) = self.session.pop_event() {
                return Poll::Ready(Ok(event));
            }
            let deadline = match &mut self.state {
                State::Stopped(error) => return Poll::Ready(Err(error.clone())),
                State::Waiting(until) if *until <= now => {
                    self.connect(now);
                    continue;
                }
                State::Waiting(until) => *until,
                State::Connecting { opening, by } => match opening.as_mut().poll(cx) {
                    Poll::Ready(opened) => {
                        let by = *by;
                        self.opened(opened, by, now);
                        continue;
                    }
                    Poll::Pending if *by <= now => {
                        self.lost(Lost::For(Disconnect::Silent("no connection")), None, now);
                        continue;
                    }
                    Poll::Pending => *by,
                },
                State::Open(link) => match link.poll(&mut self.session, cx, now) {
                    Poll::Ready(Ok(())) => continue,
                    Poll::Ready(Err(ended)) => {
                        self.ended(ended, now);
                        continue;
                    }
                    Poll::Pending => link.deadline(&self.session),
                },
            };
            self.session.check(now);
            let deadline = self.session.check_at().map_or(deadline, |at| deadline.min(at));
            if self.timer.deadline() != deadline {
                self.timer.as_mut().reset(deadline);
            }
            if self.timer.as_mut().poll(cx).is_pending() && !self.session.has_events() {
                return Poll::Pending;
            }
        }
    }

    fn connect(&mut self, now: Instant) {
        let uri = self.moved_to.as_ref().unwrap_or(&self.home).clone();
        let opening = transport::open(uri, self.config.format, self.config.tokens.clone());
        self.state =
            State::Connecting { opening: Box::pin(opening), by: now + self.config.connect_timeout };
    }

    fn opened(&mut self, opened: Result<Opened, Lost>, by: Instant, now: Instant) {
        let how = (self.config.format, self.config.tokens.clone());
        match opened.and_then(|opened| Link::new(opened, how, by, &mut self.session, now)) {
            Ok(link) => self.state = State::Open(Box::new(link)),
            Err(lost) => self.lost(lost, None, now),
        }
    }

    fn ended(&mut self, ended: Ended, now: Instant) {
        let welcomed_at = match &self.state {
            State::Open(link) => link.welcomed_at,
            _ => None,
        };
        if welcomed_at.is_some() {
            (self.moves, self.homeless) = (0, None);
        }
        if welcomed_at.is_some_and(|at| now >= at + STABLE_AFTER) {
            self.backoff = backoff();
        }
        match ended {
            Ended::Moved { url, retry_after } => match socket_url(&url) {
                Ok(uri) => self.moved(uri, retry_after, now),
                Err(error) => {
                    self.lost(Lost::For(Disconnect::Unreadable(error.to_string())), None, now);
                }
            },
            // The host gave each one a time: sooner it would only refuse again.
            Ended::Busy { retry_after } => {
                self.wait(Disconnect::Busy, retry_after.mul_f64(1.0 + fastrand::f64() / 10.0), now);
            }
            Ended::Lost(lost, retry_after) => {
                if welcomed_at.is_some() {
                    // Once more where it was welcome; where that fails, the address it was given.
                    self.retry(lost, retry_after, now);
                } else {
                    self.lost(lost, retry_after, now);
                }
            }
        }
    }

    fn moved(&mut self, uri: Uri, retry_after: Duration, now: Instant) {
        self.moves += 1;
        let cause = Disconnect::Moved(uri.to_string());
        self.moved_to = Some(uri);
        let retry_in = if self.moves > MOVES_MAX {
            self.delay()
        } else {
            retry_after.mul_f64(fastrand::f64())
        };
        self.wait(cause, retry_in, now);
    }

    /// The connection did not come about, or ended before a welcome.
    fn lost(&mut self, lost: Lost, retry_after: Option<Duration>, now: Instant) {
        self.moves = 0;
        if self.moved_to.take().is_some() {
            self.homeless.get_or_insert(now);
        }
        let mut delay = self.delay();
        // The host that it was told has died, it seems: it is told another one within a session.
        if self.homeless.is_some_and(|since| now < since + SOON_FOR) {
            delay = delay.min(SOON.mul_f64(0.5 + fastrand::f64() / 2.0));
        }
        self.again(lost, retry_after, delay, now);
    }

    fn retry(&mut self, lost: Lost, retry_after: Option<Duration>, now: Instant) {
        let delay = self.delay();
        self.again(lost, retry_after, delay, now);
    }

    fn again(&mut self, lost: Lost, retry_after: Option<Duration>, delay: Duration, now: Instant) {
        match lost {
            Lost::For(cause) => {
                let spread = retry_after.unwrap_or_default().mul_f64(fastrand::f64());
                self.wait(cause, delay.max(spread), now);
            }
            Lost::Good(error) => {
                tracing::warn!(%error, user = self.config.user, "client stopped");
                self.session.disconnected();
                self.session.stopped();
                self.state = State::Stopped(error);
            }
        }
    }

    fn wait(&mut self, cause: Disconnect, retry_in: Duration, now: Instant) {
        tracing::debug!(%cause, ?retry_in, user = self.config.user, "disconnected");
        self.session.disconnected();
        self.session.push_event(Event::Disconnected { cause, retry_in });
        self.state = State::Waiting(now + retry_in);
    }

    fn delay(&mut self) -> Duration {
        self.backoff.next().unwrap_or(BACKOFF_MAX)
    }
}

const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// While it is told a host that cannot be reached, it asks again within this at the latest …
const SOON: Duration = Duration::from_millis(600);
/// … for so long: a host that has died is replaced when its session (6 s) has run out.
const SOON_FOR: Duration = Duration::from_secs(12);

/// 50 ms … 5 s: the jitter adds up to the delay itself, so the bare delay ends at the half.
fn backoff() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_jitter()
        // Without it, and without its feature `std`, all clients have the same jitter.
        .with_jitter_seed(fastrand::u64(..))
        .with_min_delay(Duration::from_millis(50))
        .with_max_delay(BACKOFF_MAX / 2)
        .without_max_times()
        .build()
}
