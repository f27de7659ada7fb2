//! The calls over HTTP that stand beside the socket: a chat's history, a user's inbox, a send for
//! who wants no socket; what only HTTP has, and what changes something, stands in `http/manage.rs`.

mod download;
mod manage;

pub use download::{Download, DownloadState, Part};

use crate::{config::TokenProvider, error::HttpError};
use chaski_proto::v1::{
    ChatUpdate, Connection, MessageAccepted, NewMessage, SendMessage, ServerFrame,
};
use reqwest::{Method, header::HeaderValue};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::time::Duration;

/// Calls over HTTP. Clones share one pool of connections.
#[derive(Clone)]
pub struct Http {
    base: String,
    client: reqwest::Client,
    /// The write that reads must show.
    seen: Option<HeaderValue>,
}

/// The largest page that a server gives.
const LIMIT_MAX: u32 = 500;

/// A slice of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T, After = u64> {
    /// In order.
    pub items: Vec<T>,
    /// What to pass as `after` for the following slice; `None` at the end.
    pub next: Option<After>,
}

/// One place of a chat.
#[derive(Debug, Clone, PartialEq)]
pub struct HistoryRow {
    /// The place.
    pub seq: u64,
    /// What stands there.
    pub item: HistoryItem,
}

/// What stands at a place of a chat.
#[derive(Debug, Clone, PartialEq)]
pub enum HistoryItem {
    /// A message.
    Message(Box<NewMessage>),
    /// A change of the chat.
    ChatUpdate(Box<ChatUpdate>),
    /// Withheld from this user, or not kept any more.
    Hidden,
}

impl Http {
    /// Reads at this address (`http://…`, without a path).
    ///
    /// # Errors
    /// The machine's HTTP set-up is broken.
    pub fn new(base: &str) -> Result<Self, HttpError> {
        let client = reqwest::Client::builder().timeout(Duration::from_secs(30)).build()?;
        Ok(Self { base: base.trim_end_matches('/').to_owned(), client, seen: None })
    }

    /// The same, but what it reads shows the write that was answered with this `token` (of
    /// `chatCreated`, `messageAccepted` and the like). A server that cannot show it yet says 503.
    #[must_use]
    pub fn seeing(&self, token: &str) -> Self {
        Self { seen: HeaderValue::from_str(token).ok(), ..self.clone() }
    }

    /// A slice of a chat in chat order, from behind `after` on (0: from the beginning).
    ///
    /// # Errors
    /// See [`HttpError`].
    pub async fn history(
        &self,
        tokens: &TokenProvider,
        chat_id: &str,
        after: u64,
        limit: u32,
    ) -> Result<Page<HistoryRow>, HttpError> {
        let path = format!("/v1/chats/{chat_id}/messages?after={after}&limit={limit}");
        self.history_page(tokens, &path).await
    }

    /// A chat from its beginning to its end, page by page.
    ///
    /// # Errors
    /// See [`HttpError`].
    pub async fn whole_history(
        &self,
        tokens: &TokenProvider,
        chat_id: &str,
    ) -> Result<Vec<HistoryRow>, HttpError> {
        whole(|after| self.history(tokens, chat_id, after, LIMIT_MAX)).await
    }

    /// The newest places of a chat, in chat order; `next` is of no use.
    ///
    /// # Errors
    /// See [`HttpError`].
    pub async fn newest(
        &self,
        tokens: &TokenProvider,
        chat_id: &str,
        limit: u32,
    ) -> Result<Page<HistoryRow>, HttpError> {
        let path = format!("/v1/chats/{chat_id}/messages?limit={limit}");
        self.history_page(tokens, &path).await
    }

    /// Sends a message, once: after [`HttpError::Transport`] and 503 it may have been taken, and
    /// sending the same again does no harm.
    ///
    /// # Errors
    /// See [`HttpError`].
    pub async fn send_message(
        &self,
        tokens: &TokenProvider,
        message: &SendMessage,
    ) -> Result<MessageAccepted, HttpError> {
        self.write(tokens, Method::POST, "/v1/messages", message).await
    }

    async fn history_page(
        &self,
        tokens: &TokenProvider,
        path: &str,
    ) -> Result<Page<HistoryRow>, HttpError> {
        #[derive(Deserialize)]
        struct Answer {
            messages: Vec<Value>,
            next: Option<Number>,
        }
        let answer: Answer = self.get(tokens, path).await?;
        let items = answer.messages.into_iter().map(history_row).collect::<Result<_, _>>()?;
        Ok(Page { items, next: answer.next.map(|n| n.0) })
    }

