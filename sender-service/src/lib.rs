//! The new-message service: validates what a client asks, appends it to `new-messages`, and
//! answers when the log has it on all in-sync replicas (L1). Keeps no state that matters: what it
//! remembers of blocks is a cache, and the tiers behind it decide (L7).
//!
//! Must not know: who the recipients are, any store.

mod blocks;
mod config;
mod service;
mod validate;

pub use config::{BlocksShown, SenderConfig};
pub use service::SenderService;
