//! One device of a person: a client that does what the conductor orders and notes all it is shown.

use super::{
    check::{Shown, What},
    plan::Device,
    shared::Shared,
};
use anyhow::Context as _;
use chaski_client::{Body, Client, Command, CommandId, Config, Event, Outcome, v1};
use sha2::{Digest as _, Sha256};
use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};
use tokio::sync::{SemaphorePermit, mpsc};

/// What a device is told to do.
#[derive(Clone, Copy, Debug)]
pub(super) enum Order {
    Create(u32),
    Send(u32),
    Leave,
    Return,
}

/// What a device tells the conductor.
#[derive(Debug)]
pub(super) enum Report {
    Connected,
    Left,
    Created { chat: u32, id: u32 },
    Accepted { message: u32, id: u32 },
    Failed { order: Order, why: String },
}

/// The harness waits longer than an application would: a killed service comes back.
const GIVE_UP_AFTER: Duration = Duration::from_secs(180);

/// Runs a device until the conductor drops its orders; what it was shown.
pub(super) async fn run(
    shared: Arc<Shared>,
    device: u32,
    mut orders: mpsc::Receiver<Order>,
    reports: mpsc::Sender<(u32, Report)>,
) -> anyhow::Result<(u32, Vec<Shown>)> {
    let mut task = Task::new(&shared, device, reports);
    let mut client = Some(task.client()?);
    let mut permit = Some(shared.connecting.acquire().await?);
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                None => break,
                Some(Order::Return) => {
                    task.leaving = false;
                    if client.is_none() {
                        client = Some(task.client()?);
                    }
                }
                Some(Order::Leave) => task.leaving = true,
                Some(order) => {
                    let client = client.as_mut().context("an order to a device that is away")?;
                    task.send(client, order).await;
                }
            },
            event = async {
                match &mut client {
                    Some(client) => client.next().await,
                    None => std::future::pending().await,
                }
            } => task.event(event?, &mut permit).await,
        }
        if task.leaving
            && task.asked.is_empty()
            && let Some(client) = client.take()
        {
            task.leave(client).await;
            task.report(Report::Left).await;
        }
    }
    if let Some(client) = client {
        task.leave(client).await;
    }
    Ok((device, task.shown))
}

struct Task<'a> {
    shared: &'a Shared,
    number: u32,
    device: &'a Device,
    reports: mpsc::Sender<(u32, Report)>,
    asked: HashMap<CommandId, Order>,
    shown: Vec<Shown>,
    messages: u32,
    highest: Option<u64>,
    leaving: bool,
    was_connected: bool,
    /// Since when the present socket is welcome.
    connected_us: Option<u64>,
    /// Since when this device is meant to be online, and was.
    online_us: Option<u64>,
}

impl<'a> Task<'a> {
    fn new(shared: &'a Shared, number: u32, reports: mpsc::Sender<(u32, Report)>) -> Self {
        Self {
            shared,
            number,
            device: &shared.plan.devices[number as usize],
            reports,
            asked: HashMap::new(),
            shown: Vec::new(),
            messages: 0,
            highest: None,
            leaving: false,
            was_connected: false,
            connected_us: None,
            online_us: None,
        }
    }

    fn client(&self) -> anyhow::Result<Client> {
        let user = &self.shared.plan.log.users[self.device.user as usize];
        let tokens = self.shared.token_provider(self.number);
        let mut config = Config::new(&self.shared.url, user, &self.device.name, tokens);
        config.format = self.device.format;
        config.give_up_after = GIVE_UP_AFTER;
        config.resume_after = self.highest.filter(|_| self.device.says_where);
        Ok(Client::new(config)?)
    }

    async fn report(&self, report: Report) {
        // A conductor that has ended has dropped the orders too, which ends this device.
        let _ = self.reports.send((self.number, report)).await;
    }

    async fn send(&mut self, client: &mut Client, order: Order) {
        match client.send(self.command(order)) {
            Ok(id) => drop(self.asked.insert(id, order)),
            Err(error) => self.report(Report::Failed { order, why: error.to_string() }).await,
        }
    }

    fn command(&self, order: Order) -> Command {
        let plan = &self.shared.plan;
        let number = match order {
            Order::Create(chat) => chat,
            Order::Send(message) => plan.log.messages[message as usize].chat,
            Order::Leave | Order::Return => unreachable!("not a command"),
        };
        let chat = &plan.log.chats[number as usize];
        let Order::Send(message) = order else {
            let name = |user: &u32| plan.log.users[*user as usize].clone();
            return Command::CreateChat(v1::CreateChat {
                participants: chat.participants.iter().map(name).collect(),
                name: chat.name.clone(),
                client_chat_id: plan.client_chat_id(number),
                ..v1::CreateChat::default()
            });
        };
        let chat_id = self.shared.chat_ids[number as usize].get();
        Command::SendMessage(v1::SendMessage {
            target: Some(v1::send_message::Target::ChatId(chat_id.cloned().unwrap_or_default())),
            client_message_id: plan.client_message_id(message),
            body: Some(v1::send_message::Body::Text(
                plan.log.messages[message as usize].text.clone(),
            )),
            ..v1::SendMessage::default()
        })
    }

