//! The parts of a request: who is calling, the query, the body, the write to wait for.

use crate::{GatewayConfig, error::Refusal, service::Gateway};
use axum::{
    body::Body,
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
};
use bytes::{Bytes, BytesMut};
use chaski_auth::{Identity, Verifier};
use chaski_ports::Clock;
use chaski_proto::{Problem, v1};
use futures::StreamExt as _;
use http::{HeaderMap, header, request::Parts};
use serde::de::DeserializeOwned;
use std::sync::Arc;

type State = Arc<Gateway>;

/// A body over its limit is still read up to this many times the limit, because a client that is
/// cut off while it sends sees a broken connection instead of the 413.
const DRAIN_FACTOR: usize = 2;

/// The identity in the header `Authorization`; `None` where there is no such header. A token in
/// the query string is never read.
pub(crate) fn bearer(
    headers: &HeaderMap,
    verifier: &Verifier,
    clock: &dyn Clock,
) -> Result<Option<Identity>, Problem> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let wrong = || Problem::new(401, "unauthenticated", "Authorization must be: Bearer <token>");
    let (scheme, token) = value.to_str().ok().and_then(|v| v.split_once(' ')).ok_or_else(wrong)?;
    if !scheme.eq_ignore_ascii_case("bearer") || values.next().is_some() {
        return Err(wrong());
    }
    Ok(Some(verifier.verify(token.trim(), clock.now_ms())?))
}

/// Who is calling; 401 where that is not known.
pub(crate) struct Caller(pub(crate) v1::Caller);

impl FromRequestParts<State> for Caller {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, gateway: &State) -> Result<Self, Refusal> {
        let identity = bearer(&parts.headers, &gateway.verifier, &*gateway.clock)?;
        let missing = "a token is needed: Authorization: Bearer <token>";
        let who = identity.ok_or_else(|| Problem::new(401, "unauthenticated", missing))?;
        Ok(Self(v1::Caller { user_id: who.user.to_string(), device_id: who.device.to_string() }))
    }
}

/// The id in the path: of a chat, a device or a user.
pub(crate) struct PathId(pub(crate) String);

impl FromRequestParts<State> for PathId {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, gateway: &State) -> Result<Self, Refusal> {
        match Path::<String>::from_request_parts(parts, gateway).await {
            Ok(Path(id)) => Ok(Self(id)),
            Err(_) => Err(Problem::invalid("the id in the path is not UTF-8").into()),
        }
    }
}

/// The value of `Chaski-Token`: the write that the answer must show. Empty where there is none.
pub(crate) struct Seen(pub(crate) String);

impl FromRequestParts<State> for Seen {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, _: &State) -> Result<Self, Refusal> {
        let value = parts.headers.get(crate::write::TOKEN).map(|value| value.to_str());
        match value.transpose() {
            Ok(token) => Ok(Self(token.unwrap_or_default().to_owned())),
            Err(_) => Err(Problem::invalid("Chaski-Token is not one that this server gave").into()),
        }
    }
}

/// The query. Names that are not asked for are ignored.
pub(crate) struct Params(Vec<(String, String)>);

impl FromRequestParts<State> for Params {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, _: &State) -> Result<Self, Refusal> {
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(pairs)) => Ok(Self(pairs)),
            Err(_) => Err(Problem::invalid("the query is not name=value pairs in UTF-8").into()),
        }
    }
}

impl Params {
    /// A text; `None` where it is not given.
    pub(crate) fn text(&self, name: &str) -> Result<Option<&str>, Problem> {
        let mut values = self.0.iter().filter(|(key, _)| key == name);
        match (values.next(), values.next()) {
            (_, Some(_)) => Err(Problem::invalid(format!("{name} is given twice"))),
            (value, None) => Ok(value.map(|(_, value)| value.as_str())),
        }
    }

    /// An unsigned 64-bit number; `None` where it is not given.
    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, Problem> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        // `parse` alone would take a sign.
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        match text.parse() {
            Ok(number) if digits => Ok(Some(number)),
            _ => Err(Problem::invalid(format!("{name} must be an integer from 0 to {}", u64::MAX))),
        }
    }

    /// `limit`, within its bounds.
    pub(crate) fn limit(&self, config: &GatewayConfig) -> Result<u32, Problem> {
        let max = config.page_max;
        match self.number("limit")? {
            None => Ok(config.page_default),
            Some(limit) if (1..=u64::from(max)).contains(&limit) => Ok(limit as u32),
            Some(_) => Err(Problem::invalid(format!("limit must be from 1 to {max}"))),
        }
    }
}

/// A body: JSON, whatever its content type says.
pub(crate) struct Json<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<State> for Json<T> {
    type Rejection = Refusal;
    async fn from_request(request: Request, gateway: &State) -> Result<Self, Refusal> {
        let config = &gateway.config;
        let declared = request.headers().get(header::CONTENT_LENGTH);
        let declared = declared.and_then(|v| v.to_str().ok()?.parse().ok());
        let body = read_body(request.into_body(), declared, config.body_bytes_max);
        let late = || Problem::new(408, "request_timeout", "the body did not arrive in time");
        let bytes =
            tokio::time::timeout(config.body_timeout(), body).await.map_err(|_| late())??;
        let wrong = |error: serde_json::Error| Problem::invalid(format!("the body: {error}"));
        Ok(Self(serde_json::from_slice(&bytes).map_err(wrong)?))
    }
}

async fn read_body(body: Body, declared: Option<usize>, max: usize) -> Result<Bytes, Problem> {
    let over = || Problem::new(413, "too_large", format!("the body is larger than {max} bytes"));
    let drained = max.saturating_mul(DRAIN_FACTOR);
    if declared.is_some_and(|declared| declared > drained) {
        return Err(over());
    }
    let mut stream = body.into_data_stream();
    let mut bytes = BytesMut::new();
    let mut seen = 0_usize;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|_| Problem::invalid("the body ended before its end"))?;
        seen = seen.saturating_add(chunk.len());
        if seen > drained {
            break;
        } else if seen > max {
            bytes = BytesMut::new();
        } else {
            bytes.extend_from_slice(&chunk);
        }
    }
    if seen > max { Err(over()) } else { Ok(bytes.freeze()) }
}
