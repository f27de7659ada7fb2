//! Embedded backends, the fan-out's fold in the place of a generator, and a message service.

use bytes::Bytes;
use chaski_core::{
    ChatId, Offset, Origin, Partition, SourceId, UserId,
    connection::{Connection, ConnectionChange, Status},
    fold::Fold,
    placement::Placement,
    record::{
        Action, Body, Change, Command, Content, Create, Event, History, Input, Mark, Marks,
        Operation, Output, Send, UnixMs, What,
    },
};
use chaski_embedded::{Embedded, EmbeddedOptions};
use chaski_message_service::{MessageService, MessagesConfig};
use chaski_ports::{
    Clock, ConnectionRow, Ports, ProducePolicy, Producer, Record, StandingClock, Topic,
};
use chaski_proto::{
    EncodedEvent, WriteToken, status_to_proto,
    v1::{self, messages_server::Messages},
};
use chaski_runtime::{Owned, Tasks};
use prost::Message as _;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::sync::watch;
use tonic::Request;

pub(crate) const DAY_MS: UnixMs = 24 * 60 * 60 * 1000;
/// Noon of some day.
pub(crate) const NOW: UnixMs = 20_000 * DAY_MS + DAY_MS / 2;
const PARTITIONS: u32 = 4;

/// Everything but the service under test.
pub(crate) struct World {
    pub(crate) ports: Ports,
    pub(crate) clock: Arc<StandingClock>,
    pub(crate) placement: Placement,
    producer: Arc<dyn Producer>,
    fold: Fold,
    /// Of `new-messages`, all partitions alike.
    next: u64,
    prev: HashMap<(SourceId, Partition, Partition), Origin>,
    _dir: tempfile::TempDir,
}

/// An output of the fan-out on its way.
pub(crate) struct Sent {
    source: (SourceId, Partition, Offset),
    pub(crate) output: Output,
}

const SOURCE: SourceId = SourceId(7);
const REQUESTS: SourceId = SourceId(8);

pub(crate) fn user(name: &str) -> UserId {
    name.parse().unwrap()
}

