//! What each step does. The steps of a worker are those of `delivery-service/src/generator`, which
//! each names; durable things change in [`Part`] alone.

use crate::{
    Action, Duty, Flaw, Input, Kind, Life, Output, Owner, Ownership, Part, Restoring, Row, Saving,
    State, Worker, assigned, digest, rules,
};
use arrayvec::ArrayVec;
use chaski_core::{Offset, Origin, Partition, SourceId, Verdict, Watermark};

impl Ownership {
    pub(crate) fn assign(&self, state: &mut State, h: usize, p: usize) {
        let part = &mut state.parts[p];
        part.owner = Some(h as u8);
        part.assignment = match self.breaks(Flaw::EpochsFromVersions) {
            true => 1,
            false => part.assignment + 1,
        };
    }

    pub(crate) fn apply(&self, state: &mut State, action: Action) {
        match action {
            Action::Crash { h } => {
                state.left.crashes -= 1;
                state.hosts[h].life = Life::Down;
                state.hosts[h].duties = Default::default();
            }
            Action::Pause { h } => {
                state.left.pauses -= 1;
                state.hosts[h].life = Life::Paused;
            }
            Action::Expire { h } => state.hosts[h].session = false,
            Action::Resume { h } => state.hosts[h].life = Life::Up,
            Action::Restart { h } => {
                // A new process has a new session, or adopts what is assigned to the old one.
                state.hosts[h].life = Life::Up;
                state.hosts[h].session = true;
            }
            Action::Register { h } => {
                state.hosts[h].session = true;
                state.hosts[h].duties = Default::default();
            }
            Action::Move { h, p } => {
                state.left.moves -= 1;
                self.assign(state, h, p);
            }
            Action::Assign { h, p } => self.assign(state, h, p),
            Action::Learn { h, p } => {
                let assignment = assigned(&state.parts[p], h);
                state.hosts[h].duties[p] = Duty { assignment, worker: Worker::Idle };
            }
            Action::Again { h, p } => state.hosts[h].duties[p].worker = Worker::Idle,
            Action::Claim { h, p } => {
                let State { hosts, parts, .. } = state;
                self.claim(&mut hosts[h].duties[p], &mut parts[p]);
            }
            Action::Lose { h, p } => {
                state.left.losses -= 1;
                let owner = owner_mut(state, h, p);
                owner.lost = Some(owner.in_flight.remove(0).origin);
            }
            Action::Land { h, p } => {
                let output = owner_mut(state, h, p).in_flight.remove(0);
                self.consume(&mut state.parts[p], output);
            }
            Action::Load { h, p } => {
                let State { hosts, parts, .. } = state;
                self.load(&mut hosts[h].duties[p].worker, &parts[p]);
            }
            Action::Fold { h, p } => fold(owner_mut(state, h, p), self.logs[p]),
            Action::Take { h, p } => self.take(owner_mut(state, h, p)),
            Action::Save { h, p } => {
                let State { hosts, parts, .. } = state;
                if let Worker::Owner(owner) = &mut hosts[h].duties[p].worker {
                    self.save(owner, &mut parts[p]);
                }
            }
        }
    }

    /// `CheckpointStore::claim`: read and conditional write are one step, as LWT makes them.
    fn claim(&self, duty: &mut Duty, part: &mut Part) {
        let old = match duty.worker {
            Worker::Claiming(old) => old,
            _ if self.breaks(Flaw::ClaimsWithoutLwt) => {
                duty.worker = Worker::Claiming(part.claimed);
                return;
            }
            _ => part.claimed,
        };
        let epoch = match self.breaks(Flaw::EpochsFromVersions) {
            true => duty.assignment,
            false => duty.assignment.max(old + 1),
        };
        (part.claimed, part.claimed_for) = (epoch, duty.assignment);
        duty.worker = Worker::Restoring(Restoring { epoch, step: 0, rows: Default::default() });
    }

