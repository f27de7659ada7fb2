//! Which messages come too late: behind one that the same device wrote later. A client may refuse
//! those (422) instead of showing them out of order.
//!
//! Must not know: any clock. Times of one device are compared with one another, never with ours.

use chaski_proto::v1::{NewMessage, RejectMessage, client_frame::Command};
use std::collections::HashMap;

/// Devices in chats of which the latest message is known; of those not heard of for longest it is
/// forgotten, and nothing of theirs is late then.
const KNOWN_MAX: usize = 10_000;

/// Chat, sender, sender's device.
type Source = (String, String, String);

/// The latest `sentAt` shown of each device in each chat.
#[derive(Debug, Default)]
pub struct Latest {
    /// Half of what is known at most; when it is full it becomes `older`.
    recent: HashMap<Source, i64>,
    older: HashMap<Source, i64>,
}

impl Latest {
    /// Whether a message that its device wrote later was taken before this one. If not, this one
    /// is the latest from now on. A message without `sentAt` is never late.
    pub fn is_late(&mut self, message: &NewMessage) -> bool {
        let Some(sent_at) = message.sent_at.map(|at| at.to_ms()) else { return false };
        let (chat, user) = (message.chat_id.clone(), message.sender_id.clone());
        let source = (chat, user, message.sender_device_id.clone());
        let known = self.recent.get(&source).or_else(|| self.older.get(&source)).copied();
        if known.is_none() && self.recent.len() >= KNOWN_MAX / 2 {
            self.older = std::mem::take(&mut self.recent);
        }
        let latest = known.map_or(sent_at, |known| known.max(sent_at));
        self.recent.insert(source, latest);
        latest > sent_at
    }

    /// The command that refuses a message; its sender's devices are told.
    #[must_use]
    pub fn refusal(message: &NewMessage, reason: &str) -> Command {
        Command::RejectMessage(RejectMessage {
            chat_id: message.chat_id.clone(),
            message_id: message.message_id.clone(),
            reason: reason.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chaski_proto::Timestamp;

    fn message(device: &str, sent_at: Option<i64>) -> NewMessage {
        NewMessage {
            chat_id: "g.1".into(),
            sender_id: "ben".into(),
            sender_device_id: device.into(),
            sent_at: sent_at.map(Timestamp::from_ms),
            ..NewMessage::default()
        }
    }

    #[test]
    fn only_what_the_same_device_wrote_before_is_late() {
        let mut latest = Latest::default();
        for (device, sent_at, late) in [
            ("phone", Some(10), false),
            ("phone", Some(10), false),
            ("phone", Some(9), true),
            ("phone", Some(10), false),
            ("tablet", Some(5), false),
            ("phone", None, false),
            ("phone", Some(11), false),
            ("phone", Some(10), true),
        ] {
            assert_eq!(latest.is_late(&message(device, sent_at)), late, "{device} {sent_at:?}");
        }
        let elsewhere = NewMessage { chat_id: "g.2".into(), ..message("phone", Some(1)) };
        assert!(!latest.is_late(&elsewhere));
    }

    #[test]
    fn l8_what_is_known_is_bounded_and_the_newest_stays() {
        let mut latest = Latest::default();
        for n in 0..2 * KNOWN_MAX {
            assert!(!latest.is_late(&message(&n.to_string(), Some(10))));
            assert!(latest.recent.len() + latest.older.len() <= KNOWN_MAX);
        }
        let last = 2 * KNOWN_MAX - 1;
        assert!(latest.is_late(&message(&last.to_string(), Some(9))));
        assert!(!latest.is_late(&message("0", Some(9))), "forgotten");
    }
}
