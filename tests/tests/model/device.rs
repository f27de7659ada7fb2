//! A device of a case: one socket that comes back after a crash, and everything it was shown.
//! Checks what holds for one device alone: positions grow (L4), nothing is skipped (L5), what
//! comes again is the same, receipts never go back.
//!
//! Must not know: the reference, other devices.

use super::{
    patience,
    server::{Era, Server, Unknown},
};
use chaski_proto::v1::{self, client_frame::Command, server_frame::Body};
use chaski_tests::{Link, Lost, PATIENCE};
use std::collections::BTreeMap;

pub(crate) struct Device {
    user: String,
    name: String,
    token: String,
    json: bool,
    link: Option<(Link, Era)>,
    /// What it was shown, by position.
    pub(crate) shown: BTreeMap<u64, Body>,
    /// The highest position that this connection was sent, or has resumed after.
    at: u64,
    /// The highest position that it has ever said to have taken.
    acked: u64,
    next_id: u32,
    receipts: BTreeMap<(String, String), (u64, u64)>,
    /// Whether a connection of it has ever ended.
    pub(crate) was_cut: bool,
    /// Somebody has left a chat: who comes back begins anew.
    pub(crate) receipts_may_fall: bool,
}

impl Device {
    pub(crate) fn new(user: &str, name: &str, token: String, json: bool) -> Self {
        Self {
            user: user.to_owned(),
            name: name.to_owned(),
            token,
            json,
            link: None,
            shown: BTreeMap::new(),
            at: 0,
            acked: 0,
            next_id: 1,
            receipts: BTreeMap::new(),
            was_cut: false,
            receipts_may_fall: false,
        }
    }

    fn highest(&self) -> u64 {
        self.shown.last_key_value().map_or(0, |(position, _)| *position)
    }

    /// Gives the present connection up, without a word.
    pub(crate) fn drop_link(&mut self, json: bool) {
        self.was_cut |= self.link.take().is_some();
        self.json = json;
    }

    /// Connects unless it is connected; `resume`: after the highest position it was shown.
    pub(crate) async fn connect(&mut self, server: &Server, resume: bool) {
        let deadline = tokio::time::Instant::now() + 3 * PATIENCE;
        while self.link.is_none() {
            assert!(tokio::time::Instant::now() < deadline, "{}: no connection", self.user);
            let era = server.up().await;
            match self.hello(server, resume).await {
                Ok(Some(link)) => self.link = Some((link, era)),
                Ok(None) => server.busy().await,
                Err(lost) => self.cut(server, era, &lost),
            }
        }
    }

    /// `None`: not now.
    async fn hello(&mut self, server: &Server, resume: bool) -> Result<Option<Link>, Lost> {
        let mut link = Link::open(&server.url, &self.token, self.json).await?;
        let resume_after = resume.then(|| self.highest());
        let device_id = self.name.clone();
        let hello = v1::Hello { token: None, device_id, resume_after };
        link.say(&frame(1, Command::Hello(hello))).await?;
        self.next_id = 1;
        self.receipts.clear();
        let welcomed = tokio::time::timeout(PATIENCE, link.hear()).await;
        match welcomed.expect("hello is answered in time")?.body {
            Some(Body::Welcome(welcome)) => {
                self.at = welcome.position;
                match resume_after {
                    Some(after) => {
                        assert_eq!(self.at, after, "it resumes where it was told to");
                        self.acked = self.acked.max(after);
                    }
                    // L5: the stored cursor never passes what was taken.
                    None => assert!(self.at <= self.acked, "{} > {}", self.at, self.acked),
                }
                Ok(Some(link))
            }
            Some(Body::Error(error)) if error.status == 503 => Ok(None),
            Some(Body::GoAway(away)) if away.url.is_none() => Ok(None),
            other => panic!("{}/{}: hello answered with {other:?}", self.user, self.name),
        }
    }

    /// The connection ended, which only a crash may cause.
    fn cut(&mut self, server: &Server, era: Era, lost: &Lost) {
        self.link = None;
        self.was_cut = true;
        let crashed = server.crashed_since(era);
        assert!(crashed, "{}/{}: cut off without a crash: {lost}", self.user, self.name);
    }

