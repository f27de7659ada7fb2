//! What outlives a connection: the place in the user's order, what is to be acknowledged, and the
//! commands that are not settled yet. No I/O and no clock; `client.rs` brings both.

use crate::{
    blocked::Blocked,
    config::Format,
    error::SendError,
    event::{CommandId, Deferred, Event, Outcome},
    transport,
};
use chaski_proto::v1::{
    self, Ack, Authenticate, ClientFrame, Hello, Ping, ServerFrame, Welcome, client_frame::Command,
    server_frame::Body,
};
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};
use tokio::time::Instant;

/// Acknowledge at the latest after this many events …
const ACK_EVENTS_MAX: u32 = 64;
/// … or this long after the first one that is not acknowledged.
const ACK_DELAY_MAX: Duration = Duration::from_millis(100);
/// How long a command waits where the server says 429 or 503 without a time.
const RETRY_DELAY: Duration = Duration::from_millis(500);

struct Pending {
    id: CommandId,
    command: Command,
    bytes: usize,
    sent_at: Option<Instant>,
    retry_at: Option<Instant>,
    gives_up_at: Instant,
}

/// What the connection has to do because of a frame.
#[derive(Debug, PartialEq)]
pub(crate) enum Signal {
    None,
    Welcomed { heartbeat: Duration },
    Authenticated { accepted: bool },
    Moved { url: String, retry_after: Duration },
    Draining { retry_after: Duration },
    Busy { retry_after: Duration },
    HelloRefused { status: u16, code: String, message: String },
    Unreadable(&'static str),
}

pub(crate) struct Session {
    device: String,
    format: Format,
    reply_timeout: Duration,
    give_up_after: Duration,
    commands_max: usize,
    bytes_max: usize,
    next_frame: u32,
    next_command: u64,
    /// By frame id, which only grows: the order of sending.
    pending: BTreeMap<u32, Pending>,
    pending_bytes: usize,
    /// When `pending` has to be looked through again.
    check_at: Option<Instant>,
    /// Frame ids to write, the oldest first.
    queue: VecDeque<u32>,
    hello_id: u32,
    authenticate_id: u32,
    received: Option<u64>,
    handed: Option<u64>,
    taken: Option<u64>,
    untold_events: u32,
    untold_since: Option<Instant>,
    events: VecDeque<Event>,
    repeats_ignored: u64,
    blocked: Blocked,
    tell_repeats: bool,
    heard_at: Option<Instant>,
    deferred: Deferred,
}

impl Session {
    pub(crate) fn new(config: &crate::Config) -> Self {
        Self {
            device: config.device.clone(),
            format: config.format,
            reply_timeout: config.reply_timeout,
            give_up_after: config.give_up_after,
            commands_max: config.outbox_commands_max,
            bytes_max: config.outbox_bytes_max,
            next_frame: 1,
            next_command: 1,
            pending: BTreeMap::new(),
            pending_bytes: 0,
            check_at: None,
            queue: VecDeque::new(),
            hello_id: 0,
            authenticate_id: 0,
            received: config.resume_after,
            handed: None,
            taken: config.resume_after,
            untold_events: 0,
            untold_since: None,
            events: VecDeque::new(),
            repeats_ignored: 0,
            blocked: Blocked::new(&config.user, &config.connections),
            tell_repeats: config.tell_repeats,
            heard_at: None,
            deferred: Deferred::default(),
        }
    }

    // What the owner sees.

    pub(crate) fn send(&mut self, command: Command, now: Instant) -> Result<CommandId, SendError> {
        if let Command::Hello(_) | Command::Authenticate(_) | Command::Ping(_) = command {
            return Err(SendError::OwnCommand(command.name()));
        }
        if let Some(peer) = self.blocked.refuses(&command) {
            return Err(SendError::Blocked(peer.to_owned()));
        }
        // With the largest id and an ack, as it may be written.
        let widest = ClientFrame {
            id: u32::MAX,
            ack: Some(Ack { position: u64::MAX }),
            command: Some(command),
        };
        let bytes = transport::encoded_len(&widest, self.format).map_err(SendError::Unwritable)?;
        let bytes_max = self.format.frame_bytes_max();
        if bytes > bytes_max {
            return Err(SendError::TooLarge { bytes, bytes_max });
        }
        let (ClientFrame { command: Some(command), .. }, true) =
            (widest, self.pending.len() < self.commands_max)
        else {
            return Err(SendError::OutboxFull);
        };
        if self.pending_bytes + bytes > self.bytes_max {
            return Err(SendError::OutboxFull);
        }
        let id = CommandId(self.next_command);
        self.next_command += 1;
        let frame = self.frame_id();
        let gives_up_at = now + self.give_up_after;
        self.pending_bytes += bytes;
        self.pending.insert(
            frame,
            Pending { id, command, bytes, sent_at: None, retry_at: None, gives_up_at },
        );
        self.queue.push_back(frame);
        self.check_by(gives_up_at);
        Ok(id)
    }

