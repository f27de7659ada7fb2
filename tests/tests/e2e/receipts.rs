//! Receipts: what authors are told of what others have taken and read, and how little that costs.

use chaski_client::v1;
use chaski_core::ChatId;
use chaski_ports::Topic;
use chaski_tests::{Device, PATIENCE, Person, Set, World, random, until};
use futures::future::join_all;
use prost::Message as _;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    ops::Range,
    time::{Duration, Instant},
};

/// How long a host collects marks, by default.
const EVERY: Duration = Duration::from_millis(250);

fn receipt(chat: &str, user: &Person, delivered: u64, read: u64) -> Value {
    json!({"chatId": chat, "userId": user.id, "deliveredSeq": delivered.to_string(),
        "readSeq": read.to_string()})
}

fn text(chat: &str, key: &str) -> Value {
    json!({"chatId": chat, "clientMessageId": key, "text": key})
}

fn read(chat: &str, seq: u64) -> Value {
    json!({"markRead": {"chatId": chat, "seq": seq.to_string()}})
}

fn number(value: &Value) -> u64 {
    value.as_str().and_then(|text| text.parse().ok()).expect("a 64-bit number")
}

/// Hears receipts until this one; none of a user ever goes back.
async fn told(device: &mut Device, last: &Value) -> Vec<Value> {
    let mut all: Vec<Value> = Vec::new();
    while all.last() != Some(last) {
        let next = device.receipt().await;
        if let Some(before) = all.iter().rfind(|receipt| receipt["userId"] == next["userId"]) {
            for field in ["deliveredSeq", "readSeq"] {
                assert!(number(&next[field]) >= number(&before[field]), "{before}, then {next}");
            }
        }
        all.push(next);
    }
    all
}

/// The receipts of a chat as a member asks for them, once `user`'s is this one.
async fn asked(by: &Person, chat: &str, user: &Value) -> Vec<Value> {
    let http = by.http("asks");
    until("the receipt is stored", || async {
        let all = http.get(&format!("/v1/chats/{chat}/receipts")).await.expect(200);
        let all = all["receipts"].as_array().expect("a list").clone();
        all.contains(user).then_some(all)
    })
    .await
}

async fn read_seq(person: &Person, chat: &str) -> Value {
    let chats = person.http("asks").get("/v1/chats?limit=500").await.expect(200);
    let mut chats = chats["chats"].as_array().expect("a list").iter();
    chats.find(|view| view["chatId"] == chat).expect("the chat is listed")["readSeq"].clone()
}

/// Two messages have come: what was told before the first of them has been told.
async fn settle(from: &mut Device, chat: &str, to: &mut Device) {
    for mark in [random(), random()] {
        from.send(text(chat, &mark)).await;
        while to.event().await["newMessage"]["text"] != mark.as_str() {}
    }
}

