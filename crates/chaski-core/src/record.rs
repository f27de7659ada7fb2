//! What stands in the logs, as domain values: commands that may change a chat (`new-messages`)
//! and events that a user's devices must know (`recipients`). Their encoding lives in `proto/`.

mod cause;

pub use cause::Cause;

use crate::{ChatId, ClientId, DeviceId, MessageId, UserId, id::hash16};
use bytes::Bytes;
use std::sync::Arc;

/// Milliseconds since 1970-01-01T00:00:00Z.
pub type UnixMs = i64;

/// One record of `new-messages`: an input of the fan-out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// What somebody asks of a chat.
    Command(Command),
    /// What members of a chat have taken and read.
    Marks(Marks),
    /// Time and rules.
    Tick(Tick),
}

/// What somebody asks of a chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The chat that orders it.
    pub chat: ChatId,
    /// Who asks.
    pub user: UserId,
    /// From which device.
    pub device: DeviceId,
    /// When the sender service accepted it, by its clock.
    pub accepted_at: UnixMs,
    /// What is asked.
    pub action: Action,
}

/// What a command asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Say something.
    Send(Send),
    /// Make a group.
    Create(Create),
    /// Change name, membership or roles.
    Change(Change),
    /// Refuse somebody's message (422).
    Refuse(Refuse),
}

/// A message on its way into a chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Send {
    /// The other person, where the message was addressed to a user: the first one makes the chat.
    pub to: Option<UserId>,
    /// The idempotency key.
    pub key: ClientId,
    /// What is said.
    pub content: Arc<Content>,
    /// When the client says it was written.
    pub sent_at: Option<UnixMs>,
}

/// The making of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Create {
    /// Under this id the verdict is found by whoever waits for it.
    pub request: RequestId,
    /// The members besides the creator (who may be listed too).
    pub participants: Vec<UserId>,
    /// The chat's name, possibly empty.
    pub name: String,
    /// The idempotency key.
    pub key: ClientId,
    /// What later members may see.
    pub history: History,
    /// For how many days its history is kept; 0: as the whole system does.
    pub history_days: u32,
}

/// A change of a chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Under this id the verdict is found by whoever waits for it.
    pub request: RequestId,
    /// What to change.
    pub what: What,
}

/// What to change of a chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Its name.
    Name(String),
    /// One participant.
    Participant(UserId, Operation),
}

/// What to do with a participant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Make a member.
    Add,
    /// End the membership; of oneself: leave.
    Remove,
    /// Make an admin.
    Promote,
    /// Make a plain member.
    Demote,
}

/// A recipient's refusal of a message that their client shows a later one of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refuse {
    /// The refused message.
    pub message: MessageId,
    /// For the sender.
    pub reason: String,
    /// Who sent it, as the log says.
    pub sender: UserId,
    /// The sender's idempotency key.
    pub key: ClientId,
    /// When it was accepted.
    pub message_at: UnixMs,
}

/// What members of one chat have taken and read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marks {
    /// The chat.
    pub chat: ChatId,
    /// When the host told, by its clock.
    pub at: UnixMs,
    /// One for each user.
    pub marks: Vec<Mark>,
}

/// Everything up to these seqs is taken, and read. Cumulative.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Whose.
    pub user: UserId,
    /// A device has taken it.
    pub delivered: u64,
    /// The user has read it.
    pub read: u64,
    /// Others are not to know of `read`.
    pub hide_read: bool,
}

/// Time and rules: the fold knows both only from here, so that a replay decides the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tick {
    /// The partition owner's clock.
    pub now: UnixMs,
    /// What holds from here on.
    pub rules: Rules,
}

/// What the fold decides by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Most participants of a chat.
    pub participants_max: u32,
    /// Who may add, remove, rename and appoint.
    pub managers: Managers,
    /// In chats with more members receipts are not sent, they are asked for.
    pub receipts_push_max: u32,
}

