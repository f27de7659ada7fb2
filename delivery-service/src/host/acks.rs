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

/// Pause after cursors could not be saved.
const AGAIN: Duration = Duration::from_secs(1);

type Cursors = HashMap<(UserId, DeviceId), Position>;

/// Both under one lock, so that a cursor on its way from one to the other is always seen.
#[derive(Default)]
struct Unsaved {
    moved: Cursors,
    /// What is being saved at the moment. Saves may overlap (the timer's and a drain's): each
    /// takes out only what it has put in.
    saving: Cursors,
}

/// The cursors that moved since they were last saved.
pub(super) struct Acks {
    messages: Arc<dyn Messages>,
    unsaved: Mutex<Unsaved>,
    full: Notify,
    unsaved_max: usize,
}

impl Acks {
    pub(super) fn new(messages: Arc<dyn Messages>, unsaved_max: usize) -> Self {
        Self { messages, unsaved: Mutex::default(), full: Notify::new(), unsaved_max }
    }

    /// A device has taken everything up to `position`. Bounded by the devices that are here: each
    /// has one entry.
    pub(super) fn note(&self, user: &UserId, device: &DeviceId, position: Position) {
        let mut unsaved = self.unsaved.lock();
        let cursor = unsaved.moved.entry((user.clone(), device.clone())).or_default();
        *cursor = position.max(*cursor);
        if unsaved.moved.len() >= self.unsaved_max {
            self.full.notify_one();
        }
    }

    /// What a device has acknowledged that may not be saved yet.
    pub(super) fn unsaved(&self, user: &UserId, device: &DeviceId) -> Option<Position> {
        let key = (user.clone(), device.clone());
        let unsaved = self.unsaved.lock();
        unsaved.moved.get(&key).max(unsaved.saving.get(&key)).copied()
    }

    /// Saves until `stop`, and once more then.
    pub(super) async fn run(&self, every: Duration, stop: CancellationToken) {
        while !stop.is_cancelled() {
            tokio::select! {
                () = tokio::time::sleep(every) => {}
                () = self.full.notified() => {}
                () = stop.cancelled() => {}
            }
            if !self.save().await {
                tokio::select! {
                    () = tokio::time::sleep(AGAIN) => {}
                    () = stop.cancelled() => {}
                }
            }
        }
    }

    /// Saves what moved; what fails is kept for the next time. Whether all was saved.
    pub(super) async fn save(&self) -> bool {
        let moved: Vec<_> = self.unsaved.lock().begin();
        let mut all = true;
        for batch in moved.chunks(BATCH) {
            let device = |((user, device), position): &((UserId, DeviceId), Position)| v1::Device {
                user_id: user.to_string(),
                device_id: device.to_string(),
                cursor: position.0,
            };
            let devices = batch.iter().map(device).collect();
            let saved =
                self.messages.save_cursors(Request::new(v1::SaveCursorsRequest { devices })).await;
            if let Err(error) = &saved {
                tracing::warn!(%error, "device cursors are not saved yet");
                all = false;
            }
            self.unsaved.lock().end(batch, saved.is_ok());
        }
        all
    }
}

impl Unsaved {
    /// Takes what moved, to save it.
    fn begin(&mut self) -> Vec<((UserId, DeviceId), Position)> {
        for (device, position) in &self.moved {
            let saving = self.saving.entry(device.clone()).or_default();
            *saving = (*position).max(*saving);
        }
        self.moved.drain().collect()
    }

    /// What was taken is saved, or is to be saved again.
    fn end(&mut self, batch: &[((UserId, DeviceId), Position)], saved: bool) {
        for (device, position) in batch {
            if !saved {
                let cursor = self.moved.entry(device.clone()).or_default();
                *cursor = (*position).max(*cursor);
            }
            // A later save of the same device still has its own, which reaches further.
            if self.saving.get(device) == Some(position) {
                self.saving.remove(device);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l5_overlapping_saves_never_lose_sight_of_a_cursor() {
        let device: (UserId, DeviceId) = ("ana".parse().unwrap(), "phone".parse().unwrap());
        let mut unsaved = Unsaved::default();
        let seen = |unsaved: &Unsaved| {
            unsaved.moved.get(&device).max(unsaved.saving.get(&device)).map(|p| p.0)
        };
        unsaved.moved.insert(device.clone(), Position(5));
        let by_timer = unsaved.begin();
        unsaved.moved.insert(device.clone(), Position(7));
        let by_drain = unsaved.begin();
        unsaved.end(&by_timer, true);
        assert_eq!(seen(&unsaved), Some(7), "7 is still being saved");
        unsaved.end(&by_drain, false);
        assert_eq!(unsaved.moved.get(&device), Some(&Position(7)), "7 is to be saved again");
        let again = unsaved.begin();
        unsaved.end(&again, true);
        assert_eq!(seen(&unsaved), None, "nothing is kept of what is saved");
    }
}
