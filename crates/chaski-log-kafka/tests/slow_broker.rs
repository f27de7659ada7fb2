//! A producer whose broker takes its time. In a process of its own, whose CPU time is looked at.

use chaski_core::{Offset, Partition};
use chaski_log_kafka::{KafkaLog, KafkaOptions};
use chaski_ports::{Log as _, ProducePolicy, Record, Topic};
use rdkafka::{mocking::MockCluster, producer::DefaultProducerContext};
use std::{fs, time::Duration};
use tokio::time::{Instant, interval};

const RECORDS: u64 = 300;
const ROUND_TRIP: Duration = Duration::from_millis(200);

/// Seconds of CPU that this process has used (`proc_pid_stat(5)`).
fn cpu() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |n: usize| fields.get(n)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / 100.0)
}

#[tokio::test]
async fn who_waits_for_a_slow_broker_sleeps_and_nothing_is_passed() {
    let cluster: MockCluster<'static, DefaultProducerContext> = MockCluster::new(1).unwrap();
    cluster.create_topic("chaski.recipients", 1, 1).unwrap();
    let brokers = cluster.bootstrap_servers();
    let log = KafkaLog::connect(KafkaOptions { brokers, ..KafkaOptions::default() }).await.unwrap();
    let producer = log.producer(ProducePolicy::Forever).unwrap();
    let append = |n: u64| {
        let record = Record {
            key: "ana".into(),
            value: n.to_string().into(),
            timestamp_ms: 1,
            record_type: "test",
            schema: 1,
            traceparent: None,
        };
        producer.append(Topic::Recipients, Partition(0), record).unwrap()
    };
    assert_eq!(append(0).await.unwrap(), Offset(0));

    cluster.broker_round_trip_time(1, ROUND_TRIP).unwrap();
    let (before, begun) = (cpu().unwrap(), Instant::now());
    let (mut tick, mut appending) = (interval(Duration::from_millis(10)), Vec::new());
    for n in 1..=RECORDS {
        tick.tick().await;
        appending.push(append(n));
    }
    for (n, appending) in (1..).zip(appending) {
        assert_eq!(appending.await.unwrap(), Offset(n), "in order");
    }
    let (used, took) = (cpu().unwrap() - before, begun.elapsed().as_secs_f64());
    // A thread that does not sleep uses all of it; all there is to do takes a hundredth.
    assert!(used < took / 4.0, "{used:.2} s of CPU in {took:.2} s");
    // What waits does so for one round trip, not for one each.
    assert!(took < 300.0 * ROUND_TRIP.as_secs_f64() / 8.0, "{took:.2} s");
}
