//! The cases of the message store.

use crate::Fixture;
use bytes::Bytes;
use chaski_core::{ChatId, Offset, Partition, Position, UserId};
use chaski_ports::{
    ChatRow, Clock, HistoryRange, InboxRow, MembershipRow, MessageRow, MessageStore, StoreBatch,
    Stored, SystemClock, VerdictRow,
};
use futures::FutureExt;
use std::sync::Arc;

const HERE: Partition = Partition(3);

/// A chat of this case alone: backends that cannot be emptied are isolated by random ids.
fn some_chat() -> ChatId {
    format!("g.{}", uuid::Uuid::new_v4().simple()).parse().expect("a legal id")
}

fn somebody() -> UserId {
    uuid::Uuid::new_v4().simple().to_string().parse().expect("a legal id")
}

fn at(n: u64) -> Position {
    Position::at(Offset(n))
}

/// Rows are of now: a backend may let old ones expire.
fn now() -> i64 {
    SystemClock.now_ms()
}

fn message(chat: &ChatId, seq: u64) -> MessageRow {
    MessageRow { chat: *chat, seq, item: format!("item {seq} of {chat}").into(), at_ms: now() }
}

fn pointer(user: &UserId, n: u64) -> InboxRow {
    InboxRow {
        partition: HERE,
        user: user.clone(),
        position: at(n),
        event: format!("event {n} of {user}").into(),
        at_ms: now(),
    }
}

fn chat_row(chat: &ChatId, version: u64) -> ChatRow {
    ChatRow { chat: *chat, version, state: format!("state {version}").into() }
}

fn membership(user: &UserId, chat: &ChatId, version: u64) -> MembershipRow {
    MembershipRow {
        user: user.clone(),
        chat: *chat,
        version,
        state: format!("spans {version}").into(),
    }
}

fn items(chat: &ChatId, seqs: impl IntoIterator<Item = u64>) -> Vec<Stored> {
    seqs.into_iter().map(|seq| (seq, message(chat, seq).item)).collect()
}

fn events(user: &UserId, places: impl IntoIterator<Item = u64>) -> Vec<Stored> {
    places.into_iter().map(|n| (at(n).0, pointer(user, n).event)).collect()
}

async fn open<F: Fixture<Port = dyn MessageStore>>(fixture: &F) -> Arc<dyn MessageStore> {
    fixture.open().await.expect("open")
}

async fn write(store: &Arc<dyn MessageStore>, batch: StoreBatch) {
    store.write(batch).await.expect("write");
}

async fn history(
    store: &Arc<dyn MessageStore>,
    chat: &ChatId,
    range: HistoryRange,
    limit: usize,
) -> Vec<Stored> {
    store.history(chat, range, limit).await.expect("history")
}

async fn inbox(
    store: &Arc<dyn MessageStore>,
    user: &UserId,
    (after, upto): (Position, Position),
    limit: usize,
) -> Vec<Stored> {
    store.inbox(HERE, user, (after, upto), limit).await.expect("inbox")
}

/// A batch with rows of every kind.
fn batch_of_all(chat: &ChatId, user: &UserId, request: [u8; 16]) -> StoreBatch {
    StoreBatch {
        messages: (1..=60).map(|seq| message(chat, seq)).collect(),
        inbox: (1..=60).map(|n| pointer(user, n)).collect(),
        chats: vec![chat_row(chat, 60)],
        memberships: vec![membership(user, chat, 1)],
        verdicts: vec![VerdictRow {
            request,
            verdict: Bytes::from_static(b"changed"),
            at_ms: now(),
        }],
    }
}

async fn check_all_is_there(
    store: &Arc<dyn MessageStore>,
    chat: &ChatId,
    user: &UserId,
    request: [u8; 16],
) {
    let all = HistoryRange::After(0);
    assert_eq!(history(store, chat, all, 100).await, items(chat, 1..=60));
    // Far past the last one: what is not ours must not be there either.
    let everything = (Position::BEGINNING, at(1 << 20));
    assert_eq!(inbox(store, user, everything, 100).await, events(user, 1..=60));
    assert_eq!(store.chat(chat).await.expect("chat"), Some(chat_row(chat, 60)));
    let member = Some(membership(user, chat, 1));
    assert_eq!(store.membership(user, chat).await.expect("membership"), member);
    let listed = store.memberships(user, None, 10).await.expect("memberships");
    assert_eq!(listed, member.into_iter().collect::<Vec<_>>());
    let verdict = store.verdict(&request).await.expect("verdict");
    assert_eq!(verdict.as_deref(), Some(&b"changed"[..]));
}

