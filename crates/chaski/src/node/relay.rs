//! How this process finds and reaches the delivery hosts to which it relays sockets.

use chaski_delivery_service::host::HostConfig;
use chaski_host_allocator::{Assignments, Lookup};
use chaski_relay::{Dial, Links, Relays, Route};
use std::sync::Arc;

/// Relays to the owners of users among these hosts.
pub(super) fn relays(config: &HostConfig, lookup: Lookup, hosts: Assignments) -> (Relays, Links) {
    let route: Route = Arc::new(move |user| {
        let owner = lookup.of_user(user)?.owner;
        let host = hosts.hosts().into_iter().find(|host| host.id == owner.host)?;
        (!host.rpc_url.is_empty()).then(|| host.rpc_url.to_string())
    });
    let dial: Dial = Arc::new(|endpoint, out| Box::pin(chaski_rpc::relay(endpoint, out)));
    Relays::new(config.relay, config.relay_limits(), route, dial)
}
