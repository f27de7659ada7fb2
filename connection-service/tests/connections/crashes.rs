//! L6: whatever fails, and whoever decides beside, every request has one effect.

use crate::{
    broken::{Fault, Hold, Holding, faulty},
    world::{World, hide, hides, partition_of, set},
};
use chaski_connection_service::ConnectionService;
use chaski_ports::{Ports, Topic};
use chaski_proto::v1::ConnectionStatus as Status;
use std::{collections::BTreeMap, sync::Arc};

const NONE: i32 = Status::None as i32;
const ACTIVE: i32 = Status::Active as i32;
const BLOCKED: i32 = Status::Blocked as i32;

/// Blocks, tries to unblock without the version, unblocks, hides read marks.
async fn story(service: &ConnectionService, user: &str) {
    let blocked = set(service, user, "eve", BLOCKED, None).await.unwrap();
    assert_eq!((blocked.status, blocked.version), (BLOCKED, 1), "{user}");
    assert!(!blocked.token.is_empty());
    let again = set(service, user, "eve", BLOCKED, Some(0)).await.unwrap();
    assert_eq!((again.status, again.version), (BLOCKED, 1), "{user}");
    let refused = set(service, user, "eve", ACTIVE, None).await.unwrap_err();
    assert_eq!((refused.status, refused.connection.unwrap().version), (409, 1), "{user}");
    let lifted = set(service, user, "eve", NONE, Some(1)).await.unwrap();
    assert_eq!((lifted.status, lifted.version), (NONE, 2), "{user}");
    hide(service, user, true).await;
}

#[tokio::test]
async fn l6_a_crash_between_any_two_steps_leaves_one_effect() {
    let world = World::new().await;
    let fault = Fault::none();
    let service = world.service(faulty(&world.ports, &fault));
    world.run(&service, 1);
    let mut steps = BTreeMap::new();
    for after in [false, true] {
        for step in 0.. {
            let user = format!("user-{after}-{step}");
            fault.arm(step, after);
            story(&service, &user).await;
            let failed = fault.disarm();
            let told = world.told(&user).await;
            assert_eq!(told, ["eve Blocked v1", "eve None v2 lifted", "hide true"], "{user}");
            assert_eq!(world.published(&user, "eve").await, Some((NONE, 2)), "{user}");
            assert!(hides(&service, &user).await);
            if !failed {
                steps.insert(after, step);
                break;
            }
        }
    }
    // Two changes of 4 writes each, settings of 3, two refusals of 1; watermarks beside.
    assert!(steps.values().all(|steps| *steps >= 13), "{steps:?}");
    world.end().await;
}

/// Four requests of three users of one partition, which are decided side by side as far as they may
/// be: the last one is the first user's second.
#[tokio::test]
async fn l6_a_crash_among_requests_of_many_users_leaves_one_effect_of_each() {
    let mut steps = BTreeMap::new();
    for after in [false, true] {
        for step in 0.. {
            let world = World::new().await;
            let fault = Fault::none();
            let service = world.service(faulty(&world.ports, &fault));
            let partition = partition_of("user-0");
            let names = (0..).map(|n| format!("user-{n}"));
            let users: Vec<_> = names.filter(|u| partition_of(u) == partition).take(3).collect();
            let asked =
                [(0, BLOCKED, None), (1, ACTIVE, None), (2, BLOCKED, None), (0, NONE, Some(1))];
            let mut answers = Vec::new();
            for (place, (user, status, based_on)) in asked.into_iter().enumerate() {
                let (service, user) = (Arc::clone(&service), users[user].clone());
                let (answered, answer) = tokio::sync::oneshot::channel();
                world.spawn(async move {
                    answered.send(set(&service, &user, "eve", status, based_on).await).unwrap();
                });
                answers.push(answer);
                world.records(Topic::ConnectionRequests, partition, place + 1).await;
            }
            fault.arm(step, after);
            world.run(&service, 1);
            let mut versions = Vec::new();
            for answer in answers {
                versions.push(answer.await.unwrap().unwrap().version);
            }
            let failed = fault.disarm();
            let what = format!("after {after}, step {step}");
            assert_eq!(versions, [1, 1, 1, 2], "{what}");
            for (user, told, state) in [
                (0, &["eve Blocked v1", "eve None v2 lifted"][..], (NONE, 2)),
                (1, &["eve Active v1"], (ACTIVE, 1)),
                (2, &["eve Blocked v1"], (BLOCKED, 1)),
            ] {
                assert_eq!(world.told(&users[user]).await, told, "{what}, user {user}");
                assert_eq!(world.published(&users[user], "eve").await, Some(state), "{what}");
            }
            world.end().await;
            if !failed {
                steps.insert(after, step);
                break;
            }
        }
    }
    // Four changes of 4 writes each; watermarks beside.
    assert!(steps.values().all(|steps| *steps >= 16), "{steps:?}");
}

#[tokio::test]
async fn l6_an_owner_that_was_paused_changes_nothing_when_it_goes_on() {
    for hold in [Hold::Read, Hold::Save] {
        let world = World::new().await;
        let holding = Holding::new(Arc::clone(&world.ports.connections), hold);
        let ports = Ports { connections: Arc::clone(&holding) as _, ..world.ports.clone() };
        let (old, new) = (world.service(ports), world.service(world.ports.clone()));
        world.run(&old, 1);
        // Asked of the new one, which owns nothing yet: the old one decides, and is held at it.
        let asking = Arc::clone(&new);
        let (answered, answer) = tokio::sync::oneshot::channel();
        world.spawn(async move {
            answered.send(set(&asking, "ana", "eve", BLOCKED, None).await).unwrap();
        });
        holding.held.notified().await;
        world.run(&new, 2);
        assert_eq!(answer.await.unwrap().unwrap().version, 1, "{hold:?}");
        set(&new, "ana", "eve", NONE, Some(1)).await.unwrap();
        set(&new, "ana", "eve", ACTIVE, None).await.unwrap();

        holding.release.notify_one();
        // Its own decision, a repeat of the first one; and its word in the derived topic, which it
        // takes back at the request that made the present state.
        world.records(Topic::Recipients, partition_of("ana"), 4).await;
        world.records(Topic::Connections, chaski_core::Partition(0), 5).await;
        let told = world.told("ana").await;
        assert_eq!(told, ["eve Blocked v1", "eve None v2 lifted", "eve Active v3"], "{hold:?}");
        assert_eq!(world.published("ana", "eve").await, Some((ACTIVE, 3)), "{hold:?}");
        let next = set(&new, "ana", "eve", BLOCKED, Some(3)).await.unwrap();
        assert_eq!(next.version, 4, "{hold:?}");
        world.end().await;
    }
}
