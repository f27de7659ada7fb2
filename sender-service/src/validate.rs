//! What a client asks, checked and turned into a command for a chat. Refuses with 400; nothing is
//! written for what is refused here.

use crate::SenderConfig;
use bytes::Bytes;
use chaski_core::{
    ChatId, DeviceId, MessageId, UserId,
    record::{Action, Attachment, Body, Command, Content, Create, History, Send, UnixMs},
};
use chaski_proto::{
    Problem, Timestamp,
    v1::{self, create_chat, send_message},
};
use std::{collections::HashSet, sync::Arc};

/// Longest id and media type of an attachment, in bytes.
const ATTACHMENT_FIELD_MAX: usize = 512;
/// 9999-12-31T23:59:59Z: the last second RFC 3339 can write.
const LAST_SECOND: i64 = 253_402_300_799;

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) user: UserId,
    pub(crate) device: DeviceId,
}

impl TryFrom<Option<v1::Caller>> for Caller {
    type Error = Problem;
    fn try_from(caller: Option<v1::Caller>) -> Result<Self, Problem> {
        let caller = caller.unwrap_or_default();
        Ok(Self { user: caller.user_id.parse()?, device: caller.device_id.parse()? })
    }
}

/// The command for a message, and the message's id.
pub(crate) fn message(
    limits: &SenderConfig,
    caller: Caller,
    message: v1::SendMessage,
    now: UnixMs,
) -> Result<(Command, MessageId), Problem> {
    let (chat, to) = match message.target {
        Some(send_message::Target::ChatId(chat)) => (chat.parse::<ChatId>()?, None),
        Some(send_message::Target::To(to)) => {
            let to: UserId = to.parse()?;
            (ChatId::direct(&caller.user, &to), Some(to))
        }
        None => return Err(Problem::invalid("a message needs chatId or to")),
    };
    let key = message
        .client_message_id
        .parse()
        .map_err(|_| Problem::invalid("clientMessageId must be 1-64 printable ASCII characters"))?;
    let content = Arc::new(Content {
        body: body(limits, message.body)?,
        attachments: attachments(limits, message.attachments)?,
    });
    let sent_at = message.sent_at.map(sent_at).transpose()?;
    let id = MessageId::of(&caller.user, &chat, &key);
    let action = Action::Send(Send { to, key, content, sent_at });
    Ok((Command { chat, user: caller.user, device: caller.device, accepted_at: now, action }, id))
}

/// The command for the making of a chat.
pub(crate) fn chat(
    limits: &SenderConfig,
    caller: Caller,
    chat: v1::CreateChat,
    request: [u8; 16],
    now: UnixMs,
) -> Result<Command, Problem> {
    let key = chat
        .client_chat_id
        .parse()
        .map_err(|_| Problem::invalid("clientChatId must be 1-64 printable ASCII characters"))?;
    let history = match create_chat::History::try_from(chat.history) {
        Ok(create_chat::History::FromJoin) => History::FromJoin,
        Ok(create_chat::History::All) => History::All,
        Err(_) => return Err(Problem::invalid("history must be FROM_JOIN or ALL")),
    };
    if chat.participants.len() > limits.participants_max {
        return Err(too_many(limits));
    }
    let participants =
        chat.participants.iter().map(|u| u.parse()).collect::<Result<Vec<UserId>, _>>()?;
    let mut members: HashSet<&UserId> = HashSet::with_capacity(participants.len() + 1);
    if !participants.iter().all(|user| members.insert(user)) {
        return Err(Problem::invalid("participants names somebody twice"));
    }
    members.insert(&caller.user);
    if members.len() > limits.participants_max {
        return Err(too_many(limits));
    }
    if chat.name.chars().nth(limits.chat_name_chars_max).is_some() {
        return Err(Problem::invalid(format!(
            "name is longer than {} characters",
            limits.chat_name_chars_max
        )));
    }
    let id = ChatId::created(&caller.user, &key);
    let action = Action::Create(Create { request, participants, name: chat.name, key, history });
    Ok(Command { chat: id, user: caller.user, device: caller.device, accepted_at: now, action })
}

fn too_many(limits: &SenderConfig) -> Problem {
    Problem::invalid(format!(
        "a chat has at most {} participants with the caller",
        limits.participants_max
    ))
}

fn body(limits: &SenderConfig, body: Option<send_message::Body>) -> Result<Body, Problem> {
    match body {
        Some(send_message::Body::Text(text)) => {
            // As many bytes as characters at least: the cheap test spares counting.
            if text.len() > limits.text_chars_max && text.chars().count() > limits.text_chars_max {
                let max = limits.text_chars_max;
                return Err(Problem::invalid(format!("text is longer than {max} characters")));
            }
            if text.is_empty() {
                return Err(Problem::invalid("text is empty"));
            }
            Ok(Body::Text(Bytes::from(text)))
        }
        Some(send_message::Body::Ciphertext(bytes)) => {
            if bytes.len() > limits.ciphertext_bytes_max {
                let max = limits.ciphertext_bytes_max;
                return Err(Problem::invalid(format!("ciphertext is longer than {max} bytes")));
            }
            if bytes.is_empty() {
                return Err(Problem::invalid("ciphertext is empty"));
            }
            Ok(Body::Ciphertext(bytes))
        }
        None => Err(Problem::invalid("a message needs text or ciphertext")),
    }
}

