//! `chaski cursor`: how far each consumer has got, from the checkpoints it would start from.

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
}

#[derive(Args)]
pub(super) struct ShowArgs {
    /// Only this partition
    #[arg(long)]
    partition: Option<u32>,
}

pub(super) async fn run(config: &Config, command: CursorCommand) -> anyhow::Result<()> {
    let CursorCommand::Show(args) = command;
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
            let rows = stores.checkpoints.watermarks(role, partition, 1).await?;
            let row = rows.first();
            let text = |number: Option<u64>| number.map_or_else(|| "-".into(), |n| n.to_string());
            let next = row.map(|row| row.watermark.next.0);
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
    write!(std::io::stdout().lock(), "{table}")?;
    Ok(())
}
