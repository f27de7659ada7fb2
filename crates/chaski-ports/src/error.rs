//! One shape for every port's failure: what kind, whether trying again may help, and the vendor's
//! own error as the source.

use std::time::Duration;

/// What kind of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The backend cannot be reached or has too few replicas. Nothing happened.
    Unavailable,
    /// It may have happened, or not.
    Unknown,
    /// A bounded queue is full. Nothing happened (L8).
    Full,
    /// The offset is before the log's start or past its end (L5: never reset, never skip).
    OutOfRange,
    /// A condition did not hold (compare-and-set, claim), or ownership is lost.
    Conflict,
    /// There is no such topic, partition, path or row.
    NotFound,
    /// What is stored cannot be read.
    Corrupt,
    /// The call or the configuration is wrong.
    Invalid,
}

/// A port's failure.
#[derive(Debug, thiserror::Error)]
#[error("{context}: {kind:?}")]
pub struct PortError {
    /// What kind.
    pub kind: ErrorKind,
    /// What was tried, for a person: "append to chaski.new-messages/3".
    pub context: String,
    /// When to try again, where the backend says so.
    pub retry_after: Option<Duration>,
    /// The vendor's error.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl PortError {
    /// A failure without a vendor error.
    #[must_use]
    pub fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        Self { kind, context: context.into(), retry_after: None, source: None }
    }

    /// A claim on an assignment that is older than one that was claimed on.
    #[must_use]
    pub fn late_claim(what: impl std::fmt::Display, assignment: u64, claimed_on: u64) -> Self {
        Self::new(
            ErrorKind::Conflict,
            format!(
                "{what} on assignment {assignment}: {claimed_on} was claimed on before, so another \
                 process owns it by now (or the coordinator has lost its data: see docs/ops)"
            ),
        )
    }

    /// The same with the vendor's error as its source.
    #[must_use]
    pub fn caused_by(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Whether an owner of a partition that fails so may start anew: it gets a new producer for one
    /// that died; a claim that others won, or that was late, is settled by the next news of who is
    /// assigned.
    #[must_use]
    pub fn owner_may_retry(&self) -> bool {
        self.retryable() || self.kind == ErrorKind::Conflict
    }

    /// Whether the same call may succeed later.
    #[must_use]
    pub fn retryable(&self) -> bool {
        matches!(self.kind, ErrorKind::Unavailable | ErrorKind::Unknown | ErrorKind::Full)
    }
}
