//! Tasks with names, awaited at shutdown; a task that fails ends the process in an orderly way.

use parking_lot::Mutex;
use std::{fmt::Display, future::Future, sync::Arc, time::Duration};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The tasks of a process, or of a part of it. Clones share the same set.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
    failure: Arc<Mutex<Option<String>>>,
}

impl Tasks {
    /// An empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Spawns a task that runs until it is done. An error or a panic stops all tasks of the set.
    pub fn spawn<E: Display>(
        &self,
        name: impl Into<String>,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let name = name.into();
        let guard = FailGuard { tasks: self.clone(), name: Some(name) };
        self.tracker.spawn(async move {
            let mut guard = guard;
            match task.await {
                Ok(()) => guard.name = None,
                Err(error) => {
                    let name = guard.name.take().unwrap_or_default();
                    guard.tasks.fail(format!("{name}: {error}"));
                }
            }
        });
    }

    /// Notes a failure and stops all tasks of the set.
    pub fn fail(&self, failure: String) {
        tracing::error!(failure, "a task failed, stopping");
        self.failure.lock().get_or_insert(failure);
        self.stop.cancel();
    }

    /// Cancelled when the set is to stop.
    #[must_use]
    pub fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Asks all tasks to stop and waits for them until the deadline; what failed, if anything.
    pub async fn shut_down(&self, deadline: Duration) -> Option<String> {
        self.stop.cancel();
        self.tracker.close();
        if tokio::time::timeout(deadline, self.tracker.wait()).await.is_err() {
            tracing::warn!(left = self.tracker.len(), "tasks did not end in time");
        }
        self.failure.lock().clone()
    }
}

/// Turns a panic of its task into a failure of the set.
struct FailGuard {
    tasks: Tasks,
    name: Option<String>,
}

impl Drop for FailGuard {
    fn drop(&mut self) {
        if let Some(name) = self.name.take()
            && std::thread::panicking()
        {
            self.tasks.fail(format!("{name}: panicked"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failed_or_panicking_task_stops_the_set_and_is_named() {
        for panics in [false, true] {
            let tasks = Tasks::new();
            let stop = tasks.stop();
            tasks.spawn("waiter", async move {
                stop.cancelled().await;
                Ok::<_, String>(())
            });
            tasks.spawn("doomed", async move {
                assert!(!panics, "as told");
                Err("as told".to_owned())
            });
            tasks.stop().cancelled().await;
            let failure = tasks.shut_down(Duration::from_secs(5)).await.unwrap();
            assert!(failure.starts_with("doomed"), "{failure}");
        }
    }
}