pub(crate) async fn authors_are_told_what_was_delivered_and_read(set: Set) {
    let world = World::shared(set).await;
    let (ana, ben, eva) = (world.person("ana"), world.person("ben"), world.person("eva"));
    let (mut phone, mut tablet) = (ana.device("phone").await, ana.device("tablet").await);
    let (mut ben_s, mut ben_2) = (ben.device("phone").await, ben.device("laptop").await);
    let first = json!({"to": ben.id, "clientMessageId": "1", "text": "1"});
    let chat = phone.send(first).await["chatId"].as_str().expect("an id").to_owned();
    phone.send_all([text(&chat, "2"), text(&chat, "3")]).await;
    let events = ben_s.events(3).await;
    ben_s.ack(number(&events[1]["position"])).await;
    for device in [&mut phone, &mut tablet] {
        told(device, &receipt(&chat, &ben, 2, 0)).await;
    }
    // What is read is delivered. Nothing goes back, and nothing goes past the end.
    ben_s.tell(read(&chat, 2)).await;
    told(&mut phone, &receipt(&chat, &ben, 2, 2)).await;
    told(&mut ben_2, &receipt(&chat, &ben, 2, 2)).await;
    ben_s.tell(read(&chat, 1)).await;
    ben_s.tell(read(&chat, 99)).await;
    for device in [&mut phone, &mut tablet, &mut ben_2] {
        told(device, &receipt(&chat, &ben, 3, 3)).await;
    }
    let all = asked(&ana, &chat, &receipt(&chat, &ben, 3, 3)).await;
    assert!(all.len() == 2 && all.contains(&receipt(&chat, &ana, 0, 0)), "{all:?}");
    assert_eq!(read_seq(&ben, &chat).await, "3", "ben's own devices agree");

    // In a group the authors are told of what they wrote, nobody else of it.
    let mut eva_s = eva.device("phone").await;
    let group = phone.group(&[&ben.id, &eva.id], "FROM_JOIN").await;
    phone.send(text(&group, "2")).await;
    let events = eva_s.events(2).await;
    eva_s.ack(number(&events[1]["position"])).await;
    told(&mut phone, &receipt(&group, &eva, 2, 0)).await;
    eva_s.tell(read(&group, 2)).await;
    told(&mut phone, &receipt(&group, &eva, 2, 2)).await;
    ben_s.send(text(&group, "3")).await;
    eva_s.event().await;
    eva_s.tell(read(&group, 3)).await;
    told(&mut ben_s, &receipt(&group, &eva, 3, 3)).await;
    settle(&mut eva_s, &group, &mut ben_s).await;
    settle(&mut eva_s, &group, &mut phone).await;
    let of_group = |receipts: Vec<Value>| -> Vec<Value> {
        receipts
            .into_iter()
            .filter(|r| r["chatId"] == json!(group) && r["userId"] == eva.id)
            .collect()
    };
    assert_eq!(of_group(ben_2.receipts()), Vec::<Value>::new(), "before he wrote");
    assert_eq!(
        of_group(phone.receipts()),
        Vec::<Value>::new(),
        "what ben wrote after her last one"
    );
    let refused = ben_s.command(read(&group, 0)).await;
    assert_eq!(refused["error"]["status"], 400, "{refused}");
}

/// How many records of marks this chat has cost.
async fn marks_of(world: &World, chat: &str) -> usize {
    let log = world.log().await;
    let partition = world.placement().of_chat(&chat.parse::<ChatId>().expect("legal"));
    let bounds = log.bounds(Topic::NewMessages, partition).await.expect("bounds");
    let mut reader = log.reader(Topic::NewMessages, partition, bounds.start).await.expect("opens");
    let mut count = 0;
    loop {
        let next = tokio::time::timeout(PATIENCE, reader.next()).await;
        for record in next.expect("in time").expect("records") {
            // Another case's record may be one that nobody can read.
            if record.key == chat.as_bytes() {
                let record = v1::NewMessagesRecord::decode(record.value).expect("a record");
                let marks =
                    matches!(record.action, Some(v1::new_messages_record::Action::Marks(_)));
                count += usize::from(marks);
            }
            if record.offset.next() >= bounds.end {
                return count;
            }
        }
    }
}

pub(crate) async fn a_hundred_marks_of_a_moment_are_few_receipts(set: Set) {
    const ALL: u64 = 100;
    let world = World::shared(set).await;
    let (ana, ben) = (world.person("ana"), world.person("ben"));
    let (mut phone, mut ben_s) = (ana.device("phone").await, ben.device("phone").await);
    let message = |n: u64| json!({"to": ben.id, "clientMessageId": n.to_string(), "text": "x"});
    let accepted = phone.send_all((1..=ALL).map(message)).await;
    let chat = accepted[0]["chatId"].as_str().expect("an id").to_owned();
    let events = ben_s.events(ALL as usize).await;
    let begun = Instant::now();
    for event in &events {
        let (position, seq) = (&event["position"], &event["newMessage"]["seq"]);
        ben_s
            .tell(json!({"ack": {"position": position}, "markRead": {"chatId": chat, "seq": seq}}))
            .await;
    }
    let receipts = told(&mut phone, &receipt(&chat, &ben, ALL, ALL)).await.len();
    let took = begun.elapsed();
    let marks = marks_of(world, &chat).await;
    eprintln!(
        "{set:?}: {ALL} acks and {ALL} read marks: {marks} records, {receipts} receipts, {took:?}"
    );
    let bound = 1 + took.as_millis().div_ceil(EVERY.as_millis()) as usize;
    assert!(marks >= 1 && marks <= bound, "{marks} records of marks, at most {bound}");
    assert!(receipts <= marks, "{receipts} receipts of {marks} records");
}

