//! The one public address: HTTP to the services, with authentication and limits, and `/v1/ws`
//! where no delivery host shares the process (it answers with the owner's URL).
//!
//! Must not know: any domain rule. What a request means is decided by the service it is passed
//! to; here it is only parsed, bounded, authenticated and answered.

mod answer;
mod config;
mod error;
mod late;
mod measure;
mod moved;
mod read;
mod request;
mod server;
mod service;
mod write;

pub use config::GatewayConfig;
pub use late::LateRouter;
pub use moved::moved_ws_router;
pub use server::serve;
pub use service::{Gateway, router};
