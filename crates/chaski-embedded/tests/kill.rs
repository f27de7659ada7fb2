//! What only a real kill can show: whatever was acknowledged before kill -9 is there afterwards,
//! and the directory opens, wherever the kill hit.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test, and a child that tells")]

use bytes::Bytes;
use chaski_core::{Offset, Partition, Position};
use chaski_embedded::{Embedded, EmbeddedOptions};
use chaski_ports::{DeviceRow, ErrorKind, ProducePolicy, Record, Topic};
use std::{
    collections::{BTreeMap, VecDeque},
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
};

const DIR: &str = "CHASKI_TEST_KILL_DIR";
const PARTITIONS: u32 = 4;
/// How many acknowledgements to wait for before the kill, round by round; all on one directory.
const ROUNDS: [usize; 12] = [0, 0, 1, 5, 20, 100, 300, 700, 1_000, 1_500, 50, 3];

#[test]
fn acknowledged_writes_survive_kill_9() {
    if let Ok(dir) = std::env::var(DIR) {
        return write_until_killed(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = BTreeMap::new();
    let (mut cursor, mut epoch) = (0, 0);
    for (round, acks) in ROUNDS.into_iter().enumerate() {
        for line in killed_after(dir.path(), acks) {
            match numbers(&line)[..] {
                [partition, offset, n] => {
                    acknowledged.insert((partition as u32, Offset(offset)), n);
                }
                [saved, claimed] => (cursor, epoch) = (saved, claimed),
                _ => {} // the line that the kill cut
            }
        }
        check(dir.path(), &acknowledged, cursor, epoch);
        let found = acknowledged.len();
        assert!(round == 0 || acks == 0 || found >= acks, "round {round}: {found} of {acks}");
    }
}

fn numbers(line: &str) -> Vec<u64> {
    line.split(' ').map_while(|n| n.parse().ok()).collect()
}

#[test]
fn a_directory_is_open_once() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Embedded::open(dir.path(), EmbeddedOptions::default());
    let first = open().unwrap();
    let second = open().err().unwrap();
    assert_eq!(second.kind, ErrorKind::Conflict);
    assert!(second.to_string().contains("another process"), "{second}");
    drop(first);
    open().unwrap();
}

/// Starts a writer, kills it after so many acknowledged appends, and gives all it printed.
fn killed_after(dir: &Path, acks: usize) -> Vec<String> {
    let mut writer = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "acknowledged_writes_survive_kill_9", "--nocapture"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(writer.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut seen = Vec::new();
    let mut appends = 0;
    while appends < acks
        && let Some(line) = lines.next()
    {
        appends += usize::from(numbers(&line).len() == 3);
        seen.push(line);
    }
    writer.kill().unwrap();
    seen.extend(lines);
    writer.wait().unwrap();
    seen
}

/// Appends, saves cursors and claims as fast as it can; prints each only once acknowledged.
#[tokio::main]
async fn write_until_killed(dir: &Path) {
    let embedded = Embedded::open(dir, EmbeddedOptions::default()).unwrap();
    let (log, devices, checkpoints) = (embedded.log(), embedded.devices(), embedded.checkpoints());
    log.create_topics(PARTITIONS).await.unwrap();
    let producer = log.producer(ProducePolicy::Forever).unwrap();
    let mut waiting = VecDeque::new();
    for n in 1_u64.. {
        let partition = Partition(n as u32 % PARTITIONS);
        let record = Record {
            key: Bytes::new(),
            value: Bytes::copy_from_slice(&n.to_be_bytes().repeat(1 + n as usize % 50)),
            timestamp_ms: 0,
            record_type: "test",
            schema: 1,
            traceparent: None,
        };
        let appending = producer.append(Topic::NewMessages, partition, record).unwrap();
        waiting.push_back((partition, n, appending));
        if waiting.len() == 100 {
            for (partition, n, appending) in waiting.drain(..50) {
                let offset = appending.await.unwrap();
                println!("\n{partition} {offset} {n}");
            }
            let device = "d1".parse().unwrap();
            let old = devices.device(&"ana".parse().unwrap(), &device).await.unwrap();
            let cursor = Position(old.map_or(0, |known| known.row.cursor.0) + 1);
            let row = DeviceRow { user: "ana".parse().unwrap(), device, cursor, last_active_ms: 1 };
            devices.save_cursors(&[row]).await.unwrap();
            let claimed = checkpoints.claim("generator", Partition(0), 0).await.unwrap();
            println!("\n{cursor} {}", claimed.epoch);
            std::io::stdout().flush().unwrap();
        }
    }
}

#[tokio::main]
async fn check(dir: &Path, acknowledged: &BTreeMap<(u32, Offset), u64>, cursor: u64, epoch: u64) {
    let embedded = Embedded::open(dir, EmbeddedOptions::default()).unwrap();
    let log = embedded.log();
    log.create_topics(PARTITIONS).await.unwrap();
    let mut found = BTreeMap::new();
    for partition in (0..PARTITIONS).map(Partition) {
        let end = log.bounds(Topic::NewMessages, partition).await.unwrap().end;
        let mut reader = log.reader(Topic::NewMessages, partition, Offset(0)).await.unwrap();
        let mut next = Offset(0);
        while next < end {
            for record in reader.next().await.unwrap() {
                assert!(record.offset >= next, "offsets grow");
                next = record.offset.next();
                let n = u64::from_be_bytes(*record.value.first_chunk().unwrap());
                found.insert((partition.0, record.offset), n);
            }
        }
    }
    for (place, n) in acknowledged {
        assert_eq!(found.get(place), Some(n), "acknowledged at {place:?}");
    }
    let device = embedded.devices();
    let row = device.device(&"ana".parse().unwrap(), &"d1".parse().unwrap()).await.unwrap();
    assert!(row.map_or(0, |known| known.row.cursor.0) >= cursor, "the cursor went back");
    let claimed = embedded.checkpoints().claim("generator", Partition(0), 0).await.unwrap();
    assert!(claimed.epoch > epoch, "the epoch went back");
}