    pub(crate) fn pop_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        if let Event::Durable { position, .. } = &event {
            self.handed = Some(*position);
        }
        Some(event)
    }

    pub(crate) fn push_event(&mut self, event: Event) {
        self.events.push_back(event);
    }

    pub(crate) fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// The owner asks for more: what it was given is taken.
    pub(crate) fn take(&mut self, now: Instant) {
        if let Some(position) = self.handed.take() {
            self.taken = Some(position);
            self.untold_events += 1;
            self.untold_since.get_or_insert(now);
        }
    }

    pub(crate) fn taken(&self) -> Option<u64> {
        self.taken
    }

    pub(crate) fn unsettled(&self) -> usize {
        self.pending.len()
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.pending.values().filter(|p| p.sent_at.is_some()).count()
    }

    pub(crate) fn repeats_ignored(&self) -> u64 {
        self.repeats_ignored
    }

    pub(crate) fn deferred(&self) -> Deferred {
        self.deferred
    }

    pub(crate) fn heard_at(&self) -> Option<Instant> {
        self.heard_at
    }

    // What is written.

    pub(crate) fn hello(&mut self) -> ClientFrame {
        self.hello_id = self.frame_id();
        // `resumeAfter` counts as an ack.
        self.told();
        let hello = Hello { token: None, device_id: self.device.clone(), resume_after: self.taken };
        ClientFrame { id: self.hello_id, ack: None, command: Some(Command::Hello(hello)) }
    }

    pub(crate) fn authenticate(&mut self, token: String) -> ClientFrame {
        self.authenticate_id = self.frame_id();
        let command = Command::Authenticate(Authenticate { token });
        self.frame(self.authenticate_id, Some(command))
    }

    pub(crate) fn ping(&mut self) -> ClientFrame {
        let id = self.frame_id();
        self.frame(id, Some(Command::Ping(Ping {})))
    }

    /// The next command, with the ack beside it where one is owed; or the ack alone when due.
    pub(crate) fn next_frame(&mut self, now: Instant, commands: bool) -> Option<ClientFrame> {
        while commands && let Some(frame) = self.queue.pop_front() {
            let Some(pending) = self.pending.get_mut(&frame) else {
                continue;
            };
            pending.sent_at = Some(now);
            pending.retry_at = None;
            let (command, check) = (pending.command.clone(), now + self.reply_timeout);
            if has_reply(&command) {
                self.check_by(check);
            } else {
                self.settle(frame, Outcome::Written);
            }
            return Some(self.frame(frame, Some(command)));
        }
        self.ack_due().is_some_and(|due| due <= now).then(|| self.ack()).flatten()
    }

    /// The ack that is owed, if any, due or not.
    pub(crate) fn ack(&mut self) -> Option<ClientFrame> {
        self.untold_since?;
        let id = self.frame_id();
        Some(self.frame(id, None))
    }

    pub(crate) fn ack_due(&self) -> Option<Instant> {
        let since = self.untold_since?;
        Some(if self.untold_events >= ACK_EVENTS_MAX { since } else { since + ACK_DELAY_MAX })
    }

    fn frame(&mut self, id: u32, command: Option<Command>) -> ClientFrame {
        let owed = self.untold_since.and(self.taken);
        self.told();
        ClientFrame { id, ack: owed.map(|position| Ack { position }), command }
    }

    fn told(&mut self) {
        self.untold_events = 0;
        self.untold_since = None;
    }

