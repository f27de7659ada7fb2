//! Whose messages from before the reader's join are withheld from them. Such a place never had a
//! position in the reader's order that a block could be compared with, so its time decides: it is
//! hidden where it was accepted while the reader blocked its author, and as long as they do (L7).
//!
//! Must not know: pages, other places.

use super::{corrupt, visible::Visible};
use crate::service::MessageService;
use chaski_core::{Offset, UserId, record::UnixMs};
use chaski_ports::PortError;
use chaski_proto::v1;
use prost::Message as _;
use std::collections::HashMap;

/// Edges of one pair that are read at once; more is rare.
const EDGES: usize = 500;

/// Whom of the authors on a page the reader blocks, or has blocked, and when.
#[derive(Default)]
pub(super) struct Withheld {
    by_author: HashMap<String, Held>,
}

/// When a block of one author was held.
#[derive(Debug, Default, PartialEq)]
struct Held {
    /// It is now: all is hidden, whenever it was sent.
    now: bool,
    /// From when to when, both included; the last one may have no end.
    times: Vec<(UnixMs, UnixMs)>,
}

impl Withheld {
    /// Reads one pair for each author.
    pub(super) async fn load(
        service: &MessageService,
        visible: &Visible,
        authors: impl IntoIterator<Item = UserId>,
    ) -> Result<Self, PortError> {
        let mut by_author = HashMap::new();
        for author in authors {
            let row = service.ports.connections.connection(&visible.user, &author).await?;
            // Who was never anything to the reader was never blocked: there are no edges.
            let Some(row) = row else { continue };
            let state =
                v1::StoredConnection::decode(row.state).map_err(corrupt("connections.state"))?;
            let now = state.status() == v1::ConnectionStatus::Blocked;
            let times = times(service, visible, &author).await?;
            by_author.insert(author.to_string(), Held { now, times });
        }
        Ok(Self { by_author })
    }

    /// Whether a message of this author, accepted at this time, is withheld.
    pub(super) fn hides(&self, author: &str, accepted_at: UnixMs) -> bool {
        self.by_author.get(author).is_some_and(|held| held.covers(accepted_at))
    }
}

impl Held {
    fn covers(&self, at: UnixMs) -> bool {
        self.now || self.times.iter().any(|(from, upto)| (*from..=*upto).contains(&at))
    }
}

/// When the reader blocked the author, by the edges in their partition. Those of before the join
/// are all stored: the join is shown only once its record is, and blocks are stored before.
async fn times(
    service: &MessageService,
    visible: &Visible,
    author: &UserId,
) -> Result<Vec<(UnixMs, UnixMs)>, PortError> {
    let (mut times, mut from) = (Vec::new(), Offset(0));
    loop {
        let pair = (&visible.user, author);
        let connections = &service.ports.connections;
        let edges = connections.pair_blocks(visible.partition, pair, from, EDGES).await?;
        for edge in &edges {
            note(&mut times, edge.blocked, edge.at);
        }
        match edges.last() {
            Some(last) if edges.len() == EDGES => from = last.offset.next(),
            _ => return Ok(times),
        }
    }
}

/// An edge, in its place behind the earlier ones.
fn note(times: &mut Vec<(UnixMs, UnixMs)>, blocked: bool, at: UnixMs) {
    match (times.last_mut(), blocked) {
        // Already open.
        (Some((_, UnixMs::MAX)), true) | (None, false) => {}
        (Some(last), false) => last.1 = last.1.min(at),
        (_, true) => times.push((at, UnixMs::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l7_a_time_within_a_block_is_covered_and_no_other() {
        let held = |edges: &[(bool, UnixMs)], now| {
            let mut times = Vec::new();
            edges.iter().for_each(|(blocked, at)| note(&mut times, *blocked, *at));
            Held { now, times }
        };
        let twice = held(&[(true, 10), (false, 20), (true, 30), (true, 31), (false, 40)], false);
        let covered: Vec<_> = (0..50).filter(|at| twice.covers(*at)).collect();
        assert_eq!(covered, (10..=20).chain(30..=40).collect::<Vec<_>>());
        let open = held(&[(false, 5), (true, 10)], false);
        assert_eq!([9, 10, UnixMs::MAX].map(|at| open.covers(at)), [false, true, true]);
        assert!(held(&[], true).covers(1));
    }
}
