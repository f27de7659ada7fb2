//! Hosts, an allocator and the tables together, on the embedded coordinator.

#![allow(clippy::unwrap_used, reason = "test code, helpers included")]

mod scene;

use bytes::Bytes;
use chaski_core::{UserId, placement::Placement};
use chaski_host_allocator::{AllocatorConfig, Lookup};
use chaski_ports::Expect;
use scene::{PARTITIONS, Scene, within};
use std::time::Duration;

#[tokio::test]
async fn partitions_follow_their_hosts() {
    let scene = Scene::new(AllocatorConfig::default());
    scene.allocator("a1");
    let (h1, _h2) = (scene.host("h1").await, scene.host("h2").await);
    let two = scene.owned(&[("h1", 6), ("h2", 6)]).await;
    within("all owned", scene.table.clone().all_owned()).await.unwrap();

    let h3 = scene.host("h3").await;
    let three = scene.owned(&[("h1", 4), ("h2", 4), ("h3", 4)]).await;
    for (partition, owner) in &three {
        if owner.0 == "h3" {
            assert!(owner.1 > two[partition].1, "a new owner has a greater epoch");
        } else {
            assert_eq!(owner, &two[partition], "nothing else moves");
        }
    }

    drop(h1);
    let without = scene.owned(&[("h1", 0), ("h2", 6), ("h3", 6)]).await;
    let moved = without.iter().filter(|(p, owner)| three[p] != **owner);
    assert_eq!(moved.count(), 4, "only what the lost host owned");

    let placement = Placement::new(PARTITIONS);
    let lookup = Lookup::new(scene.table.clone(), placement);
    for user in ["alice", "bob", "carol"] {
        let user: UserId = user.parse().unwrap();
        let located = lookup.of_user(&user).unwrap();
        let (host, epoch) = &without[&placement.of_user(&user)];
        assert_eq!(located.partition, placement.of_user(&user));
        assert_eq!((&*located.owner.host, located.owner.epoch), (&**host, *epoch));
        assert_eq!(*located.owner.url, *format!("ws://{host}/v1/ws"));
    }
    drop(h3);
    scene.end().await;
}

#[tokio::test]
async fn a_new_leader_goes_on_where_the_old_one_was() {
    let scene = Scene::new(AllocatorConfig::default());
    let first = scene.allocator("a1");
    let (_h1, h2) = (scene.host("h1").await, scene.host("h2").await);
    let before = scene.owned(&[("h1", 6), ("h2", 6)]).await;

    first.cancel();
    drop(h2); // nobody leads, or the first one still does: either way it is noticed
    scene.allocator("a2");
    let after = scene.owned(&[("h1", 12)]).await;
    let kept = after.iter().filter(|(partition, owner)| before[partition] == **owner);
    assert_eq!(kept.count(), 6, "a new leader moves only what must move");
    scene.end().await;
}

#[tokio::test]
async fn what_an_operator_writes_is_taken_up() {
    let scene = Scene::new(AllocatorConfig::default());
    scene.allocator("a1");
    let (_h1, h2) = (scene.host("h1").await, scene.host("h2").await);
    let owned = scene.owned(&[("h1", 6), ("h2", 6)]).await;
    let (partition, _) = owned.iter().find(|(_, owner)| owner.0 == "h1").unwrap();

    let path = format!("/assignments/delivery/{:05}", partition.0);
    let by_hand = Bytes::from_static(br#"{"host":"h2"}"#);
    let put = scene.coordinator.put(&path, by_hand, Expect::Anything);
    put.await.unwrap();
    scene.owned(&[("h1", 5), ("h2", 7)]).await;

    // The allocator does not know the new version of that node yet, and has to move it.
    drop(h2);
    scene.owned(&[("h1", 12)]).await;
    scene.end().await;
}

#[tokio::test]
async fn a_host_that_comes_back_within_its_grace_keeps_its_partitions() {
    let scene = Scene::new(AllocatorConfig { grace_ms: 30_000, ..AllocatorConfig::default() });
    scene.allocator("a1");
    let (_h1, h2) = (scene.host("h1").await, scene.host("h2").await);
    let before = scene.owned(&[("h1", 6), ("h2", 6)]).await;
    tokio::time::pause(); // from here on time passes only where nothing else can happen

    drop(h2);
    // A second less than the grace, twice: each absence counts alone.
    tokio::time::sleep(Duration::from_secs(29)).await;
    let h2 = scene.host("h2").await;
    tokio::time::sleep(Duration::from_secs(29)).await;
    assert_eq!(scene.owned(&[("h1", 6), ("h2", 6)]).await, before);

    let gone_at = tokio::time::Instant::now();
    drop(h2);
    scene.owned(&[("h1", 12)]).await;
    let waited = gone_at.elapsed().as_millis();
    assert!((30_000..31_000).contains(&waited), "moved after {waited} ms");
    scene.end().await;
}

#[tokio::test]
async fn a_host_started_again_waits_for_its_older_session_to_end() {
    let scene = Scene::new(AllocatorConfig::default());
    let killed = scene.host("h1").await;
    let mut again = Box::pin(scene.host("h1"));
    let early = futures::poll!(&mut again);
    assert!(early.is_pending(), "the older session is still there");
    drop(killed);
    drop(again.await);
    scene.end().await;
}
