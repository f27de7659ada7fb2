//! `/v1/ws` of a gateway that carries sockets to their host.

use crate::{NOW_MS, World};
use chaski_api_gateway::GatewayConfig;
use chaski_proto::v1;
use chaski_relay::{Dial, Limits, Mux, Relays, Side, When};
use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{sync::mpsc, time::timeout};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};
use tokio_util::sync::CancellationToken;
use tonic::Status;

const PATIENCE: Duration = Duration::from_secs(20);
const LIMITS: Limits = Limits { sockets_max: 1, window_bytes: 65_536 };

type Socket = WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>;
type Opened = (v1::RelayOpen, chaski_relay::Tunnel);

/// Relays to a host that gives every tunnel to the test; while there is none, to nobody.
#[expect(clippy::disallowed_methods, reason = "ends with its stream")]
fn relays(
    when: When,
    there: &Arc<Mutex<bool>>,
) -> (Relays, mpsc::Receiver<Opened>, impl Future<Output = ()> + Send + use<>) {
    let (tell, told) = mpsc::channel(10);
    let dial: Dial = Arc::new(move |_, outgoing| {
        let (mux, tell) = (Mux::new(Side::Serving, LIMITS), tell.clone());
        let back = mux.outgoing().map(Ok::<_, Status>).boxed();
        tokio::spawn(async move {
            let mut incoming = outgoing;
            while let Some(frame) = incoming.next().await {
                if let Some(opened) = mux.take(frame).unwrap() {
                    tell.send(opened).await.unwrap();
                }
            }
        });
        Box::pin(async { Ok(back) })
    });
    let there = Arc::clone(there);
    let route = Arc::new(move |_: &_| there.lock().unwrap().then(|| "host".to_owned()));
    let (relays, links) = Relays::new(when, LIMITS, route, dial);
    (relays, told, links.run(CancellationToken::new()))
}

async fn hear(socket: &mut Socket) -> Message {
    timeout(PATIENCE, socket.next()).await.unwrap().unwrap().unwrap()
}

async fn hello(world: &World, query: &str) -> Socket {
    let url = format!("ws://{}/v1/ws{query}", world.address);
    let (mut socket, _) = connect_async(url).await.unwrap();
    let hello = json!({"id": 7, "hello": {"deviceId": "phone", "token": world.token("phone")}});
    socket.send(Message::text(hello.to_string())).await.unwrap();
    socket
}

/// The `goAway` that is heard, and the close code behind it.
async fn sent_away(mut socket: Socket) -> (Value, u16) {
    let frame: Value = serde_json::from_str(hear(&mut socket).await.to_text().unwrap()).unwrap();
    let Message::Close(Some(close)) = hear(&mut socket).await else { panic!("a close") };
    (frame["goAway"].clone(), close.code.into())
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "aborted at the end")]
async fn who_was_just_told_to_move_is_carried_and_others_are_told_where_to() {
    let there = Arc::new(Mutex::new(true));
    let (relays, mut opened, links) = relays(When::Second, &there);
    let links = tokio::spawn(links);
    let world = World::with_relays(GatewayConfig::default(), Some(relays)).await;
    let moved = format!("?moved={}", NOW_MS / 1000);
    let (away, code) = sent_away(hello(&world, "").await).await;
    assert_eq!((&away["reason"], code), (&json!("MOVED"), 4001));
    assert_eq!(away["url"], format!("wss://h1/alice/v1/ws{moved}"));

    let mut alice = hello(&world, &moved).await;
    let (open, mut tunnel) = timeout(PATIENCE, opened.recv()).await.unwrap().unwrap();
    let caller = open.caller.unwrap();
    assert_eq!((&*caller.user_id, &*caller.device_id), ("alice", "phone"));
    assert_eq!((open.issued_at, open.expires_at), (NOW_MS / 1000, NOW_MS / 1000 + 60));
    assert!(!open.protobuf);
    // The host gets the hello as it was said, and what comes behind it.
    alice.send(Message::text("é")).await.unwrap();
    let said = tunnel.next().await.unwrap().unwrap().into_text().unwrap();
    assert_eq!(serde_json::from_str::<Value>(&said).unwrap()["id"], 7);
    assert_eq!(tunnel.next().await.unwrap().unwrap().to_text().unwrap(), "é");
    tunnel.send(axum::extract::ws::Message::Text("back".into())).unwrap();
    assert_eq!(hear(&mut alice).await.to_text().unwrap(), "back");
    // There is room for one; nobody is told to go where there is none.
    let (away, code) = sent_away(hello(&world, &moved).await).await;
    assert_eq!((&away["reason"], &away["url"], code), (&json!("BUSY"), &json!(null), 4002));
    tunnel.close(4501, "revoked");
    let Message::Close(Some(close)) = hear(&mut alice).await else { panic!("a close") };
    assert_eq!((u16::from(close.code), &*close.reason), (4501, "revoked"));
    // Where it is not known who to carry to, they are told what there is to tell.
    *there.lock().unwrap() = false;
    let (away, code) = sent_away(hello(&world, &moved).await).await;
    assert_eq!((&away["reason"], code), (&json!("MOVED"), 4001));
    world.end().await;
    links.abort();
}

#[tokio::test]
async fn who_is_always_carried_is_told_no_address() {
    let (relays, ..) = relays(When::Always, &Arc::default());
    let world = World::with_relays(GatewayConfig::default(), Some(relays)).await;
    let (away, code) = sent_away(hello(&world, "").await).await;
    assert_eq!((&away["reason"], &away["url"], code), (&json!("MOVED"), &json!(null), 4001));
    assert_eq!(away["retryAfterMs"], 1000);
    world.end().await;
}
