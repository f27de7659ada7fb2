//! A faultless run, and each kind of violation planted in it and found: that one, and no other.

use super::*;
use crate::history::{
    Ask, Chat, ClientHistory, Entry, Event, HistoryRow, Message, Noted, Read, Shown, UNKNOWN,
};

/// Ana (two devices), Ben and Eva; a group of all, made by Ana, and a chat of Ana and Ben.
const ANA: u32 = 0;
const BEN: u32 = 1;
const EVA: u32 = 2;
const GROUP: u32 = 0;
const PAIR: u32 = 1;
/// The clients.
const ANA_PHONE: usize = 0;
const ANA_TABLET: usize = 1;
const BEN_PHONE: usize = 2;
const EVA_PHONE: usize = 3;

/// The chats' ids.
const IDS: [u32; 2] = [20, 21];

fn message_id(message: u32) -> u32 {
    100 + message
}

fn hash(message: u32) -> u64 {
    7_000 + u64::from(message)
}

/// Messages, in the order they are sent: 10 ms from one to the next.
const SENT: [(u32, u32, usize); 8] = [
    (GROUP, ANA, ANA_PHONE),
    (GROUP, BEN, BEN_PHONE),
    (PAIR, BEN, BEN_PHONE),  // before the block
    (PAIR, BEN, BEN_PHONE),  // behind it: hidden from Ana
    (GROUP, BEN, BEN_PHONE), // behind it, in the group: hidden from Ana
    (PAIR, BEN, BEN_PHONE),  // behind the lifting
    (GROUP, EVA, EVA_PHONE), // while she is out: rejected
    (GROUP, EVA, EVA_PHONE), // when she is back
];

fn message(message: u32, seq: u64) -> Event {
    let (chat, ..) = SENT[message as usize];
    let chat = IDS[chat as usize];
    Event::Message { chat, seq, id: message_id(message), message, hash: hash(message) }
}

fn hidden(chat: u32, seq: u64) -> Event {
    Event::Hidden { chat: IDS[chat as usize], seq }
}

fn update(seq: u64, members: &[u32]) -> Event {
    Event::Update { chat: IDS[GROUP as usize], seq, members: members.into() }
}

fn rejected(message: u32) -> Event {
    Event::Rejected { id: message_id(message), message, status: 403 }
}

fn edge(blocked: bool, version: u64) -> Event {
    Event::Connection { peer: BEN, blocked, version }
}

/// What each person is shown, at positions 10, 20, 30 …, with the time in ms.
fn events(user: u32) -> Vec<(u64, Event)> {
    match user {
        ANA => vec![
            (5, update(1, &[ANA, BEN, EVA])),
            (105, message(0, 2)),
            (115, message(1, 3)),
            (125, message(2, 1)),
            (205, edge(true, 1)),
            (305, hidden(PAIR, 2)),
            (315, hidden(GROUP, 4)),
            (405, edge(false, 2)),
            (505, message(5, 3)),
            (605, update(5, &[ANA, BEN])),
            (705, update(6, &[ANA, BEN, EVA])),
            (805, message(7, 7)),
        ],
        BEN => vec![
            (5, update(1, &[ANA, BEN, EVA])),
            (105, message(0, 2)),
            (115, message(1, 3)),
            (125, message(2, 1)),
            (305, message(3, 2)),
            (315, message(4, 4)),
            (505, message(5, 3)),
            (605, update(5, &[ANA, BEN])),
            (705, update(6, &[ANA, BEN, EVA])),
            (805, message(7, 7)),
        ],
        _ => vec![
            (5, update(1, &[ANA, BEN, EVA])),
            (105, message(0, 2)),
            (115, message(1, 3)),
            (315, message(4, 4)),
            (605, update(5, &[ANA, BEN])),
            (655, rejected(6)),
            (705, update(6, &[ANA, BEN, EVA])),
            (805, message(7, 7)),
        ],
    }
}

fn shown(user: u32) -> Vec<(u64, Shown)> {
    let places = events(user).into_iter().zip(1..);
    places.map(|((ms, event), n)| (ms * 1000, Shown { position: 10 * n, event })).collect()
}

/// What each client asks: when (ms), what, and when it is answered.
fn asks(client: usize) -> Vec<(u64, Ask, u64)> {
    let send = |message, at| (at, Ask::Send { message }, at + 4);
    let member = |is_in| Ask::Member { chat: GROUP, user: EVA, is_in };
    let block = |on| Ask::Block { peer: BEN, on };
    match client {
        ANA_PHONE => vec![
            (1, Ask::Create { chat: GROUP }, 4),
            send(0, 100),
            (200, block(true), 206),
            (400, block(false), 406),
            (600, member(false), 606),
            (700, member(true), 706),
        ],
        BEN_PHONE => {
            vec![send(1, 110), send(2, 120), send(3, 300), send(4, 310), send(5, 500)]
        }
        EVA_PHONE => vec![send(6, 650), send(7, 800)],
        _ => Vec::new(),
    }
}

