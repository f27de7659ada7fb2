//! The protocol by which a user moves from one partition of `recipients` to another behind barriers
//! (ADR 18 and 19), as a model that a checker visits completely. It must not know the code it is a
//! model of, except the origin filter, which is [`chaski_core::Watermark::admit`] itself.
//!
//! **What is modelled.** Two partitions of `new-messages` and one of `connection-requests`, each with
//! its log and its owner; p and q of `recipients`, each with its log and its reader. One user lives in
//! p, by the second map in q, by the third in p again. At any time a peer writes to them over either
//! source, and they block the peer and lift the block. Barriers are appended at any time the rules
//! allow. The readers are those of the message service or of the hosts ([`Readers`]), which differ in
//! where they look for the end of a stay. Faults come at any time, as often as [`Faults`] allows: an
//! owner dies and the next one starts from any cursor that may be saved; an owner is overtaken
//! and goes on, stale; an append is lost; a reader dies and starts from what it has saved; a barrier
//! is appended again.
//!
//! **What is not.**
//! - Who owns what and in which order rows are saved: that is the model beside this one.
//! - Chats, other users, devices, tokens, the look-up, expiry, generators that know no barriers, time.
//! - Several users or partitions on either side of one change: no partition both loses and gains.
//!
//! **What is made smaller without leaving out an outcome.**
//! - An owner folds at once what is appended: what a fold gives depends on the order alone, and how
//!   late it comes is how late its outputs reach the logs.
//! - Repeats and holes are not in the logs of p and q: the filter says the same to all readers.
//! - Saves of owners are seen by nobody but the next owner, so a crash chooses the cursor. A reader
//!   saves each step, until the one that no save will follow ([`Action::Doom`]).
//! - BLOCKED is answered as soon as it may be. Who appends barriers knows at once, and may act later.
//! - States that differ in what nobody will look at again are visited once.
//!
//! **How to read a counter-example.** The steps from the start: `s` is a source (0 and 1 of messages, 2
//! of requests), `x` a partition of `recipients` (0 is p, 1 is q); then the last state, whose `shown`
//! is the user's order as far as readers have come. `tests/moves.rs` holds one such story in full.
//!
//! **Its teeth.** Each [`Flaw`] is a rule that is not kept; the checker must find what comes of it.
//! [`Flaw::BlocksOnlyWithAnEvent`] it found in the protocol as it was first written.

pub mod properties;
mod rules;
mod state;
mod steps;

pub use rules::Flaw;
pub use state::{
    Faults, INPUTS, Input, MAPS, Mark, Output, Owner, PARTITIONS, Part, RECORDS, REQUESTS, Record,
    SOURCES, Shown, Source, State, home,
};

use stateright::{Model, Property};

/// Whose readers are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// The message service's: a stay has ended when the old partition's watermark in the store says so.
    Store,
    /// The hosts': a stay has ended when the old partition's log says so. Nobody waits for a host, so
    /// it reads at once; late is who starts again. Who appends barriers asks the store, which may know
    /// as much as the log.
    Hosts,
}

/// The protocol in a small world.
#[derive(Clone, Debug)]
pub struct Moves {
    /// The generation of the last map: 2 for p → q, 3 for p → q → p.
    pub maps: u8,
    /// How many messages the peer sends over each source.
    pub messages: [u8; REQUESTS],
    /// How often the user asks: 1 to block the peer, 2 to lift the block, too.
    pub requests: u8,
    /// Whose readers are looked at.
    pub readers: Readers,
    /// How often faults may strike.
    pub faults: Faults,
    /// The rules that are not kept.
    pub flaws: &'static [Flaw],
}

/// A step. `s` is a source, `x` a partition of `recipients`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The peer sends a message.
    Send { s: usize },
    /// The user asks to block the peer, then to lift the block.
    Ask,
    /// A barrier is appended to a source.
    Barrier { s: usize, generation: u8 },
    /// An owner's oldest output to a partition reaches its log.
    Land { s: usize, x: usize, stale: bool },
    /// An owner that has lost an output starts again from a cursor.
    Again { s: usize, from: u8 },
    /// A reader takes the next record.
    Read { x: usize },
    /// A reader that died starts again.
    Restart { x: usize },
    /// Fault: a barrier is appended again.
    Repeat { s: usize, generation: u8 },
    /// Fault: an owner dies; the next one starts from a cursor.
    Crash { s: usize, from: u8 },
    /// Fault: the same, but the old owner goes on.
    Pause { s: usize, from: u8 },
    /// Fault: an owner's oldest output to a partition is lost.
    Lose { s: usize, x: usize },
    /// Fault: what a reader does from here on is not saved; it will die.
    Doom { x: usize },
}

