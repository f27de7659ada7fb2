//! Ends and accidents: a drain, a restart, kill -9, and records that nobody can read.

use bytes::Bytes;
use chaski_client::{Body, Event, Outcome, v1};
use chaski_core::{ChatId, Offset, Partition, UserId};
use chaski_ports::{Clock as _, Log, ProducePolicy, Record, SystemClock, Topic};
use chaski_tests::{PATIENCE, Process, Set, World, text_to};
use futures::future::OptionFuture;
use prost::Message as _;
use serde_json::json;
use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;

pub(crate) async fn a_drain_sends_clients_away_and_a_restart_forgets_nothing(set: Set) {
    let world = World::start(set, |_| ()).await;
    let (ana, ben) = (world.person("ana"), world.person("ben"));
    let (mut phone, mut other) = (ana.device("phone").await, ben.device("phone").await);
    let first = json!({"to": ben.id, "clientMessageId": "m1", "text": "before"});
    let accepted = phone.send(first.clone()).await;
    let (before, read) = (phone.event().await, other.event().await);
    other.ack(other.position).await;

    let gone = async { (phone.socket.closed().await, other.socket.closed().await) };
    let (((code, frames), (code_2, _)), ()) = tokio::join!(gone, world.stop());
    assert_eq!((code, code_2), (4002, 4002));
    let go_away = &frames.last().expect("it is told why")["goAway"];
    assert!(go_away["reason"] == "DRAINING" && go_away["retryAfterMs"].is_u64(), "{frames:?}");

    world.start_again().await;
    // The retry of an accepted message is that message, over either way; other content is not.
    let http = ana.http("laptop");
    for _ in 0..2 {
        let again = http.post("/v1/messages", &first).await.expect(200);
        assert_eq!(again["messageId"], accepted["messageId"]);
    }
    let mut phone = ana.resume("phone", phone.position).await;
    let again = phone.send(first.clone()).await;
    assert_eq!(again["messageId"], accepted["messageId"]);
    phone.send(json!({"to": ben.id, "clientMessageId": "m1", "text": "other"})).await;
    phone.send(json!({"to": ben.id, "clientMessageId": "m2", "text": "after"})).await;
    let rejected = phone.event().await;
    assert_eq!(rejected["messageRejected"]["status"], 409, "nothing but this: {rejected}");
    assert_eq!(phone.message().await["text"], "after");

    // The cursor was saved by the drain: nothing comes twice.
    let mut other = ben.device("phone").await;
    assert_eq!(other.welcome["position"], read["position"], "saved by the drain");
    let after = other.message().await;
    assert_eq!((&after["text"], &after["seq"]), (&json!("after"), &json!("2")));
    // And a new device sees all, the same.
    let mut all = ana.device("tablet").await;
    assert_eq!(all.event().await, before);
    all.socket.close().await;
    world.end().await;
}

async fn append(
    log: &dyn Log,
    (topic, partition): (Topic, Partition),
    key: &str,
    value: &Bytes,
) -> Offset {
    let record = Record {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: value.clone(),
        timestamp_ms: SystemClock.now_ms(),
        record_type: "garbage",
        schema: 1,
        traceparent: None,
    };
    let producer = log.producer(ProducePolicy::GiveUp).expect("a producer");
    let appending = producer.append(topic, partition, record).expect("admitted");
    appending.await.expect("appended")
}

/// The first record under this key.
async fn find(log: &dyn Log, topic: Topic, from: Offset, key: &str) -> Bytes {
    let mut reader = log.reader(topic, Partition(0), from).await.expect("a reader");
    let reading = async {
        loop {
            let records = reader.next().await.expect("records");
            if let Some(record) = records.into_iter().find(|record| record.key == key.as_bytes()) {
                return record.value;
            }
        }
    };
    let found = tokio::time::timeout(PATIENCE, reading).await;
    found.unwrap_or_else(|_| panic!("{} has no record {key}", topic.name()))
}

pub(crate) async fn a_record_that_cannot_be_read_is_buried(set: Set) {
    let world = World::shared(set).await;
    let (ana, ben) = (world.person("ana"), world.person("ben"));
    let (mut phone, mut other) = (ana.device("phone").await, ben.device("phone").await);
    let log = world.log().await;
    let user = |id: &str| id.parse::<UserId>().expect("legal");
    let chat = ChatId::direct(&user(&ana.id), &user(&ben.id));
    let in_chat = (Topic::NewMessages, world.placement().of_chat(&chat));
    let for_ben = (Topic::Recipients, world.placement().of_user(&user(&ben.id)));
    let garbage = Bytes::from_static(b"\xff\xffnot a record");
    // Without an action, and for nobody: protobuf, but of no meaning.
    let command = v1::NewMessagesRecord { chat_id: chat.to_string(), ..Default::default() };
    let entry = v1::RecipientsRecord { at_ms: 1, ..Default::default() };
    let records = [
        (in_chat, chat.to_string(), garbage.clone()),
        (in_chat, chat.to_string(), command.encode_to_vec().into()),
        (for_ben, ben.id.clone(), garbage),
        (for_ben, ben.id.clone(), entry.encode_to_vec().into()),
    ];
    let mut ends = BTreeMap::new();
    for topic in [Topic::DeadLetters, Topic::Alerts] {
        ends.insert(topic, log.bounds(topic, Partition(0)).await.expect("bounds").end);
    }
    for (n, ((topic, partition), key, value)) in records.iter().enumerate() {
        let offset = append(&*log, (*topic, *partition), key, value).await;
        let place = format!("{}/{partition}/{offset}", topic.name());
        let letter = find(&*log, Topic::DeadLetters, ends[&Topic::DeadLetters], &place).await;
        let letter = v1::DeadLetter::decode(letter).expect("a dead letter");
        assert_eq!(
            (letter.topic.as_str(), letter.partition, letter.offset),
            (topic.name(), partition.0, offset.0)
        );
        assert_eq!((&letter.key[..], &letter.value[..]), (key.as_bytes(), &value[..]));
        assert!(!letter.cause.is_empty() && !letter.by_role.is_empty(), "{letter:?}");
        let alert = find(&*log, Topic::Alerts, ends[&Topic::Alerts], &place).await;
        let alert = v1::Alert::decode(alert).expect("an alert");
        assert!(alert.detail.contains(&letter.cause), "{alert:?}");
        assert_eq!(alert.by_role, letter.by_role);

        // The partition goes on, for sockets and for the store.
        let key = format!("m{n}");
        let answer = ana.http("laptop");
        let message = json!({"to": ben.id, "clientMessageId": key, "text": key});
        let answer = answer.post("/v1/messages", &message).await;
        let _ = answer.expect(200);
        for device in [&mut phone, &mut other] {
            let message = device.message().await;
            assert_eq!(
                (&message["text"], &message["seq"]),
                (&json!(key), &json!((n + 1).to_string()))
            );
        }
        let http = ben.http("phone");
        chaski_tests::until("it is stored", || async {
            let inbox = http.get("/v1/inbox").await.expect(200);
            (inbox["events"][n]["newMessage"]["text"] == key.as_str()).then_some(())
        })
        .await;
    }
}

