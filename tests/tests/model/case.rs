//! A case as it happens: each command goes over the wire and its answer is compared with the
//! reference's. Where a crash swallows the answer the command is given again with the same ids,
//! and must have one effect.
//!
//! Must not know: how the server is built.

use super::{
    RUNTIME,
    chat::{Name, Operation, User},
    device::Device,
    patience,
    reference::{Answer, Command, Model, Status, Taken},
    server::{Server, Unknown},
    step::{Act, Crashes, Machine, Step, Via, WEB, device_name},
    verify,
};
use chaski_core::{ChatId, MessageId};
use chaski_proto::v1::{self, client_frame, modify_chat_participants, server_frame::Body};
use chaski_tests::Person;
use proptest_state_machine::StateMachineTest;
use reqwest::Method;
use serde_json::{Value, json};
use std::{marker::PhantomData, sync::Arc, time::Duration};

/// A user of the case.
pub(crate) struct Someone {
    pub(crate) person: Person,
    pub(crate) devices: Vec<Device>,
    /// For HTTP.
    pub(crate) token: String,
}

pub(crate) struct Case {
    pub(crate) server: Arc<Server>,
    pub(crate) users: Vec<Someone>,
    /// How many crashes there were before.
    pub(crate) crashes: u64,
}

impl Case {
    pub(crate) fn id(&self, user: User) -> &str {
        &self.users[user].person.id
    }

    pub(crate) fn chat_id(&self, name: Name) -> ChatId {
        let id = |user| self.id(user).parse().expect("a legal id");
        match name {
            Name::Direct(a, b) => ChatId::direct(&id(a), &id(b)),
            Name::Group(by, key) => {
                ChatId::created(&id(by), &client_chat_id(key).parse().expect("a legal key"))
            }
        }
    }

    pub(crate) fn message_id(&self, sender: User, chat: Name, key: u16) -> String {
        let sender = self.id(sender).parse().expect("a legal id");
        let key = client_message_id(key).parse().expect("a legal key");
        MessageId::of(&sender, &self.chat_id(chat), &key).to_string()
    }

    pub(crate) async fn start(server: Arc<Server>, model: &Model) -> Self {
        let (crashes, mut users) = (server.crashes(), Vec::new());
        for user in 0..model.users {
            let person = server.person(&format!("u{user}")).await;
            let token = person.token(WEB);
            users.push(Someone { person, devices: Vec::new(), token });
        }
        let mut case = Self { server, users, crashes };
        for user in 0..model.users {
            case.open(user, user % 2 == 0).await;
        }
        case
    }

    /// A device that was never seen before.
    async fn open(&mut self, user: User, json: bool) {
        let someone = &mut self.users[user];
        let name = device_name(someone.devices.len());
        let token = someone.person.token(&name);
        let mut device = Device::new(&someone.person.id, &name, token, json);
        device.connect(&self.server, false).await;
        someone.devices.push(device);
    }

    async fn step(&mut self, model: &Model, step: &Step) {
        let server = Arc::clone(&self.server);
        match step.crash {
            None => self.act(model, step).await,
            Some(after_ms) => {
                let crash = async {
                    tokio::time::sleep(Duration::from_millis(after_ms.into())).await;
                    server.crash().await;
                };
                tokio::join!(crash, self.act(model, step));
            }
        }
    }

    async fn act(&mut self, model: &Model, step: &Step) {
        let by = step.by(model);
        match &step.act {
            Act::Open { json } => self.open(by, *json).await,
            Act::Reconnect { resume, json } => {
                let Via::Device(n) = step.via(model) else { unreachable!("only sockets") };
                let device = &mut self.users[by].devices[n];
                device.drop_link(*json);
                device.connect(&self.server, *resume).await;
            }
            Act::Ack => {
                let Via::Device(n) = step.via(model) else { unreachable!("only sockets") };
                // An ack that a crash swallows is given with the next one.
                let _ = self.users[by].devices[n].ack(&self.server).await;
            }
            _ => self.tell(model, (by, step.via(model))).await,
        }
    }

