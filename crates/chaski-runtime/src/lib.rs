//! What every process needs around its services: configuration, logs and metrics, tasks with
//! names, readiness, and an orderly end.
//!
//! Must not know: any service, any port, any domain rule.

mod admin;
mod config;
mod owned;
mod tasks;
mod telemetry;
mod work;

pub use admin::{Gate, Readiness, serve_admin};
pub use config::{ConfigError, load, to_toml};
pub use owned::{Owned, Restarts, run_owned};
pub use tasks::Tasks;
pub use telemetry::init as init_telemetry;
pub use tokio_util::sync::CancellationToken;
pub use work::{Done, Tally, Work};
