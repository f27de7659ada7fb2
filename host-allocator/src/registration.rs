//! Saying that this host is there.

use crate::{AllocatorConfig, AllocatorError, Host, Role};
use chaski_ports::{Coordinator, ErrorKind, PortError, Registration};
use std::{convert::Infallible, sync::Arc};
use tokio::sync::watch;

/// This process as a host of one role in one session of the coordinator, until it is dropped or
/// that session ends.
pub struct HostRegistration {
    coordinator: Arc<dyn Coordinator>,
    node: Box<dyn Registration>,
    session: u64,
}

impl HostRegistration {
    /// Keeps this process registered as `said` says: from session to session, and while the
    /// coordinator does not answer it is tried again. Until the caller gives up waiting for it.
    /// Cancel safe.
    ///
    /// # Errors
    /// Where the coordinator fails for good.
    pub async fn hold(
        coordinator: Arc<dyn Coordinator>,
        role: Role,
        mut said: watch::Receiver<Host>,
        config: &AllocatorConfig,
    ) -> Result<Infallible, AllocatorError> {
        loop {
            let host = said.borrow_and_update().clone();
            let registration =
                Self::register(Arc::clone(&coordinator), role, &host, config).await?;
            registration.keep(&mut said, config).await?;
            tracing::warn!(%role, host = %host.id, "registration lost: registering again");
        }
    }

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
            let session = alive(&*coordinator).await;
            match attempt(&*coordinator, role, host).await {
                Ok(node) => {
                    tracing::info!(%role, host = %host.id, session, "host registered");
                    return Ok(Self { coordinator, node, session });
                }
                Err(error) if error.retryable() => {
                    tracing::warn!(%role, host = %host.id, %error, "host not registered yet");
                    tokio::time::sleep(config.retry()).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Keeps the registration as `said` says until it has gone, with its session or otherwise.
    async fn keep(
        &self,
        said: &mut watch::Receiver<Host>,
        config: &AllocatorConfig,
    ) -> Result<(), AllocatorError> {
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
                    Err(error) if error.kind == ErrorKind::Conflict => return Ok(()),
                    Err(error) => return Err(error.into()),
                }
            }
        };
        tokio::select! {
            biased;
            () = self.lost() => Ok(()),
            gone = keeping => gone,
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
    /// others.
    pub async fn lost(&self) {
        let mut session = self.coordinator.session();
        // A coordinator that has gone away cannot hold a session either.
        let _ended = session.wait_for(|now| now.alive() != Some(self.session)).await;
    }
}

/// Waits for a session that has not ended; its number.
pub(crate) async fn alive(coordinator: &dyn Coordinator) -> u64 {
    let mut sessions = coordinator.session();
    let alive = sessions.wait_for(|now| now.alive().is_some()).await.map(|now| now.number);
    match alive {
        Ok(number) => number,
        // It has gone away with its last session.
        Err(_) => std::future::pending().await,
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
