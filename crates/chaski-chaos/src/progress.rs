//! Tells a person how far a run is: a line every five seconds. Knows nothing of what it tells.

use crate::load::Shared;
use std::{
    io::{Write as _, stderr},
    sync::atomic::Ordering::Relaxed,
    time::Duration,
};
use tokio::time::{Instant, interval};

const EVERY: Duration = Duration::from_secs(5);

/// Says something at once.
pub(crate) fn say(text: &str) {
    // Who closed the terminal does not want to know.
    drop(writeln!(stderr(), "chaos: {text}"));
}

/// Tells of a run for as long as it is polled.
pub(crate) async fn tell(shared: &Shared, phase: &str) {
    let mut ticks = interval(EVERY);
    ticks.tick().await;
    let mut said = (Instant::now(), shared.counts.accepted.load(Relaxed));
    loop {
        ticks.tick().await;
        let counts = &shared.counts;
        let accepted = counts.accepted.load(Relaxed);
        let rate = (accepted - said.1) as f64 / said.0.elapsed().as_secs_f64();
        said = (Instant::now(), accepted);
        let (connected, present) = (counts.connected.load(Relaxed), counts.present.load(Relaxed));
        let (open, shown) = (counts.open.load(Relaxed), counts.shown.load(Relaxed));
        let elapsed = shared.timeline.now_us() / 1_000_000;
        say(&format!(
            "{elapsed:>4} s  {phase}: {rate:.0}/s accepted ({accepted}), {connected} of {present} \
             connected, {open} open, {shown} shown"
        ));
    }
}
