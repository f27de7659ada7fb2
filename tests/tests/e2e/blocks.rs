//! Blocks (L7): exact, at every tier, for ever, and unknown to the blocked.

use chaski_tests::{Device, Person, Set, World, until};
use serde_json::{Value, json};
use std::{cell::Cell, collections::BTreeSet};

fn number(value: &Value) -> u64 {
    value.as_str().and_then(|text| text.parse().ok()).expect("a 64-bit number")
}

fn message(to: &Person, key: &str) -> Value {
    json!({"to": to.id, "clientMessageId": key, "text": key})
}

/// `setConnection`; the reply.
async fn set_to(device: &mut Device, user: &Person, status: &str, based_on: Option<u64>) -> Value {
    let mut connection = json!({"userId": user.id, "status": status});
    if let Some(version) = based_on {
        connection["basedOnVersion"] = json!(version.to_string());
    }
    device.command(json!({"setConnection": connection})).await
}

#[track_caller]
fn is_set(reply: &Value, status: &str, version: u64) {
    let set = &reply["connectionSet"];
    assert_eq!(
        (&set["status"], &set["version"]),
        (&json!(status), &json!(version.to_string())),
        "{reply}"
    );
    assert!(set["token"].is_string(), "{reply}");
}

/// The update of a connection as all devices get it.
fn updated(user: &Person, status: &str, version: u64, by: &str) -> Value {
    json!({"userId": user.id, "status": status, "version": version.to_string(), "byDeviceId": by})
}

fn hidden(chat: &Value, seq: u64) -> Value {
    json!({"chatId": chat, "seq": seq.to_string(), "reason": "BLOCKED"})
}

/// A user's events by HTTP, once the last one is this.
async fn inbox(of: &Person, last: &Value) -> Vec<Value> {
    let http = of.http("phone");
    until("all is stored", || async {
        let events = http.pages("/v1/inbox", "events", "after", 500).await;
        (events.last() == Some(last)).then_some(events)
    })
    .await
}

/// What of a chat is hidden by its history, of seqs 1 to `last`.
async fn hidden_in_history(of: &Person, chat: &Value, last: u64) -> BTreeSet<u64> {
    let path = format!("/v1/chats/{}/messages", chat.as_str().expect("an id"));
    let http = of.http("phone");
    let end = last.to_string();
    until("all is stored", || async {
        let newest = http.get(&format!("{path}?limit=500")).await.body;
        (newest["messages"].as_array()?.last()?["seq"] == end.as_str()).then_some(())
    })
    .await;
    let all = http.pages(&path, "messages", "before", 100).await;
    let seqs: Vec<_> = all.iter().map(|item| number(&item["seq"])).collect();
    assert_eq!(seqs, (1..=last).collect::<Vec<_>>(), "L3");
    let hidden = all.iter().filter(|item| item.get("hidden").is_some());
    hidden.map(|item| number(&item["seq"])).collect()
}

/// Everything that ana can find of what eve wrote while she was blocked.
async fn check_hidden(ana: &Person, chat: &Value, (events, last): (&[Value], u64), new: &str) {
    assert_eq!(inbox(ana, events.last().expect("some")).await, events, "by HTTP as by socket");
    assert_eq!(hidden_in_history(ana, chat, last).await, (2..=last).collect());
    let http = ana.http("phone");
    let view = http.get(&format!("/v1/chats/{}", chat.as_str().expect("an id"))).await.expect(200);
    assert_eq!((&view["lastMessage"]["text"], number(&view["lastSeq"])), (&json!("before"), last));
    for list in ["chats", "messages/received", "messages/unreceived"] {
        let all = http.get(&format!("/v1/{list}?limit=500")).await.expect(200).to_string();
        assert!(!all.contains("secret"), "{list}: {all}");
    }
    let mut device = ana.device(new).await;
    assert_eq!(device.events(events.len()).await, events, "a new device");
    device.socket.close().await;
}