/// What was written is seen at once, and by whoever opens the store anew.
pub async fn durable_on_return<F: Fixture<Port = dyn MessageStore>>(fixture: &F) {
    let store = open(fixture).await;
    let (chat, ana, request) = (some_chat(), somebody(), *uuid::Uuid::new_v4().as_bytes());
    assert_eq!(history(&store, &chat, HistoryRange::After(0), 10).await, []);
    assert_eq!(inbox(&store, &ana, (Position::BEGINNING, at(100)), 10).await, []);
    assert_eq!(store.chat(&chat).await.expect("chat"), None);
    assert_eq!(store.membership(&ana, &chat).await.expect("membership"), None);
    assert_eq!(store.verdict(&request).await.expect("verdict"), None);

    write(&store, batch_of_all(&chat, &ana, request)).await;
    check_all_is_there(&store, &chat, &ana, request).await;
    drop(store);
    check_all_is_there(&open(fixture).await, &chat, &ana, request).await;
}

/// Writing the same rows again changes nothing and doubles nothing.
pub async fn rewrite_is_a_no_op<F: Fixture<Port = dyn MessageStore>>(fixture: &F) {
    let store = open(fixture).await;
    let (chat, ana, request) = (some_chat(), somebody(), *uuid::Uuid::new_v4().as_bytes());
    let batch = batch_of_all(&chat, &ana, request);
    write(&store, batch.clone()).await;
    write(&store, batch.clone()).await;
    check_all_is_there(&store, &chat, &ana, request).await;
    let mut twice = batch.clone();
    twice.messages.extend(batch.messages.clone());
    twice.inbox.extend(batch.inbox.clone());
    twice.verdicts.extend(batch.verdicts.clone());
    write(&store, twice).await;
    check_all_is_there(&store, &chat, &ana, request).await;
    // A later part of the same log, then the beginning once more.
    let later = StoreBatch { messages: vec![message(&chat, 61)], ..StoreBatch::default() };
    write(&store, later).await;
    write(&store, batch).await;
    assert_eq!(history(&store, &chat, HistoryRange::After(0), 100).await, items(&chat, 1..=61));
}

/// Of a chat and of a membership the greatest version stays, in whatever order they come.
pub async fn newer_version_wins<F: Fixture<Port = dyn MessageStore>>(fixture: &F) {
    let (store, chat, ana) = (open(fixture).await, some_chat(), somebody());
    let rows = |versions: &[u64]| StoreBatch {
        chats: versions.iter().map(|v| chat_row(&chat, *v)).collect(),
        memberships: versions.iter().map(|v| membership(&ana, &chat, *v)).collect(),
        ..StoreBatch::default()
    };
    let check = async |version: u64| {
        let (state, spans) = (chat_row(&chat, version), membership(&ana, &chat, version));
        assert_eq!(store.chat(&chat).await.expect("chat"), Some(state));
        let member = store.membership(&ana, &chat).await.expect("membership");
        assert_eq!(member, Some(spans.clone()));
        assert_eq!(store.memberships(&ana, None, 10).await.expect("memberships"), [spans]);
    };
    write(&store, rows(&[5])).await;
    write(&store, rows(&[4])).await;
    check(5).await;
    write(&store, rows(&[300])).await;
    check(300).await;
    write(&store, rows(&[301, 303, 302])).await;
    check(303).await;
    let race = (1..=40).map(|n| store.write(rows(&[1_000 + n * 7 % 41])));
    for written in futures::future::join_all(race).await {
        written.expect("write");
    }
    check(1_040).await;
}

/// History and inbox give exactly the asked range, ascending, at most the limit.
pub async fn slices_are_ordered<F: Fixture<Port = dyn MessageStore>>(fixture: &F) {
    use HistoryRange::{After, Before};
    let (store, chat, ana) = (open(fixture).await, some_chat(), somebody());
    // Unordered, with holes, and far apart: stores cut long partitions into pieces.
    let places = [300, 2, 1, 70_000, 256, 255, 5, 1_000_000, 9_999];
    let batch = StoreBatch {
        messages: places.map(|seq| message(&chat, seq)).into(),
        inbox: places.map(|n| pointer(&ana, n)).into(),
        ..StoreBatch::default()
    };
    write(&store, batch).await;
    let mut sorted = places;
    sorted.sort_unstable();
    for (range, limit, expected) in [
        (After(0), 100, &sorted[..]),
        (After(0), 4, &sorted[..4]),
        (After(1), 2, &sorted[1..3]),
        (After(256), 100, &sorted[5..]),
        (After(1_000_000), 10, &[]),
        (After(u64::MAX), 10, &[]),
        (Before(u64::MAX), 3, &sorted[6..]),
        (Before(256), 2, &sorted[2..4]),
        (Before(256), 100, &sorted[..4]),
        (Before(1), 10, &[]),
        (Before(0), 10, &[]),
        (After(0), 0, &[]),
    ] {
        let found = history(&store, &chat, range, limit).await;
        assert_eq!(found, items(&chat, expected.to_vec()), "{range:?} limit {limit}");
    }
    for (after, upto, limit, expected) in [
        (Position::BEGINNING, at(2_000_000), 100, &sorted[..]),
        (Position::BEGINNING, at(2_000_000), 3, &sorted[..3]),
        (at(2), at(300), 100, &sorted[2..6]),
        (at(2), at(299), 100, &sorted[2..5]),
        (at(5), at(5), 100, &[]),
        (at(300), at(5), 100, &[]),
        (at(1_000_000), at(2_000_000), 100, &[]),
    ] {
        let found = inbox(&store, &ana, (after, upto), limit).await;
        assert_eq!(found, events(&ana, expected.to_vec()), "({after}, {upto}] limit {limit}");
    }
}