impl World {
    pub(crate) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(StandingClock::new(NOW));
        let options = EmbeddedOptions { clock: clock.clone(), ..EmbeddedOptions::default() };
        let embedded = Embedded::open(dir.path(), options).unwrap();
        let ports = Ports {
            log: embedded.log(),
            messages: embedded.messages(),
            chats: embedded.chats(),
            connections: embedded.connections(),
            devices: embedded.devices(),
            checkpoints: embedded.checkpoints(),
            coordinator: embedded.coordinator(),
            clock: clock.clone(),
        };
        ports.log.create_topics(PARTITIONS).await.unwrap();
        let placement = Placement::new(PARTITIONS);
        let producer = ports.log.producer(ProducePolicy::Forever).unwrap();
        let (fold, prev) = (Fold::new(placement), HashMap::new());
        Self { ports, clock, placement, producer, fold, next: 0, prev, _dir: dir }
    }

    /// A service that stores all partitions.
    pub(crate) fn serve(&self) -> Service {
        self.serve_for(0)
    }

    /// The same, with a limit for all chats.
    pub(crate) fn serve_for(&self, history_days: u32) -> Service {
        let config = MessagesConfig {
            history_days,
            write_every_ms: 1,
            watermark_ms: 1,
            read_your_write_ms: 10_000,
            body_wait_ms: 10_000,
            devices_max: 2,
            ..MessagesConfig::default()
        };
        let (ports, producer) = (self.ports.clone(), Arc::clone(&self.producer));
        let messages = MessageService::new(ports, producer, self.placement, SOURCE, config);
        let (messages, tasks) = (Arc::new(messages), Tasks::new());
        let owned: Owned = (0..PARTITIONS).map(|partition| (Partition(partition), 1)).collect();
        let (_, owned) = watch::channel(owned);
        let running = (Arc::clone(&messages), tasks.clone());
        tasks.spawn("messages", async move {
            running.0.run(&running.1, owned).await;
            Ok::<_, String>(())
        });
        Service { messages, tasks }
    }

    /// Two users of different partitions.
    pub(crate) fn apart(&self) -> (UserId, UserId) {
        let ana = user("ana");
        let at = self.placement.of_user(&ana);
        let mut others = (0..).map(|n| user(&format!("eve-{n}")));
        let eve = others.find(|other| self.placement.of_user(other) != at).unwrap();
        (ana, eve)
    }

    /// What the fan-out makes of an input, and the token of that write.
    pub(crate) fn fan_out(&mut self, chat: ChatId, input: Input) -> (Vec<Sent>, String) {
        let offset = Offset(self.next);
        self.next += 1;
        let mut outputs = Vec::new();
        self.fold.apply(offset, input, &mut outputs);
        let partition = self.placement.of_chat(&chat);
        let sent = |output| Sent { source: (SOURCE, partition, offset), output };
        let token = WriteToken::Submitted(partition, offset).to_string();
        (outputs.into_iter().map(sent).collect(), token)
    }

    /// Appends an output; its offset.
    pub(crate) async fn append(&mut self, sent: &Sent) -> Offset {
        let Sent { source, output } = sent;
        let origin = Origin { offset: source.2, index: output.index };
        let prev = self.prev.insert((source.0, source.1, output.partition), origin);
        let event = EncodedEvent::of(output);
        let (key, value) = event.for_output(output, *source, prev);
        let record = Record {
            key,
            value,
            timestamp_ms: event.at_ms(),
            record_type: event.record_type,
            schema: chaski_proto::SCHEMA,
            traceparent: None,
        };
        let append = self.producer.append(Topic::Recipients, output.partition, record);
        append.unwrap().await.unwrap()
    }

    async fn take(&mut self, chat: ChatId, input: Input) -> String {
        let (sent, token) = self.fan_out(chat, input);
        for one in &sent {
            self.append(one).await;
        }
        token
    }

    pub(crate) fn command(&self, by: &UserId, chat: ChatId, action: Action) -> Input {
        let (user, device) = (by.clone(), "phone".parse().unwrap());
        let accepted_at = self.clock.now_ms();
        Input::Command(Command { chat, user, device, accepted_at, action })
    }

    /// A message to a person, of this text.
    pub(crate) fn message(&self, by: &UserId, to: &UserId, text: &str) -> (ChatId, Input) {
        let chat = ChatId::direct(by, to);
        (chat, self.command(by, chat, send(Some(to.clone()), text)))
    }

    pub(crate) async fn say(&mut self, by: &UserId, to: &UserId, text: &str) -> String {
        let (chat, input) = self.message(by, to, text);
        self.take(chat, input).await
    }

    pub(crate) async fn post(&mut self, by: &UserId, chat: ChatId, text: &str) -> String {
        let input = self.command(by, chat, send(None, text));
        self.take(chat, input).await
    }

    pub(crate) async fn create(&mut self, by: &UserId, others: &[&UserId]) -> (ChatId, String) {
        self.create_with(by, others, History::FromJoin).await
    }

    pub(crate) async fn create_with(
        &mut self,
        by: &UserId,
        others: &[&UserId],
        history: History,
    ) -> (ChatId, String) {
        self.create_for(by, others, (history, 0)).await
    }

    pub(crate) async fn create_for(
        &mut self,
        by: &UserId,
        others: &[&UserId],
        (history, history_days): (History, u32),
    ) -> (ChatId, String) {
        let key = format!("chat-{}", self.next).parse().unwrap();
        let chat = ChatId::created(by, &key);
        let create = Create {
            request: [1; 16],
            participants: others.iter().map(|user| (*user).clone()).collect(),
            name: "the chat".into(),
            key,
            history,
            history_days,
        };
        let input = self.command(by, chat, Action::Create(create));
        (chat, self.take(chat, input).await)
    }

    pub(crate) async fn change(
        &mut self,
        by: &UserId,
        chat: ChatId,
        who: &UserId,
        operation: Operation,
    ) -> String {
        let what = What::Participant(who.clone(), operation);
        let change = Change { request: [2; 16], what };
        let input = self.command(by, chat, Action::Change(change));
        self.take(chat, input).await
    }

    pub(crate) async fn mark(&mut self, chat: ChatId, user: &UserId, read: u64, hide_read: bool) {
        let mark = Mark { user: user.clone(), delivered: read, read, hide_read };
        let marks = Marks { chat, at: self.clock.now_ms(), marks: vec![mark] };
        self.take(chat, Input::Marks(marks)).await;
    }

    /// A decision of the connection service; its token.
    pub(crate) async fn connect(
        &mut self,
        by: &UserId,
        peer: &UserId,
        to: Connection,
        lifted: bool,
    ) -> String {
        let change = ConnectionChange {
            peer: peer.clone(),
            to,
            device: "phone".parse().unwrap(),
            lifted,
            at: self.clock.now_ms(),
        };
        let output = Output {
            partition: self.placement.of_user(by),
            index: 0,
            users: Arc::new([by.clone()]),
            visible_from: None,
            event: Event::Connection(change),
        };
        let source = (REQUESTS, output.partition, Offset(self.next));
        self.next += 1;
        let offset = self.append(&Sent { source, output }).await;
        let state = v1::StoredConnection {
            status: status_to_proto(to.status).into(),
            ..Default::default()
        };
        let row = ConnectionRow {
            user: by.clone(),
            peer: peer.clone(),
            version: to.version,
            state: state.encode_to_vec().into(),
        };
        self.ports.connections.save_connections(&[row]).await.unwrap();
        WriteToken::Told(self.placement.of_user(by), offset).to_string()
    }

    pub(crate) async fn block(&mut self, by: &UserId, peer: &UserId) -> String {
        let to = Connection { status: Status::Blocked, version: 1 };
        self.connect(by, peer, to, false).await
    }

    pub(crate) async fn lift(&mut self, by: &UserId, peer: &UserId) -> String {
        let to = Connection { status: Status::None, version: 2 };
        self.connect(by, peer, to, true).await
    }
}

