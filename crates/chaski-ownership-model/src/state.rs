//! What a state of the model holds. Places are counts: a place `n` means "the inputs before `n`".

use arrayvec::ArrayVec;
use stateright::Representative;

/// How many hosts there are.
pub const HOSTS: usize = 3;
/// How many partitions there may be; one with an empty log takes no part.
pub const PARTITIONS: usize = 2;
/// The most messages a log may have.
pub const MESSAGES: usize = 3;

/// Everything: the processes, and what outlives them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct State {
    /// The hosts.
    pub hosts: [Host; HOSTS],
    /// What is durable, by partition.
    pub parts: [Part; PARTITIONS],
    /// How often each fault may still strike.
    pub left: Faults,
}

/// How often faults may strike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Faults {
    /// A process dies with all it holds in memory.
    pub crashes: u8,
    /// A process stops and goes on later; meanwhile its session may expire.
    pub pauses: u8,
    /// The allocator moves a partition off a host that is well.
    pub moves: u8,
    /// The log's client loses an output and sends the ones behind it.
    pub losses: u8,
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Host {
    /// Whether it runs.
    pub life: Life,
    /// Whether the coordinator holds a session for it.
    pub session: bool,
    /// What it does, by partition.
    pub duties: [Duty; PARTITIONS],
}

/// Whether a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Life {
    /// It runs.
    Up,
    /// It stands still and will go on. What it has sent is still on its way.
    Paused,
    /// It is dead.
    Down,
}

/// What a host knows of a partition, and does for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Duty {
    /// The mzxid of the assignment it acts on, which may be an old one; 0 for none.
    pub assignment: u8,
    /// The worker.
    pub worker: Worker,
}

/// The worker of a partition in a process: `delivery-service/src/generator/worker.rs`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Worker {
    /// There is none, or it has yet to claim.
    #[default]
    Idle,
    /// Only without LWT: it has read the claim and is about to write a greater one.
    Claiming(u8),
    /// It has claimed, and reads what was saved.
    Restoring(Restoring),
    /// It folds.
    Owner(Owner),
}

/// The rows read so far.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Restoring {
    /// Of its claim.
    pub epoch: u8,
    /// How many reads are done.
    pub step: u8,
    /// What they found, by [`Kind`].
    pub rows: [Row; 3],
}

/// A worker that folds.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner {
    /// Of its claim.
    pub epoch: u8,
    /// It has taken the inputs before this place.
    pub folded: u8,
    /// The state of the chats: a digest of every message with the time at which it was taken.
    pub chat: u8,
    /// The restored chats hold the inputs before this place already; 0 once it is reached.
    pub chat_ahead: u8,
    /// The log's time: how many ticks were taken.
    pub clock: u8,
    /// The same as `chat_ahead`, for the clock.
    pub clock_ahead: u8,
    /// The origin this incarnation last sent.
    pub prev: Option<u8>,
    /// Outputs that are sent and not acknowledged.
    pub in_flight: ArrayVec<Output, MESSAGES>,
    /// The origin of an output that was lost: nothing behind it counts, the worker starts anew.
    pub lost: Option<u8>,
    /// The place of the last checkpoint, or where it started.
    pub taken: u8,
    /// Whether chats and clock changed since then.
    pub dirty: [bool; 2],
    /// The checkpoint that is being saved.
    pub saving: Option<Saving>,
}

/// A checkpoint on its way to the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Saving {
    /// The rows to write, by [`Kind`]; `None` where nothing changed.
    pub rows: [Option<Row>; 3],
    /// How many writes are done.
    pub step: u8,
}

/// The rows of a partition in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A snapshot of the chats.
    Chat,
    /// A snapshot of the log's time.
    Clock,
    /// Where to go on.
    Cursor,
}

/// A row; the order is the store's: the greatest (epoch, place) is the one that is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Row {
    /// Who wrote it.
    pub epoch: u8,
    /// The place at which it is true.
    pub at: u8,
    /// What it says.
    pub value: u8,
}

