use super::*;
use std::time::Instant;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{sleep, timeout},
};

const PATIENCE: Duration = Duration::from_secs(10);
/// Long enough that what passes would have passed.
const WHILE: Duration = Duration::from_millis(150);

struct World {
    proxies: Proxies,
    client: TcpStream,
    server: TcpStream,
}

/// A connection from `a` to `b`.
async fn world() -> World {
    let behind = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = front.local_addr().unwrap();
    let proxies = Proxies::new(1);
    let to = Destination { name: "b".into(), address: behind.local_addr().unwrap() };
    proxies.serve(front, Origin::One("a".into()), vec![to]);
    let client = TcpStream::connect(address).await.unwrap();
    let (server, _) = timeout(PATIENCE, behind.accept()).await.unwrap().unwrap();
    World { proxies, client, server }
}

async fn pass(from: &mut TcpStream, to: &mut TcpStream, bytes: &[u8]) {
    let mut seen = vec![0; bytes.len()];
    let sent = from.write_all(bytes);
    let (sent, read) = timeout(PATIENCE, async { tokio::join!(sent, to.read_exact(&mut seen)) })
        .await
        .expect("the bytes come in time");
    sent.unwrap();
    read.unwrap();
    assert!(seen == bytes, "the bytes are the same");
}

async fn nothing_comes(to: &mut TcpStream) {
    let mut seen = [0; 1];
    assert!(timeout(WHILE, to.read(&mut seen)).await.is_err(), "something came");
}

async fn expect(to: &mut TcpStream, bytes: &[u8]) {
    let mut seen = vec![0; bytes.len()];
    timeout(PATIENCE, to.read_exact(&mut seen)).await.unwrap().unwrap();
    assert_eq!(seen, bytes);
}

/// Connections hear of a condition through two tasks of their own, in far less than this.
const HEARD: Duration = Duration::from_millis(100);

#[tokio::test]
async fn bytes_pass_unchanged_both_ways_and_so_does_the_end() {
    let World { mut client, mut server, proxies: _proxies } = world().await;
    let mut random = fastrand::Rng::with_seed(1);
    let bytes: Vec<u8> = (0..3 << 20).map(|_| random.u8(..)).collect();
    pass(&mut client, &mut server, &bytes).await;
    pass(&mut server, &mut client, &bytes).await;
    client.shutdown().await.unwrap();
    assert_eq!(timeout(PATIENCE, server.read(&mut [0; 1])).await.unwrap().unwrap(), 0);
    pass(&mut server, &mut client, b"the other half is still open").await;
}

#[tokio::test]
async fn a_cut_holds_bytes_and_ends_and_new_connections_until_it_is_healed() {
    let World { mut client, mut server, proxies } = world().await;
    pass(&mut client, &mut server, b"before").await;
    proxies.set("a", "b", Condition::both(Flow::Hold));
    sleep(HEARD).await;
    client.write_all(b"held").await.unwrap();
    server.write_all(b"held too").await.unwrap();
    client.shutdown().await.unwrap();
    nothing_comes(&mut server).await;
    nothing_comes(&mut client).await;
    proxies.heal();
    expect(&mut server, b"held").await;
    assert_eq!(server.read(&mut [0; 1]).await.unwrap(), 0, "then the end");
    expect(&mut client, b"held too").await;
}

#[tokio::test]
async fn one_way_is_cut_and_the_other_is_not() {
    let World { mut client, mut server, proxies } = world().await;
    let condition = Condition { there: Flow::Hold, back: Flow::Pass };
    proxies.set("a", "b", condition);
    sleep(HEARD).await;
    pass(&mut server, &mut client, b"back").await;
    client.write_all(b"there").await.unwrap();
    nothing_comes(&mut server).await;
    proxies.set("x", "b", Condition::WHOLE);
    nothing_comes(&mut server).await;
    proxies.set("a", "b", Condition::WHOLE);
    expect(&mut server, b"there").await;
}

#[tokio::test]
async fn a_new_connection_hangs_while_any_way_is_cut() {
    let behind = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = front.local_addr().unwrap();
    let proxies = Proxies::new(1);
    let to = Destination { name: "b".into(), address: behind.local_addr().unwrap() };
    proxies.set("a", "b", Condition { there: Flow::Pass, back: Flow::Hold });
    sleep(HEARD).await;
    proxies.serve(front, Origin::One("a".into()), vec![to]);
    let _client = TcpStream::connect(address).await.unwrap();
    assert!(timeout(WHILE, behind.accept()).await.is_err());
    proxies.heal();
    timeout(PATIENCE, behind.accept()).await.unwrap().unwrap();
}

#[tokio::test]
async fn every_byte_comes_later_and_in_order() {
    let World { mut client, mut server, proxies } = world().await;
    let by = Duration::from_millis(120);
    proxies.set("a", "b", Condition { there: Flow::Late(by), back: Flow::Pass });
    sleep(HEARD).await;
    let begun = Instant::now();
    pass(&mut client, &mut server, b"one").await;
    assert!(begun.elapsed() >= by, "{:?}", begun.elapsed());
    // Several are on their way at the same time.
    let begun = Instant::now();
    let bytes: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    pass(&mut client, &mut server, &bytes).await;
    assert!(begun.elapsed() >= by, "{:?}", begun.elapsed());
    let begun = Instant::now();
    pass(&mut server, &mut client, b"not this way").await;
    assert!(begun.elapsed() < by, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_lossy_link_keeps_the_order_until_it_breaks_and_both_ends_are_told() {
    let World { mut client, mut server, proxies } = world().await;
    proxies.set("a", "b", Condition::both(Flow::Lossy));
    let (mut stalls, mut passed) = (0, 0);
    let broken = async {
        for n in 0..100_000_u32 {
            let (begun, mut seen) = (Instant::now(), [0; 4]);
            // What this end is told, the other one is too.
            let _ = client.write_all(&n.to_be_bytes()).await;
            if let Err(told) = server.read_exact(&mut seen).await {
                return told.kind();
            }
            assert_eq!(u32::from_be_bytes(seen), n);
            stalls += u32::from(begun.elapsed() >= Duration::from_millis(190));
            passed += 1;
        }
        panic!("it never breaks");
    };
    let told = timeout(Duration::from_secs(30), broken).await.unwrap();
    assert!(stalls > 0 && passed > 0, "{stalls} stalls among {passed}");
    assert_eq!(told, io::ErrorKind::ConnectionReset, "no orderly end");
}

#[tokio::test]
async fn the_next_one_takes_the_connection_where_nobody_listens() {
    let behind = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = |name: &str, listener: &TcpListener| Destination {
        name: name.into(),
        address: listener.local_addr().unwrap(),
    };
    let to = vec![at("gone", &gone), at("b", &behind)];
    drop(gone);
    let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = front.local_addr().unwrap();
    let proxies = Proxies::new(1);
    proxies.serve(front, Origin::One("a".into()), to);
    for _ in 0..2 {
        let _client = TcpStream::connect(address).await.unwrap();
        timeout(PATIENCE, behind.accept()).await.unwrap().unwrap();
    }
    drop(behind);
    let mut client = TcpStream::connect(address).await.unwrap();
    let told = timeout(PATIENCE, client.read(&mut [0; 1])).await.unwrap();
    assert!(told.is_err(), "{told:?}");
}
