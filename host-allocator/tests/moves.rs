//! Planned moves and the pushed table: what hosts say of themselves, and who hears of it.

#![allow(clippy::unwrap_used, reason = "test code, helpers included")]

mod scene;

use bytes::Bytes;
use chaski_core::placement::Placement;
use chaski_host_allocator::{AllocatorConfig, Host, Locator, Lookup};
use chaski_ports::Expect;
use chaski_proto::v1::{self, host_tables_server::HostTables};
use futures::StreamExt as _;
use scene::{PARTITIONS, Scene, host, within};
use std::time::Duration;
use tonic::Request;

#[tokio::test]
async fn a_host_that_drains_loses_its_partitions_at_once_while_it_is_there() {
    // A long grace: it is for hosts that are gone, not for those that say that they go.
    let scene = Scene::new(AllocatorConfig { grace_ms: 600_000, ..AllocatorConfig::default() });
    scene.allocator("a1");
    let (one, two) = (scene.host("h1").await, scene.host("h2").await);
    let before = scene.owned(&[("h1", 6), ("h2", 6)]).await;

    let leaving = Host { draining: true, ..host("h1") };
    one.update(&leaving).await.unwrap();
    let after = scene.owned(&[("h1", 0), ("h2", 12)]).await;
    for (partition, owner) in &before {
        if owner.0 == "h2" {
            assert_eq!(&after[partition], owner, "what is not the leaving host's stays");
        }
    }
    assert!(scene.table.hosts().contains(&leaving), "it is still there, and serves");

    // Who is left has nobody to give its partitions to, and keeps them.
    two.update(&Host { draining: true, ..host("h2") }).await.unwrap();
    let three = scene.register(&Host { draining: true, ..host("h3") }).await;
    within("all know it", async {
        let mut table = scene.table.clone();
        while table.hosts().iter().filter(|host| host.draining).count() != 3 {
            table.changed().await.unwrap();
        }
    })
    .await;
    assert_eq!(scene.owned(&[("h2", 12)]).await, after);
    // It has thought better of it.
    three.update(&host("h3")).await.unwrap();
    scene.owned(&[("h2", 0), ("h3", 12)]).await;
    scene.end().await;
}

#[tokio::test]
async fn a_hosts_capacity_is_its_weight_also_while_its_grace_lasts() {
    let scene = Scene::new(AllocatorConfig { grace_ms: 600_000, ..AllocatorConfig::default() });
    scene.allocator("a1");
    let small = scene.host("small").await;
    let large = scene.register(&Host { capacity: 3, ..host("large") }).await;
    let before = scene.owned(&[("small", 3), ("large", 9)]).await;
    drop(large);
    let _other = scene.host("other").await; // in its grace, large still counts three
    let with_other = scene.owned(&[("small", 3), ("large", 7), ("other", 2)]).await;
    let moved = with_other.iter().filter(|(partition, owner)| before[partition] != **owner);
    assert_eq!(moved.count(), 2);
    drop(small);
    scene.end().await;
}

#[tokio::test]
async fn what_an_operator_moved_stays_whatever_hosts_say_of_their_rings() {
    let scene = Scene::new(AllocatorConfig::default());
    scene.allocator("a1");
    let (_one, two) = (scene.host("h1").await, scene.host("h2").await);
    let owned = scene.owned(&[("h1", 6), ("h2", 6)]).await;
    let (partition, _) = owned.iter().find(|(_, owner)| owner.0 == "h1").unwrap();
    let path = format!("/assignments/delivery/{:05}", partition.0);
    let by_hand = Bytes::from_static(br#"{"host":"h2"}"#);
    scene.coordinator.put(&path, by_hand, Expect::Anything).await.unwrap();
    scene.owned(&[("h1", 5), ("h2", 7)]).await;
    two.update(&Host { warm: [partition.0].into(), ..host("h2") }).await.unwrap();
    tokio::time::pause(); // from here on time passes only where nothing else can happen
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((scene.table.mine("h1").len(), scene.table.mine("h2").len()), (5, 7));
    scene.end().await;
}

#[tokio::test]
async fn the_table_is_pushed_at_once_and_at_each_change_of_it() {
    let scene = Scene::new(AllocatorConfig::default());
    scene.allocator("a1");
    let one = scene.host("h1").await;
    scene.owned(&[("h1", 12)]).await;

    let lookup = Lookup::new(scene.table.clone(), Placement::new(PARTITIONS));
    let follow = Locator::new(lookup).follow(Request::new(v1::FollowRequest {})).await;
    let mut pushed = follow.unwrap().into_inner();
    let mut next = async || within("a push", pushed.next()).await.map(Result::unwrap);
    let table = next().await.unwrap();
    assert_eq!((table.partitions, table.generation, table.owners.len()), (12, 1, 12));
    for (place, owner) in (0..).zip(&table.owners) {
        let (host, url) = (owner.host.as_str(), owner.url.as_str());
        assert_eq!((owner.partition, host, url), (place, "h1", "ws://h1/v1/ws"));
    }

    // What hosts say of their rings is between them; a second host is everybody's concern.
    one.update(&Host { warm: [0, 1].into(), ..host("h1") }).await.unwrap();
    let two = scene.host("h2").await;
    let mut table = table;
    while table.owners.iter().filter(|owner| owner.host == "h2").count() != 6 {
        let newer = next().await.unwrap();
        assert_ne!(newer, table, "only changes are pushed");
        table = newer;
    }
    drop((one, two));
    scene.end().await;
    // The table is not followed any more: the stream goes on to its end.
    while next().await.is_some() {}
}
