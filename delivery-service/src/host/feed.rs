//! Fills the ring of one owned partition from the log, from a place whose watermark is known.

use super::{
    DeliveryHost, ROLE,
    close::CloseReason,
    ring::{Entry, Ring},
};
use chaski_core::{Partition, Verdict, Watermark};
use chaski_ports::{ErrorKind, LogRecord, PortError, Topic};
use chaski_proto::{
    RecipientRecord,
    v1::{self, recipients_record::Event},
    watermark_from_proto,
};
use chaski_runtime::CancellationToken;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use tonic::Request;

/// Pause before starting again after a failure.
const RESTART_DELAY: Duration = Duration::from_millis(500);
/// How often the cursor is shown to the log's stock tools.
const MIRROR_EVERY: Duration = Duration::from_secs(2);

/// Serves the partition until `stop`; after a failure that may pass, starts again.
pub(super) async fn run(
    host: Arc<DeliveryHost>,
    partition: Partition,
    stop: CancellationToken,
    warm: watch::Sender<()>,
) -> Result<(), PortError> {
    loop {
        let result = feed(&host, partition, &stop, &warm).await;
        if let Some(ring) = host.rings.write().remove(&partition) {
            ring.dismiss(CloseReason::Moved);
        }
        let error = match result {
            Err(error) if error.retryable() => error,
            end => return end,
        };
        metrics::counter!("chaski_host_restarts_total").increment(1);
        tracing::warn!(%partition, %error, cause = ?error.source, "delivery starts again");
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(RESTART_DELAY) => {}
        }
    }
}

async fn feed(
    host: &DeliveryHost,
    partition: Partition,
    stop: &CancellationToken,
    warm: &watch::Sender<()>,
) -> Result<(), PortError> {
    let log = &host.parts.log;
    let mut mark = oldest_watermark(host, partition).await?;
    let warm_at = log.bounds(Topic::Recipients, partition).await?.end;
    let mut reader = log.reader(Topic::Recipients, partition, mark.next).await?;
    let ring = Arc::new(Ring::new(mark.next, host.config.ring_bytes));
    tracing::info!(%partition, from = %mark.next, to = %warm_at, "delivery warms up");
    let mut serving = false;
    let mut mirror = interval(MIRROR_EVERY);
    mirror.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut mirrored = None;
    loop {
        if !serving && mark.next >= warm_at {
            serving = true;
            host.rings.write().insert(partition, Arc::clone(&ring));
            warm.send_replace(());
            tracing::info!(%partition, at = %mark.next, "delivery serves");
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            _ = mirror.tick(), if mirrored != Some(mark.next) => {
                mirrored = Some(mark.next);
                let at = [(partition, mark.next)];
                // For display only; the next one corrects a failure.
                let _ = log.mirror("chaski.mirror.delivery", Topic::Recipients, &at).await;
            }
            records = reader.next() => take(host, &ring, &mut mark, records?),
        }
    }
}

/// The oldest place to start from whose watermark is known: the ring is warm from there on.
async fn oldest_watermark(
    host: &DeliveryHost,
    partition: Partition,
) -> Result<Watermark, PortError> {
    let request = v1::WatermarksRequest { partition: partition.0, limit: 100 };
    let reply = host.parts.messages.watermarks(Request::new(request)).await.map_err(|error| {
        PortError::new(ErrorKind::Unavailable, "asking the message service where to start")
            .caused_by(error)
    })?;
    let start = host.parts.log.bounds(Topic::Recipients, partition).await?.start;
    let marks = reply.into_inner().watermarks;
    let kept = marks.iter().rev().map(watermark_from_proto).find(|mark| mark.next >= start);
    Ok(kept.unwrap_or_default())
}

/// Applies a batch: what is fresh goes into the ring, verdicts to who waits for them.
fn take(host: &DeliveryHost, ring: &Ring, mark: &mut Watermark, records: Vec<LogRecord>) {
    let mut entries = Vec::with_capacity(records.len());
    for record in records {
        mark.next = record.offset.next();
        let bytes = record.value.len();
        let placed = RecipientRecord::decode(record.value);
        let entry = placed.and_then(|placed| {
            let Some((source, origin)) = placed.origin else { return placed.entry.map(|_| None) };
            match mark.admit(source, origin, placed.prev) {
                Verdict::Apply => placed.entry.map(Some),
                Verdict::Repeat => Ok(count("chaski_repeats_total")),
                Verdict::Hole => Ok(count("chaski_holes_total")),
            }
        });
        match entry {
            Ok(Some(entry)) => match entry.event {
                Event::Message(_) | Event::ChatChange(_) | Event::Rejection(_) => {
                    entries.push(Entry::new(record.offset, entry.users, entry.event, bytes));
                }
                Event::Verdict(verdict) => host.verdicts.settle(verdict),
                Event::Duplicate(_) | Event::ConnectionRequest(_) | Event::Marks(_) => {}
            },
            Ok(None) => {}
            // The message service buries it and raises the alert.
            Err(cause) => {
                count::<()>("chaski_undecodable_total");
                tracing::error!(offset = %record.offset, %cause, "a record cannot be shown");
            }
        }
    }
    ring.push(entries, mark.next);
}

/// Counts a record that is passed over.
fn count<T>(name: &'static str) -> Option<T> {
    metrics::counter!(name, "role" => ROLE).increment(1);
    None
}
