//! The reference: what the contract makes of a sequence of commands, in a few maps. It answers
//! each command as the server must, and keeps what each user's devices must be shown.
//!
//! Must not know: ids on the wire, sockets, how the server is built.

use super::chat::{Chat, Item, Message, Name, Operation, Told, User};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    None,
    Active,
    Blocked,
}

/// A command with everything decided but the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Create {
        chat: Name,
        by: User,
        others: Vec<User>,
        title: u8,
        all: bool,
    },
    Send {
        chat: Name,
        by: User,
        device: String,
        to: Option<User>,
        key: u16,
        text: u8,
    },
    Rename {
        chat: Name,
        by: User,
        title: u8,
    },
    Participant {
        chat: Name,
        by: User,
        user: User,
        operation: Operation,
    },
    Connect {
        by: User,
        device: String,
        peer: User,
        status: Status,
        based_on: Option<u64>,
    },
    Read {
        chat: Name,
        by: User,
        seq: u64,
    },
    Refuse {
        chat: Name,
        by: User,
        seq: u64,
    },
    /// Everything that was caused so far has been shown to every user.
    Settle,
    /// What devices do by themselves changes nothing here.
    Device,
}

/// What the server must answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Created { new: bool },
    Accepted,
    Modified,
    Connection { status: Status, version: u64 },
    Conflict { status: Status, version: u64 },
    Refused(u16),
    Nothing,
}

/// How a user is shown another's message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Shown,
    Hidden,
    /// It was on its way when a block began or ended: its place decides.
    ByPlace,
}

/// An event of a chat that a user's devices are shown.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) seq: u64,
    /// `visibleFrom`, of an update.
    pub(crate) from: u64,
    pub(crate) fate: Fate,
    settled: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rejection {
    pub(crate) chat: Name,
    pub(crate) key: u16,
    pub(crate) status: u16,
    pub(crate) by: Option<User>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Connected {
    pub(crate) peer: User,
    pub(crate) status: Status,
    pub(crate) version: u64,
    pub(crate) device: String,
}

/// What one user's devices must be shown.
#[derive(Clone, Debug, Default)]
pub(crate) struct Expected {
    pub(crate) chats: BTreeMap<Name, Vec<Seen>>,
    pub(crate) rejections: Vec<Rejection>,
    pub(crate) connected: Vec<Connected>,
}

impl Expected {
    pub(crate) fn count(&self) -> usize {
        let events: usize = self.chats.values().map(Vec::len).sum();
        events + self.rejections.len() + self.connected.len()
    }
}

/// A command as it was taken.
#[derive(Clone, Debug)]
pub(crate) struct Taken {
    pub(crate) command: Command,
    pub(crate) answer: Answer,
}

#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) users: usize,
    /// How many devices each user has opened.
    pub(crate) devices: Vec<usize>,
    pub(crate) chats: BTreeMap<Name, Chat>,
    pub(crate) expected: Vec<Expected>,
    pub(crate) connections: BTreeMap<(User, User), (Status, u64)>,
    /// (sender, chat, key) → the contents that were sent under it, the first one counts.
    pub(crate) sent: BTreeMap<(User, Name, u16), Vec<u8>>,
    /// The next fresh `clientMessageId`.
    pub(crate) next_key: u16,
    refused: BTreeSet<(Name, u64, User)>,
    pub(crate) ever_blocked: BTreeSet<(User, User)>,
    pub(crate) last: Option<Taken>,
}

impl Model {
    pub(crate) fn new(users: usize) -> Self {
        Self {
            users,
            devices: vec![1; users],
            chats: BTreeMap::new(),
            expected: vec![Expected::default(); users],
            connections: BTreeMap::new(),
            sent: BTreeMap::new(),
            next_key: 0,
            refused: BTreeSet::new(),
            ever_blocked: BTreeSet::new(),
            last: None,
        }
    }

    /// Takes a command and keeps how it was answered.
    pub(crate) fn take(&mut self, command: Command) {
        let answer = self.apply(&command);
        self.last = Some(Taken { command, answer });
    }

    /// The answer to the last command where it was given before: the first answer was lost.
    pub(crate) fn again(&self) -> Answer {
        let taken = self.last.as_ref().expect("a command was taken");
        let mut twice = self.clone();
        let answer = twice.apply(&taken.command);
        let counts = |model: &Self| model.expected.iter().map(Expected::count).sum::<usize>();
        assert_eq!(counts(self), counts(&twice), "a repetition has an effect: {taken:?}");
        answer
    }

    pub(crate) fn apply(&mut self, command: &Command) -> Answer {
        match command {
            Command::Create { chat, by, others, title, all } => {
                self.create(*chat, *by, others, *title, *all)
            }
            Command::Send { chat, by, device, to, key, text } => {
                self.send(*chat, (*by, device), to.is_some(), *key, *text)
            }
            Command::Rename { chat, by, title } => {
                self.change(*chat, |found, _| found.rename(*by, *title))
            }
            Command::Participant { chat, by, user, operation } => self
                .change(*chat, |found, direct| found.participant(*by, *user, *operation, direct)),
            Command::Connect { by, device, peer, status, based_on } => {
                self.connect((*by, device), *peer, *status, *based_on)
            }
            Command::Read { chat, by, seq } => {
                if let Some(chat) = self.chats.get_mut(chat)
                    && chat.member(*by).is_some()
                {
                    let read = chat.read.entry(*by).or_default();
                    *read = (*read).max(*seq);
                }
                Answer::Nothing
            }
            Command::Refuse { chat, by, seq } => self.refuse(*chat, *by, *seq),
            Command::Settle => {
                let events = self.expected.iter_mut().flat_map(|e| e.chats.values_mut().flatten());
                events.for_each(|seen| seen.settled = true);
                Answer::Nothing
            }
            Command::Device => Answer::Nothing,
        }
    }

