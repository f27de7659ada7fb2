//! A faultless run, and each kind of violation planted in it and found: that one, and no other.

mod tale;

use super::*;
use crate::history::{Ask, Entry, Event, HistoryRow, Noted, Read, Shown, UNKNOWN};
use tale::{
    ANA, ANA_PHONE, ANA_TABLET, BEN, BEN_PHONE, EVA, EVA_PHONE, GROUP, IDS, PAIR, alter, edge,
    faultless, forget, hidden, message, note, rejected, shown, shown_to, without_blocks,
};

/// Plants something; it must be found as this, so often, and as nothing else.
#[track_caller]
fn finds(kind: Kind, count: u64, plant: impl FnOnce(&mut Evidence)) {
    let mut evidence = faultless();
    plant(&mut evidence);
    let verdict = judge(&evidence);
    let expected: Vec<(Kind, u64)> = if count > 0 { vec![(kind, count)] } else { vec![] };
    let found: Vec<(Kind, u64)> =
        verdict.violations.iter().map(|(k, n)| (*k, *n)).filter(|(_, n)| *n > 0).collect();
    assert_eq!(found, expected, "{:#?}", verdict.examples);
}

#[track_caller]
fn finds_nothing(change: impl FnOnce(&mut Evidence)) {
    finds(Kind::Lost, 0, change);
}

const fn is_message(n: u32) -> impl Fn(&Event) -> bool {
    move |event| matches!(event, Event::Message { message, .. } if *message == n)
}

#[test]
fn a_faultless_run_has_no_violation_and_every_kind_is_counted() {
    finds_nothing(|_| ());
    let verdict = judge(&faultless());
    assert_eq!(verdict.violations.len(), Kind::ALL.len());
    let sends = Sends { asked: 8, accepted: 8, rejected: 1, ..Sends::default() };
    assert_eq!(verdict.sends, sends);
}

#[test]
fn what_is_missing_is_lost_wherever_it_is_missing() {
    // One device of two, in the middle and at the end.
    for lost in [1, 7] {
        finds(Kind::Lost, 1, |evidence| {
            let entries = &mut evidence.clients[ANA_TABLET].entries;
            entries.retain(|noted| match &noted.entry {
                Entry::Shown(shown) => !is_message(lost)(&shown.event),
                _ => true,
            });
        });
    }
    // All that a person has: a device, the inbox, the history.
    finds(Kind::Lost, 3, |evidence| forget(evidence, EVA, is_message(4)));
    finds(Kind::Lost, 1, |evidence| {
        evidence.inboxes[1].rows.as_mut().unwrap().remove(3);
    });
    finds(Kind::Lost, 1, |evidence| {
        evidence.histories[2].rows.as_mut().unwrap().remove(1);
    });
    // The event that has no place in a chat.
    finds(Kind::Lost, 1, |evidence| {
        let entries = &mut evidence.clients[ANA_TABLET].entries;
        entries.retain(|noted| match &noted.entry {
            Entry::Shown(shown) => shown.event != edge(false, 2),
            _ => true,
        });
    });
}

#[test]
fn what_was_accepted_and_never_seen_is_lost() {
    // The last of its chat, so that no number is missing.
    finds(Kind::Lost, 1, |evidence| {
        [ANA, BEN, EVA].into_iter().for_each(|user| forget(evidence, user, is_message(7)));
    });
    finds(Kind::Lost, 1, |evidence| forget(evidence, EVA, |event| *event == rejected(6)));
}

#[test]
fn a_rejection_or_a_hiding_without_a_reason_is_a_loss() {
    finds(Kind::Lost, 1, |evidence| {
        // Ben was never out of the group.
        [ANA, BEN, EVA].into_iter().for_each(|user| forget(evidence, user, is_message(7)));
        evidence.messages[7].sender = BEN;
        evidence.messages[7].client = BEN_PHONE as u32;
        let position = 1_000;
        let event = rejected(7);
        let shown = Shown { position, event };
        note(evidence, BEN_PHONE, 900, Entry::Shown(shown.clone()));
        evidence.inboxes[1].rows.as_mut().unwrap().push(shown);
    });
    // From Ana: two devices, the inbox, the history.
    finds(Kind::Lost, 4, |evidence| {
        alter(evidence, ANA, |event| {
            if is_message(5)(event) {
                *event = hidden(PAIR, 3);
            }
        });
    });
}

