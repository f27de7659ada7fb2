//! The cases of the log port.

use crate::LogFixture;
use bytes::Bytes;
use chaski_core::{Offset, Partition};
use chaski_ports::{
    Appending, ErrorKind, Log, LogReader, LogRecord, PortError, ProducePolicy, Producer, Record,
    Topic,
};
use futures::{FutureExt, future::join_all};
use std::{sync::Arc, time::Duration};

const PARTITIONS: u32 = 4;
const TOPIC: Topic = Topic::Recipients;
const HERE: Partition = Partition(1);

fn record(value: impl Into<Bytes>) -> Record {
    Record {
        key: Bytes::from_static(b"ana"),
        value: value.into(),
        timestamp_ms: 1_700_000_000_123,
        record_type: "test",
        schema: 1,
        traceparent: None,
    }
}

fn numbered(n: u64) -> Record {
    record(n.to_be_bytes().to_vec())
}

fn numbers(records: &[LogRecord]) -> Vec<u64> {
    let number = |r: &LogRecord| u64::from_be_bytes(r.value[..].try_into().expect("eight bytes"));
    records.iter().map(number).collect()
}

async fn open(fixture: &impl LogFixture) -> Arc<dyn Log> {
    let log = fixture.open().await.expect("open");
    log.create_topics(PARTITIONS).await.expect("create topics");
    log
}

fn producer(log: &Arc<dyn Log>) -> Arc<dyn Producer> {
    log.producer(ProducePolicy::Forever).expect("a producer")
}

/// Appends these numbers, all admitted before the first is awaited.
async fn append(log: &Arc<dyn Log>, partition: Partition, n: std::ops::Range<u64>) -> Vec<Offset> {
    let producer = producer(log);
    let admit = |n| producer.append(TOPIC, partition, numbered(n)).expect("admission");
    let appends: Vec<Appending> = n.map(admit).collect();
    let settled = join_all(appends).await;
    settled.into_iter().map(|offset| offset.expect("durable")).collect()
}

async fn end(log: &Arc<dyn Log>) -> Offset {
    log.bounds(TOPIC, HERE).await.expect("bounds").end
}

async fn reader(log: &Arc<dyn Log>, from: Offset) -> Box<dyn LogReader> {
    log.reader(TOPIC, HERE, from).await.expect("a reader")
}

/// The next records up to this many.
async fn read(reader: &mut dyn LogReader, count: usize) -> Vec<LogRecord> {
    let mut read = Vec::new();
    while read.len() < count {
        let next = reader.next().await.expect("records");
        assert!(!next.is_empty(), "next gives at least one record");
        read.extend(next);
    }
    read
}

#[track_caller]
fn assert_growing(offsets: &[Offset]) {
    assert!(offsets.is_sorted_by(|a, b| a < b), "offsets grow: {offsets:?}");
}

/// What was acknowledged is there for whoever opens the log anew.
pub async fn append_is_durable<F: LogFixture>(fixture: &F) {
    let log = open(fixture).await;
    let mut offsets = Vec::new();
    for n in 0..20 {
        offsets.extend(append(&log, HERE, n..n + 1).await);
    }
    drop(log);

    let log = open(fixture).await;
    let found = read(&mut *reader(&log, Offset(0)).await, 20).await;
    assert_eq!(numbers(&found), (0..20).collect::<Vec<_>>());
    assert_eq!(found.iter().map(|r| r.offset).collect::<Vec<_>>(), offsets);
}

/// Records admitted in an order, to several partitions in turn, stand in that order in each.
pub async fn order_of_admission<F: LogFixture>(fixture: &F) {
    let log = open(fixture).await;
    let producer = producer(&log);
    let admit = |n: u64| {
        let partition = Partition((n % u64::from(PARTITIONS)) as u32);
        producer.append(TOPIC, partition, numbered(n)).expect("admission")
    };
    let appends: Vec<Appending> = (0..2_000).map(admit).collect();
    let offsets: Vec<Offset> =
        join_all(appends).await.into_iter().map(|o| o.expect("durable")).collect();
    let here = |list: &[Offset]| list.iter().skip(1).step_by(4).copied().collect::<Vec<_>>();
    assert_growing(&here(&offsets));

    let found = read(&mut *reader(&log, Offset(0)).await, 500).await;
    assert_eq!(numbers(&found), (1..2_000).step_by(4).collect::<Vec<_>>());
    assert_eq!(found.iter().map(|r| r.offset).collect::<Vec<_>>(), here(&offsets));
}

/// Offsets grow, over a new opening too, and the end is past all of them.
pub async fn offsets_grow<F: LogFixture>(fixture: &F) {
    let log = open(fixture).await;
    let bounds = log.bounds(TOPIC, HERE).await.expect("bounds");
    assert_eq!(bounds.start, bounds.end, "a new partition is empty");
    let mut offsets = append(&log, HERE, 0..100).await;
    let before = end(&log).await;
    drop(log);

    let log = open(fixture).await;
    assert_eq!(end(&log).await, before, "the end is kept");
    offsets.extend(append(&log, HERE, 100..200).await);
    assert_growing(&offsets);
    let (last, end) = (*offsets.last().expect("two hundred"), end(&log).await);
    assert!(last < end, "{last} stands before the end {end}");
    assert!(offsets[0] >= bounds.end && offsets[100] >= before, "appended behind the end");
}

