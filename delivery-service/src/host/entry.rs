//! One applied record with something to show, and its frames: each is encoded once, however many
//! users and devices it goes to.
//!
//! Must not know: who is here, or why a message is hidden from somebody.

use bytes::Bytes;
use chaski_core::{Offset, Position, UserId};
use chaski_proto::{
    event_body,
    v1::{self, recipients_record::Event, server_frame::Body},
};
use std::sync::OnceLock;

/// An applied record.
pub(super) struct Entry {
    pub(super) position: Position,
    pub(super) users: Vec<UserId>,
    event: Event,
    /// About what it takes of memory.
    pub(super) bytes: usize,
    frames: Frames,
    hidden: Option<Box<Hidden>>,
}

/// A frame in the two formats.
#[derive(Default)]
struct Frames {
    json: OnceLock<Bytes>,
    protobuf: OnceLock<Bytes>,
}

impl Frames {
    fn get(&self, json: bool, encode: impl FnOnce() -> Bytes) -> Bytes {
        let cache = if json { &self.json } else { &self.protobuf };
        cache.get_or_init(encode).clone()
    }
}

/// For which of its users a message is hidden, and what they are shown.
struct Hidden {
    /// Indexes into the entry's users, ascending.
    users: Vec<u32>,
    frames: Frames,
}

impl Entry {
    /// An entry of which nothing is hidden.
    pub(super) fn new(offset: Offset, users: Vec<UserId>, event: Event, bytes: usize) -> Self {
        let position = Position::at(offset);
        // The frame in one format and the bookkeeping are about as much again.
        let bytes = 2 * bytes + 200;
        Self { position, users, event, bytes, frames: Frames::default(), hidden: None }
    }

    /// The same, hidden from these of its users (indexes, ascending).
    pub(super) fn hide_from(mut self, users: Vec<u32>) -> Self {
        if !users.is_empty() {
            self.bytes += 200;
            self.hidden = Some(Box::new(Hidden { users, frames: Frames::default() }));
        }
        self
    }

    /// The frame for the `index`-th user; `None` where there is nothing to show.
    pub(super) fn frame(&self, index: u32, json: bool) -> Option<Bytes> {
        let encode = |body| v1::ServerFrame::event(self.position.0, body).to_bytes(json);
        match (&self.event, self.hidden_for(index)) {
            (Event::SettingsChange(_), _) => None,
            (Event::Message(message), Some(hidden)) => {
                let body = || Body::MessageHidden(message.hidden());
                Some(hidden.frames.get(json, || encode(body())))
            }
            // visibleFrom is each user's own.
            (Event::ChatChange(_), _) => event_body(&self.event, index as usize).map(encode),
            _ => Some(self.frames.get(json, || {
                let body = event_body(&self.event, index as usize);
                encode(body.expect("only records with something to show enter the ring"))
            })),
        }
    }

    /// The message that the `index`-th user is shown here, if it is one.
    pub(super) fn message(&self, index: u32) -> Option<&v1::Message> {
        match &self.event {
            Event::Message(message) if self.hidden_for(index).is_none() => Some(message),
            _ => None,
        }
    }

    /// What the record says of its user's `hideReadMarks`, if anything.
    pub(super) fn hide_read_marks(&self) -> Option<bool> {
        match &self.event {
            Event::SettingsChange(change) => Some(change.hide_read_marks),
            _ => None,
        }
    }

    fn hidden_for(&self, index: u32) -> Option<&Hidden> {
        self.hidden.as_deref().filter(|hidden| hidden.users.binary_search(&index).is_ok())
    }
}
