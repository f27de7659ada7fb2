//! What people say to each other, seen from every side.

use chaski_tests::{Caller, Device, Set, World, random, until};
use serde_json::{Value, json};

/// The fields by which a message is known.
fn place(message: &Value) -> (String, String, String) {
    let text = |field: &str| message[field].as_str().expect("a string").to_owned();
    (text("chatId"), text("seq"), text("messageId"))
}

pub(crate) async fn a_message_by_http_reaches_every_device(set: Set) {
    let world = World::shared(set).await;
    let (ana, ben) = (world.person("ana"), world.person("ben"));
    let mut devices = [
        ana.device("phone").await,
        ana.device("laptop").await,
        ben.device("phone").await,
        ben.device("laptop").await,
    ];
    let attachment = json!({"id": "a", "size": "18446744073709551615",
        "contentType": "image/png", "sha256": "q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s="});
    let sent = json!({"to": ben.id, "clientMessageId": "m1", "text": "Grüße",
        "attachments": [attachment], "sentAt": "2026-01-02T03:04:05.678Z"});
    let answer = ana.http("phone").post("/v1/messages", &sent).await;
    let accepted = answer.expect(200);
    assert_eq!(accepted["clientMessageId"], "m1");
    let back = json!({"chatId": accepted["chatId"], "clientMessageId": "m1", "text": "back"});
    let answer = ben.http("phone").post("/v1/messages", &back).await.expect(200);
    assert_ne!(answer["messageId"], accepted["messageId"], "the sender belongs to the id");

    let mut positions = Vec::new();
    for device in &mut devices {
        let first = device.event().await;
        let message = &first["newMessage"];
        for (field, value) in [
            ("chatId", &accepted["chatId"]),
            ("messageId", &accepted["messageId"]),
            ("clientMessageId", &json!("m1")),
            ("seq", &json!("1")),
            ("senderId", &json!(ana.id)),
            ("senderDeviceId", &json!("phone")),
            ("text", &json!("Grüße")),
            ("attachments", &sent["attachments"]),
            ("sentAt", &sent["sentAt"]),
        ] {
            assert_eq!(&message[field], value, "{field} in {first}");
        }
        let accepted_at = message["acceptedAt"].as_str().expect("a time");
        assert!(accepted_at.len() == 24 && accepted_at.ends_with('Z'), "{accepted_at}");
        let second = device.event().await;
        assert_eq!(
            (&second["newMessage"]["seq"], &second["newMessage"]["text"]),
            (&json!("2"), &json!("back"))
        );
        positions.push((first["position"].clone(), second["position"].clone()));
    }
    assert_eq!(positions[0], positions[1], "L4: one order for ana's devices");
    assert_eq!(positions[2], positions[3], "L4: one order for ben's devices");
}

pub(crate) async fn a_message_by_websocket_is_accepted_and_echoed(set: Set) {
    let world = World::shared(set).await;
    let (ana, ben) = (world.person("ana"), world.person("ben"));
    let (mut phone, mut other) = (ana.device("phone").await, ben.device("phone").await);
    let message = json!({"to": ben.id, "clientMessageId": "m1", "ciphertext": "AP8A"});
    let accepted = phone.send(message).await;
    assert_eq!(accepted["clientMessageId"], "m1");
    assert!(!accepted["token"].as_str().expect("text").is_empty());
    let (echo, received) = (phone.message().await, other.message().await);
    assert_eq!(echo, received, "the echo is what the others get");
    assert_eq!(
        (&echo["messageId"], &echo["chatId"]),
        (&accepted["messageId"], &accepted["chatId"])
    );
    assert_eq!((&echo["ciphertext"], echo.get("text")), (&json!("AP8A"), None));
    assert_eq!(echo["attachments"], json!([]), "defaults are emitted");

    // To oneself: a chat of one.
    phone.send(json!({"to": ana.id, "clientMessageId": "note", "text": "milk"})).await;
    let note = phone.message().await;
    assert_eq!((&note["seq"], &note["text"]), (&json!("1"), &json!("milk")));
    assert_ne!(note["chatId"], echo["chatId"]);
    // Who does not know the other, but the chat's id, reaches the same chat.
    other.send(json!({"to": ana.id, "clientMessageId": "m2", "text": "hi"})).await;
    assert_eq!(place(&other.message().await).0, place(&echo).0, "one chat for the two");
    assert_eq!(phone.message().await["seq"], "2");
}

