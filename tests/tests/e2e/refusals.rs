//! What is refused, how, and that nothing comes of it.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use chaski_auth::DevKey;
use chaski_ports::{Clock as _, SystemClock};
use chaski_tests::{Caller, Device, Format, Set, Socket, World, random, until};
use serde_json::{Value, json};
use std::time::Duration;
use tokio_tungstenite::tungstenite::Message;

pub(crate) async fn strangers_are_rejected_once_and_nobody_sees(set: Set) {
    let world = World::shared(set).await;
    let (ana, ben, eva) = (world.person("ana"), world.person("ben"), world.person("eva"));
    let (mut ana_s, mut ben_s) = (ana.device("phone").await, ben.device("phone").await);
    let (mut eva_s, mut eva_2) = (eva.device("phone").await, eva.device("laptop").await);
    let first = json!({"to": ben.id, "clientMessageId": "m1", "text": "private"});
    let chat = ana_s.send(first).await["chatId"].clone();
    let unknown = format!("g.{}", "0".repeat(32));
    let (_, direct) = chat.as_str().expect("text").split_once('.').expect("d.<hash>");
    let unknown =
        if direct.len() == 32 { unknown } else { format!("g.{}", "0".repeat(direct.len())) };
    let cases = [(chat.clone(), "x1", 403), (json!(unknown), "x2", 404)];
    for (chat, key, _) in &cases {
        let message = json!({"chatId": chat, "clientMessageId": key, "text": "let me in"});
        let accepted = eva_s.send(message.clone()).await;
        // A retry, by the other way, is accepted again and has no second effect.
        let again = eva.http("laptop").post("/v1/messages", &message).await.expect(200);
        assert_eq!(again["messageId"], accepted["messageId"]);
    }
    // Marks behind it in every order that could be disturbed.
    eva_s.send(json!({"to": eva.id, "clientMessageId": "end", "text": "end"})).await;
    ana_s.send(json!({"to": ben.id, "clientMessageId": "m2", "text": "end"})).await;

    for device in [&mut eva_s, &mut eva_2] {
        let mut rejected = Vec::new();
        loop {
            let event = device.event().await;
            match event.get("messageRejected") {
                Some(rejection) => rejected.push(rejection.clone()),
                None => break assert_eq!(event["newMessage"]["text"], "end", "{event}"),
            }
        }
        rejected.sort_by_key(|rejection| rejection["status"].as_u64());
        // The chats are apart, so the end can overtake a rejection.
        while rejected.len() < cases.len() {
            rejected.push(device.event().await["messageRejected"].clone());
            rejected.sort_by_key(|rejection| rejection["status"].as_u64());
        }
        for ((chat, key, status), rejection) in cases.iter().zip(&rejected) {
            assert_eq!(
                (&rejection["chatId"], &rejection["clientMessageId"], &rejection["status"]),
                (chat, &json!(key), &json!(status)),
                "{rejection}"
            );
            assert_eq!(rejection["byUserId"], "", "the chat itself");
        }
    }
    for device in [&mut ana_s, &mut ben_s] {
        assert_eq!(device.message().await["text"], "private");
        let end = device.message().await;
        assert_eq!((&end["text"], &end["seq"]), (&json!("end"), &json!("2")), "no seq was used");
    }
    // Nor may a stranger look.
    let http = eva.http("phone");
    let chat = chat.as_str().expect("text");
    let history = format!("/v1/chats/{chat}/messages");
    until("the chat is stored", || async {
        (http.get(&history).await.status != 404).then_some(())
    })
    .await;
    let _ = http.get(&history).await.problem(403);
    let _ = http.get(&format!("/v1/chats/{chat}")).await.problem(403);
    let _ = http.get(&format!("/v1/chats/{unknown}/messages")).await.problem(404);
    let _ = http.get("/v1/chats/nonsense/messages").await.problem(400);
}

/// Gives each command by both ways; each must be refused with 400, the socket staying open.
async fn refuse(device: &mut Device, http: &Caller, command: &str, bodies: &[Value]) {
    let path = if command == "createChat" { "/v1/chats" } else { "/v1/messages" };
    for body in bodies {
        let told: String = body.to_string().chars().take(80).collect();
        let reply = device.command(json!({command: body})).await;
        assert_eq!(reply["error"]["status"], 400, "{told}: {reply}");
        assert!(reply["error"]["message"].as_str().is_some_and(|m| !m.is_empty()));
        let answer = http.post(path, body).await;
        assert_eq!(answer.status, 400, "{told}");
        assert_eq!(answer.problem(400), reply["error"]["code"].as_str().expect("text"), "{told}");
    }
}

