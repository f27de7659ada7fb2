//! L3: a user sees the union of their memberships, and nothing between or behind them.

use crate::world::{World, chat_request, text, user};
use chaski_core::record::Operation;
use chaski_proto::v1::{history_request::Range, messages_server::Messages};
use tonic::Request;

#[tokio::test(flavor = "multi_thread")]
async fn l3_who_comes_back_sees_both_spans_and_not_what_was_between() {
    let mut world = World::new().await;
    let (ana, ben) = world.apart();
    let mia = user("mia");
    let service = world.serve();
    let (chat, _) = world.create(&ana, &[&ben, &mia]).await; // 1
    world.post(&ana, chat, "both").await; // 2
    let left = world.change(&ana, chat, &ben, Operation::Remove).await; // 3
    world.change(&ana, chat, &mia, Operation::Remove).await; // 4
    let apart = world.post(&ana, chat, "apart").await; // 5

    let history = |range, limit| {
        let (service, ben) = (&service, &ben);
        async move { service.history(ben, chat, range, limit, "").await }
    };
    // A former member: up to the change that removed them, and the chat as it was then.
    service.settle(&[&ben], &left).await;
    service.settle(&[&ana], &apart).await;
    let view = service.chat(&ben, chat, "").await;
    assert_eq!((view.last_seq, view.visible_from), (3, 1));
    assert_eq!((view.version, &*view.name, view.participants.len()), (2, "the chat", 0));
    assert_eq!(view.last_message.as_ref().map(text), Some("both"));
    let seen = ["1 update", "2 both", "3 update"].map(String::from);
    assert_eq!(history(None, 10).await, (seen.to_vec(), false));
    assert_eq!(history(Some(Range::After(0)), 10).await, (seen.to_vec(), false));
    assert_eq!(history(Some(Range::After(3)), 10).await, (vec![], false));
    assert_eq!(history(Some(Range::Before(u64::MAX - 1)), 2).await, (seen[1..].to_vec(), true));

    world.change(&ana, chat, &ben, Operation::Add).await; // 6
    let back = world.post(&ana, chat, "again").await; // 7
    service.settle(&[&ana, &ben], &back).await;
    let view = service.chat(&ben, chat, "").await;
    assert_eq!((view.last_seq, view.visible_from, view.participants.len()), (7, 6, 2));
    let all = ["1 update", "2 both", "3 update", "6 update", "7 again"].map(String::from);
    // From every place, in both directions, with pages of every size.
    let seqs = [1, 2, 3, 6, 7];
    for from in 0..=8_u64 {
        let (below, above): (Vec<usize>, Vec<usize>) = (
            (0..5).filter(|i| seqs[*i] < from).collect(),
            (0..5).filter(|i| seqs[*i] > from).collect(),
        );
        for limit in 1..=6 {
            let names = |places: &[usize]| -> Vec<String> {
                places.iter().map(|place| all[*place].clone()).collect()
            };
            let expected = (names(&above[..limit.min(above.len())]), above.len() > limit);
            let page = history(Some(Range::After(from)), limit as u32).await;
            assert_eq!(page, expected, "after {from}, limit {limit}");
            let expected =
                (names(&below[below.len().saturating_sub(limit)..]), below.len() > limit);
            let page = history(Some(Range::Before(from)), limit as u32).await;
            assert_eq!(page, expected, "before {from}, limit {limit}");
        }
    }
    // What ben did not see is there for who stayed.
    assert_eq!(service.history(&ana, chat, None, 10, &back).await.0[4], "5 apart");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn marks_are_told_as_their_owners_let_them_be_known() {
    let mut world = World::new().await;
    let (ana, ben) = world.apart();
    let service = world.serve();
    let (chat, _) = world.create(&ana, &[&ben]).await;
    world.post(&ana, chat, "hello").await;
    world.mark(chat, &ana, 2, false).await;
    world.mark(chat, &ben, 1, false).await;
    world.mark(chat, &ben, 2, true).await;
    world.post(&ben, chat, "so").await;
    let token = world.post(&ana, chat, "then").await;
    service.settle(&[&ana, &ben], &token).await;
    let marks = |who| {
        let service = &service;
        async move {
            let request = Request::new(chat_request(who, chat, ""));
            let reply = service.messages.receipts(request).await.unwrap().into_inner();
            let mark = |r: chaski_proto::v1::Receipt| (r.user_id, r.delivered_seq, r.read_seq);
            reply.receipts.into_iter().map(mark).collect::<Vec<_>>()
        }
    };
    let (of_ana, of_ben) = (ana.to_string(), ben.to_string());
    assert_eq!(marks(&ben).await, [(of_ana.clone(), 2, 2), (of_ben.clone(), 2, 2)]);
    assert_eq!(marks(&ana).await, [(of_ana.clone(), 2, 2), (of_ben.clone(), 2, 1)]);
    assert_eq!(service.chat(&ben, chat, &token).await.read_seq, 2);

    // Who has left is not told what is read after that.
    world.change(&ana, chat, &ben, Operation::Remove).await; // 5
    world.post(&ana, chat, "alone").await;
    world.mark(chat, &ana, 6, false).await;
    let token = world.post(&ana, chat, "still").await;
    service.settle(&[&ana], &token).await;
    let request = Request::new(chat_request(&ben, chat, ""));
    let reply = service.messages.receipts(request).await.unwrap().into_inner();
    assert_eq!((reply.receipts[0].user_id.clone(), reply.receipts[0].read_seq), (of_ana, 5));
    let stranger = Request::new(chat_request(&user("mia"), chat, ""));
    let refused = service.messages.receipts(stranger).await.unwrap_err();
    assert_eq!(chaski_proto::Problem::from(refused).status, 403);
    service.stop().await;
}
