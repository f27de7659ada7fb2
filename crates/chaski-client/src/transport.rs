//! Opening a socket, and frames to and from WebSocket messages.

use crate::{
    config::{Format, Token, TokenProvider},
    error::{Disconnect, Error},
};
use ::http::Uri;
use bytes::Bytes;
use chaski_proto::v1::{ClientFrame, ServerFrame};
use prost::Message as _;
use std::borrow::Cow;
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        Error as WsError, Message,
        client::ClientRequestBuilder,
        protocol::{CloseFrame, WebSocketConfig},
    },
};

pub(crate) type Socket = WebSocketStream<TcpStream>;

/// What ends an attempt or a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Lost {
    /// Try again.
    For(Disconnect),
    /// Do not.
    Good(Error),
}

impl Lost {
    pub(crate) fn io(error: impl std::fmt::Display) -> Self {
        Self::For(Disconnect::Io(error.to_string()))
    }

    /// What a close frame means, by the ranges of the contract.
    pub(crate) fn closed(frame: Option<CloseFrame>) -> Self {
        let (code, reason) =
            frame.map_or((1005, String::new()), |f| (f.code.into(), f.reason.to_string()));
        match code {
            4500 => Self::Good(Error::NotAuthenticated(reason)),
            4501 => Self::Good(Error::Revoked),
            4502 => Self::Good(Error::Protocol(reason)),
            4503 => Self::Good(Error::Replaced),
            4504..=4999 => Self::Good(Error::Closed { code, reason }),
            _ => Self::For(Disconnect::Closed { code, reason }),
        }
    }

    /// What an HTTP status, at the upgrade or of the answer to `hello`, means.
    pub(crate) fn refused(status: u16, code: &str, message: impl Into<String>) -> Self {
        match (status, code) {
            (401, "revoked") => Self::Good(Error::Revoked),
            (403, "too_many_devices") => Self::Good(Error::TooManyDevices),
            (401 | 403, _) => Self::Good(Error::NotAuthenticated(message.into())),
            _ => Self::For(Disconnect::Refused { status, message: message.into() }),
        }
    }
}

/// A socket after the upgrade, before `hello`.
pub(crate) struct Opened {
    pub(crate) socket: Socket,
    pub(crate) token: Token,
}

/// Asks for a token, connects and upgrades.
pub(crate) async fn open(uri: Uri, format: Format, tokens: TokenProvider) -> Result<Opened, Lost> {
    let token = tokens.ask().await.map_err(|error| Lost::For(Disconnect::NoToken(error)))?;
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let tcp = TcpStream::connect((host, uri.port_u16().unwrap_or(80))).await.map_err(Lost::io)?;
    tcp.set_nodelay(true).map_err(Lost::io)?;
    let request = ClientRequestBuilder::new(uri)
        .with_header("authorization", format!("Bearer {}", token.bearer))
        .with_sub_protocol(format.subprotocol());
    match client_async_with_config(request, tcp, Some(limits(format))).await {
        Ok((socket, _)) => Ok(Opened { socket, token }),
        Err(WsError::Http(answer)) => {
            Err(Lost::refused(answer.status().as_u16(), "", "the upgrade was refused"))
        }
        Err(error) => Err(Lost::io(error)),
    }
}

/// Small buffers, because one process may hold thousands of clients; the default read buffer
/// alone is 128 KiB. A server frame may be larger than a client's by its envelope.
fn limits(format: Format) -> WebSocketConfig {
    let frame_bytes_max = format.frame_bytes_max() + (256 << 10);
    WebSocketConfig::default()
        .read_buffer_size(4 << 10)
        .write_buffer_size(4 << 10)
        .max_write_buffer_size((8 << 10) + 2 * frame_bytes_max)
        .max_message_size(Some(frame_bytes_max))
        .max_frame_size(Some(frame_bytes_max))
}

/// A client frame as a WebSocket message.
pub(crate) fn encode(frame: &ClientFrame, format: Format) -> Message {
    match format {
        Format::Json => {
            let text = serde_json::to_string(frame);
            Message::Text(text.expect("`encoded_len` refused what has no JSON form").into())
        }
        Format::Protobuf => Message::Binary(frame.encode_to_vec().into()),
    }
}

/// How many bytes a frame takes on the wire; an error where it has no JSON form (a time outside
/// of the years that RFC 3339 can write).
pub(crate) fn encoded_len(frame: &ClientFrame, format: Format) -> Result<usize, String> {
    match format {
        Format::Json => {
            serde_json::to_string(frame).map(|text| text.len()).map_err(|error| error.to_string())
        }
        Format::Protobuf => Ok(frame.encoded_len()),
    }
}

/// A data message as a server frame. Decodes with a copy: a slice would keep the whole read
/// buffer of the socket alive.
pub(crate) fn decode(message: &Message, format: Format) -> Result<ServerFrame, Disconnect> {
    let unreadable = |why: Cow<'static, str>| Disconnect::Unreadable(why.into_owned());
    match (message, format) {
        (Message::Text(text), Format::Json) => {
            serde_json::from_str(text).map_err(|error| unreadable(error.to_string().into()))
        }
        (Message::Binary(bytes), Format::Protobuf) => {
            ServerFrame::decode(Bytes::copy_from_slice(bytes))
                .map_err(|error| unreadable(error.to_string().into()))
        }
        _ => Err(unreadable("the wrong opcode for the subprotocol".into())),
    }
}
