//! Stories of a delivery host: what its devices are shown, and what it asks of the services
//! around it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

#[path = "host/around.rs"]
mod around;
#[path = "host/backlog.rs"]
mod backlog;
#[path = "host/behind.rs"]
mod behind;
#[path = "host/hearing.rs"]
mod hearing;
#[path = "host/moves.rs"]
mod moves;
#[path = "host/relay.rs"]
mod relay;
#[path = "host/world.rs"]
mod world;

use chaski_core::{
    ChatId, Offset, Partition, Position,
    connection::Status,
    record::{Event, MarksChange, MemberMark},
};
use chaski_delivery_service::host::HostConfig;
use chaski_ports::Topic;
use chaski_proto::{Problem, v1};
use prost::Message as _;
use serde_json::json;
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep_until, timeout};
use world::{NOW_MS, PATIENCE, World, behind, change, text};

/// A mark that was submitted: (user, delivered, read, hidden).
type Told = (String, u64, u64, bool);

fn settings() -> HostConfig {
    HostConfig { receipts_every_ms: 10, cursor_save_ms: 10, ..HostConfig::default() }
}

async fn start() -> World {
    World::start(settings(), |_| async {}).await
}

/// The next submitted mark.
async fn told(world: &World) -> Told {
    let first = |script: &mut world::Script| {
        (!script.receipts.is_empty()).then(|| script.receipts.remove(0))
    };
    let chat = world.around.until(first).await;
    let mark = &chat.marks[0];
    (mark.user_id.clone(), mark.delivered_seq, mark.read_seq, mark.hide_read)
}

#[tokio::test]
async fn l7_a_host_hides_by_the_blocks_it_has_loaded_and_those_that_pass() {
    let direct = ChatId::direct(&"ana".parse().unwrap(), &"eve".parse().unwrap()).to_string();
    // Given a block of eve before the place where the host starts, and one of ben behind it.
    let world = World::start(settings(), |around| async move {
        let at = around.put(&["ana"], change("eve", Status::Blocked, false)).await;
        let mut script = around.script.lock();
        script.watermarks.watermarks = vec![behind(at)];
        script.blocks = [("ben", at.0 + 100), ("eve", at.0)]
            .map(|(peer, offset)| v1::BlockEdge {
                user_id: "ana".into(),
                peer_id: peer.into(),
                offset,
                blocked: true,
                at_ms: NOW_MS,
            })
            .into();
    })
    .await;
    // When both write to a group, and the block of eve ends and begins again meanwhile.
    let around = &world.around;
    let all = ["ana", "ben", "eve"];
    let first = around.message(&all, text("g.1", 1, "eve", "x")).await;
    around.message(&all, text("g.1", 2, "ben", "x")).await;
    around.put(&["ana"], change("eve", Status::None, true)).await;
    around.message(&all, text("g.1", 3, "eve", "x")).await;
    around.put(&["ana"], change("eve", Status::Blocked, false)).await;
    around.message(&all, text("g.1", 4, "eve", "x")).await;
    // Then ana sees exactly what was not ordered inside the block.
    let before = Some(Position::at(Offset(first.0 - 1)).0);
    let mut ana = world.device("ana", "phone", before).await;
    assert_eq!(ana.hear("messageHidden").await["seq"], "1");
    assert_eq!(ana.hear("newMessage").await["seq"], "2");
    assert_eq!(ana.hear("connectionUpdate").await["status"], "NONE");
    assert_eq!(ana.hear("newMessage").await["seq"], "3");
    assert_eq!(ana.hear("connectionUpdate").await["status"], "BLOCKED");
    let last = ana.hear("messageHidden").await;
    assert_eq!((&last["seq"], &last["reason"]), (&json!("4"), &json!("BLOCKED")));
    // And eve sees no difference.
    let mut eve = world.device("eve", "phone", before).await;
    for seq in ["1", "2", "3", "4"] {
        assert_eq!(eve.hear("newMessage").await["seq"], seq);
    }
    // When ana writes to eve all the same, the developers are told.
    let mut message = text(&direct, 1, "ana", "x");
    message.accepted_at = NOW_MS + 5001;
    let id = message.id.to_string();
    let at = around.message(&["ana", "eve"], message).await;
    let start = world.log.bounds(Topic::Alerts, Partition(0)).await.unwrap().start;
    let mut alerts = world.log.reader(Topic::Alerts, Partition(0), start).await.unwrap();
    let alert = timeout(PATIENCE, alerts.next()).await.expect("an alert").unwrap().remove(0);
    assert_eq!(alert.key, format!("recipients/0/{at}"));
    let alert = v1::Alert::decode(alert.value).unwrap();
    assert_eq!((&*alert.kind, &*alert.by_role, &*alert.tier), ("block-leak", "delivery", "sender"));
    assert_eq!((&*alert.sender_id, &*alert.recipient_id), ("ana", "eve"));
    assert_eq!((alert.message_id, alert.dropped), (id, 0));
    world.end().await;
}