    /// Gives the command that the reference took last.
    pub(crate) async fn tell(&mut self, model: &Model, (by, via): (User, Via)) {
        let taken = model.last.as_ref().expect("the reference took it");
        match (&taken.command, via) {
            (Command::Settle, _) => self.settle(model).await,
            (Command::Refuse { chat, seq, .. }, Via::Device(n)) => {
                self.refuse(model, (by, n), *chat, *seq).await;
            }
            (Command::Read { chat, seq, .. }, Via::Device(n)) => {
                self.read((by, n), *chat, *seq).await;
            }
            _ => self.command(model, taken, (by, via)).await,
        }
        if matches!(taken.command, Command::Participant { operation: Operation::Remove, .. }) {
            let devices = self.users.iter_mut().flat_map(|user| &mut user.devices);
            devices.for_each(|device| device.receipts_may_fall = true);
        }
    }

    /// Every user's first device has been shown all that was caused so far.
    async fn settle(&mut self, model: &Model) {
        for (user, expected) in self.users.iter_mut().zip(&model.expected) {
            user.devices[0].catch_up(&self.server, expected.count()).await;
        }
    }

    pub(crate) async fn read(&mut self, (by, device): (User, usize), chat: Name, seq: u64) {
        let chat_id = self.chat_id(chat).to_string();
        let read = client_frame::Command::MarkRead(v1::MarkRead { chat_id, seq });
        let device = &mut self.users[by].devices[device];
        while device.tell(&self.server, read.clone()).await.is_err() {}
    }

    /// Refuses until the sender is told: the command has no reply.
    async fn refuse(&mut self, model: &Model, (by, n): (User, usize), chat: Name, seq: u64) {
        let message = model.chats[&chat].item(seq).message().expect("a message").clone();
        let refusal = client_frame::Command::RejectMessage(v1::RejectMessage {
            chat_id: self.chat_id(chat).to_string(),
            message_id: self.message_id(message.sender, chat, message.key),
            reason: reason(seq),
        });
        let count = model.expected[message.sender].count();
        let deadline = tokio::time::Instant::now() + patience();
        loop {
            let _ = self.users[by].devices[n].tell(&self.server, refusal.clone()).await;
            let told = self.users[message.sender].devices[0].catch_up(&self.server, count);
            if tokio::time::timeout(Duration::from_secs(1), told).await.is_ok() {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "a refusal is told: {message:?}");
        }
    }

    /// Gives a command until it is answered, as the reference answers it.
    async fn command(&mut self, model: &Model, taken: &Taken, (by, via): (User, Via)) {
        let mut lost = false;
        let answer = loop {
            let answered = match via {
                Via::Http => self.by_http(&taken.command, by).await,
                Via::Device(n) => self.by_socket(&taken.command, (by, n)).await,
            };
            match answered {
                Ok(answer) => break answer,
                Err(Unknown) => lost = true,
            }
        };
        let same = |expected: &Answer| match (expected, &answer) {
            // Frames do not tell whether the chat is new.
            (Answer::Created { .. }, Answer::Created { .. }) if via != Via::Http => true,
            (expected, answer) => expected == answer,
        };
        let right = same(&taken.answer) || lost && same(&model.again());
        assert!(right, "{:?} over {via:?} must be answered {taken:#?}: {answer:?}", taken.command);
    }

    async fn by_socket(
        &mut self,
        command: &Command,
        (by, n): (User, usize),
    ) -> Result<Answer, Unknown> {
        let wire = self.wire(command);
        let body = self.users[by].devices[n].command(&self.server, wire).await?;
        Ok(match (command, body) {
            (_, Body::Error(error)) => match error.connection {
                Some(present) => {
                    assert_eq!(error.status, 409);
                    let status = status(present.status());
                    Answer::Conflict { status, version: present.version }
                }
                None => Answer::Refused(u16::try_from(error.status).expect("an HTTP status")),
            },
            (Command::Create { chat, .. }, Body::ChatCreated(created)) => {
                assert_eq!(created.chat_id, self.chat_id(*chat).as_str());
                Answer::Created { new: true }
            }
            (Command::Send { chat, key, .. }, Body::MessageAccepted(accepted)) => {
                assert_eq!(accepted.chat_id, self.chat_id(*chat).as_str());
                assert_eq!(accepted.client_message_id, client_message_id(*key));
                assert_eq!(accepted.message_id, self.message_id(by, *chat, *key), "L2");
                Answer::Accepted
            }
            (
                Command::Rename { chat, .. } | Command::Participant { chat, .. },
                Body::ChatModified(modified),
            ) => {
                assert_eq!(modified.chat_id, self.chat_id(*chat).as_str());
                Answer::Modified
            }
            (Command::Connect { peer, .. }, Body::ConnectionSet(set)) => {
                assert_eq!(set.user_id, self.id(*peer));
                Answer::Connection { status: status(set.status()), version: set.version }
            }
            (command, body) => panic!("{command:?} answered with {body:?}"),
        })
    }

