//! The fan-out: a deterministic fold over one partition of `new-messages`. State and record give
//! new state and records for `recipients`; a replay yields the same ones.
//!
//! Must not know: the log it reads, the log its outputs go to, time other than the log's ticks,
//! randomness.

mod chat;
mod marks;
mod membership;
mod seen;

pub use chat::{Chat, MemberState};
pub use seen::Seen;

use crate::{
    ChatId, Law, MessageId, Offset,
    placement::{Placement, murmur2},
    record::{
        Action, Cause, ChatVerdict, Command, Create, Event, Input, Message, Outcome, Output,
        Refuse, Rejection, RequestId, Rules, Send, Tick, UnixMs,
    },
    uphold,
};
use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

/// Into how many parts the chats of a partition are cut for snapshots. Part of the stored format.
pub const BUCKETS: u32 = 64;
/// The number under which what belongs to no chat is kept in snapshots. Part of the stored format.
pub const CONTROL: u32 = BUCKETS;
/// How many snapshots a partition has.
pub const SNAPSHOTS: u32 = BUCKETS + 1;
/// The farthest one tick moves time, so that one wrong clock cannot empty the window in which
/// retries are known.
pub const TICK_MAX_MS: UnixMs = 60_000;
/// How long after a message was accepted a recipient may refuse it.
pub const REFUSABLE_MS: UnixMs = 24 * 60 * 60 * 1000;

/// The state of the fan-out for one partition of `new-messages`.
#[derive(Debug)]
pub struct Fold {
    placement: Placement,
    control: Control,
    buckets: Vec<Bucket>,
}

/// What belongs to no chat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// Ticks at or below this offset are already in this state.
    pub as_of: Option<Offset>,
    /// The log's time: moves only by ticks; 0 before the first one.
    pub now: UnixMs,
    /// What holds at present.
    pub rules: Rules,
}

/// A part of the state: some chats, and what was sent to them before.
#[derive(Debug, Default)]
pub struct Bucket {
    /// Records at or below this offset are already in this state (and their outputs are out).
    pub as_of: Option<Offset>,
    /// The chats.
    pub chats: HashMap<ChatId, Chat>,
    /// The idempotency keys: which message, with which content (L2).
    pub seen: Seen,
    /// Whether it changed since it was last taken for a snapshot.
    pub dirty: bool,
}

impl Fold {
    /// The empty state, for outputs placed by `placement`.
    #[must_use]
    pub fn new(placement: Placement) -> Self {
        let buckets = (0..BUCKETS).map(|_| Bucket::default()).collect();
        Self { placement, control: Control::default(), buckets }
    }

    /// Puts back a bucket from a snapshot.
    ///
    /// # Panics
    /// If there is no such bucket.
    pub fn restore(&mut self, index: u32, bucket: Bucket) {
        self.buckets[index as usize] = bucket;
    }

    /// Puts back time and rules from a snapshot.
    pub fn restore_control(&mut self, control: Control) {
        self.control = control;
    }

    /// The buckets, for snapshots.
    pub fn buckets_mut(&mut self) -> impl Iterator<Item = (u32, &mut Bucket)> {
        (0..).zip(&mut self.buckets)
    }

    /// Time and rules, for snapshots.
    pub fn control_mut(&mut self) -> &mut Control {
        &mut self.control
    }

    /// Time and rules.
    #[must_use]
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// How many idempotency keys are kept, and how far they reach back in the log's time, in
    /// milliseconds: to the beginning of the day on which the oldest was made (L2).
    #[must_use]
    pub fn idempotency_window(&self) -> (usize, UnixMs) {
        let now = self.control.now;
        let windows = self.buckets.iter().map(|bucket| bucket.seen.window(now));
        let (keys, begin) = windows.fold((0, now), |(keys, begin), (more, from)| {
            (keys + more, from.map_or(begin, |from| begin.min(from)))
        });
        (keys, now - begin)
    }

    /// How outputs are placed.
    #[must_use]
    pub fn placement(&self) -> Placement {
        self.placement
    }