pub(crate) async fn a_block_withholds_everywhere_and_the_blocked_sees_no_difference(set: Set) {
    let world = World::start(set, |_| ()).await;
    let (ana, eve) = (world.person("ana"), world.person("eve"));
    let (mut phone, mut laptop) = (ana.device("phone").await, ana.device("laptop").await);
    let mut eve_s = eve.device("phone").await;
    let chat = eve_s.send(message(&ana, "before")).await["chatId"].clone();
    is_set(&set_to(&mut phone, &eve, "BLOCKED", None).await, "BLOCKED", 1);
    // After the answer.
    for n in 2..=4 {
        let key = format!("secret {n}");
        let accepted = eve_s.send(message(&ana, &key)).await;
        assert_eq!(accepted["chatId"], chat);
    }
    let events = phone.events(5).await;
    assert_eq!(events[0]["newMessage"]["text"], "before");
    assert_eq!(events[1]["connectionUpdate"], updated(&eve, "BLOCKED", 1, "phone"));
    for seq in 2..=4 {
        assert_eq!(events[seq as usize]["messageHidden"], hidden(&chat, seq));
    }
    assert_eq!(laptop.events(5).await, events, "L4");
    check_hidden(&ana, &chat, (&events, 4), "new-before").await;
    // She finds everything as ever.
    for (n, key) in (1_u64..).zip(["before", "secret 2", "secret 3", "secret 4"]) {
        let echo = eve_s.message().await;
        assert_eq!((&echo["text"], number(&echo["seq"])), (&json!(key), n));
    }
    assert_eq!(hidden_in_history(&eve, &chat, 4).await, BTreeSet::new());
    // Whom ana blocks she does not write to, either.
    until("the sender service knows", || async {
        let answer = ana.http("phone").post("/v1/messages", &message(&eve, "x")).await;
        (answer.status == 403).then(|| assert_eq!(answer.problem(403), "you_blocked"))
    })
    .await;
    let refused = phone.command(json!({"sendMessage": message(&eve, "y")})).await;
    assert_eq!(refused["error"]["code"], "you_blocked", "{refused}");
    phone.socket.close().await;
    laptop.socket.close().await;
    drop(eve_s);

    world.stop().await;
    world.start_again().await;
    // What got through before the sender service knew is ana's own.
    let mut phone = ana.resume("phone", number(&events[4]["position"])).await;
    let mut eve_s = eve.device("laptop").await;
    let accepted = eve_s.send(message(&ana, "secret after the restart")).await;
    let mut own = 0;
    let last = loop {
        let event = phone.event().await;
        match event.get("messageHidden") {
            Some(hidden) => break number(&hidden["seq"]),
            None => own += u64::from(event["newMessage"]["senderId"] == ana.id.as_str()),
        }
    };
    assert_eq!((last, &accepted["chatId"]), (5 + own, &chat), "still blocked");

    // Lifting it is a decision on a version; what came before stays hidden.
    let conflict = set_to(&mut phone, &eve, "NONE", None).await;
    assert_eq!(conflict["error"]["status"], 409, "{conflict}");
    let present = json!({"userId": eve.id, "status": "BLOCKED", "version": "1"});
    assert_eq!(conflict["error"]["connection"], present);
    is_set(&set_to(&mut phone, &eve, "NONE", Some(1)).await, "NONE", 2);
    eve_s.send(message(&ana, "after")).await;
    assert_eq!(phone.event().await["connectionUpdate"], updated(&eve, "NONE", 2, "phone"));
    let after = phone.event().await;
    assert_eq!(
        (&after["newMessage"]["text"], number(&after["newMessage"]["seq"])),
        (&json!("after"), last + 1)
    );
    let mut withheld: BTreeSet<u64> = (2..=4).collect();
    withheld.insert(last);
    assert_eq!(hidden_in_history(&ana, &chat, last + 1).await, withheld, "for ever");
    let all = inbox(&ana, &after).await;
    let mut new = ana.device("new-after").await;
    assert_eq!(new.events(all.len()).await, all);
    let texts: Vec<_> =
        all.iter().filter_map(|event| event["newMessage"]["text"].as_str()).collect();
    assert!(!json!(texts).to_string().contains("secret"), "{texts:?}");
    world.end().await;
}

