//! What comes too late: messages that a recipient's client refuses, and events that inboxes do not
//! keep any more.

use super::past::{ask, say};
use chaski_core::ChatId;
use chaski_tests::{Set, World, until};
use serde_json::{Value, json};

fn number(value: &Value) -> u64 {
    value.as_str().and_then(|text| text.parse().ok()).expect("a 64-bit number")
}

pub(crate) async fn a_recipient_refuses_a_late_message_once(set: Set) {
    let world = World::shared(set).await;
    let (ana, ben, eva) = (world.person("ana"), world.person("ben"), world.person("eva"));
    let zoe = world.person("zoe");
    let mut senders = [ana.device("phone").await, ana.device("laptop").await];
    let mut bens = [ben.device("phone").await, ben.device("laptop").await];
    let (mut eva_s, mut zoe_s) = (eva.device("phone").await, zoe.device("phone").await);
    let chat = senders[0].group(&[&ben.id, &eva.id], "FROM_JOIN").await;
    let text = |key: &str| json!({"chatId": chat, "clientMessageId": key, "text": key});
    let late = senders[0].send(text("late")).await["messageId"].clone();
    for device in bens.iter_mut().chain([&mut eva_s]) {
        while device.event().await["newMessage"]["messageId"] != late {}
    }
    let reject = |reason: &str, id: &Value| json!({"rejectMessage": {"chatId": chat, "messageId": id, "reason": reason}});
    // At the limit and past it.
    let error = bens[0].command(reject(&"é".repeat(65), &late)).await;
    assert_eq!(error["error"]["status"], 400, "{error}");
    let reason = "é".repeat(64);
    for device in bens.iter_mut().chain([&mut eva_s]) {
        for _ in 0..2 {
            device.tell(reject(&reason, &late)).await;
        }
    }
    // Who is no member, and who wrote it, have no say.
    let strange = zoe_s.command(reject("no", &late)).await;
    assert!(matches!(strange["error"]["status"].as_u64(), Some(403 | 404)), "{strange}");
    let own = senders[1].command(reject("mine", &late)).await;
    assert!(matches!(own["error"]["status"].as_u64(), Some(400 | 403 | 404)), "{own}");
    let unknown = bens[0].command(reject("?", &json!("0".repeat(32)))).await;
    assert!(unknown["error"]["status"].is_u64(), "{unknown}");

    for device in &mut senders {
        assert!(device.event().await["chatUpdate"].is_object());
        assert_eq!(device.message().await["messageId"], late);
        let mut by = Vec::new();
        for _ in 0..2 {
            let event = device.event().await;
            let rejected = event["messageRejected"].clone();
            by.push(rejected["byUserId"].as_str().expect("who").to_owned());
            assert_eq!(
                rejected,
                json!({"chatId": chat, "messageId": late, "clientMessageId": "late",
                    "byUserId": by.last(), "status": 422, "code": "rejected_by_recipient",
                    "reason": reason})
            );
        }
        by.sort();
        assert_eq!(by, [ben.id.clone(), eva.id.clone()], "once for each of them");
    }
    // Everything said above was heard, and nothing came of it but this.
    for device in bens.iter_mut().chain(&mut senders).chain([&mut eva_s]) {
        assert!(device.command(json!({"ping": {}})).await["pong"].is_object());
    }
    bens[0].send(text("end")).await;
    for device in senders.iter_mut().chain([&mut eva_s]) {
        let end = device.message().await;
        assert_eq!((&end["text"], &end["seq"]), (&json!("end"), &json!("3")), "no seq is used");
    }
    let http = eva.http("phone");
    let messages = until("it is stored", || async {
        let page = http.get(&format!("/v1/chats/{chat}/messages")).await.body;
        (page["messages"].as_array()?.len() == 3).then_some(page["messages"].clone())
    })
    .await;
    assert_eq!(messages[1]["messageId"], late, "it stays in history");
}

