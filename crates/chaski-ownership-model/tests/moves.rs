//! A user moves there and back: the protocol has no counter-example, and each of its rules is needed:
//! without it there is one.

use chaski_ownership_model::moves::{
    Action, Faults, Flaw, Moves, Readers,
    properties::{BLOCKED, FATE, NOTHING_DROPPED, ONCE, POSITIONS_GROW, PROGRESS, SAME_FOR_ALL},
};
use stateright::{Checker, HasDiscoveries, Model};
use std::{io::Write, time::Instant};

const NONE: Faults = Faults { crashes: 0, pauses: 0, losses: 0, restarts: 0, repeats: 0 };
const A_CRASH: Faults = Faults { crashes: 1, ..NONE };
const A_LOSS: Faults = Faults { losses: 1, ..NONE };
const A_RESTART: Faults = Faults { restarts: 1, ..NONE };
const A_REPEAT: Faults = Faults { repeats: 1, ..NONE };
const A_CRASH_AND_A_PAUSE: Faults = Faults { crashes: 1, pauses: 1, ..NONE };

/// p → q.
const THERE: u8 = 2;
/// p → q → p.
const AND_BACK: u8 = 3;

/// A message over each source, and a block.
fn world(maps: u8, readers: Readers, faults: Faults) -> Moves {
    Moves { maps, messages: [1, 1], requests: 1, readers, faults, flaws: &[] }
}

/// Visits every state there is.
#[track_caller]
fn exhaust(what: &str, model: Moves) {
    let begun = Instant::now();
    let checker = model.checker().symmetry().spawn_dfs().join();
    let (states, depth) = (checker.unique_state_count(), checker.max_depth());
    let line = format!("{what}: {states} states, {depth} steps deep, {:.1?}\n", begun.elapsed());
    // Past the capture: how much was visited is part of the result.
    std::io::stderr().write_all(line.as_bytes()).expect("standard error is there");
    checker.assert_properties();
}

#[test]
fn l4_there_and_back_while_readers_of_the_store_die() {
    exhaust("the store's readers", world(AND_BACK, Readers::Store, A_RESTART));
}

#[test]
fn l4_there_and_back_while_hosts_die() {
    exhaust("hosts", world(AND_BACK, Readers::Hosts, A_RESTART));
}

#[test]
fn l6_there_and_back_with_a_crash_and_a_stale_owner() {
    exhaust("a crash and a stale owner", world(AND_BACK, Readers::Hosts, A_CRASH_AND_A_PAUSE));
}

#[test]
fn l5_a_lost_output_and_a_barrier_that_comes_again() {
    exhaust("a loss", world(AND_BACK, Readers::Hosts, A_LOSS));
    exhaust("a barrier again", world(AND_BACK, Readers::Hosts, A_REPEAT));
    exhaust("a crash, seen by the store", world(THERE, Readers::Store, A_CRASH));
}

#[test]
fn l7_a_block_and_its_lift() {
    let lifted = |readers| Moves { requests: 2, ..world(AND_BACK, readers, NONE) };
    exhaust("a lift, seen by hosts", lifted(Readers::Hosts));
    let few = Moves { messages: [1, 0], ..lifted(Readers::Store) };
    exhaust("a lift, seen by the store", few);
}

/// What is sent after a block is told in the new partition stands behind the barriers, whoever has
/// read them: it is enough that they are in their logs.
#[test]
fn l7_the_requests_barrier_may_follow_the_others_at_once() {
    let flaws = &[Flaw::RequestsAfterAppends];
    exhaust("at once, hosts", Moves { flaws, ..world(AND_BACK, Readers::Hosts, NONE) });
    let few = Moves { messages: [1, 0], ..world(THERE, Readers::Store, NONE) };
    exhaust("at once, the store", Moves { flaws, ..few });
}

