//! The calls that change something.

use crate::{
    error::Refusal,
    request::{Caller, Json, Params, PathId},
    service::Gateway,
};
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use chaski_proto::{
    Problem,
    v1::{self, submit_change_request::Change},
};
use http::{HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};
use tonic::Request;
use uuid::Uuid;

/// Names a write: given with its answer, and taken by reads that must show it.
pub(crate) const TOKEN: HeaderName = HeaderName::from_static("chaski-token");

/// What the message service may take beyond the time it was told to wait.
const VERDICT_GRACE: Duration = Duration::from_millis(500);

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MessageAccepted {
    message_id: String,
    chat_id: String,
    client_message_id: String,
}

/// Of a chat that was made or changed.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ChatAnswer {
    chat_id: String,
}

/// `{name}`. Left out it is refused: an empty name is one, too.
#[derive(Deserialize)]
pub(crate) struct Named {
    name: Option<String>,
}

impl Named {
    fn name(self) -> Result<String, Problem> {
        self.name.ok_or_else(|| Problem::invalid("name is missing"))
    }
}

/// `{}`.
#[derive(Serialize)]
struct Nothing {}

/// `POST /v1/messages`: answered once the log has it (L1).
pub(crate) async fn send_message(
    State(gateway): State<Arc<Gateway>>,
    Caller(caller): Caller,
    Json(message): Json<v1::SendMessage>,
) -> Result<Response, Refusal> {
    let client_message_id = message.client_message_id.clone();
    let request = v1::SubmitMessageRequest { caller: Some(caller), message: Some(message) };
    let reply = gateway.write(gateway.sender.submit(Request::new(request))).await?;
    let body =
        MessageAccepted { message_id: reply.message_id, chat_id: reply.chat_id, client_message_id };
    Ok(written(StatusCode::OK, &reply.token, body))
}

/// `POST /v1/chats`: answered with the chat's own verdict.
pub(crate) async fn create_chat(
    State(gateway): State<Arc<Gateway>>,
    Caller(caller): Caller,
    Json(chat): Json<v1::CreateChat>,
) -> Result<Response, Refusal> {
    let request_id = Bytes::copy_from_slice(Uuid::new_v4().as_bytes());
    let submit = v1::SubmitChatRequest {
        caller: Some(caller.clone()),
        chat: Some(chat),
        request_id: request_id.clone(),
    };
    let reply = gateway.write(gateway.sender.submit_chat(Request::new(submit))).await?;
    let (chat_id, made) = verdict(&gateway, caller, request_id).await?;
    let status = if made { StatusCode::CREATED } else { StatusCode::OK };
    Ok(written(status, &reply.token, ChatAnswer { chat_id }))
}

/// `PATCH /v1/chats/{chatId}`: answered with the chat's own verdict.
pub(crate) async fn rename_chat(
    State(gateway): State<Arc<Gateway>>,
    Caller(caller): Caller,
    PathId(chat_id): PathId,
    Json(named): Json<Named>,
) -> Result<Response, Refusal> {
    let name = named.name()?;
    change(&gateway, caller, Change::Chat(v1::ModifyChat { chat_id, name: Some(name) })).await
}

/// `PATCH /v1/chats/{chatId}/participants`: answered with the chat's own verdict.
pub(crate) async fn change_participant(
    State(gateway): State<Arc<Gateway>>,
    Caller(caller): Caller,
    PathId(chat_id): PathId,
    Json(asked): Json<v1::ModifyChatParticipants>,
) -> Result<Response, Refusal> {
    let asked = v1::ModifyChatParticipants { chat_id, ..asked };
    change(&gateway, caller, Change::Participants(asked)).await
}

/// 200 also where nothing changes.
async fn change(
    gateway: &Gateway,
    caller: v1::Caller,
    change: Change,
) -> Result<Response, Refusal> {
    let request_id = Bytes::copy_from_slice(Uuid::new_v4().as_bytes());
    let submit = v1::SubmitChangeRequest {
        caller: Some(caller.clone()),
        change: Some(change),
        request_id: request_id.clone(),
    };
    let reply = gateway.write(gateway.sender.submit_change(Request::new(submit))).await?;
    let (chat_id, _) = verdict(gateway, caller, request_id).await?;
    Ok(written(StatusCode::OK, &reply.token, ChatAnswer { chat_id }))
}