    fn frame_id(&mut self) -> u32 {
        let id = self.next_frame;
        // Ids wrap after four thousand million frames; order is then lost for a moment, not more.
        self.next_frame = self.next_frame.checked_add(1).unwrap_or(1);
        id
    }

    // What comes in.

    pub(crate) fn receive(&mut self, frame: ServerFrame, now: Instant) -> Signal {
        self.heard_at = Some(now);
        if let Some(body) = &frame.body {
            self.blocked.hear(body);
        }
        match (frame.reply_to, frame.position, frame.body) {
            (Some(id), None, Some(body)) => self.reply(id, body, now),
            (None, Some(position), body) => {
                self.event(position, body);
                Signal::None
            }
            (None, None, Some(Body::Receipt(receipt))) => {
                self.events.push_back(Event::Receipt(receipt));
                Signal::None
            }
            (None, None, Some(Body::GoAway(notice))) => {
                let retry_after = Duration::from_millis(notice.retry_after_ms.into());
                match notice.url {
                    Some(url) => Signal::Moved { url, retry_after },
                    None if notice.reason == "BUSY" => Signal::Busy { retry_after },
                    None => Signal::Draining { retry_after },
                }
            }
            (Some(_), Some(_), _) => Signal::Unreadable("a reply with a position"),
            // A newer peer's frame.
            _ => Signal::None,
        }
    }

    fn event(&mut self, position: u64, body: Option<Body>) {
        // After `resync` the order may begin anew below what this client knew.
        let anew = matches!(body, Some(Body::Resync(_)));
        if !anew && self.received.is_some_and(|highest| position <= highest) {
            self.repeats_ignored += 1;
            if self.tell_repeats {
                self.events.push_back(Event::Repeated { position, body });
            }
            return;
        }
        self.received = Some(position);
        self.events.push_back(Event::Durable { position, body });
    }

    fn reply(&mut self, id: u32, body: Body, now: Instant) -> Signal {
        if id == self.hello_id {
            return match body {
                Body::Welcome(welcome) => self.welcome(&welcome),
                Body::Error(e) => {
                    let status = u16::try_from(e.status).unwrap_or(500);
                    Signal::HelloRefused { status, code: e.code, message: e.message }
                }
                _ => Signal::Unreadable("hello answered by something else"),
            };
        }
        if id == self.authenticate_id {
            return Signal::Authenticated { accepted: matches!(body, Body::Authenticated(_)) };
        }
        let Some(pending) = self.pending.get_mut(&id) else {
            // The answer to a ping, to a command without reply, or a second one after a repeat.
            if let Body::Error(e) = &body {
                tracing::warn!(id, status = e.status, code = e.code, "the server refused a frame");
            }
            return Signal::None;
        };
        match body {
            Body::Error(error) => {
                let unknown = error.code == "outcome_unknown";
                let passes = matches!(error.status, 429 | 503);
                if passes && (!unknown || is_idempotent(&pending.command)) {
                    let delay = error.retry_after_ms.map(|ms| Duration::from_millis(ms.into()));
                    match delay {
                        Some(_) => self.deferred.with_time += 1,
                        None => self.deferred.without += 1,
                    }
                    let retry_at = now + delay.unwrap_or(RETRY_DELAY);
                    pending.retry_at = Some(retry_at);
                    pending.sent_at = None;
                    self.check_by(retry_at);
                } else if unknown {
                    self.settle(id, Outcome::Unknown);
                } else {
                    self.settle(id, Outcome::Refused(error));
                }
                Signal::None
            }
            body if answers(&pending.command, &body) => {
                self.settle(id, Outcome::Done(body));
                Signal::None
            }
            _ => Signal::Unreadable("a command answered by another command's reply"),
        }
    }

    fn welcome(&mut self, welcome: &Welcome) -> Signal {
        let position = welcome.position;
        self.received.get_or_insert(position);
        self.taken.get_or_insert(position);
        self.events.push_back(Event::Connected { position });
        let heartbeat = Duration::from_secs(welcome.heartbeat_seconds.clamp(1, 3600).into());
        Signal::Welcomed { heartbeat }
    }

    // What time and loss do.

    /// When [`Self::check`] has something to do at the earliest.
    pub(crate) fn check_at(&self) -> Option<Instant> {
        self.check_at
    }

