//! The new-message service: validates what a client asks, appends it to `new-messages`, and
//! answers when the log has it on all in-sync replicas (L1). Keeps no state that matters.
//!
//! Must not know: who the recipients are, any store.

mod config;
mod service;
mod validate;

pub use config::SenderConfig;
pub use service::SenderService;