/// Eve talks without a pause while ana blocks her and lifts it, again and again.
pub(crate) async fn a_block_is_exact_among_messages_in_flight(set: Set) {
    const ROUNDS: u64 = 3;
    let world = World::shared(set).await;
    let (ana, eve) = (world.person("ana"), world.person("eve"));
    let (mut phone, mut laptop) = (ana.device("phone").await, ana.device("laptop").await);
    let mut eve_s = eve.device("phone").await;
    let blocked_for_good = Cell::new(false);
    let talking = async {
        let mut sent = 0;
        loop {
            let last = blocked_for_good.get().then_some(sent);
            let burst = (sent..sent + 20).map(|n| message(&ana, &n.to_string()));
            sent += eve_s.send_all(burst).await.len();
            if let Some(from) = last {
                break (from, sent);
            }
        }
    };
    let blocking = async {
        for round in 0..=ROUNDS {
            let mut shown = 0;
            while shown < 30 {
                shown += u32::from(phone.event().await.get("newMessage").is_some());
            }
            is_set(&set_to(&mut phone, &eve, "BLOCKED", None).await, "BLOCKED", 2 * round + 1);
            if round == ROUNDS {
                break;
            }
            let mut withheld = 0;
            while withheld < 30 {
                withheld += u32::from(phone.event().await.get("messageHidden").is_some());
            }
            let lifted = set_to(&mut phone, &eve, "NONE", Some(2 * round + 1)).await;
            is_set(&lifted, "NONE", 2 * round + 2);
        }
        blocked_for_good.set(true);
    };
    // From which on all was sent after the answer, and how many there are.
    let ((from, sent), ()) = tokio::join!(talking, blocking);

    let all = laptop.events(sent + 2 * ROUNDS as usize + 1).await;
    let (mut blocked, mut withheld, mut last) = (false, BTreeSet::new(), 0);
    let mut chat = Value::Null;
    for event in &all {
        let place = event.get("newMessage").or(event.get("messageHidden"));
        match (event.get("connectionUpdate"), place) {
            (Some(update), None) => blocked = update["status"] == "BLOCKED",
            (None, Some(place)) => {
                let seq = number(&place["seq"]);
                assert_eq!(seq, last + 1, "L3");
                last = seq;
                chat = place["chatId"].clone();
                assert_eq!(event.get("messageHidden").is_some(), blocked, "by place: {event}");
                if blocked {
                    withheld.insert(seq);
                }
            }
            _ => panic!("{event}"),
        }
    }
    let after = from as u64 + 1..=last;
    assert!(after.clone().all(|seq| withheld.contains(&seq)), "{after:?} came after the answer");
    eprintln!("{set:?}: {} of {sent} messages withheld by {} blocks", withheld.len(), ROUNDS + 1);
    assert_eq!(inbox(&ana, all.last().expect("some")).await, all);
    assert_eq!(hidden_in_history(&ana, &chat, last).await, withheld, "all tiers agree");
    assert_eq!(hidden_in_history(&eve, &chat, last).await, BTreeSet::new());
}

