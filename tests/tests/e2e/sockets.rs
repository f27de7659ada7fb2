//! The wire: subprotocols, sizes, and how sockets end.

use chaski_ports::{Clock as _, SystemClock};
use chaski_tests::{Device, Format, Heard, Set, Socket, World};
use serde_json::{Value, json};
use std::{cell::Cell, time::Duration};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

pub(crate) async fn both_subprotocols_say_the_same(set: Set) {
    let world = World::shared(set).await;
    let (ana, ben) = (world.person("ana"), world.person("ben"));
    let mut told = Vec::new();
    for (n, format) in [Format::Unnamed, Format::Json, Format::Protobuf].into_iter().enumerate() {
        let device = format!("device{n}");
        let socket = ana.socket(&device, format).await;
        // Every device reads from the beginning, so the later ones read what the first one did.
        let mut device = Device::hello(socket, &ana.id, &device, Some(0)).await;
        assert_eq!(device.command(json!({"ping": {}})).await["pong"], json!({}));
        let chat = json!({"participants": [ben.id], "name": "é", "clientChatId": "c"});
        let made =
            device.command(json!({"createChat": chat})).await["chatCreated"]["chatId"].clone();
        let text = json!({"chatId": made, "clientMessageId": "1", "text": "a\u{0}é",
            "sentAt": "2026-01-02T03:04:05.678Z"});
        let cipher = json!({"chatId": made, "clientMessageId": "2", "ciphertext": "+/8="});
        let stranger = json!({"chatId": "g.00000000000000000000000000000000",
            "clientMessageId": "3", "text": "x"});
        let mut accepted = Vec::new();
        for message in [text, cipher, stranger] {
            let mut reply = device.send(message).await;
            // Each retry is a write of its own.
            reply.as_object_mut().expect("an object").remove("token");
            accepted.push(reply);
        }
        let refused = device.command(json!({"sendMessage": {"to": "a b"}})).await["error"].clone();
        // The rejection comes through another partition: its place among the others is not fixed.
        let events: Vec<Value> = device.events(4).await;
        told.push((made, accepted, refused, events));
        device.socket.close().await;
    }
    assert_eq!(told[0], told[1], "JSON where none is offered");
    assert_eq!(told[1], told[2], "JSON and protobuf");
}

pub(crate) async fn protocol_errors_close_with_4502(set: Set) {
    let world = World::shared(set).await;
    let ana = world.person("ana");
    // Something else than `hello` first.
    for first in [
        json!({"id": 1, "ping": {}}),
        json!({"id": 1, "ack": {"position": "0"}}),
        json!({"id": 1, "sendMessage": {"to": ana.id, "clientMessageId": "k", "text": "x"}}),
    ] {
        let mut socket = ana.socket("phone", Format::Json).await;
        socket.say(first.clone()).await;
        assert_eq!(socket.closed().await.0, 4502, "{first}");
    }
    // The wrong opcode, before and after `hello`.
    for format in [Format::Json, Format::Protobuf] {
        for greeted in [false, true] {
            let mut socket = ana.socket("phone", format).await;
            if greeted {
                socket.say(json!({"id": 1, "hello": {"deviceId": "phone"}})).await;
                assert!(socket.frame().await["welcome"].is_object());
            }
            let frame = json!({"id": 2, "ping": {}}).to_string();
            let wrong = match format {
                Format::Protobuf => Message::text(frame),
                _ => Message::binary(frame.into_bytes()),
            };
            socket.send(wrong).await;
            assert_eq!(socket.closed().await.0, 4502, "{format:?}, greeted: {greeted}");
        }
    }
    // An ack above what was sent.
    let mut phone = ana.device("phone").await;
    phone.send(json!({"to": ana.id, "clientMessageId": "k", "text": "x"})).await;
    phone.event().await;
    phone.ack(phone.position).await;
    let above = (phone.position + 1).to_string();
    phone.socket.say(json!({"id": 9, "ack": {"position": above}})).await;
    assert_eq!(phone.socket.closed().await.0, 4502, "an ack above what was sent");
    // No `hello` in time; this world gives a second.
    let world = World::small(set).await;
    let mut silent = world.person("ana").socket("phone", Format::Json).await;
    assert_eq!(silent.closed().await.0, 4502, "no hello");
}

