//! Tells a person how far a run is: a bar on a terminal, a line every five seconds elsewhere.

use indicatif::{ProgressBar, ProgressStyle};
use std::{
    io::{IsTerminal as _, Write as _, stderr},
    time::Duration,
};
use tokio::time::Instant;

pub(super) struct Progress {
    messages: u64,
    bar: Option<ProgressBar>,
    /// When the last line was written, and how many messages it told of.
    said: (Instant, u64),
    rate: f64,
}

const EVERY: Duration = Duration::from_secs(5);

impl Progress {
    pub(super) fn new(messages: u64) -> Self {
        let bar = stderr().is_terminal().then(|| {
            let shape = "{bar:30} {pos}/{len} {percent}% {msg} {elapsed}";
            let style = ProgressStyle::with_template(shape).expect("the template is well-formed");
            ProgressBar::new(messages).with_style(style)
        });
        Self { messages, bar, said: (Instant::now(), 0), rate: 0.0 }
    }

    pub(super) fn connecting(&mut self, connected: usize, devices: usize) {
        self.tell(0, &format!("connecting {connected}/{devices}"));
    }

    /// `lag`: copies accepted and not shown yet.
    pub(super) fn show(&mut self, phase: &str, settled: u64, lag: u64) {
        let (at, before) = self.said;
        let seconds = at.elapsed().as_secs_f64();
        if seconds >= 1.0 {
            self.rate = settled.saturating_sub(before) as f64 / seconds;
        }
        let rate = self.rate;
        self.tell(settled, &format!("{phase}, {rate:.0} messages/s, lag {lag} copies"));
    }

    fn tell(&mut self, settled: u64, text: &str) {
        let every = if self.bar.is_some() { Duration::from_secs(1) } else { EVERY };
        let due = self.said.0.elapsed() >= every;
        match &self.bar {
            Some(bar) => {
                bar.set_position(settled);
                bar.set_message(text.to_owned());
            }
            // Who closed the terminal does not want to know.
            None if due => drop(writeln!(stderr(), "{settled}/{} {text}", self.messages)),
            None => {}
        }
        if due {
            self.said = (Instant::now(), settled);
        }
    }

    pub(super) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