fn attachments(
    limits: &SenderConfig,
    list: Vec<v1::Attachment>,
) -> Result<Vec<Attachment>, Problem> {
    if list.len() > limits.attachments_max {
        let max = limits.attachments_max;
        return Err(Problem::invalid(format!("a message has at most {max} attachments")));
    }
    list.into_iter()
        .map(|a| {
            if a.id.is_empty() || a.id.len() > ATTACHMENT_FIELD_MAX {
                return Err(Problem::invalid("an attachment's id must be 1-512 bytes"));
            }
            if a.content_type.len() > ATTACHMENT_FIELD_MAX {
                return Err(Problem::invalid(
                    "an attachment's contentType must be at most 512 bytes",
                ));
            }
            if a.sha256.len() != 32 {
                return Err(Problem::invalid("an attachment's sha256 must be 32 bytes in base64"));
            }
            Ok(Attachment {
                id: a.id,
                size: a.size,
                content_type: a.content_type,
                sha256: a.sha256,
            })
        })
        .collect()
}

fn sent_at(at: Timestamp) -> Result<UnixMs, Problem> {
    if (0..=LAST_SECOND).contains(&at.seconds) && (0..1_000_000_000).contains(&at.nanos) {
        Ok(at.to_ms())
    } else {
        Err(Problem::invalid("sentAt must be a time from 1970 to 9999"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller() -> Caller {
        Caller { user: "ana".parse().unwrap(), device: "phone".parse().unwrap() }
    }

    fn text(text: String) -> v1::SendMessage {
        v1::SendMessage {
            target: Some(send_message::Target::To("ben".into())),
            client_message_id: "k".into(),
            body: Some(send_message::Body::Text(text)),
            ..Default::default()
        }
    }

    #[track_caller]
    fn check(request: v1::SendMessage, legal: bool) {
        let result = message(&SenderConfig::default(), caller(), request, 0);
        match result {
            Ok(_) => assert!(legal),
            Err(problem) => assert!(!legal && problem.status == 400, "{problem}"),
        }
    }

    #[test]
    fn messages_are_checked_at_the_limit_and_one_past_it() {
        check(text("é".repeat(100_000)), true);
        check(text("é".repeat(100_001)), false);
        check(text(String::new()), false);
        let cipher = |n| v1::SendMessage {
            body: Some(send_message::Body::Ciphertext(vec![7; n].into())),
            ..text("x".into())
        };
        check(cipher(400_000), true);
        check(cipher(400_001), false);
        check(cipher(0), false);
        let attachment =
            v1::Attachment { id: "a".into(), sha256: vec![0; 32].into(), ..Default::default() };
        let with =
            |n| v1::SendMessage { attachments: vec![attachment.clone(); n], ..text("x".into()) };
        check(with(10), true);
        check(with(11), false);
        check(v1::SendMessage { target: None, ..text("x".into()) }, false);
        check(v1::SendMessage { body: None, ..text("x".into()) }, false);
        check(v1::SendMessage { client_message_id: "k".repeat(65), ..text("x".into()) }, false);
        let at = |seconds| v1::SendMessage {
            sent_at: Some(Timestamp { seconds, nanos: 0 }),
            ..text("x".into())
        };
        check(at(LAST_SECOND), true);
        check(at(LAST_SECOND + 1), false);
    }

    #[test]
    fn chats_are_checked_at_the_limit_and_one_past_it() {
        #[track_caller]
        fn check(participants: Vec<String>, name: String, legal: bool) {
            let request =
                v1::CreateChat { participants, name, client_chat_id: "c".into(), history: 0 };
            let result = chat(&SenderConfig::default(), caller(), request, [0; 16], 0);
            assert_eq!(result.is_ok(), legal, "{result:?}");
        }
        let people = |n: usize| (0..n).map(|i| format!("u{i}")).collect::<Vec<_>>();
        let with_caller = |n| [people(n), vec!["ana".into()]].concat();
        check(people(99), String::new(), true);
        check(people(100), String::new(), false);
        check(with_caller(99), String::new(), true);
        check(with_caller(100), String::new(), false);
        check(vec!["ben".into(), "ben".into()], String::new(), false);
        check(vec!["b n".into()], String::new(), false);
        check(people(2), "n".repeat(200), true);
        check(people(2), "n".repeat(201), false);
    }
}
