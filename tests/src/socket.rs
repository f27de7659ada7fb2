//! Raw sockets, where the wire itself is tested, and devices upon them. Frames are JSON values
//! here whichever subprotocol is spoken, so one story can be told in both.

use crate::PATIENCE;
use chaski_proto::v1;
use futures::{SinkExt as _, StreamExt as _};
use prost::Message as _;
use serde_json::{Value, json};
use std::collections::VecDeque;
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Error, Message, client::IntoClientRequest as _},
};

/// Which subprotocol is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// None: JSON.
    Unnamed,
    /// `chaski.v1.json`.
    Json,
    /// `chaski.v1.protobuf`.
    Protobuf,
}

/// A WebSocket.
pub struct Socket {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    format: Format,
}

/// What came from the server.
#[derive(Debug)]
pub enum Heard {
    /// A frame.
    Frame(Value),
    /// The close code.
    Closed(u16),
}

impl Socket {
    /// Connects with a token in the header, or with none.
    ///
    /// # Errors
    /// The HTTP status where the upgrade is refused.
    ///
    /// # Panics
    /// Where the server is not reached.
    pub async fn open(url: &str, token: Option<&str>, format: Format) -> Result<Self, u16> {
        let url = format!("{}/v1/ws", url.replacen("http", "ws", 1));
        let mut request = url.into_client_request().expect("a legal address");
        let protocol = match format {
            Format::Unnamed => None,
            Format::Json => Some("chaski.v1.json"),
            Format::Protobuf => Some("chaski.v1.protobuf"),
        };
        let headers = request.headers_mut();
        if let Some(protocol) = protocol {
            headers.insert("sec-websocket-protocol", protocol.parse().expect("legal"));
        }
        if let Some(token) = token {
            headers.insert("authorization", format!("Bearer {token}").parse().expect("legal"));
        }
        match connect_async(request).await {
            Ok((socket, answer)) => {
                let chosen = answer.headers().get("sec-websocket-protocol");
                assert_eq!(chosen.map(|p| p.to_str().expect("text")), protocol);
                Ok(Self { socket, format })
            }
            Err(Error::Http(answer)) => Err(answer.status().as_u16()),
            Err(error) => panic!("the server is not reached: {error}"),
        }
    }

    /// Sends a client frame.
    ///
    /// # Panics
    /// Where it is not one.
    pub async fn say(&mut self, frame: Value) {
        let message = match self.format {
            Format::Protobuf => {
                let frame: v1::ClientFrame = serde_json::from_value(frame).expect("a legal frame");
                Message::binary(frame.encode_to_vec())
            }
            _ => Message::text(frame.to_string()),
        };
        self.send(message).await;
    }

    /// Sends anything. What the server has closed takes nothing: its code is heard then.
    pub async fn send(&mut self, message: Message) {
        let _ = self.socket.send(message).await;
    }

    /// The next frame, or the close code; 1006 where there was no close.
    ///
    /// # Panics
    /// Where nothing comes in time, or what comes cannot be read.
    pub async fn hear(&mut self) -> Heard {
        loop {
            let next = tokio::time::timeout(PATIENCE, self.socket.next()).await;
            match next.expect("the server says something in time") {
                Some(Ok(Message::Text(text))) if self.format != Format::Protobuf => {
                    return Heard::Frame(serde_json::from_str(&text).expect("JSON"));
                }
                Some(Ok(Message::Binary(bytes))) if self.format == Format::Protobuf => {
                    let frame = v1::ServerFrame::decode(bytes).expect("a server frame");
                    return Heard::Frame(serde_json::to_value(frame).expect("JSON"));
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(frame))) => {
                    return Heard::Closed(frame.map_or(1005, |frame| frame.code.into()));
                }
                Some(Ok(other)) => panic!("not a message of this subprotocol: {other:?}"),
                Some(Err(_)) | None => return Heard::Closed(1006),
            }
        }
    }

    /// The next frame.
    ///
    /// # Panics
    /// Where the server closes instead.
    pub async fn frame(&mut self) -> Value {
        match self.hear().await {
            Heard::Frame(frame) => frame,
            Heard::Closed(code) => panic!("closed with {code} instead of a frame"),
        }
    }

    /// The code that the server closes with, and the frames before.
    pub async fn closed(&mut self) -> (u16, Vec<Value>) {
        let mut frames = Vec::new();
        loop {
            match self.hear().await {
                Heard::Frame(frame) => frames.push(frame),
                Heard::Closed(code) => return (code, frames),
            }
        }
    }

    /// Closes it in order.
    pub async fn close(mut self) {
        let _ = self.socket.close(None).await;
        while let Some(Ok(_)) = self.socket.next().await {}
    }
}

/// A device that was welcomed.
pub struct Device {
    /// Its socket.
    pub socket: Socket,
    /// The `welcome`.
    pub welcome: Value,
    /// The highest position it was shown.
    pub position: u64,
    id: u32,
    events: VecDeque<Value>,
    receipts: VecDeque<Value>,
}

/// A 64-bit number, which comes as a string.
#[track_caller]
fn number(value: &Value) -> u64 {
    value.as_str().and_then(|text| text.parse().ok()).expect("a 64-bit number as a string")
}

