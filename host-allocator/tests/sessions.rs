//! What becomes of hosts, owners and the leader when the coordinator's session ends.

#![allow(clippy::unwrap_used, reason = "test code, helpers included")]

mod scene;

use chaski_host_allocator::{AllocatorConfig, HostRegistration};
use scene::{PARTITIONS, ROLE, Scene, host, within};
use std::sync::Arc;
use tokio::sync::watch;

#[tokio::test]
async fn l6_what_a_session_owned_ends_with_it_and_hosts_and_leader_come_back_in_the_next() {
    // A long grace: who comes back has what it had.
    let scene = Scene::new(AllocatorConfig { grace_ms: 600_000, ..AllocatorConfig::default() });
    scene.allocator("a1");
    let (say, said) = watch::channel(host("h1"));
    let (coordinator, config) = (Arc::clone(&scene.coordinator), scene.config.clone());
    let stop = scene.tasks.stop();
    scene.tasks.spawn("h1", async move {
        tokio::select! {
            () = stop.cancelled() => Ok(()),
            end = HostRegistration::hold(coordinator, ROLE, said, &config) => end.map(drop),
        }
    });
    let all = PARTITIONS as usize;
    let before = scene.owned(&[("h1", all)]).await;
    let mut table = scene.table.clone();
    let first = scene.coordinator.session().borrow().number;
    assert_eq!(table.mine_in(first, "h1").len(), all);
    assert!(table.mine_in(first + 1, "h1").is_empty(), "what is read before it is not of it");

    scene.coordinator.end_session().await.unwrap();
    let back = async {
        while table.mine_in(first + 1, "h1").len() < all || table.hosts().is_empty() {
            table.changed().await.unwrap();
        }
    };
    within("the next session", back).await;
    assert!(table.mine_in(first, "h1").is_empty(), "the first session owns nothing any more");
    assert_eq!(scene.owned(&[("h1", all)]).await, before);

    // It is the one that is registered now, and somebody leads.
    say.send_modify(|host| host.draining = true);
    let told = async {
        while !table.hosts().iter().all(|host| host.draining) {
            table.changed().await.unwrap();
        }
    };
    within("what the host says", told).await;
    let _two = scene.host("h2").await;
    scene.owned(&[("h1", 0), ("h2", all)]).await;
    scene.end().await;
}
