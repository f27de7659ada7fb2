//! What became of each message over time, as the clients' histories have it. No I/O; judges nothing.

use crate::history::{Ask, Entry, Event, Evidence};
use std::ops::Range;

/// A time, or a span of it, of a run.
pub(super) type Us = u64;

pub(super) const SECOND: Us = 1_000_000;

/// What became of a message.
#[derive(Clone, Debug, Default)]
pub(super) struct Passage {
    /// First given to its client.
    pub(super) asked: Option<Us>,
    pub(super) accepted: Option<Us>,
    /// To which clients of others it was shown, and when.
    pub(super) shown: Vec<(u32, Us)>,
}

impl Passage {
    /// When the last of them was shown it.
    pub(super) fn done(&self) -> Option<Us> {
        self.shown.iter().map(|(_, at)| *at).max()
    }
}

/// What became of all messages, by their numbers; of the first so many clients.
pub(super) fn passages(evidence: &Evidence, clients: usize) -> Vec<Passage> {
    let mut all = vec![Passage::default(); evidence.messages.len()];
    for (client, history) in evidence.clients.iter().enumerate().take(clients) {
        for noted in &history.entries {
            match &noted.entry {
                Entry::Invoked { ask: Ask::Send { message } } => {
                    all[*message as usize].asked.get_or_insert(noted.at_us);
                }
                Entry::Accepted { ask: Ask::Send { message }, .. } => {
                    all[*message as usize].accepted.get_or_insert(noted.at_us);
                }
                Entry::Shown(shown) => {
                    let Event::Message { message, .. } = shown.event else { continue };
                    let sender = evidence.messages.get(message as usize).map(|sent| sent.sender);
                    if sender.is_some_and(|sender| sender != history.user) {
                        all[message as usize].shown.push((client as u32, noted.at_us));
                    }
                }
                _ => {}
            }
        }
    }
    all
}

/// How many messages of a second were shown to the last of those they were for.
pub(super) fn done_per_second(passages: &[Passage], within: Range<Us>) -> f64 {
    let done = passages.iter().filter_map(Passage::done).filter(|at| within.contains(at)).count();
    per_second(done, &within)
}

/// How many messages of a second were asked.
pub(super) fn asked_per_second(passages: &[Passage], within: Range<Us>) -> f64 {
    let asked = passages.iter().filter_map(|p| p.asked).filter(|at| within.contains(at)).count();
    per_second(asked, &within)
}

fn per_second(count: usize, within: &Range<Us>) -> f64 {
    let length = within.end.saturating_sub(within.start).max(1);
    count as f64 * SECOND as f64 / length as f64
}

/// From being accepted to being shown, of what was accepted within this time, at these clients.
pub(super) fn latencies(
    passages: &[Passage],
    within: Range<Us>,
    at: impl Fn(u32) -> bool,
) -> Percentiles {
    let accepted = passages.iter().filter_map(|p| Some((p.accepted?, &p.shown)));
    let accepted = accepted.filter(|(accepted, _)| within.contains(accepted));
    Percentiles::of(accepted.flat_map(|(accepted, shown)| {
        let here = shown.iter().filter(|(client, _)| at(*client));
        here.map(move |(_, shown)| shown.saturating_sub(accepted)).collect::<Vec<_>>()
    }))
}

/// Times in milliseconds.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Percentiles {
    /// How many there were.
    pub count: usize,
    /// Half of them took no longer.
    pub p50: f64,
    /// One in a hundred took longer.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

impl Percentiles {
    pub(super) fn of(times: impl IntoIterator<Item = Us>) -> Self {
        let mut times: Vec<Us> = times.into_iter().collect();
        times.sort_unstable();
        let at = |share: f64| {
            let rank = (times.len() as f64 * share).ceil() as usize;
            times.get(rank.saturating_sub(1)).map_or(0.0, |us| *us as f64 / 1000.0)
        };
        Self { count: times.len(), p50: at(0.5), p99: at(0.99), max: at(1.0) }
    }
}

impl std::fmt::Display for Percentiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { count, p50, p99, max } = self;
        write!(f, "p50 {p50:.0}  p99 {p99:.0}  max {max:.0} ms ({count})")
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::history::{ClientHistory, Message, Noted, Shown};

    pub(in crate::scenario) fn shown(at_us: Us, message: u32) -> Noted {
        let event = Event::Message { chat: 1, seq: 1, id: 1, message, hash: 0 };
        Noted { at_us, entry: Entry::Shown(Shown { position: at_us, event }) }
    }

    #[test]
    fn a_message_is_done_when_the_last_of_the_others_was_shown_it() {
        let ask = Ask::Send { message: 0 };
        let sender = vec![
            Noted { at_us: SECOND, entry: Entry::Invoked { ask } },
            // Unknown, asked again.
            Noted { at_us: 2 * SECOND, entry: Entry::Invoked { ask } },
            Noted { at_us: 3 * SECOND, entry: Entry::Accepted { ask, id: 1 } },
            shown(9 * SECOND, 0),
        ];
        let client = |user, entries| ClientHistory { user, entries };
        let evidence = Evidence {
            messages: vec![Message { chat: 0, sender: 0, client: 0, hash: 0 }],
            clients: vec![
                client(0, sender),
                client(1, vec![shown(4 * SECOND, 0)]),
                client(2, vec![shown(5 * SECOND, 0)]),
                client(3, vec![shown(60 * SECOND, 0)]),
            ],
            ..Evidence::default()
        };
        let all = passages(&evidence, 3);
        assert_eq!((all[0].asked, all[0].accepted), (Some(SECOND), Some(3 * SECOND)));
        assert_eq!(all[0].done(), Some(5 * SECOND), "neither the echo nor who comes last counts");
        assert_eq!(done_per_second(&all, 0..6 * SECOND), 1.0 / 6.0);
        assert_eq!(asked_per_second(&all, 2 * SECOND..6 * SECOND), 0.0);
        let times = latencies(&all, 0..4 * SECOND, |client| client != 2);
        assert_eq!((times.count, times.p50, times.p99, times.max), (1, 1000.0, 1000.0, 1000.0));
        assert_eq!(latencies(&all, 0..3 * SECOND, |_| true).count, 0);
        let hundred = Percentiles::of((1..=100).map(|ms| ms * 1000));
        assert_eq!((hundred.p50, hundred.p99, hundred.max), (50.0, 99.0, 100.0));
    }
}
