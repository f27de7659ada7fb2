//! Measures the embedded log: `append_rate DIR RECORDS BYTES` appends with many in flight, then
//! one at a time, reads all back, and ends like a crash, so that the next run shows the time of
//! an open after a kill.

use bytes::Bytes;
use chaski_core::{ChatId, Offset, Partition};
use chaski_embedded::{Embedded, EmbeddedOptions};
use chaski_ports::{ErrorKind, MessageRow, ProducePolicy, Record, StoreBatch, Topic};
use std::{
    collections::VecDeque,
    error::Error,
    io::Write,
    path::PathBuf,
    time::{Duration, Instant},
};

const PARTITIONS: u32 = 4;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let dir: PathBuf = args.next().ok_or("DIR RECORDS BYTES")?.into();
    let records: u32 = args.next().ok_or("RECORDS")?.parse()?;
    let bytes: usize = args.next().ok_or("BYTES")?.parse()?;
    let mut out = std::io::stdout();

    let begun = Instant::now();
    let embedded = Embedded::open(&dir, EmbeddedOptions::default())?;
    writeln!(out, "open {:?}", begun.elapsed())?;
    let log = embedded.log();
    log.create_topics(PARTITIONS).await?;
    let producer = log.producer(ProducePolicy::Forever)?;
    let record = Record {
        key: Bytes::from_static(b"g.0123456789abcdef0123456789abcdef"),
        value: vec![7; bytes].into(),
        timestamp_ms: 0,
        record_type: "command",
        schema: 1,
        traceparent: None,
    };
    let mut before = Vec::new();
    for partition in (0..PARTITIONS).map(Partition) {
        before.push(log.bounds(Topic::Recipients, partition).await?.end);
    }

    let (begun, mut waiting, mut full) = (Instant::now(), VecDeque::new(), 0_u64);
    let mut n = 0;
    while n < records {
        match producer.append(Topic::Recipients, Partition(n % PARTITIONS), record.clone()) {
            Ok(appending) => {
                waiting.push_back(appending);
                n += 1;
            }
            Err(error) if error.kind == ErrorKind::Full => {
                full += 1;
                waiting.pop_front().ok_or("full while nothing waits")?.await?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    for appending in waiting {
        appending.await?;
    }
    let rate = f64::from(records) / begun.elapsed().as_secs_f64();
    writeln!(out, "append {rate:.0}/s in {:?}, refused {full} times", begun.elapsed())?;

    let mut alone = Vec::new();
    for _ in 0..200.min(records) {
        let begun = Instant::now();
        producer.append(Topic::Alerts, Partition(0), record.clone())?.await?;
        alone.push(begun.elapsed());
    }
    alone.sort_unstable();
    if let (Some(p50), Some(p99)) = (alone.get(alone.len() / 2), alone.get(alone.len() * 99 / 100))
    {
        writeln!(out, "alone p50 {p50:?} p99 {p99:?}")?;
    }

    let begun = Instant::now();
    let mut read = 0_u64;
    for (partition, from) in (0..PARTITIONS).map(Partition).zip(before) {
        let mut reader = log.reader(Topic::Recipients, partition, from).await?;
        let end = log.bounds(Topic::Recipients, partition).await?.end;
        let mut next = Offset(0);
        while next < end && from < end {
            let records = reader.next().await?;
            read += records.len() as u64;
            next = records.last().ok_or("nothing read")?.offset.next();
        }
    }
    let rate = read as f64 / begun.elapsed().as_secs_f64();
    writeln!(out, "read {read} at {rate:.0}/s")?;
    point_reads(&embedded, &mut out).await?;
    std::process::abort()
}

/// What a point read costs where it is called, of rows that have long left the memtable, against
/// handing something to a blocking thread.
async fn point_reads(embedded: &Embedded, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    const ROWS: u64 = 200_000;
    const READS: u64 = 20_000;
    let (store, chat): (_, ChatId) = (embedded.messages(), "g.1".parse()?);
    for from in (0..ROWS).step_by(1_000) {
        let row =
            |seq| MessageRow { chat, seq, item: vec![7; 250].into(), at_ms: 0, ends_ms: None };
        let messages = (from..from + 1_000).map(row).collect();
        let batch = StoreBatch { messages, ..StoreBatch::default() };
        store.write(batch).await?;
    }
    let mut slowest = Duration::ZERO;
    let begun = Instant::now();
    for n in 0..READS {
        let begun = Instant::now();
        let found = store.items(&[(chat, n * 7_919 % ROWS)]).await?;
        slowest = slowest.max(begun.elapsed());
        found[0].as_ref().ok_or("a row is missing")?;
    }
    let mean = begun.elapsed() / READS as u32;
    writeln!(out, "point read mean {mean:?}, slowest {slowest:?}")?;
    let begun = Instant::now();
    for _ in 0..READS {
        tokio::task::spawn_blocking(|| ()).await?;
    }
    writeln!(out, "blocking thread mean {:?}", begun.elapsed() / READS as u32)?;
    Ok(())
}