#[tokio::test]
async fn receipts_go_out_for_what_is_acknowledged_and_read_and_come_in_beside_the_order() {
    let world = start().await;
    let around = &world.around;
    let mut ana = world.device("ana", "phone", None).await;
    // Delivered, once it is acknowledged; one's own message gives no mark.
    around.message(&["ana"], text("g.1", 1, "ben", "x")).await;
    around.message(&["ana"], text("g.1", 2, "ana", "x")).await;
    ana.hear("newMessage").await;
    let own = ana.hear("newMessage").await;
    ana.say(json!({"ack": {"position": own["position"]}})).await;
    assert_eq!(told(&world).await, ("ana".into(), 1, 0, false));
    // Delivered, where the device only says it when it comes back.
    around.message(&["ana"], text("g.1", 3, "ben", "x")).await;
    let unacked = ana.hear("newMessage").await["position"].as_str().unwrap().parse().unwrap();
    drop(ana);
    let mut ana = world.device("ana", "phone", Some(unacked)).await;
    assert_eq!(told(&world).await, ("ana".into(), 3, 0, false));
    // Read, as the settings say: asked once, then as this device and others change them.
    let read = |seq: u64| json!({"id": 2, "markRead": {"chatId": "g.1", "seq": seq}});
    ana.say(read(1)).await;
    assert_eq!(told(&world).await, ("ana".into(), 1, 1, false));
    around.script.lock().hides_read = true;
    ana.say(read(2)).await;
    assert_eq!(told(&world).await, ("ana".into(), 2, 2, false), "not asked again");
    ana.say(json!({"id": 3, "setSettings": {"hideReadMarks": true}})).await;
    ana.hear("settingsSet").await;
    ana.say(read(3)).await;
    assert_eq!(told(&world).await, ("ana".into(), 3, 3, true));
    let device = "desk".parse().unwrap();
    around.put(&["ana"], Event::Settings { hide_read_marks: false, device, at: NOW_MS }).await;
    around.message(&["ana"], text("g.1", 4, "ben", "x")).await;
    assert_eq!(ana.hear("newMessage").await["seq"], "4", "settings are shown to no device");
    ana.say(read(4)).await;
    assert_eq!(told(&world).await, ("ana".into(), 4, 4, false));
    // Others' marks.
    let mark = MemberMark { user: "ben".parse().unwrap(), delivered: 4, read: 2, public_read: 2 };
    let change =
        MarksChange { chat: "g.1".parse().unwrap(), marks: vec![mark], own: false, at: NOW_MS };
    around.put(&["ana"], Event::Marks(Arc::new(change))).await;
    let receipt = ana.hear("receipt").await;
    let found = ["userId", "deliveredSeq", "readSeq", "position"].map(|key| receipt[key].clone());
    assert_eq!(found, [json!("ben"), json!("4"), json!("2"), json!(null)]);
    world.end().await;
}

