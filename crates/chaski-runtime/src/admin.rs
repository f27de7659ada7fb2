//! The operators' address: `/health/live`, `/health/ready`, `/metrics`.

use axum::{Router, http::StatusCode, routing::get};
use metrics_exporter_prometheus::PrometheusHandle;
use parking_lot::Mutex;
use std::{collections::BTreeSet, sync::Arc};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;

/// What a process still waits for before it takes traffic. Clones share the same list.
#[derive(Clone, Debug)]
pub struct Readiness {
    waiting: Arc<Mutex<BTreeSet<String>>>,
    changed: watch::Sender<()>,
}

impl Default for Readiness {
    fn default() -> Self {
        Self { waiting: Arc::default(), changed: watch::Sender::new(()) }
    }
}

/// A condition of readiness; closed until opened, and it may close again.
#[derive(Clone, Debug)]
pub struct Gate {
    readiness: Readiness,
    name: String,
}

impl Gate {
    /// The condition holds.
    pub fn open(&self) {
        self.readiness.waiting.lock().remove(&self.name);
        self.readiness.changed.send_replace(());
    }

    /// Waits until every other condition holds.
    pub async fn is_last(&self) {
        let mut changed = self.readiness.changed.subscribe();
        while self.readiness.waiting.lock().iter().any(|other| *other != self.name) {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    /// The condition does not hold (any more).
    pub fn close(&self) {
        self.readiness.waiting.lock().insert(self.name.clone());
        self.readiness.changed.send_replace(());
    }
}

impl Readiness {
    /// A new condition, closed.
    #[must_use]
    pub fn gate(&self, name: impl Into<String>) -> Gate {
        let gate = Gate { readiness: self.clone(), name: name.into() };
        gate.close();
        gate
    }

    /// What is waited for.
    #[must_use]
    pub fn waiting(&self) -> Vec<String> {
        self.waiting.lock().iter().cloned().collect()
    }

    /// Waits until nothing is waited for.
    pub async fn ready(&self) {
        let mut changed = self.changed.subscribe();
        while !self.waiting.lock().is_empty() {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }
}

/// Serves the operators' address until `stop`.
pub async fn serve_admin(
    listener: TcpListener,
    metrics: PrometheusHandle,
    readiness: Readiness,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let ready = move || {
        let waiting = readiness.waiting();
        async move {
            match waiting.is_empty() {
                true => (StatusCode::OK, "ready\n".to_owned()),
                false => (
                    StatusCode::SERVICE_UNAVAILABLE,
                    format!("waiting for: {}\n", waiting.join(", ")),
                ),
            }
        }
    };
    let app = Router::new()
        .route("/health/live", get(|| async { "live\n" }))
        .route("/health/ready", get(ready))
        .route("/metrics", get(move || std::future::ready(metrics.render())));
    axum::serve(listener, app).with_graceful_shutdown(stop.cancelled_owned()).await
}
