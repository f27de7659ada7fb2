//! The service on a real log: what it appends, and whom it refuses once it has learned of a block.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use chaski_core::{
    ChatId, MessageId, Offset, Partition,
    placement::Placement,
    record::{Action, Input, Operation, What},
};
use chaski_embedded::{Embedded, EmbeddedOptions};
use chaski_ports::{Log, ProducePolicy, Record, StandingClock, Topic};
use chaski_proto::{
    Problem, SCHEMA, Timestamp, decode_input,
    v1::{self, send_message::Target, sender_server::Sender, submit_change_request::Change},
};
use chaski_sender_service::{BlocksShown, SenderConfig, SenderService};
use prost::Message as _;
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

const NOW_MS: i64 = 1_800_000_000_000;

struct World {
    service: Arc<SenderService>,
    log: Arc<dyn Log>,
    _folder: tempfile::TempDir,
}

impl World {
    async fn start(blocks: BlocksShown) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let embedded = Embedded::open(folder.path(), EmbeddedOptions::default()).unwrap();
        let log = embedded.log();
        log.create_topics(1).await.unwrap();
        let config = SenderConfig { blocks, ..SenderConfig::default() };
        let (clock, placement) = (Arc::new(StandingClock::new(NOW_MS)), Placement::new(1));
        let service = Arc::new(SenderService::new(Arc::clone(&log), placement, clock, config));
        Self { service, log, _folder: folder }
    }

    async fn send(&self, user: &str, target: Target) -> Result<String, Problem> {
        let message = v1::SendMessage {
            target: Some(target),
            client_message_id: "k".into(),
            body: Some(v1::send_message::Body::Text("x".into())),
            ..Default::default()
        };
        let request = v1::SubmitMessageRequest { caller: caller(user), message: Some(message) };
        answer(self.service.submit(Request::new(request)).await.map(|r| r.into_inner().token))
    }

    async fn connect(&self, key: &str, status: v1::ConnectionStatus, version: u64) {
        let record = Record {
            key: key.to_owned().into(),
            value: v1::ConnectionState { status: status.into(), version }.encode_to_vec().into(),
            timestamp_ms: NOW_MS,
            record_type: "connection",
            schema: SCHEMA,
            traceparent: None,
        };
        let producer = self.log.producer(ProducePolicy::GiveUp).unwrap();
        producer.append(Topic::Connections, Partition(0), record).unwrap().await.unwrap();
    }

    /// Sends until the answer is this; the service learns of a block a little later, and tells
    /// nobody.
    async fn until(&self, user: &str, target: Target, refused: Option<&str>) {
        let sent = async {
            loop {
                let answer = self.send(user, target.clone()).await;
                assert!(answer.as_ref().err().is_none_or(|problem| problem.status == 403));
                if answer.err().map(|problem| problem.code).as_deref() == refused {
                    return;
                }
                // A refusal comes without a wait: who follows the topic needs a turn. However
                // short it is, only how often is asked depends on it.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let what = format!("{user}: {refused:?}");
        tokio::time::timeout(Duration::from_secs(20), sent).await.expect(&what);
    }

    /// Everything in `new-messages`.
    async fn inputs(&self) -> Vec<(String, Input)> {
        let bounds = self.log.bounds(Topic::NewMessages, Partition(0)).await.unwrap();
        let from = bounds.start;
        let mut reader = self.log.reader(Topic::NewMessages, Partition(0), from).await.unwrap();
        let (mut inputs, mut next) = (Vec::new(), Offset(0));
        while next < bounds.end {
            for record in reader.next().await.unwrap() {
                next = record.offset.next();
                let key = String::from_utf8(record.key.to_vec()).unwrap();
                inputs.push((key, decode_input(record.value).unwrap()));
            }
        }
        inputs
    }
}

fn caller(user: &str) -> Option<v1::Caller> {
    Some(v1::Caller { user_id: user.into(), device_id: "phone".into() })
}

fn answer<T>(answer: Result<T, Status>) -> Result<T, Problem> {
    answer.map_err(Problem::from)
}

#[tokio::test]
async fn l1_changes_refusals_and_marks_are_in_the_log_once_they_are_answered() {
    let world = World::start(BlocksShown::Hidden).await;
    let participants = v1::ModifyChatParticipants {
        chat_id: "g.1".into(),
        user_id: "ben".into(),
        operation: v1::modify_chat_participants::Operation::Promote.into(),
    };
    let change = v1::SubmitChangeRequest {
        caller: caller("ana"),
        change: Some(Change::Participants(participants)),
        request_id: vec![7; 16].into(),
    };
    let reply = world.service.submit_change(Request::new(change)).await.unwrap().into_inner();
    assert!(reply.token.starts_with("1.0."), "{}", reply.token);
    assert_eq!(reply.chat_id, "g.1");

    let id =
        MessageId::of(&"ben".parse().unwrap(), &"g.1".parse().unwrap(), &"late".parse().unwrap());
    let refusal = v1::SubmitRefusalRequest {
        caller: caller("ana"),
        refusal: Some(v1::RejectMessage {
            chat_id: "g.1".into(),
            message_id: id.to_string(),
            reason: "older".into(),
        }),
        message: Some(v1::NewMessage {
            sender_id: "ben".into(),
            client_message_id: "late".into(),
            accepted_at: Some(Timestamp::from_ms(NOW_MS - 5)),
            ..Default::default()
        }),
    };
    world.service.submit_refusal(Request::new(refusal)).await.unwrap();

    let mark = |user: &str, read_seq| v1::UserMark {
        user_id: user.into(),
        delivered_seq: 9,
        read_seq,
        hide_read: true,
    };
    let chats = vec![
        v1::ChatReceipts { chat_id: "g.1".into(), marks: vec![mark("ana", 3), mark("ben", 4)] },
        v1::ChatReceipts { chat_id: "d.2".into(), marks: vec![mark("ana", 5)] },
    ];
    let receipts = v1::SubmitReceiptsRequest { chats };
    world.service.submit_receipts(Request::new(receipts)).await.unwrap();

    let inputs = world.inputs().await;
    let keys: Vec<_> = inputs.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, ["g.1", "g.1", "g.1", "d.2"]);
    let Input::Command(change) = &inputs[0].1 else { panic!("{:?}", inputs[0]) };
    let Action::Change(asked) = &change.action else { panic!("{change:?}") };
    assert_eq!((change.user.as_str(), change.accepted_at), ("ana", NOW_MS));
    assert_eq!(asked.request, [7; 16]);
    assert_eq!(asked.what, What::Participant("ben".parse().unwrap(), Operation::Promote));
    let Input::Command(refusal) = &inputs[1].1 else { panic!("{:?}", inputs[1]) };
    let Action::Refuse(asked) = &refusal.action else { panic!("{refusal:?}") };
    assert_eq!((asked.message, asked.message_at, asked.reason.as_str()), (id, NOW_MS - 5, "older"));
    let (Input::Marks(group), Input::Marks(direct)) = (&inputs[2].1, &inputs[3].1) else {
        panic!("{inputs:?}")
    };
    assert_eq!((group.marks.len(), group.marks[1].read, group.marks[0].delivered), (2, 4, 9));
    assert!(direct.marks[0].hide_read && direct.at == NOW_MS);
}

