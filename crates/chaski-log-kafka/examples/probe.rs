//! Measures this adapter against real brokers:
//! `cargo run --release -p chaski-log-kafka --example probe -- BROKERS [LINGER_MS]`
//! prints the rate of appends, the rate of a backlog's reading, and the times from append to
//! acknowledgement and to the reader at a low rate. Makes topics with a prefix of its own.
#![expect(clippy::print_stdout, reason = "its output is its purpose")]

use anyhow::{Context, Result};
use chaski_core::{Offset, Partition};
use chaski_log_kafka::{KafkaLog, KafkaOptions};
use chaski_ports::{Clock, ErrorKind, Log, ProducePolicy, Producer, Record, SystemClock, Topic};
use hdrhistogram::Histogram;
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

const BACKLOG: usize = 300_000;
const PARTITIONS: u32 = 12;
const PACED: usize = 2000;
const PACE: Duration = Duration::from_millis(5);

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let brokers = args.next().context("usage: probe BROKERS [LINGER_MS]")?;
    let linger_ms = args.next().map_or(Ok(1.0), |text| text.parse())?;
    let log = KafkaLog::connect(KafkaOptions {
        brokers,
        linger_ms,
        topic_prefix: "chaski-probe.".into(),
        ..KafkaOptions::default()
    })
    .await?;
    log.create_topics(PARTITIONS).await?;
    let producer = log.producer(ProducePolicy::GiveUp)?;
    let mut starts = Vec::new();
    for partition in (0..PARTITIONS).map(Partition) {
        starts.push(log.bounds(Topic::Recipients, partition).await?.end);
    }
    backlog(&*producer).await?;
    read_backlog(&*log, &starts).await?;
    paced(&*log, &*producer).await
}

fn record() -> Record {
    Record {
        key: "probe".into(),
        value: vec![7; 300].into(),
        timestamp_ms: SystemClock.now_ms(),
        record_type: "probe",
        schema: 1,
        traceparent: None,
    }
}

async fn backlog(producer: &dyn Producer) -> Result<()> {
    let (begun, mut waiting, mut full) = (Instant::now(), VecDeque::new(), 0);
    for n in 0..BACKLOG {
        let partition = Partition((n % PARTITIONS as usize) as u32);
        loop {
            match producer.append(Topic::Recipients, partition, record()) {
                Ok(appending) => break waiting.push_back(appending),
                Err(e) if e.kind == ErrorKind::Full => {
                    full += 1;
                    waiting.pop_front().context("full, and nothing waits")?.await?;
                }
                Err(e) => return Err(e.into()),
            }
        }
    }
    for appending in waiting {
        appending.await?;
    }
    let rate = BACKLOG as f64 / begun.elapsed().as_secs_f64();
    println!("append: {rate:.0} records/s of 300 B ({full} times full)");
    Ok(())
}

async fn read_backlog(log: &dyn Log, starts: &[Offset]) -> Result<()> {
    let (begun, mut count) = (Instant::now(), 0);
    let mut readers = tokio::task::JoinSet::new();
    for (n, start) in starts.iter().enumerate() {
        let partition = Partition(n as u32);
        let end = log.bounds(Topic::Recipients, partition).await?.end;
        let (mut reader, start) = (log.reader(Topic::Recipients, partition, *start).await?, *start);
        readers.spawn(async move {
            let (mut next, mut count) = (start, 0);
            while next < end {
                let batch = reader.next().await?;
                count += batch.len();
                next = batch.last().map_or(next, |r| r.offset.next());
            }
            anyhow::Ok(count)
        });
    }
    while let Some(read) = readers.join_next().await {
        count += read??;
    }
    let rate = count as f64 / begun.elapsed().as_secs_f64();
    println!("read: {rate:.0} records/s from {} partitions", starts.len());
    Ok(())
}

async fn paced(log: &dyn Log, producer: &dyn Producer) -> Result<()> {
    let end = log.bounds(Topic::Recipients, Partition(0)).await?.end;
    let mut reader = log.reader(Topic::Recipients, Partition(0), end).await?;
    let (mut acked, mut read) = (Histogram::<u64>::new(3)?, Histogram::<u64>::new(3)?);
    let mut pace = tokio::time::interval(PACE);
    for _ in 0..PACED {
        pace.tick().await;
        let begun = Instant::now();
        let appending = producer.append(Topic::Recipients, Partition(0), record())?;
        let (ack, seen) = tokio::join!(async { appending.await.map(|_| begun.elapsed()) }, async {
            reader.next().await.map(|_| begun.elapsed())
        },);
        acked.record(ack?.as_micros() as u64)?;
        read.record(seen?.as_micros() as u64)?;
    }
    for (what, times) in [("ack", acked), ("produce to consume", read)] {
        let ms = |q| times.value_at_quantile(q) as f64 / 1000.0;
        println!("{what}: p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms", ms(0.5), ms(0.99), ms(1.0));
    }
    Ok(())
}
