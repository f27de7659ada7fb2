//! What each step does: owners fold and send, the filter admits, readers show.

use super::{
    Action, Flaw, Input, Mark, Moves, Output, Owner, PARTITIONS, Part, REQUESTS, Readers, Record,
    SOURCES, Shown, Source, State, home,
};
use chaski_core::{Offset, Origin, Partition, SourceId, Verdict, Watermark};

/// Where a stay ends, as a reader of the next one knows it.
struct End {
    known: bool,
    blocked: bool,
}

impl Moves {
    pub(super) fn apply(&self, state: &mut State, action: Action) {
        match action {
            Action::Send { s } => {
                state.sources[s].unsaid -= 1;
                let late = state.answered;
                state.sources[s].log.push(Input::Message { late });
            }
            Action::Ask => {
                let requests = &mut state.sources[REQUESTS];
                requests.unsaid -= 1;
                let blocked = requests.log.contains(&Input::Block);
                requests.log.push(if blocked { Input::Lift } else { Input::Block });
            }
            Action::Barrier { s, generation } => {
                state.sources[s].log.push(Input::Barrier(generation));
            }
            Action::Repeat { s, generation } => {
                state.left.repeats -= 1;
                state.sources[s].log.push(Input::Barrier(generation));
            }
            Action::Land { s, x, stale } => self.land(state, s, x, stale),
            Action::Lose { s, x } => {
                state.left.losses -= 1;
                let owner = &mut state.sources[s].owner;
                owner.lost = Some(owner.on_way[x].remove(0).origin);
            }
            Action::Again { s, from } => self.start(state, s, from),
            Action::Crash { s, from } => {
                state.left.crashes -= 1;
                self.start(state, s, from);
            }
            Action::Pause { s, from } => {
                state.left.pauses -= 1;
                let old = state.sources[s].owner.clone();
                self.start(state, s, from);
                state.sources[s].stale = Some(old);
            }
            Action::Read { x } => self.read(state, x),
            Action::Doom { x } => {
                state.left.restarts -= 1;
                state.parts[x].doomed = true;
            }
            Action::Restart { x } => {
                let part = &mut state.parts[x];
                (part.mark, part.doomed) = (part.saved, false);
                if self.breaks(Flaw::EndNotSaved) {
                    part.mark.map = [1; SOURCES];
                    part.saved = part.mark;
                }
            }
        }
        for s in 0..SOURCES {
            let Source { log, owner, stale, .. } = &mut state.sources[s];
            for owner in [Some(owner), stale.as_mut()].into_iter().flatten() {
                self.fold(owner, log, s, &state.parts);
            }
        }
        if self.readers == Readers::Hosts {
            while let Some(x) = (0..PARTITIONS).find(|x| self.may_read(state, *x)) {
                self.read(state, x);
            }
        }
    }

    /// A new owner, from a cursor; the generation of the map is saved with it.
    fn start(&self, state: &mut State, s: usize, from: u8) {
        let map = if self.breaks(Flaw::MapNotSaved) {
            1
        } else if self.breaks(Flaw::NewestMapAtStart) {
            state.sources.iter().map(Source::newest).max().unwrap_or(1)
        } else {
            state.sources[s].map_at(from)
        };
        state.sources[s].owner = Owner::at(from, map);
    }

    /// Takes the inputs that are there, and sends what comes of them. That of requests takes none
    /// before the outputs of the one before are in the log. A repeat is seen by nobody: it is taken
    /// for landed.
    fn fold(&self, owner: &mut Owner, log: &[Input], s: usize, parts: &[Part; PARTITIONS]) {
        let by_rounds = s == REQUESTS && !self.breaks(Flaw::RequestsInFlight);
        loop {
            for (outputs, part) in owner.on_way.iter_mut().zip(parts) {
                let repeats = |output: &Output| part.high[s].is_some_and(|h| output.origin <= h);
                outputs.retain(|output| self.breaks(Flaw::NoFilter) || !repeats(output));
            }
            let full = by_rounds && owner.on_way.iter().any(|outputs| !outputs.is_empty());
            match log.get(usize::from(owner.folded)) {
                Some(what) if owner.lost.is_none() && !full => self.take(owner, *what),
                _ => return,
            }
        }
    }

    /// Folds one input.
    fn take(&self, owner: &mut Owner, what: Input) {
        let origin = owner.folded;
        owner.folded += 1;
        if let Input::Barrier(generation) = what {
            let counts = match self.breaks(Flaw::OldBarriersCount) {
                true => generation != owner.map,
                false => generation > owner.map,
            };
            if !counts {
                return;
            }
            owner.map = generation;
        }
        for x in 0..PARTITIONS {
            let to_all =
                matches!(what, Input::Barrier(_)) && !self.breaks(Flaw::BarrierToTheNewHomeOnly);
            if to_all || x == home(owner.map) {
                let prev = owner.prev[x].replace(origin);
                owner.on_way[x].push(Output { origin, prev, what });
            }
        }
    }

    /// An output reaches the log. Where the filter does not admit it, it is as if it were not there.
    fn land(&self, state: &mut State, s: usize, x: usize, stale: bool) {
        let source = &mut state.sources[s];
        let owner = match &mut source.stale {
            Some(owner) if stale => owner,
            _ => &mut source.owner,
        };
        let Output { origin, prev, what } = owner.on_way[x].remove(0);
        let part = &mut state.parts[x];
        let prev = if self.breaks(Flaw::NoPrev) { None } else { prev };
        if self.breaks(Flaw::NoFilter) || admit(part.high[s], origin, prev) == Verdict::Apply {
            part.high[s] = Some(origin);
            part.log.push(Record { source: s as u8, origin, what });
            let stay = state.sources[s].map_at(origin);
            state.overtaken |=
                what.is_event() && state.shown.iter().any(|shown| shown.position.0 > stay);
        }
        // In the log, as far as its sender knows.
        state.answered |= what == Input::Block;
    }

