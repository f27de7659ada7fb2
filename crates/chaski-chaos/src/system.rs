//! The system under test: the servers and all services as processes of its own, every link
//! between them over a fault proxy; faults injected by a plan, and healed.
//!
//! Must not know: what the load is, and what is judged.

mod inject;
mod leftovers;
mod servers;
mod services;

use crate::{
    fault::{FaultRecord, Timeline},
    plan::{Plan, ProcessKind},
    proxy::{Condition, Destination, Origin, Proxies, Sources},
};
use anyhow::{Context as _, ensure};
use chaski::cluster::Layout;
use chaski_auth::DevKey;
use futures::future::try_join_all;
use leftovers::{Leftovers, MARK};
use rustix::process::Signal;
use servers::{SERVERS, Servers};
use services::Services;
use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};
use tokio::{net::TcpListener, process::Command, task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

/// A server that takes longer to answer again does not come back by itself.
const SERVER_READY_MAX: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(100);
/// Who is on the other end of the proxies that stand before the clients.
const CLIENTS: &str = "clients";

/// What is needed to start a system.
#[derive(Clone, Debug)]
pub struct SystemOptions {
    /// The `chaski` binary.
    pub program: PathBuf,
    /// Where its files and logs are; what is there of an earlier system is removed.
    pub dir: PathBuf,
    /// Decides what lossy links lose.
    pub seed: u64,
    /// Whether the services are started too; else [`System::begin_anew`] does it.
    pub services: bool,
    /// Whether clients connect to delivery hosts without a proxy in between: for thousands of them.
    pub direct_sockets: bool,
    /// What the services are told beside what they always are.
    pub settings: BTreeMap<String, String>,
}

/// A running system. All its processes end with it, and with this process, however that ends.
pub struct System {
    url: String,
    dev_key: PathBuf,
    timeline: Timeline,
    proxies: Proxies,
    parts: Arc<Parts>,
    supervisor: JoinSet<()>,
    program: PathBuf,
    /// The URLs of log, store and coordinator over the proxies.
    backends: [String; 3],
    dir: PathBuf,
    // Dropped after everything that starts processes.
    leftovers: Leftovers,
}

/// What faults are done to.
struct Parts {
    servers: Servers,
    services: Services,
}

impl System {
    /// Starts the servers and the services; all are ready.
    ///
    /// # Errors
    /// One of them does not become ready, or another harness uses the directory.
    pub async fn start(options: SystemOptions, timeline: Timeline) -> anyhow::Result<Self> {
        let dir = std::path::absolute(&options.dir)?;
        let leftovers = Leftovers::take(&dir)?;
        let cluster = dir.join("cluster");
        if cluster.exists() {
            fs::remove_dir_all(&cluster)?;
        }
        fs::create_dir_all(&cluster)?;
        let dev_key = cluster.join("dev-key.pem");
        DevKey::load_or_create(&dev_key)?;

        let mut fronts = Fronts::default();
        for name in SERVERS {
            fronts.open(name).await?;
        }
        let brokers = SERVERS.iter().filter(|name| name.starts_with("kafka"));
        let brokers: Vec<_> = brokers.filter_map(|name| fronts.at(name)).collect();
        tracing::info!("starting the servers");
        let servers = Servers::start(&dir, &brokers).await?;
        migrate(&options.program, &dir, servers.urls(), &BTreeMap::new()).await?;

        let names = Layout::BACKENDS.map(str::to_owned);
        let backends = servers::urls(|name| fronts.at(name));
        let mut env: BTreeMap<_, _> = names.into_iter().zip(backends.clone()).collect();
        env.insert(MARK.into(), dir.display().to_string());
        env.extend(options.settings);
        let layout = Layout {
            program: std::path::absolute(&options.program)?,
            args: Vec::new(),
            env,
            listen: String::new(),
            dev_key: dev_key.clone(),
        };
        let mut destinations = BTreeMap::new();
        let mut gateways = Vec::new();
        let mut processes = layout.plan(&cluster)?;
        for process in &mut processes {
            let address = |name: &str| -> anyhow::Result<SocketAddr> {
                Ok(process.env.get(name).context("an address")?.parse()?)
            };
            let (listen, rpc) = (address("CHASKI_LISTEN")?, address("CHASKI_RPC_LISTEN")?);
            let to = |address| Destination { name: process.name.clone(), address };
            match process.role.as_str() {
                "gateway" => gateways.push(to(listen)),
                "delivery" if options.direct_sockets => {
                    let url = format!("ws://{listen}/v1/ws");
                    process.env.insert("CHASKI_ADVERTISED_URL".into(), url);
                }
                "delivery" => {
                    let front = format!("{} sockets", process.name);
                    destinations.insert(front.clone(), vec![to(listen)]);
                    let at = fronts.open(&front).await?;
                    let url = format!("ws://{at}/v1/ws");
                    process.env.insert("CHASKI_ADVERTISED_URL".into(), url);
                }
                _ => {}
            }
            destinations.insert(process.name.clone(), vec![to(rpc)]);
            let at = fronts.open(&process.name).await?;
            process.env.insert("CHASKI_RPC_ADVERTISED".into(), format!("http://{at}"));
        }
        destinations.insert("public".into(), gateways);
        let url = format!("http://{}", fronts.open("public").await?);
        for name in SERVERS {
            let to = Destination { name: name.into(), address: servers.behind(name)? };
            destinations.insert(name.into(), vec![to]);
        }

        let services = Services::new(&cluster, processes);
        let parts = Arc::new(Parts { servers, services });
        let proxies = Proxies::new(options.seed);
        let sources = sources(&parts);
        for (name, listener) in fronts.0 {
            let to = destinations.remove(&name).context("a proxy with nothing behind it")?;
            let public = name == "public" || name.ends_with(" sockets");
            let from = match public {
                true => Origin::One(CLIENTS.into()),
                false => Origin::Any(Arc::clone(&sources)),
            };
            proxies.serve(listener, from, to);
        }
        let mut supervisor = JoinSet::new();
        let supervised = Arc::clone(&parts);
        supervisor.spawn(async move {
            tokio::join!(supervised.services.supervise(), supervised.supervise_servers());
        });
        let program = layout.program;
        let system = Self {
            url,
            dev_key,
            timeline,
            proxies,
            parts,
            supervisor,
            program,
            backends,
            dir,
            leftovers,
        };
        if options.services {
            tracing::info!("starting the services");
            system.parts.all_run().await?;
            tracing::info!(url = system.url, "all are ready");
        }
        Ok(system)
    }

    /// Ends the services, and starts them with these settings on topics, tables and nodes of their
    /// own, so that nothing of what was before has an effect. Times are on `timeline` from here on.
    ///
    /// # Errors
    /// A process does not come up.
    pub async fn begin_anew(
        &mut self,
        name: &str,
        mut settings: BTreeMap<String, String>,
        timeline: Timeline,
    ) -> anyhow::Result<()> {
        self.timeline = timeline;
        self.proxies.heal();
        let services = &self.parts.services;
        for process in services.names() {
            services.kill(&process).await?;
        }
        // Which servers are up is none of a trial's business.
        self.parts.servers_run().await?;
        let own = |url: &String| match url.strip_suffix("/chaski") {
            Some(servers) => format!("{servers}/{name}"),
            None => url.clone(),
        };
        settings.insert("CHASKI_TOPIC_PREFIX".into(), format!("{name}."));
        let urls = self.parts.servers.urls();
        let direct = [own(&urls[0]), own(&urls[1]), own(&urls[2])];
        migrate(&self.program, &self.dir, direct, &settings).await?;
        let backends = self.backends.iter().map(own);
        settings.extend(Layout::BACKENDS.map(str::to_owned).into_iter().zip(backends));
        services.set(&settings);
        self.parts.all_run().await
    }

    /// The public address for clients: `http://…`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The file of the development key, which signs tokens.
    #[must_use]
    pub fn dev_key(&self) -> &Path {
        &self.dev_key
    }

    /// Every kind of process that must stand being killed and paused.
    #[must_use]
    pub fn process_kinds(&self) -> Vec<String> {
        ProcessKind::ALL.iter().map(|kind| kind.name().to_owned()).collect()
    }

    /// The service processes that ended by themselves, and how often; they were started again.
    #[must_use]
    pub fn ended_by_themselves(&self) -> BTreeMap<String, u32> {
        self.parts.services.ends()
    }

    /// Injects and heals what the plan says until it is over or `stop`; each fault is in the
    /// answer.
    ///
    /// # Errors
    /// A process does not come back.
    pub async fn play(
        &mut self,
        plan: &Plan,
        stop: CancellationToken,
    ) -> anyhow::Result<Vec<FaultRecord>> {
        inject::play(&self.parts, &self.proxies, self.timeline, plan, stop).await
    }

    /// `kill -9` of a service process, which stays down until [`System::heal`].
    ///
    /// # Errors
    /// There is no such process.
    pub async fn kill_service(&self, name: &str) -> anyhow::Result<()> {
        self.parts.services.kill(name).await
    }

    /// Until everything runs, nothing is paused or cut, and all are ready.
    ///
    /// # Errors
    /// A process does not come back.
    pub async fn heal(&mut self) -> anyhow::Result<()> {
        self.proxies.heal();
        self.parts.all_run().await
    }

    /// Ends all processes and removes the servers' data; the services' logs stay.
    ///
    /// # Errors
    /// The data cannot be removed.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.supervisor.shutdown().await;
        self.leftovers.kill();
        Servers::remove(&self.dir).await
    }
}

