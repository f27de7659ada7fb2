//! A blocker and a sender who do not wait for one another, and what each was told meanwhile. One
//! task drives both, so "heard before" and "asked after" are certain.
//!
//! Must not know: what is right; `verify.rs` decides.

use super::{
    Race,
    side::{Side, frame},
};
use chaski_core::ChatId;
use chaski_proto::v1::{
    self, ConnectionStatus, client_frame::Command, new_message, send_message, server_frame::Body,
};
use chaski_tests::PATIENCE;
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::time::Instant;

/// Sends that may be unanswered or not yet told to both.
const IN_FLIGHT_MAX: usize = 24;

/// Most sends while a block is being asked for.
const BESIDE_MAX: usize = 20;

/// One message of the sender.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    accepted: bool,
    /// Its place in the chat, once the echo was heard; 0 before.
    pub(crate) seq: u64,
    /// It was in flight around a block.
    pub(crate) raced: bool,
    /// The blocker knew this version before it was sent.
    pub(crate) known: u64,
    /// How many questions and answers of the blocker lay before it.
    pub(crate) epoch: u64,
}

/// What the blocker's socket was told, with what it knew then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    Shown { seq: u64, message: usize },
    Hidden { seq: u64 },
    Edge { blocked: bool, version: u64 },
    Update { seq: u64 },
}

pub(crate) struct Heard {
    pub(crate) position: u64,
    pub(crate) told: Told,
    pub(crate) epoch: u64,
    /// Whether the sender is blocked, where no change of that was being asked for.
    pub(crate) blocked: Option<bool>,
}

pub(crate) struct Pair {
    pub(crate) race: Arc<Race>,
    pub(crate) n: usize,
    random: fastrand::Rng,
    pub(crate) blocker: Side,
    pub(crate) sender: Side,
    pub(crate) chat: ChatId,
    /// They meet in a group, whose making has taken seq 1.
    pub(crate) group: bool,
    pub(crate) sent: Vec<Sent>,
    /// How many echoes the sender has heard.
    echoed: usize,
    pub(crate) heard: Vec<Heard>,
    /// How many messages the blocker was told of, one way or the other.
    told: usize,
    blocked: bool,
    pub(crate) version: u64,
    /// The blocker waits for the answer to this.
    asking: Option<bool>,
    epoch: u64,
    /// How long the last block took to be answered.
    block_took: Duration,
    next_id: u32,
    /// What was not answered has to be given again.
    owes_sends: bool,
    owes_question: bool,
}

/// The text of a message.
pub(crate) fn text(message: usize) -> String {
    format!("secret {message}")
}

/// Which message has this key.
pub(crate) fn message_of(key: &str) -> usize {
    key.strip_prefix('m').and_then(|n| n.parse().ok()).expect("one of the pair's keys")
}

impl Pair {
    pub(crate) async fn start(race: Arc<Race>, n: usize, seed: u64) -> Self {
        let blocker = Side::new(race.server.person("blocker").await, "phone");
        let sender = Side::new(race.server.person("sender").await, "phone");
        let id = |side: &Side| side.person.id.parse().expect("a legal id");
        let group = n % 4 == 3;
        let chat = match group {
            true => ChatId::created(&id(&blocker), &"race".parse().expect("a legal key")),
            false => ChatId::direct(&id(&blocker), &id(&sender)),
        };
        let random = fastrand::Rng::with_seed(seed);
        let mut pair = Self {
            race,
            n,
            random,
            blocker,
            sender,
            chat,
            group,
            sent: Vec::new(),
            echoed: 0,
            heard: Vec::new(),
            told: 0,
            blocked: false,
            version: 0,
            asking: None,
            epoch: 0,
            block_took: Duration::from_millis(5),
            next_id: 1,
            owes_sends: false,
            owes_question: false,
        };
        pair.connect().await;
        if group {
            pair.meet().await;
        }
        pair
    }

    /// Makes the group; both are told.
    async fn meet(&mut self) {
        let create = v1::CreateChat {
            participants: vec![self.sender.person.id.clone()],
            client_chat_id: "race".into(),
            ..v1::CreateChat::default()
        };
        self.blocker.feed(frame(u32::MAX, Command::CreateChat(create))).await;
        self.blocker.flush().await;
        self.until("the group", |pair| !pair.heard.is_empty() && pair.sender.at > 0).await;
    }

    /// Races until enough was raced by all, and then until everything is told.
    pub(crate) async fn race(&mut self) {
        while self.race.goes_on() {
            self.round().await;
        }
        self.settle().await;
    }

