//! What the clients of a run share: the plan, the clock, the messages, and what each has noted.

use super::population::Population;
use crate::{
    fault::Timeline,
    history::{Ask, ClientHistory, Entry, Event, Evidence, Message, Noted, Shown, UNKNOWN},
};
use chaski::replay::{Names, TokenSource};
use chaski_client::{Body, Config, TokenProvider, v1};
use parking_lot::{Mutex, RwLock};
use sha2::{Digest as _, Sha256};
use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering::Relaxed},
};
use tokio::sync::Semaphore;

/// How many connections may be made at once, in the beginning.
const CONNECTING_MAX: usize = 50;

/// What the clients of a run share.
pub(crate) struct Shared {
    /// Stands in the ids of all users, so that runs against one system do not meet.
    pub(crate) run: String,
    pub(crate) population: Population,
    pub(crate) timeline: Timeline,
    pub(crate) names: Names,
    /// The id of each chat, once it was made.
    pub(crate) chat_ids: Vec<OnceLock<String>>,
    pub(crate) connecting: Semaphore,
    pub(crate) counts: Counts,
    url: String,
    tokens: TokenSource,
    messages: RwLock<Vec<Message>>,
    logs: Vec<Mutex<Vec<Noted>>>,
}

/// For who looks at the run while it goes on; the history is what counts in the end.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Clients that are welcome at this moment.
    pub(crate) connected: AtomicU64,
    /// Clients that are meant to be there at this moment.
    pub(crate) present: AtomicU64,
    /// Sends accepted.
    pub(crate) accepted: AtomicU64,
    /// Asked and not settled, or waiting to be asked.
    pub(crate) open: AtomicU64,
    /// Sends that were planned and not asked, because too many were open at that client.
    pub(crate) not_asked: AtomicU64,
    /// Events shown.
    pub(crate) shown: AtomicU64,
    /// Clients that ended for good and were begun anew.
    pub(crate) stopped: AtomicU64,
    /// Commands that a server told a client to send again later, and said when.
    pub(crate) deferred: AtomicU64,
    /// The same, without a time.
    pub(crate) deferred_blindly: AtomicU64,
}

