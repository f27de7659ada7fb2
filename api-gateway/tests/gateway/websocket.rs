//! `/v1/ws` of a gateway without a delivery host: the first frame decides, then it closes.

use crate::World;
use chaski_api_gateway::GatewayConfig;
use chaski_proto::{
    Problem,
    v1::{self, client_frame::Command, server_frame::Body},
};
use futures::{SinkExt as _, StreamExt as _};
use prost::Message as _;
use serde_json::{Value, json};
use std::time::Duration;
use tokio_tungstenite::{
    connect_async,
    tungstenite::{self, Message, client::IntoClientRequest as _, handshake::client::Request},
};

impl World {
    fn upgrade(&self, subprotocol: Option<&str>, token: Option<&str>) -> Request {
        let mut request = format!("ws://{}/v1/ws", self.address).into_client_request().unwrap();
        let headers = request.headers_mut();
        if let Some(subprotocol) = subprotocol {
            headers.insert("sec-websocket-protocol", subprotocol.parse().unwrap());
        }
        if let Some(token) = token {
            headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        request
    }

    /// Says `first`; what the server says then, up to its close code.
    async fn say(&self, upgrade: Request, first: Vec<Message>) -> (Vec<Message>, u16) {
        let (mut socket, _) = connect_async(upgrade).await.unwrap();
        for message in first {
            // The server may have closed before all is said.
            let _ = socket.send(message).await;
        }
        let mut heard = Vec::new();
        let code = loop {
            let next = tokio::time::timeout(Duration::from_secs(20), socket.next()).await.unwrap();
            match next.unwrap().unwrap() {
                Message::Close(frame) => break frame.unwrap().code.into(),
                message => heard.push(message),
            }
        };
        (heard, code)
    }
}

fn text(frame: Value) -> Message {
    Message::text(frame.to_string())
}

fn hello(device: &str, token: Option<&str>) -> Message {
    text(json!({"id": 7, "hello": {"deviceId": device, "token": token}}))
}

/// One frame in JSON.
fn frame(heard: &[Message]) -> Value {
    assert_eq!(heard.len(), 1, "{heard:?}");
    serde_json::from_str(heard[0].to_text().unwrap()).unwrap()
}

#[tokio::test]
async fn hello_is_answered_with_the_place_of_the_users_host() {
    let world = World::start().await;
    let token = world.token("phone");
    let moved =
        json!({"goAway": {"reason": "MOVED", "url": "wss://h1/alice/v1/ws", "retryAfterMs": 0}});
    for (name, upgrade, first) in [
        ("header", world.upgrade(None, Some(&token)), hello("phone", None)),
        ("hello", world.upgrade(Some("chaski.v1.json"), None), hello("phone", Some(&token))),
        ("both", world.upgrade(None, Some(&token)), hello("phone", Some("nonsense"))),
    ] {
        // Commands may follow at once.
        let follows = text(json!({"id": 8, "ping": {}}));
        let (heard, code) =
            world.say(upgrade, vec![Message::Ping("x".into()), first, follows]).await;
        let heard: Vec<_> = heard.into_iter().filter(|m| !m.is_pong()).collect();
        assert_eq!((frame(&heard), code), (moved.clone(), 4001), "{name}");
    }

    let binary = v1::ClientFrame {
        id: 7,
        command: Some(Command::Hello(v1::Hello {
            device_id: "phone".into(),
            ..Default::default()
        })),
        ..Default::default()
    };
    let upgrade = world.upgrade(Some("chaski.v1.protobuf"), Some(&token));
    let first = Message::binary(binary.encode_to_vec());
    let (heard, code) = world.say(upgrade, vec![first]).await;
    let Message::Binary(bytes) = &heard[0] else { panic!("{heard:?}") };
    let body = v1::ServerFrame::decode(bytes.clone()).unwrap().body;
    assert!(matches!(body, Some(Body::GoAway(go)) if go.reason == "MOVED"));
    assert_eq!(code, 4001);
    world.end().await;
}

#[tokio::test]
async fn the_subprotocol_is_one_that_was_offered() {
    let world = World::start().await;
    for (offered, chosen) in [
        (None, None),
        (Some("chaski.v1.json"), Some("chaski.v1.json")),
        (Some("chaski.v1.protobuf"), Some("chaski.v1.protobuf")),
        (Some("other, chaski.v1.protobuf"), Some("chaski.v1.protobuf")),
    ] {
        let (_, response) = connect_async(world.upgrade(offered, None)).await.unwrap();
        let header = response.headers().get("sec-websocket-protocol");
        assert_eq!(header.map(|v| v.to_str().unwrap()), chosen, "{offered:?}");
    }
    world.end().await;
}

#[tokio::test]
async fn who_is_not_who_they_say_is_refused() {
    let world = World::start().await;
    let (phone, stranger) = (world.token("phone"), World::start().await);
    let foreign = stranger.token("phone");
    for upgrade in [world.upgrade(None, Some("a.b.c")), world.upgrade(None, Some(&foreign))] {
        match connect_async(upgrade).await.unwrap_err() {
            tungstenite::Error::Http(response) => {
                assert_eq!(response.status(), 401);
                assert_eq!(response.headers()["content-type"], "application/problem+json");
            }
            other => panic!("{other}"),
        }
    }
    for (name, header, first) in [
        ("no token", None, hello("phone", None)),
        ("a wrong token", None, hello("phone", Some("a.b.c"))),
        ("a stranger's token", None, hello("phone", Some(&foreign))),
        ("another device", None, hello("laptop", Some(&phone))),
        ("another device than the header's", Some(phone.as_str()), hello("laptop", None)),
    ] {
        let (heard, code) = world.say(world.upgrade(None, header), vec![first]).await;
        let heard = frame(&heard);
        assert_eq!(
            (&heard["replyTo"], &heard["error"]["status"]),
            (&json!(7), &json!(401)),
            "{name}"
        );
        assert_eq!(code, 4500, "{name}");
    }
    let (lost, user) = (world.token("lost"), "alice".parse().unwrap());
    world.revocations.note(user, "lost".parse().unwrap(), i64::MAX, 0);
    let revoked = vec![hello("lost", Some(&lost))];
    let (heard, code) = world.say(world.upgrade(None, None), revoked).await;
    assert_eq!((&frame(&heard)["error"]["code"], code), (&json!("revoked"), 4501));
    stranger.end().await;
    world.end().await;
}

#[tokio::test]
async fn what_is_not_a_hello_ends_the_session() {
    let config = GatewayConfig { hello_timeout_ms: 200, ..GatewayConfig::default() };
    let world = World::with(config).await;
    let token = world.token("phone");
    let json = || world.upgrade(Some("chaski.v1.json"), Some(&token));
    let protobuf = || world.upgrade(Some("chaski.v1.protobuf"), Some(&token));
    for (name, upgrade, first, code) in [
        ("silence", json(), vec![], 4502),
        ("only pings", json(), vec![Message::Ping("x".into())], 4502),
        ("another command", json(), vec![text(json!({"id": 1, "ping": {}}))], 4502),
        ("an ack", json(), vec![text(json!({"ack": {"position": "1"}}))], 4502),
        ("not JSON", json(), vec![Message::text("hello")], 4502),
        ("binary where text is spoken", json(), vec![Message::binary(vec![8, 1])], 4502),
        ("text where binary is spoken", protobuf(), vec![hello("phone", None)], 4502),
        ("too large", protobuf(), vec![Message::binary(vec![0; 524_289])], 1009),
        // Read to its end, so that the close code arrives and not a broken connection.
        ("twice as large", protobuf(), vec![Message::binary(vec![0; 1_048_576])], 1009),
        ("as large as it may be", protobuf(), vec![Message::binary(vec![0; 524_288])], 4502),
    ] {
        assert_eq!(world.say(upgrade, first).await.1, code, "{name}");
    }
    let (heard, _) =
        world.say(json(), vec![text(json!({"id": 3, "hello": {"deviceId": 4}}))]).await;
    let heard = frame(&heard);
    assert_eq!((&heard["replyTo"], &heard["error"]["status"]), (&json!(3), &json!(400)));

    let plain = world.request(reqwest::Method::GET, "/v1/ws").send().await.unwrap();
    crate::check_problem("no upgrade", plain, 400, "not_a_websocket").await;
    world.end().await;
}

#[tokio::test]
async fn without_a_host_the_client_is_told_to_come_back() {
    let world = World::start().await;
    world.stub.state().refusal = Some(Problem::unavailable("no host yet"));
    let token = world.token("phone");
    let upgrade = world.upgrade(None, Some(&token));
    let (heard, code) = world.say(upgrade, vec![hello("phone", None)]).await;
    let away = json!({"goAway": {"reason": "UNAVAILABLE", "retryAfterMs": 1000}});
    assert_eq!((frame(&heard), code), (away, 4002));
    world.end().await;
}
