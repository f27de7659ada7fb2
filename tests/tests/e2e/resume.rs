//! Devices that come back.

use chaski_client::{Body, Event};
use chaski_tests::{Format, Person, Set, World, until};
use serde_json::{Value, json};

/// Says so many texts to `to`, over HTTP, one after the other.
async fn say(from: &Person, to: &Person, texts: std::ops::Range<usize>) {
    let http = from.http("sender");
    for n in texts {
        let message =
            json!({"to": to.id, "clientMessageId": format!("m{n}"), "text": n.to_string()});
        let _ = http.post("/v1/messages", &message).await.expect(200);
    }
}

fn position(event: &Value) -> u64 {
    event["position"].as_str().expect("a string").parse().expect("a number")
}

pub(crate) async fn everything_after_resume_after_and_no_more(set: Set) {
    let world = World::shared(set).await;
    let (ana, ben) = (world.person("ana"), world.person("ben"));
    let mut first = ben.device("phone").await;
    assert_eq!(first.welcome["position"], "0", "a device never seen starts at the beginning");
    say(&ana, &ben, 0..12).await;
    let all = first.events(12).await;
    // Before the first, in the middle, between two positions, and at the end.
    for (after, index) in [
        (0, 0),
        (position(&all[0]), 1),
        (position(&all[6]) - 1, 6),
        (position(&all[6]), 7),
        (position(&all[11]), 12),
    ] {
        let mut device = ben.resume("laptop", after).await;
        assert_eq!(device.welcome["position"], after.to_string());
        assert_eq!(device.events(12 - index).await, all[index..], "after {after}");
        // Then live: what comes next is new.
        let mark = format!("after {after}");
        let live = json!({"to": ben.id, "clientMessageId": mark, "text": mark});
        let _ = ana.http("sender").post("/v1/messages", &live).await.expect(200);
        while device.message().await["text"] != mark.as_str() {
            assert!(index < 12 || device.position > after, "only what is new");
        }
        device.socket.close().await;
    }
}

pub(crate) async fn without_resume_after_the_stored_cursor_counts(set: Set) {
    let world = World::shared(set).await;
    let (ana, ben) = (world.person("ana"), world.person("ben"));
    say(&ana, &ben, 0..6).await;
    let mut phone = ben.device("phone").await;
    let all = phone.events(6).await;
    let third = position(&all[2]);
    phone.ack(third).await;
    phone.socket.close().await;
    // The cursor is saved within about two seconds.
    let mut phone = until("the cursor is saved", || async {
        let phone = ben.device("phone").await;
        (phone.position == third).then_some(phone)
    })
    .await;
    assert_eq!(phone.events(3).await, all[3..], "from the cursor on");
    // `resumeAfter` counts as an ack.
    phone.socket.close().await;
    let fifth = position(&all[4]);
    ben.resume("phone", fifth).await.socket.close().await;
    let mut phone = until("the cursor is saved", || async {
        let phone = ben.device("phone").await;
        (phone.position == fifth).then_some(phone)
    })
    .await;
    assert_eq!(phone.events(1).await, all[5..]);
    // Another device has its own.
    let mut tablet = ben.device("tablet").await;
    assert_eq!(tablet.events(6).await, all, "a device never seen starts at the beginning");
}

/// The ring of this world holds only the newest records; the rest comes in pages, while the chat
/// goes on. The project's own client notices a repeat; the seqs show a gap.
pub(crate) async fn a_device_far_behind_catches_up_while_others_talk(set: Set) {
    const BEFORE: usize = 250;
    const ALL: usize = 350;
    let world = World::small(set).await;
    let (ana, ben) = (world.person("ana"), world.person("ben"));
    say(&ana, &ben, 0..BEFORE).await;
    let mut client = ben.client("phone", Some(0));
    let talk = say(&ana, &ben, BEFORE..ALL);
    let listen = async {
        let (mut seen, mut last) = (0, 0);
        while seen < ALL as u64 {
            match client.next().await.expect("the client goes on") {
                Event::Durable { position, body: Some(Body::NewMessage(message)) } => {
                    assert!(position > last, "L4: {position} after {last}");
                    last = position;
                    seen += 1;
                    assert_eq!(message.seq, seen, "no gap, no overlap, in order");
                }
                Event::Connected { position } => assert_eq!(position, 0, "connected once"),
                Event::Receipt(_) => {}
                other => panic!("{other:?}"),
            }
        }
    };
    tokio::join!(talk, listen);
    assert_eq!(client.repeats_ignored(), 0);
    client.close().await;
}

pub(crate) async fn a_position_from_the_future_is_told_to_resync(set: Set) {
    let world = World::shared(set).await;
    let (ana, ben) = (world.person("ana"), world.person("ben"));
    say(&ana, &ben, 0..1).await;
    let mut seen = ben.device("laptop").await;
    let newest = position(&seen.event().await);
    // Ahead in this generation, and in one that does not exist.
    for future in [newest + 1_000_000, u64::MAX] {
        let mut socket = ben.socket("phone", Format::Json).await;
        let hello = json!({"deviceId": "phone", "resumeAfter": future.to_string()});
        socket.say(json!({"id": 1, "hello": hello})).await;
        let welcome = socket.frame().await;
        assert!(position(&welcome["welcome"]) < future, "{welcome}");
        let resync = socket.frame().await;
        assert!(resync["resync"]["reason"].is_string(), "{resync}");
        let from = resync["resync"]["fromPosition"].as_str().expect("a string");
        assert_eq!(welcome["welcome"]["position"], from, "it goes on from there");
        say(&ana, &ben, 1..2).await;
        // What comes next is live.
        let live = json!({"to": ben.id, "clientMessageId": future.to_string(), "text": "live"});
        let _ = ana.http("sender").post("/v1/messages", &live).await.expect(200);
        while socket.frame().await["newMessage"]["text"] != "live" {}
        // The future was not stored as this device's cursor.
        socket.close().await;
        let back = ben.device("phone").await;
        assert!(back.position < future, "{}", back.position);
        back.socket.close().await;
    }
}
