//! Stories that random cases seldom tell, run against the same server and checked in the same way.
//!
//! Must not know: how the server is built.

use super::{
    RUNTIME,
    case::Case,
    chat::{Name, Operation},
    reference::{Command, Model, Status},
    step::Via,
    verify,
};

const CHAT: Name = Name::Group(2, 0);

fn device() -> String {
    "d0".to_owned()
}

fn send(key: u16) -> Command {
    Command::Send { chat: CHAT, by: 1, device: device(), to: None, key, text: 0 }
}

fn connect(status: Status, based_on: Option<u64>) -> Command {
    Command::Connect { by: 0, device: device(), peer: 1, status, based_on }
}

/// L7: a blocker who joins a chat with its whole history does not read there what the blocked sent
/// meanwhile: it has no place in the order of the blocker, the block itself decides.
fn a_history_that_is_joined_later_hides_what_a_block_withholds() -> Vec<(usize, Command)> {
    let create = Command::Create { chat: CHAT, by: 2, others: vec![1], title: 0, all: true };
    let add = Command::Participant { chat: CHAT, by: 2, user: 0, operation: Operation::Add };
    vec![
        (2, create),
        (1, send(0)),
        (1, Command::Settle),
        (0, connect(Status::Blocked, None)),
        (1, send(1)),
        (1, Command::Settle),
        (2, add),
        (1, send(2)),
    ]
}

/// What was refused or read is not refused again or unread, and who comes back reads what they saw
/// before, and from there on.
fn marks_stay_and_a_second_membership_joins_the_first() -> Vec<(usize, Command)> {
    let others = vec![0, 1];
    let create = Command::Create { chat: CHAT, by: 2, others, title: 0, all: false };
    let change = |operation| Command::Participant { chat: CHAT, by: 2, user: 0, operation };
    let refuse = Command::Refuse { chat: CHAT, by: 0, seq: 2 };
    let read = |seq| Command::Read { chat: CHAT, by: 2, seq };
    vec![
        (2, create),
        (1, send(0)),
        (1, Command::Settle),
        (0, refuse.clone()),
        (0, refuse),
        (2, read(2)),
        (2, read(1)),
        (2, change(Operation::Remove)),
        (1, send(1)),
        (2, change(Operation::Add)),
        (1, send(2)),
        (1, Command::Settle),
        (1, send(3)),
    ]
}

/// Runs all of them.
pub(crate) fn stories() {
    for story in [
        a_history_that_is_joined_later_hides_what_a_block_withholds(),
        marks_stay_and_a_second_membership_joins_the_first(),
    ] {
        let mut model = Model::new(3);
        let mut case = RUNTIME.block_on(Case::start(super::server(), &model));
        for (by, command) in story {
            model.take(command);
            RUNTIME.block_on(case.tell(&model, (by, Via::Device(0))));
        }
        RUNTIME.block_on(verify::verify(case, &model));
    }
}
