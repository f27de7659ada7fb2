//! Stories of devices that are further back than the ring and than what is stored: they share reads
//! of the log.

use super::world::{self, PATIENCE, Socket, World, change, text};
use chaski_core::{Offset, Partition, Position, connection::Status, record::Event};
use chaski_delivery_service::host::HostConfig;
use chaski_ports::Topic;
use chaski_proto::v1::{self, server_frame::Body};
use serde_json::{Value, json};
use std::{sync::atomic::Ordering, time::Duration};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

const RECIPIENTS: Topic = Topic::Recipients;
const HERE: Partition = Partition(0);

/// A ring of about three records.
fn small() -> HostConfig {
    let (behind_ms, heartbeat_seconds) = (600_000, 600);
    HostConfig { ring_bytes: 1500, behind_ms, heartbeat_seconds, ..HostConfig::default() }
}

fn place(at: Offset) -> u64 {
    Position::at(at).0
}

/// The seqs of the next messages, shown or hidden.
async fn seqs(socket: &mut Socket, count: u64) -> Vec<u64> {
    let mut seqs = Vec::new();
    for _ in 0..count {
        let message = socket.next().await.expect("the host serves on");
        let frame: Value = serde_json::from_str(message.to_text().unwrap()).unwrap();
        let body = [&frame["newMessage"], &frame["messageHidden"]];
        let seq = body.iter().find_map(|body| body["seq"].as_str());
        seqs.push(
            seq.unwrap_or_else(|| panic!("a message expected, not {frame}")).parse().unwrap(),
        );
    }
    seqs
}

/// Messages of eve to ana and ben with these seqs.
async fn talk(world: &world::Around, seqs: impl IntoIterator<Item = u64>) {
    for seq in seqs {
        world.message(&["ana", "ben"], text("g.1", seq, "eve", "x")).await;
    }
}

async fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let looking = async {
        while !is_so() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, looking).await.unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test]
async fn l5_pages_the_log_and_the_ring_meet_without_gap_or_overlap_and_with_the_blocks_of_the_place()
 {
    let world = World::start(small(), async |around| {
        talk(&around, 1..=4).await;
        around.put(&["ana"], change("eve", Status::Blocked, false)).await;
        talk(&around, 5..=8).await;
        around.put(&["ana"], change("eve", Status::None, true)).await;
        // The generator started again: it repeats two, and one is lost before the next.
        let said = |seq| Event::Message(text("g.1", seq, "eve", "x").into());
        around.put_from(&["ana", "ben"], said(7), 8, None).await;
        around.put_from(&["ana", "ben"], said(8), 9, Some(8)).await;
        around.put_from(&["ana", "ben"], said(99), 90, Some(80)).await;
        talk(&around, 9..=12).await;
        around.put(&["ana"], change("eve", Status::Blocked, false)).await;
        talk(&around, 13..=16).await;
    })
    .await;
    // Given a message service that has stored the first three.
    let start = world.log.bounds(RECIPIENTS, HERE).await.unwrap().start;
    let mut reader = world.log.reader(RECIPIENTS, HERE, start).await.unwrap();
    let mut places = Vec::new();
    while places.len() < 3 {
        places.extend(reader.next().await.unwrap().into_iter().map(|record| place(record.offset)));
    }
    let stored = (1..).zip(&places[..3]).map(|(seq, position)| {
        let message = v1::NewMessage { seq, chat_id: "g.1".into(), ..Default::default() };
        v1::ServerFrame::event(*position, Body::NewMessage(message))
    });
    world.around.script.lock().stored = (stored.collect(), places[2]);
    // Then a device sees everything once, hidden where it was blocked at that place.
    let mut ana = world.device("ana", "phone", Some(0)).await;
    assert_eq!(seqs(&mut ana, 4).await, [1, 2, 3, 4]);
    assert_eq!(ana.hear("connectionUpdate").await["status"], "BLOCKED");
    for seq in ["5", "6", "7", "8"] {
        assert_eq!(ana.hear("messageHidden").await["seq"], seq);
    }
    assert_eq!(ana.hear("connectionUpdate").await["status"], "NONE");
    for seq in ["9", "10", "11", "12"] {
        assert_eq!(ana.hear("newMessage").await["seq"], seq);
    }
    assert_eq!(ana.hear("connectionUpdate").await["status"], "BLOCKED");
    for seq in ["13", "14", "15", "16"] {
        assert_eq!(ana.hear("messageHidden").await["seq"], seq);
    }
    // And from there on what comes, and the other one sees no difference.
    let mut ben = world.device("ben", "phone", Some(places[1])).await;
    assert_eq!(seqs(&mut ben, 14).await, (3..=16).collect::<Vec<_>>());
    talk(&world.around, [17]).await;
    assert_eq!(ben.hear("newMessage").await["seq"], "17");
    assert_eq!(ana.hear("messageHidden").await["seq"], "17");
    world.end().await;
}

