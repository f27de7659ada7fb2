//! The JSON mapping of the contract, rule by rule, and what is refused in a frame.

use chaski_proto::{
    Timestamp, client_frame,
    v1::{self, client_frame::Command, server_frame::Body},
};
use prost::Message as _;
use serde_json::{Value, json};

fn frame(text: &str) -> Result<v1::ClientFrame, chaski_proto::FrameError> {
    client_frame(&text.to_owned().into(), true)
}

#[track_caller]
fn command(value: Value) -> Command {
    let frame = frame(&value.to_string());
    frame.expect("a legal frame").command.expect("a frame with a command")
}

#[track_caller]
fn send(fields: Value) -> v1::SendMessage {
    match command(json!({"id": 1, "sendMessage": fields})) {
        Command::SendMessage(message) => message,
        other => panic!("{other:?}"),
    }
}

#[test]
fn numbers_of_64_bits_are_strings_and_taken_as_string_or_number() {
    for given in [json!("18446744073709551615"), json!(18_446_744_073_709_551_615_u64)] {
        let frame = frame(&json!({"id": 1, "ack": {"position": given}}).to_string());
        assert_eq!(frame.expect("legal").ack, Some(v1::Ack { position: u64::MAX }));
    }
    for wrong in [json!("-1"), json!(-1), json!("18446744073709551616"), json!("x"), json!(true)] {
        let frame = frame(&json!({"id": 1, "ack": {"position": wrong}}).to_string());
        assert_eq!(frame.map_err(|e| e.id), Err(1), "{wrong}");
    }
    let item = v1::NewMessage { seq: u64::MAX, ..Default::default() };
    let event = v1::ServerFrame::event(1 << 63, Body::NewMessage(item));
    let written = serde_json::to_value(event).expect("JSON");
    assert_eq!(written["position"], json!("9223372036854775808"));
    assert_eq!(written["newMessage"]["seq"], json!("18446744073709551615"));
}

#[test]
fn bytes_are_base64_and_taken_in_both_alphabets() {
    let bytes = [0xfb, 0xff, 0xbf, 0x01];
    for given in ["+/+/AQ==", "-_-_AQ==", "+/+/AQ", "-_-_AQ"] {
        let taken = send(json!({"ciphertext": given})).body;
        let expected = v1::send_message::Body::Ciphertext(bytes.to_vec().into());
        assert_eq!(taken, Some(expected), "{given}");
    }
    let body = v1::new_message::Body::Ciphertext(bytes.to_vec().into());
    let message = v1::NewMessage { body: Some(body), ..Default::default() };
    assert_eq!(serde_json::to_value(message).expect("JSON")["ciphertext"], json!("+/+/AQ=="));
}

#[test]
fn times_are_rfc_3339_in_utc_with_milliseconds() {
    for (given, ms) in [
        ("2026-01-02T03:04:05.678Z", 1_767_323_045_678),
        ("2026-01-02T05:04:05.678+02:00", 1_767_323_045_678),
        ("2026-01-02T03:04:05Z", 1_767_323_045_000),
        ("2026-01-02T03:04:05.678999999Z", 1_767_323_045_678),
        ("1970-01-01T00:00:00Z", 0),
    ] {
        let taken = send(json!({"text": "x", "sentAt": given})).sent_at;
        assert_eq!(taken.map(Timestamp::to_ms), Some(ms), "{given}");
    }
    for wrong in [json!("yesterday"), json!("2026-01-02"), json!(1_767_323_045), json!("")] {
        let frame = frame(&json!({"id": 7, "sendMessage": {"sentAt": wrong}}).to_string());
        assert_eq!(frame.map_err(|e| e.id), Err(7), "{wrong}");
    }
    for (ms, written) in
        [(1_767_323_045_000, "2026-01-02T03:04:05.000Z"), (7, "1970-01-01T00:00:00.007Z")]
    {
        let value = serde_json::to_value(Timestamp::from_ms(ms)).expect("JSON");
        assert_eq!(value, json!(written));
    }
}

