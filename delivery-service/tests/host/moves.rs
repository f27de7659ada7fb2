//! Stories of partitions that go to another host, or come from one.

use super::world::{self, PATIENCE, World, text};
use chaski_core::{Partition, Position};
use chaski_delivery_service::host::{Elsewhere, Ending, HostConfig, Whereabouts};
use serde_json::json;
use std::time::Duration;
use tokio::time::{Instant, timeout};

const THERE: &str = "ws://h2/v1/ws";

fn owned_here() -> Whereabouts {
    Whereabouts { owned: [Partition(0)].into(), ..Whereabouts::default() }
}

fn owned_there(warm: bool) -> Whereabouts {
    let there = Elsewhere { url: THERE.into(), warm };
    Whereabouts { elsewhere: [(Partition(0), there)].into(), ..Whereabouts::default() }
}

#[tokio::test]
async fn l6_a_partition_is_served_until_its_new_owner_is_warm_and_then_sent_there_in_slices() {
    let config =
        HostConfig { move_ms: 600_000, move_slice: 2, move_every_ms: 100, ..HostConfig::default() };
    let world = World::start(config, |_| async {}).await;
    let mut devices = Vec::new();
    for n in 0..6 {
        devices.push(world.device("ana", &format!("d{n}"), None).await);
    }
    // Given the partition to another host that is not warm yet: all goes on, for newcomers too.
    world.whereabouts.send_replace(owned_there(false));
    let mut newcomer = world.device("ana", "new", None).await;
    world.around.message(&["ana"], text("g.1", 1, "ben", "x")).await;
    assert_eq!(newcomer.hear("newMessage").await["seq"], "1");
    for device in &mut devices {
        assert_eq!(device.hear("newMessage").await["seq"], "1");
    }
    drop(newcomer);
    // Once it is, they are sent there, some at a time, each with a little time of its own.
    let begun = Instant::now();
    world.whereabouts.send_replace(owned_there(true));
    for device in &mut devices {
        let away = device.hear("goAway").await;
        assert_eq!((&away["reason"], &away["url"]), (&json!("MOVED"), &json!(THERE)));
        assert!(away["retryAfterMs"].as_u64().unwrap() < 100, "{away}");
        assert_eq!(device.closed().await, 4001);
    }
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(200), "three slices have two pauses: {took:?}");
    let mut late = world.socket("ana", "late", None).await;
    assert_eq!(late.hear("goAway").await["url"], THERE);
    assert_eq!(late.closed().await, 4001);
    timeout(PATIENCE, world.host.handed_over()).await.expect("it is handed over");
    assert!(world.host.warm().borrow().is_empty());
    world.end().await;
}

#[tokio::test]
async fn a_new_owner_that_does_not_become_warm_gets_the_sockets_after_its_time() {
    let config = HostConfig { move_ms: 300, ..HostConfig::default() };
    let world = World::start(config, |_| async {}).await;
    let mut ana = world.device("ana", "phone", None).await;
    // While nobody owns it there is nowhere to go.
    world.whereabouts.send_replace(Whereabouts::default());
    let patience = Duration::from_millis(600);
    assert!(timeout(patience, ana.next()).await.is_err(), "it is served");
    let begun = Instant::now();
    world.whereabouts.send_replace(owned_there(false));
    assert_eq!(ana.hear("goAway").await["url"], THERE);
    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert_eq!(ana.closed().await, 4001);
    // It comes back before it was given up: newcomers are welcome again.
    world.whereabouts.send_replace(owned_here());
    world.device("ana", "phone", None).await;
    world.end().await;
}

#[tokio::test]
async fn a_hello_waits_for_the_ring_of_its_owner() {
    let before = |around: std::sync::Arc<world::Around>| async move {
        around.answers.send_replace(false);
    };
    let config = HostConfig { hello_seconds: 1, ..HostConfig::default() };
    let world = World::open(config, before).await;
    let mut early = world.socket("ana", "phone", None).await;
    let patience = Duration::from_millis(300);
    assert!(
        timeout(patience, early.next()).await.is_err(),
        "it waits, as long as a hello may take"
    );
    let away = early.hear("goAway").await;
    assert_eq!((&away["reason"], &away["url"]), (&json!("MOVED"), &json!(null)), "not to itself");
    assert_eq!(early.closed().await, 4001);
    let mut waits = world.socket("ana", "phone", None).await;
    world.around.answers.send_replace(true);
    waits.hear("welcome").await;
    world.end().await;
}

