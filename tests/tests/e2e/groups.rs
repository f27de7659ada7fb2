//! Groups: who may change them, what each member may see, and how a removal divides the messages
//! around it.

use chaski_tests::{Caller, Device, Set, World, until};
use futures::future::join_all;
use serde_json::{Value, json};
use std::{cell::Cell, collections::BTreeMap};

fn seq(of: &Value) -> u64 {
    of["seq"].as_str().and_then(|seq| seq.parse().ok()).expect("a seq")
}

fn text(chat: &str, text: &str) -> Value {
    json!({"chatId": chat, "clientMessageId": text, "text": text})
}

#[track_caller]
fn refused(reply: &Value, status: u16, code: &str) {
    let error = &reply["error"];
    assert_eq!((&error["status"], &error["code"]), (&json!(status), &json!(code)), "{reply}");
}

async fn update(device: &mut Device) -> Value {
    let event = device.event().await;
    assert!(event["chatUpdate"].is_object(), "{event}");
    event["chatUpdate"].clone()
}

/// Everything that this caller may see of a chat, once its last place is there; the same in pages
/// of either direction.
async fn seen(http: &Caller, chat: &str, last: u64) -> Vec<Value> {
    let path = format!("/v1/chats/{chat}/messages");
    let end = last.to_string();
    until("the last place is stored", || async {
        // The whole: a shorter page may end behind a place that is still on its way.
        let newest = http.get(&format!("{path}?limit=500")).await.body;
        (newest["messages"].as_array()?.last()?["seq"] == end.as_str()).then_some(())
    })
    .await;
    let back = http.pages(&path, "messages", "before", 7).await;
    let (mut forward, mut after) = (Vec::new(), 0);
    loop {
        let page = http.get(&format!("{path}?after={after}&limit=7")).await.expect(200);
        forward.extend(page["messages"].as_array().expect("a list").clone());
        let Some(next) = page.get("next") else { break };
        after = next.as_str().and_then(|next| next.parse().ok()).expect("a seq");
    }
    assert_eq!(forward, back, "both directions show the same");
    forward
}

pub(crate) async fn members_come_and_go_by_their_roles(set: Set) {
    let world = World::shared(set).await;
    let people = ["ana", "ben", "eva", "zoe"].map(|name| world.person(name));
    let [ana, ben, eva, zoe] = [0, 1, 2, 3].map(|n: usize| people[n].id.as_str());
    let mut devices = Vec::new();
    for person in &people {
        devices.push(person.device("phone").await);
    }
    let [ana_s, ben_s, eva_s, zoe_s] = &mut devices[..] else { unreachable!() };
    let chat = ana_s.group(&[ben], "FROM_JOIN").await;
    ana_s.send(text(&chat, "only the founders see it")).await;
    let participants = format!("/v1/chats/{chat}/participants");

    refused(&ben_s.participant(&chat, eva, "ADD").await, 403, "not_allowed");
    refused(&eva_s.participant(&chat, eva, "ADD").await, 403, "not_a_member");
    let add = json!({"userId": zoe, "operation": "ADD"});
    assert_eq!(people[1].http("x").patch(&participants, &add).await.problem(403), "not_allowed");
    for _ in 0..2 {
        let reply = ana_s.participant(&chat, eva, "ADD").await;
        assert_eq!(reply["chatModified"]["chatId"], json!(chat), "again too: {reply}");
    }
    let joined = update(eva_s).await;
    assert_eq!(
        joined,
        json!({"chatId": chat, "seq": "3", "participants": [ana, ben, eva], "name": "",
            "roles": ["ADMIN", "MEMBER", "MEMBER"], "version": "2", "visibleFrom": "3"}),
        "the first that a new member sees"
    );
    refused(&ana_s.participant(&chat, zoe, "PROMOTE").await, 404, "no_such_member");
    refused(&ana_s.participant(&chat, ana, "DEMOTE").await, 409, "last_admin");
    ana_s.participant(&chat, ben, "PROMOTE").await;
    let added = people[1].http("x").patch(&participants, &add).await;
    assert_eq!(added.expect(200), json!({"chatId": chat}), "whom ana appointed");
    ben_s.participant(&chat, ana, "DEMOTE").await;
    refused(
        &ana_s.command(json!({"modifyChat": {"chatId": chat, "name": "x"}})).await,
        403,
        "not_allowed",
    );
    let (http, path) = (people[1].http("x"), format!("/v1/chats/{chat}"));
    for _ in 0..2 {
        let _ = http.patch(&path, &json!({"name": "us"})).await.expect(200);
    }
    // The last admin leaves: who has been there longest takes over.
    assert!(ben_s.participant(&chat, ben, "REMOVE").await["chatModified"].is_object());
    refused(&ben_s.participant(&chat, eva, "REMOVE").await, 403, "not_a_member");
    ana_s.participant(&chat, zoe, "REMOVE").await;
    ana_s.send(text(&chat, "end")).await;

    // (seq, participants, roles, name), as everybody was told who was there.
    let (a, m) = ("ADMIN", "MEMBER");
    let told = [
        (1, json!([ana, ben]), json!([a, m]), ""),
        (3, json!([ana, ben, eva]), json!([a, m, m]), ""),
        (4, json!([ana, ben, eva]), json!([a, a, m]), ""),
        (5, json!([ana, ben, eva, zoe]), json!([a, a, m, m]), ""),
        (6, json!([ana, ben, eva, zoe]), json!([m, a, m, m]), ""),
        (7, json!([ana, ben, eva, zoe]), json!([m, a, m, m]), "us"),
        (8, json!([ana, eva, zoe]), json!([a, m, m]), "us"),
        (9, json!([ana, eva]), json!([a, m]), "us"),
    ];
    // Of each: the first seq after what was heard above, the last, and since when they see.
    let spans = [(ana_s, 1, 10, "1"), (ben_s, 1, 8, "1"), (eva_s, 4, 10, "3"), (zoe_s, 5, 9, "5")];
    for (device, first, last, visible_from) in spans {
        for at in first..=last {
            let event = device.event().await;
            let Some((version, (_, participants, roles, name))) =
                (1..).zip(&told).find(|(_, told)| told.0 == at)
            else {
                assert_eq!(seq(&event["newMessage"]), at, "{event}");
                continue;
            };
            let expected = json!({"chatId": chat, "seq": at.to_string(), "name": name,
                "participants": participants, "roles": roles,
                "version": version.to_string(), "visibleFrom": visible_from});
            assert_eq!(event["chatUpdate"], expected);
        }
    }
    for (person, span) in people.iter().zip([1..=10, 1..=8, 3..=10, 5..=9]) {
        let seen = seen(&person.http("phone"), &chat, *span.end()).await;
        assert_eq!(seen.iter().map(seq).collect::<Vec<_>>(), span.collect::<Vec<_>>());
    }
    // A 1:1's membership is fixed.
    let to_ben = json!({"to": ben, "clientMessageId": "1", "text": "hi"});
    let direct = devices[0].send(to_ben).await["chatId"].as_str().expect("an id").to_owned();
    refused(&devices[0].participant(&direct, eva, "ADD").await, 403, "direct_chat");
}

