//! A faultless run, and each kind of violation planted in it and found.

use super::*;
use crate_log::small_log;

/// Two chats of Ana, Ben and Eva (the second without Eva); Ana has two devices.
mod crate_log {
    use super::super::super::input::{Chat, Log, Message};

    pub(super) fn small_log() -> Log {
        let chat = |name: &str, participants: &[u32], messages: &[u32]| Chat {
            name: name.into(),
            participants: participants.into(),
            messages: messages.into(),
        };
        let message = |line: u32, chat, sender| Message {
            line: line.into(),
            chat,
            sender,
            text: line.to_string(),
            sha256: [line as u8; 32],
        };
        Log {
            users: ["ana", "ben", "eva"].map(String::from).into(),
            chats: vec![chat("one", &[0, 1, 2], &[0, 1, 3]), chat("two", &[0, 1], &[2, 4])],
            messages: vec![
                message(0, 0, 0),
                message(1, 0, 1),
                message(2, 1, 0),
                message(3, 0, 2),
                message(4, 1, 1),
            ],
        }
    }
}

struct Run {
    log: Log,
    chats: Vec<Option<Name>>,
    accepted: Vec<Option<Name>>,
    devices: Vec<(u32, Vec<Shown>)>,
    histories: Vec<Option<Vec<Shown>>>,
    inboxes: Vec<Option<Vec<Shown>>>,
}

const USERS: [Name; 3] = [10, 11, 12];

impl Run {
    fn faultless() -> Self {
        let log = small_log();
        let row = |position, chat: u32, seq, message: Option<u32>| Shown {
            position,
            chat: 20 + chat,
            seq,
            what: message.map_or(What::Update, |m| What::Message {
                id: 30 + m,
                sender: USERS[log.messages[m as usize].sender as usize],
                sha256: [m as u8; 32],
            }),
        };
        let all = vec![
            row(1, 0, 1, None),
            row(3, 0, 2, Some(0)),
            row(5, 1, 1, None),
            row(6, 0, 3, Some(1)),
            row(7, 1, 2, Some(2)),
            row(8, 0, 4, Some(3)),
            row(9, 1, 3, Some(4)),
        ];
        let of = |chat: Name| all.iter().filter(|s| s.chat == chat).copied().collect::<Vec<_>>();
        let history =
            |chat| Some(of(chat).into_iter().map(|s| Shown { position: 0, ..s }).collect());
        Self {
            chats: vec![Some(20), Some(21)],
            accepted: (30..35).map(Some).collect(),
            devices: vec![(0, all.clone()), (0, all.clone()), (1, all.clone()), (2, of(20))],
            histories: vec![history(20), history(21)],
            inboxes: vec![Some(all.clone()), Some(all.clone()), Some(of(20))],
            log,
        }
    }

    fn judge(&self) -> Verdict {
        check(&Evidence {
            log: &self.log,
            users: &USERS,
            chats: &self.chats,
            accepted: &self.accepted,
            devices: &self.devices,
            histories: &self.histories,
            inboxes: &self.inboxes,
        })
    }
}

/// The verdict on a run with one change.
fn with(plant: impl FnOnce(&mut Run)) -> Verdict {
    let mut run = Run::faultless();
    plant(&mut run);
    let verdict = run.judge();
    assert_eq!(verdict.examples.is_empty(), verdict.violations() == 0, "{verdict:?}");
    verdict
}

const EVA: usize = 3;
const BEN: usize = 2;

#[test]
fn a_faultless_run_has_no_violation_and_all_deliveries() {
    let verdict = with(|_| ());
    assert_eq!(verdict, Verdict { deliveries: 8, ..Verdict::default() });
    assert_eq!(verdict.deliveries, small_log().deliveries());
}

#[test]
fn a_message_that_is_not_shown_is_lost() {
    // The last one of a chat: no hole tells of it. Eva said it, so no delivery is missing.
    let verdict = with(|run| {
        let _ = run.devices[EVA].1.pop();
    });
    assert_eq!((verdict.lost, verdict.holes, verdict.deliveries), (1, 0, 8));
}

#[test]
fn a_senders_own_device_counts_too() {
    let verdict = with(|run| {
        let _ = run.devices[1].1.remove(4);
    });
    assert_eq!((verdict.lost, verdict.holes, verdict.devices_differ), (1, 1, 1));
}

#[test]
fn a_message_shown_again_is_duplicated() {
    let verdict = with(|run| {
        let again = Shown { position: 20, ..run.devices[EVA].1[1] };
        run.devices[EVA].1.push(again);
    });
    assert_eq!((verdict.duplicated, verdict.out_of_order, verdict.lost), (1, 0, 0));
}

#[test]
fn a_message_with_two_seqs_is_duplicated() {
    let verdict = with(|run| {
        let again = Shown { position: 20, seq: 5, ..run.devices[EVA].1[1] };
        run.devices[EVA].1.push(again);
    });
    assert_eq!(verdict.duplicated, 1);
    // Also where each device saw it once.
    let verdict = with(|run| run.devices[EVA].1[3].seq = 5);
    assert_eq!((verdict.duplicated, verdict.holes), (1, 1));
}

