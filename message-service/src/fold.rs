//! The fold of one partition of `recipients` into the stores: read, filter, write, and only then
//! move the watermark (L5).

use crate::{ROLE, days::day_of, rows, service::MessageService};
use chaski_core::{
    Offset, Origin, Partition, Position, SourceId, Verdict, Watermark, connection::Blocks,
    record::UnixMs,
};
use chaski_planted::Bug;
use chaski_ports::{InboxDay, LogRecord, PortError, StoreBatch, Topic, WatermarkRow};
use chaski_proto::{Malformed, RecipientRecord, v1};
use chaski_records::{ALERT_HOLE, Undertaker};
use chaski_runtime::{CancellationToken, Restarts, Tally};
use std::{collections::HashSet, sync::Arc, time::Duration};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

/// So many records in one batch are written without waiting for more.
const FULL_BATCH: usize = 500;
/// Edges of blocks that are loaded at once.
const EDGES: usize = 1000;
/// How often the cursor is shown to the log's stock tools.
const MIRROR_EVERY: Duration = Duration::from_secs(2);
/// What a record costs here, and each row that it becomes, about ([`Tally`]).
const RECORD_COST: Duration = Duration::from_micros(10);
const ROW_COST: Duration = Duration::from_micros(4);

/// Folds the partition until `stop`; after a failure that may pass, starts again from the last
/// watermark.
pub(crate) async fn run(
    service: &MessageService,
    partition: Partition,
    epoch: u64,
    stop: CancellationToken,
) -> Result<(), PortError> {
    let restarts = Restarts {
        partition,
        what: "storing starts again from the last watermark",
        counter: "chaski_messages_restarts_total",
        pause: Duration::from_millis(service.config.restart_delay_ms),
    };
    let again = || fold(service, partition, epoch, &stop);
    let result = restarts.run(&stop, PortError::owner_may_retry, again).await;
    service.progress.leave(partition);
    result
}

async fn fold(
    service: &MessageService,
    partition: Partition,
    epoch: u64,
    stop: &CancellationToken,
) -> Result<(), PortError> {
    // From the claim on, what an older owner saves counts less than what this one saves (L6).
    let epoch = service.ports.checkpoints.claim(ROLE, partition, epoch).await?.epoch;
    let rows = service.ports.checkpoints.watermarks(ROLE, partition, 1).await?;
    let mut mark = rows.into_iter().next().map(|row| row.watermark).unwrap_or_default();
    if chaski_planted::is(Bug::FilterWithoutPlace) {
        mark.high.clear();
    }
    tracing::info!(%partition, epoch, from = %mark.next, "storing starts");
    let mut reader = service.ports.log.reader(Topic::Recipients, partition, mark.next).await?;
    let blocks = blocks_at(service, partition, mark.next).await?;
    let days = service.ports.messages.inbox_days(partition).await?;
    let days = days.into_iter().map(|day| day.day).collect();
    service.progress.advance(partition, &mark);
    let tally = service.work.tally(partition);
    tally.begin(mark.next);
    let saved = mark.clone();
    let mut fold = Fold { service, partition, epoch, mark, saved, blocks, days, hole: None, tally };
    let every = Duration::from_millis(service.config.watermark_ms);
    let mut save_at = Instant::now() + every;
    let write_every = Duration::from_millis(service.config.write_every_ms);
    let mut write_at = Instant::now();
    let mut mirror = interval(MIRROR_EVERY);
    mirror.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut mirrored = None;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return fold.save().await,
            () = sleep_until(save_at), if fold.saved != fold.mark => {
                fold.save().await?;
                save_at = Instant::now() + every;
            }
            _ = mirror.tick(), if mirrored != Some(fold.mark.next) => {
                mirrored = Some(fold.mark.next);
                let at = [(partition, fold.mark.next)];
                // For display only; the next one corrects a failure.
                let _ = service.ports.log.mirror("chaski.mirror.messages", Topic::Recipients, &at).await;
            }
            records = async { sleep_until(write_at).await; reader.next().await } => {
                let records = records?;
                // A full batch is worth a write; fewer wait for company, in the log.
                let pause = if records.len() < FULL_BATCH { write_every } else { Duration::ZERO };
                write_at = Instant::now() + pause;
                fold.take(records).await?;
            }
        }
    }
}

/// The blocks that hold at `place`. Those behind it may be stored already, by whoever stored this
/// partition before and saved no watermark since; they are passed again (L7).
async fn blocks_at(
    service: &MessageService,
    partition: Partition,
    place: Offset,
) -> Result<Blocks, PortError> {
    let (mut blocks, mut last) = (Blocks::default(), None);
    loop {
        let page = service.ports.connections.blocks(partition, last.as_ref(), EDGES).await?;
        let whole = page.len() < EDGES;
        last = page.last().cloned();
        page.into_iter().filter(|edge| edge.offset < place).for_each(|edge| blocks.pass(edge));
        if whole {
            return Ok(blocks);
        }
    }
}

struct Fold<'a> {
    service: &'a MessageService,
    partition: Partition,
    epoch: u64,
    mark: Watermark,
    saved: Watermark,
    /// The blocks that hold at `mark`; between, at the record that is applied.
    blocks: Blocks,
    /// The days whose first position is known.
    days: HashSet<u32>,
    /// Since when records wait behind a hole, and whether that was told.
    hole: Option<(Instant, bool)>,
    tally: Arc<Tally>,
}

