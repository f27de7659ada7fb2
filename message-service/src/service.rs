//! The service: what others may ask of the durable log.

use crate::{MessagesConfig, ROLE, fold, progress::Progress, reads};
use async_trait::async_trait;
use chaski_core::{DeviceId, SourceId, UserId, placement::Placement};
use chaski_ports::{DeviceRow, PortError, Ports, Producer};
use chaski_proto::{Problem, v1, watermark_to_proto};
use chaski_runtime::{Owned, Tasks, run_owned};
use prost::Message as _;
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

/// Stores what `recipients` says and serves it.
pub struct MessageService {
    pub(crate) ports: Ports,
    /// Appends dead letters and alerts.
    pub(crate) producer: Arc<dyn Producer>,
    pub(crate) placement: Placement,
    pub(crate) source: SourceId,
    pub(crate) progress: Progress,
    pub(crate) config: MessagesConfig,
}

impl MessageService {
    /// A service that reads rows; `run` makes it also write them.
    #[must_use]
    pub fn new(
        ports: Ports,
        producer: Arc<dyn Producer>,
        placement: Placement,
        source: SourceId,
        config: MessagesConfig,
    ) -> Self {
        let progress = Progress::new(Arc::clone(&ports.checkpoints));
        Self { ports, producer, placement, source, progress, config }
    }

    /// Stores the owned partitions until the tasks stop.
    pub async fn run(self: Arc<Self>, tasks: &Tasks, owned: watch::Receiver<Owned>) {
        run_owned(tasks, ROLE, owned, |partition, epoch, stop| {
            let service = Arc::clone(&self);
            async move { fold::run(&service, partition, epoch, stop).await }
        })
        .await;
    }

    /// Waits until the caller's own write is visible, where a token asks for it.
    pub(crate) async fn read_your_write(&self, user: &UserId, token: &str) -> Result<(), Problem> {
        if token.is_empty() {
            return Ok(());
        }
        let token = token.parse()?;
        let partition = self.placement.of_user(user);
        let patience = self.config.read_your_write();
        match self.progress.wait_for(partition, (self.source, token), patience).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Problem::unavailable("this write is not visible yet; try again")),
            Err(error) => Err(unavailable(&error)),
        }
    }
}

/// A store that fails is told as "try again"; the cause stays in the log.
pub(crate) fn unavailable(error: &PortError) -> Problem {
    tracing::warn!(%error, cause = ?error.source, "the store failed");
    Problem::unavailable("the store does not answer at the moment; try again")
}

pub(crate) fn caller(caller: Option<v1::Caller>) -> Result<(UserId, DeviceId), Problem> {
    let caller = caller.unwrap_or_default();
    Ok((caller.user_id.parse()?, caller.device_id.parse()?))
}

#[async_trait]
impl v1::messages_server::Messages for MessageService {
    async fn history(
        &self,
        request: Request<v1::HistoryRequest>,
    ) -> Result<Response<v1::HistoryReply>, Status> {
        Ok(Response::new(reads::history(self, request.into_inner()).await?))
    }

    async fn inbox(
        &self,
        request: Request<v1::InboxRequest>,
    ) -> Result<Response<v1::InboxReply>, Status> {
        Ok(Response::new(reads::inbox(self, request.into_inner()).await?))
    }

    async fn chats(
        &self,
        request: Request<v1::ChatsRequest>,
    ) -> Result<Response<v1::ChatsReply>, Status> {
        Ok(Response::new(reads::chats(self, request.into_inner()).await?))
    }

    async fn chat(
        &self,
        request: Request<v1::ChatRequest>,
    ) -> Result<Response<v1::ChatView>, Status> {
        Ok(Response::new(reads::chat(self, request.into_inner()).await?))
    }

    async fn await_verdict(
        &self,
        request: Request<v1::AwaitVerdictRequest>,
    ) -> Result<Response<v1::VerdictReply>, Status> {
        let request = request.into_inner();
        let id = <[u8; 16]>::try_from(&request.request_id[..])
            .map_err(|_| Problem::invalid("requestId must be 16 bytes"))?;
        let patience = Duration::from_millis(request.timeout_ms.into());
        let stored = self.progress.until(patience, || self.ports.messages.verdict(&id)).await;
        let verdict = match stored.map_err(|e| unavailable(&e))? {
            Some(bytes) => {
                v1::StoredVerdict::decode(bytes)
                    .map_err(|e| Status::from(Problem::new(500, "corrupt", e.to_string())))?
                    .verdict
            }
            None => None,
        };
        Ok(Response::new(v1::VerdictReply { verdict }))
    }

    async fn open_device(
        &self,
        request: Request<v1::Caller>,
    ) -> Result<Response<v1::Device>, Status> {
        let (user, device) = caller(Some(request.into_inner()))?;
        let row = self.ports.devices.device(&user, &device).await.map_err(|e| unavailable(&e))?;
        Ok(Response::new(v1::Device {
            user_id: user.to_string(),
            device_id: device.to_string(),
            cursor: row.map_or(0, |row| row.cursor.0),
        }))
    }

    async fn save_cursors(
        &self,
        request: Request<v1::SaveCursorsRequest>,
    ) -> Result<Response<v1::SaveCursorsReply>, Status> {
        let last_active_ms = self.ports.clock.now_ms();
        let row = |d: v1::Device| {
            Ok(DeviceRow {
                user: d.user_id.parse()?,
                device: d.device_id.parse()?,
                cursor: chaski_core::Position(d.cursor),
                last_active_ms,
            })
        };
        let rows = request
            .into_inner()
            .devices
            .into_iter()
            .map(row)
            .collect::<Result<Vec<_>, Problem>>()?;
        self.ports.devices.save_cursors(&rows).await.map_err(|e| unavailable(&e))?;
        Ok(Response::new(v1::SaveCursorsReply {}))
    }

    async fn watermarks(
        &self,
        request: Request<v1::WatermarksRequest>,
    ) -> Result<Response<v1::WatermarksReply>, Status> {
        let request = request.into_inner();
        let partition = chaski_core::Partition(request.partition);
        let limit = request.limit.clamp(1, 100) as usize;
        let rows = self.ports.checkpoints.watermarks(ROLE, partition, limit).await;
        let rows = rows.map_err(|e| unavailable(&e))?;
        let watermarks = rows.iter().map(|row| watermark_to_proto(&row.watermark)).collect();
        Ok(Response::new(v1::WatermarksReply { watermarks }))
    }
}
