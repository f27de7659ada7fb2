use super::*;
use crate::{
    ClientId, DeviceId,
    record::{Body, Content},
};
use bytes::Bytes;

fn user(text: &str) -> UserId {
    text.parse().unwrap()
}

fn key(text: &str) -> ClientId {
    text.parse().unwrap()
}

struct Story {
    fold: Fold,
    next: u64,
}

impl Story {
    fn new() -> Self {
        Self { fold: Fold::new(Placement::new(4)), next: 0 }
    }

    fn apply(&mut self, by: &str, chat: ChatId, action: Action) -> Vec<Output> {
        let device: DeviceId = "phone".parse().unwrap();
        let command = Command { chat, user: user(by), device, accepted_at: 7, action };
        let mut out = Vec::new();
        self.fold.apply(Offset(self.next), command, &mut out);
        self.next += 1;
        out
    }

    fn send(
        &mut self,
        by: &str,
        chat: ChatId,
        to: Option<&str>,
        k: &str,
        text: &str,
    ) -> Vec<Output> {
        let body = Body::Text(Bytes::copy_from_slice(text.as_bytes()));
        let content = Arc::new(Content { body, attachments: vec![] });
        let send = Send { to: to.map(user), key: key(k), content, sent_at: None };
        self.apply(by, chat, Action::Send(send))
    }

    fn create(&mut self, by: &str, k: &str, others: &[&str], name: &str) -> (ChatId, Vec<Output>) {
        let chat = ChatId::created(&user(by), &key(k));
        let create = Create {
            request: [1; 16],
            participants: others.iter().map(|u| user(u)).collect(),
            name: name.into(),
            key: key(k),
            history: History::FromJoin,
        };
        (chat, self.apply(by, chat, Action::Create(create)))
    }
}

fn seqs(out: &[Output]) -> Vec<u64> {
    out.iter()
        .filter_map(|o| match &o.event {
            Event::Message(m) => Some(m.seq),
            Event::ChatUpdate(u) => Some(u.seq),
            _ => None,
        })
        .collect()
}

fn causes(out: &[Output]) -> Vec<Cause> {
    out.iter()
        .filter_map(|o| match &o.event {
            Event::Rejected(r) => Some(r.cause),
            _ => None,
        })
        .collect()
}

#[test]
fn a_group_reaches_every_member_once_and_counts_without_holes() {
    let mut story = Story::new();
    let names: Vec<String> = (0..20).map(|i| format!("u{i}")).collect();
    let others: Vec<&str> = names.iter().map(String::as_str).collect();
    let (chat, made) = story.create("ana", "c1", &others, "all");
    let mut reached: Vec<_> = made
        .iter()
        .filter(|o| !seqs(std::slice::from_ref(o)).is_empty())
        .flat_map(|o| o.users.to_vec())
        .collect();
    reached.sort();
    reached.dedup();
    assert_eq!(reached.len(), 21);
    assert!(
        matches!(made.last().unwrap().event, Event::Verdict(ref v) if v.outcome == Outcome::Changed)
    );

    for n in 2..5 {
        let out = story.send("u3", chat, None, &format!("k{n}"), "hi");
        assert!(seqs(&out).iter().all(|seq| *seq == n));
        assert_eq!(out.iter().map(|o| o.users.len()).sum::<usize>(), 21);
        assert_eq!(
            out[0].partition,
            Placement::new(4).of_user(&user("u3")),
            "index 0 is the sender's copy"
        );
        assert_eq!(
            out.iter().map(|o| o.index).collect::<Vec<_>>(),
            (0..out.len() as u32).collect::<Vec<_>>()
        );
    }
}

#[test]
fn l2_a_retry_has_no_second_effect_and_other_content_is_refused_once() {
    let mut story = Story::new();
    let chat = ChatId::direct(&user("ana"), &user("ben"));
    assert_eq!(seqs(&story.send("ana", chat, Some("ben"), "k", "hi"))[0], 1);
    let retry = story.send("ana", chat, Some("ben"), "k", "hi");
    assert!(matches!(retry[..], [Output { event: Event::Duplicate { .. }, .. }]));
    assert_eq!(causes(&story.send("ana", chat, Some("ben"), "k", "ho")), [Cause::OtherContent]);
    assert_eq!(causes(&story.send("ana", chat, Some("ben"), "k", "ho")), []);
    assert_eq!(seqs(&story.send("ben", chat, None, "k", "ho"))[0], 2, "keys belong to a user");
}

#[test]
fn strangers_and_unknown_chats_are_refused_without_a_seq() {
    let mut story = Story::new();
    let (chat, _) = story.create("ana", "c", &["ben"], "");
    let refused = story.send("eve", chat, None, "k", "psst");
    assert_eq!(causes(&refused), [Cause::NotAMember]);
    assert_eq!(refused.len(), 1, "nobody else sees anything");
    assert_eq!(&*refused[0].users, [user("eve")]);
    assert_eq!(
        causes(&story.send("eve", "g.nope".parse().unwrap(), None, "k", "?")),
        [Cause::NoSuchChat]
    );
    assert_eq!(seqs(&story.send("ben", chat, None, "k", "hi"))[0], 2);
    let lie = story.send("eve", ChatId::direct(&user("ana"), &user("ben")), Some("ben"), "k", "!");
    assert_eq!(causes(&lie), [Cause::NoSuchChat]);
}

#[test]
fn a_chat_is_made_once() {
    let mut story = Story::new();
    let (chat, _) = story.create("ana", "c", &["ben", "cleo"], "n");
    let outcome = |out: Vec<Output>| match &out[..] {
        [Output { index: 0, event: Event::Verdict(v), .. }] => v.outcome,
        other => panic!("one verdict, not {other:?}"),
    };
    let (again, out) = story.create("ana", "c", &["cleo", "ben", "ana"], "n");
    assert_eq!((again, outcome(out)), (chat, Outcome::Unchanged));
    let (_, out) = story.create("ana", "c", &["ben"], "n");
    assert_eq!(outcome(out), Outcome::Refused(Cause::OtherChat));
    let (_, out) = story.create("ana", "c", &["ben", "cleo"], "other");
    assert_eq!(outcome(out), Outcome::Refused(Cause::OtherChat));
}

#[test]
fn a_note_to_oneself_is_a_chat_of_one() {
    let mut story = Story::new();
    let chat = ChatId::direct(&user("ana"), &user("ana"));
    let out = story.send("ana", chat, Some("ana"), "k", "buy milk");
    assert_eq!(out.len(), 1);
    assert_eq!(&*out[0].users, [user("ana")]);
}

#[test]
fn what_a_snapshot_holds_is_not_applied_again() {
    let mut story = Story::new();
    let chat = ChatId::direct(&user("ana"), &user("ben"));
    story.send("ana", chat, Some("ben"), "k1", "one");
    story.next = 0;
    assert!(story.send("ana", chat, Some("ben"), "k1", "one").is_empty());
    assert_eq!(seqs(&story.send("ana", chat, Some("ben"), "k2", "two"))[0], 2);
}