    async fn event(&mut self, event: Event, permit: &mut Option<SemaphorePermit<'_>>) {
        match event {
            Event::Connected { .. } => {
                *permit = None;
                let now = self.shared.now_us();
                self.connected_us = Some(now);
                self.online_us.get_or_insert(now);
                if !std::mem::replace(&mut self.was_connected, true) {
                    self.report(Report::Connected).await;
                }
            }
            Event::Disconnected { cause, .. } => {
                if self.connected_us.take().is_some() {
                    self.shared.reconnects.fetch_add(1, Relaxed);
                }
                self.shared.count_disconnect(&cause);
            }
            Event::Durable { position, body } => {
                if self.highest.is_some_and(|highest| position <= highest) {
                    // Only after coming back without `resumeAfter`.
                    self.shared.repeats_ignored.fetch_add(1, Relaxed);
                } else {
                    self.highest = Some(position);
                    self.note(position, body);
                }
            }
            Event::Repeated { .. } | Event::Receipt(_) => {}
            Event::Settled { id, outcome } => {
                if let Some(order) = self.asked.remove(&id) {
                    self.settled(order, outcome).await;
                }
            }
        }
    }

    async fn settled(&self, order: Order, outcome: Outcome) {
        let names = &self.shared.names;
        let report = match (order, outcome) {
            (Order::Create(chat), Outcome::Done(Body::ChatCreated(done))) => {
                let id = names.of(&done.chat_id);
                // The first answer stands; a chat is made once.
                let _ = self.shared.chat_ids[chat as usize].set(done.chat_id);
                Report::Created { chat, id }
            }
            (Order::Send(message), Outcome::Done(Body::MessageAccepted(done))) => {
                let sent = self.shared.sent_us(message).unwrap_or_default();
                let took = self.shared.now_us().saturating_sub(sent);
                self.shared.latencies(|l| l.accept_us.saturating_record(took));
                Report::Accepted { message, id: names.of(&done.message_id) }
            }
            (order, outcome) => Report::Failed { order, why: format!("{outcome:?}") },
        };
        self.report(report).await;
    }

    fn note(&mut self, position: u64, body: Option<Body>) {
        let names = &self.shared.names;
        let (chat, seq, what) = match body {
            Some(Body::NewMessage(message)) => {
                self.count(&message);
                (names.of(&message.chat_id), message.seq, what(&message, self.shared))
            }
            Some(Body::ChatUpdate(update)) => (names.of(&update.chat_id), update.seq, What::Update),
            Some(Body::MessageHidden(hidden)) => {
                (names.of(&hidden.chat_id), hidden.seq, What::Hidden)
            }
            Some(Body::MessageRejected(rejected)) => {
                tracing::warn!(?rejected, "a message was rejected after it was accepted");
                self.shared.rejected.fetch_add(1, Relaxed);
                return;
            }
            Some(Body::Resync(resync)) => {
                tracing::warn!(?resync, device = self.number, "resync");
                self.shared.resyncs.fetch_add(1, Relaxed);
                return;
            }
            _ => return,
        };
        self.shown.push(Shown { position, chat, seq, what });
    }

    /// Counts a message of this run, and how long it took to those who were online.
    fn count(&mut self, message: &v1::NewMessage) {
        // The same conversation of an earlier run has the same keys.
        let of_this_run = message.sender_device_id.contains(&self.shared.plan.run);
        let Some(&index) = self.shared.messages.get(&message.client_message_id) else { return };
        if !of_this_run {
            return;
        }
        self.shared.copies.fetch_add(1, Relaxed);
        self.messages += 1;
        if self.messages == self.device.messages {
            self.shared.complete.fetch_add(1, Relaxed);
        }
        let from_other = self.shared.plan.log.messages[index as usize].sender != self.device.user;
        if let (true, Some(sent)) = (from_other, self.shared.sent_us(index)) {
            let took = self.shared.now_us().saturating_sub(sent);
            let since = |online: Option<u64>| online.is_some_and(|since| since <= sent);
            let (connected, online) = (since(self.connected_us), since(self.online_us));
            self.shared.latencies(|l| {
                if connected {
                    l.delivery_us.saturating_record(took);
                }
                if online {
                    l.delivery_with_reconnects_us.saturating_record(took);
                }
            });
        }
    }

    async fn leave(&mut self, client: Client) {
        self.shared.repeats_ignored.fetch_add(client.repeats_ignored(), Relaxed);
        (self.connected_us, self.online_us) = (None, None);
        client.close().await;
    }
}

/// A message as the judge knows it.
pub(super) fn what(message: &v1::NewMessage, shared: &Shared) -> What {
    let bytes: &[u8] = match &message.body {
        Some(v1::new_message::Body::Text(text)) => text.as_bytes(),
        Some(v1::new_message::Body::Ciphertext(bytes)) => bytes,
        None => &[],
    };
    What::Message {
        id: shared.names.of(&message.message_id),
        sender: shared.names.of(&message.sender_id),
        sha256: Sha256::digest(bytes).into(),
    }
}
