//! What only a broker that can be told to fail shows; the laws themselves are proved by the
//! conformance suite on real brokers.

use crate::{KafkaLog, KafkaOptions};
use chaski_core::{Offset, Partition};
use chaski_ports::{Appending, ErrorKind, Log, LogReader, ProducePolicy, Producer, Record, Topic};
use rdkafka::{
    mocking::MockCluster,
    producer::DefaultProducerContext,
    types::{RDKafkaApiKey, RDKafkaRespErr},
};
use std::{sync::Arc, time::Duration};

const ZERO: Partition = Partition(0);

struct Mock {
    cluster: MockCluster<'static, DefaultProducerContext>,
    log: Arc<KafkaLog>,
}

async fn given(change: impl FnOnce(&mut KafkaOptions)) -> Mock {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("chaski.recipients", 2, 1).unwrap();
    let mut options =
        KafkaOptions { brokers: cluster.bootstrap_servers(), ..KafkaOptions::default() };
    change(&mut options);
    let log = KafkaLog::connect(options).await.unwrap();
    Mock { cluster, log }
}

fn record(value: &[u8]) -> Record {
    Record {
        key: "ana".into(),
        value: value.to_vec().into(),
        timestamp_ms: 1_700_000_000_000,
        record_type: "test",
        schema: 1,
        traceparent: Some("00-1-2-01".into()),
    }
}

fn append(producer: &Arc<dyn Producer>, value: &[u8]) -> Appending {
    producer.append(Topic::Recipients, ZERO, record(value)).unwrap()
}

async fn reader(log: &KafkaLog, from: u64) -> Box<dyn LogReader> {
    log.reader(Topic::Recipients, ZERO, Offset(from)).await.unwrap()
}

#[tokio::test]
async fn two_readers_of_one_partition_stand_at_their_own_offsets() {
    let mock = given(|_| ()).await;
    let producer = mock.log.producer(ProducePolicy::GiveUp).unwrap();
    for value in [b"0", b"1", b"2"] {
        append(&producer, value).await.unwrap();
    }
    let (mut first, mut second) = (reader(&mock.log, 0).await, reader(&mock.log, 2).await);

    let batch = second.next().await.unwrap();
    assert_eq!((batch[0].offset, &batch[0].value[..]), (Offset(2), &b"2"[..]));
    assert_eq!(batch[0].traceparent.as_deref(), Some(&b"00-1-2-01"[..]));
    assert_eq!(first.next().await.unwrap()[0].offset, Offset(0));

    // The place of a dropped reader is free again, at another offset, on the same consumer.
    drop(first);
    let mut third = reader(&mock.log, 1).await;
    assert_eq!(third.next().await.unwrap()[0].offset, Offset(1));
    assert_eq!(mock.log.consumers(), 2);
}

#[tokio::test]
async fn what_retention_removes_under_a_slow_reader_is_out_of_range() {
    let mock = given(|o| o.reader_kib_max = 1).await;
    let producer = mock.log.producer(ProducePolicy::GiveUp).unwrap();
    append(&producer, b"first").await.unwrap();
    let mut slow = reader(&mock.log, 0).await;
    assert_eq!(slow.next().await.unwrap().len(), 1);

    // The mock keeps 5 MiB of a partition. Noise, because what is sent is compressed.
    let mut state = 1_u32;
    let noise = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    });
    let noise: Vec<u8> = noise.take(900_000).collect();
    for _ in 0..12 {
        append(&producer, &noise).await.unwrap();
    }
    let bounds = mock.log.bounds(Topic::Recipients, ZERO).await.unwrap();
    assert!(bounds.start > Offset(4), "the mock removed something: {bounds:?}");
    eprintln!("bounds {:?}", mock.log.bounds(Topic::Recipients, ZERO).await);
    let error = loop {
        match slow.next().await {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind, ErrorKind::OutOfRange, "{error}");
    assert_eq!(slow.next().await.unwrap_err().kind, ErrorKind::OutOfRange);
}

#[tokio::test]
async fn a_dead_producer_refuses_and_the_log_makes_a_new_one() {
    let mock = given(|_| ()).await;
    mock.cluster.request_errors(
        RDKafkaApiKey::InitProducerId,
        &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED],
    );
    let dead = mock.log.producer(ProducePolicy::Forever).unwrap();
    let outcome = append(&dead, b"admitted").await;
    assert_eq!(outcome.unwrap_err().kind, ErrorKind::Unknown);
    let refused = dead.append(Topic::Recipients, ZERO, record(b"refused")).unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Conflict);
    assert!(!refused.retryable());

    let fresh = mock.log.producer(ProducePolicy::Forever).unwrap();
    assert!(append(&fresh, b"again").await.is_ok());
}

/// Whether it is given over at once or waits behind others.
#[tokio::test]
async fn a_record_that_no_broker_takes_is_invalid_and_holds_up_nobody() {
    let mock = given(|_| ()).await;
    let producer = mock.log.producer(ProducePolicy::Forever).unwrap();
    append(&producer, b"first").await.unwrap();
    let too_large = vec![b'x'; 4 << 20];
    let refused = producer.append(Topic::Recipients, ZERO, record(&too_large)).unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Invalid);

    mock.cluster.broker_round_trip_time(1, Duration::from_millis(200)).unwrap();
    let few: Vec<_> = (0..5).map(|_| append(&producer, b"on its way")).collect();
    let (waits, behind) = (append(&producer, &too_large), append(&producer, b"behind it"));
    assert_eq!(waits.await.unwrap_err().kind, ErrorKind::Invalid);
    for appending in few {
        appending.await.unwrap();
    }
    assert_eq!(behind.await.unwrap(), Offset(6));
}

#[tokio::test]
async fn a_full_producer_refuses_at_once() {
    let mock = given(|o| (o.producer_records_max, o.linger_ms) = (3, 1000.0)).await;
    let producer = mock.log.producer(ProducePolicy::Forever).unwrap();
    let held: Vec<_> = (0..3).map(|_| append(&producer, b"held")).collect();
    let refused = producer.append(Topic::Recipients, ZERO, record(b"one more")).unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Full);
    for appending in held {
        appending.await.unwrap();
    }
}
