//! Services in other processes: [`RemoteSender`] and its siblings are the generated service traits
//! over gRPC, [`serve`] is the other end. A caller that holds an `Arc<dyn Sender>` does not know
//! which one it has.
//!
//! Must not know: what any call means. It may only tell "did not happen" from "may have happened".
//! One exception: [`FollowedHosts`] looks users up in the table that an allocator pushes.

mod endpoints;
mod relay;
mod remote;
mod server;
mod tables;

pub use endpoints::{EndpointError, Endpoints};
pub use relay::{RelayStream, Relayed, relay};
pub use remote::{RemoteConnections, RemoteHosts, RemoteMessages, RemoteSender};
pub use server::{ServeError, Services, serve};
pub use tables::{FollowedHosts, Located, Tables, follow_hosts};

use std::time::Duration;

/// A call that does not set a deadline itself (`grpc-timeout`) is given up after this.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// A connection that does not answer a ping (one each interval) for one more interval is dead.
const KEEPALIVE: Duration = Duration::from_secs(5);