const KILLS: usize = 3;
/// So many messages are accepted before each kill, and after the last one.
const BETWEEN_KILLS: usize = 60;

/// Sends without a pause while the server is killed thrice; then everything that was accepted has
/// arrived, once and in order.
pub(crate) async fn what_was_accepted_survives_kill_9(set: Set) {
    let mut process = Process::start(set).await;
    let (ana, ben) = (process.person("ana"), process.person("ben"));
    let (mut from, mut to) = (ana.client("phone", None), ben.client("phone", None));
    let (stop, mut stopped) = tokio::sync::watch::channel(false);
    let (count, mut counted) = tokio::sync::watch::channel(0);
    let killing = async {
        for kills in 0..=KILLS {
            // In the midst of sends, and of their answers.
            let so_far = *counted.borrow();
            let some = counted.wait_for(|count| *count >= so_far + BETWEEN_KILLS);
            some.await.expect("it counts on");
            if kills < KILLS {
                process.kill_and_start().await;
            }
        }
        stop.send_replace(true);
        process
    };
    let sending = async {
        let (mut sent, mut accepted, mut echoes) = (0_u64, BTreeMap::new(), 0_usize);
        let mut pace = tokio::time::interval(Duration::from_millis(5));
        let mut names = BTreeMap::new();
        let mut echoed_by = None;
        loop {
            let done = *stopped.borrow_and_update();
            if done && accepted.len() as u64 == sent {
                if echoes == accepted.len() {
                    break (accepted, from);
                }
                echoed_by.get_or_insert(Instant::now() + PATIENCE);
            }
            let late = OptionFuture::from(echoed_by.map(tokio::time::sleep_until));
            tokio::select! {
                Some(()) = late => panic!("L1: {} accepted, {echoes} echoed", accepted.len()),
                _ = pace.tick(), if !done && from.unsettled() < 500 => {
                    let id = from.send(text_to(&ben.id, &sent.to_string())).expect("there is room");
                    names.insert(id, sent.to_string());
                    sent += 1;
                }
                event = from.next() => match event.expect("the client goes on") {
                    Event::Settled { id, outcome: Outcome::Done(Body::MessageAccepted(reply)) } => {
                        assert_eq!(reply.client_message_id, names[&id]);
                        accepted.insert(reply.client_message_id, reply.message_id);
                        count.send_replace(accepted.len());
                    }
                    Event::Settled { outcome, .. } => panic!("{outcome:?}"),
                    Event::Durable { .. } => echoes += 1,
                    _ => {}
                },
                _ = stopped.changed() => {}
            }
        }
    };
    let mut receiving = async |count: Option<usize>, shown: &mut Vec<v1::NewMessage>| {
        while count.is_none_or(|count| shown.len() < count) {
            if let Event::Durable { body, .. } = to.next().await.expect("the client goes on") {
                let Some(Body::NewMessage(message)) = body else { panic!("{body:?}") };
                shown.push(message);
            }
        }
    };
    let mut shown = Vec::new();
    let story = async { tokio::join!(killing, sending) };
    let (process, (accepted, from)) = tokio::select! {
        story = story => story,
        () = receiving(None, &mut shown) => unreachable!("it reads on for ever"),
    };
    assert!(accepted.len() > KILLS * BETWEEN_KILLS, "{} were sent", accepted.len());
    let rest = tokio::time::timeout(PATIENCE, receiving(Some(accepted.len()), &mut shown)).await;
    assert!(rest.is_ok(), "L1: {} accepted, {} shown", accepted.len(), shown.len());
    let seqs: Vec<_> = shown.iter().map(|message| message.seq as usize).collect();
    assert_eq!(seqs, (1..=shown.len()).collect::<Vec<_>>(), "L3: no hole, no repeat, in order");
    let shown: BTreeMap<_, _> =
        shown.into_iter().map(|m| (m.client_message_id, m.message_id)).collect();
    assert_eq!(shown, accepted, "L1, L2: what was accepted, once, under the id that was told");
    from.close().await;
    assert!(process.terminate().await.success(), "SIGTERM drains and exits 0");
}
