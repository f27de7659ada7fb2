//! A client of chaski: one WebSocket that keeps itself connected, resumes where its owner
//! stopped, acknowledges, and settles every command; and the HTTP calls beside it.
//!
//! [`Client`] spawns nothing: its owner drives it with [`Client::next`], so a harness with
//! thousands of clients costs one task each.
//!
//! Must not know: how tokens are made, what an application stores, any service of the server.

mod blocked;
mod client;
mod config;
mod error;
mod event;
mod http;
mod late;
mod link;
mod session;
mod transport;

pub use client::Client;
pub use config::{Config, Format, Token, TokenProvider};
pub use error::{Disconnect, Error, HttpError, SendError};
pub use event::{CommandId, Deferred, Event, Outcome};
pub use http::{Download, DownloadState, HistoryItem, HistoryRow, Http, Page, Part};
pub use late::Latest;

/// The commands and event bodies, as the schema has them.
pub use chaski_proto::v1;
/// A command of a client frame.
pub use chaski_proto::v1::client_frame::Command;
/// The body of a server frame.
pub use chaski_proto::v1::server_frame::Body;
