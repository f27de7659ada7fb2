//! What a delivery host asks of a partition: where it may start, how far back inboxes reach, and
//! the edges of blocks.

use super::failed;
use crate::{ROLE, service::MessageService};
use chaski_core::Partition;
use chaski_proto::{Problem, block_edge_from_proto, block_edge_to_proto, v1, watermark_to_proto};

/// Most edges of a page.
const EDGES_MAX: u32 = 1000;

/// The places a delivery host may start from, newest first, and the start of the inboxes.
pub(crate) async fn watermarks(
    service: &MessageService,
    request: v1::WatermarksRequest,
) -> Result<v1::WatermarksReply, Problem> {
    let partition = Partition(request.partition);
    let limit = request.limit.clamp(1, 100) as usize;
    // First where inboxes begin: what is stored after that is whole anyway.
    let start = service.inbox_start(partition).await.map_err(|e| failed(&e))?;
    let rows = service.ports.checkpoints.watermarks(ROLE, partition, limit).await;
    let rows = rows.map_err(|e| failed(&e))?;
    Ok(v1::WatermarksReply {
        watermarks: rows.iter().map(|row| watermark_to_proto(&row.watermark)).collect(),
        inbox_start: start.0,
    })
}

/// A page of the edges of blocks of a partition's users.
pub(crate) async fn blocks(
    service: &MessageService,
    request: v1::BlocksRequest,
) -> Result<v1::BlocksReply, Problem> {
    let after = request.after.as_ref().map(block_edge_from_proto).transpose()?;
    let limit = match request.limit {
        0 => EDGES_MAX,
        limit => limit.min(EDGES_MAX),
    } as usize;
    let partition = Partition(request.partition);
    let edges = service.ports.connections.blocks(partition, after.as_ref(), limit + 1).await;
    let mut edges = edges.map_err(|e| failed(&e))?;
    let more = edges.len() > limit;
    edges.truncate(limit);
    Ok(v1::BlocksReply { edges: edges.iter().map(block_edge_to_proto).collect(), more })
}
