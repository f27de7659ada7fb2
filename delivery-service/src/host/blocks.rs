//! The blocks that hold at a feed's place in its partition: which users a message is hidden from,
//! and whether one has come that must have been stopped before.

use super::{DeliveryHost, ROLE};
use chaski_core::{
    ChatId, Offset, Partition, UserId,
    connection::{BlockEdge, Blocks},
    record::UnixMs,
};
use chaski_ports::{ErrorKind, PortError, ProducePolicy};
use chaski_proto::{block_edge_from_proto, v1};
use chaski_records::Undertaker;
use std::collections::HashMap;
use tonic::Request;

/// The kind of alert for a message to somebody its sender blocks: the client or the service that
/// took it must have refused.
pub(super) const ALERT_BLOCK_LEAK: &str = "block-leak";

/// Edges in one page.
const PAGE: u32 = 1000;
/// How long a new block may take to be known everywhere, in milliseconds.
const LEAK_AFTER_MS: i64 = 5000;
/// Alerts of one partition come at least this far apart, in milliseconds; all leaks are counted.
const ALERT_EVERY_MS: i64 = 1000;

/// The blocks of one partition's users.
#[derive(Default)]
pub(super) struct PartitionBlocks {
    blocks: Blocks,
    /// The 1:1 chats between who blocks and whom they block: since when.
    chats: HashMap<(UserId, ChatId), UnixMs>,
    alerted_ms: Option<UnixMs>,
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
            self.chats.insert(key, edge.at);
        } else {
            self.chats.remove(&key);
        }
        self.blocks.pass(edge);
    }

    /// Which of these users a message of this sender is hidden from (L7).
    pub(super) fn hidden_from(&self, users: &[UserId], sender: &str) -> Vec<u32> {
        let users = (0..).zip(users);
        users.filter(|(_, u)| self.blocks.since(u, sender).is_some()).map(|(i, _)| i).collect()
    }

    /// Since when the message's sender blocks the other one of its 1:1 chat, where the tiers
    /// before have had the time to know. Seen with the sender's own copy.
    fn leak(&self, users: &[UserId], message: &v1::Message) -> Option<UnixMs> {
        if self.chats.is_empty() {
            return None;
        }
        let sender = users.iter().find(|user| user.as_str() == message.sender_id)?;
        let chat = message.chat_id.parse::<ChatId>().ok().filter(ChatId::is_direct)?;
        let since = *self.chats.get(&(sender.clone(), chat))?;
        (message.accepted_at_ms - since > LEAK_AFTER_MS).then_some(since)
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
        let Some(since) = self.leak(users, message) else { return };
        metrics::counter!("chaski_block_leaks_total").increment(1);
        let now = host.parts.clock.now_ms();
        if self.alerted_ms.is_some_and(|last| (0..ALERT_EVERY_MS).contains(&(now - last))) {
            return;
        }
        self.alerted_ms = Some(now);
        let key = format!("recipients/{partition}/{offset}");
        let (sender, chat) = (&message.sender_id, &message.chat_id);
        tracing::error!(key, sender, chat, "a message to somebody its sender blocks was accepted");
        let ms = message.accepted_at_ms - since;
        let detail =
            format!("{key}: {sender} wrote to {chat} {ms} ms after blocking its other one");
        let told = host.parts.log.producer(ProducePolicy::Forever).and_then(|producer| {
            let undertaker = Undertaker { producer: &*producer, role: ROLE };
            // Not waited for: the feed goes on meanwhile.
            undertaker.alert(ALERT_BLOCK_LEAK, key, detail, now)
        });
        if let Err(error) = told {
            tracing::warn!(%error, "an alert was not appended");
        }
    }
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
    fn l7_a_message_to_whom_its_sender_blocks_is_a_leak_after_five_seconds() {
        let mut blocks = PartitionBlocks::default();
        let direct = ChatId::direct(&user("ana"), &user("eve")).to_string();
        let found = |blocks: &PartitionBlocks, users: &[&str], sender: &str, chat: &str, at| {
            let users: Vec<_> = users.iter().map(|u| user(u)).collect();
            let message = v1::Message {
                sender_id: sender.into(),
                chat_id: chat.into(),
                accepted_at_ms: at,
                ..Default::default()
            };
            blocks.leak(&users, &message).is_some()
        };
        blocks.pass(edge(3, true));
        assert!(found(&blocks, &["ana", "eve"], "ana", &direct, 6001));
        assert!(!found(&blocks, &["ana", "eve"], "ana", &direct, 6000), "not known everywhere yet");
        assert!(!found(&blocks, &["eve"], "ana", &direct, 6001), "not the sender's own copy");
        assert!(!found(&blocks, &["ana", "eve"], "eve", &direct, 6001), "the blocked one writes");
        assert!(!found(&blocks, &["ana", "eve"], "ana", "g.1", 6001), "a group");
        blocks.pass(edge(9, false));
        assert!(!found(&blocks, &["ana", "eve"], "ana", &direct, 6001));
    }
}