#[tokio::test]
async fn l7_a_send_to_somebody_blocked_is_refused_once_the_topic_says_so() {
    use v1::ConnectionStatus::{Active, Blocked};
    let world = World::start(BlocksShown::Visible).await;
    let to = |user: &str| Target::To(user.into());
    let chat = ChatId::direct(&"ana".parse().unwrap(), &"eve".parse().unwrap());
    let token = world.send("ana", to("eve")).await.unwrap();
    assert!(token.starts_with("1.0."));

    world.connect("ana/eve", Blocked, 1).await;
    let stop = CancellationToken::new();
    let (service, stopped) = (Arc::clone(&world.service), stop.clone());
    let told = async {
        world.until("ana", to("eve"), Some("you_blocked")).await;
        world.until("ana", Target::ChatId(chat.to_string()), Some("you_blocked")).await;
        world.until("eve", to("ana"), Some("blocked")).await;
        world.until("ana", to("ben"), None).await;
        // A record that nobody can read does not end it.
        world.connect("ana", Blocked, 2).await;
        world.connect("ana/eve", Active, 2).await;
        world.until("ana", to("eve"), None).await;
        world.until("eve", to("ana"), None).await;
        stop.cancel();
    };
    let (followed, ()) = tokio::join!(service.follow_connections(stopped), told);
    followed.unwrap();
}
