//! Streams of relayed sockets, from who accepts them to who serves them.

use crate::{endpoints::channel, remote::Shared};
use chaski_proto::{
    Problem,
    v1::{self, relay_client::RelayClient, relay_server::Relay},
};
use std::pin::Pin;
use tonic::{Request, Response, Status, Streaming, async_trait, codegen::tokio_stream::Stream};

/// The largest frame taken: a message of a client, read on past its limit so that the limit can be
/// told, or the largest that is shown to one.
pub(crate) const FRAME_BYTES_MAX: usize = 64 << 20;

/// What comes on a stream.
pub type RelayStream = Pin<Box<dyn Stream<Item = Result<v1::RelayFrame, Status>> + Send>>;

/// The generated trait, with the one kind of stream that our delivery hosts give.
pub trait Relayed: Relay<StreamStream = RelayStream> {}
impl<T: Relay<StreamStream = RelayStream>> Relayed for T {}

#[async_trait]
impl Relay for Shared<dyn Relayed> {
    type StreamStream = RelayStream;

    async fn stream(
        &self,
        request: Request<Streaming<v1::RelayFrame>>,
    ) -> Result<Response<RelayStream>, Status> {
        self.0.stream(request).await
    }
}

/// Opens a stream to the process at this endpoint, on a connection of its own: what is relayed and
/// what is called do not wait for each other.
///
/// # Errors
/// Where the process is not reached, or takes nothing.
pub async fn relay(
    endpoint: String,
    outgoing: impl Stream<Item = v1::RelayFrame> + Send + 'static,
) -> Result<RelayStream, Status> {
    let channel = channel(&endpoint).map_err(|error| Problem::unavailable(error.to_string()))?;
    let mut client = RelayClient::new(channel).max_decoding_message_size(FRAME_BYTES_MAX);
    Ok(Box::pin(client.stream(outgoing).await?.into_inner()))
}
