//! Who and what there is before the first row: people, chats in which each refusal can be had,
//! tokens that are not good any more. All rows are asked by `ana`.

use super::{
    Ask, Row, Way,
    fields::sample,
    line::{Line, Reply, frame},
    web::{BINARY_MAX, BODY_MAX},
};
use chaski_auth::DevKey;
use chaski_core::ChatId;
use chaski_ports::{Clock as _, SystemClock};
use chaski_tests::{Format, Person, World, random, until};
use prost::{
    Message as _,
    encoding::{WireType, encode_key, encode_varint},
};
use serde_json::{Value, json};
use std::time::Duration;
use tokio_tungstenite::tungstenite::Message;

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Good,
    Missing,
    /// Signed by somebody else.
    Stranger,
    Expired,
    /// Of a device that was revoked.
    Revoked,
    /// Of another device of ana's.
    Other,
    /// Of somebody who has all the devices one may have.
    Full,
}

#[derive(Default)]
pub(super) struct Ids {
    pub(super) ana: String,
    pub(super) ben: String,
    pub(super) cem: String,
    /// Whom ana blocks; whom she blocks, and the rows ask to change that.
    pub(super) eva: String,
    pub(super) rival: String,
    /// A chat of ben's in which ana is no admin.
    pub(super) group: String,
    /// A chat of which ana is the only admin.
    pub(super) own: String,
    pub(super) full: String,
    /// A chat that ana is not in.
    pub(super) foreign: String,
    /// With ben; with eva.
    pub(super) direct: String,
    pub(super) blocked: String,
    /// There is no such chat.
    pub(super) unknown: String,
    /// A `clientChatId` of ana's, and `clientMessageId`s in `direct`, one for each way.
    pub(super) used_chat: String,
    pub(super) used: [String; 3],
    /// Messages of ben in `direct`, and one of ana.
    pub(super) bens: [String; 2],
    pub(super) anas: String,
}

pub(super) struct Stage {
    pub(super) ids: Ids,
    pub(super) url: String,
    pub(super) client: reqwest::Client,
    /// Of ana, by [`Way`].
    pub(super) lines: [Line; 2],
    pub(super) ben_line: Line,
    /// The `clientMessageId` last sent.
    pub(super) sent: String,
    ana: Person,
    ben: Person,
    dan: Person,
    revoked: String,
    stranger: String,
}

const HOUR: Duration = Duration::from_secs(3600);
const DEVICES_MAX: usize = 10;

impl Stage {
    /// People who can talk, and have not yet.
    async fn new(world: &World) -> Self {
        let (ana, ben, dan) = (world.person("ana"), world.person("ben"), world.person("dan"));
        let url = world.url().to_owned();
        let lines = [
            Line::hello(&url, &ana.token("json"), "json", Format::Json).await,
            Line::hello(&url, &ana.token("binary"), "binary", Format::Protobuf).await,
        ];
        let ben_line = Line::hello(&url, &ben.token("json"), "json", Format::Json).await;
        let dir = tempfile::tempdir().expect("a directory");
        let stranger = DevKey::load_or_create(dir.path().join("key.pem")).expect("a key");
        let (user, device) = (ana.id.parse().expect("legal"), "http".parse().expect("legal"));
        let stranger = stranger.sign(&user, &device, HOUR, SystemClock.now_ms());
        let (cem, eva, rival) = (world.person("cem"), world.person("eva"), world.person("rival"));
        let direct = |other: &Person| {
            ChatId::direct(&user, &other.id.parse().expect("legal")).as_str().to_owned()
        };
        let ids = Ids {
            direct: direct(&ben),
            blocked: direct(&eva),
            own: ChatId::created(&user, &"own".parse().expect("legal")).to_string(),
            ana: ana.id.clone(),
            ben: ben.id.clone(),
            cem: cem.id,
            eva: eva.id,
            rival: rival.id,
            unknown: format!("g.{}", "0".repeat(32)),
            used: [random(), random(), random()],
            used_chat: random(),
            ..Ids::default()
        };
        let client = reqwest::Client::new();
        let (revoked, sent) = (ana.token("lost"), String::new());
        Self { ids, url, client, lines, ben_line, sent, ana, ben, dan, revoked, stranger }
    }