    async fn round(&mut self) {
        let before = self.random.usize(1..=3);
        self.send(before).await;
        self.ask(true).await;
        let asked = Instant::now();
        self.send_beside(asked, BESIDE_MAX).await;
        self.until("BLOCKED", |pair| pair.asking.is_none()).await;
        self.block_took = asked.elapsed();
        // What is sent now must stay hidden unless the lifting overtakes it.
        let behind = self.random.usize(0..=2);
        self.send(behind).await;
        if self.random.u8(..4) == 0 {
            self.settle().await;
        }
        self.ask(false).await;
        let beside = self.random.usize(0..=1);
        self.send(beside).await;
        self.until("the lifting", |pair| pair.asking.is_none()).await;
        if self.random.u8(..4) == 0 {
            self.settle().await;
        } else {
            self.until("less in flight", |pair| pair.in_flight() <= IN_FLIGHT_MAX).await;
        }
        let ack = Some(v1::Ack { position: self.blocker.at });
        self.blocker.feed(v1::ClientFrame { id: 0, ack, command: None }).await;
        self.blocker.flush().await;
    }

    fn in_flight(&self) -> usize {
        self.sent.len() - self.echoed.min(self.told)
    }

    async fn settle(&mut self) {
        self.until("all is told", |pair| {
            let edges = pair.heard.iter().rev().find_map(|heard| match heard.told {
                Told::Edge { version, .. } => Some(version),
                _ => None,
            });
            pair.in_flight() == 0 && edges.unwrap_or(0) == pair.version
        })
        .await;
    }

    /// Sends at random times about when the block will be answered, going by the last one, until
    /// it is: there both fates are near.
    async fn send_beside(&mut self, asked: Instant, count: usize) {
        let mut time = asked + self.block_took * 3 / 4;
        let gap_max = self.block_took / 12;
        for _ in 0..count {
            if self.hear_until(time, |pair| pair.asking.is_none()).await {
                return;
            }
            self.send(1).await;
            time += gap_max.mul_f64(self.random.f64());
        }
    }

    async fn send(&mut self, count: usize) {
        for _ in 0..count {
            let raced = self.asking == Some(true);
            let (known, epoch) = (self.version, self.epoch);
            self.sent.push(Sent { accepted: false, seq: 0, raced, known, epoch });
            self.race.raced.fetch_add(raced.into(), Ordering::Relaxed);
            self.give(self.sent.len() - 1).await;
        }
        self.sender.flush().await;
    }

    async fn give(&mut self, message: usize) {
        let target = match self.group {
            true => send_message::Target::ChatId(self.chat.to_string()),
            false => send_message::Target::To(self.blocker.person.id.clone()),
        };
        let send = v1::SendMessage {
            target: Some(target),
            client_message_id: format!("m{message}"),
            body: Some(send_message::Body::Text(text(message))),
            ..v1::SendMessage::default()
        };
        let id = u32::try_from(message).expect("not so many") + 2;
        self.sender.feed(frame(id, Command::SendMessage(send))).await;
    }

    /// Asks for the block, or for its lifting; what is in flight meets it.
    async fn ask(&mut self, block: bool) {
        self.asking = Some(block);
        self.epoch += 1;
        if block {
            let in_flight = self.sent.iter_mut().filter(|sent| sent.seq == 0 && !sent.raced);
            let raced = in_flight.map(|sent| sent.raced = true).count();
            self.race.raced.fetch_add(raced as u64, Ordering::Relaxed);
        }
        self.ask_again().await;
    }

    async fn ask_again(&mut self) {
        let Some(block) = self.asking else { return };
        let status = if block { ConnectionStatus::Blocked } else { ConnectionStatus::None };
        let set = v1::SetConnection {
            user_id: self.sender.person.id.clone(),
            status: status.into(),
            based_on_version: (!block).then_some(self.version),
        };
        self.next_id += 1;
        self.blocker.feed(frame(self.next_id, Command::SetConnection(set))).await;
        self.blocker.flush().await;
    }

    async fn until(&mut self, what: &str, is: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + 3 * PATIENCE;
        let heard = tokio::time::timeout_at(deadline, self.hear_until(deadline, is)).await;
        if !matches!(heard, Ok(true)) {
            let last = self.heard.last().map(|heard| heard.told);
            panic!(
                "{what}: not in time; {} sent, {} echoed, {} told, {last:?}",
                self.sent.len(),
                self.echoed,
                self.told
            );
        }
    }

