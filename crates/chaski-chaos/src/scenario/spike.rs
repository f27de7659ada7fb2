//! A spike of load: what the system can do is found, then it is asked for many times the usual.

use super::{
    Line, Percentiles, Played, Stage,
    flow::{Passage, SECOND, Us, asked_per_second, done_per_second, latencies, passages},
    talk_while, until_settled,
};
use crate::{
    history::Evidence,
    load::{Load, population::Population},
    progress::say,
    report::Report,
};
use anyhow::ensure;
use serde::Serialize;
use serde_json::json;
use std::{ops::Range, sync::atomic::Ordering::Relaxed, time::Duration};
use tokio::time::{Instant, sleep};

const USERS: u32 = 200;
const CHATS: u32 = 100;
/// The first rate that is tried, in messages of a second, and how much more each next one is.
const FIRST_RATE: f64 = 50.0;
const STEP: f64 = 1.5;
/// A system that does not follow here is not measured.
const RATE_LEAST: f64 = 5.0;
/// How long each is tried; the first part of it does not count.
const TRY: Duration = Duration::from_secs(12);
const TRY_BEGINS: Duration = Duration::from_secs(3);
/// It does not follow any more where it does less of it, or takes longer.
const FOLLOWS: f64 = 0.9;
const FOLLOWS_MS: f64 = 1500.0;
/// The usual load, of what the system can do.
const USUAL: f64 = 0.2;
/// How long the usual load goes on before, the spike, and the usual load after it at most.
const BEFORE: Duration = Duration::from_secs(30);
const SPIKE: Duration = Duration::from_secs(60);
const AFTER_MAX: Duration = Duration::from_secs(180);
/// What is wanted.
const GOODPUT: f64 = 0.9;
const GONE_WITHIN: Us = 120 * SECOND;
/// Else nothing is proved: of what the system can do, so much is asked, and no more is done.
const OVERLOAD: f64 = 1.5;
const MISFOUND: f64 = 1.5;

/// One rate that was tried.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Tried {
    asked_per_second: f64,
    shown_per_second: f64,
    delivery_ms: Percentiles,
}

pub(super) async fn play(stage: &mut Stage<'_>, times: f64) -> anyhow::Result<Played> {
    ensure!(times >= 1.0, "--spike must be at least 1");
    let population = Population::calm(stage.options.seed, USERS, CHATS);
    let load = stage.load(population, FIRST_RATE).await?;
    let (shared, timeline) = (load.shared(), stage.timeline);
    // Connections, tables and caches are warm.
    talk_while(&load, RATE_LEAST, "warming up", sleep(TRY)).await;
    let tried = capacity(&load).await?;
    let most = tried.iter().map(|tried| tried.shown_per_second).fold(0.0, f64::max);
    let usual = most * USUAL;
    say(&format!("it can do {most:.0}/s; {usual:.0}/s are usual"));

    let deferred = || {
        let counts = &shared.counts;
        [counts.deferred.load(Relaxed), counts.deferred_blindly.load(Relaxed)]
    };
    let from = timeline.now_us();
    talk_while(&load, usual, "usual", sleep(BEFORE)).await;
    let (spike_from, told_before) = (timeline.now_us(), deferred());
    talk_while(&load, usual * times, "spike", sleep(SPIKE)).await;
    let spike_until = timeline.now_us();
    talk_while(&load, usual, "after", async {
        let begun = Instant::now();
        // What is usual is always under way a little.
        let few = (usual * 2.0) as u64 + 2;
        while begun.elapsed() < AFTER_MAX && shared.counts.open.load(Relaxed) > few {
            sleep(Duration::from_millis(500)).await;
        }
        sleep(Duration::from_secs(10)).await;
    })
    .await;
    let until = timeline.now_us();
    let told = deferred();
    let clients = shared.population.devices_at_first();
    let spike = Spike {
        times,
        capacity: most,
        tried,
        before: from + 5 * SECOND..spike_from,
        spike: spike_from..spike_until,
        after: spike_until..until,
        deferred: told[0] - told_before[0],
        deferred_blindly: told[1] - told_before[1],
    };
    let measure =
        move |evidence: &Evidence, _: &Report| spike.measure(&passages(evidence, clients));
    Ok(Played { load, faults: Vec::new(), measure: Box::new(measure) })
}

/// Asks for more and more until the system does not follow.
async fn capacity(load: &Load) -> anyhow::Result<Vec<Tried>> {
    let (shared, mut all) = (load.shared(), Vec::new());
    let (mut rate, mut followed) = (FIRST_RATE, false);
    let clients = shared.population.devices_at_first();
    loop {
        let from = shared.timeline.now_us() + TRY_BEGINS.as_micros() as Us;
        talk_while(load, rate, "how much can it do?", sleep(TRY)).await;
        let within = from..shared.timeline.now_us();
        ensure!(until_settled(load, Duration::from_secs(120)).await, "{rate:.0}/s never settled");
        let evidence = shared.evidence();
        let one = tokio::task::spawn_blocking(move || {
            let passages = passages(&evidence, clients);
            Tried {
                asked_per_second: asked_per_second(&passages, within.clone()),
                shown_per_second: done_per_second(&passages, within.clone()),
                delivery_ms: latencies(&passages, within, |_| true),
            }
        });
        let one = one.await?;
        let Tried { asked_per_second: asked, shown_per_second: shown, delivery_ms } = one;
        say(&format!("asked {asked:.0}/s, shown {shown:.0}/s, {delivery_ms}"));
        all.push(one);
        let follows = shown >= asked * FOLLOWS && asked >= rate * FOLLOWS;
        match follows && delivery_ms.p99 <= FOLLOWS_MS {
            true => (followed, rate) = (true, rate * STEP),
            // Even the first one was too much, or came too early: from further below.
            false if !followed && rate > RATE_LEAST => rate /= STEP * STEP,
            false => return Ok(all),
        }
    }
}

