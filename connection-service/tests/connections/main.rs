//! The connection service over the embedded backend: what is asked, decided, told and served, and
//! that a crash or a second owner anywhere in between leaves one effect.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod broken;
mod crashes;
mod devices;
mod requests;
mod synced;
mod world;
