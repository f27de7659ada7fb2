//! The parts of a process: each service is local where its role is played here, else remote.

use super::{Role, Roles, backends, presence::Presence, relay, revocations::Tailer};
use crate::config::Config;
use anyhow::Context as _;
use chaski_api_gateway::{Gateway, LateRouter, moved_ws_router};
use chaski_auth::{DevKey, Revocations, Verifier};
use chaski_connection_service::ConnectionService;
use chaski_core::{Position, SourceId, placement::Placement};
use chaski_delivery_service::{
    generator::Generator,
    host::{DeliveryHost, Ending, HostParts, RelayService, Whereabouts},
};
use chaski_host_allocator::{
    Allocator, Assignments, Follower, Host, Locator, Lookup, Role as Owner,
};
use chaski_message_service::MessageService;
use chaski_ports::{Ports, ProducePolicy, Topic};
use chaski_proto::v1::{
    connections_server::Connections, hosts_server::Hosts, messages_server::Messages,
    sender_server::Sender,
};
use chaski_relay::{Links, Relays};
use chaski_rpc::{Endpoints, RemoteConnections, RemoteMessages, RemoteSender, Services};
use chaski_runtime::{Owned, Readiness, Tasks, Work};
use chaski_sender_service::{BlocksShown, SenderService};
use std::{collections::BTreeMap, convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};
use tokio::sync::watch;

/// The services of a process and what they stand on.
pub(super) struct Parts {
    config: Config,
    ports: Ports,
    placement: Placement,
    source: SourceId,
    presence: Presence,
    ws_url: String,
    verifier: Arc<Verifier>,
    revocations: Revocations,
    whereabouts: watch::Sender<Whereabouts>,
    followers: parking_lot::Mutex<Vec<Follower>>,
    endpoints: BTreeMap<Owner, Endpoints>,
    sender: Arc<dyn Sender>,
    own_sender: Option<Arc<SenderService>>,
    messages: Arc<dyn Messages>,
    own_messages: Option<Arc<MessageService>>,
    connections: Arc<dyn Connections>,
    own_connections: Option<Arc<ConnectionService>>,
    hosts: Arc<Locator>,
    relays: Relays,
    links: parking_lot::Mutex<Option<Links>>,
    delivery: Option<Arc<DeliveryHost>>,
}

impl Parts {
    /// Opens the backends, however long one is away, and builds the services; nothing runs yet.
    pub(super) async fn open(
        config: Config,
        roles: &Roles,
        public: SocketAddr,
        dev_key: Option<&DevKey>,
        readiness: &Readiness,
    ) -> anyhow::Result<Self> {
        let opening = backends::open(&config, dev_key.is_some(), readiness);
        let (ports, partitions) = Box::pin(opening).await?;
        let placement = Placement::new(partitions);
        let cluster = ports.log.cluster_id().await?;
        let source = |topic: Topic| {
            let topic = format!("{}{}", config.topic_prefix, topic.name());
            SourceId::of(&cluster, &topic, Position::GENERATION)
        };
        let revocations = Revocations::new(&config.auth);
        let verifier = verifier(&config, dev_key)?.with_revocations(revocations.clone());
        let verifier = Arc::new(verifier);

        let (mut followed, mut followers) = (BTreeMap::new(), Vec::new());
        for owner in Owner::OWNERS.into_iter().chain([Owner::Sender]) {
            let coordinator = Arc::clone(&ports.coordinator);
            let owned = if owner == Owner::Sender { 0 } else { partitions };
            let (assignments, follower) =
                Assignments::follow(coordinator, owner, owned, config.allocator.clone());
            followed.insert(owner, assignments);
            followers.push(follower);
        }
        let mut endpoints = BTreeMap::new();
        let mut remote = |owner| endpoints.entry(owner).or_insert_with(Endpoints::default).clone();
        let own_sender = roles.has(Role::Sender).then(|| {
            let (log, clock) = (Arc::clone(&ports.log), Arc::clone(&ports.clock));
            Arc::new(SenderService::new(log, placement, clock, config.sender.clone()))
        });
        let sender: Arc<dyn Sender> = match &own_sender {
            Some(own) => Arc::clone(own) as _,
            None => Arc::new(RemoteSender::new(remote(Owner::Sender))),
        };
        let own_messages = if roles.has(Role::Messages) {
            let producer = ports.log.producer(ProducePolicy::Forever)?;
            let (source, settings) = (source(Topic::NewMessages), config.messages.clone());
            let service = MessageService::new(ports.clone(), producer, placement, source, settings);
            Some(Arc::new(service))
        } else {
            None
        };
        let messages: Arc<dyn Messages> = match &own_messages {
            Some(own) => Arc::clone(own) as _,
            None => Arc::new(RemoteMessages::new(remote(Owner::Messages))),
        };
        let own_connections = roles.has(Role::Connections).then(|| {
            let (source, settings) =
                (source(Topic::ConnectionRequests), config.connections.clone());
            let idle_days = config.messages.device_idle_days;
            Arc::new(ConnectionService::new(ports.clone(), placement, source, idle_days, settings))
        });
        let connections: Arc<dyn Connections> = match &own_connections {
            Some(own) => Arc::clone(own) as _,
            None => Arc::new(RemoteConnections::new(remote(Owner::Connections))),
        };
        let lookup = Lookup::new(followed[&Owner::Delivery].clone(), placement);
        let (relays, links) =
            relay::relays(&config.delivery, lookup.clone(), followed[&Owner::Delivery].clone());
        let hosts = Arc::new(Locator::new(lookup));
        let (whereabouts, told) = watch::channel(Whereabouts::default());
        let parts = HostParts {
            log: Arc::clone(&ports.log),
            sender: Arc::clone(&sender),
            messages: Arc::clone(&messages),
            connections: Arc::clone(&connections),
            whereabouts: told,
            relays: Some(relays.clone()),
            verifier: Arc::clone(&verifier),
            clock: Arc::clone(&ports.clock),
            placement,
            source: source(Topic::NewMessages),
            blocks_visible: config.sender.blocks == BlocksShown::Visible,
        };
        let delivery =
            roles.has(Role::Delivery).then(|| DeliveryHost::new(parts, config.delivery.clone()));
        let or = |text: &str, default: String| if text.is_empty() { default } else { text.into() };
        Ok(Self {
            presence: Presence {
                host_id: or(&config.host_id, public.to_string().replace([':', '[', ']'], "-")),
                coordinator: Arc::clone(&ports.coordinator),
                config: config.allocator.clone(),
                followed,
                said: parking_lot::Mutex::default(),
            },
            ws_url: or(&config.advertised_url, format!("ws://{public}/v1/ws")),
            source: source(Topic::NewMessages),
            config,
            ports,
            placement,
            verifier,
            revocations,
            whereabouts,
            followers: followers.into(),
            endpoints,
            sender,
            own_sender,
            messages,
            own_messages,
            connections,
            own_connections,
            hosts,
            relays,
            links: Some(links).into(),
            delivery,
        })
    }

