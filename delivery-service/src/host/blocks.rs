//! The blocks that hold at a feed's place in its partition: which users a message is hidden from,
//! and whether one has come that must have been stopped before.

use super::{DeliveryHost, ROLE};
use chaski_core::{
    ChatId, MessageId, Offset, Partition, UserId,
    connection::{BlockEdge, Blocks},
    record::UnixMs,
};
use chaski_ports::{ErrorKind, PortError, ProducePolicy};
use chaski_proto::{block_edge_from_proto, v1};
use chaski_records::Undertaker;
use std::collections::HashMap;
use tonic::Request;

/// The kind of alert for a 1:1 message that must have been refused, because one of both blocks the
/// other.
pub(super) const ALERT_BLOCK_LEAK: &str = "block-leak";

/// Edges in one page.
const PAGE: u32 = 1000;
/// How long a new block may take to be known everywhere, in milliseconds.
const LEAK_AFTER_MS: i64 = 5000;
/// Alerts of one partition come at least this far apart, in milliseconds; all leaks are counted.
const ALERT_EVERY_MS: i64 = 1000;
/// The tier that must have refused it; the one before, the client, is not ours to watch.
const TIER: &str = "sender";

/// The blocks of one partition's users.
#[derive(Default)]
pub(super) struct PartitionBlocks {
    blocks: Blocks,
    /// The 1:1 chats between who blocks and whom they block: whom, and since when.
    chats: HashMap<(UserId, ChatId), (UserId, UnixMs)>,
    alerted_ms: Option<UnixMs>,
    /// Alerts that were not raised since the last one that was.
    dropped: u64,
}

/// A message that must have been refused.
#[derive(Debug, PartialEq, Eq)]
struct Leak<'a> {
    sender: &'a UserId,
    recipient: &'a UserId,
    /// The refusal that was missing.
    code: &'static str,
    since: UnixMs,
}

impl PartitionBlocks {
    /// Those that hold at `place`, as the message service has stored them.
    pub(super) async fn load(
        host: &DeliveryHost,
        partition: Partition,
        place: Offset,
    ) -> Result<Self, PortError> {
        let mut all = Self::default();
        let mut after = None;
        loop {
            let request = v1::BlocksRequest { partition: partition.0, after, limit: PAGE };
            let page = host.parts.messages.blocks(Request::new(request)).await;
            let page = page.map_err(|error| {
                PortError::new(ErrorKind::Unavailable, "asking the message service for blocks")
                    .caused_by(error)
            })?;
            let page = page.into_inner();
            for edge in &page.edges {
                let edge = block_edge_from_proto(edge).map_err(|error| {
                    PortError::new(ErrorKind::Corrupt, "reading stored blocks").caused_by(error)
                })?;
                if edge.offset < place {
                    all.pass(edge);
                }
            }
            after = page.edges.last().cloned();
            if !page.more || after.is_none() {
                return Ok(all);
            }
        }
    }

    /// The feed passes an edge.
    pub(super) fn pass(&mut self, edge: BlockEdge) {
        let key = (edge.user.clone(), ChatId::direct(&edge.user, &edge.peer));
        if edge.blocked {
            self.chats.insert(key, (edge.peer.clone(), edge.at));
        } else {
            self.chats.remove(&key);
        }
        self.blocks.pass(edge);
    }

    /// Whether this user blocks this sender.
    pub(super) fn holds(&self, user: &UserId, sender: &str) -> bool {
        self.blocks.since(user, sender).is_some()
    }

    /// Which of these users a message of this sender is hidden from (L7).
    pub(super) fn hidden_from(&self, users: &[UserId], sender: &str) -> Vec<u32> {
        let users = (0..).zip(users);
        users.filter(|(_, user)| self.holds(user, sender)).map(|(index, _)| index).collect()
    }

    /// Whether a 1:1 message must have been refused: one of both blocks the other, and the tiers
    /// before have had the time to know. Seen with the blocker's own copy. That the other one is
    /// blocked is only refused to them where they may know it (`visible`).
    fn leak<'a>(
        &'a self,
        visible: bool,
        users: &[UserId],
        message: &v1::Message,
    ) -> Option<Leak<'a>> {
        if self.chats.is_empty() {
            return None;
        }
        let chat = message.chat_id.parse::<ChatId>().ok().filter(ChatId::is_direct)?;
        let leaks = users.iter().filter_map(|user| {
            let ((blocker, _), (peer, since)) = self.chats.get_key_value(&(user.clone(), chat))?;
            let since = *since;
            let leak = if blocker.as_str() == message.sender_id {
                Leak { sender: blocker, recipient: peer, code: "you_blocked", since }
            } else {
                Leak { sender: peer, recipient: blocker, code: "blocked", since }
            };
            let known = message.accepted_at_ms - since > LEAK_AFTER_MS;
            (known && (visible || leak.code == "you_blocked")).then_some(leak)
        });
        // Where both block, and share a partition, it is one message all the same.
        leaks.max_by_key(|leak| leak.code == "you_blocked")
    }

    /// Counts a message that must have been stopped before, and tells the developers. A host that
    /// starts reads minutes again, so the same one may be told again: the key is its place.
    pub(super) fn watch(
        &mut self,
        host: &DeliveryHost,
        (partition, offset): (Partition, Offset),
        users: &[UserId],
        message: &v1::Message,
    ) {
        let Some(leak) = self.leak(host.parts.blocks_visible, users, message) else { return };
        let Leak { sender, recipient, code, since } = leak;
        let key = format!("recipients/{partition}/{offset}");
        let message_id = message_id(&message.message_id);
        let ms = message.accepted_at_ms - since;
        let (sender_id, recipient_id) = (sender.to_string(), recipient.to_string());
        metrics::counter!("chaski_block_leaks_total").increment(1);
        let now = host.parts.clock.now_ms();
        let Some(dropped) = self.due(now) else {
            metrics::counter!("chaski_alerts_dropped_total", "kind" => ALERT_BLOCK_LEAK)
                .increment(1);
            return;
        };
        tracing::warn!(
            key,
            sender_id,
            recipient_id,
            message_id,
            tier = TIER,
            code,
            ms,
            dropped,
            "a message was accepted that must have been refused because of a block"
        );
        let detail = format!(
            "{key}: {sender_id} wrote to {recipient_id} {ms} ms after the block, and was not \
             refused ({code}); {dropped} more since the last alert"
        );
        let alert = v1::Alert {
            kind: ALERT_BLOCK_LEAK.into(),
            detail,
            at_ms: now,
            sender_id,
            recipient_id,
            message_id,
            tier: TIER.into(),
            dropped,
            ..v1::Alert::default()
        };
        let told = host.parts.log.producer(ProducePolicy::Forever).and_then(|producer| {
            let undertaker = Undertaker { producer: &*producer, role: ROLE };
            // Not waited for: the feed goes on meanwhile.
            undertaker.raise(key, alert)
        });
        if let Err(error) = told {
            tracing::warn!(%error, "an alert was not appended");
        }
    }

    /// Whether an alert may be raised now, and how many were not since the last one.
    fn due(&mut self, now: UnixMs) -> Option<u64> {
        if self.alerted_ms.is_some_and(|last| (0..ALERT_EVERY_MS).contains(&(now - last))) {
            self.dropped += 1;
            return None;
        }
        self.alerted_ms = Some(now);
        Some(std::mem::take(&mut self.dropped))
    }
}

