//! Which rows a record of `recipients` makes, given the blocks that hold at its place. A pure
//! function of the records so far, so a replay writes the same rows again.
//!
//! Must not know: the log, the stores, who waits for the rows.

use crate::days::DAY_MS;
use bytes::Bytes;
use chaski_core::{
    ChatId, Offset, Partition, Position, UserId,
    connection::{BlockEdge, Blocks},
    record::UnixMs,
};
use chaski_planted::Bug;
use chaski_ports::{
    BlockRow, ChatRow, HiddenRow, InboxRow, MarkRow, MembershipRow, MessageRow, StoreBatch,
    VerdictRow,
};
use chaski_proto::{
    Malformed, RecipientEntry, connection_change,
    v1::{self, recipients_record::Event, stored_event, stored_item},
};
use prost::Message as _;

/// Adds the rows of the record at `offset` of `partition`, which came from `origin`. `blocks` are
/// those that hold before it; a change of a block moves them on (L7). `kept` tells for how many
/// days a chat is kept that asks for so many; 0: for ever.
pub(crate) fn add(
    batch: &mut StoreBatch,
    blocks: &mut Blocks,
    (partition, offset): (Partition, Offset),
    (origin, kept): (v1::Origin, &dyn Fn(u32) -> u32),
    entry: &RecipientEntry,
) -> Result<(), Malformed> {
    let rows = Rows { batch, partition, position: Position::at(offset), origin, kept, entry };
    match &entry.event {
        Event::Message(message) => rows.message(message, blocks),
        Event::ChatChange(change) => rows.chat_change(change),
        Event::Rejection(rejection) => {
            rows.same_for_all(stored_event::Event::Rejection(rejection.clone()));
            Ok(())
        }
        Event::Verdict(verdict) => rows.verdict(verdict),
        Event::Marks(marks) => rows.marks(marks),
        Event::ConnectionChange(change) => rows.connection_change(change, offset, blocks),
        // Settings are stored by whoever decides them.
        Event::Duplicate(_) | Event::SettingsChange(_) => Ok(()),
    }
}

struct Rows<'a> {
    batch: &'a mut StoreBatch,
    partition: Partition,
    position: Position,
    origin: v1::Origin,
    kept: &'a dyn Fn(u32) -> u32,
    entry: &'a RecipientEntry,
}