pub(crate) async fn a_chat_is_made_once(set: Set) {
    let world = World::shared(set).await;
    let (ana, ben, eva) = (world.person("ana"), world.person("ben"), world.person("eva"));
    let mut devices =
        [ana.device("phone").await, ben.device("phone").await, eva.device("phone").await];
    let chat = |key: &str, others: &[&str], name: &str| json!({"participants": others, "name": name, "clientChatId": key, "history": "ALL"});
    let (both, http) = ([ben.id.as_str(), eva.id.as_str()], ana.http("laptop"));
    let command = |chat: Value| json!({"createChat": chat});

    let made = devices[0].command(command(chat("c1", &both, "us"))).await;
    let by_socket = made["chatCreated"]["chatId"].as_str().expect("made").to_owned();
    assert!(by_socket.starts_with("g."), "{by_socket}");
    // The same again, over either way and in another order; the caller may be listed.
    let again = devices[0].command(command(chat("c1", &[&eva.id, &ben.id, &ana.id], "us"))).await;
    assert_eq!(again["chatCreated"]["chatId"], json!(by_socket), "{again}");
    let answer = http.post("/v1/chats", &chat("c1", &both, "us")).await;
    assert_eq!(answer.expect(200), json!({"chatId": by_socket}));
    // The same key for something else.
    for other in [chat("c1", &both[..1], "us"), chat("c1", &both, "them")] {
        let refused = devices[0].command(command(other.clone())).await;
        assert_eq!(refused["error"]["status"], 409, "{refused}");
        let _ = http.post("/v1/chats", &other).await.problem(409);
    }
    let answer = http.post("/v1/chats", &chat("c2", &both, "")).await;
    let _ = answer.token();
    let by_http = answer.expect(201)["chatId"].as_str().expect("made").to_owned();
    assert_ne!(by_http, by_socket);
    assert_eq!(http.post("/v1/chats", &chat("c2", &both, "")).await.expect(200)["chatId"], by_http);

    // Each chat was told once, to everybody.
    for device in &mut devices {
        for (chat_id, name) in [(&by_socket, "us"), (&by_http, "")] {
            let update = device.event().await["chatUpdate"].clone();
            assert_eq!(
                update,
                json!({"chatId": chat_id, "seq": "1", "participants": [ana.id, ben.id, eva.id],
                    "roles": ["ADMIN", "MEMBER", "MEMBER"], "name": name, "version": "1",
                    "visibleFrom": "1"})
            );
        }
    }
    let view = eva.http("phone").get(&format!("/v1/chats/{by_socket}")).await;
    let view = until_listed(view, || eva.http("phone"), &by_socket).await;
    assert_eq!((&view["name"], &view["lastSeq"]), (&json!("us"), &json!("1")), "{view}");
    assert_eq!(view["visibleFrom"], "1");
}

/// What was shown is in the reads within 5 s.
async fn until_listed(
    first: chaski_tests::Answer,
    caller: impl Fn() -> Caller,
    chat: &str,
) -> Value {
    if first.status == 200 {
        return first.body;
    }
    until("the chat is listed", || async {
        let answer = caller().get(&format!("/v1/chats/{chat}")).await;
        (answer.status == 200).then_some(answer.body)
    })
    .await
}

