//! The fault harness: a whole cluster under load by real WebSocket clients, faults from a seeded
//! plan, and a judge over everything that every client asked and was shown.
//!
//! `load` talks and notes a `history`, `judge` finds what is wrong in it, `report` tells; `plan`
//! says what is done to the system, and `run` puts one run together.

pub mod cli;
pub mod fault;
pub mod history;
pub mod judge;
pub mod load;
pub mod plan;
pub mod planted;
mod progress;
pub mod proxy;
pub mod report;
pub mod run;
pub mod scenario;
pub mod system;
