//! The cases of the checkpoint store.

use crate::Fixture;
use bytes::Bytes;
use chaski_core::{Offset, Origin, Partition, SourceId, Watermark};
use chaski_ports::{CheckpointStore, ErrorKind, Snapshot, WatermarkRow};
use futures::future::join_all;
use std::{collections::BTreeSet, sync::Arc};

/// A role and a partition of this case alone.
fn somewhere() -> (String, Partition) {
    let id = uuid::Uuid::new_v4();
    let partition = id.as_u128() as u32 >> 1;
    (format!("role-{}", id.simple()), Partition(partition))
}

async fn open<F: Fixture<Port = dyn CheckpointStore>>(fixture: &F) -> Arc<dyn CheckpointStore> {
    fixture.open().await.expect("open")
}

fn watermark(epoch: u64, next: u64) -> WatermarkRow {
    let mut watermark = Watermark { next: Offset(next), ..Watermark::default() };
    for n in 0..3 {
        let origin = Origin { offset: Offset(next * 10 + u64::from(n)), index: n };
        watermark.high.insert((SourceId(u64::MAX - 5), Partition(n)), origin);
    }
    WatermarkRow { epoch, watermark }
}

fn snapshot(bucket: u32, epoch: u64, as_of: u64, state: &'static str) -> Snapshot {
    Snapshot { bucket, epoch, as_of: Offset(as_of), state: Bytes::from_static(state.as_bytes()) }
}

async fn snapshots(store: &Arc<dyn CheckpointStore>, partition: Partition) -> Vec<Snapshot> {
    let mut found = store.snapshots(partition).await.expect("read");
    found.sort_by_key(|snapshot| snapshot.bucket);
    found
}

/// What was saved is seen at once, and by whoever opens the store anew.
pub async fn durable_on_return<F: Fixture<Port = dyn CheckpointStore>>(fixture: &F) {
    let (store, (role, here)) = (open(fixture).await, somewhere());
    assert_eq!(store.watermarks(&role, here, 10).await.expect("read"), []);
    assert_eq!(snapshots(&store, here).await, []);
    let (mark, parts) = (watermark(3, 70), [snapshot(0, 3, 69, ""), snapshot(9, 3, 50, "nine")]);
    store.save_watermark(&role, here, &mark).await.expect("save");
    for part in &parts {
        store.put_snapshot(here, part).await.expect("save");
    }
    let claimed = store.claim(&role, here, 5).await.expect("claim");
    drop(store);

    let store = open(fixture).await;
    assert_eq!(store.watermarks(&role, here, 10).await.expect("read"), [mark]);
    assert_eq!(snapshots(&store, here).await, parts);
    let elsewhere = Partition(here.0 + 1);
    assert_eq!(store.watermarks(&role, elsewhere, 10).await.expect("read"), []);
    assert_eq!(snapshots(&store, elsewhere).await, []);
    let again = store.claim(&role, here, 5).await.expect("claim");
    assert!(again.epoch > claimed.epoch, "{again:?} after {claimed:?}");
}

/// Whoever writes last, the greatest epoch comes first, and in it the greatest offset.
pub async fn greatest_epoch_then_offset_wins<F: Fixture<Port = dyn CheckpointStore>>(fixture: &F) {
    let (store, (role, here)) = (open(fixture).await, somewhere());
    let order = [(2, 900), (2, 5_000), (10, 800), (10, 799), (1, 9_000), (2, 901)];
    for (epoch, next) in order {
        store.save_watermark(&role, here, &watermark(epoch, next)).await.expect("save");
    }
    let expected = [(10, 800), (10, 799), (2, 5_000), (2, 901), (2, 900), (1, 9_000)];
    let expected = expected.map(|(epoch, next)| watermark(epoch, next));
    assert_eq!(store.watermarks(&role, here, 100).await.expect("read"), expected);
    assert_eq!(store.watermarks(&role, here, 2).await.expect("read"), expected[..2]);

    let old_owner = snapshot(1, 2, 9_999, "an old owner, far ahead");
    let new_owner = snapshot(1, 10, 100, "the new owner");
    store.put_snapshot(here, &snapshot(1, 2, 50, "first")).await.expect("save");
    store.put_snapshot(here, &new_owner).await.expect("save");
    store.put_snapshot(here, &old_owner).await.expect("a zombie is not told");
    store.put_snapshot(here, &snapshot(1, 10, 99, "late")).await.expect("save");
    assert_eq!(snapshots(&store, here).await, [new_owner]);
    let further = snapshot(1, 10, 101, "further");
    store.put_snapshot(here, &further).await.expect("save");
    assert_eq!(snapshots(&store, here).await, [further]);
}