impl Fold<'_> {
    /// Stores a batch of records; on return its rows are durable and may be read.
    async fn take(&mut self, records: Vec<LogRecord>) -> Result<(), PortError> {
        let mut batch = StoreBatch::default();
        // The watermark moves only once the rows are durable.
        let mut mark = self.mark.clone();
        for record in &records {
            if let Err(cause) = self.apply(&mut batch, &mut mark, record) {
                self.bury(record, &cause).await?;
            }
            mark.next = record.offset.next();
        }
        metrics::counter!("chaski_stored_records_total").increment(records.len() as u64);
        let rows = batch.inbox.len() + batch.messages.len();
        metrics::counter!("chaski_stored_rows_total").increment(rows as u64);
        if !batch.blocks.is_empty() && !batch.memberships.is_empty() {
            // Who joins a chat with its history must find the blocks of before there (L7).
            let blocks = std::mem::take(&mut batch.blocks);
            let first = StoreBatch { blocks, ..StoreBatch::default() };
            self.service.ports.messages.write(first).await?;
        }
        let written = self.service.ports.messages.write(batch).await;
        if !chaski_planted::is(Bug::FailedWritesPass) {
            written?;
        }
        self.service.progress.advance(self.partition, &mark);
        if let Some(last) = records.last() {
            let cost = RECORD_COST * records.len() as u32 + ROW_COST * rows as u32;
            self.tally.took(records.len(), cost, mark.next, last.timestamp_ms);
        }
        self.mark = mark;
        self.tell_hole().await
    }

    fn apply(
        &mut self,
        batch: &mut StoreBatch,
        mark: &mut Watermark,
        record: &LogRecord,
    ) -> Result<(), Malformed> {
        let placed = RecipientRecord::decode(record.value.clone())?;
        let Some((source, origin)) = placed.origin else { return placed.entry.map(drop) };
        let verdict = match mark.admit(source, origin, placed.prev) {
            Verdict::Repeat if chaski_planted::is(Bug::StoreWithoutFilter) => Verdict::Apply,
            verdict => verdict,
        };
        match verdict {
            Verdict::Apply => {
                self.hole = None;
                let entry = placed.entry?;
                self.note_day(batch, record.offset, entry.at_ms);
                let place = (self.partition, record.offset);
                let kept = |own| self.service.config.kept_days(own);
                let origin = to_proto(source, origin);
                rows::add(batch, &mut self.blocks, place, (origin, &kept), &entry)
            }
            Verdict::Repeat => {
                metrics::counter!("chaski_repeats_total", "role" => ROLE).increment(1);
                Ok(())
            }
            Verdict::Hole => {
                metrics::counter!("chaski_holes_total", "role" => ROLE).increment(1);
                self.hole.get_or_insert((Instant::now(), false));
                Ok(())
            }
        }
    }

    /// Stores where a day begins. The first one of a partition begins with it.
    fn note_day(&mut self, batch: &mut StoreBatch, offset: Offset, at_ms: UnixMs) {
        let day = day_of(at_ms);
        let is_first = self.days.is_empty() && self.mark == Watermark::default();
        if self.days.insert(day) {
            let first = Position::at(if is_first { Offset(0) } else { offset });
            batch.days.push(InboxDay { partition: self.partition, day, first });
        }
    }

    async fn bury(&self, record: &LogRecord, cause: &Malformed) -> Result<(), PortError> {
        let undertaker = Undertaker { producer: &*self.service.producer, role: ROLE };
        let place = (Topic::Recipients, self.partition);
        for append in undertaker.bury(place, record, cause, self.service.ports.clock.now_ms())? {
            append.await?;
        }
        Ok(())
    }

    async fn tell_hole(&mut self) -> Result<(), PortError> {
        let patience = Duration::from_secs(self.service.config.hole_alert_seconds);
        if let Some((since, told @ false)) = &mut self.hole
            && since.elapsed() >= patience
        {
            *told = true;
            let at = Position::at(self.mark.next);
            let detail =
                format!("partition {} waits behind a hole at position {at}", self.partition);
            let undertaker = Undertaker { producer: &*self.service.producer, role: ROLE };
            let key = format!("recipients/{}", self.partition);
            undertaker.alert(ALERT_HOLE, key, detail, self.service.ports.clock.now_ms())?.await?;
        }
        Ok(())
    }

    async fn save(&mut self) -> Result<(), PortError> {
        if self.saved != self.mark {
            let row = WatermarkRow { epoch: self.epoch, watermark: self.mark.clone() };
            let saved =
                self.service.ports.checkpoints.save_watermark(ROLE, self.partition, &row).await;
            if !chaski_planted::is(Bug::FailedWritesPass) {
                saved?;
            }
            self.saved = self.mark.clone();
        }
        Ok(())
    }
}

fn to_proto((source, partition): (SourceId, Partition), origin: Origin) -> v1::Origin {
    let place = v1::Place { offset: origin.offset.0, index: origin.index };
    v1::Origin { source: source.0, partition: partition.0, place: Some(place) }
}