pub(crate) async fn two_devices_agree_on_a_connection_by_its_version(set: Set) {
    let world = World::shared(set).await;
    let (ana, eve) = (world.person("ana"), world.person("eve"));
    let (mut phone, mut laptop) = (ana.device("phone").await, ana.device("laptop").await);
    let (http, path) = (ana.http("tablet"), format!("/v1/connections/{}", eve.id));
    is_set(&set_to(&mut phone, &eve, "ACTIVE", Some(0)).await, "ACTIVE", 1);
    // The laptop knows version 0 only.
    let conflict = set_to(&mut laptop, &eve, "BLOCKED", Some(0)).await;
    let state = |status: &str, version: &str| json!({"userId": eve.id, "status": status, "version": version});
    assert_eq!(
        (&conflict["error"]["status"], &conflict["error"]["connection"]),
        (&json!(409), &state("ACTIVE", "1")),
        "{conflict}"
    );
    is_set(&set_to(&mut laptop, &eve, "BLOCKED", Some(1)).await, "BLOCKED", 2);
    is_set(&set_to(&mut phone, &eve, "BLOCKED", None).await, "BLOCKED", 2);
    let answer = http.put(&path, &json!({"status": "ACTIVE"})).await;
    assert_eq!(answer.body["connection"], state("BLOCKED", "2"), "{}", answer.body);
    assert_eq!(answer.problem(409), "connection_conflict");
    assert_eq!(http.delete(&path).await.problem(409), "connection_conflict");
    assert_eq!(
        http.delete(&format!("{path}?basedOnVersion=1")).await.problem(409),
        "connection_conflict"
    );
    let listed = http.get("/v1/connections").await.expect(200);
    assert_eq!(listed["connections"], json!([state("BLOCKED", "2")]));
    let ended = http.delete(&format!("{path}?basedOnVersion=2")).await.expect(200);
    assert_eq!(ended, state("NONE", "3"));
    let again = http.put(&path, &json!({"status": "ACTIVE"})).await;
    assert!(!again.token().is_empty());
    assert_eq!(again.expect(200), state("ACTIVE", "4"), "versions never start again");
    let told =
        [("ACTIVE", "phone"), ("BLOCKED", "laptop"), ("NONE", "tablet"), ("ACTIVE", "tablet")];
    for device in [&mut phone, &mut laptop] {
        for (version, (status, by)) in (1..).zip(told) {
            let event = device.event().await;
            assert_eq!(event["connectionUpdate"], updated(&eve, status, version, by), "{event}");
        }
    }
    assert_eq!(
        eve.http("x").get("/v1/inbox").await.expect(200)["events"],
        json!([]),
        "eve hears nothing"
    );
}

pub(crate) async fn a_group_with_somebody_blocked_keeps_its_seq(set: Set) {
    let world = World::shared(set).await;
    let (ana, ben, eve) = (world.person("ana"), world.person("ben"), world.person("eve"));
    let zoe = world.person("zoe");
    let (mut ana_s, mut ben_s) = (ana.device("phone").await, ben.device("phone").await);
    let mut eve_s = eve.device("phone").await;
    is_set(&set_to(&mut ana_s, &eve, "BLOCKED", None).await, "BLOCKED", 1);
    // The blocked one makes and changes the group: that passes, her messages do not.
    let chat = eve_s.group(&[&ana.id, &ben.id], "FROM_JOIN").await;
    let text = |key: &str| json!({"chatId": chat, "clientMessageId": key, "text": key});
    eve_s.send(text("secret 2")).await;
    eve_s.participant(&chat, &zoe.id, "ADD").await;
    eve_s.send(text("secret 4")).await;
    eve_s.command(json!({"modifyChat": {"chatId": chat, "name": "us"}})).await;
    ben_s.send(text("from ben")).await;
    // To a group ana writes, whoever is in it.
    ana_s.send(text("from ana")).await;
    let (expected, others) = (
        ["update", "hidden", "update", "hidden", "update", "message", "message"],
        ["update", "message", "update", "message", "update", "message", "message"],
    );
    let kind = |event: &Value| -> (&str, u64) {
        let kinds =
            [("update", "chatUpdate"), ("hidden", "messageHidden"), ("message", "newMessage")];
        let (kind, body) = kinds
            .into_iter()
            .find_map(|(kind, name)| Some((kind, event.get(name)?)))
            .expect("of the chat");
        (kind, number(&body["seq"]))
    };
    assert!(ana_s.event().await["connectionUpdate"].is_object());
    for (device, expected) in [(&mut ana_s, expected), (&mut ben_s, others), (&mut eve_s, others)] {
        let events = device.events(7).await;
        assert_eq!(
            events.iter().map(kind).collect::<Vec<_>>(),
            expected.into_iter().zip(1..).collect::<Vec<_>>()
        );
    }
    assert_eq!(hidden_in_history(&ana, &json!(chat), 7).await, [2, 4].into());
    assert_eq!(hidden_in_history(&ben, &json!(chat), 7).await, BTreeSet::new());
}

