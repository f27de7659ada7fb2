//! Which path is answered by what.

use crate::{GatewayConfig, error::Refusal, measure::measure, read, write};
use axum::{
    Router, middleware,
    routing::{get, patch, post, put},
};
use chaski_auth::Verifier;
use chaski_ports::Clock;
use chaski_proto::{
    Problem,
    v1::{
        connections_server::Connections, hosts_server::Hosts, messages_server::Messages,
        sender_server::Sender,
    },
};
use std::{future::Future, sync::Arc};
use tonic::{Response, Status};

/// What the gateway passes requests on to. The services may live in this process or in others.
#[derive(Clone)]
pub struct Gateway {
    /// Takes messages, new chats and changes of chats.
    pub sender: Arc<dyn Sender>,
    /// Answers reads, and knows the verdicts of chats.
    pub messages: Arc<dyn Messages>,
    /// Knows and changes contacts, blocks and devices.
    pub connections: Arc<dyn Connections>,
    /// Knows which delivery host serves a user.
    pub hosts: Arc<dyn Hosts>,
    /// Knows who is calling.
    pub verifier: Arc<Verifier>,
    /// Tells the time, for tokens.
    pub clock: Arc<dyn Clock>,
    /// Limits and timeouts.
    pub config: GatewayConfig,
}

/// The HTTP API, without `/v1/ws`: merge a delivery host's router, or
/// [`moved_ws_router`](crate::moved_ws_router), with this one. It brings the fallbacks for everything else.
pub fn router(gateway: Gateway) -> Router {
    Router::new()
        .route("/v1/chats", get(read::chats).post(write::create_chat))
        .route("/v1/chats/{chatId}", get(read::chat).patch(write::rename_chat))
        .route("/v1/chats/{chatId}/participants", patch(write::change_participant))
        .route("/v1/chats/{chatId}/messages", get(read::history))
        .route("/v1/chats/{chatId}/receipts", get(read::receipts))
        .route("/v1/messages", post(write::send_message))
        .route("/v1/messages/sent", get(read::sent))
        .route("/v1/messages/received", get(read::received))
        .route("/v1/messages/unreceived", get(read::unreceived))
        .route("/v1/inbox", get(read::inbox))
        .route("/v1/devices", get(read::devices))
        .route("/v1/devices/{deviceId}", patch(write::rename_device).delete(write::revoke_device))
        .route("/v1/connections", get(read::connections))
        .route("/v1/connections/{userId}", put(write::set_connection).delete(write::end_connection))
        .route("/v1/hosts/me", get(read::host))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(middleware::from_fn(measure))
        .with_state(Arc::new(gateway))
}

async fn no_such_path() -> Refusal {
    Problem::not_found("there is no such path").into()
}

pub(crate) async fn no_such_method() -> Refusal {
    let allow = "this path does not take this method; the header Allow names those it takes";
    Problem::new(405, "method_not_allowed", allow).into()
}

impl Gateway {
    /// A read: where no answer comes, nothing has happened.
    pub(crate) async fn read<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Refusal> {
        let late = || Problem::unavailable("a service did not answer in time");
        match tokio::time::timeout(self.config.service_timeout(), call).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => match Problem::from(status) {
                problem if problem == Problem::outcome_unknown() => Err(late().into()),
                problem => Err(problem.into()),
            },
            Err(_) => Err(late().into()),
        }
    }

    /// A write: where no answer comes, it may have happened.
    pub(crate) async fn write<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Refusal> {
        match tokio::time::timeout(self.config.service_timeout(), call).await {
            Ok(answer) => Ok(answer?.into_inner()),
            Err(_) => Err(Problem::outcome_unknown().into()),
        }
    }
}
