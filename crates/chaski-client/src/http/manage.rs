//! Chats, devices, contacts and blocks over HTTP. The socket has commands for changes of chats and
//! connections too; lists and devices are only here. Ids are parts of paths: give legal ones.

use super::{Http, Page};
use crate::{config::TokenProvider, error::HttpError};
use chaski_proto::v1::{
    ChatView, Connection, DeviceView, ModifyChatParticipants, Receipt, SetConnection,
    modify_chat_participants::Operation,
};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

impl Http {
    /// A chat with its members.
    ///
    /// # Errors
    /// See [`HttpError`].
    pub async fn chat(&self, tokens: &TokenProvider, chat_id: &str) -> Result<ChatView, HttpError> {
        self.get(tokens, &format!("/v1/chats/{chat_id}")).await
    }

    /// The user's chats with an id above `after`, at most `limit`; whoever wants more asks behind
    /// the last one, where `next` is there.
    ///
    /// # Errors
    /// See [`HttpError`].
    pub async fn chats(
        &self,
        tokens: &TokenProvider,
        after: &str,
        limit: u32,
    ) -> Result<Page<ChatView, String>, HttpError> {
        #[derive(Deserialize)]
        struct Answer {
            chats: Vec<ChatView>,
            next: Option<String>,
        }
        let path = match after {
            "" => format!("/v1/chats?limit={limit}"),
            after => format!("/v1/chats?after={after}&limit={limit}"),
        };
        let answer: Answer = self.get(tokens, &path).await?;
        Ok(Page { items: answer.chats, next: answer.next })
    }

    /// Renames a chat.
    ///
    /// # Errors
    /// See [`HttpError`].
    pub async fn rename_chat(
        &self,
        tokens: &TokenProvider,
        chat_id: &str,
        name: &str,
    ) -> Result<(), HttpError> {
        let (path, body) = (format!("/v1/chats/{chat_id}"), json!({"name": name}));
        self.write::<Value>(tokens, Method::PATCH, &path, &body).await.map(drop)
    }

    /// Adds, removes, promotes or demotes somebody; who removes themselves leaves.
    ///
    /// # Errors
    /// See [`HttpError`].
    pub async fn change_participant(
        &self,
        tokens: &TokenProvider,
        chat_id: &str,
        user_id: &str,
        operation: Operation,
    ) -> Result<(), HttpError> {
        let path = format!("/v1/chats/{chat_id}/participants");
        let (chat_id, user_id) = (chat_id.into(), user_id.into());
        let body = ModifyChatParticipants { chat_id, user_id, operation: operation.into() };
        self.write::<Value>(tokens, Method::PATCH, &path, &body).await.map(drop)
    }

    /// How far all members of a chat have got.
    ///
    /// # Errors
    /// See [`HttpError`].
    pub async fn receipts(
        &self,
        tokens: &TokenProvider,
        chat_id: &str,
    ) -> Result<Vec<Receipt>, HttpError> {
        #[derive(Deserialize)]
        struct Answer {
            receipts: Vec<Receipt>,
        }
        let path = format!("/v1/chats/{chat_id}/receipts");
        Ok(self.get::<Answer>(tokens, &path).await?.receipts)
    }

    /// The user's devices.
    ///
    /// # Errors
    /// See [`HttpError`].
    pub async fn devices(&self, tokens: &TokenProvider) -> Result<Vec<DeviceView>, HttpError> {
        #[derive(Deserialize)]
        struct Answer {
            devices: Vec<DeviceView>,
        }
        Ok(self.get::<Answer>(tokens, "/v1/devices").await?.devices)
    }

    /// Names a device.
    ///
    /// # Errors
    /// See [`HttpError`].
    pub async fn rename_device(
        &self,
        tokens: &TokenProvider,
        device_id: &str,
        name: &str,
    ) -> Result<DeviceView, HttpError> {
        let (path, body) = (format!("/v1/devices/{device_id}"), json!({"name": name}));
        self.write(tokens, Method::PATCH, &path, &body).await
    }

    /// Revokes a device: tokens that were issued to it before are taken no more.
    ///
    /// # Errors
    /// See [`HttpError`].
    pub async fn revoke_device(
        &self,
        tokens: &TokenProvider,
        device_id: &str,
    ) -> Result<(), HttpError> {
        let path = format!("/v1/devices/{device_id}");
        self.call::<Value>(tokens, Method::DELETE, &path, None::<&()>).await.map(drop)
    }

    /// Contacts and blocks with a user id above `after`, at most `limit`; whoever wants more asks
    /// behind the last one, where `next` is there.
    ///
    /// # Errors
    /// See [`HttpError`].
    pub async fn connections(
        &self,
        tokens: &TokenProvider,
        after: &str,
        limit: u32,
    ) -> Result<Page<Connection, String>, HttpError> {
        #[derive(Deserialize)]
        struct Answer {
            connections: Vec<Connection>,
            next: Option<String>,
        }
        let path = format!("/v1/connections?after={after}&limit={limit}");
        let answer: Answer = self.get(tokens, &path).await?;
        Ok(Page { items: answer.connections, next: answer.next })
    }

    /// Makes somebody a contact, or blocks them; the state from then on. A 409 carries the present
    /// one.
    ///
    /// # Errors
    /// See [`HttpError`].
    pub async fn set_connection(
        &self,
        tokens: &TokenProvider,
        asked: &SetConnection,
    ) -> Result<Connection, HttpError> {
        let path = format!("/v1/connections/{}", asked.user_id);
        self.write(tokens, Method::PUT, &path, asked).await
    }

    /// Ends a contact or a block; for a block the version that is known must be named.
    ///
    /// # Errors
    /// See [`HttpError`].
    pub async fn end_connection(
        &self,
        tokens: &TokenProvider,
        user_id: &str,
        based_on_version: Option<u64>,
    ) -> Result<Connection, HttpError> {
        let based_on = based_on_version.map(|version| format!("?basedOnVersion={version}"));
        let path = format!("/v1/connections/{user_id}{}", based_on.unwrap_or_default());
        self.call(tokens, Method::DELETE, &path, None::<&()>).await
    }
}
