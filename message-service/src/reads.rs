//! Reads: history by seq, the inbox by position, chats. All see a prefix: where a place is not
//! stored yet (its copy comes through another partition), a page ends before it.

use crate::service::{MessageService, caller, unavailable};
use bytes::Bytes;
use chaski_core::{ChatId, Offset, Position, UserId};
use chaski_ports::{HistoryRange, MembershipRow, PortError, Stored};
use chaski_proto::{
    Problem, new_message, rejected_event,
    v1::{
        self, history_item, history_request, inbox_request::Filter, server_frame, stored_event,
        stored_item,
    },
};
use futures::{StreamExt, TryStreamExt, stream};
use prost::Message as _;

/// Rows read at once where rows are filtered.
const SCAN: usize = 500;
/// Reads in flight for one request.
const PARALLEL: usize = 16;

fn corrupt(what: &str) -> impl Fn(prost::DecodeError) -> Problem + '_ {
    move |error| {
        tracing::error!(what, %error, "a stored row cannot be read");
        Problem::new(500, "corrupt", "a stored row cannot be read; the operators are told")
    }
}

fn limit(asked: u32) -> usize {
    (asked.clamp(1, 500)) as usize
}

/// A slice of a chat as the caller may see it.
pub(crate) async fn history(
    service: &MessageService,
    request: v1::HistoryRequest,
) -> Result<v1::HistoryReply, Problem> {
    let (user, _) = caller(request.caller)?;
    let chat: ChatId = request.chat_id.parse()?;
    service.read_your_write(&user, &request.token).await?;
    let first = visible_from(service, &user, &chat).await?;
    let limit = limit(request.limit);
    let (rows, more) = match request.range {
        Some(history_request::Range::After(seq)) => {
            let after = seq.max(first.saturating_sub(1));
            let rows = rows(service, &chat, HistoryRange::After(after), limit + 1).await?;
            forward(rows, after, limit)
        }
        Some(history_request::Range::Before(seq)) => {
            back(service, &chat, seq, first, limit).await?
        }
        None => back(service, &chat, u64::MAX, first, limit).await?,
    };
    let items = rows
        .into_iter()
        .map(|(seq, item)| Ok(v1::HistoryItem { seq, item: Some(history_item(item, first)?) }))
        .collect::<Result<_, Problem>>()?;
    Ok(v1::HistoryReply { items, more })
}

async fn rows(
    service: &MessageService,
    chat: &ChatId,
    range: HistoryRange,
    limit: usize,
) -> Result<Vec<Stored>, Problem> {
    service.ports.messages.history(chat, range, limit).await.map_err(|e| unavailable(&e))
}

/// Cuts rows to a page that begins right after `after` and ends before the first place that is
/// not stored yet.
fn forward(mut rows: Vec<Stored>, after: u64, limit: usize) -> (Vec<Stored>, bool) {
    let whole = rows
        .iter()
        .zip(after.saturating_add(1)..)
        .take_while(|((seq, _), next)| seq == next)
        .count();
    let more = whole.min(limit) < rows.len();
    rows.truncate(whole.min(limit));
    (rows, more)
}

/// The page that ends right before `before`, or with the newest message where that is past the
/// end. A place below `before` that is not stored yet is waited for, then 503: a page that passed
/// over it would be the last to see it.
async fn back(
    service: &MessageService,
    chat: &ChatId,
    mut before: u64,
    first: u64,
    limit: usize,
) -> Result<(Vec<Stored>, bool), Problem> {
    let ends = before != u64::MAX
        && !rows(service, chat, HistoryRange::After(before.saturating_sub(1)), 1).await?.is_empty();
    if !ends {
        // The newest page: it ends before the lowest place that is missing among its rows.
        let newest = rows(service, chat, HistoryRange::Before(before), limit + 1).await?;
        let Some(end) = end_of_run(&newest) else { return Ok((Vec::new(), false)) };
        before = end + 1;
    }
    let look = || async {
        let range = HistoryRange::Before(before);
        let rows = service.ports.messages.history(chat, range, limit + 1).await?;
        let reaches = before <= first || end_of_run(&rows).is_some_and(|end| end + 1 == before);
        Ok::<_, PortError>(reaches.then_some(rows))
    };
    let found = service.progress.until(service.config.body_wait(), look).await;
    let mut rows = found
        .map_err(|e| unavailable(&e))?
        .ok_or_else(|| Problem::unavailable("a message is not stored yet; try again"))?;
    rows.retain(|(seq, _)| *seq >= first);
    let more = rows.len() > limit;
    rows.drain(..rows.len().saturating_sub(limit));
    Ok((rows, more))
}

/// The last seq before the first hole in ascending rows.
fn end_of_run(rows: &[Stored]) -> Option<u64> {
    let (first, _) = rows.first()?;
    let run = rows.iter().zip(*first..).take_while(|((seq, _), next)| seq == next);
    run.last().map(|((seq, _), _)| *seq)
}

