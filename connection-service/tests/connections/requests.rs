//! Contacts, blocks and settings: what is answered, shown, and refused.

use crate::world::{World, caller, hide, hides, partition_of, set};
use bytes::Bytes;
use chaski_connection_service::ConnectionService;
use chaski_core::{
    Partition,
    connection::{Ask, Request as Asked},
};
use chaski_ports::{ProducePolicy, Record, Topic};
use chaski_proto::{
    SCHEMA, WriteToken, encode_connection_request,
    v1::{self, ConnectionStatus as Status, connections_server::Connections},
};
use prost::Message as _;
use tonic::Request;

const NONE: i32 = Status::None as i32;
const ACTIVE: i32 = Status::Active as i32;
const BLOCKED: i32 = Status::Blocked as i32;

/// A page as (peer, status, version), and whether there is more.
async fn page(
    service: &ConnectionService,
    after: &str,
    limit: u32,
) -> (Vec<(String, i32, u64)>, bool) {
    let request = v1::ConnectionsRequest { caller: caller("ana"), after: after.into(), limit };
    let reply = Connections::list(service, Request::new(request)).await.unwrap().into_inner();
    let rows = reply.connections.into_iter().map(|c| (c.user_id, c.status, c.version));
    (rows.collect(), reply.more)
}

#[tokio::test]
async fn a_change_is_answered_with_its_place_and_listed_until_it_is_undone() {
    let world = World::new().await;
    let service = world.running();
    for peer in ["ben", "cyd", "dan", "eve"] {
        set(&service, "ana", peer, ACTIVE, None).await.unwrap();
    }
    let blocked = set(&service, "ana", "eve", BLOCKED, Some(1)).await.unwrap();
    // The token names the record in her own partition that says so.
    let records = world.records(Topic::Recipients, partition_of("ana"), 5).await;
    let place = WriteToken::Told(partition_of("ana"), records[4].offset);
    assert_eq!(blocked.token, place.to_string());
    let already = set(&service, "ana", "eve", BLOCKED, None).await.unwrap();
    assert_eq!((already.version, already.token), (2, blocked.token));

    set(&service, "ana", "cyd", NONE, Some(1)).await.unwrap();
    let (ben, dan, eve) =
        (("ben".into(), ACTIVE, 1), ("dan".into(), ACTIVE, 1), ("eve".into(), BLOCKED, 2));
    assert_eq!(page(&service, "", 2).await, (vec![ben, dan], true));
    assert_eq!(page(&service, "dan", 1).await, (vec![eve], false));
    // What was undone goes on counting.
    assert_eq!(set(&service, "ana", "cyd", ACTIVE, Some(2)).await.unwrap().version, 3);
    world.end().await;
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_and_nothing_is_written() {
    let world = World::new().await;
    let service = world.running();
    for (peer, status) in [("ana", BLOCKED), ("a b", ACTIVE), ("", ACTIVE), ("ben", 3)] {
        let problem = set(&service, "ana", peer, status, None).await.unwrap_err();
        assert_eq!((problem.status, problem.code.as_str()), (400, "invalid"), "{peer} {status}");
    }
    for p in (0..crate::world::PARTITIONS).map(Partition) {
        let bounds = world.ports.log.bounds(Topic::ConnectionRequests, p).await.unwrap();
        assert_eq!(bounds.start, bounds.end, "partition {p}");
    }
    world.end().await;
}

#[tokio::test]
async fn settings_are_told_and_kept() {
    let world = World::new().await;
    let service = world.running();
    assert!(!hides(&service, "ana").await);
    hide(&service, "ana", true).await;
    assert!(hides(&service, "ana").await);
    hide(&service, "ana", false).await;
    assert!(!hides(&service, "ana").await);
    assert_eq!(world.told("ana").await, ["hide true", "hide false"]);
    world.end().await;
}

#[tokio::test]
async fn nobody_decides_and_the_outcome_is_unknown() {
    let world = World::new().await;
    let service = world.service(world.ports.clone());
    tokio::time::pause();
    let problem = set(&service, "ana", "ben", ACTIVE, None).await.unwrap_err();
    assert_eq!((problem.status, problem.code.as_str()), (503, "outcome_unknown"));
    tokio::time::resume();
    // It was in the log all the time.
    world.run(&service, 1);
    assert_eq!(set(&service, "ana", "ben", ACTIVE, None).await.unwrap().version, 1);
    assert_eq!(world.told("ana").await, ["ben Active v1"]);
    world.end().await;
}

#[tokio::test]
async fn l5_what_cannot_be_read_is_buried_and_the_next_request_is_decided() {
    let world = World::new().await;
    let ana = partition_of("ana");
    let producer = world.ports.log.producer(ProducePolicy::GiveUp).unwrap();
    let stranger = (0..).map(|n| format!("u{n}")).find(|u| partition_of(u) != ana).unwrap();
    let misplaced = encode_connection_request(&Asked {
        id: [1; 16],
        user: stranger.parse().unwrap(),
        device: "phone".parse().unwrap(),
        at: 1,
        ask: Ask::Settings { hide_read_marks: true },
    });
    for value in [Bytes::from_static(b"\xff\xff"), misplaced] {
        let record = Record {
            key: Bytes::from_static(b"ana"),
            value,
            timestamp_ms: 1,
            record_type: "connection-request",
            schema: SCHEMA,
            traceparent: None,
        };
        producer.append(Topic::ConnectionRequests, ana, record).unwrap().await.unwrap();
    }
    let service = world.running();
    assert_eq!(set(&service, "ana", "ben", ACTIVE, None).await.unwrap().version, 1);
    let letters = world.records(Topic::DeadLetters, Partition(0), 2).await;
    let letters: Vec<_> =
        letters.into_iter().map(|l| v1::DeadLetter::decode(l.value).unwrap()).collect();
    assert!(letters.iter().all(|l| l.topic == "connection-requests" && l.by_role == "connections"));
    assert_eq!(letters[0].value, b"\xff\xff"[..]);
    assert!(letters[1].cause.contains("partition of other users"), "{}", letters[1].cause);
    assert!(!hides(&service, &stranger).await);
    world.end().await;
}
