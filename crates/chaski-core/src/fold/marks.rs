//! Receipts: cumulative marks of members, told to the authors of what they cover.

use super::{Bucket, Chat};
use crate::{
    Partition, UserId,
    placement::Placement,
    record::{Event, Mark, Marks, MarksChange, MemberMark, Output, Rules},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

type Readers = BTreeMap<Partition, BTreeSet<UserId>>;

impl Bucket {
    /// Moves marks forward. The marking users get what moved (it is stored from there, and their
    /// other devices agree on what is read); so do the authors of messages between the old and
    /// the new marks, unless the chat is large.
    pub(super) fn marks(
        &mut self,
        placement: Placement,
        rules: Rules,
        marks: Marks,
        out: &mut Vec<Output>,
    ) {
        let Some(chat) = self.chats.get_mut(&marks.chat) else { return };
        let pushes = chat.members().len() <= rules.receipts_push_max as usize;
        let (mut own, mut public) = (Vec::new(), Vec::new());
        let (mut owners, mut authors) = (Readers::new(), Readers::new());
        let at = |user: &UserId| placement.of_user(user);
        for mark in &marks.marks {
            let Some(moved) = chat.mark(mark) else { continue };
            owners.entry(at(&mark.user)).or_default().insert(mark.user.clone());
            if pushes && moved.seen_by_others {
                let covered = chat.authors_after(moved.before, &mark.user);
                covered.for_each(|user| {
                    authors.entry(at(user)).or_default().insert(user.clone());
                });
                public.push(MemberMark { read: moved.mark.public_read, ..moved.mark.clone() });
            }
            own.push(moved.mark);
        }
        let before = out.len();
        let copies = [(true, own, owners), (false, public, authors)];
        for (own, moved, readers) in copies {
            let change = MarksChange { chat: marks.chat, marks: moved, own, at: marks.at };
            let event = Event::Marks(Arc::new(change));
            for (partition, users) in readers {
                let index = (out.len() - before) as u32;
                let users = users.into_iter().collect();
                let event = event.clone();
                out.push(Output { partition, index, users, visible_from: None, event });
            }
        }
    }
}

struct Moved {
    mark: MemberMark,
    /// The lower of the two marks before, as others know them.
    before: u64,
    seen_by_others: bool,
}

impl Chat {
    /// Moves a member's marks; `None` where they do not move.
    fn mark(&mut self, mark: &Mark) -> Option<Moved> {
        let place = self.place_of(&mark.user)?;
        let last_seq = self.last_seq;
        let state = &mut self.states[place];
        let before = *state;
        state.read = before.read.max(mark.read.min(last_seq));
        // What is read has been delivered.
        state.delivered = before.delivered.max(mark.delivered.min(last_seq)).max(state.read);
        if !mark.hide_read {
            state.public_read = before.public_read.max(mark.read.min(last_seq));
        }
        let after = *state;
        (after != before).then(|| Moved {
            mark: MemberMark {
                user: mark.user.clone(),
                delivered: after.delivered,
                read: after.read,
                public_read: after.public_read,
            },
            before: match (
                after.delivered > before.delivered,
                after.public_read > before.public_read,
            ) {
                (true, true) => before.delivered.min(before.public_read),
                (true, false) => before.delivered,
                (false, _) => before.public_read,
            },
            seen_by_others: after.delivered > before.delivered
                || after.public_read > before.public_read,
        })
    }

    /// Whose latest message is above `seq`: it is covered by a mark that moved from there, or
    /// will be by the next one.
    fn authors_after(&self, seq: u64, but: &UserId) -> impl Iterator<Item = &UserId> {
        let members = self.members().iter().zip(&self.states);
        members.filter(move |(m, state)| state.sent > seq && m.user != *but).map(|(m, _)| &m.user)
    }
}
