//! The other end: services of this process, for callers in others.

use crate::{
    KEEPALIVE,
    relay::{FRAME_BYTES_MAX, Relayed},
    remote::Shared,
    tables::Tables,
};
use chaski_proto::v1::{
    connections_server::{Connections, ConnectionsServer},
    host_tables_server::HostTablesServer,
    hosts_server::{Hosts, HostsServer},
    messages_server::{Messages, MessagesServer},
    relay_server::RelayServer,
    sender_server::{Sender, SenderServer},
};
use std::{sync::Arc, time::Duration};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{
    service::Routes,
    transport::{Server, server::TcpIncoming},
};

/// Calls at once on one connection; more wait at the caller, against their deadline (L8). A
/// gateway has one connection to each endpoint.
const STREAMS_MAX: u32 = 10_000;

/// No call runs longer than this, whatever deadline it brought.
const CALL_MAX: Duration = Duration::from_secs(30);

/// The services of this process that others may call.
#[derive(Clone, Default)]
pub struct Services {
    /// The sender service.
    pub sender: Option<Arc<dyn Sender>>,
    /// The message service.
    pub messages: Option<Arc<dyn Messages>>,
    /// The connection service.
    pub connections: Option<Arc<dyn Connections>>,
    /// The host allocator.
    pub hosts: Option<Arc<dyn Hosts>>,
    /// Its table, for those who follow it.
    pub tables: Option<Arc<dyn Tables>>,
    /// The delivery host, for sockets that others accepted.
    pub relayed: Option<Arc<dyn Relayed>>,
}

impl Services {
    /// Whether there is nothing to serve.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sender.is_none()
            && self.messages.is_none()
            && self.connections.is_none()
            && self.hosts.is_none()
            && self.tables.is_none()
            && self.relayed.is_none()
    }
}

/// The server could not go on.
#[derive(Debug, thiserror::Error)]
#[error("gRPC server: {0}")]
pub struct ServeError(#[from] tonic::transport::Error);

/// Serves until `stop`, then lets the calls that have begun end (each has a deadline).
///
/// # Errors
/// Where the listener fails.
pub async fn serve(
    listener: TcpListener,
    services: Services,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let mut routes = Routes::builder();
    if let Some(sender) = services.sender {
        routes.add_service(SenderServer::new(Shared(sender)));
    }
    if let Some(messages) = services.messages {
        routes.add_service(MessagesServer::new(Shared(messages)));
    }
    if let Some(connections) = services.connections {
        routes.add_service(ConnectionsServer::new(Shared(connections)));
    }
    if let Some(hosts) = services.hosts {
        routes.add_service(HostsServer::new(Shared(hosts)));
    }
    if let Some(tables) = services.tables {
        routes.add_service(HostTablesServer::new(Shared(tables)));
    }
    if let Some(relayed) = services.relayed {
        let server = RelayServer::new(Shared(relayed));
        routes.add_service(server.max_decoding_message_size(FRAME_BYTES_MAX));
    }
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    Server::builder()
        .timeout(CALL_MAX)
        .max_concurrent_streams(STREAMS_MAX)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .http2_adaptive_window(Some(true))
        .add_routes(routes.routes())
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
        .await?;
    Ok(())
}
