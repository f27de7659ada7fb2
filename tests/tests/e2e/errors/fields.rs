//! The commands' fields by the schema: each is given a wrong type, so that a new one is tested as
//! soon as it is there; and a good sample of each call, of which all but one thing is kept.

use super::{
    Ask, Refusal, Row, Way, cover,
    stage::{Stage, put},
    table::{row, with},
    web::takes_body,
};
use chaski_proto::DESCRIPTORS;
use chaski_tests::random;
use prost::{
    Message as _,
    encoding::{WireType, encode_key},
};
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};
use serde_json::{Value, json};
use std::sync::LazyLock;

static SCHEMA: LazyLock<FileDescriptorSet> =
    LazyLock::new(|| FileDescriptorSet::decode(DESCRIPTORS).expect("the build wrote it"));

fn message(name: &str) -> &'static DescriptorProto {
    let messages = SCHEMA.file.iter().flat_map(|file| &file.message_type);
    let mut named = messages.filter(|message| message.name() == name);
    named.next().expect("the schema has it")
}

/// The fields of a client frame that are commands.
fn commands() -> impl Iterator<Item = &'static FieldDescriptorProto> {
    message("ClientFrame").field.iter().filter(|field| field.oneof_index.is_some())
}

/// The commands' names.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    commands().map(FieldDescriptorProto::json_name)
}

/// A command's field in a client frame; 0 for what is no command.
pub(super) fn tag(call: &str) -> u32 {
    commands().find(|field| field.json_name() == call).map_or(0, |field| field.number() as u32)
}

/// A call that is not refused.
pub(super) fn sample(stage: &Stage, call: &str, way: Way) -> Value {
    let ids = &stage.ids;
    match call {
        "hello" => json!({"deviceId": "spare"}),
        "authenticate" => {
            json!({"token": stage.token(if way == Way::Protobuf { "binary" } else { "json" })})
        }
        "createChat" => json!({"participants": [ids.ben], "clientChatId": random()}),
        "sendMessage" => json!({"to": ids.ben, "clientMessageId": random(), "text": "x"}),
        "modifyChat" => json!({"chatId": ids.own, "name": "own"}),
        "modifyChatParticipants" => {
            json!({"chatId": ids.own, "userId": ids.ben, "operation": "ADD"})
        }
        "markRead" => json!({"chatId": ids.own, "seq": "1"}),
        "rejectMessage" => json!({"chatId": ids.direct, "messageId": ids.bens[0], "reason": ""}),
        "setConnection" => json!({"userId": ids.cem, "status": "ACTIVE"}),
        "setSettings" => json!({"hideReadMarks": false}),
        "chat" | "history" | "receipts" => json!({"chatId": ids.own}),
        "renameDevice" => json!({"deviceId": "json", "name": "x"}),
        "revokeDevice" => json!({"deviceId": "lost"}),
        _ => json!({}),
    }
}

/// Each field of each command with a value of another type, in each encoding.
pub(super) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for command in commands() {
        let call = cover::call(command.json_name());
        let type_name = command.type_name().rsplit('.').next().expect("a name");
        for field in &message(type_name).field {
            let name: &'static str = field.json_name();
            let error =
                if field.r#type() == Type::Enum { "invalid/enum" } else { "invalid/malformed" };
            let mut ways = vec![Way::Json];
            let in_path = |path: &str| path.contains(&format!("{{{name}}}"));
            ways.extend(call.http.first().and_then(|(method, path)| {
                (takes_body(method) && !in_path(path)).then_some(Way::Http)
            }));
            let refused = |ask, error, what: &str, ways: &[Way]| {
                let row = row(call.name, error, &format!("{name} {what}"), ask).by(ways);
                if call.name == "hello" { row.refused(Refusal::ErrorAndClose(4502)) } else { row }
            };
            let siblings = siblings(message(type_name), field);
            let body = with(call.name, move |body, _| {
                for sibling in &siblings {
                    body.as_object_mut().expect("an object").remove(*sibling);
                }
                body[name] = wrong(field);
            });
            rows.push(refused(body, error, "of another type", &ways));
            let tag = command.number() as u32;
            let bytes = Ask::Bytes(of_command(tag, &other_type(field)));
            rows.push(refused(bytes, "invalid/malformed", "of another type", &[Way::Protobuf]));
            if field.r#type() == Type::String {
                let mut no_text = Vec::new();
                put(field.number() as u32, &[0xff], &mut no_text);
                let bytes = Ask::Bytes(of_command(tag, &no_text));
                rows.push(refused(bytes, "invalid/malformed", "no UTF-8", &[Way::Protobuf]));
            }
        }
    }
    rows
}

/// The fields that exclude this one.
fn siblings(message: &'static DescriptorProto, field: &FieldDescriptorProto) -> Vec<&'static str> {
    let same = |other: &&FieldDescriptorProto| {
        other.oneof_index.is_some()
            && other.oneof_index == field.oneof_index
            && other.number != field.number
    };
    message.field.iter().filter(same).map(FieldDescriptorProto::json_name).collect()
}

fn wrong(field: &FieldDescriptorProto) -> Value {
    match field.r#type() {
        _ if field.label() == Label::Repeated => json!(1),
        Type::Bytes => json!("*"),
        Type::Enum => json!("NOPE"),
        Type::String | Type::Message => json!(1),
        _ => json!("x"),
    }
}

/// The field with the wire type of another.
fn other_type(field: &FieldDescriptorProto) -> Vec<u8> {
    let mut bytes = Vec::new();
    match field.r#type() {
        Type::String | Type::Bytes | Type::Message => {
            encode_key(field.number() as u32, WireType::Varint, &mut bytes);
            bytes.push(1);
        }
        _ => put(field.number() as u32, b"x", &mut bytes),
    }
    bytes
}

/// A command with this content.
pub(super) fn of_command(tag: u32, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put(tag, content, &mut bytes);
    bytes
}