    /// Which bucket a chat is kept in. Part of the stored format.
    #[must_use]
    pub fn bucket_of(chat: &ChatId) -> u32 {
        murmur2(chat.as_str().as_bytes()) % BUCKETS
    }

    /// Applies the record at `offset` and pushes its outputs. A record that the bucket's
    /// snapshot already holds gives none: they are out.
    pub fn apply(&mut self, offset: Offset, input: Input, out: &mut Vec<Output>) {
        let chat = match &input {
            Input::Command(command) => command.chat,
            Input::Marks(marks) => marks.chat,
            Input::Tick(tick) => return self.tick(offset, tick),
        };
        let bucket = &mut self.buckets[Self::bucket_of(&chat) as usize];
        if bucket.as_of.is_some_and(|as_of| offset <= as_of) {
            return;
        }
        bucket.dirty = true;
        bucket.as_of = Some(offset);
        let (placement, now, rules) = (self.placement, self.control.now, self.control.rules);
        match input {
            Input::Command(command) => {
                let mut step = Step { placement, now, rules, command: &command, out };
                bucket.command(&mut step);
            }
            Input::Marks(marks) => bucket.marks(placement, rules, marks, out),
            Input::Tick(_) => {}
        }
    }

    /// Time never goes back, and a tick moves it by [`TICK_MAX_MS`] at most; the first one sets it.
    fn tick(&mut self, offset: Offset, tick: &Tick) {
        let control = &mut self.control;
        if control.as_of.is_some_and(|as_of| offset <= as_of) {
            return;
        }
        let upto = if control.now == 0 { tick.now } else { control.now + TICK_MAX_MS };
        let now = tick.now.clamp(control.now, upto.max(control.now));
        if control.now == 0 {
            self.buckets.iter_mut().for_each(|bucket| bucket.dirty |= bucket.seen.begin(now));
        }
        *control = Control { as_of: Some(offset), now, rules: tick.rules };
    }
}

/// One command on its way through the fold.
struct Step<'a> {
    placement: Placement,
    now: UnixMs,
    rules: Rules,
    command: &'a Command,
    out: &'a mut Vec<Output>,
}

impl Step<'_> {
    /// An output for the acting user alone.
    fn answer(&mut self, index: u32, event: Event) {
        let user = self.command.user.clone();
        self.out.push(to_user(self.placement, user, index, event));
    }

    /// The chat's answer to a command somebody waits for, behind the command's other outputs.
    fn verdict(&mut self, before: usize, request: RequestId, outcome: Outcome) {
        let index = (self.out.len() - before) as u32;
        let verdict = ChatVerdict {
            request,
            chat: self.command.chat,
            outcome,
            accepted_at: self.command.accepted_at,
        };
        self.answer(index, Event::Verdict(verdict));
    }
}

impl Bucket {
    fn command(&mut self, step: &mut Step<'_>) {
        let before = step.out.len();
        match &step.command.action {
            Action::Send(send) => self.send(step, send),
            Action::Create(create) => {
                let outcome = self.create(step, create);
                step.verdict(before, create.request, outcome);
            }
            Action::Change(change) => {
                let outcome = self.change(step, &change.what);
                step.verdict(before, change.request, outcome);
            }
            // Nobody waits for it.
            Action::Refuse(refuse) => return self.refuse(step, refuse),
        }
        let own = step.placement.of_user(&step.command.user);
        uphold!(
            Law::L5,
            step.out.get(before).is_some_and(|o| o.index == 0 && o.partition == own),
            "a command without a record for its sender's partition"
        );
    }