#[test]
fn every_rule_is_needed() {
    use Readers::{Hosts, Store};
    check(Flaw::BarriersTogether, THERE, Store, NONE, BLOCKED);
    check(Flaw::MapsOverlap, AND_BACK, Store, NONE, PROGRESS);
    check(Flaw::OldBarriersCount, AND_BACK, Hosts, A_REPEAT, SAME_FOR_ALL);
    check(Flaw::QDoesNotWait, THERE, Store, NONE, POSITIONS_GROW);
    check(Flaw::EndFromOneSource, THERE, Store, NONE, NOTHING_DROPPED);
    check(Flaw::EndFromOneSource, THERE, Store, NONE, PROGRESS);
    check(Flaw::EndWithoutRequests, THERE, Store, NONE, POSITIONS_GROW);
    check(Flaw::EndBeforeItIsStored, THERE, Store, NONE, BLOCKED);
    check(Flaw::BlocksLeftBehind, THERE, Store, NONE, BLOCKED);
    check(Flaw::BlocksOnlyWithAnEvent, AND_BACK, Store, NONE, BLOCKED);
    check(Flaw::BlocksAsOfNow, AND_BACK, Hosts, A_RESTART, SAME_FOR_ALL);
    check(Flaw::BlocksFromTheLastBarrier, THERE, Store, NONE, FATE);
    check(Flaw::OldEdgesCount, AND_BACK, Store, NONE, FATE);
    check(Flaw::MapNotSaved, THERE, Hosts, A_CRASH, NOTHING_DROPPED);
    check(Flaw::NewestMapAtStart, THERE, Hosts, A_CRASH, PROGRESS);
    check(Flaw::EndNotSaved, THERE, Hosts, A_RESTART, PROGRESS);
    check(Flaw::BarrierToTheNewHomeOnly, THERE, Store, NONE, PROGRESS);
    check(Flaw::RequestsInFlight, THERE, Hosts, A_LOSS, BLOCKED);
    check(Flaw::NoFilter, THERE, Hosts, A_CRASH, ONCE);
    check(Flaw::NoPrev, THERE, Hosts, A_LOSS, PROGRESS);
}

/// Without this rule the checker finds a state in which `property` does not hold; with it, none.
#[track_caller]
fn check(flaw: Flaw, maps: u8, readers: Readers, faults: Faults, property: &'static str) {
    let flaws: &'static [Flaw] = Box::leak(Box::new([flaw]));
    let find = |flaws| {
        let stop = HasDiscoveries::AnyOf([property].into());
        let requests = if flaw == Flaw::OldEdgesCount { 2 } else { 1 };
        let model = Moves { maps, messages: [1, 0], requests, readers, faults, flaws };
        model.checker().symmetry().finish_when(stop).spawn_dfs().join()
    };
    assert!(find(flaws).discovery(property).is_some(), "{flaw:?} was not found by {property:?}");
    find(&[]).assert_no_discovery(property);
}

/// The user blocks in p and moves to q, where nothing happens, and back to p. Taken over only with
/// an event, the block is not among the edges of q, and p looks no further back: it is forgotten.
#[test]
fn l7_a_stay_without_events_carries_the_blocks() {
    let barrier = |s, generation| Action::Barrier { s, generation };
    let land = |s, x| Action::Land { s, x, stale: false };
    let (p, q) = (0, 1);
    let (read_p, read_q) = (Action::Read { x: p }, Action::Read { x: q });
    let story = vec![
        Action::Ask,
        land(2, p), // BLOCKED
        read_p,
        barrier(0, 2),
        land(0, p),
        read_p,
        barrier(1, 2),
        land(1, p),
        read_p,
        // Nobody tells p anything any more but the requests, whose barrier comes last.
        barrier(2, 2),
        land(2, p),
        read_p,
        // p has ended.
        land(0, q),
        read_q,
        land(1, q),
        read_q,
        land(2, q),
        read_q,
        // The map is everywhere, and q has seen no event of the user.
        barrier(0, 3),
        land(0, q),
        read_q,
        barrier(1, 3),
        land(1, q),
        read_q,
        barrier(2, 3),
        land(2, q),
        read_q,
        // q has ended.
        land(0, p),
        read_p,
        Action::Send { s: 0 },
        land(0, p),
        read_p, // shown
    ];
    let flaws = &[Flaw::BlocksOnlyWithAnEvent];
    let readers = Readers::Store;
    let model =
        Moves { maps: AND_BACK, messages: [1, 0], requests: 1, readers, faults: NONE, flaws };
    let stop = HasDiscoveries::AnyOf([BLOCKED].into());
    let checker = model.checker().symmetry().finish_when(stop).spawn_dfs().join();
    checker.assert_discovery(BLOCKED, story);
}
