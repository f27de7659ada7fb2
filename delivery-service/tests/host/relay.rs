//! Stories of clients that come to a host which is not theirs and are carried to the one that is.

use super::world::{FixedClock, NOW_MS, PATIENCE, SOURCE, Socket, World, serve, text};
use chaski_auth::Verifier;
use chaski_core::{Partition, placement::Placement};
use chaski_delivery_service::host::{DeliveryHost, Elsewhere, HostConfig, HostParts, Whereabouts};
use chaski_relay::{Dial, Relays, When};
use chaski_runtime::{CancellationToken, Tasks};
use futures::{SinkExt as _, StreamExt as _};
use parking_lot::Mutex;
use serde_json::json;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{sync::watch, time::timeout};
use tokio_tungstenite::tungstenite::Message;
use tonic::Status;

const THERE: &str = "ws://h2/v1/ws";
/// What a client was told at a wrong host just now, at the clock of these tests.
const MOVED: &str = "?moved=1800000000";

/// A host that owns nothing, and its cable to another one.
struct Front {
    url: String,
    host: Arc<DeliveryHost>,
    relays: Relays,
    /// Cuts the streams over the cable; none: it takes no new ones.
    cable: Arc<Mutex<Option<CancellationToken>>>,
    dials: Arc<AtomicUsize>,
    tasks: Tasks,
}

impl Front {
    /// A host that takes this one for the owner of everything.
    async fn start(world: &World, owner: &Arc<DeliveryHost>, config: HostConfig) -> Self {
        let tasks = Tasks::new();
        let cable = Arc::new(Mutex::new(Some(CancellationToken::new())));
        let dials = Arc::new(AtomicUsize::new(0));
        let (to, at, plug, dialed) =
            (Arc::clone(owner), world.tasks.clone(), Arc::clone(&cable), Arc::clone(&dials));
        let dial: Dial = Arc::new(move |endpoint, outgoing| {
            assert_eq!(endpoint, "h2");
            dialed.fetch_add(1, Ordering::Relaxed);
            let token = plug.lock().clone();
            let back = token.map(|cut| {
                let there = outgoing.map(Ok).take_until(cut.clone().cancelled_owned());
                let back = to.relayed(&at, there.boxed());
                back.map(Ok).take_until(cut.cancelled_owned()).boxed()
            });
            Box::pin(async { back.ok_or_else(|| Status::unavailable("cut off")) })
        });
        let route = Arc::new(|_: &_| Some("h2".to_owned()));
        let (relays, links) = Relays::new(config.relay, config.relay_limits(), route, dial);
        let stop = tasks.stop();
        tasks.spawn("relays", async move {
            links.run(stop).await;
            Ok::<_, String>(())
        });
        let there = Elsewhere { url: THERE.into(), warm: true };
        let elsewhere = [(Partition(0), there)].into();
        let (_, whereabouts) = watch::channel(Whereabouts { elsewhere, ..Whereabouts::default() });
        let parts = HostParts {
            log: Arc::clone(&world.log),
            sender: Arc::clone(&world.around) as _,
            messages: Arc::clone(&world.around) as _,
            connections: Arc::clone(&world.around) as _,
            whereabouts,
            relays: Some(relays.clone()),
            verifier: Arc::new(Verifier::new([world.key.public_pem()]).unwrap()),
            clock: Arc::new(FixedClock),
            placement: Placement::new(1),
            source: SOURCE,
            blocks_visible: false,
        };
        let host = DeliveryHost::new(parts, config);
        let url = serve(&host, &tasks).await;
        Self { url, host, relays, cable, dials, tasks }
    }

    /// A socket of somebody who was sent here from another wrong host.
    async fn socket(&self, world: &World, user: &str, after: Option<u64>) -> Socket {
        let url = format!("{}{MOVED}", self.url);
        world.socket_at(&url, user, "phone", after).await
    }

    async fn device(&self, world: &World, user: &str) -> Socket {
        let mut socket = self.socket(world, user, None).await;
        socket.hear("welcome").await;
        socket
    }

    fn cut(&self) {
        self.cable.lock().take().unwrap().cancel();
    }

    async fn end(self) {
        assert_eq!(self.tasks.shut_down(PATIENCE).await, None);
    }
}

async fn start(config: HostConfig) -> (World, Front) {
    let world = World::start(super::settings(), |_| async {}).await;
    let front = Front::start(&world, &world.host, config).await;
    (world, front)
}

