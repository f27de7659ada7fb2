//! What follows from the evidence before anything is judged: the fate of each send, what stands
//! where, who may see a place, and what a block hides.

use super::{Kind, Sends, Verdict};
use crate::history::{Ask, Entry, Event, Evidence, Shown, UNKNOWN};
use chaski::replay::Name;
use std::collections::{BTreeMap, HashMap, HashSet};

/// A place of a chat.
pub(super) type Place = (u32, u64);

/// What became of a send.
#[derive(Clone, Debug, Default)]
pub(super) struct Fate {
    /// The first try.
    pub(super) invoked_us: Option<u64>,
    /// The first acceptance, and the message's id.
    pub(super) accepted: Option<(u64, Name)>,
    pub(super) refused: bool,
    /// Not settled to the end.
    pub(super) is_open: bool,
    /// Not answered for a while.
    pub(super) was_unknown: bool,
    /// The first place that it was shown at, and when.
    pub(super) placed: Option<(Place, u64)>,
    /// The first rejection: when, and its status.
    pub(super) rejected: Option<(u64, u32)>,
}

/// What stands at a place, as it was shown first.
#[derive(Clone, Debug)]
pub(super) struct Standing<'a> {
    pub(super) event: &'a Event,
    pub(super) at_us: u64,
}

/// A block or a lifting that was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlockAsk {
    pub(super) on: bool,
    pub(super) invoked_us: u64,
    pub(super) answered_us: Option<u64>,
}

/// What is known of a user.
#[derive(Debug, Default)]
pub(super) struct UserFacts<'a> {
    /// What any device, or the inbox, was shown at each position, and when.
    pub(super) positions: BTreeMap<u64, Standing<'a>>,
    /// Where each place of a chat stands in the user's order; the first one.
    pub(super) position_of: HashMap<Place, u64>,
    /// Of each peer: from where on they are blocked or not.
    edges: HashMap<u32, BTreeMap<u64, bool>>,
}

pub(super) struct Facts<'a> {
    pub(super) evidence: &'a Evidence,
    chat_of: HashMap<Name, u32>,
    pub(super) sends: Vec<Fate>,
    pub(super) users: Vec<UserFacts<'a>>,
    /// What stands where, in each chat.
    pub(super) places: Vec<BTreeMap<u64, Standing<'a>>>,
    /// Places that somebody was told of without being shown what stands there.
    pub(super) hidden: HashSet<Place>,
    /// Who was asked to be in or out of a chat, and when first.
    pub(super) changes: HashMap<(u32, u32, bool), u64>,
    /// What was asked of each (user, peer), in order.
    pub(super) blocks: HashMap<(u32, u32), Vec<BlockAsk>>,
    /// Members from each update on.
    members: Vec<BTreeMap<u64, &'a [u32]>>,
}

impl<'a> Facts<'a> {
    pub(super) fn new(evidence: &'a Evidence, verdict: &mut Verdict) -> Self {
        let ids = evidence.chats.iter().zip(0..);
        let mut facts = Self {
            evidence,
            chat_of: ids.filter_map(|(chat, number)| Some((chat.id?, number))).collect(),
            sends: vec![Fate::default(); evidence.messages.len()],
            users: (0..evidence.users).map(|_| UserFacts::default()).collect(),
            places: vec![BTreeMap::new(); evidence.chats.len()],
            hidden: HashSet::new(),
            changes: HashMap::new(),
            blocks: HashMap::new(),
            members: vec![BTreeMap::new(); evidence.chats.len()],
        };
        for client in 0..evidence.clients.len() {
            facts.client(client, verdict);
        }
        for inbox in &evidence.inboxes {
            for shown in inbox.rows.iter().flatten() {
                facts.shown(inbox.user, shown, inbox.at_us);
            }
        }
        for read in &evidence.histories {
            for row in read.rows.iter().flatten() {
                facts.stands(&row.event, read.at_us);
            }
        }
        for (places, members) in facts.places.iter().zip(&mut facts.members) {
            for (seq, standing) in places {
                if let Event::Update { members: present, .. } = standing.event {
                    members.insert(*seq, present);
                }
            }
        }
        verdict.sends = facts.count();
        facts
    }