    /// Of a world with the usual limits and patience.
    pub(super) async fn set(world: &World) -> Self {
        let mut stage = Self::new(world).await;
        stage.make_chats().await;
        stage.send_messages().await;
        for blocked in [&stage.ids.eva, &stage.ids.rival] {
            let path = format!("/v1/connections/{blocked}");
            stage.call(&stage.ana, "PUT", &path, json!({"status": "BLOCKED"})).await;
        }
        stage.is_refused(json!({"to": stage.ids.eva})).await;
        stage.revoke().await;
        for n in 0..DEVICES_MAX {
            let device = format!("device{n}");
            let _ = Line::hello(&stage.url, &stage.dan.token(&device), &device, Format::Json).await;
        }
        stage
    }

    /// Of a world that waits for nothing, so hardly anything is answered: ben has blocked ana, and
    /// ana eva.
    pub(super) async fn hasty(world: &World) -> Self {
        let mut stage = Self::new(world).await;
        let block = |id: &str| json!({"setConnection": {"userId": id, "status": "BLOCKED"}});
        let (anas, bens) = (block(&stage.ids.eva), block(&stage.ids.ana));
        for (line, block) in [(&mut stage.lines[0], anas), (&mut stage.ben_line, bens)] {
            let reply = line.ask(|id, format| frame(id, format, block)).await;
            assert!(matches!(reply, Reply::Frame(_)), "{reply:?}");
        }
        stage.is_refused(json!({"to": stage.ids.ben})).await;
        stage.is_refused(json!({"to": stage.ids.eva})).await;
        stage
    }

    async fn make_chats(&mut self) {
        let ids = &self.ids;
        let make = |participants: Value, key: &str| {
            let chat = json!({"participants": participants, "clientChatId": key});
            (chat, key == "group" || key == "foreign")
        };
        let others: Vec<_> = (0..99).map(|n| format!("p{n}-{}", random())).collect();
        let mut made = Vec::new();
        for (chat, bens) in [
            make(json!([ids.ana, ids.cem]), "group"),
            make(json!([ids.cem]), "foreign"),
            make(json!(others), "full"),
            make(json!([ids.ben]), "own"),
            make(json!([ids.ben]), &ids.used_chat),
        ] {
            let maker = if bens { &self.ben } else { &self.ana };
            let chat = self.call(maker, "POST", "/v1/chats", chat).await["chatId"].clone();
            made.push(chat.as_str().expect("text").to_owned());
        }
        self.ids.group.clone_from(&made[0]);
        self.ids.foreign.clone_from(&made[1]);
        self.ids.full.clone_from(&made[2]);
        assert_eq!(self.ids.own, made[3]);
        // Reads tell of it once it is stored.
        for (chat, status) in [(&self.ids.foreign, 403), (&self.ids.own, 200)] {
            let (url, token) = (format!("{}/v1/chats/{chat}", self.url), self.ana.token("http"));
            until("the chat is stored", || async {
                let answer = self.client.get(&url).bearer_auth(&token).send().await;
                (answer.expect("it answers").status() == status).then_some(())
            })
            .await;
        }
    }

    async fn send_messages(&mut self) {
        let send = async |from: &Person, to: &str, key: &str| {
            let message = json!({"to": to, "clientMessageId": key, "text": "x"});
            let id = self.call(from, "POST", "/v1/messages", message).await["messageId"].clone();
            id.as_str().expect("text").to_owned()
        };
        let mut anas = String::new();
        for key in &self.ids.used {
            anas = send(&self.ana, &self.ids.ben, key).await;
        }
        let bens =
            [send(&self.ben, &self.ids.ana, "1").await, send(&self.ben, &self.ids.ana, "2").await];
        for line in &mut self.lines {
            line.event(|event| event["newMessage"]["messageId"] == bens[1]).await;
        }
        (self.ids.bens, self.ids.anas) = (bens, anas);
    }

    /// Waits until such a send is refused, because of a block.
    async fn is_refused(&self, message: Value) {
        let (url, token) = (format!("{}/v1/messages", self.url), self.ana.token("http"));
        until("the block is known to the sender", || async {
            let mut message = message.clone();
            (message["clientMessageId"], message["text"]) = (json!(random()), json!("x"));
            let sent = self.client.post(&url).bearer_auth(&token).body(message.to_string()).send();
            (sent.await.expect("it answers").status() == 403).then_some(())
        })
        .await;
    }

