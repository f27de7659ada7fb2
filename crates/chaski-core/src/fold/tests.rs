use super::*;
use crate::{
    ClientId, DeviceId, UserId,
    record::{
        Body, Change, ChatUpdate, Content, History, Managers, Mark, Marks, Operation, Role, Span,
        What,
    },
};
use bytes::Bytes;
use std::collections::BTreeSet;

fn user(text: &str) -> UserId {
    text.parse().unwrap()
}

fn key(text: &str) -> ClientId {
    text.parse().unwrap()
}

struct Story {
    fold: Fold,
    next: u64,
    at: UnixMs,
    history: History,
    history_days: u32,
}

const DAY: UnixMs = 24 * 60 * 60 * 1000;

impl Story {
    fn new() -> Self {
        let fold = Fold::new(Placement::new(4));
        Self { fold, next: 0, at: 7, history: History::FromJoin, history_days: 0 }
    }

    fn input(&mut self, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        self.fold.apply(Offset(self.next), input, &mut out);
        self.next += 1;
        out
    }

    fn apply(&mut self, by: &str, chat: ChatId, action: Action) -> Vec<Output> {
        let device: DeviceId = "phone".parse().unwrap();
        let accepted_at = self.at;
        self.input(Input::Command(Command { chat, user: user(by), device, accepted_at, action }))
    }

    fn tick(&mut self, now: UnixMs, rules: Rules) {
        assert!(self.input(Input::Tick(Tick { now, rules })).is_empty());
    }

    fn change(&mut self, by: &str, chat: ChatId, what: What) -> (Outcome, Vec<Output>) {
        let out = self.apply(by, chat, Action::Change(Change { request: [2; 16], what }));
        let Event::Verdict(verdict) = &out.last().unwrap().event else { panic!("{out:?}") };
        (verdict.outcome, out)
    }

    fn participant(&mut self, by: &str, chat: ChatId, who: &str, op: Operation) -> Outcome {
        self.change(by, chat, What::Participant(user(who), op)).0
    }

    /// The chat's update among these outputs, and whom it is for.
    fn update(out: &[Output]) -> (Arc<ChatUpdate>, BTreeSet<String>) {
        let updates = out.iter().filter_map(|o| match &o.event {
            Event::ChatUpdate(update) => Some((update, &o.users)),
            _ => None,
        });
        let (mut found, mut users) = (None, BTreeSet::new());
        for (update, to) in updates {
            found = Some(Arc::clone(update));
            users.extend(to.iter().map(ToString::to_string));
        }
        (found.expect("an update"), users)
    }

    fn mark(&mut self, chat: ChatId, who: &str, delivered: u64, read: u64) -> Vec<Output> {
        self.mark_as(chat, who, (delivered, read), false)
    }

