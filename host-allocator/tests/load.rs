//! Hosts with too much load: who is relieved of what, and what of it outlives the leader.

#![allow(clippy::unwrap_used, reason = "test code, helpers included")]

mod scene;

use chaski_core::Partition;
use chaski_host_allocator::{AllocatorConfig, Host, HostRegistration};
use chaski_runtime::CancellationToken;
use scene::{PARTITIONS, Scene, host, within};
use std::{collections::BTreeMap, time::Duration};

/// Quick to see it, and slow to take it back.
fn quick() -> AllocatorConfig {
    AllocatorConfig {
        overload_seconds: 1,
        moves_per_minute: 100,
        move_again_seconds: 86_400,
        ..AllocatorConfig::default()
    }
}

/// What a host says whose partitions have these loads.
fn loaded(id: &str, loads: impl IntoIterator<Item = (Partition, u32)>) -> Host {
    let load = loads.into_iter().map(|(partition, load)| (partition.0, load)).collect();
    Host { load: Some(load), ..host(id) }
}

/// Two hosts with six partitions each; two of the first one's are hot, in the order given.
struct Hot {
    scene: Scene,
    one: HostRegistration,
    two: HostRegistration,
    leader: CancellationToken,
    owned: BTreeMap<Partition, (String, u64)>,
    hot: [Partition; 2],
}

impl Hot {
    async fn new(config: AllocatorConfig) -> Self {
        let scene = Scene::new(config);
        let (one, two) = (scene.host("h1").await, scene.host("h2").await);
        let leader = scene.allocator("a1");
        let owned = scene.owned(&[("h1", 6), ("h2", 6)]).await;
        let mut of_h1 = owned.iter().filter(|(_, owner)| owner.0 == "h1").map(|(p, _)| *p);
        let hot = [of_h1.next().unwrap(), of_h1.next().unwrap()];
        Self { scene, one, two, leader, owned, hot }
    }

    async fn tell_hot(&self) {
        self.one.update(&loaded("h1", self.hot.map(|partition| (partition, 300)))).await.unwrap();
    }

    /// What stands in the coordinator for the partition.
    async fn node(&self, partition: Partition) -> String {
        let path = format!("/assignments/delivery/{:05}", partition.0);
        let node = self.scene.coordinator.get(&path).await.unwrap().unwrap();
        String::from_utf8(node.data.to_vec()).unwrap()
    }
}

#[tokio::test]
async fn an_overloaded_host_lends_a_partition_and_the_next_leader_leaves_it_lent() {
    let cluster = Hot::new(quick()).await;
    let scene = &cluster.scene;
    cluster.two.update(&loaded("h2", [])).await.unwrap();
    cluster.tell_hot().await;
    // One of the two relieves; the other one would be as hot there.
    let after = scene.owned(&[("h1", 5), ("h2", 7)]).await;
    let moved: Vec<_> = after.iter().filter(|(p, owner)| cluster.owned[p] != **owner).collect();
    let [(lent, (_, epoch))] = moved[..] else { panic!("{moved:?}") };
    assert!(cluster.hot.contains(lent), "{lent} is not hot");
    assert!(*epoch > cluster.owned[lent].1, "a new owner has a greater epoch");
    assert_eq!(cluster.node(*lent).await, r#"{"host":"h2","home":"h1"}"#);

    // The next leader finds it so, and has nothing to do when a host comes that does not stay.
    for (id, registration) in [("h1", &cluster.one), ("h2", &cluster.two)] {
        registration.update(&loaded(id, [])).await.unwrap();
    }
    cluster.leader.cancel();
    let leaving = Host { draining: true, ..loaded("h3", []) };
    let three = scene.register(&leaving).await;
    scene.allocator("a2");
    // It stays after all: a third of the partitions, and not one more, are moved.
    three.update(&loaded("h3", [])).await.unwrap();
    within("a third", async {
        let mut table = scene.table.clone();
        while table.mine("h3").len() != 4 {
            table.changed().await.unwrap();
        }
    })
    .await;
    let owner_of = |partition| scene.table.owner_of(partition).unwrap().host.to_string();
    let moved = after.iter().filter(|(p, owner)| owner_of(**p) != owner.0);
    assert_eq!(moved.count(), 4);
    cluster.scene.end().await;
}

#[tokio::test]
async fn nothing_is_moved_while_a_host_does_not_tell_its_load_and_nothing_to_who_drains() {
    let cluster = Hot::new(quick()).await;
    let scene = &cluster.scene;
    let leaving = Host { draining: true, ..loaded("h3", []) };
    let _three = scene.register(&leaving).await;
    cluster.tell_hot().await;
    tokio::time::pause(); // from here on time passes only where nothing else can happen
    tokio::time::sleep(Duration::from_secs(60)).await;
    let owned: usize = ["h1", "h2"].map(|id| scene.table.mine(id).len()).iter().sum();
    assert_eq!((owned, scene.table.mine("h1").len()), (PARTITIONS as usize, 6));
    tokio::time::resume();
    cluster.two.update(&loaded("h2", [])).await.unwrap();
    scene.owned(&[("h1", 5), ("h2", 7), ("h3", 0)]).await;
    cluster.scene.end().await;
}

#[tokio::test]
async fn nothing_is_moved_where_that_is_not_wished() {
    let cluster = Hot::new(AllocatorConfig { rebalance: false, ..quick() }).await;
    cluster.two.update(&loaded("h2", [])).await.unwrap();
    cluster.tell_hot().await;
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(cluster.scene.table.mine("h1").len(), 6);
    cluster.scene.end().await;
}