impl Rows<'_> {
    fn message(mut self, message: &v1::Message, blocks: &Blocks) -> Result<(), Malformed> {
        let (chat, days): (ChatId, _) = (message.chat_id.parse()?, message.history_days);
        let makes_chat = !message.members.is_empty();
        if self.entry.is_first_copy {
            self.item((chat, message.seq), days, stored_item::Item::Message(message.clone()));
            if makes_chat {
                let members = message.members.clone();
                let state = v1::StoredChat { members, history_days: days, ..Default::default() };
                self.chat(chat, message.seq, &state);
            }
        }
        if makes_chat {
            self.memberships(chat, (message.seq, days), (&message.members, &[]));
        }
        let pointer =
            |sent| v1::MessagePointer { chat_id: message.chat_id.clone(), seq: message.seq, sent };
        let sent = encode(stored_event::Event::Message(pointer(true)));
        let received = encode(stored_event::Event::Message(pointer(false)));
        let hidden = encode(stored_event::Event::Hidden(pointer(false)));
        for user in &self.entry.users {
            let event = if user.as_str() == message.sender_id {
                &sent
            } else if blocks.since(user, &message.sender_id).is_some()
                && !chaski_planted::is(Bug::StoredInTheClear)
            {
                let row = HiddenRow { user: user.clone(), chat, seq: message.seq };
                self.batch.hidden.push(row);
                &hidden
            } else {
                &received
            };
            self.inbox(user, event.clone());
        }
        Ok(())
    }

    fn chat_change(mut self, change: &v1::ChatChange) -> Result<(), Malformed> {
        let (chat, days): (ChatId, _) = (change.chat_id.parse()?, change.history_days);
        if self.entry.is_first_copy {
            self.item((chat, change.seq), days, stored_item::Item::ChatChange(change.clone()));
            let state = v1::StoredChat {
                members: change.members.clone(),
                name: change.name.clone(),
                version: change.version,
                history_days: days,
            };
            self.chat(chat, change.seq, &state);
        }
        self.memberships(chat, (change.seq, days), (&change.members, &change.left));
        for (user, visible_from) in self.entry.users.iter().zip(&change.visible_from) {
            let seen = change.as_seen(*visible_from);
            self.inbox(user, encode(stored_event::Event::ChatUpdate(seen)));
        }
        Ok(())
    }

    fn verdict(self, verdict: &v1::ChatVerdict) -> Result<(), Malformed> {
        let request = verdict.request_id[..]
            .try_into()
            .map_err(|_| Malformed::because("a verdict's request id must be 16 bytes"))?;
        let stored = v1::StoredVerdict { verdict: Some(verdict.clone()), ..Default::default() };
        let verdict = stored.encode_to_vec().into();
        self.batch.verdicts.push(VerdictRow { request, verdict, at_ms: self.entry.at_ms });
        Ok(())
    }

    /// Of the marking users' own copy, so that each mark is stored once. Marks of a member only
    /// grow, so their sum tells the later ones.
    fn marks(self, marks: &v1::ReceiptMarks) -> Result<(), Malformed> {
        let chat: ChatId = marks.chat_id.parse()?;
        if !marks.own {
            return Ok(());
        }
        for mark in &marks.marks {
            let user = self.entry.users.iter().find(|user| user.as_str() == mark.user_id);
            let Some(user) = user else { continue };
            let state = v1::StoredMark {
                delivered_seq: mark.delivered_seq,
                read_seq: mark.read_seq,
                public_read_seq: mark.public_read_seq,
            };
            let version = [mark.delivered_seq, mark.read_seq, mark.public_read_seq]
                .into_iter()
                .fold(0_u64, u64::saturating_add);
            let state = state.encode_to_vec().into();
            self.batch.marks.push(MarkRow { chat, user: user.clone(), version, state });
        }
        Ok(())
    }

    fn connection_change(
        mut self,
        change: &v1::ConnectionChange,
        offset: Offset,
        blocks: &mut Blocks,
    ) -> Result<(), Malformed> {
        let changed = connection_change(change, self.entry.at_ms)?;
        for user in &self.entry.users {
            if let Some(edge) = BlockEdge::of(user, offset, &changed) {
                let row = BlockRow { partition: self.partition, edge: edge.clone() };
                self.batch.blocks.push(row);
                blocks.pass(edge);
            }
            self.inbox(user, encode(stored_event::Event::ConnectionChange(change.clone())));
        }
        Ok(())
    }

    /// What stands at a place of a chat that asks to be kept for so many days.
    fn item(&mut self, (chat, seq): (ChatId, u64), days: u32, item: stored_item::Item) {
        let item = v1::StoredItem { item: Some(item), origin: Some(self.origin) };
        let (item, at_ms) = (item.encode_to_vec().into(), self.entry.at_ms);
        let days = Some((self.kept)(days)).filter(|days| *days > 0);
        let ends_ms = days.map(|days| at_ms.saturating_add(UnixMs::from(days) * DAY_MS));
        self.batch.messages.push(MessageRow { chat, seq, item, at_ms, ends_ms });
    }

    fn chat(&mut self, chat: ChatId, version: u64, state: &v1::StoredChat) {
        self.batch.chats.push(ChatRow { chat, version, state: state.encode_to_vec().into() });
    }

    /// What this record's users may see of the chat: the spans of their earlier memberships, and
    /// those who have not left what is from their present one on.
    fn memberships(
        &mut self,
        chat: ChatId,
        (version, history_days): (u64, u32),
        (members, left): (&[v1::Member], &[v1::Member]),
    ) {
        for user in &self.entry.users {
            let same = |m: &&v1::Member| m.user_id == user.as_str();
            let (member, mut visible) = if let Some(member) = members.iter().find(same) {
                (member, vec![v1::SeqSpan { first: member.visible_from, last: None }])
            } else if let Some(member) = left.iter().find(same) {
                (member, Vec::new())
            } else {
                continue;
            };
            visible.splice(0..0, member.earlier.iter().copied());
            let joined = member.joined;
            let state = v1::StoredMembership { visible, joined, history_days };
            let state = state.encode_to_vec().into();
            self.batch.memberships.push(MembershipRow { user: user.clone(), chat, version, state });
        }
    }

    fn same_for_all(mut self, event: stored_event::Event) {
        let event = encode(event);
        for user in &self.entry.users {
            self.inbox(user, event.clone());
        }
    }

    fn inbox(&mut self, user: &UserId, event: Bytes) {
        self.batch.inbox.push(InboxRow {
            partition: self.partition,
            user: user.clone(),
            position: self.position,
            event,
            at_ms: self.entry.at_ms,
        });
    }
}

fn encode(event: stored_event::Event) -> Bytes {
    v1::StoredEvent { event: Some(event) }.encode_to_vec().into()
}
