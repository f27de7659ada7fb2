//! The whole system as several nodes of this process, over the real servers: for cases in which
//! one of them goes or comes while the others serve on.

use crate::{PATIENCE, Person, Set, place::Place, world::Address};
use chaski::{
    config::Config,
    node::{Node, Role, Roles},
};
use chaski_auth::DevKey;
use chaski_core::placement::Placement;
use std::{collections::BTreeMap, sync::Arc};

/// Several nodes that share the real servers. To be ended with [`Parts::end`].
pub struct Parts {
    place: Place,
    config: Config,
    address: Arc<Address>,
    nodes: BTreeMap<&'static str, Node>,
    /// Ends last: others drain with its help.
    first: &'static str,
}

impl Parts {
    /// These nodes with these roles; the first one must be a gateway, and has the public address.
    ///
    /// # Panics
    /// Where they do not become ready, or a real server is missing.
    pub async fn start(nodes: &[(&'static str, &[Role])]) -> Self {
        Self::start_with(nodes, |_| ()).await
    }

    /// The same, with another configuration.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn start_with(
        nodes: &[(&'static str, &[Role])],
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let place = Place::new(Set::Real).await.expect("a place for the data");
        let mut config = place.config();
        change(&mut config);
        let key = DevKey::load_or_create(config.dev_key()).expect("a key");
        // Not in development mode: topics and tables are there, and need not be looked for.
        let public = config.data.join("public.pem");
        std::fs::write(&public, key.public_pem()).expect("its directory is writable");
        config.auth_keys = vec![public];
        let url = String::new();
        let address = Arc::new(Address { url, key });
        let first = nodes[0].0;
        let mut parts = Self { place, config, address, nodes: BTreeMap::new(), first };
        for (name, roles) in nodes {
            let node = parts.node(name, roles).await;
            parts.nodes.insert(name, node);
        }
        let url = parts.nodes[nodes[0].0].public_url.clone();
        let key = DevKey::load_or_create(parts.config.dev_key()).expect("it is there");
        parts.address = Arc::new(Address { url, key });
        for (name, _) in nodes {
            parts.until_ready(name).await;
        }
        parts
    }

    async fn node(&self, name: &str, roles: &[Role]) -> Node {
        let config = Config { host_id: name.into(), ..self.config.clone() };
        let node = Box::pin(Node::start(config, &Roles::of(roles), false)).await;
        node.expect("the node starts")
    }

    async fn until_ready(&self, name: &str) {
        let ready = tokio::time::timeout(3 * PATIENCE, self.nodes[name].ready()).await;
        ready.unwrap_or_else(|_| panic!("{name} is not ready")).expect("no part of it failed");
    }

    /// One node more, ready.
    ///
    /// # Panics
    /// Where it does not become ready.
    pub async fn add(&mut self, name: &'static str, roles: &[Role]) {
        let node = self.node(name, roles).await;
        self.nodes.insert(name, node);
        self.until_ready(name).await;
    }

    /// Drains a node as SIGTERM does, and waits for its end.
    ///
    /// # Panics
    /// Where a part of it had failed.
    pub async fn drain(&mut self, name: &str) {
        let node = self.nodes.remove(name).expect("it runs");
        let ended = tokio::time::timeout(3 * PATIENCE, Box::pin(node.run_until(async {}))).await;
        ended.expect("it drains in time").expect("no part of it failed");
    }

    /// Where keys are placed.
    #[must_use]
    pub fn placement(&self) -> Placement {
        Placement::new(self.config.partitions)
    }

    /// The address of a node: `http://…`.
    #[must_use]
    pub fn url(&self, name: &str) -> &str {
        &self.nodes[name].public_url
    }

    /// A new person.
    #[must_use]
    pub fn person(&self, name: &str) -> Person {
        Person::new(&self.address, name)
    }

    /// Stops all and removes the data.
    ///
    /// # Panics
    /// Where that fails.
    pub async fn end(mut self) {
        let first = self.nodes.remove(self.first);
        let nodes = std::mem::take(&mut self.nodes).into_values();
        let ended = nodes.map(|node| Box::pin(node.run_until(async {})));
        for ended in futures::future::join_all(ended).await {
            ended.expect("no part of it failed");
        }
        if let Some(first) = first {
            Box::pin(first.run_until(async {})).await.expect("no part of it failed");
        }
        self.place.remove().await.expect("its data is removed");
    }
}
