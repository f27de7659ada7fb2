//! What devices have acknowledged, saved in batches: at most every two seconds, never once per
//! acknowledgement.

use chaski_core::{DeviceId, Position, UserId};
use chaski_proto::v1::{self, messages_server::Messages};
use chaski_runtime::CancellationToken;
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::sync::Notify;
use tonic::Request;

/// Most cursors in one save.
const BATCH: usize = 1000;

type Cursors = HashMap<(UserId, DeviceId), Position>;

/// The cursors that moved since they were last saved.
pub(super) struct Acks {
    messages: Arc<dyn Messages>,
    moved: Mutex<Cursors>,
    /// What is being saved at the moment.
    saving: Mutex<Cursors>,
    full: Notify,
    unsaved_max: usize,
}

impl Acks {
    pub(super) fn new(messages: Arc<dyn Messages>, unsaved_max: usize) -> Self {
        Self {
            messages,
            moved: Mutex::default(),
            saving: Mutex::default(),
            full: Notify::new(),
            unsaved_max,
        }
    }

    /// A device has taken everything up to `position`. Bounded by the devices that are here: each
    /// has one entry.
    pub(super) fn note(&self, user: &UserId, device: &DeviceId, position: Position) {
        let mut moved = self.moved.lock();
        let cursor = moved.entry((user.clone(), device.clone())).or_default();
        *cursor = position.max(*cursor);
        if moved.len() >= self.unsaved_max {
            self.full.notify_one();
        }
    }

    /// What a device has acknowledged that may not be saved yet.
    pub(super) fn unsaved(&self, user: &UserId, device: &DeviceId) -> Option<Position> {
        let key = (user.clone(), device.clone());
        let moved = self.moved.lock().get(&key).copied();
        moved.max(self.saving.lock().get(&key).copied())
    }

    /// Saves until `stop`, and once more then.
    pub(super) async fn run(&self, every: Duration, stop: CancellationToken) {
        while !stop.is_cancelled() {
            tokio::select! {
                () = tokio::time::sleep(every) => {}
                () = self.full.notified() => {}
                () = stop.cancelled() => {}
            }
            self.save().await;
        }
    }

    /// Saves what moved; what fails is kept for the next time.
    pub(super) async fn save(&self) {
        let moved: Vec<_> = {
            let mut moved = self.moved.lock();
            *self.saving.lock() = moved.clone();
            moved.drain().collect()
        };
        for batch in moved.chunks(BATCH) {
            let device = |((user, device), position): &((UserId, DeviceId), Position)| v1::Device {
                user_id: user.to_string(),
                device_id: device.to_string(),
                cursor: position.0,
            };
            let devices = batch.iter().map(device).collect();
            if let Err(error) =
                self.messages.save_cursors(Request::new(v1::SaveCursorsRequest { devices })).await
            {
                tracing::warn!(%error, "device cursors are not saved yet");
                batch
                    .iter()
                    .for_each(|((user, device), position)| self.note(user, device, *position));
            }
        }
        self.saving.lock().clear();
    }
}
