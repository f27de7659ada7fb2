//! The stricter policy for lifting a block: not before every device of the user has taken it.
//!
//! Must not know: what becomes of a request. It only sees to it that what is let through can lift
//! no other block than the one that was looked at: the decision refuses every other version.

use crate::{
    devices::in_use,
    service::{ConnectionService, unavailable},
};
use chaski_core::{
    Offset, Position, UserId,
    connection::{BlockEdge, Status},
};
use chaski_ports::PortError;
use chaski_proto::{Problem, status_from_proto, v1};
use prost::Message as _;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Edges in one page.
const PAGE: usize = 500;
/// The pause between two looks for a version that a device knows before it is stored.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// 409 `block_not_synced` where a request on version `based_on` would lift a block that a device in
/// use has not acknowledged yet.
pub(crate) async fn check(
    service: &ConnectionService,
    (user, peer): (&UserId, &UserId),
    asked: Status,
    based_on: Option<u64>,
) -> Result<(), Problem> {
    // Without a version no block is lifted.
    let (true, Some(based_on)) = (asked != Status::Blocked, based_on) else { return Ok(()) };
    let (version, state) = present(service, (user, peer), based_on).await?;
    let connection = v1::Connection { user_id: peer.to_string(), status: state.status, version };
    if version < based_on {
        // Not let through: the pair may have become so, and blocked, by the time it is decided.
        return Err(Problem::connection_conflict(connection));
    }
    if version > based_on || status_from_proto(state.status()) != Status::Blocked {
        return Ok(());
    }
    let edge = last_edge(service, (user, peer)).await.map_err(|e| unavailable(&e))?;
    // Where it is that of this block; states of older programs do not say when they were asked for.
    let edge = edge.filter(|edge| edge.blocked && [0, edge.at].contains(&state.at_ms));
    let devices = in_use(service, user).await?;
    let place = edge.map(|edge| Position::at(edge.offset));
    // What the message service has not stored yet nobody has taken.
    let took = |cursor| place.is_some_and(|place| cursor >= place);
    let behind = devices.iter().filter(|device| !took(device.row.cursor)).count();
    if behind == 0 {
        return Ok(());
    }
    metrics::counter!("chaski_unblocks_not_synced_total").increment(1);
    Err(not_synced(connection, behind, devices.len()))
}

fn not_synced(present: v1::Connection, behind: usize, all: usize) -> Problem {
    let message = format!(
        "{behind} of your {all} devices have not taken this block yet: connect them, or revoke \
         those that are gone, and try again"
    );
    Problem { connection: Some(present), ..Problem::new(409, "block_not_synced", message) }
}

/// The pair as it is stored. A version reaches devices a moment before the store: where one is
/// named that is still ahead it is waited for, as long as for a verdict.
async fn present(
    service: &ConnectionService,
    (user, peer): (&UserId, &UserId),
    based_on: u64,
) -> Result<(u64, v1::StoredConnection), Problem> {
    let deadline = Instant::now() + service.config.verdict();
    loop {
        let row = service.ports.connections.connection(user, peer).await;
        let row = row.map_err(|e| unavailable(&e))?;
        let (version, state) = row.map(|row| (row.version, row.state)).unwrap_or_default();
        if version >= based_on || Instant::now() >= deadline {
            let state = v1::StoredConnection::decode(state)
                .map_err(|e| Problem::new(500, "corrupt", e.to_string()))?;
            return Ok((version, state));
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// Where the pair's last block begins or ends, as far as the message service has stored it.
async fn last_edge(
    service: &ConnectionService,
    pair: (&UserId, &UserId),
) -> Result<Option<BlockEdge>, PortError> {
    let partition = service.placement.of_user(pair.0);
    let (mut from, mut last) = (Offset(0), None);
    loop {
        let page = service.ports.connections.pair_blocks(partition, pair, from, PAGE).await?;
        let more = page.len() == PAGE;
        last = page.into_iter().last().or(last);
        match &last {
            Some(edge) if more => from = edge.offset.next(),
            _ => return Ok(last),
        }
    }
}
