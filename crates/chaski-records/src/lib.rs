//! Records that every service may append: dead letters and alerts. Ties the schema (`proto/`) to
//! the log's port, so that no service does it twice.
//!
//! Must not know: any service, any vendor.

use bytes::Bytes;
use chaski_core::Partition;
use chaski_ports::{Appending, LogRecord, PortError, Producer, Record, Topic};
use chaski_proto::{Malformed, SCHEMA, v1};
use prost::Message as _;

/// The kind of alert for a record that cannot be decoded.
pub const ALERT_UNDECODABLE: &str = "undecodable-record";
/// The kind of alert for a hole in a generator's outputs that is not filled for seconds.
pub const ALERT_HOLE: &str = "hole-in-recipients";

/// Where a role buries records that it cannot process, and raises alerts.
pub struct Undertaker<'a> {
    /// Appends them.
    pub producer: &'a dyn Producer,
    /// Which role gave up.
    pub role: &'a str,
}

impl Undertaker<'_> {
    /// Buries a record in `dead-letters` with its cause and tells `alerts`. Both must be durable
    /// before the record's place may be passed (L5).
    pub fn bury(
        &self,
        (topic, partition): (Topic, Partition),
        record: &LogRecord,
        cause: &Malformed,
        now_ms: i64,
    ) -> Result<[Appending; 2], PortError> {
        metrics::counter!("chaski_dead_letters_total", "role" => self.role.to_owned()).increment(1);
        let place = format!("{}/{partition}/{}", topic.name(), record.offset);
        tracing::error!(place, %cause, "a record cannot be processed: it goes to dead-letters");
        let letter = v1::DeadLetter {
            topic: topic.name().into(),
            partition: partition.0,
            offset: record.offset.0,
            cause: cause.to_string(),
            key: record.key.clone(),
            value: record.value.clone(),
            by_role: self.role.into(),
        };
        let letter = letter.encode_to_vec();
        Ok([
            self.append(Topic::DeadLetters, "dead-letter", place.clone(), letter, now_ms)?,
            self.alert(ALERT_UNDECODABLE, place.clone(), format!("{place}: {cause}"), now_ms)?,
        ])
    }

    /// Raises an alert under a key.
    pub fn alert(
        &self,
        kind: &str,
        key: String,
        detail: String,
        now_ms: i64,
    ) -> Result<Appending, PortError> {
        let alert = v1::Alert { kind: kind.into(), detail, at_ms: now_ms, ..v1::Alert::default() };
        self.raise(key, alert)
    }

    /// Raises an alert that says more, under a key; whose it is is filled in.
    pub fn raise(&self, key: String, alert: v1::Alert) -> Result<Appending, PortError> {
        metrics::counter!("chaski_alerts_total", "kind" => alert.kind.clone()).increment(1);
        let (now_ms, alert) = (alert.at_ms, v1::Alert { by_role: self.role.into(), ..alert });
        self.append(Topic::Alerts, "alert", key, alert.encode_to_vec(), now_ms)
    }

    fn append(
        &self,
        topic: Topic,
        record_type: &'static str,
        key: String,
        value: Vec<u8>,
        timestamp_ms: i64,
    ) -> Result<Appending, PortError> {
        let record = Record {
            key: Bytes::from(key),
            value: value.into(),
            timestamp_ms,
            record_type,
            schema: SCHEMA,
            traceparent: None,
        };
        self.producer.append(topic, Partition(0), record)
    }
}
