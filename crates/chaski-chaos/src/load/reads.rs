//! Reads in the end what everybody can read: the history of each chat by each member, and each
//! inbox. Judges nothing.

use super::shared::Shared;
use crate::history::{Event, HistoryRow, Read, Shown, UNKNOWN};
use chaski_client::{HistoryItem, Http, HttpError};
use futures::{StreamExt as _, stream};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Reads at once.
const AT_ONCE: usize = 8;

/// Reads of a chat by everybody who was ever meant to be in it. A read that fails is tried again for
/// `patience`.
pub(crate) async fn histories(
    shared: &Shared,
    patience: Duration,
) -> anyhow::Result<Vec<Read<HistoryRow>>> {
    let http = Http::new(shared.url())?;
    let mut wanted = Vec::new();
    for (chat, planned) in shared.population.chats.iter().enumerate() {
        wanted.extend(planned.members.iter().map(|user| (*user, chat as u32)));
    }
    let reads = wanted.into_iter().map(|(user, chat)| {
        let http = &http;
        async move {
            let rows = again(patience, || history(shared, http, user, chat)).await;
            Read { user, chat, at_us: shared.timeline.now_us(), rows }
        }
    });
    Ok(stream::iter(reads).buffered(AT_ONCE).collect().await)
}

/// Reads of everybody's inbox.
pub(crate) async fn inboxes(
    shared: &Shared,
    patience: Duration,
) -> anyhow::Result<Vec<Read<Shown>>> {
    let http = Http::new(shared.url())?;
    let reads = (0..shared.population.users).map(|user| {
        let http = &http;
        async move {
            let rows = again(patience, || inbox(shared, http, user)).await;
            Read { user, chat: UNKNOWN, at_us: shared.timeline.now_us(), rows }
        }
    });
    Ok(stream::iter(reads).buffered(AT_ONCE).collect().await)
}

async fn again<T, F: Future<Output = Result<T, HttpError>>>(
    patience: Duration,
    read: impl Fn() -> F,
) -> Option<T> {
    let by = Instant::now() + patience;
    loop {
        match read().await {
            Ok(rows) => return Some(rows),
            Err(error) if Instant::now() >= by => {
                tracing::warn!(%error, "a read failed to the end");
                return None;
            }
            Err(_) => sleep(Duration::from_millis(500)).await,
        }
    }
}

async fn history(
    shared: &Shared,
    http: &Http,
    user: u32,
    chat: u32,
) -> Result<Vec<HistoryRow>, HttpError> {
    let Some(id) = shared.chat_ids[chat as usize].get() else { return Ok(Vec::new()) };
    let tokens = shared.token_provider(shared.population.devices_of[user as usize][0]);
    let rows = http.whole_history(&tokens, id).await?.into_iter().map(|row| HistoryRow {
        seq: row.seq,
        event: match row.item {
            HistoryItem::Message(message) => shared.message_event(&message),
            HistoryItem::ChatUpdate(update) => shared.update_event(&update),
            HistoryItem::Hidden => Event::Hidden { chat: shared.names.of(id), seq: row.seq },
        },
    });
    Ok(rows.collect())
}

async fn inbox(shared: &Shared, http: &Http, user: u32) -> Result<Vec<Shown>, HttpError> {
    let tokens = shared.token_provider(shared.population.devices_of[user as usize][0]);
    let frames = http.whole_inbox(&tokens).await?.into_iter();
    Ok(frames.filter_map(|frame| Some(shared.shown(frame.position?, frame.body))).collect())
}
