//! The worker of one partition: read, fold, append, follow, save.

use super::{
    Generator, ROLE,
    checkpoint::{self, Checkpoint},
    frontier::{self, Inflight},
};
use bytes::Bytes;
use chaski_core::{
    Law, Offset, Origin, Partition,
    fold::Fold,
    record::{Event, Input, Output, Tick},
    uphold,
};
use chaski_planted::Bug;
use chaski_ports::{
    Appending, ErrorKind, LogRecord, PortError, ProducePolicy, Producer, Record, Topic,
};
use chaski_proto::{EncodedEvent, SCHEMA, decode_input, encode_input};
use chaski_records::Undertaker;
use chaski_runtime::{CancellationToken, Tally};
use futures::stream::{FuturesUnordered, StreamExt};
use std::{pin::pin, sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, interval_at},
};

/// How often the cursor is shown to the log's stock tools.
const MIRROR_EVERY: Duration = Duration::from_secs(2);
/// What a record that is read or made costs here, about ([`Tally`]).
const RECORD_COST: Duration = Duration::from_micros(10);

/// Folds the partition until `stop` or the first failure.
pub(super) async fn run(
    g: &Generator,
    partition: Partition,
    epoch: u64,
    stop: &CancellationToken,
) -> Result<(), PortError> {
    // From the claim on, what an older owner saves counts less than what this one saves (L6).
    let epoch = g.checkpoints.claim(ROLE, partition, epoch).await?.epoch;
    let (fold, next) = checkpoint::restore(g, partition, epoch).await?;
    tracing::info!(%partition, epoch, from = %next, "the fan-out starts");
    let producer = g.log.producer(ProducePolicy::Forever)?;
    let mut reader = g.log.reader(Topic::NewMessages, partition, next).await?;

    let (inflight, followed) = mpsc::channel(g.config.inflight_max);
    let (frontier, reached) = watch::channel(next.0.checked_sub(1).map(Offset));
    let mut follower = pin!(frontier::follow(followed, frontier));

    let snapshot_every = Duration::from_secs(g.config.snapshot_seconds);
    let mut snapshot = interval_at(Instant::now() + snapshot_every, snapshot_every);
    let mut mirror = interval_at(Instant::now() + MIRROR_EVERY, MIRROR_EVERY);
    let mut tick = interval(Duration::from_secs(g.config.tick_seconds));
    for interval in [&mut snapshot, &mut mirror, &mut tick] {
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    let mut worker = Worker {
        g,
        producer,
        partition,
        epoch,
        fold,
        last: None,
        taken: None,
        prev: vec![None; g.placement.partitions() as usize],
        inflight,
        tally: g.work.tally(partition),
    };
    worker.tally.begin(next);
    let (mut saving, mut ticking) = (FuturesUnordered::new(), FuturesUnordered::new());
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            result = &mut follower => return result.and_then(|()| Err(follower_gone())),
            Some(saved) = saving.next() => saved?,
            _ = snapshot.tick(), if saving.is_empty() => {
                let checkpoint = worker.checkpoint();
                saving.extend(checkpoint.map(|c| save(g, partition, epoch, c, reached.clone())));
            }
            Some(ticked) = ticking.next() => drop(ticked?),
            _ = tick.tick(), if ticking.is_empty() => ticking.push(worker.tick()?),
            _ = mirror.tick() => {
                let at = reached.borrow().map_or(next, Offset::next);
                // For display only; the next one corrects a failure.
                let _ = g.log.mirror("chaski.mirror.generator", Topic::NewMessages, &[(partition, at)]).await;
            }
            records = reader.next() => worker.take(records?, &mut follower).await?,
        }
    }
    // The orderly end: what is on its way is waited for, and the state is saved.
    let last = worker.checkpoint();
    drop(worker);
    follower.await?;
    // One after the other: the last cursor counts on the buckets of the save before it, too.
    while let Some(saved) = saving.next().await {
        saved?;
    }
    match last {
        Some(last) => save(g, partition, epoch, last, reached).await,
        None => Ok(()),
    }
}

/// Writes a checkpoint once the frontier has reached it.
async fn save(
    g: &Generator,
    partition: Partition,
    epoch: u64,
    checkpoint: Checkpoint,
    mut reached: watch::Receiver<Option<Offset>>,
) -> Result<(), PortError> {
    let as_of = checkpoint.as_of;
    if !chaski_planted::is(Bug::CursorBeforeOutputs) {
        reached.wait_for(|f| f.is_some_and(|f| f >= as_of)).await.map_err(|_| follower_gone())?;
    }
    checkpoint.write(g, partition, epoch).await
}

fn follower_gone() -> PortError {
    PortError::new(ErrorKind::Unknown, "an output of the fan-out was not acknowledged")
}

struct Worker<'a> {
    g: &'a Generator,
    /// Never gives up; of this incarnation.
    producer: Arc<dyn Producer>,
    partition: Partition,
    epoch: u64,
    fold: Fold,
    /// The last input folded.
    last: Option<Offset>,
    /// The last input of which a checkpoint was taken.
    taken: Option<Offset>,
    /// What was last sent to each partition of `recipients` in this incarnation.
    prev: Vec<Option<Origin>>,
    inflight: mpsc::Sender<Inflight>,
    tally: Arc<Tally>,
}