/// What was done, to be measured.
struct Spike {
    times: f64,
    capacity: f64,
    tried: Vec<Tried>,
    before: Range<Us>,
    spike: Range<Us>,
    after: Range<Us>,
    deferred: u64,
    deferred_blindly: u64,
}

impl Spike {
    fn measure(self, passages: &[Passage]) -> (Vec<Line>, serde_json::Value) {
        let offered = asked_per_second(passages, self.spike.clone());
        let goodput = done_per_second(passages, self.spike.clone());
        let share = goodput / self.capacity.max(1.0);
        let asked_before_end =
            passages.iter().filter(|p| p.asked.is_some_and(|at| at < self.spike.end));
        // What is never shown is the judge's business.
        let gone = asked_before_end.filter_map(Passage::done).max().unwrap_or(0);
        let gone = gone.saturating_sub(self.spike.end);
        let latency = |within| latencies(passages, within, |_| true);
        let lines = vec![
            Line::new(
                "goodput during the spike",
                format!("at least {:.0} % of what it can do", GOODPUT * 100.0),
                format!("{goodput:.0}/s of {:.0}/s: {:.0} %", self.capacity, share * 100.0),
                share >= GOODPUT,
            ),
            Line::new(
                "refusals say when to come again",
                "all",
                format!("{} did, {} did not", self.deferred, self.deferred_blindly),
                self.deferred_blindly == 0,
            ),
            Line::new(
                "the backlog is gone",
                format!("within {} s", GONE_WITHIN / SECOND),
                format!("{:.1} s after the spike", gone as f64 / SECOND as f64),
                gone <= GONE_WITHIN,
            ),
            Line::new(
                "it was a spike",
                "more is asked than it can do, and it does not do more than was found",
                format!("{offered:.0}/s asked"),
                offered >= OVERLOAD * self.capacity && share <= MISFOUND,
            ),
        ];
        let figures = json!({
            "times": self.times,
            "capacityPerSecond": self.capacity,
            "usualPerSecond": self.capacity * USUAL,
            "tried": self.tried,
            "askedPerSecond": offered,
            "shownPerSecond": goodput,
            "goodputShare": share,
            "deferred": self.deferred,
            "deferredWithoutTime": self.deferred_blindly,
            "backlogGoneSeconds": gone as f64 / SECOND as f64,
            "deliveryMsBefore": latency(self.before),
            "deliveryMsDuring": latency(self.spike.clone()),
            "deliveryMsAfterBacklog":
                latency((self.spike.end + gone).min(self.after.end)..self.after.end),
        });
        (lines, figures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 100 messages of a second are asked from 10 to 70 s, and so many of a second shown until all
    /// are.
    fn lines(shown_per_second: u64, blindly: u64, capacity: f64) -> Vec<(bool, String)> {
        let passages: Vec<Passage> = (0..6000)
            .map(|n| {
                let asked = 10 * SECOND + n * SECOND / 100;
                let shown = 10 * SECOND + (n + 1) * SECOND / shown_per_second;
                Passage { asked: Some(asked), accepted: Some(asked), shown: vec![(1, shown - 1)] }
            })
            .collect();
        let spike = Spike {
            times: 10.0,
            capacity,
            tried: Vec::new(),
            before: 0..10 * SECOND,
            spike: 10 * SECOND..70 * SECOND,
            after: 70 * SECOND..300 * SECOND,
            deferred: 7,
            deferred_blindly: blindly,
        };
        let (lines, figures) = spike.measure(&passages);
        assert_eq!(figures["askedPerSecond"], 100.0);
        lines.into_iter().map(|line| (line.passed, line.measured)).collect()
    }

    #[test]
    fn goodput_hints_and_the_backlog_are_held_against_what_is_wanted() {
        let passed =
            |lines: Vec<(bool, String)>| lines.into_iter().map(|l| l.0).collect::<Vec<_>>();
        let good = lines(45, 0, 50.0);
        assert_eq!(good[0], (true, "45/s of 50/s: 90 %".into()));
        assert_eq!(good[2], (true, "73.3 s after the spike".into()));
        assert_eq!(passed(lines(44, 0, 50.0)), [false, true, true, true]);
        assert_eq!(passed(lines(45, 1, 50.0)), [true, false, true, true]);
        // 6,000 at 33 of a second take 182 s, of which 60 were the spike.
        assert_eq!(passed(lines(33, 0, 50.0)), [false, true, false, true]);
        // It was asked for what it can do, or it can do more than was found.
        assert_eq!(passed(lines(70, 0, 70.0)), [true, true, true, false]);
        assert_eq!(passed(lines(45, 0, 20.0)), [true, true, true, false]);
    }
}