fn history_item(item: Bytes, visible_from: u64) -> Result<history_item::Item, Problem> {
    let item = v1::StoredItem::decode(item).map_err(corrupt("messages.item"))?;
    match item.item {
        Some(stored_item::Item::Message(message)) => {
            Ok(history_item::Item::Message(new_message(&message)))
        }
        Some(stored_item::Item::ChatChange(change)) => {
            Ok(history_item::Item::ChatUpdate(change.as_seen(visible_from)))
        }
        None => Err(Problem::new(500, "corrupt", "a stored row is empty; the operators are told")),
    }
}

/// The first seq the user may see of a chat; 404 where there is no such chat, 403 for strangers.
async fn visible_from(
    service: &MessageService,
    user: &UserId,
    chat: &ChatId,
) -> Result<u64, Problem> {
    let membership =
        service.ports.messages.membership(user, chat).await.map_err(|e| unavailable(&e))?;
    match membership {
        Some(row) => first_visible(&row),
        None => match service.ports.messages.chat(chat).await.map_err(|e| unavailable(&e))? {
            Some(_) => Err(Problem::new(403, "not_a_member", "you are not a member of this chat")),
            None => Err(Problem::new(404, "no_such_chat", "there is no such chat")),
        },
    }
}

fn first_visible(row: &MembershipRow) -> Result<u64, Problem> {
    let stored =
        v1::StoredMembership::decode(row.state.clone()).map_err(corrupt("chats_by_user.state"))?;
    let first = stored.visible.iter().map(|span| span.first).min();
    first.ok_or_else(|| Problem::new(403, "not_a_member", "you are not a member of this chat"))
}

/// A slice of a user's events, in the user's order.
pub(crate) async fn inbox(
    service: &MessageService,
    request: v1::InboxRequest,
) -> Result<v1::InboxReply, Problem> {
    let (user, device) = caller(request.caller.clone())?;
    service.read_your_write(&user, &request.token).await?;
    let filter = request.filter();
    let mut after = Position(request.after);
    if filter == Filter::Unreceived {
        let row =
            service.ports.devices.device(&user, &device).await.map_err(|e| unavailable(&e))?;
        after = after.max(row.map_or(Position::BEGINNING, |row| row.cursor));
    }
    let limit = limit(request.limit);
    let partition = service.placement.of_user(&user);
    let stored = service.progress.stored(partition).await.map_err(|e| unavailable(&e))?;
    let Some(upto) = stored.0.checked_sub(1).map(|last| Position::at(Offset(last))) else {
        return Ok(v1::InboxReply::default());
    };
    let mut found: Vec<(u64, stored_event::Event)> = Vec::new();
    let mut complete = false;
    while !complete && found.len() <= limit {
        let scan = if filter == Filter::Events { limit + 1 } else { SCAN };
        let rows = service.ports.messages.inbox(partition, &user, (after, upto), scan).await;
        let rows = rows.map_err(|e| unavailable(&e))?;
        complete = rows.len() < scan;
        for (position, event) in rows {
            after = Position(position);
            let event = v1::StoredEvent::decode(event).map_err(corrupt("inbox.event"))?.event;
            found.extend(event.filter(|e| wanted(e, filter)).map(|event| (position, event)));
        }
    }
    let more = found.len() > limit;
    found.truncate(limit);
    let reached = match found.last() {
        Some((position, _)) if more => *position,
        _ => upto.0,
    };
    Ok(v1::InboxReply { events: frames(service, found).await?, upto: reached, more })
}

fn wanted(event: &stored_event::Event, filter: Filter) -> bool {
    let sent = match event {
        stored_event::Event::Message(pointer) => Some(pointer.sent),
        _ => None,
    };
    match filter {
        Filter::Events => true,
        Filter::Sent => sent == Some(true),
        Filter::Received | Filter::Unreceived => sent == Some(false),
    }
}

/// The events as clients see them; bodies come from the chats they were said in.
async fn frames(
    service: &MessageService,
    events: Vec<(u64, stored_event::Event)>,
) -> Result<Vec<v1::ServerFrame>, Problem> {
    let mut places = Vec::new();
    for (_, event) in &events {
        if let stored_event::Event::Message(pointer) = event {
            places.push((pointer.chat_id.parse::<ChatId>()?, pointer.seq));
        }
    }
    let mut bodies = bodies(service, &places).await?.into_iter();
    events
        .into_iter()
        .map(|(position, event)| {
            let body = match event {
                stored_event::Event::Message(_) => {
                    let item = bodies.next().ok_or_else(Problem::outcome_unknown)?;
                    match history_item(item, 0)? {
                        history_item::Item::Message(message) => {
                            server_frame::Body::NewMessage(message)
                        }
                        _ => return Err(Problem::new(500, "corrupt", "a pointer to no message")),
                    }
                }
                stored_event::Event::ChatUpdate(update) => server_frame::Body::ChatUpdate(update),
                stored_event::Event::Rejection(rejection) => {
                    server_frame::Body::MessageRejected(rejected_event(&rejection))
                }
            };
            Ok(v1::ServerFrame::event(position, body))
        })
        .collect()
}

