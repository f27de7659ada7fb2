//! `chaski chat`: one chat in a plain terminal. Lines in, lines out. What can be typed is
//! `chat/orders.rs`, what that does `chat/act.rs`, how lines look `chat/lines.rs`.

mod act;
mod lines;
mod orders;
mod sent;

use super::identity::{Identity, Speaker, Target, Wire, connection_news, message, stdin_lines};
use crate::{config::Config, node::end_signal};
use anyhow::Context as _;
use chaski_client::{
    Body, Client, Command, CommandId, Event, HistoryItem, HistoryRow, Http, HttpError, Latest,
    Outcome, v1,
};
use chaski_core::ChatId;
use clap::Args;
use lines::Lines;
use orders::{Order, Typed};
use sent::Sent;
use std::{collections::HashMap, time::Duration};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

/// What stands behind the flags in the help.
fn more() -> String {
    format!(
        "\
Type a line to send it. Your own messages are shown when they come back with their place in the
chat; what was refused is told. `✓ ben: \"…\"` says that ben's devices have your message, `✓✓` that
ben has read it. A message that its device wrote before one that is shown already is refused, and
its sender told. Ctrl-D or Ctrl-C ends. What happens to the connection is told on standard error;
what you type meanwhile is sent when it is back.

{}

Examples (two terminals):
  chaski chat --user ana --to ben
  chaski chat --user ben --to ana",
        orders::help()
    )
}

/// Messages of the past that are shown at the start.
const HISTORY: u32 = 20;
/// How long the echoes of the last messages are waited for after the end of the input.
const ECHOES_MAX: Duration = Duration::from_secs(10);
/// What a device was shown is in the history within 5 s.
const HISTORY_LATE_MAX: Duration = Duration::from_secs(5);
/// What the sender of a refused message is told.
const LATE: &str = "a later message of this device is shown already";

#[derive(Args)]
#[command(after_help = more())]
pub(super) struct ChatArgs {
    #[command(flatten)]
    identity: Identity,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    wire: Wire,
}

pub(super) async fn run(config: &Config, args: ChatArgs) -> anyhow::Result<()> {
    let signal = end_signal();
    tokio::pin!(signal);
    let speaker = args.identity.resolve(config)?;
    let may_be_new = args.target.to.is_some();
    let mut room = Room::new(speaker, args.target)?;
    room.out.note(&format!("connecting to {}", room.speaker.url));
    room.speaker.reach().await?;
    room.past(may_be_new).await.map_err(|error| room.speaker.explain_http(error))?;
    let mut client = room.speaker.client(&args.wire, None)?;
    tokio::select! {
        ended = room.converse(&mut client) => ended?,
        ended = &mut signal => ended?,
    }
    client.close().await;
    room.warn_of_unshown();
    Ok(())
}

/// One chat, as far as it was shown.
struct Room {
    speaker: Speaker,
    http: Http,
    target: Target,
    chat: String,
    shown: u64,
    out: Lines,
    /// Sent and neither shown nor refused yet: clientMessageId → text.
    unshown: HashMap<String, String>,
    sent: Sent,
    latest: Latest,
    /// The chat's last change.
    state: Option<v1::ChatUpdate>,
    /// What this user has read, on whichever device.
    read: u64,
}

/// What the next line waits for.
enum Waiting {
    Message {
        id: CommandId,
        key: String,
    },
    /// `from`: the chat to go back to where the new one is refused.
    Order {
        id: CommandId,
        from: Option<Target>,
    },
}

impl Waiting {
    fn id(&self) -> CommandId {
        match self {
            Waiting::Message { id, .. } | Waiting::Order { id, .. } => *id,
        }
    }
}

impl Room {
    fn new(speaker: Speaker, target: Target) -> anyhow::Result<Self> {
        let chat = match (&target.chat, &target.to) {
            (Some(chat), _) => chat.to_string(),
            (None, Some(to)) => ChatId::direct(&speaker.user, to).to_string(),
            (None, None) => anyhow::bail!("give --to or --chat"),
        };
        Ok(Self {
            http: Http::new(&speaker.url)?,
            speaker,
            target,
            chat,
            shown: 0,
            out: Lines::default(),
            unshown: HashMap::new(),
            sent: Sent::default(),
            latest: Latest::default(),
            state: None,
            read: 0,
        })
    }