pub(crate) async fn history_inbox_and_sockets_agree(set: Set) {
    let world = World::shared(set).await;
    let people = [world.person("ana"), world.person("ben"), world.person("eva")];
    let mut devices: Vec<Device> = Vec::new();
    for person in &people {
        devices.push(person.device("phone").await);
    }
    let others = [&people[1].id, &people[2].id];
    let made = json!({"createChat": {"participants": others, "clientChatId": "c"}});
    let made = devices[0].command(made).await["chatCreated"].clone();
    let chat = made["chatId"].as_str().expect("made").to_owned();
    let mut last_token = String::new();
    for n in 0..20 {
        let text =
            json!({"chatId": chat, "clientMessageId": format!("m{n}"), "text": format!("{n}")});
        let accepted = devices[n % 3].send(text).await;
        last_token = accepted["token"].as_str().expect("text").to_owned();
    }
    let mut shown: Vec<Vec<Value>> = Vec::new();
    for device in &mut devices {
        shown.push(device.events(21).await);
    }
    let body = |event: &Value| match event.get("newMessage") {
        Some(message) => message.clone(),
        None => json!({"seq": event["chatUpdate"]["seq"], "chatUpdate": event["chatUpdate"]}),
    };
    for (n, (person, shown)) in people.iter().zip(&shown).enumerate() {
        let http = person.http("phone");
        let path = format!("/v1/chats/{chat}/messages");
        if n == 19 % 3 {
            let _ = http.get_seeing(&path, &last_token).await.expect(200);
        }
        until("all is stored", || async {
            let page = http.get(&format!("{path}?after=0&limit=500")).await.body;
            (page["messages"].as_array().is_some_and(|list| list.len() == 21)).then_some(())
        })
        .await;
        let expected: Vec<Value> = shown.iter().map(body).collect();
        let seqs: Vec<_> = expected.iter().map(|item| item["seq"].clone()).collect();
        assert_eq!(seqs, (1..=21).map(|s| json!(s.to_string())).collect::<Vec<_>>(), "L3");
        for direction in ["after", "before"] {
            let from = if direction == "after" { "&after=0" } else { "" };
            let first = http.get(&format!("{path}?limit=500{from}")).await.expect(200);
            assert_eq!(first["messages"], json!(expected), "{direction}, in one page");
        }
        assert_eq!(http.pages(&path, "messages", "before", 7).await, expected, "back in pages");
        let mut forward = http.get(&format!("{path}?after=0&limit=7")).await.expect(200);
        let mut all = Vec::new();
        loop {
            all.extend(forward["messages"].as_array().expect("a list").clone());
            let Some(next) = forward["next"].as_str() else { break };
            forward = http.get(&format!("{path}?limit=7&after={next}")).await.expect(200);
        }
        assert_eq!(all, expected, "forward in pages");

        until("the inbox is complete", || async {
            (http.pages("/v1/inbox", "events", "after", 500).await.len() == 21).then_some(())
        })
        .await;
        assert_eq!(&http.pages("/v1/inbox", "events", "after", 4).await, shown, "the inbox");
        let with_position = |event: &Value| {
            let mut message = event["newMessage"].clone();
            message["position"] = event["position"].clone();
            message
        };
        let messages = shown.iter().filter(|event| event.get("newMessage").is_some());
        let (sent, received): (Vec<_>, Vec<_>) =
            messages.partition(|event| event["newMessage"]["senderId"] == json!(person.id));
        for (list, expected) in
            [("sent", &sent), ("received", &received), ("unreceived", &received)]
        {
            let path = format!("/v1/messages/{list}");
            let listed = http.pages(&path, "messages", "after", 3).await;
            let expected: Vec<_> = expected.iter().map(|event| with_position(event)).collect();
            assert_eq!(listed, expected, "{list}");
        }
    }

    // Acknowledged is received, by this device and no other.
    let (ben, ben_shown) = (&people[1], &shown[1]);
    let tenth = ben_shown[9]["position"].as_str().expect("a string").parse().expect("a number");
    devices[1].ack(tenth).await;
    let rest =
        ben_shown[10..].iter().filter(|event| event["newMessage"]["senderId"] != json!(ben.id));
    let rest: Vec<_> = rest.map(|event| event["position"].clone()).collect();
    let http = ben.http("phone");
    until("the cursor is saved", || async {
        let list = http.pages("/v1/messages/unreceived", "messages", "after", 500).await;
        let list: Vec<_> = list.iter().map(|message| message["position"].clone()).collect();
        (list == rest).then_some(())
    })
    .await;
    let other = ben.http("laptop").pages("/v1/messages/unreceived", "messages", "after", 500).await;
    assert!(other.len() > rest.len(), "another device has its own cursor");
}

