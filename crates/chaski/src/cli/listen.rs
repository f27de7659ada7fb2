//! `chaski listen`: a device that prints and acknowledges every event.

use super::identity::{Identity, Wire, connection_news};
use crate::{config::Config, node::end_signal};
use chaski_client::{Body, Event};
use chaski_proto::v1::ServerFrame;
use clap::Args;
use std::io::Write as _;

const EXAMPLES: &str = "\
Each line on standard output is an event as the server sends it (a ServerFrame in proto3's JSON); \
what happens to the connection is told on standard error. An event is acknowledged once its line is \
written, so the next run of the same device goes on behind it.

Examples:
  chaski listen --user ben
  chaski listen --user ben --resume-after 0          everything from the beginning
  chaski listen --user ben | jq -r 'select(.newMessage) | .newMessage.text'";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ListenArgs {
    #[command(flatten)]
    identity: Identity,
    #[command(flatten)]
    wire: Wire,
    /// Begin after this position, which acknowledges what is before it [default: where this device
    /// stopped; a new one begins at the oldest event]
    #[arg(long, value_name = "POSITION")]
    resume_after: Option<u64>,
    /// End after this many events with a position [default: go on until Ctrl-C]
    #[arg(long, value_name = "N")]
    max: Option<u64>,
    /// JSON lines; they are the only form there is
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(config: &Config, args: ListenArgs) -> anyhow::Result<()> {
    let signal = end_signal();
    tokio::pin!(signal);
    let speaker = args.identity.resolve(config)?;
    eprintln!("connecting to {}", speaker.url);
    speaker.reach().await?;
    let mut client = speaker.client(&args.wire, args.resume_after)?;
    let mut left = args.max.unwrap_or(u64::MAX);
    while left > 0 {
        let event = tokio::select! {
            event = client.next() => event.map_err(|error| speaker.explain(error))?,
            ended = &mut signal => { ended?; break }
        };
        if let Some(news) = connection_news(&event) {
            eprintln!("{news}");
        }
        let frame = match event {
            Event::Durable { position, body } => {
                left -= 1;
                ServerFrame { reply_to: None, position: Some(position), body }
            }
            Event::Receipt(receipt) => ServerFrame::notice(Body::Receipt(receipt)),
            _ => continue,
        };
        // Who reads no more, such as `head`, has not taken this event.
        if print(&frame).is_err() {
            return Ok(());
        }
    }
    client.close().await;
    Ok(())
}

fn print(frame: &ServerFrame) -> std::io::Result<()> {
    let mut line = frame.to_bytes(true).to_vec();
    line.push(b'\n');
    let mut out = std::io::stdout().lock();
    out.write_all(&line)?;
    out.flush()
}
