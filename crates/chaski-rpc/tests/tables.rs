//! The pushed table: looked up in memory, changed by a push, kept through an outage.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use chaski_core::{UserId, placement::Placement};
use chaski_proto::v1::{self, host_tables_server::HostTables};
use chaski_rpc::{Endpoints, Services, follow_hosts, serve};
use futures::{StreamExt as _, stream::BoxStream};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, async_trait};

const PARTITIONS: u32 = 12;

/// An allocator that pushes what the test says.
struct Pushing(watch::Receiver<v1::HostTable>);

#[async_trait]
impl HostTables for Pushing {
    type FollowStream = BoxStream<'static, Result<v1::HostTable, Status>>;

    async fn follow(
        &self,
        _: Request<v1::FollowRequest>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        let mut tables = self.0.clone();
        tables.mark_changed();
        let pushed = futures::stream::unfold(tables, |mut tables| async {
            tables.changed().await.ok()?;
            let table = tables.borrow_and_update().clone();
            Some((Ok(table), tables))
        });
        Ok(Response::new(pushed.boxed()))
    }
}

fn table(host: &str, epoch: u64) -> v1::HostTable {
    let owner = |partition| v1::PartitionOwner {
        partition,
        host: host.into(),
        url: format!("ws://{host}/v1/ws"),
        epoch,
    };
    // The last partition has no owner yet.
    let owners = (0..PARTITIONS - 1).map(owner).collect();
    v1::HostTable { partitions: PARTITIONS, generation: 1, owners }
}

/// An allocator's process; it ends with its tables.
#[expect(clippy::disallowed_methods, reason = "awaited by the test")]
async fn process(
    at: SocketAddr,
    tables: watch::Receiver<v1::HostTable>,
) -> (SocketAddr, CancellationToken, JoinHandle<()>) {
    let listener = TcpListener::bind(at).await.unwrap();
    let (at, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
    let services = Services { tables: Some(Arc::new(Pushing(tables))), ..Services::default() };
    let serving = serve(listener, services, stop.clone());
    (at, stop, tokio::spawn(async move { serving.await.unwrap() }))
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "the loop is awaited, the clock measures")]
async fn users_are_looked_up_in_memory_and_the_table_outlasts_who_pushed_it() {
    let (tell, tables) = watch::channel(table("h1", 1));
    let (at, stop, serving) = process("127.0.0.1:0".parse().unwrap(), tables).await;
    let endpoints = Endpoints::connect(&[format!("http://{at}")]).unwrap();
    let end = CancellationToken::new();
    let (mut hosts, following) = follow_hosts(endpoints, end.clone());
    let following = tokio::spawn(following);

    let placement = Placement::new(PARTITIONS);
    let users = (0..1000).map(|n| format!("user-{n}").parse().unwrap());
    let users: Vec<UserId> = users.collect();
    assert_eq!(hosts.of_user(&users[0]), None, "nothing was pushed yet");
    hosts.changed().await;
    for user in &users {
        let partition = placement.of_user(user);
        let located = hosts.of_user(user);
        assert_eq!(located.is_none(), partition.0 == PARTITIONS - 1);
        assert!(located.is_none_or(|l| l.partition == partition && *l.host == *"h1"));
    }

    // What a look-up costs: told, not judged, for it depends on the build.
    let begun = std::time::Instant::now();
    let found = (0..100).flat_map(|_| &users).filter_map(|user| hosts.of_user(user)).count();
    let each = begun.elapsed().as_nanos() / 100_000;
    println!("{each} ns for each of 100000 look-ups, {found} found");

    tell.send_replace(table("h2", 2));
    hosts.changed().await;
    let user = users.iter().find(|user| hosts.of_user(user).is_some()).unwrap();
    assert_eq!(hosts.of_user(user).unwrap().epoch, 2, "a change is pushed");

    // The allocator goes away: what was known stays known.
    drop(tell);
    stop.cancel();
    serving.await.unwrap();
    assert_eq!(*hosts.of_user(user).unwrap().host, *"h2");
    let (_tell, tables) = watch::channel(table("h3", 3));
    let (_, stop, serving) = process(at, tables).await;
    tokio::time::timeout(Duration::from_secs(20), async {
        while hosts.of_user(user).unwrap().epoch != 3 {
            hosts.changed().await;
        }
    })
    .await
    .expect("it is followed again");
    end.cancel();
    following.await.unwrap();
    drop(_tell);
    stop.cancel();
    serving.await.unwrap();
}