pub(crate) async fn a_write_token_shows_the_write(set: Set) {
    let world = World::shared(set).await;
    let (ana, ben) = (world.person("ana"), world.person("ben"));
    let (http, mut phone) = (ana.http("laptop"), ana.device("phone").await);
    let mut newest = String::new();
    for n in 0..10 {
        let message =
            json!({"to": ben.id, "clientMessageId": format!("m{n}"), "text": format!("{n}")});
        let (chat, token) = if n % 2 == 0 {
            let answer = http.post("/v1/messages", &message).await;
            let token = answer.token();
            (answer.expect(200)["chatId"].clone(), token)
        } else {
            let accepted = phone.send(message).await;
            (accepted["chatId"].clone(), accepted["token"].as_str().expect("text").to_owned())
        };
        let chat = chat.as_str().expect("text");
        let history = http.get_seeing(&format!("/v1/chats/{chat}/messages"), &token).await;
        let history = history.expect(200)["messages"].clone();
        assert_eq!(history[n]["text"], n.to_string(), "history");
        let inbox = http.get_seeing("/v1/inbox", &token).await.expect(200);
        assert_eq!(inbox["events"][n]["newMessage"]["text"], n.to_string(), "inbox");
        let chats = http.get_seeing("/v1/chats", &token).await.expect(200)["chats"].clone();
        assert_eq!(chats[0]["lastSeq"], (n + 1).to_string(), "chats");
        assert_eq!(chats[0]["lastMessage"]["text"], n.to_string(), "chats");
        newest = token;
    }
    let _ = http.get_seeing("/v1/inbox", "not a token").await.problem(400);
    // A write that never came: not "empty", but "not yet".
    let (start, _) = newest.rsplit_once('.').expect("opaque to clients, not to this test");
    let late = http.get_seeing("/v1/inbox", &format!("{start}.99999999999999")).await;
    assert!(late.headers.contains_key("retry-after"));
    let _ = late.problem(503);
}

pub(crate) async fn a_retry_is_the_same_message(set: Set) {
    let world = World::shared(set).await;
    let (ana, ben) = (world.person("ana"), world.person("ben"));
    let (http, mut phone) = (ana.http("laptop"), ana.device("phone").await);
    let mut other = ben.device("phone").await;
    let message = json!({"to": ben.id, "clientMessageId": "m1", "text": "once"});
    let first = http.post("/v1/messages", &message).await.expect(200);
    for _ in 0..2 {
        let again = http.post("/v1/messages", &message).await.expect(200);
        assert_eq!(again, first, "every answer names the same message");
        let again = phone.send(message.clone()).await;
        assert_eq!(
            (&again["messageId"], &again["chatId"]),
            (&first["messageId"], &first["chatId"])
        );
    }
    // By the chat's id instead of the person: the same message.
    let by_chat = json!({"chatId": first["chatId"], "clientMessageId": "m1", "text": "once"});
    assert_eq!(phone.send(by_chat).await["messageId"], first["messageId"]);
    // Other content under the same id, by both ways and repeated: refused once.
    let changed = json!({"to": ben.id, "clientMessageId": "m1", "text": "twice"});
    for _ in 0..2 {
        let accepted = phone.send(changed.clone()).await;
        assert_eq!(accepted["messageId"], first["messageId"]);
        let accepted = http.post("/v1/messages", &changed).await.expect(200);
        assert_eq!(accepted["messageId"], first["messageId"]);
    }
    phone.send(json!({"to": ben.id, "clientMessageId": "m2", "text": "end"})).await;

    assert_eq!(phone.message().await["text"], "once");
    let rejected = phone.event().await["messageRejected"].clone();
    assert_eq!(
        (&rejected["status"], &rejected["messageId"], &rejected["clientMessageId"]),
        (&json!(409), &first["messageId"], &json!("m1")),
        "{rejected}"
    );
    for device in [&mut phone, &mut other] {
        if device.position == 0 {
            assert_eq!(device.message().await["text"], "once");
        }
        let end = device.message().await;
        assert_eq!((&end["text"], &end["seq"]), (&json!("end"), &json!("2")), "no seq was used");
    }
}

pub(crate) async fn texts_are_kept_byte_for_byte(set: Set) {
    let world = World::shared(set).await;
    let (ana, ben) = (world.person("ana"), world.person("ben"));
    let mut other = ben.device("phone").await;
    let http = ana.http("phone");
    // Normal forms stay apart; nothing is trimmed; a zero is a character.
    for text in ["é", "e\u{301}", " \r\n\t ", "a\u{0}b", "\u{feff}x", "👩‍👩‍👧 \u{10ffff}", "\"\\/<>&"]
    {
        let message = json!({"to": ben.id, "clientMessageId": random(), "text": text});
        let accepted = http.post("/v1/messages", &message).await;
        let token = accepted.token();
        let chat = accepted.expect(200)["chatId"].as_str().expect("text").to_owned();
        assert_eq!(other.message().await["text"], text);
        let path = format!("/v1/chats/{chat}/messages?limit=1");
        let stored = http.get_seeing(&path, &token).await.expect(200);
        assert_eq!(stored["messages"][0]["text"], text, "history");
    }
}
