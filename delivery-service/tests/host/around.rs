//! The services around a delivery host, as far as it asks them.

use super::world::{Around, NOW_MS};
use chaski_core::record::{Cause, ChatVerdict, Outcome};
use chaski_proto::{
    Problem,
    v1::{
        self, InboxRequest, connections_server::Connections, messages_server::Messages,
        sender_server::Sender, submit_change_request::Change,
    },
};
use futures::future::BoxFuture;
use std::sync::atomic::Ordering;
use tonic::{Request, Response, Status, async_trait};

type Reply<T> = Result<Response<T>, Status>;

impl Around {
    fn note<T>(&self, reply: T) -> Reply<T> {
        self.asked.send_modify(|count| *count += 1);
        Ok(Response::new(reply))
    }
}

/// Writes the methods that no story needs.
macro_rules! silent {
    ($($method:ident: $request:ty => $reply:ty,)+) => {
        // As `async_trait` writes them, which does not look into macros.
        $(fn $method<'a, 'b>(&'a self, _: Request<$request>) -> BoxFuture<'b, Reply<$reply>>
        where
            'a: 'b,
            Self: 'b,
        {
            unreachable!("a delivery host does not ask for it, or not in these stories")
        })+
    };
}

#[async_trait]
impl Sender for Around {
    /// In the log, at the next place; nothing comes of it by itself.
    async fn submit(&self, _: Request<v1::SubmitMessageRequest>) -> Reply<v1::SubmitReply> {
        let at = self.origins.fetch_add(1, Ordering::Relaxed);
        self.note(v1::SubmitReply { token: format!("1.0.{at}"), ..Default::default() })
    }
    async fn submit_change(
        &self,
        request: Request<v1::SubmitChangeRequest>,
    ) -> Reply<v1::SubmitReply> {
        let request = request.into_inner();
        let (chat_id, refused) = match request.change.unwrap() {
            Change::Chat(chat) => (chat.chat_id, false),
            Change::Participants(one) => (one.chat_id, true),
        };
        let outcome =
            if refused { Outcome::Refused(Cause::NotAllowed) } else { Outcome::Unchanged };
        let request = <[u8; 16]>::try_from(&request.request_id[..]).unwrap();
        let chat = chat_id.parse().unwrap();
        self.verdict(ChatVerdict { request, chat, outcome, accepted_at: NOW_MS }).await;
        self.note(v1::SubmitReply { chat_id, token: "1.0.7".into(), ..Default::default() })
    }
    async fn submit_refusal(
        &self,
        request: Request<v1::SubmitRefusalRequest>,
    ) -> Reply<v1::SubmitReply> {
        self.script.lock().refusals.push(request.into_inner());
        self.note(v1::SubmitReply::default())
    }
    async fn submit_receipts(
        &self,
        request: Request<v1::SubmitReceiptsRequest>,
    ) -> Reply<v1::SubmitReceiptsReply> {
        self.script.lock().receipts.extend(request.into_inner().chats);
        self.note(v1::SubmitReceiptsReply {})
    }
    silent! {
        submit_chat: v1::SubmitChatRequest => v1::SubmitReply,
    }
}

#[async_trait]
impl Messages for Around {
    async fn open_device(&self, _: Request<v1::Caller>) -> Reply<v1::OpenDeviceReply> {
        let opened = {
            let opens = &mut self.script.lock().opens;
            let last = opens.front().cloned().unwrap_or(Ok(0));
            if opens.len() > 1 { opens.pop_front().unwrap() } else { last }
        };
        self.note(v1::OpenDeviceReply { cursor: opened? })
    }
    async fn save_cursors(
        &self,
        request: Request<v1::SaveCursorsRequest>,
    ) -> Reply<v1::SaveCursorsReply> {
        self.script.lock().saved.extend(request.into_inner().devices);
        self.note(v1::SaveCursorsReply {})
    }
    async fn watermarks(&self, _: Request<v1::WatermarksRequest>) -> Reply<v1::WatermarksReply> {
        let reply = self.script.lock().watermarks.clone();
        let reply = self.note(reply);
        // Without an answer the host does not know where to begin.
        self.answers.subscribe().wait_for(|answers| *answers).await.unwrap();
        reply
    }
    /// One edge a page.
    async fn blocks(&self, request: Request<v1::BlocksRequest>) -> Reply<v1::BlocksReply> {
        let after = request.into_inner().after;
        let blocks = self.script.lock().blocks.clone();
        let from = after.map_or(0, |edge| blocks.iter().position(|e| *e == edge).unwrap() + 1);
        let edges = blocks.iter().skip(from).take(1).cloned().collect();
        self.note(v1::BlocksReply { edges, more: from + 1 < blocks.len() })
    }
    async fn find_message(
        &self,
        request: Request<v1::FindMessageRequest>,
    ) -> Reply<v1::FindMessageReply> {
        let asked = request.into_inner();
        let message = asked.message_id.starts_with('0').then(|| v1::NewMessage {
            message_id: asked.message_id,
            client_message_id: "stored".into(),
            ..Default::default()
        });
        self.note(v1::FindMessageReply { message })
    }
    async fn inbox(&self, request: Request<v1::InboxRequest>) -> Reply<v1::InboxReply> {
        let InboxRequest { after, limit, .. } = request.into_inner();
        let reply = {
            let mut script = self.script.lock();
            script.pages += 1;
            let (stored, upto) = &script.stored;
            let events = stored.iter().filter(|event| event.position > Some(after));
            let events: Vec<_> = events.take(limit as usize).cloned().collect();
            let more =
                events.last().is_some_and(|last| last.position < stored.last().unwrap().position);
            let last = events.last().and_then(|last| last.position);
            let upto = if more { last.unwrap() } else { *upto };
            (!script.away).then_some(v1::InboxReply { events, upto, more, ..Default::default() })
        };
        let reply = reply.ok_or_else(|| Status::unavailable("away"));
        self.note(())?;
        Ok(Response::new(reply?))
    }
    silent! {
        history: v1::HistoryRequest => v1::HistoryReply,
        chats: v1::ChatsRequest => v1::ChatsReply,
        chat: v1::ChatRequest => v1::ChatView,
        await_verdict: v1::AwaitVerdictRequest => v1::VerdictReply,
        receipts: v1::ChatRequest => v1::ReceiptsReply,
    }
}

#[async_trait]
impl Connections for Around {
    async fn set(&self, request: Request<v1::SetConnectionRequest>) -> Reply<v1::ConnectionSet> {
        let asked = request.into_inner().connection.unwrap();
        let present = v1::Connection { user_id: asked.user_id, status: 2, version: 4 };
        match asked.based_on_version {
            Some(4) => self.note(v1::ConnectionSet {
                user_id: present.user_id,
                status: asked.status,
                version: 5,
                token: "2.0.9".into(),
            }),
            _ => Err(Problem::connection_conflict(present).into()),
        }
    }
    async fn put_settings(&self, _: Request<v1::SetSettingsRequest>) -> Reply<v1::SettingsSet> {
        self.note(v1::SettingsSet {})
    }
    async fn get_settings(&self, _: Request<v1::Caller>) -> Reply<v1::SetSettings> {
        let hide_read_marks = self.script.lock().hides_read;
        self.note(v1::SetSettings { hide_read_marks })
    }
    silent! {
        list: v1::ConnectionsRequest => v1::ConnectionsReply,
        list_devices: v1::DevicesRequest => v1::DevicesReply,
        rename_device: v1::RenameDeviceRequest => v1::DeviceView,
        revoke_device: v1::RevokeDeviceRequest => v1::RevokeDeviceReply,
    }
}
