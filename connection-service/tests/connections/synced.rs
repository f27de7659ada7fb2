//! The stricter policy: no block is lifted before every device in use has taken it.

use crate::world::{IDLE_DAYS, NOW, World, partition_of, set};
use chaski_connection_service::{ConnectionService, ConnectionsConfig};
use chaski_core::{
    Position,
    connection::{BlockEdge, ConnectionChange},
    record::UnixMs,
};
use chaski_ports::{BlockRow, DeviceRow, StoreBatch, Topic};
use chaski_proto::{
    Problem, RecipientRecord, connection_change,
    v1::{ConnectionStatus as Status, recipients_record::Event},
};
use std::sync::Arc;

const NONE: i32 = Status::None as i32;
const ACTIVE: i32 = Status::Active as i32;
const BLOCKED: i32 = Status::Blocked as i32;

fn strict(world: &World) -> Arc<ConnectionService> {
    let config =
        ConnectionsConfig { unblock_needs_sync: true, verdict_ms: 500, ..Default::default() };
    let service = world.service_with(world.ports.clone(), config);
    world.run(&service, 1);
    service
}

/// A device of ana has acknowledged up to here.
async fn device(world: &World, name: &str, cursor: Position, last_active_ms: UnixMs) {
    let (user, device) = ("ana".parse().unwrap(), name.parse().unwrap());
    let row = DeviceRow { user, device, cursor, last_active_ms };
    world.ports.devices.save_cursors(&[row]).await.unwrap();
}

/// The message service stores the edge that the `nth` record in ana's partition is; its place.
async fn edge(world: &World, nth: usize) -> Position {
    let partition = partition_of("ana");
    let record = world.records(Topic::Recipients, partition, nth).await.remove(nth - 1);
    let entry = RecipientRecord::decode(record.value).unwrap().entry.unwrap();
    let Event::ConnectionChange(change) = &entry.event else { panic!("{:?}", entry.event) };
    let change: ConnectionChange = connection_change(change, entry.at_ms).unwrap();
    let edge = BlockEdge::of(&entry.users[0], record.offset, &change).expect("an edge");
    let blocks = vec![BlockRow { partition, edge }];
    world.ports.messages.write(StoreBatch { blocks, ..StoreBatch::default() }).await.unwrap();
    Position::at(record.offset)
}

fn before(place: Position) -> Position {
    Position(place.0 - 1)
}

/// What is said to who would lift the block of eve.
#[track_caller]
fn refused(result: Result<chaski_proto::v1::ConnectionSet, Problem>, version: u64, words: &str) {
    let problem = result.unwrap_err();
    assert_eq!((problem.status, &*problem.code), (409, "block_not_synced"), "{problem}");
    let present = problem.connection.expect("how it stands");
    assert_eq!((&*present.user_id, present.status), ("eve", BLOCKED));
    assert_eq!(present.version, version);
    assert!(problem.message.starts_with(words), "{}", problem.message);
}

#[tokio::test]
async fn l7_a_block_is_not_lifted_before_every_device_in_use_has_taken_it() {
    let world = World::new().await;
    let service = strict(&world);
    set(&service, "ana", "eve", BLOCKED, None).await.unwrap();
    device(&world, "phone", Position(u64::MAX >> 8), NOW).await;
    // Where the block stands is not stored yet.
    let early = set(&service, "ana", "eve", NONE, Some(1)).await;
    refused(early, 1, "1 of your 1 devices");
    let place = edge(&world, 1).await;
    device(&world, "laptop", before(place), NOW).await;
    let idle = NOW - i64::from(IDLE_DAYS) * 86_400_000 - 1;
    device(&world, "retired", Position(0), idle).await;
    for status in [NONE, ACTIVE] {
        let behind = set(&service, "ana", "eve", status, Some(1)).await;
        refused(behind, 1, "1 of your 2 devices");
    }
    assert_eq!(world.told("ana").await, ["eve Blocked v1"]);
    // Everything else is as ever.
    for version in [None, Some(0), Some(7)] {
        let conflict = set(&service, "ana", "eve", NONE, version).await.unwrap_err();
        assert_eq!(&*conflict.code, "connection_conflict", "{version:?}");
        assert_eq!(conflict.connection.unwrap().version, 1);
    }
    set(&service, "ana", "eve", BLOCKED, Some(1)).await.unwrap();
    set(&service, "ana", "ben", ACTIVE, Some(0)).await.unwrap();
    set(&service, "ana", "ben", NONE, Some(1)).await.unwrap();
    // At the block's place it has taken it.
    device(&world, "laptop", place, NOW).await;
    assert_eq!(set(&service, "ana", "eve", NONE, Some(1)).await.unwrap().version, 2);
    world.end().await;
}

#[tokio::test]
async fn l7_the_place_of_an_earlier_block_does_not_count() {
    let world = World::new().await;
    let service = strict(&world);
    set(&service, "ana", "eve", BLOCKED, None).await.unwrap();
    let place = edge(&world, 1).await;
    device(&world, "phone", place, NOW).await;
    world.clock.set(NOW + 1);
    set(&service, "ana", "eve", NONE, Some(1)).await.unwrap();
    world.clock.set(NOW + 2);
    set(&service, "ana", "eve", BLOCKED, Some(2)).await.unwrap();
    // Neither that it was lifted nor that it is there again is stored.
    refused(set(&service, "ana", "eve", NONE, Some(3)).await, 3, "1 of your 1 devices");
    edge(&world, 2).await;
    refused(set(&service, "ana", "eve", NONE, Some(3)).await, 3, "1 of your 1 devices");
    let place = edge(&world, 3).await;
    refused(set(&service, "ana", "eve", NONE, Some(3)).await, 3, "1 of your 1 devices");
    device(&world, "phone", place, NOW + 2).await;
    set(&service, "ana", "eve", NONE, Some(3)).await.unwrap();
    world.end().await;
}
