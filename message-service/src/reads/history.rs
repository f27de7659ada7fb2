//! Slices of a chat, by seq, in both directions. A page shows the places of the user's spans and
//! no other ones: what lies between two spans is not missing, it is not the user's. It begins where
//! the chat is kept from; what has expired behind that is told in its place.

use super::{
    SCAN,
    before_join::Withheld,
    corrupt, failed, limit,
    visible::{Visible, is_open},
};
use crate::service::{MessageService, caller};
use chaski_core::{UserId, record::Span};
use chaski_ports::{HistoryRange, PortError, Stored};
use chaski_proto::{
    Problem, new_message,
    v1::{self, history_item, history_request::Range, stored_item},
};
use prost::Message as _;
use std::collections::HashSet;

/// Items in ascending order, and whether there is more in the direction of the page.
pub(super) type Page = (Vec<v1::HistoryItem>, bool);

/// A slice of a chat as the caller may see it.
pub(crate) async fn history(
    service: &MessageService,
    request: v1::HistoryRequest,
) -> Result<v1::HistoryReply, Problem> {
    let (user, _) = caller(request.caller)?;
    let chat = request.chat_id.parse()?;
    service.read_your_write(&user, &request.token).await?;
    let mut visible = Visible::load(service, user, chat).await?;
    let (items, more) = page(service, &mut visible, request.range, limit(request.limit)).await?;
    Ok(v1::HistoryReply { items, more, first_seq: visible.first_seq() })
}

/// A slice of what is kept; the newest where no range is given.
pub(super) async fn page(
    service: &MessageService,
    visible: &mut Visible,
    range: Option<Range>,
    limit: usize,
) -> Result<Page, Problem> {
    let page = slice(service, visible, range, limit).await?;
    let expired =
        |item: &v1::HistoryItem| matches!(item.item, Some(history_item::Item::Expired(_)));
    // The chat is kept for ever, but was not always.
    if visible.days == 0 && visible.expired_upto().is_none() && page.0.iter().any(expired) {
        visible.cut(service).await?;
        return slice(service, visible, range, limit).await;
    }
    Ok(page)
}

async fn slice(
    service: &MessageService,
    visible: &Visible,
    range: Option<Range>,
    limit: usize,
) -> Result<Page, Problem> {
    match range {
        Some(Range::After(seq)) => after(service, visible, seq, limit).await,
        Some(Range::Before(seq)) => before(service, visible, seq, limit).await,
        None => before(service, visible, u64::MAX, limit).await,
    }
}

/// A place of a chat.
#[derive(Debug, PartialEq)]
struct Place {
    seq: u64,
    item: v1::StoredItem,
}

/// The page that begins right after `after`, and ends before the first place that is not stored
/// yet.
async fn after(
    service: &MessageService,
    visible: &Visible,
    after: u64,
    limit: usize,
) -> Result<Page, Problem> {
    let (mut page, mut more) = (Vec::new(), false);
    for span in visible.kept().iter().filter(|span| span.last > after) {
        let from = after.max(span.first.saturating_sub(1));
        let left = limit - page.len();
        let range = HistoryRange::After(from);
        let rows = places(service, visible, range, left + 1).await.map_err(|e| failed(&e))?;
        let (rows, further) = forward(rows, (from, span.last), left);
        page.extend(rows);
        more = further;
        if more {
            break;
        }
    }
    Ok((shown(service, visible, page).await?, more))
}

/// Cuts rows to a page that begins right after `after` and ends at the end of the span, or before
/// the first place that is not stored yet; and whether the span has more.
fn forward(mut rows: Vec<Place>, (after, last): (u64, u64), limit: usize) -> (Vec<Place>, bool) {
    rows.retain(|row| row.seq <= last);
    let next = after.saturating_add(1)..;
    let whole = rows.iter().zip(next).take_while(|(row, next)| row.seq == *next).count();
    let whole = whole.min(limit);
    // All places of a span that has ended are there, stored or not.
    let ended = last != u64::MAX;
    let more = if ended { after + (whole as u64) < last } else { whole < rows.len() };
    rows.truncate(whole);
    (rows, more)
}

