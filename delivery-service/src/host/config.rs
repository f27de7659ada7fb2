//! Settings of the delivery host.

use chaski_relay::{Limits, When};
use serde::{Deserialize, Serialize};

/// Settings of the delivery host.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HostConfig {
    /// Memory of each owned partition for recent records, in bytes. A device that is further back
    /// pages from the message service.
    pub ring_bytes: usize,
    /// How far a device's socket is fed before the next look at its commands, in bytes.
    pub burst_bytes: usize,
    /// What a read of the log for devices further back than the ring, and than what is stored, may
    /// find before they take it, for each partition, in bytes; at the limit it waits.
    pub catch_up_bytes: usize,
    /// How often a client must be heard of, in seconds; after twice this it is cut (4005).
    pub heartbeat_seconds: u32,
    /// How long a new socket has for `hello`, in seconds.
    pub hello_seconds: u64,
    /// How many sessions are let in each second, a second's worth at once; the others are told when
    /// to come again (`goAway BUSY`). 0: no limit.
    pub hellos_per_second: u32,
    /// How long what clients send may take until it comes back through the log, in milliseconds; past
    /// it they are told to send it later (503 with `retryAfterMs`). 0: no limit.
    pub backlog_ms_max: u64,
    /// How long a socket may take no bytes before it is cut as a slow consumer (4003), in seconds.
    pub write_seconds: u64,
    /// Most commands of one socket that are not yet answered; at the limit no more are read.
    pub commands_inflight_max: usize,
    /// Longest JSON frame, in bytes (1009 past it).
    pub json_frame_bytes_max: usize,
    /// Longest protobuf frame, in bytes (1009 past it).
    pub protobuf_frame_bytes_max: usize,
    /// How often the cursors that moved are saved, in milliseconds.
    pub cursor_save_ms: u64,
    /// Most cursors that wait to be saved; at the limit they are saved at once.
    pub cursors_unsaved_max: usize,
    /// How long a command waits for its chat's verdict, in milliseconds.
    pub verdict_ms: u64,
    /// How long marks are collected before they are submitted together, in milliseconds.
    pub receipts_every_ms: u64,
    /// Most marks (one for each chat and user) that wait to be submitted; at the limit they are
    /// submitted at once, and further ones are dropped: a later mark covers them.
    pub receipts_pending_max: usize,
    /// Most messages of one socket that are sent and not acknowledged and still count as
    /// delivered once they are; past it the oldest are forgotten.
    pub receipts_unacked_max: usize,
    /// Most receipts that wait for one socket; further ones are dropped.
    pub receipts_session_max: usize,
    /// How long the new owner of a partition may take to be warm before clients are sent there all
    /// the same, in milliseconds.
    pub move_ms: u64,
    /// How many sockets of a partition that moves are sent away at once.
    pub move_slice: usize,
    /// The pause between two such slices, in milliseconds.
    pub move_every_ms: u64,
    /// Clients that are sent away wait up to this long, each for itself, in milliseconds.
    pub move_spread_ms: u32,
    /// How long the end of the log may not be reached before clients are sent away, in
    /// milliseconds.
    pub behind_ms: u64,
    /// When a client that is at the wrong host is carried to the right one, instead of being told
    /// its address. Gateways go by this too.
    pub relay: When,
    /// Most sockets that are relayed between two processes.
    pub relay_sockets_max: usize,
    /// What a relayed socket may hold that is not taken yet, in each direction and process, in
    /// bytes; one message may exceed it.
    pub relay_window_bytes: usize,
}

impl Default for HostConfig {
    fn default() -> Self {
        Self {
            ring_bytes: 16 << 20,
            burst_bytes: 64 << 10,
            catch_up_bytes: 4 << 20,
            heartbeat_seconds: 30,
            hello_seconds: 10,
            hellos_per_second: 200,
            backlog_ms_max: 2000,
            write_seconds: 10,
            commands_inflight_max: 64,
            json_frame_bytes_max: 1_310_720,
            protobuf_frame_bytes_max: 524_288,
            cursor_save_ms: 2000,
            cursors_unsaved_max: 10_000,
            verdict_ms: 5000,
            receipts_every_ms: 250,
            receipts_pending_max: 100_000,
            receipts_unacked_max: 4096,
            receipts_session_max: 1000,
            move_ms: 10_000,
            move_slice: 50,
            move_every_ms: 20,
            move_spread_ms: 100,
            behind_ms: 5000,
            relay: When::Second,
            relay_sockets_max: 10_000,
            relay_window_bytes: 65_536,
        }
    }
}

impl HostConfig {
    /// What a pair of processes may relay.
    #[must_use]
    pub fn relay_limits(&self) -> Limits {
        Limits { sockets_max: self.relay_sockets_max, window_bytes: self.relay_window_bytes }
    }
}
