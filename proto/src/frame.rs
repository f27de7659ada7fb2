//! Frames: reading what a client sent, and making the events of a record as clients see them.

use crate::{
    Timestamp,
    v1::{self, client_frame::Command, content, new_message, recipients_record, server_frame},
};
use bytes::Bytes;
use prost::{
    DecodeError, Message as _,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field},
};

/// A frame that cannot be taken: which one (0 where no id could be read) and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameError {
    /// The frame's id, for `replyTo`.
    pub id: u32,
    /// For a person.
    pub message: String,
}

/// Reads a client frame: JSON from a text frame, protobuf from a binary one.
pub fn client_frame(bytes: &Bytes, json: bool) -> Result<v1::ClientFrame, FrameError> {
    let frame = if json {
        serde_json::from_slice(bytes)
            .map_err(|error| FrameError { id: json_id(bytes), message: error.to_string() })?
    } else {
        binary_frame(bytes)?
    };
    check(frame)
}

/// The first field of `ClientFrame` that is a command; those below are for what stands beside one.
const COMMANDS_FROM: u32 = 10;

/// Protobuf drops a command that it does not know and lets a second one replace the first, so the
/// fields are looked through before.
fn binary_frame(bytes: &Bytes) -> Result<v1::ClientFrame, FrameError> {
    let (mut id, mut commands) = (0, 0);
    let mut rest = &bytes[..];
    let mut field = || {
        let (tag, wire) = decode_key(&mut rest)?;
        if (tag, wire) == (1, WireType::Varint) {
            id = u32::try_from(decode_varint(&mut rest)?).unwrap_or_default();
        } else {
            commands += u32::from(tag >= COMMANDS_FROM);
            skip_field(wire, tag, &mut rest, DecodeContext::default())?;
        }
        Ok::<_, DecodeError>(!rest.is_empty())
    };
    let looked_through = loop {
        match field() {
            Ok(true) => {}
            Ok(false) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    let wrong = |message: &str| FrameError { id, message: message.into() };
    looked_through.map_err(|error| wrong(&error.to_string()))?;
    let frame =
        v1::ClientFrame::decode(bytes.clone()).map_err(|error| wrong(&error.to_string()))?;
    match (commands, &frame.command) {
        (2.., _) => Err(wrong("a frame has at most one command")),
        (1, None) => Err(wrong("this server does not know this command")),
        _ => Ok(frame),
    }
}

fn check(frame: v1::ClientFrame) -> Result<v1::ClientFrame, FrameError> {
    let wrong = |message: &str| Err(FrameError { id: frame.id, message: message.into() });
    match (&frame.command, &frame.ack) {
        (None, None) => wrong("a frame needs a command that this server knows, or ack"),
        (Some(_), _) if frame.id == 0 => wrong("id must be an integer above 0"),
        _ => Ok(frame),
    }
}

/// The id of a frame that is wrong in some other way.
fn json_id(bytes: &[u8]) -> u32 {
    #[derive(serde::Deserialize)]
    struct Id {
        id: u32,
    }
    serde_json::from_slice::<Id>(bytes).map_or(0, |frame| frame.id)
}

impl v1::ServerFrame {
    /// A reply to the frame with this id.
    #[must_use]
    pub fn reply(id: u32, body: server_frame::Body) -> Self {
        Self { reply_to: Some(id), position: None, body: Some(body) }
    }

    /// An event at this place in the user's order.
    #[must_use]
    pub fn event(position: u64, body: server_frame::Body) -> Self {
        Self { reply_to: None, position: Some(position), body: Some(body) }
    }

    /// A notice without a place.
    #[must_use]
    pub fn notice(body: server_frame::Body) -> Self {
        Self { reply_to: None, position: None, body: Some(body) }
    }

    /// The frame's bytes: JSON, or protobuf.
    #[must_use]
    pub fn to_bytes(&self, json: bool) -> Bytes {
        if json {
            serde_json::to_vec(self)
                .expect("a frame has no map with odd keys and no failing parts")
                .into()
        } else {
            self.encode_to_vec().into()
        }
    }
}

impl Command {
    /// The command's name, for metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Command::Hello(_) => "hello",
            Command::Authenticate(_) => "authenticate",
            Command::CreateChat(_) => "createChat",
            Command::SendMessage(_) => "sendMessage",
            Command::ModifyChat(_) => "modifyChat",
            Command::ModifyChatParticipants(_) => "modifyChatParticipants",
            Command::MarkRead(_) => "markRead",
            Command::RejectMessage(_) => "rejectMessage",
            Command::SetConnection(_) => "setConnection",
            Command::SetSettings(_) => "setSettings",
            Command::Ping(_) => "ping",
        }
    }
}

