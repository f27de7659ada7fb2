//! One shape for every refusal that a caller sees: an HTTP problem (RFC 9457), an `error` frame,
//! and a gRPC status between services.

use crate::v1;
use prost::Message as _;
use tonic::{Code, Status, metadata::MetadataValue};

/// Why a request was refused, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{status} {code}: {message}")]
pub struct Problem {
    /// An HTTP status.
    pub status: u16,
    /// Stable, for programs. The table stands in `docs/errors.md`.
    pub code: String,
    /// For people: what is wrong and what to do.
    pub message: String,
    /// When to try again.
    pub retry_after_ms: Option<u32>,
    /// The present state, with a 409 of `setConnection`.
    pub connection: Option<v1::Connection>,
}

impl Problem {
    /// A problem without a time to try again.
    #[must_use]
    pub fn new(status: u16, code: &str, message: impl Into<String>) -> Self {
        Self {
            status,
            code: code.into(),
            message: message.into(),
            retry_after_ms: None,
            connection: None,
        }
    }

    /// 400: the request breaks a rule of the contract.
    #[must_use]
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(400, "invalid", message)
    }

    /// 404.
    #[must_use]
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(404, "not_found", message)
    }

    /// 503: not now; nothing happened.
    #[must_use]
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self { retry_after_ms: Some(1000), ..Self::new(503, "unavailable", message) }
    }

    /// 503: it may have happened; the same client id makes a retry safe (L2).
    #[must_use]
    pub fn outcome_unknown() -> Self {
        let message = "it may have happened; send again with the same client id";
        Self { retry_after_ms: Some(1000), ..Self::new(503, "outcome_unknown", message) }
    }

    /// 409: the contact or block has changed since; this is how it stands.
    #[must_use]
    pub fn connection_conflict(present: v1::Connection) -> Self {
        let message = "the connection has changed since: decide again on its present version";
        Self { connection: Some(present), ..Self::new(409, "connection_conflict", message) }
    }

    /// The problem as the body of an `error` frame.
    #[must_use]
    pub fn to_frame(&self) -> v1::Error {
        v1::Error {
            code: self.code.clone(),
            status: self.status.into(),
            message: self.message.clone(),
            retry_after_ms: self.retry_after_ms,
            connection: self.connection.clone(),
        }
    }
}

impl From<chaski_core::IllegalId> for Problem {
    fn from(error: chaski_core::IllegalId) -> Self {
        Self::invalid(error.to_string())
    }
}
impl From<crate::Malformed> for Problem {
    fn from(error: crate::Malformed) -> Self {
        Self::invalid(error.to_string())
    }
}

const STATUS: &str = "chaski-status";
const CODE: &str = "chaski-code";
const RETRY: &str = "chaski-retry-after-ms";

impl From<Problem> for Status {
    fn from(problem: Problem) -> Self {
        let code = match problem.status {
            400 => Code::InvalidArgument,
            401 => Code::Unauthenticated,
            403 => Code::PermissionDenied,
            404 => Code::NotFound,
            409 => Code::AlreadyExists,
            429 => Code::ResourceExhausted,
            503 => Code::Unavailable,
            _ => Code::Internal,
        };
        let connection = problem.connection.map(|c| c.encode_to_vec()).unwrap_or_default();
        let mut status = Status::with_details(code, problem.message, connection.into());
        let metadata = status.metadata_mut();
        metadata.insert(STATUS, MetadataValue::from(problem.status));
        if let Ok(code) = MetadataValue::try_from(problem.code) {
            metadata.insert(CODE, code);
        }
        if let Some(retry) = problem.retry_after_ms {
            metadata.insert(RETRY, MetadataValue::from(retry));
        }
        status
    }
}

impl From<Status> for Problem {
    fn from(status: Status) -> Self {
        let text = |key| status.metadata().get(key).and_then(|v| v.to_str().ok());
        match (text(STATUS).and_then(|s| s.parse().ok()), text(CODE)) {
            (Some(number), Some(code)) => Self {
                status: number,
                code: code.into(),
                message: status.message().into(),
                retry_after_ms: text(RETRY).and_then(|r| r.parse().ok()),
                connection: match status.details() {
                    [] => None,
                    bytes => v1::Connection::decode(bytes).ok(),
                },
            },
            // The other service did not answer, or not as one of ours does.
            _ => match status.code() {
                Code::Unavailable => Self::unavailable("a service is not reachable"),
                _ => Self::outcome_unknown(),
            },
        }
    }
}