    /// Starts everything that runs.
    pub(super) async fn spawn(
        self: Arc<Self>,
        roles: &Roles,
        tasks: &Tasks,
        readiness: &Readiness,
        public: LateRouter,
    ) -> anyhow::Result<()> {
        for follower in std::mem::take(&mut *self.followers.lock()) {
            tasks.spawn("assignments", follower.run(tasks.stop()));
        }
        for (owner, endpoints) in &self.endpoints {
            let found = readiness.gate(format!("a host of {owner}"));
            tasks.spawn(
                "endpoints",
                follow_endpoints(self.presence.followed[owner].clone(), endpoints.clone(), found),
            );
        }
        let rpc_url = self.spawn_rpc(roles, tasks).await?;
        if roles.has(Role::Allocator) {
            let owners = Owner::OWNERS.map(|owner| (owner, self.placement.partitions()));
            let coordinator = Arc::clone(&self.ports.coordinator);
            let settings = self.config.allocator.clone();
            let allocator =
                Allocator::new(coordinator, self.presence.host_id.clone(), owners, settings);
            tasks.spawn("allocator", allocator.run(tasks.stop()));
        }
        if let Some(service) = self.own_sender.clone() {
            self.register(Owner::Sender, tasks, &rpc_url);
            tasks.spawn("sender/blocks", service.follow_connections(tasks.stop()));
        }
        if let Some(service) = self.own_connections.clone() {
            let (owned, all) = (self.owned(Owner::Connections, tasks, &rpc_url), tasks.clone());
            self.presence.tell_load(Owner::Connections, service.work(), &self.ports, tasks);
            tasks.spawn(Owner::Connections.name(), async move {
                service.run(&all, owned).await;
                Ok::<_, Infallible>(())
            });
        }
        if let Some(service) = self.own_messages.clone() {
            let (owned, all) = (self.owned(Owner::Messages, tasks, &rpc_url), tasks.clone());
            self.presence.tell_load(Owner::Messages, service.work(), &self.ports, tasks);
            tasks.spawn(Owner::Messages.name(), async move {
                service.run(&all, owned).await;
                Ok::<_, Infallible>(())
            });
        }
        if roles.has(Role::Generator) {
            let work = Work::new(Owner::Generator.name());
            let generator = Generator {
                log: Arc::clone(&self.ports.log),
                checkpoints: Arc::clone(&self.ports.checkpoints),
                clock: Arc::clone(&self.ports.clock),
                placement: self.placement,
                source: self.source,
                rules: self.config.generator.rules(self.config.sender.participants_max),
                work: work.clone(),
                config: self.config.generator.clone(),
            };
            let (owned, all) = (self.owned(Owner::Generator, tasks, &rpc_url), tasks.clone());
            self.presence.tell_load(Owner::Generator, work, &self.ports, tasks);
            tasks.spawn(Owner::Generator.name(), async move {
                generator.run(&all, owned).await;
                Ok::<_, Infallible>(())
            });
        }
        if let Some(host) = self.delivery.clone() {
            self.register(Owner::Delivery, tasks, &rpc_url);
            self.presence.whereabouts(self.whereabouts.clone(), tasks);
            self.presence.tell_warm(host.warm(), tasks);
            self.presence.tell_load(Owner::Delivery, host.work(), &self.ports, tasks);
            let (all, warm) = (tasks.clone(), readiness.gate("delivery is warm"));
            let assignments = self.presence.followed[&Owner::Delivery].clone();
            let host_id = self.presence.host_id.clone();
            let settled = settled(assignments, self.whereabouts.subscribe(), host_id);
            tasks.spawn(Owner::Delivery.name(), async move {
                host.run(&all, settled, warm).await;
                Ok::<_, Infallible>(())
            });
        }
        if roles.has(Role::Gateway) || roles.has(Role::Delivery) {
            let tailer = Tailer {
                log: Arc::clone(&self.ports.log),
                clock: Arc::clone(&self.ports.clock),
                revocations: self.revocations.clone(),
                host: self.delivery.clone(),
                known: readiness.gate("revocations are known"),
            };
            tasks.spawn("revocations", tailer.run(tasks.stop()));
            if let Some(links) = self.links.lock().take() {
                let stop = tasks.stop();
                tasks.spawn("relays", async move {
                    links.run(stop).await;
                    Ok::<_, Infallible>(())
                });
            }
        }
        self.open_public(roles, tasks, readiness, public);
        self.gate_on_owners(roles, tasks, readiness);
        Ok(())
    }

