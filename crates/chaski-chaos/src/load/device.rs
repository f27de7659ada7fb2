//! One device: asks what it is ordered to until it is settled, lives its habit, and notes all it
//! is told. Judges nothing.

use super::{population::Habit, shared::Shared};
use crate::history::{Ask, Entry};
use chaski_client::{
    Body, Client, Command, CommandId, Deferred, Event, Outcome, SendError,
    v1::{self, ConnectionStatus, modify_chat_participants::Operation, send_message::Target},
};
use fastrand::Rng;
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

/// What a device is told to do.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Order {
    /// Once.
    Ask(Ask),
    /// Removes a member that is in, adds one that is out; nothing while that is being asked.
    Member { chat: u32, user: u32 },
    /// Blocks, or lifts the block; nothing while that is being asked.
    Block { peer: u32 },
}

/// How far the run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Everybody comes and stays.
    Start,
    /// Everybody lives their habit.
    Load,
    /// Everybody is there and reads.
    Quiet,
}

/// A command that is not answered is given up after this long: unknown, and asked anew.
const GIVE_UP_AFTER: Duration = Duration::from_secs(40);
/// Commands that wait to be asked; above it what is ordered is not asked.
const WAITING_MAX: usize = 4096;
/// When a client that has ended for good is begun anew.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Runs a device until nobody orders any more.
pub(crate) async fn run(
    shared: Arc<Shared>,
    number: u32,
    mut orders: mpsc::Receiver<Order>,
    mut phase: watch::Receiver<Phase>,
) -> anyhow::Result<()> {
    let mut device = Device::new(&shared, number);
    let permit = shared.connecting.acquire().await?;
    device.come(None)?;
    let mut permit = Some(permit);
    loop {
        let present = *phase.borrow_and_update();
        if present == Phase::Quiet {
            device.be_there()?;
        }
        let reads = !device.stalls;
        tokio::select! {
            order = orders.recv() => match order {
                Some(order) => device.order(order),
                None => break,
            },
            // Orders end with the phases; then the branch above breaks.
            Ok(()) = phase.changed() => {}
            event = next(&mut device.client), if reads && device.client.is_some() => match event {
                Ok(event) => {
                    if matches!(event, Event::Connected { .. }) {
                        permit = None;
                    }
                    device.event(event);
                }
                Err(error) => device.ended(&error),
            },
            () = sleep_until(device.turn) => device.take_turn(present == Phase::Load).await?,
        }
        device.ask();
        device.count();
    }
    drop(permit);
    if let Some(client) = device.client.take() {
        client.close().await;
    }
    Ok(())
}

async fn next(client: &mut Option<Client>) -> Result<Event, chaski_client::Error> {
    match client {
        Some(client) => client.next().await,
        None => std::future::pending().await,
    }
}

/// Something that is turned on and off.
#[derive(Default)]
struct Switch {
    is_on: bool,
    is_asking: bool,
    version: Option<u64>,
}

struct Device<'a> {
    shared: &'a Shared,
    number: u32,
    habit: Habit,
    random: Rng,
    client: Option<Client>,
    /// To be asked, in order.
    waiting: VecDeque<Ask>,
    asked: HashMap<CommandId, Ask>,
    /// Of (chat, user): whether the user is out of it; of (`None`, user): whether blocked.
    switches: HashMap<(Option<u32>, u32), Switch>,
    /// The highest position shown, over all clients.
    highest: Option<u64>,
    stalls: bool,
    /// Has closed, and comes back.
    is_away: bool,
    is_connected: bool,
    /// The next turn of the habit, or of one that has to begin anew.
    turn: Instant,
    /// What this device has added to the counts.
    counted: [u64; 3],
    /// What its present client was told to send later.
    deferred: Deferred,
}