    fn check_by(&mut self, at: Instant) {
        self.check_at = Some(self.check_at.map_or(at, |present| present.min(at)));
    }

    /// Gives up what is too old and queues again what was not answered.
    pub(crate) fn check(&mut self, now: Instant) {
        if self.check_at.is_none_or(|at| at > now) {
            return;
        }
        self.check_at = None;
        let (mut given_up, mut next) = (Vec::new(), None::<Instant>);
        for (&frame, pending) in &mut self.pending {
            if pending.gives_up_at <= now {
                given_up.push(frame);
                continue;
            }
            let resend_at = match (pending.retry_at, pending.sent_at) {
                (Some(at), _) => Some(at),
                (None, Some(sent)) if is_idempotent(&pending.command) => {
                    Some(sent + self.reply_timeout)
                }
                _ => None,
            };
            if resend_at.is_some_and(|at| at <= now) {
                (pending.retry_at, pending.sent_at) = (None, None);
                self.queue.push_back(frame);
            }
            let due = resend_at.filter(|at| *at > now).unwrap_or(pending.gives_up_at);
            let due = due.min(pending.gives_up_at);
            next = Some(next.map_or(due, |present| present.min(due)));
        }
        self.check_at = next;
        for frame in given_up {
            self.settle(frame, Outcome::GaveUp);
        }
        // Oldest first, also among what was put back.
        self.queue.make_contiguous().sort_unstable();
    }

    /// The connection is gone: what was sent and can be repeated is sent again, oldest first.
    pub(crate) fn disconnected(&mut self) {
        let sent = |p: &Pending| p.sent_at.is_some() && !is_idempotent(&p.command);
        let unknown: Vec<u32> =
            self.pending.iter().filter(|(_, p)| sent(p)).map(|(frame, _)| *frame).collect();
        for frame in unknown {
            self.settle(frame, Outcome::Unknown);
        }
        for pending in self.pending.values_mut() {
            pending.sent_at = None;
        }
        self.queue =
            self.pending.iter().filter(|(_, p)| p.retry_at.is_none()).map(|(f, _)| *f).collect();
    }

    /// Close code 1009: the server's frame limit is below the contract's, and the largest command
    /// in flight is what broke it. Sending it again would break every connection.
    pub(crate) fn refuse_largest(&mut self) {
        let in_flight = self.pending.iter().filter(|(_, p)| p.sent_at.is_some());
        if let Some((&frame, _)) = in_flight.max_by_key(|(_, p)| p.bytes) {
            let message = "the server closed the connection: the frame is too large for it";
            let error = v1::Error {
                code: "too_large".into(),
                status: 413,
                message: message.into(),
                ..v1::Error::default()
            };
            self.settle(frame, Outcome::Refused(error));
        }
    }

    /// The client stops: everything is settled.
    pub(crate) fn stopped(&mut self) {
        for frame in self.pending.keys().copied().collect::<Vec<_>>() {
            self.settle(frame, Outcome::GaveUp);
        }
        self.queue.clear();
    }

    fn settle(&mut self, frame: u32, outcome: Outcome) {
        if let Some(pending) = self.pending.remove(&frame) {
            self.pending_bytes -= pending.bytes;
            self.events.push_back(Event::Settled { id: pending.id, outcome });
        }
    }
}

fn has_reply(command: &Command) -> bool {
    !matches!(command, Command::MarkRead(_) | Command::RejectMessage(_))
}

/// Whether doing it again is the same as doing it once, whatever others did in between.
fn is_idempotent(command: &Command) -> bool {
    matches!(command, Command::SendMessage(_) | Command::CreateChat(_) | Command::SetSettings(_))
}

fn answers(command: &Command, body: &Body) -> bool {
    matches!(
        (command, body),
        (Command::CreateChat(_), Body::ChatCreated(_))
            | (Command::SendMessage(_), Body::MessageAccepted(_))
            | (Command::ModifyChat(_) | Command::ModifyChatParticipants(_), Body::ChatModified(_))
            | (Command::SetConnection(_), Body::ConnectionSet(_))
            | (Command::SetSettings(_), Body::SettingsSet(_))
    )
}