#[test]
fn enums_are_names() {
    let History::All = history("ALL") else { panic!("ALL") };
    let History::FromJoin = history("FROM_JOIN") else { panic!("FROM_JOIN") };
    let wrong = json!({"id": 9, "createChat": {"history": "all"}});
    assert_eq!(frame(&wrong.to_string()).map_err(|e| e.id), Err(9));
    let update = v1::ChatUpdate { roles: vec![1, 0], ..Default::default() };
    assert_eq!(serde_json::to_value(update).expect("JSON")["roles"], json!(["ADMIN", "MEMBER"]));
    let update = v1::ConnectionUpdate { status: 2, ..Default::default() };
    assert_eq!(serde_json::to_value(update).expect("JSON")["status"], json!("BLOCKED"));
}

use v1::create_chat::History;

#[track_caller]
fn history(name: &str) -> History {
    match command(json!({"id": 1, "createChat": {"history": name}})) {
        Command::CreateChat(chat) => chat.history(),
        other => panic!("{other:?}"),
    }
}

/// The exact objects of the contract, defaults included.
#[test]
fn defaults_are_written() {
    #[track_caller]
    fn check(frame: v1::ServerFrame, expected: Value) {
        assert_eq!(serde_json::to_value(frame).expect("JSON"), expected);
    }
    let message = v1::NewMessage {
        chat_id: "g.1".into(),
        seq: 3,
        body: Some(v1::new_message::Body::Text(String::new())),
        accepted_at: Some(Timestamp::from_ms(0)),
        ..Default::default()
    };
    check(
        v1::ServerFrame::event(0, Body::NewMessage(message)),
        json!({"position": "0", "newMessage": {
            "chatId": "g.1", "seq": "3", "messageId": "", "clientMessageId": "", "senderId": "",
            "senderDeviceId": "", "text": "", "attachments": [],
            "acceptedAt": "1970-01-01T00:00:00.000Z"
        }}),
    );
    check(
        v1::ServerFrame::event(1, Body::ChatUpdate(v1::ChatUpdate::default())),
        json!({"position": "1", "chatUpdate": {
            "chatId": "", "seq": "0", "participants": [], "roles": [], "name": "",
            "version": "0", "visibleFrom": "0"
        }}),
    );
    check(
        v1::ServerFrame::event(2, Body::MessageRejected(v1::MessageRejected::default())),
        json!({"position": "2", "messageRejected": {
            "chatId": "", "messageId": "", "clientMessageId": "", "byUserId": "", "status": 0,
            "code": "", "reason": ""
        }}),
    );
    let welcome = v1::Welcome { expires_at: Some(Timestamp::from_ms(7)), ..Default::default() };
    check(
        v1::ServerFrame::reply(1, Body::Welcome(welcome)),
        json!({"replyTo": 1, "welcome": {
            "userId": "", "deviceId": "", "position": "0", "heartbeatSeconds": 0,
            "expiresAt": "1970-01-01T00:00:00.007Z"
        }}),
    );
    check(
        v1::ServerFrame::reply(0, Body::Error(v1::Error::default())),
        json!({"replyTo": 0, "error": {"code": "", "status": 0, "message": ""}}),
    );
    check(v1::ServerFrame::reply(2, Body::Pong(v1::Pong {})), json!({"replyTo": 2, "pong": {}}));
    check(
        v1::ServerFrame::notice(Body::GoAway(v1::GoAway::default())),
        json!({"goAway": {"reason": "", "retryAfterMs": 0}}),
    );
}

#[test]
fn fields_of_a_newer_peer_are_ignored() {
    let message = send(json!({"to": "ben", "text": "x", "colour": {"r": [1, null]}}));
    assert_eq!(message.body, Some(v1::send_message::Body::Text("x".into())));
    let event = json!({"position": "1", "newMessage": {"seq": "1", "mood": "new"}, "later": 1});
    let event: v1::ServerFrame = serde_json::from_value(event).expect("a newer server");
    assert!(matches!(event.body, Some(Body::NewMessage(m)) if m.seq == 1));
}

#[test]
fn snake_case_names_are_taken_too_and_null_is_absent() {
    let message = send(json!({"chat_id": "g.1", "text": "x", "sentAt": null, "attachments": []}));
    assert_eq!(message.target, Some(v1::send_message::Target::ChatId("g.1".into())));
    assert_eq!(message.sent_at, None);
}