    /// Whether a reader has something to read for which it need not wait.
    pub(super) fn may_read(&self, state: &State, x: usize) -> bool {
        let Part { log, mark, .. } = &state.parts[x];
        let Some(record) = log.get(usize::from(mark.next)) else { return false };
        self.begins(x, mark, record).is_none_or(|generation| {
            self.end_before(state, generation).known || self.breaks(Flaw::QDoesNotWait)
        })
    }

    /// The stay that begins in `x` with this record, if one does: with the first event, or, where
    /// there is none, with the last barrier. What is behind that barrier counts on the blocks.
    fn begins(&self, x: usize, mark: &Mark, record: &Record) -> Option<u8> {
        let mut map = mark.map;
        if let Input::Barrier(generation) = record.what {
            map[usize::from(record.source)] = generation;
            let last = map.iter().all(|map| *map == generation);
            // Nobody asks a host how a stay has ended: it need not wait without an event.
            let asked = self.readers == Readers::Store;
            if !last || !asked || self.breaks(Flaw::BlocksOnlyWithAnEvent) {
                return None;
            }
        }
        let generation = map[usize::from(record.source)];
        (home(generation) == x && generation > mark.stay.max(1)).then_some(generation)
    }

    /// The end of the stay before that of `generation`.
    fn end_before(&self, state: &State, generation: u8) -> End {
        let old = &state.parts[home(generation - 1)];
        let says = |maps: [u8; SOURCES]| {
            let mut maps = maps.into_iter().map(|map| map >= generation);
            match () {
                () if self.breaks(Flaw::EndFromOneSource) => maps.any(|ended| ended),
                () if self.breaks(Flaw::EndWithoutRequests) => maps.take(REQUESTS).all(|e| e),
                () => maps.all(|ended| ended),
            }
        };
        match self.readers {
            Readers::Store => End {
                known: says(match self.breaks(Flaw::EndBeforeItIsStored) {
                    true => old.maps_in_log(),
                    false => old.saved.map,
                }),
                blocked: old.saved.blocked[usize::from(generation - 1)],
            },
            Readers::Hosts => End {
                known: says(old.maps_in_log()),
                blocked: {
                    let now = |stay| {
                        self.breaks(Flaw::BlocksAsOfNow) && home(stay) == home(generation - 1)
                    };
                    let counts = |stay| stay < generation || now(stay);
                    let edges = state.edges().filter(|((stay, _), _)| counts(*stay));
                    edges.last().is_some_and(|(_, blocks)| blocks)
                },
            },
        }
    }

    /// A reader takes the next record: a barrier, or an event of the user.
    fn read(&self, state: &mut State, x: usize) {
        let Part { log, mut mark, doomed, .. } = state.parts[x].clone();
        let record = log[usize::from(mark.next)];
        if let Some(generation) = self.begins(x, &mark, &record) {
            let early = record.what.is_event() && mark.map.iter().any(|map| *map < generation);
            if !early || !self.breaks(Flaw::BlocksFromTheLastBarrier) {
                mark.stay = generation;
                let stay = usize::from(generation);
                let carried = self.end_before(state, generation).blocked;
                let old = self.breaks(Flaw::OldEdgesCount) && stay > 2 && mark.blocked[stay - 2];
                mark.blocked[stay] = old || carried && !self.breaks(Flaw::BlocksLeftBehind);
            }
        }
        let generation = mark.map[usize::from(record.source)];
        let behind_the_end = home(generation) != x || self.has_ended(&mark, generation);
        let blocked = &mut mark.blocked[usize::from(generation)];
        match record.what {
            Input::Barrier(next) => mark.map[usize::from(record.source)] = next,
            // Nobody looks there for more of the stay.
            _ if behind_the_end => state.dropped = true,
            what => {
                let hidden = *blocked && what.blocks().is_none();
                *blocked = what.blocks().unwrap_or(*blocked);
                show(state, Shown { position: (generation, mark.next), record, hidden });
            }
        }
        mark.next += 1;
        let part = &mut state.parts[x];
        part.mark = mark;
        if !doomed {
            part.saved = mark;
        }
    }

    fn has_ended(&self, mark: &Mark, generation: u8) -> bool {
        let mut maps = mark.map.iter().map(|map| *map > generation);
        match self.breaks(Flaw::EndFromOneSource) {
            true => maps.any(|ended| ended),
            false => maps.all(|ended| ended),
        }
    }
}

/// A reader has come to an event, perhaps again.
fn show(state: &mut State, event: Shown) {
    match state.shown.iter().find(|shown| shown.position == event.position) {
        Some(before) => state.changed |= *before != event,
        None => state.changed |= state.shown.try_push(event).is_err(),
    }
    state.shown.sort_unstable();
}

impl Part {
    /// The generation of the last barrier in the log, by source.
    pub(super) fn maps_in_log(&self) -> [u8; SOURCES] {
        let mut maps = [1; SOURCES];
        for record in &self.log {
            if let Input::Barrier(generation) = record.what {
                maps[usize::from(record.source)] = generation;
            }
        }
        maps
    }
}

/// [`Watermark::admit`] for one source.
fn admit(high: Option<u8>, origin: u8, prev: Option<u8>) -> Verdict {
    let source = (SourceId(0), Partition(0));
    let place = |origin: u8| Origin { offset: Offset(origin.into()), index: 0 };
    let high = high.map(|high| (source, place(high)));
    let mut mark = Watermark { next: Offset(0), high: high.into_iter().collect() };
    mark.admit(source, place(origin), prev.map(place))
}
