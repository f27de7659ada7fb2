//! What a user may see of a chat: the union of the spans of their memberships.

use super::{corrupt, failed, floor};
use crate::service::MessageService;
use chaski_core::{ChatId, Offset, Partition, SourceId, UserId, record::Span};
use chaski_planted::Bug;
use chaski_ports::{MembershipRow, PortError};
use chaski_proto::{Problem, v1};
use prost::Message as _;

/// The end of a span that has none yet.
const OPEN: u64 = u64::MAX;

/// What a user may see of a chat.
pub(super) struct Visible {
    pub(super) user: UserId,
    pub(super) chat: ChatId,
    /// The user's partition.
    pub(super) partition: Partition,
    /// Disjoint, ascending, at least one; only the last one may be open.
    spans: Vec<Span>,
    /// What of the spans is kept; all of them, as long as it was not asked.
    kept: Vec<Span>,
    /// The first place that is kept.
    first_seq: u64,
    /// For how many days the chat is kept; 0: for ever.
    pub(super) days: u32,
    /// Where the last membership began: what is visible before it never had a place in the user's
    /// own order.
    joined: u64,
}

impl Visible {
    /// 404 where there is no such chat, 403 for strangers.
    pub(super) async fn load(
        service: &MessageService,
        user: UserId,
        chat: ChatId,
    ) -> Result<Self, Problem> {
        let row = service.ports.chats.membership(&user, &chat).await.map_err(|e| failed(&e))?;
        match row {
            Some(row) => Self::of(service, row).await,
            None => match service.ports.chats.chat(&chat).await.map_err(|e| failed(&e))? {
                Some(_) => Err(stranger()),
                None => Err(Problem::new(404, "no_such_chat", "there is no such chat")),
            },
        }
    }

    pub(super) async fn of(service: &MessageService, row: MembershipRow) -> Result<Self, Problem> {
        let stored = v1::StoredMembership::decode(row.state)
            .map_err(corrupt("chats_by_user.state"))
            .map_err(|e| failed(&e))?;
        let span = |span: &v1::SeqSpan| Span { first: span.first, last: span.last.unwrap_or(OPEN) };
        let mut spans: Vec<_> = stored.visible.iter().map(span).collect();
        if chaski_planted::is(Bug::SpansAreIgnored) {
            spans = vec![Span { first: 1, last: OPEN }];
        }
        if spans.is_empty() {
            return Err(stranger());
        }
        let partition = service.placement.of_user(&row.user);
        let (joined, days) = (stored.joined, service.config.kept_days(stored.history_days));
        let (kept, first_seq) = (spans.clone(), spans[0].first);
        let (user, chat) = (row.user, row.chat);
        let mut visible = Self { user, chat, partition, spans, kept, first_seq, days, joined };
        if days > 0 {
            visible.cut(service).await?;
        }
        Ok(visible)
    }

    /// Looks what is kept.
    pub(super) async fn cut(&mut self, service: &MessageService) -> Result<(), Problem> {
        let first = floor::first_kept(service, &self.chat, &self.spans).await;
        let first = first.map_err(|e| failed(&e))?;
        let kept = self.spans.iter().filter(|span| span.last >= first);
        let kept = kept.map(|span| Span { first: span.first.max(first), last: span.last });
        (self.kept, self.first_seq) = (kept.collect(), first);
        Ok(())
    }

    /// The first place that is kept; behind the last one where all have expired.
    pub(super) fn first_seq(&self) -> u64 {
        self.first_seq
    }

    /// The last place of what has expired, where anything has.
    pub(super) fn expired_upto(&self) -> Option<u64> {
        (self.first_seq > self.spans[0].first).then(|| self.first_seq - 1)
    }

    /// Whether the user sees this place as history from before they came.
    pub(super) fn is_before_join(&self, seq: u64) -> bool {
        seq < self.joined && seq >= self.latest().first
    }

    /// The kept parts of the spans.
    pub(super) fn kept(&self) -> &[Span] {
        &self.kept
    }

    /// The present span, or the last one of a former member.
    pub(super) fn latest(&self) -> Span {
        *self.spans.last().expect("there is one, by construction")
    }

    pub(super) fn is_member(&self) -> bool {
        is_open(&self.latest())
    }

    /// Since when the user was in the chat at this place, as a change there told them.
    pub(super) fn first_at(&self, seq: u64) -> u64 {
        let span = self.spans.iter().find(|span| seq <= span.last);
        span.map_or(seq, |span| span.first)
    }

    /// Whether the user's own partition has everything of the record that made this place. Before,
    /// it is not known whether a block withholds the place from them (L7).
    pub(super) async fn decided(
        &self,
        service: &MessageService,
    ) -> Result<impl Fn(&v1::StoredItem) -> bool + use<>, PortError> {
        let mark = service.progress.mark(self.partition).await?;
        Ok(move |item: &v1::StoredItem| {
            item.origin.as_ref().is_none_or(|origin| {
                let source = (SourceId(origin.source), Partition(origin.partition));
                mark.has_seen(source, Offset(origin.place.unwrap_or_default().offset))
            })
        })
    }
}

pub(super) fn is_open(span: &Span) -> bool {
    span.last == OPEN
}

fn stranger() -> Problem {
    Problem::new(403, "not_a_member", "you are not a member of this chat")
}
