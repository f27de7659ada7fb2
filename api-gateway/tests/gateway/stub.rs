//! Services that note what they are asked, and answer with what the test has laid down.

use chaski_proto::{
    Problem, Timestamp,
    v1::{
        self, connections_server::Connections, hosts_server::Hosts, messages_server::Messages,
        sender_server::Sender,
    },
};
use std::sync::{Mutex, MutexGuard};
use tokio::sync::watch;
use tonic::{Request, Response, Status, async_trait};

/// What was asked last, and what to answer.
#[derive(Default)]
pub(crate) struct Stub {
    state: Mutex<State>,
    /// How many calls hang.
    hanging: watch::Sender<u32>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) refusal: Option<Problem>,
    pub(crate) hangs: bool,
    pub(crate) submit: Option<v1::SubmitMessageRequest>,
    pub(crate) submit_chat: Option<v1::SubmitChatRequest>,
    pub(crate) submit_change: Option<v1::SubmitChangeRequest>,
    pub(crate) await_verdict: Option<v1::AwaitVerdictRequest>,
    pub(crate) verdict: Option<Result<v1::ChatVerdict, Problem>>,
    pub(crate) history: Option<v1::HistoryRequest>,
    pub(crate) history_reply: v1::HistoryReply,
    pub(crate) inbox: Option<v1::InboxRequest>,
    pub(crate) inbox_reply: v1::InboxReply,
    pub(crate) chats: Option<v1::ChatsRequest>,
    pub(crate) chats_reply: v1::ChatsReply,
    pub(crate) chat: Option<v1::ChatRequest>,
    pub(crate) receipts: Option<v1::ChatRequest>,
    pub(crate) set: Option<v1::SetConnectionRequest>,
    pub(crate) list: Option<v1::ConnectionsRequest>,
    pub(crate) list_reply: v1::ConnectionsReply,
    pub(crate) devices: Option<v1::DevicesRequest>,
    pub(crate) rename: Option<v1::RenameDeviceRequest>,
    pub(crate) revoke: Option<v1::RevokeDeviceRequest>,
}

impl Stub {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Waits until a call hangs.
    pub(crate) async fn hanging(&self) {
        self.hanging.subscribe().wait_for(|count| *count > 0).await.unwrap();
    }

    /// Refuses, hangs, or answers.
    async fn answer<T>(&self, answer: impl FnOnce(&mut State) -> T) -> Result<Response<T>, Status> {
        let hangs = self.state().hangs;
        if hangs {
            self.hanging.send_modify(|count| *count += 1);
            std::future::pending::<()>().await;
        }
        let mut state = self.state();
        let answer = answer(&mut state);
        match &state.refusal {
            Some(problem) => Err(problem.clone().into()),
            None => Ok(Response::new(answer)),
        }
    }
}

type Reply<T> = Result<Response<T>, Status>;

#[async_trait]
impl Sender for Stub {
    async fn submit(&self, request: Request<v1::SubmitMessageRequest>) -> Reply<v1::SubmitReply> {
        self.answer(|state| {
            state.submit = Some(request.into_inner());
            v1::SubmitReply { message_id: "m".into(), chat_id: "d.1".into(), token: "1.2.3".into() }
        })
        .await
    }

    async fn submit_chat(&self, request: Request<v1::SubmitChatRequest>) -> Reply<v1::SubmitReply> {
        self.answer(|state| {
            state.submit_chat = Some(request.into_inner());
            v1::SubmitReply { chat_id: "g.1".into(), token: "1.2.4".into(), ..Default::default() }
        })
        .await
    }

    async fn submit_change(
        &self,
        request: Request<v1::SubmitChangeRequest>,
    ) -> Reply<v1::SubmitReply> {
        self.answer(|state| {
            state.submit_change = Some(request.into_inner());
            v1::SubmitReply { chat_id: "g.1".into(), token: "1.2.5".into(), ..Default::default() }
        })
        .await
    }

    async fn submit_refusal(&self, _: Request<v1::SubmitRefusalRequest>) -> Reply<v1::SubmitReply> {
        not_asked()
    }

    async fn submit_receipts(
        &self,
        _: Request<v1::SubmitReceiptsRequest>,
    ) -> Reply<v1::SubmitReceiptsReply> {
        not_asked()
    }
}

#[async_trait]
impl Messages for Stub {
    async fn history(&self, request: Request<v1::HistoryRequest>) -> Reply<v1::HistoryReply> {
        self.answer(|state| {
            state.history = Some(request.into_inner());
            state.history_reply.clone()
        })
        .await
    }

    async fn inbox(&self, request: Request<v1::InboxRequest>) -> Reply<v1::InboxReply> {
        self.answer(|state| {
            state.inbox = Some(request.into_inner());
            state.inbox_reply.clone()
        })
        .await
    }