    /// `checkpoint::restore`, one read at a time.
    fn load(&self, worker: &mut Worker, part: &Part) {
        let Worker::Restoring(restoring) = worker else { return };
        let reads = rules::reads(self.flaws);
        for kind in reads[usize::from(restoring.step)] {
            // Whose row it is does not matter to the reader.
            restoring.rows[*kind as usize] = Row { epoch: 0, ..part.rows[*kind as usize] };
        }
        restoring.step += 1;
        if usize::from(restoring.step) < reads.len() {
            return if self.coarse {
                self.load(worker, part)
            };
        }
        let [chat, clock, cursor] = restoring.rows;
        let ahead = |row: Row| if row.at > cursor.at { row.at } else { 0 };
        // The cursor becomes this owner's before any snapshot does.
        let own = |row: Row| Some(Row { epoch: restoring.epoch, ..row });
        let take = [None, own(clock), own(cursor)];
        let saving = (!self.breaks(Flaw::CursorNotTaken)).then(|| self.saving(take));
        *worker = Worker::Owner(Owner {
            epoch: restoring.epoch,
            folded: cursor.at,
            chat: chat.value,
            chat_ahead: ahead(chat),
            clock: clock.value,
            clock_ahead: ahead(clock),
            prev: None,
            in_flight: ArrayVec::new(),
            lost: None,
            taken: cursor.at,
            dirty: [false; 2],
            saving,
        });
    }

    /// `Checkpoint::take`.
    fn take(&self, owner: &mut Owner) {
        let row = |value| Row { epoch: owner.epoch, at: owner.folded, value };
        let [chat, clock] = owner.dirty;
        // With the cursor, the time is written always.
        let clock = clock || !self.breaks(Flaw::ClockApart);
        let rows = [chat.then(|| row(owner.chat)), clock.then(|| row(owner.clock)), Some(row(0))];
        owner.saving = Some(self.saving(rows));
        owner.taken = owner.folded;
        owner.dirty = [false; 2];
    }

    /// `Checkpoint::write`, one write at a time.
    fn save(&self, owner: &mut Owner, part: &mut Part) {
        let Some(saving) = &mut owner.saving else { return };
        let writes = rules::writes(self.flaws);
        for kind in writes[usize::from(saving.step)] {
            if let Some(row) = saving.rows[*kind as usize] {
                let old = &mut part.rows[*kind as usize];
                let wins = if self.breaks(Flaw::LastWriteWins) {
                    true
                } else if self.breaks(Flaw::RowsByPlace) {
                    row.at >= old.at
                } else {
                    row >= *old
                };
                if wins {
                    part.went_back |= row.epoch < old.epoch;
                    *old = row;
                }
            }
        }
        saving.step = self.next_write(saving, saving.step + 1);
        if usize::from(saving.step) == writes.len() {
            owner.saving = None;
        }
    }

    fn saving(&self, rows: [Option<Row>; 3]) -> Saving {
        let saving = Saving { rows, step: 0 };
        Saving { step: self.next_write(&saving, 0), ..saving }
    }

    /// The next write, from `step` on, that has a row: what did not change needs none.
    fn next_write(&self, saving: &Saving, step: u8) -> u8 {
        let writes = &rules::writes(self.flaws)[usize::from(step)..];
        let has_row = |kinds: &&[Kind]| kinds.iter().any(|k| saving.rows[*k as usize].is_some());
        step + writes.iter().position(has_row).unwrap_or(writes.len()) as u8
    }

    /// A consumer of `recipients`, by the filter that all of them use.
    fn consume(&self, part: &mut Part, output: Output) {
        let high = part.applied.last().map(|(origin, _)| *origin);
        let prev = if self.breaks(Flaw::NoPrev) { None } else { output.prev };
        if self.breaks(Flaw::NoFilter) || admit(high, output.origin, prev) == Verdict::Apply {
            // A log that is full already has shown what was to be shown.
            let _ = part.applied.try_push((output.origin, output.chat));
        }
    }
}

/// `chaski_core::fold::Fold::apply`: what a snapshot holds already gives no output.
fn fold(owner: &mut Owner, log: &[Input]) {
    let origin = owner.folded;
    owner.folded += 1;
    match log[usize::from(origin)] {
        Input::Tick if origin >= owner.clock_ahead => {
            owner.clock += 1;
            owner.dirty[Kind::Clock as usize] = true;
        }
        Input::Message if origin >= owner.chat_ahead => {
            owner.chat = digest(owner.chat, owner.clock);
            owner.dirty[Kind::Chat as usize] = true;
            owner.in_flight.push(Output { origin, prev: owner.prev, chat: owner.chat });
            owner.prev = Some(origin);
        }
        _ => {}
    }
    for ahead in [&mut owner.chat_ahead, &mut owner.clock_ahead] {
        if *ahead <= owner.folded {
            *ahead = 0;
        }
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

fn owner_mut(state: &mut State, h: usize, p: usize) -> &mut Owner {
    match &mut state.hosts[h].duties[p].worker {
        Worker::Owner(owner) => owner,
        _ => unreachable!("only an owner does this"),
    }
}
