//! The calls of HTTP: one table, in the order of the document. Must not know how a document is
//! written.

use std::collections::BTreeSet;

/// A method of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Method {
    /// Looks.
    Get,
    /// Makes.
    Post,
    /// Changes a part.
    Patch,
    /// Sets.
    Put,
    /// Ends.
    Delete,
}

/// A call.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// The operation's id.
    pub id: &'static str,
    /// The method.
    pub method: Method,
    /// The path with its parameters: `/v1/chats/{chatId}`.
    pub path: &'static str,
    /// Groups calls.
    pub tag: &'static str,
    /// In one line.
    pub summary: &'static str,
    /// What else there is to know; may be empty.
    pub more: &'static str,
    /// Beside those of the path.
    pub parameters: &'static [Parameter],
    /// The body.
    pub request: Option<Shape>,
    /// What it answers where it does as asked.
    pub answers: &'static [Answer],
    /// Codes beside those that every call may answer with.
    pub refusals: &'static [(u16, &'static str)],
}

/// What a call may do well with.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// What it means.
    pub means: &'static str,
    /// The body.
    pub body: Option<Shape>,
    /// With a `Chaski-Token`.
    pub token: bool,
}

/// A parameter of the query or a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parameter {
    /// How many at most.
    Limit,
    /// Go on after this one.
    After(&'static str),
    /// Go back from this seq.
    Before,
    /// The version that the caller knows.
    BasedOn,
    /// `Chaski-Token`: a write that the answer must show.
    Seeing,
}

