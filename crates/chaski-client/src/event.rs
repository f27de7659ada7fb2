//! What a client tells its owner.

use chaski_proto::v1::{self, Receipt, server_frame::Body};
use std::time::Duration;

/// Names a command of one client; grows in the order of sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommandId(pub(crate) u64);

/// What a client tells its owner.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The server welcomed this client; events after `position` follow.
    Connected {
        /// Where the server resumes.
        position: u64,
    },
    /// The connection ended or did not come about; the next attempt follows by itself.
    Disconnected {
        /// Why.
        cause: crate::Disconnect,
        /// When the next attempt begins.
        retry_in: Duration,
    },
    /// A durable event. It counts as taken, and is acknowledged, once the owner asks for the next
    /// one: store it before.
    Durable {
        /// Its place in the user's order.
        position: u64,
        /// `newMessage`, `chatUpdate`, `messageRejected`, `connectionUpdate`, `messageHidden` or
        /// `resync`; `None`: an event that this version does not know.
        body: Option<Body>,
    },
    /// A durable event at or below the highest position, which is no news; only where
    /// [`Config::tell_repeats`](crate::Config::tell_repeats) asks for it.
    Repeated {
        /// Its place in the user's order.
        position: u64,
        /// As of [`Event::Durable`].
        body: Option<Body>,
    },
    /// How far a member has got; the latest counts.
    Receipt(Receipt),
    /// A command has its outcome; comes exactly once for each.
    Settled {
        /// The command.
        id: CommandId,
        /// What became of it.
        outcome: Outcome,
    },
}

/// How often a server told a client to send a command again later.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Deferred {
    /// And said when.
    pub with_time: u64,
    /// And did not say when.
    pub without: u64,
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Its reply.
    Done(Body),
    /// Written to the socket; this command has no reply.
    Written,
    /// Refused by the server.
    Refused(v1::Error),
    /// The connection ended before the answer, and repeating the command might not be the same:
    /// it may have happened.
    Unknown,
    /// No answer in `give_up_after`, or the client stopped: it may have happened.
    GaveUp,
}