/// A message as clients see it.
#[must_use]
pub fn new_message(message: &v1::Message) -> v1::NewMessage {
    let (body, attachments) = match &message.content {
        Some(content) => {
            let body = content.body.as_ref().map(|body| match body {
                content::Body::Text(text) => {
                    new_message::Body::Text(String::from_utf8_lossy(text).into_owned())
                }
                content::Body::Ciphertext(bytes) => new_message::Body::Ciphertext(bytes.clone()),
            });
            (body, content.attachments.clone())
        }
        None => (None, Vec::new()),
    };
    v1::NewMessage {
        chat_id: message.chat_id.clone(),
        seq: message.seq,
        message_id: message_id(&message.message_id),
        client_message_id: message.client_message_id.clone(),
        sender_id: message.sender_id.clone(),
        sender_device_id: message.sender_device_id.clone(),
        body,
        attachments,
        sent_at: message.sent_at_ms.map(Timestamp::from_ms),
        accepted_at: Some(Timestamp::from_ms(message.accepted_at_ms)),
    }
}

impl v1::ChatChange {
    /// The change as a user sees it who may see the chat from `visible_from` on.
    #[must_use]
    pub fn as_seen(&self, visible_from: u64) -> v1::ChatUpdate {
        v1::ChatUpdate {
            chat_id: self.chat_id.clone(),
            seq: self.seq,
            participants: self.members.iter().map(|m| m.user_id.clone()).collect(),
            roles: self.members.iter().map(|m| m.role).collect(),
            name: self.name.clone(),
            version: self.version,
            visible_from,
        }
    }
}

/// A refusal as the sender's devices see it.
#[must_use]
pub fn rejected_event(rejection: &v1::Rejection) -> v1::MessageRejected {
    let cause = rejection.cause().to_core();
    let (status, code, words) =
        cause.map_or((422, "rejected_by_recipient", ""), chaski_core::record::Cause::describe);
    v1::MessageRejected {
        chat_id: rejection.chat_id.clone(),
        message_id: message_id(&rejection.message_id),
        client_message_id: rejection.client_message_id.clone(),
        by_user_id: rejection.by_user_id.clone(),
        status,
        code: code.into(),
        reason: if rejection.reason.is_empty() { words.into() } else { rejection.reason.clone() },
    }
}

/// What the `index`-th user of a record is shown of its event; `None` where no device is shown it.
#[must_use]
pub fn event_body(event: &recipients_record::Event, index: usize) -> Option<server_frame::Body> {
    use recipients_record::Event;
    match event {
        Event::Message(message) => Some(server_frame::Body::NewMessage(new_message(message))),
        Event::ChatChange(change) => {
            let visible_from = change.visible_from.get(index).copied().unwrap_or_default();
            Some(server_frame::Body::ChatUpdate(change.as_seen(visible_from)))
        }
        Event::Rejection(rejection) => {
            Some(server_frame::Body::MessageRejected(rejected_event(rejection)))
        }
        Event::ConnectionChange(change) => {
            Some(server_frame::Body::ConnectionUpdate(connection_update(change)))
        }
        Event::Verdict(_) | Event::Duplicate(_) | Event::Marks(_) | Event::SettingsChange(_) => {
            None
        }
    }
}

/// A change of a contact or block as the user's devices see it.
#[must_use]
pub fn connection_update(change: &v1::ConnectionChange) -> v1::ConnectionUpdate {
    v1::ConnectionUpdate {
        user_id: change.peer_id.clone(),
        status: change.status,
        version: change.version,
        by_device_id: change.by_device_id.clone(),
    }
}

/// Why a message is hidden.
const HIDDEN_BY_BLOCK: &str = "BLOCKED";
const HIDDEN_BY_TIME: &str = "EXPIRED";

impl v1::MessagePointer {
    /// What a user is shown in the place of a message that their chat does not keep any more.
    #[must_use]
    pub fn expired(self) -> v1::MessageHidden {
        let (chat_id, seq) = (self.chat_id, self.seq);
        v1::MessageHidden { chat_id, seq, reason: HIDDEN_BY_TIME.into() }
    }
}

impl v1::Message {
    /// What a user is shown in this message's place who blocks its sender.
    #[must_use]
    pub fn hidden(&self) -> v1::MessageHidden {
        let (chat_id, seq) = (self.chat_id.clone(), self.seq);
        v1::MessageHidden { chat_id, seq, reason: HIDDEN_BY_BLOCK.into() }
    }
}

/// A message id as text.
fn message_id(bytes: &[u8]) -> String {
    bytes.try_into().map(|id| chaski_core::MessageId(id).to_string()).unwrap_or_default()
}
