//! How long things took for the clients: gaps, acceptance, delivery. What a client did to itself
//! does not count.

use crate::history::{Ask, ClientHistory, Entry, Event, Evidence, Noted};
use hdrhistogram::Histogram;
use std::collections::HashMap;

/// How long things took.
pub(super) struct Times {
    pub(super) gap_us: Histogram<u64>,
    pub(super) delivery_us: Histogram<u64>,
    pub(super) accept_us: Histogram<u64>,
}

impl Times {
    pub(super) fn of(evidence: &Evidence) -> Self {
        let histogram =
            || Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("the bounds are in order");
        let (gap_us, delivery_us, accept_us) = (histogram(), histogram(), histogram());
        let mut times = Self { gap_us, delivery_us, accept_us };
        let mut sent_us = vec![None; evidence.messages.len()];
        for client in &evidence.clients {
            times.sender(client, &mut sent_us);
        }
        for client in &evidence.clients {
            times.receiver(client, evidence, &sent_us);
        }
        times
    }

    /// Gaps, and when each message was asked, by a client that was there until it was accepted.
    fn sender(&mut self, client: &ClientHistory, sent_us: &mut [Option<u64>]) {
        let mut there = There::default();
        let mut asked: HashMap<u32, u64> = HashMap::new();
        for noted in &client.entries {
            if let Some(gap) = there.note(noted) {
                self.gap_us.saturating_record(gap.until_us.saturating_sub(gap.heard_us));
            }
            match noted.entry {
                Entry::Invoked { ask: Ask::Send { message } } => {
                    asked.entry(message).or_insert(noted.at_us);
                }
                Entry::Accepted { ask: Ask::Send { message }, .. } => {
                    let at_us = asked.get(&message).copied().filter(|at| there.since(*at));
                    if let (Some(at_us), None) = (at_us, sent_us[message as usize]) {
                        sent_us[message as usize] = Some(at_us);
                        self.accept_us.saturating_record(noted.at_us - at_us);
                    }
                }
                _ => {}
            }
        }
    }

    fn receiver(&mut self, client: &ClientHistory, evidence: &Evidence, sent_us: &[Option<u64>]) {
        let mut there = There::default();
        for noted in &client.entries {
            there.note(noted);
            let Entry::Shown(shown) = &noted.entry else { continue };
            let Event::Message { message, .. } = shown.event else { continue };
            let sent = evidence.messages.get(message as usize);
            if sent.is_some_and(|sent| sent.sender != client.user)
                && let Some(at_us) = sent_us[message as usize].filter(|at| there.since(*at))
            {
                self.delivery_us.saturating_record(noted.at_us.saturating_sub(at_us));
            }
        }
    }
}

/// A time in which a client was cut off.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gap {
    /// When the last frame came.
    pub(super) heard_us: u64,
    /// When it noticed.
    pub(super) noted_us: u64,
    /// The server told it to go.
    pub(super) is_orderly: bool,
    /// Its next `welcome`.
    pub(super) until_us: u64,
}

/// Whether a client is where it is meant to be; what faults do to its connection is no absence.
#[derive(Default)]
pub(super) struct There {
    /// Since when it is there, and was connected once.
    since_us: Option<u64>,
    /// Since when it is cut off; as far as is known, it ends at once.
    cut: Option<Gap>,
    is_connected: bool,
    stalls: bool,
}

impl There {
    pub(super) fn since(&self, at_us: u64) -> bool {
        self.since_us.is_some_and(|since| since <= at_us)
    }

