//! What the commands of a chat do: some are commands of the socket, others are calls over HTTP.

use super::{
    Room, Waiting,
    lines::{self, harmless},
    orders::{Order, Wish, help},
};
use crate::cli::identity::Target;
use chaski_client::{
    Body, Client, Command, HttpError, Outcome,
    v1::{self, ConnectionStatus, modify_chat_participants::Operation},
};
use chaski_core::{ChatId, UserId};
use uuid::Uuid;

/// Contacts and blocks of one call.
const PAGE: u32 = 500;

impl Room {
    /// Does what was typed; what has to be waited for, if anything.
    pub(super) async fn act(&mut self, client: &mut Client, order: Order) -> Option<Waiting> {
        let command = match self.command(order).await {
            Ok(command) => command?,
            Err(why) => {
                self.out.event(&format!("!! {}", harmless(&why)));
                return None;
            }
        };
        let from = match &command {
            Command::CreateChat(asked) => {
                let key = asked.client_chat_id.parse().expect("a UUID is a legal key");
                let group = ChatId::created(&self.speaker.user, &key);
                // Now, because the first event of the group may come before the answer.
                Some(self.enter(Target { to: None, chat: Some(group) }))
            }
            _ => None,
        };
        match client.send(command) {
            Ok(id) => Some(Waiting::Order { id, from }),
            Err(error) => {
                self.out.event(&format!("!! not done: {}", harmless(&error.to_string())));
                None
            }
        }
    }

    /// The command of the socket that an order is, unless it is done here.
    async fn command(&mut self, order: Order) -> Result<Option<Command>, String> {
        let chat_id = self.chat.clone();
        Ok(Some(match order {
            Order::Group { users, name } => Command::CreateChat(v1::CreateChat {
                participants: users.iter().map(ToString::to_string).collect(),
                name,
                client_chat_id: Uuid::now_v7().to_string(),
                history: v1::create_chat::History::FromJoin.into(),
                ..Default::default()
            }),
            Order::Participant(operation, user) => participant(chat_id, &user, operation),
            Order::Leave => participant(chat_id, &self.speaker.user, Operation::Remove),
            Order::Name(name) => Command::ModifyChat(v1::ModifyChat { chat_id, name: Some(name) }),
            Order::Read => {
                self.read = self.shown;
                Command::MarkRead(v1::MarkRead { chat_id, seq: self.shown })
            }
            Order::HideRead(hide_read_marks) => {
                Command::SetSettings(v1::SetSettings { hide_read_marks })
            }
            Order::Connect(wish, user) => {
                let user = user.or_else(|| self.target.to.clone());
                let user = user.ok_or("say whom: this is not a chat begun with --to")?;
                Command::SetConnection(self.connection(wish, &user).await?)
            }
            here => {
                self.here(here).await.map_err(|error| error.to_string())?;
                return Ok(None);
            }
        }))
    }

    /// What is asked for over HTTP, or of nobody.
    async fn here(&mut self, order: Order) -> Result<(), HttpError> {
        let tokens = self.speaker.tokens.clone();
        let list = match order {
            Order::Help => vec![help()],
            Order::Open(chat) => {
                self.enter(Target { to: None, chat: Some(chat) });
                self.past(false).await?;
                Vec::new()
            }
            Order::Members => {
                let chat = self.http.chat(&tokens, &self.chat).await?;
                vec![lines::chat(&chat.name, &lines::members(&chat.participants, &chat.roles))]
            }
            Order::Receipts => {
                let receipts = self.http.receipts(&tokens, &self.chat).await?;
                receipts.iter().map(lines::receipt).collect()
            }
            Order::Contacts => self.connections().await?.iter().map(lines::connection).collect(),
            Order::Devices => {
                let devices = self.http.devices(&tokens).await?;
                let own = self.speaker.device.as_str();
                devices.iter().map(|device| lines::device(device, own)).collect()
            }
            Order::NameDevice(device, name) => {
                let device = self.http.rename_device(&tokens, device.as_str(), &name).await?;
                vec![lines::device(&device, self.speaker.device.as_str())]
            }
            Order::Revoke(device) => {
                self.http.revoke_device(&tokens, device.as_str()).await?;
                vec![format!("-- {device} is revoked")]
            }
            _ => Vec::new(),
        };
        list.iter().for_each(|line| self.out.event(line));
        Ok(())
    }

    /// The wish with the version that it is about: a block is lifted only by who knows of it.
    async fn connection(&self, wish: Wish, user: &UserId) -> Result<v1::SetConnection, String> {
        let known = self.connections().await.map_err(|error| error.to_string())?;
        let known = known.into_iter().find(|one| one.user_id == user.as_str());
        let status = match wish {
            Wish::Contact => ConnectionStatus::Active,
            Wish::Block => ConnectionStatus::Blocked,
            Wish::End => ConnectionStatus::None,
        };
        Ok(v1::SetConnection {
            user_id: user.to_string(),
            status: status.into(),
            based_on_version: known.map(|one| one.version),
        })
    }

    async fn connections(&self) -> Result<Vec<v1::Connection>, HttpError> {
        let (mut all, mut after) = (Vec::new(), String::new());
        loop {
            let page = self.http.connections(&self.speaker.tokens, &after, PAGE).await?;
            all.extend(page.items);
            match page.next {
                Some(next) if next > after => after = next,
                _ => return Ok(all),
            }
        }
    }

    /// A command has its outcome.
    pub(super) fn acted(&mut self, outcome: Outcome, from: Option<Target>) {
        if let Outcome::Done(reply) = &outcome {
            self.seen(reply);
        }
        let why = match outcome {
            Outcome::Done(Body::ConnectionSet(set)) => {
                let (user_id, status, version) = (set.user_id, set.status, set.version);
                let state = v1::Connection { user_id, status, version };
                return self.out.event(&lines::connection(&state));
            }
            Outcome::Done(Body::ChatCreated(made)) => {
                let chat = harmless(&made.chat_id);
                return self
                    .out
                    .event(&format!("-- this is {chat}; others enter it by /open {chat}"));
            }
            Outcome::Done(_) | Outcome::Written => return self.out.note("done"),
            Outcome::Refused(error) => format!("refused: {} {}", error.status, error.message),
            Outcome::Unknown | Outcome::GaveUp => "no answer; it may have happened".into(),
        };
        self.out.event(&format!("!! {}", harmless(&why)));
        if let Some(from) = from {
            self.enter(from);
        }
    }
}

fn participant(chat_id: String, user: &UserId, operation: Operation) -> Command {
    let (user_id, operation) = (user.to_string(), operation.into());
    Command::ModifyChatParticipants(v1::ModifyChatParticipants { chat_id, user_id, operation })
}