    fn create(&mut self, chat: Name, by: User, others: &[User], title: u8, all: bool) -> Answer {
        match self.chats.get(&chat) {
            Some(made) if made.is_made_by(by, others, title) => Answer::Created { new: false },
            Some(_) => Answer::Refused(409),
            None => {
                let made = Chat::group(by, others, title, all);
                let told = made.everyone();
                self.chats.insert(chat, made);
                self.tell(chat, told);
                Answer::Created { new: true }
            }
        }
    }

    fn send(
        &mut self,
        name: Name,
        (by, device): (User, &str),
        begins: bool,
        key: u16,
        text: u8,
    ) -> Answer {
        let contents = self.sent.entry((by, name, key)).or_default();
        let (known, first) = (contents.contains(&text), contents.is_empty());
        if known {
            return Answer::Accepted;
        }
        contents.push(text);
        let reject = |status| Rejection { chat: name, key, status, by: None };
        if !first {
            self.expected[by].rejections.push(reject(409));
            return Answer::Accepted;
        }
        if let (Name::Direct(a, b), true) = (name, begins) {
            self.chats.entry(name).or_insert_with(|| Chat::direct(a, b));
        }
        let blocks = |user: &User| self.connection(*user, by).0 == Status::Blocked;
        let blocked_by = (0..self.users).filter(blocks).collect();
        match self.chats.get_mut(&name) {
            None => self.expected[by].rejections.push(reject(404)),
            Some(chat) if chat.member(by).is_none() => {
                self.expected[by].rejections.push(reject(403));
            }
            Some(chat) => {
                let device = device.to_owned();
                let told = chat.message(Message { sender: by, device, key, text, blocked_by });
                self.tell(name, told);
            }
        }
        Answer::Accepted
    }

    fn change(
        &mut self,
        name: Name,
        change: impl FnOnce(&mut Chat, bool) -> Result<Told, u16>,
    ) -> Answer {
        let Some(chat) = self.chats.get_mut(&name) else { return Answer::Refused(404) };
        match change(chat, matches!(name, Name::Direct(..))) {
            Ok(told) => {
                self.tell(name, told);
                Answer::Modified
            }
            Err(status) => Answer::Refused(status),
        }
    }

    /// The last place of the chat is shown to these.
    fn tell(&mut self, name: Name, told: Told) {
        let chat = &self.chats[&name];
        let seq = chat.last_seq();
        for (user, from) in told {
            let hidden = match chat.item(seq) {
                Item::Message(message) => message.blocked_by.contains(&user),
                Item::Update(_) => false,
            };
            let fate = if hidden { Fate::Hidden } else { Fate::Shown };
            let seen = Seen { seq, from, fate, settled: false };
            self.expected[user].chats.entry(name).or_default().push(seen);
        }
    }

    pub(crate) fn connection(&self, user: User, peer: User) -> (Status, u64) {
        self.connections.get(&(user, peer)).copied().unwrap_or((Status::None, 0))
    }

    fn connect(
        &mut self,
        (by, device): (User, &str),
        peer: User,
        asked: Status,
        based_on: Option<u64>,
    ) -> Answer {
        let (status, version) = self.connection(by, peer);
        let lifts = status == Status::Blocked;
        if status == asked {
            return Answer::Connection { status, version };
        }
        if based_on.map_or(lifts, |known| known != version) {
            return Answer::Conflict { status, version };
        }
        let version = version + 1;
        self.connections.insert((by, peer), (asked, version));
        let device = device.to_owned();
        self.expected[by].connected.push(Connected { peer, status: asked, version, device });
        if lifts || asked == Status::Blocked {
            self.ever_blocked.insert((by, peer));
            self.meet(by, peer);
        }
        Answer::Connection { status: asked, version }
    }

    /// A block begins or ends: what is on its way is decided by its place.
    fn meet(&mut self, by: User, peer: User) {
        for (name, seen) in &mut self.expected[by].chats {
            let chat = &self.chats[name];
            let from_peer = |seq| matches!(chat.item(seq), Item::Message(m) if m.sender == peer);
            let on_its_way = seen.iter_mut().filter(|seen| !seen.settled && from_peer(seen.seq));
            on_its_way.for_each(|seen| seen.fate = Fate::ByPlace);
        }
    }

    fn refuse(&mut self, name: Name, by: User, seq: u64) -> Answer {
        if let Item::Message(message) = self.chats[&name].item(seq)
            && self.refused.insert((name, seq, by))
        {
            let (key, sender) = (message.key, message.sender);
            let rejection = Rejection { chat: name, key, status: 422, by: Some(by) };
            self.expected[sender].rejections.push(rejection);
        }
        Answer::Nothing
    }

    /// Messages of others that this user was surely shown in a chat they are in now.
    pub(crate) fn refusable(&self, by: User) -> Vec<(Name, u64)> {
        let mut found = Vec::new();
        for (name, events) in &self.expected[by].chats {
            let chat = &self.chats[name];
            if chat.member(by).is_none() {
                continue;
            }
            let visible = chat.visible(by);
            let others = |seq| matches!(chat.item(seq), Item::Message(m) if m.sender != by);
            let sure = events.iter().filter(|e| e.settled && e.fate == Fate::Shown);
            let sure = sure.filter(|e| visible.iter().any(|(a, b)| (*a..=*b).contains(&e.seq)));
            found.extend(sure.filter(|e| others(e.seq)).map(|e| (*name, e.seq)));
        }
        found
    }
}
