//! Records of the log: domain values to bytes and back. Encoding is deterministic, so a replay of
//! the fan-out yields the same bytes.

mod input;

pub use input::{decode_input, encode_input};

use crate::{
    connection,
    v1::{self, content, recipients_record},
};
use bytes::{Bytes, BytesMut};
use chaski_core::{
    ChatId, Offset, Origin, Partition, SourceId, UserId,
    record::{
        Attachment, Body, Content, Event, History, Managers, Member, Operation, Outcome, Output,
        Role, Rules, Span,
    },
};
use prost::Message as _;

/// Header `schema` of every record.
pub const SCHEMA: u16 = 1;

/// Bytes that are not what they should be; the text says what is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(String);

impl Malformed {
    /// Malformed, and why.
    #[must_use]
    pub fn because(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}
impl From<prost::DecodeError> for Malformed {
    fn from(error: prost::DecodeError) -> Self {
        Self(error.to_string())
    }
}
impl From<chaski_core::IllegalId> for Malformed {
    fn from(error: chaski_core::IllegalId) -> Self {
        Self(error.to_string())
    }
}

/// An event of the fan-out, encoded once for all the partitions it goes to.
#[derive(Clone, Debug)]
pub struct EncodedEvent {
    field: Bytes,
    at_ms: i64,
    /// Header `type`.
    pub record_type: &'static str,
}

impl EncodedEvent {
    /// Encodes the event of an output. All outputs of one input with the same event and without
    /// `visible_from` share it.
    #[must_use]
    pub fn of(output: &Output) -> Self {
        let (event, record_type, at_ms) = event_to_proto(output);
        let record = v1::RecipientsRecord { event: Some(event), ..Default::default() };
        Self { field: record.encode_to_vec().into(), at_ms, record_type }
    }

    /// The record's time: the input's.
    #[must_use]
    pub fn at_ms(&self) -> i64 {
        self.at_ms
    }

