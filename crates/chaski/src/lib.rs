//! The `chaski` binary: every role in one process or each in its own, and the tools to look at
//! and drive a running system.

pub mod cli;
pub mod config;
pub mod node;
pub mod replay;
