//! A socket with typed frames, for tests whose server is killed while they talk: nothing here
//! panics because a connection ends.
//!
//! Must not know: what the frames mean.

use crate::PATIENCE;
use chaski_proto::v1;
use futures::{SinkExt as _, StreamExt as _};
use prost::Message as _;
use std::fmt;
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Message, client::IntoClientRequest as _},
};

/// A WebSocket of either subprotocol.
pub struct Link {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    json: bool,
}

/// The connection has ended, or did not come about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost(pub String);

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn lost(error: impl fmt::Display) -> Lost {
    Lost(error.to_string())
}

impl Link {
    /// Connects to the server at `http://…`.
    ///
    /// # Errors
    /// Where it is not reached, or refuses the token.
    ///
    /// # Panics
    /// Where the address is not one.
    pub async fn open(url: &str, token: &str, json: bool) -> Result<Self, Lost> {
        let url = format!("{}/v1/ws", url.replacen("http", "ws", 1));
        let mut request = url.into_client_request().expect("a legal address");
        let protocol = if json { "chaski.v1.json" } else { "chaski.v1.protobuf" };
        let headers = request.headers_mut();
        headers.insert("sec-websocket-protocol", protocol.parse().expect("legal"));
        headers.insert("authorization", format!("Bearer {token}").parse().expect("legal"));
        let opened = tokio::time::timeout(PATIENCE, connect_async(request)).await;
        let (socket, _) = opened.map_err(lost)?.map_err(lost)?;
        if let MaybeTlsStream::Plain(tcp) = socket.get_ref() {
            tcp.set_nodelay(true).map_err(lost)?;
        }
        Ok(Self { socket, json })
    }

    /// Puts a client frame in line; [`Link::flush`] sends it.
    ///
    /// # Errors
    /// Where the connection has ended.
    pub async fn feed(&mut self, frame: &v1::ClientFrame) -> Result<(), Lost> {
        let message = if self.json {
            Message::text(serde_json::to_string(frame).expect("a frame is JSON"))
        } else {
            Message::binary(frame.encode_to_vec())
        };
        self.socket.feed(message).await.map_err(lost)
    }

    /// Sends what is in line.
    ///
    /// # Errors
    /// Where the connection has ended.
    pub async fn flush(&mut self) -> Result<(), Lost> {
        self.socket.flush().await.map_err(lost)
    }

    /// Sends a client frame.
    ///
    /// # Errors
    /// Where the connection has ended.
    pub async fn say(&mut self, frame: &v1::ClientFrame) -> Result<(), Lost> {
        self.feed(frame).await?;
        self.flush().await
    }

    /// The next frame, however long it takes. Cancel safe.
    ///
    /// # Errors
    /// Where the connection has ended; with the close code, if there was one.
    ///
    /// # Panics
    /// Where what comes is no server frame.
    pub async fn hear(&mut self) -> Result<v1::ServerFrame, Lost> {
        loop {
            return Ok(match self.socket.next().await {
                Some(Ok(Message::Text(text))) if self.json => {
                    serde_json::from_str(&text).expect("a server frame as JSON")
                }
                Some(Ok(Message::Binary(bytes))) if !self.json => {
                    v1::ServerFrame::decode(bytes).expect("a server frame")
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                Some(Ok(Message::Close(frame))) => {
                    return Err(Lost(format!("closed: {frame:?}")));
                }
                Some(Ok(other)) => panic!("not a message of this subprotocol: {other:?}"),
                Some(Err(error)) => return Err(lost(error)),
                None => return Err(lost("the connection ended")),
            });
        }
    }
}
