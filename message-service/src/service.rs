//! The service: what others may ask of the durable log.

use crate::{
    MessagesConfig, ROLE,
    days::InboxStarts,
    devices, fold,
    progress::Progress,
    reads::{self, failed},
};
use async_trait::async_trait;
use chaski_core::{DeviceId, SourceId, UserId, placement::Placement};
use chaski_ports::{Ports, Producer};
use chaski_proto::{Problem, v1};
use chaski_runtime::{Owned, Tasks, Work, run_owned};
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
    pub(crate) inbox_starts: InboxStarts,
    pub(crate) work: Work,
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
        let inbox_starts = InboxStarts::default();
        let work = Work::new(ROLE);
        Self { ports, producer, placement, source, progress, inbox_starts, work, config }
    }

    /// What its partitions do and cost. Reads are not among it: any host answers them.
    #[must_use]
    pub fn work(&self) -> Work {
        self.work.clone()
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
        match self.progress.wait_for(partition, self.source, token, patience).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Problem::unavailable("this write is not visible yet; try again")),
            Err(error) => Err(failed(&error)),
        }
    }
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
        Ok(Response::new(reads::history::history(self, request.into_inner()).await?))
    }

    async fn inbox(
        &self,
        request: Request<v1::InboxRequest>,
    ) -> Result<Response<v1::InboxReply>, Status> {
        Ok(Response::new(reads::inbox::inbox(self, request.into_inner()).await?))
    }

    async fn chats(
        &self,
        request: Request<v1::ChatsRequest>,
    ) -> Result<Response<v1::ChatsReply>, Status> {
        Ok(Response::new(reads::chats::chats(self, request.into_inner()).await?))
    }

    async fn chat(
        &self,
        request: Request<v1::ChatRequest>,
    ) -> Result<Response<v1::ChatView>, Status> {
        Ok(Response::new(reads::chats::chat(self, request.into_inner()).await?))
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
        let verdict = match stored.map_err(|e| failed(&e))? {
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
    ) -> Result<Response<v1::OpenDeviceReply>, Status> {
        Ok(Response::new(devices::open(self, request.into_inner()).await?))
    }

    async fn save_cursors(
        &self,
        request: Request<v1::SaveCursorsRequest>,
    ) -> Result<Response<v1::SaveCursorsReply>, Status> {
        Ok(Response::new(devices::save_cursors(self, request.into_inner()).await?))
    }

    async fn watermarks(
        &self,
        request: Request<v1::WatermarksRequest>,
    ) -> Result<Response<v1::WatermarksReply>, Status> {
        Ok(Response::new(reads::partition::watermarks(self, request.into_inner()).await?))
    }

    async fn receipts(
        &self,
        request: Request<v1::ChatRequest>,
    ) -> Result<Response<v1::ReceiptsReply>, Status> {
        Ok(Response::new(reads::chats::receipts(self, request.into_inner()).await?))
    }

    async fn find_message(
        &self,
        request: Request<v1::FindMessageRequest>,
    ) -> Result<Response<v1::FindMessageReply>, Status> {
        Ok(Response::new(reads::find::find_message(self, request.into_inner()).await?))
    }

    async fn blocks(
        &self,
        request: Request<v1::BlocksRequest>,
    ) -> Result<Response<v1::BlocksReply>, Status> {
        Ok(Response::new(reads::partition::blocks(self, request.into_inner()).await?))
    }
}