#[tokio::test]
async fn who_cannot_read_to_the_end_sends_its_clients_away_and_serves_again_once_it_can() {
    let config = HostConfig { behind_ms: 200, ..HostConfig::default() };
    let world = World::start(config, |_| async {}).await;
    let mut ana = world.device("ana", "phone", None).await;
    world.around.message(&["ana"], text("g.1", 1, "ben", "x")).await;
    let seen = ana.hear("newMessage").await["position"].as_str().unwrap().parse().unwrap();

    world.deaf.send_replace(true);
    assert_eq!(ana.hear("goAway").await["reason"], "MOVED");
    assert_eq!(ana.closed().await, 4001);
    world.around.message(&["ana"], text("g.1", 2, "ben", "x")).await;
    let mut again = world.socket("ana", "phone", Some(seen)).await;
    let patience = Duration::from_millis(300);
    assert!(timeout(patience, again.next()).await.is_err(), "it waits for what it would miss");
    world.deaf.send_replace(false);
    again.hear("welcome").await;
    assert_eq!(again.hear("newMessage").await["seq"], "2");
    world.end().await;
}

#[tokio::test]
async fn who_has_lost_its_place_sends_its_clients_to_ask_anew() {
    let world = World::start(HostConfig::default(), |_| async {}).await;
    let mut ana = world.device("ana", "phone", None).await;
    world.host.drain(Ending::Lost, PATIENCE).await;
    let away = ana.hear("goAway").await;
    assert_eq!((&away["reason"], &away["url"]), (&json!("MOVED"), &json!(null)));
    assert_eq!(ana.closed().await, 4001);
    world.end().await;
}

#[tokio::test]
async fn l6_what_a_session_owned_is_given_up_with_it_though_nobody_takes_it_over() {
    let config = HostConfig { move_ms: 600_000, ..HostConfig::default() };
    let world = World::start(config, |_| async {}).await;
    let in_session = |session| Whereabouts { session, ..owned_here() };
    let none = Whereabouts::default();
    for (round, (session, told)) in
        [(1, vec![none, in_session(1)]), (2, vec![in_session(2)])].into_iter().enumerate()
    {
        let mut ana = world.device("ana", "phone", None).await;
        let text = text("g.1", round as u64 + 1, "ben", "x");
        world.around.message(&["ana"], text).await;
        let seen = ana.hear("newMessage").await["position"].as_str().unwrap().parse().unwrap();
        for whereabouts in told {
            // Also where nobody sees that there was none in between.
            world.whereabouts.send_replace(whereabouts);
        }
        assert_eq!(ana.hear("goAway").await["reason"], "MOVED", "session {session}");
        assert_eq!(ana.closed().await, 4001);
        // Served again, from where it was.
        world.device("ana", "phone", Some(seen)).await;
    }
    world.whereabouts.send_replace(Whereabouts { session: 0, ..Whereabouts::default() });
    timeout(PATIENCE, world.host.handed_over()).await.expect("nothing is served without a session");
    let mut late = world.socket("ana", "phone", None).await;
    assert_eq!(late.hear("goAway").await["url"], json!(null));
    assert_eq!(late.closed().await, 4001);
    world.end().await;
}

#[tokio::test]
async fn l4_a_device_that_was_shown_more_elsewhere_waits_until_this_host_has_read_it() {
    let world = World::start(HostConfig::default(), |_| async {}).await;
    // This host hears no more of the log; another one has shown the device what is in it.
    world.deaf.send_replace(true);
    world.around.message(&["ana"], text("g.1", 1, "ben", "x")).await;
    let at = world.around.message(&["ana"], text("g.1", 2, "ben", "x")).await;
    let shown = Position::at(at).0;
    let mut ana = world.socket("ana", "phone", Some(shown)).await;
    let patience = Duration::from_millis(300);
    assert!(timeout(patience, ana.next()).await.is_err(), "not told to read again");
    world.deaf.send_replace(false);
    ana.hear("welcome").await;
    world.around.message(&["ana"], text("g.1", 3, "ben", "x")).await;
    assert_eq!(ana.hear("newMessage").await["seq"], "3", "nothing is shown again");
    // A place that the log never gave is told as before.
    let mut strange = world.socket("ana", "desk", Some(shown + 1000)).await;
    strange.hear("welcome").await;
    assert_eq!(strange.hear("resync").await["reason"], "UNKNOWN_POSITION");
    world.end().await;
}

#[tokio::test]
async fn l4_a_device_is_not_told_to_read_again_by_a_host_that_cannot_tell_where_the_log_ends() {
    let config = HostConfig { hello_seconds: 1, ..HostConfig::default() };
    let world = World::start(config, |_| async {}).await;
    world.deaf.send_replace(true);
    let at = world.around.message(&["ana"], text("g.1", 1, "ben", "x")).await;
    let shown = Some(Position::at(at).0);
    let mut ana = world.socket("ana", "phone", shown).await;
    let refused = ana.hear("error").await;
    assert_eq!((&refused["status"], &refused["code"]), (&json!(503), &json!("unavailable")));
    assert_eq!(ana.closed().await, 4002);
    world.deaf.send_replace(false);
    let mut ana = world.device("ana", "phone", shown).await;
    world.around.message(&["ana"], text("g.1", 2, "ben", "x")).await;
    assert_eq!(ana.hear("newMessage").await["seq"], "2", "nothing is shown again");
    world.end().await;
}
