//! The calls that only look.

use crate::{
    answer::{Chats, Connections, Devices, Events, History, Host, Messages, Receipts, chat_view},
    error::Refusal,
    request::{Caller, Params, PathId, Seen},
    service::Gateway,
};
use axum::{Json, extract::State};
use chaski_proto::{
    Problem,
    v1::{self, history_request::Range, inbox_request::Filter},
};
use serde_json::Value;
use std::sync::Arc;
use tonic::Request;

type Answer<T> = Result<Json<T>, Refusal>;

/// `GET /v1/chats`.
pub(crate) async fn chats(
    State(gateway): State<Arc<Gateway>>,
    Caller(caller): Caller,
    params: Params,
    Seen(token): Seen,
) -> Answer<Chats> {
    let request = v1::ChatsRequest {
        caller: Some(caller),
        after: params.text("after")?.unwrap_or_default().to_owned(),
        limit: params.limit(&gateway.config)?,
        token,
    };
    let reply = gateway.read(gateway.messages.chats(Request::new(request))).await?;
    Ok(Json(Chats::new(reply)))
}

/// `GET /v1/chats/{chatId}`.
pub(crate) async fn chat(
    State(gateway): State<Arc<Gateway>>,
    Caller(caller): Caller,
    PathId(chat_id): PathId,
    Seen(token): Seen,
) -> Answer<Value> {
    let request = v1::ChatRequest { caller: Some(caller), chat_id, token };
    let view = gateway.read(gateway.messages.chat(Request::new(request))).await?;
    Ok(Json(chat_view(&view)))
}

/// `GET /v1/chats/{chatId}/messages`.
pub(crate) async fn history(
    State(gateway): State<Arc<Gateway>>,
    Caller(caller): Caller,
    PathId(chat_id): PathId,
    params: Params,
    Seen(token): Seen,
) -> Answer<History> {
    let range = match (params.number("after")?, params.number("before")?) {
        (Some(_), Some(_)) => {
            return Err(Problem::invalid("after and before exclude each other").into());
        }
        (Some(after), None) => Some(Range::After(after)),
        (None, before) => before.map(Range::Before),
    };
    let forward = matches!(range, Some(Range::After(_)));
    let limit = params.limit(&gateway.config)?;
    let request = v1::HistoryRequest { caller: Some(caller), chat_id, range, limit, token };
    let reply = gateway.read(gateway.messages.history(Request::new(request))).await?;
    Ok(Json(History::new(reply, forward)))
}

/// `GET /v1/chats/{chatId}/receipts`: the marks of all members.
pub(crate) async fn receipts(
    State(gateway): State<Arc<Gateway>>,
    Caller(caller): Caller,
    PathId(chat_id): PathId,
    Seen(token): Seen,
) -> Answer<Receipts> {
    let request = v1::ChatRequest { caller: Some(caller), chat_id, token };
    let reply = gateway.read(gateway.messages.receipts(Request::new(request))).await?;
    Ok(Json(Receipts::new(reply)))
}

/// `GET /v1/inbox`.
pub(crate) async fn inbox(
    State(gateway): State<Arc<Gateway>>,
    Caller(caller): Caller,
    params: Params,
    Seen(token): Seen,
) -> Answer<Events> {
    let reply = slice(&gateway, caller, &params, token, Filter::Events).await?;
    Ok(Json(Events::new(reply)))
}

/// `GET /v1/messages/sent`.
pub(crate) async fn sent(
    State(gateway): State<Arc<Gateway>>,
    Caller(caller): Caller,
    params: Params,
    Seen(token): Seen,
) -> Answer<Messages> {
    let reply = slice(&gateway, caller, &params, token, Filter::Sent).await?;
    Ok(Json(Messages::new(reply)))
}

/// `GET /v1/messages/received`.
pub(crate) async fn received(
    State(gateway): State<Arc<Gateway>>,
    Caller(caller): Caller,
    params: Params,
    Seen(token): Seen,
) -> Answer<Messages> {
    let reply = slice(&gateway, caller, &params, token, Filter::Received).await?;
    Ok(Json(Messages::new(reply)))
}

/// `GET /v1/messages/unreceived`: of the token's device.
pub(crate) async fn unreceived(
    State(gateway): State<Arc<Gateway>>,
    Caller(caller): Caller,
    params: Params,
    Seen(token): Seen,
) -> Answer<Messages> {
    let reply = slice(&gateway, caller, &params, token, Filter::Unreceived).await?;
    Ok(Json(Messages::new(reply)))
}

/// `GET /v1/hosts/me`.
pub(crate) async fn host(
    State(gateway): State<Arc<Gateway>>,
    Caller(caller): Caller,
) -> Answer<Host> {
    let request = v1::LocateRequest { user_id: caller.user_id };
    let place = gateway.read(gateway.hosts.locate(Request::new(request))).await?;
    Ok(Json(Host::new(place)))
}

/// `GET /v1/devices`.
pub(crate) async fn devices(
    State(gateway): State<Arc<Gateway>>,
    Caller(caller): Caller,
) -> Answer<Devices> {
    let request = v1::DevicesRequest { caller: Some(caller) };
    let reply = gateway.read(gateway.connections.list_devices(Request::new(request))).await?;
    Ok(Json(Devices::new(reply)))
}

/// `GET /v1/connections`: contacts and blocks. They are answered where they are decided, so every
/// change that was answered is in it.
pub(crate) async fn connections(
    State(gateway): State<Arc<Gateway>>,
    Caller(caller): Caller,
    params: Params,
) -> Answer<Connections> {
    let request = v1::ConnectionsRequest {
        caller: Some(caller),
        after: params.text("after")?.unwrap_or_default().to_owned(),
        limit: params.limit(&gateway.config)?,
    };
    let reply = gateway.read(gateway.connections.list(Request::new(request))).await?;
    Ok(Json(Connections::new(reply)))
}

async fn slice(
    gateway: &Gateway,
    caller: v1::Caller,
    params: &Params,
    token: String,
    filter: Filter,
) -> Result<v1::InboxReply, Refusal> {
    let request = v1::InboxRequest {
        caller: Some(caller),
        after: params.number("after")?.unwrap_or_default(),
        limit: params.limit(&gateway.config)?,
        filter: filter.into(),
        token,
        tell_expired: true,
    };
    gateway.read(gateway.messages.inbox(Request::new(request))).await
}