/// The bodies at these places; one that is not stored yet (it comes through its sender's
/// partition) is waited for, then 503.
async fn bodies(service: &MessageService, places: &[(ChatId, u64)]) -> Result<Vec<Bytes>, Problem> {
    let look = || async {
        let items = service.ports.messages.items(places).await?;
        Ok::<_, PortError>(items.into_iter().collect::<Option<Vec<Bytes>>>())
    };
    let found = service.progress.until(service.config.body_wait(), look).await;
    found
        .map_err(|e| unavailable(&e))?
        .ok_or_else(|| Problem::unavailable("a message is not stored yet; try again"))
}

/// A user's chats, ascending by id.
pub(crate) async fn chats(
    service: &MessageService,
    request: v1::ChatsRequest,
) -> Result<v1::ChatsReply, Problem> {
    let (user, _) = caller(request.caller)?;
    service.read_your_write(&user, &request.token).await?;
    let after = match request.after.as_str() {
        "" => None,
        after => Some(after.parse::<ChatId>()?),
    };
    let limit = limit(request.limit);
    let rows = service.ports.messages.memberships(&user, after.as_ref(), limit + 1).await;
    let mut rows = rows.map_err(|e| unavailable(&e))?;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let views = stream::iter(rows).map(|row| async move {
        let first = first_visible(&row)?;
        view(service, &row.chat, first).await
    });
    let chats = views.buffered(PARALLEL).try_collect().await?;
    Ok(v1::ChatsReply { chats, more })
}

/// One chat.
pub(crate) async fn chat(
    service: &MessageService,
    request: v1::ChatRequest,
) -> Result<v1::ChatView, Problem> {
    let (user, _) = caller(request.caller)?;
    let chat: ChatId = request.chat_id.parse()?;
    service.read_your_write(&user, &request.token).await?;
    let first = visible_from(service, &user, &chat).await?;
    view(service, &chat, first).await
}

async fn view(
    service: &MessageService,
    chat: &ChatId,
    visible_from: u64,
) -> Result<v1::ChatView, Problem> {
    let look = || service.ports.messages.chat(chat);
    let row = service
        .progress
        .until(service.config.body_wait(), look)
        .await
        .map_err(|e| unavailable(&e))?;
    let row = row.ok_or_else(|| Problem::unavailable("this chat is not stored yet; try again"))?;
    let state = v1::StoredChat::decode(row.state).map_err(corrupt("chats.state"))?;
    let (rows, _) = back(service, chat, u64::MAX, visible_from, 16).await?;
    let last_seq = rows.last().map_or(0, |(seq, _)| *seq);
    let mut last_message = None;
    for (_, item) in rows {
        if let history_item::Item::Message(message) = history_item(item, visible_from)? {
            last_message = Some(message);
        }
    }
    Ok(v1::ChatView {
        chat_id: chat.to_string(),
        participants: state.members.iter().map(|m| m.user_id.clone()).collect(),
        roles: state.members.iter().map(|m| m.role).collect(),
        name: state.name,
        version: state.version,
        visible_from,
        last_seq,
        read_seq: 0,
        last_message,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(seqs: &[u64]) -> Vec<Stored> {
        seqs.iter().map(|seq| (*seq, Bytes::new())).collect()
    }

    #[test]
    fn l3_a_page_ends_before_a_place_that_is_not_stored_yet() {
        #[track_caller]
        fn check(rows: &[u64], after: u64, limit: usize, expected: (&[u64], bool)) {
            let (rows, more) = forward(stored(rows), after, limit);
            let seqs: Vec<u64> = rows.iter().map(|(seq, _)| *seq).collect();
            assert_eq!((&seqs[..], more), expected);
        }
        check(&[1, 2, 3], 0, 5, (&[1, 2, 3], false));
        check(&[1, 2, 4], 0, 5, (&[1, 2], true));
        check(&[2, 3], 0, 5, (&[], true));
        check(&[1, 2, 3], 0, 2, (&[1, 2], true));
        check(&[5, 6], 4, 3, (&[5, 6], false));
        check(&[], u64::MAX, 3, (&[], false));
    }

    #[test]
    fn a_run_ends_before_the_first_hole() {
        for (rows, end) in
            [(&[][..], None), (&[4, 5, 6], Some(6)), (&[4, 5, 7], Some(5)), (&[4, 6, 7], Some(4))]
        {
            assert_eq!(end_of_run(&stored(rows)), end, "{rows:?}");
        }
    }
}