    /// The public address once the process is ready: HTTP where this is a gateway, WebSockets where
    /// it is a delivery host.
    fn open_public(&self, roles: &Roles, tasks: &Tasks, readiness: &Readiness, public: LateRouter) {
        let settings = self.config.gateway.clone();
        let clock = Arc::clone(&self.ports.clock);
        let sockets = self.delivery.as_ref().map(|host| host.router());
        let router = if roles.has(Role::Gateway) {
            let hosts: Arc<dyn Hosts> = Arc::clone(&self.hosts) as _;
            let verifier = Arc::clone(&self.verifier);
            let gateway = Gateway {
                sender: Arc::clone(&self.sender),
                messages: Arc::clone(&self.messages),
                connections: Arc::clone(&self.connections),
                hosts: Arc::clone(&hosts),
                verifier: Arc::clone(&verifier),
                clock: Arc::clone(&clock),
                config: settings.clone(),
            };
            let sockets = sockets.unwrap_or_else(|| {
                let relays = Some(self.relays.clone());
                moved_ws_router(hosts, relays, verifier, clock, settings.clone())
            });
            chaski_api_gateway::router(gateway).merge(sockets)
        } else if let Some(sockets) = sockets {
            sockets
        } else {
            return;
        };
        // Open before the process calls itself ready.
        let (serving, stop) = (readiness.gate("the public address serves"), tasks.stop());
        tasks.spawn("public/opening", async move {
            tokio::select! {
                () = stop.cancelled() => {}
                // Once: what comes to be missing later is answered by those who miss it.
                () = serving.is_last() => {
                    public.open(router);
                    serving.open();
                }
            }
            Ok::<_, Infallible>(())
        });
    }

    /// Serves the local services to other processes; where others reach them.
    async fn spawn_rpc(&self, roles: &Roles, tasks: &Tasks) -> anyhow::Result<String> {
        let services = Services {
            sender: self.own_sender.clone().map(|own| own as _),
            messages: self.own_messages.clone().map(|own| own as _),
            connections: self.own_connections.clone().map(|own| own as _),
            hosts: roles.has(Role::Allocator).then(|| Arc::clone(&self.hosts) as _),
            tables: roles.has(Role::Allocator).then(|| Arc::clone(&self.hosts) as _),
            relayed: self
                .delivery
                .clone()
                .map(|host| Arc::new(RelayService::new(host, tasks.clone())) as _),
        };
        if services.is_empty() {
            return Ok(String::new());
        }
        let listener = super::bind(&self.config.rpc_listen, "rpc_listen").await?;
        let url = match self.config.rpc_advertised.as_str() {
            "" => format!("http://{}", listener.local_addr()?),
            advertised => advertised.to_owned(),
        };
        tasks.spawn("grpc", chaski_rpc::serve(listener, services, tasks.stop()));
        Ok(url)
    }