pub(crate) async fn illegal_values_are_refused_and_nothing_is_written(set: Set) {
    let world = World::shared(set).await;
    let (ana, ben) = (world.person("ana"), world.person("ben"));
    let (mut phone, http) = (ana.device("phone").await, ana.http("phone"));
    let mut other = ben.device("phone").await;
    let with = |field: &str, value: Value| {
        let mut message = json!({"to": ben.id, "clientMessageId": random(), "text": "x"});
        message[field] = value;
        message
    };
    let without = |field: &str| {
        let mut message = with("text", json!("x"));
        message.as_object_mut().expect("an object").remove(field);
        message
    };
    let attachment = |sha256: &str| json!([{"id": "a", "sha256": sha256}]);
    let messages = [
        json!({}),
        without("to"),
        without("text"),
        without("clientMessageId"),
        with("text", json!("")),
        with("text", json!(1)),
        with("ciphertext", json!("AA==")), // beside text
        with("chatId", json!("d.0")),      // beside to
        with("to", json!("")),
        with("to", json!("a b")),
        with("to", json!("ä")),
        with("to", json!("x".repeat(65))),
        with("to", json!("a/b")),
        with("clientMessageId", json!("")),
        with("clientMessageId", json!("é")),
        with("clientMessageId", json!("a\nb")),
        with("clientMessageId", json!("x".repeat(65))),
        with("attachments", attachment("AA==")),
        with("attachments", json!([{"sha256": "q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s="}])),
        with("sentAt", json!("1969-12-31T23:59:59Z")),
        with("sentAt", json!("now")),
        json!({"chatId": "x", "clientMessageId": "k", "text": "x"}),
        json!({"chatId": "g.%", "clientMessageId": "k", "text": "x"}),
        json!({"to": ben.id, "clientMessageId": "k", "ciphertext": ""}),
        json!({"to": ben.id, "clientMessageId": "k", "ciphertext": "*"}),
    ];
    refuse(&mut phone, &http, "sendMessage", &messages).await;
    let chat = |participants: Value| json!({"participants": participants, "clientChatId": "c"});
    let chats = [
        json!({}),
        json!({"participants": [ben.id]}),
        chat(json!([ben.id, ben.id])),
        chat(json!([ana.id, ben.id, ana.id])),
        chat(json!([""])),
        chat(json!(["a b"])),
        chat(json!(ben.id)),
        json!({"participants": [ben.id], "clientChatId": "x".repeat(65)}),
        json!({"participants": [ben.id], "clientChatId": "c", "history": "SOME"}),
    ];
    refuse(&mut phone, &http, "createChat", &chats).await;
    for body in ["", "{", "[]", "null", "\"x\"", "{} {}", "\u{0}"] {
        let _ = http.post_text("/v1/messages", body).await.problem(400);
        let _ = http.post_text("/v1/chats", body).await.problem(400);
    }
    for query in
        ["limit=0", "limit=501", "limit=-1", "limit=x", "after=x", "after=-1", "after=1&after=2"]
    {
        let _ = http.get(&format!("/v1/inbox?{query}")).await.problem(400);
    }

    // Nothing of all that is anywhere.
    phone.send(json!({"to": ben.id, "clientMessageId": "k", "text": "first"})).await;
    for device in [&mut phone, &mut other] {
        let first = device.message().await;
        assert_eq!((&first["text"], &first["seq"]), (&json!("first"), &json!("1")));
    }
}

