//! Relaying: a process that accepted a client's socket and does not serve its user carries it to
//! the delivery host that does, for clients behind one address who cannot reach that host.
//!
//! All sockets of a pair of processes share one stream ([`Mux`]); each is a [`Tunnel`], which is
//! read and written like the WebSocket itself. Who accepts keeps the streams ([`Relays`],
//! [`Links`]) and carries ([`Relays::carry`]); who serves only has tunnels.
//!
//! Must not know: what a frame says (but for the two that it says itself, both `goAway`), and how
//! the stream goes over the network.

mod carry;
mod config;
mod links;
mod mux;

pub use carry::is_too_large;
pub use config::{Limits, When};
pub use links::{Dial, Incoming, Links, NotRelayed, Relays, Route};
pub use mux::{Broken, Mux, Outgoing, Over, Side, Tunnel};

use chaski_auth::Identity;
use chaski_core::IllegalId;
use chaski_proto::v1;

/// What opens a tunnel for this client.
#[must_use]
pub fn open_for(identity: &Identity, json: bool) -> v1::RelayOpen {
    v1::RelayOpen {
        caller: Some(v1::Caller {
            user_id: identity.user.to_string(),
            device_id: identity.device.to_string(),
        }),
        issued_at: identity.issued_at,
        expires_at: identity.expires_at,
        protobuf: !json,
    }
}

/// Whose tunnel it is.
///
/// # Errors
/// Where an id is illegal.
pub fn identity_of(open: &v1::RelayOpen) -> Result<Identity, IllegalId> {
    let caller = open.caller.clone().unwrap_or_default();
    Ok(Identity {
        user: caller.user_id.parse()?,
        device: caller.device_id.parse()?,
        issued_at: open.issued_at,
        expires_at: open.expires_at,
    })
}
