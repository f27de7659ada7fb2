//! What all test suites share. Must not know: any of our crates.

pub mod report;
