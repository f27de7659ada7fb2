//! `chaski cursor set`: lets a consumer go on from another place of those it has saved itself.
//!
//! Safe at any time, because nothing is asked of a running owner (L6): the partition is claimed, so
//! that what the owner saves from here on counts less than what is set here; then, with `--fence`,
//! its assignment is written anew, so that it loses the partition to itself, starts again and finds
//! the cursor. And only to a place whose watermark is stored with it (L5): what was saved there is
//! durable up to it, and everything behind it may be done again, for every write may.

use super::CONSUMERS;
use crate::{
    cli::{decode, duration},
    config::Config,
};
use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use chaski_core::{Offset, Partition};
use chaski_delivery_service::generator;
use chaski_ports::{Bounds, CheckpointStore, Coordinator, Expect, Node, WatermarkRow};
use clap::Args;
use serde::Deserialize;
use std::{io::Write as _, sync::Arc, time::Duration};

const ABOUT: &str = "\
The consumer goes on from a place where it has saved its cursor before: `chaski cursor show --stored` \
lists them, the newest 100 of each partition. Everything behind the place is done again, which \
changes nothing that is done already: rows are written over themselves, decisions are recognised. \
Until `messages` has come back to where it was, inboxes and histories of the partition's users end \
where it is; live chat goes on.

What it is for: records that could not be read are read again after an upgrade (`chaski dead-letters \
replay` says from where); the store was restored from a backup and lacks what the cursor has passed.

A running owner has to hear of it: stop all processes of the role before, or give --fence.

Examples:
  chaski cursor show --stored --partition 3
  chaski cursor set messages --partition 3 --before 4711 --dry-run
  chaski cursor set messages --partition 3 --to 4600 --fence

Not for `generator`: its cursor is part of its snapshots, of which only the newest are kept.";

#[derive(Args)]
#[command(after_help = ABOUT)]
#[command(group = clap::ArgGroup::new("place").required(true).args(["to", "before"]))]
pub(in crate::cli) struct SetArgs {
    /// Whose cursor: messages, connections
    consumer: String,
    /// The partition
    #[arg(long)]
    partition: u32,
    /// A stored place, as the next offset to be read
    #[arg(long, value_name = "OFFSET")]
    to: Option<u64>,
    /// The last stored place from which this offset is read again
    #[arg(long, value_name = "OFFSET")]
    before: Option<u64>,
    /// Also while the owner runs: it starts again from there
    #[arg(long)]
    fence: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// How long the owner may take to start again, with --fence: 90s, 15m
    #[arg(long, default_value = "30s", value_parser = duration)]
    patience: Duration,
}

/// Where owners are registered and assigned (see ARCHITECTURE.md, nodes).
fn assignment_path(role: &str, partition: Partition) -> String {
    format!("/assignments/{role}/{:05}", partition.0)
}

#[derive(Deserialize)]
struct Assigned {
    host: String,
}

