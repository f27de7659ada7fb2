//! Runs one worker for each partition this process owns, as assignments come and go, and starts one
//! again whose failure may pass.

use crate::Tasks;
use chaski_core::Partition;
use std::{collections::BTreeMap, error::Error, fmt::Display, future::Future, time::Duration};
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

/// How the worker of a partition starts again after a failure that may pass.
#[derive(Clone, Copy, Debug)]
pub struct Restarts {
    /// Whose worker it is.
    pub partition: Partition,
    /// What starts again, and from where: a part of a sentence, for the log.
    pub what: &'static str,
    /// The metric that counts it.
    pub counter: &'static str,
    /// The pause before it.
    pub pause: Duration,
}

impl Restarts {
    /// Runs `work` until it ends well, fails in a way that does not pass, or `stop` comes while it
    /// pauses. To look at `stop` while it works is up to `work`.
    pub async fn run<F, Fut, E>(
        self,
        stop: &CancellationToken,
        passes: impl Fn(&E) -> bool,
        mut work: F,
    ) -> Result<(), E>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<(), E>>,
        E: Error,
    {
        let Self { partition, what, counter, pause } = self;
        loop {
            let error = match work().await {
                Err(error) if passes(&error) => error,
                end => return end,
            };
            metrics::counter!(counter).increment(1);
            tracing::warn!(%partition, %error, cause = ?error.source(), "{what}");
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{cell::Cell, io};

    #[tokio::test(start_paused = true)]
    async fn what_may_pass_is_tried_again_after_a_pause_until_it_ends_otherwise() {
        let restarts = Restarts {
            partition: Partition(3),
            what: "the test starts again",
            counter: "chaski_test_restarts_total",
            pause: Duration::from_secs(5),
        };
        let passes = |error: &io::Error| error.kind() == io::ErrorKind::Interrupted;
        let (stop, runs) = (CancellationToken::new(), Cell::new(0));
        let begun = tokio::time::Instant::now();
        let ends = |last: Result<(), io::ErrorKind>| {
            let runs = &runs;
            move || {
                runs.set(runs.get() + 1);
                let end = if runs.get() % 3 == 0 { last } else { Err(io::ErrorKind::Interrupted) };
                async move { end.map_err(io::Error::from) }
            }
        };
        assert!(restarts.run(&stop, passes, ends(Ok(()))).await.is_ok());
        assert_eq!((runs.get(), begun.elapsed().as_secs()), (3, 10), "two pauses");
        let lost = restarts.run(&stop, passes, ends(Err(io::ErrorKind::NotFound))).await;
        assert_eq!(lost.map_err(|error| error.kind()), Err(io::ErrorKind::NotFound));
        assert_eq!(runs.get(), 6);
        // The end of the process does not wait for the pause.
        stop.cancel();
        assert!(restarts.run(&stop, passes, ends(Ok(()))).await.is_ok());
        assert_eq!((runs.get(), begun.elapsed().as_secs()), (7, 20));
    }
}
