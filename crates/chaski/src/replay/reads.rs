//! Reads every history and every inbox back over HTTP, as the judge needs them.

use super::{
    check::{Shown, What},
    device::what,
    names::Name,
    shared::Shared,
};
use chaski_client::{Body, HistoryItem, Http, HttpError, TokenProvider, v1::ServerFrame};
use futures::{StreamExt as _, stream};
use std::{collections::HashMap, time::Duration};
use tokio::time::{Instant, sleep};

/// Reads at once.
const AT_ONCE: usize = 32;
/// The contract says 5 s while the store is up; after a kill it may still be coming up.
const WITHIN: Duration = Duration::from_secs(30);

/// What was read; `None`: an error to the end.
pub(super) struct Read {
    pub(super) histories: Vec<Option<Vec<Shown>>>,
    pub(super) inboxes: Vec<Option<Vec<Shown>>>,
    /// Reads that had to be repeated.
    pub(super) again: u64,
    pub(super) errors: Vec<String>,
}

/// Reads all; a read that is shorter than what the devices were shown is repeated for a while.
pub(super) async fn all(
    shared: &Shared,
    chats: &[Option<Name>],
    devices: &[(u32, Vec<Shown>)],
) -> anyhow::Result<Read> {
    let http = Http::new(&shared.url)?;
    let by = Instant::now() + WITHIN;
    let mut places: HashMap<Name, u64> = HashMap::new();
    for event in devices.iter().flat_map(|(_, shown)| shown) {
        let last = places.entry(event.chat).or_default();
        *last = event.seq.max(*last);
    }
    let reads = chats.iter().enumerate().map(|(chat, name)| {
        let wanted = name.and_then(|name| places.get(&name).copied()).unwrap_or_default();
        history(shared, &http, chat, wanted as usize, by)
    });
    let histories: Vec<_> = stream::iter(reads).buffered(AT_ONCE).collect().await;
    let mut shown_to: HashMap<u32, usize> = HashMap::new();
    for (user, shown) in devices {
        shown_to.entry(*user).or_insert(shown.len());
    }
    let users = 0..shared.plan.log.users.len() as u32;
    let reads = users.map(|user| {
        let wanted = shown_to.get(&user).copied().unwrap_or_default();
        inbox(shared, &http, user, wanted, by)
    });
    let inboxes: Vec<_> = stream::iter(reads).buffered(AT_ONCE).collect().await;
    let mut read =
        Read { histories: Vec::new(), inboxes: Vec::new(), again: 0, errors: Vec::new() };
    for (to, from) in [(&mut read.histories, histories), (&mut read.inboxes, inboxes)] {
        for (rows, again) in from {
            read.again += again;
            to.push(rows.map_err(|error| read.errors.push(error)).ok());
        }
    }
    read.errors.truncate(10);
    Ok(read)
}

type Rows = (Result<Vec<Shown>, String>, u64);

/// Reads until there is enough or it is too late; how often it had to be repeated.
async fn until<F>(wanted: usize, by: Instant, mut read: impl FnMut() -> F) -> Rows
where
    F: Future<Output = Result<Vec<Shown>, HttpError>>,
{
    let mut again = 0;
    loop {
        let rows = read().await;
        if rows.as_ref().is_ok_and(|rows| rows.len() >= wanted) || Instant::now() >= by {
            return (rows.map_err(|error| error.to_string()), again);
        }
        again += 1;
        sleep(Duration::from_millis(200)).await;
    }
}

async fn history(shared: &Shared, http: &Http, chat: usize, wanted: usize, by: Instant) -> Rows {
    let Some(id) = shared.chat_ids[chat].get() else {
        return (Err("the chat was never made".into()), 0);
    };
    let reader = shared.plan.readers[chat];
    let tokens = shared.token_provider(shared.plan.devices_of[reader as usize][0]);
    until(wanted, by, || history_once(shared, http, &tokens, id)).await
}

async fn history_once(
    shared: &Shared,
    http: &Http,
    tokens: &TokenProvider,
    id: &str,
) -> Result<Vec<Shown>, HttpError> {
    let rows = http.whole_history(tokens, id).await?.into_iter().map(|row| {
        let (chat, what) = match row.item {
            HistoryItem::Message(message) => {
                (shared.names.of(&message.chat_id), what(&message, shared))
            }
            HistoryItem::ChatUpdate(update) => (shared.names.of(&update.chat_id), What::Update),
            HistoryItem::Hidden => (shared.names.of(id), What::Hidden),
        };
        Shown { position: 0, chat, seq: row.seq, what }
    });
    Ok(rows.collect())
}

async fn inbox(shared: &Shared, http: &Http, user: u32, wanted: usize, by: Instant) -> Rows {
    let tokens = shared.token_provider(shared.plan.devices_of[user as usize][0]);
    until(wanted, by, || inbox_once(shared, http, &tokens)).await
}

async fn inbox_once(
    shared: &Shared,
    http: &Http,
    tokens: &TokenProvider,
) -> Result<Vec<Shown>, HttpError> {
    let frames = http.whole_inbox(tokens).await?;
    Ok(frames.into_iter().filter_map(|frame| shown(shared, frame)).collect())
}

fn shown(shared: &Shared, frame: ServerFrame) -> Option<Shown> {
    let position = frame.position?;
    let names = &shared.names;
    let (chat, seq, what) = match frame.body? {
        Body::NewMessage(message) => {
            (names.of(&message.chat_id), message.seq, what(&message, shared))
        }
        Body::ChatUpdate(update) => (names.of(&update.chat_id), update.seq, What::Update),
        Body::MessageHidden(hidden) => (names.of(&hidden.chat_id), hidden.seq, What::Hidden),
        _ => return None,
    };
    Some(Shown { position, chat, seq, what })
}
