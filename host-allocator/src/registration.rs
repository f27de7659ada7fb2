//! Saying that this host is there.

use crate::{AllocatorConfig, AllocatorError, Host, Role};
use chaski_ports::{Coordinator, ErrorKind, PortError, Registration, Session};
use std::{convert::Infallible, sync::Arc};
use tokio::sync::watch;

/// This process as a host of one role, from [`register`](Self::register) until it is dropped or
/// its session ends.
pub struct HostRegistration {
    coordinator: Arc<dyn Coordinator>,
    node: Box<dyn Registration>,
}

impl HostRegistration {
    /// Registers `host`. Waits while the node of an older session of the same host is there (a
    /// process killed and started again at once) and while the coordinator is not reachable.
    /// Cancel safe: dropped, nothing is registered.
    ///
    /// # Errors
    /// Where the coordinator fails for good.
    pub async fn register(
        coordinator: Arc<dyn Coordinator>,
        role: Role,
        host: &Host,
        config: &AllocatorConfig,
    ) -> Result<Self, AllocatorError> {
        loop {
            match attempt(&*coordinator, role, host).await {
                Ok(node) => {
                    tracing::info!(%role, host = %host.id, "host registered");
                    return Ok(Self { coordinator, node });
                }
                Err(error) if error.retryable() => {
                    tracing::warn!(%role, host = %host.id, %error, "host not registered yet");
                    tokio::time::sleep(config.retry()).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Keeps the registration as `said` says, until the caller gives up waiting for it. While the
    /// coordinator does not answer it is tried again. Cancel safe.
    ///
    /// # Errors
    /// `SessionEnded` then, or where the coordinator fails for good.
    pub async fn keep(
        &self,
        mut said: watch::Receiver<Host>,
        config: &AllocatorConfig,
    ) -> Result<Infallible, AllocatorError> {
        let keeping = async {
            loop {
                let host = said.borrow_and_update().clone();
                match self.update(&host).await {
                    Ok(()) => {
                        if said.changed().await.is_err() {
                            std::future::pending::<()>().await;
                        }
                    }
                    Err(error) if error.retryable() => {
                        tracing::warn!(host = %host.id, %error, "registration not updated yet");
                        tokio::time::sleep(config.retry()).await;
                    }
                    Err(error) => return error,
                }
            }
        };
        tokio::select! {
            biased;
            () = self.lost() => Err(AllocatorError::SessionEnded),
            error = keeping => Err(error.into()),
        }
    }

    /// Says something else of this host.
    ///
    /// # Errors
    /// Where the coordinator fails; `Conflict` where the registration is not there any more.
    pub async fn update(&self, host: &Host) -> Result<(), PortError> {
        self.node.update(host.encode()).await
    }

    /// Waits until the session that holds the registration has ended: this host is gone for the
    /// others, and its process stops or starts anew with a new session.
    pub async fn lost(&self) {
        let mut session = self.coordinator.session();
        // A coordinator that has gone away cannot hold a session either.
        let _ended = session.wait_for(|session| *session == Session::Expired).await;
    }
}

async fn attempt(
    coordinator: &dyn Coordinator,
    role: Role,
    host: &Host,
) -> Result<Box<dyn Registration>, PortError> {
    let path = role.host(&host.id);
    let mut watch = coordinator.watch(&path).await?;
    loop {
        match coordinator.register(&path, host.encode()).await {
            Err(error) if error.kind == ErrorKind::Conflict => {
                tracing::warn!(%role, host = %host.id, "waiting for an older session to end");
                watch.changed().await?;
            }
            registered => return registered,
        }
    }
}
