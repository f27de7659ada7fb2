//! The look-up API: which delivery host serves a user, answered from memory.

use crate::Lookup;
use async_trait::async_trait;
use chaski_core::UserId;
use chaski_proto::{Problem, v1};
use tonic::{Request, Response, Status};

/// Answers look-ups from the assignments in memory; a coordinator outage does not stop it.
pub struct Locator(Lookup);

impl Locator {
    /// Looks users up in `lookup`.
    #[must_use]
    pub fn new(lookup: Lookup) -> Self {
        Self(lookup)
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
