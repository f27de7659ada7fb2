//! Small tools for operators and developers.

use crate::{config::Config, node::topics};
use anyhow::Context as _;
use chaski_auth::DevKey;
use chaski_core::{DeviceId, Position, UserId, placement::Placement};
use chaski_host_allocator::{Assignments, Role as Owner};
use chaski_ports::{Clock as _, SystemClock, Topic};
use chaski_runtime::CancellationToken;
use clap::Args;
use std::time::Duration;

#[derive(Args)]
pub(super) struct TokenArgs {
    /// User id
    #[arg(long)]
    user: UserId,
    /// Device id
    #[arg(long)]
    device: DeviceId,
    /// How long the token is good: 90s, 15m, 24h, 7d
    #[arg(long, default_value = "24h", value_parser = super::duration)]
    ttl: Duration,
}

pub(super) fn token(config: &Config, args: &TokenArgs) -> anyhow::Result<()> {
    let file = config.dev_key();
    anyhow::ensure!(
        file.exists(),
        "there is no key at {}: start `chaski up --dev` first and take over the export lines that it \
         prints, or set CHASKI_DEV_KEY",
        file.display()
    );
    let key = DevKey::load_or_create(&file)?;
    println!("{}", key.sign(&args.user, &args.device, args.ttl, SystemClock.now_ms()));
    Ok(())
}

#[derive(Args)]
pub(super) struct WhereArgs {
    /// User id
    #[arg(long)]
    user: UserId,
}

/// Partition, host and position of a user. Needs the backends that the servers use; an embedded
/// one is locked by the process that serves it, so there only the partition can be told.
pub(super) async fn locate(config: &Config, args: &WhereArgs) -> anyhow::Result<()> {
    let urls = config.urls()?;
    let options = config.backends();
    let Ok(log) = chaski_backends::open_log(&urls.log, &options).await else {
        let partition = Placement::new(config.partitions).of_user(&args.user);
        println!(
            "partition {partition} (the log cannot be opened here: host and position are not known)"
        );
        return Ok(());
    };
    let partitions = log.partitions(Topic::Recipients).await?;
    let partition = Placement::new(partitions).of_user(&args.user);
    let bounds = log.bounds(Topic::Recipients, partition).await?;
    let newest = bounds
        .end
        .0
        .checked_sub(1)
        .map_or(Position::BEGINNING, |last| Position::at(chaski_core::Offset(last)));
    println!("partition {partition} of {partitions}");
    println!("position  {newest} (offset {} is the next)", bounds.end);
    let coordinator = chaski_backends::open_coordinator(&urls.coordinator, &options).await?;
    let settings = config.allocator.clone();
    let (mut owners, follower) =
        Assignments::follow(coordinator, Owner::Delivery, partitions, settings);
    let stop = CancellationToken::new();
    let owned = async {
        // Who is not owned within the time is told so.
        let _ = tokio::time::timeout(Duration::from_secs(3), owners.all_owned()).await;
        match owners.owner_of(partition) {
            Some(owner) => {
                println!("host      {} {} (epoch {})", owner.host, owner.url, owner.epoch)
            }
            None => println!("host      none at the moment"),
        }
        stop.cancel();
    };
    let (followed, ()) = tokio::join!(follower.run(stop.clone()), owned);
    Ok(followed?)
}

pub(super) async fn migrate(config: &Config) -> anyhow::Result<()> {
    let (partitions, applied) = apply_migrations(config).await?;
    println!("topics: {partitions} partitions");
    match applied.as_slice() {
        [] => println!("tables: up to date"),
        names => println!("tables: {}", names.join(", ")),
    }
    Ok(())
}

/// Creates or updates topics and tables: how many partitions there are, and what was applied.
pub(super) async fn apply_migrations(config: &Config) -> anyhow::Result<(u32, Vec<String>)> {
    let urls = config.urls()?;
    let options = config.backends();
    let log = chaski_backends::open_log(&urls.log, &options).await.context("log")?;
    let partitions = topics::create(&*log, config.partitions).await.context("topics")?;
    let applied = chaski_backends::migrate(&urls.store, &options).await.context("tables")?;
    Ok((partitions, applied))
}

/// Checks one thing after the other and says what is wrong with each.
pub(super) async fn doctor(config: &Config) -> anyhow::Result<()> {
    let urls = config.urls()?;
    let options = config.backends();
    let mut wrong = 0;
    let mut tell = |what: &str, result: anyhow::Result<String>| match result {
        Ok(fine) => println!("ok    {what}: {fine}"),
        Err(error) => {
            wrong += 1;
            println!("WRONG {what}: {error:#}");
        }
    };
    tell(
        "configuration",
        Ok(format!("{} partitions, public address {}", config.partitions, config.listen)),
    );
    for file in &config.auth_keys {
        let read = std::fs::read_to_string(file).map_err(anyhow::Error::from);
        let checked = read.and_then(|pem| Ok(chaski_auth::Verifier::new([pem])?));
        tell("auth_keys", checked.map(|_| file.display().to_string()));
    }
    let log = async {
        let log = chaski_backends::open_log(&urls.log, &options).await?;
        let partitions = topics::partitions(&*log).await?;
        for partition in (0..partitions).map(chaski_core::Partition) {
            log.bounds(Topic::Recipients, partition).await?;
        }
        Ok(format!("cluster {}, {partitions} partitions", log.cluster_id().await?))
    };
    tell("log", log.await);
    let store = async {
        let stores = chaski_backends::open_stores(&urls.store, &options).await?;
        stores.checkpoints.watermarks("doctor", chaski_core::Partition(0), 1).await?;
        Ok("answers".to_owned())
    };
    tell("store", store.await);
    let coordinator = async {
        let coordinator = chaski_backends::open_coordinator(&urls.coordinator, &options).await?;
        let hosts = coordinator.children("/hosts/delivery").await?;
        Ok(format!(
            "delivery hosts: {}",
            if hosts.is_empty() { "none".into() } else { hosts.join(", ") }
        ))
    };
    tell("coordinator", coordinator.await);
    anyhow::ensure!(wrong == 0, "{wrong} of the checks found something wrong");
    Ok(())
}