pub(crate) fn send(to: Option<UserId>, text: &str) -> Action {
    let body = Body::Text(Bytes::copy_from_slice(text.as_bytes()));
    let content = Arc::new(Content { body, attachments: Vec::new() });
    Action::Send(Send { to, key: text.parse().unwrap(), content, sent_at: None })
}

/// The service under test.
pub(crate) struct Service {
    pub(crate) messages: Arc<MessageService>,
    tasks: Tasks,
}

pub(crate) fn caller(user: &UserId) -> Option<v1::Caller> {
    Some(v1::Caller { user_id: user.to_string(), device_id: "phone".into() })
}

impl Service {
    pub(crate) async fn stop(self) {
        assert_eq!(self.tasks.shut_down(Duration::from_secs(10)).await, None);
    }

    /// Waits until the write is visible to these users.
    pub(crate) async fn settle(&self, users: &[&UserId], token: &str) {
        for user in users {
            let token = token.into();
            self.inbox(v1::InboxRequest { caller: caller(user), token, ..Default::default() })
                .await;
        }
    }

    pub(crate) async fn history(
        &self,
        user: &UserId,
        chat: ChatId,
        range: Option<v1::history_request::Range>,
        limit: u32,
        token: &str,
    ) -> (Vec<String>, bool) {
        let request = v1::HistoryRequest {
            caller: caller(user),
            chat_id: chat.to_string(),
            range,
            limit,
            token: token.into(),
        };
        let reply = self.messages.history(Request::new(request)).await.unwrap().into_inner();
        (reply.items.iter().map(item).collect(), reply.more)
    }

    pub(crate) async fn inbox(&self, request: v1::InboxRequest) -> v1::InboxReply {
        self.messages.inbox(Request::new(request)).await.unwrap().into_inner()
    }

    pub(crate) async fn chat(&self, user: &UserId, chat: ChatId, token: &str) -> v1::ChatView {
        let request = chat_request(user, chat, token);
        self.messages.chat(Request::new(request)).await.unwrap().into_inner()
    }
}

pub(crate) fn chat_request(user: &UserId, chat: ChatId, token: &str) -> v1::ChatRequest {
    let (chat_id, token) = (chat.to_string(), token.into());
    v1::ChatRequest { caller: caller(user), chat_id, token }
}

/// `<seq> <text>`, `<seq> update`, `<seq> hidden`.
fn item(item: &v1::HistoryItem) -> String {
    use v1::history_item::Item;
    let what = match &item.item {
        Some(Item::Message(message)) => text(message),
        Some(Item::ChatUpdate(_)) => "update",
        Some(Item::Hidden(true)) => "hidden",
        Some(Item::Expired(true)) => "expired",
        _ => "nothing",
    };
    format!("{} {what}", item.seq)
}

pub(crate) fn text(message: &v1::NewMessage) -> &str {
    match &message.body {
        Some(v1::new_message::Body::Text(text)) => text,
        _ => "no text",
    }
}
