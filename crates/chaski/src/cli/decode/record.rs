//! What stands in a record, as JSON. Follows `proto/chaski/v1/log.proto`; knows no backend.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use chaski_core::{MessageId, Partition};
use chaski_ports::{LogRecord, Topic};
use chaski_proto::{
    Timestamp,
    v1::{
        Alert, ConnectionRequest, ConnectionState, Content, DeadLetter, NewMessagesRecord,
        RecipientsRecord, Revocation, content, new_messages_record::Action,
        recipients_record::Event,
    },
};
use prost::Message;
use serde::Serialize;
use serde_json::{Map, Value, json};

/// A record with its place; a topic's name has a prefix.
pub(crate) fn to_json(
    (prefix, topic): (&str, Topic),
    partition: Partition,
    record: &LogRecord,
) -> Value {
    let mut line = Map::new();
    line.insert("topic".into(), format!("{prefix}{}", topic.name()).into());
    line.insert("partition".into(), partition.0.into());
    // As everywhere in chaski's JSON, 64-bit integers are strings.
    line.insert("offset".into(), record.offset.0.to_string().into());
    match std::str::from_utf8(&record.key) {
        Ok(key) => line.insert("key".into(), key.into()),
        Err(_) => line.insert("keyBase64".into(), BASE64_STANDARD.encode(&record.key).into()),
    };
    let at = serde_json::to_value(Timestamp::from_ms(record.timestamp_ms));
    line.insert("timestamp".into(), at.unwrap_or_default());
    describe(topic, &record.value, &mut line);
    Value::Object(line)
}

/// A value without its place.
pub(crate) fn value_to_json((prefix, topic): (&str, Topic), value: &Bytes) -> Value {
    let mut line = Map::new();
    line.insert("topic".into(), format!("{prefix}{}", topic.name()).into());
    describe(topic, value, &mut line);
    Value::Object(line)
}

fn describe(topic: Topic, value: &Bytes, line: &mut Map<String, Value>) {
    match decode(topic, value) {
        Ok(decoded) => line.extend(decoded),
        Err(why) => {
            line.insert("undecodable".into(), why.into());
            line.insert("valueBase64".into(), BASE64_STANDARD.encode(value).into());
        }
    }
}

fn decode(topic: Topic, value: &Bytes) -> Result<Map<String, Value>, String> {
    let mut line = Map::new();
    match topic {
        Topic::NewMessages => {
            let record: NewMessagesRecord = parse(value)?;
            let action = record.action.as_ref();
            let kind = match action.ok_or("a record without an action that this version knows")? {
                Action::Submit(submit) => {
                    readable(submit.content.as_ref(), None, &mut line);
                    "submit"
                }
                Action::Create(_) => "create",
                Action::Change(_) => "change",
                Action::Marks(_) => "marks",
                Action::Rejection(rejection) => {
                    readable(None, Some(&rejection.message_id), &mut line);
                    "rejection"
                }
                Action::Tick(_) => "tick",
            };
            put(&mut line, kind, &record)
        }
        Topic::Recipients => {
            let record: RecipientsRecord = parse(value)?;
            let event = record.event.as_ref();
            let kind = match event.ok_or("a record without an event that this version knows")? {
                Event::Message(message) => {
                    let id = Some(&message.message_id);
                    readable(message.content.as_ref(), id, &mut line);
                    "message"
                }
                Event::ChatChange(_) => "chat-change",
                Event::Rejection(rejection) => {
                    readable(None, Some(&rejection.message_id), &mut line);
                    "rejection"
                }
                Event::Verdict(_) => "verdict",
                Event::Duplicate(id) => {
                    readable(None, Some(id), &mut line);
                    "duplicate"
                }
                Event::Marks(_) => "marks",
                Event::ConnectionChange(_) => "connection-change",
                Event::SettingsChange(_) => "settings-change",
            };
            put(&mut line, kind, &record)
        }
        Topic::DeadLetters => put(&mut line, "dead-letter", &parse::<DeadLetter>(value)?),
        Topic::Alerts => put(&mut line, "alert", &parse::<Alert>(value)?),
        Topic::ConnectionRequests => {
            let record = parse::<ConnectionRequest>(value)?;
            put(&mut line, "connection-request", &record)
        }
        Topic::Connections => put(&mut line, "connection", &parse::<ConnectionState>(value)?),
        Topic::Revocations => put(&mut line, "revocation", &parse::<Revocation>(value)?),
    }?;
    Ok(line)
}

