//! The cases of the message store.

use crate::{Fixture, INBOX_DAYS};
use bytes::Bytes;
use chaski_core::{ChatId, Offset, Partition, Position, UserId};
use chaski_ports::{
    Clock, HiddenRow, HistoryRange, InboxDay, InboxRow, MessageRow, MessageStore, StoreBatch,
    Stored, SystemClock, VerdictRow,
};
use futures::FutureExt;
use std::sync::Arc;

const HERE: Partition = Partition(3);
const DAY_MS: i64 = 24 * 3_600 * 1_000;

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
    let item = format!("item {seq} of {chat}").into();
    MessageRow { chat: *chat, seq, item, at_ms: now(), ends_ms: None }
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

fn hidden(user: &UserId, chat: &ChatId, seq: u64) -> HiddenRow {
    HiddenRow { user: user.clone(), chat: *chat, seq }
}

/// A partition of this case alone.
fn some_partition() -> Partition {
    Partition(uuid::Uuid::new_v4().as_u128() as u32 >> 1)
}

fn today() -> u32 {
    u32::try_from(now() / DAY_MS).expect("before the year 11,000,000")
}

fn day(partition: Partition, day: u32, first: u64) -> InboxDay {
    InboxDay { partition, day, first: at(first) }
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

/// Where one batch goes.
struct Place {
    chat: ChatId,
    user: UserId,
    partition: Partition,
    request: [u8; 16],
}

impl Place {
    fn new() -> Self {
        let request = *uuid::Uuid::new_v4().as_bytes();
        Self { chat: some_chat(), user: somebody(), partition: some_partition(), request }
    }

    /// Rows of every kind that this port reads.
    fn batch(&self) -> StoreBatch {
        let Self { chat, user, partition, request } = self;
        let verdict = Bytes::from_static(b"changed");
        StoreBatch {
            messages: (1..=60).map(|seq| message(chat, seq)).collect(),
            inbox: (1..=60).map(|n| pointer(user, n)).collect(),
            verdicts: vec![VerdictRow { request: *request, verdict, at_ms: now() }],
            hidden: (7..=9).map(|seq| hidden(user, chat, seq)).collect(),
            days: vec![day(*partition, today(), 1)],
            ..StoreBatch::default()
        }
    }

    async fn check_is_empty(&self, store: &Arc<dyn MessageStore>) {
        assert_eq!(history(store, &self.chat, HistoryRange::After(0), 10).await, []);
        assert_eq!(inbox(store, &self.user, (Position::BEGINNING, at(100)), 10).await, []);
        assert_eq!(hidden_places(store, &self.user, &self.chat, (0, 100)).await, []);
        assert_eq!(store.inbox_days(self.partition).await.expect("days"), []);
        assert_eq!(store.verdict(&self.request).await.expect("verdict"), None);
    }

    async fn check_all_is_there(&self, store: &Arc<dyn MessageStore>) {
        let Self { chat, user, partition, request } = self;
        let all = HistoryRange::After(0);
        assert_eq!(history(store, chat, all, 100).await, items(chat, 1..=60));
        // Far past the last one: what is not ours must not be there either.
        let everything = (Position::BEGINNING, at(1 << 20));
        assert_eq!(inbox(store, user, everything, 100).await, events(user, 1..=60));
        assert_eq!(hidden_places(store, user, chat, (0, u64::MAX)).await, [7, 8, 9]);
        let days = store.inbox_days(*partition).await.expect("days");
        assert_eq!(days.len(), 1, "{days:?}");
        assert_eq!(days[0].first, at(1));
        let verdict = store.verdict(request).await.expect("verdict");
        assert_eq!(verdict.as_deref(), Some(&b"changed"[..]));
    }
}

async fn hidden_places(
    store: &Arc<dyn MessageStore>,
    user: &UserId,
    chat: &ChatId,
    places: (u64, u64),
) -> Vec<u64> {
    store.hidden(user, chat, places).await.expect("hidden")
}

/// What was written is seen at once, and by whoever opens the store anew.
pub async fn durable_on_return<F: Fixture<Port = dyn MessageStore>>(fixture: &F) {
    let (store, place) = (open(fixture).await, Place::new());
    place.check_is_empty(&store).await;
    write(&store, place.batch()).await;
    place.check_all_is_there(&store).await;
    drop(store);
    place.check_all_is_there(&open(fixture).await).await;
}

/// Writing the same rows again changes nothing and doubles nothing.
pub async fn rewrite_is_a_no_op<F: Fixture<Port = dyn MessageStore>>(fixture: &F) {
    let (store, place) = (open(fixture).await, Place::new());
    let batch = place.batch();
    write(&store, batch.clone()).await;
    write(&store, batch.clone()).await;
    place.check_all_is_there(&store).await;
    let mut twice = batch.clone();
    twice.messages.extend(batch.messages.clone());
    twice.inbox.extend(batch.inbox.clone());
    twice.verdicts.extend(batch.verdicts.clone());
    twice.hidden.extend(batch.hidden.clone());
    write(&store, twice).await;
    place.check_all_is_there(&store).await;
    // A later part of the same log, then the beginning once more.
    let chat = &place.chat;
    let later = StoreBatch { messages: vec![message(chat, 61)], ..StoreBatch::default() };
    write(&store, later).await;
    write(&store, batch).await;
    assert_eq!(history(&store, chat, HistoryRange::After(0), 100).await, items(chat, 1..=61));
}

/// Of the positions written for a day the lowest stays, in whatever order they come.
pub async fn the_first_of_a_day_stays<F: Fixture<Port = dyn MessageStore>>(fixture: &F) {
    let (store, here, last) = (open(fixture).await, some_partition(), today());
    let rows = |firsts: &[u64]| StoreBatch {
        days: firsts.iter().map(|first| day(here, last, *first)).collect(),
        ..StoreBatch::default()
    };
    let check = async |first: u64| {
        let days = store.inbox_days(here).await.expect("days");
        assert_eq!(days, [day(here, last, first)]);
    };
    write(&store, rows(&[5_000])).await;
    write(&store, rows(&[6_000])).await;
    check(5_000).await;
    write(&store, rows(&[3_001, 3_000, 3_002])).await;
    check(3_000).await;
    let race = (1..=40).map(|n| store.write(rows(&[n * 7 % 41])));
    for written in futures::future::join_all(race).await {
        written.expect("write");
    }
    check(1).await;
    let other = Partition(here.0 ^ 1);
    let days = StoreBatch {
        days: vec![day(here, last - 1, 0), day(other, last, 9), day(here, last - 3, 7)],
        ..StoreBatch::default()
    };
    write(&store, days).await;
    let sorted = [day(here, last - 3, 7), day(here, last - 1, 0), day(here, last, 1)];
    assert_eq!(store.inbox_days(here).await.expect("days"), sorted);
    assert_eq!(store.inbox_days(other).await.expect("days"), [day(other, last, 9)]);
}

/// An inbox row is not given any more when it is older than inboxes keep, also where it is written
/// again; all else is as old as it likes. A day that is given is whole.
pub async fn inboxes_forget<F: Fixture<Port = dyn MessageStore>>(fixture: &F) {
    let (store, place) = (open(fixture).await, Place::new());
    let kept_since = now() - i64::from(INBOX_DAYS) * DAY_MS;
    let (old, young) = (kept_since - 1, kept_since + 60_000);
    let (chat, user, partition) = (&place.chat, &place.user, place.partition);
    let rows = |n, at_ms| StoreBatch {
        messages: vec![MessageRow { at_ms, ..message(chat, n) }],
        inbox: vec![InboxRow { at_ms, ..pointer(user, n) }],
        hidden: vec![hidden(user, chat, n)],
        days: vec![day(partition, u32::try_from(at_ms / DAY_MS).expect("small"), n)],
        ..StoreBatch::default()
    };
    for (n, at_ms) in [(1, old - 300 * DAY_MS), (2, old), (3, young), (4, now()), (5, now())] {
        write(&store, rows(n, at_ms)).await;
    }
    write(&store, rows(2, old)).await;
    let check = async |store: &Arc<dyn MessageStore>| {
        let all = (Position::BEGINNING, at(100));
        assert_eq!(inbox(store, user, all, 10).await, events(user, 3..=5));
        assert_eq!(inbox(store, user, all, 2).await, events(user, 3..=4));
        assert_eq!(history(store, chat, HistoryRange::After(0), 10).await, items(chat, 1..=5));
        assert_eq!(hidden_places(store, user, chat, (0, 9)).await, [1, 2, 3, 4, 5]);
        let days = store.inbox_days(partition).await.expect("days");
        assert_eq!(days.last(), Some(&day(partition, today(), 4)));
        assert!(days.iter().all(|row| i64::from(row.day) * DAY_MS >= kept_since), "{days:?}");
    };
    check(&store).await;
    drop(store);
    check(&open(fixture).await).await;
}

/// What has come to its end leaves its place, empty, wherever it is read, also where it is written
/// only then; what has not is whole.
pub async fn places_stay<F: Fixture<Port = dyn MessageStore>>(fixture: &F) {
    let (store, chat) = (open(fixture).await, some_chat());
    let soon = now() + 5_000;
    let rows = |ends: &[(u64, Option<i64>)]| StoreBatch {
        messages: ends
            .iter()
            .map(|(seq, ends_ms)| MessageRow { ends_ms: *ends_ms, ..message(&chat, *seq) })
            .collect(),
        ..StoreBatch::default()
    };
    let check = async |store: &Arc<dyn MessageStore>, seqs: &[u64], empty: &[u64]| {
        let item = |seq: u64| match empty.contains(&seq) {
            true => Bytes::new(),
            false => message(&chat, seq).item,
        };
        let expected: Vec<Stored> = seqs.iter().map(|seq| (*seq, item(*seq))).collect();
        for range in [HistoryRange::After(0), HistoryRange::Before(u64::MAX)] {
            assert_eq!(history(store, &chat, range, 10).await, expected, "{range:?}");
        }
        let places: Vec<_> = seqs.iter().map(|seq| (chat, *seq)).collect();
        let found = store.items(&places).await.expect("items");
        let expected: Vec<_> = expected.into_iter().map(|(_, item)| Some(item)).collect();
        assert_eq!(found, expected);
    };
    let long_ago = now() - 300 * DAY_MS;
    let first = [(1, Some(long_ago)), (2, Some(soon)), (3, None), (4, Some(now() + DAY_MS))];
    write(&store, rows(&first)).await;
    check(&store, &[1, 2, 3, 4], &[1]).await;
    let waiting = async {
        loop {
            let item = store.items(&[(chat, 2)]).await.expect("items").remove(0);
            if item.is_none_or(|item| item.is_empty()) {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    let ended = tokio::time::timeout(std::time::Duration::from_secs(20), waiting).await;
    ended.expect("it expires");
    // CQL counts in whole seconds, twice.
    assert!(now() >= soon - 2_000, "not before its time");
    check(&store, &[1, 2, 3, 4], &[1, 2]).await;
    // Writing goes on, and the same is written again.
    for seq in 5..=8 {
        write(&store, rows(&[(seq, Some(long_ago))])).await;
    }
    write(&store, rows(&first)).await;
    check(&store, &[1, 2, 3, 4, 5, 6, 7, 8], &[1, 2, 5, 6, 7, 8]).await;
    drop(store);
    check(&open(fixture).await, &[1, 2, 3, 4, 5, 6, 7, 8], &[1, 2, 5, 6, 7, 8]).await;
}

/// History, inbox and hidden places: exactly the asked range, ascending, at most the limit.
pub async fn slices_are_ordered<F: Fixture<Port = dyn MessageStore>>(fixture: &F) {
    use HistoryRange::{After, Before};
    let (store, chat, ana) = (open(fixture).await, some_chat(), somebody());
    // Unordered, with holes, and far apart: stores cut long partitions into pieces.
    let places = [300, 2, 1, 70_000, 256, 255, 5, 1_000_000, 9_999];
    let batch = StoreBatch {
        messages: places.map(|seq| message(&chat, seq)).into(),
        inbox: places.map(|n| pointer(&ana, n)).into(),
        hidden: places.map(|seq| hidden(&ana, &chat, seq)).into(),
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
    for (places, expected) in [
        ((0, u64::MAX), &sorted[..]),
        ((5, 300), &sorted[2..6]),
        ((6, 299), &sorted[3..5]),
        ((256, 256), &sorted[4..5]),
        ((257, 256), &[]),
        ((1_000_001, u64::MAX), &[]),
    ] {
        assert_eq!(hidden_places(&store, &ana, &chat, places).await, expected, "{places:?}");
    }
}

/// A write that was given up may be there in part; written again, all of it is, and `Ok` means
/// all of it.
pub async fn a_batch_is_not_atomic<F: Fixture<Port = dyn MessageStore>>(fixture: &F) {
    let store = open(fixture).await;
    let places: Vec<Place> = (0..8).map(|_| Place::new()).collect();
    let whole = || {
        let mut whole = StoreBatch::default();
        for part in places.iter().map(Place::batch) {
            whole.messages.extend(part.messages);
            whole.inbox.extend(part.inbox);
            whole.verdicts.extend(part.verdicts);
            whole.hidden.extend(part.hidden);
            whole.days.extend(part.days);
        }
        whole
    };
    // Given up after one poll, with all that it may have set going.
    let _ = store.write(whole()).now_or_never();
    write(&store, whole()).await;
    drop(store);
    let store = open(fixture).await;
    for place in &places {
        place.check_all_is_there(&store).await;
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
        hidden: vec![hidden(&ana, &short, 1), hidden(&ana, &long, 2), hidden(&longer, &short, 3)],
        ..StoreBatch::default()
    };
    write(&store, batch).await;
    let newest = HistoryRange::Before(u64::MAX);
    assert_eq!(history(&store, &short, newest, 10).await, items(&short, [1]));
    assert_eq!(history(&store, &long, newest, 10).await, items(&long, [2]));
    let all = (Position::BEGINNING, at(1 << 20));
    assert_eq!(inbox(&store, &ana, all, 10).await, events(&ana, [1]));
    assert_eq!(inbox(&store, &longer, all, 10).await, events(&longer, [2]));
    for (user, chat, place) in [(&ana, &short, 1), (&ana, &long, 2), (&longer, &short, 3)] {
        assert_eq!(hidden_places(&store, user, chat, (0, u64::MAX)).await, [place]);
    }
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