#[tokio::test]
async fn l8_one_read_of_the_log_serves_all_who_wait_while_the_store_is_away() {
    const DEVICES: u64 = 20;
    const LAST: u64 = 60;
    let world = World::start(small(), |around| async move {
        around.script.lock().away = true;
        talk(&around, 1..=LAST).await;
    })
    .await;
    // While the log gives nothing, all come that will be served by it.
    world.deaf.send_replace(true);
    let mut devices = Vec::new();
    for n in 0..DEVICES {
        let user = if n % 2 == 0 { "ana" } else { "ben" };
        let after = if n < 2 { 0 } else { place(Offset(n)) };
        let mut device = world.socket(user, &format!("d{n}"), Some(after)).await;
        device.hear("welcome").await;
        devices.push(device);
    }
    wait_for("all wait for the log", || world.host.catching_up() == DEVICES as usize).await;
    world.deaf.send_replace(false);
    for (n, mut device) in devices.into_iter().enumerate() {
        // Offsets are not dense: where it begins is told by the first one.
        let mut first = seqs(&mut device, 1).await.remove(0);
        assert!(n >= 2 || first == 1);
        while first < LAST {
            first += 1;
            assert_eq!(seqs(&mut device, 1).await, [first], "device {n}");
        }
        device.say(json!({"id": 2, "ping": {}})).await;
        device.hear("pong").await;
    }
    assert_eq!(world.reads.load(Ordering::Relaxed), 2, "the feed's, and one for all");
    assert_eq!(world.host.catching_up(), 0);
    world.end().await;
}

#[tokio::test]
async fn l8_who_takes_nothing_loses_a_seat_and_no_event_and_does_not_hold_up_others() {
    // More than the network holds between two who do not read.
    const MESSAGES: u64 = 40;
    let config = HostConfig { write_seconds: 600, catch_up_bytes: 1 << 20, ..small() };
    let world = World::start(config, |around| async move {
        around.script.lock().away = true;
        for seq in 1..=MESSAGES {
            around.message(&["ana"], text("g.1", seq, "ben", vec![b'x'; 700_000])).await;
        }
    })
    .await;
    world.deaf.send_replace(true);
    let mut slow = world.device("ana", "slow", Some(0)).await;
    let mut fast = world.device("ana", "fast", Some(0)).await;
    wait_for("both wait for the log", || world.host.catching_up() == 2).await;
    world.deaf.send_replace(false);
    let all = (1..=MESSAGES).collect::<Vec<_>>();
    assert_eq!(seqs(&mut fast, MESSAGES).await, all);
    assert_eq!(seqs(&mut slow, MESSAGES).await, all);
    world.end().await;
}

#[tokio::test]
async fn l5_what_neither_the_store_nor_the_log_has_is_told_once_the_store_says_so() {
    let world = World::start(small(), |around| async move {
        around.script.lock().away = true;
        talk(&around, 1..=9).await;
    })
    .await;
    let end = world.log.bounds(RECIPIENTS, HERE).await.unwrap().end;
    world.kept_from.send_replace(Offset(end.0 - 1));
    // While the store is away it may have it: the device is told nothing.
    let mut ana = world.device("ana", "phone", Some(0)).await;
    world.around.until(|script| (script.pages > 4).then_some(())).await;
    world.around.script.lock().away = false;
    let resync = ana.hear("resync").await;
    assert_eq!(resync["reason"], "EXPIRED");
    // Then it goes on with what the ring has.
    let mut seq = seqs(&mut ana, 1).await.remove(0);
    assert!((2..=9).contains(&seq), "{seq}");
    while seq < 9 {
        seq += 1;
        assert_eq!(seqs(&mut ana, 1).await, [seq]);
    }
    talk(&world.around, [10]).await;
    assert_eq!(ana.hear("newMessage").await["seq"], "10");
    world.end().await;
}

#[tokio::test]
async fn l5_a_read_of_the_log_passes_over_nothing_while_the_ring_moves_on() {
    const DEVICES: u64 = 30;
    const LAST: u64 = 1500;
    let world = World::start(small(), |around| async move {
        around.script.lock().away = true;
        talk(&around, 1..=100).await;
    })
    .await;
    // They come as the talk goes on, so that many reads meet a ring that moves.
    let (said, heard) = watch::channel(100);
    let coming = (0..DEVICES).map(|n| {
        let (world, mut heard) = (&world, heard.clone());
        async move {
            let from = 100 + (LAST - 100) / 2 * n / DEVICES;
            heard.wait_for(|said| *said >= from).await.unwrap();
            let mut device = world.device("ana", &format!("d{n}"), Some(0)).await;
            assert_eq!(seqs(&mut device, LAST).await, (1..=LAST).collect::<Vec<_>>(), "d{n}");
        }
    });
    let talking = async {
        for seq in 101..=LAST {
            talk(&world.around, [seq]).await;
            said.send_replace(seq);
        }
    };
    tokio::join!(futures::future::join_all(coming), talking);
    world.end().await;
}
