//! Whoever asked waits here for the verdict. The fold of this process settles it directly; that of
//! another process is seen in the store.

use chaski_core::record::RequestId;
use chaski_ports::MessageStore;
use chaski_proto::v1;
use parking_lot::Mutex;
use prost::Message as _;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, sleep_until},
};

/// The first look into the store comes after this; each next one after twice as long.
const LOOK_FIRST: Duration = Duration::from_millis(10);
/// No pause between two looks is longer.
const LOOK_LAST: Duration = Duration::from_millis(100);

/// Those who wait.
#[derive(Default)]
pub(crate) struct Verdicts {
    waiting: Arc<Mutex<HashMap<RequestId, oneshot::Sender<v1::ConnectionVerdict>>>>,
}

/// One who waits; dropped, nobody does any more.
pub(crate) struct Waiting {
    id: RequestId,
    told: oneshot::Receiver<v1::ConnectionVerdict>,
    waiting: Arc<Mutex<HashMap<RequestId, oneshot::Sender<v1::ConnectionVerdict>>>>,
}

impl Verdicts {
    /// To be called before the request is in the log.
    pub(crate) fn wait_for(&self, id: RequestId) -> Waiting {
        let (settle, told) = oneshot::channel();
        self.waiting.lock().insert(id, settle);
        Waiting { id, told, waiting: Arc::clone(&self.waiting) }
    }

    /// The verdict is durable.
    pub(crate) fn settle(&self, id: &RequestId, verdict: &v1::ConnectionVerdict) {
        if let Some(settle) = self.waiting.lock().remove(id) {
            // Who has given up meanwhile needs no answer.
            let _ = settle.send(verdict.clone());
        }
    }
}

impl Waiting {
    /// The verdict, where it comes within `patience`.
    pub(crate) async fn verdict(
        mut self,
        store: &dyn MessageStore,
        patience: Duration,
    ) -> Option<v1::ConnectionVerdict> {
        let deadline = Instant::now() + patience;
        let id = self.id;
        let look = async {
            let mut pause = LOOK_FIRST;
            loop {
                sleep(pause).await;
                pause = (pause * 2).min(LOOK_LAST);
                match store.verdict(&id).await {
                    Ok(Some(bytes)) => break stored(bytes),
                    Ok(None) => {}
                    Err(error) => tracing::warn!(%error, "cannot look for a verdict"),
                }
            }
        };
        tokio::select! {
            told = &mut self.told => told.ok(),
            found = look => found,
            () = sleep_until(deadline) => None,
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.waiting.lock().remove(&self.id);
    }
}

fn stored(bytes: bytes::Bytes) -> Option<v1::ConnectionVerdict> {
    let stored = v1::StoredVerdict::decode(bytes);
    stored.inspect_err(|error| tracing::error!(%error, "a verdict cannot be read")).ok()?.connection
}
