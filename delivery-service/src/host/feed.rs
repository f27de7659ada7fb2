//! Fills the ring of one owned partition from the log, from a place whose watermark is known.

use super::{
    DeliveryHost, ROLE,
    blocks::PartitionBlocks,
    catch_up, cost,
    entry::Entry,
    past::Past,
    pulse::{CHECKS_MAX, Pulse},
    ring::Ring,
};
use chaski_core::{Offset, Partition, UserId, Verdict, Watermark, connection::BlockEdge};
use chaski_planted::Bug;
use chaski_ports::{ErrorKind, LogRecord, PortError, Topic};
use chaski_proto::{
    Malformed, RecipientEntry, RecipientRecord, connection_change,
    v1::{self, recipients_record::Event},
    watermark_from_proto,
};
use chaski_runtime::{CancellationToken, Restarts, Tally};
use futures::stream::{FuturesUnordered, StreamExt as _};
use parking_lot::Mutex;
use std::{convert::Infallible, sync::Arc, time::Duration};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tonic::Request;

/// Pause before starting again after a failure.
const RESTART_DELAY: Duration = Duration::from_millis(500);
/// How often the cursor is shown to the log's stock tools.
const MIRROR_EVERY: Duration = Duration::from_secs(2);
/// How often it is asked what inboxes still keep.
const RETENTION_EVERY: Duration = Duration::from_secs(60);

/// Serves the partition until `stop`; after a failure that may pass, starts again.
pub(super) async fn run(
    host: Arc<DeliveryHost>,
    partition: Partition,
    stop: CancellationToken,
) -> Result<(), PortError> {
    let restarts = Restarts {
        partition,
        what: "delivery starts again",
        counter: "chaski_host_restarts_total",
        pause: RESTART_DELAY,
    };
    let serve = || async {
        let end = feed(&host, partition, &stop).await;
        host.withdraw(partition);
        end
    };
    restarts.run(&stop, PortError::retryable, serve).await
}

async fn feed(
    host: &DeliveryHost,
    partition: Partition,
    stop: &CancellationToken,
) -> Result<(), PortError> {
    let watermarks = watermarks(host, partition, 100).await?;
    let mark = oldest(host, partition, &watermarks).await?;
    let ring =
        Arc::new(Ring::new(mark.next, host.config.ring_bytes, host.config.receipts_session_max));
    ring.expire_before(Offset(watermarks.inbox_start));
    let blocks = PartitionBlocks::load(host, partition, mark.next).await?;
    let tally = host.work.tally(partition);
    tally.begin(mark.next);
    let past = Arc::new(Mutex::new(Past::new(mark.clone(), blocks)));
    ring.waiting.keeps(mark.next, Offset(0));
    let own = Arc::clone(&past);
    let feed = Feed { host, partition, ring: Arc::clone(&ring), mark, past: own, tally };
    tokio::select! {
        end = feed.run(stop) => end,
        never = follow_retention(host, partition, &ring) => match never {},
        never = catch_up::run(host, partition, &ring, &past) => match never {},
    }
}

/// Asks again and again what inboxes still keep.
async fn follow_retention(host: &DeliveryHost, partition: Partition, ring: &Ring) -> Infallible {
    loop {
        tokio::time::sleep(RETENTION_EVERY).await;
        // Where there is no answer the next one corrects it.
        if let Ok(reply) = watermarks(host, partition, 1).await {
            ring.expire_before(Offset(reply.inbox_start));
        }
    }
}

async fn watermarks(
    host: &DeliveryHost,
    partition: Partition,
    limit: u32,
) -> Result<v1::WatermarksReply, PortError> {
    let request = v1::WatermarksRequest { partition: partition.0, limit };
    let reply = host.parts.messages.watermarks(Request::new(request)).await.map_err(|error| {
        PortError::new(ErrorKind::Unavailable, "asking the message service where to start")
            .caused_by(error)
    })?;
    Ok(reply.into_inner())
}

/// The oldest place to start from whose watermark is known: the ring is warm from there on.
async fn oldest(
    host: &DeliveryHost,
    partition: Partition,
    reply: &v1::WatermarksReply,
) -> Result<Watermark, PortError> {
    let start = host.parts.log.bounds(Topic::Recipients, partition).await?.start;
    let marks = reply.watermarks.iter().rev().map(watermark_from_proto);
    Ok(marks.into_iter().find(|mark| mark.next >= start).unwrap_or_default())
}

/// A partition being read into its ring.
struct Feed<'a> {
    host: &'a DeliveryHost,
    partition: Partition,
    ring: Arc<Ring>,
    /// What has been read.
    mark: Watermark,
    /// The blocks that hold there, and what was before.
    past: Arc<Mutex<Past>>,
    tally: Arc<Tally>,
}