#[test]
fn what_comes_twice_is_duplicated() {
    let again = |seq| Shown { position: 500, event: message(7, seq) };
    // At another position: the device and the inbox, at the end.
    finds(Kind::Duplicated, 2, |evidence| {
        note(evidence, EVA_PHONE, 900, Entry::Shown(again(7)));
        evidence.inboxes[2].rows.as_mut().unwrap().push(again(7));
    });
    // At another place of the chat, for all: four devices, three inboxes, three histories.
    finds(Kind::Duplicated, 10, |evidence| {
        for client in 0..4 {
            note(evidence, client, 900, Entry::Shown(again(8)));
        }
        for user in 0..3 {
            evidence.inboxes[user].rows.as_mut().unwrap().push(again(8));
            let row = HistoryRow { seq: 8, event: message(7, 8) };
            evidence.histories[user].rows.as_mut().unwrap().push(row);
        }
    });
    finds(Kind::Duplicated, 1, |evidence| {
        let rows = evidence.histories[1].rows.as_mut().unwrap();
        rows.push(rows.last().unwrap().clone());
    });
}

#[test]
fn who_is_shown_something_else_disagrees() {
    // Another message id at a place of the chat.
    finds(Kind::Disagree, 1, |evidence| {
        let Event::Message { id, .. } = &mut shown_to(evidence, EVA_PHONE)[1].event else {
            panic!()
        };
        *id = 9;
    });
    finds(Kind::Disagree, 1, |evidence| {
        let row = &mut evidence.histories[2].rows.as_mut().unwrap()[1];
        let Event::Message { id, .. } = &mut row.event else { panic!() };
        *id = 9;
    });
    // Another event at a position of the person: all is there, but two are exchanged.
    finds(Kind::Disagree, 2, |evidence| {
        let mut shown = shown_to(evidence, EVA_PHONE);
        assert_eq!(shown[5].event, rejected(6));
        shown[5].event = shown[6].event.clone();
        shown[6].event = rejected(6);
        for noted in &mut evidence.clients[EVA_PHONE].entries {
            if (650_000..706_000).contains(&noted.at_us) {
                noted.at_us = 706_000;
            }
        }
    });
    // Answered with an id that it is not shown with, or with two.
    finds(Kind::Disagree, 1, |evidence| {
        for noted in &mut evidence.clients[EVA_PHONE].entries {
            if let Entry::Accepted { ask: Ask::Send { message: 7 }, id } = &mut noted.entry {
                *id = 9;
            }
        }
    });
    finds(Kind::Disagree, 1, |evidence| {
        let entry = Entry::Accepted { ask: Ask::Send { message: 7 }, id: 9 };
        note(evidence, EVA_PHONE, 850, entry);
    });
    // Shown and rejected.
    finds(Kind::Disagree, 1, |evidence| {
        let shown = Shown { position: 500, event: rejected(7) };
        note(evidence, EVA_PHONE, 900, Entry::Shown(shown.clone()));
        evidence.inboxes[2].rows.as_mut().unwrap().push(shown);
    });
}

#[test]
fn a_number_that_nobody_was_shown_is_a_hole() {
    finds(Kind::Holes, 1, |evidence| {
        for user in [ANA, BEN, EVA] {
            alter(evidence, user, |event| {
                if is_message(7)(event) {
                    *event = message(7, 8);
                }
            });
        }
    });
}

#[test]
fn what_goes_back_is_out_of_order() {
    // The numbers of a chat on a person's devices and in the inbox: 4, 3 at growing positions.
    finds(Kind::OutOfOrder, 2, |evidence| {
        let places = [(2, message(4, 4)), (3, message(1, 3))];
        for (n, event) in places {
            shown_to(evidence, EVA_PHONE)[n].event = event.clone();
            evidence.inboxes[2].rows.as_mut().unwrap()[n].event = event;
        }
        // Shown when it has been asked.
        for noted in &mut evidence.clients[EVA_PHONE].entries {
            if (110_000..310_000).contains(&noted.at_us) {
                noted.at_us = 312_000;
            }
        }
    });
    // Against time: what was accepted at 114 ms stands behind what was asked at 310 ms.
    finds(Kind::OutOfOrder, 1, |evidence| {
        for user in [ANA, BEN, EVA] {
            alter(evidence, user, |event| {
                *event = match &*event {
                    Event::Message { message: 1, .. } => message(4, 3),
                    Event::Message { message: 4, .. } | Event::Hidden { seq: 4, .. } => {
                        message(1, 4)
                    }
                    other => other.clone(),
                };
            });
        }
        for client in &mut evidence.clients {
            for noted in &mut client.entries {
                let Entry::Shown(shown) = &noted.entry else { continue };
                if shown.event == message(4, 3) || shown.event == message(1, 4) {
                    noted.at_us = 312_000;
                }
            }
        }
        // Ana sees all of it in the group: she blocks nobody in this tale.
        without_blocks(evidence);
    });
}

