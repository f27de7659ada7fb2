//! What a delivery host's work costs, about, in CPU time: the load of a partition is the sum of it
//! ([`chaski_runtime::Tally`]). Only how these figures stand to one another counts, for hosts of one
//! role are compared with one another; a frame of a few hundred bytes is meant everywhere.

use std::time::Duration;

/// A record that is read, filtered and put into the ring.
pub(super) const RECORD: Duration = Duration::from_micros(10);
/// An event's frame that is given to a socket, and the acknowledgement that comes back.
pub(super) const DELIVERY: Duration = Duration::from_micros(15);
/// A command: read, checked, handed to its service, answered.
pub(super) const COMMAND: Duration = Duration::from_micros(60);
/// A socket that is there, each second: its timers and heartbeats.
const SOCKET: Duration = Duration::from_micros(20);

/// So many sockets for so long.
pub(super) fn of_sockets(sockets: usize, time: Duration) -> Duration {
    SOCKET.mul_f64(sockets as f64 * time.as_secs_f64())
}
