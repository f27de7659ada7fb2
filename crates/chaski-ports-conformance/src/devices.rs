//! The cases of the device store.

use crate::Fixture;
use chaski_core::{Position, UserId};
use chaski_ports::{DeviceRow, DeviceStore};
use std::sync::Arc;

/// A user of this case alone: backends that cannot be emptied are isolated by random ids.
fn somebody() -> UserId {
    uuid::Uuid::new_v4().simple().to_string().parse().expect("a legal id")
}

fn row(user: &UserId, device: &str, cursor: u64, at: i64) -> DeviceRow {
    DeviceRow {
        user: user.clone(),
        device: device.parse().expect("a legal id"),
        cursor: Position(cursor),
        last_active_ms: at,
    }
}

async fn open<F: Fixture<Port = dyn DeviceStore>>(fixture: &F) -> Arc<dyn DeviceStore> {
    fixture.open().await.expect("open")
}

async fn cursor(store: &Arc<dyn DeviceStore>, user: &UserId, device: &str) -> Option<u64> {
    let row = store.device(user, &device.parse().expect("a legal id")).await.expect("read");
    row.map(|row| row.cursor.0)
}

/// What was saved is seen at once, and by whoever opens the store anew.
pub async fn durable_on_return<F: Fixture<Port = dyn DeviceStore>>(fixture: &F) {
    let (store, ana) = (open(fixture).await, somebody());
    assert_eq!(store.devices(&ana, 10).await.expect("read"), []);
    let rows = [row(&ana, "d1", 1 << 48 | 7, 1_000), row(&ana, "d2", 0, 2_000)];
    store.save_cursors(&rows).await.expect("save");
    assert_eq!(store.devices(&ana, 10).await.expect("read"), rows);
    drop(store);

    let store = open(fixture).await;
    assert_eq!(store.devices(&ana, 10).await.expect("read"), rows);
    let one = store.device(&ana, &rows[0].device).await.expect("read");
    assert_eq!(one.as_ref(), Some(&rows[0]));
    assert_eq!(cursor(&store, &ana, "d3").await, None);
}

/// A cursor never goes back: not later, not in one call, not in a race.
pub async fn newer_version_wins<F: Fixture<Port = dyn DeviceStore>>(fixture: &F) {
    let (store, ana) = (open(fixture).await, somebody());
    store.save_cursors(&[row(&ana, "d1", 50, 2_000)]).await.expect("save");
    store.save_cursors(&[row(&ana, "d1", 49, 3_000)]).await.expect("save");
    let kept = store.device(&ana, &"d1".parse().expect("a legal id")).await.expect("read");
    assert_eq!(kept, Some(row(&ana, "d1", 50, 2_000)), "going back changes nothing");
    store.save_cursors(&[row(&ana, "d1", 51, 4_000)]).await.expect("save");
    assert_eq!(cursor(&store, &ana, "d1").await, Some(51));
    let unordered = [row(&ana, "d2", 8, 1), row(&ana, "d2", 9, 1), row(&ana, "d2", 7, 1)];
    store.save_cursors(&unordered).await.expect("save");
    assert_eq!(cursor(&store, &ana, "d2").await, Some(9));
    let race = (1..=40).map(|n| {
        let (store, row) = (Arc::clone(&store), row(&ana, "d3", n * 7 % 41, 1));
        async move { store.save_cursors(&[row]).await.expect("save") }
    });
    futures::future::join_all(race).await;
    assert_eq!(cursor(&store, &ana, "d3").await, Some(40));
}

/// A user's devices come ascending by id, as many as asked, and nobody else's.
pub async fn devices_are_ordered<F: Fixture<Port = dyn DeviceStore>>(fixture: &F) {
    let (store, ana) = (open(fixture).await, somebody());
    let longer: UserId = format!("{ana}x").parse().expect("a legal id");
    let ids = ["a", "-", "z", "B", "a.b", "a-", "10", "9", "~"];
    let mut rows: Vec<_> = ids.iter().map(|id| row(&ana, id, 1, 1)).collect();
    store.save_cursors(&rows).await.expect("save");
    store.save_cursors(&[row(&longer, "a", 1, 1)]).await.expect("save");
    rows.sort_by(|a, b| a.device.cmp(&b.device));
    assert_eq!(store.devices(&ana, 100).await.expect("read"), rows);
    assert_eq!(store.devices(&ana, 4).await.expect("read"), rows[..4]);
    assert_eq!(store.devices(&longer, 100).await.expect("read").len(), 1);
}