#[test]
fn what_nobody_asked_for_is_a_phantom() {
    // Other bytes, for all of them: four devices, three inboxes, three histories.
    finds(Kind::Phantom, 10, |evidence| evidence.messages[7].hash = 1);
    // A key of nobody, at the end of the group.
    finds(Kind::Phantom, 3, |evidence| {
        let chat = IDS[PAIR as usize];
        let event = Event::Message { chat, seq: 4, id: 9, message: UNKNOWN, hash: 1 };
        let shown = Shown { position: 500, event: event.clone() };
        note(evidence, BEN_PHONE, 900, Entry::Shown(shown.clone()));
        evidence.inboxes[1].rows.as_mut().unwrap().push(shown);
        evidence.histories[4].rows.as_mut().unwrap().push(HistoryRow { seq: 4, event });
        // Ana is not the matter here.
        evidence.chats[1].members = vec![BEN];
        forget(evidence, ANA, |event| event.place().is_some_and(|(id, _)| id == chat));
    });
    // What was refused, and never in doubt.
    finds(Kind::Phantom, 10, |evidence| {
        for noted in &mut evidence.clients[EVA_PHONE].entries {
            if let Entry::Accepted { ask: ask @ Ask::Send { message: 7 }, .. } = noted.entry {
                noted.entry = Entry::Refused { ask, status: 400, code: String::new() };
            }
        }
    });
    // A change of members that nobody asked for.
    finds(Kind::Phantom, 1, |evidence| {
        evidence.clients[ANA_PHONE].entries.retain(|noted| match noted.entry {
            Entry::Invoked { ask: Ask::Member { is_in, .. } } => !is_in,
            Entry::Accepted { ask: Ask::Member { is_in, .. }, .. } => !is_in,
            _ => true,
        });
    });
    // A block that nobody asked for.
    finds(Kind::Phantom, 2, |evidence| {
        let event = Event::Connection { peer: ANA, blocked: true, version: 1 };
        let shown = Shown { position: 500, event };
        note(evidence, BEN_PHONE, 900, Entry::Shown(shown.clone()));
        evidence.inboxes[1].rows.as_mut().unwrap().push(shown);
    });
}

#[test]
fn who_is_no_member_must_not_see_it() {
    // Eva is out of the group between its places 5 and 6, and not in the chat of the others.
    finds(Kind::WrongChat, 1, |evidence| {
        let event = message(2, 1);
        note(evidence, EVA_PHONE, 900, Entry::Shown(Shown { position: 500, event }));
        evidence.inboxes.remove(2);
    });
    // A message that stands in the other chat, for all members of that: four devices, three
    // inboxes, three histories.
    finds(Kind::WrongChat, 10, |evidence| evidence.messages[7].chat = PAIR);
    // A chat of nobody.
    finds(Kind::WrongChat, 1, |evidence| {
        let event = Event::Hidden { chat: 77, seq: 1 };
        note(evidence, EVA_PHONE, 900, Entry::Shown(Shown { position: 500, event }));
        evidence.inboxes.remove(2);
    });
    finds(Kind::WrongChat, 1, |evidence| {
        let row = HistoryRow { seq: 1, event: message(2, 1) };
        evidence.histories.push(Read { user: EVA, chat: PAIR, at_us: 1, rows: Some(vec![row]) });
        evidence.histories[5].at_us = 2_000_000;
    });
}

#[test]
fn what_a_block_hides_must_not_be_shown() {
    let show = |event: &mut Event| {
        if *event == hidden(PAIR, 2) {
            *event = message(3, 2);
        }
    };
    // By place: two devices, the inbox, the history.
    finds(Kind::ShownAfterBlock, 4, |evidence| alter(evidence, ANA, show));
    // One device alone.
    finds(Kind::ShownAfterBlock, 1, |evidence| {
        shown_to(evidence, ANA_TABLET).into_iter().for_each(|shown| show(&mut shown.event));
    });
    // In the group.
    finds(Kind::ShownAfterBlock, 1, |evidence| {
        let row = &mut evidence.histories[0].rows.as_mut().unwrap()[3];
        assert_eq!(row.event, hidden(GROUP, 4));
        row.event = message(4, 4);
    });
    // By time alone: the edges stand behind it in Ana's order, but the block was answered before
    // it was asked, and it was shown before the lifting was asked for. The inbox and the history
    // are read when that has been asked for: they say nothing by time.
    finds(Kind::ShownAfterBlock, 2, |evidence| {
        let order = |shown: &Shown| match &shown.event {
            Event::Connection { blocked: true, .. } => 65,
            _ => shown.position,
        };
        for client in [ANA_PHONE, ANA_TABLET] {
            let mut all = shown_to(evidence, client);
            all.iter_mut().for_each(|shown| shown.position = order(shown));
        }
        let rows = evidence.inboxes[0].rows.as_mut().unwrap();
        rows.iter_mut().for_each(|shown| shown.position = order(shown));
        rows.sort_by_key(|shown| shown.position);
        alter(evidence, ANA, show);
        for client in [ANA_PHONE, ANA_TABLET] {
            for noted in &mut evidence.clients[client].entries {
                if let Entry::Shown(Shown {
                    event: Event::Connection { blocked: true, .. }, ..
                }) = noted.entry
                {
                    noted.at_us = 312_000;
                }
            }
            evidence.clients[client].entries.sort_by_key(|noted| noted.at_us);
        }
    });
}

