//! One fault at a time, so that how long clients are without service is each one's own doing; then
//! all kinds of owners stand still for longer than a session, over and over, and go on.

use super::{Line, Played, Stage, talk_while};
use crate::{
    load::population::Population,
    plan::{
        Action, Plan,
        ProcessKind::{self, *},
        Step, Victim,
    },
    report::{Cause, Recovery, Report},
};
use serde_json::json;
use std::time::Duration;
use tokio::time::sleep;

const USERS: u32 = 200;
const CHATS: u32 = 100;
/// Messages of a second.
const RATE: f64 = 60.0;
/// Until everything is warm.
const WARM: Duration = Duration::from_secs(20);
/// Between two faults: the first one is over, and its effects are.
const REST: Duration = Duration::from_secs(8);
/// How many of each are killed, and how long they are not there: others have taken over by then.
const HOSTS_KILLED: usize = 6;
const HOST_DOWN: Duration = Duration::from_secs(15);
const BROKERS_KILLED: usize = 6;
const BROKER_DOWN: Duration = Duration::from_secs(12);
/// Owners of all kinds stand still at once, so often, for so long.
const OWNERS: [ProcessKind; 5] = [Generator, Delivery, Messages, Connections, AllocatorLeader];
const ROUNDS: usize = 20;
const STILL: Duration = Duration::from_secs(9);

pub(super) async fn play(stage: &mut Stage<'_>) -> anyhow::Result<Played> {
    let population = Population::calm(stage.options.seed, USERS, CHATS);
    let load = stage.load(population, RATE).await?;
    let (system, stop) = (&mut *stage.system, stage.stop);
    let doing = async {
        sleep(WARM).await;
        let mut faults = Vec::new();
        for round in rounds() {
            let steps = round.into_iter().map(|action| Step { at: Duration::ZERO, action });
            let plan = Plan::by_hand(REST, steps.collect());
            faults.extend(system.play(&plan, stop.clone()).await?);
            sleep(REST).await;
        }
        anyhow::Ok(faults)
    };
    let faults = talk_while(&load, RATE, "talking", doing).await?;
    let measure = |_: &_, report: &Report| (lines(&report.recovery), json!(report.recovery));
    Ok(Played { load, faults, measure: Box::new(measure) })
}

/// What is done at the same time, each when the one before is healed.
fn rounds() -> Vec<Vec<Action>> {
    let kill = |kind, pick, down| vec![Action::Kill { victim: Victim { kind, pick }, down }];
    let hosts = (0..HOSTS_KILLED).map(|pick| kill(Delivery, pick, HOST_DOWN));
    let broker = |pick| if pick % 2 == 0 { KafkaLeader } else { KafkaFollower };
    let brokers = (0..BROKERS_KILLED).map(|pick| kill(broker(pick), pick, BROKER_DOWN));
    let pause = |kind, pick| Action::Pause { victim: Victim { kind, pick }, lasts: STILL };
    let pauses = (0..ROUNDS).map(|pick| OWNERS.map(|kind| pause(kind, pick)).into());
    hosts.chain(brokers).chain([vec![Action::RollingRestart]]).chain(pauses).collect()
}

fn lines(recovery: &Recovery) -> Vec<Line> {
    let within = |what: &str, cause, least: usize, seconds: f64| {
        let times = recovery.times_ms.get(&cause);
        let measured = times.map_or("none".to_owned(), |ms| {
            let [p50, p99, max] = [ms.p50, ms.p99, ms.max].map(|ms| ms / 1000.0);
            format!("p99 {p99:.2} s (p50 {p50:.2} s, at most {max:.2} s, of {})", ms.count)
        });
        let passed = times.is_some_and(|ms| ms.count >= least as u64 && ms.p99 <= seconds * 1000.0);
        Line::new(what, format!("p99 at most {seconds} s, of {least} or more"), measured, passed)
    };
    let paused = OWNERS.len() * ROUNDS;
    let (owners, stale) = (recovery.owners_paused, recovery.stale_effects);
    vec![
        within("clients of a killed host", Cause::KilledHostAlone, 100, 8.0),
        within("clients of a drained host", Cause::DrainedHost, 100, 1.0),
        within("sends where a broker was killed", Cause::KilledBrokerSendsAlone, 100, 5.0),
        Line::new(
            "owners that stood still and went on",
            format!("no stale effect in {paused} pauses"),
            format!("{stale} in {owners}"),
            stale == 0 && owners >= paused as u64,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use chaski::replay::Percentiles;

    #[test]
    fn kills_are_alone_and_owners_stand_still_as_often_as_is_wanted() {
        let is_kill = |action: &Action| matches!(action, Action::Kill { .. });
        let (kills, others): (Vec<_>, Vec<_>) =
            rounds().into_iter().partition(|round| round.iter().any(is_kill));
        assert!(kills.len() == 12 && kills.iter().all(|round| round.len() == 1));
        let pauses = others.iter().flatten().filter(|a| matches!(a, Action::Pause { .. }));
        assert_eq!(pauses.count(), 100);
    }

    #[test]
    fn what_took_too_long_or_was_not_seen_often_enough_is_missed() {
        let ms = |count, p99| Percentiles { count, p50: 1.0, p99, max: p99 };
        let with = |count, p99, owners_paused, stale_effects| {
            let times_ms = [
                (Cause::KilledHostAlone, ms(count, p99 * 8.0)),
                (Cause::DrainedHost, ms(count, p99)),
                (Cause::KilledBrokerSendsAlone, ms(count, p99 * 5.0)),
            ];
            let mut recovery = Recovery::default();
            recovery.times_ms = times_ms.into();
            (recovery.owners_paused, recovery.stale_effects) = (owners_paused, stale_effects);
            lines(&recovery).iter().map(|line| line.passed).collect::<Vec<_>>()
        };
        assert_eq!(with(100, 1000.0, 100, 0), [true; 4]);
        assert_eq!(with(100, 1000.1, 100, 1), [false; 4]);
        assert_eq!(with(99, 1000.0, 99, 0), [false; 4]);
        assert_eq!(lines(&Recovery::default()).iter().filter(|line| line.passed).count(), 0);
    }
}
