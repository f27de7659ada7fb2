//! Every example of the API's documents (`docs/api`), told as one story to a running server: by
//! HTTP, and over sockets in both formats. What the server answers must be what is documented, to
//! the last field.
//!
//! Must not know: what the examples are.

use chaski_docs::{Example, Known, Method, ROUTES, Step, story};
use chaski_ports::{Clock as _, SystemClock};
use chaski_testkit::report::passed;
use chaski_tests::{Format, Heard, PATIENCE, Person, Set, Socket, World, eventually};
use serde_json::Value;
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};
use tokio::runtime::Runtime;

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn every_example_is_answered_as_documented() {
    chaski_auth::install_crypto_provider();
    let runtime = Runtime::new().expect("a runtime");
    for format in [Format::Json, Format::Protobuf] {
        runtime.block_on(Box::pin(tell(format)));
    }
    passed("examples", "embedded", "every_example_is_answered_as_documented").expect("the mark");
}

async fn tell(format: Format) {
    let world = World::start(Set::Embedded, |_| ()).await;
    let mut teller = Teller::new(&world, format);
    let story: Vec<_> = story().collect();
    let drain = story.iter().position(|example| matches!(example.step, Step::Drain));
    let (before, after) = story.split_at(drain.expect("the story ends with a drain"));
    for example in before {
        teller.tell(example).await;
    }
    let farewell = async {
        for example in &after[1..] {
            teller.tell(example).await;
        }
    };
    tokio::join!(world.stop(), farewell);
    world.end().await;
}

/// Tells the story in one format.
struct Teller<'a> {
    world: &'a World,
    format: Format,
    known: Known,
    people: BTreeMap<&'static str, Person>,
    devices: BTreeMap<&'static str, Device>,
    http: reqwest::Client,
}

struct Device {
    socket: Socket,
    /// Heard, but not told yet.
    heard: VecDeque<Value>,
}

/// An answer to a call.
struct Answer {
    status: u16,
    kind: String,
    token: Option<String>,
    body: Value,
}

impl<'a> Teller<'a> {
    fn new(world: &'a World, format: Format) -> Self {
        let people = ["ana", "ben", "eva"].map(|name| (name, world.person(name)));
        let mut known = Known::default();
        for (name, person) in &people {
            known.set(name, &person.id);
        }
        let people = BTreeMap::from(people);
        let later = people["ana"].token_for("phone", 2 * HOUR, SystemClock.now_ms());
        known.set("benToken", people["ben"].token("laptop"));
        known.set("freshToken", later);
        known.set("future", u64::MAX.to_string());
        let http = reqwest::Client::builder().timeout(PATIENCE).build().expect("a client");
        Self { world, format, known, people, devices: BTreeMap::new(), http }
    }

    /// The token of `user/device`; none of nobody's.
    fn token(&self, device: &str) -> Option<String> {
        let (user, device) = device.split_once('/')?;
        Some(self.people[user].token(device))
    }

    async fn tell(&mut self, example: &Example) {
        let name = example.name;
        match example.step {
            Step::Call { .. } => self.call(example).await,
            Step::Frame { by, frame, reply } => self.say(name, by, frame, reply).await,
            Step::Event { to, frame } => self.hear(name, to, frame).await,
            Step::Closed { to, code } => {
                let device = self.devices.get_mut(to).expect("it said hello");
                assert_eq!(device.socket.closed().await.0, code, "{name}");
            }
            Step::Drain => unreachable!("it divides the story"),
        }
    }

    /// A read is repeated until it shows what was told before: not all of it has a token.
    async fn call(&mut self, example: &Example) {
        let Step::Call { route, token, .. } = example.step else { return };
        let place = format!("{route}, {}", example.name);
        let read = ROUTES.iter().any(|known| known.id == route && known.method == Method::Get);
        let check = || self.is_answered(example);
        let (known, given) = match read {
            true => eventually(&place, check).await,
            false => check().await.unwrap_or_else(|wrong| panic!("{place}: {wrong}")),
        };
        self.known = known;
        let wanted = (!token.is_empty()).then(|| Value::from(token));
        match (wanted, given.map(Value::from)) {
            (None, None) => {}
            (Some(wanted), Some(given)) => {
                let learnt = self.known.learn(&wanted, &given);
                learnt.unwrap_or_else(|wrong| panic!("{place}: token {wrong}"));
            }
            (wanted, given) => panic!("{place}: token {given:?} for {wanted:?}"),
        }
    }

