//! Why this host closes a socket.

use chaski_proto::close;

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
            Self::Moved => close::MOVED,
            Self::Draining | Self::Busy => close::DRAINING,
            Self::SlowConsumer => close::SLOW_CONSUMER,
            Self::TokenExpired => close::TOKEN_EXPIRED,
            Self::Silent => close::SILENT,
            Self::NotAuthenticated => close::NOT_AUTHENTICATED,
            Self::Revoked => close::REVOKED,
            Self::ProtocolError => close::PROTOCOL_ERROR,
            Self::Replaced => close::REPLACED,
            Self::TooLarge => close::TOO_LARGE,
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