    async fn chats(&self, request: Request<v1::ChatsRequest>) -> Reply<v1::ChatsReply> {
        self.answer(|state| {
            state.chats = Some(request.into_inner());
            state.chats_reply.clone()
        })
        .await
    }

    async fn chat(&self, request: Request<v1::ChatRequest>) -> Reply<v1::ChatView> {
        self.answer(|state| {
            let request = request.into_inner();
            let view = v1::ChatView { chat_id: request.chat_id.clone(), ..Default::default() };
            state.chat = Some(request);
            view
        })
        .await
    }

    async fn await_verdict(
        &self,
        request: Request<v1::AwaitVerdictRequest>,
    ) -> Reply<v1::VerdictReply> {
        let mut state = self.state();
        state.await_verdict = Some(request.into_inner());
        let verdict = state.verdict.clone().transpose()?;
        Ok(Response::new(v1::VerdictReply { verdict }))
    }

    async fn receipts(&self, request: Request<v1::ChatRequest>) -> Reply<v1::ReceiptsReply> {
        self.answer(|state| {
            state.receipts = Some(request.into_inner());
            let receipt = v1::Receipt {
                chat_id: "g.1".into(),
                user_id: "bob".into(),
                delivered_seq: u64::MAX,
                read_seq: 0,
            };
            v1::ReceiptsReply { receipts: vec![receipt] }
        })
        .await
    }

    async fn open_device(&self, _: Request<v1::Caller>) -> Reply<v1::OpenDeviceReply> {
        not_asked()
    }

    async fn save_cursors(
        &self,
        _: Request<v1::SaveCursorsRequest>,
    ) -> Reply<v1::SaveCursorsReply> {
        not_asked()
    }

    async fn watermarks(&self, _: Request<v1::WatermarksRequest>) -> Reply<v1::WatermarksReply> {
        not_asked()
    }

    async fn find_message(
        &self,
        _: Request<v1::FindMessageRequest>,
    ) -> Reply<v1::FindMessageReply> {
        not_asked()
    }

    async fn blocks(&self, _: Request<v1::BlocksRequest>) -> Reply<v1::BlocksReply> {
        not_asked()
    }
}

#[async_trait]
impl Connections for Stub {
    async fn set(&self, request: Request<v1::SetConnectionRequest>) -> Reply<v1::ConnectionSet> {
        self.answer(|state| {
            let request = request.into_inner();
            let asked = request.connection.clone().unwrap();
            state.set = Some(request);
            v1::ConnectionSet {
                user_id: asked.user_id,
                status: asked.status,
                version: u64::MAX,
                token: "2.3.4".into(),
            }
        })
        .await
    }

    async fn list(&self, request: Request<v1::ConnectionsRequest>) -> Reply<v1::ConnectionsReply> {
        self.answer(|state| {
            state.list = Some(request.into_inner());
            state.list_reply.clone()
        })
        .await
    }

    async fn put_settings(&self, _: Request<v1::SetSettingsRequest>) -> Reply<v1::SettingsSet> {
        not_asked()
    }

    async fn get_settings(&self, _: Request<v1::Caller>) -> Reply<v1::SetSettings> {
        not_asked()
    }

    async fn list_devices(&self, request: Request<v1::DevicesRequest>) -> Reply<v1::DevicesReply> {
        self.answer(|state| {
            state.devices = Some(request.into_inner());
            v1::DevicesReply { devices: vec![device("phone", "")] }
        })
        .await
    }

    async fn rename_device(
        &self,
        request: Request<v1::RenameDeviceRequest>,
    ) -> Reply<v1::DeviceView> {
        self.answer(|state| {
            let request = request.into_inner();
            let view = device(&request.device_id, &request.name);
            state.rename = Some(request);
            view
        })
        .await
    }

    async fn revoke_device(
        &self,
        request: Request<v1::RevokeDeviceRequest>,
    ) -> Reply<v1::RevokeDeviceReply> {
        self.answer(|state| {
            state.revoke = Some(request.into_inner());
            v1::RevokeDeviceReply {}
        })
        .await
    }
}

fn device(id: &str, name: &str) -> v1::DeviceView {
    v1::DeviceView {
        device_id: id.into(),
        name: name.into(),
        last_active: Some(Timestamp::from_ms(1_767_323_045_678)),
        position: u64::MAX,
    }
}

fn not_asked<T>() -> Reply<T> {
    Err(Status::unimplemented("not asked by a gateway"))
}

#[async_trait]
impl Hosts for Stub {
    async fn locate(&self, request: Request<v1::LocateRequest>) -> Reply<v1::LocateReply> {
        self.answer(|_| v1::LocateReply {
            partition: 3,
            host: "h1".into(),
            url: format!("wss://h1/{}/v1/ws", request.get_ref().user_id),
            epoch: u64::MAX,
        })
        .await
    }
}