    /// Asks once. What is known then and the answer's token, where it is as documented.
    async fn is_answered(&self, example: &Example) -> Result<(Known, Option<String>), String> {
        let Step::Call { status, answer, .. } = example.step else {
            unreachable!("only calls are asked")
        };
        let given = self.ask(example).await;
        let kind = if status < 300 { "application/json" } else { "application/problem+json" };
        let wanted: Value = serde_json::from_str(answer).expect("an example is JSON");
        let mut known = self.known.clone();
        let told = if (given.status, &*given.kind) == (status, kind) {
            known.learn(&wanted, &given.body)
        } else {
            Err(format!("{} {}", given.status, given.kind))
        };
        told.map_err(|wrong| format!("{wrong}\nin {}", given.body))?;
        Ok((known, given.token))
    }

    async fn ask(&self, example: &Example) -> Answer {
        let Step::Call { by, route, path, seeing, body, .. } = example.step else {
            unreachable!("only calls are asked")
        };
        let known = ROUTES.iter().find(|known| known.id == route).expect("a documented call");
        let method = match known.method {
            Method::Get => reqwest::Method::GET,
            Method::Post => reqwest::Method::POST,
            Method::Patch => reqwest::Method::PATCH,
            Method::Put => reqwest::Method::PUT,
            Method::Delete => reqwest::Method::DELETE,
        };
        let url = format!("{}{}", self.world.url(), self.known.fill(path));
        let mut request = self.http.request(method, url);
        if let Some(token) = self.token(by) {
            request = request.bearer_auth(token);
        }
        if !seeing.is_empty() {
            request = request.header("Chaski-Token", self.known.fill(seeing));
        }
        if !body.is_empty() {
            let body = self.known.fill(body);
            request = request.header("content-type", "application/json").body(body);
        }
        let answer = request.send().await.expect("the server answers");
        let header = |name| Some(answer.headers().get(name)?.to_str().expect("text").to_owned());
        let (kind, token) = (header("content-type").unwrap_or_default(), header("chaski-token"));
        let status = answer.status().as_u16();
        let body = answer.bytes().await.expect("a whole answer");
        Answer { status, kind, token, body: serde_json::from_slice(&body).unwrap_or_default() }
    }

    /// Says a frame; `hello` opens a socket. The next reply must be its own, so one to a command
    /// that has none would be seen.
    async fn say(&mut self, name: &str, by: &'static str, frame: &str, reply: &str) {
        let frame: Value = serde_json::from_str(&self.known.fill(frame)).expect("JSON");
        if let Some(hello) = frame.get("hello") {
            let token = self.token(by).filter(|_| hello.get("token").is_none());
            let socket = Socket::open(self.world.url(), token.as_deref(), self.format).await;
            let socket = socket.expect("the token is good");
            self.devices.insert(by, Device { socket, heard: VecDeque::new() });
        }
        let device = self.devices.get_mut(by).expect("it said hello");
        device.socket.say(frame).await;
        if reply.is_empty() {
            return;
        }
        let reply: Value = serde_json::from_str(reply).expect("JSON");
        let given = loop {
            let frame = device.socket.frame().await;
            if frame.get("replyTo").is_some() {
                break frame;
            }
            device.heard.push_back(frame);
        };
        let told = self.known.learn(&reply, &given);
        told.unwrap_or_else(|wrong| panic!("{name}: {wrong}\nin {given}"));
    }

    /// Hears the first event that is as documented; the others are for other examples.
    async fn hear(&mut self, name: &str, to: &str, frame: &str) {
        let wanted: Value = serde_json::from_str(frame).expect("JSON");
        let Device { socket, heard } = self.devices.get_mut(to).expect("it said hello");
        if let Some(at) = heard.iter().position(|frame| self.known.learn(&wanted, frame).is_ok()) {
            heard.remove(at);
            return;
        }
        loop {
            match tokio::time::timeout(PATIENCE / 2, socket.hear()).await {
                Ok(Heard::Frame(frame)) => {
                    assert!(frame.get("replyTo").is_none(), "{name}: a reply to nothing: {frame}");
                    if self.known.learn(&wanted, &frame).is_ok() {
                        return;
                    }
                    heard.push_back(frame);
                }
                Ok(Heard::Closed(code)) => panic!("{name}: closed with {code}"),
                Err(_) => {
                    let why = |frame: &Value| {
                        let learnt = self.known.clone().learn(&wanted, frame);
                        let wrong = learnt.expect_err("it would have been heard");
                        format!("{wrong}: {frame}")
                    };
                    let why: Vec<_> = heard.iter().map(why).collect();
                    panic!("{name}: {wanted} was not heard, but\n{}", why.join("\n"));
                }
            }
        }
    }
}
