//! The table: each row is one way to provoke one error of one call.

use super::{
    Ask, Refusal, Row,
    Way::{self, Http, Json, Protobuf},
    base64, cover,
    fields::{self, of_command, sample, tag},
    stage::{Ids, Stage, Token, put},
    web::takes_body,
};
use chaski_proto::v1::{self, client_frame::Command};
use reqwest::Method;
use serde_json::{Value, json};

const SOCKETS: &[Way] = &[Json, Protobuf];
const IN_JSON: &[Way] = &[Json, Http];
const SAID_AGAIN: &str = "said again";

/// A row by all ways that the call has.
pub(super) fn row(call: &'static str, error: &'static str, what: &str, ask: Ask) -> Row {
    let mut ways = Vec::new();
    ways.extend((tag(call) > 0).then_some(SOCKETS).into_iter().flatten());
    ways.extend((!cover::call(call).http.is_empty() && call != "hello").then_some(Http));
    let (refusal, token) = (Refusal::Error, Token::Good);
    Row { call, error, what: what.into(), ask, ways, refusal, token, hasty: false }
}

/// A good call but for this.
pub(super) fn with(
    call: &'static str,
    spoil: impl Fn(&mut Value, &Ids) + Send + Sync + 'static,
) -> Ask {
    Ask::Body(Box::new(move |stage, way| {
        let mut body = sample(stage, call, way);
        spoil(&mut body, &stage.ids);
        body
    }))
}

/// A good call, each member of the value replaced or, where it is null, left out.
fn but(call: &'static str, error: &'static str, change: Value) -> Row {
    let what = change.to_string().chars().take(60).collect::<String>();
    let ask = with(call, move |body, _| replace(body, &change));
    row(call, error, &what, ask)
}

/// The same where the change needs the ids of the stage.
fn of(
    call: &'static str,
    error: &'static str,
    change: impl Fn(&Ids) -> Value + Send + Sync + 'static,
) -> Row {
    let ask = with(call, move |body, ids| replace(body, &change(ids)));
    row(call, error, "of the stage", ask)
}

fn replace(body: &mut Value, change: &Value) {
    let body = body.as_object_mut().expect("an object");
    for (name, value) in change.as_object().expect("an object") {
        match value {
            Value::Null => body.remove(name),
            value => body.insert(name.clone(), value.clone()),
        };
    }
}

impl Row {
    pub(super) fn by(mut self, ways: &[Way]) -> Self {
        self.ways = ways.to_vec();
        self
    }
    pub(super) fn refused(mut self, refusal: Refusal) -> Self {
        self.refusal = refusal;
        self
    }
    fn with_token(mut self, token: Token) -> Self {
        self.token = token;
        self
    }
    fn hasty(mut self) -> Self {
        self.hasty = true;
        self
    }
    /// `hello` that does not name the place where its socket is.
    pub(super) fn greets(&self) -> bool {
        self.call == "hello" && self.what != SAID_AGAIN
    }
}

pub(super) fn rows() -> Vec<Row> {
    let mut rows = fields::rows();
    rows.extend(chats());
    rows.extend(messages());
    rows.extend(recipients());
    rows.extend(connections());
    rows.extend(greetings());
    rows.extend(reads());
    rows.extend(devices());
    rows.extend(late());
    for call in cover::CALLS {
        rows.extend(of_every_call(call));
    }
    rows
}

const MALFORMED: &str = "invalid/malformed";
const LIMIT: &str = "invalid/limit";
const ENUM: &str = "invalid/enum";

fn long(length: usize) -> String {
    "x".repeat(length)
}

