//! The calls that change something.

use crate::{
    error::Refusal,
    request::{Caller, Json},
    service::Gateway,
};
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use chaski_proto::{Problem, v1};
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
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

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ChatCreated {
    chat_id: String,
}

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
    let verdict =
        verdict(&gateway, caller, request_id).await.ok_or_else(Problem::outcome_unknown)?;
    let status = match (verdict.changed, verdict.cause().to_core()) {
        (true, _) => StatusCode::CREATED,
        (false, None) => StatusCode::OK,
        (false, Some(cause)) => {
            let (status, code, words) = cause.describe();
            let status = u16::try_from(status).unwrap_or(500);
            return Err(Problem::new(status, code, words).into());
        }
    };
    Ok(written(status, &reply.token, ChatCreated { chat_id: verdict.chat_id }))
}

/// What the chat said; `None` where that does not become known. The command is in the log by now,
/// so no failure here may be told as "nothing happened".
async fn verdict(
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
            tracing::warn!(problem = %Problem::from(status), "no verdict on a new chat");
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
