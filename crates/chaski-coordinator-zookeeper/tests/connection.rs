//! What the conformance suite cannot see: what happens when the connection breaks. The client
//! under test goes through a proxy that can be cut; a second one looks on from outside.
//!
//! Needs ZooKeeper: `eval "$(infra/local/backends.sh up)"` sets `CHASKI_COORDINATOR`.

#![allow(clippy::unwrap_used, reason = "test code, helpers included")]

use bytes::Bytes;
use chaski_coordinator_zookeeper::{ZooKeeper, ZooKeeperOptions};
use chaski_ports::{Coordinator, ErrorKind, Expect, SessionState};
use std::{future::Future, sync::Arc, time::Duration};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

struct Scene {
    /// Connected through the proxy.
    near: Arc<ZooKeeper>,
    /// Connected directly.
    far: Arc<ZooKeeper>,
    open: watch::Sender<bool>,
    _proxy: JoinSet<()>,
}

impl Scene {
    async fn new() -> Self {
        let url = std::env::var("CHASKI_COORDINATOR").expect("CHASKI_COORDINATOR names ZooKeeper");
        let servers = url.strip_prefix("zookeeper://").unwrap();
        let servers = servers.split('/').next().unwrap().to_owned();
        let server = servers.split(',').next().unwrap().to_owned();
        let options = ZooKeeperOptions {
            servers,
            chroot: format!("/chaski-test-{}", uuid::Uuid::new_v4()),
            session_timeout: Duration::from_secs(4),
            ..ZooKeeperOptions::default()
        };
        let (open, state) = watch::channel(true);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let through = ZooKeeperOptions {
            servers: listener.local_addr().unwrap().to_string(),
            ..options.clone()
        };
        let mut proxy = JoinSet::new();
        proxy.spawn(forward(listener, server, state));
        Self {
            far: ZooKeeper::connect(options).await.unwrap(),
            near: ZooKeeper::connect(through).await.unwrap(),
            open,
            _proxy: proxy,
        }
    }

    async fn cut(&self) {
        self.open.send(false).unwrap();
        self.near_is(SessionState::Suspended).await;
    }

    async fn heal(&self) {
        self.open.send(true).unwrap();
        self.near_is(SessionState::Connected).await;
    }

    /// Waits for it; the number of the session that stands so.
    async fn near_is(&self, expected: SessionState) -> u64 {
        let mut session = self.near.session();
        let told = within("a session state", session.wait_for(|now| now.state == expected)).await;
        told.unwrap().number
    }
}

/// Forwards while open; where it is not, connections are cut and new ones die at once.
async fn forward(listener: TcpListener, server: String, open: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        let (mut near, _) = listener.accept().await.unwrap();
        let (server, mut open) = (server.clone(), open.clone());
        connections.spawn(async move {
            if *open.borrow() {
                let mut far = TcpStream::connect(server).await.unwrap();
                tokio::select! {
                    _ = copy_bidirectional(&mut near, &mut far) => {}
                    _ = open.wait_for(|open| !open) => {}
                }
            }
        });
    }
}

