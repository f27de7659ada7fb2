//! The protocol by which hosts own partitions, as a model that a checker visits completely: claim,
//! restore, fold, append, save, take-over. It must not know the code it is a model of, except the
//! origin filter, which is [`chaski_core::Watermark::admit`] itself; and nothing may depend on it.
//!
//! **What is modelled.** The coordinator: who is assigned which partition, with its mzxid, and who has a
//! session. The store: the claim, and of snapshot of the chats, snapshot of the log's time and cursor the
//! row that a reader would find. The two logs: a few inputs, and the outputs as a consumer has
//! applied them. The hosts: up, paused or dead; what they believe of the assignments, which may be
//! old; and each worker with what it has folded, what is on its way, and the checkpoint it saves.
//! Faults come at any time, as often as [`Faults`] allows: crash, pause (with or without loss of
//! the session; an expired host goes on as owner until it notices), a move, a lost append.
//!
//! **What is not.**
//! - Messages and chats: the state of all chats is a digest of what was folded and when.
//! - Several buckets: one stands for the chats, and the time is kept apart from it.
//! - The consumer's own restarts: it applies an output as soon as it is in the log, and its state is a
//!   fact about the log. Of `recipients` only the records of one source are looked at: the filter
//!   knows no others.
//! - An append that arrives after its sender has crashed: a pause with a crash behind it is the same.
//! - Acknowledgements that are late: the owner is as free to wait before it saves.
//! - Trimming of old rows, unreachable stores, time.
//! - A link to the coordinator that is cut while the host runs on: a pause that ends at once.
//!
//! Partitions share nothing but hosts, so one partition alone ([`Ownership::coarse`] off, the other
//! log empty) is looked at step by step; two together in coarser steps, which leave out no outcome
//! where there is at most one input, and checkpoints between two inputs that are folded at one go
//! where there are more. States that differ only in the hosts' numbers are visited once.
//!
//! **How to read a counter-example.** A failed check prints the steps from the start, `h` the host and `p`
//! the partition, and the last state; the property's name says which law is broken there. Places
//! count inputs: a row with `at: 2` says "the first two inputs". `Save` writes the next rows of the
//! checkpoint that the last `Take` took; the first `Save` after a restore makes the cursor the new
//! owner's. `tests/protocol.rs` holds one such story in full.
//!
//! **Its teeth.** Each [`Flaw`] is a rule that is not kept; the checker must find what comes of it.
//! Three of them the checker found in the code, which has kept these rules since (ADR 17):
//! [`Flaw::CursorNotTaken`], [`Flaw::ClockApart`], [`Flaw::LateClaims`].
//!
//! **Beside it** stands a second model, of its own: [`moves`], how a user moves between partitions.

pub mod moves;
pub mod properties;
mod rules;
mod state;
mod steps;

pub use rules::Flaw;
pub use state::{
    Duty, Faults, HOSTS, Host, Kind, Life, MESSAGES, Output, Owner, PARTITIONS, Part, Restoring,
    Row, Saving, State, Worker,
};

use arrayvec::ArrayVec;
use stateright::{Model, Property};

/// A record of `new-messages`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// A message: gives one output that depends on all before it and on the log's time.
    Message,
    /// Moves the log's time.
    Tick,
}