    fn client(&mut self, number: usize, verdict: &mut Verdict) {
        let client = &self.evidence.clients[number];
        let mut open: BTreeMap<Ask, u64> = BTreeMap::new();
        for noted in &client.entries {
            let at_us = noted.at_us;
            match &noted.entry {
                Entry::Invoked { ask } => {
                    open.entry(*ask).or_insert(at_us);
                    self.invoked(client.user, *ask, at_us);
                }
                Entry::Accepted { ask, id } => {
                    open.remove(ask);
                    self.accepted(client.user, *ask, *id, at_us, verdict);
                }
                Entry::Refused { ask, .. } => {
                    open.remove(ask);
                    if let Some(fate) = self.fate(*ask) {
                        fate.refused = true;
                    }
                }
                Entry::Unknown { ask } => self.in_doubt([*ask]),
                Entry::Disconnected { .. } | Entry::Away { .. } => {
                    self.in_doubt(open.keys().copied());
                }
                Entry::Shown(shown) => self.shown(client.user, shown, at_us),
                _ => {}
            }
        }
        for (ask, at_us) in open {
            if let Some(fate) = self.fate(ask) {
                fate.is_open = true;
            }
            let text = format!("{}: {ask:?} was never answered", self.client_name(number));
            verdict.add(Kind::Unsettled, at_us, text);
        }
    }

    fn fate(&mut self, ask: Ask) -> Option<&mut Fate> {
        let Ask::Send { message } = ask else { return None };
        self.sends.get_mut(message as usize)
    }

    fn in_doubt(&mut self, asks: impl IntoIterator<Item = Ask>) {
        for ask in asks {
            if let Some(fate) = self.fate(ask) {
                fate.was_unknown = true;
            }
        }
    }

    fn invoked(&mut self, user: u32, ask: Ask, at_us: u64) {
        match ask {
            Ask::Create { .. } => {}
            Ask::Send { .. } => {
                if let Some(fate) = self.fate(ask) {
                    fate.invoked_us.get_or_insert(at_us);
                }
            }
            Ask::Member { chat, user, is_in } => {
                self.changes.entry((chat, user, is_in)).or_insert(at_us);
            }
            Ask::Block { peer, on } => {
                let asks = self.blocks.entry((user, peer)).or_default();
                // Asked again after an unknown outcome, it is one ask that began earlier.
                if asks.last().is_none_or(|last| last.on != on || last.answered_us.is_some()) {
                    asks.push(BlockAsk { on, invoked_us: at_us, answered_us: None });
                }
            }
        }
    }

    fn accepted(&mut self, user: u32, ask: Ask, id: Name, at_us: u64, verdict: &mut Verdict) {
        match ask {
            Ask::Create { .. } | Ask::Member { .. } => {}
            Ask::Block { peer, .. } => {
                if let Some(last) = self.blocks.entry((user, peer)).or_default().last_mut() {
                    last.answered_us = Some(at_us);
                }
            }
            Ask::Send { message } => {
                let Some(fate) = self.fate(ask) else { return };
                if fate.accepted.get_or_insert((at_us, id)).1 != id {
                    let text = format!("{}: accepted with two ids", self.tell(message));
                    verdict.add(Kind::Disagree, at_us, text);
                }
            }
        }
    }

    fn shown(&mut self, user: u32, shown: &'a Shown, at_us: u64) {
        let place = self.stands(&shown.event, at_us);
        let Some(facts) = self.users.get_mut(user as usize) else { return };
        let standing = Standing { event: &shown.event, at_us };
        let first = facts.positions.entry(shown.position).or_insert(standing);
        first.at_us = first.at_us.min(at_us);
        if let Some(place) = place {
            facts.position_of.entry(place).or_insert(shown.position);
        }
        match shown.event {
            Event::Connection { peer, blocked, .. } => {
                facts.edges.entry(peer).or_default().entry(shown.position).or_insert(blocked);
            }
            Event::Rejected { message, status, .. } => {
                if let Some(fate) = self.fate(Ask::Send { message }) {
                    fate.rejected.get_or_insert((at_us, status));
                }
            }
            _ => {}
        }
    }

    /// Notes what stands at the event's place.
    fn stands(&mut self, event: &'a Event, at_us: u64) -> Option<Place> {
        let (chat, seq) = event.place()?;
        let place = (self.chat(chat)?, seq);
        if let Event::Hidden { .. } = event {
            self.hidden.insert(place);
            return Some(place);
        }
        if let Event::Message { message, .. } = *event
            && let Some(fate) = self.fate(Ask::Send { message })
        {
            let placed = fate.placed.get_or_insert((place, at_us));
            if placed.0 == place {
                placed.1 = placed.1.min(at_us);
            }
        }
        let standing = Standing { event, at_us };
        let first = self.places[place.0 as usize].entry(seq).or_insert(standing);
        first.at_us = first.at_us.min(at_us);
        Some(place)
    }

    fn count(&self) -> Sends {
        let count =
            |is: &dyn Fn(&Fate) -> bool| self.sends.iter().filter(|fate| is(fate)).count() as u64;
        Sends {
            asked: count(&|fate| fate.invoked_us.is_some()),
            accepted: count(&|fate| fate.accepted.is_some()),
            refused: count(&|fate| fate.refused && fate.accepted.is_none()),
            rejected: count(&|fate| fate.rejected.is_some()),
            unknown: count(&|fate| fate.was_unknown),
            unknown_settled: count(&|fate| fate.was_unknown && !fate.is_open),
        }
    }