    /// Hears until it is so, or until the deadline; whether it is. A connection that is being made
    /// is not given up for that: its late `hello` could replace the one after it.
    async fn hear_until(&mut self, deadline: Instant, is: impl Fn(&Self) -> bool) -> bool {
        let race = Arc::clone(&self.race);
        while !is(self) {
            self.connect().await;
            tokio::select! {
                frame = self.sender.hear(&race.server) => {
                    if let Some(frame) = frame {
                        self.sender_heard(frame).await;
                    }
                }
                frame = self.blocker.hear(&race.server) => {
                    if let Some(frame) = frame {
                        self.blocker_heard(frame).await;
                    }
                }
                () = tokio::time::sleep_until(deadline) => return is(self),
            }
        }
        true
    }

    /// After a crash: connects again, and gives again what was not answered. Cancel safe: what is
    /// given twice has one effect.
    async fn connect(&mut self) {
        let race = Arc::clone(&self.race);
        if !self.sender.is_connected() {
            self.owes_sends = true;
            self.sender.connect(&race.server).await;
        }
        if !self.blocker.is_connected() {
            self.owes_question = true;
            self.blocker.connect(&race.server).await;
        }
        if self.owes_sends {
            for message in 0..self.sent.len() {
                let Sent { accepted, seq, .. } = self.sent[message];
                if !accepted && seq == 0 {
                    self.give(message).await;
                }
            }
            self.sender.flush().await;
            self.owes_sends = false;
        }
        if self.owes_question {
            self.ask_again().await;
            self.owes_question = false;
        }
    }

    async fn sender_heard(&mut self, frame: v1::ServerFrame) {
        let body = frame.body.expect("a body");
        match (body, frame.position) {
            (Body::MessageAccepted(accepted), None) => {
                let message = message_of(&accepted.client_message_id);
                self.sent[message].accepted = true;
            }
            (Body::Error(error), None) if matches!(error.status, 429 | 503) => {
                self.owes_sends = true;
                self.race.server.busy().await;
            }
            (Body::NewMessage(echo), Some(position)) => {
                self.sender.pass(position);
                let message = message_of(&echo.client_message_id);
                let sent = &mut self.sent[message];
                assert_eq!(sent.seq, 0, "L2: twice: {echo:?}");
                assert!(echo.seq > 0 && body_is(&echo, message), "{echo:?}");
                sent.seq = echo.seq;
                self.echoed += 1;
            }
            (Body::ChatUpdate(update), Some(position)) if self.group && update.seq == 1 => {
                self.sender.pass(position);
            }
            (Body::Receipt(_), None) => {}
            (other, _) => panic!("L7: the sender sees a difference: {other:?}"),
        }
    }

    async fn blocker_heard(&mut self, frame: v1::ServerFrame) {
        let body = frame.body.expect("a body");
        let told = match (body, frame.position) {
            (Body::ConnectionSet(set), None) => {
                let blocked = set.status() == ConnectionStatus::Blocked;
                if self.asking == Some(blocked) {
                    let edges = u64::from(self.blocked != blocked);
                    assert_eq!(set.version, self.version + edges, "one change for one question");
                    (self.blocked, self.version) = (blocked, set.version);
                    self.asking = None;
                    self.epoch += 1;
                }
                return;
            }
            (Body::Error(error), None) if matches!(error.status, 429 | 503) => {
                self.owes_question = true;
                return self.race.server.busy().await;
            }
            (Body::Receipt(_) | Body::ChatCreated(_), None) => return,
            (body, Some(position)) => {
                self.blocker.pass(position);
                told(&body)
            }
            (other, None) => panic!("not to be said to the blocker: {other:?}"),
        };
        self.told += usize::from(matches!(told, Told::Shown { .. } | Told::Hidden { .. }));
        let blocked = self.asking.is_none().then_some(self.blocked);
        let position = self.blocker.at;
        self.heard.push(Heard { position, told, epoch: self.epoch, blocked });
    }
}

fn body_is(message: &v1::NewMessage, sent: usize) -> bool {
    message.body == Some(new_message::Body::Text(text(sent)))
}

/// What an event tells the blocker.
pub(crate) fn told(body: &Body) -> Told {
    match body {
        Body::NewMessage(m) => {
            let message = message_of(&m.client_message_id);
            assert!(body_is(m, message), "another content: {m:?}");
            Told::Shown { seq: m.seq, message }
        }
        Body::MessageHidden(m) => Told::Hidden { seq: m.seq },
        Body::ConnectionUpdate(update) => Told::Edge {
            blocked: update.status() == ConnectionStatus::Blocked,
            version: update.version,
        },
        Body::ChatUpdate(update) => Told::Update { seq: update.seq },
        other => panic!("not an event to come: {other:?}"),
    }
}
