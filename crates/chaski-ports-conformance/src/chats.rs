//! The cases of the chat store.

use crate::{Beside, Fixture};
use chaski_core::{ChatId, UserId};
use chaski_ports::{ChatRow, ChatStore, MarkRow, MembershipRow, StoreBatch};
use std::sync::Arc;

type Store = Arc<Beside<dyn ChatStore>>;

/// A chat of this case alone: backends that cannot be emptied are isolated by random ids.
fn some_chat() -> ChatId {
    format!("g.{}", uuid::Uuid::new_v4().simple()).parse().expect("a legal id")
}

fn somebody() -> UserId {
    uuid::Uuid::new_v4().simple().to_string().parse().expect("a legal id")
}

fn chat_row(chat: &ChatId, version: u64) -> ChatRow {
    ChatRow { chat: *chat, version, state: format!("state {version}").into() }
}

fn membership(user: &UserId, chat: &ChatId, version: u64) -> MembershipRow {
    let state = format!("spans {version}").into();
    MembershipRow { user: user.clone(), chat: *chat, version, state }
}

fn mark(chat: &ChatId, user: &UserId, version: u64) -> MarkRow {
    MarkRow { chat: *chat, user: user.clone(), version, state: format!("mark {version}").into() }
}

async fn open<F: Fixture<Port = Beside<dyn ChatStore>>>(fixture: &F) -> Store {
    fixture.open().await.expect("open")
}

async fn write(store: &Store, batch: StoreBatch) {
    store.messages.write(batch).await.expect("write");
}

/// Each of the versions, of a chat, a membership and a mark.
fn rows(chat: &ChatId, user: &UserId, versions: &[u64]) -> StoreBatch {
    StoreBatch {
        chats: versions.iter().map(|v| chat_row(chat, *v)).collect(),
        memberships: versions.iter().map(|v| membership(user, chat, *v)).collect(),
        marks: versions.iter().map(|v| mark(chat, user, *v)).collect(),
        ..StoreBatch::default()
    }
}

/// All rows of the two are of this version, or not there.
async fn check(store: &Store, chat: &ChatId, user: &UserId, version: Option<u64>) {
    let chats = &store.port;
    let found = chats.chat(chat).await.expect("chat");
    assert_eq!(found, version.map(|v| chat_row(chat, v)));
    let member = version.map(|v| membership(user, chat, v));
    assert_eq!(chats.membership(user, chat).await.expect("membership"), member);
    let listed = chats.memberships(user, None, 10).await.expect("memberships");
    assert_eq!(listed, member.into_iter().collect::<Vec<_>>());
    let marked = version.map(|v| mark(chat, user, v));
    assert_eq!(chats.mark(chat, user).await.expect("mark"), marked);
    let listed = chats.marks(chat, 10).await.expect("marks");
    assert_eq!(listed, marked.into_iter().collect::<Vec<_>>());
}

/// What was written is seen at once, and by whoever opens the store anew.
pub async fn durable_on_return<F: Fixture<Port = Beside<dyn ChatStore>>>(fixture: &F) {
    let (store, chat, ana) = (open(fixture).await, some_chat(), somebody());
    check(&store, &chat, &ana, None).await;
    write(&store, rows(&chat, &ana, &[60])).await;
    check(&store, &chat, &ana, Some(60)).await;
    drop(store);
    check(&open(fixture).await, &chat, &ana, Some(60)).await;
}

/// Of a chat, a membership and a mark the greatest version stays, in whatever order they come.
pub async fn newer_version_wins<F: Fixture<Port = Beside<dyn ChatStore>>>(fixture: &F) {
    let (store, chat, ana) = (open(fixture).await, some_chat(), somebody());
    for (versions, kept) in [(&[5][..], 5), (&[4], 5), (&[300], 300), (&[301, 303, 302], 303)] {
        write(&store, rows(&chat, &ana, versions)).await;
        check(&store, &chat, &ana, Some(kept)).await;
    }
    let race = (1..=40).map(|n| store.messages.write(rows(&chat, &ana, &[1_000 + n * 7 % 41])));
    for written in futures::future::join_all(race).await {
        written.expect("write");
    }
    check(&store, &chat, &ana, Some(1_040)).await;
}

/// Memberships come ascending by chat and marks by user, exactly those asked, at most the limit.
pub async fn slices_are_ordered<F: Fixture<Port = Beside<dyn ChatStore>>>(fixture: &F) {
    let (store, ana) = (open(fixture).await, somebody());
    let ids = ["b", "a", "a-", "a.b", "aa", "9", "10", "B", "z", "_"];
    let base = uuid::Uuid::new_v4().simple().to_string();
    let (mut chats, mut users): (Vec<ChatId>, Vec<UserId>) = ids
        .iter()
        .map(|id| {
            let (chat, user) = (format!("g.{id}-{}", &base[..8]), format!("{id}-{base}"));
            (chat.parse::<ChatId>().expect("legal"), user.parse::<UserId>().expect("legal"))
        })
        .unzip();
    let here = chats[0];
    let batch = StoreBatch {
        memberships: chats.iter().map(|chat| membership(&ana, chat, 1)).collect(),
        marks: users.iter().map(|user| mark(&here, user, 1)).collect(),
        ..StoreBatch::default()
    };
    write(&store, batch).await;
    chats.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
    users.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
    for (after, limit, expected) in [
        (None, 100, &chats[..]),
        (None, 3, &chats[..3]),
        (None, 0, &[]),
        (Some(&chats[2]), 100, &chats[3..]),
        (Some(&chats[2]), 4, &chats[3..7]),
        (chats.last(), 10, &[]),
    ] {
        let found = store.port.memberships(&ana, after, limit).await.expect("memberships");
        let found: Vec<ChatId> = found.into_iter().map(|row| row.chat).collect();
        assert_eq!(found, expected, "after {after:?} limit {limit}");
    }
    for (limit, expected) in [(100, &users[..]), (4, &users[..4]), (0, &[])] {
        let found = store.port.marks(&here, limit).await.expect("marks");
        let found: Vec<UserId> = found.into_iter().map(|row| row.user).collect();
        assert_eq!(found, expected, "limit {limit}");
    }
}

/// Ids that begin alike do not see one another's rows.
pub async fn neighbours_stay_apart<F: Fixture<Port = Beside<dyn ChatStore>>>(fixture: &F) {
    let (store, ana) = (open(fixture).await, somebody());
    let longer: UserId = format!("{ana}-").parse().expect("a legal id");
    let short: ChatId = format!("g.{}", &ana.as_str()[..20]).parse().expect("a legal id");
    let long: ChatId = format!("{short}.").parse().expect("a legal id");
    let batch = StoreBatch {
        memberships: vec![membership(&ana, &long, 1), membership(&longer, &short, 2)],
        marks: vec![mark(&short, &longer, 3), mark(&long, &ana, 4)],
        ..StoreBatch::default()
    };
    write(&store, batch).await;
    let chats = &store.port;
    for (user, row) in [(&ana, (&long, 1)), (&longer, (&short, 2))] {
        let found = chats.memberships(user, None, 10).await.expect("memberships");
        assert_eq!(found, [membership(user, row.0, row.1)]);
    }
    for (chat, row) in [(&short, (&longer, 3)), (&long, (&ana, 4))] {
        let found = chats.marks(chat, 10).await.expect("marks");
        assert_eq!(found, [mark(chat, row.0, row.1)]);
    }
    assert_eq!(chats.membership(&ana, &short).await.expect("membership"), None);
    assert_eq!(chats.mark(&short, &ana).await.expect("mark"), None);
}