#[tokio::test]
async fn a_client_at_its_second_wrong_host_in_a_row_is_carried_to_its_own() {
    let (world, front) = start(HostConfig::default()).await;
    let mut ana = world.socket_at(&front.url, "ana", "phone", None).await;
    let away = ana.hear("goAway").await;
    let told = format!("{THERE}{MOVED}");
    assert_eq!((&away["reason"], &away["url"]), (&json!("MOVED"), &json!(told)));
    assert_eq!(ana.closed().await, 4001);
    // That address leads here again: from now on it is as if this were the right host.
    let mut ana = front.device(&world, "ana").await;
    world.around.message(&["ana"], text("g.1", 1, "ben", "é\u{0}")).await;
    let shown = ana.hear("newMessage").await;
    assert_eq!((&shown["seq"], &shown["text"]), (&json!("1"), &json!("é\u{0}")));
    ana.say(json!({"id": 2, "modifyChat": {"chatId": "g.1", "name": "n"}})).await;
    assert_eq!(ana.hear("chatModified").await["token"], "1.0.7");
    ana.say(json!({"ack": {"position": shown["position"]}})).await;
    let saved = world.around.until(|script| script.saved.pop()).await;
    assert_eq!(saved.cursor.to_string(), shown["position"]);
    ana.say(json!({"id": 3, "nonsense": {}})).await;
    assert_eq!(ana.hear("error").await["status"], 400);
    // All go by one stream; so do frames that are too large, or of the wrong kind.
    let mut ben = front.device(&world, "ben").await;
    let most = HostConfig::default().json_frame_bytes_max;
    ben.0.send(Message::text(" ".repeat(most))).await.unwrap();
    assert_eq!(ben.hear("error").await["status"], 400);
    ben.0.send(Message::text(" ".repeat(most + 1))).await.unwrap();
    assert_eq!(ben.closed().await, 1009);
    let mut ben = front.device(&world, "ben").await;
    ben.0.send(Message::text(" ".repeat(2 * most + 1))).await.unwrap();
    assert_eq!(ben.closed().await, 1009);
    ana.0.send(Message::binary(vec![1])).await.unwrap();
    assert_eq!(ana.closed().await, 4502);
    assert_eq!(front.dials.load(Ordering::Relaxed), 1);
    front.end().await;
    world.end().await;
}

#[tokio::test]
async fn l8_a_relayed_client_that_does_not_read_delays_no_other_and_loses_nothing() {
    const MESSAGES: u64 = 200;
    // Nobody is cut here for being slow.
    let config = HostConfig { ring_bytes: 256 << 20, write_seconds: 3600, ..super::settings() };
    let world = World::start(config.clone(), |_| async {}).await;
    let front = Front::start(&world, &world.host, config).await;
    let (mut slow, mut quick) =
        (front.device(&world, "ana").await, front.device(&world, "ben").await);
    // Far more than all buffers on the way to her, some for both.
    let long = "x".repeat(100_000);
    for seq in 1..=MESSAGES {
        let users: &[&str] = if seq % 20 == 0 { &["ana", "ben"] } else { &["ana"] };
        world.around.message(users, text("g.1", seq, "eve", long.as_str())).await;
        if seq % 20 == 0 {
            assert_eq!(quick.hear("newMessage").await["seq"], seq.to_string());
        }
    }
    quick.say(json!({"id": 2, "ping": {}})).await;
    quick.hear("pong").await;
    for seq in 1..=MESSAGES {
        assert_eq!(slow.hear("newMessage").await["seq"], seq.to_string());
    }
    front.end().await;
    world.end().await;
}

#[tokio::test]
async fn who_is_carried_is_sent_away_as_anybody_else() {
    let (world, front) = start(HostConfig::default()).await;
    // Revoked.
    let mut ana = front.device(&world, "ana").await;
    let (user, device) = ("ana".parse().unwrap(), "phone".parse().unwrap());
    world.host.revoke(&user, &device, NOW_MS / 1000);
    assert_eq!(ana.closed().await, 4501);
    // Replaced by a socket that came by itself.
    let mut ana = front.device(&world, "ben").await;
    world.device("ben", "phone", None).await;
    assert_eq!(ana.closed().await, 4503);
    // Their host gives them to a third one.
    let mut ben = front.device(&world, "ben").await;
    let third = Elsewhere { url: "ws://h3/v1/ws".into(), warm: true };
    let elsewhere = [(Partition(0), third)].into();
    world.whereabouts.send_modify(|told| {
        *told = Whereabouts { elsewhere, ..told.clone() };
        told.owned.clear();
    });
    assert_eq!(ben.hear("goAway").await["url"], "ws://h3/v1/ws");
    assert_eq!(ben.closed().await, 4001);
    front.end().await;
    world.end().await;
}