    /// Says that this process plays the role.
    fn register(&self, owner: Owner, tasks: &Tasks, rpc_url: &str) {
        let ws_url = if owner == Owner::Delivery { self.ws_url.as_str() } else { "" };
        let host = Host {
            region: self.config.region.as_str().into(),
            capacity: self.config.capacity,
            ..Host::new(self.presence.host_id.clone(), ws_url, rpc_url)
        };
        self.presence.register(owner, host, tasks);
    }

    /// Registers this process and follows which partitions it owns.
    fn owned(&self, owner: Owner, tasks: &Tasks, rpc_url: &str) -> watch::Receiver<Owned> {
        self.register(owner, tasks, rpc_url);
        self.presence.owned(owner, tasks)
    }

    /// Ready only when every partition of what this process plays has an owner.
    fn gate_on_owners(&self, roles: &Roles, tasks: &Tasks, readiness: &Readiness) {
        let mut wanted = vec![Owner::Delivery];
        wanted.extend(roles.has(Role::Generator).then_some(Owner::Generator));
        wanted.extend(roles.has(Role::Messages).then_some(Owner::Messages));
        wanted.extend(roles.has(Role::Connections).then_some(Owner::Connections));
        if wanted.len() > 1 || roles.has(Role::Delivery) {
            let gate = readiness.gate("a session of the coordinator");
            self.presence.gate_on_session(gate, tasks);
        }
        for owner in wanted {
            let gate = readiness.gate(format!("owners of all partitions of {owner}"));
            let mut assignments = self.presence.followed[&owner].clone();
            let stop = tasks.stop();
            tasks.spawn(format!("ready/{owner}"), async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    owned = assignments.all_owned() => if owned.is_ok() { gate.open() },
                }
                Ok::<_, Infallible>(())
            });
        }
    }

    /// Hands over what this process owns, as far as others are there to take it.
    pub(super) async fn hand_over(&self) {
        // An allocator that does not answer is not waited for any longer than a new owner.
        let most = Duration::from_millis(self.config.delivery.move_ms);
        let _ = tokio::time::timeout(most, self.presence.leave()).await;
        if let Some(host) = &self.delivery
            && self.presence.owns_nothing(Owner::Delivery)
        {
            host.handed_over().await;
        }
    }

    /// Sends the clients of this process away.
    pub(super) async fn drain(&self, ending: Ending, patience: Duration) {
        let served = async {
            if let Some(host) = &self.delivery {
                host.drain(ending, patience).await;
            }
        };
        tokio::join!(served, self.relays.drain(patience));
    }
}

/// Waits until every partition has an owner, and this host knows all that it is to have of them.
async fn settled(
    mut assignments: Assignments,
    mut whereabouts: watch::Receiver<Whereabouts>,
    host_id: String,
) {
    while assignments.all_owned().await.is_ok() {
        let mine = assignments.mine(&host_id).into_iter().map(|(partition, _)| partition);
        if whereabouts.borrow_and_update().owned == mine.collect() {
            return;
        }
        let changed = tokio::select! {
            changed = whereabouts.changed() => changed.is_ok(),
            changed = assignments.changed() => changed.is_ok(),
        };
        if !changed {
            break;
        }
    }
    // What is followed no more never settles: the process ends.
    std::future::pending().await
}

/// Keeps the endpoints of a role as its hosts come and go.
async fn follow_endpoints(
    mut hosts: Assignments,
    endpoints: Endpoints,
    found: chaski_runtime::Gate,
) -> anyhow::Result<()> {
    loop {
        let there = hosts.hosts();
        let all_drain = there.iter().all(|host| host.draining);
        let urls: Vec<String> = there
            .iter()
            // Who is about to end is called no more, as long as others are there.
            .filter(|host| !host.rpc_url.is_empty() && (!host.draining || all_drain))
            .map(|host| host.rpc_url.to_string())
            .collect();
        endpoints.update(&urls)?;
        if !urls.is_empty() {
            found.open();
        }
        if hosts.changed().await.is_err() {
            return Ok(());
        }
    }
}

fn verifier(config: &Config, dev_key: Option<&DevKey>) -> anyhow::Result<Verifier> {
    let mut keys = Vec::new();
    for file in &config.auth_keys {
        let pem = std::fs::read_to_string(file);
        keys.push(pem.with_context(|| format!("auth_keys: cannot read {}", file.display()))?);
    }
    keys.extend(dev_key.map(|key| key.public_pem().to_owned()));
    anyhow::ensure!(
        !keys.is_empty(),
        "no key to check tokens with: set auth_keys to files with Ed25519 public keys (PEM), \
         or use development mode (--dev)"
    );
    Ok(Verifier::new(keys)?)
}
