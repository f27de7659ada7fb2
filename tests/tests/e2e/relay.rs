//! Clients who reach one address only, on the real servers: several processes cannot share the
//! embedded backend.

use chaski::{config::Config, node::Role};
use chaski_client::{Client, Disconnect, Error, Event, Outcome};
use chaski_proto::v1::{self, server_frame::Body};
use chaski_tests::{PATIENCE, Parts, Person, text_to, until};
use serde_json::json;
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
    time::timeout,
};

const REST: [Role; 6] = [
    Role::Gateway,
    Role::Allocator,
    Role::Messages,
    Role::Connections,
    Role::Sender,
    Role::Generator,
];
const HOST: [Role; 2] = [Role::Delivery, Role::Sender];

/// A plain TCP load balancer, behind which there is one host.
struct Balancer {
    url: String,
    behind: Arc<Mutex<Option<SocketAddr>>>,
    task: JoinHandle<()>,
}

impl Balancer {
    #[expect(clippy::disallowed_methods, reason = "aborted with the balancer")]
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let behind = Arc::new(Mutex::new(None));
        let to: Arc<Mutex<Option<SocketAddr>>> = Arc::clone(&behind);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                let Some(to) = *to.lock().expect("whole") else { continue };
                connections.spawn(async move {
                    let mut host = TcpStream::connect(to).await?;
                    host.set_nodelay(true)?;
                    copy_bidirectional(&mut client, &mut host).await
                });
            }
        });
        Self { url, behind, task }
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Somebody whose delivery host this is.
async fn person_of(parts: &Parts, host: &str) -> Person {
    until(&format!("a user of {host}"), || async {
        let person = parts.person("p");
        let answer = person.http("phone").get("/v1/hosts/me").await;
        (answer.body["host"] == host).then_some(person)
    })
    .await
}

/// The next event that gives something.
async fn next<T>(client: &mut Client, what: &str, mut found: impl FnMut(&Event) -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = found(&client.next().await.expect("it does not stop")) {
                return found;
            }
        }
    };
    timeout(3 * PATIENCE, looking).await.unwrap_or_else(|_| panic!("{what} does not come"))
}

async fn connected(client: &mut Client) {
    next(client, "a welcome", |event| matches!(event, Event::Connected { .. }).then_some(())).await;
}

async fn send(client: &mut Client, to: &str, text: &str) {
    let sent = client.send(text_to(to, text)).expect("there is room");
    next(client, "an answer", |event| match event {
        Event::Settled { id, outcome } if *id == sent => {
            assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
            Some(())
        }
        _ => None,
    })
    .await;
}

/// The next message of somebody else.
async fn hear(client: &mut Client, me: &str) -> String {
    next(client, "a message", |event| match event {
        Event::Durable { body: Some(Body::NewMessage(message)), .. } if message.sender_id != me => {
            message.body.clone().map(|body| match body {
                v1::new_message::Body::Text(text) => text,
                v1::new_message::Body::Ciphertext(_) => panic!("a text was sent"),
            })
        }
        _ => None,
    })
    .await
}

#[test]
fn real_one_address_is_enough_for_people_of_all_hosts() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    chaski_auth::install_crypto_provider();
    runtime.block_on(Box::pin(one_address()));
}

