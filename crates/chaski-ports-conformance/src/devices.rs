//! The cases of the device store.

use crate::Fixture;
use chaski_core::{DeviceId, Position, UserId};
use chaski_ports::{DeviceNote, DeviceRow, DeviceStore, KnownDevice};
use std::sync::Arc;

/// A user of this case alone: backends that cannot be emptied are isolated by random ids.
fn somebody() -> UserId {
    uuid::Uuid::new_v4().simple().to_string().parse().expect("a legal id")
}

fn id(device: &str) -> DeviceId {
    device.parse().expect("a legal id")
}

fn row(user: &UserId, device: &str, cursor: u64, at: i64) -> DeviceRow {
    let (user, device) = (user.clone(), id(device));
    DeviceRow { user, device, cursor: Position(cursor), last_active_ms: at }
}

/// A device without notes.
fn plain(row: &DeviceRow) -> KnownDevice {
    KnownDevice { row: row.clone(), name: String::new(), revoked_ms: 0 }
}

async fn open<F: Fixture<Port = dyn DeviceStore>>(fixture: &F) -> Arc<dyn DeviceStore> {
    fixture.open().await.expect("open")
}

async fn save(store: &Arc<dyn DeviceStore>, rows: &[DeviceRow]) {
    store.save_cursors(rows).await.expect("save");
}

async fn named(store: &Arc<dyn DeviceStore>, user: &UserId, device: &str, name: &str, at: i64) {
    let note = DeviceNote::Name(name.to_owned());
    store.note(user, &id(device), note, at).await.expect("note");
}

async fn revoked(store: &Arc<dyn DeviceStore>, user: &UserId, device: &str, at: i64) {
    store.note(user, &id(device), DeviceNote::Revoked, at).await.expect("note");
}

async fn device(store: &Arc<dyn DeviceStore>, user: &UserId, device: &str) -> Option<KnownDevice> {
    store.device(user, &id(device)).await.expect("read")
}

async fn devices(store: &Arc<dyn DeviceStore>, user: &UserId, limit: usize) -> Vec<KnownDevice> {
    store.devices(user, limit).await.expect("read")
}

/// What was saved and noted is seen at once, and by whoever opens the store anew.
pub async fn durable_on_return<F: Fixture<Port = dyn DeviceStore>>(fixture: &F) {
    let (store, ana) = (open(fixture).await, somebody());
    assert_eq!(devices(&store, &ana, 10).await, []);
    let rows = [row(&ana, "d1", 1 << 48 | 7, 1_000), row(&ana, "d2", 0, 2_000)];
    save(&store, &rows).await;
    assert_eq!(devices(&store, &ana, 10).await, rows.each_ref().map(plain));
    named(&store, &ana, "d2", "my phone", 3_000).await;
    revoked(&store, &ana, "d2", 4_000).await;
    let second =
        KnownDevice { row: rows[1].clone(), name: "my phone".to_owned(), revoked_ms: 4_000 };
    let known = [plain(&rows[0]), second];
    assert_eq!(devices(&store, &ana, 10).await, known);
    drop(store);

    let store = open(fixture).await;
    assert_eq!(devices(&store, &ana, 10).await, known);
    for one in &known {
        assert_eq!(device(&store, &ana, one.row.device.as_str()).await.as_ref(), Some(one));
    }
    assert_eq!(device(&store, &ana, "d3").await, None);
}

