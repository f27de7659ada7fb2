//! The judge: a pure function over what was sent, what each device was shown, and what the reads
//! say. No I/O, no clock; each kind of violation is planted in a test and found.

use super::{input::Log, names::Name};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt::Display,
};

/// What a device was shown, or a read returned, at one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    /// In the user's order; 0 in a history.
    pub(super) position: u64,
    pub(super) chat: Name,
    /// In the chat's order.
    pub(super) seq: u64,
    pub(super) what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Message { id: Name, sender: Name, sha256: [u8; 32] },
    Update,
    Hidden,
}

/// All that is judged.
pub(super) struct Evidence<'a> {
    pub(super) log: &'a Log,
    /// The name of each user.
    pub(super) users: &'a [Name],
    /// The id of each chat, where one was made.
    pub(super) chats: &'a [Option<Name>],
    /// The id of each message, where it was accepted.
    pub(super) accepted: &'a [Option<Name>],
    /// The user of each device, and what it was shown, in the order it was shown.
    pub(super) devices: &'a [(u32, Vec<Shown>)],
    /// Of each chat; `None`: could not be read.
    pub(super) histories: &'a [Option<Vec<Shown>>],
    /// Of each user; `None`: could not be read.
    pub(super) inboxes: &'a [Option<Vec<Shown>>],
}

/// How often each law was broken, and what else was counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Accepted messages not shown on a device of a participant, each device counted.
    pub lost: u64,
    /// Messages shown twice on a device, or standing at two places of a chat.
    pub duplicated: u64,
    /// Positions or seqs that do not grow on a device, places where two devices disagree, and
    /// messages that stand in another order than they were sent in.
    pub out_of_order: u64,
    /// Seqs missing between 1 and the last, each device counted.
    pub holes: u64,
    /// Places of a history or an inbox that are not what was sent and shown.
    pub history_differs: u64,
    /// Messages that the server never accepted.
    pub not_accepted: u64,
    /// Shown messages whose text, sender or chat is not what was sent, or that nobody sent.
    pub altered: u64,
    /// Places where two devices of one user were shown different things.
    pub devices_differ: u64,
    /// Copies shown to somebody else than the sender, each person counted once.
    pub deliveries: u64,
    /// Events of chats that are not of this run.
    pub foreign: u64,
    /// The first few violations, for people.
    pub examples: Vec<String>,
}

impl Verdict {
    /// All violations.
    #[must_use]
    pub fn violations(&self) -> u64 {
        self.lost
            + self.duplicated
            + self.out_of_order
            + self.holes
            + self.history_differs
            + self.not_accepted
            + self.altered
            + self.devices_differ
    }

    fn example(&mut self, text: impl Display) {
        if self.examples.len() < 30 {
            self.examples.push(text.to_string());
        }
    }
}

/// Judges a run.
pub(super) fn check(evidence: &Evidence<'_>) -> Verdict {
    let mut judge = Judge::new(evidence);
    let own = judge.own_records();
    for (device, shown) in own.iter().enumerate() {
        judge.device(device, shown);
    }
    judge.persons(&own);
    judge.chat_orders();
    for chat in 0..evidence.log.chats.len() {
        judge.history(chat);
    }
    judge.inboxes(&own);
    judge.verdict
}

struct Judge<'a> {
    evidence: &'a Evidence<'a>,
    verdict: Verdict,
    chat_of: HashMap<Name, u32>,
    message_of: HashMap<Name, u32>,
    /// What stands where in each chat, as the devices were shown.
    places: Vec<BTreeMap<u64, What>>,
    place_of: HashMap<Name, (u32, u64)>,
    /// Which messages each device was shown.
    seen: Vec<HashSet<u32>>,
}

impl<'a> Judge<'a> {
    fn new(evidence: &'a Evidence<'a>) -> Self {
        let index = |names: &[Option<Name>]| -> HashMap<Name, u32> {
            names.iter().zip(0..).filter_map(|(name, i)| name.map(|name| (name, i))).collect()
        };
        let mut verdict = Verdict::default();
        for (accepted, message) in evidence.accepted.iter().zip(&evidence.log.messages) {
            if accepted.is_none() {
                verdict.not_accepted += 1;
                let chat = &evidence.log.chats[message.chat as usize].name;
                verdict.example(format_args!("line {} of {chat} was not accepted", message.line));
            }
        }
        Self {
            evidence,
            verdict,
            chat_of: index(evidence.chats),
            message_of: index(evidence.accepted),
            places: vec![BTreeMap::new(); evidence.log.chats.len()],
            place_of: HashMap::new(),
            seen: Vec::new(),
        }
    }