    /// The record for one partition: (key, value). Fields of a protobuf message may be encoded
    /// apart and joined (Protocol Buffers, "Encoding": field order and concatenation).
    #[must_use]
    pub fn for_output(
        &self,
        output: &Output,
        (source, partition, offset): (SourceId, Partition, Offset),
        prev: Option<Origin>,
    ) -> (Bytes, Bytes) {
        let place = |origin: Origin| v1::Place { offset: origin.offset.0, index: origin.index };
        let head = v1::RecipientsRecord {
            origin: Some(v1::Origin {
                source: source.0,
                partition: partition.0,
                place: Some(place(Origin { offset, index: output.index })),
            }),
            prev: prev.map(place),
            users: output.users.iter().map(ToString::to_string).collect(),
            at_ms: self.at_ms,
            event: None,
        };
        let mut value = BytesMut::with_capacity(head.encoded_len() + self.field.len());
        head.encode(&mut value).expect("the buffer grows as needed");
        value.extend_from_slice(&self.field);
        let key = match &*output.users {
            [user] => Bytes::copy_from_slice(user.as_str().as_bytes()),
            _ => format!("#{}", output.partition).into(),
        };
        (key, value.freeze())
    }
}

fn event_to_proto(output: &Output) -> (recipients_record::Event, &'static str, i64) {
    use recipients_record::Event as Proto;
    match &output.event {
        Event::Message(m) => {
            let message = v1::Message {
                chat_id: m.chat.to_string(),
                seq: m.seq,
                message_id: Bytes::copy_from_slice(&m.id.0),
                client_message_id: m.key.as_str().into(),
                sender_id: m.sender.to_string(),
                sender_device_id: m.device.to_string(),
                content: Some(content_to_proto(&m.content)),
                sent_at_ms: m.sent_at,
                accepted_at_ms: m.accepted_at,
                members: m.members.iter().flat_map(|ms| ms.iter()).map(member_to_proto).collect(),
                history_days: m.history_days,
            };
            (Proto::Message(message), "message", m.accepted_at)
        }
        Event::ChatUpdate(u) => {
            let change = v1::ChatChange {
                chat_id: u.chat.to_string(),
                seq: u.seq,
                members: u.members.iter().map(member_to_proto).collect(),
                name: u.name.to_string(),
                version: u.version,
                visible_from: output.visible_from.as_deref().unwrap_or_default().to_vec(),
                accepted_at_ms: u.accepted_at,
                left: u.left.iter().map(member_to_proto).collect(),
                history_days: u.history_days,
            };
            (Proto::ChatChange(change), "chat-change", u.accepted_at)
        }
        Event::Rejected(r) => {
            let rejection = v1::Rejection {
                chat_id: r.chat.to_string(),
                message_id: Bytes::copy_from_slice(&r.message.0),
                client_message_id: r.key.as_str().into(),
                by_user_id: r.by.as_ref().map(ToString::to_string).unwrap_or_default(),
                cause: cause_to_proto(r.cause).into(),
                reason: r.reason.clone(),
            };
            (Proto::Rejection(rejection), "rejection", r.accepted_at)
        }
        Event::Verdict(v) => {
            let verdict = v1::ChatVerdict {
                request_id: Bytes::copy_from_slice(&v.request),
                chat_id: v.chat.to_string(),
                changed: v.outcome == Outcome::Changed,
                cause: match v.outcome {
                    Outcome::Refused(cause) => cause_to_proto(cause).into(),
                    _ => v1::Cause::Unspecified.into(),
                },
            };
            (Proto::Verdict(verdict), "verdict", v.accepted_at)
        }
        Event::Duplicate { id, accepted_at } => {
            (Proto::Duplicate(Bytes::copy_from_slice(&id.0)), "duplicate", *accepted_at)
        }
        Event::Marks(change) => {
            let marks = v1::ReceiptMarks {
                chat_id: change.chat.to_string(),
                marks: change
                    .marks
                    .iter()
                    .map(|mark| v1::MemberMark {
                        user_id: mark.user.to_string(),
                        delivered_seq: mark.delivered,
                        read_seq: mark.read,
                        public_read_seq: mark.public_read,
                    })
                    .collect(),
                own: change.own,
            };
            (Proto::Marks(marks), "marks", change.at)
        }
        Event::Connection(change) => {
            let to_proto = connection::change_to_proto(change);
            (Proto::ConnectionChange(to_proto), "connection-change", change.at)
        }
        Event::Settings { hide_read_marks, device, at } => {
            let settings = v1::SettingsChange {
                hide_read_marks: *hide_read_marks,
                by_device_id: device.to_string(),
            };
            (Proto::SettingsChange(settings), "settings-change", *at)
        }
    }
}

/// A record of `recipients`: its place in the generator's outputs, and what it says.
#[derive(Clone, Debug)]
pub struct RecipientRecord {
    /// Where the generator took it from; `None` for records that are not the generator's.
    pub origin: Option<((SourceId, Partition), Origin)>,
    /// The origin this incarnation of the generator sent before to the same partition.
    pub prev: Option<Origin>,
    /// What it says. Apart from its place, so that a record which this version cannot read does
    /// not look like a hole to those behind it.
    pub entry: Result<RecipientEntry, Malformed>,
}

/// What a record of `recipients` says, checked.
#[derive(Clone, Debug)]
pub struct RecipientEntry {
    /// Whether it is the acting user's copy, which alone writes what is stored once.
    pub is_first_copy: bool,
    /// Whom it is for.
    pub users: Vec<UserId>,
    /// The input's time.
    pub at_ms: i64,
    /// What they must know.
    pub event: recipients_record::Event,
}

impl RecipientRecord {
    /// Decodes a record; bodies share the memory of `bytes`.
    pub fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let mut record = v1::RecipientsRecord::decode(bytes)?;
        let place = |p: v1::Place| Origin { offset: Offset(p.offset), index: p.index };
        let origin = record.origin.take().map(|o| {
            let origin = place(o.place.unwrap_or_default());
            ((SourceId(o.source), Partition(o.partition)), origin)
        });
        let prev = record.prev.take().map(place);
        let is_first_copy = origin.is_some_and(|(_, origin)| origin.index == 0);
        Ok(Self { origin, prev, entry: RecipientEntry::of(record, is_first_copy) })
    }
}

impl RecipientEntry {
    fn of(record: v1::RecipientsRecord, is_first_copy: bool) -> Result<Self, Malformed> {
        let users = record.users.iter().map(|u| u.parse()).collect::<Result<Vec<UserId>, _>>()?;
        let event = record.event.ok_or_else(|| Malformed::because("a record without an event"))?;
        if users.is_empty() {
            return Err(Malformed::because("a record for nobody"));
        }
        match &event {
            recipients_record::Event::ChatChange(change)
                if change.visible_from.len() != users.len() =>
            {
                return Err(Malformed::because(
                    "a chat change needs one visibleFrom for each user",
                ));
            }
            recipients_record::Event::Message(message) => {
                message.chat_id.parse::<ChatId>()?;
            }
            recipients_record::Event::ConnectionChange(_)
            | recipients_record::Event::SettingsChange(_)
                if users.len() != 1 =>
            {
                return Err(Malformed::because("a user's own change is for one user"));
            }
            _ => {}
        }
        Ok(Self { is_first_copy, users, at_ms: record.at_ms, event })
    }
}

fn content_to_proto(content: &Content) -> v1::Content {
    v1::Content {
        body: Some(match &content.body {
            Body::Text(text) => content::Body::Text(text.clone()),
            Body::Ciphertext(bytes) => content::Body::Ciphertext(bytes.clone()),
        }),
        attachments: content
            .attachments
            .iter()
            .map(|a| v1::Attachment {
                id: a.id.clone(),
                size: a.size,
                content_type: a.content_type.clone(),
                sha256: a.sha256.clone(),
            })
            .collect(),
    }
}

