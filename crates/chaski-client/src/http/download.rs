//! Everything that a new or wiped device is to know, in pages: contacts and blocks, chats, and each
//! chat's history from its beginning. It may stop anywhere and go on from its state.
//!
//! What happens meanwhile comes over the socket; a message that comes both ways has the same place.

use super::{HistoryRow, Http};
use crate::{config::TokenProvider, error::HttpError};
use chaski_proto::v1::{ChatView, Connection};
use serde::{Deserialize, Serialize};

/// Rows in one page.
const PAGE: u32 = 500;

/// A download that its owner drives by [`Download::next`].
pub struct Download {
    http: Http,
    tokens: TokenProvider,
    state: DownloadState,
}

/// How far a download has come. Its owner stores it with what came before it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DownloadState {
    connections: List,
    chats: List,
    /// Chats whose history is not there yet, the next one last.
    open: Vec<Open>,
    /// Places of chats that came, and that there are.
    places: u64,
    places_of: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum List {
    #[default]
    Begin,
    After(String),
    Done,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Open {
    chat: String,
    /// It is there up to here.
    after: u64,
    last: u64,
}

/// A page of what is downloaded.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// Contacts and blocks.
    Connections(Vec<Connection>),
    /// Chats, each with its members.
    Chats(Vec<ChatView>),
    /// Places of a chat, in its order.
    History {
        /// The chat.
        chat_id: String,
        /// The places.
        rows: Vec<HistoryRow>,
    },
}

impl Download {
    /// Goes on from `state`; the default one is the beginning.
    #[must_use]
    pub fn new(http: Http, tokens: TokenProvider, state: DownloadState) -> Self {
        Self { http, tokens, state }
    }

    /// The next page; `None` once all is there. After an error, which may pass, call it again.
    ///
    /// # Errors
    /// See [`HttpError`].
    pub async fn next(&mut self) -> Result<Option<Part>, HttpError> {
        if let Some(after) = self.state.connections.after() {
            let page = self.http.connections(&self.tokens, &after, PAGE).await?;
            self.state.connections = List::behind(page.next);
            return Ok(Some(Part::Connections(page.items)));
        }
        if let Some(after) = self.state.chats.after() {
            let page = self.http.chats(&self.tokens, &after, PAGE).await?;
            self.state.chats = List::behind(page.next);
            page.items.iter().for_each(|view| self.state.open(view));
            return Ok(Some(Part::Chats(page.items)));
        }
        let Some(open) = self.state.open.last() else { return Ok(None) };
        let (chat_id, after) = (open.chat.clone(), open.after);
        let page = self.http.history(&self.tokens, &chat_id, after, PAGE).await?;
        self.state.came(page.items.last().map(|row| row.seq).filter(|_| page.next.is_some()));
        Ok(Some(Part::History { chat_id, rows: page.items }))
    }

    /// What to go on from after the last page that came.
    #[must_use]
    pub fn state(&self) -> &DownloadState {
        &self.state
    }
}

impl DownloadState {
    /// Places of chats that came, and how many there are: exact once all chats are listed.
    #[must_use]
    pub fn progress(&self) -> (u64, u64) {
        (self.places, self.places_of)
    }

    fn open(&mut self, view: &ChatView) {
        let after = view.visible_from.saturating_sub(1);
        let last = view.last_seq.max(after);
        self.places_of += last - after;
        self.open.insert(0, Open { chat: view.chat_id.clone(), after, last });
    }

    /// The present chat is there up to `seq`, or wholly.
    fn came(&mut self, seq: Option<u64>) {
        let Some(open) = self.open.last_mut() else { return };
        let until = seq.unwrap_or(open.last);
        self.places += until.min(open.last).saturating_sub(open.after);
        open.after = until;
        if seq.is_none() {
            self.open.pop();
        }
    }
}

impl List {
    fn after(&self) -> Option<String> {
        match self {
            Self::Begin => Some(String::new()),
            Self::After(after) => Some(after.clone()),
            Self::Done => None,
        }
    }

    fn behind(next: Option<String>) -> Self {
        next.map_or(Self::Done, Self::After)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_ends_at_the_whole_also_where_a_chat_grew_or_ends_early_for_who_left() {
        let mut state = DownloadState::default();
        for (chat, visible_from, last_seq) in [("g.1", 1, 700), ("g.2", 11, 20), ("g.3", 1, 5)] {
            let chat_id = chat.into();
            state.open(&ChatView { chat_id, visible_from, last_seq, ..Default::default() });
        }
        assert_eq!(state.progress(), (0, 715));
        let present = |state: &DownloadState| state.open.last().map(|o| (o.chat.clone(), o.after));
        state.came(Some(500));
        assert_eq!((present(&state), state.progress()), (Some(("g.1".into(), 500)), (500, 715)));
        // It has grown meanwhile: 900 are there now.
        state.came(Some(900));
        assert_eq!(state.progress(), (700, 715));
        state.came(None);
        assert_eq!(present(&state), Some(("g.2".into(), 10)));
        let stored = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<DownloadState>(&stored).unwrap(), state);
        state.came(None);
        state.came(None);
        assert_eq!((present(&state), state.progress()), (None, (715, 715)));
    }
}
