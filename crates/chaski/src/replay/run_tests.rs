//! The whole harness against a server in memory that keeps the contract, and one that does not.

use super::*;
use axum::{
    Json, Router,
    extract::{
        Path as UrlPath, Query, State, WebSocketUpgrade,
        ws::{Message, WebSocket},
    },
    http::HeaderMap,
    response::Response,
    routing::get,
};
use chaski_client::{
    Body, Command,
    v1::{self, ClientFrame, ServerFrame},
};
use prost::Message as _;
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    io::{self, BufRead as _, BufReader},
    sync::{Mutex, MutexGuard},
};
use tokio::{net::TcpListener, sync::watch};

/// What the server does wrong.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// Every socket is cut after some events: no violation, clients resume.
    Cuts,
    /// One event never reaches any socket.
    Loses,
    /// History tells of another text.
    Forges,
}

struct Fake {
    fault: Fault,
    world: Mutex<World>,
}

#[derive(Default)]
struct World {
    /// Events of each user, at positions 10, 20, 30, …
    users: HashMap<String, Inbox>,
    /// Participants and events of each chat.
    chats: HashMap<String, (Vec<String>, Vec<Body>)>,
}

#[derive(Default)]
struct Inbox {
    events: Vec<Body>,
    /// Tells the user's sockets how many there are.
    count: watch::Sender<usize>,
}

impl Fake {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    fn append(&self, world: &mut World, chat: &str, make: impl FnOnce(u64) -> Body) {
        let (participants, events) = world.chats.get_mut(chat).unwrap();
        let body = make(events.len() as u64 + 1);
        events.push(body.clone());
        for user in participants {
            let inbox = world.users.entry(user.clone()).or_default();
            inbox.events.push(body.clone());
            inbox.count.send_replace(inbox.events.len());
        }
    }

    fn answer(&self, (user, device): (&str, &str), command: Command) -> Option<Body> {
        let mut world = self.world();
        match command {
            Command::CreateChat(create) => {
                let chat_id = format!("g.{user}.{}", create.client_chat_id.replace('/', "."));
                if !world.chats.contains_key(&chat_id) {
                    let participants = create.participants.clone();
                    world.chats.insert(chat_id.clone(), (create.participants, Vec::new()));
                    let chat = chat_id.clone();
                    self.append(&mut world, &chat_id, |seq| {
                        let chat_id = chat;
                        Body::ChatUpdate(v1::ChatUpdate {
                            chat_id,
                            seq,
                            participants,
                            ..Default::default()
                        })
                    });
                }
                Some(Body::ChatCreated(v1::ChatCreated { chat_id, token: String::new() }))
            }
            Command::SendMessage(send) => {
                let Some(v1::send_message::Target::ChatId(chat_id)) = send.target else { panic!() };
                let Some(v1::send_message::Body::Text(text)) = send.body else { panic!() };
                let message_id = format!("m:{user}:{chat_id}:{}", send.client_message_id);
                let known = world.chats[&chat_id]
                    .1
                    .iter()
                    .any(|body| matches!(body, Body::NewMessage(m) if m.message_id == message_id));
                if !known {
                    let message = v1::NewMessage {
                        chat_id: chat_id.clone(),
                        message_id: message_id.clone(),
                        client_message_id: send.client_message_id,
                        sender_id: user.into(),
                        sender_device_id: device.into(),
                        body: Some(v1::new_message::Body::Text(text)),
                        ..Default::default()
                    };
                    self.append(&mut world, &chat_id, |seq| {
                        Body::NewMessage(v1::NewMessage { seq, ..message })
                    });
                }
                Some(Body::MessageAccepted(v1::MessageAccepted {
                    message_id,
                    ..Default::default()
                }))
            }
            Command::Ping(_) => Some(Body::Pong(v1::Pong {})),
            _ => None,
        }
    }

    /// Whether this event is the one that gets lost.
    fn loses(&self, body: &Body) -> bool {
        let first = |m: &v1::NewMessage| m.seq == 3 && m.client_message_id.starts_with("synthetic");
        self.fault == Fault::Loses
            && matches!(body, Body::NewMessage(m) if first(m) && m.chat_id.ends_with(".7"))
    }
}

fn who(headers: &HeaderMap) -> (String, String) {
    let bearer = headers["authorization"].to_str().unwrap().strip_prefix("Bearer ").unwrap();
    let (user, device) = bearer.split_once('/').unwrap();
    (user.into(), device.into())
}

