//! The table of the delivery hosts, followed at an allocator: a user is looked up in this process's
//! memory, at once and also while the allocator or the coordinator is away.

use crate::{Endpoints, remote::Shared};
use chaski_core::{Partition, UserId, placement::Placement};
use chaski_proto::v1::{
    self, host_tables_client::HostTablesClient, host_tables_server::HostTables,
};
use std::{pin::Pin, sync::Arc, time::Duration};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, async_trait, codegen::tokio_stream::Stream};

/// How long an allocator has for its first answer.
const ANSWER: Duration = Duration::from_secs(2);
/// Pause before following again after a stream has ended.
const AGAIN: Duration = Duration::from_millis(250);
/// A table with more partitions than this is not one.
const PARTITIONS_MAX: u32 = 1 << 16;

type TableStream = Pin<Box<dyn Stream<Item = Result<v1::HostTable, Status>> + Send>>;

/// The generated trait, with the one kind of stream that our allocator gives.
pub trait Tables: HostTables<FollowStream = TableStream> {}
impl<T: HostTables<FollowStream = TableStream>> Tables for T {}

#[async_trait]
impl HostTables for Shared<dyn Tables> {
    type FollowStream = TableStream;

    async fn follow(
        &self,
        request: Request<v1::FollowRequest>,
    ) -> Result<Response<TableStream>, Status> {
        self.0.follow(request).await
    }
}

/// Where a user is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// The user's partition of `recipients`.
    pub partition: Partition,
    /// The host's name.
    pub host: Arc<str>,
    /// What clients connect to; empty while the host is not there.
    pub url: Arc<str>,
    /// Grows with every change of owner.
    pub epoch: u64,
}

/// The table as it was last pushed. Clones share it.
#[derive(Clone, Debug)]
pub struct FollowedHosts {
    table: watch::Receiver<Option<Table>>,
}

#[derive(Clone, Debug)]
struct Table {
    placement: Placement,
    /// By partition.
    owners: Vec<Option<Located>>,
}

impl FollowedHosts {
    /// Where this user is served; `None` where nobody owns the partition, or before the first
    /// table has come.
    #[must_use]
    pub fn of_user(&self, user: &UserId) -> Option<Located> {
        let table = self.table.borrow();
        let table = table.as_ref()?;
        table.owners[table.placement.of_user(user).0 as usize].clone()
    }

    /// Waits for the next change of the table; for the first one where none has come. Cancel safe.
    /// Returns at once for ever when it is not followed any more.
    pub async fn changed(&mut self) {
        let _ended = self.table.changed().await;
    }
}

/// Follows the table at one of these endpoints, and at the next one where that one ends, until
/// `stop`. The caller runs the future; the table stays as it is while no endpoint answers.
pub fn follow_hosts(
    endpoints: Endpoints,
    stop: CancellationToken,
) -> (FollowedHosts, impl Future<Output = ()> + Send) {
    let (tell, table) = watch::channel(None);
    let following = async move {
        let following = async {
            loop {
                if let Err(error) = follow(&endpoints, &tell).await {
                    tracing::debug!(%error, "the table of hosts is not followed for a moment");
                }
                tokio::time::sleep(AGAIN).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = following => {}
        }
    };
    (FollowedHosts { table }, following)
}

async fn follow(endpoints: &Endpoints, tell: &watch::Sender<Option<Table>>) -> Result<(), Status> {
    let call = |channel| async move {
        let mut request = Request::new(v1::FollowRequest {});
        request.set_timeout(ANSWER);
        HostTablesClient::new(channel).follow(request).await
    };
    let mut pushed = endpoints.call(ANSWER, call).await?.into_inner();
    while let Some(table) = pushed.message().await? {
        tell.send_replace(Some(Table::of(table)?));
    }
    Ok(())
}

impl Table {
    fn of(table: v1::HostTable) -> Result<Self, Status> {
        if !(1..=PARTITIONS_MAX).contains(&table.partitions) {
            return Err(Status::internal("a table of hosts without partitions"));
        }
        let mut owners = vec![None; table.partitions as usize];
        for owner in table.owners {
            if let Some(place) = owners.get_mut(owner.partition as usize) {
                *place = Some(Located {
                    partition: Partition(owner.partition),
                    host: owner.host.into(),
                    url: owner.url.into(),
                    epoch: owner.epoch,
                });
            }
        }
        Ok(Self { placement: Placement::new(table.partitions), owners })
    }
}
