//! What this user has sent to a chat, as long as it matters: for ticks and for refusals.

use chaski_client::v1::{NewMessage, Receipt};
use std::collections::{HashMap, VecDeque};

/// Own messages that are remembered.
const OWN_MAX: usize = 200;

/// Own messages, and what was told of them.
#[derive(Default)]
pub(super) struct Sent {
    own: VecDeque<Own>,
    /// By member: the own messages that they have, and have read.
    told: HashMap<String, (u64, u64)>,
}

struct Own {
    seq: u64,
    key: String,
    text: String,
}

/// What a member has done with the newest message that they know.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Tick {
    Delivered(String),
    Read(String),
}

impl Sent {
    /// An own message has its place.
    pub(super) fn note(&mut self, message: &NewMessage, text: String) {
        if self.own.len() == OWN_MAX {
            self.own.pop_front();
        }
        self.own.push_back(Own { seq: message.seq, key: message.client_message_id.clone(), text });
    }

    /// What was said under this clientMessageId.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.own.iter().find(|own| own.key == key).map(|own| own.text.as_str())
    }

    /// What is new in a receipt of somebody else, if anything.
    pub(super) fn tick(&mut self, receipt: &Receipt) -> Option<Tick> {
        let covered = |upto| self.own.iter().rev().find(|own| own.seq <= upto);
        let (delivered, read) = (covered(receipt.delivered_seq), covered(receipt.read_seq));
        let told = self.told.entry(receipt.user_id.clone()).or_default();
        if let Some(own) = read.filter(|own| own.seq > told.1) {
            *told = (told.0.max(own.seq), own.seq);
            return Some(Tick::Read(own.text.clone()));
        }
        let own = delivered.filter(|own| own.seq > told.0)?;
        told.0 = own.seq;
        Some(Tick::Delivered(own.text.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_is_told_once_for_the_newest_message_it_covers() {
        let mut sent = Sent::default();
        for (seq, key) in [(2, "a"), (5, "b")] {
            let client_message_id = key.into();
            let message = NewMessage { seq, client_message_id, ..NewMessage::default() };
            sent.note(&message, format!("text {key}"));
        }
        let delivered = |text: &str| Some(Tick::Delivered(text.into()));
        let read = |text: &str| Some(Tick::Read(text.into()));
        for (user, delivered_seq, read_seq, tick) in [
            ("ben", 1, 1, None),
            ("ben", 3, 0, delivered("text a")),
            ("ben", 4, 0, None),
            ("ben", 4, 3, read("text a")),
            ("ben", 9, 3, delivered("text b")),
            ("ben", 9, 9, read("text b")),
            ("ben", 9, 9, None),
            ("carol", 9, 9, read("text b")),
        ] {
            let (chat_id, user_id) = (String::new(), user.into());
            let receipt = Receipt { chat_id, user_id, delivered_seq, read_seq };
            assert_eq!(sent.tick(&receipt), tick, "{user} {delivered_seq} {read_seq}");
        }
        assert_eq!((sent.text("b"), sent.text("c")), (Some("text b"), None));
    }
}