fn chats() -> Vec<Row> {
    let (make, name, members) = ("createChat", "modifyChat", "modifyChatParticipants");
    let everybody: Vec<_> = (0..100).map(|n| format!("p{n}")).collect();
    let history =
        v1::CreateChat { client_chat_id: "c".into(), history: 9, ..v1::CreateChat::default() };
    let operation =
        |chat_id: String| v1::ModifyChatParticipants { chat_id, user_id: "x".into(), operation: 9 };
    let member = |error, change: fn(&Ids) -> Value| of(members, error, change);
    let mut rows = vec![
        but(make, MALFORMED, json!({"participants": [""]})),
        but(make, MALFORMED, json!({"participants": ["a b"]})),
        but(make, MALFORMED, json!({"participants": ["ä"]})),
        but(make, MALFORMED, json!({"participants": ["a", "a"]})),
        but(make, MALFORMED, json!({"clientChatId": null})),
        but(make, MALFORMED, json!({"clientChatId": "é"})),
        but(make, MALFORMED, json!({"clientChatId": "a\nb"})),
        but(make, LIMIT, json!({"clientChatId": long(65)})),
        but(make, LIMIT, json!({"participants": [long(65)]})),
        but(make, LIMIT, json!({"participants": everybody})),
        but(make, LIMIT, json!({"name": long(201)})),
        but(make, "", json!({"name": long(200), "participants": [long(64)]})).refused(Refusal::Not),
        row(make, ENUM, "9", Ask::Command(Command::CreateChat(history))).by(&[Protobuf]),
        of(
            make,
            "id_reused",
            |ids| json!({"clientChatId": ids.used_chat, "participants": [ids.cem]}),
        ),
        of(make, "id_reused", |ids| json!({"clientChatId": ids.used_chat, "name": "other"})),
        but(name, LIMIT, json!({"name": long(201)})),
        but(name, "", json!({"name": long(200)})).refused(Refusal::Not),
        but(name, MALFORMED, json!({"name": null})),
        of(name, "not_allowed", |ids| json!({"chatId": ids.group})),
        but(members, MALFORMED, json!({"userId": "a b"})),
        but(members, MALFORMED, json!({"userId": ""})),
        but(members, MALFORMED, json!({"operation": null})),
        but(members, MALFORMED, json!({"operation": "OPERATION_UNSPECIFIED"})),
        but(members, LIMIT, json!({"userId": long(65)})),
        row(members, ENUM, "9", {
            Ask::Command(Command::ModifyChatParticipants(operation("g.1".into())))
        })
        .by(&[Protobuf]),
        member("not_allowed", |ids| json!({"chatId": ids.group, "userId": "somebody"})),
        member("not_allowed", |ids| json!({"chatId": ids.group, "operation": "REMOVE"})),
        member(
            "not_allowed",
            |ids| json!({"chatId": ids.group, "userId": ids.ana, "operation": "PROMOTE"}),
        ),
        member("not_allowed", |ids| json!({"chatId": ids.group, "operation": "DEMOTE"})),
        member("direct_chat", |ids| json!({"chatId": ids.direct, "userId": ids.cem})),
        member(
            "direct_chat",
            |ids| json!({"chatId": ids.direct, "userId": ids.ana, "operation": "REMOVE"}),
        ),
        member("no_such_member", |ids| json!({"userId": ids.cem, "operation": "PROMOTE"})),
        member("no_such_member", |ids| json!({"userId": ids.cem, "operation": "DEMOTE"})),
        member("chat_full", |ids| json!({"chatId": ids.full})),
        member("last_admin", |ids| json!({"userId": ids.ana, "operation": "DEMOTE"})),
    ];
    for call in [name, members] {
        rows.extend(chat_ids(call));
        rows.push(of(call, "not_a_member", |ids| json!({"chatId": ids.foreign})));
        rows.push(of(call, "no_such_chat", |ids| json!({"chatId": ids.unknown})));
    }
    rows
}

/// Ids that are no chat's.
fn chat_ids(call: &'static str) -> impl Iterator<Item = Row> {
    let ids = ["x".into(), "d.".into(), "g.%".into(), "g.a b".into(), format!("g.{}", long(33))];
    ids.into_iter().map(move |id: String| but(call, MALFORMED, json!({"chatId": id})))
}

