//! What a run intends, decided from the log and a seed before anything is sent: who has which
//! devices, who is away when, which device says what.

use super::{input::Log, random::Random};
use chaski_client::Format;

/// The plan of a run.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) log: Log,
    pub(super) devices: Vec<Device>,
    /// The devices of each user.
    pub(super) devices_of: Vec<Vec<u32>>,
    /// Which device sends each message.
    pub(super) sends: Vec<u32>,
    /// Who goes and who comes, by how many messages are accepted; ascending.
    pub(super) turns: Vec<Turn>,
    /// Who asks for each chat's history.
    pub(super) readers: Vec<u32>,
    /// Makes the ids of this run different from those of other runs on the same server.
    pub(super) run: String,
}

#[derive(Clone, Debug)]
pub(super) struct Device {
    pub(super) user: u32,
    pub(super) name: String,
    pub(super) format: Format,
    /// Whether it says where it was when it comes back, or trusts the server's cursor.
    pub(super) says_where: bool,
    /// How many messages it must be shown.
    pub(super) messages: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) at: u64,
    pub(super) user: u32,
    pub(super) leaves: bool,
}

/// Away for this share of the messages at least.
pub(super) const AWAY_SHARE_MIN: f64 = 0.2;

impl Plan {
    pub(super) fn new(log: Log, seed: u64, run: String) -> Self {
        let mut random = Random::new(seed ^ 0x7265_706c_6179);
        let mut messages_of = vec![0_u32; log.users.len()];
        for chat in &log.chats {
            for user in &chat.participants {
                messages_of[*user as usize] += chat.messages.len() as u32;
            }
        }
        let (mut devices, mut devices_of) = (Vec::new(), Vec::new());
        for (user, messages) in messages_of.iter().enumerate() {
            // A tenth have two.
            let count = 1 + u32::from(random.below(10) == 0);
            let first = devices.len() as u32;
            devices_of.push((first..first + count).collect::<Vec<_>>());
            for number in 0..count {
                devices.push(Device {
                    user: user as u32,
                    name: format!("replay-{run}-{number}"),
                    format: if random.below(2) == 0 { Format::Json } else { Format::Protobuf },
                    says_where: random.below(2) == 0,
                    messages: *messages,
                });
            }
        }
        let sends = log.messages.iter().map(|message| {
            let own = &devices_of[message.sender as usize];
            own[random.below(own.len() as u64) as usize]
        });
        let sends = sends.collect();
        let readers = log
            .chats
            .iter()
            .map(|chat| chat.participants[random.below(chat.participants.len() as u64) as usize]);
        let readers = readers.collect();
        let turns = turns(log.users.len(), log.messages.len(), &mut random);
        Self { log, devices, devices_of, sends, turns, readers, run }
    }

    /// The idempotency key of a chat; only this run uses it.
    pub(super) fn client_chat_id(&self, chat: u32) -> String {
        format!("replay/{}/{chat}", self.run)
    }

    /// The idempotency key of a message: chat and line.
    pub(super) fn client_message_id(&self, message: u32) -> String {
        let message = &self.log.messages[message as usize];
        let id = format!("{}/{}", self.log.chats[message.chat as usize].name, message.line);
        if id.len() <= 64 && id.bytes().all(|b| (0x20..0x7f).contains(&b)) {
            id
        } else {
            format!("chat {}/{}", message.chat, message.line)
        }
    }
}

/// A fifth of the people are away for a fifth to two fifths of the run; all are back before its
/// last tenth, so that nobody's messages wait for the end.
fn turns(users: usize, messages: usize, random: &mut Random) -> Vec<Turn> {
    let mut people: Vec<u32> = (0..users as u32).collect();
    random.shuffle(&mut people);
    let mut turns = Vec::new();
    for user in people.into_iter().take(users / 5) {
        let span = AWAY_SHARE_MIN + 0.02 + 0.15 * random.share();
        let start = 0.05 + (0.85 - span) * random.share();
        for (share, leaves) in [(start, true), (start + span, false)] {
            turns.push(Turn { at: (share * messages as f64) as u64, user, leaves });
        }
    }
    turns.sort_by_key(|turn| (turn.at, turn.user, turn.leaves));
    turns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_follows_from_its_seed_and_keeps_its_shares() {
        let plan = |seed| Plan::new(Log::synthetic(1, 5000), seed, "r".into());
        let (a, b) = (plan(5), plan(5));
        assert_eq!((&a.turns, &a.sends, &a.readers), (&b.turns, &b.sends, &b.readers));
        assert_ne!(a.turns, plan(6).turns);
        assert!((310..360).contains(&a.devices.len()), "{} devices", a.devices.len());
        assert_eq!(a.turns.len(), 2 * 60);
        for leave in a.turns.iter().filter(|turn| turn.leaves) {
            let back = a.turns.iter().find(|t| t.user == leave.user && !t.leaves).unwrap();
            assert!(back.at - leave.at >= 1000 && back.at <= 4500);
        }
        let total: u64 =
            a.devices_of.iter().map(|d| u64::from(a.devices[d[0] as usize].messages)).sum();
        assert_eq!(total, a.log.deliveries() + 5000);
    }
}
