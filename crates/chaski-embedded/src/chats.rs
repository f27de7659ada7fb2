//! Chats, memberships and marks. They are written with the messages they belong to.

use crate::{Directory, keys, versioned};
use async_trait::async_trait;
use chaski_core::{ChatId, UserId};
use chaski_ports::{ChatRow, ChatStore, MarkRow, MembershipRow, PortError};

#[async_trait]
impl ChatStore for Directory {
    async fn chat(&self, chat: &ChatId) -> Result<Option<ChatRow>, PortError> {
        let found = versioned::get(self.engine.tables(), &keys::chat(chat), "chat")?;
        Ok(found.map(|(version, state)| ChatRow { chat: *chat, version, state }))
    }

    async fn membership(
        &self,
        user: &UserId,
        chat: &ChatId,
    ) -> Result<Option<MembershipRow>, PortError> {
        let key = keys::membership(user, chat);
        let found = versioned::get(self.engine.tables(), &key, "membership")?;
        let row =
            |(version, state)| MembershipRow { user: user.clone(), chat: *chat, version, state };
        Ok(found.map(row))
    }

    async fn memberships(
        &self,
        user: &UserId,
        after: Option<&ChatId>,
        limit: usize,
    ) -> Result<Vec<MembershipRow>, PortError> {
        let (user, prefix) = (user.clone(), keys::memberships(user));
        let after = after.map(|chat| keys::membership(&user, chat));
        self.engine
            .read(move |tables| {
                let found = versioned::slice(tables, &prefix, after.as_ref(), limit, "membership")?;
                let row = |(chat, (version, state))| {
                    let user = user.clone();
                    MembershipRow { user, chat, version, state }
                };
                Ok(found.into_iter().map(row).collect())
            })
            .await
    }

    async fn mark(&self, chat: &ChatId, user: &UserId) -> Result<Option<MarkRow>, PortError> {
        let found = versioned::get(self.engine.tables(), &keys::mark(chat, user), "mark")?;
        let row = |(version, state)| MarkRow { chat: *chat, user: user.clone(), version, state };
        Ok(found.map(row))
    }

    async fn marks(&self, chat: &ChatId, limit: usize) -> Result<Vec<MarkRow>, PortError> {
        let (chat, prefix) = (*chat, keys::marks(chat));
        self.engine
            .read(move |tables| {
                let found = versioned::slice(tables, &prefix, None, limit, "mark")?;
                let row = |(user, (version, state))| MarkRow { chat, user, version, state };
                Ok(found.into_iter().map(row).collect())
            })
            .await
    }
}
