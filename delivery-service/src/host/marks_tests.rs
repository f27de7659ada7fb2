use super::*;
use chaski_proto::v1::{SubmitReceiptsReply, SubmitReceiptsRequest};
use std::sync::atomic::{AtomicBool, Ordering};
use tonic::{Response, Status, async_trait};

/// Takes receipts, or is away.
#[derive(Default)]
struct Taker {
    away: AtomicBool,
    refuses: AtomicBool,
    taken: Mutex<Vec<SubmitReceiptsRequest>>,
    told: Notify,
}

#[async_trait]
impl Sender for Taker {
    async fn submit_receipts(
        &self,
        request: Request<SubmitReceiptsRequest>,
    ) -> Result<Response<SubmitReceiptsReply>, Status> {
        self.told.notify_one();
        if self.away.load(Ordering::Relaxed) {
            return Err(Problem::unavailable("away").into());
        }
        if self.refuses.load(Ordering::Relaxed) {
            return Err(Problem::invalid("refused").into());
        }
        self.taken.lock().push(request.into_inner());
        Ok(Response::new(SubmitReceiptsReply {}))
    }
    async fn submit(
        &self,
        _: Request<v1::SubmitMessageRequest>,
    ) -> Result<Response<v1::SubmitReply>, Status> {
        unreachable!("receipts only")
    }
    async fn submit_chat(
        &self,
        _: Request<v1::SubmitChatRequest>,
    ) -> Result<Response<v1::SubmitReply>, Status> {
        unreachable!("receipts only")
    }
    async fn submit_change(
        &self,
        _: Request<v1::SubmitChangeRequest>,
    ) -> Result<Response<v1::SubmitReply>, Status> {
        unreachable!("receipts only")
    }
    async fn submit_refusal(
        &self,
        _: Request<v1::SubmitRefusalRequest>,
    ) -> Result<Response<v1::SubmitReply>, Status> {
        unreachable!("receipts only")
    }
}

impl Taker {
    /// What was taken since: (chat, user, delivered, read, hidden), in one line each.
    fn lines(&self) -> Vec<String> {
        let requests = std::mem::take(&mut *self.taken.lock());
        let chats = requests.into_iter().flat_map(|request| request.chats);
        let line = |chat: v1::ChatReceipts| {
            let mut marks = chat.marks;
            marks.sort_by(|a, b| a.user_id.cmp(&b.user_id));
            let marks = marks.iter().map(|m| {
                let hidden = if m.hide_read { " hidden" } else { "" };
                format!(" {} {}/{}{hidden}", m.user_id, m.delivered_seq, m.read_seq)
            });
            format!("{}:{}", chat.chat_id, marks.collect::<String>())
        };
        chats.map(line).collect()
    }
}

fn user(text: &str) -> UserId {
    text.parse().unwrap()
}

fn chat(text: &str) -> ChatId {
    text.parse().unwrap()
}

fn receipts(pending_max: usize) -> (Arc<Taker>, Receipts) {
    let taker = Arc::new(Taker::default());
    (Arc::clone(&taker), Receipts::new(taker, pending_max))
}

#[tokio::test]
async fn marks_of_a_chat_and_user_become_one_and_go_out_once() {
    let (taker, receipts) = receipts(10);
    receipts.delivered(&user("ana"), [(chat("g.2"), 3), (chat("g.1"), 7), (chat("g.1"), 5)]);
    receipts.read(&user("ana"), chat("g.1"), 6, false);
    receipts.delivered(&user("ben"), [(chat("g.1"), 1)]);
    assert!(receipts.flush().await);
    assert_eq!(taker.lines(), ["g.1: ana 7/6 ben 1/0", "g.2: ana 3/0"]);
    assert!(receipts.flush().await);
    assert!(taker.lines().is_empty(), "nothing is told twice");
}

#[tokio::test]
async fn a_read_mark_stays_hidden_or_shown_as_it_was_made() {
    let cases = [
        // (seq, hidden) one after the other, and what goes out
        ([(5, false), (7, true)], "7/7 hidden"),
        ([(5, true), (7, false)], "7/7"),
        ([(7, true), (5, false)], "7/7 hidden"),
        ([(7, false), (5, true)], "7/7"),
    ];
    for (marks, expected) in cases {
        let (taker, receipts) = receipts(10);
        for (seq, hide) in marks {
            receipts.read(&user("ana"), chat("g.1"), seq, hide);
            receipts.delivered(&user("ana"), [(chat("g.1"), 1)]);
        }
        receipts.flush().await;
        assert_eq!(taker.lines(), [format!("g.1: ana {expected}")], "{marks:?}");
    }
}

#[tokio::test]
async fn l8_what_fails_is_kept_under_what_is_newer_and_past_the_limit_marks_are_dropped() {
    let (taker, receipts) = receipts(2);
    taker.away.store(true, Ordering::Relaxed);
    receipts.read(&user("ana"), chat("g.1"), 5, true);
    assert!(!receipts.flush().await);
    receipts.delivered(&user("ana"), [(chat("g.1"), 9), (chat("g.2"), 1), (chat("g.3"), 1)]);
    receipts.delivered(&user("ana"), [(chat("g.2"), 2)]);
    taker.away.store(false, Ordering::Relaxed);
    assert!(receipts.flush().await);
    assert_eq!(taker.lines(), ["g.1: ana 9/5 hidden", "g.2: ana 2/0"], "g.3 found no room");
    taker.refuses.store(true, Ordering::Relaxed);
    receipts.read(&user("ana"), chat("g.1"), 6, false);
    assert!(receipts.flush().await, "what is refused is not tried again");
    taker.refuses.store(false, Ordering::Relaxed);
    receipts.flush().await;
    assert!(taker.lines().is_empty());
}

