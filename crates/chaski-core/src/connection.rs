//! Contacts and blocks: what becomes of a request, and which blocks hold at a place in a
//! partition of `recipients`.
//!
//! A request's place in its own log decides between two devices of one user; the answer's place
//! in the user's partition decides which messages a block withholds (L7).

use crate::{DeviceId, Offset, UserId, record::RequestId, record::UnixMs};
use std::collections::HashMap;

/// What one user is to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Status {
    /// Nothing.
    #[default]
    None,
    /// A contact.
    Active,
    /// Blocked: messages are withheld.
    Blocked,
}

/// The present state of a pair; version 0 where it was never set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Connection {
    /// What the peer is to the user.
    pub status: Status,
    /// Counts the changes of the pair.
    pub version: u64,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The pair is changed to this; `lifted`: the peer was blocked before.
    Changed {
        /// The state from now on.
        to: Connection,
        /// Whether a block ends with it.
        lifted: bool,
    },
    /// It was so already.
    Already(Connection),
    /// 409: it was asked on an old version, or would lift a block without naming one.
    Conflict(Connection),
}

impl Connection {
    /// What becomes of the request to make it `asked`.
    #[must_use]
    pub fn decide(self, asked: Status, based_on: Option<u64>) -> Decision {
        let lifts = self.status == Status::Blocked;
        if self.status == asked {
            Decision::Already(self)
        } else if based_on.map_or(lifts, |version| version != self.version) {
            Decision::Conflict(self)
        } else {
            let to = Connection { status: asked, version: self.version + 1 };
            Decision::Changed { to, lifted: lifts }
        }
    }
}

/// A record of `connection-requests`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Under this id the verdict is found.
    pub id: RequestId,
    /// Who asks.
    pub user: UserId,
    /// From which device.
    pub device: DeviceId,
    /// When, by the clock of the service that took it.
    pub at: UnixMs,
    /// What is asked.
    pub ask: Ask,
}

/// What a user asks of contacts, blocks and settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// To change a pair.
    Connection {
        /// The other one.
        peer: UserId,
        /// To what.
        status: Status,
        /// The version that the device knew.
        based_on: Option<u64>,
    },
    /// To change the settings.
    Settings {
        /// Others are not told what the user has read.
        hide_read_marks: bool,
    },
}

/// A pair after a change, as it stands in the user's partition of `recipients`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionChange {
    /// The other one.
    pub peer: UserId,
    /// The state from here on.
    pub to: Connection,
    /// Who changed it.
    pub device: DeviceId,
    /// Whether a block ends here.
    pub lifted: bool,
    /// When it was asked.
    pub at: UnixMs,
}

/// Where a block begins or ends in the blocker's partition of `recipients`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockEdge {
    /// The blocker.
    pub user: UserId,
    /// The blocked.
    pub peer: UserId,
    /// The place.
    pub offset: Offset,
    /// It begins; else it ends.
    pub blocked: bool,
    /// When it was asked.
    pub at: UnixMs,
}

impl BlockEdge {
    /// The edge that a change at `offset` of the partition of `user` makes, if any.
    #[must_use]
    pub fn of(user: &UserId, offset: Offset, change: &ConnectionChange) -> Option<Self> {
        let blocked = change.to.status == Status::Blocked;
        (blocked || change.lifted).then(|| Self {
            user: user.clone(),
            peer: change.peer.clone(),
            offset,
            blocked,
            at: change.at,
        })
    }
}

/// The blocks that hold at a consumer's place in a partition.
#[derive(Debug, Default)]
pub struct Blocks {
    /// Blocker → blocked → since when.
    held: HashMap<UserId, HashMap<UserId, UnixMs>>,
}

impl Blocks {
    /// The blocks that hold at `place`: those begun before it and not ended before it. Edges of one
    /// pair come in their order.
    #[must_use]
    pub fn at(place: Offset, edges: impl IntoIterator<Item = BlockEdge>) -> Self {
        let mut blocks = Self::default();
        edges.into_iter().filter(|edge| edge.offset < place).for_each(|edge| blocks.pass(edge));
        blocks
    }

    /// The consumer passes an edge.
    pub fn pass(&mut self, edge: BlockEdge) {
        if edge.blocked {
            self.held.entry(edge.user).or_default().insert(edge.peer, edge.at);
        } else if let Some(peers) = self.held.get_mut(&edge.user) {
            peers.remove(&edge.peer);
            if peers.is_empty() {
                self.held.remove(&edge.user);
            }
        }
    }

    /// Since when `user` blocks `peer`, if so.
    #[must_use]
    pub fn since(&self, user: &UserId, peer: &str) -> Option<UnixMs> {
        self.held.get(user)?.get(peer).copied()
    }

    /// Whom `user` blocks.
    pub fn of(&self, user: &UserId) -> impl Iterator<Item = (&UserId, UnixMs)> {
        self.held.get(user).into_iter().flatten().map(|(peer, at)| (peer, *at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l7_a_request_is_decided_by_the_present_state_alone() {
        use Status::{Active, Blocked, None as Nothing};
        let state = |status, version| Connection { status, version };
        let changed =
            |status, version, lifted| Decision::Changed { to: state(status, version), lifted };
        let cases = [
            (state(Nothing, 0), Active, None, changed(Active, 1, false)),
            (state(Active, 1), Blocked, None, changed(Blocked, 2, false)),
            (state(Active, 1), Blocked, Some(1), changed(Blocked, 2, false)),
            (state(Active, 1), Blocked, Some(0), Decision::Conflict(state(Active, 1))),
            (state(Blocked, 2), Blocked, Some(1), Decision::Already(state(Blocked, 2))),
            (state(Blocked, 2), Active, None, Decision::Conflict(state(Blocked, 2))),
            (state(Blocked, 2), Nothing, Some(1), Decision::Conflict(state(Blocked, 2))),
            (state(Blocked, 2), Nothing, Some(2), changed(Nothing, 3, true)),
        ];
        for (present, asked, based_on, expected) in cases {
            assert_eq!(present.decide(asked, based_on), expected, "{present:?} {asked:?}");
        }
    }

    #[test]
    fn l7_blocks_hold_between_their_edges() {
        let edge = |offset, blocked| BlockEdge {
            user: "ana".parse().unwrap(),
            peer: "eve".parse().unwrap(),
            offset: Offset(offset),
            blocked,
            at: 7,
        };
        let edges = [edge(3, true), edge(5, false), edge(9, true)];
        let ana = "ana".parse().unwrap();
        for (place, held) in [(3, false), (4, true), (5, true), (6, false), (9, false), (10, true)]
        {
            let blocks = Blocks::at(Offset(place), edges.clone());
            assert_eq!(blocks.since(&ana, "eve").is_some(), held, "at {place}");
        }
    }
}
