//! The reference can be wrong too: stories with known ends, and that it tells right from wrong.

use super::{
    chat::{Name, Operation},
    reference::{Answer, Command, Fate, Model, Status},
    step::{Crashes, Machine},
};
use proptest::{strategy::ValueTree as _, test_runner::TestRunner};
use proptest_state_machine::ReferenceStateMachine as _;
use std::collections::BTreeMap;

const CHAT: Name = Name::Group(0, 0);

fn send(by: usize, key: u16, text: u8) -> Command {
    Command::Send { chat: CHAT, by, device: "d0".into(), to: None, key, text }
}

fn change(by: usize, user: usize, operation: Operation) -> Command {
    Command::Participant { chat: CHAT, by, user, operation }
}

fn connect(status: Status, based_on: Option<u64>) -> Command {
    Command::Connect { by: 1, device: "d0".into(), peer: 0, status, based_on }
}

fn with_group() -> Model {
    let mut model = Model::new(3);
    let create = Command::Create { chat: CHAT, by: 0, others: vec![1], title: 0, all: false };
    assert_eq!(model.apply(&create), Answer::Created { new: true });
    model
}

fn fates(model: &Model, user: usize) -> Vec<(u64, Fate)> {
    model.expected[user].chats[&CHAT].iter().map(|seen| (seen.seq, seen.fate)).collect()
}

#[test]
fn a_message_takes_effect_once_and_other_content_is_rejected() {
    let mut model = with_group();
    for (text, count) in [(0, 2), (0, 2), (1, 3), (1, 3), (0, 3)] {
        assert_eq!(model.apply(&send(0, 7, text)), Answer::Accepted);
        assert_eq!(model.expected[0].count(), count, "text {text}");
    }
    assert_eq!(model.expected[1].count(), 2);
    model.apply(&send(2, 7, 0));
    assert_eq!((model.expected[2].count(), model.chats[&CHAT].last_seq()), (1, 2));
}

#[test]
fn roles_and_spans_are_kept() {
    use Operation::{Add, Demote, Promote, Remove};
    let mut model = with_group();
    let story = [
        (change(1, 2, Add), Answer::Refused(403)),
        (change(0, 2, Add), Answer::Modified),
        (change(0, 2, Add), Answer::Modified),
        (change(0, 0, Demote), Answer::Refused(409)),
        (change(0, 1, Promote), Answer::Modified),
        (change(0, 2, Remove), Answer::Modified),
        (change(0, 2, Promote), Answer::Refused(404)),
        (send(0, 0, 0), Answer::Accepted),
        (change(1, 2, Add), Answer::Modified),
        (change(0, 0, Remove), Answer::Modified),
        (change(0, 0, Remove), Answer::Modified),
        (change(0, 1, Demote), Answer::Refused(403)),
    ];
    for (command, answer) in story {
        assert_eq!(model.apply(&command), answer, "{command:?}");
    }
    let chat = &model.chats[&CHAT];
    assert_eq!(chat.visible(2), [(2, 4), (6, 7)]);
    assert_eq!(chat.visible(0), [(1, 7)]);
    assert_eq!(fates(&model, 2).iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), [2, 3, 4, 6, 7]);
    assert!(chat.member(1).expect("is in it").admin);
}

#[test]
fn a_block_hides_what_is_sent_in_it_and_meets_what_is_on_its_way() {
    let mut model = with_group();
    model.apply(&send(0, 0, 0));
    model.apply(&Command::Settle);
    model.apply(&send(0, 1, 0));
    let blocked = Answer::Connection { status: Status::Blocked, version: 1 };
    assert_eq!(model.apply(&connect(Status::Blocked, None)), blocked);
    model.apply(&send(0, 2, 0));
    model.apply(&Command::Settle);
    model.apply(&send(0, 3, 0));
    let present = Answer::Conflict { status: Status::Blocked, version: 1 };
    for old in [None, Some(0)] {
        assert_eq!(model.apply(&connect(Status::Active, old)), present);
    }
    model.apply(&connect(Status::None, Some(1)));
    model.apply(&send(0, 4, 0));
    use Fate::{ByPlace, Hidden, Shown};
    let fates: Vec<_> = fates(&model, 1).into_iter().map(|(_, fate)| fate).collect();
    assert_eq!(fates, [Shown, Shown, ByPlace, Hidden, ByPlace, Shown]);
}

struct Sometimes;
impl Crashes for Sometimes {
    const ONE_IN: u32 = 100;
}

/// Random cases reach everything the reference knows, or the test would prove little.
#[test]
fn random_cases_reach_all_answers_and_fates() {
    let mut reached: BTreeMap<String, usize> = BTreeMap::new();
    let mut runner = TestRunner::deterministic();
    for _ in 0..150 {
        let strategy = Machine::<Sometimes>::sequential_strategy(super::STEPS);
        let made = proptest::strategy::Strategy::new_tree(&strategy, &mut runner).expect("a case");
        let (mut model, steps, _) = made.current();
        for step in &steps {
            model = Machine::<Sometimes>::apply(model, step);
            let mut reach = |what: String| *reached.entry(what).or_default() += 1;
            if let Some(taken) = &model.last {
                let command = format!("{:?}", taken.command);
                let command = command.split_whitespace().next().unwrap_or_default();
                reach(match &taken.answer {
                    Answer::Connection { status, .. } => format!("{command} {status:?}"),
                    Answer::Conflict { .. } => format!("{command} conflict"),
                    answer => format!("{command} {answer:?}"),
                });
                if model.again() != taken.answer {
                    reach("answered otherwise the second time".into());
                }
            }
            if step.crash.is_some() {
                reach("crash".into());
            }
        }
        let events = model.expected.iter();
        for seen in events.clone().flat_map(|e| e.chats.values().flatten()) {
            *reached.entry(format!("{:?}", seen.fate)).or_default() += 1;
        }
        for rejection in events.flat_map(|e| &e.rejections) {
            *reached.entry(format!("rejected {}", rejection.status)).or_default() += 1;
        }
        for chat in
            model.chats.values().filter(|chat| chat.members.iter().any(|m| !m.earlier.is_empty()))
        {
            *reached.entry(format!("came back, all {}", chat.all)).or_default() += 1;
        }
    }
    let expected = [
        "Create Created { new: true }",
        "Create Created { new: false }",
        "Create Refused(409)",
        "Send Accepted",
        "Rename Modified",
        "Rename Refused(403)",
        "Participant Modified",
        "Participant Refused(403)",
        "Participant Refused(404)",
        "Participant Refused(409)",
        "Connect Blocked",
        "Connect Active",
        "Connect None",
        "Connect conflict",
        "Read Nothing",
        "Refuse Nothing",
        "Settle Nothing",
        "Device Nothing",
        "answered otherwise the second time",
        "crash",
        "Shown",
        "Hidden",
        "ByPlace",
        "rejected 403",
        "rejected 404",
        "rejected 409",
        "rejected 422",
        "came back, all false",
    ];
    let lacking: Vec<_> = expected.iter().filter(|what| !reached.contains_key(**what)).collect();
    assert!(lacking.is_empty(), "never reached: {lacking:?} in {reached:#?}");
}
