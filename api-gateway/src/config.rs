//! The gateway's settings.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Limits and timeouts of the public address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GatewayConfig {
    /// The largest body of a request, and the largest JSON frame; larger ones get 413, or close
    /// code 1009. 1.25 MiB: a message of the greatest legal length in its longest JSON form.
    pub body_bytes_max: usize,
    /// The largest protobuf frame. 0.5 MiB, because protobuf escapes nothing.
    pub frame_bytes_max: usize,
    /// How long a client may take to send a body, once its head is there; then 408.
    pub body_timeout_ms: u64,
    /// How long a service may take to answer; then 503. Above the 10 s after which a send gives
    /// up by itself, so that the more exact answer wins.
    pub service_timeout_ms: u64,
    /// How long the making or changing of a chat waits for the chat's own verdict; then 503
    /// `outcome_unknown`.
    pub verdict_timeout_ms: u32,
    /// `limit` where a request names none.
    pub page_default: u32,
    /// The greatest `limit`.
    pub page_max: u32,
    /// How long a WebSocket may take to say `hello`; then close code 4502.
    pub hello_timeout_ms: u64,
    /// Connections at once, WebSockets included (about 15 KiB each); the next one is answered 503
    /// and closed. Needs as many file descriptors.
    pub connections_max: usize,
    /// How long a client may take to send the head of a request, idle time included; then the
    /// connection is closed. Without it a few clients could hold all connections (slowloris).
    pub header_read_timeout_ms: u64,
    /// How often an HTTP/2 client is pinged; one that does not answer for as long is gone.
    pub http2_keepalive_ms: u64,
    /// Requests at once on one HTTP/2 connection; more wait at the client.
    pub http2_streams_max: u32,
    /// How long sent bytes may stay unacknowledged, and a client may refuse to read; then its
    /// connection is cut. Without it a client that never reads holds its answer for ever.
    pub unread_timeout_ms: u32,
    /// How long requests that have begun may go on at shutdown.
    pub drain_ms: u64,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            body_bytes_max: 1_310_720,
            frame_bytes_max: 524_288,
            body_timeout_ms: 10_000,
            service_timeout_ms: 12_000,
            verdict_timeout_ms: 5_000,
            page_default: 50,
            page_max: 500,
            hello_timeout_ms: 10_000,
            connections_max: 100_000,
            header_read_timeout_ms: 10_000,
            http2_keepalive_ms: 20_000,
            http2_streams_max: 200,
            unread_timeout_ms: 60_000,
            drain_ms: 10_000,
        }
    }
}

impl GatewayConfig {
    pub(crate) fn body_timeout(&self) -> Duration {
        Duration::from_millis(self.body_timeout_ms)
    }

    pub(crate) fn service_timeout(&self) -> Duration {
        Duration::from_millis(self.service_timeout_ms)
    }

    pub(crate) fn hello_timeout(&self) -> Duration {
        Duration::from_millis(self.hello_timeout_ms)
    }
}
