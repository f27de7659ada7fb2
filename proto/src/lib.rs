//! Every wire and stored type, once: the schema is `proto/chaski/v1/*.proto`; this crate is what
//! is generated from it, its JSON mapping, and the conversions to and from the domain values of
//! `chaski-core`.
//!
//! Must not know: who sends or stores these, and what is done with them.

/// The generated messages, their JSON mapping and the service traits.
#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all, clippy::unwrap_used)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/chaski.v1.rs"));
    include!(concat!(env!("OUT_DIR"), "/client_frame.serde.rs"));
    include!(concat!(env!("OUT_DIR"), "/serde.rs"));
}

pub mod close;
mod codec;
mod connection;
mod frame;
mod problem;
mod stored;
mod timestamp;
mod token;

pub use codec::{
    EncodedEvent, Malformed, RecipientEntry, RecipientRecord, SCHEMA, decode_input, encode_input,
    operation_from_proto,
};
pub use connection::{
    block_edge_from_proto, block_edge_to_proto, connection_change, decode_connection_request,
    encode_connection_request, status_from_proto, status_to_proto,
};
pub use frame::{
    FrameError, client_frame, connection_update, event_body, new_message, rejected_event,
};
pub use problem::Problem;
pub use stored::{
    decode_bucket, decode_control, encode_bucket, encode_control, watermark_from_proto,
    watermark_to_proto,
};
pub use timestamp::Timestamp;
pub use token::WriteToken;

/// The compiled schema (a `FileDescriptorSet`), for the breaking-change check.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
