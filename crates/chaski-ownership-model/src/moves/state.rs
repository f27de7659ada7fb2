//! What a state of the model holds. Places are counts: a place `n` means "the records before `n`".

use arrayvec::ArrayVec;
use stateright::Representative;

/// The partitions that are folded into `recipients`: two of `new-messages`, then one of requests.
pub const SOURCES: usize = 3;
/// Which of the sources is the partition of `connection-requests`.
pub const REQUESTS: usize = 2;
/// The partitions of `recipients`: p, then q.
pub const PARTITIONS: usize = 2;
/// The most maps there may be.
pub const MAPS: u8 = 3;
/// The most inputs of a source, and the most events of the user.
pub const INPUTS: usize = 6;
/// The most records of a partition of `recipients`.
pub const RECORDS: usize = 16;

/// The user's partition in a generation, which is a stay: every map moves them.
#[must_use]
pub fn home(generation: u8) -> usize {
    usize::from(generation + 1) % PARTITIONS
}

/// Everything: the logs, who folds and reads them, and what the user was shown.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct State {
    /// By number of the source.
    pub sources: [Source; SOURCES],
    /// p and q.
    pub parts: [Part; PARTITIONS],
    /// The user's events to which a reader has come, in their order.
    pub shown: ArrayVec<Shown, INPUTS>,
    /// Whether BLOCKED is answered.
    pub answered: bool,
    /// Whether an event was admitted to an earlier stay than that of an event that was shown.
    pub overtaken: bool,
    /// Whether an event was dropped: it stood behind the end of its stay.
    pub dropped: bool,
    /// Whether a reader that came to an event again found another fate or another event.
    pub changed: bool,
    /// How often each fault may still strike.
    pub left: Faults,
}

/// How often faults may strike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Faults {
    /// An owner of a source dies; what it has sent and is not in the log is gone.
    pub crashes: u8,
    /// An owner of a source is replaced and goes on: a stale owner.
    pub pauses: u8,
    /// The client of the log loses an output and sends the ones behind it.
    pub losses: u8,
    /// A reader of a partition of `recipients` dies.
    pub restarts: u8,
    /// A barrier is appended once more: its first append had no known outcome.
    pub repeats: u8,
}

/// A source and who folds it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source {
    /// How many messages, or requests, are still to be appended.
    pub unsaid: u8,
    /// What was appended to it.
    pub log: ArrayVec<Input, INPUTS>,
    /// The present owner.
    pub owner: Owner,
    /// An earlier one that does not know it.
    pub stale: Option<Owner>,
}

/// A record of a source, and of `recipients`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Input {
    /// From the peer to the user.
    Message {
        /// Sent after BLOCKED was answered.
        late: bool,
    },
    /// The user blocks the peer.
    Block,
    /// The user lifts the block.
    Lift,
    /// From here on the map of this generation holds.
    Barrier(u8),
}

/// Who folds a source.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner {
    /// The oldest cursor that may be the saved one.
    pub saved: u8,
    /// It has taken the inputs before this place.
    pub folded: u8,
    /// The generation of the map it acts on.
    pub map: u8,
    /// The origin it last sent, by partition of `recipients`.
    pub prev: [Option<u8>; PARTITIONS],
    /// What is sent and not in the log, by partition.
    pub on_way: [ArrayVec<Output, INPUTS>; PARTITIONS],
    /// The origin of an output that was lost: the owner folds no more and starts anew.
    pub lost: Option<u8>,
}

/// An output on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Output {
    /// The place of the input it came from.
    pub origin: u8,
    /// What the same owner sent to this partition before it.
    pub prev: Option<u8>,
    /// What it says.
    pub what: Input,
}

/// A partition of `recipients` and its reader.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Part {
    /// The records that the origin filter admits: it is the same for all who read them.
    pub log: ArrayVec<Record, RECORDS>,
    /// The greatest origin in it, by source.
    pub high: [Option<u8>; SOURCES],
    /// How far the reader has come.
    pub mark: Mark,
    /// How far it has saved.
    pub saved: Mark,
    /// The reader will die before it saves again.
    pub doomed: bool,
}

/// A record of `recipients` that is admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Record {
    /// The source it came from.
    pub source: u8,
    /// The place in that source.
    pub origin: u8,
    /// What it says.
    pub what: Input,
}