/// A cursor never goes back, nor does the time of the last activity: not later, not in one call,
/// not in a race; each moves without the other.
pub async fn newer_version_wins<F: Fixture<Port = dyn DeviceStore>>(fixture: &F) {
    let (store, ana) = (open(fixture).await, somebody());
    // Real times and positions: one may not be taken for the other.
    let (base, now) = (1 << 48, 1_800_000_000_000);
    for ((cursor, active), kept) in [
        ((50, 2_000), (50, 2_000)),
        ((49, 1_000), (50, 2_000)),
        ((49, 3_000), (50, 3_000)),
        ((50, 4_000), (50, 4_000)),
        ((50, 3_999), (50, 4_000)),
        ((51, 3_500), (51, 4_000)),
        ((52, 5_000), (52, 5_000)),
    ] {
        save(&store, &[row(&ana, "d1", base + cursor, now + active)]).await;
        let found = device(&store, &ana, "d1").await;
        let kept = plain(&row(&ana, "d1", base + kept.0, now + kept.1));
        assert_eq!(found, Some(kept), "after {cursor} at {active}");
    }
    let unordered = [row(&ana, "d2", 8, 1), row(&ana, "d2", 9, 1), row(&ana, "d2", 7, 3)];
    save(&store, &unordered).await;
    assert_eq!(device(&store, &ana, "d2").await, Some(plain(&row(&ana, "d2", 9, 3))));
    let race = (1..=40_i64).map(|n| {
        let (store, n) = (Arc::clone(&store), n * 7 % 41);
        let row = row(&ana, "d3", n.unsigned_abs(), 100 - n);
        async move { save(&store, &[row]).await }
    });
    futures::future::join_all(race).await;
    assert_eq!(device(&store, &ana, "d3").await, Some(plain(&row(&ana, "d3", 40, 99))));
}

/// Of the notes of one kind the later stays; they touch neither one another nor the cursor, and
/// there may be notes of a device that has no cursor.
pub async fn notes_stand_beside_cursors<F: Fixture<Port = dyn DeviceStore>>(fixture: &F) {
    let (store, ana) = (open(fixture).await, somebody());
    let check = async |cursor: u64, active: i64, name: &str, revoked_ms: i64| {
        let (row, name) = (row(&ana, "d1", cursor, active), name.to_owned());
        let expected = KnownDevice { row, name, revoked_ms };
        assert_eq!(device(&store, &ana, "d1").await.as_ref(), Some(&expected));
        assert_eq!(devices(&store, &ana, 10).await, [expected]);
    };
    named(&store, &ana, "d1", "old phone", 2_000).await;
    check(0, 0, "old phone", 0).await;
    named(&store, &ana, "d1", "older phone", 1_000).await;
    check(0, 0, "old phone", 0).await;
    revoked(&store, &ana, "d1", 1_500).await;
    check(0, 0, "old phone", 1_500).await;
    save(&store, &[row(&ana, "d1", 1 << 48, 500)]).await;
    check(1 << 48, 500, "old phone", 1_500).await;
    named(&store, &ana, "d1", "ana's phone \u{1f4f1}", 3_000).await;
    revoked(&store, &ana, "d1", 1_400).await;
    check(1 << 48, 500, "ana's phone \u{1f4f1}", 1_500).await;
    revoked(&store, &ana, "d1", 4_000).await;
    named(&store, &ana, "d1", "", 3_001).await;
    check(1 << 48, 500, "", 4_000).await;
    named(&store, &ana, "d1", "late", 2_999).await;
    save(&store, &[row(&ana, "d1", (1 << 48) + 1, 5_000)]).await;
    check((1 << 48) + 1, 5_000, "", 4_000).await;
}

/// A user's devices come ascending by id, as many as asked, and nobody else's.
pub async fn devices_are_ordered<F: Fixture<Port = dyn DeviceStore>>(fixture: &F) {
    let (store, ana) = (open(fixture).await, somebody());
    let longer: UserId = format!("{ana}x").parse().expect("a legal id");
    let ids = ["a", "-", "z", "B", "a.b", "a-", "10", "9", "~"];
    let mut rows: Vec<_> = ids.iter().map(|id| row(&ana, id, 1, 1)).collect();
    save(&store, &rows).await;
    save(&store, &[row(&longer, "a", 1, 1)]).await;
    // Some that have notes alone, between and around them.
    for id in ["aa", "0", "~~"] {
        revoked(&store, &ana, id, 7).await;
        rows.push(row(&ana, id, 0, 0));
    }
    rows.sort_by(|a, b| a.device.cmp(&b.device));
    let found = async |user: &UserId, limit| -> Vec<DeviceRow> {
        devices(&store, user, limit).await.into_iter().map(|known| known.row).collect()
    };
    assert_eq!(found(&ana, 100).await, rows);
    for limit in [0, 1, 4, rows.len() - 1] {
        assert_eq!(found(&ana, limit).await, rows[..limit]);
    }
    assert_eq!(found(&longer, 100).await.len(), 1);
}
