//! What must hold in every state, and what must be reachable so that this says anything.

use super::{Action, Input, Moves, REQUESTS, Shown, State};
use stateright::{Model, Property};

/// L4: nothing comes to stand before what was shown.
pub const POSITIONS_GROW: &str = "the user's positions only grow";
/// L4: an event has one position and one fate for every reader, whenever it comes to it.
pub const SAME_FOR_ALL: &str = "an event is the same for every reader";
/// L5: nothing is shown twice.
pub const ONCE: &str = "every event is shown once";
/// L5: nothing stands behind the end of its stay.
pub const NOTHING_DROPPED: &str = "nothing is said for a user who has left";
/// L7: nothing that was sent after the answer is shown.
pub const BLOCKED: &str = "what is sent after BLOCKED is hidden until a lift";
/// L7: the order decides, across stays.
pub const FATE: &str = "hidden is what stands behind a block and before its lift";
/// Where faults end, all is shown: nothing is lost, and nobody waits in a circle.
pub const PROGRESS: &str = "where nothing is left to do, everything is shown";

/// Reachable: a reader waits at the first event of a stay.
pub const WAITED: &str = "a reader waits for the end of the stay before";
/// Reachable: an event in each stay.
pub const EVERYWHERE: &str = "something is shown in every stay";
/// Reachable: a block of an earlier stay decides.
pub const CARRIED: &str = "a block of an earlier stay hides what was sent after it";
/// Reachable: the end, after every fault.
pub const SURVIVED: &str = "all is shown after all faults";

pub(super) fn all() -> Vec<Property<Moves>> {
    vec![
        Property::always(POSITIONS_GROW, |_, state: &State| !state.overtaken),
        Property::always(SAME_FOR_ALL, |_, state: &State| !state.changed && true_stays(state)),
        Property::always(ONCE, |_, state: &State| {
            let mut records = state.shown.iter().enumerate();
            records.all(|(n, a)| state.shown[..n].iter().all(|b| a.record != b.record))
        }),
        Property::always(NOTHING_DROPPED, |_, state: &State| !state.dropped),
        Property::always(BLOCKED, |_, state: &State| {
            let lifted = state.edges().find(|(_, blocks)| !blocks).map(|(position, _)| position);
            let behind = |position| lifted.is_some_and(|lifted| lifted < position);
            state.shown.iter().all(|s| !is_late(s) || s.hidden || behind(s.position))
        }),
        Property::always(FATE, |_, state| fates_follow_from_the_order(state)),
        Property::always(PROGRESS, |model, state| done(model, state) || !quiet(model, state)),
        Property::sometimes(WAITED, |model: &Moves, state: &State| {
            let waits = |(x, part): (usize, &super::Part)| {
                usize::from(part.mark.next) < part.log.len() && !model.may_read(state, x)
            };
            state.parts.iter().enumerate().any(waits)
        }),
        Property::sometimes(EVERYWHERE, |model: &Moves, state: &State| {
            let shown_in = |stay| state.shown.iter().any(|shown| shown.position.0 == stay);
            (1..=model.maps).all(shown_in)
        }),
        Property::sometimes(CARRIED, |_, state: &State| {
            let block = state.shown.iter().find(|shown| shown.record.what == Input::Block);
            let stay = block.map(|block| block.position.0);
            let decided =
                |stay| state.shown.iter().any(|s| s.position.0 > stay && s.hidden && is_late(s));
            stay.is_some_and(decided)
        }),
        Property::sometimes(SURVIVED, |model, state: &State| {
            state.left == super::Faults::default() && done(model, state)
        }),
    ]
}

/// Each event stands in the stay that its place in the source gives it.
fn true_stays(state: &State) -> bool {
    state.shown.iter().all(|shown| {
        let source = &state.sources[usize::from(shown.record.source)];
        shown.position.0 == source.map_at(shown.record.origin)
    })
}

fn is_late(shown: &Shown) -> bool {
    shown.record.what == Input::Message { late: true }
}

fn fates_follow_from_the_order(state: &State) -> bool {
    state.shown.iter().filter(|shown| shown.record.what.blocks().is_none()).all(|shown| {
        let before = state.edges().filter(|(position, _)| *position < shown.position);
        shown.hidden == before.last().is_some_and(|(_, blocks)| blocks)
    })
}

fn done(model: &Moves, state: &State) -> bool {
    let events = usize::from(model.messages.iter().sum::<u8>() + model.requests);
    let barriers = state.sources.iter().all(|source| source.newest() == model.maps);
    let read = |part: &super::Part| usize::from(part.mark.next) == part.log.len();
    let sent = |s: usize| state.sources[s].owner.on_way.iter().all(|outputs| outputs.is_empty());
    barriers
        && state.shown.len() == events
        && state.parts.iter().all(read)
        && (0..=REQUESTS).all(sent)
}

/// No step is left but faults. Every other step brings something nearer to its end, so each run
/// comes to such a state.
fn quiet(model: &Moves, state: &State) -> bool {
    if state.sources.iter().any(|source| source.unsaid > 0) {
        return false;
    }
    let mut actions = Vec::new();
    model.actions(state, &mut actions);
    actions.into_iter().all(Action::is_fault)
}