fn messages() -> Vec<Row> {
    let send = "sendMessage";
    let attached = |count: usize, change: Value| {
        let mut one = json!({"id": "a", "sha256": base64(32)});
        replace(&mut one, &change);
        json!({"attachments": vec![one; count]})
    };
    let in_chat = |error, chat: fn(&Ids) -> &String| {
        of(send, error, move |ids| json!({"to": null, "chatId": chat(ids)}))
    };
    let cipher = |bytes| json!({"text": null, "ciphertext": base64(bytes)});
    vec![
        but(send, MALFORMED, json!({"to": null})),
        but(send, MALFORMED, json!({"to": ""})),
        but(send, MALFORMED, json!({"to": "a b"})),
        but(send, MALFORMED, json!({"to": "ä"})),
        but(send, LIMIT, json!({"to": long(65)})),
        but(send, "", json!({"to": long(64)})).refused(Refusal::Not),
        but(send, MALFORMED, json!({"to": null, "chatId": "x"})),
        but(send, MALFORMED, json!({"chatId": "g.1"})).by(IN_JSON),
        but(send, MALFORMED, json!({"ciphertext": "AA=="})).by(IN_JSON),
        but(send, MALFORMED, json!({"clientMessageId": null})),
        but(send, MALFORMED, json!({"clientMessageId": "é"})),
        but(send, LIMIT, json!({"clientMessageId": long(65)})),
        but(send, MALFORMED, json!({"text": null})),
        but(send, MALFORMED, json!({"text": ""})),
        but(send, LIMIT, json!({"text": "𝄞".repeat(100_001)})),
        but(send, "", json!({"text": "𝄞".repeat(100_000)})).refused(Refusal::Not),
        but(send, MALFORMED, cipher(0)),
        but(send, LIMIT, cipher(400_001)),
        but(send, "", cipher(400_000)).refused(Refusal::Not),
        but(send, LIMIT, attached(11, json!({}))),
        but(send, "", attached(10, json!({"id": long(512)}))).refused(Refusal::Not),
        but(send, MALFORMED, attached(1, json!({"sha256": base64(31)}))),
        but(send, MALFORMED, attached(1, json!({"id": ""}))),
        but(send, LIMIT, attached(1, json!({"id": long(513)}))),
        but(send, LIMIT, attached(1, json!({"contentType": long(513)}))),
        but(send, MALFORMED, json!({"sentAt": "1969-12-31T23:59:59Z"})),
        but(send, MALFORMED, json!({"sentAt": "now"})).by(IN_JSON),
        in_chat("not_a_member", |ids| &ids.foreign).refused(Refusal::Rejected),
        in_chat("no_such_chat", |ids| &ids.unknown).refused(Refusal::Rejected),
        row(
            send,
            "id_reused",
            "for another text",
            Ask::Body(Box::new(|stage: &Stage, way| {
                let mut body = sample(stage, "sendMessage", way);
                body["clientMessageId"] = json!(stage.ids.used[way as usize]);
                body["text"] = json!("other");
                body
            })),
        )
        .refused(Refusal::Rejected),
        of(send, "you_blocked", |ids| json!({"to": ids.eva})),
        in_chat("you_blocked", |ids| &ids.blocked),
        of(send, "blocked", |ids| json!({"to": ids.ben})).hasty(),
    ]
}

/// What a recipient says of messages.
fn recipients() -> Vec<Row> {
    let (read, reject) = ("markRead", "rejectMessage");
    let mut rows = vec![
        but(read, MALFORMED, json!({"seq": "0"})),
        but(read, MALFORMED, json!({"seq": null})),
        but(reject, MALFORMED, json!({"messageId": "x"})),
        but(reject, LIMIT, json!({"reason": "é".repeat(65)})),
        but(reject, "not_found", json!({"messageId": "0".repeat(32)})),
        of(reject, "not_found", |ids| json!({"messageId": ids.anas})),
        of(reject, "not_a_member", |ids| json!({"chatId": ids.foreign})),
        of(reject, "no_such_chat", |ids| json!({"chatId": ids.unknown})),
        row(
            reject,
            "rejected_by_recipient",
            "told to its sender",
            Ask::Body(Box::new(|stage: &Stage, way| {
                let mut body = sample(stage, "rejectMessage", way);
                body["messageId"] = json!(stage.ids.bens[way as usize]);
                body["reason"] = json!("é".repeat(64));
                body
            })),
        )
        .refused(Refusal::Rejected),
    ];
    rows.extend([read, reject].into_iter().flat_map(chat_ids));
    rows
}

