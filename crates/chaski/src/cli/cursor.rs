//! `chaski cursor`: how far each consumer has got, from the checkpoints it would start from; and to
//! let one go on from another place.

mod set;

use super::{decode, table::Table};
use crate::config::Config;
use anyhow::ensure;
use chaski_core::Partition;
use chaski_delivery_service::generator;
use chaski_ports::Topic;
use clap::{Args, Subcommand};
use std::io::Write as _;

/// Who keeps a cursor, and in which topic.
const CONSUMERS: [(&str, Topic); 3] = [
    (generator::ROLE, Topic::NewMessages),
    (chaski_message_service::ROLE, Topic::Recipients),
    (chaski_connection_service::ROLE, Topic::ConnectionRequests),
];

#[derive(Subcommand)]
pub(super) enum CursorCommand {
    /// Show epoch, next offset, log end and lag of each consumer and partition
    ///
    /// These are the checkpoints: where a new owner would start. A running one is ahead of them by
    /// what it has done since its last checkpoint, so a small lag is usual. `-`: no checkpoint yet.
    Show(ShowArgs),
    /// Let a consumer go on from another place that it has saved
    Set(set::SetArgs),
}

#[derive(Args)]
pub(super) struct ShowArgs {
    /// Only this partition
    #[arg(long)]
    partition: Option<u32>,
    /// All places that are stored, newest first: those that `set` takes
    #[arg(long)]
    stored: bool,
}

pub(super) async fn run(config: &Config, command: CursorCommand) -> anyhow::Result<()> {
    match command {
        CursorCommand::Show(args) => show(config, args).await,
        CursorCommand::Set(args) => Box::pin(set::run(config, args)).await,
    }
}

async fn show(config: &Config, args: ShowArgs) -> anyhow::Result<()> {
    let log = decode::open_log(config).await?;
    let (url, options) = (config.urls()?.store, config.backends());
    let stores = chaski_backends::open_stores(&url, &options).await;
    let stores = stores.map_err(|error| decode::locked(error, "store"))?;
    let mut table =
        Table::new(["CONSUMER", "TOPIC", "PARTITION", "EPOCH", "NEXT", "START", "END", "LAG"]);
    for (role, topic) in CONSUMERS {
        let mut partitions = decode::all_partitions(&*log, topic).await?;
        if let Some(only) = args.partition {
            ensure!((only as usize) < partitions.len(), "there is no partition {only}");
            partitions = vec![Partition(only)];
        }
        for partition in partitions {
            let bounds = log.bounds(topic, partition).await?;
            // Of a generator only the newest one is a place: the others have no state.
            let all = args.stored && role != generator::ROLE;
            let limit = if all { 100 } else { 1 };
            let rows = stores.checkpoints.watermarks(role, partition, limit).await?;
            let rows: Vec<_> = match rows.is_empty() {
                true => vec![None],
                false => rows.into_iter().map(Some).collect(),
            };
            for row in rows {
                let text =
                    |number: Option<u64>| number.map_or_else(|| "-".into(), |n| n.to_string());
                let next = row.as_ref().map(|row| row.watermark.next.0);
                let lag = bounds.end.0.saturating_sub(next.unwrap_or(bounds.start.0));
                table.row([
                    role.into(),
                    topic.name().into(),
                    partition.to_string(),
                    text(row.map(|row| row.epoch)),
                    text(next),
                    bounds.start.to_string(),
                    bounds.end.to_string(),
                    lag.to_string(),
                ]);
            }
        }
    }
    write!(std::io::stdout().lock(), "{table}")?;
    Ok(())
}
