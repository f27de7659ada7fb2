//! Slices of a user's events, in the user's order.

use super::{SCAN, corrupt, failed, impossible, limit};
use crate::service::{MessageService, caller};
use chaski_core::{ChatId, Offset, Partition, Position};
use chaski_ports::PortError;
use chaski_proto::{
    Problem, connection_update, new_message, rejected_event,
    v1::{self, inbox_request::Filter, server_frame, stored_event, stored_item},
};
use prost::Message as _;

/// Most reads of rows for one page; a filter that lets little through gives short pages (L8).
const SCANS_MAX: usize = 20;

/// A slice of a user's events. Positions only grow, so pages stay where they are while new events
/// arrive behind them.
pub(crate) async fn inbox(
    service: &MessageService,
    request: v1::InboxRequest,
) -> Result<v1::InboxReply, Problem> {
    let (user, device) = caller(request.caller.clone())?;
    service.read_your_write(&user, &request.token).await?;
    let filter = request.filter();
    let mut after = Position(request.after);
    if filter == Filter::Unreceived {
        let known = service.ports.devices.device(&user, &device).await.map_err(|e| failed(&e))?;
        after = after.max(known.map_or(Position::BEGINNING, |known| known.row.cursor));
    }
    let mut limit = limit(request.limit);
    let partition = service.placement.of_user(&user);
    let expired = match request.tell_expired {
        true => expired(service, partition).await.map_err(|e| failed(&e))?.filter(|p| after < *p),
        false => None,
    };
    let expired_upto = expired.map_or(0, |position| position.0);
    after = after.max(Position(expired_upto));
    // It is told as an event.
    limit -= usize::from(expired.is_some() && filter == Filter::Events);
    if limit == 0 {
        return Ok(v1::InboxReply {
            upto: expired_upto,
            more: true,
            expired_upto,
            ..v1::InboxReply::default()
        });
    }
    let stored = service.progress.stored(partition).await.map_err(|e| failed(&e))?;
    let Some(upto) = stored.0.checked_sub(1).map(|last| Position::at(Offset(last))) else {
        return Ok(v1::InboxReply::default());
    };
    let mut found: Vec<(u64, stored_event::Event)> = Vec::new();
    let (mut complete, mut scans) = (false, 0);
    while !complete && found.len() <= limit && scans < SCANS_MAX {
        let scan = if filter == Filter::Events { limit + 1 } else { SCAN };
        let rows = service.ports.messages.inbox(partition, &user, (after, upto), scan).await;
        let rows = rows.map_err(|e| failed(&e))?;
        (complete, scans) = (rows.len() < scan, scans + 1);
        for (position, event) in rows {
            after = Position(position);
            let event = v1::StoredEvent::decode(event).map_err(corrupt("inbox.event"));
            let event = event.map_err(|e| failed(&e))?.event;
            found.extend(event.filter(|e| wanted(e, filter)).map(|event| (position, event)));
        }
    }
    let full = found.len() > limit;
    found.truncate(limit);
    let reached = match found.last() {
        Some((position, _)) if full => *position,
        _ if complete => upto.0,
        _ => after.0,
    };
    let more = full || !complete;
    let events = frames(service, found).await?;
    Ok(v1::InboxReply { events, upto: reached, more, expired_upto })
}

/// The last position up to which events may have expired, where any have.
async fn expired(
    service: &MessageService,
    partition: Partition,
) -> Result<Option<Position>, PortError> {
    let start = service.recent_inbox_start(partition).await?;
    Ok(start.0.checked_sub(1).map(|last| Position::at(Offset(last))))
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
    let mut items = items(service, &places).await?.into_iter();
    let frame = |(position, event)| {
        let body = match event {
            stored_event::Event::Message(pointer) => match items.next().map(|item| item.item) {
                Some(Some(stored_item::Item::Message(message))) => {
                    server_frame::Body::NewMessage(new_message(&message))
                }
                // The chat is kept for a shorter time than inboxes.
                Some(None) => server_frame::Body::MessageHidden(pointer.expired()),
                _ => return Err(impossible("an inbox.event that points to no message")),
            },
            stored_event::Event::ChatUpdate(update) => server_frame::Body::ChatUpdate(update),
            stored_event::Event::Rejection(rejection) => {
                server_frame::Body::MessageRejected(rejected_event(&rejection))
            }
            stored_event::Event::ConnectionChange(change) => {
                server_frame::Body::ConnectionUpdate(connection_update(&change))
            }
            stored_event::Event::Hidden(pointer) => {
                let (chat_id, seq) = (pointer.chat_id, pointer.seq);
                let message = v1::Message { chat_id, seq, ..Default::default() };
                server_frame::Body::MessageHidden(message.hidden())
            }
        };
        Ok(v1::ServerFrame::event(position, body))
    };
    events.into_iter().map(frame).collect()
}

/// What stands at these places; one that is not stored yet (it comes through its sender's
/// partition) is waited for, then 503.
pub(super) async fn items(
    service: &MessageService,
    places: &[(ChatId, u64)],
) -> Result<Vec<v1::StoredItem>, Problem> {
    let look = || async {
        let items = service.ports.messages.items(places).await?;
        Ok::<_, PortError>(items.into_iter().collect::<Option<Vec<_>>>())
    };
    let found = service.progress.until(service.config.body_wait(), look).await;
    let found = found
        .map_err(|e| failed(&e))?
        .ok_or_else(|| Problem::unavailable("a message is not stored yet; try again"))?;
    let items = found.into_iter().map(v1::StoredItem::decode).collect::<Result<_, _>>();
    items.map_err(corrupt("messages.item")).map_err(|e| failed(&e))
}