/// The form of a body.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// A message of the schema.
    Whole(&'static str),
    /// A message of the schema, of which some fields are left out.
    Without(&'static str, &'static [&'static str]),
    /// A page: an object with a list.
    Page {
        /// The list's name.
        list: &'static str,
        /// What it holds.
        of: Item,
        /// With `next` where there may be more.
        next: bool,
    },
    /// An object without fields.
    Nothing,
}

/// What a page lists.
#[derive(Clone, Copy, Debug)]
pub enum Item {
    /// A message of the schema.
    Message(&'static str),
    /// A place in a chat's history.
    HistoryItem,
    /// A message and its position.
    PlacedMessage,
    /// An event and its position.
    Event,
}

use Parameter::{After, BasedOn, Before, Limit, Seeing};
use Shape::{Page, Whole, Without};

const fn ok(means: &'static str, body: Shape) -> Answer {
    Answer { status: 200, means, body: Some(body), token: false }
}

const fn written(status: u16, means: &'static str, body: Shape) -> Answer {
    Answer { status, means, body: Some(body), token: true }
}

const CHAT_ID: Shape = Without("ChatCreated", &["token"]);
const CONNECTION: Shape = Whole("Connection");
const MESSAGES: Shape = Page { list: "messages", of: Item::PlacedMessage, next: true };
const SLICE: &[Parameter] =
    &[After("A position: what comes after it in the user's order."), Limit, Seeing];
const EXPIRY: &str = "`resync` is there where what was asked for begins before what inboxes keep: \
    the page begins behind its `fromPosition`, and what was before is in the histories of the chats \
    only.";
const IN_CHAT: &[(u16, &str)] = &[(403, "not_a_member"), (404, "no_such_chat")];
const MANAGED: &[(u16, &str)] = &[
    (403, "not_a_member"),
    (403, "not_allowed"),
    (403, "direct_chat"),
    (404, "no_such_chat"),
    (404, "no_such_member"),
    (409, "chat_full"),
    (409, "last_admin"),
    (413, "too_large"),
    (503, "outcome_unknown"),
];

/// A call that looks.
const fn look(
    id: &'static str,
    path: &'static str,
    tag: &'static str,
    summary: &'static str,
    answers: &'static [Answer],
) -> Route {
    let (method, more, request) = (Method::Get, "", None);
    Route { id, method, path, tag, summary, more, parameters: &[], request, answers, refusals: &[] }
}

/// Every call under `/v1`, but the WebSocket's upgrade.
#[rustfmt::skip]
pub const ROUTES: &[Route] = &[
    Route {
        id: "createChat", method: Method::Post, path: "/v1/chats", tag: "chats",
        summary: "Make a chat",
        more: "Answered with the chat's own verdict. The caller is a member whether listed or not, \
            counts among the 100 and is its first admin. `clientChatId` makes a retry safe; the same \
            with other participants, name or `historyDays` is refused.",
        parameters: &[],
        request: Some(Whole("CreateChat")),
        answers: &[
            written(201, "The chat was made.", CHAT_ID),
            written(200, "It had been made before, by the same request.", CHAT_ID),
        ],
        refusals: &[(409, "id_reused"), (413, "too_large"), (503, "outcome_unknown")],
    },
    Route {
        parameters: &[After("A chat id: those that come after it."), Limit, Seeing],
        ..look("listChats", "/v1/chats", "chats", "The caller's chats",
            &[ok("A page.", Page { list: "chats", of: Item::Message("ChatView"), next: true })])
    },
    Route {
        parameters: &[Seeing], refusals: IN_CHAT,
        ..look("getChat", "/v1/chats/{chatId}", "chats", "One chat, with its participants",
            &[ok("The chat.", Whole("ChatView"))])
    },
    Route {
        id: "renameChat", method: Method::Patch, path: "/v1/chats/{chatId}", tag: "chats",
        summary: "Give a chat another name",
        more: "200 also where the name is the same; then no seq is used.",
        parameters: &[],
        request: Some(Without("ModifyChat", &["chatId"])),
        answers: &[written(200, "The chat has this name.", CHAT_ID)],
        refusals: MANAGED,
    },
    Route {
        id: "changeParticipant", method: Method::Patch, path: "/v1/chats/{chatId}/participants",
        tag: "chats",
        summary: "Add, remove, promote or demote a participant",
        more: "To leave is to REMOVE oneself. 200 also where nothing changes; then no seq is used. \
            The membership of a 1:1 chat is fixed.",
        parameters: &[],
        request: Some(Without("ModifyChatParticipants", &["chatId"])),
        answers: &[written(200, "It is so.", CHAT_ID)],
        refusals: MANAGED,
    },
    Route {
        parameters: &[After("A seq: what comes after it."), Before, Limit, Seeing],
        refusals: IN_CHAT,
        more: "In the chat's order, the newest page where neither `after` nor `before` is given; \
            `next` goes into the parameter that was used, `before` where there was none. What is \
            before `firstSeq` has expired: a page that would begin there begins at `firstSeq`.",
        ..look("getHistory", "/v1/chats/{chatId}/messages", "messages", "A chat's history",
            &[ok("A page.", Page { list: "messages", of: Item::HistoryItem, next: true })])
    },
    Route {
        parameters: &[Seeing], refusals: IN_CHAT,
        ..look("getReceipts", "/v1/chats/{chatId}/receipts", "messages",
            "How far the members have received and read",
            &[ok("The marks of all members.",
                Page { list: "receipts", of: Item::Message("Receipt"), next: false })])
    },
    Route {
        id: "sendMessage", method: Method::Post, path: "/v1/messages", tag: "messages",
        summary: "Send a message",
        more: "Answered once the log has it on all in-sync replicas; the chat may still refuse it \
            (event `messageRejected`). `clientMessageId` makes a retry safe for at least 7 days.",
        parameters: &[],
        request: Some(Whole("SendMessage")),
        answers: &[written(200, "Accepted.", Without("MessageAccepted", &["token"]))],
        refusals: &[(403, "you_blocked"), (403, "blocked"), (413, "too_large"), (503, "outcome_unknown")],
    },
    Route {
        parameters: SLICE, more: EXPIRY,
        ..look("getSent", "/v1/messages/sent", "messages", "What the caller has sent",
            &[ok("A page.", MESSAGES)])
    },
    Route {
        parameters: SLICE, more: EXPIRY,
        ..look("getReceived", "/v1/messages/received", "messages", "What the caller was sent",
            &[ok("A page.", MESSAGES)])
    },
    Route {
        parameters: SLICE, more: EXPIRY,
        ..look("getUnreceived", "/v1/messages/unreceived", "messages",
            "What the token's device has not acknowledged", &[ok("A page.", MESSAGES)])
    },
    Route {
        parameters: SLICE,
        more: "The same events as over WebSocket, at the same positions. Where older ones have \
            expired, the first event is `resync`: what came up to its `fromPosition` is in the \
            histories of the chats only.",
        ..look("getInbox", "/v1/inbox", "messages", "The caller's events",
            &[ok("A page.", Page { list: "events", of: Item::Event, next: true })])
    },
    look("listDevices", "/v1/devices", "devices", "The caller's devices",
        &[ok("All of them.", Page { list: "devices", of: Item::Message("DeviceView"), next: false })]),
    Route {
        id: "renameDevice", method: Method::Patch, path: "/v1/devices/{deviceId}", tag: "devices",
        summary: "Give a device a name", more: "",
        parameters: &[],
        request: Some(Without("RenameDeviceRequest", &["caller", "deviceId"])),
        answers: &[ok("The device.", Whole("DeviceView"))],
        refusals: &[(404, "no_such_device"), (413, "too_large"), (503, "outcome_unknown")],
    },
    Route {
        id: "revokeDevice", method: Method::Delete, path: "/v1/devices/{deviceId}", tag: "devices",
        summary: "Revoke a device",
        more: "Its tokens issued up to now are refused everywhere within a second, and its sockets \
            are closed with 4501.",
        parameters: &[],
        request: None,
        answers: &[ok("Revoked.", Shape::Nothing)],
        refusals: &[(404, "no_such_device"), (503, "outcome_unknown")],
    },
    Route {
        parameters: &[After("A user id: those that come after it."), Limit],
        ..look("listConnections", "/v1/connections", "connections", "The caller's contacts and blocks",
            &[ok("A page.", Page { list: "connections", of: Item::Message("Connection"), next: true })])
    },
    Route {
        id: "setConnection", method: Method::Put, path: "/v1/connections/{userId}",
        tag: "connections",
        summary: "Make a user a contact, or block them",
        more: "Already so: the same answer with the present version. 409 with the present state \
            where `basedOnVersion` is old, or missing where a block would be lifted, and, where \
            the operators want it so, while not every device has acknowledged a block that would \
            be lifted (`block_not_synced`). Once BLOCKED \
            is answered, nothing that the user sends after the answer reaches the caller.",
        parameters: &[],
        request: Some(Without("SetConnection", &["userId"])),
        answers: &[written(200, "It is so.", CONNECTION)],
        refusals: &[
            (409, "connection_conflict"),
            (409, "block_not_synced"),
            (413, "too_large"),
            (503, "outcome_unknown"),
        ],
    },
    Route {
        id: "endConnection", method: Method::Delete, path: "/v1/connections/{userId}",
        tag: "connections",
        summary: "End a contact or lift a block",
        more: "As `PUT`, with `basedOnVersion` in the query.",
        parameters: &[BasedOn],
        request: None,
        answers: &[written(200, "The user is neither contact nor blocked.", CONNECTION)],
        refusals: &[
            (409, "connection_conflict"),
            (409, "block_not_synced"),
            (503, "outcome_unknown"),
        ],
    },
    Route {
        more: "A client connects there, which saves a redirection.",
        ..look("locateHost", "/v1/hosts/me", "hosts", "The delivery host that serves the caller",
            &[ok("The host.", Without("LocateReply", &["partition"]))])
    },
];

/// Codes that every call may answer with.
const ALWAYS: &[(u16, &str)] =
    &[(400, "invalid"), (401, "unauthenticated"), (401, "token_expired"), (503, "unavailable")];

impl Route {
    /// Statuses and codes of its refusals.
    pub fn problems(&self) -> impl Iterator<Item = (u16, &'static str)> {
        ALWAYS.iter().chain(self.refusals).copied()
    }

    /// All statuses that it may answer with.
    #[must_use]
    pub fn statuses(&self) -> BTreeSet<u16> {
        let answers = self.answers.iter().map(|answer| answer.status);
        answers.chain(self.problems().map(|(status, _)| status)).collect()
    }

    /// Whether a path, without its query, is one of this route.
    #[must_use]
    pub fn takes(&self, path: &str) -> bool {
        let path = path.split('?').next().unwrap_or_default();
        let (mut ours, mut theirs) = (self.path.split('/'), path.split('/'));
        loop {
            match (ours.next(), theirs.next()) {
                (None, None) => return true,
                (Some(name), Some(value)) if name.starts_with('{') && !value.is_empty() => {}
                (Some(ours), Some(theirs)) if ours == theirs => {}
                _ => return false,
            }
        }
    }
}