#[test]
fn a_message_that_races_a_lifting_may_be_either() {
    // Asked between the block and the lifting, ordered behind the lifting.
    finds_nothing(|evidence| {
        let order = |shown: &mut Shown| {
            if shown.event == hidden(PAIR, 2) {
                *shown = Shown { position: 85, event: message(3, 2) };
            }
        };
        for client in [ANA_PHONE, ANA_TABLET] {
            for noted in &mut evidence.clients[client].entries {
                if let Entry::Shown(shown) = &mut noted.entry {
                    order(shown);
                    if shown.position == 85 {
                        noted.at_us = 406_000;
                    }
                }
            }
            evidence.clients[client].entries.sort_by_key(|noted| noted.at_us);
        }
        let rows = evidence.inboxes[0].rows.as_mut().unwrap();
        rows.iter_mut().for_each(order);
        rows.sort_by_key(|shown| shown.position);
        let row = &mut evidence.histories[3].rows.as_mut().unwrap()[1];
        assert_eq!(row.event, hidden(PAIR, 2));
        row.event = message(3, 2);
    });
}

#[test]
fn a_position_must_not_go_back() {
    // New, at a position below one that was shown.
    finds(Kind::PositionsBack, 1, |evidence| {
        let entries = &mut evidence.clients[ANA_TABLET].entries;
        let is =
            |noted: &Noted| matches!(&noted.entry, Entry::Shown(s) if s.event == edge(true, 1));
        let at = entries.iter().position(is).unwrap();
        let mut late = entries.remove(at);
        late.at_us = 900_000;
        entries.push(late);
    });
    // What a client ignores, and nobody else was shown.
    finds(Kind::PositionsBack, 1, |evidence| {
        let shown = Shown { position: 15, event: message(7, 7) };
        note(evidence, ANA_PHONE, 900, Entry::Repeated(shown));
    });
    finds(Kind::PositionsBack, 1, |evidence| {
        let event = Event::Resync { from_position: 5 };
        note(evidence, ANA_PHONE, 900, Entry::Shown(Shown { position: 2, event }));
    });
}

#[test]
fn a_repeat_is_none_where_it_is_the_same() {
    finds_nothing(|evidence| {
        let (_, first) = shown(ANA).remove(0);
        note(evidence, ANA_PHONE, 900, Entry::Repeated(first.clone()));
        // As when it comes back without saying where it was.
        note(evidence, ANA_TABLET, 900, Entry::Away { error: None });
        note(evidence, ANA_TABLET, 901, Entry::Back { resume_after: None });
        note(evidence, ANA_TABLET, 902, Entry::Shown(first));
    });
}

#[test]
fn what_is_never_answered_is_unsettled() {
    for (client, ask) in [
        (EVA_PHONE, Ask::Send { message: 7 }),
        (ANA_PHONE, Ask::Block { peer: BEN, on: false }),
        (ANA_PHONE, Ask::Member { chat: GROUP, user: EVA, is_in: true }),
    ] {
        finds(Kind::Unsettled, 1, |evidence| {
            evidence.clients[client].entries.retain(
                |noted| !matches!(&noted.entry, Entry::Accepted { ask: of, .. } if *of == ask),
            );
        });
    }
    // In doubt for a while is no violation, and is counted.
    let mut evidence = faultless();
    let entry = Entry::Disconnected { heard_us: 801_000, cause: "cut".into() };
    note(&mut evidence, EVA_PHONE, 801, entry);
    let verdict = judge(&evidence);
    assert_eq!((verdict.total(), verdict.sends.unknown, verdict.sends.unknown_settled), (0, 1, 1));
}

#[test]
fn a_second_rejection_is_found() {
    finds(Kind::RejectedTwice, 2, |evidence| {
        let shown = Shown { position: 500, event: rejected(6) };
        note(evidence, EVA_PHONE, 900, Entry::Shown(shown.clone()));
        evidence.inboxes[2].rows.as_mut().unwrap().push(shown);
    });
}

#[test]
fn a_read_that_failed_is_no_loss_and_no_pass() {
    let mut evidence = faultless();
    evidence.histories[0].rows = None;
    evidence.inboxes[0].rows = None;
    let verdict = judge(&evidence);
    assert_eq!((verdict.total(), verdict.unread), (0, 2));
}
