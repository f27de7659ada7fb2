//! Measures the write path against a real server: `CHASKI_STORE=scylla://... probe [ROWS]`.
//! Makes a keyspace `probe_<pid>` and removes it.
#![expect(clippy::print_stdout, reason = "a tool for a terminal")]

use bytes::Bytes;
use chaski_core::{Offset, Partition, Position, UserId};
use chaski_ports::{Clock, InboxRow, MessageStore, PortError, StoreBatch, SystemClock};
use chaski_store_cql::{CqlOptions, CqlStore};
use futures::{StreamExt, TryStreamExt, stream};
use scylla::client::session_builder::SessionBuilder;
use std::{sync::Arc, time::Instant};

const USERS: u64 = 2_000;
const EVENT_BYTES: usize = 200;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("CHASKI_STORE")?;
    let nodes = url.strip_prefix("scylla://").ok_or("scylla://nodes/…")?;
    let nodes = nodes.split('/').next().unwrap_or(nodes);
    let rows: u64 = std::env::args().nth(1).map_or(Ok(200_000), |n| n.parse())?;
    let options = CqlOptions {
        nodes: nodes.split(',').map(str::to_owned).collect(),
        keyspace: format!("probe_{}", std::process::id()),
        ..CqlOptions::default()
    };
    CqlStore::migrate(&options).await?;
    let outcome = measure(&options, rows).await;
    let session = SessionBuilder::new().known_nodes(&options.nodes).build().await?;
    let drop = format!("DROP KEYSPACE {}", options.keyspace);
    session.query_unpaged(drop, ()).await?;
    Ok(outcome?)
}

async fn measure(options: &CqlOptions, rows: u64) -> Result<(), PortError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let store = CqlStore::connect(options.clone(), clock).await?;
    // The first rows warm the server up.
    for (name, size, in_flight) in [
        ("warm-up", 5_000, 2),
        ("5000 rows a write, 2 at once", 5_000, 2),
        ("1000 rows a write, 2 at once", 1_000, 2),
        ("100 rows a write, 8 at once", 100, 8),
        ("1 row a write, 64 at once", 1, 64),
        ("1 row a write, one by one", 1, 1),
    ] {
        let rows = if in_flight == 1 { rows.min(2_000) } else { rows };
        let begun = Instant::now();
        stream::iter((0..rows).step_by(size))
            .map(|from| store.write(batch(from, size)))
            .buffer_unordered(in_flight)
            .try_collect::<()>()
            .await?;
        let seconds = begun.elapsed().as_secs_f64();
        let rate = rows as f64 / seconds;
        println!("{name:<32} {rate:>9.0} rows/s  {:>7.1} µs/row", 1e6 / rate);
    }
    read(&store, rows).await
}

async fn read(store: &CqlStore, rows: u64) -> Result<(), PortError> {
    let begun = Instant::now();
    let mut found = 0;
    for n in 0..200 {
        let range = (Position::BEGINNING, Position(u64::MAX));
        found += store.inbox(Partition(0), &user(n), range, 500).await?.len();
    }
    let each = begun.elapsed().as_secs_f64() / 200.0;
    println!("an inbox of {} of {rows} rows: {:.2} ms", found / 200, 1e3 * each);
    Ok(())
}

fn user(n: u64) -> UserId {
    format!("user{}", n % USERS).parse().expect("a legal id")
}

fn batch(from: u64, size: usize) -> StoreBatch {
    let row = |n: u64| InboxRow {
        partition: Partition(0),
        user: user(n.wrapping_mul(2_654_435_761)),
        position: Position::at(Offset(n)),
        event: Bytes::from_static(&[7; EVENT_BYTES]),
        at_ms: SystemClock.now_ms(),
    };
    StoreBatch { inbox: (from..from + size as u64).map(row).collect(), ..StoreBatch::default() }
}