#[tokio::test]
async fn commands_are_answered_by_who_decides_them() {
    let world = start().await;
    let message = text("g.1", 1, "ben", "x");
    let id = message.id.to_string();
    world.around.message(&["ana"], message).await;
    let mut ana = world.device("ana", "phone", None).await;
    ana.hear("newMessage").await;
    ana.say(json!({"id": 2, "modifyChat": {"chatId": "g.1", "name": "n"}})).await;
    assert_eq!(ana.hear("chatModified").await["token"], "1.0.7");
    let add = json!({"chatId": "g.1", "userId": "eve", "operation": "ADD"});
    ana.say(json!({"id": 3, "modifyChatParticipants": add})).await;
    let error = ana.hear("error").await;
    assert_eq!((&error["status"], &error["code"]), (&json!(403), &json!("not_allowed")));
    let set = |base| json!({"userId": "eve", "status": "ACTIVE", "basedOnVersion": base});
    ana.say(json!({"id": 4, "setConnection": set(3)})).await;
    let error = ana.hear("error").await;
    let present = json!({"userId": "eve", "status": "BLOCKED", "version": "4"});
    assert_eq!((&error["status"], &error["connection"]), (&json!(409), &present));
    ana.say(json!({"id": 5, "setConnection": set(4)})).await;
    assert_eq!(ana.hear("connectionSet").await["version"], "5");
    // What has no reply is followed by a ping, whose reply comes next.
    let refuse = |id: &str, reason: &str| {
        let refusal = json!({"chatId": "g.1", "messageId": id, "reason": reason});
        json!({"id": 6, "rejectMessage": refusal})
    };
    let stored = format!("0{}", "1".repeat(31));
    for (id, key) in [(&id, "k1"), (&stored, "stored")] {
        // How long a reason may be is up to the sender service.
        ana.say(refuse(id, &"é".repeat(100))).await;
        let refused = world.around.until(|script| script.refusals.pop()).await;
        let (refusal, message) = (refused.refusal.unwrap(), refused.message.unwrap());
        assert_eq!((refusal.message_id, message.client_message_id), (id.clone(), key.to_owned()));
    }
    let wrong = [
        (refuse("x", ""), 400),
        (refuse(&"f".repeat(32), ""), 404),
        (json!({"id": 6, "markRead": {"chatId": "g.1", "seq": 0}}), 400),
        (json!({"id": 6, "markRead": {"chatId": "x", "seq": 1}}), 400),
    ];
    for (frame, status) in wrong {
        ana.say(frame).await;
        assert_eq!(ana.hear("error").await["status"], status);
    }
    ana.say(json!({"id": 7, "ping": {}})).await;
    ana.hear("pong").await;
    world.end().await;
}

#[tokio::test]
async fn a_device_too_many_is_told_and_sent_away_whether_it_resumes_or_not() {
    let world = start().await;
    let at = world.around.message(&["ana"], text("g.1", 1, "ben", "x")).await;
    let too_many = Problem::new(403, "too_many_devices", "revoke one first");
    world.around.script.lock().opens = [Err(too_many)].into();
    let mut ana = world.socket("ana", "phone", None).await;
    assert_eq!(ana.hear("error").await["code"], "too_many_devices");
    assert_eq!(ana.closed().await, 4500);
    let mut ana = world.device("ana", "phone", Some(Position::at(at).0)).await;
    let error = ana.hear("error").await;
    assert_eq!(error["status"], 403);
    assert_eq!(ana.closed().await, 4500);
    // Where the store is away, a device that says where it resumes is served all the same, and its
    // cursor is saved once it was opened.
    let away = || Err(Problem::unavailable("away"));
    world.around.script.lock().opens = [away(), away(), Ok(0)].into();
    let mut ana = world.socket("ana", "phone", None).await;
    assert_eq!(ana.hear("error").await["status"], 503);
    assert_eq!(ana.closed().await, 4002);
    let mut ana = world.device("ana", "phone", Some(Position::at(at).0)).await;
    world.around.message(&["ana"], text("g.1", 2, "ben", "x")).await;
    let position = ana.hear("newMessage").await["position"].clone();
    assert!(world.around.script.lock().saved.is_empty(), "no cursor without a device");
    ana.say(json!({"ack": {"position": position}})).await;
    let saved = world.around.until(|script| script.saved.pop()).await;
    assert_eq!(saved.cursor.to_string(), position);
    world.end().await;
}