pub(crate) async fn a_new_member_sees_all_where_the_chat_says_so(set: Set) {
    let world = World::shared(set).await;
    let (ana, ben, eva) = (world.person("ana"), world.person("ben"), world.person("eva"));
    let (mut phone, mut new) = (ana.device("phone").await, eva.device("phone").await);
    let chat = phone.group(&[&ben.id], "ALL").await;
    for n in 2..=9 {
        phone.send(text(&chat, &n.to_string())).await;
    }
    phone.participant(&chat, &eva.id, "ADD").await;
    let joined = update(&mut new).await;
    assert_eq!((&joined["seq"], &joined["visibleFrom"]), (&json!("10"), &json!("1")));
    let all = seen(&eva.http("phone"), &chat, 10).await;
    assert_eq!(all.iter().map(seq).collect::<Vec<_>>(), (1..=10).collect::<Vec<_>>());
    assert_eq!(all, seen(&ana.http("phone"), &chat, 10).await, "as the founders see it");
}

/// Ben talks without a pause while he is removed; the order of the chat decides about each message.
pub(crate) async fn a_removal_divides_the_messages_around_it(set: Set) {
    const BURST: usize = 50;
    let world = World::shared(set).await;
    let (ana, ben, eva) = (world.person("ana"), world.person("ben"), world.person("eva"));
    let (mut ana_s, mut ben_s) = (ana.device("phone").await, ben.device("phone").await);
    let mut eva_s = eva.device("phone").await;
    let chat = ana_s.group(&[&ben.id, &eva.id], "FROM_JOIN").await;
    let (removed, eva_r) = (Cell::new(false), &mut eva_s);
    let talking = async {
        let mut sent = 0;
        loop {
            // One more burst once he is surely out.
            let last = removed.get();
            let burst = (sent..sent + BURST).map(|n| text(&chat, &n.to_string()));
            sent += ben_s.send_all(burst).await.len();
            if last {
                break sent;
            }
        }
    };
    let removing = async {
        eva_r.events(BURST / 2).await;
        let reply = ana_s.participant(&chat, &ben.id, "REMOVE").await;
        assert!(reply["chatModified"].is_object(), "{reply}");
        removed.set(true);
    };
    let (sent, ()) = tokio::join!(talking, removing);
    ana_s.send(text(&chat, "without ben")).await;

    let (mut shown, mut rejected, mut out) = (BTreeMap::new(), BTreeMap::new(), None);
    while shown.len() + rejected.len() < sent || out.is_none() {
        let event = ben_s.event().await;
        if let Some(message) = event.get("newMessage") {
            assert!(out.is_none(), "after his removal: {event}");
            shown.insert(message["messageId"].clone().to_string(), seq(message));
        } else if let Some(rejection) = event.get("messageRejected") {
            assert_eq!(
                (&rejection["status"], &rejection["code"]),
                (&json!(403), &json!("not_a_member"))
            );
            assert!(out.is_some(), "before his removal: {event}");
            let id = rejection["messageId"].to_string();
            assert!(rejected.insert(id, ()).is_none(), "once: {event}");
        } else if event["chatUpdate"]["participants"] == json!([ana.id, eva.id]) {
            out = Some(seq(&event["chatUpdate"]));
        }
    }
    let out = out.expect("he was told");
    assert!(rejected.keys().all(|id| !shown.contains_key(id)), "each has one fate");
    assert!(shown.len() >= BURST / 2 && rejected.len() >= BURST, "it was a race");
    assert_eq!(
        shown.values().copied().collect::<std::collections::BTreeSet<_>>(),
        (2..out).collect()
    );
    eprintln!("{set:?}: {} messages before the removal, {} after it", shown.len(), rejected.len());

    // The others see what he was shown and no more; he reads up to there and no further.
    let all = seen(&eva.http("phone"), &chat, out + 1).await;
    assert_eq!(all.iter().map(seq).collect::<Vec<_>>(), (1..=out + 1).collect::<Vec<_>>(), "L3");
    let theirs: BTreeMap<_, _> = all
        .iter()
        .filter(|item| item["senderId"] == json!(ben.id))
        .map(|item| (item["messageId"].to_string(), seq(item)))
        .collect();
    assert_eq!(theirs, shown);
    let his = ben.http("phone");
    assert_eq!(seen(&his, &chat, out).await, all[..out as usize]);
    let view = his.get(&format!("/v1/chats/{chat}")).await.expect(200);
    assert_eq!(view["lastSeq"], json!(out.to_string()), "{view}");
    assert_eq!(view.get("participants"), None, "who is there now is not his to know");

    // Back again, he sees the union of his times.
    ana_s.participant(&chat, &ben.id, "ADD").await;
    let back = update(&mut ben_s).await;
    assert_eq!((seq(&back), &back["visibleFrom"]), (out + 2, &json!((out + 2).to_string())));
    ana_s.send(text(&chat, "with ben")).await;
    assert_eq!(seq(&ben_s.message().await), out + 3);
    let union: Vec<u64> = (1..=out).chain(out + 2..=out + 3).collect();
    let his_view = seen(&his, &chat, out + 3).await;
    assert_eq!(his_view.iter().map(seq).collect::<Vec<_>>(), union);
    assert!(!json!(his_view).to_string().contains("without ben"));
}

