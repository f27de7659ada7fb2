//! `chaski chat`: one chat in a plain terminal. Lines in, lines out; how lines look is `chat/lines.rs`.

mod lines;

use super::identity::{Identity, Speaker, Target, Wire, connection_news, message, stdin_lines};
use crate::{config::Config, node::end_signal};
use anyhow::Context as _;
use chaski_client::{
    Body, Client, Command, CommandId, Event, HistoryItem, HistoryRow, Http, HttpError, Outcome,
};
use chaski_core::ChatId;
use clap::Args;
use lines::Lines;
use std::{collections::HashMap, time::Duration};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

const EXAMPLES: &str = "\
Type a line to send it. Your own messages are shown when they come back with their place in the
chat; what was refused is told. Ctrl-D or Ctrl-C ends. What happens to the connection is told on
standard error; what you type meanwhile is sent when it is back.

Examples (two terminals):
  chaski chat --user ana --to ben
  chaski chat --user ben --to ana";

/// Messages of the past that are shown at the start.
const HISTORY: u32 = 20;
/// How long the echoes of the last messages are waited for after the end of the input.
const ECHOES_MAX: Duration = Duration::from_secs(10);
/// What a device was shown is in the history within 5 s.
const HISTORY_LATE_MAX: Duration = Duration::from_secs(5);

#[derive(Args)]
#[command(after_help = EXAMPLES)]
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
    let mut room = Room::new(speaker, &args.target)?;
    room.out.note(&format!("connecting to {}", room.speaker.url));
    room.speaker.reach().await?;
    room.past(args.target.to.is_some()).await?;
    let mut client = room.speaker.client(&args.wire, None)?;
    tokio::select! {
        ended = room.converse(&mut client, &args.target) => ended?,
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
    chat: String,
    shown: u64,
    out: Lines,
    /// Sent and neither shown nor refused yet: clientMessageId → text.
    unshown: HashMap<String, String>,
}

impl Room {
    fn new(speaker: Speaker, target: &Target) -> anyhow::Result<Self> {
        let chat = match (&target.chat, &target.to) {
            (Some(chat), _) => chat.to_string(),
            (None, Some(to)) => ChatId::direct(&speaker.user, to).to_string(),
            (None, None) => anyhow::bail!("give --to or --chat"),
        };
        let http = Http::new(&speaker.url)?;
        let (shown, out, unshown) = (0, Lines::default(), HashMap::new());
        Ok(Self { speaker, http, chat, shown, out, unshown })
    }

    /// Shows the last messages.
    async fn past(&mut self, may_be_new: bool) -> anyhow::Result<()> {
        match self.http.newest(&self.speaker.tokens, &self.chat, HISTORY).await {
            Ok(page) => page.items.into_iter().for_each(|row| self.show_row(row)),
            // Nobody has written yet.
            Err(HttpError::Problem { status: 403 | 404, .. }) if may_be_new => {}
            Err(error) => return Err(self.speaker.explain_http(error)),
        }
        Ok(())
    }

    /// Sends what is typed and shows what comes, until the input ends.
    async fn converse(&mut self, client: &mut Client, target: &Target) -> anyhow::Result<()> {
        let mut input = stdin_lines();
        // One at a time keeps the order, and a few lines wait in the channel.
        let mut sending: Option<(CommandId, String)> = None;
        let mut leave_at = None;
        loop {
            let done = sending.is_none() && self.unshown.is_empty();
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
                    self.take(event, &mut sending).await;
                }
                line = input.recv(), if sending.is_none() && leave_at.is_none() => match line {
                    None => leave_at = Some(Instant::now() + ECHOES_MAX),
                    Some(line) => {
                        let text = line.context("cannot read standard input")?;
                        sending = self.send(client, target, text);
                    }
                },
                () = leave => return Ok(()),
            }
        }
    }

    fn send(
        &mut self,
        client: &mut Client,
        target: &Target,
        text: String,
    ) -> Option<(CommandId, String)> {
        self.out.typed();
        if text.is_empty() {
            return None;
        }
        let key = Uuid::now_v7().to_string();
        match client.send(Command::SendMessage(message(target, key.clone(), text.clone()))) {
            Ok(id) => {
                self.unshown.insert(key.clone(), text);
                Some((id, key))
            }
            Err(error) => {
                self.out.event(&lines::not_sent(&text, &error.to_string()));
                None
            }
        }
    }

    async fn take(&mut self, event: Event, sending: &mut Option<(CommandId, String)>) {
        if let Some(news) = connection_news(&event) {
            self.out.note(&news);
        }
        match event {
            Event::Durable { body: Some(body), .. } => self.show(body).await,
            Event::Settled { id, outcome } if sending.as_ref().is_some_and(|s| s.0 == id) => {
                let why = match outcome {
                    Outcome::Done(_) | Outcome::Written => None,
                    Outcome::Refused(error) => {
                        Some(format!("refused: {} {}", error.status, error.message))
                    }
                    Outcome::Unknown | Outcome::GaveUp => {
                        Some("no answer; it may still arrive".into())
                    }
                };
                let key = sending.take().map(|(_, key)| key).unwrap_or_default();
                if let Some(why) = why
                    && let Some(text) = self.unshown.remove(&key)
                {
                    self.out.event(&lines::not_sent(&text, &why));
                }
            }
            _ => {}
        }
    }

    /// Shows an event, where it is one of this chat that was not shown yet.
    async fn show(&mut self, body: Body) {
        let (chat, seq) = match &body {
            Body::NewMessage(m) => (&m.chat_id, m.seq),
            Body::ChatUpdate(u) => (&u.chat_id, u.seq),
            Body::MessageHidden(h) => (&h.chat_id, h.seq),
            Body::MessageRejected(r) if r.chat_id == self.chat => {
                if let Some(text) = self.unshown.remove(&r.client_message_id) {
                    self.out.event(&lines::rejected(&text, r));
                }
                return;
            }
            Body::Resync(_) => {
                self.out.note("older events have expired: the history still has the messages");
                return;
            }
            _ => return,
        };
        if *chat != self.chat {
            return;
        }
        if let Body::NewMessage(m) = &body {
            self.unshown.remove(&m.client_message_id);
        }
        if seq > self.shown + 1 {
            self.fill_up_to(seq).await;
        }
        if seq > self.shown {
            self.shown = seq;
            self.out.body(&body);
        }
    }

    /// Shows what this device had taken in an earlier run, but the history did not have yet when
    /// this one began. Best effort: a member who joined late sees a hole here, too.
    async fn fill_up_to(&mut self, seq: u64) {
        let until = Instant::now() + HISTORY_LATE_MAX;
        while self.shown > 0 && self.shown + 1 < seq && Instant::now() < until {
            let page = self.http.history(&self.speaker.tokens, &self.chat, self.shown, 500).await;
            let rows = page.map(|page| page.items).unwrap_or_default();
            if rows.is_empty() {
                sleep(Duration::from_millis(100)).await;
            }
            rows.into_iter().filter(|row| row.seq < seq).for_each(|row| self.show_row(row));
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
                self.out.body(&Body::NewMessage(*message));
            }
            HistoryItem::ChatUpdate(update) => self.out.body(&Body::ChatUpdate(*update)),
            HistoryItem::Hidden => self.out.event("-- a message is hidden"),
        }
    }

    fn warn_of_unshown(&mut self) {
        for text in std::mem::take(&mut self.unshown).into_values() {
            let why = "its place in the chat was not seen; it may still arrive";
            self.out.event(&lines::not_sent(&text, why));
        }
    }
}
