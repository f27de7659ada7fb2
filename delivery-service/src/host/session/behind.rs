//! How a device that is further back than the ring comes to it: in pages from the message service
//! as long as they lead there; where what is stored ends before the ring, or the pages do not come,
//! by a read of the log that it shares with others.

use super::{End, Session};
use crate::host::{
    catch_up::{Join, Seat, Taken},
    ring::{Read, Ring},
};
use chaski_core::Position;
use chaski_planted::Bug;
use chaski_proto::v1::{self, server_frame::Body};
use futures::future::BoxFuture;
use std::{collections::VecDeque, sync::Arc, time::Duration};
use tonic::Request;

/// Events in one page from the message service.
const PAGE: u32 = 200;
/// Pause before asking again where the message service is behind the ring.
const PAGE_AGAIN: Duration = Duration::from_millis(100);
/// The same where it does not answer, or has nothing and the log has nothing either.
const PAGE_LATER: Duration = Duration::from_millis(500);
/// After so many pages in a row that do not lead to the ring the log is read.
const SHORT_MAX: u32 = 2;

type Page = Result<v1::InboxReply, tonic::Status>;

/// Where a device is that is behind the ring.
#[derive(Default)]
pub(super) struct Behind {
    /// The next page.
    pub(super) page: Option<BoxFuture<'static, Page>>,
    /// Pages in a row that ended with what is stored, before the ring, or did not come.
    short: u32,
    /// Whether the last one came.
    answered: bool,
    /// In a read of the log.
    seat: Option<Seat>,
}

impl Session {
    /// What stands after the cursor: in the read of the log that it has a seat in, else in the ring.
    pub(super) fn read(&mut self) -> Read {
        let bytes_max = self.host.config.burst_bytes;
        let taken = self.behind.seat.as_ref().map(|seat| seat.take(bytes_max));
        match taken {
            Some(Taken::Nothing) => return Read::Events { events: Vec::new(), more: false },
            // What comes behind the last one, an end at least, wakes it if it is not there yet.
            Some(Taken::Events(events)) => return Read::Events { events, more: true },
            Some(Taken::Over(upto)) => self.cursor = self.cursor.max(upto),
            Some(Taken::Lost) | None => {}
        }
        self.behind.seat = None;
        let read = self.ring.read(&self.who.user, self.cursor, bytes_max);
        if !matches!(read, Read::Behind) {
            self.behind.short = 0;
        }
        read
    }

    /// The device is behind the ring: asks for a page, or takes a seat where pages do not lead on.
    pub(super) async fn look_back(&mut self) -> Result<(), End> {
        let short = self.behind.short;
        let pause = match (short, self.behind.answered) {
            (0, _) => Duration::ZERO,
            (_, true) => PAGE_AGAIN,
            (_, false) => PAGE_LATER,
        };
        if short < SHORT_MAX {
            self.behind.page = Some(self.ask_page(pause));
            return Ok(());
        }
        match Ring::seat(&self.ring, &self.who.user, self.cursor, &self.subscriber) {
            Join::Seat(seat) => self.behind.seat = Some(seat),
            // Neither stored nor in the log: it is lost to this device.
            Join::Gone(last) if self.behind.answered => return self.expired(last).await,
            Join::Gone(_) | Join::No => self.behind.page = Some(self.ask_page(PAGE_LATER)),
        }
        Ok(())
    }

    fn ask_page(&self, pause: Duration) -> BoxFuture<'static, Page> {
        let messages = Arc::clone(&self.host.parts.messages);
        let request = v1::InboxRequest {
            caller: Some(self.who.caller()),
            after: self.cursor.0,
            limit: PAGE,
            ..Default::default()
        };
        Box::pin(async move {
            tokio::time::sleep(pause).await;
            messages.inbox(Request::new(request)).await.map(tonic::Response::into_inner)
        })
    }

    pub(super) async fn show_page(&mut self, page: Page) -> Result<(), End> {
        self.behind.answered = page.is_ok();
        let page = match page {
            Ok(mut page) if chaski_planted::is(Bug::PageWithoutItsLast) => {
                page.events.pop();
                page
            }
            Ok(page) => page,
            Err(error) => {
                tracing::warn!(%error, "a page of older events does not come, asking again");
                self.behind.short += 1;
                return Ok(());
            }
        };
        self.behind.short = if page.more { 0 } else { self.behind.short + 1 };
        let json = self.socket.json;
        let mut frames = VecDeque::with_capacity(page.events.len());
        for event in &page.events {
            let Some(position) = event.position.filter(|p| *p > self.cursor.0) else { continue };
            if let Some(Body::NewMessage(message)) = &event.body {
                let place = (Position(position), message.chat_id.as_str(), message.seq);
                self.remember(place, &message.sender_id);
            }
            frames.push_back(event.to_bytes(json));
        }
        self.cursor = self.cursor.max(Position(page.upto));
        self.delivers(frames.len());
        self.send_all(frames).await
    }
}