/// The first messages are from forty days ago; inboxes keep thirty days.
pub(crate) async fn events_that_have_expired_are_told_and_history_has_them(set: Set) {
    let world = World::start(set, |config| config.delivery.ring_bytes = 4_000).await;
    let (ana, ben) = (world.person("ana"), world.person("ben"));
    let mut phone = ben.device("phone").await;
    let log = world.log().await;
    let chat = ChatId::direct(&ana.id.parse().expect("legal"), &ben.id.parse().expect("legal"));
    for n in 0..6 {
        ask(&world, &log, (&ana, 40), (chat, say(&format!("old {n}"), Some(&ben)))).await;
    }
    drop(log);
    // Live they are shown, however old.
    for n in 0..6 {
        assert_eq!(phone.message().await["text"], json!(format!("old {n}")));
        if n == 2 {
            phone.ack(phone.position).await;
        }
    }
    let stopped = phone.position;
    phone.socket.close().await;
    let mut today = Vec::new();
    let mut laptop = ben.resume("laptop", stopped).await;
    for n in 0..10 {
        let long = format!("new {n} {}", "x".repeat(1000));
        let message = json!({"to": ben.id, "clientMessageId": n.to_string(), "text": long});
        let _ = ana.http("phone").post("/v1/messages", &message).await.expect(200);
        today.push(laptop.event().await);
    }
    until("all is stored", || async {
        let inbox = ben.http("x").get("/v1/inbox?limit=500").await.expect(200);
        let events = inbox["events"].as_array().expect("a list").clone();
        (events.last() == today.last()).then_some(())
    })
    .await;
    laptop.socket.close().await;
    world.stop().await;
    world.start_again().await;

    // Both where the cursor is stored and where the device says it itself.
    for after in [None, Some(0)] {
        let mut phone = match after {
            None => ben.device("phone").await,
            Some(after) => ben.resume("phone", after).await,
        };
        let resync = phone.event().await;
        assert_eq!(resync["resync"]["reason"], "EXPIRED", "{resync}");
        let from = number(&resync["resync"]["fromPosition"]);
        assert!(from >= stopped && from < number(&today[0]["position"]), "{resync}");
        assert_eq!(phone.events(10).await, today, "it goes on with what is kept");
        phone.socket.close().await;
    }
    // HTTP says the same, in the same place.
    let mut phone = ben.resume("phone", 0).await;
    let resync = phone.event().await;
    phone.socket.close().await;
    let http = ben.http("phone");
    let events = [&[resync.clone()][..], &today[..]].concat();
    for limit in [1, 4, 500] {
        assert_eq!(http.pages("/v1/inbox", "events", "after", limit).await, events, "{limit}");
    }
    let from = resync["resync"]["fromPosition"].as_str().expect("a position");
    let page = http.get(&format!("/v1/inbox?after={from}")).await.expect(200);
    assert_eq!(page["events"], json!(today), "from there on nothing has expired");
    for list in ["received", "unreceived"] {
        let page = http.get(&format!("/v1/messages/{list}?after=1")).await.expect(200);
        assert_eq!(page["resync"], resync["resync"], "{list}");
        let first = &page["messages"][0];
        assert_eq!(first["position"], today[0]["position"], "{list}");
        let page = http.get(&format!("/v1/messages/{list}?after={from}")).await.expect(200);
        assert_eq!(page.get("resync"), None, "{list}");
    }
    // A device that was not away so long is told nothing.
    let mut laptop = ben.resume("laptop", number(&today[4]["position"])).await;
    assert_eq!(laptop.events(5).await, today[5..]);
    let history = http.pages(&format!("/v1/chats/{chat}/messages"), "messages", "before", 5).await;
    let texts: Vec<_> =
        history.iter().map(|m| m["text"].as_str().expect("text")[..5].to_owned()).collect();
    let expected = (0..6).map(|n| format!("old {n}")).chain((0..10).map(|n| format!("new {n}")));
    assert_eq!(texts, expected.collect::<Vec<_>>(), "history has everything");
    world.end().await;
}
