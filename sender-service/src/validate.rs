//! What a client asks, checked and turned into a command for a chat. Refuses with 400; nothing is
//! written for what is refused here.

use crate::SenderConfig;
use bytes::Bytes;
use chaski_core::{
    ChatId, DeviceId, MessageId, UserId,
    record::{
        Action, Attachment, Body, Change, Command, Content, Create, History, Mark, Marks, Refuse,
        RequestId, Send, UnixMs, What,
    },
};
use chaski_proto::{
    Problem, Timestamp, operation_from_proto,
    v1::{self, create_chat, send_message, submit_change_request},
};
use std::{collections::HashSet, sync::Arc};

/// Longest id and media type of an attachment, in bytes.
const ATTACHMENT_FIELD_MAX: usize = 512;
/// A hundred years.
const HISTORY_DAYS_MAX: u32 = 36_500;
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
    request: RequestId,
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
    bounded("name", &chat.name, limits.chat_name_chars_max)?;
    let history_days = chat.history_days;
    if history_days > HISTORY_DAYS_MAX {
        return Err(Problem::invalid("historyDays must be 0-36500"));
    }
    let id = ChatId::created(&caller.user, &key);
    let name = chat.name;
    let create = Create { request, participants, name, key, history, history_days };
    let action = Action::Create(create);
    Ok(Command { chat: id, user: caller.user, device: caller.device, accepted_at: now, action })
}

/// The command for a change of name, membership or role.
pub(crate) fn change(
    limits: &SenderConfig,
    caller: Caller,
    change: Option<submit_change_request::Change>,
    request: RequestId,
    now: UnixMs,
) -> Result<Command, Problem> {
    use submit_change_request::Change as Asked;
    let (chat, what) = match change {
        Some(Asked::Chat(asked)) => {
            let name = asked.name.ok_or_else(|| Problem::invalid("name is missing"))?;
            bounded("name", &name, limits.chat_name_chars_max)?;
            (asked.chat_id.parse()?, What::Name(name))
        }
        Some(Asked::Participants(asked)) => {
            let operation = operation_from_proto(asked.operation()).ok_or_else(|| {
                Problem::invalid("operation must be ADD, REMOVE, PROMOTE or DEMOTE")
            })?;
            (asked.chat_id.parse()?, What::Participant(asked.user_id.parse()?, operation))
        }
        None => return Err(Problem::invalid("a change needs a name or a participant")),
    };
    let action = Action::Change(Change { request, what });
    Ok(Command { chat, user: caller.user, device: caller.device, accepted_at: now, action })
}

/// The command for a recipient's refusal of `message`, which is as the log has it.
pub(crate) fn refusal(
    limits: &SenderConfig,
    caller: Caller,
    refusal: v1::RejectMessage,
    message: v1::NewMessage,
    now: UnixMs,
) -> Result<Command, Problem> {
    bounded("reason", &refusal.reason, limits.reason_chars_max)?;
    let chat: ChatId = refusal.chat_id.parse()?;
    let id: MessageId = refusal.message_id.parse()?;
    let (sender, key) = (message.sender_id.parse()?, message.client_message_id.parse()?);
    if MessageId::of(&sender, &chat, &key) != id {
        return Err(Problem::invalid("messageId is not that of the refused message"));
    }
    if sender == caller.user {
        return Err(Problem::invalid("nobody refuses their own message"));
    }
    let message_at = message.accepted_at.ok_or_else(|| {
        Problem::invalid("a refused message needs the time at which it was accepted")
    })?;
    let message_at = message_at.to_ms();
    let action =
        Action::Refuse(Refuse { message: id, reason: refusal.reason, sender, key, message_at });
    Ok(Command { chat, user: caller.user, device: caller.device, accepted_at: now, action })
}

/// What users have taken and read, one input for each chat. One illegal entry refuses all: the
/// host that asks has checked what its clients said.
pub(crate) fn receipts(
    limits: &SenderConfig,
    chats: Vec<v1::ChatReceipts>,
    now: UnixMs,
) -> Result<Vec<Marks>, Problem> {
    let count = chats.iter().map(|chat| chat.marks.len().max(1)).sum::<usize>();
    if count > limits.marks_max {
        let max = limits.marks_max;
        return Err(Problem::invalid(format!("one call has at most {max} marks")));
    }
    let mark = |mark: v1::UserMark| {
        let (delivered, read) = (mark.delivered_seq, mark.read_seq);
        let user = mark.user_id.parse()?;
        Ok::<_, Problem>(Mark { user, delivered, read, hide_read: mark.hide_read })
    };
    chats
        .into_iter()
        .filter(|chat| !chat.marks.is_empty())
        .map(|chat| {
            let marks = chat.marks.into_iter().map(mark).collect::<Result<_, _>>()?;
            Ok(Marks { chat: chat.chat_id.parse()?, at: now, marks })
        })
        .collect()
}

/// The 16 bytes under which a verdict is found.
pub(crate) fn request_id(bytes: &[u8]) -> Result<RequestId, Problem> {
    bytes.try_into().map_err(|_| Problem::invalid("requestId must be 16 bytes"))
}

