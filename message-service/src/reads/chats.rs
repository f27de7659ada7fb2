//! Chats as one of their members, or former members, may know them: the list, one, its receipts.

use super::{PARALLEL, SCAN, corrupt, failed, history, impossible, inbox, limit, visible::Visible};
use crate::service::{MessageService, caller};
use chaski_core::{ChatId, UserId};
use chaski_ports::{MarkRow, PortError};
use chaski_proto::{
    Problem,
    v1::{self, history_item, stored_item},
};
use futures::{StreamExt, TryStreamExt, stream};
use prost::Message as _;
use std::collections::HashMap;

/// Places that are looked at first for a chat's last message: most chats end with one.
const FEW: usize = 16;
/// Marks that are read at once.
const MARKS: usize = 1000;

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
    let rows = service.ports.chats.memberships(&user, after.as_ref(), limit + 1).await;
    let mut rows = rows.map_err(|e| failed(&e))?;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let views = stream::iter(rows)
        .map(|row| async move { view(service, &mut Visible::of(service, row).await?).await });
    let chats = views.buffered(PARALLEL).try_collect().await?;
    Ok(v1::ChatsReply { chats, more })
}

/// One chat.
pub(crate) async fn chat(
    service: &MessageService,
    request: v1::ChatRequest,
) -> Result<v1::ChatView, Problem> {
    let mut visible = asked(service, request).await?;
    view(service, &mut visible).await
}

/// The marks of all members; of others what they let be known.
pub(crate) async fn receipts(
    service: &MessageService,
    request: v1::ChatRequest,
) -> Result<v1::ReceiptsReply, Problem> {
    let visible = asked(service, request).await?;
    let chat = as_known(service, &visible).await?;
    let mut members: Vec<String> = chat.members.into_iter().map(|m| m.user_id).collect();
    if !visible.is_member() {
        members.push(visible.user.to_string());
    }
    let mut marks = marks(service, &visible.chat, &members).await?;
    // What happened after a former member had left is not theirs to know.
    let last = visible.latest().last;
    let receipt = |user_id: String| {
        let mark = marks.remove(&user_id).unwrap_or_default();
        let own = user_id == visible.user.as_str();
        let read_seq = if own { mark.read_seq } else { mark.public_read_seq };
        v1::Receipt {
            chat_id: visible.chat.to_string(),
            user_id,
            delivered_seq: mark.delivered_seq.min(last),
            read_seq: read_seq.min(last),
        }
    };
    Ok(v1::ReceiptsReply { receipts: members.into_iter().map(receipt).collect() })
}

async fn asked(service: &MessageService, request: v1::ChatRequest) -> Result<Visible, Problem> {
    let (user, _) = caller(request.caller)?;
    let chat = request.chat_id.parse()?;
    service.read_your_write(&user, &request.token).await?;
    Visible::load(service, user, chat).await
}

async fn view(service: &MessageService, visible: &mut Visible) -> Result<v1::ChatView, Problem> {
    let known = as_known(service, visible).await?;
    let members = if visible.is_member() { &known.members[..] } else { &[] };
    let mark = service.ports.chats.mark(&visible.chat, &visible.user).await;
    let mark = mark.and_then(|row| row.map(decode_mark).transpose()).map_err(|e| failed(&e))?;
    let (last_seq, last_message) = end(service, visible).await?;
    Ok(v1::ChatView {
        chat_id: visible.chat.to_string(),
        participants: members.iter().map(|m| m.user_id.clone()).collect(),
        roles: members.iter().map(|m| m.role).collect(),
        name: known.name,
        version: known.version,
        visible_from: visible.latest().first,
        last_seq,
        read_seq: mark.map_or(0, |mark| mark.read_seq),
        last_message,
        first_seq: visible.first_seq(),
        history_days: visible.days,
    })
}

/// The chat as it is now; for a former member as it was when they left, which is the last thing
/// they were told.
async fn as_known(service: &MessageService, visible: &Visible) -> Result<v1::StoredChat, Problem> {
    if !visible.is_member() {
        let last = [(visible.chat, visible.latest().last)];
        let item = inbox::items(service, &last).await?.pop().unwrap_or_default();
        return match item.item {
            Some(stored_item::Item::ChatChange(change)) => {
                let v1::ChatChange { members, name, version, history_days, .. } = change;
                Ok(v1::StoredChat { members, name, version, history_days })
            }
            // Nothing is kept of what they knew.
            None => Ok(v1::StoredChat::default()),
            _ => Err(impossible("a membership that ended with no change of its chat")),
        };
    }
    let look = || service.ports.chats.chat(&visible.chat);
    let row = service.progress.until(service.config.body_wait(), look).await;
    let row = row
        .map_err(|e| failed(&e))?
        .ok_or_else(|| Problem::unavailable("this chat is not stored yet; try again"))?;
    v1::StoredChat::decode(row.state).map_err(corrupt("chats.state")).map_err(|e| failed(&e))
}

/// The last seq that the user may see, and the last message that is shown to them among the
/// newest places.
async fn end(
    service: &MessageService,
    visible: &mut Visible,
) -> Result<(u64, Option<v1::NewMessage>), Problem> {
    let (mut items, mut more) = history::page(service, visible, None, FEW).await?;
    let last_kept = items.last().map(|item| item.seq);
    let last_seq = last_kept.or(visible.expired_upto()).unwrap_or(0);
    if more && !items.iter().any(is_message) {
        let before = items.first().map_or(u64::MAX, |item| item.seq);
        (items, more) = history::before(service, visible, before, SCAN).await?;
    }
    let last = items.into_iter().rfind(is_message);
    if last.is_none() && more {
        tracing::debug!(chat = %visible.chat, "no message among the newest places");
    }
    let message = last.and_then(|item| match item.item {
        Some(history_item::Item::Message(message)) => Some(message),
        _ => None,
    });
    Ok((last_seq, message))
}

fn is_message(item: &v1::HistoryItem) -> bool {
    matches!(item.item, Some(history_item::Item::Message(_)))
}

/// The marks of these members. Where more people than that have passed through the chat, they are
/// asked for one by one.
async fn marks(
    service: &MessageService,
    chat: &ChatId,
    members: &[String],
) -> Result<HashMap<String, v1::StoredMark>, Problem> {
    let mut rows = service.ports.chats.marks(chat, MARKS).await.map_err(|e| failed(&e))?;
    if rows.len() == MARKS {
        let users = members.iter().map(|user| user.parse::<UserId>());
        let users = users.collect::<Result<Vec<_>, _>>()?;
        let marks = stream::iter(users)
            .map(|user| async move { service.ports.chats.mark(chat, &user).await });
        let marks = marks.buffered(PARALLEL).try_collect::<Vec<_>>().await;
        rows = marks.map_err(|e| failed(&e))?.into_iter().flatten().collect();
    }
    let mark = |row: MarkRow| Ok((row.user.to_string(), decode_mark(row)?));
    rows.into_iter().map(mark).collect::<Result<_, PortError>>().map_err(|e| failed(&e))
}

fn decode_mark(row: MarkRow) -> Result<v1::StoredMark, PortError> {
    v1::StoredMark::decode(row.state).map_err(corrupt("marks.state"))
}