fn faultless() -> Evidence {
    let client = |number: usize, user: u32| {
        let mut entries = vec![Noted { at_us: 0, entry: Entry::Connected { position: 0 } }];
        for (ms, ask, answered_ms) in asks(number) {
            entries.push(Noted { at_us: ms * 1000, entry: Entry::Invoked { ask } });
            let id = match ask {
                Ask::Send { message } => message_id(message),
                _ => 0,
            };
            let entry = Entry::Accepted { ask, id };
            entries.push(Noted { at_us: answered_ms * 1000, entry });
        }
        for (at_us, shown) in shown(user) {
            entries.push(Noted { at_us, entry: Entry::Shown(shown) });
        }
        entries.sort_by_key(|noted| noted.at_us);
        ClientHistory { user, entries }
    };
    let chat = |n: u32, is_group, members: &[u32]| Chat {
        id: Some(IDS[n as usize]),
        is_group,
        members: members.into(),
    };
    let sent = (0..).zip(SENT).map(|(n, (chat, sender, client))| Message {
        chat,
        sender,
        client: client as u32,
        hash: hash(n),
    });
    let history = |user: u32, chat: u32| {
        let mut rows: Vec<HistoryRow> = shown(user)
            .into_iter()
            .filter_map(|(_, shown)| {
                let (id, seq) = shown.event.place()?;
                (id == IDS[chat as usize]).then_some(HistoryRow { seq, event: shown.event })
            })
            .collect();
        rows.sort_by_key(|row| row.seq);
        Read { user, chat, at_us: 2_000_000, rows: Some(rows) }
    };
    let inbox = |user| Read {
        user,
        chat: UNKNOWN,
        at_us: 2_000_000,
        rows: Some(shown(user).into_iter().map(|(_, shown)| shown).collect()),
    };
    Evidence {
        users: 3,
        chats: vec![chat(GROUP, true, &[ANA, BEN, EVA]), chat(PAIR, false, &[ANA, BEN])],
        messages: sent.collect(),
        clients: vec![
            client(ANA_PHONE, ANA),
            client(ANA_TABLET, ANA),
            client(BEN_PHONE, BEN),
            client(EVA_PHONE, EVA),
        ],
        histories: vec![
            history(ANA, GROUP),
            history(BEN, GROUP),
            history(EVA, GROUP),
            history(ANA, PAIR),
            history(BEN, PAIR),
        ],
        inboxes: vec![inbox(ANA), inbox(BEN), inbox(EVA)],
    }
}

/// Everything that a client was shown, to be changed.
fn shown_to(evidence: &mut Evidence, client: usize) -> Vec<&mut Shown> {
    let entries = evidence.clients[client].entries.iter_mut();
    entries
        .filter_map(|noted| match &mut noted.entry {
            Entry::Shown(shown) => Some(shown),
            _ => None,
        })
        .collect()
}

/// Takes what is so from all that was shown and read to a person, whatever the device.
fn forget(evidence: &mut Evidence, user: u32, is: impl Fn(&Event) -> bool) {
    for client in evidence.clients.iter_mut().filter(|client| client.user == user) {
        client.entries.retain(|noted| match &noted.entry {
            Entry::Shown(shown) => !is(&shown.event),
            _ => true,
        });
    }
    for inbox in evidence.inboxes.iter_mut().filter(|inbox| inbox.user == user) {
        inbox.rows.as_mut().unwrap().retain(|shown| !is(&shown.event));
    }
    for history in evidence.histories.iter_mut().filter(|history| history.user == user) {
        history.rows.as_mut().unwrap().retain(|row| !is(&row.event));
    }
}

/// Changes what is so in all that was shown and read to a person.
fn alter(evidence: &mut Evidence, user: u32, change: impl Fn(&mut Event)) {
    for client in 0..evidence.clients.len() {
        if evidence.clients[client].user == user {
            shown_to(evidence, client).into_iter().for_each(|shown| change(&mut shown.event));
        }
    }
    for inbox in evidence.inboxes.iter_mut().filter(|inbox| inbox.user == user) {
        inbox.rows.as_mut().unwrap().iter_mut().for_each(|shown| change(&mut shown.event));
    }
    for history in evidence.histories.iter_mut().filter(|history| history.user == user) {
        for row in history.rows.as_mut().unwrap() {
            change(&mut row.event);
            if let Some((_, seq)) = row.event.place() {
                row.seq = seq;
            }
        }
    }
}

fn note(evidence: &mut Evidence, client: usize, at_ms: u64, entry: Entry) {
    let entries = &mut evidence.clients[client].entries;
    let at = entries.partition_point(|noted| noted.at_us <= at_ms * 1000);
    entries.insert(at, Noted { at_us: at_ms * 1000, entry });
}

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

/// Nobody blocks anybody, and nothing is hidden.
fn without_blocks(evidence: &mut Evidence) {
    forget(evidence, ANA, |event| matches!(event, Event::Connection { .. }));
    alter(evidence, ANA, |event| match event {
        Event::Hidden { chat, seq: 2 } if *chat == IDS[PAIR as usize] => *event = message(3, 2),
        Event::Hidden { seq: 4, .. } => *event = message(4, 4),
        _ => {}
    });
    evidence.clients[ANA_PHONE].entries.retain(|noted| {
        !matches!(
            noted.entry,
            Entry::Invoked { ask: Ask::Block { .. } }
                | Entry::Accepted { ask: Ask::Block { .. }, .. }
        )
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
    // it was asked, and it was shown before the lifting was asked for.
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
        // The inbox and the history are read when the lifting has been asked for: that says
        // nothing by time.
        alter(evidence, ANA, |event| {
            if *event == hidden(GROUP, 4) {
                *event = hidden(GROUP, 4);
            }
        });
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
