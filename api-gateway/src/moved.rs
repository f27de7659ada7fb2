//! `/v1/ws` where no delivery host shares the process: says where the caller's host is, and closes;
//! or carries the socket there.

use crate::{GatewayConfig, error::Refusal, request::bearer, service::no_such_method};
use axum::{
    Router,
    extract::{
        State,
        ws::{
            CloseFrame, Message, WebSocket, WebSocketUpgrade, rejection::WebSocketUpgradeRejection,
        },
    },
    response::{IntoResponse as _, Response},
    routing::get,
};
use bytes::Bytes;
use chaski_auth::{Identity, Verifier};
use chaski_ports::Clock;
use chaski_proto::{
    Problem, client_frame, close,
    v1::{self, client_frame::Command, hosts_server::Hosts, server_frame::Body},
};
use chaski_relay::{NotRelayed, Relays, Tunnel, is_too_large};
use http::{HeaderMap, Uri};
use std::{sync::Arc, time::Duration};
use tonic::Request;

const JSON: &str = "chaski.v1.json";
const PROTOBUF: &str = "chaski.v1.protobuf";

/// One session lives for seconds and says little.
const BUFFER_BYTES: usize = 4096;

/// A frame over its limit is still read up to this many times the limit: a client that is cut off
/// while it sends sees a broken connection instead of the close code.
const OVERSIZE_FACTOR: usize = 2;

/// How long the client may take to take the last frames and to close.
const FAREWELL: Duration = Duration::from_secs(2);
/// Before a client comes again that cannot be told where, or for whom there is no room.
const AGAIN_MS: u32 = 1000;

struct Moved {
    hosts: Arc<dyn Hosts>,
    relays: Option<Relays>,
    verifier: Arc<Verifier>,
    clock: Arc<dyn Clock>,
    config: GatewayConfig,
}

/// `GET /v1/ws`, answered with `goAway MOVED` and the URL of the caller's delivery host, or carried
/// to it where `relays` say so.
pub fn moved_ws_router(
    hosts: Arc<dyn Hosts>,
    relays: Option<Relays>,
    verifier: Arc<Verifier>,
    clock: Arc<dyn Clock>,
    config: GatewayConfig,
) -> Router {
    Router::new()
        .route("/v1/ws", get(upgrade))
        .method_not_allowed_fallback(no_such_method)
        .with_state(Arc::new(Moved { hosts, relays, verifier, clock, config }))
}

async fn upgrade(
    State(moved): State<Arc<Moved>>,
    asked: Uri,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Refusal> {
    let identity = bearer(&headers, &moved.verifier, &*moved.clock)?;
    let upgrade = upgrade.map_err(|rejection| {
        let text = rejection.body_text();
        Problem::new(rejection.into_response().status().as_u16(), "not_a_websocket", text)
    })?;
    let upgrade = upgrade.protocols([JSON, PROTOBUF]);
    let json = upgrade.selected_protocol().is_none_or(|chosen| chosen != PROTOBUF);
    let frame_max = match json {
        true => moved.config.body_bytes_max,
        false => moved.config.frame_bytes_max,
    };
    let now_ms = moved.clock.now_ms();
    let carry = moved.relays.as_ref().is_some_and(|relays| relays.wanted(&asked, now_ms));
    Ok(upgrade
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(16 * BUFFER_BYTES)
        .max_frame_size(OVERSIZE_FACTOR * frame_max)
        .max_message_size(OVERSIZE_FACTOR * frame_max)
        .on_upgrade(move |socket| {
            session(socket, moved, identity, Format { json, frame_max, carry })
        }))
}

/// What frames are like, and whether they may be carried on.
#[derive(Clone, Copy)]
struct Format {
    json: bool,
    frame_max: usize,
    carry: bool,
}

/// The first frame, and as it came.
struct Hello {
    id: u32,
    hello: v1::Hello,
    message: Message,
}

/// What comes of it.
enum Answer {
    End(End),
    Carry(Relays, Tunnel, Message),
}

/// How a session ends: a last frame, and the close code.
struct End {
    frame: Option<v1::ServerFrame>,
    code: u16,
}

impl End {
    fn close(code: u16) -> Self {
        Self { frame: None, code }
    }

    fn error(code: u16, reply_to: u32, problem: &Problem) -> Self {
        let frame = v1::ServerFrame::reply(reply_to, Body::Error(problem.to_frame()));
        Self { frame: Some(frame), code }
    }

    fn go_away(code: u16, reason: &str, url: Option<String>, retry_after_ms: u32) -> Self {
        let go_away = v1::GoAway { reason: reason.into(), url, retry_after_ms };
        Self { frame: Some(v1::ServerFrame::notice(Body::GoAway(go_away))), code }
    }
}

async fn session(
    mut socket: WebSocket,
    moved: Arc<Moved>,
    identity: Option<Identity>,
    format: Format,
) {
    let hello = hello(&mut socket, format);
    let hello = tokio::time::timeout(moved.config.hello_timeout(), hello).await;
    let end = match hello {
        Ok(Ok(hello)) => match answer(&moved, identity, hello, format).await {
            Answer::End(end) => end,
            Answer::Carry(relays, tunnel, hello) => {
                return relays.carry(socket, format.json, vec![hello], tunnel).await;
            }
        },
        Ok(Err(end)) => end,
        Err(_) => End::close(close::PROTOCOL_ERROR),
    };
    metrics::counter!("chaski_ws_moved_total", "code" => end.code.to_string()).increment(1);
    // The client may have gone, or may not read: then there is nobody to tell.
    let _ = tokio::time::timeout(FAREWELL, farewell(socket, end, format.json)).await;
}

/// The first frame, which must be `hello`.
async fn hello(
    socket: &mut WebSocket,
    Format { json, frame_max, carry: _ }: Format,
) -> Result<Hello, End> {
    let message = loop {
        match socket.recv().await {
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(message @ Message::Text(_))) if json => break message,
            Some(Ok(message @ Message::Binary(_))) if !json => break message,
            Some(Err(error)) if is_too_large(&error) => return Err(End::close(close::TOO_LARGE)),
            _ => return Err(End::close(close::PROTOCOL_ERROR)),
        }
    };
    let bytes: Bytes = message.clone().into_data();
    if bytes.len() > frame_max {
        return Err(End::close(close::TOO_LARGE));
    }
    match client_frame(&bytes, json) {
        Ok(v1::ClientFrame { id, command: Some(Command::Hello(hello)), .. }) => {
            Ok(Hello { id, hello, message })
        }
        Ok(_) => Err(End::close(close::PROTOCOL_ERROR)),
        Err(wrong) => {
            Err(End::error(close::PROTOCOL_ERROR, wrong.id, &Problem::invalid(wrong.message)))
        }
    }
}