    fn send(&mut self, step: &mut Step<'_>, send: &Send) {
        let command = step.command;
        let id = MessageId::of(&command.user, &command.chat, &send.key);
        let event = match self.decide(step, send, id) {
            Ok(Some((chat, member))) => {
                chat.last_seq += 1;
                chat.states[member].sent = chat.last_seq;
                let message = Message {
                    chat: command.chat,
                    seq: chat.last_seq,
                    id,
                    key: send.key.clone(),
                    sender: command.user.clone(),
                    device: command.device.clone(),
                    content: Arc::clone(&send.content),
                    sent_at: send.sent_at,
                    accepted_at: command.accepted_at,
                    members: (chat.last_seq == 1).then(|| Arc::clone(chat.members())),
                    history_days: chat.history_days,
                };
                let own = step.placement.of_user(&command.user);
                return chat.fan_out(own, &Event::Message(Arc::new(message)), step.out);
            }
            Ok(None) => Event::Duplicate { id, accepted_at: command.accepted_at },
            Err(cause) => Event::Rejected(Rejection {
                chat: command.chat,
                message: id,
                key: send.key.clone(),
                by: None,
                cause,
                reason: String::new(),
                accepted_at: command.accepted_at,
            }),
        };
        step.answer(0, event);
    }

    /// The fate of a message: the chat that takes it and which member sent it, `None` for a retry
    /// of what was decided before, or why it is refused. Every decision is remembered under the
    /// message's id (L2).
    fn decide(
        &mut self,
        step: &Step<'_>,
        send: &Send,
        id: MessageId,
    ) -> Result<Option<(&mut Chat, usize)>, Cause> {
        let command = step.command;
        let content = send.content.digest();
        match self.seen.get(&id, step.now) {
            Some(seen) if seen == content => return Ok(None),
            Some(_) => {
                let conflict = id.conflicting(content);
                return match self.seen.add(conflict, content, step.now) {
                    true => Err(Cause::OtherContent),
                    false => Ok(None),
                };
            }
            None => self.seen.add(id, content, step.now),
        };
        let chat = match (self.chats.entry(command.chat), &send.to) {
            (Entry::Occupied(chat), _) => chat.into_mut(),
            (Entry::Vacant(slot), Some(to))
                if ChatId::direct(&command.user, to) == command.chat =>
            {
                slot.insert(Chat::direct(step.placement, &command.user, to))
            }
            _ => return Err(Cause::NoSuchChat),
        };
        match chat.place_of(&command.user) {
            Some(member) => Ok(Some((chat, member))),
            None => Err(Cause::NotAMember),
        }
    }

    fn create(&mut self, step: &mut Step<'_>, create: &Create) -> Outcome {
        let command = step.command;
        let creation = create.digest(&command.user);
        match self.chats.get(&command.chat) {
            Some(chat) if chat.creation == creation => Outcome::Unchanged,
            Some(_) => Outcome::Refused(Cause::OtherChat),
            None => {
                let chat = Chat::group(step.placement, command, create, creation);
                chat.tell(step, Arc::new([]));
                self.chats.insert(command.chat, chat);
                Outcome::Changed
            }
        }
    }

    /// A recipient's refusal: told to the sender once for each (message, user), within a day.
    fn refuse(&mut self, step: &mut Step<'_>, refuse: &Refuse) {
        let command = step.command;
        let member =
            self.chats.get(&command.chat).is_some_and(|c| c.place_of(&command.user).is_some());
        let genuine = MessageId::of(&refuse.sender, &command.chat, &refuse.key) == refuse.message
            && refuse.sender != command.user;
        let in_time = command.accepted_at.saturating_sub(refuse.message_at) <= REFUSABLE_MS;
        let key = refuse.message.refused_by(&command.user);
        if !(member && genuine && in_time && self.seen.add(key, 0, step.now)) {
            return;
        }
        let rejection = Rejection {
            chat: command.chat,
            message: refuse.message,
            key: refuse.key.clone(),
            by: Some(command.user.clone()),
            cause: Cause::ByRecipient,
            reason: refuse.reason.clone(),
            accepted_at: command.accepted_at,
        };
        let event = Event::Rejected(rejection);
        step.out.push(to_user(step.placement, refuse.sender.clone(), 0, event));
    }
}

fn to_user(placement: Placement, user: crate::UserId, index: u32, event: Event) -> Output {
    let partition = placement.of_user(&user);
    Output { partition, index, users: Arc::new([user]), visible_from: None, event }
}

#[cfg(test)]
mod tests;