async fn one_address() {
    let balancer = Balancer::start().await;
    // Every host says that it is reached by the balancer.
    let address = format!("{}/v1/ws", balancer.url.replacen("http", "ws", 1));
    let change = |config: &mut Config| config.advertised_url = address;
    let nodes: [(&str, &[Role]); 3] = [("rest", &REST), ("d1", &HOST), ("d2", &HOST)];
    let mut parts = Parts::start_with(&nodes, change).await;
    let d1 = parts.url("d1").strip_prefix("http://").expect("an address").parse();
    *balancer.behind.lock().expect("whole") = Some(d1.expect("an address"));

    let (ana, ben) = (person_of(&parts, "d1").await, person_of(&parts, "d2").await);
    let mut anas = ana.client_at(&balancer.url, "phone", None);
    let mut bens = ben.client_at(&balancer.url, "phone", None);
    connected(&mut anas).await;
    // He comes to the wrong host, is told where to go, comes to it again, and is carried. (While his
    // partition is still handed over he is served first; the address of such a move has no mark.)
    let wrong_host = |event: &Event| match event {
        Event::Disconnected { cause: Disconnect::Moved(url), .. } => {
            url.contains("?moved=").then_some(())
        }
        _ => None,
    };
    next(&mut bens, "a word of a wrong host", wrong_host).await;
    connected(&mut bens).await;
    tokio::join!(send(&mut anas, &ben.id, "to ben"), async {
        assert_eq!(hear(&mut bens, &ben.id).await, "to ben");
    });
    tokio::join!(send(&mut bens, &ana.id, "to ana"), async {
        assert_eq!(hear(&mut anas, &ana.id).await, "to ana");
    });

    // A device that is revoked is cut off there too.
    let mut tablet = ben.client_at(&balancer.url, "tablet", None);
    connected(&mut tablet).await;
    let _ = ben.http("phone").delete("/v1/devices/tablet").await.expect(200);
    let stopped = async {
        loop {
            if let Err(error) = tablet.next().await {
                return error;
            }
        }
    };
    let stopped = timeout(PATIENCE, stopped).await.expect("it is cut off");
    assert_eq!(stopped, Error::Revoked);

    // His host ends: he comes again by the same address, and misses nothing.
    let talk = async {
        for n in 0..20 {
            send(&mut anas, &ben.id, &n.to_string()).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let listen = async {
        for n in 0..20 {
            assert_eq!(hear(&mut bens, &ben.id).await, n.to_string());
        }
    };
    tokio::join!(talk, listen, parts.drain("d2"));
    anas.close().await;
    bens.close().await;
    parts.end().await;
}

#[test]
fn real_a_gateway_carries_everybody_where_it_is_told_to() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    chaski_auth::install_crypto_provider();
    runtime.block_on(Box::pin(always()));
}

async fn always() {
    // Nobody could reach a host by what it says.
    let change = |config: &mut Config| {
        config.delivery.relay = serde_json::from_value(json!("always")).expect("a legal value");
        config.advertised_url = "ws://127.0.0.1:1/v1/ws".into();
    };
    let nodes: [(&str, &[Role]); 3] = [("rest", &REST), ("d1", &HOST), ("d2", &HOST)];
    let mut parts = Parts::start_with(&nodes, change).await;
    let (ana, ben) = (person_of(&parts, "d1").await, person_of(&parts, "d2").await);
    let (mut anas, mut bens) = (ana.client("phone", None), ben.client("phone", None));
    connected(&mut anas).await;
    connected(&mut bens).await;
    tokio::join!(send(&mut anas, &ben.id, "to ben"), async {
        assert_eq!(hear(&mut bens, &ben.id).await, "to ben");
    });
    tokio::join!(send(&mut bens, &ana.id, "to ana"), async {
        assert_eq!(hear(&mut anas, &ana.id).await, "to ana");
    });
    // A host goes: its clients are told no address, and come again where they came before.
    tokio::join!(parts.drain("d2"), async {
        let lost = next(&mut bens, "an end", |event| match event {
            Event::Disconnected { cause, .. } => Some(cause.clone()),
            _ => None,
        });
        let lost = lost.await;
        assert!(!matches!(lost, Disconnect::Moved(_)), "{lost:?}");
        connected(&mut bens).await;
    });
    tokio::join!(send(&mut anas, &ben.id, "again"), async {
        assert_eq!(hear(&mut bens, &ben.id).await, "again");
    });
    anas.close().await;
    bens.close().await;
    parts.end().await;
}
