//! Clients at the wrong host: those that come here are told where their host is, or are carried to
//! it; those of this host that came to another process are served as if they had come here.

use super::{
    DeliveryHost,
    close::CloseReason,
    session::Who,
    socket::Socket,
    upgrade::{Greeting, busy, draining, serve},
};
use axum::extract::ws::Message;
use chaski_auth::AuthError;
use chaski_proto::v1::{self, relay_server::Relay, server_frame::Body};
use chaski_relay::{Incoming, Mux, NotRelayed, Outgoing, Side, Tunnel, identity_of};
use chaski_runtime::{CancellationToken, Tasks};
use futures::{StreamExt as _, future::Either};
use std::{
    convert::Infallible,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::task::JoinSet;
use tonic::{Request, Response, Status, Streaming, async_trait};

/// Before a client comes again for whom there is no room.
const FULL: Duration = Duration::from_secs(1);

/// Ends a socket whose user is not served here: carried to their host, or told where that is.
pub(super) async fn elsewhere(
    host: &DeliveryHost,
    mut socket: Socket,
    who: &Who,
    greeting: Greeting,
    carry: bool,
) {
    let mut go_away = match host.moved(who, 0) {
        v1::GoAway { url: None, .. } if host.is_draining() => draining(),
        moved => moved,
    };
    if let Some(relays) = &host.parts.relays {
        match carry.then(|| relays.open(&greeting.identity, socket.json)) {
            Some(Ok(tunnel)) => {
                let json = socket.json;
                // Only a client's own socket is carried: nobody is relayed twice.
                let Some((socket, ahead)) = socket.into_wire() else { return };
                let hello = match json {
                    true => Message::Text(greeting.frame.try_into().expect("it was read as text")),
                    false => Message::Binary(greeting.frame),
                };
                let said = std::iter::once(hello).chain(ahead).collect();
                return relays.carry(socket, json, said, tunnel).await;
            }
            Some(Err(NotRelayed::Full)) => go_away = busy(FULL),
            Some(Err(NotRelayed::Nowhere)) | None => {
                go_away.url = relays.address(go_away.url, host.parts.clock.now_ms());
            }
        }
    }
    let reason = match go_away.reason.as_str() {
        "MOVED" => CloseReason::Moved,
        "BUSY" => CloseReason::Busy,
        _ => CloseReason::Draining,
    };
    let _ = socket.send(&v1::ServerFrame::notice(Body::GoAway(go_away))).await;
    socket.close(reason).await;
}

impl DeliveryHost {
    /// Serves the sockets that another process relays by this stream, until it ends or the tasks
    /// stop; what goes back.
    pub fn relayed(self: &Arc<Self>, tasks: &Tasks, incoming: Incoming) -> Outgoing {
        let mux = Mux::new(Side::Serving, self.config.relay_limits());
        let outgoing = mux.outgoing();
        let serving = serve_all(Arc::clone(self), incoming, mux, tasks.stop());
        tasks.spawn("delivery/relayed", serving);
        outgoing
    }

    /// The size limit of a frame.
    pub(super) fn frame_max(&self, json: bool) -> usize {
        match json {
            true => self.config.json_frame_bytes_max,
            false => self.config.protobuf_frame_bytes_max,
        }
    }
}

/// Takes what other processes relay.
pub struct RelayService {
    host: Arc<DeliveryHost>,
    tasks: Tasks,
}

impl RelayService {
    /// For this host; its sockets are served in these tasks.
    #[must_use]
    pub fn new(host: Arc<DeliveryHost>, tasks: Tasks) -> Self {
        Self { host, tasks }
    }
}

#[async_trait]
impl Relay for RelayService {
    type StreamStream = Incoming;

    async fn stream(
        &self,
        request: Request<Streaming<v1::RelayFrame>>,
    ) -> Result<Response<Incoming>, Status> {
        let outgoing = self.host.relayed(&self.tasks, request.into_inner().boxed());
        Ok(Response::new(outgoing.map(Ok).boxed()))
    }
}

async fn serve_all(
    host: Arc<DeliveryHost>,
    mut incoming: Incoming,
    mux: Mux,
    stop: CancellationToken,
) -> Result<(), Infallible> {
    let mut sessions = JoinSet::new();
    let error = loop {
        let frame = tokio::select! {
            () = stop.cancelled() => break None,
            Some(ended) = sessions.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a relayed socket's task failed");
                }
                continue;
            }
            frame = incoming.next() => frame,
        };
        match frame {
            None => break None,
            Some(Err(status)) => break Some(status.message().to_owned()),
            Some(Ok(frame)) => match mux.take(frame) {
                Ok(Some((open, tunnel))) => {
                    sessions.spawn(serve_one(Arc::clone(&host), open, tunnel));
                }
                Ok(None) => {}
                Err(broken) => break Some(broken.to_string()),
            },
        }
    };
    tracing::info!(error, sockets = sessions.len(), "a relay has ended");
    // Each sees that its client is gone.
    mux.end();
    while sessions.join_next().await.is_some() {}
    Ok(())
}

async fn serve_one(host: Arc<DeliveryHost>, open: v1::RelayOpen, tunnel: Tunnel) {
    let json = !open.protobuf;
    let number = host.sockets.fetch_add(1, Ordering::Relaxed);
    let socket = Socket::new(Either::Right(tunnel), number, json, host.frame_max(json));
    let Ok(identity) = identity_of(&open) else {
        return socket.close(CloseReason::NotAuthenticated).await;
    };
    // This host may know of a revocation of which the other one has yet to hear.
    match host.parts.verifier.recheck(&identity, host.parts.clock.now_ms()) {
        Ok(()) => serve(host, socket, Some(identity), false).await,
        Err(AuthError::Expired) => socket.close(CloseReason::TokenExpired).await,
        Err(_) => socket.close(CloseReason::Revoked).await,
    }
}
