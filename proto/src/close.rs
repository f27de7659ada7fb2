//! The codes that a socket is closed with. 4000-4499 mean "connect again", 4500-4999 "do not";
//! below are those of RFC 6455.

/// A frame over the size limit.
pub const TOO_LARGE: u16 = 1009;
/// Another host serves this user; `goAway` has its URL where it is known.
pub const MOVED: u16 = 4001;
/// The host goes away, or has no room now; `goAway` has the time to come again.
pub const DRAINING: u16 = 4002;
/// The socket took no bytes for too long: resume.
pub const SLOW_CONSUMER: u16 = 4003;
/// The token ended: get a new one.
pub const TOKEN_EXPIRED: u16 = 4004;
/// Nothing was heard of the client for two heartbeats.
pub const SILENT: u16 = 4005;
/// No good token, or a device that may not be added.
pub const NOT_AUTHENTICATED: u16 = 4500;
/// The device was revoked after its token was issued.
pub const REVOKED: u16 = 4501;
/// The client broke the protocol.
pub const PROTOCOL_ERROR: u16 = 4502;
/// A newer socket of the same device took over.
pub const REPLACED: u16 = 4503;
