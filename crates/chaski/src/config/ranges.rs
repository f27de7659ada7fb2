//! Which numbers a configuration may have: what would panic, hang, or quietly do harm is refused at
//! the start, by the name of its key. Every number has a row here (a test compares), what the
//! services do with it stands with their settings.

use super::Config;
use std::ops::RangeInclusive;

const HOUR_MS: u64 = 3_600_000;
const DAY_SECONDS: u64 = 86_400;
const CENTURY_DAYS: u64 = 36_500;
const GIB: u64 = 1 << 30;
/// More of anything does not fit into a process.
const MANY: u64 = 10_000_000;

const RANGES: &[(&str, RangeInclusive<u64>)] = &[
    ("partitions", 1..=1024),
    // With 0 a host would own nothing and still be called one.
    ("capacity", 1..=1_000_000),
    ("drain_seconds", 0..=DAY_SECONDS),
    ("auth.token_days_max", 1..=CENTURY_DAYS),
    ("gateway.body_bytes_max", 1000..=GIB),
    ("gateway.frame_bytes_max", 1000..=GIB),
    ("gateway.body_timeout_ms", 1..=HOUR_MS),
    ("gateway.service_timeout_ms", 1..=HOUR_MS),
    ("gateway.verdict_timeout_ms", 1..=HOUR_MS),
    // The message service serves no more.
    ("gateway.page_default", 1..=500),
    ("gateway.page_max", 1..=500),
    ("gateway.hello_timeout_ms", 1..=HOUR_MS),
    ("gateway.connections_max", 1..=MANY),
    ("gateway.header_read_timeout_ms", 1..=HOUR_MS),
    ("gateway.http2_keepalive_ms", 1..=HOUR_MS),
    // With 0 every request would wait for ever.
    ("gateway.http2_streams_max", 1..=MANY),
    ("gateway.unread_timeout_ms", 1..=HOUR_MS),
    ("gateway.drain_ms", 0..=HOUR_MS),
    ("sender.text_chars_max", 0..=GIB),
    ("sender.ciphertext_bytes_max", 0..=GIB),
    ("sender.attachments_max", 0..=10_000),
    ("sender.participants_max", 1..=10_000),
    ("sender.chat_name_chars_max", 0..=100_000),
    ("sender.reason_chars_max", 0..=100_000),
    // A delivery host submits up to 10,000 at once; what is refused is lost.
    ("sender.marks_max", 10_000..=MANY),
    ("sender.blocked_pairs_max", 0..=1_000_000_000),
    ("generator.snapshot_seconds", 1..=DAY_SECONDS),
    // A channel for none panics.
    ("generator.inflight_max", 1..=MANY),
    ("generator.restart_delay_ms", 1..=HOUR_MS),
    // Each tick moves time by 60 s at most: with fewer of them time would fall behind, and keys
    // of messages and histories would live longer than is said.
    ("generator.tick_seconds", 1..=60),
    ("generator.receipts_push_max", 0..=10_000),
    ("delivery.ring_bytes", 1000..=1024 * GIB),
    // With 0 nothing would ever be sent.
    ("delivery.burst_bytes", 1..=GIB),
    ("delivery.catch_up_bytes", 1000..=1024 * GIB),
    ("delivery.heartbeat_seconds", 1..=DAY_SECONDS),
    ("delivery.hello_seconds", 1..=DAY_SECONDS),
    ("delivery.hellos_per_second", 0..=MANY),
    ("delivery.backlog_ms_max", 0..=HOUR_MS),
    ("delivery.write_seconds", 1..=DAY_SECONDS),
    // With 0 no command would ever be read.
    ("delivery.commands_inflight_max", 1..=100_000),
    ("delivery.json_frame_bytes_max", 1000..=GIB),
    ("delivery.protobuf_frame_bytes_max", 1000..=GIB),
    ("delivery.cursor_save_ms", 1..=HOUR_MS),
    ("delivery.cursors_unsaved_max", 1..=MANY),
    ("delivery.verdict_ms", 1..=HOUR_MS),
    ("delivery.receipts_every_ms", 1..=HOUR_MS),
    ("delivery.receipts_pending_max", 1..=MANY),
    ("delivery.receipts_unacked_max", 0..=MANY),
    ("delivery.receipts_session_max", 0..=MANY),
    ("delivery.move_ms", 0..=HOUR_MS),
    // Slices of nothing never end.
    ("delivery.move_slice", 1..=MANY),
    ("delivery.move_every_ms", 0..=HOUR_MS),
    ("delivery.move_spread_ms", 0..=HOUR_MS),
    // It is looked five times as often.
    ("delivery.behind_ms", 5..=HOUR_MS),
    ("delivery.relay_sockets_max", 0..=MANY),
    // Every socket may be sent this much before anything is said about it.
    ("delivery.relay_window_bytes", 65_536..=GIB),
    ("messages.write_every_ms", 0..=HOUR_MS),
    ("messages.watermark_ms", 1..=HOUR_MS),
    ("messages.read_your_write_ms", 0..=HOUR_MS),
    ("messages.body_wait_ms", 0..=HOUR_MS),
    ("messages.hole_alert_seconds", 0..=DAY_SECONDS),
    ("messages.restart_delay_ms", 1..=HOUR_MS),
    // With 0 inboxes would keep nothing; how long chats keep messages is messages.history_days. A
    // row of the store lives for 20 years at most.
    ("messages.inbox_days", 1..=7_300),
    ("messages.history_days", 0..=CENTURY_DAYS),
    // With 0 nobody could connect, or every device would be retired at once.
    ("messages.devices_max", 1..=MANY),
    ("messages.device_idle_days", 1..=CENTURY_DAYS),
    ("connections.verdict_ms", 1..=HOUR_MS),
    ("connections.device_name_chars_max", 0..=100_000),
    ("connections.watermark_ms", 1..=HOUR_MS),
    ("connections.restart_delay_ms", 1..=HOUR_MS),
    ("allocator.grace_ms", 0..=24 * HOUR_MS),
    ("allocator.retry_ms", 1..=HOUR_MS),
    // At 100 somebody would always be overloaded.
    ("allocator.overload_percent", 105..=10_000),
    ("allocator.overload_least", 0..=MANY),
    ("allocator.overload_seconds", 1..=DAY_SECONDS),
    ("allocator.moves_per_minute", 1..=MANY),
    ("allocator.move_again_seconds", 1..=DAY_SECONDS),
];

