//! One message by its id, for whoever wants to refuse it: among the newest of a chat.

use super::{SCAN, history, visible::Visible};
use crate::service::{MessageService, caller};
use chaski_core::{MessageId, fold::REFUSABLE_MS};
use chaski_proto::{
    Problem,
    v1::{self, history_item::Item},
};

/// Places that are looked at: what lies further back is not found (L8).
const PLACES_MAX: usize = 2000;

/// A message of another one that the caller may see, that no block withholds from them and that
/// is not older than a day.
pub(crate) async fn find_message(
    service: &MessageService,
    request: v1::FindMessageRequest,
) -> Result<v1::FindMessageReply, Problem> {
    let (user, _) = caller(request.caller)?;
    let chat = request.chat_id.parse()?;
    let id = request.message_id.parse::<MessageId>()?.to_string();
    let visible = Visible::load(service, user, chat).await?;
    let oldest = service.ports.clock.now_ms() - REFUSABLE_MS;
    let is_young = |message: &v1::NewMessage| {
        message.accepted_at.is_some_and(|accepted| accepted.to_ms() >= oldest)
    };
    let (mut before, mut left) = (u64::MAX, PLACES_MAX);
    while left > 0 {
        let (items, more) = history::before(service, &visible, before, SCAN.min(left)).await?;
        left -= items.len();
        before = items.first().map_or(0, |item| item.seq);
        let messages = items.into_iter().filter_map(|item| match item.item {
            Some(Item::Message(message)) => Some(message),
            _ => None,
        });
        let mut young = true;
        for message in messages.rev() {
            young = is_young(&message);
            if message.message_id == id {
                let found = young && message.sender_id != visible.user.as_str();
                return Ok(v1::FindMessageReply { message: found.then_some(message) });
            }
        }
        // Further back all are older than the oldest one here, give or take the senders' clocks.
        if !(more && young) {
            break;
        }
    }
    Ok(v1::FindMessageReply::default())
}
