//! The upgrade to a WebSocket, and `hello`: who is it, and is this the right host?

use super::{
    DeliveryHost,
    close::CloseReason,
    commands,
    session::{self, Session, Who},
};
use axum::{
    Router,
    body::Bytes,
    extract::{
        State,
        ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade},
    },
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use chaski_auth::Identity;
use chaski_proto::{
    Problem,
    v1::{self, client_frame::Command, server_frame::Body},
};
use futures::SinkExt;
use std::{sync::Arc, time::Duration};
use tonic::Request;

const JSON: &str = "chaski.v1.json";
const PROTOBUF: &str = "chaski.v1.protobuf";
/// Memory of a socket for reading; the library's default is 128 KiB, allocated at once.
const READ_BUFFER_BYTES: usize = 4 << 10;
/// How much a socket may hold that the network has not taken.
const WRITE_BUFFER_BYTES_MAX: usize = 2 << 20;

pub(super) fn router(host: Arc<DeliveryHost>) -> Router {
    Router::new().route("/v1/ws", get(upgrade)).with_state(host)
}

async fn upgrade(
    State(host): State<Arc<DeliveryHost>>,
    headers: HeaderMap,
    ws: WebSocketUpgrade,
) -> Response {
    let token = bearer(&headers);
    let identity = match token.and_then(|t| t.map(|t| verify(&host, t)).transpose()) {
        Ok(identity) => identity,
        Err(problem) => return refused(&problem),
    };
    let ws = ws.protocols([JSON, PROTOBUF]);
    let json = ws.selected_protocol().is_none_or(|protocol| protocol == JSON);
    let frame_max = match json {
        true => host.config.json_frame_bytes_max,
        false => host.config.protobuf_frame_bytes_max,
    };
    ws.read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(WRITE_BUFFER_BYTES_MAX)
        .max_frame_size(frame_max)
        .max_message_size(frame_max)
        .on_upgrade(move |socket| serve(host, Socket { socket, json }, identity))
}

/// The token in the header; none where there is no such header.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    match value.to_str().ok().and_then(|value| value.split_once(' ')) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(Some(token.trim())),
        _ => Err(Problem::new(401, "unauthenticated", "Authorization must be: Bearer <token>")),
    }
}

pub(super) fn verify(host: &DeliveryHost, token: &str) -> Result<Identity, Problem> {
    Ok(host.parts.verifier.verify(token, host.parts.clock.now_ms())?)
}

fn refused(problem: &Problem) -> Response {
    let body = serde_json::json!({
        "type": "about:blank", "title": "Unauthorized", "status": problem.status,
        "detail": problem.message, "code": problem.code,
    });
    let headers =
        [(header::CONTENT_TYPE, "application/problem+json"), (header::WWW_AUTHENTICATE, "Bearer")];
    (StatusCode::UNAUTHORIZED, headers, body.to_string()).into_response()
}

/// A WebSocket in one of the two formats.
pub(super) struct Socket {
    socket: WebSocket,
    pub(super) json: bool,
}

/// What came in.
pub(super) enum Incoming {
    Frame(Bytes),
    /// A ping or pong of the transport.
    Alive,
    /// The client is gone, or broke the protocol and was told so.
    Over(Option<CloseReason>),
}

