//! The driver's errors as the ports' kinds: did it happen, may it be tried again.

use chaski_ports::{ErrorKind, PortError};
use scylla::errors::{DbError, ExecutionError, RequestAttemptError};

/// The vendor's error, as a source.
pub(crate) type Vendor = Box<dyn std::error::Error + Send + Sync>;

/// The failure of a request that writes: a request that may have reached a node is `Unknown`.
pub(crate) fn write_failed(op: &'static str, error: ExecutionError) -> PortError {
    failed(op, kind_of(&error), error)
}

/// The failure of a request that reads: it had no effect, so what would be unknown for a write
/// is `Unavailable`.
pub(crate) fn read_failed(op: &'static str, error: ExecutionError) -> PortError {
    let kind = match kind_of(&error) {
        ErrorKind::Unknown => ErrorKind::Unavailable,
        kind => kind,
    };
    failed(op, kind, error)
}

/// A stored value that cannot be read.
pub(crate) fn corrupt(what: &'static str, error: impl Into<Vendor>) -> PortError {
    PortError::new(ErrorKind::Corrupt, format!("cql read {what}")).caused_by(error)
}

fn failed(op: &'static str, kind: ErrorKind, error: ExecutionError) -> PortError {
    PortError::new(kind, format!("cql {op}")).caused_by(error)
}

fn kind_of(error: &ExecutionError) -> ErrorKind {
    match error {
        ExecutionError::BadQuery(_) => ErrorKind::Invalid,
        ExecutionError::EmptyPlan
        | ExecutionError::ConnectionPoolError(_)
        | ExecutionError::PrepareError(_) => ErrorKind::Unavailable,
        ExecutionError::LastAttemptError(attempt) => kind_of_attempt(attempt),
        _ => ErrorKind::Unknown,
    }
}

fn kind_of_attempt(error: &RequestAttemptError) -> ErrorKind {
    match error {
        RequestAttemptError::SerializationError(_)
        | RequestAttemptError::CqlRequestSerialization(_) => ErrorKind::Invalid,
        RequestAttemptError::UnableToAllocStreamId => ErrorKind::Full,
        RequestAttemptError::DbError(error, _) => match error {
            DbError::Unavailable { .. } | DbError::IsBootstrapping => ErrorKind::Unavailable,
            DbError::Overloaded | DbError::RateLimitReached { .. } => ErrorKind::Full,
            DbError::SyntaxError
            | DbError::Invalid
            | DbError::AlreadyExists { .. }
            | DbError::FunctionFailure { .. }
            | DbError::AuthenticationError
            | DbError::Unauthorized
            | DbError::ConfigError => ErrorKind::Invalid,
            // Timeouts and failures of some replicas; and the codes the driver does not know, such
            // as Cassandra's CAS_WRITE_UNKNOWN (0x1700).
            _ => ErrorKind::Unknown,
        },
        _ => ErrorKind::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(error: DbError) -> (ErrorKind, ErrorKind) {
        let error = || RequestAttemptError::DbError(error.clone(), String::new()).into();
        (write_failed("w", error()).kind, read_failed("r", error()).kind)
    }

    #[test]
    fn what_may_have_happened_is_unknown_for_a_write_and_unavailable_for_a_read() {
        use ErrorKind::{Full, Invalid, Unavailable, Unknown};
        assert_eq!(of(DbError::ServerError), (Unknown, Unavailable));
        assert_eq!(of(DbError::Other(0x1700)), (Unknown, Unavailable));
        assert_eq!(of(DbError::Overloaded), (Full, Full));
        assert_eq!(of(DbError::IsBootstrapping), (Unavailable, Unavailable));
        assert_eq!(of(DbError::Unauthorized), (Invalid, Invalid));
        let timeout = ExecutionError::RequestTimeout(std::time::Duration::ZERO);
        assert!(write_failed("w", timeout).retryable());
    }
}
