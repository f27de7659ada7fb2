//! Where the kept part of a chat begins, in a chat whose messages expire. Places stay when what
//! stood there is gone, and they expire in the order they were taken, give or take the clocks of
//! the senders' services; so the first one that is kept is found by halving.
//!
//! Must not know: pages, who asks.

use super::visible::is_open;
use crate::service::MessageService;
use chaski_core::{ChatId, record::Span};
use chaski_ports::{HistoryRange, PortError};

/// The first kept place of these spans; behind the last one where all have expired. One read where
/// nothing has, and one for each halving where something has.
pub(super) async fn first_kept(
    service: &MessageService,
    chat: &ChatId,
    spans: &[Span],
) -> Result<u64, PortError> {
    let mut end = 0;
    for span in spans {
        if !is_expired(service, chat, span.first).await? {
            return Ok(span.first);
        }
        let last = if is_open(span) { newest(service, chat).await? } else { span.last };
        if !is_expired(service, chat, last).await? {
            let (mut gone, mut kept) = (span.first, last);
            while kept - gone > 1 {
                let between = gone + (kept - gone) / 2;
                match is_expired(service, chat, between).await? {
                    true => gone = between,
                    false => kept = between,
                }
            }
            return Ok(kept);
        }
        end = last + 1;
    }
    Ok(end)
}

/// A place that is not stored yet has not expired.
async fn is_expired(service: &MessageService, chat: &ChatId, seq: u64) -> Result<bool, PortError> {
    let items = service.ports.messages.items(&[(*chat, seq)]).await?;
    Ok(matches!(&items[..], [Some(item)] if item.is_empty()))
}

async fn newest(service: &MessageService, chat: &ChatId) -> Result<u64, PortError> {
    let rows = service.ports.messages.history(chat, HistoryRange::Before(u64::MAX), 1).await?;
    Ok(rows.last().map_or(0, |(seq, _)| *seq))
}
