//! The configuration of a process: flag > environment `CHASKI_*` > TOML file > default. Unknown
//! keys are errors, as are numbers out of their range; `chaski config dump` shows what is in force.

mod ranges;

use anyhow::Context as _;
use chaski_api_gateway::GatewayConfig;
use chaski_auth::AuthConfig;
use chaski_backends::{BackendOptions, Urls};
use chaski_connection_service::ConnectionsConfig;
use chaski_delivery_service::{generator::GeneratorConfig, host::HostConfig};
use chaski_host_allocator::AllocatorConfig;
use chaski_message_service::MessagesConfig;
use chaski_sender_service::SenderConfig;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The configuration of a process.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where the embedded backend and the development key are kept.
    pub data: PathBuf,
    /// The public address.
    pub listen: String,
    /// The operators' address: health and metrics.
    pub admin_listen: String,
    /// The address for other services (gRPC); only needed where services are separate processes.
    pub rpc_listen: String,
    /// Where other services reach `rpc_listen`: a full `http://…`. Empty: what is bound.
    pub rpc_advertised: String,
    /// The log: `embedded:PATH` or `kafka://HOST:PORT,…`. Empty: embedded in `data`.
    pub log: String,
    /// The stores: `embedded:PATH` or `scylla://HOST:PORT,…/KEYSPACE`. Empty: embedded in `data`.
    pub store: String,
    /// The coordinator: `embedded:PATH` or `zookeeper://HOST:PORT,…/CHROOT`. Empty: embedded in
    /// `data`.
    pub coordinator: String,
    /// Stands before the name of every topic of Kafka: several systems can share one cluster.
    pub topic_prefix: String,
    /// Partitions of `new-messages` and of `recipients`, when they are first made.
    pub partitions: u32,
    /// The name of this process among its like, the same after a restart. Empty: one is made from
    /// the public address.
    pub host_id: String,
    /// What clients connect to when this process is a delivery host: a full `ws(s)://…/v1/ws`.
    /// Empty: made from the public address.
    pub advertised_url: String,
    /// Where this process stands; told to others, for people.
    pub region: String,
    /// How much this process can take, compared with others of its roles: its weight when partitions
    /// are placed.
    pub capacity: u32,
    /// What is logged, in the form of `RUST_LOG` (which wins).
    pub log_filter: String,
    /// Logs as JSON lines.
    pub log_json: bool,
    /// How long an orderly end may take, in seconds.
    pub drain_seconds: u64,
    /// Files with the public keys (PEM, Ed25519) that tokens are signed with.
    pub auth_keys: Vec<PathBuf>,
    /// What tokens must be like.
    pub auth: AuthConfig,
    /// Settings of the public address.
    pub gateway: GatewayConfig,
    /// Limits of what may be sent.
    pub sender: SenderConfig,
    /// Settings of the fan-out.
    pub generator: GeneratorConfig,
    /// Settings of the delivery hosts.
    pub delivery: HostConfig,
    /// Settings of the message service.
    pub messages: MessagesConfig,
    /// Settings of the connection service.
    pub connections: ConnectionsConfig,
    /// Settings of the allocator.
    pub allocator: AllocatorConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data: "./data".into(),
            listen: "127.0.0.1:8080".into(),
            admin_listen: "127.0.0.1:8081".into(),
            rpc_listen: "127.0.0.1:0".into(),
            rpc_advertised: String::new(),
            log: String::new(),
            store: String::new(),
            coordinator: String::new(),
            topic_prefix: "chaski.".into(),
            partitions: 12,
            host_id: String::new(),
            advertised_url: String::new(),
            region: String::new(),
            capacity: 1,
            log_filter: "info".into(),
            log_json: false,
            drain_seconds: 10,
            auth_keys: Vec::new(),
            auth: AuthConfig::default(),
            gateway: GatewayConfig::default(),
            sender: SenderConfig::default(),
            generator: GeneratorConfig::default(),
            delivery: HostConfig::default(),
            messages: MessagesConfig::default(),
            connections: ConnectionsConfig::default(),
            allocator: AllocatorConfig::default(),
        }
    }
}

impl Config {
    /// Loads the configuration in its layers.
    pub fn load(file: Option<&Path>, flags: &[(&str, String)]) -> anyhow::Result<Self> {
        let config = chaski_runtime::load(file, flags)?;
        ranges::check(&config)?;
        Ok(config)
    }

    /// The backends.
    pub fn urls(&self) -> anyhow::Result<Urls> {
        let embedded = format!("embedded:{}", self.data.display());
        let or_embedded =
            |url: &str| if url.is_empty() { embedded.clone() } else { url.to_owned() };
        Ok(Urls {
            log: or_embedded(&self.log).parse().context("log")?,
            store: or_embedded(&self.store).parse().context("store")?,
            coordinator: or_embedded(&self.coordinator).parse().context("coordinator")?,
        })
    }

    /// What the backends' URLs do not say.
    #[must_use]
    pub fn backends(&self) -> BackendOptions {
        let mut options = BackendOptions::default();
        options.kafka.topic_prefix.clone_from(&self.topic_prefix);
        options.inbox_days = self.messages.inbox_days;
        options
    }

    /// Where the development key is kept.
    #[must_use]
    pub fn dev_key(&self) -> PathBuf {
        match std::env::var_os("CHASKI_DEV_KEY") {
            Some(file) => file.into(),
            None => self.data.join("dev-key.pem"),
        }
    }
}
