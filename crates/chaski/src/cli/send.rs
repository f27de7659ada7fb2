//! `chaski send`: messages over HTTP, which needs no socket and disturbs none of the device.

use super::identity::{Identity, Speaker, Target, message, stdin_lines};
use crate::config::Config;
use anyhow::{Context as _, ensure};
use chaski_client::{Http, HttpError, v1};
use clap::Args;
use serde_json::json;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

const EXAMPLES: &str = "\
Prints one JSON line for each message once the log has it. A message whose outcome is not known is \
sent again under the same id, which cannot double it.

Examples:
  chaski send --user ana --to ben hello there
  fortune | chaski send --user ana --to ben -        every line that is not empty is a message
  chaski send --user ana --chat g.0123… --id order-7 'paid'   safe to run twice";

/// How long a message is tried.
const GIVE_UP_AFTER: Duration = Duration::from_secs(30);
const AGAIN_AFTER: Duration = Duration::from_millis(500);

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct SendArgs {
    #[command(flatten)]
    identity: Identity,
    #[command(flatten)]
    target: Target,
    /// The message's idempotency key (clientMessageId) [default: a new UUID]
    #[arg(long)]
    id: Option<String>,
    /// The text; its words are joined by a blank. `-`: each line of standard input is a message
    #[arg(required = true)]
    text: Vec<String>,
}

pub(super) async fn run(config: &Config, args: SendArgs) -> anyhow::Result<()> {
    let speaker = args.identity.resolve(config)?;
    speaker.reach().await?;
    let http = Http::new(&speaker.url)?;
    let new_key = || Uuid::now_v7().to_string();
    if args.text != ["-"] {
        let key = args.id.unwrap_or_else(new_key);
        return send(&http, &speaker, message(&args.target, key, args.text.join(" "))).await;
    }
    ensure!(args.id.is_none(), "--id names one message, but every line of - is one");
    let mut lines = stdin_lines();
    while let Some(line) = lines.recv().await {
        let line = line.context("cannot read standard input")?;
        if !line.is_empty() {
            // One after the other: the next one is later in the chat.
            send(&http, &speaker, message(&args.target, new_key(), line)).await?;
        }
    }
    Ok(())
}

async fn send(http: &Http, speaker: &Speaker, message: v1::SendMessage) -> anyhow::Result<()> {
    let accepted = deliver(http, &speaker.tokens, &message)
        .await
        .map_err(|error| speaker.explain_http(error))
        .with_context(|| format!("message {} was not accepted", message.client_message_id))?;
    println!(
        "{}",
        json!({
            "messageId": accepted.message_id,
            "chatId": accepted.chat_id,
            "clientMessageId": accepted.client_message_id,
        })
    );
    Ok(())
}

/// Sends a message until it is accepted or refused, within a time.
pub(super) async fn deliver(
    http: &Http,
    tokens: &chaski_client::TokenProvider,
    message: &v1::SendMessage,
) -> Result<v1::MessageAccepted, HttpError> {
    let until = Instant::now() + GIVE_UP_AFTER;
    loop {
        match http.send_message(tokens, message).await {
            Err(HttpError::Transport(_) | HttpError::Problem { status: 429 | 503, .. })
                if Instant::now() < until =>
            {
                sleep(AGAIN_AFTER).await;
            }
            settled => return settled,
        }
    }
}