    /// Gives a command; its reply.
    pub(crate) async fn command(
        &mut self,
        server: &Server,
        command: Command,
    ) -> Result<Body, Unknown> {
        self.connect(server, true).await;
        self.next_id += 1;
        let id = self.next_id;
        self.say(server, &frame(id, command)).await?;
        loop {
            let heard = tokio::time::timeout(PATIENCE, self.hear(server)).await;
            let heard = heard.unwrap_or_else(|_| panic!("{}: no answer in time", self.user));
            if let Some((reply_to, body)) = heard? {
                if reply_to == id {
                    return match body {
                        Body::Error(error) if matches!(error.status, 429 | 503) => {
                            server.busy().await;
                            Err(Unknown)
                        }
                        body => Ok(body),
                    };
                }
                // To a command without a reply: refused, and sent again later.
                let late = matches!(&body, Body::Error(_)) && reply_to < id;
                assert!(late, "{}: a reply to {reply_to}, not {id}: {body:?}", self.user);
            }
        }
    }

    /// Gives a command that has no reply.
    pub(crate) async fn tell(&mut self, server: &Server, command: Command) -> Result<(), Unknown> {
        self.connect(server, true).await;
        self.next_id += 1;
        let frame = frame(self.next_id, command);
        self.say(server, &frame).await
    }

    /// Says that all it was shown is taken; the server has heard it on return.
    pub(crate) async fn ack(&mut self, server: &Server) -> Result<(), Unknown> {
        self.connect(server, true).await;
        // What the connection was not sent may not be acknowledged on it.
        let position = self.at;
        self.acked = self.acked.max(position);
        self.say(
            server,
            &v1::ClientFrame { id: 0, ack: Some(v1::Ack { position }), command: None },
        )
        .await?;
        self.command(server, Command::Ping(v1::Ping {})).await.map(|_| ())
    }

    /// Takes what comes until it was shown this many events.
    pub(crate) async fn catch_up(&mut self, server: &Server, count: usize) {
        let deadline = tokio::time::Instant::now() + patience();
        while self.shown.len() < count {
            self.connect(server, true).await;
            let heard = tokio::time::timeout_at(deadline, self.hear(server)).await;
            if heard.is_err() {
                let (user, shown) = (&self.user, &self.shown);
                panic!("{user}: L5: shown {} events of {count}: {shown:#?}", shown.len());
            }
        }
    }

    /// The next frame: a reply, or `None` for anything else.
    pub(crate) async fn hear(&mut self, server: &Server) -> Result<Option<(u32, Body)>, Unknown> {
        let (link, era) = self.link.as_mut().expect("it is connected");
        let era = *era;
        match link.hear().await {
            Ok(frame) => Ok(self.take(frame)),
            Err(lost) => {
                self.cut(server, era, &lost);
                Err(Unknown)
            }
        }
    }

    async fn say(&mut self, server: &Server, frame: &v1::ClientFrame) -> Result<(), Unknown> {
        let (link, era) = self.link.as_mut().expect("it is connected");
        let era = *era;
        match link.say(frame).await {
            Ok(()) => Ok(()),
            Err(lost) => {
                self.cut(server, era, &lost);
                Err(Unknown)
            }
        }
    }

    fn take(&mut self, frame: v1::ServerFrame) -> Option<(u32, Body)> {
        let who = (&self.user, &self.name);
        let body = frame.body.expect("a body");
        match (frame.reply_to, frame.position) {
            (Some(id), None) => return Some((id, body)),
            (None, Some(position)) => {
                assert!(position > self.at, "{who:?}: L4: {position} behind {}", self.at);
                let between = self.shown.range(self.at + 1..position).next();
                assert!(between.is_none(), "{who:?}: L5: skipped {between:?} before {position}");
                self.at = position;
                let highest = self.highest();
                match self.shown.get(&position) {
                    Some(before) => assert_eq!(*before, body, "{who:?}: L4: at {position}"),
                    None => {
                        assert!(position > highest, "{who:?}: L4: {position} is new: {body:?}");
                        self.shown.insert(position, body);
                    }
                }
            }
            (None, None) => match body {
                Body::Receipt(r) => {
                    let marks = (r.delivered_seq, r.read_seq);
                    let key = (r.chat_id, r.user_id);
                    let before = self.receipts.insert(key.clone(), marks).unwrap_or_default();
                    let forward =
                        before.0 <= marks.0 && before.1 <= marks.1 || self.receipts_may_fall;
                    assert!(forward, "{who:?}: {key:?} went from {before:?} to {marks:?}");
                }
                other => panic!("{who:?}: not to be said here: {other:?}"),
            },
            (Some(_), Some(_)) => panic!("{who:?}: a reply with a position: {body:?}"),
        }
        None
    }
}

fn frame(id: u32, command: Command) -> v1::ClientFrame {
    v1::ClientFrame { id, ack: None, command: Some(command) }
}
