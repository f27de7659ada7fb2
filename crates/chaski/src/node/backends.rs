//! The backends at the start of a process: those that are away are waited for, as long as it takes.
//! A process that ended instead would be started again and again, and each time tell less.
//!
//! What waiting does not mend (a wrong address in form, an older schema, topics that are cut
//! otherwise) is an error at once. Embedded storage is never waited for.

use super::topics;
use crate::config::Config;
use chaski_backends::{CoordinatorUrl, LogUrl, StoreUrl, open_coordinator, open_log, open_stores};
use chaski_ports::{PortError, Ports};
use chaski_runtime::{Gate, Readiness};
use parking_lot::Mutex;
use std::{convert::Infallible, time::Duration};
use tokio::time::{Instant, sleep};

/// The pause before a backend is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// How often it is told what is waited for.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// Opens the backends; gives the number of partitions too. With `dev`, topics are made.
pub(super) async fn open(
    config: &Config,
    dev: bool,
    readiness: &Readiness,
) -> anyhow::Result<(Ports, u32)> {
    let (urls, options) = (config.urls()?, config.backends());
    let wait = |what: &str, url: &str, embedded| Wait {
        // The gates stand in the answer of `/health/ready`, one beside the other.
        gate: readiness.gate(format!("the {what} at {url}")),
        what: format!("{what} at {url}"),
        embedded,
        again: AGAIN,
    };
    let log = wait("log", &config.log, matches!(urls.log, LogUrl::Embedded(_)));
    let store = wait("store", &config.store, matches!(urls.store, StoreUrl::Embedded(_)));
    let embedded = matches!(urls.coordinator, CoordinatorUrl::Embedded(_));
    let coordinator = wait("coordinator", &config.coordinator, embedded);
    let topics = async || {
        let log = open_log(&urls.log, &options).await?;
        let partitions = match dev {
            true => topics::create(&*log, config.partitions).await?,
            false => topics::partitions(&*log).await?,
        };
        anyhow::Ok((log, partitions))
    };
    let ((log, partitions), stores, coordinator) = tokio::try_join!(
        log.until(topics),
        store.until(async || Ok(Box::pin(open_stores(&urls.store, &options)).await?)),
        coordinator.until(async || Ok(open_coordinator(&urls.coordinator, &options).await?)),
    )?;
    Ok((stores.into_ports(log, coordinator, &options), partitions))
}

/// A backend that is waited for.
struct Wait {
    what: String,
    gate: Gate,
    embedded: bool,
    again: Duration,
}

impl Wait {
    /// Tries until it succeeds, or fails in a way that does not pass.
    async fn until<T>(self, attempt: impl AsyncFn() -> anyhow::Result<T>) -> anyhow::Result<T> {
        let begun = Instant::now();
        let last = Mutex::new(None);
        let attempts = async {
            loop {
                match attempt().await {
                    Ok(opened) => return Ok(opened),
                    Err(error) if !self.embedded && may_pass(&error) => {
                        *last.lock() = Some(format!("{error:#}"));
                    }
                    Err(error) => return Err(error),
                }
                sleep(self.again).await;
            }
        };
        let opened = tokio::select! {
            opened = attempts => opened?,
            never = self.tell(begun, &last) => match never {},
        };
        if begun.elapsed() > TELL_EVERY {
            tracing::info!(what = self.what, after_s = begun.elapsed().as_secs(), "is there now");
        }
        self.gate.open();
        Ok(opened)
    }

    async fn tell(&self, begun: Instant, last: &Mutex<Option<String>>) -> Infallible {
        loop {
            sleep(TELL_EVERY).await;
            let (error, since_s) = (last.lock().clone(), begun.elapsed().as_secs());
            let error = error.unwrap_or_else(|| "no answer yet".into());
            tracing::warn!(what = self.what, since_s, error, "the start waits for a backend");
        }
    }
}

fn may_pass(error: &anyhow::Error) -> bool {
    error.downcast_ref::<PortError>().is_some_and(PortError::retryable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chaski_ports::ErrorKind;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// Whether it opened, after how many attempts, and whether it is waited for no more.
    async fn wait(embedded: bool, then: Result<(), ErrorKind>) -> (bool, u32, bool) {
        let readiness = Readiness::default();
        let gate = readiness.gate("the log at kafka://nowhere:1");
        let wait = Wait { what: "log".into(), gate, embedded, again: Duration::ZERO };
        let attempts = AtomicU32::new(0);
        let opened = wait.until(async || {
            assert_eq!(readiness.waiting(), ["the log at kafka://nowhere:1"]);
            match attempts.fetch_add(1, Ordering::Relaxed) {
                0..10 => Err(PortError::new(ErrorKind::Unavailable, "connect").into()),
                _ => then.map_err(|kind| PortError::new(kind, "connect").into()),
            }
        });
        let opened = opened.await.is_ok();
        (opened, attempts.into_inner(), readiness.waiting().is_empty())
    }

    #[tokio::test]
    async fn what_is_away_is_waited_for_and_what_does_not_pass_is_an_error_at_once() {
        assert_eq!(wait(false, Ok(())).await, (true, 11, true));
        assert_eq!(wait(false, Err(ErrorKind::Invalid)).await, (false, 11, false));
        assert_eq!(wait(true, Ok(())).await, (false, 1, false), "nobody opens it later");
    }
}
