//! What reads answer with: the generated types in the shape of the contract. `next` is there only
//! where there is more.

use chaski_proto::v1::{self, history_item::Item, server_frame::Body};
use serde::{Serialize, Serializer, ser::SerializeMap as _};
use serde_json::Value;

/// Why something is not there any more.
const EXPIRED: &str = "EXPIRED";

/// `{messages, firstSeq, next?}` of a chat.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct History {
    messages: Vec<Place>,
    first_seq: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

impl History {
    /// `next` goes on in the direction of the page: as `after` where it went forward, else as
    /// `before`.
    pub(crate) fn new(reply: v1::HistoryReply, forward: bool) -> Self {
        let seqs = reply.items.iter().map(|item| item.seq);
        let end = if forward { seqs.max() } else { seqs.min() };
        let next = end.filter(|_| reply.more).map(|seq| seq.to_string());
        let first_seq = reply.first_seq.to_string();
        Self { messages: reply.items.into_iter().map(Place).collect(), first_seq, next }
    }
}

/// One place in a chat: a message's own fields, or what else took the place.
struct Place(v1::HistoryItem);

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(place) = self;
        if let Some(Item::Message(message)) = &place.item {
            return message.serialize(serializer);
        }
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("seq", &place.seq.to_string())?;
        match &place.item {
            Some(Item::ChatUpdate(update)) => map.serialize_entry("chatUpdate", update)?,
            Some(Item::Hidden(_)) => map.serialize_entry("hidden", &true)?,
            Some(Item::Expired(_)) => map.serialize_entry("expired", &true)?,
            // Of a newer service: the place is taken, by what is not known.
            Some(Item::Message(_)) | None => {}
        }
        map.end()
    }
}

/// `{events, next?}` of a user.
#[derive(Serialize)]
pub(crate) struct Events {
    events: Vec<v1::ServerFrame>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

impl Events {
    /// As on a socket, what tells that older ones have expired is the first event.
    pub(crate) fn new(mut reply: v1::InboxReply) -> Self {
        let next = next_position(&reply);
        if let Some(resync) = resync(&reply) {
            let event = v1::ServerFrame::event(resync.from_position, Body::Resync(resync));
            reply.events.insert(0, event);
        }
        Self { events: reply.events, next }
    }
}

/// What has expired of a slice that was asked for from further back.
fn resync(reply: &v1::InboxReply) -> Option<v1::Resync> {
    let from_position = reply.expired_upto;
    (from_position > 0).then(|| v1::Resync { reason: EXPIRED.into(), from_position })
}

/// `{messages, next?, resync?}` of a user.
#[derive(Serialize)]
pub(crate) struct Messages {
    #[serde(skip_serializing_if = "Option::is_none")]
    resync: Option<v1::Resync>,
    messages: Vec<Placed>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// A message, or that one is hidden or has expired, and its place in the user's order.
#[derive(Serialize)]
struct Placed {
    position: String,
    #[serde(flatten)]
    what: What,
}

#[derive(Serialize)]
#[serde(untagged)]
enum What {
    Message(v1::NewMessage),
    #[serde(rename_all = "camelCase")]
    Hidden {
        chat_id: String,
        seq: String,
        hidden: bool,
    },
    #[serde(rename_all = "camelCase")]
    Expired {
        chat_id: String,
        seq: String,
        expired: bool,
    },
}

impl Messages {
    pub(crate) fn new(reply: v1::InboxReply) -> Self {
        let next = next_position(&reply);
        let placed = |frame: v1::ServerFrame| {
            let what = match frame.body? {
                Body::NewMessage(message) => What::Message(message),
                Body::MessageHidden(v1::MessageHidden { chat_id, seq, reason }) => {
                    let seq = seq.to_string();
                    match reason.as_str() {
                        EXPIRED => What::Expired { chat_id, seq, expired: true },
                        _ => What::Hidden { chat_id, seq, hidden: true },
                    }
                }
                _ => return None,
            };
            Some(Placed { position: frame.position.unwrap_or_default().to_string(), what })
        };
        let resync = resync(&reply);
        Self { resync, messages: reply.events.into_iter().filter_map(placed).collect(), next }
    }
}

/// Where the next page begins. A page may be empty although there is more: nothing in the part
/// that was looked at passed the filter.
fn next_position(reply: &v1::InboxReply) -> Option<String> {
    let last = reply.events.last().and_then(|event| event.position);
    reply.more.then(|| last.unwrap_or(reply.upto).to_string())
}

/// `{chats, next?}` of a user.
#[derive(Serialize)]
pub(crate) struct Chats {
    chats: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

impl Chats {
    pub(crate) fn new(reply: v1::ChatsReply) -> Self {
        let next = reply.chats.last().filter(|_| reply.more).map(|chat| chat.chat_id.clone());
        Self { chats: reply.chats.iter().map(chat_view).collect(), next }
    }
}

/// A chat. Without members where the service has left them out: a list that is long and empty
/// would say that nobody is in it.
pub(crate) fn chat_view(view: &v1::ChatView) -> Value {
    let mut json = serde_json::to_value(view).unwrap_or_default();
    if let Value::Object(fields) = &mut json
        && view.participants.is_empty()
    {
        fields.remove("participants");
        fields.remove("roles");
    }
    json
}

/// `{receipts}` of a chat.
#[derive(Serialize)]
pub(crate) struct Receipts {
    receipts: Vec<v1::Receipt>,
}

impl Receipts {
    pub(crate) fn new(reply: v1::ReceiptsReply) -> Self {
        Self { receipts: reply.receipts }
    }
}

/// `{devices}` of a user.
#[derive(Serialize)]
pub(crate) struct Devices {
    devices: Vec<v1::DeviceView>,
}

impl Devices {
    pub(crate) fn new(reply: v1::DevicesReply) -> Self {
        Self { devices: reply.devices }
    }
}

/// `{connections, next?}` of a user.
#[derive(Serialize)]
pub(crate) struct Connections {
    connections: Vec<v1::Connection>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

impl Connections {
    pub(crate) fn new(reply: v1::ConnectionsReply) -> Self {
        let last = reply.connections.last().filter(|_| reply.more);
        Self { next: last.map(|one| one.user_id.clone()), connections: reply.connections }
    }
}

/// `{url, host, epoch}`.
#[derive(Serialize)]
pub(crate) struct Host {
    url: String,
    host: String,
    epoch: String,
}

impl Host {
    pub(crate) fn new(place: v1::LocateReply) -> Self {
        Self { url: place.url, host: place.host, epoch: place.epoch.to_string() }
    }
}