/// A write that was given up may be there in part; written again, all of it is, and `Ok` means
/// all of it.
pub async fn a_batch_is_not_atomic<F: Fixture<Port = dyn MessageStore>>(fixture: &F) {
    let store = open(fixture).await;
    let places: Vec<_> =
        (0..8).map(|_| (some_chat(), somebody(), *uuid::Uuid::new_v4().as_bytes())).collect();
    let whole = || {
        let mut whole = StoreBatch::default();
        for (chat, user, request) in &places {
            let part = batch_of_all(chat, user, *request);
            whole.messages.extend(part.messages);
            whole.inbox.extend(part.inbox);
            whole.chats.extend(part.chats);
            whole.memberships.extend(part.memberships);
            whole.verdicts.extend(part.verdicts);
        }
        whole
    };
    // Given up after one poll, with all that it may have set going.
    let _ = store.write(whole()).now_or_never();
    write(&store, whole()).await;
    drop(store);
    let store = open(fixture).await;
    for (chat, user, request) in &places {
        check_all_is_there(&store, chat, user, *request).await;
    }
}

/// Ids that begin alike, and other partitions, do not see one another's rows.
pub async fn neighbours_stay_apart<F: Fixture<Port = dyn MessageStore>>(fixture: &F) {
    let (store, ana) = (open(fixture).await, somebody());
    let longer: UserId = format!("{ana}-").parse().expect("a legal id");
    let short: ChatId = format!("g.{}", &ana.as_str()[..20]).parse().expect("a legal id");
    let long: ChatId = format!("{short}.").parse().expect("a legal id");
    let elsewhere = InboxRow { partition: Partition(HERE.0 + 1), ..pointer(&ana, 7) };
    let batch = StoreBatch {
        messages: vec![message(&short, 1), message(&long, 2)],
        inbox: vec![pointer(&ana, 1), pointer(&longer, 2), elsewhere],
        memberships: vec![
            membership(&ana, &long, 1),
            membership(&ana, &short, 1),
            membership(&longer, &short, 1),
        ],
        ..StoreBatch::default()
    };
    write(&store, batch).await;
    let newest = HistoryRange::Before(u64::MAX);
    assert_eq!(history(&store, &short, newest, 10).await, items(&short, [1]));
    assert_eq!(history(&store, &long, newest, 10).await, items(&long, [2]));
    let all = (Position::BEGINNING, at(1 << 20));
    assert_eq!(inbox(&store, &ana, all, 10).await, events(&ana, [1]));
    assert_eq!(inbox(&store, &longer, all, 10).await, events(&longer, [2]));
    let chats = async |user: &UserId, after: Option<&ChatId>, limit| -> Vec<ChatId> {
        let rows = store.memberships(user, after, limit).await.expect("memberships");
        rows.into_iter().map(|row| row.chat).collect()
    };
    assert_eq!(chats(&ana, None, 10).await, [short, long], "ascending by chat id");
    assert_eq!(chats(&ana, None, 1).await, [short]);
    assert_eq!(chats(&ana, Some(&short), 10).await, [long]);
    assert_eq!(chats(&ana, Some(&long), 10).await, []);
    assert_eq!(chats(&longer, None, 10).await, [short]);
}

/// Single places come in the order asked, with `None` where nothing is stored.
pub async fn items_keep_the_order_asked<F: Fixture<Port = dyn MessageStore>>(fixture: &F) {
    let (store, one, two) = (open(fixture).await, some_chat(), some_chat());
    let batch = StoreBatch {
        messages: (1..=30).flat_map(|seq| [message(&one, seq), message(&two, seq)]).collect(),
        ..StoreBatch::default()
    };
    write(&store, batch).await;
    let check = async |places: &[(ChatId, u64)]| {
        let found = store.items(places).await.expect("items");
        let expected: Vec<_> = places
            .iter()
            .map(|(chat, seq)| (1..=30).contains(seq).then(|| message(chat, *seq).item))
            .collect();
        assert_eq!(found, expected);
    };
    check(&[]).await;
    check(&[(two, 3), (one, 31), (one, 30), (two, 3), (one, 0)]).await;
    let many: Vec<_> = (0..40).rev().flat_map(|seq| [(one, seq), (two, seq)]).collect();
    check(&many).await;
}