    /// The command as it stands in a frame.
    fn wire(&self, command: &Command) -> client_frame::Command {
        use client_frame::Command as Wire;
        match command {
            Command::Create { chat, others, title, all, .. } => {
                Wire::CreateChat(self.creation(*chat, others, *title, *all))
            }
            Command::Send { chat, to, key, text, .. } => {
                Wire::SendMessage(self.message(*chat, *to, *key, *text))
            }
            Command::Rename { chat, title, .. } => Wire::ModifyChat(v1::ModifyChat {
                chat_id: self.chat_id(*chat).to_string(),
                name: Some(self::title(*title)),
            }),
            Command::Participant { chat, user, operation, .. } => {
                Wire::ModifyChatParticipants(v1::ModifyChatParticipants {
                    chat_id: self.chat_id(*chat).to_string(),
                    user_id: self.id(*user).to_owned(),
                    operation: wire_operation(*operation).into(),
                })
            }
            Command::Connect { peer, status, based_on, .. } => {
                Wire::SetConnection(v1::SetConnection {
                    user_id: self.id(*peer).to_owned(),
                    status: wire_status(*status).into(),
                    based_on_version: *based_on,
                })
            }
            other => unreachable!("has a way of its own: {other:?}"),
        }
    }

    fn creation(&self, chat: Name, others: &[User], title: u8, all: bool) -> v1::CreateChat {
        use v1::create_chat::History;
        let Name::Group(_, key) = chat else { unreachable!("a group is created") };
        let history = if all { History::All } else { History::FromJoin };
        v1::CreateChat {
            participants: others.iter().map(|user| self.id(*user).to_owned()).collect(),
            name: self::title(title),
            client_chat_id: client_chat_id(key),
            history: history.into(),
            history_days: 0,
        }
    }

    fn message(&self, chat: Name, to: Option<User>, key: u16, text: u8) -> v1::SendMessage {
        use v1::send_message::{Body, Target};
        let target = match to {
            Some(user) => Target::To(self.id(user).to_owned()),
            None => Target::ChatId(self.chat_id(chat).to_string()),
        };
        let body = match content(key, text) {
            Content::Text(text) => Body::Text(text),
            Content::Ciphertext(bytes) => Body::Ciphertext(bytes.into()),
        };
        v1::SendMessage {
            target: Some(target),
            client_message_id: client_message_id(key),
            body: Some(body),
            attachments: Vec::new(),
            sent_at: None,
        }
    }