#[tokio::test]
async fn l5_what_has_expired_is_told_and_the_device_goes_on_behind_it() {
    let world = World::start(settings(), |around| async move {
        let at = around.put(&["ben"], change("eve", Status::Active, false)).await;
        let mut script = around.script.lock();
        script.watermarks.watermarks = vec![behind(at)];
        script.watermarks.inbox_start = at.0 + 1;
    })
    .await;
    let at = world.around.message(&["ana"], text("g.1", 1, "ben", "x")).await;
    let start = world.around.script.lock().watermarks.inbox_start;
    let mut ana = world.device("ana", "phone", None).await;
    let resync = ana.hear("resync").await;
    let from = Position::at(Offset(start - 1)).to_string();
    assert_eq!((&resync["reason"], &resync["fromPosition"]), (&json!("EXPIRED"), &json!(from)));
    assert_eq!(ana.hear("newMessage").await["position"], Position::at(at).to_string());
    // A place that was never given is another matter.
    let mut ana = world.device("ana", "phone", Some(Position::at(Offset(at.0 + 9)).0)).await;
    assert_eq!(ana.hear("resync").await["reason"], "UNKNOWN_POSITION");
    world.end().await;
}

#[tokio::test]
async fn a_revoked_device_is_closed_at_once_and_others_stay() {
    let world = start().await;
    let mut phone = world.device("ana", "phone", None).await;
    let mut desk = world.device("ana", "desk", None).await;
    let (ana, device) = ("ana".parse().unwrap(), "phone".parse().unwrap());
    world.host.revoke(&ana, &device, NOW_MS / 1000 - 1);
    phone.say(json!({"id": 2, "ping": {}})).await;
    phone.hear("pong").await;
    world.host.revoke(&ana, &device, NOW_MS / 1000);
    assert_eq!(phone.closed().await, 4501);
    desk.say(json!({"id": 2, "ping": {}})).await;
    desk.hear("pong").await;
    // A socket that was verified before and is opened after: the verifier here knows nothing.
    let mut late = world.socket("ana", "phone", None).await;
    let first = late.next().await.unwrap();
    assert!(first.is_close() || late.closed().await == 4501, "{first:?}");
    world.end().await;
}

#[tokio::test]
async fn who_takes_nothing_is_cut_when_silent_and_kept_when_heard_of() {
    let config =
        HostConfig { heartbeat_seconds: 2, write_seconds: 60, ring_bytes: 200 << 20, ..settings() };
    let world = World::start(config, |_| async {}).await;
    let mut silent = world.device("ana", "silent", None).await;
    let mut heard = world.device("ana", "heard", None).await;
    // More than the network holds between two who do not read.
    const MESSAGES: u64 = 40;
    for seq in 1..=MESSAGES {
        world.around.message(&["ana"], text("g.1", seq, "ben", vec![b'x'; 700_000])).await;
        heard.say(json!({"id": seq, "ping": {}})).await;
    }
    // Half-open connections show themselves by nothing but time.
    let begun = Instant::now();
    for turn in 1..=16 {
        heard.say(json!({"id": turn, "ping": {}})).await;
        sleep_until(begun + Duration::from_millis(300) * turn).await;
    }
    let mut shown = 0;
    while shown < MESSAGES {
        let message = heard.next().await.expect("it was heard of, so it is served");
        shown += u64::from(message.to_text().unwrap().contains("newMessage"));
    }
    let mut shown = 0;
    while let Some(message) = silent.next().await
        && !message.is_close()
    {
        shown += 1;
    }
    assert!(shown < MESSAGES, "it was silent for longer than two heartbeats");
    world.end().await;
}

#[tokio::test]
async fn l8_who_comes_in_a_storm_is_told_when_to_come_again_and_others_are_served() {
    let config = HostConfig { hellos_per_second: 2, ..settings() };
    let world = World::start(config, |_| async {}).await;
    let mut first = world.device("ana", "phone", None).await;
    world.device("ben", "phone", None).await;
    let mut waits = Vec::new();
    for user in ["cem", "dee"] {
        let mut socket = world.socket(user, "phone", None).await;
        let away = socket.hear("goAway").await;
        assert_eq!((&away["reason"], &away["url"]), (&json!("BUSY"), &json!(null)));
        waits.push(away["retryAfterMs"].as_u64().unwrap());
        assert_eq!(socket.closed().await, 4002);
    }
    assert!(waits[0] > 0 && waits[1] > waits[0], "one after the other: {waits:?}");
    world.around.message(&["ana"], text("g.1", 1, "ben", "x")).await;
    assert_eq!(first.hear("newMessage").await["seq"], "1");
    tokio::time::sleep(Duration::from_millis(waits[1])).await;
    world.device("dee", "phone", None).await;
    world.end().await;
}
