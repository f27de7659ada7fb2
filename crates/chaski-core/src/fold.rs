//! The fan-out: a deterministic fold over one partition of `new-messages`. State and record give
//! new state and records for `recipients`; a replay yields the same ones.
//!
//! Must not know: the log it reads, the log its outputs go to, time, randomness.

use crate::{
    ChatId, Law, MessageId, Offset, Partition, UserId,
    placement::{Placement, murmur2},
    record::{
        Action, Cause, ChatUpdate, ChatVerdict, Command, Create, Event, History, Member, Message,
        Outcome, Output, Rejection, Role, Send,
    },
    uphold,
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// Into how many parts the state of a partition is cut for snapshots. Part of the stored format.
pub const BUCKETS: u32 = 64;

/// The state of the fan-out for one partition of `new-messages`.
#[derive(Debug)]
pub struct Fold {
    placement: Placement,
    buckets: Vec<Bucket>,
}

/// A part of the state: some chats, and what was sent to them before.
#[derive(Debug, Default)]
pub struct Bucket {
    /// Records at or below this offset are already in this state (and their outputs are out).
    pub as_of: Option<Offset>,
    /// The chats.
    pub chats: HashMap<ChatId, Chat>,
    /// The idempotency keys: which message, with which content (L2).
    pub seen: HashMap<MessageId, u64>,
    /// Whether it changed since it was last taken for a snapshot.
    pub dirty: bool,
}

/// The state of a chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chat {
    /// Tells a repeated creation from another one under the same key; 0 for a 1:1 chat.
    pub creation: u64,
    /// The chat's name.
    pub name: Arc<str>,
    /// What later members may see.
    pub history: History,
    /// Counts the changes.
    pub version: u64,
    /// The last seq given out (L3).
    pub last_seq: u64,
    /// The members.
    pub members: Arc<[Member]>,
    /// The members by partition of `recipients`; follows from `members`, never stored.
    routes: Arc<[Route]>,
}

#[derive(Debug, PartialEq, Eq)]
struct Route {
    partition: Partition,
    users: Arc<[UserId]>,
    visible_from: Arc<[u64]>,
}

impl Chat {
    /// A chat with these members, routed by `placement`.
    #[must_use]
    pub fn new(
        placement: Placement,
        creation: u64,
        name: Arc<str>,
        history: History,
        (version, last_seq): (u64, u64),
        members: Arc<[Member]>,
    ) -> Self {
        let mut by_partition = BTreeMap::<Partition, (Vec<UserId>, Vec<u64>)>::new();
        for member in &*members {
            let (users, visible) = by_partition.entry(placement.of_user(&member.user)).or_default();
            users.push(member.user.clone());
            visible.push(member.visible_from);
        }
        let routes = by_partition
            .into_iter()
            .map(|(partition, (users, visible))| Route {
                partition,
                users: users.into(),
                visible_from: visible.into(),
            })
            .collect();
        Self { creation, name, history, version, last_seq, members, routes }
    }

    fn has(&self, user: &UserId) -> bool {
        self.members.iter().any(|m| m.user == *user)
    }

    /// One output for each partition with members, the acting user's partition first.
    fn fan_out(&self, first: Partition, event: &Event, out: &mut Vec<Output>) {
        let update = matches!(event, Event::ChatUpdate(_));
        let (own, others): (Vec<_>, Vec<_>) =
            self.routes.iter().partition(|r| r.partition == first);
        for (index, route) in own.into_iter().chain(others).enumerate() {
            out.push(Output {
                partition: route.partition,
                index: index as u32,
                users: Arc::clone(&route.users),
                visible_from: update.then(|| Arc::clone(&route.visible_from)),
                event: event.clone(),
            });
        }
    }
}

impl Fold {
    /// The empty state, for outputs placed by `placement`.
    #[must_use]
    pub fn new(placement: Placement) -> Self {
        Self { placement, buckets: (0..BUCKETS).map(|_| Bucket::default()).collect() }
    }

    /// Puts back a bucket from a snapshot.
    ///
    /// # Panics
    /// If there is no such bucket.
    pub fn restore(&mut self, index: u32, bucket: Bucket) {
        self.buckets[index as usize] = bucket;
    }

