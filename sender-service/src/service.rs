//! The service: validate, append, answer when durable.

use crate::{
    SenderConfig,
    validate::{self, Caller},
};
use async_trait::async_trait;
use bytes::Bytes;
use chaski_core::{Offset, Partition, placement::Placement, record::Command};
use chaski_ports::{Clock, ErrorKind, Log, PortError, ProducePolicy, Record, Topic};
use chaski_proto::{Problem, SCHEMA, WriteToken, encode_command, v1};
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// Accepts messages and chats into the log.
pub struct SenderService {
    log: Arc<dyn Log>,
    placement: Placement,
    clock: Arc<dyn Clock>,
    config: SenderConfig,
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
        Self { log, placement, clock, config }
    }

    /// Appends a command; its place once it is durable (L1).
    async fn append(
        &self,
        command: &Command,
        record_type: &'static str,
    ) -> Result<WriteToken, Problem> {
        let partition = self.placement.of_chat(&command.chat);
        let record = Record {
            key: Bytes::copy_from_slice(command.chat.as_str().as_bytes()),
            value: encode_command(command),
            timestamp_ms: command.accepted_at,
            record_type,
            schema: SCHEMA,
            traceparent: None,
        };
        // The log gives the same producer each time, and a new one where that has died.
        let admitted = self
            .log
            .producer(ProducePolicy::GiveUp)
            .and_then(|producer| producer.append(Topic::NewMessages, partition, record));
        let result = match admitted {
            Ok(appending) => appending.await,
            Err(error) => Err(error),
        };
        settle(partition, result)
    }
}

fn settle(partition: Partition, result: Result<Offset, PortError>) -> Result<WriteToken, Problem> {
    match result {
        Ok(offset) => {
            metrics::counter!("chaski_accepted_total").increment(1);
            Ok(WriteToken { partition, offset })
        }
        Err(error) => {
            metrics::counter!("chaski_refused_total", "kind" => format!("{:?}", error.kind))
                .increment(1);
            tracing::warn!(%error, cause = ?error.source, "the log did not take a record");
            Err(match error.kind {
                ErrorKind::Unknown => Problem::outcome_unknown(),
                _ => {
                    Problem::unavailable("the log does not take messages at the moment; try again")
                }
            })
        }
    }
}

#[async_trait]
impl v1::sender_server::Sender for SenderService {
    async fn submit(
        &self,
        request: Request<v1::SubmitMessageRequest>,
    ) -> Result<Response<v1::SubmitReply>, Status> {
        let request = request.into_inner();
        let caller = Caller::try_from(request.caller)?;
        let message = request.message.unwrap_or_default();
        let (command, id) = validate::message(&self.config, caller, message, self.clock.now_ms())?;
        let token = self.append(&command, "submit").await?;
        Ok(Response::new(v1::SubmitReply {
            message_id: id.to_string(),
            chat_id: command.chat.to_string(),
            token: token.to_string(),
        }))
    }

    async fn submit_chat(
        &self,
        request: Request<v1::SubmitChatRequest>,
    ) -> Result<Response<v1::SubmitReply>, Status> {
        let request = request.into_inner();
        let caller = Caller::try_from(request.caller)?;
        let id = <[u8; 16]>::try_from(&request.request_id[..])
            .map_err(|_| Problem::invalid("requestId must be 16 bytes"))?;
        let chat = request.chat.unwrap_or_default();
        let command = validate::chat(&self.config, caller, chat, id, self.clock.now_ms())?;
        let token = self.append(&command, "create").await?;
        Ok(Response::new(v1::SubmitReply {
            message_id: String::new(),
            chat_id: command.chat.to_string(),
            token: token.to_string(),
        }))
    }
}