#[tokio::test(start_paused = true)]
async fn marks_go_out_after_their_time_at_once_at_the_limit_and_at_the_end() {
    let (taker, receipts) = receipts(2);
    let stop = CancellationToken::new();
    let every = Duration::from_millis(250);
    let begun = tokio::time::Instant::now();
    let story = async {
        receipts.read(&user("ana"), chat("g.1"), 1, false);
        taker.told.notified().await;
        assert_eq!(begun.elapsed().as_millis() / 250, 1, "after its time");
        let at = tokio::time::Instant::now();
        receipts.delivered(&user("ana"), [(chat("g.1"), 2), (chat("g.2"), 2)]);
        taker.told.notified().await;
        assert!(at.elapsed() < every, "at once");
        receipts.read(&user("ana"), chat("g.1"), 3, false);
        stop.cancel();
    };
    tokio::join!(receipts.run(every, stop.clone()), story);
    assert_eq!(
        taker.lines(),
        ["g.1: ana 1/1", "g.1: ana 2/0", "g.2: ana 2/0", "g.1: ana 3/3"],
        "the last one at the end"
    );
}

#[test]
fn an_acknowledgement_covers_what_was_sent_up_to_it_and_the_oldest_is_forgotten() {
    let mut unacked = Unacked::new(3);
    for (position, name) in [(1, "g.1"), (4, "g.2"), (5, "g.1"), (9, "g.1")] {
        unacked.sent(Position(position), chat(name), position * 10);
    }
    let mut acked = |upto| unacked.acked(Position(upto)).collect::<Vec<_>>();
    assert_eq!(acked(3), [], "1 was forgotten");
    assert_eq!(acked(8), [(chat("g.2"), 40), (chat("g.1"), 50)]);
    assert_eq!(acked(8), [], "once");
    assert_eq!(acked(9), [(chat("g.1"), 90)]);
}

#[test]
fn l8_of_a_chat_and_user_only_the_latest_waits_and_no_more_than_there_is_room_for() {
    let mut told = Told::new(user("ana"), 1);
    assert_eq!(told.put(chat("g.1"), user("ben"), (1, 0)), Put::Waits);
    assert_eq!(told.put(chat("g.1"), user("ben"), (2, 1)), Put::Waits);
    assert_eq!(told.put(chat("g.1"), user("eve"), (1, 0)), Put::NoRoom);
    let receipt = told.take(Position(1)).pop().unwrap();
    assert_eq!((receipt.delivered_seq, receipt.read_seq), (2, 1));
    assert!(told.take(Position(1)).is_empty());
}

#[test]
fn a_device_is_not_told_what_it_said_itself_unless_it_was_told_less_in_between() {
    let mut told = Told::new(user("ana"), 2);
    let one = chat("g.1");
    told.said(one, (5, 0));
    told.said(one, (4, 4));
    assert_eq!(told.put(one, user("ana"), (4, 4)), Put::Known, "on its way to what was said");
    assert_eq!(told.put(one, user("ana"), (5, 4)), Put::Known);
    assert_eq!(told.put(one, user("ben"), (5, 4)), Put::Waits, "of somebody else");
    assert_eq!(told.put(chat("g.2"), user("ana"), (5, 4)), Put::Waits, "of another chat");
    assert_eq!(told.take(Position(10)).len(), 2);
    // Another device of the user has read on; this one says so too, before it is told.
    assert_eq!(told.put(one, user("ana"), (6, 5)), Put::Waits);
    told.said(one, (7, 7));
    assert!(told.take(Position(11)).is_empty(), "what it knows better does not wait");
    assert_eq!(told.put(one, user("ana"), (7, 7)), Put::Known);
    // It was told less than it said since: the latest receipt counts.
    assert_eq!(told.put(one, user("ana"), (8, 7)), Put::Waits);
    assert_eq!(told.take(Position(20)).len(), 1);
    told.acked(Position(20));
    told.said(one, (9, 9));
    told.acked(Position(21));
    assert_eq!(told.put(one, user("ana"), (9, 9)), Put::Waits, "it may have crossed");
    assert_eq!(told.take(Position(21)).len(), 1);
    told.acked(Position(22));
    told.said(one, (10, 10));
    assert_eq!(told.put(one, user("ana"), (10, 10)), Put::Known, "it had both before");
}

#[test]
fn l8_what_devices_said_is_remembered_of_so_many_chats_and_the_rest_is_told() {
    let mut told = Told::new(user("ana"), 1);
    told.said(chat("g.1"), (5, 5));
    told.said(chat("g.2"), (5, 5));
    assert_eq!(told.put(chat("g.1"), user("ana"), (5, 5)), Put::Known);
    assert_eq!(told.put(chat("g.2"), user("ana"), (5, 5)), Put::Waits);
    told.take(Position(1));
    assert_eq!(told.put(chat("g.3"), user("ana"), (5, 5)), Put::Waits);
    told.take(Position(1));
    assert_eq!(told.put(chat("g.1"), user("ana"), (5, 5)), Put::Waits, "g.3 was not remembered");
}
