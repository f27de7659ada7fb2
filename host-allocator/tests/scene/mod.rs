//! Hosts, an allocator and the table of one role, on the embedded coordinator.

use chaski_core::Partition;
use chaski_embedded::{Embedded, EmbeddedOptions};
use chaski_host_allocator::{
    Allocator, AllocatorConfig, Assignments, Host, HostRegistration, Role,
};
use chaski_ports::Coordinator;
use chaski_runtime::{CancellationToken, Tasks};
use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

pub(crate) const ROLE: Role = Role::Delivery;
pub(crate) const PARTITIONS: u32 = 12;

pub(crate) struct Scene {
    pub(crate) coordinator: Arc<dyn Coordinator>,
    pub(crate) table: Assignments,
    pub(crate) config: AllocatorConfig,
    pub(crate) tasks: Tasks,
    _directory: tempfile::TempDir,
}

impl Scene {
    pub(crate) fn new(config: AllocatorConfig) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let embedded = Embedded::open(directory.path(), EmbeddedOptions::default()).unwrap();
        let coordinator = embedded.coordinator();
        let tasks = Tasks::new();
        let (table, follower) =
            Assignments::follow(Arc::clone(&coordinator), ROLE, PARTITIONS, config.clone());
        tasks.spawn("follower", follower.run(tasks.stop()));
        Self { coordinator, table, config, tasks, _directory: directory }
    }

    /// An allocator that ends with the token.
    pub(crate) fn allocator(&self, id: &str) -> CancellationToken {
        let cancel = self.tasks.stop().child_token();
        let coordinator = Arc::clone(&self.coordinator);
        let allocator = Allocator::new(coordinator, id, [(ROLE, PARTITIONS)], self.config.clone());
        self.tasks.spawn(id, allocator.run(cancel.clone()));
        cancel
    }

    pub(crate) async fn host(&self, id: &str) -> HostRegistration {
        self.register(&host(id)).await
    }

    pub(crate) async fn register(&self, host: &Host) -> HostRegistration {
        let coordinator = Arc::clone(&self.coordinator);
        let registering = HostRegistration::register(coordinator, ROLE, host, &self.config);
        within("registering", registering).await.unwrap()
    }

    /// Waits until the hosts own so many partitions; gives owner and epoch of each.
    pub(crate) async fn owned(
        &self,
        loads: &[(&str, usize)],
    ) -> BTreeMap<Partition, (String, u64)> {
        let mut table = self.table.clone();
        let as_expected = async {
            while loads.iter().any(|(host, load)| table.mine(host).len() != *load) {
                table.changed().await.unwrap();
            }
        };
        within(&format!("{loads:?}"), as_expected).await;
        let owned = loads.iter().flat_map(|(host, _)| {
            let mine = table.mine(host).into_iter();
            mine.map(|(partition, epoch)| (partition, ((*host).to_owned(), epoch)))
        });
        owned.collect()
    }

    pub(crate) async fn end(self) {
        let failure = self.tasks.shut_down(Duration::from_secs(10)).await;
        assert_eq!(failure, None);
    }
}

/// What a host of this name says of itself.
pub(crate) fn host(id: &str) -> Host {
    Host::new(id, format!("ws://{id}/v1/ws"), "")
}

pub(crate) async fn within<T>(what: &str, event: impl Future<Output = T>) -> T {
    let limit = Duration::from_secs(60);
    let happened = tokio::time::timeout(limit, event).await;
    happened.unwrap_or_else(|_| panic!("{what} did not come within {limit:?}"))
}
