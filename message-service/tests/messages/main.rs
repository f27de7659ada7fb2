//! The durable log on real embedded backends: what the fan-out appends to `recipients`, what the
//! service then answers.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod blocks;
mod chats;
mod devices;
mod inbox;
mod retention;
mod world;