/// A record of `recipients`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Output {
    /// The input it came from.
    pub origin: u8,
    /// What the same incarnation sent before it.
    pub prev: Option<u8>,
    /// The state of the chats behind it: the same for every true replay.
    pub chat: u8,
}

/// What is durable of a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Part {
    /// Coordinator: the assigned host.
    pub owner: Option<u8>,
    /// Coordinator: the mzxid of the assignment.
    pub assignment: u8,
    /// Store: the claim's epoch.
    pub claimed: u8,
    /// Store: the assignment on which the last claim was made.
    pub claimed_for: u8,
    /// Store: the rows that a reader finds, by [`Kind`].
    pub rows: [Row; 3],
    /// Log: what a consumer has applied of it, as origin and chats.
    pub applied: ArrayVec<(u8, u8), { MESSAGES + 1 }>,
    /// Whether a row of the store ever gave way to an older one.
    pub went_back: bool,
}

impl Worker {
    /// The epoch it holds.
    #[must_use]
    pub fn epoch(&self) -> Option<u8> {
        match self {
            Self::Idle | Self::Claiming(_) => None,
            Self::Restoring(restoring) => Some(restoring.epoch),
            Self::Owner(owner) => Some(owner.epoch),
        }
    }

    fn map_epoch(&mut self, to: impl Fn(u8) -> u8) {
        match self {
            Self::Idle => {}
            Self::Claiming(epoch) => *epoch = to(*epoch),
            Self::Restoring(restoring) => restoring.epoch = to(restoring.epoch),
            Self::Owner(owner) => {
                owner.epoch = to(owner.epoch);
                let rows = owner.saving.iter_mut().flat_map(|saving| &mut saving.rows).flatten();
                rows.for_each(|row| row.epoch = owner.epoch);
            }
        }
    }
}

impl Owner {
    /// The frontier: every output of the inputs before this place is acknowledged.
    #[must_use]
    pub fn frontier(&self) -> u8 {
        let waiting = self.in_flight.first().map(|output| output.origin);
        let waiting = waiting.into_iter().chain(self.lost).min();
        waiting.unwrap_or(self.folded)
    }
}

/// Two states are one for the check if they differ only in the numbers of hosts, which are all alike,
/// or in how great epochs are but not in their order: nothing else is asked of them.
impl Representative for State {
    fn representative(&self) -> Self {
        let mut state = self.clone();
        for p in 0..PARTITIONS {
            let held = self.hosts.iter().filter_map(|host| host.duties[p].worker.epoch());
            let held = held.fold(0u32, |held, epoch| held | 1 << epoch);
            // Of an epoch that nobody holds only the place between the held ones matters.
            let place = |epoch: u8| {
                let below = (held & ((1 << epoch) - 1)).count_ones() as u8;
                2 * below + u8::from(held & 1 << epoch != 0)
            };
            let part = &mut state.parts[p];
            part.claimed = place(part.claimed);
            part.rows.iter_mut().for_each(|row| row.epoch = place(row.epoch));
            for host in &mut state.hosts {
                host.duties[p].worker.map_epoch(place);
            }
        }
        if state.parts.iter().any(|part| part.assignment == 0) {
            return state.sorted();
        }
        let swapped = state.clone().swapped().sorted();
        state.sorted().min(swapped)
    }
}

impl State {
    fn swapped(mut self) -> Self {
        self.parts.reverse();
        self.hosts.iter_mut().for_each(|host| host.duties.reverse());
        self
    }

    fn sorted(self) -> Self {
        let mut state = self;
        let mut order: [usize; HOSTS] = std::array::from_fn(|host| host);
        let owns = |host: usize| state.parts.each_ref().map(|p| p.owner == Some(host as u8));
        order.sort_by(|a, b| (owns(*a), &state.hosts[*a]).cmp(&(owns(*b), &state.hosts[*b])));
        state.hosts = order.map(|host| state.hosts[host].clone());
        for part in &mut state.parts {
            part.owner = part.owner.map(|owner| {
                let place = order.iter().position(|host| *host == usize::from(owner));
                place.expect("an order of all hosts") as u8
            });
        }
        state
    }
}