    async fn by_http(&self, command: &Command, by: User) -> Result<Answer, Unknown> {
        let chat_path = |chat: &Name| format!("/v1/chats/{}", self.chat_id(*chat));
        let as_json = |value: Result<Value, _>| value.expect("a message is JSON");
        let (method, path, body) = match command {
            Command::Create { chat, others, title, all, .. } => {
                let body = serde_json::to_value(self.creation(*chat, others, *title, *all));
                (Method::POST, "/v1/chats".to_owned(), Some(as_json(body)))
            }
            Command::Send { chat, to, key, text, .. } => {
                let body = serde_json::to_value(self.message(*chat, *to, *key, *text));
                (Method::POST, "/v1/messages".to_owned(), Some(as_json(body)))
            }
            Command::Rename { chat, title, .. } => {
                (Method::PATCH, chat_path(chat), Some(json!({"name": self::title(*title)})))
            }
            Command::Participant { chat, user, operation, .. } => {
                let operation = wire_operation(*operation).as_str_name();
                let body = json!({"userId": self.id(*user), "operation": operation});
                (Method::PATCH, format!("{}/participants", chat_path(chat)), Some(body))
            }
            Command::Connect { peer, status: Status::None, based_on, .. } => {
                let based_on = based_on.map(|v| format!("?basedOnVersion={v}"));
                let path = format!("/v1/connections/{}", self.id(*peer));
                (Method::DELETE, path + &based_on.unwrap_or_default(), None)
            }
            Command::Connect { peer, status, based_on, .. } => {
                let mut body = json!({"status": wire_status(*status).as_str_name()});
                if let Some(version) = based_on {
                    body["basedOnVersion"] = json!(version.to_string());
                }
                (Method::PUT, format!("/v1/connections/{}", self.id(*peer)), Some(body))
            }
            other => unreachable!("has no call: {other:?}"),
        };
        let token = &self.users[by].token;
        let (status, body) = self.server.call(token, (method, &path), body.as_ref()).await?;
        Ok(match (command, status) {
            (Command::Create { chat, .. }, 200 | 201) => {
                assert_eq!(body["chatId"], self.chat_id(*chat).as_str());
                Answer::Created { new: status == 201 }
            }
            (Command::Send { chat, key, .. }, 200) => {
                assert_eq!(body["chatId"], self.chat_id(*chat).as_str());
                assert_eq!(body["messageId"], self.message_id(by, *chat, *key), "L2");
                Answer::Accepted
            }
            (Command::Rename { .. } | Command::Participant { .. }, 200) => Answer::Modified,
            (Command::Connect { .. }, 200) => {
                let (status, version) = connection(&body);
                Answer::Connection { status, version }
            }
            (Command::Connect { .. }, 409) => {
                let (status, version) = connection(&body["connection"]);
                Answer::Conflict { status, version }
            }
            (_, status) => Answer::Refused(status),
        })
    }
}

pub(crate) fn connection(body: &Value) -> (Status, u64) {
    let present = serde_json::from_value::<v1::Connection>(body.clone());
    let present = present.unwrap_or_else(|error| panic!("no connection ({error}): {body}"));
    (status(present.status()), present.version)
}

pub(crate) fn status(status: v1::ConnectionStatus) -> Status {
    match status {
        v1::ConnectionStatus::None => Status::None,
        v1::ConnectionStatus::Active => Status::Active,
        v1::ConnectionStatus::Blocked => Status::Blocked,
    }
}

fn wire_status(status: Status) -> v1::ConnectionStatus {
    match status {
        Status::None => v1::ConnectionStatus::None,
        Status::Active => v1::ConnectionStatus::Active,
        Status::Blocked => v1::ConnectionStatus::Blocked,
    }
}

fn wire_operation(operation: Operation) -> modify_chat_participants::Operation {
    use modify_chat_participants::Operation as Wire;
    match operation {
        Operation::Add => Wire::Add,
        Operation::Remove => Wire::Remove,
        Operation::Promote => Wire::Promote,
        Operation::Demote => Wire::Demote,
    }
}

pub(crate) fn client_message_id(key: u16) -> String {
    format!("m{key}")
}

fn client_chat_id(key: u8) -> String {
    format!("c{key}")
}

pub(crate) fn title(title: u8) -> String {
    format!("title {title}")
}

pub(crate) fn reason(seq: u64) -> String {
    format!("later than {seq}")
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Text(String),
    Ciphertext(Vec<u8>),
}

/// The body that stands for a text of the reference.
pub(crate) fn content(key: u16, text: u8) -> Content {
    match key % 4 {
        3 => Content::Ciphertext(vec![0, 255, text]),
        _ => Content::Text(format!("text {text} of m{key} ✓")),
    }
}

/// The system under test of proptest: what is asynchronous runs on the shared runtime.
pub(crate) struct Driver<C>(PhantomData<C>);

impl<C: Crashes> StateMachineTest for Driver<C> {
    type SystemUnderTest = Case;
    type Reference = Machine<C>;

    fn init_test(model: &Model) -> Case {
        RUNTIME.block_on(Case::start(super::server(), model))
    }

    fn apply(mut case: Case, model: &Model, step: Step) -> Case {
        RUNTIME.block_on(case.step(model, &step));
        case
    }

    fn teardown(case: Case, model: Model) {
        RUNTIME.block_on(verify::verify(case, &model));
    }
}