/// Authenticates the hello and finds the host.
async fn answer(
    moved: &Moved,
    known: Option<Identity>,
    Hello { id, hello, message }: Hello,
    format: Format,
) -> Answer {
    let identity = match authenticate(moved, known, id, hello) {
        Ok(identity) => identity,
        Err(end) => return Answer::End(*end),
    };
    if let Some(relays) = moved.relays.clone().filter(|_| format.carry) {
        match relays.open(&identity, format.json) {
            Ok(tunnel) => return Answer::Carry(relays, tunnel, message),
            Err(NotRelayed::Full) => {
                return Answer::End(End::go_away(close::DRAINING, "BUSY", None, AGAIN_MS));
            }
            Err(NotRelayed::Nowhere) => {}
        }
    }
    Answer::End(located(moved, &identity).await)
}

/// Whose hello it is. The header's token, where there was one, counts.
fn authenticate(
    moved: &Moved,
    known: Option<Identity>,
    id: u32,
    hello: v1::Hello,
) -> Result<Identity, Box<End>> {
    let token = hello.token.unwrap_or_default();
    let identity = match known {
        Some(identity) => Ok(identity),
        None => moved.verifier.verify(&token, moved.clock.now_ms()).map_err(Problem::from),
    };
    match identity {
        Ok(identity) if identity.device.as_str() == hello.device_id => Ok(identity),
        Ok(_) => {
            let other = "deviceId differs from the token's device";
            let problem = Problem::new(401, "unauthenticated", other);
            Err(Box::new(End::error(close::NOT_AUTHENTICATED, id, &problem)))
        }
        Err(problem) => {
            let revoked = problem.code == "revoked";
            let code = if revoked { close::REVOKED } else { close::NOT_AUTHENTICATED };
            Err(Box::new(End::error(code, id, &problem)))
        }
    }
}

/// Where the user is served.
async fn located(moved: &Moved, identity: &Identity) -> End {
    let request = Request::new(v1::LocateRequest { user_id: identity.user.to_string() });
    let located = moved.hosts.locate(request);
    match tokio::time::timeout(moved.config.service_timeout(), located).await {
        Ok(Ok(place)) => {
            let url = Some(place.into_inner().url);
            let url = match &moved.relays {
                Some(relays) => relays.address(url, moved.clock.now_ms()),
                None => url,
            };
            let retry_after_ms = if url.is_some() { 0 } else { AGAIN_MS };
            End::go_away(close::MOVED, "MOVED", url, retry_after_ms)
        }
        failed => {
            let problem = match failed {
                Ok(Err(status)) => Problem::from(status),
                _ => Problem::unavailable("nobody said in time which host serves this user"),
            };
            tracing::warn!(%problem, "a client could not be told its host");
            let retry_after_ms = problem.retry_after_ms.unwrap_or(AGAIN_MS);
            End::go_away(close::DRAINING, "UNAVAILABLE", None, retry_after_ms)
        }
    }
}

/// Says the last words and reads on until the client closes: what it has sent behind its hello
/// would else reset the connection, and with it what was just said.
async fn farewell(mut socket: WebSocket, end: End, json: bool) -> Result<(), axum::Error> {
    if let Some(frame) = end.frame {
        let bytes = frame.to_bytes(json);
        let message = match json {
            true => Message::Text(bytes.try_into().map_err(axum::Error::new)?),
            false => Message::Binary(bytes),
        };
        socket.send(message).await?;
    }
    let close = CloseFrame { code: end.code, reason: "".into() };
    socket.send(Message::Close(Some(close))).await?;
    while let Some(Ok(_)) = socket.recv().await {}
    Ok(())
}
