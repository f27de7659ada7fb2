//! Why a socket is closed: one table of codes. 4000-4499 mean "reconnect", 4500-4999 "do not".

/// Why a socket is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum CloseReason {
    /// Another host serves this user now; `goAway` has its URL.
    Moved,
    /// This host goes away.
    Draining,
    /// Others who came back are let in first; `goAway` has the time to come again.
    Busy,
    /// The socket took no bytes for too long: resume.
    SlowConsumer,
    /// The token ended: get a new one.
    TokenExpired,
    /// Nothing was heard of the client for two heartbeats.
    Silent,
    /// No good token, or a device that may not be added.
    NotAuthenticated,
    /// The device was revoked after its token was issued.
    Revoked,
    /// The client broke the protocol.
    ProtocolError,
    /// A newer socket of the same device took over.
    Replaced,
    /// A frame over the size limit (RFC 6455).
    TooLarge,
}

impl CloseReason {
    /// The close code.
    pub(super) const fn code(self) -> u16 {
        match self {
            Self::Moved => 4001,
            Self::Draining | Self::Busy => 4002,
            Self::SlowConsumer => 4003,
            Self::TokenExpired => 4004,
            Self::Silent => 4005,
            Self::NotAuthenticated => 4500,
            Self::Revoked => 4501,
            Self::ProtocolError => 4502,
            Self::Replaced => 4503,
            Self::TooLarge => 1009,
        }
    }

    /// The reason in the close frame, for people.
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Moved => "moved",
            Self::Draining => "draining",
            Self::Busy => "busy with others who come back",
            Self::SlowConsumer => "slow consumer, resume",
            Self::TokenExpired => "token expired",
            Self::Silent => "no frame for two heartbeats",
            Self::NotAuthenticated => "not authenticated",
            Self::Revoked => "revoked",
            Self::ProtocolError => "protocol error",
            Self::Replaced => "replaced by a newer socket of this device",
            Self::TooLarge => "frame too large",
        }
    }
}
