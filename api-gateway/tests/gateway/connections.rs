//! Connections: how many, how long they may be silent, and how they end.

use crate::World;
use chaski_api_gateway::GatewayConfig;
use futures::StreamExt as _;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use reqwest::Method;
use std::{future::Future, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_tungstenite::connect_async;

/// Far beyond every timeout that these tests set, so that only a hang gets here.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what).await.expect("this comes soon")
}

/// All that the server says until it closes.
async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut said = Vec::new();
    // A reset is an end, too.
    let _ = soon(stream.read_to_end(&mut said)).await;
    String::from_utf8(said).unwrap()
}

#[tokio::test]
async fn a_client_that_does_not_get_to_the_point_is_cut_off() {
    let config = GatewayConfig { header_read_timeout_ms: 100, ..GatewayConfig::default() };
    let world = World::with(config).await;
    for (name, said) in [
        ("nothing", ""),
        ("half a preface of HTTP/2", "PRI * HTTP/2.0\r\n"),
        ("a preface and nothing behind it", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("half a head", "GET /v1/chats HTTP/1.1\r\nhost: x\r\nx-slow: "),
        ("a request, then silence", "GET / HTTP/1.1\r\nhost: x\r\n\r\n"),
    ] {
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        stream.write_all(said.as_bytes()).await.unwrap();
        let mut end = Vec::new();
        assert!(soon(stream.read_to_end(&mut end)).await.is_ok(), "{name}");
    }
    world.end().await;
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let config = GatewayConfig { body_timeout_ms: 100, ..GatewayConfig::default() };
    let world = World::with(config).await;
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    let token = world.token("phone");
    let head = format!(
        "POST /v1/messages HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\
         content-length: 10\r\n\r\n{{\"to\""
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = read_to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("application/problem+json"), "{answer}");
    world.end().await;
}

#[tokio::test]
async fn one_connection_too_many_is_told_so_and_a_websocket_counts_until_it_ends() {
    let config = GatewayConfig { connections_max: 1, ..GatewayConfig::default() };
    let world = World::with(config).await;
    let url = format!("ws://{}/v1/ws", world.address);
    let (mut socket, _) = connect_async(&url).await.unwrap();

    let mut refused = TcpStream::connect(world.address).await.unwrap();
    let answer = read_to_end(&mut refused).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{head}");
    assert!(body.contains(r#""code":"too_many_connections""#), "{body}");

    socket.close(None).await.unwrap();
    while let Some(Ok(_)) = soon(socket.next()).await {}
    // The server has closed the socket by now, but the permit may return a moment later.
    let served = async {
        loop {
            let answer = world.request(Method::GET, "/v1/hosts/me").send().await;
            match answer.map(|response| response.status().as_u16()) {
                Ok(200) => break,
                Ok(503) | Err(_) => tokio::task::yield_now().await,
                Ok(other) => panic!("status {other}"),
            }
        }
    };
    soon(served).await;
    world.end().await;
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "ends with the connection")]
async fn http2_is_spoken_too() {
    let world = World::start().await;
    let stream = TcpStream::connect(world.address).await.unwrap();
    let (mut client, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::get(format!("http://{}/v1/hosts/me", world.address))
        .header("authorization", format!("Bearer {}", world.token("phone")))
        .body(String::new())
        .unwrap();
    let response = soon(client.send_request(request)).await.unwrap();
    assert_eq!((response.status().as_u16(), response.version()), (200, http::Version::HTTP_2));
    drop((client, response));
    let _ = soon(connection).await.unwrap();
    world.end().await;
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "awaited below")]
async fn at_the_end_requests_that_have_begun_are_answered_and_silent_clients_are_not_waited_for() {
    let drain_ms = 60_000; // so that who waits for silent clients does not end soon
    let config = GatewayConfig { service_timeout_ms: 300, drain_ms, ..GatewayConfig::default() };
    let world = World::with(config).await;
    let mut idle = TcpStream::connect(world.address).await.unwrap();
    world.stub.state().hangs = true;
    let begun = tokio::spawn(world.request(Method::GET, "/v1/chats").send());
    soon(world.stub.hanging()).await;

    world.stop.cancel();
    assert_eq!(read_to_end(&mut idle).await, "");
    assert_eq!(soon(begun).await.unwrap().unwrap().status(), 503, "answered by its own timeout");
    let address = world.address;
    soon(world.end()).await;
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "awaited below")]
async fn a_request_that_does_not_end_is_cut_off_at_the_drains_deadline() {
    let config = GatewayConfig { drain_ms: 50, ..GatewayConfig::default() };
    let world = World::with(config).await;
    world.stub.state().hangs = true;
    let begun = tokio::spawn(world.request(Method::GET, "/v1/chats").send());
    soon(world.stub.hanging()).await;
    soon(world.end()).await;
    assert!(soon(begun).await.unwrap().is_err());
}
