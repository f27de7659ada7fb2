//! The cases of the coordinator.

use crate::Fixture;
use bytes::Bytes;
use chaski_core::Law;
use chaski_ports::{Coordinator, ErrorKind, Expect, Node, PortError, SessionState, Watch};
use futures::FutureExt;
use std::{sync::Arc, time::Duration};

/// How long something that must not happen is given to happen.
const QUIET: Duration = Duration::from_millis(200);

async fn open<F: Fixture<Port = dyn Coordinator>>(fixture: &F) -> Arc<dyn Coordinator> {
    fixture.open().await.expect("open")
}

async fn put(tree: &Arc<dyn Coordinator>, path: &str, data: &'static str) -> Node {
    let data = Bytes::from_static(data.as_bytes());
    tree.put(path, data, Expect::Anything).await.expect("put")
}

async fn get(tree: &Arc<dyn Coordinator>, path: &str) -> Option<Node> {
    tree.get(path).await.expect("get")
}

#[track_caller]
fn assert_conflict<T>(outcome: Result<T, PortError>) {
    let kind = outcome.err().expect("the condition does not hold").kind;
    assert_eq!(kind, ErrorKind::Conflict);
}

/// Waits for a watch until a read gives what is wanted; other changes may wake it before.
async fn until(watch: &mut Box<dyn Watch>, mut seen: impl AsyncFnMut() -> bool) {
    while !seen().await {
        watch.changed().await.expect("a change");
    }
}

/// A write whose condition does not hold changes nothing.
pub async fn put_is_conditional<F: Fixture<Port = dyn Coordinator>>(fixture: &F) {
    let tree = open(fixture).await;
    let data = || Bytes::from_static(b"new");
    assert_conflict(tree.put("/a/b", data(), Expect::Version(0)).await);
    assert_conflict(tree.delete("/a/b", Expect::Version(0)).await);
    tree.delete("/a/b", Expect::Anything).await.expect("nothing to delete");
    assert_eq!(get(&tree, "/a/b").await, None);

    let made = tree.put("/a/b", data(), Expect::Absent).await.expect("put");
    assert_eq!(get(&tree, "/a/b").await, Some(made.clone()));
    assert!(get(&tree, "/a").await.is_some(), "parents are made");
    assert_conflict(tree.put("/a/b", Bytes::new(), Expect::Absent).await);
    assert_conflict(tree.put("/a/b", Bytes::new(), Expect::Version(made.version + 1)).await);
    assert_conflict(tree.delete("/a/b", Expect::Version(made.version + 1)).await);
    assert_conflict(tree.delete("/a/b", Expect::Absent).await);
    assert_eq!(get(&tree, "/a/b").await, Some(made.clone()), "nothing changed");

    let version = Expect::Version(made.version);
    let second = tree.put("/a/b", Bytes::new(), version).await.expect("put");
    assert!(second.version > made.version && second.data.is_empty());
    assert_conflict(tree.put("/a/b", data(), version).await);
    assert_conflict(tree.delete("/a/b", version).await);
    tree.delete("/a/b", Expect::Version(second.version)).await.expect("delete");
    assert_eq!(get(&tree, "/a/b").await, None);

    let race = (0..8).map(|_| tree.put("/a/race", data(), Expect::Absent));
    let won = futures::future::join_all(race).await.into_iter().filter(Result::is_ok);
    assert_eq!(won.count(), 1, "of all who make a node, one does");
}

/// Epochs grow over all nodes, over deletion and re-creation, and over a new opening.
pub async fn epochs_grow<F: Fixture<Port = dyn Coordinator>>(fixture: &F) {
    let tree = open(fixture).await;
    let mut last = 0;
    for round in 0..3 {
        for path in ["/x/a", "/x/b", "/x/a"] {
            let epoch = put(&tree, path, "data").await.epoch;
            assert!(epoch > last, "{epoch} after {last} in round {round}");
            last = epoch;
            assert_eq!(get(&tree, path).await.map(|node| node.epoch), Some(last));
        }
        tree.delete("/x/a", Expect::Anything).await.expect("delete");
    }
    drop(tree);
    let tree = open(fixture).await;
    let epoch = put(&tree, "/x/c", "data").await.epoch;
    assert!(epoch > last, "{}: {epoch} after {last} and a new opening", Law::L6);
}

