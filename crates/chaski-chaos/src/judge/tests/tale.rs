//! The tale that the judge's tests tell: a faultless run of three people, and ways to change it.
//! Knows no rule.

use crate::history::{
    Ask, Chat, ClientHistory, Entry, Event, Evidence, HistoryRow, Message, Noted, Read, Shown,
    UNKNOWN,
};

/// Ana (two devices), Ben and Eva; a group of all, made by Ana, and a chat of Ana and Ben.
pub(super) const ANA: u32 = 0;
pub(super) const BEN: u32 = 1;
pub(super) const EVA: u32 = 2;
pub(super) const GROUP: u32 = 0;
pub(super) const PAIR: u32 = 1;
/// The clients.
pub(super) const ANA_PHONE: usize = 0;
pub(super) const ANA_TABLET: usize = 1;
pub(super) const BEN_PHONE: usize = 2;
pub(super) const EVA_PHONE: usize = 3;

/// The chats' ids.
pub(super) const IDS: [u32; 2] = [20, 21];

pub(super) fn message_id(message: u32) -> u32 {
    100 + message
}

pub(super) fn hash(message: u32) -> u64 {
    7_000 + u64::from(message)
}

/// Messages, in the order they are sent: 10 ms from one to the next.
pub(super) const SENT: [(u32, u32, usize); 8] = [
    (GROUP, ANA, ANA_PHONE),
    (GROUP, BEN, BEN_PHONE),
    (PAIR, BEN, BEN_PHONE),  // before the block
    (PAIR, BEN, BEN_PHONE),  // behind it: hidden from Ana
    (GROUP, BEN, BEN_PHONE), // behind it, in the group: hidden from Ana
    (PAIR, BEN, BEN_PHONE),  // behind the lifting
    (GROUP, EVA, EVA_PHONE), // while she is out: rejected
    (GROUP, EVA, EVA_PHONE), // when she is back
];

pub(super) fn message(message: u32, seq: u64) -> Event {
    let (chat, ..) = SENT[message as usize];
    let chat = IDS[chat as usize];
    Event::Message { chat, seq, id: message_id(message), message, hash: hash(message) }
}

pub(super) fn hidden(chat: u32, seq: u64) -> Event {
    Event::Hidden { chat: IDS[chat as usize], seq }
}

pub(super) fn update(seq: u64, members: &[u32]) -> Event {
    Event::Update { chat: IDS[GROUP as usize], seq, members: members.into() }
}

pub(super) fn rejected(message: u32) -> Event {
    Event::Rejected { id: message_id(message), message, status: 403 }
}

pub(super) fn edge(blocked: bool, version: u64) -> Event {
    Event::Connection { peer: BEN, blocked, version }
}

/// What each person is shown, at positions 10, 20, 30 …, with the time in ms.
pub(super) fn events(user: u32) -> Vec<(u64, Event)> {
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

pub(super) fn shown(user: u32) -> Vec<(u64, Shown)> {
    let places = events(user).into_iter().zip(1..);
    places.map(|((ms, event), n)| (ms * 1000, Shown { position: 10 * n, event })).collect()
}

/// What each client asks: when (ms), what, and when it is answered.
pub(super) fn asks(client: usize) -> Vec<(u64, Ask, u64)> {
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

pub(super) fn faultless() -> Evidence {
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
pub(super) fn shown_to(evidence: &mut Evidence, client: usize) -> Vec<&mut Shown> {
    let entries = evidence.clients[client].entries.iter_mut();
    entries
        .filter_map(|noted| match &mut noted.entry {
            Entry::Shown(shown) => Some(shown),
            _ => None,
        })
        .collect()
}

/// Takes what is so from all that was shown and read to a person, whatever the device.
pub(super) fn forget(evidence: &mut Evidence, user: u32, is: impl Fn(&Event) -> bool) {
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
pub(super) fn alter(evidence: &mut Evidence, user: u32, change: impl Fn(&mut Event)) {
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

pub(super) fn note(evidence: &mut Evidence, client: usize, at_ms: u64, entry: Entry) {
    let entries = &mut evidence.clients[client].entries;
    let at = entries.partition_point(|noted| noted.at_us <= at_ms * 1000);
    entries.insert(at, Noted { at_us: at_ms * 1000, entry });
}

/// Nobody blocks anybody, and nothing is hidden.
pub(super) fn without_blocks(evidence: &mut Evidence) {
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
