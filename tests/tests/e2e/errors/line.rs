//! A socket on which any frame can be said, also one that is no frame, and its reply be heard.

use chaski_tests::{Format, Heard, Socket};
use serde_json::{Value, json};
use std::collections::VecDeque;
use tokio_tungstenite::tungstenite::Message;

pub(super) struct Line {
    socket: Socket,
    pub(super) format: Format,
    id: u32,
    events: VecDeque<Value>,
}

/// What a frame is answered with.
#[derive(Debug)]
pub(super) enum Reply {
    Frame(Value),
    Closed(u16),
}

impl Line {
    /// A socket that has not said `hello`.
    pub(super) async fn open(url: &str, token: Option<&str>, format: Format) -> Self {
        let socket = Socket::open(url, token, format).await.expect("it opens");
        Self { socket, format, id: 0, events: VecDeque::new() }
    }

    pub(super) async fn hello(url: &str, token: &str, device: &str, format: Format) -> Self {
        let mut line = Self::open(url, Some(token), format).await;
        let hello = json!({"hello": {"deviceId": device}});
        match line.ask(|id, format| frame(id, format, hello)).await {
            Reply::Frame(reply) if reply["welcome"].is_object() => line,
            other => panic!("{other:?}"),
        }
    }

    /// Says a frame, made for its id; the reply.
    pub(super) async fn ask(&mut self, message: impl FnOnce(u32, Format) -> Message) -> Reply {
        self.id += 1;
        self.socket.send(message(self.id, self.format)).await;
        loop {
            match self.socket.hear().await {
                Heard::Closed(code) => return Reply::Closed(code),
                Heard::Frame(frame) if frame.get("replyTo").is_none() => {
                    self.events.push_back(frame);
                }
                Heard::Frame(frame) => {
                    assert_eq!(frame["replyTo"], self.id, "{frame}");
                    return Reply::Frame(frame);
                }
            }
        }
    }

    /// Says what has no reply, and then a `ping`: the reply to whichever is answered first.
    pub(super) async fn say_and_ping(
        &mut self,
        message: impl FnOnce(u32, Format) -> Message,
    ) -> Reply {
        // An error would come with the other id.
        self.socket.send(message(self.id + 1000, self.format)).await;
        self.ask(Self::ping).await
    }

    pub(super) fn ping(id: u32, format: Format) -> Message {
        frame(id, format, json!({"ping": {}}))
    }

    /// The first event that is wanted.
    pub(super) async fn event(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let event = match self.events.pop_front() {
                Some(event) => event,
                None => self.socket.frame().await,
            };
            if wanted(&event) {
                return event;
            }
        }
    }

    /// The code with which it is closed.
    pub(super) async fn closed(&mut self) -> u16 {
        self.socket.closed().await.0
    }
}

/// A frame with this id.
///
/// # Panics
/// Where it is none that protobuf can say.
pub(super) fn frame(id: u32, format: Format, mut frame: Value) -> Message {
    frame["id"] = json!(id);
    match format {
        Format::Protobuf => {
            let frame: chaski_proto::v1::ClientFrame =
                serde_json::from_value(frame).expect("a frame");
            Message::binary(prost::Message::encode_to_vec(&frame))
        }
        _ => Message::text(frame.to_string()),
    }
}
