//! Owners that follow one another, or think that they do, on a real store.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use crate::generator::{GeneratorConfig, worker};
use async_trait::async_trait;
use chaski_core::{
    ChatId, SourceId,
    placement::Placement,
    record::{Action, Body, Command, Content, Input, Output, Rules, Send, Tick},
};
use chaski_embedded::{Embedded, EmbeddedOptions};
use chaski_ports::{CheckpointStore, Claimed, ProducePolicy, Record, Topic};
use chaski_proto::{SCHEMA, encode_input};
use chaski_runtime::{CancellationToken, Work};
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::watch;

const HERE: Partition = Partition(0);

fn generator(dir: &tempfile::TempDir) -> Generator {
    let embedded = Embedded::open(dir.path(), EmbeddedOptions::default()).unwrap();
    Generator {
        log: embedded.log(),
        checkpoints: embedded.checkpoints(),
        clock: Arc::new(chaski_ports::SystemClock),
        placement: Placement::new(1),
        source: SourceId(1),
        rules: Rules::default(),
        work: Work::new(ROLE),
        config: GeneratorConfig::default(),
    }
}

fn message(key: &str) -> Input {
    let (ana, ben) = ("ana".parse().unwrap(), "ben".parse().unwrap());
    let chat = ChatId::direct(&ana, &ben);
    let content = Content { body: Body::Text("hi".into()), attachments: Vec::new() };
    let (to, content) = (Some(ben), Arc::new(content));
    let send = Send { to, key: key.parse().unwrap(), content, sent_at: None };
    let (device, action) = ("phone".parse().unwrap(), Action::Send(send));
    Input::Command(Command { chat, user: ana, device, accepted_at: 7, action })
}

/// An owner that has restored and folds on its own.
struct Owner<'a> {
    g: &'a Generator,
    epoch: u64,
    fold: Fold,
    next: Offset,
}

impl<'a> Owner<'a> {
    async fn restore(g: &'a Generator, epoch: u64) -> Owner<'a> {
        let (fold, next) = restore(g, HERE, epoch).await.unwrap();
        Self { g, epoch, fold, next }
    }

    fn fold(&mut self, input: Input) -> Vec<Output> {
        let mut outputs = Vec::new();
        self.fold.apply(self.next, input, &mut outputs);
        self.next = self.next.next();
        outputs
    }

    fn checkpoint(&mut self) -> Checkpoint {
        Checkpoint::take(&mut self.fold, self.epoch, Offset(self.next.0 - 1))
    }

    async fn save(&mut self) {
        let (g, epoch) = (self.g, self.epoch);
        self.checkpoint().write(g, HERE, epoch).await.unwrap();
    }

    /// Dies after the buckets are saved and before the cursor is.
    async fn dies_while_it_saves(mut self) {
        for bucket in self.checkpoint().buckets {
            self.g.checkpoints.put_snapshot(HERE, &bucket).await.unwrap();
        }
    }
}

/// What the log says from the place where this owner begins, and the output of one more.
fn goes_on(owner: &mut Owner<'_>, log: &[fn() -> Input]) -> Vec<Output> {
    for input in &log[owner.next.0 as usize..] {
        owner.fold(input());
    }
    owner.fold(message("last"))
}

#[tokio::test]
async fn l6_an_older_owners_cursor_does_not_stand_beside_a_newer_ones_bucket() {
    let dir = tempfile::tempdir().unwrap();
    let g = generator(&dir);
    let log: [fn() -> Input; 2] = [|| message("a"), || message("b")];
    let mut old = Owner::restore(&g, 1).await;
    let mut new = Owner::restore(&g, 2).await;
    new.fold(log[0]());
    new.dies_while_it_saves().await;
    // Was paused, has not heard that it lost the partition, and is further.
    old.fold(log[0]());
    old.fold(log[1]());
    old.save().await;

    let mut next = Owner::restore(&g, 3).await;
    let (mut truth, mut outputs) = (Fold::new(g.placement), Vec::new());
    for (offset, input) in (0..).zip(log.iter().map(|input| input()).chain([message("last")])) {
        outputs.clear();
        truth.apply(Offset(offset), input, &mut outputs);
    }
    assert_eq!(goes_on(&mut next, &log), outputs, "no place is given twice");
}

/// A store in which an older owner saves its checkpoint while a newer one restores, or in which the
/// first bucket that is put takes until `put` is opened.
struct Meanwhile {
    inner: Arc<dyn CheckpointStore>,
    older: Mutex<Option<Checkpoint>>,
    put: Option<Arc<Slow>>,
}

struct Slow {
    /// Whether the first put has begun.
    begun: watch::Sender<bool>,
    open: watch::Sender<bool>,
    /// Cursors that were put before it was done.
    early: watch::Sender<Vec<Offset>>,
}

#[async_trait]
impl CheckpointStore for Meanwhile {
    async fn snapshots(&self, partition: Partition) -> Result<Vec<Snapshot>, PortError> {
        let older = self.older.lock().take();
        if let Some(Checkpoint { as_of, buckets, control }) = older {
            let as_of = as_of.next();
            let control = Snapshot { bucket: CONTROL, epoch: 1, as_of, state: control };
            for snapshot in buckets.iter().chain([&control]) {
                self.inner.put_snapshot(partition, snapshot).await?;
            }
        }
        self.inner.snapshots(partition).await
    }
    async fn snapshot(&self, p: Partition, bucket: u32) -> Result<Option<Snapshot>, PortError> {
        self.inner.snapshot(p, bucket).await
    }
    async fn put_snapshot(&self, p: Partition, snapshot: &Snapshot) -> Result<(), PortError> {
        if let Some(slow) = &self.put {
            let first = snapshot.bucket != CONTROL && !slow.begun.send_replace(true);
            if first {
                let _ = slow.open.subscribe().wait_for(|open| *open).await;
            } else if snapshot.bucket == CONTROL && *slow.begun.borrow() && !*slow.open.borrow() {
                slow.early.send_modify(|early| early.push(snapshot.as_of));
            }
        }
        self.inner.put_snapshot(p, snapshot).await
    }
    async fn save_watermark(
        &self,
        role: &str,
        partition: Partition,
        row: &WatermarkRow,
    ) -> Result<(), PortError> {
        self.inner.save_watermark(role, partition, row).await
    }
    async fn watermarks(
        &self,
        role: &str,
        partition: Partition,
        limit: usize,
    ) -> Result<Vec<WatermarkRow>, PortError> {
        self.inner.watermarks(role, partition, limit).await
    }
    async fn claim(
        &self,
        role: &str,
        partition: Partition,
        assignment: u64,
    ) -> Result<Claimed, PortError> {
        self.inner.claim(role, partition, assignment).await
    }
}

#[tokio::test]
async fn l3_time_is_that_of_the_cursor_also_where_an_older_owner_saves_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let mut g = generator(&dir);
    let tick = || Input::Tick(Tick { now: 60_000, rules: Rules::default() });
    let log: [fn() -> Input; 2] = [|| message("a"), tick];
    let mut old = Owner::restore(&g, 1).await;
    old.fold(log[0]());
    old.fold(log[1]());
    let older = Mutex::new(Some(old.checkpoint()));
    let inner = Arc::clone(&g.checkpoints);
    g.checkpoints = Arc::new(Meanwhile { inner, older, put: None });