/// A registration is one session's, is there while it is held, and goes away by itself.
pub async fn ephemerals_end<F: Fixture<Port = dyn Coordinator>>(fixture: &F) {
    let (one, two) = (open(fixture).await, open(fixture).await);
    let held = one.register("/hosts/h1", Bytes::from_static(b"v1")).await.expect("register");
    assert_conflict(two.register("/hosts/h1", Bytes::new()).await);
    let mut watch = two.watch("/hosts/h1").await.expect("watch");
    held.update(Bytes::from_static(b"v2")).await.expect("update");
    until(&mut watch, async || get(&two, "/hosts/h1").await.is_some_and(|n| n.data == "v2")).await;
    assert_eq!(two.children("/hosts").await.expect("children"), ["h1"]);

    drop(held);
    until(&mut watch, async || get(&two, "/hosts/h1").await.is_none()).await;
    let again = two.register("/hosts/h1", Bytes::new()).await.expect("free again");
    drop((again, one));

    let three = open(fixture).await;
    let held = three.register("/hosts/h3", Bytes::new()).await.expect("register");
    let mut watch = two.watch("/hosts/h3").await.expect("watch");
    drop((held, three));
    until(&mut watch, async || get(&two, "/hosts/h3").await.is_none()).await;
}

/// Changes wake a watch, also those between two waits; then a read sees them. Nothing else does.
pub async fn watch_misses_nothing<F: Fixture<Port = dyn Coordinator>>(fixture: &F) {
    let (one, two) = (open(fixture).await, open(fixture).await);
    put(&one, "/w/other", "x").await;
    let mut node = two.watch("/w/node").await.expect("watch what is not there yet");
    let mut parent = two.watch("/w").await.expect("watch");
    assert!(tokio::time::timeout(QUIET, node.changed()).await.is_err(), "nothing has changed");

    put(&one, "/w/node", "1").await;
    node.changed().await.expect("it was made");
    parent.changed().await.expect("a child came");
    let data = async || get(&two, "/w/node").await.map(|node| node.data);
    assert_eq!(data().await.as_deref(), Some(&b"1"[..]));

    // Changes while nobody waits, and a wait that was given up.
    put(&one, "/w/node", "2").await;
    put(&one, "/w/node", "3").await;
    let _ = node.changed().now_or_never();
    put(&one, "/w/node", "4").await;
    until(&mut node, async || data().await.as_deref() == Some(b"4")).await;

    // Every value is seen or a later one: a reader that always waits ends at the last.
    let changes = async {
        for n in 0..50_u32 {
            let data = Bytes::from(n.to_string());
            one.put("/w/node", data, Expect::Anything).await.expect("put");
        }
    };
    let follow = until(&mut node, async || data().await.as_deref() == Some(b"49"));
    futures::join!(changes, follow);

    one.delete("/w/node", Expect::Anything).await.expect("delete");
    until(&mut node, async || data().await.is_none()).await;
    let gone = async || two.children("/w").await.expect("children") == ["other"];
    until(&mut parent, gone).await;
}

/// One leads at a time; when it ends, the next one does, and only the leader's writes take place.
pub async fn one_leader<F: Fixture<Port = dyn Coordinator>>(fixture: &F) {
    let (one, two) = (open(fixture).await, open(fixture).await);
    let first = one.lead("/leader", "one").await.expect("nobody else leads");
    let written = first.put("/plan", Bytes::from_static(b"1"), Expect::Absent).await;
    assert_eq!(get(&two, "/plan").await, Some(written.expect("the leader writes")));
    assert_conflict(first.put("/plan", Bytes::new(), Expect::Absent).await);
    assert!(tokio::time::timeout(QUIET, first.lost()).await.is_err(), "it still leads");

    let mut second = two.lead("/leader", "two");
    assert!(tokio::time::timeout(QUIET, &mut second).await.is_err(), "one leads already");
    let third = two.lead("/leader", "three");
    assert!(tokio::time::timeout(QUIET, third).await.is_err(), "given up: it leaves the queue");
    drop(first);
    let second = second.await.expect("the leader has ended");
    let written = second.put("/plan", Bytes::from_static(b"2"), Expect::Anything).await;
    assert_eq!(get(&one, "/plan").await, Some(written.expect("the leader writes")));
    drop(second);
    let third = one.lead("/leader", "three").await.expect("those who gave up do not block");
    assert!(one.lead("/elsewhere", "one").await.is_ok(), "paths are led apart");
    drop(third);
}

