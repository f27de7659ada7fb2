//! Planned moves on the real servers: while people write to one another, a delivery host drains,
//! comes back, and a generator drains. Nothing is lost or doubled; how long each client is without
//! a host, and how long a message takes meanwhile, is measured and printed.
#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test fails by panicking; figures are told"
)]

use chaski::node::Role;
use chaski_client::{Client, Disconnect, Event, Outcome};
use chaski_proto::v1::{self, client_frame::Command, send_message::Target, server_frame::Body};
use chaski_tests::{Parts, Person};
use futures::future::join_all;
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::task::JoinHandle;

const PEOPLE: usize = 60;
/// How often each of them writes.
const PAUSE: Duration = Duration::from_millis(300);
/// What a test on a busy machine can still promise; the figures are printed.
const GAP_MAX: Duration = Duration::from_secs(5);

/// What all see.
#[derive(Default)]
struct Seen {
    /// When each text was handed to a client, and when it was accepted.
    sent: BTreeMap<String, Instant>,
    accepted: BTreeMap<String, Instant>,
    /// When it was shown to its recipient, each time.
    shown: BTreeMap<String, Vec<Instant>>,
    /// From a `goAway` to the next welcome.
    gaps: Vec<Duration>,
    causes: BTreeMap<String, usize>,
}

struct Crowd {
    seen: Arc<Mutex<Seen>>,
    writes: Arc<AtomicBool>,
    ends: Arc<AtomicBool>,
    people: Vec<JoinHandle<()>>,
}

impl Crowd {
    #[expect(clippy::disallowed_methods, reason = "awaited in `quiet`")]
    fn start(parts: &Parts) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (writes, ends) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
        let people: Vec<Person> = (0..PEOPLE).map(|n| parts.person(&format!("p{n}"))).collect();
        let ids: Vec<String> = people.iter().map(|person| person.id.clone()).collect();
        let live = people.iter().enumerate().map(|(n, person)| {
            let to = ids[(n + 1) % PEOPLE].clone();
            let shared = (Arc::clone(&seen), Arc::clone(&writes), Arc::clone(&ends));
            tokio::spawn(live(person.client("phone", None), n, to, shared))
        });
        let people = live.collect();
        Self { seen, people, writes, ends }
    }

    fn take_gaps(&self) -> Vec<Duration> {
        std::mem::take(&mut self.seen.lock().expect("whole").gaps)
    }

    fn told(&self) -> BTreeMap<String, usize> {
        std::mem::take(&mut self.seen.lock().expect("whole").causes)
    }

    /// From accepted to shown, of what was accepted in this time.
    fn delays(&self, since: Instant, until: Instant) -> Vec<Duration> {
        let seen = self.seen.lock().expect("whole");
        let within = seen.accepted.iter().filter(|(_, at)| (since..until).contains(*at));
        within
            .filter_map(|(key, at)| {
                Some(seen.shown.get(key)?.first()?.saturating_duration_since(*at))
            })
            .collect()
    }

    /// Nobody writes any more, and everything accepted is shown, once.
    async fn quiet(self) -> usize {
        self.writes.store(false, Ordering::Relaxed);
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let (open, missing) = {
                let seen = self.seen.lock().expect("whole");
                let open = seen.sent.len() - seen.accepted.len();
                let missing: Vec<_> =
                    seen.accepted.keys().filter(|key| !seen.shown.contains_key(*key)).collect();
                (open, format!("{missing:?}"))
            };
            if open == 0 && missing == "[]" {
                break;
            }
            assert!(
                Instant::now() < deadline,
                "{open} not settled, accepted and not shown: {missing}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // Time for what comes twice to do so.
        tokio::time::sleep(Duration::from_secs(1)).await;
        self.ends.store(true, Ordering::Relaxed);
        for person in join_all(self.people).await {
            person.expect("nobody panics");
        }
        let seen = self.seen.lock().expect("whole");
        let twice: Vec<_> = seen.shown.iter().filter(|(_, at)| at.len() > 1).collect();
        assert!(twice.is_empty(), "shown twice: {twice:?}");
        seen.accepted.len()
    }
}

type Shared = (Arc<Mutex<Seen>>, Arc<AtomicBool>, Arc<AtomicBool>);

