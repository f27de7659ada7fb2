//! What a client asks over its socket, and the reply.

use super::{DeliveryHost, session::Who};
use chaski_proto::{
    Problem, client_frame,
    v1::{self, client_frame::Command, server_frame::Body},
};
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::sync::oneshot;
use tonic::Request;

/// The verdicts that sockets of this host wait for. Bounded by the commands in flight.
#[derive(Default)]
pub(super) struct Verdicts(Mutex<HashMap<[u8; 16], oneshot::Sender<v1::ChatVerdict>>>);

impl Verdicts {
    /// A verdict came by in the log; most are waited for elsewhere, or by nobody any more.
    pub(super) fn settle(&self, verdict: v1::ChatVerdict) {
        if let Ok(id) = <[u8; 16]>::try_from(&verdict.request_id[..])
            && let Some(waiting) = self.0.lock().remove(&id)
        {
            // Who stopped waiting has told the client "unknown".
            let _ = waiting.send(verdict);
        }
    }

    fn expect(self: &Verdicts, id: [u8; 16]) -> Expected<'_> {
        let (settle, settled) = oneshot::channel();
        self.0.lock().insert(id, settle);
        Expected { verdicts: self, id, settled }
    }
}

struct Expected<'a> {
    verdicts: &'a Verdicts,
    id: [u8; 16],
    settled: oneshot::Receiver<v1::ChatVerdict>,
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        self.verdicts.0.lock().remove(&self.id);
    }
}

/// Carries out a command; the reply frame, or none where the contract has none.
pub(super) async fn run(
    host: Arc<DeliveryHost>,
    who: Who,
    id: u32,
    command: Command,
) -> v1::ServerFrame {
    let name = command.name();
    let result = match command {
        Command::Ping(_) => Ok(Body::Pong(v1::Pong {})),
        Command::SendMessage(message) => send(&host, &who, message).await,
        Command::CreateChat(chat) => create(&host, &who, chat).await,
        Command::Hello(_) => Err(Problem::invalid("hello was said before")),
        _ => Err(Problem::new(501, "not_implemented", format!("{name} is not served yet"))),
    };
    let outcome = if result.is_ok() { "ok" } else { "error" };
    metrics::counter!("chaski_commands_total", "command" => name, "outcome" => outcome)
        .increment(1);
    v1::ServerFrame::reply(id, result.unwrap_or_else(|problem| Body::Error(problem.to_frame())))
}

async fn send(host: &DeliveryHost, who: &Who, message: v1::SendMessage) -> Result<Body, Problem> {
    let client_message_id = message.client_message_id.clone();
    let request = v1::SubmitMessageRequest { caller: Some(who.caller()), message: Some(message) };
    let reply = host.parts.sender.submit(Request::new(request)).await?.into_inner();
    Ok(Body::MessageAccepted(v1::MessageAccepted {
        client_message_id,
        message_id: reply.message_id,
        chat_id: reply.chat_id,
        token: reply.token,
    }))
}

async fn create(host: &DeliveryHost, who: &Who, chat: v1::CreateChat) -> Result<Body, Problem> {
    let id = uuid::Uuid::new_v4().into_bytes();
    let mut expected = host.verdicts.expect(id);
    let request = v1::SubmitChatRequest {
        caller: Some(who.caller()),
        chat: Some(chat),
        request_id: id.to_vec().into(),
    };
    let reply = host.parts.sender.submit_chat(Request::new(request)).await?.into_inner();
    let patience = Duration::from_millis(host.config.verdict_ms);
    match tokio::time::timeout(patience, &mut expected.settled).await {
        Ok(Ok(verdict)) => match verdict.cause().to_core() {
            None => Ok(Body::ChatCreated(v1::ChatCreated {
                chat_id: reply.chat_id,
                token: reply.token,
            })),
            Some(cause) => {
                let (status, code, words) = cause.describe();
                Err(Problem::new(status as u16, code, words))
            }
        },
        _ => Err(Problem::outcome_unknown()),
    }
}

/// Reads a frame from its bytes; the error is the reply.
pub(super) fn read(
    bytes: &bytes::Bytes,
    json: bool,
) -> Result<v1::ClientFrame, Box<v1::ServerFrame>> {
    client_frame(bytes, json).map_err(|wrong| {
        let error = Problem::invalid(wrong.message).to_frame();
        Box::new(v1::ServerFrame::reply(wrong.id, Body::Error(error)))
    })
}