/// A watermark, and the edges of blocks that are stored with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mark {
    /// The next record to read.
    pub next: u8,
    /// The generation of the last barrier, by source: ADR 19's `ended`.
    pub map: [u8; SOURCES],
    /// The newest stay of the user that has begun here; 0 for none.
    pub stay: u8,
    /// Whether the peer is blocked, so far, by generation of the stay.
    pub blocked: [bool; MAPS as usize + 1],
}

/// An event as the user was shown it, or as it was withheld.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shown {
    /// Generation of the stay, and place in the partition.
    pub position: (u8, u8),
    /// What it is.
    pub record: Record,
    /// Whether a block withheld it.
    pub hidden: bool,
}

impl Owner {
    /// One that starts with what was saved at a place.
    #[must_use]
    pub fn at(place: u8, map: u8) -> Self {
        let on_way = Default::default();
        Self { saved: place, folded: place, map, prev: [None; PARTITIONS], on_way, lost: None }
    }

    /// Every output of the inputs before this place is in the log: a cursor may be saved up to here.
    #[must_use]
    pub fn frontier(&self) -> u8 {
        let waiting = self.on_way.iter().filter_map(|outputs| Some(outputs.first()?.origin));
        waiting.chain(self.lost).min().unwrap_or(self.folded)
    }
}

impl Input {
    /// Whether it is an event of the user, or else a barrier.
    #[must_use]
    pub fn is_event(self) -> bool {
        !matches!(self, Self::Barrier(_))
    }

    /// What it makes of the block, if it is about it.
    #[must_use]
    pub fn blocks(self) -> Option<bool> {
        match self {
            Self::Block => Some(true),
            Self::Lift => Some(false),
            Self::Message { .. } | Self::Barrier(_) => None,
        }
    }
}

impl State {
    /// Where the user's blocks and lifts stand in their order, as the logs have them.
    pub fn edges(&self) -> impl Iterator<Item = ((u8, u8), bool)> {
        let requests = &self.sources[REQUESTS];
        let asked = requests.log.iter().enumerate();
        asked.filter_map(|(origin, input)| {
            let stay = requests.map_at(origin as u8);
            let log = &self.parts[home(stay)].log;
            let told =
                |r: &Record| (usize::from(r.source), usize::from(r.origin)) == (REQUESTS, origin);
            let place = log.iter().position(told)?;
            Some(((stay, place as u8), input.blocks()?))
        })
    }
}

impl Source {
    /// The map that holds behind the inputs before `place`.
    #[must_use]
    pub fn map_at(&self, place: u8) -> u8 {
        let barriers = self.log[..usize::from(place)].iter().filter_map(|input| match input {
            Input::Barrier(generation) => Some(*generation),
            _ => None,
        });
        barriers.fold(1, u8::max)
    }

    /// The newest map in its log.
    #[must_use]
    pub fn newest(&self) -> u8 {
        self.map_at(self.log.len() as u8)
    }
}

/// Two states are one for the check if they differ only in the numbers of the two partitions of
/// `new-messages`, or in the order of records that no reader will read again: of those no more is asked
/// than whether they are there and in which order the user was shown them.
impl Representative for State {
    fn representative(&self) -> Self {
        let mut state = self.clone();
        for x in 0..PARTITIONS {
            state.forget_order(x);
        }
        if state.sources[0] < state.sources[1] {
            return state;
        }
        let swapped = state.clone().swapped();
        state.min(swapped)
    }
}

impl State {
    fn forget_order(&mut self, x: usize) {
        let read = self.parts[x].saved.next;
        self.parts[x].log[..usize::from(read)].sort_unstable();
        let old = |shown: &Shown| home(shown.position.0) == x && shown.position.1 < read;
        let mut places: ArrayVec<u8, INPUTS> =
            self.shown.iter().filter(|shown| old(shown)).map(|shown| shown.position.1).collect();
        places.sort_unstable();
        for shown in self.shown.iter_mut().filter(|shown| old(shown)) {
            let rank = places.iter().position(|place| *place == shown.position.1);
            shown.position.1 = rank.expect("its own place is among them") as u8;
        }
    }

    fn swapped(mut self) -> Self {
        let other = |source: &mut u8| *source = [1, 0, REQUESTS as u8][usize::from(*source)];
        self.sources.swap(0, 1);
        self.shown.iter_mut().for_each(|shown| other(&mut shown.record.source));
        for part in &mut self.parts {
            part.high.swap(0, 1);
            part.mark.map.swap(0, 1);
            part.saved.map.swap(0, 1);
            part.log.iter_mut().for_each(|record| other(&mut record.source));
            part.log[..usize::from(part.saved.next)].sort_unstable();
        }
        self
    }
}