pub(crate) async fn hidden_read_marks_stay_with_their_user(set: Set) {
    let world = World::shared(set).await;
    let (ana, ben) = (world.person("ana"), world.person("ben"));
    let (mut phone, mut ben_s) = (ana.device("phone").await, ben.device("phone").await);
    let mut ben_2 = ben.device("laptop").await;
    let first = json!({"to": ben.id, "clientMessageId": "1", "text": "1"});
    let chat = phone.send(first).await["chatId"].as_str().expect("an id").to_owned();
    phone.send_all((2..=4).map(|n| text(&chat, &n.to_string()))).await;
    let events = ben_s.events(4).await;
    ben_s.tell(read(&chat, 1)).await;
    told(&mut phone, &receipt(&chat, &ben, 1, 1)).await;

    // Set by one device, it holds for the others.
    let reply = ben_2.command(json!({"setSettings": {"hideReadMarks": true}})).await;
    assert_eq!(reply["settingsSet"], json!({}), "{reply}");
    ben_s.tell(read(&chat, 3)).await;
    told(&mut phone, &receipt(&chat, &ben, 3, 1)).await;
    told(&mut ben_2, &receipt(&chat, &ben, 3, 3)).await;
    ben_s.ack(number(&events[3]["position"])).await;
    told(&mut phone, &receipt(&chat, &ben, 4, 1)).await;
    asked(&ana, &chat, &receipt(&chat, &ben, 4, 1)).await;
    asked(&ben, &chat, &receipt(&chat, &ben, 4, 3)).await;
    assert_eq!(read_seq(&ben, &chat).await, "3", "GET /v1/chats knows it");

    // Shown again, later marks are.
    ben_s.command(json!({"setSettings": {"hideReadMarks": false}})).await;
    ben_s.tell(read(&chat, 4)).await;
    told(&mut phone, &receipt(&chat, &ben, 4, 4)).await;
}

pub(crate) async fn a_group_of_21_is_asked_for_receipts(set: Set) {
    let world = World::shared(set).await;
    let people: Vec<_> = (0..21).map(|_| world.person("p")).collect();
    let (mut author, mut reader) =
        (people[0].device("phone").await, people[1].device("phone").await);
    let mut own = people[1].device("laptop").await;
    let others: Vec<_> = people[1..].iter().map(|person| person.id.as_str()).collect();
    let chat = author.group(&others, "FROM_JOIN").await;
    author.send(text(&chat, "2")).await;
    let events = reader.events(2).await;
    reader.ack(number(&events[1]["position"])).await;
    reader.tell(read(&chat, 2)).await;
    told(&mut own, &receipt(&chat, &people[1], 2, 2)).await;
    let all = asked(&people[0], &chat, &receipt(&chat, &people[1], 2, 2)).await;
    assert_eq!(all.len(), 21, "of all members: {all:?}");
    settle(&mut reader, &chat, &mut author).await;
    assert_eq!(author.receipts(), Vec::<Value>::new(), "none is pushed");
    // One less is pushed again.
    assert!(author.participant(&chat, &people[20].id, "REMOVE").await["chatModified"].is_object());
    author.send(text(&chat, "last")).await;
    let last = loop {
        let event = reader.event().await;
        if event["newMessage"]["text"] == "last" {
            break number(&event["newMessage"]["seq"]);
        }
    };
    reader.tell(read(&chat, last)).await;
    told(&mut author, &receipt(&chat, &people[1], last, last)).await;
}