impl Shared {
    pub(crate) fn new(
        run: String,
        population: Population,
        url: String,
        tokens: TokenSource,
        timeline: Timeline,
    ) -> Self {
        Self {
            run,
            timeline,
            names: Names::default(),
            chat_ids: population.chats.iter().map(|_| OnceLock::new()).collect(),
            connecting: Semaphore::new(CONNECTING_MAX),
            counts: Counts::default(),
            url,
            tokens,
            messages: RwLock::default(),
            logs: population.devices.iter().map(|_| Mutex::default()).collect(),
            population,
        }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// A message that a client is to send.
    pub(crate) fn new_message(&self, chat: u32, client: u32) -> u32 {
        let mut messages = self.messages.write();
        let number = messages.len() as u32;
        let sender = self.population.devices[client as usize].user;
        let text = self.text(number, chat);
        let hash = hash(&self.user(sender), &self.device(client), text.as_bytes());
        messages.push(Message { chat, sender, client, hash });
        number
    }

    pub(crate) fn message(&self, number: u32) -> Message {
        self.messages.read()[number as usize]
    }

    /// What a message says: unique, of different lengths.
    pub(crate) fn text(&self, number: u32, chat: u32) -> String {
        let tail = ".".repeat((number as usize).wrapping_mul(31) % 150);
        format!("message {number} of chat {chat} of {} é\u{1F999}{tail}", self.run)
    }

    /// The idempotency key of a message.
    pub(crate) fn key(&self, number: u32) -> String {
        format!("{}-{number}", self.run)
    }

    pub(crate) fn user(&self, user: u32) -> String {
        user_id(&self.run, self.population.numbers[user as usize])
    }

    pub(crate) fn device(&self, client: u32) -> String {
        format!("d{}", self.population.devices[client as usize].nth)
    }

    fn number(&self, text: &str, letter: &str) -> Option<u32> {
        text.strip_prefix(self.run.as_str())?.strip_prefix(letter)?.parse().ok()
    }

    fn user_of(&self, id: &str) -> u32 {
        let number = self.number(id, "-u");
        let user = number.and_then(|n| self.population.numbers.binary_search(&n).ok());
        user.map_or(UNKNOWN, |user| user as u32)
    }

    fn message_of(&self, key: &str) -> u32 {
        let number = self.number(key, "-");
        number.filter(|n| (*n as usize) < self.messages.read().len()).unwrap_or(UNKNOWN)
    }

    /// How a client connects.
    pub(crate) fn config(&self, client: u32) -> Config {
        let user = self.user(self.population.devices[client as usize].user);
        Config::new(&self.url, user, self.device(client), self.token_provider(client))
    }

    pub(crate) fn token_provider(&self, client: u32) -> TokenProvider {
        let device = self.population.devices[client as usize];
        let (user, name, tokens) =
            (self.user(device.user), self.device(client), self.tokens.clone());
        TokenProvider::local(move || {
            let bearer = tokens(&user, &name).map_err(|error| format!("{error:#}"))?;
            Ok(chaski_client::Token { bearer, renew_in: None })
        })
    }

    pub(crate) fn note(&self, client: u32, entry: Entry) {
        match &entry {
            Entry::Shown(_) => drop(self.counts.shown.fetch_add(1, Relaxed)),
            Entry::Accepted { ask: Ask::Send { .. }, .. } => {
                self.counts.accepted.fetch_add(1, Relaxed);
            }
            _ => {}
        }
        self.note_at(client, self.timeline.now_us(), entry);
    }

    /// Notes what began before this moment; only a client itself notes what is its own, so its times
    /// only grow.
    pub(crate) fn note_at(&self, client: u32, at_us: u64, entry: Entry) {
        self.logs[client as usize].lock().push(Noted { at_us, entry });
    }

    /// The event as it is noted.
    pub(crate) fn shown(&self, position: u64, body: Option<Body>) -> Shown {
        let names = &self.names;
        let event = match body {
            Some(Body::NewMessage(message)) => self.message_event(&message),
            Some(Body::ChatUpdate(update)) => self.update_event(&update),
            Some(Body::MessageHidden(hidden)) => {
                Event::Hidden { chat: names.of(&hidden.chat_id), seq: hidden.seq }
            }
            Some(Body::MessageRejected(rejected)) => Event::Rejected {
                id: names.of(&rejected.message_id),
                message: self.message_of(&rejected.client_message_id),
                status: rejected.status,
            },
            Some(Body::ConnectionUpdate(change)) => Event::Connection {
                peer: self.user_of(&change.user_id),
                blocked: change.status() == v1::ConnectionStatus::Blocked,
                version: change.version,
            },
            Some(Body::Resync(resync)) => Event::Resync { from_position: resync.from_position },
            _ => Event::Other,
        };
        Shown { position, event }
    }

    pub(crate) fn message_event(&self, message: &v1::NewMessage) -> Event {
        let bytes: &[u8] = match &message.body {
            Some(v1::new_message::Body::Text(text)) => text.as_bytes(),
            Some(v1::new_message::Body::Ciphertext(bytes)) => bytes,
            None => &[],
        };
        Event::Message {
            chat: self.names.of(&message.chat_id),
            seq: message.seq,
            id: self.names.of(&message.message_id),
            message: self.message_of(&message.client_message_id),
            hash: hash(&message.sender_id, &message.sender_device_id, bytes),
        }
    }

    pub(crate) fn update_event(&self, update: &v1::ChatUpdate) -> Event {
        let mut members: Vec<u32> = update.participants.iter().map(|id| self.user_of(id)).collect();
        members.sort_unstable();
        Event::Update {
            chat: self.names.of(&update.chat_id),
            seq: update.seq,
            members: members.into(),
        }
    }

    /// All that was noted until now; without what is read in the end.
    pub(crate) fn evidence(&self) -> Evidence {
        let mut chats = self.population.chats.clone();
        for (chat, id) in chats.iter_mut().zip(&self.chat_ids) {
            chat.id = id.get().map(|id| self.names.of(id));
        }
        let clients = self.population.devices.iter().zip(&self.logs);
        let clients = clients
            .map(|(device, log)| ClientHistory { user: device.user, entries: log.lock().clone() });
        Evidence {
            users: self.population.users,
            chats,
            messages: self.messages.read().clone(),
            clients: clients.collect(),
            histories: Vec::new(),
            inboxes: Vec::new(),
        }
    }
}

/// The id of a person of a run.
pub(crate) fn user_id(run: &str, number: u32) -> String {
    format!("{run}-u{number}")
}

fn hash(sender: &str, device: &str, body: &[u8]) -> u64 {
    let mut sha = Sha256::new();
    for part in [sender.as_bytes(), device.as_bytes(), body] {
        sha.update((part.len() as u64).to_le_bytes());
        sha.update(part);
    }
    let digest = sha.finalize();
    u64::from_le_bytes(digest[..8].try_into().expect("a digest is longer"))
}