fn connections() -> Vec<Row> {
    let set = "setConnection";
    let unknown = v1::SetConnection { user_id: "x".into(), status: 9, based_on_version: None };
    let conflict = |status: &'static str, version: Value| {
        of(
            set,
            "connection_conflict",
            move |ids| json!({"userId": ids.rival, "status": status, "basedOnVersion": version}),
        )
    };
    vec![
        but(set, MALFORMED, json!({"userId": "a b"})),
        of(set, MALFORMED, |ids| json!({"userId": ids.ana})),
        but(set, LIMIT, json!({"userId": long(65)})),
        but(set, "", json!({"userId": long(64)})).refused(Refusal::Not),
        but(set, MALFORMED, json!({"status": null})).by(&[Http]),
        but(set, MALFORMED, json!({"status": "NONE", "basedOnVersion": "-1"})).by(IN_JSON),
        row(set, ENUM, "9", Ask::Command(Command::SetConnection(unknown))).by(&[Protobuf]),
        // The block would be lifted.
        conflict("ACTIVE", json!(null)),
        conflict("NONE", json!(null)),
        conflict("ACTIVE", json!("0")),
        conflict("NONE", json!("7")),
        // Her devices have not acknowledged it.
        of(
            set,
            "block_not_synced",
            |ids| json!({"userId": ids.eva, "status": "NONE", "basedOnVersion": "1"}),
        )
        .hasty(),
        // Nothing was ever set.
        of(set, "connection_conflict", |_| json!({"userId": "nobody", "basedOnVersion": "7"})),
    ]
}

/// Who says so: `hello` and `authenticate`.
fn greetings() -> Vec<Row> {
    let refused = Refusal::ErrorAndClose(4500);
    let mut rows = vec![
        row("hello", MALFORMED, SAID_AGAIN, with("hello", |_, _| ())),
        but("hello", "unauthenticated", json!({"deviceId": "other"})).refused(refused),
        but("hello", "unauthenticated", json!({"deviceId": null})).refused(refused),
        row("hello", "too_many_devices", "", with("hello", |_, _| ()))
            .with_token(Token::Full)
            .refused(refused),
        but("authenticate", "unauthenticated", json!({"token": null})),
        but("authenticate", "unauthenticated", json!({"token": long(5000)})),
    ];
    for (token, error) in [
        (Token::Missing, "unauthenticated"),
        (Token::Stranger, "unauthenticated"),
        (Token::Expired, "token_expired"),
        (Token::Revoked, "revoked"),
    ] {
        let refused = Refusal::ErrorAndClose(if token == Token::Revoked { 4501 } else { 4500 });
        // Without a token in the header there may be one in `hello`.
        let ways = if token == Token::Missing { SOCKETS } else { &[Json, Protobuf, Http] };
        let what = format!("{token:?}");
        let hello = row("hello", error, &what, with("hello", |_, _| ()));
        rows.push(hello.with_token(token).refused(refused).by(ways));
        rows.push(authenticate(token, error));
    }
    rows.push(authenticate(Token::Other, "other_identity"));
    rows.push(authenticate(Token::Full, "other_identity"));
    rows
}

fn authenticate(token: Token, error: &'static str) -> Row {
    let body =
        move |stage: &Stage, _| json!({"token": stage.bearer(token, "json").unwrap_or_default()});
    row("authenticate", error, &format!("{token:?}"), Ask::Body(Box::new(body)))
}

fn reads() -> Vec<Row> {
    let mut rows = Vec::new();
    for call in cover::reads().chain(["connections"]) {
        let of_a_chat = matches!(call, "chat" | "receipts");
        if !of_a_chat {
            rows.extend(["0", "x", "-1", ""].map(|n| but(call, MALFORMED, json!({"limit": n}))));
            rows.push(but(call, LIMIT, json!({"limit": 501})));
            rows.push(but(call, "", json!({"limit": 500})).refused(Refusal::Not));
            rows.push(but(call, MALFORMED, json!({"after": "a b"})));
        }
        if call != "connections" {
            rows.push(but(call, MALFORMED, json!({"Chaski-Token": "x"})));
            rows.push(but(call, "unavailable", json!({"Chaski-Token": "2.0.999999999"})).hasty());
        }
        if of_a_chat || call == "history" {
            rows.extend(chat_ids(call));
            rows.push(of(call, "not_a_member", |ids| json!({"chatId": ids.foreign})));
            rows.push(of(call, "no_such_chat", |ids| json!({"chatId": ids.unknown})));
        }
    }
    rows.push(but("history", MALFORMED, json!({"before": "x"})));
    rows.push(but("history", MALFORMED, json!({"before": 1, "after": 1})));
    rows.push(row(cover::NO_PATH, "not_found", "", with(cover::NO_PATH, |_, _| ())));
    rows
}

