//! Contacts, blocks, settings and devices: takes what users ask of them, decides it in the order of
//! `connection-requests`, tells the decision in the user's own order (`recipients`), and serves the
//! outcome.
//!
//! Must not know: messages, chats, sockets, HTTP.

mod config;
mod devices;
mod fold;
mod service;
mod synced;
mod verdicts;

pub use config::ConnectionsConfig;
pub use service::ConnectionService;

/// The role's name in claims, watermarks and assignments.
pub const ROLE: &str = "connections";