impl Socket {
    /// The next frame. Cancel safe.
    pub(super) async fn receive(&mut self) -> Incoming {
        match self.socket.recv().await {
            Some(Ok(Message::Text(text))) if self.json => Incoming::Frame(text.into()),
            Some(Ok(Message::Binary(bytes))) if !self.json => Incoming::Frame(bytes),
            Some(Ok(Message::Text(_) | Message::Binary(_))) => {
                Incoming::Over(Some(CloseReason::ProtocolError))
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => Incoming::Alive,
            Some(Ok(Message::Close(_))) | None => Incoming::Over(None),
            Some(Err(error)) => {
                let too_large = error.to_string().contains("too long");
                Incoming::Over(too_large.then_some(CloseReason::TooLarge))
            }
        }
    }

    /// Queues an encoded frame; `flush` sends it.
    pub(super) async fn feed(&mut self, frame: Bytes) -> Result<(), axum::Error> {
        let message = match self.json {
            true => Message::Text(frame.try_into().expect("our JSON is UTF-8")),
            false => Message::Binary(frame),
        };
        self.socket.feed(message).await
    }

    pub(super) async fn flush(&mut self) -> Result<(), axum::Error> {
        self.socket.flush().await
    }

    pub(super) async fn send(&mut self, frame: &v1::ServerFrame) -> Result<(), axum::Error> {
        self.feed(frame.to_bytes(self.json)).await?;
        self.flush().await
    }

    /// Closes with a code, and reads on a little so that the client sees it.
    pub(super) async fn close(mut self, reason: CloseReason) {
        metrics::counter!("chaski_closes_total", "code" => reason.code().to_string()).increment(1);
        let frame = CloseFrame { code: reason.code(), reason: reason.text().into() };
        let goodbye = async {
            self.socket.send(Message::Close(Some(frame))).await?;
            while let Some(Ok(_)) = self.socket.recv().await {}
            Ok::<_, axum::Error>(())
        };
        // A client that does not answer the close is simply dropped.
        let _ = tokio::time::timeout(Duration::from_secs(2), goodbye).await;
    }
}

/// One socket from `hello` to its end.
async fn serve(host: Arc<DeliveryHost>, mut socket: Socket, identity: Option<Identity>) {
    metrics::counter!("chaski_sockets_opened_total").increment(1);
    let patience = Duration::from_secs(host.config.hello_seconds);
    let reason = match tokio::time::timeout(patience, greet(&host, &mut socket, identity)).await {
        Ok(Ok(greeting)) => return welcome(host, socket, greeting).await,
        Ok(Err(reason)) => reason,
        Err(_) => Some(CloseReason::ProtocolError),
    };
    if let Some(reason) = reason {
        socket.close(reason).await;
    }
}

/// A `hello` that was taken.
struct Greeting {
    id: u32,
    who: Who,
    expires_at: i64,
    resume_after: Option<u64>,
}

async fn greet(
    host: &DeliveryHost,
    socket: &mut Socket,
    identity: Option<Identity>,
) -> Result<Greeting, Option<CloseReason>> {
    let frame = loop {
        match socket.receive().await {
            Incoming::Frame(bytes) => break commands::read(&bytes, socket.json),
            Incoming::Alive => {}
            Incoming::Over(reason) => return Err(reason),
        }
    };
    let (id, hello) = match frame {
        Ok(v1::ClientFrame { id, command: Some(Command::Hello(hello)), .. }) => (id, hello),
        Ok(_) => return Err(Some(CloseReason::ProtocolError)),
        Err(error) => {
            // Told before it is closed, so that its author finds the mistake.
            let _ = socket.send(&error).await;
            return Err(Some(CloseReason::ProtocolError));
        }
    };
    let identity = match (identity, hello.token.as_deref()) {
        (None, Some(token)) => verify(host, token),
        (Some(identity), _) => Ok(identity),
        (None, None) => Err(Problem::new(401, "unauthenticated", "hello needs a token")),
    };
    let identity =
        identity.and_then(|identity| match identity.device.as_str() == hello.device_id {
            true => Ok(identity),
            false => {
                Err(Problem::new(401, "unauthenticated", "deviceId is not the token's device"))
            }
        });
    match identity {
        Ok(identity) => Ok(Greeting {
            id,
            who: Who { user: identity.user, device: identity.device },
            expires_at: identity.expires_at,
            resume_after: hello.resume_after,
        }),
        Err(problem) => {
            let error = v1::ServerFrame::reply(id, Body::Error(problem.to_frame()));
            let _ = socket.send(&error).await;
            Err(Some(CloseReason::NotAuthenticated))
        }
    }
}

async fn welcome(host: Arc<DeliveryHost>, mut socket: Socket, greeting: Greeting) {
    let Greeting { id, who, expires_at, resume_after } = greeting;
    if host.is_draining() {
        let _ = socket.send(&v1::ServerFrame::notice(Body::GoAway(draining()))).await;
        return socket.close(CloseReason::Draining).await;
    }
    let Some(ring) = host.ring_of(&who.user) else {
        let frame = v1::ServerFrame::notice(Body::GoAway(moved(&host, &who).await));
        let _ = socket.send(&frame).await;
        return socket.close(CloseReason::Moved).await;
    };
    match session::open(&host, &ring, &who, resume_after).await {
        Ok(start) => Session::new(host, ring, socket, who, expires_at).run(id, start).await,
        Err(problem) => {
            let _ = socket.send(&v1::ServerFrame::reply(id, Body::Error(problem.to_frame()))).await;
            // The client comes again when the store answers.
            socket.close(CloseReason::Draining).await;
        }
    }
}

/// This host goes away: come again, to another one.
pub(super) fn draining() -> v1::GoAway {
    v1::GoAway { reason: "DRAINING".into(), url: None, retry_after_ms: 200 }
}

/// Where the user is served; without a URL: come again.
pub(super) async fn moved(host: &DeliveryHost, who: &Who) -> v1::GoAway {
    let request = v1::LocateRequest { user_id: who.user.to_string() };
    match host.parts.hosts.locate(Request::new(request)).await {
        Ok(reply) => {
            let url = reply.into_inner().url;
            v1::GoAway { reason: "MOVED".into(), url: Some(url), retry_after_ms: 0 }
        }
        Err(_) => v1::GoAway { reason: "MOVED".into(), url: None, retry_after_ms: 500 },
    }
}