/// Refuses a configuration with numbers out of their range; the error names all of them.
pub(super) fn check(config: &Config) -> anyhow::Result<()> {
    let values = serde_json::to_value(config)?;
    let mut wrong = Vec::new();
    for (key, allowed) in RANGES {
        let value = values.pointer(&format!("/{}", key.replace('.', "/")));
        if let Some(value) = value.filter(|v| !v.as_u64().is_some_and(|v| allowed.contains(&v))) {
            let (least, most) = (allowed.start(), allowed.end());
            wrong.push(format!("{key} = {value}: it must be from {least} to {most}"));
        }
    }
    let (default, max) = (config.gateway.page_default, config.gateway.page_max);
    if default > max {
        wrong.push(format!(
            "gateway.page_default = {default}: it must not be above page_max, {max}"
        ));
    }
    anyhow::ensure!(wrong.is_empty(), "configuration: {}", wrong.join("; "));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn numbers(value: &serde_json::Value, path: &str, keys: &mut BTreeSet<String>) {
        match value {
            serde_json::Value::Object(fields) => {
                for (name, value) in fields {
                    let dot = if path.is_empty() { "" } else { "." };
                    numbers(value, &format!("{path}{dot}{name}"), keys);
                }
            }
            serde_json::Value::Number(_) => drop(keys.insert(path.to_owned())),
            _ => {}
        }
    }

    #[test]
    fn every_number_has_a_range_and_its_default_is_in_it() {
        let mut keys = BTreeSet::new();
        numbers(&serde_json::to_value(Config::default()).unwrap(), "", &mut keys);
        let ranged = RANGES.iter().map(|(key, _)| (*key).to_owned());
        assert_eq!(ranged.collect::<BTreeSet<_>>(), keys);
        check(&Config::default()).unwrap();
    }

    #[test]
    fn a_number_out_of_its_range_is_refused_by_name_value_and_what_is_allowed() {
        for (key, allowed) in RANGES {
            let (least, most) = (*allowed.start(), *allowed.end());
            let set = |value: u64| Config::load(None, &[(key, value.to_string())]);
            let page = key.starts_with("gateway.page");
            assert!(page || set(least).is_ok() && set(most).is_ok(), "{key}");
            for value in [least.checked_sub(1), Some(most + 1)].into_iter().flatten() {
                let error = set(value).unwrap_err().to_string();
                let told = format!("{key} = {value}: it must be from {least} to {most}");
                assert!(error.contains(&told), "{error}");
            }
        }
        let pages = [("gateway.page_default", "21".into()), ("gateway.page_max", "20".into())];
        let error = Config::load(None, &pages).unwrap_err().to_string();
        assert!(error.contains("gateway.page_default = 21"), "{error}");
    }
}