impl Parts {
    /// Starts, wakes and waits for the servers that are not there.
    async fn servers_run(&self) -> anyhow::Result<()> {
        let servers = SERVERS.map(str::to_owned);
        let gone: Vec<_> = servers
            .iter()
            .filter(|name| self.servers.signal(name, Signal::CONT).is_err())
            .collect();
        if !gone.is_empty() {
            let gone: Vec<_> = gone.into_iter().cloned().collect();
            self.servers.start_again(&gone).await?;
        }
        for name in &servers {
            self.server_ready(name).await?;
        }
        Ok(())
    }

    /// Starts, wakes and waits for whatever is not there.
    async fn all_run(&self) -> anyhow::Result<()> {
        self.servers_run().await?;
        let services = self.services.names();
        for name in &services {
            if self.services.get(name)?.is_running() {
                self.services.go_on(name)?;
            } else if !self.services.is_wanted(name) {
                self.services.start(name)?;
            }
        }
        let ready = services.iter().map(|name| self.services.until_ready(name));
        try_join_all(ready).await.map(drop)
    }

    async fn server_ready(&self, name: &str) -> anyhow::Result<()> {
        let ready = async {
            while !self.servers.is_ready(name).await {
                sleep(POLL).await;
            }
        };
        let ready = tokio::time::timeout(SERVER_READY_MAX, ready).await;
        ready.with_context(|| format!("{name} does not answer within {SERVER_READY_MAX:?}"))
    }