/// A frame of exactly this many bytes that is answered by `pong`.
fn ping(format: Format, bytes: usize) -> Message {
    match format {
        Format::Protobuf => {
            // An unknown field 9, beside the command, as long as it takes; its length takes three
            // bytes.
            let mut frame = vec![0x08, 9, 0xa2, 0x01, 0, 0x4a];
            let mut length = bytes - frame.len() - 3;
            while length >= 0x80 {
                frame.push(length as u8 | 0x80);
                length >>= 7;
            }
            frame.push(length as u8);
            frame.resize(bytes, 7);
            Message::binary(frame)
        }
        _ => Message::text(padded(r#"{"id": 9, "ping": {}}"#, bytes)),
    }
}

/// JSON with blanks behind it.
fn padded(json: &str, bytes: usize) -> String {
    json.to_owned() + &" ".repeat(bytes - json.len())
}

pub(crate) async fn a_frame_over_the_limit_closes_with_1009(set: Set) {
    let world = World::shared(set).await;
    let ana = world.person("ana");
    for (format, limit) in [(Format::Json, 1_310_720), (Format::Protobuf, 524_288)] {
        for greeted in [true, false] {
            let mut socket = ana.socket("phone", format).await;
            if greeted {
                socket.say(json!({"id": 1, "hello": {"deviceId": "phone"}})).await;
                assert!(socket.frame().await["welcome"].is_object());
                socket.send(ping(format, limit)).await;
                let pong = socket.frame().await;
                assert_eq!(
                    (&pong["replyTo"], &pong["pong"]),
                    (&json!(9), &json!({})),
                    "at the limit"
                );
            }
            socket.send(ping(format, limit + 1)).await;
            assert_eq!(socket.closed().await.0, 1009, "{format:?}, greeted: {greeted}");
        }
    }
    // Over HTTP a body over the limit is 413.
    let body = padded("{}", 1_310_721);
    let _ = ana.http("phone").post_text("/v1/messages", &body).await.problem(413);
    let _ = ana.http("phone").post_text("/v1/messages", &body[..1_310_720]).await.problem(400);
}

pub(crate) async fn a_newer_socket_replaces_the_older(set: Set) {
    let world = World::shared(set).await;
    let ana = world.person("ana");
    let (mut old, mut laptop) = (ana.device("phone").await, ana.device("laptop").await);
    let mut new = ana.device("phone").await;
    assert_eq!(old.socket.closed().await.0, 4503);
    new.send(json!({"to": ana.id, "clientMessageId": "k", "text": "x"})).await;
    assert_eq!(new.message().await["text"], "x");
    assert_eq!(laptop.message().await["text"], "x", "another device stays");
}

pub(crate) async fn a_token_that_ends_closes_with_4004(set: Set) {
    let world = World::shared(set).await;
    let ana = world.person("ana");
    let now = SystemClock.now_ms();
    let short = ana.token_for("phone", Duration::from_secs(3), now);
    let open = async |device: &str, token: &str| {
        let socket = Socket::open(world.url(), Some(token), Format::Json).await.expect("good");
        Device::hello(socket, &ana.id, device, None).await
    };
    let mut ends = open("phone", &short).await;
    let laptop = ana.token_for("laptop", Duration::from_secs(3), now);
    let mut renews = open("laptop", &laptop).await;
    // Renewed in time; not with what is not theirs, or not good.
    for (token, status) in [
        (world.person("ben").token("laptop"), 403),
        (ana.token("phone"), 403),
        ("nonsense".to_owned(), 401),
    ] {
        let reply = renews.command(json!({"authenticate": {"token": token}})).await;
        assert_eq!(reply["error"]["status"], status, "{reply}");
    }
    let reply = renews.command(json!({"authenticate": {"token": ana.token("laptop")}})).await;
    let expires_at = reply["authenticated"]["expiresAt"].as_str().expect("a time");
    assert!(expires_at > renews.welcome["expiresAt"].as_str().expect("a time"), "{reply}");
    assert_eq!(ends.socket.closed().await.0, 4004);
    assert!(SystemClock.now_ms() >= now / 1000 * 1000 + 3000, "not before its time");
    assert!(renews.command(json!({"ping": {}})).await["pong"].is_object(), "renewed in time");
}

pub(crate) async fn silence_closes_with_4005(set: Set) {
    let world = World::small(set).await;
    let ana = world.person("ana");
    let (mut silent, mut lively) = (ana.device("phone").await, ana.device("laptop").await);
    assert_eq!(silent.welcome["heartbeatSeconds"], 1);
    let (begun, closed) = (Instant::now(), Cell::new(false));
    // Three times in each heartbeat.
    let mut pace = tokio::time::interval(Duration::from_millis(333));
    let pinging = async {
        while !closed.get() {
            pace.tick().await;
            assert!(lively.command(json!({"ping": {}})).await["pong"].is_object());
        }
    };
    let hearing = async {
        let heard = silent.socket.hear().await;
        closed.set(true);
        heard
    };
    let (heard, ()) = tokio::join!(hearing, pinging);
    assert!(matches!(heard, Heard::Closed(4005)), "{heard:?}");
    assert!(begun.elapsed() >= Duration::from_millis(1_900), "after two heartbeats");
    assert!(lively.command(json!({"ping": {}})).await["pong"].is_object(), "any frame counts");
}

/// Eight megabytes wait for a socket that takes nothing for longer than a host waits, then little
/// by little. They are one write here, so what the client does take does not renew its time.
pub(crate) async fn a_client_that_does_not_read_is_cut_with_4003_and_loses_nothing(set: Set) {
    const MESSAGES: usize = 80;
    const WRITE_SECONDS: u64 = 1;
    let change = |config: &mut chaski::config::Config| {
        config.delivery.write_seconds = WRITE_SECONDS;
        config.delivery.burst_bytes = 64 << 20;
        config.delivery.ring_bytes = 64 << 20;
    };
    let world = World::start(set, change).await;
    let (ana, ben) = (world.person("ana"), world.person("ben"));
    let (mut phone, mut laptop) = (ana.device("phone").await, ben.device("laptop").await);
    let long = |n: usize| format!("{n} {}", "x".repeat(99_990));
    let message =
        |n: usize| json!({"to": ben.id, "clientMessageId": n.to_string(), "text": long(n)});
    let mut all = Vec::new();
    for some in (0..MESSAGES).collect::<Vec<_>>().chunks(20) {
        phone.send_all(some.iter().map(|n| message(*n))).await;
        all.extend(laptop.events(some.len()).await);
    }

    let slow = ben.socket("phone", Format::Json).await;
    let begun = Instant::now();
    let mut slow = Device::hello(slow, &ben.id, "phone", Some(0)).await;
    // It is not read meanwhile: half a time more than it has.
    tokio::time::sleep(Duration::from_millis(1500 * WRITE_SECONDS)).await;
    let mut pace = tokio::time::interval(Duration::from_millis(50));
    let mut shown = Vec::new();
    let code = loop {
        pace.tick().await;
        match slow.socket.hear().await {
            Heard::Frame(frame) => shown.push(frame),
            Heard::Closed(code) => break code,
        }
    };
    assert_eq!(code, 4003, "after {} of {MESSAGES}", shown.len());
    assert!(begun.elapsed() >= Duration::from_secs(WRITE_SECONDS), "not before its time");
    assert!(shown.len() < MESSAGES, "it was cut before it had everything");
    // Where it stopped, it goes on.
    let place = shown.last().expect("the first ones fit in between")["position"].clone();
    let place = place.as_str().and_then(|place| place.parse().ok()).expect("a position");
    let mut back = ben.resume("phone", place).await;
    shown.extend(back.events(MESSAGES - shown.len()).await);
    assert!(shown == all, "the same events as on the laptop, each once");
    back.socket.close().await;
    world.end().await;
}