#[tokio::test]
async fn with_the_stream_its_clients_come_again_and_miss_nothing() {
    let (world, front) = start(HostConfig::default()).await;
    let mut ana = front.device(&world, "ana").await;
    world.around.message(&["ana"], text("g.1", 1, "ben", "x")).await;
    let seen = ana.hear("newMessage").await["position"].as_str().unwrap().parse().unwrap();
    front.cut();
    world.around.message(&["ana"], text("g.1", 2, "ben", "x")).await;
    // Once what was on its way is shown.
    let mut next = ana.next().await.unwrap();
    if next.to_text().unwrap().contains("newMessage") {
        next = ana.next().await.unwrap();
    }
    let away: serde_json::Value = serde_json::from_str(next.to_text().unwrap()).unwrap();
    let away = &away["goAway"];
    assert_eq!((&away["reason"], &away["url"]), (&json!("MOVED"), &json!(null)));
    assert!(away["retryAfterMs"].as_u64().unwrap() > 0);
    assert_eq!(ana.closed().await, 4001);
    // While their host is not reached, they are told the same.
    let mut ana = front.socket(&world, "ana", Some(seen)).await;
    assert_eq!(ana.hear("goAway").await["reason"], "MOVED");
    assert_eq!(ana.closed().await, 4001);
    *front.cable.lock() = Some(CancellationToken::new());
    let mut ana = front.socket(&world, "ana", Some(seen)).await;
    ana.hear("welcome").await;
    assert_eq!(ana.hear("newMessage").await["seq"], "2");
    // The process that carries them goes: they hear the answer to what they asked.
    let mut asked = world.around.asked.subscribe();
    ana.say(json!({"id": 2, "modifyChat": {"chatId": "g.1", "name": "n"}})).await;
    timeout(PATIENCE, asked.changed()).await.unwrap().unwrap();
    let drained = front.relays.drain(PATIENCE);
    let hears = async {
        let mut heard = Vec::new();
        while let Some(Message::Text(text)) = ana.next().await {
            heard.push(text.to_string());
        }
        heard.sort();
        heard
    };
    let (heard, ()) = tokio::join!(hears, drained);
    assert_eq!(heard.len(), 2, "{heard:?}");
    assert!(heard[0].contains("DRAINING") && heard[1].contains("chatModified"), "{heard:?}");
    front.end().await;
    world.end().await;
}

#[tokio::test]
async fn l8_as_many_are_carried_as_may_be_and_the_next_one_comes_again() {
    let config = HostConfig { relay: When::Always, relay_sockets_max: 2, ..HostConfig::default() };
    let (world, front) = start(config).await;
    let ana = front.device(&world, "ana").await;
    let _ben = front.device(&world, "ben").await;
    let mut eve = front.socket(&world, "eve", None).await;
    let away = eve.hear("goAway").await;
    assert_eq!((&away["reason"], &away["retryAfterMs"]), (&json!("BUSY"), &json!(1000)));
    assert_eq!(eve.closed().await, 4002);
    drop(ana);
    // Her place is free once it is seen that she has gone.
    let comes = async {
        loop {
            let mut eve = front.socket(&world, "eve", None).await;
            let next = eve.next().await.unwrap();
            if next.to_text().unwrap().contains("welcome") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, comes).await.expect("she is let in");
    front.end().await;
    world.end().await;
}

#[tokio::test]
async fn nobody_is_carried_twice_and_who_always_is_is_told_no_address() {
    let always = HostConfig { relay: When::Always, ..HostConfig::default() };
    let world = World::start(super::settings(), |_| async {}).await;
    let second = Front::start(&world, &world.host, always.clone()).await;
    let first = Front::start(&world, &second.host, always).await;
    // The second one is no owner, though the first one took it for that.
    let mut ana = world.socket_at(&first.url, "ana", "phone", None).await;
    let away = ana.hear("goAway").await;
    assert_eq!((&away["reason"], &away["url"]), (&json!("MOVED"), &json!(null)));
    assert_eq!(ana.closed().await, 4001);
    assert_eq!((first.dials.load(Ordering::Relaxed), second.dials.load(Ordering::Relaxed)), (1, 0));
    // Who comes to it by themselves is carried, at once.
    let mut ana = world.socket_at(&second.url, "ana", "phone", None).await;
    ana.hear("welcome").await;
    let never = HostConfig { relay: When::Never, ..HostConfig::default() };
    let third = Front::start(&world, &world.host, never).await;
    let mut ana = third.socket(&world, "ana", None).await;
    assert_eq!(ana.hear("goAway").await["url"], THERE);
    assert_eq!(ana.closed().await, 4001);
    for front in [first, second, third] {
        front.end().await;
    }
    world.end().await;
}
