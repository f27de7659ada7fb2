//! Where a device resumes, and whether it may be there at all.

use super::{DeliveryHost, ring::Ring, session::Who};
use chaski_core::Position;
use chaski_planted::Bug;
use chaski_ports::Topic;
use chaski_proto::{Problem, v1};
use futures::future::BoxFuture;
use std::{sync::Arc, time::Duration};
use tonic::Request;

/// How often it is looked whether the ring has come to a place.
const LOOK: Duration = Duration::from_millis(5);

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
        Some(position) => {
            let at_the_end = chaski_planted::is(Bug::ResumesAtTheEnd);
            let position = if at_the_end { ring.newest() } else { Position(position) };
            (position, Some(open_device(host, who, Duration::ZERO)))
        }
        None => {
            // What was acknowledged a moment ago counts before it is saved; looked at first, so
            // that a save in between is seen in the store.
            let unsaved = host.acks.unsaved(&who.user, &who.device).unwrap_or_default();
            let stored = open_device(host, who, Duration::ZERO).await?;
            (unsaved.max(stored), None)
        }
    };
    let known = ring.knows(position) || reached(host, ring, who, position).await?;
    let position = if known { position } else { ring.newest() };
    Ok(Start { position, resync: !known, opening })
}

/// Whether the log has a place that the ring does not know; then the ring has come to it. The host
/// that served the device before was further (L4: what was shown is not shown again at an earlier
/// place). As long as this host cannot tell, the device must come again.
async fn reached(
    host: &DeliveryHost,
    ring: &Ring,
    who: &Who,
    position: Position,
) -> Result<bool, Problem> {
    let Some(first) = position.first_offset_after() else { return Ok(false) };
    let partition = host.parts.placement.of_user(&who.user);
    let read = async {
        let bounds =
            host.parts.log.bounds(Topic::Recipients, partition).await.map_err(|error| {
                tracing::warn!(%partition, %error, "the log does not say where it ends");
            })?;
        if first > bounds.end {
            return Ok(false);
        }
        while !ring.knows(position) {
            tokio::time::sleep(LOOK).await;
        }
        Ok(true)
    };
    let patience = Duration::from_secs(host.config.hello_seconds);
    let read = tokio::time::timeout(patience, read).await.unwrap_or(Err(()));
    read.map_err(|()| Problem::unavailable("this host has not read the log so far; try again"))
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