impl Device {
    /// Says `hello` and is welcomed.
    ///
    /// # Panics
    /// Where it is not.
    pub async fn hello(mut socket: Socket, user: &str, device: &str, after: Option<u64>) -> Self {
        let mut hello = json!({"deviceId": device});
        if let Some(after) = after {
            hello["resumeAfter"] = json!(after.to_string());
        }
        socket.say(json!({"id": 1, "hello": hello})).await;
        let frame = socket.frame().await;
        assert_eq!(frame["replyTo"], 1, "{frame}");
        let welcome = frame["welcome"].clone();
        assert_eq!((&welcome["userId"], &welcome["deviceId"]), (&json!(user), &json!(device)));
        let position = number(&welcome["position"]);
        let (events, receipts) = (VecDeque::new(), VecDeque::new());
        Self { socket, welcome, position, id: 1, events, receipts }
    }

    /// Gives a command; its reply. Events that come before are kept for [`Device::event`].
    pub async fn command(&mut self, command: Value) -> Value {
        self.tell(command).await;
        self.reply().await
    }

    /// Gives a command that is not answered, or whose reply is awaited later.
    pub async fn tell(&mut self, command: Value) {
        self.id += 1;
        let mut frame = command;
        frame["id"] = json!(self.id);
        self.socket.say(frame).await;
    }

    /// The next frame with `replyTo`, which must be the answer to the last command.
    pub async fn reply(&mut self) -> Value {
        loop {
            let frame = self.socket.frame().await;
            if frame.get("replyTo").is_some() {
                assert_eq!(frame["replyTo"], self.id, "{frame}");
                return frame;
            }
            self.keep(frame);
        }
    }

    /// Keeps a frame that was not waited for.
    fn keep(&mut self, frame: Value) {
        match frame.get("receipt") {
            Some(receipt) => self.receipts.push_back(receipt.clone()),
            None => self.events.push_back(frame),
        }
    }

    /// `sendMessage`; the `messageAccepted`.
    pub async fn send(&mut self, message: Value) -> Value {
        let reply = self.command(json!({"sendMessage": message})).await;
        assert!(reply["messageAccepted"].is_object(), "{reply}");
        reply["messageAccepted"].clone()
    }

    /// Sends messages without waiting for one another's replies; the `messageAccepted`s.
    pub async fn send_all(&mut self, messages: impl IntoIterator<Item = Value>) -> Vec<Value> {
        let first = self.id + 1;
        for message in messages {
            self.tell(json!({"sendMessage": message})).await;
        }
        let mut replies = vec![Value::Null; (self.id + 1 - first) as usize];
        for _ in 0..replies.len() {
            let frame = loop {
                let frame = self.socket.frame().await;
                if frame.get("replyTo").is_some() {
                    break frame;
                }
                self.keep(frame);
            };
            assert!(frame["messageAccepted"].is_object(), "{frame}");
            let to = frame["replyTo"].as_u64().expect("a number") - u64::from(first);
            replies[to as usize] = frame["messageAccepted"].clone();
        }
        replies
    }

    /// Makes a group; its chat id.
    ///
    /// # Panics
    /// Where it is not made.
    pub async fn group(&mut self, participants: &[&str], history: &str) -> String {
        let key = crate::random();
        let chat = json!({"participants": participants, "clientChatId": key, "history": history});
        let reply = self.command(json!({"createChat": chat})).await;
        reply["chatCreated"]["chatId"].as_str().unwrap_or_else(|| panic!("{reply}")).to_owned()
    }

    /// `modifyChatParticipants`; the reply.
    pub async fn participant(&mut self, chat: &str, user: &str, operation: &str) -> Value {
        let change = json!({"chatId": chat, "userId": user, "operation": operation});
        self.command(json!({"modifyChatParticipants": change})).await
    }

    /// The next receipt. Events that come before are kept.
    pub async fn receipt(&mut self) -> Value {
        loop {
            if let Some(receipt) = self.receipts.pop_front() {
                return receipt;
            }
            let frame = self.socket.frame().await;
            self.keep(frame);
        }
    }

    /// The receipts that have come and were not asked for.
    pub fn receipts(&mut self) -> Vec<Value> {
        self.receipts.drain(..).collect()
    }

    /// The next event, at its position. Receipts that come before are kept.
    ///
    /// # Panics
    /// Where it does not lie behind the one before (L4).
    pub async fn event(&mut self) -> Value {
        let frame = loop {
            if let Some(frame) = self.events.pop_front() {
                break frame;
            }
            let frame = self.socket.frame().await;
            self.keep(frame);
        };
        assert!(frame["position"].is_string(), "an event has a position: {frame}");
        let position = number(&frame["position"]);
        assert!(position > self.position, "behind {}: {frame}", self.position);
        self.position = position;
        frame
    }

    /// The next so many events.
    pub async fn events(&mut self, count: usize) -> Vec<Value> {
        let mut events = Vec::new();
        for _ in 0..count {
            events.push(self.event().await);
        }
        events
    }

    /// The next event, which must be a `newMessage`.
    pub async fn message(&mut self) -> Value {
        let event = self.event().await;
        assert!(event["newMessage"].is_object(), "{event}");
        event["newMessage"].clone()
    }

    /// Says that everything up to `position` was taken; the server has heard it on return.
    pub async fn ack(&mut self, position: u64) {
        let ack = json!({"ack": {"position": position.to_string()}, "ping": {}});
        let reply = self.command(ack).await;
        assert!(reply["pong"].is_object(), "{reply}");
    }
}