    /// The buckets, for snapshots.
    pub fn buckets_mut(&mut self) -> impl Iterator<Item = (u32, &mut Bucket)> {
        (0..).zip(&mut self.buckets)
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
    pub fn apply(&mut self, offset: Offset, command: Command, out: &mut Vec<Output>) {
        let placement = self.placement;
        let bucket = &mut self.buckets[Self::bucket_of(&command.chat) as usize];
        if bucket.as_of.is_some_and(|as_of| offset <= as_of) {
            return;
        }
        bucket.dirty = true;
        bucket.as_of = Some(offset);
        let before = out.len();
        match command.action {
            Action::Send(ref send) => bucket.send(placement, &command, send, out),
            Action::Create(ref create) => bucket.create(placement, &command, create, out),
        }
        let own = placement.of_user(&command.user);
        uphold!(
            Law::L5,
            out.get(before).is_some_and(|o| o.index == 0 && o.partition == own),
            "a command without a record for its sender's partition"
        );
    }
}

impl Bucket {
    fn send(
        &mut self,
        placement: Placement,
        command: &Command,
        send: &Send,
        out: &mut Vec<Output>,
    ) {
        let id = MessageId::of(&command.user, &command.chat, &send.key);
        let event = match self.decide(placement, command, send, id) {
            Ok(Some(chat)) => {
                chat.last_seq += 1;
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
                    members: (chat.last_seq == 1).then(|| Arc::clone(&chat.members)),
                };
                let own = placement.of_user(&command.user);
                return chat.fan_out(own, &Event::Message(Arc::new(message)), out);
            }
            Ok(None) => Event::Duplicate { id, accepted_at: command.accepted_at },
            Err(cause) => Event::Rejected(Rejection {
                chat: command.chat,
                message: id,
                key: send.key.clone(),
                cause,
                accepted_at: command.accepted_at,
            }),
        };
        out.push(to_sender(placement, command, 0, event));
    }

    /// The fate of a message: the chat that takes it, `None` for a retry of what was decided
    /// before, or why it is refused. Every decision is remembered under the message's id (L2).
    fn decide(
        &mut self,
        placement: Placement,
        command: &Command,
        send: &Send,
        id: MessageId,
    ) -> Result<Option<&mut Chat>, Cause> {
        let content = send.content.digest();
        match self.seen.get(&id) {
            Some(seen) if *seen == content => return Ok(None),
            Some(_) => {
                let conflict = id.conflicting(content);
                return match self.seen.insert(conflict, content) {
                    None => Err(Cause::OtherContent),
                    Some(_) => Ok(None),
                };
            }
            None => self.seen.insert(id, content),
        };
        let chat = match (self.chats.entry(command.chat), &send.to) {
            (std::collections::hash_map::Entry::Occupied(chat), _) => chat.into_mut(),
            (std::collections::hash_map::Entry::Vacant(slot), Some(to))
                if ChatId::direct(&command.user, to) == command.chat =>
            {
                slot.insert(direct(placement, &command.user, to))
            }
            _ => return Err(Cause::NoSuchChat),
        };
        if chat.has(&command.user) { Ok(Some(chat)) } else { Err(Cause::NotAMember) }
    }

    fn create(
        &mut self,
        placement: Placement,
        command: &Command,
        create: &Create,
        out: &mut Vec<Output>,
    ) {
        let own = placement.of_user(&command.user);
        let creation = create.digest(&command.user);
        let outcome = match self.chats.get(&command.chat) {
            Some(chat) if chat.creation == creation => Outcome::Unchanged,
            Some(_) => Outcome::Refused(Cause::OtherChat),
            None => {
                let chat = group(placement, command, create, creation);
                let update = ChatUpdate {
                    chat: command.chat,
                    seq: chat.last_seq,
                    members: Arc::clone(&chat.members),
                    name: Arc::clone(&chat.name),
                    version: chat.version,
                    accepted_at: command.accepted_at,
                };
                chat.fan_out(own, &Event::ChatUpdate(Arc::new(update)), out);
                self.chats.insert(command.chat, chat);
                Outcome::Changed
            }
        };
        let verdict = ChatVerdict {
            request: create.request,
            chat: command.chat,
            outcome,
            accepted_at: command.accepted_at,
        };
        let index = out
            .last()
            .map_or(0, |last| if outcome == Outcome::Changed { last.index + 1 } else { 0 });
        out.push(to_sender(placement, command, index, Event::Verdict(verdict)));
    }
}

fn to_sender(placement: Placement, command: &Command, index: u32, event: Event) -> Output {
    Output {
        partition: placement.of_user(&command.user),
        index,
        users: Arc::new([command.user.clone()]),
        visible_from: None,
        event,
    }
}

fn direct(placement: Placement, a: &UserId, b: &UserId) -> Chat {
    let mut users = vec![a.clone()];
    if a != b {
        users.push(b.clone());
    }
    let members = users
        .into_iter()
        .map(|user| Member { user, role: Role::Member, visible_from: 1 })
        .collect();
    Chat::new(placement, 0, "".into(), History::All, (0, 0), members)
}

/// A new group: the creator first and admin, then the others as listed.
fn group(placement: Placement, command: &Command, create: &Create, creation: u64) -> Chat {
    let mut members =
        vec![Member { user: command.user.clone(), role: Role::Admin, visible_from: 1 }];
    for user in &create.participants {
        if !members.iter().any(|m| m.user == *user) {
            members.push(Member { user: user.clone(), role: Role::Member, visible_from: 1 });
        }
    }
    Chat::new(
        placement,
        creation,
        create.name.as_str().into(),
        create.history,
        (1, 1),
        members.into(),
    )
}

#[cfg(test)]
mod tests;
