//! Planned moves on the real servers: while people write to one another, a delivery host drains,
//! comes back, and a generator drains. Nothing is lost or doubled; how long each client is without
//! a host, and how long a message takes meanwhile, is measured and printed. The same where a host has
//! too much load, and the allocator moves a partition by itself.
#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test fails by panicking; figures are told"
)]

use chaski::node::Role;
use chaski_client::{Client, Disconnect, Event, Outcome};
use chaski_core::Partition;
use chaski_proto::v1::server_frame::Body;
use chaski_tests::{Parts, Person, text_to};
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
/// So many messages of theirs wait at most: a machine that is slow is not asked for more.
const UNSETTLED_MAX: usize = 8;
/// People of a partition that is to be hot, and how often each of them writes.
const HOT: usize = 6;
const HOT_PAUSE: Duration = Duration::from_millis(50);
/// How long the allocator may take to see it, on a machine with other things to do.
const SEEN_MAX: Duration = Duration::from_secs(180);

/// The tests measure: one after the other.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
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
    /// How often somebody was welcomed.
    welcomes: usize,
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
    fn start(people: &[Person], pause: Duration) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (writes, ends) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
        let live = people.iter().enumerate().map(|(n, person)| {
            let to = people[(n + 1) % people.len()].id.clone();
            let shared = (Arc::clone(&seen), Arc::clone(&writes), Arc::clone(&ends));
            tokio::spawn(live(person.client("phone", None), n, (to, pause), shared))
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
async fn live(
    mut client: Client,
    n: usize,
    (to, pause): (String, Duration),
    (seen, writes, ends): Shared,
) {
    let mut pause = tokio::time::interval(pause);
    let (mut count, mut left_at) = (0, None);
    let mut waiting = BTreeMap::new();
    while !ends.load(Ordering::Relaxed) {
        let event = tokio::select! {
            event = client.next() => event.expect("a client does not stop"),
            _ = pause.tick() => {
                if writes.load(Ordering::Relaxed) && waiting.len() < UNSETTLED_MAX {
                    let key = format!("{n}-{count}");
                    count += 1;
                    let id = client.send(text_to(&to, &key)).expect("there is room");
                    waiting.insert(id, key.clone());
                    seen.lock().expect("whole").sent.insert(key, Instant::now());
                }
                continue;
            }
        };
        let mut seen = seen.lock().expect("whole");
        match event {
            Event::Connected { .. } => {
                seen.welcomes += 1;
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
    let _alone = ALONE.lock().await;
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
    let people: Vec<_> = (0..PEOPLE).map(|n| parts.person(&format!("p{n}"))).collect();
    let crowd = Crowd::start(&people, PAUSE);
    phase(&crowd, "nothing for 3 s", tokio::time::sleep(Duration::from_secs(3))).await;
    phase(&crowd, "a delivery host drains", parts.drain("d1")).await;
    phase(&crowd, "it comes back", parts.add("d1", &host)).await;
    phase(&crowd, "a generator drains", parts.drain("g1")).await;
    phase(&crowd, "it comes back", parts.add("g1", &generator)).await;
    let accepted = crowd.quiet().await;
    println!("{accepted} messages accepted, each shown once");
    parts.end().await;
}

/// The host that serves somebody, as the gateway says.
async fn host_of(person: &Person) -> String {
    let answer = person.http("phone").get("/v1/hosts/me").await;
    answer.body["host"].as_str().map(str::to_owned).unwrap_or_default()
}

/// Somebody of each partition, ascending.
fn one_of_each(parts: &Parts) -> BTreeMap<Partition, Person> {
    let placement = parts.placement();
    let mut people = BTreeMap::new();
    while people.len() < placement.partitions() as usize {
        let person = parts.person("one");
        people.insert(placement.of_user(&person.id.parse().expect("legal")), person);
    }
    people
}

/// So many people of this partition.
fn people_of(parts: &Parts, partition: Partition, many: usize) -> Vec<Person> {
    let placement = parts.placement();
    let new = std::iter::repeat_with(|| parts.person("hot"));
    let here = |p: &Person| placement.of_user(&p.id.parse().expect("legal")) == partition;
    new.filter(here).take(many).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overloaded_host_loses_a_partition_and_nobody_a_message() {
    let _alone = ALONE.lock().await;
    chaski_auth::install_crypto_provider();
    let rest = [
        Role::Gateway,
        Role::Allocator,
        Role::Messages,
        Role::Connections,
        Role::Sender,
        Role::Generator,
    ];
    let host = [Role::Delivery, Role::Sender];
    let parts = Parts::start_with(&[("rest", &rest), ("d1", &host), ("d2", &host)], |config| {
        config.allocator.overload_seconds = 1;
        // A busy machine does little: any load counts.
        config.allocator.overload_least = 0;
        // What has moved stays, so that there is one move to be seen.
        config.allocator.move_again_seconds = 3600;
    })
    .await;
    let somebody = one_of_each(&parts);
    let hosts = async || {
        let all = somebody.iter().map(async |(p, person)| (*p, host_of(person).await));
        join_all(all).await.into_iter().collect::<BTreeMap<_, _>>()
    };
    let of_d1 = chaski_tests::until("each has its half", async || {
        let hosts = hosts().await;
        let of = |id: &str| hosts.iter().filter(|(_, host)| **host == *id).count();
        let of_d1 =
            hosts.iter().filter(|(_, host)| **host == *"d1").map(|(partition, _)| *partition);
        (2 * of("d1") == hosts.len() && of("d1") == of("d2")).then(|| of_d1.collect::<Vec<_>>())
    })
    .await;

    // Two of the first host's partitions are hot, the other's are idle.
    let [one, other] = of_d1[..] else { panic!("{of_d1:?}") };
    let (one, other) = (people_of(&parts, one, HOT), people_of(&parts, other, HOT));
    let both: Vec<Person> = one.into_iter().zip(other).flat_map(|(a, b)| [a, b]).collect();
    let crowd = Crowd::start(&both, HOT_PAUSE);
    let deadline = Instant::now() + SEEN_MAX;
    let moved = loop {
        let hosts = [host_of(&both[0]).await, host_of(&both[1]).await];
        if hosts[0] != hosts[1] {
            break hosts;
        }
        assert!(Instant::now() < deadline, "both are on {hosts:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    println!("{moved:?}");
    // Everybody was welcomed once, and the people of that partition once more.
    let welcomed = async || {
        let welcomes = crowd.seen.lock().expect("whole").welcomes;
        (welcomes >= both.len() + HOT).then_some(())
    };
    chaski_tests::until("they are welcomed there", welcomed).await;
    figures(&format!("{:?}: goAway to welcome", crowd.told()), crowd.take_gaps());
    let accepted = crowd.quiet().await;
    println!("{accepted} messages accepted, each shown once");
    parts.end().await;
}
