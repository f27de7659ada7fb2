//! The cases of the connection store.

use crate::{Beside, Fixture};
use chaski_core::{Offset, Partition, UserId, connection::BlockEdge};
use chaski_ports::{BlockRow, ConnectionRow, ConnectionStore, StoreBatch};
use std::sync::Arc;

type Store = Arc<Beside<dyn ConnectionStore>>;

/// A user of this case alone: backends that cannot be emptied are isolated by random ids.
fn somebody() -> UserId {
    uuid::Uuid::new_v4().simple().to_string().parse().expect("a legal id")
}

/// A partition of this case alone.
fn some_partition() -> Partition {
    Partition(uuid::Uuid::new_v4().as_u128() as u32 >> 1)
}

fn row(user: &UserId, peer: &UserId, version: u64) -> ConnectionRow {
    let state = format!("connection {version}").into();
    ConnectionRow { user: user.clone(), peer: peer.clone(), version, state }
}

/// An edge of long ago: edges are for ever.
fn edge(user: &UserId, peer: &UserId, offset: u64) -> BlockEdge {
    let (user, peer, offset) = (user.clone(), peer.clone(), Offset(offset));
    BlockEdge { user, peer, offset, blocked: offset.0.is_multiple_of(2), at: 1_000 }
}

async fn open<F: Fixture<Port = Beside<dyn ConnectionStore>>>(fixture: &F) -> Store {
    fixture.open().await.expect("open")
}

async fn save(store: &Store, rows: &[ConnectionRow]) {
    store.port.save_connections(rows).await.expect("save");
}

async fn settings(store: &Store, user: &UserId) -> Option<String> {
    let found = store.port.settings(user).await.expect("settings");
    found.map(|state| String::from_utf8_lossy(&state).into_owned())
}

async fn save_settings(store: &Store, user: &UserId, version: u64) {
    let state = format!("settings {version}").into();
    store.port.save_settings(user, version, state).await.expect("save");
}

async fn write_edges(store: &Store, partition: Partition, edges: &[BlockEdge]) {
    let blocks = edges.iter().map(|edge| BlockRow { partition, edge: edge.clone() }).collect();
    let batch = StoreBatch { blocks, ..StoreBatch::default() };
    store.messages.write(batch).await.expect("write");
}

async fn edges(
    store: &Store,
    partition: Partition,
    after: Option<&BlockEdge>,
    limit: usize,
) -> Vec<BlockEdge> {
    store.port.blocks(partition, after, limit).await.expect("blocks")
}

/// What was saved is seen at once, and by whoever opens the store anew.
pub async fn durable_on_return<F: Fixture<Port = Beside<dyn ConnectionStore>>>(fixture: &F) {
    let (store, ana, eve) = (open(fixture).await, somebody(), somebody());
    let here = some_partition();
    assert_eq!(store.port.connection(&ana, &eve).await.expect("connection"), None);
    assert_eq!(store.port.connections(&ana, None, 10).await.expect("connections"), []);
    assert_eq!(settings(&store, &ana).await, None);
    assert_eq!(edges(&store, here, None, 10).await, []);

    let (rows, blocks) = ([row(&ana, &eve, 3)], [edge(&ana, &eve, 7)]);
    let check = async |store: &Store| {
        let one = store.port.connection(&ana, &eve).await.expect("connection");
        assert_eq!(one.as_ref(), Some(&rows[0]));
        assert_eq!(store.port.connections(&ana, None, 10).await.expect("connections"), rows);
        assert_eq!(store.port.connection(&eve, &ana).await.expect("connection"), None);
        assert_eq!(settings(store, &ana).await.as_deref(), Some("settings 1"));
        assert_eq!(edges(store, here, None, 10).await, blocks);
    };
    save(&store, &rows).await;
    save_settings(&store, &ana, 1).await;
    write_edges(&store, here, &blocks).await;
    check(&store).await;
    drop(store);
    check(&open(fixture).await).await;
}

/// Writing the same edges again changes nothing and doubles nothing.
pub async fn rewrite_is_a_no_op<F: Fixture<Port = Beside<dyn ConnectionStore>>>(fixture: &F) {
    let (store, ana, eve) = (open(fixture).await, somebody(), somebody());
    let (here, all) = (some_partition(), [2, 3, 4].map(|n| edge(&ana, &eve, n)));
    write_edges(&store, here, &all).await;
    write_edges(&store, here, &[&all[..], &all[..]].concat()).await;
    write_edges(&store, here, &all[..2]).await;
    assert_eq!(edges(&store, here, None, 10).await, all);
}