impl<'a> Device<'a> {
    fn new(shared: &'a Shared, number: u32) -> Self {
        let habit = shared.population.devices[number as usize].habit;
        let mut random = Rng::with_seed(u64::from(number) + 1);
        let turn = Instant::now() + seconds(&mut random, 5..30);
        Self {
            shared,
            number,
            habit,
            random,
            client: None,
            waiting: VecDeque::new(),
            asked: HashMap::new(),
            switches: HashMap::new(),
            highest: None,
            stalls: false,
            is_away: false,
            is_connected: false,
            turn,
            counted: [0; 3],
            deferred: Deferred::default(),
        }
    }

    fn note(&self, entry: Entry) {
        self.shared.note(self.number, entry);
    }

    /// Begins a client.
    fn come(&mut self, resume_after: Option<u64>) -> anyhow::Result<()> {
        let mut config = self.shared.config(self.number);
        config.format = self.shared.population.devices[self.number as usize].format;
        config.give_up_after = GIVE_UP_AFTER;
        config.tell_repeats = true;
        config.resume_after = resume_after;
        self.note(Entry::Back { resume_after });
        self.client = Some(Client::new(config)?);
        Ok(())
    }

    /// What was asked and not answered is unknown, and is asked anew.
    fn forget_asked(&mut self) {
        let asked: Vec<Ask> = self.asked.drain().map(|(_, ask)| ask).collect();
        self.ask_again(asked);
        self.is_connected = false;
    }

    /// Before what is to be asked for the first time; messages in the order they were planned.
    fn ask_again(&mut self, asks: impl IntoIterator<Item = Ask>) {
        self.waiting.extend(asks);
        self.waiting.make_contiguous().sort_unstable();
    }

    /// The client ended for good: as after a crash of the application, a new one begins.
    fn ended(&mut self, error: &chaski_client::Error) {
        self.client = None;
        self.forget_asked();
        self.note(Entry::Away { error: Some(error.to_string()) });
        self.shared.counts.stopped.fetch_add(1, Relaxed);
        self.turn = Instant::now() + AGAIN_AFTER;
    }

    fn be_there(&mut self) -> anyhow::Result<()> {
        if std::mem::take(&mut self.stalls) {
            self.note(Entry::Reads);
        }
        if std::mem::take(&mut self.is_away) {
            self.come(self.highest)?;
        }
        Ok(())
    }