pub(crate) async fn a_group_of_100_takes_no_other(set: Set) {
    let world = World::shared(set).await;
    let ana = world.person("ana");
    let people: Vec<_> = (0..101).map(|_| world.person("p")).collect();
    let mut phone = ana.device("phone").await;
    let first: Vec<_> = people[..98].iter().map(|person| person.id.as_str()).collect();
    let chat = phone.group(&first, "FROM_JOIN").await;
    assert!(phone.participant(&chat, &people[98].id, "ADD").await["chatModified"].is_object());
    let path = format!("/v1/chats/{chat}/participants");
    refused(&phone.participant(&chat, &people[99].id, "ADD").await, 409, "chat_full");
    let add = json!({"userId": people[100].id, "operation": "ADD"});
    assert_eq!(ana.http("x").patch(&path, &add).await.problem(409), "chat_full");
    // Who is in it already is no one more.
    assert!(phone.participant(&chat, &people[98].id, "ADD").await["chatModified"].is_object());
    phone.participant(&chat, &people[0].id, "REMOVE").await;
    assert!(phone.participant(&chat, &people[99].id, "ADD").await["chatModified"].is_object());
    phone.send(text(&chat, "to all")).await;
    // The creation, one more, one less, one more, and the message.
    join_all(people.iter().enumerate().map(|(n, person)| async move {
        let mut device = person.device("phone").await;
        let seqs: Vec<u64> = match n {
            0 => (1..=3).collect(),
            98 => (2..=5).collect(),
            99 => (4..=5).collect(),
            100 => return device.socket.close().await,
            _ => (1..=5).collect(),
        };
        for at in seqs {
            let event = device.event().await;
            let body = event.get("newMessage").or(event.get("chatUpdate")).expect("of the chat");
            assert_eq!(seq(body), at, "person {n}: {event}");
        }
        device.socket.close().await;
    }))
    .await;
    assert_eq!(people[100].http("x").get("/v1/inbox").await.expect(200)["events"], json!([]));
}
