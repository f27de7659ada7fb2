//! The processes that play a role right now, and which of them gets the next call.
//!
//! Not tonic's balanced channel, for three reasons: it keeps choosing an endpoint that nobody
//! listens at, it cannot offer a refused call to the next one, and with no endpoint at all its
//! calls hang until their deadline.

use crate::{DEADLINE, KEEPALIVE};
use chaski_proto::Problem;
use parking_lot::Mutex;
use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tonic::{
    Code, ConnectError, Status,
    transport::{Channel, Endpoint},
};

/// How long one endpoint may take to accept a connection before the next one is tried.
const CONNECT: Duration = Duration::from_secs(2);

/// What a [`Problem`] of one of our services leaves in its status.
const PROBLEM: &str = "chaski-status";

/// An address that cannot be taken.
#[derive(Debug, thiserror::Error)]
#[error("endpoint {endpoint}: {source}")]
pub struct EndpointError {
    endpoint: String,
    source: tonic::transport::Error,
}

/// The endpoints of one role. Clones share the list, so one of them can be told of changes.
#[derive(Clone, Debug, Default)]
pub struct Endpoints {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Replaced as a whole, so that a call works with one list from beginning to end.
    targets: Mutex<Arc<[Target]>>,
    next: AtomicUsize,
}

#[derive(Clone, Debug)]
struct Target {
    endpoint: String,
    channel: Channel,
}

impl Endpoints {
    /// Endpoints such as `http://10.0.0.7:7101`. Connects on the first call, and again whenever a
    /// connection is lost. To be called inside a tokio runtime, like [`Endpoints::update`].
    ///
    /// # Errors
    /// Where one is not a URI.
    pub fn connect(endpoints: &[String]) -> Result<Self, EndpointError> {
        let this = Self::default();
        this.update(endpoints)?;
        Ok(this)
    }

    /// Replaces the list. Connections to endpoints that stay are kept; calls that are under way
    /// at others end as they will.
    ///
    /// # Errors
    /// Where one is not a URI; then nothing is changed.
    pub fn update(&self, endpoints: &[String]) -> Result<(), EndpointError> {
        let mut targets = self.shared.targets.lock();
        let new = endpoints
            .iter()
            .map(|endpoint| match targets.iter().find(|t| t.endpoint == *endpoint) {
                Some(known) => Ok(known.clone()),
                None => Target::new(endpoint),
            })
            .collect::<Result<_, _>>()?;
        *targets = new;
        Ok(())
    }

    /// The present list.
    #[must_use]
    pub fn list(&self) -> Vec<String> {
        self.shared.targets.lock().iter().map(|t| t.endpoint.clone()).collect()
    }

    /// Makes a call at the next endpoint; where that one cannot be reached, at the one after it,
    /// until all have been tried. `deadline` is for all of it.
    pub(crate) async fn call<T, F>(
        &self,
        deadline: Duration,
        call: impl Fn(Channel) -> F,
    ) -> Result<T, Status>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let tried = tokio::time::timeout(deadline, self.try_each(call)).await;
        tried.unwrap_or_else(|_| Err(Problem::outcome_unknown().into()))
    }

    async fn try_each<T, F>(&self, call: impl Fn(Channel) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let targets = Arc::clone(&self.shared.targets.lock());
        let first = self.shared.next.fetch_add(1, Ordering::Relaxed);
        for i in 0..targets.len() {
            let target = &targets[(first.wrapping_add(i)) % targets.len()];
            match call(target.channel.clone()).await {
                Err(status) if never_arrived(&status) => {
                    tracing::debug!(endpoint = target.endpoint, "not reachable");
                }
                Err(status) => return Err(refusal(status, &target.endpoint)),
                answer => return answer,
            }
        }
        Err(Problem::unavailable("a service is not reachable").into())
    }
}

impl Target {
    fn new(endpoint: &str) -> Result<Self, EndpointError> {
        Ok(Self { endpoint: endpoint.into(), channel: channel(endpoint)? })
    }
}

/// A connection to this endpoint, made when it is first used.
pub(crate) fn channel(endpoint: &str) -> Result<Channel, EndpointError> {
    let to = Endpoint::from_shared(endpoint.to_owned())
        .map_err(|source| EndpointError { endpoint: endpoint.into(), source })?
        .connect_timeout(CONNECT)
        .timeout(DEADLINE)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true)
        .http2_adaptive_window(true);
    Ok(to.connect_lazy())
}

/// Whether it is certain that the other process has not begun the call.
fn never_arrived(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// What another service said, or that it did not answer: then the call may have happened, also
/// where gRPC says "unavailable" (a connection that went dead under the call does).
fn refusal(status: Status, endpoint: &str) -> Status {
    if status.metadata().contains_key(PROBLEM) {
        return status;
    }
    if status.code() != Code::Cancelled {
        tracing::warn!(endpoint, code = ?status.code(), message = status.message(), "call failed");
    }
    Problem::outcome_unknown().into()
}
