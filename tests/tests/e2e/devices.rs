//! A user's devices: which there may be, how one is cut off, and how a new one gets everything.

use chaski_tests::{Device, Format, Person, Set, Socket, World, until};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn number(value: &Value) -> u64 {
    value.as_str().and_then(|text| text.parse().ok()).expect("a 64-bit number")
}

fn message(to: &Person, key: &str) -> Value {
    json!({"to": to.id, "clientMessageId": key, "text": key})
}

fn list(body: &Value, name: &str) -> Vec<Value> {
    body[name].as_array().expect("a list").clone()
}

async fn names(of: &Person, by: &str) -> Vec<(String, String)> {
    let devices = of.http(by).get("/v1/devices").await.expect(200);
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let name = |device: &Value| (text(&device["deviceId"]), text(&device["name"]));
    let mut names: Vec<_> = list(&devices, "devices").iter().map(name).collect();
    names.sort();
    names
}

pub(crate) async fn a_revoked_device_is_cut_off_within_a_second(set: Set) {
    let world = World::shared(set).await;
    let (ana, ben) = (world.person("ana"), world.person("ben"));
    let (mut phone, token) = (ana.device("phone").await, ana.token("laptop"));
    let socket = Socket::open(world.url(), Some(&token), Format::Json).await.expect("good");
    let mut laptop = Device::hello(socket, &ana.id, "laptop", None).await;
    let (http, name) = (ana.http("phone"), json!({"name": "Büro"}));
    let renamed = http.patch("/v1/devices/laptop", &name).await.expect(200);
    assert_eq!((&renamed["deviceId"], &renamed["name"]), (&json!("laptop"), &json!("Büro")));
    let pair = |device: &str, name: &str| (device.to_owned(), name.to_owned());
    assert_eq!(names(&ana, "phone").await, [pair("laptop", "Büro"), pair("phone", "")]);
    let strange = http.patch("/v1/devices/other", &name).await;
    assert_eq!(strange.problem(404), "no_such_device");
    assert_eq!(http.delete("/v1/devices/other").await.problem(404), "no_such_device");
    // A device of the same name is another user's own.
    ben.device("laptop").await.socket.close().await;
    assert!(laptop.command(json!({"ping": {}})).await["pong"].is_object(), "until now");

    let revoked = http.delete("/v1/devices/laptop").await;
    let begun = Instant::now();
    let _ = revoked.expect(200);
    assert_eq!(laptop.socket.closed().await.0, 4501);
    let took = begun.elapsed();
    eprintln!("{set:?}: a revoked device was cut off {took:?} after the answer");
    assert!(took <= Duration::from_secs(1), "{took:?}");
    let caller = chaski_tests::Caller::new(world.url(), token.clone());
    let _ = caller.get("/v1/inbox").await.problem(401);
    let _ = caller.post("/v1/messages", &message(&ben, "late")).await.problem(401);
    let upgraded = Socket::open(world.url(), Some(&token), Format::Json).await;
    assert_eq!(upgraded.err(), Some(401));
    let mut socket = Socket::open(world.url(), None, Format::Json).await.expect("opens");
    socket.say(json!({"id": 1, "hello": {"deviceId": "laptop", "token": token}})).await;
    let (code, frames) = socket.closed().await;
    assert_eq!(code, 4501, "{frames:?}");
    assert_eq!(names(&ana, "phone").await, [pair("phone", "")]);
    assert!(phone.command(json!({"ping": {}})).await["pong"].is_object(), "the other one stays");
    let bens = ben.http("laptop").get("/v1/inbox").await.expect(200);
    assert_eq!(bens["events"], json!([]), "ben's stays, and nothing was sent to him");

    // A token of a later second brings it back.
    until("a new token is taken", || async {
        let answer = ana.http("laptop").get("/v1/inbox").await;
        (answer.status == 200).then_some(())
    })
    .await;
    let mut laptop = ana.device("laptop").await;
    assert!(laptop.command(json!({"ping": {}})).await["pong"].is_object());
}

/// `hello` of a device that may not be there: the error's code.
async fn turned_away(person: &Person, device: &str, after: Option<&str>) -> Value {
    let mut socket = person.socket(device, Format::Json).await;
    let mut hello = json!({"deviceId": device});
    if let Some(after) = after {
        hello["resumeAfter"] = json!(after);
    }
    socket.say(json!({"id": 1, "hello": hello})).await;
    let (code, frames) = socket.closed().await;
    assert!((4500..5000).contains(&code), "it shall not come again by itself: {code}");
    let error = frames.iter().find_map(|frame| frame.get("error")).expect("it is told why").clone();
    assert_eq!(error["status"], 403, "{error}");
    error["code"].clone()
}

