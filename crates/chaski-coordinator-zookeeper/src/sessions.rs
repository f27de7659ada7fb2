//! One session after the other: opens them, tells how they stand, and opens the next one when one
//! has ended, for ever. Whatever belongs to a session holds that session's [`Shared`], so it ends
//! with it; nothing is carried over.
//!
//! Must not know: what is registered, watched or led.

use crate::{
    ZooKeeperOptions,
    error::{Access, port_error},
    shared::{PERSISTENT, Shared},
};
use chaski_ports::{ErrorKind, PortError, Session, SessionState};
use parking_lot::RwLock;
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;
use zookeeper_client as zk;

/// The pause before it is tried again to open a session, at first and at most. An attempt takes
/// about as long as a session by itself where no server answers.
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// How long the servers are given to tell that a session was ended.
const TOLD: Duration = Duration::from_secs(1);

/// The sessions of one [`ZooKeeper`](crate::ZooKeeper).
pub(crate) struct Sessions {
    options: ZooKeeperOptions,
    /// The present one; `None` between two.
    present: RwLock<Option<Arc<Shared>>>,
    told: watch::Sender<Session>,
}

impl Sessions {
    /// With the first session open.
    pub(crate) async fn open(options: ZooKeeperOptions) -> Result<Self, PortError> {
        let first = open(&options).await?;
        let state = state_of(first.client.state());
        let told = watch::Sender::new(Session { number: 1, state });
        Ok(Self { options, present: RwLock::new(Some(first)), told })
    }

    /// The present session; `Unavailable` between two.
    pub(crate) fn present(&self) -> Result<Arc<Shared>, PortError> {
        self.present.read().clone().ok_or_else(|| {
            PortError::new(ErrorKind::Unavailable, "zookeeper: no session at the moment")
        })
    }

    pub(crate) fn told(&self) -> watch::Receiver<Session> {
        self.told.subscribe()
    }

    /// Tells how the present session stands; when it has ended, opens the next one. Never ends.
    pub(crate) async fn keep(&self) {
        loop {
            let states = self.present.read().as_ref().map(|session| session.client.state_watcher());
            if let Some(states) = states {
                self.follow(states).await;
            }
            // Its end is told before anybody can find the next one.
            let next = self.next().await;
            let session =
                Session { number: self.told.borrow().number + 1, state: SessionState::Connected };
            *self.present.write() = Some(next);
            self.tell(session);
        }
    }

    /// Tells how the session stands until it has ended.
    async fn follow(&self, mut states: zk::StateWatcher) {
        let number = self.told.borrow().number;
        let mut state = states.state();
        loop {
            let ended = state.is_terminated();
            if ended {
                *self.present.write() = None;
            }
            self.tell(Session { number, state: state_of(state) });
            if ended {
                return;
            }
            state = states.changed().await;
        }
    }

    async fn next(&self) -> Arc<Shared> {
        let (mut pause, longest) = AGAIN;
        loop {
            match open(&self.options).await {
                Ok(next) => return next,
                Err(error) => {
                    tracing::warn!(%error, cause = ?error.source, "no new zookeeper session yet");
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(longest);
        }
    }

    fn tell(&self, session: Session) {
        let changed =
            self.told.send_if_modified(|told| std::mem::replace(told, session) != session);
        if changed {
            tracing::info!(number = session.number, state = ?session.state, "zookeeper session");
            let state = match session.state {
                SessionState::Connected => "connected",
                SessionState::Suspended => "suspended",
                SessionState::Expired => "expired",
            };
            metrics::counter!("chaski_coordinator_session_changes_total", "to" => state)
                .increment(1);
        }
    }

    /// Has the servers end the present session: opened a second time, it is closed for both.
    pub(crate) async fn end(&self) -> Result<(), PortError> {
        let context = || "end the zookeeper session".to_owned();
        let session = self.present()?;
        let number = self.told.borrow().number;
        let mut told = self.told();
        loop {
            let connector = connector(&self.options).with_session(session.client.session().clone());
            match connector.connect(&self.options.servers).await {
                Ok(twin) => drop(twin),
                Err(zk::Error::SessionExpired) => {}
                Err(error) => return Err(port_error(error, Access::Write, context())),
            }
            // The first one may have come back before it was closed.
            let ended = told.wait_for(|now| now.alive() != Some(number));
            if tokio::time::timeout(TOLD, ended).await.is_ok() {
                return Ok(());
            }
        }
    }
}

fn connector(options: &ZooKeeperOptions) -> zk::Connector {
    zk::Client::connector().with_session_timeout(options.session_timeout)
}

/// Opens a session and makes the chroot.
async fn open(options: &ZooKeeperOptions) -> Result<Arc<Shared>, PortError> {
    let context = format!("connect to zookeeper {}", options.servers);
    let client = connector(options)
        .connect(&options.servers)
        .await
        .map_err(|error| port_error(error, Access::Read, context))?;
    let chroot = options.chroot.trim_end_matches('/');
    let client = if chroot.is_empty() {
        client
    } else {
        let made = client.mkdir(chroot, &PERSISTENT).await;
        made.map_err(|error| port_error(error, Access::Write, format!("make {chroot}")))?;
        client
            .chroot(chroot.to_owned())
            .map_err(|_| PortError::new(ErrorKind::Invalid, format!("{chroot} is no chroot")))?
    };
    Ok(Shared::new(client, options.operation_timeout))
}

fn state_of(state: zk::SessionState) -> SessionState {
    use zk::SessionState as S;
    match state {
        S::SyncConnected => SessionState::Connected,
        S::Disconnected | S::ConnectedReadOnly => SessionState::Suspended,
        S::Expired | S::Closed | S::AuthFailed => SessionState::Expired,
    }
}
