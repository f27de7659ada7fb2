//! A connection service in a directory of its own, and looks at what it leaves behind.

use chaski_connection_service::{ConnectionService, ConnectionsConfig};
use chaski_core::{
    Offset, Partition, SourceId, UserId, Verdict, Watermark, placement::Placement, record::UnixMs,
};
use chaski_embedded::{Embedded, EmbeddedOptions};
use chaski_ports::{LogRecord, Ports, StandingClock, Topic};
use chaski_proto::{
    Problem, RecipientRecord,
    v1::{self, connections_server::Connections as _, recipients_record::Event},
};
use chaski_runtime::{Owned, Tasks};
use prost::Message as _;
use std::{convert::Infallible, sync::Arc, time::Duration};
use tokio::sync::watch;
use tonic::Request;

pub(crate) const PARTITIONS: u32 = 4;
pub(crate) const NOW: UnixMs = 1_800_000_000_500;
pub(crate) const IDLE_DAYS: u32 = 90;

pub(crate) struct World {
    pub(crate) ports: Ports,
    pub(crate) clock: Arc<StandingClock>,
    tasks: Tasks,
    _dir: tempfile::TempDir,
}

impl World {
    pub(crate) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(StandingClock::new(NOW));
        let options =
            EmbeddedOptions { clock: Arc::clone(&clock) as _, ..EmbeddedOptions::default() };
        let embedded = Embedded::open(dir.path(), options).unwrap();
        let ports = Ports {
            log: embedded.log(),
            messages: embedded.messages(),
            chats: embedded.chats(),
            connections: embedded.connections(),
            devices: embedded.devices(),
            checkpoints: embedded.checkpoints(),
            coordinator: embedded.coordinator(),
            clock: Arc::clone(&clock) as _,
        };
        ports.log.create_topics(PARTITIONS).await.unwrap();
        Self { ports, clock, tasks: Tasks::new(), _dir: dir }
    }

    /// A service over these ports, which decides nothing yet.
    pub(crate) fn service(&self, ports: Ports) -> Arc<ConnectionService> {
        self.service_with(ports, ConnectionsConfig::default())
    }

    /// The same, with settings of its own.
    pub(crate) fn service_with(
        &self,
        ports: Ports,
        config: ConnectionsConfig,
    ) -> Arc<ConnectionService> {
        let config = ConnectionsConfig { restart_delay_ms: 1, ..config };
        let (placement, source) = (Placement::new(PARTITIONS), SourceId(7));
        Arc::new(ConnectionService::new(ports, placement, source, IDLE_DAYS, config))
    }

    /// Makes a service the owner of all partitions.
    pub(crate) fn run(&self, service: &Arc<ConnectionService>, epoch: u64) {
        let owned: Owned = (0..PARTITIONS).map(|p| (Partition(p), epoch)).collect();
        let (service, all) = (Arc::clone(service), self.tasks.clone());
        let (_, owned) = watch::channel(owned);
        self.tasks.spawn("connections", async move {
            service.run(&all, owned).await;
            Ok::<_, Infallible>(())
        });
    }

    /// A service that decides in all partitions.
    pub(crate) fn running(&self) -> Arc<ConnectionService> {
        let service = self.service(self.ports.clone());
        self.run(&service, 1);
        service
    }

    /// Runs something beside the test.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn("beside", async move {
            task.await;
            Ok::<_, Infallible>(())
        });
    }

    pub(crate) async fn end(self) {
        assert_eq!(self.tasks.shut_down(Duration::from_secs(10)).await, None);
    }

    /// The first `count` records of a partition; waits until they are there.
    pub(crate) async fn records(
        &self,
        topic: Topic,
        partition: Partition,
        count: usize,
    ) -> Vec<LogRecord> {
        let mut reader = self.ports.log.reader(topic, partition, Offset(0)).await.unwrap();
        let mut records = Vec::new();
        let all = async {
            while records.len() < count {
                records.extend(reader.next().await.unwrap());
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(10), all).await;
        waited.unwrap_or_else(|_| panic!("{topic:?}: {} of {count} records", records.len()));
        records
    }

    /// What the user's devices are told, as every consumer sees it: through the origin filter.
    pub(crate) async fn told(&self, user: &str) -> Vec<String> {
        let partition = partition_of(user);
        let bounds = self.ports.log.bounds(Topic::Recipients, partition).await.unwrap();
        let mut reader =
            self.ports.log.reader(Topic::Recipients, partition, Offset(0)).await.unwrap();
        let (mut mark, mut told) = (Watermark::default(), Vec::new());
        while mark.next < bounds.end {
            for record in reader.next().await.unwrap() {
                mark.next = record.offset.next();
                let placed = RecipientRecord::decode(record.value).unwrap();
                let (source, origin) = placed.origin.unwrap();
                let entry = placed.entry.unwrap();
                match mark.admit(source, origin, placed.prev) {
                    Verdict::Apply if entry.users[0].as_str() == user => {
                        told.push(words(&entry.event));
                    }
                    // What is behind a hole must come again.
                    Verdict::Apply | Verdict::Repeat | Verdict::Hole => {}
                }
            }
        }
        told
    }

    /// What the derived topic's last word on a pair is.
    pub(crate) async fn published(&self, user: &str, peer: &str) -> Option<(i32, u64)> {
        let bounds = self.ports.log.bounds(Topic::Connections, Partition(0)).await.unwrap();
        let key = format!("{user}/{peer}");
        let (mut next, mut last) = (Offset(0), None);
        let mut reader =
            self.ports.log.reader(Topic::Connections, Partition(0), next).await.unwrap();
        while next < bounds.end {
            for record in reader.next().await.unwrap() {
                next = record.offset.next();
                if record.key == key {
                    let state = v1::ConnectionState::decode(record.value).unwrap();
                    last = Some((state.status, state.version));
                }
            }
        }
        last
    }
}

fn words(event: &Event) -> String {
    match event {
        Event::ConnectionChange(change) => {
            let lifted = if change.lifted { " lifted" } else { "" };
            format!("{} {:?} v{}{lifted}", change.peer_id, change.status(), change.version)
        }
        Event::SettingsChange(settings) => format!("hide {}", settings.hide_read_marks),
        other => panic!("{other:?} is not told by this service"),
    }
}

pub(crate) fn partition_of(user: &str) -> Partition {
    Placement::new(PARTITIONS).of_user(&user.parse::<UserId>().unwrap())
}

pub(crate) fn caller(user: &str) -> Option<v1::Caller> {
    Some(v1::Caller { user_id: user.into(), device_id: "phone".into() })
}

pub(crate) async fn set(
    service: &ConnectionService,
    user: &str,
    peer: &str,
    status: i32,
    based_on_version: Option<u64>,
) -> Result<v1::ConnectionSet, Problem> {
    let connection = Some(v1::SetConnection { user_id: peer.into(), status, based_on_version });
    let request = Request::new(v1::SetConnectionRequest { caller: caller(user), connection });
    // Not the inherent method of the same name.
    let set = v1::connections_server::Connections::set(service, request).await;
    set.map(tonic::Response::into_inner).map_err(Problem::from)
}

pub(crate) async fn hide(service: &ConnectionService, user: &str, hide_read_marks: bool) {
    let settings = Some(v1::SetSettings { hide_read_marks });
    let request = v1::SetSettingsRequest { caller: caller(user), settings };
    service.put_settings(Request::new(request)).await.unwrap();
}

pub(crate) async fn hides(service: &ConnectionService, user: &str) -> bool {
    let settings = service.get_settings(Request::new(caller(user).unwrap())).await;
    settings.unwrap().into_inner().hide_read_marks
}