/// Of a connection and of settings the greatest version stays, in whatever order they come.
pub async fn newer_version_wins<F: Fixture<Port = Beside<dyn ConnectionStore>>>(fixture: &F) {
    let (store, ana, eve) = (open(fixture).await, somebody(), somebody());
    let put = async |versions: &[u64]| {
        let rows: Vec<_> = versions.iter().map(|v| row(&ana, &eve, *v)).collect();
        save(&store, &rows).await;
        for version in versions {
            save_settings(&store, &ana, *version).await;
        }
    };
    let check = async |version: u64| {
        let found = store.port.connection(&ana, &eve).await.expect("connection");
        assert_eq!(found, Some(row(&ana, &eve, version)));
        assert_eq!(settings(&store, &ana).await, Some(format!("settings {version}")));
    };
    for (versions, kept) in [(&[5][..], 5), (&[4], 5), (&[300], 300), (&[301, 303, 302], 303)] {
        put(versions).await;
        check(kept).await;
    }
    futures::future::join_all((1..=40).map(|n| {
        let versions = [1_000 + n * 7 % 41];
        let put = &put;
        async move { put(&versions).await }
    }))
    .await;
    check(1_040).await;
}

/// Connections come ascending by peer and edges by user, peer and offset, exactly those asked, at
/// most the limit; page by page none is left out.
pub async fn slices_are_ordered<F: Fixture<Port = Beside<dyn ConnectionStore>>>(fixture: &F) {
    let (store, ana, here) = (open(fixture).await, somebody(), some_partition());
    let ids = ["b", "a", "a-", "a.b", "aa", "9", "10", "B", "z", "_", "~"];
    let mut peers: Vec<UserId> = ids.map(|id| id.parse().expect("a legal id")).into();
    let rows: Vec<_> = peers.iter().map(|peer| row(&ana, peer, 1)).collect();
    save(&store, &rows).await;
    let mut all = Vec::new();
    for user in &peers {
        for peer in &peers[..3] {
            all.extend([300, 7, 1 << 40, 0].map(|offset| edge(user, peer, offset)));
        }
    }
    write_edges(&store, here, &all).await;
    peers.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
    all.sort_unstable_by(|a, b| {
        let key = |e: &BlockEdge| (e.user.to_string(), e.peer.to_string(), e.offset);
        key(a).cmp(&key(b))
    });
    for (after, limit, expected) in [
        (None, 100, &peers[..]),
        (None, 3, &peers[..3]),
        (None, 0, &[]),
        (Some(&peers[2]), 100, &peers[3..]),
        (Some(&peers[2]), 4, &peers[3..7]),
        (peers.last(), 10, &[]),
    ] {
        let found = store.port.connections(&ana, after, limit).await.expect("connections");
        let found: Vec<UserId> = found.into_iter().map(|row| row.peer).collect();
        assert_eq!(found, expected, "after {after:?} limit {limit}");
    }
    assert_eq!(edges(&store, here, None, 1_000).await, all);
    assert_eq!(edges(&store, here, None, 0).await, []);
    for limit in [1, 5, all.len()] {
        let (mut found, mut pages) = (Vec::new(), 0);
        while let page = edges(&store, here, found.last(), limit).await
            && !page.is_empty()
        {
            assert!(page.len() <= limit);
            found.extend(page);
            pages += 1;
            assert!(found.len() <= all.len(), "limit {limit}: an edge comes again");
        }
        assert_eq!(found, all, "limit {limit}");
        assert_eq!(pages, all.len().div_ceil(limit), "pages are full");
    }
    // One pair, whose ids begin as others do.
    let [a, b] = ["a", "b"].map(|id| id.parse::<UserId>().expect("a legal id"));
    let of = [0, 7, 300, 1 << 40].map(|offset| edge(&b, &a, offset));
    for (from, limit, expected) in [
        (0, 10, &of[..]),
        (0, 3, &of[..3]),
        (1, 10, &of[1..]),
        (300, 1, &of[2..3]),
        (1 << 41, 10, &[]),
        (u64::MAX, 10, &[]),
        (0, 0, &[]),
    ] {
        let found = store.port.pair_blocks(here, (&b, &a), Offset(from), limit).await;
        assert_eq!(found.expect("edges"), expected, "from {from} limit {limit}");
    }
}

/// Ids that begin alike, and other partitions, do not see one another's rows.
pub async fn neighbours_stay_apart<F: Fixture<Port = Beside<dyn ConnectionStore>>>(fixture: &F) {
    let (store, ana, here) = (open(fixture).await, somebody(), some_partition());
    let longer: UserId = format!("{ana}-").parse().expect("a legal id");
    save(&store, &[row(&ana, &longer, 1), row(&longer, &ana, 2)]).await;
    save_settings(&store, &ana, 1).await;
    for (user, found) in [(&ana, row(&ana, &longer, 1)), (&longer, row(&longer, &ana, 2))] {
        let listed = store.port.connections(user, None, 10).await.expect("connections");
        assert_eq!(listed, [found]);
    }
    assert_eq!(settings(&store, &longer).await, None);
    let elsewhere = Partition(here.0 ^ 1);
    write_edges(&store, here, &[edge(&ana, &longer, 2)]).await;
    write_edges(&store, elsewhere, &[edge(&longer, &ana, 3)]).await;
    assert_eq!(edges(&store, here, None, 10).await, [edge(&ana, &longer, 2)]);
    assert_eq!(edges(&store, elsewhere, None, 10).await, [edge(&longer, &ana, 3)]);
}
