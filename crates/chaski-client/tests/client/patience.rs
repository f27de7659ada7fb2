//! When a client waits, and when it tries again although it was sent away.

use super::{beside, config, server::Server};
use chaski_client::{Client, Config, Disconnect, Event};
use std::time::Duration;
use tokio::time::Instant;

#[tokio::test]
async fn a_busy_host_is_asked_again_there_and_not_before_it_said() {
    let (home, owner) = (Server::start().await, Server::start().await);
    let mut client = Client::new(config(&home)).unwrap();
    beside(&mut client, async {
        let mut conn = home.accept().await;
        conn.go_away("MOVED", Some(owner.url() + "/v1/ws")).await;
        let mut conn = owner.accept().await;
        let sent_away = Instant::now();
        conn.go_away_for(300, "BUSY", None).await;
        owner.accept().await.welcome(0).await;
        assert!(sent_away.elapsed() >= Duration::from_millis(300));
    })
    .await;
}

#[tokio::test]
async fn a_hello_that_came_too_late_is_said_again() {
    let server = Server::start().await;
    // So short that a `hello` is late from the start: no host waits longer than these 5 s.
    let patience = Config { connect_timeout: Duration::from_secs(5), ..config(&server) };
    let mut client = Client::new(patience).unwrap();
    beside(&mut client, async {
        let conn = server.accept().await;
        conn.close(4502).await;
        server.accept().await.welcome(0).await;
    })
    .await;
}

#[tokio::test]
async fn who_is_told_a_host_that_is_dead_asks_again_soon_and_goes_to_the_next_one_at_once() {
    let (home, dead, owner) = (Server::start().await, Server::start().await, Server::start().await);
    let gone = dead.url() + "/v1/ws";
    drop(dead);
    let mut client = Client::new(config(&home)).unwrap();
    let script = async {
        // Longer than a backoff would take to grow to seconds.
        for _ in 0..8 {
            home.accept().await.go_away("MOVED", Some(gone.clone())).await;
        }
        // For a moment nobody serves this user.
        home.accept().await.go_away_for(100, "UNAVAILABLE", None).await;
        home.accept().await.go_away("MOVED", Some(owner.url() + "/v1/ws")).await;
        owner.accept().await.welcome(0).await;
    };
    tokio::pin!(script);
    let (mut moved, mut lost) = (Vec::new(), Vec::new());
    loop {
        tokio::select! {
            () = &mut script => break,
            event = client.next() => match event.unwrap() {
                Event::Disconnected { cause: Disconnect::Moved(_), retry_in } => moved.push(retry_in),
                Event::Disconnected { retry_in, .. } => lost.push(retry_in),
                _ => {}
            },
        }
    }
    assert_eq!(moved, [Duration::ZERO; 9]);
    let soon = Duration::from_millis(50)..=Duration::from_millis(600);
    assert!(lost.len() == 9 && lost.iter().all(|wait| soon.contains(wait)), "{lost:?}");
    assert!(lost[8] >= Duration::from_millis(300), "not all at once: {lost:?}");
}

#[tokio::test]
async fn two_clients_do_not_come_again_at_the_same_times() {
    let dead = Server::start().await;
    let config = config(&dead);
    drop(dead);
    let waits = async || {
        let mut client = Client::new(config.clone()).unwrap();
        let mut waits = Vec::new();
        while waits.len() < 3 {
            if let Event::Disconnected { retry_in, .. } = client.next().await.unwrap() {
                waits.push(retry_in);
            }
        }
        waits
    };
    assert_ne!(waits().await, waits().await);
}
