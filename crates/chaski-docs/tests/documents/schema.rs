//! The schema as documents need it: messages, fields and enums by name, with the comments that
//! stand at them in the `.proto` files. Must not know what a type is for.

use prost::Message as _;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};
use std::collections::BTreeMap;

/// Messages that a client sends, and what each must have. All else that a client leaves out has its
/// default.
const REQUESTS: &[(&str, &[&str])] = &[
    ("Ack", &["position"]),
    ("Hello", &["deviceId"]),
    ("Authenticate", &["token"]),
    ("CreateChat", &["participants", "clientChatId"]),
    ("SendMessage", &["clientMessageId"]),
    ("ModifyChat", &["chatId", "name"]),
    ("ModifyChatParticipants", &["chatId", "userId", "operation"]),
    ("MarkRead", &["chatId", "seq"]),
    ("RejectMessage", &["chatId", "messageId"]),
    ("SetConnection", &["userId", "status"]),
    ("SetSettings", &["hideReadMarks"]),
    ("RenameDeviceRequest", &["deviceId", "name"]),
];

/// Members of an answer that are messages and always there.
const ALWAYS: &[(&str, &str)] = &[
    ("Welcome", "expiresAt"),
    ("Authenticated", "expiresAt"),
    ("NewMessage", "acceptedAt"),
    ("DeviceView", "lastActive"),
];

/// Members of an answer that may be left out though defaults are written: the gateway does not show
/// a chat's members as an empty list.
const LEFT_OUT: &[(&str, &str)] = &[("ChatView", "participants"), ("ChatView", "roles")];

const PACKAGE: &str = ".chaski.v1.";
const TIME: &str = ".google.protobuf.Timestamp";
/// Numbers of fields of the descriptors themselves, from which a comment's path is made.
const MESSAGE: i32 = 4;
const ENUM: i32 = 5;
const FIELD: i32 = 2;
const NESTED: i32 = 3;
const NESTED_ENUM: i32 = 4;
const CHOICE: i32 = 8;

/// All messages and enums; nested ones are named `Outer.Inner`.
#[derive(Debug, Default)]
pub(crate) struct Schema {
    messages: BTreeMap<String, Message>,
    enums: BTreeMap<String, Enum>,
}

/// A message.
#[derive(Debug)]
pub(crate) struct Message {
    /// What the schema says of it; may be empty.
    pub(crate) comment: String,
    /// Whether a client sends it by itself.
    pub(crate) request: bool,
    /// In the schema's order.
    pub(crate) fields: Vec<Field>,
}

/// A field of a message.
#[derive(Debug)]
pub(crate) struct Field {
    /// Its name in JSON.
    pub(crate) name: String,
    /// What the schema says of it; may be empty.
    pub(crate) comment: String,
    /// What it holds.
    pub(crate) kind: Kind,
    /// Whether it is a list.
    pub(crate) list: bool,
    /// Whether it may be absent: in a request what has a default; in an answer, where defaults
    /// are written, what is `optional`, a message or one of a choice.
    pub(crate) optional: bool,
    /// The choice (`oneof`) that it belongs to.
    pub(crate) choice: Option<String>,
}

/// What a field holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A string.
    Text,
    /// A boolean.
    Bool,
    /// An integer of up to 32 bits: a number in JSON.
    Number,
    /// An integer of 64 bits: a string in JSON.
    Big,
    /// Bytes: base64 in JSON.
    Bytes,
    /// A time: RFC 3339 in JSON.
    Time,
    /// Another message.
    Message(String),
    /// A name of an enum.
    Enum(String),
}

/// An enum.
#[derive(Debug)]
pub(crate) struct Enum {
    /// What the schema says of it; may be empty.
    pub(crate) comment: String,
    /// Its names, without the one that stands for "not given".
    pub(crate) values: Vec<String>,
}

impl Schema {
    /// The schema that this build was made from.
    pub(crate) fn read() -> Self {
        let set = FileDescriptorSet::decode(chaski_proto::DESCRIPTORS).expect("the build wrote it");
        let mut schema = Self::default();
        for file in set.file.iter().filter(|file| file.package() == "chaski.v1") {
            let comments = Comments::of(file);
            for (at, message) in (0..).zip(&file.message_type) {
                schema.add_message(&comments, "", message, &[MESSAGE, at]);
            }
            for (at, one) in (0..).zip(&file.enum_type) {
                schema.add_enum(&comments, "", one, &[ENUM, at]);
            }
        }
        schema
    }