fn devices() -> Vec<Row> {
    let (rename, revoke) = ("renameDevice", "revokeDevice");
    let mut rows = vec![
        but(rename, MALFORMED, json!({"name": null})),
        but(rename, MALFORMED, json!({"name": 1})),
        but(rename, LIMIT, json!({"name": "é".repeat(65)})),
        but(rename, "", json!({"name": "é".repeat(64)})).refused(Refusal::Not),
        // Revoked, and not back since.
        but(rename, "no_such_device", json!({"deviceId": "lost"})),
    ];
    for call in [rename, revoke] {
        rows.push(but(call, MALFORMED, json!({"deviceId": "a b"})));
        rows.push(but(call, LIMIT, json!({"deviceId": long(65)})));
        rows.push(but(call, "no_such_device", json!({"deviceId": "never"})));
    }
    rows
}

/// Where nobody waits for a verdict, or for a body.
fn late() -> Vec<Row> {
    let decided =
        ["createChat", "modifyChat", "modifyChatParticipants", "setConnection", "setSettings"];
    let unknown = |call| row(call, "outcome_unknown", "", with(call, |_, _| ())).hasty();
    let stalls = |call: &cover::Call| call.http.iter().any(|(method, _)| takes_body(method));
    let stalled = cover::CALLS
        .iter()
        .filter(|call| stalls(call))
        .map(|call| row(call.name, "request_timeout", "", Ask::Stall).by(&[Http]).hasty());
    decided.into_iter().map(unknown).chain(stalled).collect()
}

/// What any call can be refused for.
fn of_every_call(call: &cover::Call) -> Vec<Row> {
    let name = call.name;
    let good = || with(name, |_, _| ());
    let body = call.http.iter().any(|(method, _)| takes_body(method));
    let mut rows = Vec::new();
    if name != cover::NO_PATH {
        rows.push(row(name, "", "a good one", good()).refused(Refusal::Not));
    }
    if cover::can(name, "unauthenticated") && !["hello", "authenticate"].contains(&name) {
        for (token, error) in [
            (Token::Missing, "unauthenticated"),
            (Token::Stranger, "unauthenticated"),
            (Token::Expired, "token_expired"),
            (Token::Revoked, "revoked"),
        ] {
            rows.push(
                row(name, error, &format!("{token:?}"), good()).with_token(token).by(&[Http]),
            );
        }
    }
    if cover::can(name, "method_not_allowed") {
        let method = if name == "setConnection" { Method::POST } else { Method::PUT };
        let ask = Ask::Method(method);
        rows.push(row(name, "method_not_allowed", "", ask).by(&[Http]));
    }
    if body {
        for text in ["", "{", "1", "[]", "null", "\"x\"", "{} {}"] {
            let ask = Ask::Text(text.into());
            rows.push(row(name, MALFORMED, &format!("{text:?}"), ask).by(&[Http]));
        }
        rows.push(row(name, "too_large", "", Ask::Huge).by(&[Http]));
    }
    let tag = tag(name);
    if tag > 0 {
        let first = name == "hello";
        let refused = if first { Refusal::ErrorAndClose(4502) } else { Refusal::Error };
        let mut wrong = vec![
            (Json, Ask::Text("1".into()), "not an object"),
            (Protobuf, Ask::Bytes(of_command(tag, &[0xff])), "not a message"),
        ];
        let other = if name == "ping" { "setSettings" } else { "ping" };
        wrong.push((Json, Ask::Text(format!("{{}},\"{other}\":{{}}")), "two commands"));
        let mut two = of_command(tag, &[]);
        put(fields::tag(other), &[], &mut two);
        wrong.push((Protobuf, Ask::Bytes(two), "two commands"));
        for (way, ask, what) in wrong {
            rows.push(row(name, MALFORMED, what, ask).refused(refused).by(&[way]));
        }
        let huge = row(name, "too_large", "", Ask::Huge);
        rows.push(huge.refused(Refusal::Close(1009)).by(SOCKETS));
        if !first {
            let early = row(name, cover::FIRST, "before hello", good());
            rows.push(early.refused(Refusal::Close(4502)).by(SOCKETS));
        }
    }
    rows
}