pub(crate) async fn ten_devices_and_not_one_more(set: Set) {
    let world = World::shared(set).await;
    let ana = world.person("ana");
    for n in 0..10 {
        ana.device(&format!("device{n}")).await.socket.close().await;
    }
    for after in [None, Some("0")] {
        assert_eq!(turned_away(&ana, "eleventh", after).await, "too_many_devices");
    }
    // Those that are known come and go; one that is revoked makes room.
    ana.device("device3").await.socket.close().await;
    assert_eq!(names(&ana, "device0").await.len(), 10);
    let _ = ana.http("device0").delete("/v1/devices/device3").await.expect(200);
    ana.device("eleventh").await.socket.close().await;
    assert_eq!(turned_away(&ana, "twelfth", None).await, "too_many_devices");
}

/// A page of history by seq, as `{messages, next?}`.
async fn history(person: &Person, chat: &str, after: u64) -> Value {
    let path = format!("/v1/chats/{chat}/messages?after={after}&limit=4");
    person.http("tablet").get(&path).await.expect(200)
}

/// Downloads a chat from a seq on, up to so many pages; where it stopped. Every page says how far
/// it is.
async fn download(
    person: &Person,
    view: &Value,
    mut after: u64,
    pages: usize,
    into: &mut Vec<Value>,
) -> u64 {
    let (chat, last) = (view["chatId"].as_str().expect("an id"), number(&view["lastSeq"]));
    for _ in 0..pages {
        if after >= last {
            break;
        }
        let page = history(person, chat, after).await;
        into.extend(list(&page, "messages"));
        let reached = into.last().map(|item| number(&item["seq"])).expect("a page has places");
        assert!(reached > after && (page.get("next").is_some() || reached >= last), "{page}");
        after = reached;
    }
    after
}

pub(crate) async fn a_new_device_gets_everything_and_goes_on_where_it_stopped(set: Set) {
    let world = World::shared(set).await;
    let (ana, ben, eva) = (world.person("ana"), world.person("ben"), world.person("eva"));
    let (mut phone, mut laptop) = (ana.device("phone").await, ana.device("laptop").await);
    let mut from = ben.device("phone").await;
    let group = phone.group(&[&ben.id, &eva.id], "FROM_JOIN").await;
    for n in 0..12 {
        from.send(message(&ana, &n.to_string())).await;
        let key = n.to_string();
        let text = json!({"chatId": group, "clientMessageId": key, "text": key});
        phone.send(text).await;
    }
    phone.send(message(&eva, "a third chat")).await;
    phone.participant(&group, &eva.id, "REMOVE").await;
    let block = json!({"setConnection": {"userId": eva.id, "status": "ACTIVE"}});
    assert!(phone.command(block).await["connectionSet"].is_object());
    let all = phone.events(1 + 24 + 1 + 2).await;
    assert_eq!(laptop.events(all.len()).await, all, "L4: the same events at the same positions");

    // By HTTP: the chats in pages, then each chat, interrupted in the middle of each.
    let tablet = ana.http("tablet");
    let chats = until("all is stored", || async {
        let chats = tablet.pages("/v1/chats", "chats", "after", 1).await;
        let lasts: u64 = chats.iter().map(|view| number(&view["lastSeq"])).sum();
        (chats.len() == 3 && lasts == 12 + 14 + 1).then_some(chats)
    })
    .await;
    let mut parts: Vec<(Vec<Value>, u64)> = Vec::new();
    for view in &chats {
        let mut got = Vec::new();
        let at = download(&ana, view, 0, 2, &mut got).await;
        parts.push((got, at));
    }
    // Meanwhile more is said.
    from.send(message(&ana, "meanwhile")).await;
    let meanwhile = phone.event().await;
    for (view, (got, at)) in chats.iter().zip(&mut parts) {
        let shown = download(&ana, view, *at, 100, got).await;
        assert!(shown >= number(&view["lastSeq"]), "progress ends at lastSeq");
        let live = [&all[..], std::slice::from_ref(&meanwhile)].concat();
        let expected: Vec<Value> = live
            .iter()
            .filter_map(|event| match (event.get("newMessage"), event.get("chatUpdate")) {
                (Some(message), _) => Some(message.clone()),
                (_, Some(update)) => Some(json!({"seq": update["seq"], "chatUpdate": update})),
                _ => None,
            })
            .filter(|item| item.get("chatUpdate").unwrap_or(item)["chatId"] == view["chatId"])
            .filter(|item| number(&item["seq"]) <= shown)
            .collect();
        assert_eq!(*got, expected, "history is what the other devices were shown");
    }

    // By its socket: it stops after some, and goes on there without saying where.
    let mut new = ana.device("tablet").await;
    assert_eq!(new.position, 0, "a device never seen starts at the beginning");
    assert_eq!(new.events(10).await, all[..10]);
    new.ack(new.position).await;
    let stopped = new.position;
    new.socket.close().await;
    let mut new = until("the cursor is saved", || async {
        let device = ana.device("tablet").await;
        (device.position == stopped).then_some(device)
    })
    .await;
    assert_eq!(new.events(all.len() - 10).await, all[10..]);
    assert_eq!(new.event().await, meanwhile);
    let connections = tablet.get("/v1/connections").await.expect(200);
    assert_eq!(
        connections["connections"],
        json!([{"userId": eva.id, "status": "ACTIVE", "version": "1"}])
    );
}

