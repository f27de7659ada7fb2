//! What is known of the places that a feed has passed: at some of them its watermark, and of all of
//! them which blocks held there. So the log can be read again from there, and says the same.
//!
//! Must not know: who reads it again, and why.

use super::blocks::PartitionBlocks;
use chaski_core::{Offset, UserId, Watermark, connection::BlockEdge};
use std::collections::HashMap;

/// A watermark is kept every so many offsets.
const MARK_EVERY: u64 = 1000;
/// So many are kept; the further back, the fewer.
const MARKS_MAX: usize = 64;
/// So many edges of blocks are kept; past it the past begins later.
const EDGES_MAX: usize = 100_000;

/// The past of one feed.
pub(super) struct Past {
    /// The blocks that hold at the feed's place.
    pub(super) blocks: PartitionBlocks,
    /// The feed's place.
    here: Watermark,
    /// Some of its watermarks, ascending; at least one.
    marks: Vec<Watermark>,
    /// The edges passed since the first of them, by whose block it is, ascending.
    edges: HashMap<UserId, Vec<BlockEdge>>,
    edge_count: usize,
}

impl Past {
    /// The past of a feed that begins at `mark`, where these blocks hold.
    pub(super) fn new(mark: Watermark, blocks: PartitionBlocks) -> Self {
        let marks = vec![mark.clone()];
        Self { blocks, here: mark, marks, edges: HashMap::new(), edge_count: 0 }
    }

    /// Where the past begins: at the feed's place at the latest.
    pub(super) fn begins(&self) -> Offset {
        self.marks.first().map_or(self.here.next, |mark| mark.next)
    }

    /// The last known watermark at this place or before it.
    pub(super) fn mark_at(&self, place: Offset) -> Option<Watermark> {
        let behind = self.marks.partition_point(|mark| mark.next <= place);
        self.marks.get(behind.checked_sub(1)?).cloned()
    }

    /// The feed has passed everything before `mark`.
    pub(super) fn note(&mut self, mark: &Watermark) {
        self.here.clone_from(mark);
        if self.edge_count > EDGES_MAX {
            // The older half; where that is all of it, the past begins here.
            let half = self.marks.get(self.marks.len().div_ceil(2));
            self.forget_before(half.map_or(mark.next, |mark| mark.next));
        }
        let due = self.marks.last().is_none_or(|last| mark.next.0 - last.next.0 >= MARK_EVERY);
        if due {
            self.marks.push(mark.clone());
        }
        if self.marks.len() > MARKS_MAX {
            let spare = self.spare();
            self.marks.remove(spare);
        }
    }

    /// The mark that is missed least: without which the gap is smallest, as seen from the end.
    fn spare(&self) -> usize {
        let end = self.marks.last().map_or(0, |mark| mark.next.0);
        let gap = |index: usize| {
            let (before, behind) = (self.marks[index - 1].next.0, self.marks[index + 1].next.0);
            (behind - before) as f64 / (end - before) as f64
        };
        let inner = 1..self.marks.len() - 1;
        inner.min_by(|a, b| gap(*a).total_cmp(&gap(*b))).unwrap_or(0)
    }

    /// What stands before `start` is not kept in the log any more.
    pub(super) fn forget_before(&mut self, start: Offset) {
        let gone = self.marks.partition_point(|mark| mark.next < start);
        if gone == 0 {
            return;
        }
        self.marks.drain(..gone);
        if self.marks.is_empty() {
            self.marks.push(self.here.clone());
        }
        let begins = self.begins();
        self.edges.retain(|_, edges| {
            edges.retain(|edge| edge.offset >= begins);
            !edges.is_empty()
        });
        self.edge_count = self.edges.values().map(Vec::len).sum();
    }

    /// The feed passes an edge.
    pub(super) fn pass(&mut self, edge: BlockEdge) {
        self.edges.entry(edge.user.clone()).or_default().push(edge.clone());
        self.edge_count += 1;
        self.blocks.pass(edge);
    }

    /// Which of these users a message of this sender at `place`, which the feed has passed, is
    /// hidden from (L7). A block that begins or ends behind the place was not there, or still was.
    pub(super) fn hidden_from(&self, users: &[UserId], sender: &str, place: Offset) -> Vec<u32> {
        let held = |user: &UserId| {
            let mut edges = self.edges.get(user).into_iter().flatten();
            match edges.find(|edge| edge.offset > place && edge.peer.as_str() == sender) {
                Some(next) => !next.blocked,
                None => self.blocks.holds(user, sender),
            }
        };
        (0..).zip(users).filter(|(_, user)| held(user)).map(|(index, _)| index).collect()
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

    fn mark(next: u64) -> Watermark {
        Watermark { next: Offset(next), ..Watermark::default() }
    }

    #[test]
    fn l7_blocks_are_those_of_the_place_whatever_holds_now() {
        let mut past = Past::new(mark(0), PartitionBlocks::default());
        for edge in [edge(3, true), edge(5, false), edge(9, true), edge(12, false)] {
            past.pass(edge);
        }
        let users = ["ben", "ana"].map(user);
        let held = |past: &Past, place| match &past.hidden_from(&users, "eve", Offset(place))[..] {
            [] => false,
            [1] => true,
            other => panic!("{other:?}"),
        };
        let places = [2, 4, 6, 10, 13];
        assert_eq!(places.map(|place| held(&past, place)), [false, true, false, true, false]);
        past.note(&mark(10_000));
        past.forget_before(Offset(10));
        assert_eq!((past.begins(), past.edge_count), (Offset(10_000), 0));
        past.pass(edge(10_002, true));
        assert!(!held(&past, 10_001) && held(&past, 10_003));
        assert!(past.hidden_from(&users, "ben", Offset(10_003)).is_empty());
    }

    #[test]
    fn l8_marks_are_few_and_near_every_place_for_its_distance() {
        let mut past = Past::new(mark(0), PartitionBlocks::default());
        const END: u64 = 10_000_000;
        (0..=END).step_by(100).for_each(|next| past.note(&mark(next)));
        assert!(past.marks.len() <= MARKS_MAX);
        for back in [2000, 30_000, 400_000, 5_000_000, END] {
            let place = END - back;
            let read = place - past.mark_at(Offset(place)).unwrap().next.0;
            assert!(read <= MARK_EVERY.max(back / 2), "{read} too many for {back} back");
        }
        past.forget_before(Offset(END / 2));
        assert_eq!(past.mark_at(Offset(END / 4)), None);
        assert!(past.begins().0 < END / 4 * 3);
        past.forget_before(Offset(END + 1));
        assert_eq!(past.begins(), Offset(END), "the feed's own place is always known");
    }

    #[test]
    fn l8_with_too_many_edges_the_past_begins_later() {
        let mut past = Past::new(mark(0), PartitionBlocks::default());
        for offset in 0..=EDGES_MAX as u64 {
            past.pass(edge(offset, offset % 2 == 0));
            past.note(&mark(offset + 1));
        }
        past.note(&mark(EDGES_MAX as u64 + 2));
        let begins = past.begins().0;
        assert!(begins > 0 && past.edge_count < EDGES_MAX, "from {begins} on: {}", past.edge_count);
        // Where there is one mark, that goes.
        let mut past = Past::new(mark(0), PartitionBlocks::default());
        (0..=EDGES_MAX as u64).for_each(|offset| past.pass(edge(offset, offset % 2 == 0)));
        past.note(&mark(EDGES_MAX as u64 + 1));
        assert_eq!((past.begins(), past.edge_count), (Offset(EDGES_MAX as u64 + 1), 0));
    }
}
