//! When a client waits, and when it tries again although it was sent away.

use super::{beside, config, server::Server};
use chaski_client::{Client, Config};
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
