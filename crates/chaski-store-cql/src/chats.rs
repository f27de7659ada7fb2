//! Chats, memberships and marks. They are written with the messages they belong to.

use crate::{CqlStore, error, keys};
use bytes::Bytes;
use chaski_core::{ChatId, UserId};
use chaski_ports::{ChatRow, ChatStore, MarkRow, MembershipRow, PortError};

#[async_trait::async_trait]
impl ChatStore for CqlStore {
    async fn chat(&self, chat: &ChatId) -> Result<Option<ChatRow>, PortError> {
        let rows: Vec<(i64, Bytes)> =
            self.db.rows("chat", &self.statements.chat, (chat.as_str(),), 1).await?;
        Ok(rows.into_iter().next().map(|(version, state)| ChatRow {
            chat: *chat,
            version: keys::unsigned(version),
            state,
        }))
    }

    async fn membership(
        &self,
        user: &UserId,
        chat: &ChatId,
    ) -> Result<Option<MembershipRow>, PortError> {
        let key = (user.as_str(), chat.as_str());
        let rows: Vec<(i64, Bytes)> =
            self.db.rows("membership", &self.statements.membership, key, 1).await?;
        Ok(rows.into_iter().next().map(|(version, state)| MembershipRow {
            user: user.clone(),
            chat: *chat,
            version: keys::unsigned(version),
            state,
        }))
    }

    async fn memberships(
        &self,
        user: &UserId,
        after: Option<&ChatId>,
        limit: usize,
    ) -> Result<Vec<MembershipRow>, PortError> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        // No chat id is empty, so all of them are above it.
        let after = after.map_or("", ChatId::as_str);
        let values = (user.as_str(), after, keys::limit(limit));
        let rows: Vec<(String, i64, Bytes)> =
            self.db.rows("memberships", &self.statements.memberships, values, limit).await?;
        rows.into_iter()
            .map(|(chat, version, state)| {
                Ok(MembershipRow {
                    user: user.clone(),
                    chat: chat.parse().map_err(|e| error::corrupt("chats_by_user.chat", e))?,
                    version: keys::unsigned(version),
                    state,
                })
            })
            .collect()
    }

    async fn mark(&self, chat: &ChatId, user: &UserId) -> Result<Option<MarkRow>, PortError> {
        let key = (chat.as_str(), user.as_str());
        let rows: Vec<(i64, Bytes)> = self.db.rows("mark", &self.statements.mark, key, 1).await?;
        Ok(rows.into_iter().next().map(|(version, state)| MarkRow {
            chat: *chat,
            user: user.clone(),
            version: keys::unsigned(version),
            state,
        }))
    }

    async fn marks(&self, chat: &ChatId, limit: usize) -> Result<Vec<MarkRow>, PortError> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let values = (chat.as_str(), keys::limit(limit));
        let rows: Vec<(String, i64, Bytes)> =
            self.db.rows("marks", &self.statements.marks, values, limit).await?;
        rows.into_iter()
            .map(|(user, version, state)| {
                Ok(MarkRow {
                    chat: *chat,
                    user: user.parse().map_err(|e| error::corrupt("marks.user", e))?,
                    version: keys::unsigned(version),
                    state,
                })
            })
            .collect()
    }
}