fn content_from_proto(content: Option<v1::Content>) -> Result<Content, Malformed> {
    let content = content.unwrap_or_default();
    let body = match content.body {
        Some(content::Body::Text(text)) if std::str::from_utf8(&text).is_ok() => Body::Text(text),
        Some(content::Body::Text(_)) => return Err(Malformed::because("a text that is not UTF-8")),
        Some(content::Body::Ciphertext(bytes)) => Body::Ciphertext(bytes),
        None => return Err(Malformed::because("a message without a body")),
    };
    let attachments = content
        .attachments
        .into_iter()
        .map(|a| Attachment {
            id: a.id,
            size: a.size,
            content_type: a.content_type,
            sha256: a.sha256,
        })
        .collect();
    Ok(Content { body, attachments })
}

pub(crate) fn member_to_proto(member: &Member) -> v1::Member {
    v1::Member {
        user_id: member.user.to_string(),
        role: match member.role {
            Role::Member => v1::Role::Member,
            Role::Admin => v1::Role::Admin,
        }
        .into(),
        visible_from: member.visible_from,
        joined: member.joined,
        earlier: member
            .earlier
            .iter()
            .map(|span| v1::SeqSpan { first: span.first, last: Some(span.last) })
            .collect(),
    }
}

pub(crate) fn member_from_proto(member: &v1::Member) -> Result<Member, Malformed> {
    let role = match member.role() {
        v1::Role::Member => Role::Member,
        v1::Role::Admin => Role::Admin,
    };
    let span = |span: &v1::SeqSpan| Span { first: span.first, last: span.last() };
    Ok(Member {
        user: member.user_id.parse()?,
        role,
        visible_from: member.visible_from,
        joined: member.joined,
        earlier: member.earlier.iter().map(span).collect(),
    })
}

pub(crate) fn rules_to_proto(rules: &Rules) -> v1::ChatRules {
    let managers = match rules.managers {
        Managers::Admins => v1::chat_rules::Managers::Admins,
        Managers::Everyone => v1::chat_rules::Managers::Everyone,
    };
    v1::ChatRules {
        participants_max: rules.participants_max,
        managers: managers.into(),
        receipts_push_max: rules.receipts_push_max,
    }
}

pub(crate) fn rules_from_proto(rules: &v1::ChatRules) -> Rules {
    let managers = match rules.managers() {
        v1::chat_rules::Managers::Admins => Managers::Admins,
        v1::chat_rules::Managers::Everyone => Managers::Everyone,
    };
    Rules {
        participants_max: rules.participants_max,
        managers,
        receipts_push_max: rules.receipts_push_max,
    }
}

fn operation_to_proto(operation: Operation) -> v1::modify_chat_participants::Operation {
    use v1::modify_chat_participants::Operation as Proto;
    match operation {
        Operation::Add => Proto::Add,
        Operation::Remove => Proto::Remove,
        Operation::Promote => Proto::Promote,
        Operation::Demote => Proto::Demote,
    }
}

/// `None` where the operation is missing or not known.
#[must_use]
pub fn operation_from_proto(
    operation: v1::modify_chat_participants::Operation,
) -> Option<Operation> {
    use v1::modify_chat_participants::Operation as Proto;
    match operation {
        Proto::Unspecified => None,
        Proto::Add => Some(Operation::Add),
        Proto::Remove => Some(Operation::Remove),
        Proto::Promote => Some(Operation::Promote),
        Proto::Demote => Some(Operation::Demote),
    }
}

pub(crate) fn history_to_proto(history: History) -> v1::create_chat::History {
    match history {
        History::FromJoin => v1::create_chat::History::FromJoin,
        History::All => v1::create_chat::History::All,
    }
}

pub(crate) fn history_from_proto(history: v1::create_chat::History) -> History {
    match history {
        v1::create_chat::History::FromJoin => History::FromJoin,
        v1::create_chat::History::All => History::All,
    }
}

/// The causes of a chat in both forms, each once.
macro_rules! causes {
    ($($cause:ident)+) => {
        fn cause_to_proto(cause: chaski_core::record::Cause) -> v1::Cause {
            match cause {
                $(chaski_core::record::Cause::$cause => v1::Cause::$cause,)+
            }
        }

        impl v1::Cause {
            /// The domain value; `None` where there is no cause.
            #[must_use]
            pub fn to_core(self) -> Option<chaski_core::record::Cause> {
                match self {
                    v1::Cause::Unspecified => None,
                    $(v1::Cause::$cause => Some(chaski_core::record::Cause::$cause),)+
                }
            }
        }
    };
}

causes! {
    NotAMember NoSuchChat OtherContent OtherChat NotAllowed ChatFull NoSuchMember LastAdmin
    DirectChat ByRecipient
}

pub(crate) fn request_id(bytes: &[u8]) -> Result<[u8; 16], Malformed> {
    bytes.try_into().map_err(|_| Malformed::because("an id must be 16 bytes"))
}