/// Reads all pages, while something is said before each.
async fn pages_meanwhile(of: &Person, path: &str, from: &mut Device, to: &Person) -> Vec<Value> {
    let (mut all, mut after, mut n) = (Vec::new(), 0, 0);
    loop {
        let slice = format!("{path}?after={after}&limit=7");
        let page = of.http("laptop").get(&slice).await.expect(200);
        let messages = list(&page, "messages");
        assert!(messages.len() <= 7);
        all.extend(messages);
        let Some(next) = page.get("next") else { break };
        after = number(next);
        from.send(message(to, &format!("{path} {n}"))).await;
        n += 1;
    }
    all
}

pub(crate) async fn sent_received_and_unreceived_are_stable_pages(set: Set) {
    let world = World::shared(set).await;
    let (ana, ben) = (world.person("ana"), world.person("ben"));
    let (mut phone, mut other) = (ana.device("phone").await, ben.device("phone").await);
    let mut laptop = ana.device("laptop").await;
    for n in 0..20 {
        phone.send(message(&ben, &n.to_string())).await;
        other.send(message(&ana, &n.to_string())).await;
    }
    let events = laptop.events(40).await;
    let item = |event: &Value| {
        let mut item = event["newMessage"].clone();
        item["position"] = event["position"].clone();
        item
    };
    let by = |person: &Person| -> Vec<Value> {
        events.iter().map(item).filter(|item| item["senderId"] == person.id.as_str()).collect()
    };
    let (sent, received) = (by(&ana), by(&ben));
    let http = ana.http("laptop");
    let last = events.last().expect("some")["position"].clone();
    until("all is stored", || async {
        let inbox = http.get("/v1/inbox?limit=500").await.expect(200);
        (list(&inbox, "events").last()?["position"] == last).then_some(())
    })
    .await;
    let unreceived_path = "/v1/messages/unreceived";
    assert_eq!(
        http.get(&format!("{unreceived_path}?limit=500")).await.expect(200)["messages"],
        json!(received)
    );
    // What was taken is received.
    let seen = &events[24];
    laptop.ack(number(&seen["position"])).await;
    let unreceived: Vec<Value> = received
        .iter()
        .filter(|item| number(&item["position"]) > number(&seen["position"]))
        .cloned()
        .collect();
    until("the cursor is saved", || async {
        let answer = http.get(&format!("{unreceived_path}?limit=500")).await.expect(200);
        (answer["messages"] == json!(unreceived)).then_some(())
    })
    .await;
    let phones = ana.http("phone").get(&format!("{unreceived_path}?limit=500")).await.expect(200);
    assert_eq!(phones["messages"], json!(received), "of each device its own");
    for (path, expected) in [
        ("/v1/messages/sent", &sent),
        ("/v1/messages/received", &received),
        (unreceived_path, &unreceived),
    ] {
        let all = pages_meanwhile(&ana, path, &mut other, &ana).await;
        assert!(all.len() >= expected.len(), "{path}: {} of {}", all.len(), expected.len());
        assert_eq!(all[..expected.len()], expected[..], "{path}: new ones come behind");
        let positions: Vec<u64> = all.iter().map(|item| number(&item["position"])).collect();
        assert!(positions.is_sorted_by(|a, b| a < b), "{path}: none twice");
    }
}
