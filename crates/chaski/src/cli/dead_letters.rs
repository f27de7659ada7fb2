//! `chaski dead-letters`: what could not be processed, and why; and again, once it can be.

mod replay;

use super::{
    decode::{self, From, record},
    table::Table,
};
use crate::config::Config;
use chaski_core::Partition;
use chaski_ports::{LogRecord, Topic};
use chaski_proto::{Timestamp, v1::DeadLetter};
use clap::{Args, Subcommand};
use futures::TryStreamExt as _;
use std::io::Write as _;

/// How many are listed unless all are asked for.
const NEWEST: u64 = 100;

#[derive(Subcommand)]
pub(super) enum DeadLettersCommand {
    /// List records that could not be processed, the oldest first
    List(ListArgs),
    /// Append records again that this version can read
    Replay(replay::ReplayArgs),
}

#[derive(Args)]
pub(super) struct ListArgs {
    /// All that are kept, not only the newest 100 offsets
    #[arg(long)]
    from_start: bool,
    /// JSON lines, as `chaski decode dead-letters`
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(config: &Config, command: DeadLettersCommand) -> anyhow::Result<()> {
    match command {
        DeadLettersCommand::List(args) => list(config, args).await,
        DeadLettersCommand::Replay(args) => replay::run(config, args).await,
    }
}

async fn list(config: &Config, args: ListArgs) -> anyhow::Result<()> {
    let log = decode::open_log(config).await?;
    let partitions = decode::all_partitions(&*log, Topic::DeadLetters).await?;
    let from = match partitions.first() {
        Some(partition) if !args.from_start => {
            let bounds = log.bounds(Topic::DeadLetters, *partition).await?;
            From::Offset(bounds.end.0.saturating_sub(NEWEST).max(bounds.start.0))
        }
        _ => From::Start,
    };
    let records = decode::read(log, Topic::DeadLetters, partitions, from, false).await?;
    let letters: Vec<(Partition, LogRecord)> = records.try_collect().await?;
    let mut out = std::io::stdout().lock();
    if args.json {
        for (partition, letter) in &letters {
            let topic = (config.topic_prefix.as_str(), Topic::DeadLetters);
            writeln!(out, "{}", record::to_json(topic, *partition, letter))?;
        }
        return Ok(());
    }
    if letters.is_empty() {
        writeln!(out, "no dead letters")?;
        return Ok(());
    }
    let mut table = Table::new(["TIME", "RECORD", "BY", "KEY", "BYTES", "CAUSE"]);
    for (_, letter) in &letters {
        table.row(row(letter));
    }
    write!(out, "{table}")?;
    Ok(())
}

fn row(record: &LogRecord) -> [String; 6] {
    let time = serde_json::to_value(Timestamp::from_ms(record.timestamp_ms)).ok();
    let time = time.as_ref().and_then(|t| t.as_str()).unwrap_or("?").to_owned();
    match record::parse::<DeadLetter>(&record.value) {
        Ok(letter) => [
            time,
            format!("{}/{}/{}", letter.topic, letter.partition, letter.offset),
            letter.by_role,
            letter.key.escape_ascii().to_string(),
            letter.value.len().to_string(),
            letter.cause,
        ],
        Err(why) => {
            let key = record.key.escape_ascii().to_string();
            let cause = format!("the dead letter itself cannot be decoded: {why}");
            [time, key, "?".into(), "?".into(), record.value.len().to_string(), cause]
        }
    }
}
