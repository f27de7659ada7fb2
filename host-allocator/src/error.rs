//! What can go wrong.

use chaski_ports::PortError;

/// A failure of the allocator, a registration or the table of assignments.
#[derive(Debug, thiserror::Error)]
pub enum AllocatorError {
    /// The coordinator failed for good: it is set up wrongly.
    #[error("the coordinator failed")]
    Coordinator(#[from] PortError),
    /// The [`Follower`](crate::Follower) of this table has stopped: it will not change any more.
    #[error("the table of assignments is not followed any more")]
    NotFollowed,
}
