//! Records of `new-messages`: what the fan-out folds.

use super::{
    content_from_proto, content_to_proto, history_from_proto, history_to_proto,
    operation_from_proto, operation_to_proto, request_id, rules_from_proto, rules_to_proto,
};
use crate::{
    Malformed,
    v1::{self, new_messages_record},
};
use bytes::Bytes;
use chaski_core::{
    ChatId, MessageId, UserId,
    record::{Action, Change, Command, Create, Input, Mark, Marks, Refuse, Send, Tick, What},
};
use prost::Message as _;
use std::sync::Arc;

/// Encodes a record of `new-messages`.
#[must_use]
pub fn encode_input(input: &Input) -> Bytes {
    use new_messages_record::Action as Proto;
    let record = match input {
        Input::Command(command) => v1::NewMessagesRecord {
            chat_id: command.chat.to_string(),
            user_id: command.user.to_string(),
            device_id: command.device.to_string(),
            accepted_at_ms: command.accepted_at,
            action: Some(action_to_proto(&command.action)),
        },
        Input::Marks(marks) => v1::NewMessagesRecord {
            chat_id: marks.chat.to_string(),
            accepted_at_ms: marks.at,
            action: Some(Proto::Marks(v1::SubmitMarks {
                marks: marks
                    .marks
                    .iter()
                    .map(|mark| v1::UserMark {
                        user_id: mark.user.to_string(),
                        delivered_seq: mark.delivered,
                        read_seq: mark.read,
                        hide_read: mark.hide_read,
                    })
                    .collect(),
            })),
            ..Default::default()
        },
        Input::Tick(tick) => v1::NewMessagesRecord {
            accepted_at_ms: tick.now,
            action: Some(Proto::Tick(v1::Tick {
                now_ms: tick.now,
                rules: Some(rules_to_proto(&tick.rules)),
            })),
            ..Default::default()
        },
    };
    record.encode_to_vec().into()
}

fn action_to_proto(action: &Action) -> new_messages_record::Action {
    use new_messages_record::Action as Proto;
    match action {
        Action::Send(send) => Proto::Submit(v1::SubmitMessage {
            to: send.to.as_ref().map(ToString::to_string).unwrap_or_default(),
            client_message_id: send.key.as_str().into(),
            content: Some(content_to_proto(&send.content)),
            sent_at_ms: send.sent_at,
        }),
        Action::Create(create) => Proto::Create(v1::SubmitChat {
            request_id: Bytes::copy_from_slice(&create.request),
            participants: create.participants.iter().map(ToString::to_string).collect(),
            name: create.name.clone(),
            client_chat_id: create.key.as_str().into(),
            history: history_to_proto(create.history).into(),
            history_days: create.history_days,
        }),
        Action::Change(change) => {
            let (name, participants) = match &change.what {
                What::Name(name) => (Some(name.clone()), None),
                What::Participant(user, operation) => {
                    let user_id = user.to_string();
                    let operation = operation_to_proto(*operation).into();
                    (
                        None,
                        Some(v1::ModifyChatParticipants {
                            user_id,
                            operation,
                            ..Default::default()
                        }),
                    )
                }
            };
            let request_id = Bytes::copy_from_slice(&change.request);
            Proto::Change(v1::SubmitChatChange { request_id, name, participants })
        }
        Action::Refuse(refuse) => Proto::Rejection(v1::SubmitRejection {
            message_id: Bytes::copy_from_slice(&refuse.message.0),
            reason: refuse.reason.clone(),
            sender_id: refuse.sender.to_string(),
            client_message_id: refuse.key.as_str().into(),
            message_accepted_at_ms: refuse.message_at,
        }),
    }
}

/// Decodes a record of `new-messages`; bodies share the memory of `bytes`.
pub fn decode_input(bytes: Bytes) -> Result<Input, Malformed> {
    use new_messages_record::Action as Proto;
    let record = v1::NewMessagesRecord::decode(bytes)?;
    let action = record
        .action
        .ok_or_else(|| Malformed::because("a record without an action that this version knows"))?;
    if let Proto::Tick(tick) = action {
        let rules = rules_from_proto(&tick.rules.unwrap_or_default());
        return Ok(Input::Tick(Tick { now: tick.now_ms, rules }));
    }
    let chat: ChatId = record.chat_id.parse()?;
    if let Proto::Marks(marks) = action {
        let mark = |mark: v1::UserMark| {
            let (delivered, read) = (mark.delivered_seq, mark.read_seq);
            let user = mark.user_id.parse()?;
            Ok::<_, Malformed>(Mark { user, delivered, read, hide_read: mark.hide_read })
        };
        let marks = marks.marks.into_iter().map(mark).collect::<Result<_, _>>()?;
        return Ok(Input::Marks(Marks { chat, at: record.accepted_at_ms, marks }));
    }
    let user: UserId = record.user_id.parse()?;
    let device = record.device_id.parse()?;
    let action = action_from_proto(action, &user, &chat)?;
    let accepted_at = record.accepted_at_ms;
    Ok(Input::Command(Command { chat, user, device, accepted_at, action }))
}

fn action_from_proto(
    action: new_messages_record::Action,
    user: &UserId,
    chat: &ChatId,
) -> Result<Action, Malformed> {
    use new_messages_record::Action as Proto;
    Ok(match action {
        Proto::Submit(submit) => Action::Send(Send {
            to: if submit.to.is_empty() { None } else { Some(submit.to.parse()?) },
            key: submit.client_message_id.parse()?,
            content: Arc::new(content_from_proto(submit.content)?),
            sent_at: submit.sent_at_ms,
        }),
        Proto::Create(create) => {
            let key = create.client_chat_id.parse()?;
            if ChatId::created(user, &key) != *chat {
                return Err(Malformed::because(
                    "the chat id does not follow from its creator and key",
                ));
            }
            let participants = create.participants.iter().map(|u| u.parse());
            Action::Create(Create {
                request: request_id(&create.request_id)?,
                participants: participants.collect::<Result<_, _>>()?,
                history: history_from_proto(create.history()),
                history_days: create.history_days,
                name: create.name,
                key,
            })
        }
        Proto::Change(change) => {
            let what = match (change.name, change.participants) {
                (Some(name), None) => What::Name(name),
                (None, Some(one)) => {
                    let operation = operation_from_proto(one.operation());
                    let operation = operation.ok_or_else(|| {
                        Malformed::because("a change of participants without its operation")
                    })?;
                    What::Participant(one.user_id.parse()?, operation)
                }
                _ => return Err(Malformed::because("a change has a name or a participant")),
            };
            Action::Change(Change { request: request_id(&change.request_id)?, what })
        }
        Proto::Rejection(refuse) => Action::Refuse(Refuse {
            message: MessageId(request_id(&refuse.message_id)?),
            reason: refuse.reason,
            sender: refuse.sender_id.parse()?,
            key: refuse.client_message_id.parse()?,
            message_at: refuse.message_accepted_at_ms,
        }),
        Proto::Marks(_) | Proto::Tick(_) => {
            return Err(Malformed::because("marks and ticks are no command"));
        }
    })
}
