//! What can be set, and how it becomes librdkafka's configuration. Every property that differs
//! from librdkafka's default says why.
//!
//! Must not know: what runs on the clients.

use chaski_planted::Bug;
use chaski_ports::{ErrorKind, PortError, ProducePolicy, Topic};
use rdkafka::{ClientConfig, config::RDKafkaLogLevel};

/// The least retention: a client may be away, and a retry may come, that long (L2, L5).
pub const RETENTION_MS_MIN: i64 = 7 * 24 * 3600 * 1000;

/// A record of 2 MiB with room for key, headers and framing.
pub(crate) const RECORD_BYTES_MAX: u32 = 3 * 1024 * 1024;

/// How to reach Kafka, and the limits of this process towards it.
#[derive(Clone, Debug, PartialEq)]
pub struct KafkaOptions {
    /// `host:port`, separated by commas.
    pub brokers: String,
    /// Stands before every topic's name.
    pub topic_prefix: String,
    /// Replicas of a topic that is created; `None`: the broker's default.
    pub replication: Option<i32>,
    /// Retention of a topic that is created; `None`: 7 days, which is also the least; -1: for ever.
    pub retention_ms: Option<i64>,
    /// How long a record waits for company before it is sent. Measured by `examples/probe.rs`.
    pub linger_ms: f64,
    /// Records that a producer holds before it refuses with `Full` (L8).
    pub producer_records_max: u32,
    /// KiB that a producer holds before it refuses with `Full` (L8).
    pub producer_kib_max: u32,
    /// KiB that are fetched ahead for one reader (L8); one fetch may go past it by 1 MiB.
    pub reader_kib_max: u32,
    /// librdkafka's `security.*`, `ssl.*` and `sasl.*` properties.
    pub security: Vec<(String, String)>,
}

impl Default for KafkaOptions {
    fn default() -> Self {
        Self {
            brokers: "127.0.0.1:9092".into(),
            topic_prefix: "chaski.".into(),
            replication: None,
            retention_ms: None,
            linger_ms: 1.0,
            producer_records_max: 100_000,
            producer_kib_max: 64 * 1024,
            reader_kib_max: 4 * 1024,
            security: Vec::new(),
        }
    }
}

impl KafkaOptions {
    pub(crate) fn check(&self) -> Result<(), PortError> {
        let invalid = |why: &str| Err(PortError::new(ErrorKind::Invalid, why));
        if self.brokers.is_empty() {
            return invalid("no brokers are given");
        }
        if !(0.0..=1000.0).contains(&self.linger_ms) {
            return invalid("linger_ms must be 0 to 1000");
        }
        if self.producer_records_max == 0 || self.producer_kib_max == 0 || self.reader_kib_max == 0
        {
            return invalid("a limit of 0 lets nothing through");
        }
        if self.retention_ms.is_some_and(|ms| ms != -1 && ms < RETENTION_MS_MIN) {
            return invalid("retention_ms must be at least 7 days, or -1");
        }
        let secure =
            |name: &str| ["security.", "ssl.", "sasl."].iter().any(|p| name.starts_with(p));
        match self.security.iter().find(|(name, _)| !secure(name)) {
            Some((name, _)) => invalid(&format!("{name} is not a security property")),
            None => Ok(()),
        }
    }

    pub(crate) fn topic(&self, topic: Topic) -> String {
        format!("{}{}", self.topic_prefix, topic.name())
    }

    /// What all clients have in common.
    pub(crate) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "chaski")
            .set_log_level(RDKafkaLogLevel::Info)
            // Brokers close idle connections as a matter of course.
            .set("log.connection.close", "false")
            .set("socket.keepalive.enable", "true")
            .set("socket.nagle.disable", "true")
            // A broker that hangs is given up after 10 s (60 s), one that is back is found in 1 s (10 s).
            .set("socket.timeout.ms", "10000")
            .set("socket.connection.setup.timeout.ms", "5000")
            .set("reconnect.backoff.max.ms", "1000");
        for (name, value) in &self.security {
            config.set(name, value);
        }
        config
    }

    /// A consumer that belongs to no group in truth: librdkafka wants a name to assign at all.
    pub(crate) fn consumer(&self) -> ClientConfig {
        let mut config = self.client();
        config
            .set("group.id", format!("{}readers", self.topic_prefix))
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // L5: an offset that is gone is an error, never a jump.
            .set("auto.offset.reset", "error")
            .set("check.crcs", "true")
            .set("fetch.min.bytes", "1")
            // Data ends the wait at once. But a broker answers one fetch at a time, so a partition
            // that is added, or has room again, waits for the running one: 100 ms (500).
            .set("fetch.wait.max.ms", "100")
            // A reader that has made room is served again after 5 ms (1000).
            .set("fetch.queue.backoff.ms", "5")
            .set("fetch.error.backoff.ms", "100")
            .set("fetch.message.max.bytes", "1048576")
            .set("fetch.max.bytes", "16777216")
            .set("receive.message.max.bytes", "33554432")
            .set("queued.min.messages", "50000")
            .set("queued.max.messages.kbytes", self.reader_kib_max.to_string());
        config
    }

    pub(crate) fn producer(&self, policy: ProducePolicy) -> ClientConfig {
        let mut config = self.client();
        config
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("partitioner", "murmur2_random")
            // The cheapest one to write and to read; bodies are small and often encrypted.
            .set("compression.codec", "lz4")
            .set("linger.ms", self.linger_ms.to_string())
            .set("message.max.bytes", RECORD_BYTES_MAX.to_string())
            // The lanes count what is held, and refuse.
            .set("queue.buffering.max.messages", "0")
            .set("queue.buffering.max.kbytes", i32::MAX.to_string())
            .set(
                "message.timeout.ms",
                match policy {
                    ProducePolicy::GiveUp => "7000",
                    ProducePolicy::Forever => "0",
                },
            );
        if chaski_planted::is(Bug::AcksOne) {
            config.set("acks", "1").set("enable.idempotence", "false");
        }
        if chaski_planted::is(Bug::AcceptedWhileItLingers) {
            config.set("linger.ms", "500");
        }
        config
    }

    /// A client that commits offsets of `group`, for display.
    pub(crate) fn mirror(&self, group: &str) -> ClientConfig {
        let mut config = self.client();
        config
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false");
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(change: impl FnOnce(&mut KafkaOptions), legal: bool) {
        let mut options = KafkaOptions::default();
        change(&mut options);
        assert_eq!(options.check().is_ok(), legal, "{options:?}");
    }

    #[test]
    fn what_would_break_a_law_is_refused() {
        check(|_| (), true);
        check(|o| o.retention_ms = Some(RETENTION_MS_MIN), true);
        check(|o| o.retention_ms = Some(-1), true);
        check(|o| o.retention_ms = Some(RETENTION_MS_MIN - 1), false);
        check(|o| o.producer_kib_max = 0, false);
        check(|o| o.security.push(("ssl.ca.location".into(), "ca.pem".into())), true);
        check(|o| o.security.push(("acks".into(), "0".into())), false);
    }
}