    /// Goes to another chat of which nothing is shown yet; the one that was left.
    fn enter(&mut self, target: Target) -> Target {
        self.chat = match (&target.chat, &target.to) {
            (None, Some(to)) => ChatId::direct(&self.speaker.user, to).to_string(),
            (chat, _) => chat.map(|chat| chat.to_string()).unwrap_or_default(),
        };
        (self.shown, self.read, self.state, self.sent) = (0, 0, None, Sent::default());
        std::mem::replace(&mut self.target, target)
    }

    /// Shows the last messages.
    async fn past(&mut self, may_be_new: bool) -> Result<(), HttpError> {
        match self.http.newest(&self.speaker.tokens, &self.chat, HISTORY).await {
            Ok(page) => page.items.into_iter().for_each(|row| self.show_row(row)),
            // Nobody has written yet.
            Err(HttpError::Problem { status: 403 | 404, .. }) if may_be_new => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Sends what is typed and shows what comes, until the input ends.
    async fn converse(&mut self, client: &mut Client) -> anyhow::Result<()> {
        let mut input = stdin_lines();
        // One at a time keeps the order, and a few lines wait in the channel.
        let mut waiting: Option<Waiting> = None;
        let mut leave_at = None;
        loop {
            let done = waiting.is_none() && self.unshown.is_empty();
            let leave = async {
                match leave_at {
                    Some(at) if !done => tokio::time::sleep_until(at).await,
                    Some(_) => {}
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                event = client.next() => {
                    let event = event.map_err(|error| self.speaker.explain(error))?;
                    if let Some(refusal) = self.take(event, &mut waiting).await
                        && let Err(error) = client.send(refusal)
                    {
                        self.out.note(&format!("the refusal was not sent: {error}"));
                    }
                }
                line = input.recv(), if waiting.is_none() && leave_at.is_none() => match line {
                    None => leave_at = Some(Instant::now() + ECHOES_MAX),
                    Some(line) => {
                        let line = line.context("cannot read standard input")?;
                        self.out.typed();
                        match Typed::of(line) {
                            Typed::Text(text) => waiting = self.send(client, text),
                            Typed::Order(Order::Quit) => leave_at = Some(Instant::now() + ECHOES_MAX),
                            Typed::Order(order) => waiting = self.act(client, order).await,
                            Typed::Wrong(why) => self.out.event(&lines::wrong(&why)),
                        }
                    }
                },
                () = leave => return Ok(()),
            }
        }
    }

    fn send(&mut self, client: &mut Client, text: String) -> Option<Waiting> {
        if text.is_empty() {
            return None;
        }
        let key = Uuid::now_v7().to_string();
        let message = message(&self.target, key.clone(), text.clone());
        match client.send(Command::SendMessage(message)) {
            Ok(id) => {
                self.unshown.insert(key.clone(), text);
                Some(Waiting::Message { id, key })
            }
            Err(error) => {
                self.out.event(&lines::not_sent(&text, &error.to_string()));
                None
            }
        }
    }

    /// Takes an event; the refusal of a message, where it came too late.
    async fn take(&mut self, event: Event, waiting: &mut Option<Waiting>) -> Option<Command> {
        if let Some(news) = connection_news(&event) {
            self.out.note(&news);
        }
        match event {
            Event::Durable { body: Some(body), .. } => return self.show(body).await,
            Event::Receipt(receipt) => self.receipt(&receipt),
            Event::Settled { id, outcome } => match waiting.take_if(|waiting| waiting.id() == id) {
                Some(Waiting::Message { key, .. }) => self.settled(&key, outcome),
                Some(Waiting::Order { from, .. }) => self.acted(outcome, from),
                None => {}
            },
            _ => {}
        }
        None
    }

    fn settled(&mut self, key: &str, outcome: Outcome) {
        let why = match outcome {
            Outcome::Done(body) => return self.seen(&body),
            Outcome::Written => return,
            Outcome::Refused(error) => format!("refused: {} {}", error.status, error.message),
            Outcome::Unknown | Outcome::GaveUp => "no answer; it may still arrive".into(),
        };
        if let Some(text) = self.unshown.remove(key) {
            self.out.event(&lines::not_sent(&text, &why));
        }
    }

    /// What is read over HTTP from now on shows this write.
    fn seen(&mut self, reply: &Body) {
        match reply {
            Body::MessageAccepted(v1::MessageAccepted { token, .. })
            | Body::ChatCreated(v1::ChatCreated { token, .. })
            | Body::ChatModified(v1::ChatModified { token, .. }) => {
                self.http = self.http.seeing(token);
            }
            _ => {}
        }
    }

    fn receipt(&mut self, receipt: &v1::Receipt) {
        if receipt.chat_id != self.chat {
        } else if receipt.user_id == self.speaker.user.as_str() {
            if receipt.read_seq > self.read {
                self.read = receipt.read_seq;
                self.out.note(&format!("you have read up to {} on a device", self.read));
            }
        } else if let Some(tick) = self.sent.tick(receipt) {
            self.out.event(&lines::tick(&receipt.user_id, &tick));
        }
    }

    /// Shows an event, where it is one of this chat that was not shown yet. A message that came
    /// too late is refused instead; it keeps its place in the history.
    async fn show(&mut self, body: Body) -> Option<Command> {
        let (chat, seq) = match &body {
            Body::NewMessage(m) => (&m.chat_id, m.seq),
            Body::ChatUpdate(u) => (&u.chat_id, u.seq),
            Body::MessageHidden(h) => (&h.chat_id, h.seq),
            Body::MessageRejected(r) => {
                self.rejected(r);
                return None;
            }
            Body::ConnectionUpdate(update) => {
                if update.by_device_id != self.speaker.device.as_str() {
                    self.out.event(&lines::connection_update(update));
                }
                return None;
            }
            Body::Resync(_) => {
                self.out.note("older events have expired: the history still has the messages");
                return None;
            }
            _ => return None,
        };
        if let Body::NewMessage(m) = &body {
            self.unshown.remove(&m.client_message_id);
        }
        if *chat != self.chat {
            if let Body::ChatUpdate(update) = &body {
                self.out.note(&lines::elsewhere(update));
            }
            return None;
        }
        if seq > self.shown + 1 {
            self.fill_up_to(seq).await;
        }
        if seq <= self.shown {
            return None;
        }
        self.shown = seq;
        if let Body::NewMessage(m) = &body
            && m.sender_id != self.speaker.user.as_str()
            && self.latest.is_late(m)
        {
            self.out.event(&lines::refused_here(m));
            return Some(Latest::refusal(m, LATE));
        }
        self.put(body);
        None
    }

    /// Puts an event of this chat on the screen.
    fn put(&mut self, body: Body) {
        let mut line = None;
        match &body {
            Body::NewMessage(m) if m.sender_id == self.speaker.user.as_str() => {
                self.sent.note(m, lines::said(m));
            }
            Body::ChatUpdate(update) => {
                let own = self.speaker.user.as_str();
                line = Some(lines::change(self.state.as_ref(), update, own));
                self.state = Some(update.clone());
            }
            _ => {}
        }
        match line {
            Some(line) => self.out.event(&line),
            None => self.out.body(&body),
        }
    }

    fn rejected(&mut self, rejected: &v1::MessageRejected) {
        let key = &rejected.client_message_id;
        // The chat has refused it: it was never shown. A recipient has: it was.
        let unshown = self.unshown.remove(key);
        let shown = || self.sent.text(key).map(str::to_owned);
        let text = unshown.or_else(shown).filter(|_| rejected.chat_id == self.chat);
        if let Some(text) = text {
            self.out.event(&lines::rejected(&text, rejected));
        }
    }

    /// Shows what this device had taken in an earlier run, but the history did not have yet when
    /// this one began. Best effort; a hole that is not this user's to see stays one.
    async fn fill_up_to(&mut self, seq: u64) {
        let until = Instant::now() + HISTORY_LATE_MAX;
        while self.shown > 0 && self.shown + 1 < seq && Instant::now() < until {
            let page = self.http.history(&self.speaker.tokens, &self.chat, self.shown, 500).await;
            let rows = page.map(|page| page.items).unwrap_or_default();
            let complete = rows.last().is_some_and(|row| row.seq >= seq);
            if rows.is_empty() {
                sleep(Duration::from_millis(100)).await;
            }
            rows.into_iter().filter(|row| row.seq < seq).for_each(|row| self.show_row(row));
            if complete {
                return;
            }
        }
    }

    fn show_row(&mut self, row: HistoryRow) {
        if row.seq <= self.shown {
            return;
        }
        self.shown = row.seq;
        match row.item {
            HistoryItem::Message(message) => {
                self.unshown.remove(&message.client_message_id);
                // It is shown, late or not.
                self.latest.is_late(&message);
                self.put(Body::NewMessage(*message));
            }
            HistoryItem::ChatUpdate(update) => self.put(Body::ChatUpdate(*update)),
            HistoryItem::Hidden => self.put(Body::MessageHidden(v1::MessageHidden::default())),
        }
    }

    fn warn_of_unshown(&mut self) {
        for text in std::mem::take(&mut self.unshown).into_values() {
            let why = "its place in the chat was not seen; it may still arrive";
            self.out.event(&lines::not_sent(&text, why));
        }
    }
}