impl Default for Rules {
    fn default() -> Self {
        Self { participants_max: 100, managers: Managers::Admins, receipts_push_max: 20 }
    }
}

/// Who may add, remove, rename and appoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Managers {
    /// Admins: the creator, and whom they appoint.
    #[default]
    Admins,
    /// Every member.
    Everyone,
}

/// Names one command that somebody waits for; random, made by the entry.
pub type RequestId = [u8; 16];

/// What a member who joins later may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum History {
    /// From the join on.
    #[default]
    FromJoin,
    /// Everything.
    All,
}

/// The content of a message: kept byte for byte, read by nobody here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Text or ciphertext.
    pub body: Body,
    /// References to attachments.
    pub attachments: Vec<Attachment>,
}

/// The body of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// UTF-8.
    Text(Bytes),
    /// Opaque bytes.
    Ciphertext(Bytes),
}

/// A reference to an attachment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Where the client finds it.
    pub id: String,
    /// Bytes.
    pub size: u64,
    /// A media type.
    pub content_type: String,
    /// Hash of the content.
    pub sha256: Bytes,
}

impl Content {
    /// A hash that tells same content from other content (L2).
    #[must_use]
    pub fn digest(&self) -> u64 {
        let (kind, body): (&[u8], &[u8]) = match &self.body {
            Body::Text(body) => (b"t", body),
            Body::Ciphertext(body) => (b"c", body),
        };
        let sizes: Vec<_> = self.attachments.iter().map(|a| a.size.to_be_bytes()).collect();
        let mut parts = vec![kind, body];
        for (a, size) in self.attachments.iter().zip(&sizes) {
            parts.extend([a.id.as_bytes(), size, a.content_type.as_bytes(), &a.sha256]);
        }
        first8(hash16(b"chaski content", &parts))
    }
}

impl Create {
    /// A hash that tells the same chat from another one under the same key.
    #[must_use]
    pub fn digest(&self, creator: &UserId) -> u64 {
        let mut names: Vec<&[u8]> =
            self.participants.iter().map(|u| u.as_str().as_bytes()).collect();
        names.push(creator.as_str().as_bytes());
        names.sort_unstable();
        names.dedup();
        names.push(self.name.as_bytes());
        let days = self.history_days.to_be_bytes();
        if self.history_days > 0 {
            names.push(&days);
        }
        first8(hash16(b"chaski creation", &names))
    }
}

fn first8(hash: [u8; 16]) -> u64 {
    u64::from_be_bytes(hash[..8].try_into().expect("eight of sixteen bytes"))
}

/// What a user's devices must know: the content of a record of `recipients`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A message, with its place in the chat.
    Message(Arc<Message>),
    /// The chat after a change of membership, roles or name.
    ChatUpdate(Arc<ChatUpdate>),
    /// An accepted message that the chat then refused.
    Rejected(Rejection),
    /// The chat's answer to a command somebody waits for. No device is shown it.
    Verdict(ChatVerdict),
    /// Receipts. They have no place in anybody's order.
    Marks(Arc<MarksChange>),
    /// A contact or block has changed.
    Connection(crate::connection::ConnectionChange),
    /// The user's settings have changed.
    Settings {
        /// Others are not told what the user has read.
        hide_read_marks: bool,
        /// Who changed them.
        device: DeviceId,
        /// When it was asked.
        at: UnixMs,
    },
    /// A retry that had taken effect before: nothing to show, but it moves the watermark, so
    /// that whoever waits for the retry to be visible is served.
    Duplicate {
        /// Which message.
        id: MessageId,
        /// When the retry was accepted.
        accepted_at: UnixMs,
    },
}