/// Reads a message, in which something must stand: zero bytes are a legal message of any type.
pub(crate) fn parse<M: Message + Default + PartialEq>(value: &Bytes) -> Result<M, String> {
    let message = M::decode(value.clone()).map_err(|error| error.to_string())?;
    match message == M::default() {
        true => Err("an empty message".into()),
        false => Ok(message),
    }
}

fn put(line: &mut Map<String, Value>, kind: &str, record: &impl Serialize) -> Result<(), String> {
    let value = serde_json::to_value(record).map_err(|error| error.to_string())?;
    line.insert("type".into(), kind.into());
    line.insert("value".into(), value);
    Ok(())
}

/// In the value, text and ids are bytes, so base64; here they are as clients see them.
fn readable(content: Option<&Content>, id: Option<&Bytes>, line: &mut Map<String, Value>) {
    if let Some(content::Body::Text(text)) = content.and_then(|content| content.body.as_ref())
        && let Ok(text) = std::str::from_utf8(text)
    {
        line.insert("text".into(), json!(text));
    }
    if let Some(id) = id.and_then(|id| id[..].try_into().ok()) {
        line.insert("messageId".into(), MessageId(id).to_string().into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chaski_core::Offset;
    use chaski_proto::v1::SubmitMessage;

    fn record(value: Vec<u8>) -> LogRecord {
        LogRecord {
            offset: Offset(7),
            key: "d.1".into(),
            value: value.into(),
            timestamp_ms: 1_767_323_045_678,
            traceparent: None,
        }
    }

    #[test]
    fn a_record_is_a_line_with_its_place_and_its_text() {
        let body = content::Body::Text(Bytes::from_static("grüße".as_bytes()));
        let submit = SubmitMessage {
            to: "ben".into(),
            client_message_id: "k1".into(),
            content: Some(Content { body: Some(body), attachments: vec![] }),
            sent_at_ms: None,
        };
        let value = NewMessagesRecord {
            user_id: "ana".into(),
            accepted_at_ms: 5,
            action: Some(Action::Submit(submit)),
            ..Default::default()
        };
        let line =
            to_json(("chaski.", Topic::NewMessages), Partition(3), &record(value.encode_to_vec()));
        let expected = json!({
            "topic": "chaski.new-messages", "partition": 3, "offset": "7", "key": "d.1",
            "timestamp": "2026-01-02T03:04:05.678Z", "type": "submit", "text": "grüße",
            "value": {
                "chatId": "", "userId": "ana", "deviceId": "", "acceptedAtMs": "5",
                "submit": {
                    "to": "ben", "clientMessageId": "k1",
                    "content": { "text": BASE64_STANDARD.encode("grüße"), "attachments": [] },
                },
            },
        });
        assert_eq!(line, expected);
    }

    #[test]
    fn what_cannot_be_decoded_is_shown_with_the_reason() {
        for (topic, bytes) in [
            (Topic::Recipients, vec![0xff]),
            (Topic::Recipients, vec![]),
            (Topic::NewMessages, NewMessagesRecord::default().encode_to_vec()),
            (Topic::Revocations, vec![0xff]),
        ] {
            let line = to_json(("chaski.", topic), Partition(0), &record(bytes.clone()));
            assert!(line["undecodable"].is_string(), "{line}");
            assert_eq!(line["valueBase64"], BASE64_STANDARD.encode(&bytes));
            assert_eq!(line["offset"], "7");
        }
    }
}
