//! The service: validate, append, answer when durable.

use crate::{
    SenderConfig,
    blocks::Blocks,
    validate::{self, Caller},
};
use async_trait::async_trait;
use bytes::Bytes;
use chaski_core::{
    Offset, Partition,
    placement::Placement,
    record::{Command, Input, Marks},
};
use chaski_planted::Bug;
use chaski_ports::{Appending, Clock, ErrorKind, Log, PortError, ProducePolicy, Record, Topic};
use chaski_proto::{Problem, SCHEMA, WriteToken, encode_input, v1};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

/// Accepts messages, changes of chats, refusals and receipts into the log.
pub struct SenderService {
    log: Arc<dyn Log>,
    placement: Placement,
    clock: Arc<dyn Clock>,
    config: SenderConfig,
    blocks: Blocks,
}

impl SenderService {
    /// A sender that appends to `log`.
    #[must_use]
    pub fn new(
        log: Arc<dyn Log>,
        placement: Placement,
        clock: Arc<dyn Clock>,
        config: SenderConfig,
    ) -> Self {
        let blocks = Blocks::new(config.blocks, config.blocked_pairs_max);
        Self { log, placement, clock, config, blocks }
    }

    /// Learns of blocks, until `stop`, so that messages which nobody would be shown are refused.
    /// Best effort: without it they are accepted, and withheld by the tiers behind (L7).
    ///
    /// # Errors
    /// What does not pass by itself, such as a topic that is not there.
    pub async fn follow_connections(
        self: Arc<Self>,
        stop: CancellationToken,
    ) -> Result<(), PortError> {
        stop.run_until_cancelled(self.blocks.follow(&*self.log)).await.unwrap_or(Ok(()))
    }

    /// Appends a command; its place once it is durable (L1).
    async fn append(
        &self,
        command: Command,
        record_type: &'static str,
    ) -> Result<WriteToken, Problem> {
        let (chat, at) = (command.chat, command.accepted_at);
        let partition = match chaski_planted::is(Bug::WrongPartitioner) {
            true => self.placement.of_user(&command.user),
            false => self.placement.of_chat(&chat),
        };
        let value = encode_input(&Input::Command(command));
        let result = match self.admit(partition, record(chat.as_str(), value, at, record_type)) {
            Ok(_) if answers_early() => Ok(Offset(0)),
            Ok(appending) => appending.await,
            Err(error) => Err(error),
        };
        let offset = settle(result)?;
        metrics::counter!("chaski_accepted_total").increment(1);
        Ok(WriteToken::Submitted(partition, offset))
    }

    /// Appends marks, all of them before it waits for the first.
    async fn append_marks(&self, marks: Vec<Marks>) -> Result<(), Problem> {
        let admitted: Vec<_> = marks
            .into_iter()
            .map(|marks| {
                let (chat, at) = (marks.chat, marks.at);
                let value = encode_input(&Input::Marks(marks));
                self.admit(self.placement.of_chat(&chat), record(chat.as_str(), value, at, "marks"))
            })
            .collect();
        for appending in admitted {
            settle(match appending {
                Ok(appending) => appending.await,
                Err(error) => Err(error),
            })?;
        }
        Ok(())
    }

    fn admit(&self, partition: Partition, record: Record) -> Result<Appending, PortError> {
        // The log gives the same producer each time, and a new one where that has died.
        let producer = self.log.producer(ProducePolicy::GiveUp)?;
        producer.append(Topic::NewMessages, partition, record)
    }
}

fn record(chat: &str, value: Bytes, timestamp_ms: i64, record_type: &'static str) -> Record {
    Record {
        key: Bytes::copy_from_slice(chat.as_bytes()),
        value,
        timestamp_ms,
        record_type,
        schema: SCHEMA,
        traceparent: None,
    }
}

/// Never, but where a bug is planted.
fn answers_early() -> bool {
    use Bug::{AcceptedTooEarly, AcceptedWhileItLingers};
    chaski_planted::is(AcceptedTooEarly) || chaski_planted::is(AcceptedWhileItLingers)
}