const PEOPLE: usize = 20;
const MESSAGES: usize = 10;

/// Everybody of a group of the largest size that is told receipts takes and reads ten messages of
/// ten authors: all in a moment, or each before the next one is written.
pub(crate) async fn receipts_of_a_group_cost_far_less_than_pairs(set: Set) {
    let world = World::shared(set).await;
    for at_once in [true, false] {
        let people: Vec<_> = (0..PEOPLE).map(|_| world.person("p")).collect();
        let mut devices = join_all(people.iter().map(|person| person.device("phone"))).await;
        let others: Vec<_> = people[1..].iter().map(|person| person.id.as_str()).collect();
        let chat = devices[0].group(&others, "FROM_JOIN").await;
        let begun = Instant::now();
        let rounds = if at_once { 1 } else { MESSAGES };
        let size = MESSAGES / rounds;
        let mut frames = 0;
        for round in 0..rounds {
            let messages = round * size..(round + 1) * size;
            let with_people = devices.iter_mut().zip(&people).enumerate();
            let reading = with_people
                .map(|(n, (device, person))| read_all(device, person, &chat, n, messages.clone()));
            frames += join_all(reading).await.iter().sum::<usize>();
        }
        let took = begun.elapsed();
        // What else was pushed.
        let (first, rest) = devices.split_first_mut().expect("there are some");
        for device in rest.iter_mut() {
            settle(first, &chat, device).await;
            frames += device.receipts().len();
        }
        frames += first.receipts().len();
        let (marks, pairs) = (marks_of(world, &chat).await, PEOPLE * PEOPLE);
        eprintln!(
            "{set:?}: {MESSAGES} messages in a group of {PEOPLE}, read by all {}: {marks} records \
             of marks, {frames} receipts = {} a message (pairs: {pairs}), {took:?}",
            if at_once { "at once" } else { "one by one" },
            frames as f64 / MESSAGES as f64
        );
        assert!(frames >= MESSAGES * (PEOPLE - 1), "every author is told of everybody: {frames}");
        // Of each record an author hears once of each of the others, and nobody of oneself.
        let bound = marks * size * (PEOPLE - 1);
        assert!(frames <= bound, "{frames} receipts of {marks} records, at most {bound}");
        assert!(frames * 4 <= MESSAGES * pairs, "{frames} receipts");
    }
}

/// The `n`th of the people writes the message of this number, where it is among these, and takes
/// and reads all of them. As an author they wait until everybody else has read theirs; how many
/// receipts came by then.
async fn read_all(
    device: &mut Device,
    person: &Person,
    chat: &str,
    n: usize,
    messages: Range<usize>,
) -> usize {
    let (author, key) = (messages.contains(&n), n.to_string());
    if author {
        device.send(text(chat, &key)).await;
    }
    let (mut wrote, mut heard) = (0, 0);
    while heard < messages.len() {
        let event = device.event().await;
        let Some(message) = event.get("newMessage") else { continue };
        heard += 1;
        if message["text"] == key.as_str() {
            wrote = number(&message["seq"]);
        }
        let mut mark = read(chat, number(&message["seq"]));
        mark["ack"] = json!({"position": event["position"]});
        device.tell(mark).await;
    }
    let (mut frames, mut read) = (0, BTreeMap::new());
    while author && read.values().filter(|seq| **seq >= wrote).count() < PEOPLE - 1 {
        let receipt = device.receipt().await;
        frames += 1;
        if receipt["userId"] != person.id.as_str() {
            read.insert(receipt["userId"].to_string(), number(&receipt["readSeq"]));
        }
    }
    frames
}
