//! Kafka's errors in the ports' words.
//!
//! Must not know: who asked.

use chaski_ports::{ErrorKind, PortError};
use rdkafka::{error::KafkaError, types::RDKafkaErrorCode as Code};

/// The failure of a call that changes nothing (metadata, bounds, reading).
pub(crate) fn asking(context: impl Into<String>, error: KafkaError) -> PortError {
    let kind = match error.rdkafka_error_code() {
        Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => ErrorKind::OutOfRange,
        Some(
            Code::UnknownTopicOrPartition
            | Code::UnknownTopic
            | Code::UnknownPartition
            | Code::UnknownTopicId,
        ) => ErrorKind::NotFound,
        Some(
            Code::InvalidMessage
            | Code::BadMessage
            | Code::BadCompression
            | Code::InvalidMessageSize
            | Code::InvalidRecord,
        ) => ErrorKind::Corrupt,
        code => refused(code).unwrap_or(ErrorKind::Unavailable),
    };
    PortError::new(kind, context).caused_by(error)
}

/// The failure of an append that was admitted. Nearly every failure leaves open whether an
/// earlier try of the same record was written, so nearly all are `Unknown`.
pub(crate) fn delivering(context: impl Into<String>, error: KafkaError) -> PortError {
    let kind = match error.rdkafka_error_code() {
        Some(Code::UnknownTopic | Code::UnknownPartition) => ErrorKind::NotFound,
        code => refused(code).unwrap_or(ErrorKind::Unknown),
    };
    PortError::new(kind, context).caused_by(error)
}

/// The refusal of an append: nothing happened.
pub(crate) fn admitting(context: impl Into<String>, error: KafkaError) -> PortError {
    let kind = match error.rdkafka_error_code() {
        Some(Code::QueueFull) => ErrorKind::Full,
        // The producer is dead: its holder asks the log for a new one.
        Some(Code::Fatal) => ErrorKind::Conflict,
        Some(Code::UnknownTopic | Code::UnknownPartition) => ErrorKind::NotFound,
        code => refused(code).unwrap_or(ErrorKind::Unavailable),
    };
    PortError::new(kind, context).caused_by(error)
}

/// What no retry will cure.
fn refused(code: Option<Code>) -> Option<ErrorKind> {
    match code? {
        Code::MessageSizeTooLarge
        | Code::InvalidRecord
        | Code::InvalidTimestamp
        | Code::InvalidArgument
        | Code::InvalidTopic
        | Code::InvalidConfig
        | Code::InvalidReplicationFactor
        | Code::InvalidPartitions
        | Code::PolicyViolation
        | Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::Authentication
        | Code::SaslAuthenticationFailed => Some(ErrorKind::Invalid),
        _ => None,
    }
}

/// A client that cannot be made: its configuration is wrong, or threads are out.
pub(crate) fn making(error: KafkaError) -> PortError {
    PortError::new(ErrorKind::Invalid, "make a kafka client").caused_by(error)
}