    /// Starts servers again that ended by themselves, for ever.
    async fn supervise_servers(&self) {
        loop {
            sleep(Duration::from_secs(1)).await;
            let ended = self.servers.ended();
            if ended.is_empty() {
                continue;
            }
            tracing::error!(?ended, "servers ended by themselves, started again");
            if let Err(error) = self.servers.start_again(&ended).await {
                tracing::error!(%error, "cannot be started again");
            }
        }
    }
}

/// Listeners that are bound before it is known what stands behind them.
#[derive(Default)]
struct Fronts(BTreeMap<String, TcpListener>);

impl Fronts {
    async fn open(&mut self, name: &str) -> anyhow::Result<SocketAddr> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        self.0.insert(name.to_owned(), listener);
        Ok(address)
    }

    fn at(&self, name: &str) -> Option<SocketAddr> {
        self.0.get(name)?.local_addr().ok()
    }
}

/// Which service process a connection comes from.
fn sources(parts: &Arc<Parts>) -> Arc<Sources> {
    let parts = Arc::clone(parts);
    Arc::new(Sources::new(Box::new(move || parts.services.pids())))
}

async fn migrate(
    program: &Path,
    dir: &Path,
    urls: [String; 3],
    settings: &BTreeMap<String, String>,
) -> anyhow::Result<()> {
    let mut command = Command::new(program);
    command.arg("migrate").envs(Layout::BACKENDS.into_iter().zip(urls)).envs(settings);
    command.env("CHASKI_DATA", dir.join("cluster")).env(MARK, dir).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let output = command.spawn().context("cannot run chaski")?.wait_with_output().await?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "topics and tables cannot be made:\n{said}");
    Ok(())
}
