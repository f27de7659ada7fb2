//! What a client asks over its socket, and the reply.

use super::{DeliveryHost, ring::Ring, session::Who, subscriber::Subscriber};
use chaski_core::{ChatId, MessageId};
use chaski_planted::Bug;
use chaski_proto::{
    Problem, WriteToken, client_frame,
    v1::{self, client_frame::Command, server_frame::Body, submit_change_request::Change},
};
use parking_lot::Mutex;
use std::{collections::HashMap, future::Future, sync::Arc, time::Duration};
use tokio::{sync::oneshot, time::Instant};
use tonic::{Request, Response, Status};

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

/// Who asks, and where.
pub(super) struct Asker {
    pub(super) host: Arc<DeliveryHost>,
    pub(super) ring: Arc<Ring>,
    pub(super) who: Who,
    pub(super) subscriber: Subscriber,
}

/// Carries out a command; the reply frame, or none where the contract has none.
pub(super) async fn run(asker: Asker, id: u32, command: Command) -> Option<v1::ServerFrame> {
    let name = command.name();
    let is_muted = chaski_planted::is(Bug::NeverAnswered)
        && matches!(&command, Command::SendMessage(m) if m.client_message_id.ends_with("77"));
    let result = match command {
        Command::Ping(_) => Ok(Some(Body::Pong(v1::Pong {}))),
        Command::SendMessage(message) => asker.send(message).await.map(Some),
        Command::CreateChat(chat) => asker.create(chat).await.map(Some),
        Command::ModifyChat(chat) => asker.modify(Change::Chat(chat)).await.map(Some),
        Command::ModifyChatParticipants(one) => {
            asker.modify(Change::Participants(one)).await.map(Some)
        }
        Command::MarkRead(mark) => asker.mark_read(&mark).await.map(|()| None),
        Command::RejectMessage(refusal) => asker.refuse(refusal).await.map(|()| None),
        Command::SetConnection(connection) => asker.connect(connection).await.map(Some),
        Command::SetSettings(settings) => asker.set(settings).await.map(Some),
        Command::Hello(_) => Err(Problem::invalid("hello was said before")),
        Command::Authenticate(_) => Err(Problem::invalid("a session answers this itself")),
    };
    let outcome = if result.is_ok() { "ok" } else { "error" };
    metrics::counter!("chaski_commands_total", "command" => name, "outcome" => outcome)
        .increment(1);
    let body = result.unwrap_or_else(|problem| Some(Body::Error(problem.to_frame())));
    body.filter(|_| !is_muted).map(|body| v1::ServerFrame::reply(id, body))
}

impl Asker {
    async fn send(&self, message: v1::SendMessage) -> Result<Body, Problem> {
        let client_message_id = message.client_message_id.clone();
        // Before anything of it is in the log: what has begun is not refused.
        let sending = self.host.backlog.ask(Instant::now()).map_err(too_many)?;
        let caller = Some(self.who.caller());
        let request = v1::SubmitMessageRequest { caller, message: Some(message) };
        let reply = self.host.parts.sender.submit(Request::new(request)).await?.into_inner();
        if let Ok(WriteToken::Submitted(partition, offset)) = reply.token.parse() {
            sending.stands_at(partition, offset, Instant::now());
        }
        Ok(Body::MessageAccepted(v1::MessageAccepted {
            client_message_id,
            message_id: reply.message_id,
            chat_id: reply.chat_id,
            token: reply.token,
        }))
    }

    async fn create(&self, chat: v1::CreateChat) -> Result<Body, Problem> {
        let reply = self
            .decided(|request_id| {
                let caller = Some(self.who.caller());
                let request = v1::SubmitChatRequest { caller, chat: Some(chat), request_id };
                self.host.parts.sender.submit_chat(Request::new(request))
            })
            .await?;
        let v1::SubmitReply { chat_id, token, .. } = reply;
        Ok(Body::ChatCreated(v1::ChatCreated { chat_id, token }))
    }