/// From any record's offset, and from the one behind it, a reader yields exactly the rest.
pub async fn read_from_offset<F: LogFixture>(fixture: &F) {
    const COUNT: u64 = 3_500;
    let log = open(fixture).await;
    let offsets = append(&log, HERE, 0..COUNT).await;
    let check = async |log: &Arc<dyn Log>, from: Offset, first: u64| {
        let found = read(&mut *reader(log, from).await, (COUNT - first) as usize).await;
        assert_eq!(numbers(&found), (first..COUNT).collect::<Vec<_>>(), "from {from}");
    };
    for first in [0, 1, 1_234, 3_499] {
        check(&log, offsets[first as usize], first).await;
    }
    for gone in 0..40 {
        let behind = offsets[gone as usize].next();
        check(&log, behind, gone + 1).await;
    }
    drop(log);
    let log = open(fixture).await;
    check(&log, log.bounds(TOPIC, HERE).await.expect("bounds").start, 0).await;
    check(&log, offsets[2_000], 2_000).await;
}

/// At the end `next` waits; what is appended then arrives.
pub async fn reads_wait<F: LogFixture>(fixture: &F) {
    let log = open(fixture).await;
    append(&log, HERE, 0..3).await;
    let mut reader = reader(&log, end(&log).await).await;
    for n in 3..30 {
        let mut next = reader.next();
        assert!(next.as_mut().now_or_never().is_none(), "there is nothing to read yet");
        let (appended, found) = futures::join!(append(&log, HERE, n..n + 1), next);
        let found = found.expect("records");
        assert_eq!((numbers(&found), found[0].offset), (vec![n], appended[0]));
    }
}