/// A session that works says so.
pub async fn sessions_tell<F: Fixture<Port = dyn Coordinator>>(fixture: &F) {
    let tree = open(fixture).await;
    let session = tree.session();
    put(&tree, "/s", "x").await;
    let now = *session.borrow();
    assert_eq!((now.state, now.alive()), (SessionState::Connected, Some(now.number)));
    assert_eq!(*tree.session().borrow(), now);
}

/// What a session registered, watched and led ends with it; the next one comes by itself, and what
/// is left of the first does nothing to it.
pub async fn a_session_is_followed<F: Fixture<Port = dyn Coordinator>>(fixture: &F) {
    let tree = open(fixture).await;
    let mut session = tree.session();
    let first = session.borrow().number;
    let kept = put(&tree, "/kept", "x").await;
    let host = tree.register("/hosts/h1", Bytes::from_static(b"old")).await.expect("register");
    let leading = tree.lead("/leader", "old").await.expect("nobody else leads");
    let mut waiting = tree.lead("/leader", "next");
    assert!(tokio::time::timeout(QUIET, &mut waiting).await.is_err(), "one leads already");
    let mut watch = tree.watch("/kept").await.expect("watch");

    tree.end_session().await.expect("end the session");
    let next = session.wait_for(|now| now.number > first && now.state == SessionState::Connected);
    let next = next.await.expect("another session follows").number;
    assert!(next > first, "{}: {next} after {first}", Law::L6);
    leading.lost().await;
    assert_conflict(leading.put("/plan", Bytes::new(), Expect::Anything).await);
    assert_conflict(host.update(Bytes::from_static(b"late")).await);
    let told = watch.changed().await.expect_err("the watch is over");
    assert!(told.retryable(), "{told}");
    let refused = waiting.await.err().expect("the place in the queue is lost");
    assert!(refused.retryable(), "{refused}");
    assert_eq!(get(&tree, "/plan").await, None, "{}: a late leader wrote", Law::L6);

    // Made anew. What is dropped only now is the first session's.
    assert_eq!(get(&tree, "/kept").await, Some(kept));
    assert_eq!(get(&tree, "/hosts/h1").await, None);
    let held = tree.register("/hosts/h1", Bytes::from_static(b"new")).await.expect("register");
    let leads = tree.lead("/leader", "new").await.expect("nobody leads");
    let mut again = tree.watch("/kept").await.expect("watch");
    drop((host, leading, watch));
    tokio::time::sleep(QUIET).await;
    assert_eq!(get(&tree, "/hosts/h1").await.expect("it is there").data, "new");
    held.update(Bytes::from_static(b"newer")).await.expect("update");
    leads.put("/plan", Bytes::new(), Expect::Absent).await.expect("the leader writes");
    put(&tree, "/kept", "y").await;
    again.changed().await.expect("a change");
}

/// Children are the names one level below, sorted as text.
pub async fn children_are_sorted<F: Fixture<Port = dyn Coordinator>>(fixture: &F) {
    let tree = open(fixture).await;
    let children = async |path| tree.children(path).await.expect("children");
    assert_eq!(children("/c").await, [""; 0]);
    for path in ["/c/b", "/c/a/below", "/c/a-", "/c/10", "/c/9", "/cc/x", "/c/a.b"] {
        put(&tree, path, "x").await;
    }
    assert_eq!(children("/c").await, ["10", "9", "a", "a-", "a.b", "b"]);
    assert_eq!(children("/c/a").await, ["below"]);
    assert_eq!(children("/c/b").await, [""; 0]);
    let not_empty = tree.delete("/c/a", Expect::Anything).await;
    assert!(not_empty.is_err() && get(&tree, "/c/a/below").await.is_some(), "children keep it");
}
