//! The protocol has no counter-example, and each of its rules is needed: without it there is one.

use chaski_ownership_model::{
    Action, Faults, Flaw,
    Input::{self, Message, Tick},
    Ownership,
    properties::{
        CLAIMS_GROW, ONCE_IN_ORDER, OWNER_IS_GREATEST, PROGRESS, ROWS_GROW, SAVED_IS_OUT,
        TRUE_STATE,
    },
};
use stateright::{Checker, HasDiscoveries, Model};
use std::{io::Write, time::Instant};

const NONE: Faults = Faults { crashes: 0, pauses: 0, moves: 0, losses: 0 };
const A_PAUSE: Faults = Faults { pauses: 1, ..NONE };
const A_CRASH: Faults = Faults { crashes: 1, ..NONE };
const A_LOSS: Faults = Faults { losses: 1, ..NONE };
const BOTH: Faults = Faults { crashes: 1, pauses: 1, ..NONE };
const TWO_CRASHES_AND_A_PAUSE: Faults = Faults { crashes: 2, pauses: 1, ..NONE };

const M: &[Input] = &[Message];
const MM: &[Input] = &[Message, Message];
const MT: &[Input] = &[Message, Tick];
const MMT: &[Input] = &[Message, Message, Tick];

/// One partition, step by step.
fn one(log: &'static [Input], faults: Faults, flaws: &'static [Flaw]) -> Ownership {
    Ownership { logs: [log, &[]], faults, coarse: false, flaws }
}

/// Visits every state there is.
fn exhaust(what: &str, model: Ownership) -> impl Checker<Ownership> {
    let begun = Instant::now();
    let checker = model.checker().symmetry().threads(2).spawn_dfs().join();
    let (states, depth) = (checker.unique_state_count(), checker.max_depth());
    let line = format!("{what}: {states} states, {depth} steps deep, {:.1?}\n", begun.elapsed());
    // Past the capture: how much was visited is part of the result.
    std::io::stderr().write_all(line.as_bytes()).expect("standard error is there");
    checker
}

#[test]
fn l6_three_hosts_two_partitions_two_crashes_and_a_pause() {
    let faults = TWO_CRASHES_AND_A_PAUSE;
    let model = Ownership { logs: [MM, MM], faults, coarse: true, flaws: &[] };
    exhaust("two partitions", model).assert_properties();
}

#[test]
fn l6_one_partition_step_by_step() {
    exhaust("one partition", one(MMT, TWO_CRASHES_AND_A_PAUSE, &[])).assert_properties();
}

#[test]
fn l5_a_lost_output_and_a_planned_move() {
    let faults = Faults { moves: 1, ..A_LOSS };
    exhaust("a loss and a move", one(MM, Faults { crashes: 1, ..faults }, &[])).assert_properties();
}

#[test]
fn every_rule_is_needed() {
    check(Flaw::LateClaims, M, A_PAUSE, OWNER_IS_GREATEST);
    check(Flaw::LateClaims, M, A_PAUSE, PROGRESS);
    check(Flaw::CursorNotTaken, MM, BOTH, TRUE_STATE);
    check(Flaw::ClockApart, MT, A_PAUSE, TRUE_STATE);
    check(Flaw::ClaimsWithoutLwt, M, BOTH, CLAIMS_GROW);
    check(Flaw::EpochsFromVersions, M, A_PAUSE, CLAIMS_GROW);
    check(Flaw::SavesUnacknowledged, M, NONE, SAVED_IS_OUT);
    check(Flaw::SavesCursorFirst, M, A_CRASH, TRUE_STATE);
    check(Flaw::ReadsCursorLast, M, A_PAUSE, TRUE_STATE);
    check(Flaw::LastWriteWins, MM, BOTH, TRUE_STATE);
    check(Flaw::RowsByPlace, M, A_PAUSE, ROWS_GROW);
    check(Flaw::NoFilter, M, A_CRASH, ONCE_IN_ORDER);
    check(Flaw::NoPrev, MM, A_LOSS, ONCE_IN_ORDER);
}

/// Without this rule the checker finds a state in which `property` does not hold; with it, none.
#[track_caller]
fn check(flaw: Flaw, log: &'static [Input], faults: Faults, property: &'static str) {
    let flaws: &'static [Flaw] = Box::leak(Box::new([flaw]));
    let find = |flaws| {
        let stop = HasDiscoveries::AnyOf([property].into());
        one(log, faults, flaws).checker().symmetry().finish_when(stop).spawn_dfs().join()
    };
    assert!(find(flaws).discovery(property).is_some(), "{flaw:?} was not found by {property:?}");
    find(&[]).assert_no_discovery(property);
}

/// A new owner that does not make the cursor its own. An old one's cursor is then found beside the
/// new one's snapshot of an earlier place: a message is in neither, its seq is given again.
#[test]
fn l5_a_cursor_that_is_not_taken_skips_a_message() {
    let (old, new) =
        (|f: fn(usize, usize) -> Action| f(0, 0), |f: fn(usize, usize) -> Action| f(2, 0));
    let claim = |h, p| Action::Claim { h, p };
    let load = |h, p| Action::Load { h, p };
    let fold = |h, p| Action::Fold { h, p };
    let land = |h, p| Action::Land { h, p };
    let take = |h, p| Action::Take { h, p };
    let save = |h, p| Action::Save { h, p };
    let learn = |h, p| Action::Learn { h, p };
    let story = vec![
        Action::Pause { h: 0 },
        Action::Expire { h: 0 },
        Action::Resume { h: 0 },
        // It has not noticed, and starts on an assignment that is about to go.
        old(claim),
        old(load),
        Action::Assign { h: 2, p: 0 },
        new(learn),
        new(claim),
        new(load),
        new(load),
        new(fold),
        new(land),
        new(take),
        new(save), // the snapshot at 1, epoch 2; not the cursor
        old(load),
        old(fold),
        old(fold),
        old(land),
        old(take),
        old(save), // the snapshot at 2, epoch 1: loses
        old(save), // the cursor at 2, epoch 1: there is no other
        Action::Crash { h: 2 },
        Action::Restart { h: 2 },
        new(learn),
        new(claim),
        new(load),
        new(load), // cursor at 2, snapshot at 1
    ];
    let model = one(MM, BOTH, &[Flaw::CursorNotTaken]);
    let stop = HasDiscoveries::AnyOf([TRUE_STATE].into());
    let checker = model.checker().symmetry().finish_when(stop).spawn_dfs().join();
    checker.assert_discovery(TRUE_STATE, story);
}

/// Rows say what is true at a place, whoever writes them. Ordered by place alone they need neither
/// the new owner's mark on the cursor nor the refusal of late claims.
#[test]
fn l5_rows_ordered_by_place_alone_lose_nothing() {
    let flaws = &[Flaw::RowsByPlace, Flaw::CursorNotTaken, Flaw::LateClaims];
    let checker = exhaust("rows by place", one(MM, BOTH, flaws));
    for property in [ONCE_IN_ORDER, TRUE_STATE, SAVED_IS_OUT, CLAIMS_GROW, PROGRESS] {
        checker.assert_no_discovery(property);
    }
}