fn bounded(field: &str, text: &str, chars_max: usize) -> Result<(), Problem> {
    match text.chars().nth(chars_max) {
        None => Ok(()),
        Some(_) => Err(Problem::invalid(format!("{field} is longer than {chars_max} characters"))),
    }
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
            check_days(participants, name, 0, legal);
        }
        #[track_caller]
        fn check_days(participants: Vec<String>, name: String, history_days: u32, legal: bool) {
            let client_chat_id = "c".into();
            let request =
                v1::CreateChat { participants, name, client_chat_id, history: 0, history_days };
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
        check_days(people(2), String::new(), 36_500, true);
        check_days(people(2), String::new(), 36_501, false);
    }

    #[test]
    fn changes_are_checked_at_the_limit_and_one_past_it() {
        use submit_change_request::Change as Asked;
        #[track_caller]
        fn check(asked: Option<Asked>, legal: bool) {
            let result = change(&SenderConfig::default(), caller(), asked, [0; 16], 0);
            assert_eq!(result.is_ok(), legal, "{result:?}");
            assert!(result.is_ok_and(|c| c.chat.as_str() == "g.1") == legal);
        }
        let renamed =
            |chat_id: &str, name| Asked::Chat(v1::ModifyChat { chat_id: chat_id.into(), name });
        let name = |name: String| renamed("g.1", Some(name));
        check(Some(name("é".repeat(200))), true);
        check(Some(name("é".repeat(201))), false);
        check(Some(name(String::new())), true);
        check(Some(renamed("g.1", None)), false);
        check(Some(renamed("1", Some("n".into()))), false);
        check(None, false);
        for (operation, legal) in
            [(0, false), (1, true), (2, true), (3, true), (4, true), (5, false)]
        {
            let (chat_id, user_id) = ("g.1".into(), "u".repeat(64));
            let asked = v1::ModifyChatParticipants { chat_id, user_id, operation };
            check(Some(Asked::Participants(asked.clone())), legal);
            for user_id in ["u".repeat(65), String::new()] {
                let asked = v1::ModifyChatParticipants { user_id, ..asked.clone() };
                check(Some(Asked::Participants(asked)), false);
            }
        }
        for (length, legal) in [(0, false), (15, false), (16, true), (17, false)] {
            assert_eq!(request_id(&vec![7; length]).is_ok(), legal, "{length} bytes");
        }
    }

    #[test]
    fn refusals_are_checked_at_the_limit_and_against_the_message() {
        let (sender, chat) = ("ben".parse().unwrap(), "g.1".parse().unwrap());
        let id = MessageId::of(&sender, &chat, &"k".parse().unwrap());
        let good = || {
            let asked = v1::RejectMessage {
                chat_id: "g.1".into(),
                message_id: id.to_string(),
                reason: "é".repeat(64),
            };
            let message = v1::NewMessage {
                sender_id: "ben".into(),
                client_message_id: "k".into(),
                accepted_at: Some(Timestamp::from_ms(7)),
                ..Default::default()
            };
            (asked, message)
        };
        #[track_caller]
        fn check((asked, message): (v1::RejectMessage, v1::NewMessage), legal: bool) {
            let result = refusal(&SenderConfig::default(), caller(), asked, message, 0);
            assert_eq!(result.is_ok(), legal, "{result:?}");
        }
        check(good(), true);
        let with = |change: fn(&mut v1::RejectMessage, &mut v1::NewMessage)| {
            let (mut asked, mut message) = good();
            change(&mut asked, &mut message);
            (asked, message)
        };
        check(with(|asked, _| asked.reason.push('x')), false);
        check(with(|asked, _| asked.reason.clear()), true);
        check(with(|asked, _| asked.chat_id = "g.2".into()), false);
        check(with(|asked, _| asked.message_id = "0".repeat(32)), false);
        check(with(|_, message| message.sender_id = "eve".into()), false);
        check(with(|_, message| message.client_message_id = "l".into()), false);
        check(with(|_, message| message.accepted_at = None), false);
        let own = MessageId::of(&caller().user, &chat, &"k".parse().unwrap());
        let (asked, message) = with(|_, message| message.sender_id = "ana".into());
        check((v1::RejectMessage { message_id: own.to_string(), ..asked }, message), false);
    }

    #[test]
    fn marks_are_counted_over_all_chats_of_a_call() {
        #[track_caller]
        fn check(chats: &[usize], inputs: Option<usize>) {
            let limits = SenderConfig { marks_max: 4, ..SenderConfig::default() };
            let mark = v1::UserMark { user_id: "ana".into(), read_seq: 2, ..Default::default() };
            let chats = chats.iter().map(|marks| v1::ChatReceipts {
                chat_id: "g.1".into(),
                marks: vec![mark.clone(); *marks],
            });
            let result = receipts(&limits, chats.collect(), 9);
            assert_eq!(result.as_ref().ok().map(Vec::len), inputs, "{result:?}");
            assert!(result.into_iter().flatten().all(|marks| marks.at == 9));
        }
        check(&[], Some(0));
        check(&[3, 1], Some(2));
        check(&[3, 2], None);
        check(&[3, 0], Some(1));
        check(&[3, 0, 0], None);
        let illegal = |chat_id: &str, user_id: &str| {
            let marks = vec![v1::UserMark { user_id: user_id.into(), ..Default::default() }];
            let chats = vec![v1::ChatReceipts { chat_id: chat_id.into(), marks }];
            receipts(&SenderConfig::default(), chats, 0).is_err()
        };
        assert!(illegal("x", "ana") && illegal("g.1", "a b") && !illegal("g.1", "ana"));
    }
}
