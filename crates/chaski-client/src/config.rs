//! What a client must be told: where, who, how; and its limits.

use crate::error::Error;
use ::http::Uri;
use chaski_proto::v1::Connection;
use futures::future::BoxFuture;
use std::{fmt, sync::Arc, time::Duration};

/// What a client must be told. [`Config::new`] fills in the defaults.
#[derive(Clone)]
pub struct Config {
    /// The server's address: `http://…` or `ws://…`; without a path, `/v1/ws` is added.
    pub url: String,
    /// The token's user; a welcome for anybody else stops the client.
    pub user: String,
    /// The token's device.
    pub device: String,
    /// Asked before each connection and before a token ends.
    pub tokens: TokenProvider,
    /// Which subprotocol is spoken.
    pub format: Format,
    /// The highest position that the owner has taken for good; `None`: the server's cursor.
    pub resume_after: Option<u64>,
    /// The user's contacts and blocks, as the application last knew them; what changes is followed
    /// from the socket. A message to somebody who is blocked is refused ([`crate::SendError`]).
    pub connections: Vec<Connection>,
    /// From the first byte to `welcome`.
    pub connect_timeout: Duration,
    /// An unanswered idempotent command is sent again on the same socket after this long.
    pub reply_timeout: Duration,
    /// A command that is not settled after this long is given up.
    pub give_up_after: Duration,
    /// Commands not settled yet; above it [`crate::SendError::OutboxFull`].
    pub outbox_commands_max: usize,
    /// Their bytes.
    pub outbox_bytes_max: usize,
    /// Whether events that came again are told ([`crate::Event::Repeated`]), for who checks a
    /// server; others only ignore them.
    pub tell_repeats: bool,
}

impl Config {
    /// A client with the defaults.
    #[must_use]
    pub fn new(
        url: impl Into<String>,
        user: impl Into<String>,
        device: impl Into<String>,
        tokens: TokenProvider,
    ) -> Self {
        Self {
            url: url.into(),
            user: user.into(),
            device: device.into(),
            tokens,
            format: Format::Protobuf,
            resume_after: None,
            connections: Vec::new(),
            connect_timeout: Duration::from_secs(10),
            reply_timeout: Duration::from_secs(15),
            give_up_after: Duration::from_secs(60),
            outbox_commands_max: 1024,
            outbox_bytes_max: 4 << 20,
            tell_repeats: false,
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url, user, device, format, resume_after, .. } = self;
        write!(f, "Config {{ {url} {user}/{device} {format:?} resume_after {resume_after:?} }}")
    }
}

/// The subprotocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Format {
    /// `chaski.v1.json`, text frames.
    Json,
    /// `chaski.v1.protobuf`, binary frames.
    #[default]
    Protobuf,
}

impl Format {
    /// The name in `Sec-WebSocket-Protocol`.
    #[must_use]
    pub fn subprotocol(self) -> &'static str {
        match self {
            Self::Json => "chaski.v1.json",
            Self::Protobuf => "chaski.v1.protobuf",
        }
    }

    /// The contract's limit of one frame, in bytes.
    #[must_use]
    pub fn frame_bytes_max(self) -> usize {
        match self {
            Self::Json => 5 << 18,
            Self::Protobuf => 1 << 19,
        }
    }
}

/// A bearer token and how long it can be used.
#[derive(Clone)]
pub struct Token {
    /// The JWT.
    pub bearer: String,
    /// Ask for a new one after this long (a little before it ends); `None`: only when the server
    /// says that it has ended. A span, not a time, so that a wrong clock does no harm.
    pub renew_in: Option<Duration>,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Gives tokens; the error text must not hold one.
#[derive(Clone)]
pub struct TokenProvider(Arc<dyn Fn() -> BoxFuture<'static, Result<Token, String>> + Send + Sync>);

impl TokenProvider {
    /// Asks this function each time.
    pub fn new(
        give: impl Fn() -> BoxFuture<'static, Result<Token, String>> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(give))
    }

    /// Makes tokens on the spot, such as from a development key.
    pub fn local(give: impl Fn() -> Result<Token, String> + Send + Sync + 'static) -> Self {
        Self::new(move || Box::pin(std::future::ready(give())))
    }

    /// Always the same token.
    #[must_use]
    pub fn fixed(bearer: impl Into<String>) -> Self {
        let token = Token { bearer: bearer.into(), renew_in: None };
        Self::local(move || Ok(token.clone()))
    }

    pub(crate) fn ask(&self) -> BoxFuture<'static, Result<Token, String>> {
        (self.0)()
    }
}

/// The WebSocket address that `url` means.
pub(crate) fn socket_url(url: &str) -> Result<Uri, Error> {
    let bad = |why: &str| Error::BadUrl { url: url.into(), why: why.into() };
    let uri: Uri = url.parse().map_err(|error: ::http::uri::InvalidUri| bad(&error.to_string()))?;
    let scheme = match uri.scheme_str() {
        Some("http" | "ws") => "ws",
        Some("https" | "wss") => return Err(Error::TlsNotBuilt),
        _ => return Err(bad("it must begin with http:// or ws://")),
    };
    let authority = uri.authority().ok_or_else(|| bad("it has no host"))?;
    let path = match uri.path() {
        "" | "/" => "/v1/ws",
        path => path,
    };
    // What a host says in an address is for the host that it leads to.
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let path = format!("{path}{query}");
    let built = Uri::builder().scheme(scheme).authority(authority.as_str()).path_and_query(path);
    built.build().map_err(|error| bad(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_completed_and_others_refused() {
        let url = |text| socket_url(text).map(|uri| uri.to_string());
        assert_eq!(url("http://h:1").unwrap(), "ws://h:1/v1/ws");
        assert_eq!(url("ws://h:1/").unwrap(), "ws://h:1/v1/ws");
        assert_eq!(url("ws://h:1/x").unwrap(), "ws://h:1/x");
        assert_eq!(url("ws://h:1/?moved=1").unwrap(), "ws://h:1/v1/ws?moved=1");
        assert_eq!(url("ws://h:1/x?a=b").unwrap(), "ws://h:1/x?a=b");
        assert!(matches!(url("https://h"), Err(Error::TlsNotBuilt)));
        for bad in ["", "h:1", "ftp://h", "http://"] {
            assert!(matches!(url(bad), Err(Error::BadUrl { .. })), "{bad}");
        }
    }
}