/// A message in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The chat.
    pub chat: ChatId,
    /// Its place in the chat: 1, 2, 3 … over messages and updates.
    pub seq: u64,
    /// Derived from (sender, chat, key).
    pub id: MessageId,
    /// The sender's idempotency key.
    pub key: ClientId,
    /// Who sent it.
    pub sender: UserId,
    /// From which device.
    pub device: DeviceId,
    /// What it says.
    pub content: Arc<Content>,
    /// When the client says it was written.
    pub sent_at: Option<UnixMs>,
    /// When the sender service accepted it.
    pub accepted_at: UnixMs,
    /// Only with the first message of a 1:1 chat, which makes it: the chat's members.
    pub members: Option<Arc<[Member]>>,
    /// For how many days the chat's history is kept; 0: as the whole system does.
    pub history_days: u32,
}

/// A chat after a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatUpdate {
    /// The chat.
    pub chat: ChatId,
    /// The change's place in the chat.
    pub seq: u64,
    /// The full list after the change.
    pub members: Arc<[Member]>,
    /// The chat's name.
    pub name: Arc<str>,
    /// Counts the changes: 1 is the creation.
    pub version: u64,
    /// Who left with this change.
    pub left: Arc<[Member]>,
    /// When the change was accepted.
    pub accepted_at: UnixMs,
    /// For how many days the chat's history is kept; 0: as the whole system does.
    pub history_days: u32,
}

/// A member of a chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub user: UserId,
    /// What they may do.
    pub role: Role,
    /// The seq of the change that began the present membership.
    pub joined: u64,
    /// The first seq of the present membership that they may see: `joined`, or 1 where later
    /// members see the whole history.
    pub visible_from: u64,
    /// What they may see of earlier memberships: disjoint, ascending.
    pub earlier: Arc<[Span]>,
}

impl Member {
    /// A member from the chat's beginning on.
    #[must_use]
    pub fn founding(user: UserId, role: Role) -> Self {
        Self { user, role, joined: 1, visible_from: 1, earlier: Arc::new([]) }
    }
}

/// The seqs from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first one.
    pub first: u64,
    /// The last one.
    pub last: u64,
}

/// Marks after a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarksChange {
    /// The chat.
    pub chat: ChatId,
    /// The present marks of those whose marks moved.
    pub marks: Vec<MemberMark>,
    /// The marking users' own copy.
    pub own: bool,
    /// When the host told.
    pub at: UnixMs,
}

/// A member's marks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberMark {
    /// Whose.
    pub user: UserId,
    /// Everything up to here is taken.
    pub delivered: u64,
    /// Everything up to here is read; in a copy for others what they may know of it.
    pub read: u64,
    /// What others may know of `read`.
    pub public_read: u64,
}

/// What a member may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Role {
    /// Speak and leave.
    #[default]
    Member,
    /// Also add, remove, rename and appoint.
    Admin,
}

/// An accepted message that took no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The chat that refused it.
    pub chat: ChatId,
    /// The message.
    pub message: MessageId,
    /// The sender's idempotency key.
    pub key: ClientId,
    /// The recipient who refused it; `None`: the chat itself.
    pub by: Option<UserId>,
    /// Why.
    pub cause: Cause,
    /// The recipient's words.
    pub reason: String,
    /// When the message, or the refusal of it, was accepted.
    pub accepted_at: UnixMs,
}

/// The chat's answer to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatVerdict {
    /// Which command.
    pub request: RequestId,
    /// The chat.
    pub chat: ChatId,
    /// What became of it.
    pub outcome: Outcome,
    /// When the command was accepted.
    pub accepted_at: UnixMs,
}

/// What became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The chat was made or changed.
    Changed,
    /// The chat was already so.
    Unchanged,
    /// The chat refused.
    Refused(Cause),
}

/// One output of the fan-out: a record for one partition of `recipients`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// The partition of `recipients`.
    pub partition: crate::Partition,
    /// Which output of its input; 0 is the copy for the acting user's partition.
    pub index: u32,
    /// The users of that partition it is for.
    pub users: Arc<[UserId]>,
    /// Where each of `users` may see the chat from; only for a chat update.
    pub visible_from: Option<Arc<[u64]>>,
    /// What they must know.
    pub event: Event,
}