    fn mark_as(
        &mut self,
        chat: ChatId,
        who: &str,
        (delivered, read): (u64, u64),
        hide_read: bool,
    ) -> Vec<Output> {
        let mark = Mark { user: user(who), delivered, read, hide_read };
        self.input(Input::Marks(Marks { chat, at: 9, marks: vec![mark] }))
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
            history: self.history,
            history_days: self.history_days,
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
    story.history_days = 7;
    let (_, out) = story.create("ana", "c", &["ben", "cleo"], "n");
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

#[test]
fn admins_change_a_chat_and_others_may_not() {
    use Operation::{Add, Demote, Promote, Remove};
    let mut story = Story::new();
    let (chat, _) = story.create("ana", "c", &["ben"], "n");
    let refused = Outcome::Refused;
    let steps = [
        ("ben", "cleo", Add, refused(Cause::NotAllowed)),
        ("eve", "eve", Add, refused(Cause::NotAMember)),
        ("ana", "ben", Add, Outcome::Unchanged),
        ("ana", "cleo", Add, Outcome::Changed),
        ("ana", "dan", Promote, refused(Cause::NoSuchMember)),
        ("ana", "ana", Demote, refused(Cause::LastAdmin)),
        ("ana", "ben", Promote, Outcome::Changed),
        ("ana", "ben", Promote, Outcome::Unchanged),
        ("ben", "ana", Demote, Outcome::Changed),
        ("ana", "cleo", Remove, refused(Cause::NotAllowed)),
        ("cleo", "cleo", Remove, Outcome::Changed),
        ("cleo", "cleo", Remove, Outcome::Unchanged),
        ("cleo", "ana", Remove, refused(Cause::NotAMember)),
        ("ben", "eve", Remove, Outcome::Unchanged),
        ("ben", "ben", Remove, Outcome::Changed),
        ("ana", "ben", Add, Outcome::Changed),
    ];
    for (by, who, operation, expected) in steps {
        assert_eq!(
            story.participant(by, chat, who, operation),
            expected,
            "{by} {operation:?} {who}"
        );
    }
    assert_eq!(story.change("ben", chat, What::Name("x".into())).0, refused(Cause::NotAllowed));
    assert_eq!(story.change("ana", chat, What::Name("n".into())).0, Outcome::Unchanged);
    let (outcome, out) = story.change("ana", chat, What::Name("x".into()));
    let (update, to) = Story::update(&out);
    assert_eq!((outcome, &*update.name, update.seq, update.version), (Outcome::Changed, "x", 8, 8));
    assert_eq!(to, ["ana", "ben"].map(String::from).into());
    story.tick(1, Rules { managers: Managers::Everyone, ..Rules::default() });
    assert_eq!(story.participant("ben", chat, "eve", Add), Outcome::Changed);
    let direct = ChatId::direct(&user("ana"), &user("ben"));
    story.send("ana", direct, Some("ben"), "k", "hi");
    assert_eq!(story.participant("ana", direct, "eve", Add), refused(Cause::DirectChat));
    let nowhere = "g.nope".parse().unwrap();
    assert_eq!(story.participant("ana", nowhere, "eve", Add), refused(Cause::NoSuchChat));
}

#[test]
fn how_long_a_chat_is_kept_goes_with_all_that_is_stored_of_it() {
    let mut story = Story::new();
    story.history_days = 7;
    let (chat, made) = story.create("ana", "c", &["ben"], "");
    let sent = story.send("ana", chat, None, "k", "kept for a week");
    let (renamed, _) = Story::update(&story.change("ana", chat, What::Name("n".into())).1);
    let (made, _) = Story::update(&made);
    let Event::Message(message) = &sent[0].event else { panic!("{sent:?}") };
    assert_eq!([made.history_days, message.history_days, renamed.history_days], [7; 3]);
    let direct = ChatId::direct(&user("ana"), &user("ben"));
    let sent = story.send("ana", direct, Some("ben"), "k", "as the system does");
    assert!(matches!(&sent[0].event, Event::Message(message) if message.history_days == 0));
}

#[test]
fn l3_a_message_before_a_removal_arrives_and_one_after_it_does_not() {
    let mut story = Story::new();
    let (chat, _) = story.create("ana", "c", &["ben", "cleo"], "");
    let reached = |out: &[Output]| out.iter().any(|o| o.users.contains(&user("ben")));
    assert!(reached(&story.send("ana", chat, None, "k1", "before")));
    let remove = What::Participant(user("ben"), Operation::Remove);
    let (_, out) = story.change("ana", chat, remove);
    let (update, to) = Story::update(&out);
    assert!(to.contains("ben"), "the removed see it as their last event");
    assert_eq!((update.seq, update.members.len(), &update.left[0].user), (3, 2, &user("ben")));
    assert_eq!(update.left[0].earlier[..], [Span { first: 1, last: 3 }]);
    assert!(!reached(&story.send("ana", chat, None, "k2", "after")));
    assert_eq!(causes(&story.send("ben", chat, None, "k3", "too late")), [Cause::NotAMember]);
}

#[test]
fn who_comes_back_sees_the_union_of_their_memberships() {
    for (history, first, earlier) in
        [(History::FromJoin, 5, vec![Span { first: 1, last: 3 }]), (History::All, 1, vec![])]
    {
        let mut story = Story::new();
        story.history = history;
        let (chat, _) = story.create("ana", "c", &["ben"], "");
        story.send("ana", chat, None, "k1", "one");
        story.participant("ana", chat, "ben", Operation::Remove);
        story.send("ana", chat, None, "k2", "not for ben");
        let add = What::Participant(user("ben"), Operation::Add);
        let (update, _) = Story::update(&story.change("ana", chat, add).1);
        let ben = update.members.iter().find(|m| m.user == user("ben")).unwrap();
        assert_eq!((ben.visible_from, &ben.earlier[..]), (first, &earlier[..]), "{history:?}");
    }
}

#[test]
fn l8_a_chat_is_full_at_its_limit_and_not_before() {
    let mut story = Story::new();
    story.tick(1, Rules { participants_max: 3, ..Rules::default() });
    let (chat, _) = story.create("ana", "c", &["ben"], "");
    assert_eq!(story.participant("ana", chat, "cleo", Operation::Add), Outcome::Changed);
    let full = Outcome::Refused(Cause::ChatFull);
    assert_eq!(story.participant("ana", chat, "dan", Operation::Add), full);
    assert_eq!(story.participant("ana", chat, "cleo", Operation::Add), Outcome::Unchanged);
}

#[test]
fn a_chat_whose_last_admin_leaves_goes_to_who_is_in_it_longest() {
    let mut story = Story::new();
    let (chat, _) = story.create("ana", "c", &["ben", "cleo"], "");
    let leave = What::Participant(user("ana"), Operation::Remove);
    let (update, _) = Story::update(&story.change("ana", chat, leave).1);
    let roles: Vec<_> = update.members.iter().map(|m| (m.user.as_str(), m.role)).collect();
    assert_eq!(roles, [("ben", Role::Admin), ("cleo", Role::Member)]);
}

#[test]
fn l2_retries_are_known_for_seven_days_of_the_logs_time() {
    let mut story = Story::new();
    let chat = ChatId::direct(&user("ana"), &user("ben"));
    story.send("ana", chat, Some("ben"), "k0", "before the first tick");
    assert_eq!(story.fold.idempotency_window(), (1, 0), "there is no time yet");
    let mut now = 20_000 * DAY + DAY - 1;
    story.tick(now, Rules::default());
    story.send("ana", chat, None, "k1", "at the end of a day");
    assert_eq!(story.fold.idempotency_window(), (2, DAY - 1), "from the oldest key's day on");
    // One wrong clock does not empty the window: a tick moves time by a minute at most, never back.
    story.tick(now + 400 * DAY, Rules::default());
    assert_eq!(story.fold.control().now, now + TICK_MAX_MS);
    story.tick(now - DAY, Rules::default());
    assert_eq!(story.fold.control().now, now + TICK_MAX_MS);
    let known = |story: &mut Story, key, text| {
        let out = story.send("ana", chat, None, key, text);
        matches!(out[..], [Output { event: Event::Duplicate { .. }, .. }])
    };
    while now < 20_000 * DAY + 8 * DAY - 1 {
        now += TICK_MAX_MS;
        story.tick(now.min(20_000 * DAY + 8 * DAY - 1), Rules::default());
    }
    assert!(known(&mut story, "k0", "before the first tick"));
    assert!(known(&mut story, "k1", "at the end of a day"));
    assert_eq!(story.fold.idempotency_window(), (2, 8 * DAY - 1));
    story.tick(20_000 * DAY + 8 * DAY, Rules::default());
    assert_eq!(story.fold.idempotency_window(), (0, 0), "what is forgotten does not count");
    assert!(!known(&mut story, "k1", "at the end of a day"), "a key is forgotten in the end (L8)");
}

fn refusal(story: &mut Story, by: &str, chat: ChatId, sender: &str, k: &str) -> Vec<Output> {
    let (sender, key) = (user(sender), key(k));
    let message = MessageId::of(&sender, &chat, &key);
    let refuse = Refuse { message, reason: "older".into(), sender, key, message_at: 7 };
    story.apply(by, chat, Action::Refuse(refuse))
}

#[test]
fn a_refusal_reaches_the_sender_once_for_each_refusing_member_within_a_day() {
    let mut story = Story::new();
    let (chat, _) = story.create("ana", "c", &["ben", "cleo"], "");
    story.send("ana", chat, None, "k", "late");
    let out = refusal(&mut story, "ben", chat, "ana", "k");
    let [Output { users, event: Event::Rejected(rejection), .. }] = &out[..] else {
        panic!("{out:?}")
    };
    assert_eq!((&users[..], &rejection.by), (&[user("ana")][..], &Some(user("ben"))));
    assert_eq!((rejection.cause, rejection.reason.as_str()), (Cause::ByRecipient, "older"));
    assert!(refusal(&mut story, "ben", chat, "ana", "k").is_empty(), "once");
    assert_eq!(refusal(&mut story, "cleo", chat, "ana", "k").len(), 1, "once for each user");
    assert!(refusal(&mut story, "eve", chat, "ana", "k").is_empty(), "members only");
    assert!(refusal(&mut story, "ana", chat, "ana", "k").is_empty(), "not one's own");
    story.send("ana", chat, None, "k2", "later");
    story.at = 7 + REFUSABLE_MS + 1;
    assert!(refusal(&mut story, "ben", chat, "ana", "k2").is_empty(), "too late");
    story.at -= 1;
    assert_eq!(refusal(&mut story, "ben", chat, "ana", "k2").len(), 1, "just in time");
}

#[test]
fn marks_go_on_from_where_they_were_when_a_member_comes_back() {
    let mut story = Story::new();
    let (chat, _) = story.create("ana", "c", &["ben"], "");
    story.send("ana", chat, None, "k", "two");
    story.mark(chat, "ben", 2, 2);
    story.participant("ana", chat, "ben", Operation::Remove);
    story.participant("ana", chat, "ben", Operation::Add);
    assert!(story.mark(chat, "ben", 2, 2).is_empty(), "nothing moves");
    assert_eq!(marks(&story.mark(chat, "ben", 3, 0))[0].2, [("ben".to_owned(), 3, 2)]);
}

/// A user's delivered and read marks.
type Marked = (String, u64, u64);

/// (own copy?, readers, marks) of each output.
fn marks(out: &[Output]) -> Vec<(bool, Vec<String>, Vec<Marked>)> {
    let one = |o: &Output| match &o.event {
        Event::Marks(change) => {
            let marks = change.marks.iter().map(|m| (m.user.to_string(), m.delivered, m.read));
            let users = o.users.iter().map(ToString::to_string).collect();
            (change.own, users, marks.collect())
        }
        other => panic!("{other:?}"),
    };
    out.iter().map(one).collect()
}

#[test]
fn marks_grow_and_reach_the_authors_of_what_they_cover() {
    let mut story = Story::new();
    let (chat, _) = story.create("ana", "c", &["ben", "cleo"], "");
    story.send("ana", chat, None, "k", "two");
    let to = |name: &str| vec![name.to_owned()];
    let ben = |delivered, read| vec![("ben".to_owned(), delivered, read)];
    let out = marks(&story.mark(chat, "ben", 2, 0));
    assert_eq!(out, [(true, to("ben"), ben(2, 0)), (false, to("ana"), ben(2, 0))]);
    assert!(story.mark(chat, "ben", 1, 0).is_empty(), "never back");
    let out = marks(&story.mark(chat, "ben", 0, 99));
    assert_eq!(out[1].2, ben(2, 2), "never past the chat's end");
    assert!(story.mark(chat, "eve", 2, 2).is_empty(), "members only");
    // cleo has said nothing: nobody's marks are for her.
    story.send("ben", chat, None, "k", "three");
    let out = marks(&story.mark_as(chat, "ana", (3, 3), true));
    assert_eq!(out[0].2, [("ana".to_owned(), 3, 3)], "the reader's own devices agree");
    assert_eq!(out[1].1, to("ben"));
    assert_eq!(out[1].2, [("ana".to_owned(), 3, 0)], "what is hidden stays hidden");
    let out = marks(&story.mark(chat, "cleo", 3, 3));
    let readers: BTreeSet<_> = out.iter().filter(|o| !o.0).flat_map(|o| o.1.clone()).collect();
    assert_eq!(readers, ["ana", "ben"].map(String::from).into());
}

#[test]
fn l8_a_large_group_that_reads_everything_costs_one_record_for_each_mark() {
    let mut story = Story::new();
    let names: Vec<String> = (0..99).map(|i| format!("u{i}")).collect();
    let others: Vec<&str> = names.iter().map(String::as_str).collect();
    let (chat, _) = story.create("ana", "c", &others, "");
    for name in &others {
        story.send(name, chat, None, "k", "hi");
    }
    let records: usize = others.iter().map(|name| story.mark(chat, name, 100, 100).len()).sum();
    assert_eq!(records, 99, "the readers' own copies: others ask");
}
