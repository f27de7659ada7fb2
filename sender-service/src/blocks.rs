//! Which 1:1 chats have an end that blocks the other, as the topic `connections` says: a cache, so
//! that a message which nobody will be shown is refused at once.
//!
//! Must not know: where a block begins in anybody's order. The tiers behind decide that (L7), and
//! they withhold what is let through here.

use crate::BlocksShown;
use bytes::Bytes;
use chaski_core::{ChatId, Offset, Partition, UserId, connection::Status, record::Command};
use chaski_ports::{ErrorKind, Log, LogRecord, PortError, Topic};
use chaski_proto::{Malformed, Problem, status_from_proto, v1};
use parking_lot::RwLock;
use prost::Message as _;
use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    time::Duration,
};

/// The topic has one partition.
const PARTITION: Partition = Partition(0);
/// How long after a failure the topic is read again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// The pairs of which one has ever blocked the other.
#[derive(Debug)]
pub(crate) struct Blocks {
    shown: BlocksShown,
    pairs_max: usize,
    pairs: RwLock<Pairs>,
}

/// A user and a 1:1 chat of theirs name a pair, whichever of both ways a message is addressed.
type End = (UserId, ChatId);

#[derive(Debug, Default)]
struct Pairs {
    blocker: HashMap<End, Pair>,
    /// Kept only where the blocked are told.
    blocked: HashSet<End>,
}

/// A lifted block stays, so that a record which comes late changes nothing.
#[derive(Debug)]
struct Pair {
    version: u64,
    blocked: bool,
}

impl Blocks {
    pub(crate) fn new(shown: BlocksShown, pairs_max: usize) -> Self {
        Self { shown, pairs_max, pairs: RwLock::default() }
    }

    /// 403 where the sender blocks the other one, or is blocked and may know it.
    pub(crate) fn check(&self, command: &Command) -> Result<(), Problem> {
        if !command.chat.is_direct() {
            return Ok(());
        }
        let end = (command.user.clone(), command.chat);
        let pairs = self.pairs.read();
        let (code, why) = if pairs.blocker.get(&end).is_some_and(|pair| pair.blocked) {
            ("you_blocked", "you have blocked this user: lift the block first")
        } else if pairs.blocked.contains(&end) {
            ("blocked", "this user does not take messages from you")
        } else {
            return Ok(());
        };
        metrics::counter!("chaski_sends_blocked_total", "code" => code).increment(1);
        Err(Problem::new(403, code, why))
    }