/// Ana joins a chat with its whole history, in which somebody wrote whom she had blocked then.
pub(crate) async fn what_was_blocked_before_the_join_stays_hidden(set: Set) {
    let world = World::shared(set).await;
    let (ana, ben, eve) = (world.person("ana"), world.person("ben"), world.person("eve"));
    let (mut phone, mut ben_s) = (ana.device("phone").await, ben.device("phone").await);
    let mut eve_s = eve.device("phone").await;
    let chat = ben_s.group(&[&eve.id], "ALL").await;
    let text = |key: &str| json!({"chatId": chat, "clientMessageId": key, "text": key});
    eve_s.send(text("before 2")).await;
    is_set(&set_to(&mut phone, &eve, "BLOCKED", None).await, "BLOCKED", 1);
    eve_s.send(text("secret 3")).await;
    ben_s.send(text("from ben 4")).await;
    is_set(&set_to(&mut phone, &eve, "NONE", Some(1)).await, "NONE", 2);
    eve_s.send(text("after 5")).await;
    ben_s.participant(&chat, &ana.id, "ADD").await;
    while phone.event().await.get("chatUpdate").is_none() {}
    assert_eq!(hidden_in_history(&ana, &json!(chat), 6).await, [3].into());
    assert_eq!(hidden_in_history(&ben, &json!(chat), 6).await, BTreeSet::new());
    // While she blocks eve again nothing of her is shown, and what was shown comes back.
    is_set(&set_to(&mut phone, &eve, "BLOCKED", None).await, "BLOCKED", 3);
    assert_eq!(hidden_in_history(&ana, &json!(chat), 6).await, [2, 3, 5].into());
    is_set(&set_to(&mut phone, &eve, "NONE", Some(3)).await, "NONE", 4);
    assert_eq!(hidden_in_history(&ana, &json!(chat), 6).await, [3].into());
}

pub(crate) async fn a_visible_block_refuses_the_blocked(set: Set) {
    let visible = |config: &mut chaski::config::Config| {
        config.sender.blocks = serde_json::from_value(json!("visible")).expect("a mode");
    };
    let world = World::start(set, visible).await;
    let (ana, eve) = (world.person("ana"), world.person("eve"));
    let (mut phone, mut eve_s) = (ana.device("phone").await, eve.device("phone").await);
    eve_s.send(message(&ana, "before")).await;
    is_set(&set_to(&mut phone, &eve, "BLOCKED", None).await, "BLOCKED", 1);
    let http = eve.http("laptop");
    let refused = until("the sender service knows", || async {
        let answer = http.post("/v1/messages", &message(&ana, "secret")).await;
        (answer.status != 200).then_some(answer)
    })
    .await;
    assert_eq!(refused.problem(403), "blocked");
    let refused = eve_s.command(json!({"sendMessage": message(&ana, "secret too")})).await;
    assert_eq!(
        (&refused["error"]["status"], &refused["error"]["code"]),
        (&json!(403), &json!("blocked")),
        "{refused}"
    );
    is_set(&set_to(&mut phone, &eve, "NONE", Some(1)).await, "NONE", 2);
    until("the sender service knows", || async {
        let answer = http.post("/v1/messages", &message(&ana, "after")).await;
        (answer.status == 200).then_some(())
    })
    .await;
    // Before it knew, the first try may have got through, to be withheld.
    loop {
        let event = phone.event().await;
        match event["newMessage"]["text"].as_str() {
            Some("after") => break,
            Some("before") => {}
            Some(other) => panic!("{other}"),
            None => assert!(
                event["messageHidden"].is_object() || event["connectionUpdate"].is_object(),
                "{event}"
            ),
        }
    }
    world.end().await;
}
