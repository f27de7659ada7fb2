//! Which rows a record of `recipients` makes. A pure function of the record, so a replay writes
//! the same rows again.

use bytes::Bytes;
use chaski_core::{ChatId, Offset, Partition, Position, UserId};
use chaski_ports::{ChatRow, InboxRow, MembershipRow, MessageRow, StoreBatch, VerdictRow};
use chaski_proto::{
    Malformed, RecipientEntry,
    v1::{self, recipients_record::Event, stored_event, stored_item},
};
use prost::Message as _;

/// Adds the rows of the record at `offset` of `partition`.
pub(crate) fn add(
    batch: &mut StoreBatch,
    partition: Partition,
    offset: Offset,
    entry: &RecipientEntry,
) -> Result<(), Malformed> {
    let rows = Rows { batch, partition, position: Position::at(offset), entry };
    match &entry.event {
        Event::Message(message) => rows.message(message),
        Event::ChatChange(change) => rows.chat_change(change),
        Event::Rejection(rejection) => {
            let event = stored_event::Event::Rejection(rejection.clone());
            let event = encode_event(event);
            rows.inbox(|_, _| event.clone());
            Ok(())
        }
        Event::Verdict(verdict) => {
            let request = verdict.request_id[..]
                .try_into()
                .map_err(|_| Malformed::because("a verdict's request id must be 16 bytes"))?;
            let stored = v1::StoredVerdict { verdict: Some(verdict.clone()) };
            let verdict = stored.encode_to_vec().into();
            rows.batch.verdicts.push(VerdictRow { request, verdict, at_ms: entry.at_ms });
            Ok(())
        }
        Event::Duplicate(_) | Event::ConnectionRequest(_) | Event::Marks(_) => Ok(()),
    }
}

struct Rows<'a> {
    batch: &'a mut StoreBatch,
    partition: Partition,
    position: Position,
    entry: &'a RecipientEntry,
}

impl Rows<'_> {
    fn message(mut self, message: &v1::Message) -> Result<(), Malformed> {
        let chat: ChatId = message.chat_id.parse()?;
        if self.entry.is_first_copy {
            let item = stored_item::Item::Message(message.clone());
            let row = self.item(chat, message.seq, item);
            self.batch.messages.push(row);
        }
        if !message.members.is_empty() {
            self.members(chat, message.seq, &message.members, ("", 0));
        }
        let pointer = |sent| {
            let chat_id = message.chat_id.clone();
            encode_event(stored_event::Event::Message(v1::MessagePointer {
                chat_id,
                seq: message.seq,
                sent,
            }))
        };
        let (sent, received) = (pointer(true), pointer(false));
        self.inbox(|_, user| {
            if user.as_str() == message.sender_id { sent.clone() } else { received.clone() }
        });
        Ok(())
    }

    fn chat_change(mut self, change: &v1::ChatChange) -> Result<(), Malformed> {
        let chat: ChatId = change.chat_id.parse()?;
        if self.entry.is_first_copy {
            let item = stored_item::Item::ChatChange(change.clone());
            let row = self.item(chat, change.seq, item);
            self.batch.messages.push(row);
        }
        self.members(chat, change.seq, &change.members, (&change.name, change.version));
        self.inbox(|index, _| {
            let seen = change.as_seen(change.visible_from.get(index).copied().unwrap_or_default());
            encode_event(stored_event::Event::ChatUpdate(seen))
        });
        Ok(())
    }

    fn item(&self, chat: ChatId, seq: u64, item: stored_item::Item) -> MessageRow {
        let item = v1::StoredItem { item: Some(item) }.encode_to_vec().into();
        MessageRow { chat, seq, item, at_ms: self.entry.at_ms }
    }

    /// The chat's row, and the memberships of this record's users.
    fn members(
        &mut self,
        chat: ChatId,
        version: u64,
        members: &[v1::Member],
        (name, changes): (&str, u64),
    ) {
        if self.entry.is_first_copy {
            let state =
                v1::StoredChat { members: members.to_vec(), name: name.into(), version: changes };
            self.batch.chats.push(ChatRow { chat, version, state: state.encode_to_vec().into() });
        }
        for user in &self.entry.users {
            let member = members.iter().find(|m| m.user_id == user.as_str());
            let visible = member.map(|m| v1::SeqSpan { first: m.visible_from, last: None });
            let state = v1::StoredMembership { visible: visible.into_iter().collect() };
            let state = state.encode_to_vec().into();
            self.batch.memberships.push(MembershipRow { user: user.clone(), chat, version, state });
        }
    }

    fn inbox(self, event: impl Fn(usize, &UserId) -> Bytes) {
        for (index, user) in self.entry.users.iter().enumerate() {
            self.batch.inbox.push(InboxRow {
                partition: self.partition,
                user: user.clone(),
                position: self.position,
                event: event(index, user),
                at_ms: self.entry.at_ms,
            });
        }
    }
}

fn encode_event(event: stored_event::Event) -> Bytes {
    v1::StoredEvent { event: Some(event) }.encode_to_vec().into()
}