async fn within<T>(what: &str, event: impl Future<Output = T>) -> T {
    let limit = Duration::from_secs(20);
    let happened = tokio::time::timeout(limit, event).await;
    happened.unwrap_or_else(|_| panic!("{what} did not come within {limit:?}"))
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

#[tokio::test]
async fn changes_during_a_cut_are_told_after_it() {
    let scene = Scene::new().await;
    let host = scene.near.register("/hosts/h1", bytes("old")).await.unwrap();
    let mut content = scene.near.watch("/assignments/1").await.unwrap();
    let mut children = scene.near.watch("/hosts").await.unwrap();
    let mut quiet = scene.near.watch("/quiet").await.unwrap();

    scene.cut().await;
    let put = scene.far.put("/assignments/1", bytes("h1"), Expect::Absent);
    let put = put.await.unwrap();
    let _other = scene.far.register("/hosts/h2", bytes("")).await.unwrap();
    scene.heal().await;

    within("the changed content", content.changed()).await.unwrap();
    assert_eq!(scene.near.get("/assignments/1").await.unwrap(), Some(put));
    within("the changed children", children.changed()).await.unwrap();
    assert_eq!(scene.near.children("/hosts").await.unwrap(), ["h1", "h2"]);
    let changed = tokio::time::timeout(Duration::from_millis(100), quiet.changed()).await;
    assert!(changed.is_err(), "nothing changed there");

    // And the watches are armed anew, the registration is the same one.
    host.update(bytes("new")).await.unwrap();
    scene.far.delete("/assignments/1", Expect::Anything).await.unwrap();
    within("the deletion", content.changed()).await.unwrap();
    assert_eq!(scene.near.get("/assignments/1").await.unwrap(), None);
}

#[tokio::test]
async fn what_is_dropped_during_a_cut_is_deleted_after_it() {
    let scene = Scene::new().await;
    let registration = scene.near.register("/hosts/h1", bytes("")).await.unwrap();
    let leadership = scene.near.lead("/allocator", "near").await.unwrap();
    let mut hosts = scene.far.watch("/hosts").await.unwrap();

    scene.cut().await;
    drop((registration, leadership));
    scene.heal().await;

    // Not because the session ended: it goes on, and may register again.
    within("leading", scene.far.lead("/allocator", "far")).await.unwrap();
    within("the deletion", hosts.changed()).await.unwrap();
    assert!(scene.far.children("/hosts").await.unwrap().is_empty());
    let session = *scene.near.session().borrow();
    assert_eq!((session.number, session.state), (1, SessionState::Connected));
    let again = scene.near.register("/hosts/h1", bytes("")).await;
    drop(again.unwrap());
    let at_once = scene.near.register("/hosts/h1", bytes("")).await;
    let _at_once = at_once.expect("a dropped registration does not block the next");
}

#[tokio::test]
async fn a_session_that_expired_behind_a_cut_is_followed_by_another() {
    let scene = Scene::new().await;
    let host = scene.near.register("/hosts/h1", bytes("first")).await.unwrap();
    let leading = scene.near.lead("/allocator", "near").await.unwrap();
    leading.put("/a", bytes("1"), Expect::Absent).await.unwrap();
    let mut watch = scene.near.watch("/a").await.unwrap();
    let mut hosts = scene.far.watch("/hosts").await.unwrap();

    // The servers end it; this side hears nothing of it and ends it by its own clock.
    scene.cut().await;
    let next = within("leading", scene.far.lead("/allocator", "far")).await.unwrap();
    within("the deletion", hosts.changed()).await.unwrap();
    assert_eq!(scene.near_is(SessionState::Expired).await, 1);
    within("the loss", leading.lost()).await;
    let nothing = [
        scene.near.get("/a").await.unwrap_err(),
        scene.near.put("/a", bytes(""), Expect::Anything).await.unwrap_err(),
        scene.near.register("/hosts/h1", bytes("")).await.err().unwrap(),
        scene.near.lead("/allocator", "near").await.err().unwrap(),
        scene.near.watch("/a").await.err().unwrap(),
        watch.changed().await.unwrap_err(),
    ];
    for error in nothing {
        assert_eq!(error.kind, ErrorKind::Unavailable, "{error}: it did not happen, and may later");
    }
    // However long nobody answers: more than one attempt fails.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(scene.near_is(SessionState::Expired).await, 1);

    scene.open.send(true).unwrap();
    assert_eq!(scene.near_is(SessionState::Connected).await, 2);
    for late in [
        leading.put("/a", bytes("2"), Expect::Anything).await.map(drop),
        host.update(bytes("late")).await,
    ] {
        assert_eq!(late.unwrap_err().kind, ErrorKind::Conflict);
    }
    next.put("/a", bytes("3"), Expect::Version(0)).await.unwrap();
    assert_eq!(scene.near.get("/a").await.unwrap().unwrap().data, "3");
    let _host = scene.near.register("/hosts/h1", bytes("second")).await.unwrap();
    assert_eq!(scene.far.get("/hosts/h1").await.unwrap().unwrap().data, "second");
}
