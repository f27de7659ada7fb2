//! The message delivery service, two halves that scale apart:
//! the [`generator`] turns chat order into user order (`new-messages` → `recipients`), and the
//! [`host`] owns partitions of `recipients` and the WebSockets of their users.
//!
//! Must not know: CQL, or any other store's vendor.

pub mod generator;
pub mod host;
