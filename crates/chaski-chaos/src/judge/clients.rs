//! What each device and each inbox was shown: its order, that it is what was asked, that the
//! person may see it, and that nothing is missing.

use super::{
    Kind, Verdict,
    facts::{Facts, Place, seconds},
};
use crate::history::{ClientHistory, Entry, Event, Noted, Shown};
use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
};

pub(super) fn judge(facts: &Facts<'_>, verdict: &mut Verdict) {
    let mut sources: HashMap<u32, Vec<Seen>> = HashMap::new();
    for (number, client) in facts.evidence.clients.iter().enumerate() {
        if client.entries.is_empty() {
            continue;
        }
        let seen = source(facts, facts.client_name(number), client, verdict);
        sources.entry(client.user).or_default().push(seen);
    }
    for inbox in &facts.evidence.inboxes {
        let Some(rows) = &inbox.rows else {
            verdict.unread += 1;
            continue;
        };
        let shown = |row: &Shown| Noted { at_us: inbox.at_us, entry: Entry::Shown(row.clone()) };
        // An inbox is as a device that is shown all of it at once.
        let as_client =
            ClientHistory { user: inbox.user, entries: rows.iter().map(shown).collect() };
        let name = format!("the inbox of user {}", inbox.user);
        let seen = source(facts, name, &as_client, verdict);
        sources.entry(inbox.user).or_default().push(seen);
    }
    for (user, sources) in sources {
        whole(facts, user, &sources, verdict);
    }
}

/// What a device or an inbox was shown.
struct Seen {
    name: String,
    positions: HashSet<u64>,
}

fn source(facts: &Facts<'_>, name: String, client: &ClientHistory, verdict: &mut Verdict) -> Seen {
    let mut source = Source {
        facts,
        verdict,
        seen: Seen { name, positions: HashSet::new() },
        user: client.user,
        highest: None,
        last_seq: HashMap::new(),
        places: HashSet::new(),
        rejected: HashSet::new(),
    };
    for noted in &client.entries {
        match &noted.entry {
            Entry::Shown(shown) => source.shown(shown, noted.at_us),
            Entry::Repeated(shown) => source.repeated(shown, noted.at_us),
            _ => {}
        }
    }
    source.seen
}

struct Source<'a> {
    facts: &'a Facts<'a>,
    verdict: &'a mut Verdict,
    seen: Seen,
    user: u32,
    highest: Option<u64>,
    /// Of each chat.
    last_seq: HashMap<u32, u64>,
    places: HashSet<Place>,
    rejected: HashSet<u32>,
}

impl Source<'_> {
    fn add(&mut self, kind: Kind, at_us: u64, text: impl Into<Cow<'static, str>>) {
        let text = format!("{} at {}: {}", self.seen.name, seconds(at_us), text.into());
        self.verdict.add(kind, at_us, text);
    }

    fn shown(&mut self, shown: &Shown, at_us: u64) {
        let (position, event) = (shown.position, &shown.event);
        if let Event::Resync { from_position } = event {
            let text = format!("told to resync behind {from_position}");
            return self.add(Kind::PositionsBack, at_us, text);
        }
        self.agrees(shown, at_us);
        if !self.seen.positions.insert(position) {
            // Again, after it came back without saying where it was.
            return;
        }
        if let Some(highest) = self.highest.filter(|highest| position < *highest) {
            let text = format!("position {position} is new behind {highest}: {event:?}");
            self.add(Kind::PositionsBack, at_us, text);
        }
        self.highest = self.highest.max(Some(position));
        match event {
            Event::Rejected { message, .. } => self.rejected(*message, position, at_us),
            Event::Connection { peer, blocked, .. } => self.edge(*peer, *blocked, at_us),
            event => {
                if let Some((name, seq)) = event.place() {
                    match self.facts.chat(name) {
                        Some(chat) => self.placed((chat, seq), position, event, at_us),
                        None => {
                            let text = format!("a chat of nobody here: {event:?}");
                            self.add(Kind::WrongChat, at_us, text);
                        }
                    }
                }
            }
        }
    }

    /// What a client takes for a repeat must be one.
    fn repeated(&mut self, shown: &Shown, at_us: u64) {
        let known = self.facts.users[self.user as usize].positions.get(&shown.position);
        if known.is_none_or(|known| !is_same(known.event, &shown.event)) {
            let text = format!(
                "position {} came below the highest, and is no repeat: {:?}",
                shown.position, shown.event
            );
            self.add(Kind::PositionsBack, at_us, text);
        }
    }

    /// The same at the same position, on all devices.
    fn agrees(&mut self, shown: &Shown, at_us: u64) {
        let known = self.facts.users[self.user as usize].positions.get(&shown.position);
        if let Some(known) = known.filter(|known| !is_same(known.event, &shown.event)) {
            let text = format!(
                "position {} is {:?}, elsewhere {:?}",
                shown.position, shown.event, known.event
            );
            self.add(Kind::Disagree, at_us, text);
        }
    }

    fn placed(&mut self, place: Place, position: u64, event: &Event, at_us: u64) {
        let (facts, user) = (self.facts, self.user);
        let (chat, seq) = place;
        if !facts.may_see(user, place) {
            let text = format!("no member at {}", facts.tell_place(place));
            self.add(Kind::WrongChat, at_us, text);
        }
        if !self.places.insert(place) {
            let text = format!("once more, at position {position}: {}", facts.tell_place(place));
            return self.add(Kind::Duplicated, at_us, text);
        }
        if let Some(last) = self.last_seq.insert(chat, seq).filter(|last| *last > seq) {
            let text = format!("behind seq {last}: {}", facts.tell_place(place));
            self.add(Kind::OutOfOrder, at_us, text);
            self.last_seq.insert(chat, last);
        }
        if let Some((kind, text)) = facts.event(user, place, Some(position), event, at_us) {
            self.add(kind, at_us, text);
        }
    }

    fn rejected(&mut self, message: u32, position: u64, at_us: u64) {
        let facts = self.facts;
        let sent = facts.evidence.messages.get(message as usize);
        let asked = facts.sends.get(message as usize).and_then(|fate| fate.invoked_us);
        if sent.is_none_or(|sent| sent.sender != self.user) || asked.is_none() {
            let text = format!("a rejection of {}", facts.tell(message));
            self.add(Kind::Phantom, at_us, text);
        } else if !self.rejected.insert(message) {
            let text = format!("position {position} rejects once more {}", facts.tell(message));
            self.add(Kind::RejectedTwice, at_us, text);
        }
    }

    fn edge(&mut self, peer: u32, blocked: bool, at_us: u64) {
        let asks = self.facts.blocks.get(&(self.user, peer));
        let asked = |ask: &super::facts::BlockAsk| ask.on == blocked && ask.invoked_us <= at_us;
        if !asks.is_some_and(|asks| asks.iter().any(asked)) {
            let text = format!("user {peer} blocked: {blocked}, which nobody asked for");
            self.add(Kind::Phantom, at_us, text);
        }
    }
}