    /// Follows the topic from its beginning, for ever. What may pass is tried again: without this
    /// cache messages are still accepted.
    ///
    /// # Errors
    /// What does not pass, such as a topic that is not there.
    pub(crate) async fn follow(&self, log: &dyn Log) -> Result<(), PortError> {
        let mut next = None;
        loop {
            let error = match self.read(log, &mut next).await {
                Ok(never) => match never {},
                Err(error) => error,
            };
            match error.kind {
                // Compaction has removed what stood there: the newest states are all still there.
                ErrorKind::OutOfRange => next = None,
                ErrorKind::NotFound | ErrorKind::Invalid => return Err(error),
                _ => {}
            }
            tracing::warn!(%error, cause = ?error.source, "blocks are not followed");
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    async fn read(
        &self,
        log: &dyn Log,
        next: &mut Option<Offset>,
    ) -> Result<Infallible, PortError> {
        let from = match *next {
            Some(next) => next,
            None => log.bounds(Topic::Connections, PARTITION).await?.start,
        };
        let mut reader = log.reader(Topic::Connections, PARTITION, from).await?;
        loop {
            for record in reader.next().await? {
                *next = Some(record.offset.next());
                if let Err(error) = self.take(&record) {
                    tracing::warn!(%error, offset = %record.offset, "an unreadable connection");
                }
            }
        }
    }

    fn take(&self, record: &LogRecord) -> Result<(), Malformed> {
        let (user, peer) = ends(&record.key)?;
        let state = v1::ConnectionState::decode(Bytes::clone(&record.value))?;
        let blocked = status_from_proto(state.status()) == Status::Blocked;
        self.set(user, peer, state.version, blocked);
        Ok(())
    }

    fn set(&self, user: UserId, peer: UserId, version: u64, blocked: bool) {
        let chat = ChatId::direct(&user, &peer);
        let mut pairs = self.pairs.write();
        let full = pairs.blocker.len() >= self.pairs_max;
        let end = (user, chat);
        match pairs.blocker.get_mut(&end) {
            Some(pair) if pair.version >= version => return,
            Some(pair) => *pair = Pair { version, blocked },
            // A contact that was never blocked.
            None if !blocked => return,
            None if full => {
                metrics::counter!("chaski_blocks_not_cached_total").increment(1);
                return;
            }
            None => {
                pairs.blocker.insert(end, Pair { version, blocked });
            }
        }
        if !blocked {
            pairs.blocked.remove(&(peer, chat));
        } else if self.shown == BlocksShown::Visible {
            pairs.blocked.insert((peer, chat));
        }
    }
}

/// `<user>/<peer>`.
fn ends(key: &[u8]) -> Result<(UserId, UserId), Malformed> {
    let key = std::str::from_utf8(key).unwrap_or_default();
    let (user, peer) = key
        .split_once('/')
        .ok_or_else(|| Malformed::because("a key of connections is <userId>/<peerId>"))?;
    Ok((user.parse()?, peer.parse()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use chaski_core::record::{Action, Body, Content, Send};
    use std::sync::Arc;

    fn user(name: &str) -> UserId {
        name.parse().unwrap()
    }

    /// What becomes of a message of `from` in this chat.
    #[track_caller]
    fn check(blocks: &Blocks, from: &str, chat: ChatId, refused: Option<&str>) {
        let body = Body::Text("x".into());
        let send = Send {
            to: None,
            key: "k".parse().unwrap(),
            content: Arc::new(Content { body, attachments: Vec::new() }),
            sent_at: None,
        };
        let (device, action) = ("d".parse().unwrap(), Action::Send(send));
        let command = Command { chat, user: user(from), device, accepted_at: 0, action };
        let problem = blocks.check(&command).err();
        assert!(problem.as_ref().is_none_or(|p| p.status == 403));
        assert_eq!(problem.as_ref().map(|p| p.code.as_str()), refused, "{from} in {chat}");
    }

    fn record(key: &str, status: v1::ConnectionStatus, version: u64) -> LogRecord {
        let state = v1::ConnectionState { status: status.into(), version };
        LogRecord {
            offset: Offset(7),
            key: Bytes::copy_from_slice(key.as_bytes()),
            value: state.encode_to_vec().into(),
            timestamp_ms: 0,
            traceparent: None,
        }
    }

    #[test]
    fn l7_a_block_is_refused_to_the_blocker_and_where_shown_to_the_blocked() {
        use v1::ConnectionStatus::{Active, Blocked, None as Nothing};
        let direct = ChatId::direct(&user("ana"), &user("eve"));
        let group = ChatId::created(&user("ana"), &"k".parse().unwrap());
        let other = ChatId::direct(&user("ana"), &user("ben"));
        for shown in [BlocksShown::Hidden, BlocksShown::Visible] {
            let told = (shown == BlocksShown::Visible).then_some("blocked");
            let blocks = Blocks::new(shown, 10);
            blocks.take(&record("ana/eve", Active, 1)).unwrap();
            check(&blocks, "ana", direct, None);
            blocks.take(&record("ana/eve", Blocked, 2)).unwrap();
            check(&blocks, "ana", direct, Some("you_blocked"));
            check(&blocks, "eve", direct, told);
            check(&blocks, "ana", other, None);
            check(&blocks, "ana", group, None);
            blocks.take(&record("ana/eve", Nothing, 3)).unwrap();
            // Late: a process that has lost its partition says again what was once so.
            blocks.take(&record("ana/eve", Blocked, 2)).unwrap();
            check(&blocks, "ana", direct, None);
            check(&blocks, "eve", direct, None);
        }
        for key in ["ana", "ana/eve/ben", "/eve", "a b/eve"] {
            let blocks = Blocks::new(BlocksShown::Hidden, 10);
            assert!(blocks.take(&record(key, Blocked, 1)).is_err(), "{key}");
        }
    }

    #[test]
    fn l8_the_pairs_are_kept_up_to_the_limit_and_not_one_past_it() {
        use v1::ConnectionStatus::Blocked;
        let blocks = Blocks::new(BlocksShown::Hidden, 2);
        for (peer, refused) in [("b", Some("you_blocked")), ("c", Some("you_blocked")), ("d", None)]
        {
            blocks.take(&record(&format!("ana/{peer}"), Blocked, 1)).unwrap();
            check(&blocks, "ana", ChatId::direct(&user("ana"), &user(peer)), refused);
        }
        blocks.take(&record("ana/b", v1::ConnectionStatus::None, 2)).unwrap();
        check(&blocks, "ana", ChatId::direct(&user("ana"), &user("b")), None);
    }
}
