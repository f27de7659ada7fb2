//! The service: what others may ask of contacts, blocks, settings and devices.

use crate::{ConnectionsConfig, ROLE, devices, fold, synced, verdicts::Verdicts};
use async_trait::async_trait;
use bytes::Bytes;
use chaski_core::{
    DeviceId, Offset, Partition, SourceId, UserId,
    connection::{Ask, Request as Asked, Status as Pair},
    placement::Placement,
};
use chaski_ports::{ErrorKind, PortError, Ports, ProducePolicy, Record, Topic};
use chaski_proto::{Problem, SCHEMA, WriteToken, encode_connection_request, status_from_proto, v1};
use chaski_runtime::{Owned, Tasks, Work, run_owned};
use prost::Message as _;
use std::sync::Arc;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

/// A page has at most as many connections.
const PAGE_MAX: usize = 500;

/// Decides what users ask of contacts and blocks, and serves it.
pub struct ConnectionService {
    pub(crate) ports: Ports,
    pub(crate) placement: Placement,
    /// Names the log of requests.
    pub(crate) source: SourceId,
    pub(crate) verdicts: Verdicts,
    pub(crate) work: Work,
    /// A device that was not there for longer is retired.
    pub(crate) device_idle_days: u32,
    pub(crate) config: ConnectionsConfig,
}

impl ConnectionService {
    /// A service that takes requests and reads rows; `run` makes it also decide. `source` names
    /// the topic `connection-requests`.
    #[must_use]
    pub fn new(
        ports: Ports,
        placement: Placement,
        source: SourceId,
        device_idle_days: u32,
        config: ConnectionsConfig,
    ) -> Self {
        let (verdicts, work) = (Verdicts::default(), Work::new(ROLE));
        Self { ports, placement, source, verdicts, work, device_idle_days, config }
    }

    /// What its partitions do and cost. Reads are not among it: any host answers them.
    #[must_use]
    pub fn work(&self) -> Work {
        self.work.clone()
    }

    /// Decides in the owned partitions until the tasks stop.
    pub async fn run(self: Arc<Self>, tasks: &Tasks, owned: watch::Receiver<Owned>) {
        run_owned(tasks, ROLE, owned, |partition, epoch, stop| {
            let service = Arc::clone(&self);
            async move { fold::run(&service, partition, epoch, stop).await }
        })
        .await;
    }

    /// Puts a request into the log and waits for what becomes of it.
    async fn ask(
        &self,
        (user, device): (UserId, DeviceId),
        ask: Ask,
    ) -> Result<(Partition, v1::ConnectionVerdict), Problem> {
        let partition = self.placement.of_user(&user);
        let id = uuid::Uuid::new_v4().into_bytes();
        let request = Asked { id, user, device, at: self.ports.clock.now_ms(), ask };
        let waiting = self.verdicts.wait_for(id);
        let record = Record {
            key: Bytes::copy_from_slice(request.user.as_str().as_bytes()),
            value: encode_connection_request(&request),
            timestamp_ms: request.at,
            record_type: "connection-request",
            schema: SCHEMA,
            traceparent: None,
        };
        self.append(Topic::ConnectionRequests, partition, record).await?;
        let verdict = waiting.verdict(&*self.ports.messages, self.config.verdict()).await;
        verdict.map(|verdict| (partition, verdict)).ok_or_else(Problem::outcome_unknown)
    }

    /// Appends what somebody waits for; on return it is durable.
    pub(crate) async fn append(
        &self,
        topic: Topic,
        partition: Partition,
        record: Record,
    ) -> Result<Offset, Problem> {
        // The log gives the same producer each time, and a new one where that has died.
        let producer = self.ports.log.producer(ProducePolicy::GiveUp);
        let result = match producer.and_then(|p| p.append(topic, partition, record)) {
            Ok(appending) => appending.await,
            Err(error) => Err(error),
        };
        result.map_err(|error| {
            tracing::warn!(%error, cause = ?error.source, "the log did not take a record");
            match error.kind {
                ErrorKind::Unknown => Problem::outcome_unknown(),
                _ => Problem::unavailable("the log takes nothing at the moment; try again"),
            }
        })
    }

    async fn set(
        &self,
        caller: (UserId, DeviceId),
        asked: v1::SetConnection,
    ) -> Result<v1::ConnectionSet, Problem> {
        let peer: UserId = asked.user_id.parse()?;
        if peer == caller.0 {
            return Err(Problem::invalid("userId must be somebody else"));
        }
        let status = v1::ConnectionStatus::try_from(asked.status)
            .map_err(|_| Problem::invalid("status must be ACTIVE, BLOCKED or NONE"))?;
        let status = status_from_proto(status);
        if self.config.unblock_needs_sync {
            synced::check(self, (&caller.0, &peer), status, asked.based_on_version).await?;
        }
        let ask = Ask::Connection { peer, status, based_on: asked.based_on_version };
        let (partition, verdict) = self.ask(caller, ask).await?;
        let present = verdict.connection.ok_or_else(|| {
            Problem::new(500, "corrupt", "the verdict does not tell how the connection stands")
        })?;
        if verdict.conflict {
            return Err(Problem::connection_conflict(present));
        }
        let token = match verdict.offset {
            Some(offset) => WriteToken::Told(partition, Offset(offset)).to_string(),
            None => self.token_of_now(partition).await?,
        };
        Ok(v1::ConnectionSet {
            status: present.status,
            user_id: present.user_id,
            version: present.version,
            token,
        })
    }

