//! What the conformance suite cannot ask of a CQL store, since it knows no tables: migrations, buckets,
//! expiry, trimming. Against the real server named by `CHASKI_STORE`; without it there is nothing to
//! test here, which on CI is a failure.

use bytes::Bytes;
use chaski_core::{
    ChatId, Offset, Origin, Partition, Position, SourceId, UserId, Watermark, record::UnixMs,
};
use chaski_ports::{
    CheckpointStore, Clock, DeviceRow, DeviceStore, ErrorKind, HiddenRow, HistoryRange, InboxRow,
    MessageRow, MessageStore, Snapshot, StoreBatch, SystemClock, WatermarkRow,
};
use chaski_store_cql::{CqlOptions, CqlStore};
use scylla::client::{session::Session, session_builder::SessionBuilder};
use std::{sync::Arc, time::Duration};

/// A keyspace of its own, removed at the end.
struct Keyspace {
    options: CqlOptions,
    session: Session,
}

impl Keyspace {
    async fn new(name: &str) -> Option<Self> {
        let Ok(url) = std::env::var("CHASKI_STORE") else {
            assert!(std::env::var_os("CI").is_none(), "CHASKI_STORE is not set");
            eprintln!("skipped: CHASKI_STORE is not set");
            return None;
        };
        let rest = url.strip_prefix("scylla://").expect("scylla://nodes/keyspace");
        let nodes = rest.split('/').next().expect("split gives one at least");
        let options = CqlOptions {
            nodes: nodes.split(',').map(str::to_owned).collect(),
            keyspace: format!("test_{}_{name}", std::process::id()),
            inbox_ttl: Duration::from_secs(3600),
            ..CqlOptions::default()
        };
        let builder = SessionBuilder::new().known_nodes(&options.nodes);
        let session = builder.build().await.expect("the server answers");
        Some(Self { options, session })
    }

    async fn store(&self) -> Arc<CqlStore> {
        CqlStore::migrate(&self.options).await.expect("migrated");
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        CqlStore::connect(self.options.clone(), clock).await.expect("connected")
    }

    /// How many rows a query gives.
    async fn count(&self, table: &str) -> i64 {
        let text = format!("SELECT count(*) FROM {}.{table}", self.options.keyspace);
        let result = self.session.query_unpaged(text, ()).await.expect("counted");
        let rows = result.into_rows_result().expect("rows");
        rows.single_row::<(i64,)>().expect("one number").0
    }

    async fn remove(self) {
        let text = format!("DROP KEYSPACE {}", self.options.keyspace);
        self.session.query_unpaged(text, ()).await.expect("dropped");
    }
}

fn now() -> UnixMs {
    SystemClock.now_ms()
}