    async fn modify(&self, change: Change) -> Result<Body, Problem> {
        let reply = self
            .decided(|request_id| {
                let caller = Some(self.who.caller());
                let request = v1::SubmitChangeRequest { caller, change: Some(change), request_id };
                self.host.parts.sender.submit_change(Request::new(request))
            })
            .await?;
        let v1::SubmitReply { chat_id, token, .. } = reply;
        Ok(Body::ChatModified(v1::ChatModified { chat_id, token }))
    }

    /// Submits a command and waits for its chat's verdict, which comes by in the log.
    async fn decided<F>(
        &self,
        submit: impl FnOnce(bytes::Bytes) -> F,
    ) -> Result<v1::SubmitReply, Problem>
    where
        F: Future<Output = Result<Response<v1::SubmitReply>, Status>>,
    {
        let id = uuid::Uuid::new_v4().into_bytes();
        let mut expected = self.host.verdicts.expect(id);
        let reply = submit(id.to_vec().into()).await?.into_inner();
        let patience = Duration::from_millis(self.host.config.verdict_ms);
        match tokio::time::timeout(patience, &mut expected.settled).await {
            Ok(Ok(verdict)) => match verdict.cause().to_core() {
                None => Ok(reply),
                Some(cause) => {
                    let (status, code, words) = cause.describe();
                    Err(Problem::new(status as u16, code, words))
                }
            },
            _ => Err(Problem::outcome_unknown()),
        }
    }

    async fn mark_read(&self, mark: &v1::MarkRead) -> Result<(), Problem> {
        let chat: ChatId = mark.chat_id.parse()?;
        if mark.seq == 0 {
            return Err(Problem::invalid("seq counts from 1"));
        }
        let (host, user) = (&self.host, &self.who.user);
        let hide_read = match self.ring.hide_read(user) {
            Some(hide) => hide,
            None => {
                let settings = Request::new(self.who.caller());
                let settings = host.parts.connections.get_settings(settings).await?.into_inner();
                self.ring.learn_hide_read(user, settings.hide_read_marks)
            }
        };
        self.subscriber.has_read(chat, mark.seq);
        host.receipts.read(user, chat, mark.seq, hide_read);
        Ok(())
    }

    async fn refuse(&self, refusal: v1::RejectMessage) -> Result<(), Problem> {
        let chat: ChatId = refusal.chat_id.parse()?;
        let id: MessageId = refusal.message_id.parse()?;
        let (host, caller) = (&self.host, self.who.caller());
        let message = match self.ring.find(&self.who.user, &chat, id) {
            Some(message) => message,
            None => {
                let request = v1::FindMessageRequest {
                    caller: Some(caller.clone()),
                    chat_id: chat.to_string(),
                    message_id: id.to_string(),
                };
                let reply = host.parts.messages.find_message(Request::new(request)).await?;
                reply.into_inner().message.ok_or_else(|| {
                    Problem::not_found("there is no such message, or it is older than a day")
                })?
            }
        };
        let request = v1::SubmitRefusalRequest {
            caller: Some(caller),
            refusal: Some(refusal),
            message: Some(message),
        };
        host.parts.sender.submit_refusal(Request::new(request)).await?;
        Ok(())
    }

    async fn connect(&self, connection: v1::SetConnection) -> Result<Body, Problem> {
        let caller = Some(self.who.caller());
        let request = v1::SetConnectionRequest { caller, connection: Some(connection) };
        let reply = self.host.parts.connections.set(Request::new(request)).await?;
        Ok(Body::ConnectionSet(reply.into_inner()))
    }

    async fn set(&self, settings: v1::SetSettings) -> Result<Body, Problem> {
        let caller = Some(self.who.caller());
        let hide_read = settings.hide_read_marks;
        let request = v1::SetSettingsRequest { caller, settings: Some(settings) };
        let reply = self.host.parts.connections.put_settings(Request::new(request)).await?;
        self.ring.set_hide_read(&self.who.user, hide_read);
        Ok(Body::SettingsSet(reply.into_inner()))
    }
}

/// What was sent before is still under way: send it again then.
fn too_many(wait: Duration) -> Problem {
    metrics::counter!("chaski_sends_deferred_total").increment(1);
    let retry_after_ms = u32::try_from(wait.as_millis()).ok();
    let message = "more is sent than can be shown in time; send it again later";
    Problem { retry_after_ms, ..Problem::unavailable(message) }
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