/// The protocol in a small world.
#[derive(Clone, Debug)]
pub struct Ownership {
    /// The inputs of each partition; none where it takes no part.
    pub logs: [&'static [Input]; PARTITIONS],
    /// How often faults may strike.
    pub faults: Faults,
    /// Whether steps that nobody else can see are taken at once, and a restore is one step.
    pub coarse: bool,
    /// The rules that are not kept.
    pub flaws: &'static [Flaw],
}

/// A step. `h` is a host, `p` a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Fault: the process dies.
    Crash { h: usize },
    /// Fault: the process stands still.
    Pause { h: usize },
    /// Fault: the allocator gives a partition of a host that is well to another one.
    Move { h: usize, p: usize },
    /// Fault: the log's client loses the oldest output on its way.
    Lose { h: usize, p: usize },
    /// A host that is dead or stands still loses its session.
    Expire { h: usize },
    /// The process goes on.
    Resume { h: usize },
    /// The process is started again.
    Restart { h: usize },
    /// The process learns that its session has expired: it lets go of everything and comes anew.
    Register { h: usize },
    /// The allocator assigns a partition that nobody has.
    Assign { h: usize, p: usize },
    /// The host sees a changed assignment: its worker ends.
    Learn { h: usize, p: usize },
    /// The worker claims.
    Claim { h: usize, p: usize },
    /// The worker reads the next of the saved rows.
    Load { h: usize, p: usize },
    /// The worker takes the next input and sends its output.
    Fold { h: usize, p: usize },
    /// The oldest output on its way is appended, acknowledged, and read by the consumer.
    Land { h: usize, p: usize },
    /// The worker takes a checkpoint of its state.
    Take { h: usize, p: usize },
    /// The next rows of the checkpoint are written.
    Save { h: usize, p: usize },
    /// The worker has lost an output, and starts anew.
    Again { h: usize, p: usize },
}

impl Action {
    /// Whether it is a fault: what may happen, and need not.
    #[must_use]
    pub fn is_fault(self) -> bool {
        use Action::{Crash, Lose, Move, Pause};
        matches!(self, Crash { .. } | Pause { .. } | Move { .. } | Lose { .. })
    }
}

impl Model for Ownership {
    type State = State;
    type Action = Action;

    /// Every host is there, and every partition is assigned: all to one host, or to one each.
    fn init_states(&self) -> Vec<State> {
        let host = Host { life: Life::Up, session: true, duties: Default::default() };
        let empty = State {
            hosts: std::array::from_fn(|_| host.clone()),
            parts: Default::default(),
            left: self.faults,
        };
        let spread = |step: usize| {
            let mut state = empty.clone();
            for p in self.partitions() {
                self.assign(&mut state, p * step, p);
                state.hosts[p * step].duties[p].assignment = state.parts[p].assignment;
            }
            state
        };
        match self.partitions().count() {
            1 => vec![spread(0)],
            _ => vec![spread(0), spread(1)],
        }
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if let Some(step) = self.unseen(state) {
            return actions.push(step);
        }
        for (h, host) in state.hosts.iter().enumerate() {
            self.actions_of_host(state, h, host, actions);
            for p in self.partitions() {
                self.actions_of_allocator(state, (h, p), actions);
                self.actions_of_worker(state, (h, p), actions);
            }
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut state = state.clone();
        self.apply(&mut state, action);
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all()
    }
}

impl Ownership {
    /// The partitions that take part.
    fn partitions(&self) -> impl Iterator<Item = usize> + use<> {
        let logs = self.logs;
        (0..PARTITIONS).filter(move |p| !logs[*p].is_empty())
    }

    /// A step that changes nothing but one process's memory, and neither waits for another step nor
    /// stands in the way of one: what matters is only what is done with it later.
    fn unseen(&self, state: &State) -> Option<Action> {
        let hosts = state.hosts.iter().enumerate().filter(|_| self.coarse);
        hosts.filter(|(_, host)| host.life != Life::Paused).find_map(|(h, host)| {
            if host.life == Life::Down {
                return (!host.session).then_some(Action::Restart { h });
            }
            self.partitions().find_map(|p| {
                let Worker::Owner(owner) = &host.duties[p].worker else { return None };
                if owner.lost.is_some() {
                    None
                } else if owner.saving.is_none() && owner.folded > owner.taken {
                    Some(Action::Take { h, p })
                } else if usize::from(owner.folded) < self.logs[p].len() {
                    Some(Action::Fold { h, p })
                } else {
                    None
                }
            })
        })
    }

    fn breaks(&self, flaw: Flaw) -> bool {
        self.flaws.contains(&flaw)
    }

