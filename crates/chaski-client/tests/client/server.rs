//! A scripted server: accepts sockets, reads frames, says what the test tells it to.

use crate::message;
use chaski_client::{
    Body, Command, Format,
    v1::{self, ClientFrame, ServerFrame},
};
use futures::{SinkExt as _, StreamExt as _};
use prost::Message as _;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{ErrorResponse, Request, Response},
        protocol::CloseFrame,
    },
};

pub(crate) struct Server(pub(crate) TcpListener);

impl Server {
    pub(crate) async fn start() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.0.local_addr().unwrap())
    }

    /// The next connection, upgraded, with its `hello` read.
    pub(crate) async fn accept(&self) -> Conn {
        let (tcp, _) = self.0.accept().await.unwrap();
        let (mut protocol, mut authorization) = (String::new(), String::new());
        let callback = |request: &Request, mut response: Response| {
            let header = |name| request.headers()[name].to_str().unwrap().to_owned();
            protocol = header("sec-websocket-protocol");
            authorization = header("authorization");
            let echoed = request.headers()["sec-websocket-protocol"].clone();
            response.headers_mut().insert("sec-websocket-protocol", echoed);
            Ok::<_, ErrorResponse>(response)
        };
        let socket = accept_hdr_async(tcp, callback).await.unwrap();
        let format = if protocol == "chaski.v1.json" { Format::Json } else { Format::Protobuf };
        assert_eq!(protocol, format.subprotocol());
        let mut conn =
            Conn { socket, format, hello: v1::Hello::default(), hello_id: 0, authorization };
        let frame = conn.recv().await;
        let Some(Command::Hello(hello)) = frame.command else { panic!("{frame:?}") };
        (conn.hello, conn.hello_id) = (hello, frame.id);
        conn
    }
}

pub(crate) struct Conn {
    pub(crate) socket: WebSocketStream<TcpStream>,
    pub(crate) format: Format,
    pub(crate) hello: v1::Hello,
    pub(crate) hello_id: u32,
    pub(crate) authorization: String,
}

impl Conn {
    pub(crate) async fn recv(&mut self) -> ClientFrame {
        match (self.socket.next().await.unwrap().unwrap(), self.format) {
            (Message::Text(text), Format::Json) => serde_json::from_str(&text).unwrap(),
            (Message::Binary(bytes), Format::Protobuf) => ClientFrame::decode(bytes).unwrap(),
            (other, _) => panic!("{other:?}"),
        }
    }

    pub(crate) async fn send(&mut self, frame: ServerFrame) {
        let json = self.format == Format::Json;
        let bytes = frame.to_bytes(json);
        let message = if json {
            Message::Text(String::from_utf8(bytes.into()).unwrap().into())
        } else {
            Message::Binary(bytes)
        };
        self.socket.send(message).await.unwrap();
    }

    pub(crate) async fn welcome(&mut self, position: u64) {
        let welcome = v1::Welcome { position, heartbeat_seconds: 1, ..v1::Welcome::default() };
        self.send(ServerFrame::reply(self.hello_id, Body::Welcome(welcome))).await;
    }

    pub(crate) async fn event(&mut self, position: u64) {
        self.send(ServerFrame::event(position, message(position))).await;
    }

    pub(crate) async fn accepted(&mut self, id: u32) {
        let body = Body::MessageAccepted(v1::MessageAccepted::default());
        self.send(ServerFrame::reply(id, body)).await;
    }

    pub(crate) async fn go_away(&mut self, reason: &str, url: Option<String>) {
        self.go_away_for(0, reason, url).await;
    }

    pub(crate) async fn go_away_for(&mut self, ms: u32, reason: &str, url: Option<String>) {
        let body = v1::GoAway { reason: reason.into(), url, retry_after_ms: ms };
        self.send(ServerFrame::notice(Body::GoAway(body))).await;
    }

    pub(crate) async fn close(mut self, code: u16) {
        let frame = CloseFrame { code: code.into(), reason: "as told".into() };
        self.socket.close(Some(frame)).await.unwrap();
        while let Some(Ok(_)) = self.socket.next().await {}
    }
}