#[test]
fn positions_and_seqs_that_do_not_grow_are_out_of_order() {
    let verdict = with(|run| run.devices[EVA].1[3].position = 6);
    assert_eq!(verdict.out_of_order, 1, "the position stands still");
    let verdict = with(|run| {
        let shown = &mut run.devices[EVA].1;
        shown.swap(2, 3);
        (shown[2].position, shown[3].position) = (6, 8);
    });
    assert_eq!(verdict.out_of_order, 1, "the seq steps back");
    assert_eq!((verdict.lost, verdict.holes, verdict.duplicated), (0, 0, 0));
}

#[test]
fn devices_that_disagree_on_a_place_are_out_of_order() {
    let verdict = with(|run| {
        let shown = &mut run.devices[EVA].1;
        (shown[1].what, shown[2].what) = (shown[2].what, shown[1].what);
    });
    assert_eq!(verdict.out_of_order, 2);
}

#[test]
fn a_chat_in_another_order_than_it_was_sent_is_out_of_order() {
    let verdict = with(|run| {
        let swap = |list: &mut Vec<Shown>| {
            let at = |id| move |s: &Shown| matches!(s.what, What::Message { id: found, .. } if found == id);
            let (a, b) = (list.iter().position(at(30)), list.iter().position(at(31)));
            let (a, b) = (a.unwrap(), b.unwrap());
            (list[a].what, list[b].what) = (list[b].what, list[a].what);
        };
        run.devices.iter_mut().for_each(|(_, list)| swap(list));
        run.inboxes.iter_mut().flatten().for_each(swap);
        swap(run.histories[0].as_mut().unwrap());
    });
    assert_eq!((verdict.out_of_order, verdict.violations()), (1, 1));
}

#[test]
fn a_missing_seq_is_a_hole() {
    let verdict = with(|run| {
        let _ = run.devices[BEN].1.remove(0);
    });
    assert_eq!((verdict.holes, verdict.lost), (1, 0), "the chat's creation is missing");
}

#[test]
fn a_changed_text_sender_or_chat_is_altered() {
    let verdict = with(|run| {
        let What::Message { sha256, .. } = &mut run.devices[BEN].1[1].what else { panic!() };
        sha256[0] ^= 1;
    });
    assert_eq!(verdict.altered, 1);
    let verdict = with(|run| {
        let What::Message { sender, .. } = &mut run.devices[BEN].1[1].what else { panic!() };
        *sender = USERS[2];
    });
    assert_eq!(verdict.altered, 1);
    let verdict = with(|run| {
        let What::Message { id, .. } = &mut run.devices[BEN].1[1].what else { panic!() };
        *id = 99;
    });
    assert_eq!((verdict.altered, verdict.lost), (1, 1), "what nobody sent, for what was");
}

#[test]
fn what_was_not_accepted_and_what_is_foreign_is_counted() {
    let verdict = with(|run| run.accepted[4] = None);
    assert_eq!((verdict.not_accepted, verdict.lost), (1, 0));
    let verdict = with(|run| {
        let foreign = Shown { position: 50, chat: 77, seq: 4, what: What::Update };
        run.devices[BEN].1.push(foreign);
    });
    assert_eq!((verdict.foreign, verdict.violations()), (1, 0));
}

#[test]
fn a_history_that_is_not_what_was_sent_and_shown_differs() {
    let history = |plant: fn(&mut Vec<Shown>)| {
        let verdict = with(|run| plant(run.histories[0].as_mut().unwrap()));
        assert_eq!(verdict.violations(), verdict.history_differs);
        verdict.history_differs
    };
    assert_eq!(
        history(|rows| {
            let _ = rows.pop();
        }),
        1,
        "the last is missing"
    );
    assert!(
        history(|rows| {
            let _ = rows.remove(1);
        }) > 0,
        "one in the middle is missing"
    );
    assert!(history(|rows| rows.push(rows[1])) > 0, "one too many");
    assert!(history(|rows| rows.swap(1, 2)) > 0, "another order");
    assert_eq!(history(|rows| rows[1].what = What::Hidden), 1, "hidden");
    let forged = |rows: &mut Vec<Shown>| {
        let What::Message { sha256, .. } = &mut rows[1].what else { panic!() };
        sha256[0] ^= 1;
    };
    assert!(history(forged) > 0, "another text");
    assert_eq!(with(|run| run.histories[1] = None).history_differs, 2);
}

#[test]
fn an_inbox_that_is_not_what_was_shown_differs() {
    let inbox = |plant: fn(&mut Vec<Shown>)| {
        let verdict = with(|run| plant(run.inboxes[1].as_mut().unwrap()));
        assert_eq!(verdict.violations(), verdict.history_differs);
        verdict.history_differs
    };
    assert_eq!(
        inbox(|rows| {
            let _ = rows.remove(3);
        }),
        1
    );
    assert_eq!(inbox(|rows| rows[3].position += 100), 2, "at another position");
    assert_eq!(inbox(|rows| rows.swap(0, 1)), 1, "in another order");
    assert_eq!(with(|run| run.inboxes[2] = None).history_differs, 4);
}