    /// A device, and its socket, are revoked.
    async fn revoke(&mut self) {
        let mut line = Line::hello(&self.url, &self.revoked, "lost", Format::Json).await;
        self.call(&self.ana, "DELETE", "/v1/devices/lost", json!({})).await;
        assert_eq!(line.closed().await, 4501);
        until("the revocation is known", || async {
            let asked = self.client.get(format!("{}/v1/devices", self.url));
            let answer = asked.bearer_auth(&self.revoked).send().await.expect("it answers");
            (answer.status() == 401).then_some(())
        })
        .await;
    }

    async fn call(&self, caller: &Person, method: &str, path: &str, body: Value) -> Value {
        let method = method.parse().expect("a method");
        let request = self.client.request(method, format!("{}{path}", self.url));
        let request = request.bearer_auth(caller.token("http")).body(body.to_string());
        let answer = request.send().await.expect("it answers");
        let status = answer.status();
        let text = answer.text().await.expect("a whole answer");
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).expect("JSON")
    }

    pub(super) fn token(&self, device: &str) -> String {
        self.ana.token(device)
    }

    pub(super) fn bearer(&self, token: Token, device: &str) -> Option<String> {
        match token {
            Token::Good => Some(self.ana.token(device)),
            Token::Missing => None,
            Token::Stranger => Some(self.stranger.clone()),
            Token::Expired => {
                Some(self.ana.token_for(device, HOUR, SystemClock.now_ms() - 3_601_000))
            }
            Token::Revoked => Some(self.revoked.clone()),
            Token::Other => Some(self.ana.token("other")),
            Token::Full => Some(self.dan.token(device)),
        }
    }

    /// A row as a frame of its id.
    pub(super) fn message(
        &mut self,
        row: &Row,
        way: Way,
    ) -> Box<dyn FnOnce(u32, Format) -> Message + Send> {
        let (call, tag) = (row.call, super::fields::tag(row.call));
        let mut body = match &row.ask {
            Ask::Body(body) => body(self, way),
            _ => sample(self, call, way),
        };
        if call == "hello" && body.get("token").is_none() {
            body["token"] = json!(self.bearer(row.token, "spare"));
        }
        if let Some(sent) = body["clientMessageId"].as_str() {
            self.sent = sent.to_owned();
        }
        match (&row.ask, way) {
            (Ask::Text(text), _) => {
                let text = text.clone();
                Box::new(move |id, _| Message::text(format!("{{\"id\":{id},\"{call}\":{text}}}")))
            }
            (Ask::Bytes(bytes), _) => {
                let bytes = bytes.clone();
                Box::new(move |id, _| binary(id, &bytes))
            }
            (Ask::Command(command), _) => {
                let command = Some(command.clone());
                Box::new(move |id, _| {
                    let frame = chaski_proto::v1::ClientFrame { id, ack: None, command };
                    Message::binary(frame.encode_to_vec())
                })
            }
            (Ask::Huge, Way::Protobuf) => Box::new(move |id, _| {
                // An unknown field of the command.
                let mut inner = Vec::new();
                put(15, &vec![7; BINARY_MAX], &mut inner);
                let mut bytes = Vec::new();
                put(tag, &inner, &mut bytes);
                binary(id, &bytes)
            }),
            (Ask::Huge, _) => {
                body["pad"] = json!("x".repeat(BODY_MAX));
                Box::new(move |id, format| frame(id, format, json!({call: body})))
            }
            _ => Box::new(move |id, format| frame(id, format, json!({call: body}))),
        }
    }
}

fn binary(id: u32, rest: &[u8]) -> Message {
    let mut bytes = Vec::new();
    encode_key(1, WireType::Varint, &mut bytes);
    encode_varint(id.into(), &mut bytes);
    bytes.extend_from_slice(rest);
    Message::binary(bytes)
}

/// Puts a field with a length.
pub(super) fn put(tag: u32, content: &[u8], into: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, into);
    encode_varint(content.len() as u64, into);
    into.extend_from_slice(content);
}
