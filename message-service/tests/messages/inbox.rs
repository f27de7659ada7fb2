//! The inbox: pages that stay where they are, and how far back they reach.

use crate::world::{DAY_MS, NOW, World, caller, text};
use chaski_core::{ChatId, Offset, Position};
use chaski_ports::DeviceRow;
use chaski_proto::v1::{
    self, inbox_request::Filter, messages_server::Messages, server_frame::Body,
};
use tonic::Request;

#[tokio::test(flavor = "multi_thread")]
async fn pages_stay_where_they_are_while_messages_arrive() {
    let mut world = World::new().await;
    let (ana, eve) = world.apart();
    let service = world.serve();
    let mut token = String::new();
    for n in 1..=5 {
        world.say(&eve, &ana, &format!("in {n}")).await;
        token = world.say(&ana, &eve, &format!("out {n}")).await;
    }
    let page = |filter: Filter, after: u64, token: String| {
        let (service, caller) = (&service, caller(&ana));
        async move {
            let filter = filter.into();
            let request =
                v1::InboxRequest { caller, after, limit: 2, filter, token, tell_expired: false };
            let reply = service.inbox(request).await;
            let shown = reply.events.iter().filter_map(|frame| match &frame.body {
                Some(Body::NewMessage(message)) => Some(text(message).to_owned()),
                _ => None,
            });
            (shown.collect::<Vec<_>>(), reply.events.last().unwrap().position.unwrap(), reply.more)
        }
    };
    let (sent, ..) = page(Filter::Sent, 0, token.clone()).await;
    assert_eq!(sent, ["out 1", "out 2"]);
    let (received, first, more) = page(Filter::Received, 0, token.clone()).await;
    assert_eq!((&received[..], more), (&["in 1".to_owned(), "in 2".to_owned()][..], true));
    // The device has taken what came with the first page; more comes in.
    let row = DeviceRow {
        user: ana.clone(),
        device: "phone".parse().unwrap(),
        cursor: Position(first),
        last_active_ms: NOW,
    };
    world.ports.devices.save_cursors(&[row]).await.unwrap();
    token = world.say(&eve, &ana, "in 6").await;
    let (unreceived, next, more) = page(Filter::Unreceived, 0, token.clone()).await;
    assert_eq!((&unreceived[..], more), (&["in 3".to_owned(), "in 4".to_owned()][..], true));
    token = world.say(&eve, &ana, "in 7").await;
    let (unreceived, next, more) = page(Filter::Unreceived, next, token.clone()).await;
    assert_eq!((&unreceived[..], more), (&["in 5".to_owned(), "in 6".to_owned()][..], true));
    let (unreceived, _, more) = page(Filter::Unreceived, next, token).await;
    assert_eq!((&unreceived[..], more), (&["in 7".to_owned()][..], false));
    service.stop().await;
}

fn at(offset: Offset) -> u64 {
    Position::at(offset).0
}

#[tokio::test(flavor = "multi_thread")]
async fn l5_the_inbox_begins_where_nothing_can_have_been_forgotten() {
    let mut world = World::new().await;
    let (ana, eve) = world.apart();
    let partition = world.placement.of_user(&ana);
    let chat = ChatId::direct(&ana, &eve);
    let service = world.serve();
    let mut offsets = Vec::new();
    for day in 0..4 {
        world.clock.set(NOW + day * DAY_MS);
        for n in 0..2 {
            let (_, input) = world.message(&eve, &ana, &format!("{day} {n}"));
            let (sent, token) = world.fan_out(chat, input);
            for one in &sent {
                let offset = world.append(one).await;
                if one.output.partition == partition {
                    offsets.push(offset);
                }
            }
            service.settle(&[&ana], &token).await;
        }
    }
    let told = |after: u64, limit: u32, filter: Filter| {
        let (service, caller) = (&service, caller(&ana));
        async move {
            let (filter, tell_expired, token) = (filter.into(), true, String::new());
            let request = v1::InboxRequest { caller, after, limit, filter, token, tell_expired };
            let reply = service.inbox(request).await;
            let events = reply.events.iter().map(|event| event.position.unwrap());
            (reply.expired_upto, events.collect::<Vec<_>>(), reply.upto, reply.more)
        }
    };
    let start = |now: i64| {
        let request = v1::WatermarksRequest { partition: partition.0, limit: 1 };
        world.clock.set(now);
        let reply = service.messages.watermarks(Request::new(request));
        async { Offset(reply.await.unwrap().into_inner().inbox_start) }
    };
    assert_eq!(start(NOW + 28 * DAY_MS).await, Offset(0));
    // The first day is being forgotten, and what came late of it may stand in the second.
    assert_eq!(start(NOW + 30 * DAY_MS).await, offsets[4]);
    assert_eq!(start(NOW + 31 * DAY_MS).await, offsets[6]);
    // Who asks from before that is told, and gets what is behind it; others notice nothing.
    let (upto, kept) = (Position::at(Offset(offsets[6].0 - 1)).0, [6, 7].map(|n| at(offsets[n])));
    assert_eq!(told(0, 10, Filter::Events).await, (upto, kept.to_vec(), kept[1], false));
    assert_eq!(told(0, 2, Filter::Events).await, (upto, kept[..1].to_vec(), kept[0], true));
    assert_eq!(told(0, 1, Filter::Events).await, (upto, vec![], upto, true));
    assert_eq!(told(0, 1, Filter::Received).await, (upto, kept[..1].to_vec(), kept[0], true));
    assert_eq!(told(upto - 1, 1, Filter::Unreceived).await.0, upto);
    assert_eq!(told(upto, 10, Filter::Events).await, (0, kept.to_vec(), kept[1], false));
    assert!(start(NOW + 40 * DAY_MS).await > offsets[7]);
    // A service that starts later knows the days it has noted.
    service.stop().await;
    let service = world.serve();
    world.clock.set(NOW + 3 * DAY_MS);
    let token = world.say(&eve, &ana, "same day").await;
    service.settle(&[&ana], &token).await;
    world.clock.set(NOW + 31 * DAY_MS);
    let request = v1::WatermarksRequest { partition: partition.0, limit: 1 };
    let reply = service.messages.watermarks(Request::new(request)).await.unwrap().into_inner();
    assert_eq!(Offset(reply.inbox_start), offsets[6]);
    service.stop().await;
}