pub(crate) async fn limits_hold_at_the_limit_and_one_past_it(set: Set) {
    let world = World::shared(set).await;
    let (ana, ben) = (world.person("ana"), world.person("ben"));
    let (mut phone, http) = (ana.device("phone").await, ana.http("phone"));
    let mut other = ben.device("phone").await;
    let base64 = |bytes: usize| base64::prelude::BASE64_STANDARD.encode(vec![7_u8; bytes]);
    let sha256 = base64(32);
    let attachments = |count: usize| -> Value {
        (0..count).map(|n| json!({"id": n.to_string(), "sha256": sha256})).collect()
    };
    let message = |key: &str, field: &str, value: Value| {
        let mut message = json!({"to": ben.id, "clientMessageId": key});
        message[field] = value;
        message
    };
    let key = "k".repeat(64);
    let with_attachments = |count: usize| {
        let mut message = message(&random(), "text", json!("x"));
        message["attachments"] = attachments(count);
        message
    };
    // Four bytes each in UTF-8: scalar values are counted, not bytes.
    for (within, past) in [
        (
            message("t", "text", json!("𝄞".repeat(100_000))),
            message("u", "text", json!("𝄞".repeat(100_001))),
        ),
        (
            message("c", "ciphertext", json!(base64(400_000))),
            message("d", "ciphertext", json!(base64(400_001))),
        ),
        (message(&key, "text", json!("x")), message(&"k".repeat(65), "text", json!("x"))),
        (with_attachments(10), with_attachments(11)),
    ] {
        refuse(&mut phone, &http, "sendMessage", &[past]).await;
        phone.send(within.clone()).await;
        let (echo, received) = (phone.message().await, other.message().await);
        assert_eq!(echo, received);
        for field in ["text", "ciphertext"] {
            assert_eq!(received.get(field), within.get(field), "{field}");
        }
    }
    let people =
        |count: usize| -> Vec<String> { (0..count).map(|_| world.person("p").id).collect() };
    let chat = |key: &str, participants: Vec<String>| json!({"participants": participants, "clientChatId": key});
    let with_caller = |count| [people(count), vec![ana.id.clone()]].concat();
    let past =
        [chat("past", people(100)), chat("past", with_caller(100)), chat("past", people(101))];
    refuse(&mut phone, &http, "createChat", &past).await;
    // The caller counts, whether listed or not.
    for (key, participants) in [("99", people(99)), ("100", with_caller(99))] {
        let _ = http.post("/v1/chats", &chat(key, participants)).await.expect(201);
        let update = phone.event().await["chatUpdate"].clone();
        assert_eq!(update["participants"].as_array().map(Vec::len), Some(100), "{update}");
    }
}

/// What a token looks like whose parts are these, signed or not.
fn token(header: &Value, claims: &Value, signature: &[u8]) -> String {
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{}", part(header), part(claims), BASE64_URL_SAFE_NO_PAD.encode(signature))
}

pub(crate) async fn bad_tokens_open_nothing(set: Set) {
    let world = World::shared(set).await;
    let ana = world.person("ana");
    let now = SystemClock.now_ms();
    let good = ana.token("phone");
    let (hour, claims) = (Duration::from_secs(3600), good.split('.').nth(1).expect("claims"));
    let dir = tempfile::tempdir().expect("a directory");
    let stranger = DevKey::load_or_create(dir.path().join("key.pem")).expect("a key");
    let (user, phone) = (ana.id.parse().expect("legal"), "phone".parse().expect("legal"));
    let all = json!({"sub": ana.id, "device": "phone", "iat": now / 1000, "exp": now / 1000 + 60});
    let (head, signature) = good.rsplit_once('.').expect("three parts");
    let other_claims = good.replacen(
        claims,
        &BASE64_URL_SAFE_NO_PAD
            .encode(json!({"sub": "root", "device": "phone", "iat": 1, "exp": now}).to_string()),
        1,
    );
    let bad = [
        ("expired", ana.token_for("phone", hour, now - 3_601_000)),
        ("not yet valid", ana.token_for("phone", hour, now + 60_000)),
        ("signed by a stranger", stranger.sign(&user, &phone, hour, now)),
        ("other claims under a good signature", other_claims),
        ("no signature", token(&json!({"alg": "none", "typ": "JWT"}), &all, b"")),
        ("a wrong algorithm", token(&json!({"alg": "HS256", "typ": "JWT"}), &all, &[1; 32])),
        ("a cut signature", format!("{head}.{}", &signature[..signature.len() - 4])),
        ("no token at all", "nonsense".into()),
        ("empty", String::new()),
        ("too long", "x".repeat(5000)),
    ];
    for (what, token) in &bad {
        let caller = Caller::new(world.url(), token.clone());
        let answer = caller.get("/v1/inbox").await;
        assert!(answer.headers.contains_key("www-authenticate"), "{what}");
        let _ = answer.problem(401);
        let message = json!({"to": ana.id, "clientMessageId": "k", "text": what});
        let _ = caller.post("/v1/messages", &message).await.problem(401);
        let _ = caller.get("/v1/hosts/me").await.problem(401);
        let upgraded = Socket::open(world.url(), Some(token), Format::Json).await;
        assert_eq!(upgraded.err(), Some(401), "{what} at the upgrade");
        refused_in_hello(world, json!({"deviceId": "phone", "token": token}), what).await;
    }
    // Never in the query string.
    let caller = Caller::new(world.url(), String::new());
    let _ = caller.get(&format!("/v1/inbox?access_token={good}&token={good}")).await.problem(401);
    refused_in_hello(world, json!({"deviceId": "phone"}), "no token").await;
    refused_in_hello(world, json!({"deviceId": "laptop", "token": good}), "another device").await;
    // The good one, in `hello`.
    let mut socket =
        Socket::open(world.url(), None, Format::Json).await.expect("no token needed yet");
    socket.say(json!({"id": 1, "hello": {"deviceId": "phone", "token": good}})).await;
    assert_eq!(socket.frame().await["welcome"]["userId"], json!(ana.id));
    assert_eq!(ana.http("phone").get("/v1/inbox").await.expect(200)["events"], json!([]));
    let place = ana.http("phone").get("/v1/hosts/me").await.expect(200);
    let expected = format!("{}/v1/ws", world.url().replacen("http", "ws", 1));
    assert_eq!(place["url"], json!(expected), "the host's own address");
}

