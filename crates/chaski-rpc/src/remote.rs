//! The generated service traits, forwarded: to another process by the `Remote…` types, to a
//! service of this process by [`Shared`], which the generated servers need because they cannot
//! hold an `Arc<dyn …>`.

use crate::{DEADLINE, Endpoints};
use chaski_proto::v1::{
    self, connections_client::ConnectionsClient, connections_server::Connections,
    hosts_client::HostsClient, hosts_server::Hosts, messages_client::MessagesClient,
    messages_server::Messages, sender_client::SenderClient, sender_server::Sender,
};
use std::{sync::Arc, time::Duration};
use tonic::{Request, Response, Status, async_trait};

/// The largest answer taken: a page of the longest messages is far larger than gRPC's 4 MiB.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// A service behind an `Arc<dyn …>`.
pub(crate) struct Shared<T: ?Sized>(pub(crate) Arc<T>);

/// Writes both forwardings of every method of a service.
macro_rules! forward {
    (
        $(#[$doc:meta])* $name:ident: $service:ident by $client:ident
        { $($method:ident: $request:ident -> $reply:ident,)+ }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $name {
            endpoints: Endpoints,
        }

        impl $name {
            /// The service as these endpoints play it.
            #[must_use]
            pub fn new(endpoints: Endpoints) -> Self {
                Self { endpoints }
            }
        }

        #[async_trait]
        impl $service for $name {
            $(
                async fn $method(
                    &self,
                    request: Request<v1::$request>,
                ) -> Result<Response<v1::$reply>, Status> {
                    let deadline = deadline(&request);
                    let (metadata, _, message) = request.into_parts();
                    self.endpoints
                        .call(deadline, |channel| {
                            let mut request = Request::new(message.clone());
                            *request.metadata_mut() = metadata.clone();
                            request.set_timeout(deadline);
                            let client = $client::new(channel);
                            let mut client = client.max_decoding_message_size(ANSWER_BYTES_MAX);
                            async move { client.$method(request).await }
                        })
                        .await
                }
            )+
        }

        #[async_trait]
        impl $service for Shared<dyn $service> {
            $(
                async fn $method(
                    &self,
                    request: Request<v1::$request>,
                ) -> Result<Response<v1::$reply>, Status> {
                    self.0.$method(request).await
                }
            )+
        }
    };
}

forward! {
    /// A sender service in other processes.
    RemoteSender: Sender by SenderClient {
        submit: SubmitMessageRequest -> SubmitReply,
        submit_chat: SubmitChatRequest -> SubmitReply,
        submit_change: SubmitChangeRequest -> SubmitReply,
        submit_refusal: SubmitRefusalRequest -> SubmitReply,
        submit_receipts: SubmitReceiptsRequest -> SubmitReceiptsReply,
    }
}

forward! {
    /// A message service in other processes.
    RemoteMessages: Messages by MessagesClient {
        history: HistoryRequest -> HistoryReply,
        inbox: InboxRequest -> InboxReply,
        chats: ChatsRequest -> ChatsReply,
        chat: ChatRequest -> ChatView,
        await_verdict: AwaitVerdictRequest -> VerdictReply,
        open_device: Caller -> OpenDeviceReply,
        save_cursors: SaveCursorsRequest -> SaveCursorsReply,
        watermarks: WatermarksRequest -> WatermarksReply,
        receipts: ChatRequest -> ReceiptsReply,
        find_message: FindMessageRequest -> FindMessageReply,
        blocks: BlocksRequest -> BlocksReply,
    }
}

forward! {
    /// A connection service in other processes.
    RemoteConnections: Connections by ConnectionsClient {
        set: SetConnectionRequest -> ConnectionSet,
        list: ConnectionsRequest -> ConnectionsReply,
        put_settings: SetSettingsRequest -> SettingsSet,
        get_settings: Caller -> SetSettings,
        list_devices: DevicesRequest -> DevicesReply,
        rename_device: RenameDeviceRequest -> DeviceView,
        revoke_device: RevokeDeviceRequest -> RevokeDeviceReply,
    }
}

forward! {
    /// A host allocator in other processes.
    RemoteHosts: Hosts by HostsClient {
        locate: LocateRequest -> LocateReply,
    }
}

/// The deadline that the caller has set, at most [`DEADLINE`].
fn deadline<T>(request: &Request<T>) -> Duration {
    let asked = request.metadata().get("grpc-timeout").and_then(|value| value.to_str().ok());
    asked.and_then(parse).map_or(DEADLINE, |asked| asked.min(DEADLINE))
}

/// The form of gRPC: at most eight digits and a unit.
fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let count: u32 = digits.parse().ok()?;
    let unit = match unit {
        "H" => Duration::from_secs(3600),
        "M" => Duration::from_secs(60),
        "S" => Duration::from_secs(1),
        "m" => Duration::from_millis(1),
        "u" => Duration::from_micros(1),
        "n" => Duration::from_nanos(1),
        _ => return None,
    };
    unit.checked_mul(count)
}