/// A message id as clients see it.
fn message_id(bytes: &[u8]) -> String {
    bytes.try_into().map(|id| MessageId(id).to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(text: &str) -> UserId {
        text.parse().unwrap()
    }

    fn edge(offset: u64, blocked: bool) -> BlockEdge {
        let (user, peer) = (user("ana"), user("eve"));
        BlockEdge { user, peer, offset: Offset(offset), blocked, at: 1000 }
    }

    #[test]
    fn l7_a_message_is_hidden_from_exactly_those_who_block_its_sender() {
        let mut blocks = PartitionBlocks::default();
        let users = ["ben", "ana", "eve"].map(user);
        assert!(blocks.hidden_from(&users, "eve").is_empty());
        blocks.pass(edge(3, true));
        assert_eq!(blocks.hidden_from(&users, "eve"), [1]);
        assert!(blocks.hidden_from(&users, "ben").is_empty());
        blocks.pass(edge(5, false));
        assert!(blocks.hidden_from(&users, "eve").is_empty());
    }

    #[test]
    fn l7_what_must_have_been_refused_for_a_block_is_a_leak_after_five_seconds() {
        let mut blocks = PartitionBlocks::default();
        let direct = ChatId::direct(&user("ana"), &user("eve")).to_string();
        let found =
            |blocks: &PartitionBlocks, visible, users: &[&str], sender: &str, chat: &str, at| {
                let users: Vec<_> = users.iter().map(|u| user(u)).collect();
                let message = v1::Message {
                    sender_id: sender.into(),
                    chat_id: chat.into(),
                    accepted_at_ms: at,
                    ..Default::default()
                };
                let leak = blocks.leak(visible, &users, &message)?;
                Some((leak.sender.to_string(), leak.recipient.to_string(), leak.code))
            };
        let told = |sender: &str, recipient: &str, code| {
            Some((sender.to_owned(), recipient.to_owned(), code))
        };
        let both = ["ana", "eve"];
        blocks.pass(edge(3, true));
        let to_the_blocked = told("ana", "eve", "you_blocked");
        for visible in [false, true] {
            let found = |users: &[&str], sender, chat: &str, at| {
                found(&blocks, visible, users, sender, chat, at)
            };
            assert_eq!(found(&both, "ana", &direct, 6001), to_the_blocked);
            assert_eq!(found(&both, "ana", &direct, 6000), None, "not known everywhere yet");
            assert_eq!(found(&["eve"], "ana", &direct, 6001), None, "not the blocker's own copy");
            assert_eq!(found(&both, "ana", "g.1", 6001), None, "a group");
            // The blocked one is only refused where they may know it.
            let to_the_blocker = visible.then(|| told("eve", "ana", "blocked")).flatten();
            assert_eq!(found(&["ana"], "eve", &direct, 6001), to_the_blocker);
            assert_eq!(found(&["ana"], "eve", &direct, 6000), None, "not known everywhere yet");
        }
        let back = BlockEdge { user: user("eve"), peer: user("ana"), ..edge(5, true) };
        blocks.pass(back);
        assert_eq!(found(&blocks, true, &both, "ana", &direct, 6001), to_the_blocked, "once");
        blocks.pass(edge(9, false));
        assert_eq!(found(&blocks, false, &["ana"], "ana", &direct, 6001), None, "lifted");
    }

    #[test]
    fn l8_alerts_come_once_a_second_and_the_next_one_counts_those_between() {
        let mut blocks = PartitionBlocks::default();
        let due: Vec<_> =
            [1000, 1001, 1999, 2000, 2500, 3000].map(|now| blocks.due(now)).into_iter().collect();
        assert_eq!(due, [Some(0), None, None, Some(2), None, Some(1)]);
        // A clock that went back does not silence them.
        assert_eq!(blocks.due(10), Some(0));
    }
}
