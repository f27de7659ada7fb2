//! The streams to the processes that serve, one for each, opened when the first socket needs it.

use crate::{Limits, Mux, Outgoing, Side, Tunnel, When, config, open_for};
use axum::http::Uri;
use chaski_auth::Identity;
use chaski_core::UserId;
use chaski_proto::v1::RelayFrame;
use futures::{StreamExt as _, future::BoxFuture, stream::BoxStream};
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// How long the other process may take to answer a new stream.
const ANSWER: Duration = Duration::from_secs(5);
/// New streams that wait to be opened; more than there are hosts.
const OPENINGS_MAX: usize = 1024;

/// Where the delivery host that serves a user is reached by other processes; `None` where there is
/// none, or nobody knows.
pub type Route = Arc<dyn Fn(&UserId) -> Option<String> + Send + Sync>;

/// What comes in on a stream.
pub type Incoming = BoxStream<'static, Result<RelayFrame, Status>>;

/// Opens a stream to a process: what it sends, for what this one sends.
pub type Dial =
    Arc<dyn Fn(String, Outgoing) -> BoxFuture<'static, Result<Incoming, Status>> + Send + Sync>;

/// Why a socket is not relayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotRelayed {
    /// It is not known who serves the user.
    Nowhere,
    /// There are as many to that process as there may be.
    Full,
}

/// Relays the sockets that this process accepts. Clones are the same.
#[derive(Clone)]
pub struct Relays {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    when: When,
    limits: Limits,
    route: Route,
    dial: Dial,
    links: Mutex<HashMap<String, Mux>>,
    wanted: mpsc::Sender<(String, Mux)>,
    /// Clients are to be sent away.
    pub(crate) draining: CancellationToken,
    /// How many are carried.
    pub(crate) carried: watch::Sender<usize>,
}

/// Keeps the streams of [`Relays`]: to be run by the process.
pub struct Links {
    shared: Arc<Shared>,
    wanted: mpsc::Receiver<(String, Mux)>,
}

impl Relays {
    /// Relays that find their way by `route` and open streams by `dial`.
    #[must_use]
    pub fn new(when: When, limits: Limits, route: Route, dial: Dial) -> (Self, Links) {
        let (wants, wanted) = mpsc::channel(OPENINGS_MAX);
        let shared = Arc::new(Shared {
            when,
            limits,
            route,
            dial,
            links: Mutex::default(),
            wanted: wants,
            draining: CancellationToken::new(),
            carried: watch::Sender::new(0),
        });
        (Self { shared: Arc::clone(&shared) }, Links { shared, wanted })
    }

    /// Whether a client that asked for this address is relayed where its host is not here.
    #[must_use]
    pub fn wanted(&self, asked: &Uri, now_ms: i64) -> bool {
        match self.shared.when {
            When::Always => true,
            When::Second => config::was_moved(asked.query(), now_ms),
            When::Never => false,
        }
    }

    /// What a client at a wrong host is told of the right one's address.
    #[must_use]
    pub fn address(&self, url: Option<String>, now_ms: i64) -> Option<String> {
        match self.shared.when {
            When::Always => None,
            When::Second => url.map(|url| config::marked(&url, now_ms)),
            When::Never => url,
        }
    }

    /// A tunnel to who serves this client. Whether they can be reached shows later: the tunnel ends.
    ///
    /// # Errors
    /// Where there is nobody, or no room.
    pub fn open(&self, identity: &Identity, json: bool) -> Result<Tunnel, NotRelayed> {
        let opened = self.try_open(identity, json);
        if let Err(why) = &opened {
            let why = match why {
                NotRelayed::Nowhere => "nowhere",
                NotRelayed::Full => "full",
            };
            metrics::counter!("chaski_relay_refused_total", "why" => why).increment(1);
        }
        opened
    }

    fn try_open(&self, identity: &Identity, json: bool) -> Result<Tunnel, NotRelayed> {
        let shared = &self.shared;
        let endpoint = (shared.route)(&identity.user).ok_or(NotRelayed::Nowhere)?;
        let mut links = shared.links.lock();
        // One that has just ended is not taken out yet.
        let link = match links.get(&endpoint).filter(|link| !link.has_ended()) {
            Some(link) => link.clone(),
            None => {
                let link = Mux::new(Side::Accepting, shared.limits);
                let wanted = shared.wanted.try_send((endpoint.clone(), link.clone()));
                wanted.map_err(|_| NotRelayed::Nowhere)?;
                links.insert(endpoint, link.clone());
                link
            }
        };
        drop(links);
        link.open(open_for(identity, json)).ok_or(NotRelayed::Full)
    }

    /// Sends all relayed clients of this process away, and waits until they have gone; for so long
    /// at most.
    pub async fn drain(&self, patience: Duration) {
        self.shared.draining.cancel();
        let mut carried = self.shared.carried.subscribe();
        let _ = timeout(patience, carried.wait_for(|carried| *carried == 0)).await;
    }
}

impl Links {
    /// Keeps the streams until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut streams = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(ended) = streams.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "a relay's task failed");
                    }
                }
                Some((endpoint, mux)) = self.wanted.recv() => {
                    streams.spawn(keep(Arc::clone(&self.shared), endpoint, mux));
                }
            }
        }
        // Who wants one from now on gets a tunnel that has ended.
        self.wanted.close();
        self.shared.links.lock().drain().for_each(|(_, link)| link.end());
        streams.shutdown().await;
    }
}

async fn keep(shared: Arc<Shared>, endpoint: String, mux: Mux) {
    let streams = metrics::gauge!("chaski_relay_streams");
    let reading = async {
        let dialed = (shared.dial)(endpoint.clone(), mux.outgoing());
        let mut incoming = timeout(ANSWER, dialed).await.map_err(|_| "no answer")??;
        streams.increment(1);
        let mut read = async || {
            while let Some(frame) = incoming.next().await {
                mux.take(frame?)?;
            }
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
        };
        let end = read().await;
        streams.decrement(1);
        end
    };
    let end: Result<(), Box<dyn std::error::Error + Send + Sync>> = reading.await;
    let error = end.err().map(|error| error.to_string());
    tracing::warn!(endpoint, error, "a relay has ended: its clients come again");
    {
        let mut links = shared.links.lock();
        if links.get(&endpoint).is_some_and(|link| link.is(&mux)) {
            links.remove(&endpoint);
        }
    }
    mux.end();
}