/// A `next` that is dropped at any time loses no record: neither old ones, which come from afar,
/// nor those that arrive meanwhile.
pub async fn next_is_cancel_safe<F: LogFixture>(fixture: &F) {
    const OLD: u64 = 3_000;
    const COUNT: u64 = 4_000;
    let log = open(fixture).await;
    append(&log, HERE, 0..OLD).await;
    drop(log);
    let log = open(fixture).await;
    let mut reader = reader(&log, Offset(0)).await;
    let appends = async {
        for n in (OLD..COUNT).step_by(50) {
            append(&log, HERE, n..n + 50).await;
        }
    };
    let reads = async {
        let (mut found, mut polls_max) = (Vec::new(), 0);
        while found.len() < COUNT as usize {
            // Dropped after one poll, two, three, …: at every point where it may wait.
            polls_max = polls_max % 4 + 1;
            let mut next = reader.next();
            for _ in 0..polls_max {
                if let Some(records) = next.as_mut().now_or_never() {
                    found.extend(numbers(&records.expect("records")));
                    break;
                }
                // Time for what was set going: then the next poll goes one step further.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        found
    };
    let ((), found) = futures::join!(appends, reads);
    assert!(found == (0..COUNT).collect::<Vec<_>>(), "each record once, in order");
}

/// Beyond the end there is an error, never another place.
pub async fn out_of_range_is_an_error<F: LogFixture>(fixture: &F) {
    let log = open(fixture).await;
    append(&log, HERE, 0..10).await;
    let end = end(&log).await;
    for beyond in [Offset(end.0 + 1_000), Offset(end.0 + (1 << 40))] {
        let failed = match log.reader(TOPIC, HERE, beyond).await {
            Ok(mut reader) => reader.next().await.map(|found| numbers(&found)),
            Err(error) => Err(error),
        };
        let kind = failed.expect_err("beyond the end").kind;
        assert_eq!(kind, ErrorKind::OutOfRange, "from {beyond}, the end is {end}");
    }
    let next = log.reader(TOPIC, HERE, end).await;
    assert!(next.is_ok(), "the end itself is where a reader waits");
}

/// A full queue refuses at once; what it admitted becomes durable, in order, and then it admits
/// again.
pub async fn full_is_refused<F: LogFixture>(fixture: &F) {
    drop(open(fixture).await);
    let log = fixture.open_small().await.expect("open");
    let producer = producer(&log);
    let value = Bytes::from(vec![7; 10_000]);
    let mut admitted = Vec::new();
    // No await here: the queue fills faster than any backend can empty it.
    let refused = (0..100 * F::SMALL_QUEUE).find_map(|_| {
        match producer.append(TOPIC, HERE, record(value.clone())) {
            Ok(appending) => {
                admitted.push(appending);
                None
            }
            Err(error) => Some(error),
        }
    });
    let refused = refused.expect("the queue has a limit");
    assert_eq!(refused.kind, ErrorKind::Full);
    assert!(refused.retryable());
    let count = admitted.len();
    assert!(count > 0, "an empty queue admits");
    let settled: Result<Vec<Offset>, PortError> = join_all(admitted).await.into_iter().collect();
    assert_growing(&settled.expect("what was admitted is durable"));
    let again = producer.append(TOPIC, HERE, record(value)).expect("there is room again");
    again.await.expect("durable");
    let found = read(&mut *reader(&log, Offset(0)).await, count + 1).await;
    assert_eq!(found.len(), count + 1, "what was refused is not there");
}

/// Key, value, time and trace context come back as they were, empty and large ones too.
pub async fn bytes_are_kept<F: LogFixture>(fixture: &F) {
    let log = open(fixture).await;
    let all: Bytes = (0..=255).collect::<Vec<u8>>().into();
    let trace = Bytes::from_static(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    let mut inputs = vec![
        Record { key: Bytes::new(), ..record("no key") },
        Record { key: all.clone(), ..record(all.clone()) },
        Record { timestamp_ms: 0, ..record(Bytes::new()) },
        Record { traceparent: Some(trace), ..record("traced") },
    ];
    let noise = (0..900_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8);
    inputs.push(record(noise.collect::<Vec<_>>()));
    inputs.push(record(vec![0; 900_000]));
    let producer = producer(&log);
    let admit = |r: &Record| producer.append(TOPIC, HERE, r.clone()).expect("admission");
    for settled in join_all(inputs.iter().map(admit).collect::<Vec<_>>()).await {
        settled.expect("durable");
    }
    let check = async |log: &Arc<dyn Log>| {
        let found = read(&mut *reader(log, Offset(0)).await, inputs.len()).await;
        assert_eq!(found.len(), inputs.len());
        for (input, found) in inputs.iter().zip(found) {
            assert!(input.key == found.key && input.value == found.value, "bytes differ");
            assert_eq!(input.timestamp_ms, found.timestamp_ms);
            assert_eq!(input.traceparent, found.traceparent);
        }
    };
    check(&log).await;
    drop((log, producer));
    check(&open(fixture).await).await;
}

/// Topics are made once: making them again, with another count too, changes nothing.
pub async fn topics_are_made_once<F: LogFixture>(fixture: &F) {
    let log = fixture.open().await.expect("open");
    let kind = log.partitions(TOPIC).await.expect_err("nothing is made yet").kind;
    assert_eq!(kind, ErrorKind::NotFound);
    log.create_topics(PARTITIONS).await.expect("create topics");
    append(&log, HERE, 0..1).await;
    let cluster = log.cluster_id().await.expect("a cluster id");
    log.create_topics(PARTITIONS + 3).await.expect("create them again");
    drop(log);

    let log = fixture.open().await.expect("open");
    log.create_topics(PARTITIONS + 1).await.expect("create them again");
    for topic in Topic::ALL {
        let expected = if topic.is_partitioned() { PARTITIONS } else { 1 };
        assert_eq!(log.partitions(topic).await.expect("made"), expected, "{topic:?}");
    }
    assert_eq!(log.cluster_id().await.expect("a cluster id"), cluster);
    assert_eq!(read(&mut *reader(&log, Offset(0)).await, 1).await.len(), 1);
}

/// A partition that does not exist is not found, by whatever way.
pub async fn unknown_places_are_not_found<F: LogFixture>(fixture: &F) {
    let log = open(fixture).await;
    let nowhere = Partition(PARTITIONS);
    let bounds = log.bounds(TOPIC, nowhere).await.expect_err("no such partition");
    let reader = match log.reader(TOPIC, nowhere, Offset(0)).await {
        Ok(mut reader) => reader.next().await.map(|_| ()),
        Err(error) => Err(error),
    };
    let appended = match producer(&log).append(TOPIC, nowhere, numbered(0)) {
        Ok(appending) => appending.await.map(|_| ()),
        Err(error) => Err(error),
    };
    let kinds = [bounds.kind, reader.expect_err("read").kind, appended.expect_err("append").kind];
    assert_eq!(kinds, [ErrorKind::NotFound; 3]);
}

/// Readers that start at different places, and at different times, while records are appended,
/// all see the same sequence.
pub async fn readers_and_writers_meet<F: LogFixture>(fixture: &F) {
    const COUNT: u64 = 4_000;
    let log = open(fixture).await;
    let appends = async {
        let mut offsets = Vec::new();
        for n in (0..COUNT).step_by(200) {
            offsets.extend(append(&log, HERE, n..n + 200).await);
        }
        offsets
    };
    let follow = async |log: Arc<dyn Log>| {
        let from = end(&log).await;
        let mut reader = reader(&log, from).await;
        let mut found = Vec::new();
        while found.last().is_none_or(|last: &(Offset, u64)| last.1 < COUNT - 1) {
            let records = reader.next().await.expect("records");
            found.extend(records.iter().map(|r| r.offset).zip(numbers(&records)));
            tokio::task::yield_now().await;
        }
        (from, found)
    };
    let early = join_all((0..3).map(|_| follow(Arc::clone(&log))));
    let (offsets, early) = futures::join!(appends, early);
    let all: Vec<(Offset, u64)> = offsets.into_iter().zip(0..COUNT).collect();
    for (from, found) in early {
        let expected: Vec<_> = all.iter().copied().filter(|(o, _)| *o >= from).collect();
        assert!(found == expected, "from {from}: {} of {}", found.len(), expected.len());
    }
}
