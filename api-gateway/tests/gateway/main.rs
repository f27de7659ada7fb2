//! The gateway over real sockets. Behind it stand the smallest services that can show what it
//! passes on: what a request means is not tested here.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod changes;
mod connections;
mod reads;
mod refusals;
mod relay;
mod stub;
mod websocket;
mod writes;

use chaski_api_gateway::{Gateway, GatewayConfig, moved_ws_router, router, serve};
use chaski_auth::{DevKey, Revocations, Verifier};
use chaski_ports::Clock;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use stub::Stub;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

const NOW_MS: i64 = 1_800_000_000_000;

struct FixedClock;

impl Clock for FixedClock {
    fn now_ms(&self) -> i64 {
        NOW_MS
    }
}

/// A running gateway, and alice's phone as its client.
struct World {
    address: SocketAddr,
    key: DevKey,
    revocations: Revocations,
    http: reqwest::Client,
    stub: Arc<Stub>,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

impl World {
    async fn start() -> Self {
        Self::with(GatewayConfig::default()).await
    }

    async fn with(config: GatewayConfig) -> Self {
        Self::with_relays(config, None).await
    }

    #[expect(clippy::disallowed_methods, reason = "awaited in `end`")]
    async fn with_relays(config: GatewayConfig, relays: Option<chaski_relay::Relays>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = DevKey::load_or_create(folder.path().join("key.pem")).unwrap();
        let revocations = Revocations::default();
        let verifier = Verifier::new([key.public_pem()]).unwrap();
        let verifier = Arc::new(verifier.with_revocations(revocations.clone()));
        let stub = Arc::new(Stub::default());
        let clock = Arc::new(FixedClock);
        let gateway = Gateway {
            sender: stub.clone(),
            messages: stub.clone(),
            connections: stub.clone(),
            hosts: stub.clone(),
            verifier: verifier.clone(),
            clock: clock.clone(),
            config: config.clone(),
        };
        let ws = moved_ws_router(stub.clone(), relays, verifier, clock, config.clone());
        let app = router(gateway).merge(ws);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let serving =
            tokio::spawn(async move { serve(listener, app, &config, stopped).await.unwrap() });
        Self { address, key, revocations, http: reqwest::Client::new(), stub, stop, serving }
    }

    fn token(&self, device: &str) -> String {
        let (user, device) = ("alice".parse().unwrap(), device.parse().unwrap());
        self.key.sign(&user, &device, Duration::from_secs(60), NOW_MS)
    }

    fn anonymous(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("http://{}{path}", self.address))
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.anonymous(method, path).bearer_auth(self.token("phone"))
    }

    async fn get(&self, path: &str) -> Value {
        let response = self.request(Method::GET, path).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        assert_eq!(response.headers()["content-type"], "application/json", "{path}");
        response.json().await.unwrap()
    }

    async fn send(&self, method: Method, path: &str, body: impl Into<reqwest::Body>) -> Response {
        self.request(method, path).body(body).send().await.unwrap()
    }

    async fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> Response {
        self.request(Method::POST, path).body(body).send().await.unwrap()
    }

    async fn end(self) {
        self.stop.cancel();
        drop(self.http);
        self.serving.await.unwrap();
    }
}

/// A refusal in the form of RFC 9457, with this status and code.
async fn check_problem(what: &str, response: Response, status: u16, code: &str) {
    assert_eq!(response.status().as_u16(), status, "{what}");
    let headers = response.headers().clone();
    assert_eq!(headers["content-type"], "application/problem+json", "{what}");
    assert_eq!(headers.get("www-authenticate").is_some(), status == 401, "{what}");
    assert_eq!(headers.get("retry-after").is_some(), matches!(status, 429 | 503), "{what}");
    let problem: Value = response.json().await.unwrap();
    assert_eq!(problem["type"], "about:blank", "{what}");
    assert_eq!(problem["status"], status, "{what}");
    assert_eq!(problem["code"], code, "{what}: {problem}");
    for text in ["title", "detail"] {
        assert!(problem[text].as_str().is_some_and(|t| !t.is_empty()), "{what}: {problem}");
    }
}