    fn actions_of_host(&self, state: &State, h: usize, host: &Host, actions: &mut Vec<Action>) {
        if host.life != Life::Down && state.left.crashes > 0 {
            actions.push(Action::Crash { h });
        }
        if host.life == Life::Up && host.session && state.left.pauses > 0 {
            actions.push(Action::Pause { h });
        }
        if host.life != Life::Up && host.session {
            actions.push(Action::Expire { h });
        }
        match host.life {
            Life::Paused => actions.push(Action::Resume { h }),
            Life::Down => actions.push(Action::Restart { h }),
            Life::Up if !host.session => actions.push(Action::Register { h }),
            Life::Up => {}
        }
    }

    fn actions_of_allocator(
        &self,
        state: &State,
        (h, p): (usize, usize),
        actions: &mut Vec<Action>,
    ) {
        if !state.hosts[h].session {
            return;
        }
        let owner = state.parts[p].owner.map(usize::from);
        if state.hosts[h].life == Life::Down {
            return; // assigned to, it would only be lost, or come again
        }
        if owner.is_none_or(|owner| !state.hosts[owner].session) {
            actions.push(Action::Assign { h, p });
        } else if owner != Some(h) && state.left.moves > 0 {
            actions.push(Action::Move { h, p });
        }
    }

    fn actions_of_worker(&self, state: &State, (h, p): (usize, usize), actions: &mut Vec<Action>) {
        let (host, part) = (&state.hosts[h], &state.parts[p]);
        let duty = &host.duties[p];
        if let Worker::Owner(owner) = &duty.worker
            && !owner.in_flight.is_empty()
        {
            // What is sent arrives, also while the sender stands still.
            actions.push(Action::Land { h, p });
            if state.left.losses > 0 && owner.lost.is_none() {
                actions.push(Action::Lose { h, p });
            }
        }
        if host.life != Life::Up {
            return;
        }
        if host.session && duty.assignment != assigned(part, h) {
            actions.push(Action::Learn { h, p });
        }
        match &duty.worker {
            Worker::Idle => {
                let late = duty.assignment < part.claimed_for && !self.breaks(Flaw::LateClaims);
                if duty.assignment > 0 && !late {
                    actions.push(Action::Claim { h, p });
                }
            }
            Worker::Claiming(_) => actions.push(Action::Claim { h, p }),
            Worker::Restoring(_) => actions.push(Action::Load { h, p }),
            Worker::Owner(owner) => {
                if owner.lost.is_some() {
                    actions.push(Action::Again { h, p });
                } else if usize::from(owner.folded) < self.logs[p].len() {
                    actions.push(Action::Fold { h, p });
                }
                match &owner.saving {
                    None if owner.folded > owner.taken => actions.push(Action::Take { h, p }),
                    None => {}
                    Some(saving) => {
                        let place = saving.rows[Kind::Cursor as usize].map_or(0, |row| row.at);
                        if place <= owner.frontier() || self.breaks(Flaw::SavesUnacknowledged) {
                            actions.push(Action::Save { h, p });
                        }
                    }
                }
            }
        }
    }
}

/// The chats after one more message, taken at this time: differs for every different past.
fn digest(chat: u8, clock: u8) -> u8 {
    chat * 4 + clock + 1
}

/// Chats and clock as the log has them at a place, and the outputs up to there.
fn truth(log: &[Input], at: u8) -> (u8, u8, ArrayVec<(u8, u8), MESSAGES>) {
    let (mut chat, mut clock, mut outputs) = (0, 0, ArrayVec::new());
    for (origin, input) in (0..at).zip(log) {
        match input {
            Input::Tick => clock += 1,
            Input::Message => {
                chat = digest(chat, clock);
                outputs.push((origin, chat));
            }
        }
    }
    (chat, clock, outputs)
}

/// The mzxid of the assignment to a host; 0 where the partition is not assigned to it.
fn assigned(part: &Part, h: usize) -> u8 {
    if part.owner == Some(h as u8) { part.assignment } else { 0 }
}