/// One person's device, until the end.
async fn live(mut client: Client, n: usize, to: String, (seen, writes, ends): Shared) {
    let mut pause = tokio::time::interval(PAUSE);
    let (mut count, mut left_at) = (0, None);
    let mut waiting = BTreeMap::new();
    while !ends.load(Ordering::Relaxed) {
        let event = tokio::select! {
            event = client.next() => event.expect("a client does not stop"),
            _ = pause.tick() => {
                if writes.load(Ordering::Relaxed) {
                    let key = format!("{n}-{count}");
                    count += 1;
                    let message = v1::SendMessage {
                        target: Some(Target::To(to.clone())),
                        client_message_id: key.clone(),
                        body: Some(v1::send_message::Body::Text(key.clone())),
                        ..Default::default()
                    };
                    let id = client.send(Command::SendMessage(message)).expect("there is room");
                    waiting.insert(id, key.clone());
                    seen.lock().expect("whole").sent.insert(key, Instant::now());
                }
                continue;
            }
        };
        let mut seen = seen.lock().expect("whole");
        match event {
            Event::Connected { .. } => {
                seen.gaps.extend(left_at.take().map(|at: Instant| at.elapsed()));
            }
            Event::Disconnected { cause, .. } => {
                left_at.get_or_insert_with(Instant::now);
                let told = match &cause {
                    Disconnect::Moved(_) => "moved".to_owned(),
                    other => other.to_string(),
                };
                *seen.causes.entry(told).or_default() += 1;
            }
            Event::Settled { id, outcome } => {
                let key = waiting.remove(&id).expect("it was sent");
                assert!(matches!(outcome, Outcome::Done(_)), "{key}: {outcome:?}");
                seen.accepted.insert(key, Instant::now());
            }
            Event::Durable { body: Some(Body::NewMessage(message)), .. } => {
                let own = message.client_message_id.starts_with(&format!("{n}-"));
                if !own {
                    let key = message.client_message_id;
                    seen.shown.entry(key).or_default().push(Instant::now());
                }
            }
            _ => {}
        }
    }
    client.close().await;
}

fn figures(what: &str, mut all: Vec<Duration>) -> Duration {
    all.sort_unstable();
    let at = |share: f64| {
        all.get(((all.len() as f64 * share) as usize).min(all.len().saturating_sub(1)))
    };
    let ms = |d: Option<&Duration>| d.copied().unwrap_or_default().as_secs_f64() * 1000.0;
    println!(
        "{what}: {} times, p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
        all.len(),
        ms(at(0.5)),
        ms(at(0.99)),
        ms(all.last()),
    );
    all.last().copied().unwrap_or_default()
}

/// What happens before and behind something that is done, and what clients feel of it.
async fn phase(crowd: &Crowd, what: &str, done: impl Future<Output = ()>) {
    crowd.take_gaps();
    crowd.told();
    let begun = Instant::now();
    done.await;
    let ended = Instant::now();
    tokio::time::sleep(Duration::from_secs(2)).await;
    println!("-- {what}: {} ms; {:?}", (ended - begun).as_millis(), crowd.told());
    let gap = figures("   goAway to welcome", crowd.take_gaps());
    figures("   accepted to shown", crowd.delays(begun, ended));
    assert!(gap <= GAP_MAX, "{what}: {gap:?} without a host");
}

#[tokio::test(flavor = "multi_thread")]
async fn planned_moves_lose_and_double_nothing_and_are_short() {
    chaski_auth::install_crypto_provider();
    let rest = [Role::Gateway, Role::Allocator, Role::Messages, Role::Connections, Role::Sender];
    let (host, generator) = ([Role::Delivery, Role::Sender], [Role::Generator]);
    let mut parts = Parts::start(&[
        ("rest", &rest),
        ("d1", &host),
        ("d2", &host),
        ("d3", &host),
        ("g1", &generator),
        ("g2", &generator),
    ])
    .await;
    let crowd = Crowd::start(&parts);
    phase(&crowd, "nothing for 3 s", tokio::time::sleep(Duration::from_secs(3))).await;
    phase(&crowd, "a delivery host drains", parts.drain("d1")).await;
    phase(&crowd, "it comes back", parts.add("d1", &host)).await;
    phase(&crowd, "a generator drains", parts.drain("g1")).await;
    phase(&crowd, "it comes back", parts.add("g1", &generator)).await;
    let accepted = crowd.quiet().await;
    println!("{accepted} messages accepted, each shown once");
    parts.end().await;
}
