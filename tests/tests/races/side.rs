//! One end of a pair: a socket that comes back after a crash, behind the last position it was
//! sent.
//!
//! Must not know: what is sent and why.

use super::server::{Era, Server};
use chaski_proto::v1::{self, client_frame::Command, server_frame::Body};
use chaski_tests::{Link, Lost, PATIENCE, Person};

pub(crate) struct Side {
    pub(crate) person: Person,
    device: &'static str,
    token: String,
    link: Option<(Link, Era)>,
    /// The highest position it was sent.
    pub(crate) at: u64,
}

impl Side {
    pub(crate) fn new(person: Person, device: &'static str) -> Self {
        let token = person.token(device);
        Self { person, device, token, link: None, at: 0 }
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.link.is_some()
    }

    pub(crate) async fn connect(&mut self, server: &Server) {
        while self.link.is_none() {
            let era = server.up().await;
            match self.hello(server).await {
                Ok(Some(link)) => self.link = Some((link, era)),
                Ok(None) => server.busy().await,
                Err(lost) => assert!(server.crashed_since(era), "no connection: {lost}"),
            }
        }
    }

    async fn hello(&mut self, server: &Server) -> Result<Option<Link>, Lost> {
        let mut link = Link::open(&server.url, &self.token, false).await?;
        let device_id = self.device.to_owned();
        let hello = v1::Hello { token: None, device_id, resume_after: Some(self.at) };
        link.say(&frame(1, Command::Hello(hello))).await?;
        let welcomed = tokio::time::timeout(PATIENCE, link.hear()).await;
        match welcomed.expect("hello is answered in time")?.body {
            Some(Body::Welcome(welcome)) => {
                assert_eq!(welcome.position, self.at, "it resumes where it was told to");
                Ok(Some(link))
            }
            Some(Body::Error(error)) if error.status == 503 => Ok(None),
            other => panic!("hello answered with {other:?}"),
        }
    }

    /// Puts a frame in line; nothing where the connection has ended, which is heard then.
    pub(crate) async fn feed(&mut self, frame: v1::ClientFrame) {
        if let Some((link, _)) = &mut self.link {
            let _ = link.feed(&frame).await;
        }
    }

    pub(crate) async fn flush(&mut self) {
        if let Some((link, _)) = &mut self.link {
            let _ = link.flush().await;
        }
    }

    /// The next frame; `None` where a crash has ended the connection. Cancel safe.
    pub(crate) async fn hear(&mut self, server: &Server) -> Option<v1::ServerFrame> {
        let (link, era) = self.link.as_mut()?;
        match link.hear().await {
            Ok(frame) => Some(frame),
            Err(lost) => {
                let user = &self.person.id;
                assert!(server.crashed_since(*era), "{user}: cut off without a crash: {lost}");
                self.link = None;
                None
            }
        }
    }

    /// A durable event came.
    pub(crate) fn pass(&mut self, position: u64) {
        assert!(position > self.at, "L4: {position} behind {}", self.at);
        self.at = position;
    }
}

pub(crate) fn frame(id: u32, command: Command) -> v1::ClientFrame {
    v1::ClientFrame { id, ack: None, command: Some(command) }
}