    async fn take_turn(&mut self, lives: bool) -> anyhow::Result<()> {
        self.turn = Instant::now() + seconds(&mut self.random, 10..60);
        if self.client.is_none() {
            self.is_away = false;
            // With or without saying where: the server has a cursor of its own.
            let says_where = self.random.bool();
            return self.come(self.highest.filter(|_| says_where));
        }
        if self.stalls {
            self.stalls = false;
            self.note(Entry::Reads);
            return Ok(());
        }
        match self.habit {
            // In the middle of a handshake a host would take it for somebody who never says hello.
            Habit::Stalls if lives && self.is_connected => {
                self.stalls = true;
                self.note(Entry::Stalls);
                self.turn = Instant::now() + seconds(&mut self.random, 4..20);
            }
            Habit::ComesAndGoes if lives => {
                if let Some(client) = self.client.take() {
                    self.is_away = true;
                    self.forget_asked();
                    self.note(Entry::Away { error: None });
                    client.close().await;
                    self.turn = Instant::now() + seconds(&mut self.random, 2..15);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn order(&mut self, order: Order) {
        let (ask, switch) = match order {
            Order::Ask(ask) => (ask, None),
            Order::Member { chat, user } => {
                let switch = self.switches.entry((Some(chat), user)).or_default();
                (Ask::Member { chat, user, is_in: switch.is_on }, Some(switch))
            }
            Order::Block { peer } => {
                let switch = self.switches.entry((None, peer)).or_default();
                (Ask::Block { peer, on: !switch.is_on }, Some(switch))
            }
        };
        if let Some(switch) = switch {
            if switch.is_asking {
                return;
            }
            switch.is_asking = true;
        } else if self.waiting.len() >= WAITING_MAX {
            self.shared.counts.not_asked.fetch_add(1, Relaxed);
            return;
        }
        self.waiting.push_back(ask);
    }

    /// Asks what waits, as far as the client takes it.
    fn ask(&mut self) {
        while let Some(&ask) = self.waiting.front() {
            let command = self.command(ask);
            let Some(client) = &mut self.client else { return };
            // Before it can have an effect.
            let at_us = self.shared.timeline.now_us();
            let refused = match client.send(command) {
                Ok(id) => {
                    self.asked.insert(id, ask);
                    None
                }
                Err(SendError::OutboxFull | SendError::Stopped(_)) => return,
                Err(error) => Some(error.to_string()),
            };
            self.shared.note_at(self.number, at_us, Entry::Invoked { ask });
            if let Some(code) = refused {
                self.note(Entry::Refused { ask, status: 400, code });
            }
            self.waiting.pop_front();
        }
    }

    fn command(&self, ask: Ask) -> Command {
        let shared = self.shared;
        let chat_id = |chat: u32| shared.chat_ids[chat as usize].get().cloned().unwrap_or_default();
        match ask {
            Ask::Create { chat } => {
                let members = &shared.population.chats[chat as usize].members;
                Command::CreateChat(v1::CreateChat {
                    participants: members.iter().map(|user| shared.user(*user)).collect(),
                    name: format!("chat {chat}"),
                    client_chat_id: format!("{}-{chat}", shared.run),
                    ..v1::CreateChat::default()
                })
            }
            Ask::Member { chat, user, is_in } => {
                let operation = if is_in { Operation::Add } else { Operation::Remove };
                Command::ModifyChatParticipants(v1::ModifyChatParticipants {
                    chat_id: chat_id(chat),
                    user_id: shared.user(user),
                    operation: operation.into(),
                })
            }
            Ask::Block { peer, on } => {
                let version = self.switches.get(&(None, peer)).and_then(|switch| switch.version);
                let status = if on { ConnectionStatus::Blocked } else { ConnectionStatus::None };
                Command::SetConnection(v1::SetConnection {
                    user_id: shared.user(peer),
                    status: status.into(),
                    // A block is always taken; a lifting has to name what it lifts.
                    based_on_version: version.filter(|_| !on),
                })
            }
            Ask::Send { message } => {
                let sent = shared.message(message);
                let chat = &shared.population.chats[sent.chat as usize];
                let id = shared.chat_ids[sent.chat as usize].get();
                let target = match id.filter(|_| chat.is_group || message % 2 == 0) {
                    Some(id) => Target::ChatId(id.clone()),
                    None => {
                        let peer = chat.members.iter().find(|user| **user != sent.sender);
                        Target::To(peer.map(|user| shared.user(*user)).unwrap_or_default())
                    }
                };
                Command::SendMessage(v1::SendMessage {
                    target: Some(target),
                    client_message_id: shared.key(message),
                    body: Some(v1::send_message::Body::Text(shared.text(message, sent.chat))),
                    ..v1::SendMessage::default()
                })
            }
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Connected { position } => {
                self.is_connected = true;
                self.note(Entry::Connected { position });
            }
            Event::Disconnected { cause, .. } => {
                self.is_connected = false;
                let now_us = self.shared.timeline.now_us();
                let heard = self.client.as_ref().and_then(Client::heard_at);
                let ago = heard.map_or(0, |at| at.elapsed().as_micros() as u64);
                let heard_us = now_us.saturating_sub(ago);
                self.note(Entry::Disconnected { heard_us, cause: cause.to_string() });
            }
            Event::Durable { position, body } => {
                let shown = self.shared.shown(position, body);
                self.highest = self.highest.max(Some(position));
                self.note(Entry::Shown(shown));
            }
            Event::Repeated { position, body } => {
                self.note(Entry::Repeated(self.shared.shown(position, body)));
            }
            Event::Receipt(_) => {}
            Event::Settled { id, outcome } => {
                if let Some(ask) = self.asked.remove(&id) {
                    self.settled(ask, outcome);
                }
            }
        }
    }

    fn settled(&mut self, ask: Ask, outcome: Outcome) {
        let (names, chat_ids) = (&self.shared.names, &self.shared.chat_ids);
        // The first answer stands; a chat is made once.
        let (id, version) = match outcome {
            Outcome::Done(Body::MessageAccepted(done)) => {
                let id = names.of(&done.message_id);
                if let Ask::Send { message } = ask {
                    let _ = chat_ids[self.shared.message(message).chat as usize].set(done.chat_id);
                }
                (id, None)
            }
            Outcome::Done(Body::ChatCreated(done)) => {
                let id = names.of(&done.chat_id);
                if let Ask::Create { chat } = ask {
                    let _ = chat_ids[chat as usize].set(done.chat_id);
                }
                (id, None)
            }
            Outcome::Done(Body::ConnectionSet(done)) => (0, Some(done.version)),
            Outcome::Done(_) | Outcome::Written => (0, None),
            Outcome::Refused(error) => return self.refused(ask, error),
            Outcome::Unknown | Outcome::GaveUp => {
                self.note(Entry::Unknown { ask });
                return self.ask_again([ask]);
            }
        };
        self.note(Entry::Accepted { ask, id });
        self.switch(ask, true, version);
    }

    fn refused(&mut self, ask: Ask, error: v1::Error) {
        let Some(present) = error.connection.filter(|_| error.status == 409) else {
            self.note(Entry::Refused { ask, status: error.status, code: error.code });
            return self.switch(ask, false, None);
        };
        let blocked = present.status() == ConnectionStatus::Blocked;
        let known = match ask {
            Ask::Block { peer, .. } => self.switches.get(&(None, peer)).and_then(|s| s.version),
            _ => None,
        };
        match ask {
            // It is so: an earlier try had its effect.
            Ask::Block { on, .. } if on == blocked => {
                self.note(Entry::Accepted { ask, id: 0 });
                self.switch(ask, true, Some(present.version));
            }
            // With the version that is there now.
            Ask::Block { peer, .. } if known != Some(present.version) => {
                self.note(Entry::Refused { ask, status: error.status, code: error.code });
                self.switches.entry((None, peer)).or_default().version = Some(present.version);
                self.ask_again([ask]);
            }
            _ => {
                self.note(Entry::Refused { ask, status: error.status, code: error.code });
                self.switch(ask, false, None);
            }
        }
    }

    /// A change is settled: it is so, or nothing is known to have changed.
    fn switch(&mut self, ask: Ask, done: bool, version: Option<u64>) {
        let (key, is_on) = match ask {
            Ask::Member { chat, user, is_in } => ((Some(chat), user), !is_in),
            Ask::Block { peer, on } => ((None, peer), on),
            Ask::Create { .. } | Ask::Send { .. } => return,
        };
        let switch = self.switches.entry(key).or_default();
        switch.is_asking = false;
        if done {
            switch.is_on = is_on;
            switch.version = version.or(switch.version);
        }
    }

    /// Tells who looks at the run how this device is.
    fn count(&mut self) {
        let counts = &self.shared.counts;
        let present = self.client.is_some() && !self.stalls;
        let open = self.asked.len() + self.waiting.len();
        let now = [u64::from(present), u64::from(present && self.is_connected), open as u64];
        let all = [&counts.present, &counts.connected, &counts.open];
        for ((count, now), before) in all.into_iter().zip(now).zip(&mut self.counted) {
            // Also where it is less than before: the sum wraps back.
            count.fetch_add(now.wrapping_sub(std::mem::replace(before, now)), Relaxed);
        }
        let now = self.client.as_ref().map(Client::deferred).unwrap_or_default();
        let before = std::mem::replace(&mut self.deferred, now);
        // Less than before: another client.
        let more = |now: u64, before: u64| now.checked_sub(before).unwrap_or(now);
        counts.deferred.fetch_add(more(now.with_time, before.with_time), Relaxed);
        counts.deferred_blindly.fetch_add(more(now.without, before.without), Relaxed);
    }
}

fn seconds(random: &mut Rng, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(random.u64(range.start * 1000..range.end * 1000))
}
