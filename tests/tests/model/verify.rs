//! The end of a case: every device of a user was shown exactly the reference's events, in one
//! order at the same positions (L3, L4, L5), blocks are decided by place (L7), and inbox, history,
//! chats, connections and receipts over HTTP say the same.
//!
//! Must not know: how the case came here.

use super::{
    case::{Case, Content, client_message_id, connection, content, reason, status, title},
    chat::{Item, Member, Message, Name, Update, User},
    patience,
    reference::{Fate, Model, Rejection, Status},
};
use chaski_proto::v1::{self, new_message, server_frame::Body};
use reqwest::Method;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Which places of chats a user's devices were shown, and whether as hidden.
type Shown = BTreeMap<(Name, u64), bool>;

pub(crate) async fn verify(mut case: Case, model: &Model) {
    let mut all = Vec::new();
    for user in 0..model.users {
        let events = devices(&mut case, model, user).await;
        all.push((in_order(&case, model, user, &events), events));
    }
    for (user, (shown, events)) in all.iter().enumerate() {
        let token = case.users[user].token.clone();
        eventually("the inbox", async || inbox(&case, &token, events).await).await;
        eventually("connections", async || connections(&case, model, user).await).await;
        for name in model.chats.keys() {
            eventually("history", async || history(&case, model, user, *name, shown).await).await;
        }
    }
    loop {
        let crashes = case.server.crashes();
        marks(&mut case, model).await;
        let right = async {
            for name in model.chats.keys() {
                eventually("receipts", async || receipts(&case, model, *name, &all).await).await;
                for user in 0..model.users {
                    eventually("chat", async || chat(&case, model, user, *name).await).await;
                }
            }
        };
        let crashed = async {
            while case.server.crashes() == crashes {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::select! {
            () = right => return,
            // Marks that are not stored yet may be lost, and are said again.
            () = crashed => {}
        }
    }
}

/// What is stored comes a little after what is shown.
async fn eventually(what: &str, check: impl AsyncFn() -> Result<(), String>) {
    let began = tokio::time::Instant::now();
    while let Err(wrong) = check().await {
        assert!(began.elapsed() < patience(), "{what}: {wrong}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn equal<T: PartialEq + std::fmt::Debug>(
    what: &str,
    found: &T,
    expected: &T,
) -> Result<(), String> {
    match found == expected {
        true => Ok(()),
        false => Err(format!("{what}: {found:#?} must be {expected:#?}")),
    }
}

/// What all devices of a user were shown.
async fn devices(case: &mut Case, model: &Model, user: User) -> BTreeMap<u64, Body> {
    let count = model.expected[user].count();
    for device in &mut case.users[user].devices {
        device.catch_up(&case.server, count).await;
        let ping = v1::client_frame::Command::Ping(v1::Ping {});
        while device.command(&case.server, ping.clone()).await.is_err() {}
        assert_eq!(device.shown.len(), count, "L2: more than there is: {:#?}", device.shown);
    }
    let mut devices = case.users[user].devices.iter();
    let first = devices.next().expect("everybody has one").shown.clone();
    for other in devices {
        assert_eq!(first, other.shown, "L4: two devices of one user");
    }
    first
}

/// Compares events with the reference's, chat by chat, and blocks with their places.
fn in_order(case: &Case, model: &Model, user: User, events: &BTreeMap<u64, Body>) -> Shown {
    let expected = &model.expected[user];
    let names: BTreeMap<String, Name> =
        expected.chats.keys().map(|name| (case.chat_id(*name).to_string(), *name)).collect();
    let mut next: BTreeMap<Name, usize> = BTreeMap::new();
    let mut rejections = expected.rejections.clone();
    let mut connected = expected.connected.iter();
    let mut blocked: BTreeSet<User> = BTreeSet::new();
    let mut shown = Shown::new();
    for (position, body) in events {
        let mut place = |chat_id: &str, seq: u64| {
            let name = *names.get(chat_id).unwrap_or_else(|| panic!("not their chat: {body:?}"));
            let next = next.entry(name).or_default();
            let seen = expected.chats[&name].get(*next);
            let seen = seen.unwrap_or_else(|| panic!("not for them: {body:?}"));
            assert_eq!(seen.seq, seq, "L3: at {position}: {body:?}");
            *next += 1;
            (name, seen, model.chats[&name].item(seq))
        };
        match body {
            Body::NewMessage(m) => {
                let (name, seen, item) = place(&m.chat_id, m.seq);
                let message = item.message().expect("a message by the reference");
                assert_eq!(as_sent(case, name, m.seq, message), without_time(m), "L3");
                assert!(seen.fate != Fate::Hidden, "L7: must be hidden: {m:?}");
                assert!(!blocked.contains(&message.sender), "L7: behind the block: {m:?}");
                shown.insert((name, m.seq), false);
            }
            Body::MessageHidden(m) => {
                let (name, seen, item) = place(&m.chat_id, m.seq);
                let message = item.message().expect("a message by the reference");
                assert!(seen.fate != Fate::Shown, "L7: must be shown: {m:?}");
                assert!(blocked.contains(&message.sender), "L7: without a block: {m:?}");
                shown.insert((name, m.seq), true);
            }
            Body::ChatUpdate(update) => {
                let (name, seen, item) = place(&update.chat_id, update.seq);
                let Item::Update(item) = item else { panic!("not an update: {update:?}") };
                assert_eq!(as_told(case, name, update.seq, item, seen.from), *update, "L3");
                shown.insert((name, update.seq), false);
            }
            Body::MessageRejected(told) => {
                let of = rejections.iter().position(|r| is_of(case, model, user, r, told));
                let of = of.unwrap_or_else(|| panic!("not among {rejections:?}: {told:?}"));
                rejections.remove(of);
            }
            Body::ConnectionUpdate(update) => {
                let expected = connected.next().expect("no change of connections");
                let peer = case.id(expected.peer);
                assert_eq!((peer, expected.version), (update.user_id.as_str(), update.version));
                assert_eq!(expected.status, status(update.status()));
                assert_eq!(expected.device, update.by_device_id);
                match expected.status {
                    Status::Blocked => blocked.insert(expected.peer),
                    _ => blocked.remove(&expected.peer),
                };
            }
            other => panic!("not an event to come: {other:?}"),
        }
    }
    shown
}

fn is_of(
    case: &Case,
    model: &Model,
    user: User,
    rejection: &Rejection,
    told: &v1::MessageRejected,
) -> bool {
    let Rejection { chat, key, status, by } = rejection;
    let reason_is_right = *status != 422 || {
        let items = &model.chats[chat].items;
        let of = |item: &Item| item.message().is_some_and(|m| (m.sender, m.key) == (user, *key));
        let seq = items.iter().position(of).expect("a refused message") as u64 + 1;
        told.reason == reason(seq)
    };
    told.chat_id == case.chat_id(*chat).as_str()
        && told.message_id == case.message_id(user, *chat, *key)
        && told.client_message_id == client_message_id(*key)
        && told.status == u32::from(*status)
        && told.by_user_id == by.map_or("", |by| case.id(by))
        && reason_is_right
}

/// The message as everybody must be shown it.
fn as_sent(case: &Case, name: Name, seq: u64, message: &Message) -> v1::NewMessage {
    let Message { sender, device, key, text, .. } = message;
    v1::NewMessage {
        chat_id: case.chat_id(name).to_string(),
        seq,
        message_id: case.message_id(*sender, name, *key),
        client_message_id: client_message_id(*key),
        sender_id: case.id(*sender).to_owned(),
        sender_device_id: device.clone(),
        body: Some(match content(*key, *text) {
            Content::Text(text) => new_message::Body::Text(text),
            Content::Ciphertext(bytes) => new_message::Body::Ciphertext(bytes.into()),
        }),
        attachments: Vec::new(),
        sent_at: None,
        accepted_at: None,
    }
}

fn without_time(message: &v1::NewMessage) -> v1::NewMessage {
    assert!(message.accepted_at.is_some(), "{message:?}");
    v1::NewMessage { accepted_at: None, ..message.clone() }
}

fn as_told(case: &Case, name: Name, seq: u64, update: &Update, from: u64) -> v1::ChatUpdate {
    let role = |admin| if admin { v1::Role::Admin } else { v1::Role::Member };
    v1::ChatUpdate {
        chat_id: case.chat_id(name).to_string(),
        seq,
        participants: update.members.iter().map(|(user, _)| case.id(*user).to_owned()).collect(),
        roles: update.members.iter().map(|(_, admin)| role(*admin).into()).collect(),
        name: title(update.title),
        version: update.version,
        visible_from: from,
    }
}

/// All pages of a list.
async fn pages(case: &Case, token: &str, path: &str, list: &str, limit: usize) -> Vec<Value> {
    let (mut items, mut after) = (Vec::new(), "0".to_owned());
    loop {
        let page = format!("{path}?after={after}&limit={limit}");
        let mut page = case.server.get(token, &page).await;
        let found = page[list].as_array_mut().unwrap_or_else(|| panic!("{path} has no {list}"));
        assert!(found.len() <= limit);
        items.append(found);
        match page.get("next").and_then(Value::as_str) {
            Some(next) => next.clone_into(&mut after),
            None => return items,
        }
    }
}

async fn inbox(case: &Case, token: &str, events: &BTreeMap<u64, Body>) -> Result<(), String> {
    let limit = if events.len().is_multiple_of(3) { 4 } else { 500 };
    let stored = pages(case, token, "/v1/inbox", "events", limit).await;
    let stored: Result<Vec<v1::ServerFrame>, _> =
        stored.into_iter().map(serde_json::from_value).collect();
    let event = |(position, body): (&u64, &Body)| v1::ServerFrame::event(*position, body.clone());
    equal("L4", &stored.map_err(|e| e.to_string())?, &events.iter().map(event).collect())
}

async fn connections(case: &Case, model: &Model, user: User) -> Result<(), String> {
    let list = case.server.get(&case.users[user].token, "/v1/connections?limit=500").await;
    let list = list["connections"].as_array().expect("a list");
    let found = list.iter().map(|item| {
        let peer = item["userId"].as_str().expect("whom").to_owned();
        (peer, connection(item))
    });
    let found: BTreeMap<_, _> = found.filter(|(_, (status, _))| *status != Status::None).collect();
    let of = model
        .connections
        .iter()
        .filter(|((by, _), (status, _))| *by == user && *status != Status::None);
    equal("L7", &found, &of.map(|((_, peer), c)| (case.id(*peer).to_owned(), *c)).collect())
}

async fn history(
    case: &Case,
    model: &Model,
    user: User,
    name: Name,
    shown: &Shown,
) -> Result<(), String> {
    let (chat, token) = (&model.chats[&name], &case.users[user].token);
    let chat_id = case.chat_id(name).to_string();
    let path = format!("/v1/chats/{chat_id}/messages");
    let spans = chat.visible(user);
    if spans.is_empty() {
        let Ok((status, body)) = case.server.call(token, (Method::GET, &path), None).await else {
            return Err("not now".into());
        };
        return match status {
            403 | 404 => Ok(()),
            _ => Err(format!("a stranger reads: {status} {body}")),
        };
    }
    let limit = if chat.last_seq().is_multiple_of(2) { 3 } else { 500 };
    let items = pages(case, token, &path, "messages", limit).await;
    let seq_of = |item: &Value| item["seq"].as_str().and_then(|seq| seq.parse().ok());
    let seqs: Vec<u64> = items.iter().filter_map(seq_of).collect();
    let visible = spans.into_iter().flat_map(|(first, last)| first..=last).collect();
    equal("L3: seqs", &seqs, &visible)?;
    for (seq, mut item) in seqs.into_iter().zip(items) {
        let hidden = item["hidden"] == true;
        let expected = chat.item(seq);
        // Who comes back into a chat with its whole history has what they saw before from before
        // their join, as anybody who comes (docs/guarantees.md).
        let again = chat.all && chat.ever_left.contains(&user) && seq < chat.joined(user);
        let blocked = |m: &Message| model.ever_blocked.contains(&(user, m.sender));
        let must = match (shown.get(&(name, seq)), expected.message()) {
            (Some(false), Some(message)) if again && blocked(message) => None,
            (Some(hidden), _) => Some(*hidden),
            (None, Some(message)) => unseen_fate(model, user, message),
            (None, None) => Some(false),
        };
        if must.is_some_and(|must| must != hidden) {
            return Err(format!("L7: {user} reads {seq} of {name:?}, {expected:?}: {item}"));
        }
        match expected {
            _ if hidden => {}
            Item::Message(message) => {
                let found: v1::NewMessage =
                    serde_json::from_value(item).map_err(|e| e.to_string())?;
                let expected = as_sent(case, name, seq, message);
                equal("L3: message", &without_time(&found), &expected)?;
            }
            Item::Update(update) => {
                let found: v1::ChatUpdate =
                    serde_json::from_value(item["chatUpdate"].take()).map_err(|e| e.to_string())?;
                let expected = as_told(case, name, seq, update, found.visible_from);
                equal("L3: update", &found, &expected)?;
            }
        }
    }
    Ok(())
}

/// A message from before the user joined has no place in their order: what a blocked user sent
/// while blocked must not reach the blocker, and nothing of whom they block now does; what was sent
/// to somebody who never blocked is shown. Of the rest the time decides, to the millisecond.
fn unseen_fate(model: &Model, user: User, message: &Message) -> Option<bool> {
    let (status, _) = model.connection(user, message.sender);
    if status == Status::Blocked || message.blocked_by.contains(&user) {
        return Some(true);
    }
    (!model.ever_blocked.contains(&(user, message.sender))).then_some(false)
}

async fn chat(case: &Case, model: &Model, user: User, name: Name) -> Result<(), String> {
    let chat = &model.chats[&name];
    let Some(this) = chat.member(user) else { return Ok(()) };
    let path = format!("/v1/chats/{}", case.chat_id(name));
    let view = case.server.get(&case.users[user].token, &path).await;
    let role = |admin| if admin { "ADMIN" } else { "MEMBER" };
    let list = |of: &str| view[of].as_array().cloned().unwrap_or_default();
    let mut found: Vec<_> = list("participants").into_iter().zip(list("roles")).collect();
    let member = |m: &Member| (case.id(m.user).into(), role(m.admin).into());
    let mut expected: Vec<(Value, Value)> = chat.members.iter().map(member).collect();
    if let Name::Direct(..) = name {
        // Nobody says who comes first.
        found.sort_by_key(|(id, _)| id.to_string());
        expected.sort_by_key(|(id, _)| id.to_string());
    }
    equal("participants", &found, &expected)?;
    if let Name::Group(..) = name {
        equal("name", &view["name"], &title(chat.title).into())?;
    }
    equal("visibleFrom", &view["visibleFrom"], &this.from.to_string().into())?;
    equal("lastSeq", &view["lastSeq"], &chat.last_seq().to_string().into())?;
    if !chat.ever_left.contains(&user) {
        let read = chat.read.get(&user).copied().unwrap_or_default();
        equal("readSeq", &view["readSeq"], &read.to_string().into())?;
    }
    Ok(())
}

/// All that was shown is acknowledged, and marks that a crash may have swallowed are said again.
async fn marks(case: &mut Case, model: &Model) {
    for user in 0..model.users {
        for n in 0..case.users[user].devices.len() {
            while case.users[user].devices[n].ack(&case.server).await.is_err() {}
        }
        for (name, chat) in &model.chats {
            if let (Some(seq), true) = (chat.read.get(&user), case.server.crashes() > 0) {
                case.read((user, 0), *name, *seq).await;
            }
        }
    }
}

async fn receipts(
    case: &Case,
    model: &Model,
    name: Name,
    all: &[(Shown, BTreeMap<u64, Body>)],
) -> Result<(), String> {
    let chat = &model.chats[&name];
    let Some(reader) = chat.members.first() else { return Ok(()) };
    let path = format!("/v1/chats/{}/receipts", case.chat_id(name));
    let found = case.server.get(&case.users[reader.user].token, &path).await;
    let found: Vec<v1::Receipt> =
        serde_json::from_value(found["receipts"].clone()).map_err(|e| e.to_string())?;
    for member in chat.members.iter().filter(|m| !chat.ever_left.contains(&m.user)) {
        let user = member.user;
        let receipt = found.iter().find(|r| r.user_id == case.id(user));
        let (delivered, read) = receipt.map_or((0, 0), |r| (r.delivered_seq, r.read_seq));
        let must_read = chat.read.get(&user).copied().unwrap_or_default();
        equal("read", &read, &must_read)?;
        let others = |seq| chat.item(seq).message().is_some_and(|m| m.sender != user);
        let taken = all[user]
            .0
            .iter()
            .filter(|((of, seq), hidden)| *of == name && !**hidden && others(*seq));
        let most = taken.map(|((_, seq), _)| *seq).max().unwrap_or_default().max(read);
        // What a connection had not acknowledged when it ended is covered by later marks only.
        let cut = case.users[user].devices.iter().any(|device| device.was_cut);
        let exact = !cut && case.server.crashes() == case.crashes;
        let right = if exact { delivered == most } else { (read..=most).contains(&delivered) };
        if !right {
            let wrong = "has delivered";
            return Err(format!("{user} {wrong} {delivered}, not {most}, of {name:?}: {found:?}"));
        }
    }
    Ok(())
}