    /// A token for what was so already: whatever made it so is in the log by now.
    async fn token_of_now(&self, partition: Partition) -> Result<String, Problem> {
        let bounds = self.ports.log.bounds(Topic::Recipients, partition).await;
        let last = bounds.map_err(|e| unavailable(&e))?.end.0.checked_sub(1);
        let token = |last| WriteToken::Told(partition, Offset(last)).to_string();
        Ok(last.map(token).unwrap_or_default())
    }

    async fn list(&self, request: v1::ConnectionsRequest) -> Result<v1::ConnectionsReply, Problem> {
        let (user, _) = caller(request.caller)?;
        let limit = (request.limit as usize).clamp(1, PAGE_MAX);
        let mut after = match request.after.as_str() {
            "" => None,
            after => Some(after.parse::<UserId>()?),
        };
        let mut connections = Vec::new();
        loop {
            let wanted = limit + 1;
            let rows = self.ports.connections.connections(&user, after.as_ref(), wanted).await;
            let rows = rows.map_err(|e| unavailable(&e))?;
            let last = rows.len() < wanted;
            after = rows.last().map(|row| row.peer.clone());
            for row in rows {
                let state = v1::StoredConnection::decode(row.state)
                    .map_err(|e| Problem::new(500, "corrupt", e.to_string()))?;
                // What was undone is kept for its version, and not shown.
                if status_from_proto(state.status()) != Pair::None {
                    connections.push(v1::Connection {
                        user_id: row.peer.to_string(),
                        status: state.status,
                        version: row.version,
                    });
                }
            }
            if last || connections.len() > limit {
                break;
            }
        }
        let more = connections.len() > limit;
        connections.truncate(limit);
        Ok(v1::ConnectionsReply { connections, more })
    }

    async fn settings(&self, user: &UserId) -> Result<v1::SetSettings, Problem> {
        let stored = self.ports.connections.settings(user).await.map_err(|e| unavailable(&e))?;
        let stored = v1::StoredSettings::decode(stored.unwrap_or_default())
            .map_err(|e| Problem::new(500, "corrupt", e.to_string()))?;
        Ok(v1::SetSettings { hide_read_marks: stored.hide_read_marks })
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
impl v1::connections_server::Connections for ConnectionService {
    async fn set(
        &self,
        request: Request<v1::SetConnectionRequest>,
    ) -> Result<Response<v1::ConnectionSet>, Status> {
        let request = request.into_inner();
        let caller = caller(request.caller)?;
        let asked = request.connection.unwrap_or_default();
        Ok(Response::new(Self::set(self, caller, asked).await?))
    }

    async fn list(
        &self,
        request: Request<v1::ConnectionsRequest>,
    ) -> Result<Response<v1::ConnectionsReply>, Status> {
        Ok(Response::new(Self::list(self, request.into_inner()).await?))
    }

    async fn put_settings(
        &self,
        request: Request<v1::SetSettingsRequest>,
    ) -> Result<Response<v1::SettingsSet>, Status> {
        let request = request.into_inner();
        let caller = caller(request.caller)?;
        let hide_read_marks = request.settings.unwrap_or_default().hide_read_marks;
        self.ask(caller, Ask::Settings { hide_read_marks }).await?;
        Ok(Response::new(v1::SettingsSet {}))
    }

    async fn get_settings(
        &self,
        request: Request<v1::Caller>,
    ) -> Result<Response<v1::SetSettings>, Status> {
        let (user, _) = caller(Some(request.into_inner()))?;
        Ok(Response::new(self.settings(&user).await?))
    }

    async fn list_devices(
        &self,
        request: Request<v1::DevicesRequest>,
    ) -> Result<Response<v1::DevicesReply>, Status> {
        Ok(Response::new(devices::list(self, request.into_inner()).await?))
    }

    async fn rename_device(
        &self,
        request: Request<v1::RenameDeviceRequest>,
    ) -> Result<Response<v1::DeviceView>, Status> {
        Ok(Response::new(devices::rename(self, request.into_inner()).await?))
    }

    async fn revoke_device(
        &self,
        request: Request<v1::RevokeDeviceRequest>,
    ) -> Result<Response<v1::RevokeDeviceReply>, Status> {
        Ok(Response::new(devices::revoke(self, request.into_inner()).await?))
    }
}
