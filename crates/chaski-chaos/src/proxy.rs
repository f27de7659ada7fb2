//! TCP proxies on loopback between the processes of the system and their clients: what a link
//! does to the bytes on it is set for each (source process, destination) while they flow.
//!
//! Must not know: what the processes are, and what the bytes mean.

mod pump;
mod source;

pub use pump::Flow;
pub use source::{Pids, Sources};

use parking_lot::Mutex;
use std::{collections::HashMap, io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// What both directions of a link do.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Condition {
    /// From the source to the destination.
    pub there: Flow,
    /// From the destination to the source.
    pub back: Flow,
}

impl Condition {
    /// Everything passes.
    pub const WHOLE: Self = Self { there: Flow::Pass, back: Flow::Pass };

    /// The same both ways.
    #[must_use]
    pub const fn both(flow: Flow) -> Self {
        Self { there: flow, back: flow }
    }
}

/// Whose connections a proxy takes.
#[derive(Clone)]
pub enum Origin {
    /// All come from the same source.
    One(String),
    /// Each one's source is looked up, where it matters.
    Any(Arc<Sources>),
}

/// A server behind a proxy.
#[derive(Clone, Debug)]
pub struct Destination {
    /// The process.
    pub name: String,
    /// Where it really listens.
    pub address: SocketAddr,
}

/// The proxies of a system. They end when this is dropped.
pub struct Proxies {
    links: Arc<Links>,
    tasks: TaskTracker,
    stop: CancellationToken,
    seed: u64,
}

/// For each destination what is wrong with links to it, by their sources.
#[derive(Default)]
struct Links(Mutex<HashMap<String, watch::Sender<Faults>>>);

type Faults = Arc<HashMap<String, Condition>>;

impl Links {
    fn follow(&self, to: &str) -> watch::Receiver<Faults> {
        self.0.lock().entry(to.to_owned()).or_default().subscribe()
    }

    fn set(&self, from: &str, to: &str, condition: Condition) {
        let mut links = self.0.lock();
        links.entry(to.to_owned()).or_default().send_modify(|faults| {
            let mut changed = HashMap::clone(faults);
            changed.remove(from);
            if condition != Condition::WHOLE {
                changed.insert(from.to_owned(), condition);
            }
            *faults = Arc::new(changed);
        });
    }

    fn heal(&self) {
        self.0.lock().values().for_each(|faults| drop(faults.send_replace(Faults::default())));
    }
}

impl Proxies {
    /// None yet; the seed decides what a lossy link loses.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { links: Arc::default(), tasks: TaskTracker::new(), stop: <_>::default(), seed }
    }

    /// Passes what comes to `listener` on to one of `to`: the next one for each connection, or
    /// the one after where that does not listen, as a load balancer does.
    pub fn serve(&self, listener: TcpListener, from: Origin, to: Vec<Destination>) {
        let (links, stop) = (Arc::clone(&self.links), self.stop.clone());
        let (tasks, mut seed) = (self.tasks.clone(), self.seed);
        let serve = async move {
            for turn in 0.. {
                let Ok((client, _)) = listener.accept().await else {
                    // No file descriptor is free: others will be.
                    sleep(Duration::from_millis(20)).await;
                    continue;
                };
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let (links, from, mut to) = (Arc::clone(&links), from.clone(), to.clone());
                let first = turn % to.len().max(1);
                to.rotate_left(first);
                let carry = carry(client, from, to, links, fastrand::Rng::with_seed(seed));
                let stop = stop.clone();
                tasks.spawn(async move {
                    // How a connection ends is the business of its two ends.
                    let _ = stop.run_until_cancelled(carry).await;
                });
            }
        };
        let stop = self.stop.clone();
        self.tasks.spawn(async move { stop.run_until_cancelled(serve).await });
    }

    /// Changes what a link does, for the connections on it and for new ones.
    pub fn set(&self, from: &str, to: &str, condition: Condition) {
        self.links.set(from, to, condition);
    }

    /// Makes every link whole.
    pub fn heal(&self) {
        self.links.heal();
    }
}

impl Drop for Proxies {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn carry(
    client: TcpStream,
    from: Origin,
    to: Vec<Destination>,
    links: Arc<Links>,
    mut random: fastrand::Rng,
) -> io::Result<()> {
    let mut source = Source::new(from, &client)?;
    let mut client = Some(client);
    for destination in &to {
        let (tell, mut condition) = watch::channel(Condition::both(Flow::Hold));
        let follow = follow(&mut source, links.follow(&destination.name), tell);
        let carry = async {
            // A connection is made by packets both ways.
            let whole = |c: &Condition| c.there != Flow::Hold && c.back != Flow::Hold;
            let now = condition.wait_for(whole).await.map_or(Condition::WHOLE, |now| *now);
            for flow in [now.there, now.back] {
                if let Flow::Late(by) = flow {
                    sleep(by).await;
                }
            }
            let server = TcpStream::connect(destination.address).await.ok()?;
            Some(pump::both_ways(client.take()?, server, condition, random.fork()).await)
        };
        let carried = tokio::select! {
            carried = carry => carried,
            () = follow => None,
        };
        // Else nobody listens there.
        if let Some(carried) = carried {
            return carried;
        }
    }
    // Nobody listens at all: so the client is told.
    client.map_or(Ok(()), |client| client.set_zero_linger())
}

/// Tells what the link of a connection does, as it changes, for ever.
async fn follow(
    source: &mut Source,
    mut faults: watch::Receiver<Faults>,
    tell: watch::Sender<Condition>,
) {
    loop {
        let now = Arc::clone(&faults.borrow_and_update());
        let condition = match now.is_empty() {
            true => Condition::WHOLE,
            false => now.get(source.name().await).copied().unwrap_or_default(),
        };
        tell.send_replace(condition);
        if faults.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Where a connection comes from. It is looked up only once something is wrong with a link to its
/// destination: most connections never have to know.
struct Source {
    known: Option<String>,
    sources: Option<Arc<Sources>>,
    theirs: SocketAddr,
}

impl Source {
    fn new(from: Origin, client: &TcpStream) -> io::Result<Self> {
        let theirs = client.peer_addr()?;
        Ok(match from {
            Origin::One(name) => Self { known: Some(name), sources: None, theirs },
            Origin::Any(sources) => Self { known: None, sources: Some(sources), theirs },
        })
    }

    async fn name(&mut self) -> &str {
        if let Some(sources) = self.sources.take() {
            let theirs = self.theirs;
            let found = tokio::task::spawn_blocking(move || sources.of(theirs)).await;
            self.known = found.ok().flatten();
        }
        self.known.as_deref().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