/// The page that ends right before `before`, or with the newest message where that is past the
/// end. A place below `before` that is not stored yet is waited for, then 503: a page that passed
/// over it would be the last to see it.
pub(super) async fn before(
    service: &MessageService,
    visible: &Visible,
    before: u64,
    limit: usize,
) -> Result<Page, Problem> {
    let (mut page, mut more) = (Vec::new(), false);
    for span in visible.kept().iter().rev().filter(|span| span.first < before) {
        let left = limit - page.len();
        // An earlier span has at least the place that began it.
        more = left == 0;
        if more {
            break;
        }
        let Some(end) = end_of_page(service, visible, span, before, left).await? else { continue };
        let (rows, further) = back(service, visible, (span.first, end), left).await?;
        page.splice(0..0, rows);
        more = further;
        if more {
            break;
        }
    }
    Ok((shown(service, visible, page).await?, more))
}

/// The place before which a page of this span ends. The newest page ends before the lowest place
/// that is missing among its rows; `None` where the span has no row yet.
async fn end_of_page(
    service: &MessageService,
    visible: &Visible,
    span: &Span,
    before: u64,
    limit: usize,
) -> Result<Option<u64>, Problem> {
    if !is_open(span) {
        return Ok(Some(before.min(span.last + 1)));
    }
    let rows = |range, limit| async move {
        stored(service, visible, range, limit).await.map_err(|e| failed(&e))
    };
    let decided = visible.decided(service).await.map_err(|e| failed(&e))?;
    if before != u64::MAX {
        let above = rows(HistoryRange::After(before.saturating_sub(1)), 1).await?;
        if above.first().is_some_and(|row| decided(&row.item)) {
            return Ok(Some(before));
        }
    }
    // An expired place right before the span shows whether the span's first one is there yet.
    let from = span.first - u64::from(visible.expired_upto() == span.first.checked_sub(1));
    // What the user's own partition does not have yet is above what it has.
    let (mut end, mut limit) = (before, limit + 1);
    loop {
        let mut newest = rows(HistoryRange::Before(end), limit).await?;
        newest.retain(|row| row.seq >= from);
        let Some(lowest) = newest.first().map(|row| row.seq) else { return Ok(None) };
        newest.retain(|row| decided(&row.item));
        if let Some(last) = end_of_run(&newest) {
            return Ok(Some(last + 1));
        }
        (end, limit) = (lowest, SCAN);
    }
}

/// The last seq before the first hole in ascending rows.
fn end_of_run(rows: &[Place]) -> Option<u64> {
    let first = rows.first()?.seq;
    let run = rows.iter().zip(first..).take_while(|(row, next)| row.seq == *next);
    run.last().map(|(row, _)| row.seq)
}

/// The last `limit` places from `first` to before `end`, all of which are there or on their way;
/// and whether there are more.
async fn back(
    service: &MessageService,
    visible: &Visible,
    (first, end): (u64, u64),
    limit: usize,
) -> Result<(Vec<Place>, bool), Problem> {
    let wanted = (limit as u64 + 1).min(end - first);
    let look = || async {
        let rows = places(service, visible, HistoryRange::Before(end), wanted as usize).await?;
        let all = rows.iter().map(|row| row.seq).eq(end - wanted..end);
        Ok::<_, PortError>(all.then_some(rows))
    };
    let found = service.progress.until(service.config.body_wait(), look).await;
    let mut rows = found
        .map_err(|e| failed(&e))?
        .ok_or_else(|| Problem::unavailable("a message is not stored yet; try again"))?;
    let more = rows.len() > limit;
    rows.drain(..rows.len().saturating_sub(limit));
    Ok((rows, more))
}

/// The rows of a slice up to where the user's own partition is stored.
async fn places(
    service: &MessageService,
    visible: &Visible,
    range: HistoryRange,
    limit: usize,
) -> Result<Vec<Place>, PortError> {
    let decided = visible.decided(service).await?;
    let mut rows = stored(service, visible, range, limit).await?;
    rows.retain(|row| decided(&row.item));
    Ok(rows)
}

async fn stored(
    service: &MessageService,
    visible: &Visible,
    range: HistoryRange,
    limit: usize,
) -> Result<Vec<Place>, PortError> {
    let rows = service.ports.messages.history(&visible.chat, range, limit).await?;
    let place = |(seq, item): Stored| {
        let item = v1::StoredItem::decode(item).map_err(corrupt("messages.item"))?;
        Ok(Place { seq, item })
    };
    rows.into_iter().map(place).collect()
}