    let mut new = Owner::restore(&g, 2).await;
    assert_eq!((new.next, new.fold.control().now), (Offset(0), 0), "not the time of later");
    assert_eq!(new.fold(log[0]()), [], "the older one's bucket holds it, and its output is out");
    new.fold(log[1]());
    assert_eq!(new.fold.control().now, 60_000);
}

#[tokio::test]
async fn l5_state_and_cursor_come_back_together() {
    let dir = tempfile::tempdir().unwrap();
    let g = generator(&dir);
    let mut owner = Owner::restore(&g, 1).await;
    assert_eq!(owner.next, Offset(0));
    // Nothing was folded: who comes next begins at the beginning, too.
    assert_eq!(Owner::restore(&g, 2).await.next, Offset(0));
    owner = Owner::restore(&g, 3).await;
    owner.fold(Input::Tick(Tick { now: 60_000, rules: Rules::default() }));
    owner.fold(message("a"));
    owner.save().await;
    let again = Owner::restore(&g, 4).await;
    let control = |owner: &Owner<'_>| (owner.fold.control().now, owner.fold.control().rules);
    assert_eq!((again.next, control(&again)), (Offset(2), control(&owner)));
}

#[tokio::test]
async fn l5_the_last_cursor_waits_for_the_buckets_of_the_save_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut g = generator(&dir);
    g.config.snapshot_seconds = 1;
    let closed = || watch::Sender::new(false);
    let early = watch::Sender::new(Vec::new());
    let slow = Arc::new(Slow { begun: closed(), open: closed(), early });
    let (inner, older) = (Arc::clone(&g.checkpoints), Mutex::new(None));
    g.checkpoints = Arc::new(Meanwhile { inner, older, put: Some(Arc::clone(&slow)) });
    g.log.create_topics(1).await.unwrap();
    let producer = g.log.producer(ProducePolicy::GiveUp).unwrap();
    let put = |key: &'static str| {
        let record = Record {
            key: Bytes::from_static(b"chat"),
            value: encode_input(&message(key)),
            timestamp_ms: 7,
            record_type: "submit",
            schema: SCHEMA,
            traceparent: None,
        };
        producer.append(Topic::NewMessages, HERE, record).unwrap()
    };
    let offset = put("a").await.unwrap();

    let stop = CancellationToken::new();
    let ends = async {
        let _ = slow.begun.subscribe().wait_for(|begun| *begun).await;
        put("b").await.unwrap();
        // Until it is folded, and what comes of it is out.
        let mut reader = g.log.reader(Topic::Recipients, HERE, Offset(0)).await.unwrap();
        let mut records = 0;
        while records < 2 {
            records += reader.next().await.unwrap().len();
        }
        stop.cancel();
        // As long as a save that does not wait takes many times over.
        let mut early = slow.early.subscribe();
        let told = early.wait_for(|early| !early.is_empty());
        let told = tokio::time::timeout(std::time::Duration::from_millis(300), told).await;
        assert!(told.is_err(), "a cursor while a bucket behind it is not saved");
        slow.open.send_replace(true);
    };
    let (ran, ()) = tokio::join!(worker::run(&g, HERE, 1, &stop), ends);
    ran.unwrap();
    assert!(Owner::restore(&g, 2).await.next > offset, "the state is saved in the end");
}