    /// A slice of the user's events, from behind the position `after` on.
    ///
    /// # Errors
    /// See [`HttpError`].
    pub async fn inbox(
        &self,
        tokens: &TokenProvider,
        after: u64,
        limit: u32,
    ) -> Result<Page<ServerFrame>, HttpError> {
        #[derive(Deserialize)]
        struct Answer {
            events: Vec<ServerFrame>,
            next: Option<Number>,
        }
        let path = format!("/v1/inbox?after={after}&limit={limit}");
        let answer: Answer = self.get(tokens, &path).await?;
        Ok(Page { items: answer.events, next: answer.next.map(|n| n.0) })
    }

    /// All events of the user that are kept, page by page.
    ///
    /// # Errors
    /// See [`HttpError`].
    pub async fn whole_inbox(&self, tokens: &TokenProvider) -> Result<Vec<ServerFrame>, HttpError> {
        whole(|after| self.inbox(tokens, after, LIMIT_MAX)).await
    }

    async fn get<T: DeserializeOwned>(
        &self,
        tokens: &TokenProvider,
        path: &str,
    ) -> Result<T, HttpError> {
        self.call(tokens, Method::GET, path, None::<&()>).await
    }

    async fn write<T: DeserializeOwned>(
        &self,
        tokens: &TokenProvider,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, HttpError> {
        self.call(tokens, method, path, Some(body)).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        tokens: &TokenProvider,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, HttpError> {
        let token = tokens.ask().await.map_err(HttpError::NoToken)?;
        let request = self.client.request(method, format!("{}{path}", self.base));
        let mut request = request.bearer_auth(token.bearer);
        if let Some(seen) = &self.seen {
            request = request.header("chaski-token", seen);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        read(request.send().await?).await
    }
}

async fn whole<T, F>(mut page: impl FnMut(u64) -> F) -> Result<Vec<T>, HttpError>
where
    F: Future<Output = Result<Page<T>, HttpError>>,
{
    let (mut items, mut after) = (Vec::new(), 0);
    loop {
        let page = page(after).await?;
        items.extend(page.items);
        match page.next {
            // A `next` that does not move would never end.
            Some(next) if next > after => after = next,
            _ => return Ok(items),
        }
    }
}

async fn read<T: DeserializeOwned>(answer: reqwest::Response) -> Result<T, HttpError> {
    let status = answer.status();
    let body = answer.bytes().await?;
    if status.is_success() {
        return Ok(serde_json::from_slice(&body)?);
    }
    #[derive(Deserialize, Default)]
    struct Problem {
        code: String,
        #[serde(default)]
        detail: String,
        connection: Option<Connection>,
    }
    let Problem { code, detail, connection } = serde_json::from_slice(&body).unwrap_or_default();
    Err(HttpError::Problem { status: status.as_u16(), code, detail, connection })
}

/// A 64-bit number, which comes as a string.
struct Number(u64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        number(&Value::deserialize(deserializer)?).map(Self).map_err(serde::de::Error::custom)
    }
}

fn number(value: &Value) -> Result<u64, &'static str> {
    let parsed = match value {
        Value::String(text) => text.parse().ok(),
        value => value.as_u64(),
    };
    parsed.ok_or("a 64-bit number as a string is missing")
}

fn history_row(mut value: Value) -> Result<HistoryRow, serde_json::Error> {
    let seq = number(&value["seq"]).map_err(serde::de::Error::custom)?;
    let item = if [&value["hidden"], &value["expired"]].contains(&&Value::Bool(true)) {
        HistoryItem::Hidden
    } else if value["chatUpdate"].is_object() {
        HistoryItem::ChatUpdate(Box::new(serde_json::from_value(value["chatUpdate"].take())?))
    } else {
        HistoryItem::Message(Box::new(serde_json::from_value(value)?))
    };
    Ok(HistoryRow { seq, item })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rows_of_all_three_kinds_are_read() {
        let row = |value| history_row(value).unwrap();
        let message = row(json!({"seq": "2", "chatId": "g.1", "messageId": "ab", "text": "é"}));
        assert_eq!(message.seq, 2);
        let HistoryItem::Message(message) = message.item else { panic!("{message:?}") };
        assert_eq!((message.seq, message.message_id.as_str()), (2, "ab"));
        let update = row(json!({"seq": "1", "chatUpdate": {"chatId": "g.1", "seq": "1"}}));
        assert!(matches!(update.item, HistoryItem::ChatUpdate(u) if u.seq == 1));
        assert_eq!(row(json!({"seq": 7, "hidden": true})).item, HistoryItem::Hidden);
        assert!(history_row(json!({"hidden": true})).is_err());
        assert!(history_row(json!([])).is_err());
    }
}