/// The places as the user is shown them; `hidden` stands in the place of what a block withholds.
async fn shown(
    service: &MessageService,
    visible: &Visible,
    places: Vec<Place>,
) -> Result<Vec<v1::HistoryItem>, Problem> {
    let (Some(first), Some(last)) = (places.first(), places.last()) else { return Ok(Vec::new()) };
    let range = (first.seq, last.seq);
    let hidden = service.ports.messages.hidden(&visible.user, &visible.chat, range).await;
    let hidden = hidden.map_err(|e| failed(&e))?;
    let earlier = withheld_before_join(service, visible, &places).await?;
    let item = |place: Place| {
        let withheld = |message: &v1::Message| {
            hidden.binary_search(&place.seq).is_ok()
                || visible.is_before_join(place.seq)
                    && earlier.hides(&message.sender_id, message.accepted_at_ms)
        };
        let item = match place.item.item {
            Some(stored_item::Item::Message(message)) if withheld(&message) => {
                history_item::Item::Hidden(true)
            }
            Some(stored_item::Item::Message(message)) => {
                history_item::Item::Message(new_message(&message))
            }
            Some(stored_item::Item::ChatChange(change)) => {
                history_item::Item::ChatUpdate(change.as_seen(visible.first_at(place.seq)))
            }
            None => history_item::Item::Expired(true),
        };
        v1::HistoryItem { seq: place.seq, item: Some(item) }
    };
    Ok(places.into_iter().map(item).collect())
}

/// What is withheld of the places from before the user came.
async fn withheld_before_join(
    service: &MessageService,
    visible: &Visible,
    places: &[Place],
) -> Result<Withheld, Problem> {
    let earlier = places.iter().filter(|place| visible.is_before_join(place.seq));
    let authors: HashSet<&str> = earlier
        .filter_map(|place| match &place.item.item {
            Some(stored_item::Item::Message(message)) => Some(message.sender_id.as_str()),
            _ => None,
        })
        .collect();
    let authors = authors.into_iter().map(str::parse).collect::<Result<Vec<UserId>, _>>()?;
    Withheld::load(service, visible, authors).await.map_err(|e| failed(&e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(seqs: &[u64]) -> Vec<Place> {
        seqs.iter().map(|seq| Place { seq: *seq, item: v1::StoredItem::default() }).collect()
    }

    #[test]
    fn l3_a_page_ends_before_a_place_that_is_not_stored_yet() {
        #[track_caller]
        fn check(
            stored: &[u64],
            (after, last): (u64, u64),
            limit: usize,
            expected: (&[u64], bool),
        ) {
            let (page, more) = forward(rows(stored), (after, last), limit);
            let seqs: Vec<u64> = page.iter().map(|row| row.seq).collect();
            assert_eq!((&seqs[..], more), expected);
        }
        const OPEN: u64 = u64::MAX;
        check(&[1, 2, 3], (0, OPEN), 5, (&[1, 2, 3], false));
        check(&[1, 2, 4], (0, OPEN), 5, (&[1, 2], true));
        check(&[2, 3], (0, OPEN), 5, (&[], true));
        check(&[1, 2, 3], (0, OPEN), 2, (&[1, 2], true));
        check(&[5, 6], (4, OPEN), 3, (&[5, 6], false));
        check(&[], (u64::MAX - 1, OPEN), 3, (&[], false));
        // A span that has ended: nothing behind it, and all of it is on its way.
        check(&[1, 2, 3, 4], (0, 3), 5, (&[1, 2, 3], false));
        check(&[1, 2], (0, 3), 5, (&[1, 2], true));
        check(&[], (0, 3), 5, (&[], true));
        check(&[4], (3, 4), 0, (&[], true));
    }

    #[test]
    fn a_run_ends_before_the_first_hole() {
        for (seqs, end) in
            [(&[][..], None), (&[4, 5, 6], Some(6)), (&[4, 5, 7], Some(5)), (&[4, 6, 7], Some(4))]
        {
            assert_eq!(end_of_run(&rows(seqs)), end, "{seqs:?}");
        }
    }
}