impl Feed<'_> {
    async fn run(mut self, stop: &CancellationToken) -> Result<(), PortError> {
        let (host, partition) = (self.host, self.partition);
        let log = &host.parts.log;
        let bounds = || log.bounds(Topic::Recipients, partition);
        let warm_at = bounds().await?.end;
        let mut reader = log.reader(Topic::Recipients, partition, self.mark.next).await?;
        tracing::info!(%partition, from = %self.mark.next, to = %warm_at, "delivery warms up");
        let mut serving = false;
        let mut pulse = Pulse::new(warm_at);
        let every = Duration::from_millis(host.config.behind_ms) / CHECKS_MAX;
        let (mut check, mut asking) = (interval(every), FuturesUnordered::new());
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut mirror = interval(MIRROR_EVERY);
        mirror.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut mirrored = None;
        loop {
            let keeps_up = pulse.keeps_up(self.mark.next);
            match (serving, keeps_up) {
                (false, true) => {
                    host.serve(partition, &self.ring);
                    tracing::info!(%partition, at = %self.mark.next, "delivery serves");
                }
                (true, false) => {
                    host.withdraw(partition);
                    count("chaski_host_behind_total");
                    tracing::warn!(%partition, at = %self.mark.next, "the end of the log is not reached: clients are sent away");
                }
                _ => {}
            }
            serving = keeps_up;
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                _ = mirror.tick(), if mirrored != Some(self.mark.next) => {
                    mirrored = Some(self.mark.next);
                    let at = [(partition, self.mark.next)];
                    // For display only; the next one corrects a failure.
                    let _ = log.mirror("chaski.mirror.delivery", Topic::Recipients, &at).await;
                }
                _ = check.tick() => {
                    self.tally.spend(cost::of_sockets(self.ring.sessions(), every));
                    pulse.check();
                    if asking.is_empty() {
                        asking.push(bounds());
                    }
                }
                // Where there is no answer the checks go on.
                Some(bounds) = asking.next() => if let Ok(bounds) = bounds {
                    pulse.heard(bounds.end);
                },
                records = reader.next() => self.take(records?),
            }
        }
    }

    /// Applies a batch: what is fresh goes into the ring, verdicts and receipts to who waits for
    /// them.
    fn take(&mut self, records: Vec<LogRecord>) {
        let mut batch = Batch::with_capacity(records.len());
        if let Some(last) = records.last() {
            let spent = cost::RECORD * records.len() as u32;
            self.tally.took(records.len(), spent, last.offset.next(), last.timestamp_ms);
        }
        let past = Arc::clone(&self.past);
        let past = &mut *past.lock();
        for record in records {
            self.mark.next = record.offset.next();
            let bytes = record.value.len();
            let fresh = fresh(&mut self.mark, record.value, count);
            let applied = fresh.and_then(|fresh| match fresh {
                Some(entry) => self.apply((record.offset, bytes), entry, past, &mut batch),
                None => Ok(()),
            });
            // The message service buries it and raises the alert.
            if let Err(cause) = applied {
                count("chaski_undecodable_total");
                tracing::error!(offset = %record.offset, %cause, "a record cannot be shown");
            }
        }
        past.note(&self.mark);
        self.host.backlog.back(self.host.parts.source, &self.mark, Instant::now());
        // Behind the edges: who reads again up to the ring finds them.
        self.ring.push(batch.entries, self.mark.next);
        batch.receipts.iter().for_each(|(users, marks)| self.ring.tell(users, marks));
    }

    fn apply(
        &self,
        (offset, bytes): (Offset, usize),
        entry: RecipientEntry,
        past: &mut Past,
        batch: &mut Batch,
    ) -> Result<(), Malformed> {
        let RecipientEntry { users, event, at_ms, .. } = entry;
        let mut hidden = Vec::new();
        match &event {
            Event::Message(message) => {
                if !chaski_planted::is(Bug::HostShowsTheBlocked) {
                    hidden = past.blocks.hidden_from(&users, &message.sender_id);
                }
                past.blocks.watch(self.host, (self.partition, offset), &users, message);
            }
            Event::ConnectionChange(change) => {
                let change = connection_change(change, at_ms)?;
                if let Some(edge) = BlockEdge::of(&users[0], offset, &change) {
                    past.pass(edge);
                }
            }
            Event::ChatChange(_) | Event::Rejection(_) | Event::SettingsChange(_) => {}
            Event::Verdict(_) | Event::Duplicate(_) | Event::Marks(_) => {
                match event {
                    Event::Verdict(verdict) => self.host.verdicts.settle(verdict),
                    Event::Marks(marks) => batch.receipts.push((users, marks)),
                    _ => {}
                }
                return Ok(());
            }
        }
        batch.entries.push(Entry::new(offset, users, event, bytes).hide_from(hidden));
        Ok(())
    }
}

/// What a record says, where it is fresh; else the filter's reason goes to `passed_over`, as the
/// name of a metric. Moves the watermark on.
pub(super) fn fresh(
    mark: &mut Watermark,
    value: bytes::Bytes,
    passed_over: impl FnOnce(&'static str),
) -> Result<Option<RecipientEntry>, Malformed> {
    let placed = RecipientRecord::decode(value)?;
    let Some((source, origin)) = placed.origin else { return placed.entry.map(|_| None) };
    match mark.admit(source, origin, placed.prev) {
        Verdict::Apply => return placed.entry.map(Some),
        Verdict::Repeat if chaski_planted::is(Bug::HostWithoutFilter) => {
            return placed.entry.map(Some);
        }
        Verdict::Repeat => passed_over("chaski_repeats_total"),
        Verdict::Hole => passed_over("chaski_holes_total"),
    }
    Ok(None)
}

/// What a batch of records gives.
struct Batch {
    entries: Vec<Entry>,
    receipts: Vec<(Vec<UserId>, v1::ReceiptMarks)>,
}

impl Batch {
    fn with_capacity(records: usize) -> Self {
        Self { entries: Vec::with_capacity(records), receipts: Vec::new() }
    }
}

/// Counts a record that is passed over.
fn count(name: &'static str) {
    metrics::counter!(name, "role" => ROLE).increment(1);
}