    // What the other parts ask.

    /// The chat of an id.
    pub(super) fn chat(&self, id: Name) -> Option<u32> {
        self.chat_of.get(&id).copied()
    }

    /// What stands at a place, if anybody was shown it.
    pub(super) fn standing(&self, (chat, seq): Place) -> Option<&Standing<'a>> {
        self.places[chat as usize].get(&seq)
    }

    /// When a place was first heard of, or else this.
    pub(super) fn heard_us(&self, place: Place, otherwise: u64) -> u64 {
        self.standing(place).map_or(otherwise, |standing| standing.at_us)
    }

    /// Who said what stands at a place.
    pub(super) fn sender(&self, place: Place) -> Option<u32> {
        match self.standing(place)?.event {
            Event::Message { message, .. } => {
                Some(self.evidence.messages.get(*message as usize)?.sender)
            }
            _ => None,
        }
    }

    /// Whether a user was a member at a place. A change is seen by those who are in the chat before
    /// it or after it.
    pub(super) fn may_see(&self, user: u32, (chat, seq): Place) -> bool {
        let planned = &self.evidence.chats[chat as usize];
        if !planned.is_group {
            return planned.members.contains(&user);
        }
        let updates = &self.members[chat as usize];
        let before = updates.range(..seq).next_back().map(|(_, members)| *members);
        [before, updates.get(&seq).copied()].into_iter().flatten().any(|m| m.contains(&user))
    }

    /// Whether a user was out of a chat at any time.
    pub(super) fn was_out(&self, user: u32, chat: u32) -> bool {
        self.members[chat as usize].values().any(|members| !members.contains(&user))
    }

    /// Whether what a peer says is hidden at a position of a user.
    pub(super) fn is_blocked(&self, user: u32, peer: u32, position: u64) -> bool {
        let edges = self.users.get(user as usize).and_then(|facts| facts.edges.get(&peer));
        edges.and_then(|edges| edges.range(..position).next_back()).is_some_and(|(_, on)| *on)
    }

    /// Whether a message asked at `invoked_us` and shown at `shown_us` must have been hidden, by
    /// time alone: the block was answered before it was asked, and no lifting was asked for before
    /// it was shown.
    pub(super) fn is_after_block(
        &self,
        user: u32,
        peer: u32,
        invoked_us: u64,
        shown_us: u64,
    ) -> bool {
        let Some(asks) = self.blocks.get(&(user, peer)) else { return false };
        let answered = |ask: &&BlockAsk| ask.answered_us.is_some_and(|at| at <= invoked_us);
        let Some(block) = asks.iter().rposition(|ask| ask.on && answered(&ask)) else {
            return false;
        };
        !asks[block + 1..].iter().any(|ask| !ask.on && ask.invoked_us <= shown_us)
    }

    /// A message and its fate, for people.
    pub(super) fn tell(&self, message: u32) -> String {
        let (Some(fate), Some(sent)) = (
            self.sends.get(message as usize),
            self.evidence.messages.get(message as usize).filter(|_| message != UNKNOWN),
        ) else {
            return "a message of nobody".into();
        };
        let mut text = format!("message {message} of user {} in chat {}", sent.sender, sent.chat);
        let mut say = |what: &str, at_us: Option<u64>| {
            if let Some(at) = at_us {
                text.push_str(&format!(", {what} {}", seconds(at)));
            }
        };
        say("invoked", fate.invoked_us);
        say("accepted", fate.accepted.map(|(at, _)| at));
        say("rejected", fate.rejected.map(|(at, _)| at));
        say("first shown", fate.placed.map(|(_, at)| at));
        if let Some(((chat, seq), _)) = fate.placed {
            text.push_str(&format!(" at chat {chat} seq {seq}"));
        }
        text
    }

    /// What stands at a place, for people.
    pub(super) fn tell_place(&self, place: Place) -> String {
        let (chat, seq) = place;
        match self.standing(place).map(|standing| standing.event) {
            Some(Event::Message { message, .. }) => {
                format!("chat {chat} seq {seq}, {}", self.tell(*message))
            }
            Some(Event::Update { members, .. }) => {
                format!("chat {chat} seq {seq}, a change to members {members:?}")
            }
            _ => format!("chat {chat} seq {seq}"),
        }
    }

    /// A client, for people.
    pub(super) fn client_name(&self, client: usize) -> String {
        format!("client {client} of user {}", self.evidence.clients[client].user)
    }
}

/// A time on the timeline, for people.
pub(super) fn seconds(at_us: u64) -> String {
    format!("{:.3} s", at_us as f64 / 1e6)
}