fn text(n: u64) -> Bytes {
    Bytes::from(format!("row {n}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn two_migrations_at_once_apply_each_file_once() {
    let Some(keyspace) = Keyspace::new("migrate").await else {
        return;
    };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let refused = CqlStore::connect(keyspace.options.clone(), Arc::clone(&clock))
        .await
        .expect_err("nothing is there yet");
    assert_eq!(refused.kind, ErrorKind::Invalid);
    assert!(refused.to_string().contains("run chaski migrate"), "{refused}");

    let (a, b) =
        tokio::join!(CqlStore::migrate(&keyspace.options), CqlStore::migrate(&keyspace.options));
    let mut names = a.expect("migrated");
    names.extend(b.expect("migrated"));
    names.sort();
    assert_eq!(
        names,
        ["0001_messages", "0002_devices", "0003_checkpoints", "0004_connections", "0005_ownership"]
    );
    let again = CqlStore::migrate(&keyspace.options).await.expect("migrated");
    assert_eq!(again, Vec::<String>::new());
    assert_eq!(keyspace.count("schema_migrations").await, 5, "the lock is gone");

    let newer = format!(
        "INSERT INTO {}.schema_migrations (version, name) VALUES (99, 'later') IF NOT EXISTS",
        keyspace.options.keyspace
    );
    keyspace.session.query_unpaged(newer, ()).await.expect("set");
    let refused =
        CqlStore::connect(keyspace.options.clone(), clock).await.expect_err("it is newer");
    assert!(refused.to_string().contains("run a newer chaski"), "{refused}");
    keyspace.remove().await;
}

/// The cases use different tables, so one keyspace does for all: making it takes longest.
#[tokio::test(flavor = "multi_thread")]
async fn the_store_on_a_real_server() {
    let Some(keyspace) = Keyspace::new("store").await else {
        return;
    };
    let store = keyspace.store().await;
    history_goes_over_buckets_with_and_without_gaps(&store).await;
    an_inbox_is_found_from_the_beginning_to_the_end_of_time(&keyspace, &store).await;
    old_watermarks_and_snapshots_are_removed(&keyspace, &store).await;
    racing_claims_all_get_epochs_of_their_own(&store).await;
    a_device_of_before_0004_is_known(&keyspace, &store).await;
    what_expires_has_the_life_that_is_left(&keyspace, &store).await;
    keyspace.remove().await;
}

async fn history_goes_over_buckets_with_and_without_gaps(store: &CqlStore) {
    let chat: ChatId = "g.buckets".parse().expect("legal");
    let rows = |seqs: &[u64]| StoreBatch {
        messages: seqs
            .iter()
            .map(|seq| MessageRow {
                chat,
                seq: *seq,
                item: text(*seq),
                at_ms: now(),
                ends_ms: None,
            })
            .collect(),
        ..StoreBatch::default()
    };
    // Given rows at the ends of buckets, the first row of a bucket missing, and one far away.
    let seqs = [1, 4094, 4095, 4097, 4098, 8192, 5_000_000];
    store.write(rows(&seqs)).await.expect("written");

    let check = async |range, limit, expected: &[u64]| {
        let got = store.history(&chat, range, limit).await.expect("read");
        let expected: Vec<_> = expected.iter().map(|seq| (*seq, text(*seq))).collect();
        assert_eq!(got, expected, "{range:?} limit {limit}");
    };
    check(HistoryRange::Before(u64::MAX), 3, &seqs[4..]).await;
    check(HistoryRange::Before(u64::MAX), 100, &seqs).await;
    check(HistoryRange::Before(4097), 2, &seqs[1..3]).await;
    check(HistoryRange::Before(4098), 1, &seqs[3..4]).await;
    check(HistoryRange::Before(1), 100, &[]).await;
    check(HistoryRange::After(0), 4, &seqs[..4]).await;
    check(HistoryRange::After(4095), 100, &seqs[3..]).await;
    check(HistoryRange::After(4098), 1, &seqs[5..6]).await;
    check(HistoryRange::After(5_000_000), 5, &[]).await;
    check(HistoryRange::After(u64::MAX), 5, &[]).await;

    let places: Vec<_> = [8192, 2, 1, 8192].map(|seq| (chat, seq)).into();
    let items = store.items(&places).await.expect("read");
    assert_eq!(items, [Some(text(8192)), None, Some(text(1)), Some(text(8192))]);
}

async fn an_inbox_is_found_from_the_beginning_to_the_end_of_time(
    keyspace: &Keyspace,
    store: &CqlStore,
) {
    let users: Vec<UserId> = (0..40).map(|i| format!("user{i}").parse().expect("legal")).collect();
    let row = |user: &UserId, offset: u64, at_ms| InboxRow {
        partition: Partition(3),
        user: user.clone(),
        position: Position::at(Offset(offset)),
        event: text(offset),
        at_ms,
    };
    // Given 400 rows a user over 100 buckets, and one that is older than the inbox's life.
    let mut batch = StoreBatch::default();
    for user in &users {
        for n in 0..400 {
            batch.inbox.push(row(user, n << 18, now()));
        }
    }
    batch.inbox.push(row(&users[0], 7, now() - 3_600_001));
    store.write(batch.clone()).await.expect("written");
    store.write(batch).await.expect("written again");

    assert_eq!(keyspace.count("inbox_buckets").await, 100);
    let everything = (Position::BEGINNING, Position(u64::MAX));
    for user in &users {
        let got = store.inbox(Partition(3), user, everything, 1000).await.expect("read");
        let expected: Vec<_> =
            (0..400).map(|n| (Position::at(Offset(n << 18)).0, text(n << 18))).collect();
        assert_eq!(got, expected, "{user}");
        let (after, upto) = (got[10].0, got[90].0);
        for limit in [1, 79, 80, 500] {
            let slice = store
                .inbox(Partition(3), user, (Position(after), Position(upto)), limit)
                .await
                .expect("read");
            assert_eq!(slice, got[11..91.min(11 + limit)], "limit {limit}");
        }
    }
    let none = store.inbox(Partition(4), &users[0], everything, 10).await;
    assert_eq!(none.expect("read"), []);

    let mut wrong = row(&users[0], 1, now());
    wrong.position = Position(1 << 63);
    let batch =
        StoreBatch { inbox: vec![row(&users[0], 99, now()), wrong], ..StoreBatch::default() };
    let refused = store.write(batch).await.expect_err("too great");
    assert_eq!(refused.kind, ErrorKind::Invalid);
}

async fn old_watermarks_and_snapshots_are_removed(keyspace: &Keyspace, store: &CqlStore) {
    let row = |epoch, next| {
        let origin = Origin { offset: Offset(next), index: 1 };
        WatermarkRow {
            epoch,
            watermark: Watermark {
                next: Offset(next),
                high: [((SourceId(u64::MAX), Partition(2)), origin)].into(),
            },
        }
    };
    for next in 0..250 {
        let saved = row(1 + next / 100, next);
        let result = store.save_watermark("messages", Partition(0), &saved).await;
        result.expect("saved");
    }
    // A stale owner writes last.
    let stale = row(1, 1_000_000);
    let result = store.save_watermark("messages", Partition(0), &stale).await;
    result.expect("saved");
    let got = store.watermarks("messages", Partition(0), 1000).await.expect("read");
    let expected: Vec<_> = (150..250).rev().map(|n| row(1 + n / 100, n)).collect();
    assert_eq!(got, expected);
    // Trimmed to 100 at the 201st and the 251st save.
    assert_eq!(keyspace.count("watermarks").await, 100);

    let snapshot = |epoch, as_of, len| Snapshot {
        bucket: 63,
        epoch,
        as_of: Offset(as_of),
        state: (0..len).map(|i| (i % 253) as u8).collect(),
    };
    let put = async |snapshot: &Snapshot| {
        let result = store.put_snapshot(Partition(1), snapshot).await;
        result.expect("put");
    };
    put(&snapshot(2, 10, 100)).await;
    put(&snapshot(2, 20, 3_000_000)).await;
    let newest = snapshot(3, 5, 1_500_000);
    put(&newest).await;
    put(&snapshot(2, 99, 10)).await; // a stale owner's
    let got = store.snapshots(Partition(1)).await.expect("read");
    assert_eq!(got, [newest]);
    // The stale one lies in the range that was deleted, and is not there at all.
    assert_eq!(keyspace.count("snapshots").await, 3);
}

async fn racing_claims_all_get_epochs_of_their_own(store: &CqlStore) {
    let claims = (0..6).map(|_| store.claim("generator", Partition(0), 40));
    let mut epochs = Vec::new();
    for claim in futures::future::join_all(claims).await {
        match claim {
            Ok(claimed) => epochs.push(claimed.epoch),
            Err(e) => assert_eq!(e.kind, ErrorKind::Conflict, "{e}"),
        }
    }
    let mut distinct = epochs.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert!(!distinct.is_empty() && distinct.len() == epochs.len(), "{epochs:?}");
    assert!(distinct[0] >= 40);
    let next = store.claim("generator", Partition(0), 40).await.expect("claimed");
    assert_eq!(next.epoch, distinct[distinct.len() - 1] + 1);
}

/// Its last activity stands in the table that is no longer written.
async fn a_device_of_before_0004_is_known(keyspace: &Keyspace, store: &CqlStore) {
    let (user, device) = ("old".parse().expect("legal"), "d1".parse().expect("legal"));
    let text = format!(
        "UPDATE {}.devices USING TIMESTAMP 281474976710663 \
         SET cursor = 281474976710663, last_active = 1700000000000 \
         WHERE user = 'old' AND device = 'd1'",
        keyspace.options.keyspace
    );
    keyspace.session.query_unpaged(text, ()).await.expect("written as before");
    let mut row = DeviceRow {
        user,
        device,
        cursor: Position(281_474_976_710_663),
        last_active_ms: 1_700_000_000_000,
    };
    let known = async || store.devices(&row.user, 10).await.expect("read");
    assert_eq!(known().await[0].row, row);
    store.save_cursors(&[DeviceRow { last_active_ms: 1, ..row.clone() }]).await.expect("saved");
    assert_eq!(known().await[0].row, row, "the later activity stays");
    row.last_active_ms += 1;
    store.save_cursors(&[row.clone()]).await.expect("saved");
    let known = store.device(&row.user, &row.device).await.expect("read");
    assert_eq!(known.map(|known| known.row), Some(row));
}

/// Inbox rows by their records' time, days by the beginning of the day; the rest for ever.
async fn what_expires_has_the_life_that_is_left(keyspace: &Keyspace, store: &CqlStore) {
    let user: UserId = "ttl".parse().expect("legal");
    let at_ms = now() - 3_000_000;
    let inbox = vec![InboxRow {
        partition: Partition(9),
        user: user.clone(),
        position: Position(7),
        event: text(7),
        at_ms,
    }];
    let (chat, seq) = ("g.ttl".parse().expect("legal"), 7);
    let hidden = vec![HiddenRow { user: user.clone(), chat, seq }];
    store.write(StoreBatch { inbox, hidden, ..StoreBatch::default() }).await.expect("written");
    let text = format!(
        "SELECT TTL(event) FROM {}.inbox WHERE user = 'ttl' AND partition = 9 ALLOW FILTERING",
        keyspace.options.keyspace
    );
    let result = keyspace.session.query_unpaged(text, ()).await.expect("read");
    let rows = result.into_rows_result().expect("rows");
    let (left,) = rows.single_row::<(i32,)>().expect("one row");
    assert!((500..=600).contains(&left), "{left} s of an hour are left");
    assert_eq!(store.hidden(&user, &chat, (0, 10)).await.expect("read"), [7]);
}