    /// What each device was shown of this run's chats.
    fn own_records(&mut self) -> Vec<Vec<Shown>> {
        let mut all = Vec::with_capacity(self.evidence.devices.len());
        for (_, shown) in self.evidence.devices {
            let own: Vec<Shown> = self.of_this_run(shown);
            self.verdict.foreign += (shown.len() - own.len()) as u64;
            all.push(own);
        }
        all
    }

    fn of_this_run(&self, shown: &[Shown]) -> Vec<Shown> {
        shown.iter().filter(|s| self.chat_of.contains_key(&s.chat)).copied().collect()
    }

    fn name(&self, chat: u32) -> &'a str {
        &self.evidence.log.chats[chat as usize].name
    }

    fn device(&mut self, device: usize, shown: &[Shown]) {
        let user = self.evidence.devices[device].0;
        let (mut position, mut seen) = (0, HashSet::new());
        let mut seqs: HashMap<u32, Vec<u64>> = HashMap::new();
        for event in shown {
            let chat = self.chat_of[&event.chat];
            let at = (event.position, event.seq);
            if event.position <= position {
                self.verdict.out_of_order += 1;
                self.verdict.example(format_args!("device {device}: {at:?} after {position}"));
            }
            position = event.position;
            let before = seqs.entry(chat).or_default();
            let grows = before.last().is_none_or(|last| *last < event.seq);
            before.push(event.seq);
            let repeated = match event.what {
                What::Message { id, .. } => !self.message(chat, event, &mut seen, id, device),
                What::Update | What::Hidden => false,
            };
            if !grows && !repeated {
                self.verdict.out_of_order += 1;
                let name = self.name(chat);
                self.verdict.example(format_args!("device {device}: {name} steps back to {at:?}"));
            }
            self.place(chat, event, device);
        }
        self.holes(device, seqs);
        let log = self.evidence.log;
        for chat in &log.chats {
            if chat.participants.binary_search(&user).is_err() {
                continue;
            }
            for message in &chat.messages {
                if self.evidence.accepted[*message as usize].is_some() && !seen.contains(message) {
                    self.verdict.lost += 1;
                    let line = log.messages[*message as usize].line;
                    let name = &chat.name;
                    self.verdict.example(format_args!("device {device}: no line {line} of {name}"));
                }
            }
        }
        self.seen.push(seen);
    }

    /// A message shown on a device; whether it was for the first time.
    fn message(
        &mut self,
        chat: u32,
        event: &Shown,
        seen: &mut HashSet<u32>,
        id: Name,
        device: usize,
    ) -> bool {
        let Some(&message) = self.message_of.get(&id) else {
            self.verdict.altered += 1;
            let name = self.name(chat);
            self.verdict.example(format_args!("device {device}: {name} shows what nobody sent"));
            return true;
        };
        if !self.is_as_sent(chat, message, event.what) {
            self.verdict.altered += 1;
            let line = self.evidence.log.messages[message as usize].line;
            self.verdict.example(format_args!("device {device}: line {line} is not as sent"));
        }
        let first = seen.insert(message);
        let elsewhere = *self.place_of.entry(id).or_insert((chat, event.seq)) != (chat, event.seq);
        if !first || elsewhere {
            self.verdict.duplicated += 1;
            let line = self.evidence.log.messages[message as usize].line;
            self.verdict.example(format_args!("device {device}: line {line} twice"));
        }
        first
    }

    fn is_as_sent(&self, chat: u32, message: u32, what: What) -> bool {
        let sent = &self.evidence.log.messages[message as usize];
        let What::Message { sender, sha256, .. } = what else { return false };
        let by = self.evidence.users[sent.sender as usize];
        (sent.chat, by, sent.sha256) == (chat, sender, sha256)
    }

    /// All devices must agree on what stands where.
    fn place(&mut self, chat: u32, event: &Shown, device: usize) {
        let known = *self.places[chat as usize].entry(event.seq).or_insert(event.what);
        if known != event.what {
            self.verdict.out_of_order += 1;
            let (name, seq) = (self.name(chat), event.seq);
            self.verdict.example(format_args!("device {device}: {name} {seq} differs"));
        }
    }

    fn holes(&mut self, device: usize, seqs: HashMap<u32, Vec<u64>>) {
        for (chat, mut seqs) in seqs {
            seqs.sort_unstable();
            seqs.dedup();
            let missing = seqs.last().map_or(0, |last| last.saturating_sub(seqs.len() as u64));
            if missing > 0 {
                self.verdict.holes += missing;
                let name = self.name(chat);
                self.verdict.example(format_args!("device {device}: {name} lacks {missing} seqs"));
            }
        }
    }

    /// Deliveries, and that a user's devices were shown the same at the same positions.
    fn persons(&mut self, own: &[Vec<Shown>]) {
        let mut persons: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (device, (user, _)) in self.evidence.devices.iter().enumerate() {
            persons.entry(*user).or_default().push(device);
        }
        for (user, devices) in persons {
            let shown: HashSet<u32> =
                devices.iter().flat_map(|device| &self.seen[*device]).copied().collect();
            let from_others =
                shown.iter().filter(|m| self.evidence.log.messages[**m as usize].sender != user);
            self.verdict.deliveries += from_others.count() as u64;
            for pair in devices.windows(2) {
                let differs = differences(&own[pair[0]], &own[pair[1]]);
                if differs > 0 {
                    self.verdict.devices_differ += differs;
                    self.verdict.example(format_args!("devices {pair:?} differ in {differs}"));
                }
            }
        }
    }

    /// Messages stand in a chat in the order they were sent in.
    fn chat_orders(&mut self) {
        for chat in 0..self.places.len() {
            let mut last = None;
            let mut back = 0;
            for what in self.places[chat].values() {
                let What::Message { id, .. } = what else { continue };
                let Some(&message) = self.message_of.get(id) else { continue };
                back += u64::from(last.is_some_and(|last| last > message));
                last = Some(message);
            }
            if back > 0 {
                self.verdict.out_of_order += back;
                let name = self.name(chat as u32);
                self.verdict
                    .example(format_args!("{name}: {back} not in the order they were sent"));
            }
        }
    }

    /// The history of a chat is what was sent and what the devices were shown.
    fn history(&mut self, chat: usize) {
        let log_chat = &self.evidence.log.chats[chat];
        let accepted = |m: &&u32| self.evidence.accepted[**m as usize].is_some();
        let sent = log_chat.messages.iter().filter(accepted).count() as u64;
        let differs = match &self.evidence.histories[chat] {
            None => sent.max(1),
            Some(rows) => {
                let mut differs = 0;
                let mut found = HashSet::new();
                for (row, seq) in rows.iter().zip(1..) {
                    let right = row.seq == seq
                        && self.chat_of.get(&row.chat) == Some(&(chat as u32))
                        && self.places[chat].get(&row.seq) == Some(&row.what);
                    let as_sent = match row.what {
                        What::Message { id, .. } => self.message_of.get(&id).is_some_and(|&m| {
                            self.is_as_sent(chat as u32, m, row.what) && found.insert(m)
                        }),
                        What::Update | What::Hidden => true,
                    };
                    differs += u64::from(!(right && as_sent));
                }
                // The chat's creation has a place too.
                let wanted = (self.places[chat].len() as u64).max(sent + 1);
                differs + wanted.saturating_sub(rows.len() as u64)
            }
        };
        if differs > 0 {
            self.verdict.history_differs += differs;
            let name = &log_chat.name;
            self.verdict.example(format_args!("the history of {name} differs in {differs}"));
        }
    }

    /// The inbox of a user is what the user's devices were shown.
    fn inboxes(&mut self, own: &[Vec<Shown>]) {
        let mut judged = HashSet::new();
        for (device, (user, _)) in self.evidence.devices.iter().enumerate() {
            if !judged.insert(*user) {
                continue;
            }
            let differs = match &self.evidence.inboxes[*user as usize] {
                None => (own[device].len() as u64).max(1),
                Some(rows) => differences(&own[device], &self.of_this_run(rows)),
            };
            if differs > 0 {
                self.verdict.history_differs += differs;
                let name = &self.evidence.log.users[*user as usize];
                self.verdict.example(format_args!("the inbox of {name} differs in {differs}"));
            }
        }
    }
}

/// How many events are not in both lists at the same position, or not in the same order.
fn differences(a: &[Shown], b: &[Shown]) -> u64 {
    if a == b {
        return 0;
    }
    let set = |list: &[Shown]| list.iter().map(|s| (s.position, s.chat, s.seq)).collect();
    let (in_a, in_b): (HashSet<_>, HashSet<_>) = (set(a), set(b));
    (in_a.symmetric_difference(&in_b).count() as u64).max(1)
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