impl Facts<'_> {
    /// What is wrong with something shown at a place, to a user, at a position of theirs where it
    /// is known.
    pub(super) fn event(
        &self,
        user: u32,
        place: Place,
        position: Option<u64>,
        event: &Event,
        at_us: u64,
    ) -> Option<(Kind, String)> {
        let told = || self.tell_place(place);
        if let Event::Hidden { .. } = event {
            let sender = self.sender(place);
            // Who said it, and where it is in the user's order, may be known to nobody.
            if self.standing(place).is_none() || (sender.is_some() && position.is_none()) {
                return None;
            }
            let blocked = sender.is_some_and(|s| self.is_blocked(user, s, position.unwrap_or(0)));
            return (!blocked).then(|| (Kind::Lost, format!("hidden without a block: {}", told())));
        }
        let standing = self.standing(place)?;
        if standing.event != event {
            return Some((Kind::Disagree, format!("{event:?}, elsewhere {}", told())));
        }
        let Event::Message { message, hash, .. } = event else { return None };
        let (Some(sent), Some(fate)) =
            (self.evidence.messages.get(*message as usize), self.sends.get(*message as usize))
        else {
            return Some((Kind::Phantom, format!("a message of nobody: {event:?}")));
        };
        let Some(invoked_us) = fate.invoked_us.filter(|asked| *asked <= at_us) else {
            return Some((Kind::Phantom, format!("it was not asked yet: {}", told())));
        };
        if sent.chat != place.0 {
            return Some((Kind::WrongChat, format!("sent to another chat: {}", told())));
        }
        if sent.hash != *hash {
            return Some((Kind::Phantom, format!("other bytes than were sent: {}", told())));
        }
        if fate.refused && !fate.was_unknown && fate.accepted.is_none() {
            return Some((Kind::Phantom, format!("it was refused: {}", told())));
        }
        if fate.placed.is_some_and(|(first, _)| first != place) {
            return Some((
                Kind::Duplicated,
                format!("seq {} is another place of {}", place.1, told()),
            ));
        }
        let by_place = position.is_some_and(|at| self.is_blocked(user, sent.sender, at));
        let by_time = self.is_after_block(user, sent.sender, invoked_us, at_us);
        if by_place || by_time {
            let why = match position.filter(|_| by_place) {
                Some(at) => format!("position {at} lies between a block and its lifting"),
                None => "asked after the block was answered, shown before a lifting".into(),
            };
            return Some((Kind::ShownAfterBlock, format!("{why}: {}", told())));
        }
        None
    }
}

/// Whether two events at one position are one. What stands at a place of a chat is compared there,
/// and whether it is hidden is for the blocks to say.
fn is_same(a: &Event, b: &Event) -> bool {
    a == b || (a.place().is_some() && a.place() == b.place())
}

/// Every device, and the inbox, has all that the person must be shown.
fn whole(facts: &Facts<'_>, user: u32, sources: &[Seen], verdict: &mut Verdict) {
    let Some(known) = facts.users.get(user as usize) else { return };
    for (position, standing) in &known.positions {
        if matches!(standing.event, Event::Resync { .. }) {
            continue;
        }
        for source in sources.iter().filter(|source| !source.positions.contains(position)) {
            let what = match standing.event.place() {
                Some((name, seq)) => {
                    let chat = facts.chat(name);
                    chat.map_or_else(|| "?".into(), |chat| facts.tell_place((chat, seq)))
                }
                None => format!("{:?}", standing.event),
            };
            let text = format!("{} lacks position {position}: {what}", source.name);
            verdict.add(Kind::Lost, standing.at_us, text);
        }
    }
    for (chat, places) in facts.places.iter().enumerate() {
        for (seq, standing) in places {
            let place = (chat as u32, *seq);
            if known.position_of.contains_key(&place) || !facts.may_see(user, place) {
                continue;
            }
            for source in sources {
                let text = format!("{} lacks {}", source.name, facts.tell_place(place));
                verdict.add(Kind::Lost, standing.at_us, text);
            }
        }
    }
}
