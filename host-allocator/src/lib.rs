//! Who owns what: which host serves which partition of each role.
//!
//! Hosts say that they are there and that they are about to go ([`HostRegistration`]), one leading
//! [`Allocator`] spreads the partitions over them, and everybody keeps the outcome in memory
//! ([`Assignments`], [`Lookup`]; other processes by [`Locator`]'s streams).
//! An assignment's epoch grows with every change of owner; the stores fence writes with it (L6).
//!
//! Must not know: what a message is, what an owner does with its partition, which coordinator it
//! runs on.

mod assignments;
mod balance;
mod config;
mod error;
mod loans;
mod locate;
mod members;
mod placement;
mod rebalance;
mod registration;
mod service;
mod znode;

pub use assignments::{Assignments, Follower, Located, Lookup, Owner};
pub use config::AllocatorConfig;
pub use error::AllocatorError;
pub use locate::Locator;
pub use placement::place;
pub use registration::HostRegistration;
pub use service::Allocator;
pub use znode::{Host, Role};
