//! Runs one worker for each partition this process owns, as assignments come and go.

use crate::Tasks;
use chaski_core::Partition;
use std::{collections::BTreeMap, fmt::Display, future::Future};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

/// The partitions that a process owns in one role, each with the epoch of its assignment.
pub type Owned = BTreeMap<Partition, u64>;

struct Running {
    epoch: u64,
    stop: CancellationToken,
    done: oneshot::Receiver<()>,
}

/// Keeps one worker running for each owned partition until the tasks stop. A worker whose
/// partition goes, or comes back with another epoch, is stopped and waited for before the next
/// one starts.
pub async fn run_owned<F, Fut, E>(
    tasks: &Tasks,
    name: &str,
    mut owned: watch::Receiver<Owned>,
    worker: F,
) where
    F: Fn(Partition, u64, CancellationToken) -> Fut,
    Fut: Future<Output = Result<(), E>> + Send + 'static,
    E: Display,
{
    let stop = tasks.stop();
    let mut running = BTreeMap::<Partition, Running>::new();
    loop {
        let target = owned.borrow_and_update().clone();
        let gone: Vec<Partition> = running
            .iter()
            .filter(|(partition, r)| target.get(partition) != Some(&r.epoch))
            .map(|(partition, _)| *partition)
            .collect();
        let ending: Vec<Running> = gone.iter().filter_map(|p| running.remove(p)).collect();
        ending.iter().for_each(|r| r.stop.cancel());
        for worker in ending {
            // An error here means that the worker is gone already.
            let _ = worker.done.await;
        }
        for (partition, epoch) in target {
            running.entry(partition).or_insert_with(|| {
                let (settle, done) = oneshot::channel::<()>();
                let stop = stop.child_token();
                let task = worker(partition, epoch, stop.clone());
                tasks.spawn(format!("{name}/{partition}"), async move {
                    let result = task.await;
                    drop(settle);
                    result
                });
                Running { epoch, stop, done }
            });
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = owned.changed() => if changed.is_err() { return stop.cancelled().await },
        }
    }
}
