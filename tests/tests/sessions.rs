//! A process and its coordinator on the real servers: it waits for one that is away when it starts,
//! and outlives the end of its session.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use chaski_client::{Client, Event};
use chaski_proto::v1::{new_message, server_frame::Body};
use chaski_tests::{Format, Set, Socket, World};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout_at},
};

/// For what takes a session, a start, or a machine that is busy.
const LONG: Duration = Duration::from_secs(120);

/// A way to a server that can be shut: connections through it break, new ones die at once.
struct Way {
    address: String,
    open: watch::Sender<bool>,
    _traffic: JoinSet<()>,
}

impl Way {
    /// Shut at first.
    async fn to(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let (open, state) = watch::channel(false);
        let mut traffic = JoinSet::new();
        traffic.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (mut near, _) = listener.accept().await.expect("it listens");
                let (server, mut open) = (server.clone(), state.clone());
                connections.spawn(async move {
                    if *open.borrow() {
                        let mut far = TcpStream::connect(server).await.expect("it is there");
                        tokio::select! {
                            _ = copy_bidirectional(&mut near, &mut far) => {}
                            _ = open.wait_for(|open| !open) => {}
                        }
                    }
                });
            }
        });
        Self { address, open, _traffic: traffic }
    }
}

fn free() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound").to_string()
}

/// Asks until the answer has this status and says this; the answer's headers.
async fn answers(url: &str, status: u16, says: &str) -> reqwest::header::HeaderMap {
    let (deadline, mut last) = (Instant::now() + LONG, String::new());
    while Instant::now() < deadline {
        // Before it listens nobody answers.
        if let Ok(answer) = reqwest::get(url).await {
            let (found, headers) = (answer.status().as_u16(), answer.headers().clone());
            last = format!("{found}: {}", answer.text().await.unwrap_or_default());
            if found == status && last.contains(says) {
                return headers;
            }
        }
        sleep(Duration::from_millis(50)).await;
    }
    panic!("{url} does not answer {status} with {says:?}; at last {last}");
}

/// Goes on until this event has come.
async fn hears(client: &mut Client, what: &str, is: impl Fn(&Event) -> bool) {
    let (deadline, mut heard) = (Instant::now() + LONG, Vec::new());
    while let Ok(event) = timeout_at(deadline, client.next()).await {
        let event = event.expect("a client does not stop");
        if is(&event) {
            return;
        }
        heard.push(event);
    }
    panic!("{what} has not come, but {heard:?}");
}

async fn shows(client: &mut Client, text: &str) {
    let body = Some(new_message::Body::Text(text.to_owned()));
    let is = |event: &Event| matches!(event, Event::Durable { body: Some(Body::NewMessage(m)), .. } if m.body == body);
    hears(client, text, is).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_waits_for_its_coordinator_and_serves_again_when_its_session_has_ended() {
    chaski_auth::install_crypto_provider();
    let url = std::env::var("CHASKI_COORDINATOR").expect("CHASKI_COORDINATOR names ZooKeeper");
    let servers = url.strip_prefix("zookeeper://").and_then(|rest| rest.split('/').next());
    let servers = servers.expect("a ZooKeeper").to_owned();
    let way = Way::to(servers.split(',').next().expect("one").to_owned()).await;
    let (listen, admin) = (free(), free());
    let (public, health) = (format!("http://{listen}"), format!("http://{admin}/health"));

    let starting = World::start(Set::Real, |config| {
        config.listen = listen.clone();
        config.admin_listen = admin.clone();
        config.coordinator = config.coordinator.replace(&servers, &way.address);
    });
    let early = async {
        answers(&format!("{health}/ready"), 503, "the coordinator at zookeeper://").await;
        answers(&format!("{health}/live"), 200, "").await;
        let refused = answers(&format!("{public}/v1/hosts/me"), 503, "unavailable").await;
        assert_eq!(refused["content-type"], "application/problem+json");
        assert_eq!(refused["retry-after"], "1");
        assert_eq!(Socket::open(&public, None, Format::Json).await.err(), Some(503));
        way.open.send_replace(true);
    };
    let (world, ()) = tokio::join!(Box::pin(starting), early);

    let (ana, ben) = (world.person("ana"), world.person("ben").http("laptop"));
    let write = async |text: &str| -> Value {
        let message = json!({"to": ana.id, "clientMessageId": text, "text": text});
        ben.post("/v1/messages", &message).await.expect(200)
    };
    let mut client = ana.client("phone", None);
    hears(&mut client, "a welcome", |event| matches!(event, Event::Connected { .. })).await;
    write("before").await;
    shows(&mut client, "before").await;

    way.open.send_replace(false);
    // However the client understands a host that sends it away and cannot say where to.
    let sent_away = |event: &Event| matches!(event, Event::Disconnected { .. });
    hears(&mut client, "the end of the session", sent_away).await;
    answers(&format!("{health}/ready"), 503, "a session of the coordinator").await;
    // Who owns nothing needs no session.
    write("meanwhile").await;

    way.open.send_replace(true);
    hears(&mut client, "a welcome", |event| matches!(event, Event::Connected { .. })).await;
    shows(&mut client, "meanwhile").await;
    write("after").await;
    shows(&mut client, "after").await;
    answers(&format!("{health}/ready"), 200, "").await;
    client.close().await;
    // No part of it has failed.
    world.end().await;
}
