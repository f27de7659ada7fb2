//! What can go wrong: for good ([`Error`]), for now ([`Disconnect`]), before anything was sent
//! ([`SendError`]), and with a call over HTTP ([`HttpError`]).

use chaski_proto::v1;

/// The client has stopped for good; connecting again without a change would not help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Close code 4500, or 401 or 403 at the upgrade or as the answer to `hello`.
    #[error("not authenticated: {0}")]
    NotAuthenticated(String),
    /// Close code 4501, or 401 `revoked`.
    #[error("this device was revoked")]
    Revoked,
    /// The user has as many devices as there may be; one has to be revoked before this one.
    #[error("the user has too many devices: revoke one first")]
    TooManyDevices,
    /// Close code 4502: the server says that this client broke the protocol.
    #[error("the server reports a protocol error: {0}")]
    Protocol(String),
    /// Close code 4503.
    #[error("replaced by a newer socket of the same device")]
    Replaced,
    /// Any other close code from 4500 to 4999.
    #[error("closed for good by the server with code {code}: {reason}")]
    Closed {
        /// The close code.
        code: u16,
        /// The close frame's text.
        reason: String,
    },
    /// The server welcomed somebody else.
    #[error("the server welcomed {0}, which is not who this client is")]
    WrongIdentity(String),
    /// The configured address cannot be used.
    #[error("the address {url} cannot be used: {why}")]
    BadUrl {
        /// The address.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// `https` or `wss`: this build speaks plain TCP only.
    #[error("this client is built without TLS: use http:// or ws://")]
    TlsNotBuilt,
}

/// Why a connection ended or did not come about; the client tries again by itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Disconnect {
    /// The server closed it; 1005 and 1006 where there was no code or no close frame.
    #[error("closed with code {code}: {reason}")]
    Closed {
        /// The close code.
        code: u16,
        /// The close frame's text.
        reason: String,
    },
    /// The user's host is elsewhere.
    #[error("moved to {0}")]
    Moved(String),
    /// The host is going down in an orderly way.
    #[error("the host is draining")]
    Draining,
    /// The host lets clients in at a set rate, and others come first.
    #[error("the host is busy with others who come back")]
    Busy,
    /// Nothing was heard for twice the heartbeat, or no `welcome` in time.
    #[error("no word from the server: {0}")]
    Silent(&'static str),
    /// The connection could not be made or broke.
    #[error("{0}")]
    Io(String),
    /// The server sent what this client cannot read.
    #[error("unreadable frame: {0}")]
    Unreadable(String),
    /// `hello` or the upgrade was answered by an error that may pass.
    #[error("refused for now: {status} {message}")]
    Refused {
        /// An HTTP status.
        status: u16,
        /// For people.
        message: String,
    },
    /// The token provider failed.
    #[error("no token: {0}")]
    NoToken(String),
}

/// A command that was not taken; nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Too many commands, or too many bytes, are not settled yet: wait for an `Event::Settled`.
    #[error("the outbox is full")]
    OutboxFull,
    /// The frame would be above the contract's limit.
    #[error("a frame of {bytes} bytes is over the limit of {bytes_max}")]
    TooLarge {
        /// The frame's size.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The user blocks whom it is for: the block has to be lifted first.
    #[error("you have blocked {0}: lift the block first")]
    Blocked(String),
    /// It has no form on the wire, such as a time beyond the year 9999 in JSON.
    #[error("the command cannot be written: {0}")]
    Unwritable(String),
    /// `hello`, `authenticate` and `ping` are the client's own business.
    #[error("the client sends {0} by itself")]
    OwnCommand(&'static str),
    /// The client has stopped.
    #[error(transparent)]
    Stopped(#[from] Error),
}

/// A call over HTTP that failed.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The server's refusal (RFC 9457).
    #[error("{status} {code}: {detail}")]
    Problem {
        /// The HTTP status.
        status: u16,
        /// Stable, for programs; empty where the answer was not a problem document.
        code: String,
        /// For people.
        detail: String,
        /// The present state, with a 409 of a contact or block.
        connection: Option<v1::Connection>,
    },
    /// The request did not come through.
    #[error("the request failed")]
    Transport(#[from] reqwest::Error),
    /// The answer is not what the contract says.
    #[error("unreadable answer: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// No token.
    #[error("no token: {0}")]
    NoToken(String),
}