/// What cannot be taken names the frame, where its id can be read, so that `error` can answer it.
#[test]
fn wrong_frames_are_refused_with_their_id() {
    for (text, id) in [
        ("", 0),
        ("hello", 0),
        ("[]", 0),
        ("{}", 0),
        (r#"{"id": 5"#, 0),
        (r#"{"id": -5, "ping": {}}"#, 0),
        (r#"{"id": 4294967296, "ping": {}}"#, 0),
        (r#"{"id": 1.5, "ping": {}}"#, 0),
        (r#"{"ping": {}}"#, 0),
        (r#"{"id": 0, "ping": {}}"#, 0),
        (r#"{"id": 5}"#, 5),
        (r#"{"id": 5, "fly": {}}"#, 5),
        (r#"{"id": 5, "fly": {}, "ack": {"position": "1"}}"#, 5),
        (r#"{"id": 5, "ping": {}, "hello": {}}"#, 5),
        (r#"{"id": 5, "ping": {}, "fly": {}}"#, 5),
        (r#"{"fly": {}, "id": 5}"#, 5),
        (r#"{"id": 5, "ping": []}"#, 5),
        (r#"{"id": 5, "ping": 1}"#, 5),
        (r#"{"id": 5, "ack": "1"}"#, 5),
        (r#"{"id": 5, "sendMessage": {"text": 1}}"#, 5),
        (r#"{"id": 5, "sendMessage": {"text": "a", "ciphertext": "AA=="}}"#, 5),
        (r#"{"id": 5, "sendMessage": {"to": "a", "chatId": "b"}}"#, 5),
        (r#"{"id": 5, "sendMessage": {"attachments": {}}}"#, 5),
        (r#"{"id": 5, "sendMessage": {"ciphertext": "*"}}"#, 5),
        (r#"{"id": 5, "createChat": {"participants": "ben"}}"#, 5),
        (r#"{"id": 5, "hello": {"resumeAfter": "soon"}}"#, 5),
        (r#"{"id": 5, "ping": {}} {"id": 6, "ping": {}}"#, 0),
    ] {
        assert_eq!(frame(text).map_err(|e| e.id), Err(id), "{text}");
    }
    let alone = frame(r#"{"id": 5, "ack": {"position": "1"}}"#).expect("an ack may stand alone");
    assert_eq!((alone.command, alone.ack), (None, Some(v1::Ack { position: 1 })));
}

#[test]
fn wrong_binary_frames_are_refused_with_their_id() {
    let encode =
        |command| v1::ClientFrame { id: 5, ack: None, command: Some(command) }.encode_to_vec();
    let ping = encode(Command::Ping(v1::Ping {}));
    let settings = Command::SetSettings(v1::SetSettings { hide_read_marks: true });
    let id = [0x08, 5];
    // Field 99 as an empty message: a command that a newer client knows.
    let unknown = [&id[..], &[0x9a, 0x06, 0]].concat();
    let ack = [0x12, 0x02, 0x08, 0x01];
    for (what, bytes, id) in [
        ("nothing", Vec::new(), 0),
        ("id 0", v1::ClientFrame { id: 0, ..v1::ClientFrame::default() }.encode_to_vec(), 0),
        ("no command", id.to_vec(), 5),
        ("an unknown command", unknown.clone(), 5),
        ("an unknown command and an ack", [&unknown[..], &ack].concat(), 5),
        ("two commands", [ping.clone(), encode(settings)].concat(), 5),
        ("a command twice", [ping.clone(), ping.clone()].concat(), 5),
        ("a command and an unknown one", [&ping[..], &unknown].concat(), 5),
        ("another wire type", [&id[..], &[0xa0, 0x01, 1]].concat(), 5),
        ("half a frame", [&id[..], &[0xa2, 0x01, 9]].concat(), 5),
        ("no protobuf", b"\xff\xff\xff".to_vec(), 0),
        ("JSON", br#"{"id": 5, "ping": {}}"#.to_vec(), 0),
    ] {
        let refused = client_frame(&bytes.into(), false).map_err(|e| e.id);
        assert_eq!(refused, Err(id), "{what}");
    }
    assert!(client_frame(&ping.into(), false).is_ok());
}
