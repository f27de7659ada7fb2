//! The durable log: folds `recipients` into the stores, and serves history, inbox, chats,
//! verdicts and device cursors from them.
//!
//! Must not know: sockets, HTTP, how records got into `recipients`.

mod config;
mod days;
mod devices;
mod fold;
mod progress;
mod reads;
mod rows;
mod service;

pub use config::MessagesConfig;
pub use service::MessageService;

/// The role's name in claims, watermarks and assignments.
pub const ROLE: &str = "messages";
