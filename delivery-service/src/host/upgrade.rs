//! The upgrade to a WebSocket, and `hello`: who is it, and is this the right host?

use super::{
    DeliveryHost,
    close::CloseReason,
    commands, is_final, opening, relay,
    session::{Session, Who},
    socket::{Incoming, Socket},
};
use axum::{
    Router,
    body::Bytes,
    extract::{
        State,
        ws::{WebSocketUpgrade, rejection::WebSocketUpgradeRejection},
    },
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::get,
};
use chaski_auth::Identity;
use chaski_proto::{
    Problem,
    v1::{self, client_frame::Command, server_frame::Body},
};
use futures::future::Either;
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::time::Instant;

const JSON: &str = "chaski.v1.json";
const PROTOBUF: &str = "chaski.v1.protobuf";
/// Memory of a socket for reading; the library's default is 128 KiB, allocated at once.
const READ_BUFFER_BYTES: usize = 4 << 10;
/// How much a socket may hold that the network has not taken.
const WRITE_BUFFER_BYTES_MAX: usize = 2 << 20;
/// A frame over its limit is still read up to this many times the limit: a client that is cut off
/// while it sends sees a broken connection instead of the close code.
const OVERSIZE_FACTOR: usize = 2;

pub(super) fn router(host: Arc<DeliveryHost>) -> Router {
    Router::new()
        .route("/v1/ws", get(upgrade))
        .method_not_allowed_fallback(no_such_method)
        .with_state(host)
}

async fn upgrade(
    State(host): State<Arc<DeliveryHost>>,
    asked: Uri,
    headers: HeaderMap,
    ws: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let token = bearer(&headers);
    let identity = match token.and_then(|t| t.map(|t| verify(&host, t)).transpose()) {
        Ok(identity) => identity,
        Err(problem) => return refused(&problem),
    };
    let ws = match ws {
        Ok(ws) => ws,
        Err(rejection) => {
            let text = rejection.body_text();
            let status = rejection.into_response().status();
            return refused(&Problem::new(status.as_u16(), "not_a_websocket", text));
        }
    };
    let ws = ws.protocols([JSON, PROTOBUF]);
    let json = ws.selected_protocol().is_none_or(|protocol| protocol == JSON);
    let frame_max = host.frame_max(json);
    let number = host.sockets.fetch_add(1, Ordering::Relaxed);
    let relays = host.parts.relays.as_ref();
    let carry = relays.is_some_and(|relays| relays.wanted(&asked, host.parts.clock.now_ms()));
    ws.read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(WRITE_BUFFER_BYTES_MAX)
        .max_frame_size(OVERSIZE_FACTOR * frame_max)
        .max_message_size(OVERSIZE_FACTOR * frame_max)
        .on_upgrade(move |socket| {
            let socket = Socket::new(Either::Left(socket), number, json, frame_max);
            serve(host, socket, identity, carry)
        })
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

async fn no_such_method() -> Response {
    refused(&Problem::new(405, "method_not_allowed", "this path takes GET, to become a WebSocket"))
}

/// A refusal before there is a socket: RFC 9457, as at the gateway.
fn refused(problem: &Problem) -> Response {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::BAD_REQUEST);
    let body = serde_json::json!({
        "type": "about:blank", "title": status.canonical_reason(), "status": status.as_u16(),
        "detail": problem.message, "code": problem.code,
    });
    let kind = [(header::CONTENT_TYPE, "application/problem+json")];
    let mut response = (status, kind, body.to_string()).into_response();
    if status == StatusCode::UNAUTHORIZED {
        let bearer = HeaderValue::from_static("Bearer");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, bearer);
    }
    response
}

/// One socket from `hello` to its end. Where its user is served elsewhere, it is carried there, or
/// told where.
pub(super) async fn serve(
    host: Arc<DeliveryHost>,
    mut socket: Socket,
    identity: Option<Identity>,
    carry: bool,
) {
    metrics::counter!("chaski_sockets_opened_total").increment(1);
    let patience = Duration::from_secs(host.config.hello_seconds);
    let reason = match tokio::time::timeout(patience, greet(&host, &mut socket, identity)).await {
        Ok(Ok(greeting)) => return welcome(host, socket, greeting, carry).await,
        Ok(Err(reason)) => reason,
        Err(_) => Some(CloseReason::ProtocolError),
    };
    if let Some(reason) = reason {
        socket.close(reason).await;
    }
}

/// A `hello` that was taken.
pub(super) struct Greeting {
    id: u32,
    pub(super) identity: Identity,
    resume_after: Option<u64>,
    /// As it came.
    pub(super) frame: Bytes,
}

async fn greet(
    host: &DeliveryHost,
    socket: &mut Socket,
    identity: Option<Identity>,
) -> Result<Greeting, Option<CloseReason>> {
    let frame = loop {
        match socket.receive().await {
            Incoming::Frame(bytes) => break bytes,
            Incoming::Alive => {}
            Incoming::Over(reason) => return Err(reason),
        }
    };
    let (id, hello) = match commands::read(&frame, socket.json) {
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
        Ok(identity) => Ok(Greeting { id, identity, resume_after: hello.resume_after, frame }),
        Err(problem) => {
            let error = v1::ServerFrame::reply(id, Body::Error(problem.to_frame()));
            let _ = socket.send(&error).await;
            Err(Some(match problem.code.as_ref() {
                "revoked" => CloseReason::Revoked,
                _ => CloseReason::NotAuthenticated,
            }))
        }
    }
}

async fn welcome(host: Arc<DeliveryHost>, mut socket: Socket, greeting: Greeting, carry: bool) {
    let identity = &greeting.identity;
    let who = Who { user: identity.user.clone(), device: identity.device.clone() };
    let ring = if host.is_draining() { None } else { host.ring_when_warm(&who.user).await };
    let Some(ring) = ring else {
        let carry = carry && !host.is_draining();
        return relay::elsewhere(&host, socket, &who, greeting, carry).await;
    };
    let Greeting { id, identity, resume_after, frame: _ } = greeting;
    if let Err(wait) = host.admission.ask(Instant::now()) {
        metrics::counter!("chaski_hellos_deferred_total").increment(1);
        let _ = socket.send(&v1::ServerFrame::notice(Body::GoAway(busy(wait)))).await;
        return socket.close(CloseReason::Busy).await;
    }
    match opening::open(&host, &ring, &who, resume_after).await {
        Ok(start) => Session::new(host, ring, socket, identity, id).run(start).await,
        Err(problem) => {
            let _ = socket.send(&v1::ServerFrame::reply(id, Body::Error(problem.to_frame()))).await;
            socket
                .close(match is_final(&problem) {
                    true => CloseReason::NotAuthenticated,
                    // The client comes again when the store answers.
                    false => CloseReason::Draining,
                })
                .await;
        }
    }
}

/// Others come first: come again here, not before this.
pub(super) fn busy(wait: Duration) -> v1::GoAway {
    let retry_after_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
    v1::GoAway { reason: "BUSY".into(), url: None, retry_after_ms }
}

/// This host goes away: come again, to another one.
pub(super) fn draining() -> v1::GoAway {
    v1::GoAway { reason: "DRAINING".into(), url: None, retry_after_ms: 200 }
}
