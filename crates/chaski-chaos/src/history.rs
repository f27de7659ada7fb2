//! What each client asked, was told and was shown, with its time: what the load writes, and the
//! judge, the report and the file of a run read. Knows no socket and no rule.

use chaski::replay::Name;
use serde::Serialize;
use std::sync::Arc;

/// A user, chat or message that is none of this run.
pub const UNKNOWN: u32 = u32::MAX;

/// All that a run saw.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// How many people there were.
    pub users: u32,
    /// The chats, as they were planned.
    pub chats: Vec<Chat>,
    /// The messages that were to be sent.
    pub messages: Vec<Message>,
    /// What each client noted.
    pub clients: Vec<ClientHistory>,
    /// The chats as their members read them in the end.
    pub histories: Vec<Read<HistoryRow>>,
    /// The inboxes as their owners read them in the end.
    pub inboxes: Vec<Read<Shown>>,
}

/// A chat of the run.
#[derive(Clone, Debug)]
pub struct Chat {
    /// Its id, once it was made.
    pub id: Option<Name>,
    /// Whether people come and go; a chat of two has no changes.
    pub is_group: bool,
    /// Who was in it when it was made; the first of them made it.
    pub members: Vec<u32>,
}

/// A message of the run.
#[derive(Clone, Copy, Debug)]
pub struct Message {
    /// Where it belongs.
    pub chat: u32,
    /// Whose it is.
    pub sender: u32,
    /// The client that sends it.
    pub client: u32,
    /// Of sender, device and body: [`Event::Message`] must have the same.
    pub hash: u64,
}

/// A client: one device.
#[derive(Clone, Debug, Default)]
pub struct ClientHistory {
    /// Whose it is.
    pub user: u32,
    /// In the order it happened.
    pub entries: Vec<Noted>,
}

/// What was read in the end.
#[derive(Clone, Debug)]
pub struct Read<Row> {
    /// Who read it.
    pub user: u32,
    /// Which chat; of an inbox [`UNKNOWN`].
    pub chat: u32,
    /// When it was complete.
    pub at_us: u64,
    /// In the order it was given; `None`: could not be read.
    pub rows: Option<Vec<Row>>,
}

/// A place of a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryRow {
    /// The place.
    pub seq: u64,
    /// What stands there: a message, an update or what was hidden.
    pub event: Event,
}

/// An entry and its time on the [`Timeline`](crate::fault::Timeline).
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Noted {
    /// When it was noted.
    pub at_us: u64,
    /// What.
    #[serde(flatten)]
    pub entry: Entry,
}

/// What a client notes.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "type")]
pub enum Entry {
    /// Given to the client; before that it cannot have had an effect. Again after `Unknown`.
    Invoked {
        /// What.
        ask: Ask,
    },
    /// Answered.
    Accepted {
        /// What.
        ask: Ask,
        /// The message's id, the chat's id; 0 where there is none.
        id: Name,
    },
    /// Refused: had no effect, unless an earlier try had one.
    Refused {
        /// What.
        ask: Ask,
        /// As of HTTP.
        status: u32,
        /// For programs.
        code: String,
    },
    /// No answer: it may have happened. The client asks again.
    Unknown {
        /// What.
        ask: Ask,
    },
    /// An event that is news to the client.
    Shown(Shown),
    /// An event at or below the client's highest position.
    Repeated(Shown),
    /// `welcome`.
    Connected {
        /// Where it resumes.
        position: u64,
    },
    /// The connection ended or did not come about.
    Disconnected {
        /// When the last frame came.
        heard_us: u64,
        /// Why.
        cause: String,
    },
    /// The client ended by itself or for good; what was not answered is unknown.
    Away {
        /// The error, where it did not mean to.
        error: Option<String>,
    },
    /// A new client of the device begins.
    Back {
        /// What it says in `hello`.
        resume_after: Option<u64>,
    },
    /// It reads nothing from here on.
    Stalls,
    /// It reads again.
    Reads,
}

/// What a client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "what")]
pub enum Ask {
    /// That a chat is made.
    Create {
        /// Which.
        chat: u32,
    },
    /// That somebody is in a chat or is not.
    Member {
        /// Which.
        chat: u32,
        /// Who.
        user: u32,
        /// Added or removed.
        is_in: bool,
    },
    /// That somebody is blocked or is not.
    Block {
        /// Who.
        peer: u32,
        /// Blocked or lifted.
        on: bool,
    },
    /// That a message is sent.
    Send {
        /// Which.
        message: u32,
    },
}

/// An event with its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    /// In the user's order.
    pub position: u64,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

/// What a durable event says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "event")]
pub enum Event {
    /// `newMessage`.
    Message {
        /// The chat's id.
        chat: Name,
        /// In the chat's order.
        seq: u64,
        /// The message's id.
        id: Name,
        /// Which message its key names; [`UNKNOWN`]: none.
        message: u32,
        /// Of what was shown: sender, device and body.
        hash: u64,
    },
    /// `chatUpdate`.
    Update {
        /// The chat's id.
        chat: Name,
        /// In the chat's order.
        seq: u64,
        /// Who is in it from here on, in order.
        members: Arc<[u32]>,
    },
    /// `messageHidden`.
    Hidden {
        /// The chat's id.
        chat: Name,
        /// In the chat's order.
        seq: u64,
    },
    /// `messageRejected`.
    Rejected {
        /// The message's id.
        id: Name,
        /// Which message its key names; [`UNKNOWN`]: none.
        message: u32,
        /// As of HTTP.
        status: u32,
    },
    /// `connectionUpdate`.
    Connection {
        /// The other one.
        peer: u32,
        /// Whether the other one is blocked from here on.
        blocked: bool,
        /// As the server counts.
        version: u64,
    },
    /// `resync`.
    Resync {
        /// Where it goes on.
        from_position: u64,
    },
    /// An event that the harness does not know.
    Other,
}

impl Event {
    /// The chat's id and the place in it, of what has one.
    #[must_use]
    pub fn place(&self) -> Option<(Name, u64)> {
        match self {
            Self::Message { chat, seq, .. }
            | Self::Update { chat, seq, .. }
            | Self::Hidden { chat, seq } => Some((*chat, *seq)),
            _ => None,
        }
    }
}
