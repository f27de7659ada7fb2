//! Composition: which services run in this process, and what each is given. The one place where
//! services meet; they never import one another.

mod backends;
mod load;
mod parts;
mod presence;
mod relay;
mod revocations;
mod roles;
pub(crate) mod topics;

pub use roles::{Role, Roles};

use crate::config::Config;
use anyhow::Context as _;
use chaski_api_gateway::LateRouter;
use chaski_auth::DevKey;
use chaski_delivery_service::host::Ending;
use chaski_runtime::{Readiness, Tasks, serve_admin};
use parts::Parts;
use std::{sync::Arc, time::Duration};
use tokio::net::TcpListener;

/// How long an address in use is tried again.
const BIND_PATIENCE: Duration = Duration::from_secs(3);

/// How long what was started has to end where the rest cannot be.
const GIVING_UP: Duration = Duration::from_secs(1);

/// A process that serves some roles: built, running, to be drained.
pub struct Node {
    tasks: Tasks,
    readiness: Readiness,
    parts: Arc<Parts>,
    /// The public address it listens on.
    pub public_url: String,
    /// The development key, where this process is in development mode.
    pub dev_key: Option<DevKey>,
    drain: Duration,
}

impl Node {
    /// Binds the addresses, opens the backends and starts the roles. Backends that are away are
    /// waited for, without end: until then the process is not ready, and its public address refuses
    /// (503).
    ///
    /// In development mode a signing key is made on first use.
    pub async fn start(config: Config, roles: &Roles, dev: bool) -> anyhow::Result<Self> {
        let metrics = chaski_runtime::init_telemetry(&config.log_filter, config.log_json);
        let tasks = Tasks::new();
        let readiness = Readiness::default();
        let started = readiness.gate("start");
        let admin = bind(&config.admin_listen, "admin_listen").await?;
        let (stop, ready) = (tasks.stop(), readiness.clone());
        tasks.spawn("admin", serve_admin(admin, metrics, ready, stop));

        let public = bind(&config.listen, "listen").await?;
        let public_address = public.local_addr()?;
        let dev_key = match dev {
            true => Some(DevKey::load_or_create(config.dev_key())?),
            false => None,
        };
        let drain = Duration::from_secs(config.drain_seconds);
        let late = LateRouter::default();
        if roles.has(Role::Gateway) || roles.has(Role::Delivery) {
            let (late, settings, stop) = (late.clone(), config.gateway.clone(), tasks.stop());
            tasks.spawn("public", async move {
                chaski_api_gateway::serve(public, late, &settings, stop).await
            });
        }
        let stop = tasks.stop();
        let starting = async {
            let opening = Parts::open(config, roles, public_address, dev_key.as_ref(), &readiness);
            let parts = tokio::select! {
                parts = Box::pin(opening) => Arc::new(parts?),
                () = stop.cancelled() => anyhow::bail!("a part of the process failed as it started"),
            };
            Arc::clone(&parts).spawn(roles, &tasks, &readiness, late).await?;
            anyhow::Ok(parts)
        };
        let parts = match starting.await {
            Ok(parts) => parts,
            Err(error) => {
                let failure = tasks.shut_down(GIVING_UP).await;
                return Err(failure.map_or(error, anyhow::Error::msg));
            }
        };
        started.open();
        let public_url = format!("http://{public_address}");
        Ok(Self { tasks, readiness, parts, public_url, dev_key, drain })
    }

    /// Waits until the process takes traffic; an error where a part of it fails first.
    pub async fn ready(&self) -> anyhow::Result<()> {
        let stop = self.tasks.stop();
        let complain = async {
            loop {
                tokio::time::sleep(Duration::from_secs(10)).await;
                tracing::info!(waiting = ?self.readiness.waiting(), "not ready yet");
            }
        };
        tokio::select! {
            () = self.readiness.ready() => Ok(()),
            () = stop.cancelled() => anyhow::bail!("a part of the process failed before it was ready"),
            () = complain => Ok(()),
        }
    }

    /// Serves until a part fails or `signal` comes, then drains. An error is what failed.
    pub async fn run_until(self, signal: impl Future<Output = ()>) -> anyhow::Result<()> {
        let stop = self.tasks.stop();
        let asked = async {
            signal.await;
            tracing::info!("draining");
            // Who asks whether it takes traffic is told that it ends.
            let _never_opened = self.readiness.gate("the end of the process");
            self.parts.hand_over().await;
        };
        let ending = tokio::select! {
            () = asked => Ending::Planned,
            () = stop.cancelled() => Ending::Lost,
        };
        self.parts.drain(ending, self.drain / 2).await;
        match self.tasks.shut_down(self.drain).await {
            None => Ok(()),
            Some(failure) => anyhow::bail!(failure),
        }
    }
}

/// Binds an address. One that is in use is tried again for a while: a process that was killed and
/// started at once finds the old one's threads still ending.
async fn bind(address: &str, key: &str) -> anyhow::Result<TcpListener> {
    let deadline = tokio::time::Instant::now() + BIND_PATIENCE;
    loop {
        match TcpListener::bind(address).await {
            Err(error)
                if error.kind() == std::io::ErrorKind::AddrInUse
                    && tokio::time::Instant::now() < deadline =>
            {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            bound => {
                return bound.with_context(|| {
                    format!("cannot listen on {address} (configuration key {key})")
                });
            }
        }
    }
}

/// SIGTERM or Ctrl-C.
pub async fn end_signal() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut term = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = term.recv() => Ok(()),
        result = tokio::signal::ctrl_c() => Ok(result?),
    }
}