    /// Takes an entry; the gap that it ends.
    pub(super) fn note(&mut self, noted: &Noted) -> Option<Gap> {
        match &noted.entry {
            Entry::Connected { .. } => {
                self.is_connected = true;
                if !self.stalls {
                    self.since_us.get_or_insert(noted.at_us);
                }
                return self.cut.take().map(|gap| Gap { until_us: noted.at_us, ..gap });
            }
            Entry::Disconnected { heard_us, cause } if self.is_connected => {
                let noted_us = noted.at_us;
                let is_orderly = cause.starts_with("moved to ") || cause.contains("draining");
                let gap = Gap { heard_us: *heard_us, noted_us, is_orderly, until_us: noted_us };
                (self.is_connected, self.cut) = (false, Some(gap));
            }
            Entry::Away { .. } => *self = Self::default(),
            // It does not notice what becomes of its connection.
            Entry::Stalls => (self.since_us, self.cut, self.stalls) = (None, None, true),
            Entry::Reads => {
                self.stalls = false;
                self.since_us = self.is_connected.then_some(noted.at_us);
            }
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Message, Shown};

    const S: u64 = 1_000_000;

    fn times(sender: Vec<(u64, Entry)>, receiver: Vec<(u64, Entry)>) -> [(u64, u64); 3] {
        let client = |user, entries: Vec<(u64, Entry)>| ClientHistory {
            user,
            entries: entries.into_iter().map(|(at_us, entry)| Noted { at_us, entry }).collect(),
        };
        let evidence = Evidence {
            messages: vec![Message { chat: 0, sender: 0, client: 0, hash: 0 }],
            clients: vec![client(0, sender), client(1, receiver)],
            ..Evidence::default()
        };
        let times = Times::of(&evidence);
        // How many, and the longest in seconds.
        [times.gap_us, times.accept_us, times.delivery_us].map(|t| (t.len(), t.max() / S))
    }

    fn connected() -> Entry {
        Entry::Connected { position: 0 }
    }

    fn cut(heard_us: u64) -> Entry {
        Entry::Disconnected { heard_us, cause: "cut".into() }
    }

    fn sent() -> Vec<(u64, Entry)> {
        let ask = Ask::Send { message: 0 };
        let entries = [connected(), Entry::Invoked { ask }, Entry::Accepted { ask, id: 1 }];
        entries.into_iter().zip([0, 10 * S, 12 * S]).map(|(entry, at)| (at, entry)).collect()
    }

    fn shown() -> Entry {
        let event = Event::Message { chat: 1, seq: 1, id: 1, message: 0, hash: 0 };
        Entry::Shown(Shown { position: 1, event })
    }

    #[test]
    fn a_cut_counts_and_what_a_client_does_to_itself_does_not() {
        // Silent as of 5 s, noticed at 8 s, tried in vain at 9 s, back at 14 s.
        let cut_off =
            [(0, connected()), (8 * S, cut(5 * S)), (9 * S, cut(5 * S)), (14 * S, connected())];
        let with = |more: Vec<(u64, Entry)>| cut_off.iter().cloned().chain(more).collect();
        let all = times(sent(), with(vec![(15 * S, shown())]));
        assert_eq!(all, [(1, 9), (1, 2), (1, 5)]);
        // It went by itself, and was shown the message when it came back.
        let away = vec![
            (0, connected()),
            (5 * S, Entry::Away { error: None }),
            (14 * S, Entry::Back { resume_after: None }),
            (15 * S, connected()),
            (16 * S, shown()),
        ];
        assert_eq!(times(sent(), away), [(0, 0), (1, 2), (0, 0)]);
        let stalls = vec![
            (0, connected()),
            (5 * S, Entry::Stalls),
            (20 * S, Entry::Reads),
            (21 * S, shown()),
            (22 * S, cut(21 * S)),
            (23 * S, connected()),
        ];
        assert_eq!(times(sent(), stalls), [(1, 2), (1, 2), (0, 0)]);
        // The sender stalled with the message in its outbox: neither counts.
        let mut late = sent();
        late.insert(2, (11 * S, Entry::Stalls));
        late.insert(3, (11 * S + 1, Entry::Reads));
        assert_eq!(times(late, vec![(0, connected()), (13 * S, shown())]), [(0, 0); 3]);
    }
}