/// Every claim is above all before and what was asked, races included.
pub async fn a_claim_grows<F: Fixture<Port = dyn CheckpointStore>>(fixture: &F) {
    let (store, (role, here)) = (open(fixture).await, somewhere());
    let mut last = 0;
    for assignment in [0, 0, 100, 100, 101] {
        let epoch = store.claim(&role, here, assignment).await.expect("claim").epoch;
        assert!(epoch > last && epoch >= assignment, "{epoch} after {last}, asked {assignment}");
        last = epoch;
    }
    let race = join_all((0..16).map(|_| store.claim(&role, here, 101))).await;
    let won: Vec<u64> = race.iter().flatten().map(|claimed| claimed.epoch).collect();
    let lost = race.iter().filter_map(|claim| claim.as_ref().err());
    for error in lost {
        assert_eq!(error.kind, ErrorKind::Conflict, "{error}");
    }
    assert!(!won.is_empty(), "somebody wins");
    assert_eq!(won.iter().collect::<BTreeSet<_>>().len(), won.len(), "all differ: {won:?}");
    assert!(won.iter().all(|epoch| *epoch > last));
    drop(store);

    let store = open(fixture).await;
    let next = store.claim(&role, here, 101).await.expect("claim").epoch;
    assert!(won.iter().all(|epoch| *epoch < next));
    let other = store.claim("another-role", here, 7).await.expect("claim").epoch;
    assert!(other >= 7, "roles are claimed apart");
}

/// Who was paused while the partition was given to another one does not claim past them.
pub async fn a_late_claim_is_refused<F: Fixture<Port = dyn CheckpointStore>>(fixture: &F) {
    let (store, (role, here)) = (open(fixture).await, somewhere());
    store.claim(&role, here, 7).await.expect("claim");
    let owner = store.claim(&role, here, 9).await.expect("claim").epoch;
    for _ in 0..2 {
        let late = store.claim(&role, here, 8).await.expect_err("another one owns it by now");
        assert_eq!(late.kind, ErrorKind::Conflict, "{late}");
    }
    drop(store);
    let store = open(fixture).await;
    assert!(store.claim(&role, here, 8).await.is_err(), "still");
    let again = store.claim(&role, here, 9).await.expect("the owner started anew").epoch;
    assert_eq!(again, owner + 1, "what was refused has used no epoch");
}

/// The newest hundred watermarks are there, over a new opening too.
pub async fn the_newest_hundred_are_kept<F: Fixture<Port = dyn CheckpointStore>>(fixture: &F) {
    let (store, (role, here)) = (open(fixture).await, somewhere());
    for next in 1..=70 {
        store.save_watermark(&role, here, &watermark(1, next)).await.expect("save");
    }
    drop(store);
    let store = open(fixture).await;
    for next in 71..=140 {
        store.save_watermark(&role, here, &watermark(1, next)).await.expect("save");
    }
    let newest: Vec<_> = (41..=140).rev().map(|next| watermark(1, next)).collect();
    let found = store.watermarks(&role, here, 100).await.expect("read");
    assert!(found == newest, "{} of the newest hundred", found.len());
}

/// A snapshot of many megabytes comes back whole, and gives way to the next one.
pub async fn a_large_snapshot_is_kept<F: Fixture<Port = dyn CheckpointStore>>(fixture: &F) {
    let (store, (_, here)) = (open(fixture).await, somewhere());
    let state = |seed: u32| -> Bytes {
        let noise =
            (0..6_500_001_u32).map(|n| ((n ^ seed).wrapping_mul(2_654_435_761) >> 24) as u8);
        noise.collect::<Vec<_>>().into()
    };
    let large = |as_of, state| Snapshot { state, ..snapshot(3, 1, as_of, "") };
    store.put_snapshot(here, &large(10, state(1))).await.expect("save");
    store.put_snapshot(here, &large(20, state(2))).await.expect("save");
    store.put_snapshot(here, &large(15, state(3))).await.expect("save");
    drop(store);
    let found = snapshots(&open(fixture).await, here).await;
    assert!(found == [large(20, state(2))], "the newest one, byte for byte");
}