fn settle(result: Result<Offset, PortError>) -> Result<Offset, Problem> {
    result.map_err(|error| {
        metrics::counter!("chaski_refused_total", "kind" => format!("{:?}", error.kind))
            .increment(1);
        tracing::warn!(%error, cause = ?error.source, "the log did not take a record");
        match error.kind {
            ErrorKind::Unknown if chaski_planted::is(Bug::UnknownIsRefused) => {
                Problem::new(403, "planted", "told to be refused, which nobody knows")
            }
            ErrorKind::Unknown => Problem::outcome_unknown(),
            _ => Problem::unavailable("the log does not take messages at the moment; try again"),
        }
    })
}

#[async_trait]
impl v1::sender_server::Sender for SenderService {
    async fn submit(
        &self,
        request: Request<v1::SubmitMessageRequest>,
    ) -> Result<Response<v1::SubmitReply>, Status> {
        let request = request.into_inner();
        let caller = Caller::try_from(request.caller)?;
        let mut message = request.message.unwrap_or_default();
        if let (Some(v1::send_message::Body::Text(text)), true) =
            (&mut message.body, chaski_planted::is(Bug::BodiesAreCleaned))
        {
            text.retain(|c| c.is_ascii());
        }
        let (command, id) = validate::message(&self.config, caller, message, self.clock.now_ms())?;
        self.blocks.check(&command)?;
        let chat_id = command.chat.to_string();
        let token = self.append(command, "submit").await?;
        Ok(reply(id.to_string(), chat_id, token))
    }

    async fn submit_chat(
        &self,
        request: Request<v1::SubmitChatRequest>,
    ) -> Result<Response<v1::SubmitReply>, Status> {
        let request = request.into_inner();
        let caller = Caller::try_from(request.caller)?;
        let id = validate::request_id(&request.request_id)?;
        let chat = request.chat.unwrap_or_default();
        let command = validate::chat(&self.config, caller, chat, id, self.clock.now_ms())?;
        let chat_id = command.chat.to_string();
        let token = self.append(command, "create").await?;
        Ok(reply(String::new(), chat_id, token))
    }

    async fn submit_change(
        &self,
        request: Request<v1::SubmitChangeRequest>,
    ) -> Result<Response<v1::SubmitReply>, Status> {
        let request = request.into_inner();
        let caller = Caller::try_from(request.caller)?;
        let id = validate::request_id(&request.request_id)?;
        let now = self.clock.now_ms();
        let command = validate::change(&self.config, caller, request.change, id, now)?;
        let chat_id = command.chat.to_string();
        let token = self.append(command, "change").await?;
        Ok(reply(String::new(), chat_id, token))
    }

    async fn submit_refusal(
        &self,
        request: Request<v1::SubmitRefusalRequest>,
    ) -> Result<Response<v1::SubmitReply>, Status> {
        let request = request.into_inner();
        let caller = Caller::try_from(request.caller)?;
        let refusal = request.refusal.unwrap_or_default();
        let message = request.message.unwrap_or_default();
        let (message_id, now) = (refusal.message_id.clone(), self.clock.now_ms());
        let command = validate::refusal(&self.config, caller, refusal, message, now)?;
        let chat_id = command.chat.to_string();
        let token = self.append(command, "rejection").await?;
        Ok(reply(message_id, chat_id, token))
    }

    async fn submit_receipts(
        &self,
        request: Request<v1::SubmitReceiptsRequest>,
    ) -> Result<Response<v1::SubmitReceiptsReply>, Status> {
        let chats = request.into_inner().chats;
        let marks = validate::receipts(&self.config, chats, self.clock.now_ms())?;
        self.append_marks(marks).await?;
        Ok(Response::new(v1::SubmitReceiptsReply {}))
    }
}

fn reply(message_id: String, chat_id: String, token: WriteToken) -> Response<v1::SubmitReply> {
    Response::new(v1::SubmitReply { message_id, chat_id, token: token.to_string() })
}
