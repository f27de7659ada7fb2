//! Contacts, blocks and settings: requests, changes and edges of blocks, to bytes and back.

use crate::{Malformed, codec::request_id, v1};
use bytes::Bytes;
use chaski_core::{
    Offset,
    connection::{Ask, BlockEdge, Connection, ConnectionChange, Request, Status},
};
use prost::Message as _;

/// Encodes a record of `connection-requests`.
#[must_use]
pub fn encode_connection_request(request: &Request) -> Bytes {
    use v1::connection_request::Request as Proto;
    let ask = match &request.ask {
        Ask::Connection { peer, status, based_on } => Proto::Connection(v1::SetConnection {
            user_id: peer.to_string(),
            status: status_to_proto(*status).into(),
            based_on_version: *based_on,
        }),
        Ask::Settings { hide_read_marks } => {
            Proto::Settings(v1::SetSettings { hide_read_marks: *hide_read_marks })
        }
    };
    let record = v1::ConnectionRequest {
        request_id: Bytes::copy_from_slice(&request.id),
        user_id: request.user.to_string(),
        by_device_id: request.device.to_string(),
        at_ms: request.at,
        request: Some(ask),
    };
    record.encode_to_vec().into()
}

/// Decodes a record of `connection-requests`.
pub fn decode_connection_request(bytes: Bytes) -> Result<Request, Malformed> {
    use v1::connection_request::Request as Proto;
    let record = v1::ConnectionRequest::decode(bytes)?;
    let ask = match record.request {
        Some(Proto::Connection(asked)) => Ask::Connection {
            peer: asked.user_id.parse()?,
            status: status_from_proto(asked.status()),
            based_on: asked.based_on_version,
        },
        Some(Proto::Settings(asked)) => Ask::Settings { hide_read_marks: asked.hide_read_marks },
        None => return Err(Malformed::because("a request that this version does not know")),
    };
    Ok(Request {
        id: request_id(&record.request_id)?,
        user: record.user_id.parse()?,
        device: record.by_device_id.parse()?,
        at: record.at_ms,
        ask,
    })
}

pub(crate) fn change_to_proto(change: &ConnectionChange) -> v1::ConnectionChange {
    v1::ConnectionChange {
        peer_id: change.peer.to_string(),
        status: status_to_proto(change.to.status).into(),
        version: change.to.version,
        by_device_id: change.device.to_string(),
        lifted: change.lifted,
    }
}

/// The change in a record of `recipients` with this time.
pub fn connection_change(
    change: &v1::ConnectionChange,
    at_ms: i64,
) -> Result<ConnectionChange, Malformed> {
    Ok(ConnectionChange {
        peer: change.peer_id.parse()?,
        to: Connection { status: status_from_proto(change.status()), version: change.version },
        device: change.by_device_id.parse()?,
        lifted: change.lifted,
        at: at_ms,
    })
}

/// A status for the wire.
#[must_use]
pub fn status_to_proto(status: Status) -> v1::ConnectionStatus {
    match status {
        Status::None => v1::ConnectionStatus::None,
        Status::Active => v1::ConnectionStatus::Active,
        Status::Blocked => v1::ConnectionStatus::Blocked,
    }
}

/// A status from the wire.
#[must_use]
pub fn status_from_proto(status: v1::ConnectionStatus) -> Status {
    match status {
        v1::ConnectionStatus::None => Status::None,
        v1::ConnectionStatus::Active => Status::Active,
        v1::ConnectionStatus::Blocked => Status::Blocked,
    }
}

/// An edge for the wire.
#[must_use]
pub fn block_edge_to_proto(edge: &BlockEdge) -> v1::BlockEdge {
    v1::BlockEdge {
        user_id: edge.user.to_string(),
        peer_id: edge.peer.to_string(),
        offset: edge.offset.0,
        blocked: edge.blocked,
        at_ms: edge.at,
    }
}

/// An edge from the wire.
pub fn block_edge_from_proto(edge: &v1::BlockEdge) -> Result<BlockEdge, Malformed> {
    Ok(BlockEdge {
        user: edge.user_id.parse()?,
        peer: edge.peer_id.parse()?,
        offset: Offset(edge.offset),
        blocked: edge.blocked,
        at: edge.at_ms,
    })
}
