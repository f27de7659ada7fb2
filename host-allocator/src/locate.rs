//! The look-up API: which delivery host serves a user, answered from memory; and the whole table,
//! sent again at each change, for processes that look users up themselves.

use crate::Lookup;
use async_trait::async_trait;
use chaski_core::{Position, UserId};
use chaski_proto::{Problem, v1};
use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use tonic::{Request, Response, Status};

/// Answers look-ups from the assignments in memory; a coordinator outage does not stop it.
pub struct Locator(Lookup);

impl Locator {
    /// Looks users up in `lookup`.
    #[must_use]
    pub fn new(lookup: Lookup) -> Self {
        Self(lookup)
    }

    /// The table as it stands.
    fn table(&self) -> v1::HostTable {
        let owners = self.0.assignments().owners().into_iter();
        v1::HostTable {
            partitions: self.0.placement().partitions(),
            generation: u32::from(Position::GENERATION),
            owners: owners
                .map(|(partition, owner)| v1::PartitionOwner {
                    partition: partition.0,
                    host: owner.host.to_string(),
                    url: owner.url.to_string(),
                    epoch: owner.epoch,
                })
                .collect(),
        }
    }
}

#[async_trait]
impl v1::host_tables_server::HostTables for Locator {
    type FollowStream = BoxStream<'static, Result<v1::HostTable, Status>>;

    /// Ends when the process does; a table that many changes passed by is sent once.
    async fn follow(
        &self,
        _: Request<v1::FollowRequest>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        let mut changes = self.0.assignments().clone();
        // What stands there now is sent at once, and is no change.
        changes.mark_seen();
        let first = self.table();
        let state = (Self(self.0.clone()), changes, first.clone());
        let later = stream::unfold(state, |(locator, mut changes, mut sent)| async move {
            loop {
                changes.changed().await.ok()?;
                let table = locator.table();
                // Much of what changes about hosts is no concern of clients.
                if table != sent {
                    sent.clone_from(&table);
                    return Some((Ok(table), (locator, changes, sent)));
                }
            }
        });
        Ok(Response::new(stream::once(async { Ok(first) }).chain(later).boxed()))
    }
}

#[async_trait]
impl v1::hosts_server::Hosts for Locator {
    async fn locate(
        &self,
        request: Request<v1::LocateRequest>,
    ) -> Result<Response<v1::LocateReply>, Status> {
        let user: UserId = request.into_inner().user_id.parse().map_err(Problem::from)?;
        let located = self.0.of_user(&user).filter(|located| !located.owner.url.is_empty());
        let located = located.ok_or_else(|| {
            Problem::unavailable("no delivery host serves this user at the moment")
        })?;
        Ok(Response::new(v1::LocateReply {
            partition: located.partition.0,
            host: located.owner.host.to_string(),
            url: located.owner.url.to_string(),
            epoch: located.owner.epoch,
        }))
    }
}
