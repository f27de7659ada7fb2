//! `google.protobuf.Timestamp` with the JSON form of the contract: RFC 3339 UTC with milliseconds.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use time::{
    OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339, macros::format_description,
};

/// A point in time; the binary form is `google.protobuf.Timestamp`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, ::prost::Message)]
pub struct Timestamp {
    /// Seconds since 1970.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// Nanoseconds within the second.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

impl Timestamp {
    /// From Unix milliseconds.
    #[must_use]
    pub fn from_ms(ms: i64) -> Self {
        Self { seconds: ms.div_euclid(1000), nanos: ms.rem_euclid(1000) as i32 * 1_000_000 }
    }

    /// To Unix milliseconds, saturating.
    #[must_use]
    pub fn to_ms(self) -> i64 {
        self.seconds.saturating_mul(1000).saturating_add(i64::from(self.nanos) / 1_000_000)
    }
}

/// 9999-12-31T23:59:59Z.
const LAST_SECOND: i64 = 253_402_300_799;

const MILLIS: &[time::format_description::BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // RFC 3339 writes the years 0-9999: a time outside them is written as the nearest inside,
        // so that no record can make a frame that cannot be sent.
        let seconds = self.seconds.clamp(0, LAST_SECOND);
        let at = OffsetDateTime::from_unix_timestamp(seconds).map_err(ser::Error::custom)?
            + time::Duration::nanoseconds(self.nanos.clamp(0, 999_999_999).into());
        serializer.serialize_str(&at.format(MILLIS).map_err(ser::Error::custom)?)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let at = OffsetDateTime::parse(&text, &Rfc3339)
            .map_err(|_| {
                de::Error::custom("a time must be RFC 3339, such as 2026-01-02T03:04:05.678Z")
            })?
            .to_offset(UtcOffset::UTC);
        Ok(Self { seconds: at.unix_timestamp(), nanos: at.nanosecond() as i32 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_can_be_written() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_767_323_045_678, "2026-01-02T03:04:05.678Z"),
            (-1, "1970-01-01T00:00:00.999Z"),
            (i64::MAX, "9999-12-31T23:59:59.807Z"),
        ] {
            assert_eq!(serde_json::to_value(Timestamp::from_ms(ms)).unwrap(), text);
        }
    }
}