pub(super) async fn run(config: &Config, args: SetArgs) -> anyhow::Result<()> {
    let role = args.consumer.as_str();
    ensure!(
        role != generator::ROLE,
        "a generator goes on from its newest snapshots, and its cursor is one of them: there is no \
         other place that its state is known of. Where the state is damaged, see docs/errors.md \
         (Corrupt)"
    );
    let consumer = CONSUMERS.into_iter().find(|(known, _)| *known == role);
    let Some((role, topic)) = consumer else {
        bail!("{role} keeps no cursor; `messages` and `connections` do");
    };
    let partition = Partition(args.partition);
    let log = decode::open_log(config).await?;
    let partitions = log.partitions(topic).await?;
    ensure!(args.partition < partitions, "there is no partition {partition}");
    let bounds = log.bounds(topic, partition).await?;
    let (url, options) = (config.urls()?, config.backends());
    let stores = chaski_backends::open_stores(&url.store, &options).await;
    let checkpoints = stores.map_err(|error| decode::locked(error, "store"))?.checkpoints;
    let rows = checkpoints.watermarks(role, partition, 100).await?;
    let row = choose(&rows, args.to, args.before, bounds)?;
    let (from, to) = (rows[0].watermark.next, row.watermark.next);
    let mut out = std::io::stdout();
    if from == to {
        writeln!(out, "{role}/{partition} goes on from {to} already")?;
        return Ok(());
    }

    let coordinator = chaski_backends::open_coordinator(&url.coordinator, &options).await?;
    let path = assignment_path(role, partition);
    let assigned = coordinator.get(&path).await?;
    let owner = owner(&*coordinator, role, assigned.as_ref()).await?;
    if args.dry_run {
        let owner = owner.map_or_else(String::new, |host| format!("; {host} owns it and runs"));
        writeln!(out, "{role}/{partition} would go on from {to}, not from {from}{owner}")?;
        return Ok(());
    }
    if let Some(host) = owner.as_ref().filter(|_| !args.fence) {
        bail!(
            "{host} owns partition {partition} of {role}, runs, and would not notice: stop all processes \
             of this role first, or give --fence"
        );
    }
    let assignment = match &assigned {
        Some(node) => node.epoch,
        // Nobody was assigned in this coordinator: a number of now is above all that were.
        None => {
            let note = Bytes::from(format!("{role}/{partition}"));
            coordinator.put("/cursor-set", note, Expect::Anything).await?.epoch
        }
    };
    let epoch = claim(&*checkpoints, (role, partition), assignment, &row).await?;
    writeln!(out, "{role}/{partition} goes on from {to}, not from {from} (epoch {epoch})")?;
    if let (Some(node), Some(host)) = (assigned, owner) {
        start_again(&coordinator, &path, &node).await?;
        let began = async {
            // Whoever owns it now has claimed above this, and saves what it does behind the place.
            while checkpoints.watermarks(role, partition, 1).await?[0].epoch <= epoch {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            anyhow::Ok(())
        };
        match tokio::time::timeout(args.patience, began).await {
            Ok(began) => {
                began?;
                writeln!(
                    out,
                    "{host} was told to start again, and its partition goes on from there"
                )?;
            }
            Err(_) => writeln!(
                out,
                "{host} was told to start again and has not saved a cursor yet: it may still be on its way \
                 (`chaski cursor show --partition {partition}`)"
            )?,
        }
    }
    Ok(())
}

/// The stored place that is asked for.
fn choose(
    rows: &[WatermarkRow],
    to: Option<u64>,
    before: Option<u64>,
    bounds: Bounds,
) -> anyhow::Result<WatermarkRow> {
    ensure!(!rows.is_empty(), "no cursor is saved: it begins at the beginning of its topic");
    let listed = "`chaski cursor show --stored` lists the places that can be set";
    // The greatest epoch first, of two that have saved the same place.
    let row = match (to, before) {
        (Some(to), _) => rows.iter().find(|row| row.watermark.next.0 == to).with_context(|| {
            format!(
                "no watermark is stored with {to}, so what was applied there is not known; {listed}"
            )
        }),
        (None, before) => {
            let before = Offset(before.unwrap_or(0));
            let enough = rows.iter().filter(|row| row.watermark.next <= before);
            enough.rev().max_by_key(|row| row.watermark.next).with_context(|| {
                format!(
                    "no stored place is at or before {before}: only the newest 100 are kept; {listed}. To \
                     go further back, restore the store from a backup of that time"
                )
            })
        }
    }?;
    let next = row.watermark.next;
    ensure!(
        bounds.start <= next && next <= bounds.end,
        "{next} is not in the log, which keeps {} to {}",
        bounds.start,
        bounds.end
    );
    Ok(row.clone())
}

/// The host that owns the partition and is there.
async fn owner(
    coordinator: &dyn Coordinator,
    role: &str,
    assigned: Option<&Node>,
) -> anyhow::Result<Option<String>> {
    let Some(node) = assigned else { return Ok(None) };
    let Assigned { host } = serde_json::from_slice(&node.data).context("the assignment")?;
    let there = coordinator.get(&format!("/hosts/{role}/{host}")).await?;
    Ok(there.map(|_| host))
}

/// Claims the partition and saves the place under that claim; its epoch.
async fn claim(
    checkpoints: &dyn CheckpointStore,
    (role, partition): (&str, Partition),
    assignment: u64,
    row: &WatermarkRow,
) -> anyhow::Result<u64> {
    let epoch = checkpoints.claim(role, partition, assignment).await?.epoch;
    let set = WatermarkRow { epoch, watermark: row.watermark.clone() };
    checkpoints.save_watermark(role, partition, &set).await?;
    let first = checkpoints.watermarks(role, partition, 1).await?;
    ensure!(
        first.first() == Some(&set),
        "an owner claimed {role}/{partition} at the same time and its cursor counts: run this again"
    );
    Ok(epoch)
}

/// Writes the assignment anew as it is: its owner starts again, with a later claim. Where it was
/// changed meanwhile, whoever it was given to does.
async fn start_again(
    coordinator: &Arc<dyn Coordinator>,
    path: &str,
    node: &Node,
) -> anyhow::Result<()> {
    match coordinator.put(path, node.data.clone(), Expect::Version(node.version)).await {
        Err(error) if error.kind != chaski_ports::ErrorKind::Conflict => Err(error.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chaski_core::Watermark;

    #[test]
    fn l5_only_places_are_set_that_are_stored_and_in_the_log() {
        let row = |epoch, next| WatermarkRow {
            epoch,
            watermark: Watermark { next: Offset(next), ..Watermark::default() },
        };
        let rows = [row(9, 50), row(7, 90), row(7, 50), row(7, 20)];
        let bounds = Bounds { start: Offset(30), end: Offset(80) };
        let chosen = |to, before| {
            let chosen = choose(&rows, to, before, bounds);
            chosen.map(|row| (row.epoch, row.watermark.next.0)).map_err(|error| error.to_string())
        };
        assert_eq!(chosen(Some(50), None), Ok((9, 50)));
        assert_eq!(chosen(None, Some(60)), Ok((9, 50)));
        assert_eq!(chosen(None, Some(50)), Ok((9, 50)));
        assert!(chosen(Some(51), None).unwrap_err().contains("no watermark is stored with 51"));
        assert!(chosen(None, Some(19)).unwrap_err().contains("backup"));
        for outside in [20, 90] {
            let error = chosen(Some(outside), None).unwrap_err();
            assert!(error.contains("keeps 30 to 80"), "{error}");
        }
    }
}