/// `PATCH /v1/devices/{deviceId}`.
pub(crate) async fn rename_device(
    State(gateway): State<Arc<Gateway>>,
    Caller(caller): Caller,
    PathId(device_id): PathId,
    Json(named): Json<Named>,
) -> Result<Response, Refusal> {
    let name = named.name()?;
    let request = v1::RenameDeviceRequest { caller: Some(caller), device_id, name };
    let device = gateway.write(gateway.connections.rename_device(Request::new(request))).await?;
    Ok(written(StatusCode::OK, "", device))
}

/// `DELETE /v1/devices/{deviceId}`: on return no token of before is taken.
pub(crate) async fn revoke_device(
    State(gateway): State<Arc<Gateway>>,
    Caller(caller): Caller,
    PathId(device_id): PathId,
) -> Result<Response, Refusal> {
    let request = v1::RevokeDeviceRequest { caller: Some(caller), device_id };
    gateway.write(gateway.connections.revoke_device(Request::new(request))).await?;
    Ok(written(StatusCode::OK, "", Nothing {}))
}

/// `PUT /v1/connections/{userId}`: answered once it is decided.
pub(crate) async fn set_connection(
    State(gateway): State<Arc<Gateway>>,
    Caller(caller): Caller,
    PathId(user_id): PathId,
    Json(asked): Json<v1::SetConnection>,
) -> Result<Response, Refusal> {
    if asked.status() == v1::ConnectionStatus::None {
        return Err(Problem::invalid("status must be ACTIVE or BLOCKED; DELETE ends either").into());
    }
    connect(&gateway, caller, v1::SetConnection { user_id, ..asked }).await
}

/// `DELETE /v1/connections/{userId}`.
pub(crate) async fn end_connection(
    State(gateway): State<Arc<Gateway>>,
    Caller(caller): Caller,
    PathId(user_id): PathId,
    params: Params,
) -> Result<Response, Refusal> {
    let status = v1::ConnectionStatus::None.into();
    let based_on_version = params.number("basedOnVersion")?;
    connect(&gateway, caller, v1::SetConnection { user_id, status, based_on_version }).await
}

async fn connect(
    gateway: &Gateway,
    caller: v1::Caller,
    asked: v1::SetConnection,
) -> Result<Response, Refusal> {
    let request = v1::SetConnectionRequest { caller: Some(caller), connection: Some(asked) };
    let set = gateway.write(gateway.connections.set(Request::new(request))).await?;
    let state = v1::Connection { user_id: set.user_id, status: set.status, version: set.version };
    Ok(written(StatusCode::OK, &set.token, state))
}

/// What the chat said: which chat it is, and whether anything changed.
async fn verdict(
    gateway: &Gateway,
    caller: v1::Caller,
    request_id: Bytes,
) -> Result<(String, bool), Problem> {
    let verdict =
        await_verdict(gateway, caller, request_id).await.ok_or_else(Problem::outcome_unknown)?;
    match verdict.cause().to_core() {
        Some(cause) if !verdict.changed => {
            let (status, code, words) = cause.describe();
            Err(Problem::new(u16::try_from(status).unwrap_or(500), code, words))
        }
        _ => Ok((verdict.chat_id, verdict.changed)),
    }
}

/// What the chat said; `None` where that does not become known. The command is in the log by now,
/// so no failure here may be told as "nothing happened".
async fn await_verdict(
    gateway: &Gateway,
    caller: v1::Caller,
    request_id: Bytes,
) -> Option<v1::ChatVerdict> {
    let timeout_ms = gateway.config.verdict_timeout_ms;
    let request = v1::AwaitVerdictRequest { caller: Some(caller), request_id, timeout_ms };
    let deadline = Duration::from_millis(timeout_ms.into()) + VERDICT_GRACE;
    let mut request = Request::new(request);
    request.set_timeout(deadline);
    let call = gateway.messages.await_verdict(request);
    match tokio::time::timeout(deadline, call).await {
        Ok(Ok(reply)) => reply.into_inner().verdict,
        Ok(Err(status)) => {
            tracing::warn!(problem = %Problem::from(status), "no verdict of a chat");
            None
        }
        Err(_) => None,
    }
}

fn written(status: StatusCode, token: &str, body: impl Serialize) -> Response {
    let mut response = (status, axum::Json(body)).into_response();
    if let Ok(token) = HeaderValue::from_str(token)
        && !token.is_empty()
    {
        response.headers_mut().insert(TOKEN, token);
    }
    response
}
