//! Where a device resumes, and whether it may be there at all.

use super::{DeliveryHost, ring::Ring, session::Who};
use chaski_core::Position;
use chaski_proto::{Problem, v1};
use futures::future::BoxFuture;
use std::{sync::Arc, time::Duration};
use tonic::Request;

/// Where a session begins.
pub(super) struct Start {
    pub(super) position: Position,
    /// The device asked for a place that does not exist: it must read what it has missed.
    pub(super) resync: bool,
    /// The device said itself where it resumes: it is opened while it is served.
    pub(super) opening: Option<Opening>,
}

/// A device being opened: its stored cursor, or why it may not be there.
pub(super) type Opening = BoxFuture<'static, Result<Position, Problem>>;

/// Finds where the device resumes.
pub(super) async fn open(
    host: &DeliveryHost,
    ring: &Ring,
    who: &Who,
    resume_after: Option<u64>,
) -> Result<Start, Problem> {
    let (position, opening) = match resume_after {
        // Needs no store, so live chat outlasts its outages.
        Some(position) => (Position(position), Some(open_device(host, who, Duration::ZERO))),
        None => {
            // What was acknowledged a moment ago counts before it is saved; looked at first, so
            // that a save in between is seen in the store.
            let unsaved = host.acks.unsaved(&who.user, &who.device).unwrap_or_default();
            let stored = open_device(host, who, Duration::ZERO).await?;
            (unsaved.max(stored), None)
        }
    };
    let known = ring.knows(position);
    let position = if known { position } else { ring.newest() };
    Ok(Start { position, resync: !known, opening })
}

/// Opens the device after a pause.
pub(super) fn open_device(host: &DeliveryHost, who: &Who, pause: Duration) -> Opening {
    let (messages, caller) = (Arc::clone(&host.parts.messages), who.caller());
    Box::pin(async move {
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        let reply: v1::OpenDeviceReply =
            messages.open_device(Request::new(caller)).await?.into_inner();
        Ok(Position(reply.cursor))
    })
}
