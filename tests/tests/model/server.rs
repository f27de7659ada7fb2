//! The one server that all cases talk to, and its crashes: `kill -9`, and up again on the same
//! data. A connection may end only because of one.
//!
//! Must not know: what a case does.

use chaski_tests::{PATIENCE, Person, Process, Set};
use reqwest::Method;
use serde_json::Value;
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use tokio::sync::Mutex;

pub(crate) struct Server {
    process: Mutex<Process>,
    pub(crate) url: String,
    http: reqwest::Client,
    /// How many crashes have begun.
    crashes: AtomicU64,
    /// How many calls were answered with 503: not now, or outcome unknown.
    pub(crate) busy: AtomicU64,
}

/// When a connection was made, counted in crashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Era(u64);

/// The outcome is not known: to be tried again.
#[derive(Debug)]
pub(crate) struct Unknown;

impl Server {
    pub(crate) async fn start(set: Set) -> Self {
        let process = Process::start(set).await;
        let http = reqwest::Client::builder().timeout(PATIENCE).tcp_nodelay(true);
        Self {
            url: process.url().to_owned(),
            process: Mutex::new(process),
            http: http.build().expect("a client"),
            crashes: AtomicU64::new(0),
            busy: AtomicU64::new(0),
        }
    }

    pub(crate) async fn person(&self, name: &str) -> Person {
        self.process.lock().await.person(name)
    }

    /// Kills it and starts it again.
    pub(crate) async fn crash(&self) {
        let mut process = self.process.lock().await;
        self.crashes.fetch_add(1, Ordering::SeqCst);
        process.kill_and_start().await;
    }

    pub(crate) fn crashes(&self) -> u64 {
        self.crashes.load(Ordering::SeqCst)
    }

    /// Waits until it runs.
    pub(crate) async fn up(&self) -> Era {
        let _up = self.process.lock().await;
        Era(self.crashes())
    }

    /// Whether it has crashed since.
    pub(crate) fn crashed_since(&self, era: Era) -> bool {
        Era(self.crashes()) != era
    }

    /// One call, where a crash may cut it off.
    pub(crate) async fn call(
        &self,
        token: &str,
        (method, path): (Method, &str),
        body: Option<&Value>,
    ) -> Result<(u16, Value), Unknown> {
        let era = self.up().await;
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        request = request.bearer_auth(token);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let answered = async {
            let answer = request.send().await?;
            let status = answer.status().as_u16();
            Ok::<_, reqwest::Error>((status, answer.bytes().await?))
        };
        match answered.await {
            Ok((503 | 429, _)) => {
                self.busy().await;
                Err(Unknown)
            }
            Ok((status, body)) => Ok((status, serde_json::from_slice(&body).unwrap_or_default())),
            Err(error) => {
                assert!(self.crashed_since(era), "{path}: no answer, without a crash: {error:?}");
                Err(Unknown)
            }
        }
    }

    /// A read: its 200.
    pub(crate) async fn get(&self, token: &str, path: &str) -> Value {
        loop {
            if let Ok((status, body)) = self.call(token, (Method::GET, path), None).await {
                assert_eq!(status, 200, "{path}: {body}");
                return body;
            }
        }
    }

    /// It said: not now.
    pub(crate) async fn busy(&self) {
        self.busy.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }

    /// Ends it in an orderly way, its data with it.
    pub(crate) async fn end(self) {
        let ended = self.process.into_inner().terminate().await;
        assert!(ended.success(), "the server ended with {ended}");
    }
}