    /// The message of this name.
    pub(crate) fn message(&self, name: &str) -> &Message {
        self.messages.get(name).unwrap_or_else(|| panic!("the schema has no message {name}"))
    }

    /// The enum of this name.
    pub(crate) fn enumeration(&self, name: &str) -> &Enum {
        self.enums.get(name).unwrap_or_else(|| panic!("the schema has no enum {name}"))
    }

    fn add_message(
        &mut self,
        comments: &Comments<'_>,
        outer: &str,
        message: &DescriptorProto,
        path: &[i32],
    ) {
        let name = format!("{outer}{}", message.name());
        let inner = format!("{name}.");
        for (at, nested) in (0..).zip(&message.nested_type) {
            self.add_message(comments, &inner, nested, &[path, &[NESTED, at]].concat());
        }
        for (at, nested) in (0..).zip(&message.enum_type) {
            self.add_enum(comments, &inner, nested, &[path, &[NESTED_ENUM, at]].concat());
        }
        let required = REQUESTS.iter().find(|(of, _)| *of == name).map(|(_, fields)| *fields);
        let fields = (0..).zip(&message.field).map(|(at, field)| {
            let choice = field.oneof_index.filter(|_| !field.proto3_optional());
            let own = comments.at(&[path, &[FIELD, at]].concat());
            let shared = choice.map(|at| comments.at(&[path, &[CHOICE, at]].concat()));
            let words = [shared.unwrap_or_default(), own];
            let words: Vec<_> = words.into_iter().filter(|words| !words.is_empty()).collect();
            let kind = kind(field);
            let list = field.label() == Label::Repeated;
            let single_message = !list && matches!(kind, Kind::Message(_) | Kind::Time);
            let place = (&*name, field.json_name());
            let optional = match required {
                Some(required) => !required.contains(&field.json_name()),
                None if ALWAYS.contains(&place) => false,
                None => single_message || field.oneof_index.is_some() || LEFT_OUT.contains(&place),
            };
            Field {
                name: field.json_name().to_owned(),
                comment: words.join(" "),
                list,
                optional,
                choice: choice.map(|at| message.oneof_decl[at as usize].name().to_owned()),
                kind,
            }
        });
        let (comment, request) = (comments.at(path), required.is_some());
        let message = Message { comment, request, fields: fields.collect() };
        self.messages.insert(name, message);
    }

    fn add_enum(
        &mut self,
        comments: &Comments<'_>,
        outer: &str,
        one: &EnumDescriptorProto,
        path: &[i32],
    ) {
        let values = one.value.iter().map(|value| value.name().to_owned());
        let values = values.filter(|value| !value.ends_with("_UNSPECIFIED")).collect();
        let name = format!("{outer}{}", one.name());
        self.enums.insert(name, Enum { comment: comments.at(path), values });
    }
}

impl Message {
    /// The field of this JSON name.
    pub(crate) fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

fn kind(field: &FieldDescriptorProto) -> Kind {
    let name = || field.type_name().trim_start_matches(PACKAGE).to_owned();
    match field.r#type() {
        Type::String => Kind::Text,
        Type::Bool => Kind::Bool,
        Type::Bytes => Kind::Bytes,
        Type::Uint64 | Type::Int64 | Type::Fixed64 => Kind::Big,
        Type::Uint32 | Type::Int32 | Type::Fixed32 => Kind::Number,
        Type::Enum => Kind::Enum(name()),
        Type::Message if field.type_name() == TIME => Kind::Time,
        Type::Message => Kind::Message(name()),
        other => panic!("no document says yet how {other:?} looks in JSON"),
    }
}

/// The comments of a file by their path.
struct Comments<'a>(BTreeMap<&'a [i32], &'a str>);

impl<'a> Comments<'a> {
    fn of(file: &'a FileDescriptorProto) -> Self {
        let places = file.source_code_info.iter().flat_map(|info| &info.location);
        Self(places.map(|place| (&place.path[..], place.leading_comments())).collect())
    }

    /// The comment in one line.
    fn at(&self, path: &[i32]) -> String {
        let text = self.0.get(path).copied().unwrap_or_default();
        text.lines().map(str::trim).collect::<Vec<_>>().join(" ").trim().to_owned()
    }
}
