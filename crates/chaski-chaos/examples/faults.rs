//! Plays a plan on a system without load, and tells how long each process takes to come back:
//! `cargo run -p chaski-chaos --example faults -- target/debug/chaski SEED MINUTES [DIR]`.

use anyhow::Context as _;
use chaski_chaos::{
    fault::Timeline,
    plan::Plan,
    system::{System, SystemOptions},
};
use std::{path::PathBuf, time::Duration};
use tokio_util::sync::CancellationToken;

fn main() -> std::process::ExitCode {
    chaski::main(run)
}

async fn run() -> anyhow::Result<()> {
    let _metrics = chaski_runtime::init_telemetry("warn,chaski_chaos=info,faults=info", false);
    let mut args = std::env::args().skip(1);
    let mut next = || args.next().context("faults PROGRAM SEED MINUTES [DIR]");
    let (program, seed, minutes) = (PathBuf::from(next()?), next()?.parse()?, next()?);
    let minutes: f64 = minutes.parse()?;
    let dir = next().map_or_else(|_| "target/chaos".into(), PathBuf::from);
    let plan = Plan::new(seed, Duration::from_secs_f64(minutes * 60.0));
    tracing::info!(%plan);
    let timeline = Timeline::start();
    let settings = std::collections::BTreeMap::new();
    let options =
        SystemOptions { program, dir, seed, services: true, direct_sockets: false, settings };
    let mut system = System::start(options, timeline).await?;
    let stop = CancellationToken::new();
    let played = tokio::select! {
        played = system.play(&plan, stop.clone()) => played,
        end = chaski::node::end_signal() => end.map(|()| Vec::new()),
    };
    for record in played? {
        let took_ms = (record.until_us - record.from_us) / 1_000;
        tracing::info!(took_ms, record = serde_json::to_string(&record)?);
    }
    system.heal().await?;
    tracing::info!(ended_by_themselves = ?system.ended_by_themselves());
    system.stop().await
}
