//! History that is kept for some days only: what has expired is told, never silent (L5), and is
//! not taken for what is still on its way.

use crate::world::{DAY_MS, NOW, Service, World, caller, text};
use chaski_core::{ChatId, UserId, Watermark, record::History};
use chaski_message_service::ROLE;
use chaski_ports::WatermarkRow;
use chaski_proto::v1::{
    self, history_request::Range, inbox_request::Filter, messages_server::Messages,
    server_frame::Body,
};
use tonic::Request;

async fn page(
    service: &Service,
    user: &UserId,
    chat: ChatId,
    range: Option<Range>,
) -> (Vec<u64>, u64, bool) {
    let request = v1::HistoryRequest {
        caller: caller(user),
        chat_id: chat.to_string(),
        range,
        limit: 3,
        token: String::new(),
    };
    let reply = service.messages.history(Request::new(request)).await.unwrap().into_inner();
    (reply.items.iter().map(|item| item.seq).collect(), reply.first_seq, reply.more)
}

/// The texts of a user's messages, `-` for one that has expired.
async fn said(service: &Service, user: &UserId, filter: Filter) -> Vec<String> {
    let (caller, filter) = (caller(user), filter.into());
    let request = v1::InboxRequest { caller, limit: 100, filter, ..Default::default() };
    let events = service.inbox(request).await.events.into_iter();
    let said = events.filter_map(|event| match event.body {
        Some(Body::NewMessage(message)) => Some(text(&message).to_owned()),
        Some(Body::MessageHidden(hidden)) if hidden.reason == "EXPIRED" => Some("-".into()),
        _ => None,
    });
    said.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn l5_what_has_expired_is_told_and_the_rest_is_whole() {
    let mut world = World::new().await;
    let (ana, eve) = world.apart();
    let (chat, _) = world.create_for(&ana, &[&eve], (History::All, 7)).await; // 1
    let service = world.serve();
    let mut token = String::new();
    // 2 to 10: one a day.
    for day in 0..9 {
        world.clock.set(NOW + day * DAY_MS);
        token =
            world.post(if day % 2 == 0 { &ana } else { &eve }, chat, &format!("day {day}")).await;
    }
    service.settle(&[&ana, &eve], &token).await;
    // Places 1 to 3 are of days 0 and 1.
    let view = service.chat(&eve, chat, "").await;
    assert_eq!((view.first_seq, view.last_seq, view.history_days), (4, 10, 7));
    for (range, expected) in [
        (None, (vec![8, 9, 10], 4, true)),
        (Some(Range::Before(7)), (vec![4, 5, 6], 4, false)),
        (Some(Range::Before(6)), (vec![4, 5], 4, false)),
        (Some(Range::Before(3)), (vec![], 4, false)),
        (Some(Range::After(0)), (vec![4, 5, 6], 4, true)),
        (Some(Range::After(8)), (vec![9, 10], 4, false)),
    ] {
        assert_eq!(page(&service, &eve, chat, range).await, expected, "{range:?}");
    }
    let received = said(&service, &eve, Filter::Received).await;
    assert_eq!(received, ["-", "day 2", "day 4", "day 6", "day 8"]);
    let sent = said(&service, &eve, Filter::Sent).await;
    assert_eq!(sent, ["-", "day 3", "day 5", "day 7"]);
    let all = said(&service, &eve, Filter::Events).await;
    assert_eq!(all[..3], ["-", "-", "day 2"].map(String::from));

    // A replay does not bring it back.
    service.stop().await;
    for partition in 0..world.placement.partitions() {
        let row = WatermarkRow { epoch: 1 << 60, watermark: Watermark::default() };
        let partition = chaski_core::Partition(partition);
        world.ports.checkpoints.save_watermark(ROLE, partition, &row).await.unwrap();
    }
    let service = world.serve();
    service.settle(&[&ana, &eve], &token).await;
    assert_eq!(page(&service, &eve, chat, Some(Range::After(0))).await, (vec![4, 5, 6], 4, true));

    // All of it, and the end of the chat is known all the same.
    world.clock.set(NOW + 30 * DAY_MS);
    let view = service.chat(&eve, chat, "").await;
    assert_eq!((view.first_seq, view.last_seq, view.last_message), (11, 10, None));
    assert_eq!(page(&service, &eve, chat, None).await, (vec![], 11, false));
    // What is on its way is not there yet, which is not the same as gone.
    let input = world.command(&ana, chat, crate::world::send(None, "on its way"));
    let (on_its_way, _) = world.fan_out(chat, input);
    let input = world.command(&eve, chat, crate::world::send(None, "again"));
    let (again, seen) = world.fan_out(chat, input);
    // In the partition of eve both have come, in that of ana neither.
    world.append(&on_its_way[1]).await;
    world.append(&again[0]).await;
    service.settle(&[&eve], &seen).await;
    for range in [None, Some(Range::After(0))] {
        assert_eq!(page(&service, &eve, chat, range).await.0, Vec::<u64>::new(), "{range:?}");
    }
    let view = service.chat(&eve, chat, "").await;
    assert_eq!((view.first_seq, view.last_seq), (11, 10));
    world.append(&on_its_way[0]).await;
    world.append(&again[1]).await;
    token = world.post(&ana, chat, "and on").await;
    service.settle(&[&ana, &eve], &token).await;
    assert_eq!(page(&service, &eve, chat, None).await, (vec![11, 12, 13], 11, false));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shorter_limit_counts_and_a_former_one_is_remembered() {
    let mut world = World::new().await;
    let (ana, eve) = world.apart();
    let service = world.serve_for(3);
    let (long, _) = world.create_for(&ana, &[&eve], (History::All, 7)).await;
    let (short, _) = world.create_for(&ana, &[&eve], (History::All, 2)).await;
    let direct = ChatId::direct(&ana, &eve);
    world.say(&ana, &eve, "one").await;
    for chat in [long, short] {
        world.post(&ana, chat, "two").await;
    }
    world.clock.set(NOW + 2 * DAY_MS);
    let mut token = world.say(&ana, &eve, "later").await;
    for chat in [long, short] {
        token = world.post(&ana, chat, "later").await;
    }
    service.settle(&[&ana, &eve], &token).await;
    let firsts = async || {
        let mut firsts = Vec::new();
        for chat in [long, short, direct] {
            let view = service.chat(&ana, chat, "").await;
            firsts.push((view.first_seq, view.history_days));
        }
        firsts
    };
    assert_eq!(firsts().await, [(1, 3), (3, 2), (1, 3)]);
    world.clock.set(NOW + 4 * DAY_MS);
    assert_eq!(firsts().await, [(3, 3), (4, 2), (2, 3)]);
    // A limit that is taken away is no reason to wait for what has gone.
    service.stop().await;
    let service = world.serve_for(0);
    service.settle(&[&ana], &token).await;
    assert_eq!(page(&service, &ana, direct, None).await, (vec![2], 2, false));
    assert_eq!(page(&service, &eve, direct, Some(Range::After(0))).await, (vec![2], 2, false));
    service.stop().await;
}