impl Action {
    /// Whether it may happen, and need not.
    #[must_use]
    pub fn is_fault(self) -> bool {
        use Action::{Crash, Doom, Land, Lose, Pause, Repeat};
        matches!(
            self,
            Repeat { .. }
                | Crash { .. }
                | Pause { .. }
                | Lose { .. }
                | Doom { .. }
                | Land { stale: true, .. }
        )
    }
}

impl Model for Moves {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let source = |s| Source {
            unsaid: self.messages.get(s).copied().unwrap_or(self.requests),
            log: Default::default(),
            owner: Owner::at(0, 1),
            stale: None,
        };
        let mark = |x| Mark {
            next: 0,
            map: [1; SOURCES],
            stay: u8::from(x == home(1)),
            blocked: Default::default(),
        };
        let part = |x| Part {
            log: Default::default(),
            high: Default::default(),
            mark: mark(x),
            saved: mark(x),
            doomed: false,
        };
        vec![State {
            sources: std::array::from_fn(source),
            parts: std::array::from_fn(part),
            shown: Default::default(),
            answered: false,
            overtaken: false,
            dropped: false,
            changed: false,
            left: self.faults,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for s in 0..SOURCES {
            self.appends(state, s, actions);
            Self::steps_of_owners(state, s, actions);
        }
        for (x, part) in state.parts.iter().enumerate() {
            if self.readers == Readers::Store && self.may_read(state, x) {
                actions.push(Action::Read { x });
            }
            if part.doomed {
                actions.push(Action::Restart { x });
            } else if state.left.restarts > 0 {
                actions.push(Action::Doom { x });
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

impl Moves {
    fn breaks(&self, flaw: Flaw) -> bool {
        self.flaws.contains(&flaw)
    }

    /// What may be appended to a source.
    fn appends(&self, state: &State, s: usize, actions: &mut Vec<Action>) {
        let source = &state.sources[s];
        if source.unsaid > 0 {
            actions.push(if s == REQUESTS { Action::Ask } else { Action::Send { s } });
        }
        let newest = source.newest();
        if newest < self.maps && self.may_have_barrier(state, s, newest + 1) {
            actions.push(Action::Barrier { s, generation: newest + 1 });
        }
        if state.left.repeats > 0 {
            let again = |generation| Action::Repeat { s, generation };
            actions.extend((2..=newest).map(again));
        }
    }

    /// Whether the barrier of a generation may be appended to a source.
    fn may_have_barrier(&self, state: &State, s: usize, generation: u8) -> bool {
        let knows = |x: usize, s: usize, generation| self.known(state, x)[s] >= generation;
        let mut everywhere = (0..PARTITIONS).flat_map(|x| (0..SOURCES).map(move |s| (x, s)));
        let alone =
            self.breaks(Flaw::MapsOverlap) || everywhere.all(|(x, s)| knows(x, s, generation - 1));
        // Until nobody writes to the old partition any more, blocks are told there.
        let old = home(generation - 1);
        let passed = |s: usize| match self.breaks(Flaw::RequestsAfterAppends) {
            true => state.sources[s].newest() >= generation,
            false => knows(old, s, generation),
        };
        let last =
            s != REQUESTS || self.breaks(Flaw::BarriersTogether) || (0..REQUESTS).all(passed);
        alone && last
    }

    /// The generation of the last barrier that a partition has admitted, by source, as those know it
    /// who do not read it themselves.
    fn known(&self, state: &State, x: usize) -> [u8; SOURCES] {
        match self.readers {
            Readers::Store => state.parts[x].saved.map,
            Readers::Hosts => state.parts[x].maps_in_log(),
        }
    }

    fn steps_of_owners(state: &State, s: usize, actions: &mut Vec<Action>) {
        let (source, left) = (&state.sources[s], state.left);
        let cursors = || source.owner.saved..=source.owner.frontier();
        let lost = source.owner.lost.is_some();
        for x in 0..PARTITIONS {
            if !source.owner.on_way[x].is_empty() {
                actions.push(Action::Land { s, x, stale: false });
                if left.losses > 0 && !lost {
                    actions.push(Action::Lose { s, x });
                }
            }
            if source.stale.as_ref().is_some_and(|stale| !stale.on_way[x].is_empty()) {
                actions.push(Action::Land { s, x, stale: true });
            }
        }
        if lost {
            actions.extend(cursors().map(|from| Action::Again { s, from }));
        }
        if left.crashes > 0 {
            actions.extend(cursors().map(|from| Action::Crash { s, from }));
        }
        if left.pauses > 0 {
            actions.extend(cursors().map(|from| Action::Pause { s, from }));
        }
    }
}
