//! Runs one worker for each partition this process owns, as assignments come and go, and starts one
//! again whose failure may pass.

use crate::Tasks;
use chaski_core::Partition;
use std::{collections::BTreeMap, error::Error, fmt::Display, future::Future, time::Duration};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

/// The partitions that a process owns in one role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owned {
    /// The coordinator's session in which they are owned, 0 for none. What was owned in another one
    /// has ended, also where the same partitions come back with the same epochs.
    pub session: u64,
    /// Each with the epoch of its assignment.
    pub partitions: BTreeMap<Partition, u64>,
}

impl FromIterator<(Partition, u64)> for Owned {
    fn from_iter<I: IntoIterator<Item = (Partition, u64)>>(partitions: I) -> Self {
        Self { session: 0, partitions: partitions.into_iter().collect() }
    }
}

struct Running {
    session: u64,
    epoch: u64,
    stop: CancellationToken,
    done: oneshot::Receiver<()>,
}

/// Keeps one worker running for each owned partition until the tasks stop. A worker whose
/// partition goes, or comes back with another epoch or in another session, is stopped and waited
/// for before the next one starts.
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
        let Owned { session, partitions: target } = owned.borrow_and_update().clone();
        let stays = |partition, r: &Running| {
            r.session == session && target.get(partition) == Some(&r.epoch)
        };
        let gone: Vec<Partition> = running
            .iter()
            .filter(|(partition, r)| !stays(partition, r))
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
                Running { session, epoch, stop, done }
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
    use parking_lot::Mutex;
    use std::{cell::Cell, convert::Infallible, io, sync::Arc};

    #[tokio::test(start_paused = true)]
    async fn l6_no_worker_of_an_earlier_session_goes_on_in_the_next() {
        let tasks = Tasks::new();
        let in_session = |session| Owned { session, ..[(Partition(3), 7)].into_iter().collect() };
        let (tell, owned) = watch::channel(in_session(1));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (all, story) = (tasks.clone(), Arc::clone(&seen));
        tasks.spawn("owned", async move {
            let worker = |_, epoch, stop: CancellationToken| {
                let story = Arc::clone(&story);
                async move {
                    story.lock().push(("begins", epoch));
                    stop.cancelled().await;
                    tokio::time::sleep(Duration::from_secs(1)).await; // it settles what it has begun
                    story.lock().push(("has ended", epoch));
                    Ok::<_, Infallible>(())
                }
            };
            run_owned(&all, "test", owned, worker).await;
            Ok::<_, Infallible>(())
        });
        // Told so fast that nobody sees the end in between.
        tokio::time::sleep(Duration::from_secs(1)).await;
        tell.send_replace(Owned { session: 1, ..Owned::default() });
        tell.send_replace(in_session(2));
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(*seen.lock(), [("begins", 7), ("has ended", 7), ("begins", 7)]);
        assert_eq!(tasks.shut_down(Duration::from_secs(10)).await, None);
    }

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
