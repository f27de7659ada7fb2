//! A service in another process answers as the same service called directly.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use chaski_proto::{
    Problem,
    v1::{self, hosts_server::Hosts, sender_server::Sender},
};
use chaski_rpc::{Endpoints, RemoteHosts, RemoteSender, Services, serve};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, async_trait};

/// Answers with its own name, or refuses in the way the user's name asks for.
struct Named(&'static str);

#[async_trait]
impl Hosts for Named {
    async fn locate(
        &self,
        request: Request<v1::LocateRequest>,
    ) -> Result<Response<v1::LocateReply>, Status> {
        match request.get_ref().user_id.as_str() {
            "teapot" => Err(Problem::new(418, "teapot", "kurz und stämmig\n100%").into()),
            "busy" => {
                Err(Problem { retry_after_ms: Some(1234), ..Problem::new(429, "busy", "later") }
                    .into())
            }
            "away" => Err(Problem::unavailable("not now").into()),
            "slow" => std::future::pending().await,
            "strange" => Err(Status::unavailable("not one of our refusals")),
            user => Ok(Response::new(v1::LocateReply {
                partition: user.len() as u32,
                host: self.0.into(),
                url: format!("ws://{user}/v1/ws"),
                epoch: u64::MAX,
            })),
        }
    }
}

/// A process: a server that ends with the test.
struct Process {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Process {
    async fn start(name: &'static str) -> Self {
        Self::start_at(name, "127.0.0.1:0".parse().unwrap()).await
    }

    #[expect(clippy::disallowed_methods, reason = "awaited in `end`")]
    async fn start_at(name: &'static str, address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let services = Services { hosts: Some(Arc::new(Named(name))), ..Services::default() };
        let serving = serve(listener, services, stop.clone());
        Self { address, stop, task: tokio::spawn(async move { serving.await.unwrap() }) }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

async fn locate(hosts: &dyn Hosts, user: &str) -> Result<v1::LocateReply, Problem> {
    let request = Request::new(v1::LocateRequest { user_id: user.into() });
    hosts.locate(request).await.map(Response::into_inner).map_err(Problem::from)
}

#[tokio::test]
async fn answers_and_problems_are_the_same_as_of_a_direct_call() {
    let process = Process::start("h1").await;
    let remote = RemoteHosts::new(Endpoints::connect(&[process.url()]).unwrap());
    let direct = Named("h1");
    for user in ["alice", "", "teapot", "busy", "away"] {
        assert_eq!(locate(&remote, user).await, locate(&direct, user).await, "{user}");
    }
    assert_eq!(locate(&remote, "busy").await.unwrap_err().retry_after_ms, Some(1234));

    // What is not said by one of our services may have happened.
    assert_eq!(locate(&remote, "strange").await.unwrap_err(), Problem::outcome_unknown());
    process.end().await;
}

#[tokio::test]
async fn a_call_ends_at_its_deadline_with_an_unknown_outcome() {
    let process = Process::start("h1").await;
    let remote = RemoteHosts::new(Endpoints::connect(&[process.url()]).unwrap());
    let mut request = Request::new(v1::LocateRequest { user_id: "slow".into() });
    request.set_timeout(Duration::from_millis(50));
    let refusal = remote.locate(request).await.unwrap_err();
    assert_eq!(Problem::from(refusal), Problem::outcome_unknown());
    process.end().await;
}

#[tokio::test]
async fn a_call_goes_to_another_endpoint_where_one_is_gone_and_the_list_may_change() {
    let (one, two) = (Process::start("one").await, Process::start("two").await);
    let endpoints = Endpoints::connect(&[one.url(), two.url()]).unwrap();
    let remote = RemoteHosts::new(endpoints.clone());
    let mut seen: Vec<String> = Vec::new();
    for _ in 0..4 {
        seen.push(locate(&remote, "alice").await.unwrap().host);
    }
    assert_eq!(seen, ["one", "two", "one", "two"]);

    let gone = one.address;
    one.end().await;
    for _ in 0..4 {
        assert_eq!(locate(&remote, "alice").await.unwrap().host, "two");
    }
    let one = Process::start_at("one again", gone).await;
    let both = [locate(&remote, "a").await.unwrap().host, locate(&remote, "a").await.unwrap().host];
    assert!(both.contains(&"one again".to_owned()), "{both:?}");

    let three = Process::start("three").await;
    assert!(endpoints.update(&["not a uri".into()]).is_err());
    endpoints.update(&[three.url()]).unwrap();
    assert_eq!(endpoints.list(), [three.url()]);
    assert_eq!(locate(&remote, "alice").await.unwrap().host, "three");

    endpoints.update(&[]).unwrap();
    let refusal = locate(&remote, "alice").await.unwrap_err();
    assert_eq!((refusal.status, refusal.code.as_str()), (503, "unavailable"));
    for process in [one, two, three] {
        process.end().await;
    }
}

#[tokio::test]
async fn nobody_there_means_that_nothing_happened_and_a_missing_service_does_not() {
    let process = Process::start("h1").await;
    let endpoints = Endpoints::connect(&[process.url()]).unwrap();
    let sender = RemoteSender::new(endpoints);
    let submit = || Request::new(v1::SubmitMessageRequest::default());
    let refusal = Problem::from(sender.submit(submit()).await.unwrap_err());
    assert_eq!(refusal, Problem::outcome_unknown(), "this process has no sender service");

    process.end().await;
    let refusal = Problem::from(sender.submit(submit()).await.unwrap_err());
    assert_eq!((refusal.status, refusal.code.as_str()), (503, "unavailable"));
}
