//! The whole system, running for tests.

use crate::{Caller, Device, Format, PATIENCE, Set, place::Place, random, socket::Socket};
use chaski::{
    config::Config,
    node::{Node, Roles},
};
use chaski_auth::DevKey;
use chaski_backends::open_log;
use chaski_core::placement::Placement;
use chaski_ports::{Clock as _, Log, SystemClock};
use std::{sync::Arc, time::Duration};
use tokio::sync::{Mutex, OnceCell};

/// A running system with data of its own. To be ended with [`World::end`].
pub struct World {
    config: Config,
    address: Arc<Address>,
    /// What keeps running and what is kept; gone when the world has ended.
    running: Mutex<Option<(Option<Node>, Place)>>,
}

/// The worlds that cases share: the usual one, and the one with small limits.
static SHARED: [[OnceCell<World>; 2]; 2] = [const { [const { OnceCell::const_new() }; 2] }; 2];

fn shared(set: Set) -> &'static [OnceCell<World>; 2] {
    &SHARED[usize::from(set == Set::Real)]
}

impl World {
    /// The world that most cases of this process share. They do not meet: every [`Person`] is new.
    pub async fn shared(set: Set) -> &'static Self {
        shared(set)[0].get_or_init(|| Self::start(set, |_| ())).await
    }

    /// Another shared world, with small limits: a ring of a few records, a heartbeat of a second,
    /// a second for `hello`.
    pub async fn small(set: Set) -> &'static Self {
        let small = |config: &mut Config| {
            config.delivery.ring_bytes = 20_000;
            config.delivery.burst_bytes = 2_000;
            config.delivery.heartbeat_seconds = 1;
            config.delivery.hello_seconds = 1;
        };
        shared(set)[1].get_or_init(|| Self::start(set, small)).await
    }

    pub(crate) async fn end_shared(set: Set) {
        for world in shared(set).iter().filter_map(OnceCell::get) {
            world.end().await;
        }
    }

    /// A world for a case that stops or disturbs it.
    ///
    /// # Panics
    /// Where it does not start, or a real server is missing.
    pub async fn start(set: Set, change: impl FnOnce(&mut Config)) -> Self {
        let place = Place::new(set).await.expect("a place for the world's data");
        let mut config = place.config();
        change(&mut config);
        let (node, url) = start(&config).await;
        // A restart comes back at the same address.
        config.listen = url.strip_prefix("http://").expect("an address").to_owned();
        let key = DevKey::load_or_create(config.dev_key()).expect("the node made it");
        let address = Arc::new(Address { url, key });
        Self { config, address, running: Mutex::new(Some((Some(node), place))) }
    }

    /// Drains the system in an orderly way, as SIGTERM does.
    ///
    /// # Panics
    /// Where a part of it had failed, or it does not end in time.
    pub async fn stop(&self) {
        let node = self.running.lock().await.as_mut().and_then(|(node, _)| node.take());
        let ended = node.expect("it runs").run_until(async {});
        let ended = tokio::time::timeout(PATIENCE, Box::pin(ended)).await;
        ended.expect("it drains in time").expect("no part of it failed");
    }

    /// Starts it again on the same data, at the same address.
    ///
    /// # Panics
    /// Where it does not start.
    pub async fn start_again(&self) {
        let (node, url) = start(&self.config).await;
        assert_eq!(url, self.address.url);
        if let Some((running, _)) = self.running.lock().await.as_mut() {
            *running = Some(node);
        }
    }

    /// Stops it and removes its data.
    ///
    /// # Panics
    /// Where that fails.
    pub async fn end(&self) {
        let Some((node, place)) = self.running.lock().await.take() else { return };
        if let Some(node) = node {
            Box::pin(node.run_until(async {})).await.expect("no part of it failed");
        }
        place.remove().await.expect("the place is removed");
    }

    /// A new person.
    #[must_use]
    pub fn person(&self, name: &str) -> Person {
        Person::new(&self.address, name)
    }

    /// The public address: `http://…`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.address.url
    }

    /// The log, to read and write past the services.
    ///
    /// # Panics
    /// Where it does not open.
    pub async fn log(&self) -> Arc<dyn Log> {
        let urls = self.config.urls().expect("they were used before");
        open_log(&urls.log, &self.config.backends()).await.expect("the log opens")
    }

    /// Where keys are placed.
    #[must_use]
    pub fn placement(&self) -> Placement {
        Placement::new(self.config.partitions)
    }
}

async fn start(config: &Config) -> (Node, String) {
    let node = Box::pin(Node::start(config.clone(), &Roles::of(&[]), true)).await;
    let node = node.expect("the system starts");
    let ready = tokio::time::timeout(2 * PATIENCE, node.ready()).await;
    ready.expect("it becomes ready in time").expect("no part of it failed");
    let url = node.public_url.clone();
    (node, url)
}

/// Where people connect to, and who signs their tokens.
pub(crate) struct Address {
    pub(crate) url: String,
    pub(crate) key: DevKey,
}

/// A person of a world.
pub struct Person {
    address: Arc<Address>,
    /// The user id.
    pub id: String,
}

impl Person {
    pub(crate) fn new(address: &Arc<Address>, name: &str) -> Self {
        Self { address: Arc::clone(address), id: format!("{name}-{}", random()) }
    }

    /// A token for one of their devices.
    #[must_use]
    pub fn token(&self, device: &str) -> String {
        self.token_for(device, Duration::from_secs(3600), SystemClock.now_ms())
    }

    /// A token with this life, from this time on.
    ///
    /// # Panics
    /// Where an id is illegal.
    #[must_use]
    pub fn token_for(&self, device: &str, ttl: Duration, from_ms: i64) -> String {
        let (user, device) = (self.id.parse(), device.parse());
        self.address.key.sign(&user.expect("legal"), &device.expect("legal"), ttl, from_ms)
    }

    /// Over HTTP, as one of their devices.
    #[must_use]
    pub fn http(&self, device: &str) -> Caller {
        Caller::new(&self.address.url, self.token(device))
    }

    /// A socket that has not said `hello`.
    pub async fn socket(&self, device: &str, format: Format) -> Socket {
        let token = self.token(device);
        let opened = Socket::open(&self.address.url, Some(&token), format).await;
        opened.expect("the token is good")
    }

    /// A device that goes on where the server's cursor stands.
    pub async fn device(&self, device: &str) -> Device {
        let socket = self.socket(device, Format::Json).await;
        Device::hello(socket, &self.id, device, None).await
    }

    /// A device that has taken everything up to this position.
    pub async fn resume(&self, device: &str, after: u64) -> Device {
        let socket = self.socket(device, Format::Json).await;
        Device::hello(socket, &self.id, device, Some(after)).await
    }

    /// The project's own client for a device.
    ///
    /// # Panics
    /// Where the address is not usable.
    #[must_use]
    pub fn client(&self, device: &str, resume_after: Option<u64>) -> chaski_client::Client {
        self.client_at(&self.address.url, device, resume_after)
    }

    /// The same, at this address.
    ///
    /// # Panics
    /// Where it is none.
    #[must_use]
    pub fn client_at(
        &self,
        url: &str,
        device: &str,
        resume_after: Option<u64>,
    ) -> chaski_client::Client {
        let tokens = chaski_client::TokenProvider::fixed(self.token(device));
        let mut config = chaski_client::Config::new(url, &self.id, device, tokens);
        config.resume_after = resume_after;
        chaski_client::Client::new(config).expect("a usable address")
    }
}