async fn socket(
    State(fake): State<Arc<Fake>>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response {
    let upgrade = upgrade.protocols(["chaski.v1.json", "chaski.v1.protobuf"]);
    let json = headers["sec-websocket-protocol"] == "chaski.v1.json";
    upgrade.on_upgrade(move |socket| async move {
        let who = who(&headers);
        serve(&fake, socket, (&who.0, &who.1), json).await;
    })
}

/// Serves a socket until it ends.
async fn serve(fake: &Fake, mut socket: WebSocket, who: (&str, &str), json: bool) -> Option<()> {
    let mut changed = fake.world().users.entry(who.0.to_owned()).or_default().count.subscribe();
    let (mut next, mut sent) = (None, 0);
    loop {
        let mut out = Vec::new();
        if let Some(next) = &mut next {
            let world = fake.world();
            for body in world.users[who.0].events.iter().skip(*next) {
                *next += 1;
                if !fake.loses(body) {
                    out.push(ServerFrame::event(*next as u64 * 10, body.clone()));
                }
            }
        }
        sent += out.len();
        for frame in out {
            socket.send(message(&frame, json)).await.ok()?;
        }
        if fake.fault == Fault::Cuts && sent > 60 {
            return None;
        }
        tokio::select! {
            _ = changed.changed() => {}
            received = socket.recv() => {
                let bytes = match received?.ok()? {
                    Message::Text(text) => text.as_bytes().to_vec(),
                    Message::Binary(bytes) => bytes.to_vec(),
                    _ => continue,
                };
                let frame = if json {
                    serde_json::from_slice(&bytes).unwrap()
                } else {
                    ClientFrame::decode(&*bytes).unwrap()
                };
                let reply = match frame.command {
                    Some(Command::Hello(hello)) => {
                        let position = hello.resume_after.unwrap_or(0);
                        next = Some((position / 10) as usize);
                        let welcome = v1::Welcome { position, heartbeat_seconds: 30, ..Default::default() };
                        Some(Body::Welcome(welcome))
                    }
                    Some(command) => fake.answer(who, command),
                    None => None,
                };
                if let Some(body) = reply {
                    socket.send(message(&ServerFrame::reply(frame.id, body), json)).await.ok()?;
                }
            }
        }
    }
}

fn message(frame: &ServerFrame, json: bool) -> Message {
    let bytes = frame.to_bytes(json);
    match json {
        true => Message::Text(String::from_utf8(bytes.into()).unwrap().into()),
        false => Message::Binary(bytes),
    }
}

#[derive(serde::Deserialize)]
struct Range {
    after: u64,
    limit: usize,
}

async fn history(
    State(fake): State<Arc<Fake>>,
    UrlPath(chat): UrlPath<String>,
    Query(range): Query<Range>,
) -> Json<Value> {
    let world = fake.world();
    let after = range.after as usize;
    let events = world.chats[&chat].1.iter().enumerate().skip(after).take(range.limit);
    let rows = events.map(|(place, body)| match body {
        Body::NewMessage(m) if fake.fault == Fault::Forges && place == 1 => {
            let body = Some(v1::new_message::Body::Text("forged".into()));
            json!(v1::NewMessage { body, ..m.clone() })
        }
        Body::NewMessage(m) => json!(m),
        Body::ChatUpdate(u) => json!({"seq": u.seq.to_string(), "chatUpdate": u}),
        other => panic!("{other:?}"),
    });
    let rows: Vec<Value> = rows.collect();
    let last = after + rows.len();
    let next = (last < world.chats[&chat].1.len()).then(|| last.to_string());
    Json(json!({"messages": rows, "next": next}))
}

async fn inbox(
    State(fake): State<Arc<Fake>>,
    headers: HeaderMap,
    Query(range): Query<Range>,
) -> Json<Value> {
    let world = fake.world();
    let after = (range.after / 10) as usize;
    let events = &world.users[&who(&headers).0].events;
    let page = events.iter().zip(1u64..).skip(after).take(range.limit);
    let page: Vec<ServerFrame> =
        page.map(|(body, place)| ServerFrame::event(place * 10, body.clone())).collect();
    let last = after + page.len();
    let next = (last < events.len()).then(|| (last * 10).to_string());
    Json(json!({"events": page, "next": next}))
}

const MESSAGES: u64 = 1_000;

/// Replays a synthetic log against a server with this fault.
async fn replay(fault: Fault, reports: &Path) -> ReplayReport {
    let fake = Fake { fault, world: Mutex::default() };
    let router = Router::new()
        .route("/v1/ws", get(socket))
        .route("/v1/chats/{chat}/messages", get(history))
        .route("/v1/inbox", get(inbox))
        .with_state(Arc::new(fake));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let signer: Signer = Arc::new(|key| {
        assert_eq!(key, Path::new("the key"));
        Ok(Arc::new(|user, device| Ok(format!("{user}/{device}"))))
    });
    let options = ReplayOptions {
        reports: reports.into(),
        dev_key: Some("the key".into()),
        synthetic_messages: MESSAGES,
        timeout: Duration::from_secs(if fault == Fault::Loses { 8 } else { 120 }),
        ..ReplayOptions::new(Target::Url(url), signer)
    };
    let mut out = io::sink();
    tokio::select! {
        report = run(options, &mut out) => report.unwrap(),
        ended = async { axum::serve(listener, router).await } => panic!("{ended:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_keeps_the_contract_passes() {
    for fault in [Fault::None, Fault::Cuts] {
        let dir = tempfile::tempdir().unwrap();
        let report = replay(fault, dir.path()).await;
        assert!(report.passed(), "{report}");
        assert_eq!((report.messages, report.chats), (MESSAGES, 120));
        assert_eq!(report.people_away, 60);
        assert!(report.away_share_min.is_some_and(|share| share >= 0.2), "{report:?}");
        assert!(report.delivery_ms.count > MESSAGES && report.accept_ms.count == MESSAGES);
        assert_eq!(report.reconnects > 0, fault == Fault::Cuts);
        // The list of all that was shown has a line for each message on each device.
        let shown = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
        let shown = shown.into_iter().find(|p| p.extension().is_some_and(|e| e == "gz")).unwrap();
        let lines =
            BufReader::new(flate2::read::GzDecoder::new(File::open(shown).unwrap())).lines();
        let rows = lines.map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
        let messages = rows.filter(|row| row["sha256"].is_string() && row["line"].is_u64()).count();
        assert!(messages as u64 > report.deliveries + report.messages);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_loses_or_forges_fails() {
    let dir = tempfile::tempdir().unwrap();
    let report = replay(Fault::Loses, dir.path()).await;
    assert!(report.lost > 0 && report.holes > 0 && report.history_differs > 0, "{report}");
    assert!(!report.passed());
    let report = replay(Fault::Forges, dir.path()).await;
    assert_eq!((report.history_differs, report.lost), (120, 0), "{report}");
    assert!(!report.passed());
}
