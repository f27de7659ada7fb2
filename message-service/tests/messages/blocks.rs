//! L7: a block hides exactly what is ordered between its edges.

use crate::world::{NOW, Service, World, caller, text, user};
use chaski_core::{
    ChatId, MessageId, UserId, Watermark,
    connection::{Connection, Status},
    record::{History, Operation},
};
use chaski_message_service::ROLE;
use chaski_ports::WatermarkRow;
use chaski_proto::v1::{self, messages_server::Messages, server_frame::Body};
use std::sync::Arc;
use tonic::Request;

/// What a user is shown of their inbox.
async fn shown(service: &Service, who: &UserId, token: &str) -> Vec<String> {
    let (caller, token) = (caller(who), token.into());
    let request = v1::InboxRequest { caller, limit: 100, token, ..Default::default() };
    let reply = service.inbox(request).await;
    let what = |frame: v1::ServerFrame| match frame.body {
        Some(Body::NewMessage(message)) => format!("{} {}", message.seq, text(&message)),
        Some(Body::MessageHidden(hidden)) => format!("{} {}", hidden.seq, hidden.reason),
        Some(Body::ConnectionUpdate(update)) => format!("{} {:?}", update.user_id, update.status()),
        other => format!("{other:?}"),
    };
    reply.events.into_iter().map(what).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn l7_a_block_hides_what_is_between_its_edges_also_after_a_restart() {
    let mut world = World::new().await;
    let (ana, eve) = world.apart();
    let chat = ChatId::direct(&ana, &eve);
    let service = world.serve();
    world.say(&eve, &ana, "before").await;
    world.block(&ana, &eve).await;
    let token = world.say(&eve, &ana, "blocked").await;
    service.settle(&[&ana, &eve], &token).await;
    // The block is held by a service that has not seen it begin.
    service.stop().await;
    let service = world.serve();
    world.say(&eve, &ana, "still blocked").await;
    world.say(&ana, &eve, "my own").await;
    let blocked = world.say(&eve, &ana, "last blocked").await;
    service.settle(&[&ana, &eve], &blocked).await;
    let view = service.chat(&ana, chat, "").await;
    assert_eq!((view.last_seq, view.last_message.as_ref().map(text)), (5, Some("my own")));
    world.lift(&ana, &eve).await;
    let token = world.say(&eve, &ana, "after").await;
    service.settle(&[&ana, &eve], &token).await;

    let expected =
        ["1 before", "2 hidden", "3 hidden", "4 my own", "5 hidden", "6 after"].map(String::from);
    assert_eq!(service.history(&ana, chat, None, 10, &token).await, (expected.to_vec(), false));
    let range = Some(v1::history_request::Range::Before(4));
    let page = service.history(&ana, chat, range, 2, &token).await;
    assert_eq!(page, (expected[1..3].to_vec(), true), "a page over hidden places");
    let inbox = shown(&service, &ana, &token).await;
    let blocked = format!("{eve} Blocked");
    let lifted = format!("{eve} None");
    let expected_inbox = [
        "1 before",
        &blocked,
        "2 BLOCKED",
        "3 BLOCKED",
        "4 my own",
        "5 BLOCKED",
        &lifted,
        "6 after",
    ];
    assert_eq!(inbox, expected_inbox);
    // The blocked one sees no difference.
    let all = ["1 before", "2 blocked", "3 still blocked", "4 my own", "5 last blocked", "6 after"];
    assert_eq!(service.history(&eve, chat, None, 10, &token).await.0, all);
    // Somebody else of the blocker's partition is not concerned.
    let mut others = (0..).map(|n| user(&format!("ben-{n}")));
    let at = world.placement.of_user(&ana);
    let ben = others.find(|ben| world.placement.of_user(ben) == at).unwrap();
    world.block(&ana, &eve).await;
    let token = world.say(&eve, &ben, "to ben").await;
    service.settle(&[&ben, &eve], &token).await;
    let history = service.history(&ben, ChatId::direct(&ben, &eve), None, 10, &token).await;
    assert_eq!(history.0, ["1 to ben"]);

    // Folded again from the beginning, when all edges are stored already.
    service.stop().await;
    for partition in 0..world.placement.partitions() {
        let row = WatermarkRow { epoch: 1 << 60, watermark: Watermark::default() };
        let partition = chaski_core::Partition(partition);
        world.ports.checkpoints.save_watermark(ROLE, partition, &row).await.unwrap();
    }
    let service = world.serve();
    let token = world.say(&eve, &ana, "blocked again").await;
    service.settle(&[&ana, &eve], &token).await;
    let again = service.history(&ana, chat, None, 10, &token).await.0;
    assert_eq!(again[..6], expected);
    assert_eq!(again[6], "7 hidden");
    assert_eq!(shown(&service, &ana, &token).await[..8], inbox);
    edges(&service, &world, &ana, &eve).await;
    service.stop().await;
}

/// What a host loads of them, in pages.
async fn edges(service: &Service, world: &World, ana: &UserId, eve: &UserId) {
    let (mut after, mut edges) = (None, Vec::new());
    loop {
        let partition = world.placement.of_user(ana).0;
        let request = v1::BlocksRequest { partition, after, limit: 2 };
        let page = service.messages.blocks(Request::new(request)).await.unwrap().into_inner();
        edges.extend(page.edges);
        after = edges.last().cloned();
        if !page.more {
            break;
        }
    }
    assert!(edges.iter().all(|e| e.user_id == ana.as_str() && e.peer_id == eve.as_str()));
    assert!(edges.is_sorted_by_key(|edge| edge.offset));
    assert_eq!(edges.iter().map(|e| e.blocked).collect::<Vec<_>>(), [true, false, true]);
}

#[tokio::test(flavor = "multi_thread")]
async fn l7_a_place_is_not_shown_before_the_readers_own_partition_has_it() {
    let mut world = World::new().await;
    let (ana, eve) = world.apart();
    let chat = ChatId::direct(&ana, &eve);
    let service = world.serve();
    let first = world.say(&eve, &ana, "first").await;
    service.settle(&[&ana, &eve], &first).await;
    world.block(&ana, &eve).await;
    // The sender's copy comes first, with the body.
    let (_, input) = world.message(&eve, &ana, "secret");
    let (sent, token) = world.fan_out(chat, input);
    world.append(&sent[0]).await;
    let all = service.history(&eve, chat, None, 10, &token).await;
    assert_eq!(all.0, ["1 first", "2 secret"]);
    for range in [
        None,
        Some(v1::history_request::Range::After(0)),
        Some(v1::history_request::Range::Before(3)),
        Some(v1::history_request::Range::Before(2)),
    ] {
        assert_eq!(service.history(&ana, chat, range, 1, "").await.0, ["1 first"], "{range:?}");
    }
    assert_eq!(service.chat(&ana, chat, "").await.last_seq, 1);
    assert_eq!(sent.len(), 2);
    world.append(&sent[1]).await;
    let history = service.history(&ana, chat, None, 10, &token).await;
    assert_eq!(history.0, ["1 first", "2 hidden"]);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_found_by_who_may_refuse_it() {
    let mut world = World::new().await;
    let (ana, eve) = world.apart();
    let service = world.serve();
    let chat = ChatId::direct(&ana, &eve);
    let id = |key: &str| MessageId::of(&eve, &chat, &key.parse().unwrap()).to_string();
    world.say(&eve, &ana, "old").await;
    world.clock.set(crate::world::NOW + crate::world::DAY_MS + 1);
    world.say(&eve, &ana, "shown").await;
    world.block(&ana, &eve).await;
    let token = world.say(&eve, &ana, "withheld").await;
    service.settle(&[&ana, &eve], &token).await;
    let cases = [
        (&ana, "shown", true),
        (&ana, "old", false),
        (&ana, "withheld", false),
        (&eve, "shown", false),
    ];
    for (who, key, found) in cases {
        let request = v1::FindMessageRequest {
            caller: caller(who),
            chat_id: chat.to_string(),
            message_id: id(key),
        };
        let reply = service.messages.find_message(Request::new(request)).await.unwrap();
        let message = reply.into_inner().message;
        assert_eq!(message.as_ref().map(text), found.then_some(key), "{who} {key}");
    }
    let stranger = v1::FindMessageRequest {
        caller: caller(&user("mia")),
        chat_id: chat.to_string(),
        message_id: id("shown"),
    };
    let refused = service.messages.find_message(Request::new(stranger)).await.unwrap_err();
    assert_eq!(chaski_proto::Problem::from(refused).status, 403);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn l7_who_joins_a_chat_with_its_history_does_not_see_whom_they_block_in_it() {
    let mut world = World::new().await;
    let (ana, eve) = world.apart();
    let ben = user("ben");
    let (chat, _) = world.create_with(&ben, &[&eve], History::All).await;
    let service = world.serve();
    let clock = Arc::clone(&world.clock);
    let tick = |n| clock.set(NOW + n);
    tick(1);
    world.post(&eve, chat, "before").await;
    tick(2);
    world.block(&ana, &eve).await;
    world.post(&eve, chat, "blocked").await;
    world.post(&ben, chat, "hello").await;
    world.change(&ben, chat, &ana, Operation::Add).await;
    let token = world.post(&eve, chat, "to ana too").await;
    service.settle(&[&ana, &ben, &eve], &token).await;
    let (items, _) = service.history(&ana, chat, None, 10, &token).await;
    assert_eq!(items[1..4], ["2 hidden", "3 hidden", "4 hello"].map(String::from));
    assert_eq!(items[5], "6 hidden");
    let (items, _) = service.history(&ben, chat, None, 10, &token).await;
    assert_eq!(items[1..3], ["2 before", "3 blocked"].map(String::from), "others see them");
    // What was sent while she blocked eve stays hidden, with a place in her order or without.
    tick(3);
    let lifted = world.lift(&ana, &eve).await;
    service.settle(&[&ana], &lifted).await;
    let after = ["2 before", "3 hidden", "4 hello"].map(String::from);
    let (items, _) = service.history(&ana, chat, None, 10, &token).await;
    assert_eq!((&items[1..4], items[5].as_str()), (&after[..], "6 hidden"));
    // So it does for who joins after the lifting.
    let (late, _) = world.create_with(&ben, &[&eve], History::All).await;
    tick(4);
    world.post(&eve, late, "between").await;
    tick(5);
    let to = Connection { status: Status::Blocked, version: 3 };
    world.connect(&ana, &eve, to, false).await;
    world.post(&eve, late, "blocked again").await;
    tick(6);
    let to = Connection { status: Status::None, version: 4 };
    world.connect(&ana, &eve, to, true).await;
    tick(7);
    world.post(&eve, late, "after").await;
    let token = world.change(&ben, late, &ana, Operation::Add).await;
    service.settle(&[&ana, &ben], &token).await;
    let (items, _) = service.history(&ana, late, None, 10, &token).await;
    assert_eq!(items[1..4], ["2 between", "3 hidden", "4 after"].map(String::from));
    service.stop().await;
}
