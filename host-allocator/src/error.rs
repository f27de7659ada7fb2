//! What can go wrong.

use chaski_ports::PortError;

/// A failure of the allocator, a registration or the table of assignments.
#[derive(Debug, thiserror::Error)]
pub enum AllocatorError {
    /// The coordinator failed for good: its session has ended, or it is set up wrongly.
    #[error("the coordinator failed")]
    Coordinator(#[from] PortError),
    /// The session that a registration belongs to has ended: for all others this host is gone.
    #[error("the coordinator's session has ended: start again")]
    SessionEnded,
    /// The [`Follower`](crate::Follower) of this table has stopped: it will not change any more.
    #[error("the table of assignments is not followed any more")]
    NotFollowed,
}
