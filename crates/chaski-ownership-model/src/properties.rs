//! What must hold in every state, and what must be reachable so that this says anything.

use crate::{Action, Kind, Life, Ownership, State, Worker, assigned, truth};
use stateright::{Model, Property};

/// L2, L5: what consumers apply is the source's order, without gap, repeat or other content.
pub const ONCE_IN_ORDER: &str = "every message is applied once and in order";
/// L5: an owner's state is what the inputs before its place give.
pub const TRUE_STATE: &str = "an owner's state is the log's";
/// L5: what is saved counts on nothing that consumers may never see.
pub const SAVED_IS_OUT: &str = "nothing is saved before its effects are durable";
/// L6: of two claims one is the greater.
pub const CLAIMS_GROW: &str =
    "no two owners have the same epoch and the last claim is the greatest";
/// L6: nobody claims past the owner that the allocator wants.
pub const OWNER_IS_GREATEST: &str = "the assigned owner's epoch is the greatest";
/// L6: an older owner's rows do not replace a newer one's.
pub const ROWS_GROW: &str = "no row gives way to an older owner's";
/// Where faults end, all is applied and saved.
pub const PROGRESS: &str = "where nothing is left to do, everything is done";

/// Reachable: two owners at once, the older one saving.
pub const ZOMBIE: &str = "an older owner saves while a newer one folds";
/// Reachable: a snapshot ahead of its cursor.
pub const AHEAD: &str = "an owner starts from a snapshot ahead of the cursor";
/// Reachable: the end, after every fault.
pub const SURVIVED: &str = "all is done after all faults";

pub(crate) fn all() -> Vec<Property<Ownership>> {
    vec![
        Property::always(ONCE_IN_ORDER, |model, state| each(model, state, once_in_order)),
        Property::always(TRUE_STATE, |model, state| each(model, state, true_state)),
        Property::always(SAVED_IS_OUT, |model, state| each(model, state, saved_is_out)),
        Property::always(CLAIMS_GROW, |model, state| each(model, state, claims_grow)),
        Property::always(OWNER_IS_GREATEST, |model, state| each(model, state, owner_is_greatest)),
        Property::always(ROWS_GROW, |model, state| {
            each(model, state, |_, state, p| !state.parts[p].went_back)
        }),
        Property::always(PROGRESS, |model, state| each(model, state, done) || !quiet(model, state)),
        Property::sometimes(ZOMBIE, |model, state| !each(model, state, |_, s, p| !zombie(s, p))),
        Property::sometimes(AHEAD, |model, state| !each(model, state, |_, s, p| !ahead(s, p))),
        Property::sometimes(SURVIVED, |model, state: &State| {
            let left = state.left;
            [left.crashes, left.pauses, left.moves, left.losses] == [0; 4]
                && each(model, state, done)
        }),
    ]
}

fn each(
    model: &Ownership,
    state: &State,
    holds: impl Fn(&Ownership, &State, usize) -> bool,
) -> bool {
    model.partitions().all(|p| holds(model, state, p))
}

fn workers(state: &State, p: usize) -> impl Iterator<Item = &Worker> {
    state.hosts.iter().map(move |host| &host.duties[p].worker)
}

fn once_in_order(model: &Ownership, state: &State, p: usize) -> bool {
    let log = model.logs[p];
    let (_, _, all) = truth(log, log.len() as u8);
    all.starts_with(&state.parts[p].applied)
}

fn true_state(model: &Ownership, state: &State, p: usize) -> bool {
    workers(state, p).all(|worker| {
        let Worker::Owner(owner) = worker else { return true };
        let at = |ahead: u8| truth(model.logs[p], ahead.max(owner.folded));
        owner.chat == at(owner.chat_ahead).0 && owner.clock == at(owner.clock_ahead).1
    })
}

fn saved_is_out(model: &Ownership, state: &State, p: usize) -> bool {
    let part = &state.parts[p];
    let at = part.rows.iter().map(|row| row.at).max().unwrap_or(0);
    let (_, _, outputs) = truth(model.logs[p], at);
    outputs.iter().all(|output| part.applied.contains(output))
}

fn claims_grow(_: &Ownership, state: &State, p: usize) -> bool {
    let epochs = || workers(state, p).filter_map(Worker::epoch);
    let distinct = epochs().enumerate().all(|(i, a)| epochs().skip(i + 1).all(|b| a != b));
    distinct && epochs().all(|epoch| epoch <= state.parts[p].claimed)
}

fn owner_is_greatest(_: &Ownership, state: &State, p: usize) -> bool {
    let part = &state.parts[p];
    let assigned = state.hosts.iter().enumerate().filter(|(h, host)| {
        let assignment = host.duties[p].assignment;
        assignment > 0 && assignment == assigned(part, *h)
    });
    let mut epochs = assigned.filter_map(|(_, host)| host.duties[p].worker.epoch());
    epochs.all(|epoch| epoch == part.claimed)
}

fn done(model: &Ownership, state: &State, p: usize) -> bool {
    let (part, log) = (&state.parts[p], model.logs[p]);
    let (_, _, outputs) = truth(log, log.len() as u8);
    part.applied[..] == outputs[..] && usize::from(part.rows[Kind::Cursor as usize].at) == log.len()
}

/// No step is left but faults. Every other step brings something nearer to its end, so each run
/// comes to such a state.
fn quiet(model: &Ownership, state: &State) -> bool {
    if state.hosts.iter().any(|host| host.life != Life::Up || !host.session) {
        return false;
    }
    let mut actions = Vec::new();
    model.actions(state, &mut actions);
    actions.into_iter().all(Action::is_fault)
}

fn zombie(state: &State, p: usize) -> bool {
    let owners = || {
        workers(state, p).filter_map(|worker| match worker {
            Worker::Owner(owner) => Some(owner),
            _ => None,
        })
    };
    owners().any(|old| old.saving.is_some() && owners().any(|new| new.epoch > old.epoch))
}

fn ahead(state: &State, p: usize) -> bool {
    workers(state, p).any(|worker| matches!(worker, Worker::Owner(o) if o.chat_ahead > 0))
}