impl Worker<'_> {
    /// What changed since the last checkpoint was taken, if anything did.
    fn checkpoint(&mut self) -> Option<Checkpoint> {
        let as_of = self.last.filter(|last| self.taken != Some(*last))?;
        self.taken = Some(as_of);
        Some(Checkpoint::take(&mut self.fold, self.epoch, as_of))
    }

    /// Writes time and rules into the partition; they hold from the record's place on.
    fn tick(&self) -> Result<Appending, PortError> {
        let now = self.g.clock.now_ms();
        let record = Record {
            key: Bytes::from_static(b"#control"),
            value: encode_input(&Input::Tick(Tick { now, rules: self.g.rules })),
            timestamp_ms: now,
            record_type: "tick",
            schema: SCHEMA,
            traceparent: None,
        };
        let lag = now.saturating_sub(self.fold.control().now).max(0) as f64 / 1000.0;
        let partition = self.partition.to_string();
        metrics::gauge!("chaski_generator_time_lag_seconds", "partition" => partition).set(lag);
        self.show_window();
        self.producer.append(Topic::NewMessages, self.partition, record)
    }

    /// How far back messages that are sent again are known, and how many (L2).
    fn show_window(&self) {
        let (keys, window_ms) = self.fold.idempotency_window();
        let partition = self.partition.to_string();
        metrics::gauge!("chaski_generator_idempotency_keys", "partition" => partition.clone())
            .set(keys as f64);
        metrics::gauge!("chaski_generator_idempotency_window_seconds", "partition" => partition)
            .set(window_ms as f64 / 1000.0);
    }

    /// Folds a batch; while there is no room, the outputs on their way are followed.
    async fn take<F>(&mut self, records: Vec<LogRecord>, follower: &mut F) -> Result<(), PortError>
    where
        F: Future<Output = Result<(), PortError>> + Unpin,
    {
        let mut outputs = Vec::new();
        for record in records {
            outputs.clear();
            let (offset, at_ms) = (record.offset, record.timestamp_ms);
            uphold!(
                Law::L5,
                self.last.is_none_or(|last| offset > last),
                "the log went back to {offset}"
            );
            let appends = match decode_input(record.value.clone()) {
                Ok(input) => {
                    self.fold.apply(offset, input, &mut outputs);
                    self.plant(&mut outputs);
                    let all = self.append(offset, &outputs);
                    tokio::select! {
                        appends = all => appends?,
                        result = &mut *follower => return result,
                    }
                }
                Err(_) if record.key.starts_with(b"#") && record.value.is_empty() => Vec::new(),
                Err(cause) => {
                    let letters = Undertaker { producer: &*self.producer, role: ROLE };
                    let place = (Topic::NewMessages, self.partition);
                    letters.bury(place, &record, &cause, self.g.clock.now_ms())?.into()
                }
            };
            metrics::counter!("chaski_generator_inputs_total").increment(1);
            metrics::counter!("chaski_generator_outputs_total").increment(outputs.len() as u64);
            self.last = Some(offset);
            self.tally.took(1, RECORD_COST * (1 + outputs.len() as u32), offset.next(), at_ms);
            let input = Inflight { offset, outputs: appends };
            tokio::select! {
                sent = self.inflight.send(input) => {
                    sent.map_err(|_| follower_gone())?;
                }
                result = &mut *follower => return result,
            }
        }
        Ok(())
    }

    /// Nothing, but where a bug is planted.
    fn plant(&self, outputs: &mut Vec<Output>) {
        let waiting = self.inflight.max_capacity() - self.inflight.capacity();
        if chaski_planted::is(Bug::DropsWhenFull) && waiting > 3 {
            outputs.clear();
        }
        if chaski_planted::is(Bug::RejectionToldTwice)
            && let Some(last) = outputs.last().filter(|o| matches!(o.event, Event::Rejected(_)))
        {
            let again = Output { index: last.index + 1, ..last.clone() };
            outputs.push(again);
        }
    }

    /// Appends the outputs of one input, in order; waits while the producer's queue is full.
    async fn append(
        &mut self,
        offset: Offset,
        outputs: &[Output],
    ) -> Result<Vec<Appending>, PortError> {
        let source = (self.g.source, self.partition, offset);
        let mut appends = Vec::with_capacity(outputs.len());
        let mut shared: Option<EncodedEvent> = None;
        for output in outputs {
            let event = match shared.take() {
                Some(event) if matches!(output.event, Event::Message(_)) => event,
                _ => EncodedEvent::of(output),
            };
            let prev = &mut self.prev[output.partition.0 as usize];
            let (key, value) = event.for_output(output, source, *prev);
            *prev = Some(Origin { offset, index: output.index });
            let record = Record {
                key,
                value,
                timestamp_ms: event.at_ms(),
                record_type: event.record_type,
                schema: SCHEMA,
                traceparent: None,
            };
            shared = Some(event);
            loop {
                match self.producer.append(Topic::Recipients, output.partition, record.clone()) {
                    Ok(appending) => break appends.push(appending),
                    Err(error) if error.kind == ErrorKind::Full => {
                        metrics::counter!("chaski_generator_full_total").increment(1);
                        tokio::time::sleep(Duration::from_millis(2)).await;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(appends)
    }
}
