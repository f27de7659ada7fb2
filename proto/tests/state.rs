//! The fan-out's state comes back from a snapshot as it was, so a new owner decides as the old one
//! would have (L5).

use bytes::Bytes;
use chaski_core::{
    ChatId, Offset, UserId,
    fold::{CONTROL, Fold},
    placement::Placement,
    record::{
        Action, Body, Change, Command, Content, Create, History, Input, Managers, Mark, Marks,
        Operation, Rules, Send, Tick, What,
    },
};
use chaski_proto::{decode_bucket, decode_control, encode_bucket, encode_control};
use std::sync::Arc;

fn user(name: &str) -> UserId {
    name.parse().expect("legal")
}

/// What somebody who is not new has left behind: a group with a former member who came back, one
/// who did not, marks, messages of two days, and a chat of two.
fn story() -> Vec<Input> {
    let key = "k1".parse().expect("legal");
    let group = ChatId::created(&user("ana"), &key);
    let direct = ChatId::direct(&user("ana"), &user("ben"));
    let by = |name: &str, chat, action| {
        let device = "phone".parse().expect("legal");
        Input::Command(Command { chat, user: user(name), device, accepted_at: 7, action })
    };
    let say = |name: &str, chat, to: Option<&str>, text: &'static str| {
        let body = Body::Text(Bytes::from_static(text.as_bytes()));
        let content = Arc::new(Content { body, attachments: vec![] });
        let (to, key) = (to.map(user), text.parse().expect("legal"));
        by(name, chat, Action::Send(Send { to, key, content, sent_at: None }))
    };
    let participant = |name: &str, operation| {
        let what = What::Participant(user(name), operation);
        by("ana", group, Action::Change(Change { request: [1; 16], what }))
    };
    let create = Create {
        request: [1; 16],
        participants: vec![user("ben"), user("cleo")],
        name: "the name".into(),
        key,
        history: History::FromJoin,
        history_days: 40,
    };
    let rules = Rules { participants_max: 7, managers: Managers::Everyone, receipts_push_max: 3 };
    let tick = |now| Input::Tick(Tick { now, rules });
    let mark = Mark { user: user("cleo"), delivered: 3, read: 2, hide_read: true };
    let day = 24 * 60 * 60 * 1000;
    vec![
        tick(20_000 * day - 1),
        by("ana", group, Action::Create(create)),
        say("ben", group, None, "one"),
        tick(20_000 * day + 1),
        say("ben", group, None, "two"),
        Input::Marks(Marks { chat: group, at: 8, marks: vec![mark] }),
        participant("ben", Operation::Remove),
        participant("cleo", Operation::Remove),
        participant("ben", Operation::Add),
        participant("ben", Operation::Promote),
        say("ana", direct, Some("ben"), "three"),
    ]
}

#[test]
fn l5_state_comes_back_from_its_snapshots() {
    let placement = Placement::new(4);
    let mut fold = Fold::new(placement);
    let mut out = Vec::new();
    for (offset, input) in (0..).zip(story()) {
        fold.apply(Offset(offset), input, &mut out);
    }
    let mut chats = 0;
    for (index, bucket) in fold.buckets_mut() {
        assert!(index < CONTROL);
        let as_of = bucket.as_of.unwrap_or_default();
        let back = decode_bucket(encode_bucket(bucket), as_of, placement).expect("it was encoded");
        assert_eq!(back.chats, bucket.chats, "bucket {index}");
        assert_eq!(back.seen, bucket.seen, "bucket {index}");
        chats += back.chats.len();
    }
    assert_eq!(chats, 2, "the story made them");
    let control = fold.control().clone();
    let as_of = control.as_of.expect("it has ticked");
    let stored = encode_control(&control, as_of.next());
    let (back, next) = decode_control(stored, as_of).expect("it was encoded");
    assert_eq!(next, as_of.next());
    assert_eq!((back.now, back.rules, back.as_of), (control.now, control.rules, control.as_of));
    assert_eq!(back.rules.participants_max, 7, "the story set it");
}