async fn refused_in_hello(world: &World, hello: Value, what: &str) {
    let mut socket = Socket::open(world.url(), None, Format::Json).await.expect("opens");
    socket.say(json!({"id": 7, "hello": hello})).await;
    let (code, frames) = socket.closed().await;
    assert_eq!(code, 4500, "{what}");
    assert_eq!(frames.len(), 1, "{what}: {frames:?}");
    assert_eq!((&frames[0]["replyTo"], &frames[0]["error"]["status"]), (&json!(7), &json!(401)));
}

pub(crate) async fn wrong_frames_leave_the_socket_open(set: Set) {
    let world = World::shared(set).await;
    let ana = world.person("ana");
    let mut phone = ana.device("phone").await;
    for (text, reply_to) in [
        ("", 0),
        ("hello", 0),
        ("{", 0),
        ("[]", 0),
        (r#"{"ping": {}}"#, 0),
        (r#"{"id": -1, "ping": {}}"#, 0),
        (r#"{"id": 9}"#, 9),
        (r#"{"id": 9, "fly": {}}"#, 9),
        (r#"{"id": 9, "ping": {}, "sendMessage": {}}"#, 9),
        (r#"{"id": 9, "ping": 1}"#, 9),
        (r#"{"id": 9, "sendMessage": {"text": 1}}"#, 9),
        (r#"{"id": 9, "ack": {"position": "x"}}"#, 9),
        (r#"{"id": 9, "hello": {"deviceId": "phone"}}"#, 9),
    ] {
        phone.socket.send(Message::text(text)).await;
        let error = phone.socket.frame().await;
        assert_eq!(
            (&error["replyTo"], &error["error"]["status"]),
            (&json!(reply_to), &json!(400)),
            "{text}: {error}"
        );
    }
    let mut binary = ana.socket("laptop", Format::Protobuf).await;
    binary.say(json!({"id": 1, "hello": {"deviceId": "laptop"}})).await;
    assert!(binary.frame().await["welcome"].is_object());
    for (bytes, reply_to) in [
        (vec![0xff_u8], 0),
        (vec![0x08, 9], 9),
        (vec![0x08, 9, 0x9a, 0x06, 0], 9), // an unknown command
        (vec![0x08, 9, 0xa2, 0x01, 0, 0x9a, 0x01, 0], 9), // two commands
    ] {
        binary.send(Message::binary(bytes.clone())).await;
        let error = binary.frame().await;
        assert_eq!(
            (&error["replyTo"], &error["error"]["status"]),
            (&json!(reply_to), &json!(400)),
            "{bytes:?}: {error}"
        );
    }
    // Unknown fields of a newer client are no error.
    let reply = phone.command(json!({"ping": {"mood": "new"}})).await;
    assert_eq!(reply["pong"], json!({}));
    binary.say(json!({"id": 2, "ping": {}})).await;
    assert_eq!(binary.frame().await["pong"], json!({}));
}
