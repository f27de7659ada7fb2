//! L7 under load: many pairs of users race sends against blocks and liftings, the server is killed
//! in between, and afterwards sockets, inboxes and histories must agree on every message, by its
//! place alone. The seed is printed; `CHASKI_RACES_SEED` gives it, though what races decides the
//! machine. `CHASKI_RACES` makes a run shorter that leaves no mark.
//!
//! Must not know: any service's insides.

#[path = "races/pair.rs"]
mod pair;
#[path = "model/server.rs"]
#[allow(dead_code, reason = "shared with the model test")]
mod server;
#[path = "races/side.rs"]
mod side;
#[path = "races/verify.rs"]
mod verify;

use chaski_testkit::report::passed;
use chaski_tests::Set;
use pair::Pair;
use server::Server;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    runtime::Runtime,
    sync::Barrier,
    task::{JoinError, JoinSet},
};

/// The share of shown and of hidden among what raced, in per cent, under which a run proves too
/// little.
const SHARE_MIN: u64 = 10;
/// Pairs that are checked over HTTP at the same time.
const CHECKS_MAX: usize = 16;

/// What the pairs have in common.
pub(crate) struct Race {
    pub(crate) server: Server,
    /// Sends that were in flight around a block.
    pub(crate) raced: AtomicU64,
    target: u64,
}

impl Race {
    pub(crate) fn goes_on(&self) -> bool {
        self.raced.load(Ordering::Relaxed) < self.target
    }
}

/// What became of the sends that raced.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) raced: u64,
    pub(crate) shown: u64,
    pub(crate) hidden: u64,
    pub(crate) sends: u64,
    pub(crate) blocks: u64,
}

#[test]
fn embedded() {
    run(Set::Embedded, 100_000, 64);
}

#[test]
fn real() {
    run(Set::Real, 2_000, 20);
}

fn run(set: Set, target: u64, pairs: usize) {
    chaski_auth::install_crypto_provider();
    let seed = std::env::var("CHASKI_RACES_SEED").ok().map(|seed| seed.parse().expect("a number"));
    let seed: u64 = seed.unwrap_or_else(|| fastrand::u64(..));
    eprintln!("races on {}: CHASKI_RACES_SEED={seed}", set.name());
    let fewer = std::env::var("CHASKI_RACES").ok();
    let target = fewer.as_ref().map_or(target, |fewer| fewer.parse().expect("a number"));
    Runtime::new().expect("a runtime").block_on(all(set, target, pairs, seed));
    if fewer.is_none() {
        passed("races", set.name(), "a_block_is_exact").expect("the mark");
    }
}

async fn all(set: Set, target: u64, pairs: usize, seed: u64) {
    let started = Instant::now();
    let server = Server::start(set).await;
    let race = Arc::new(Race { server, raced: AtomicU64::new(0), target });
    let mut racing = JoinSet::new();
    // The race begins, and with it the crashes, once all pairs are there.
    let ready = Arc::new(Barrier::new(pairs));
    for n in 0..pairs {
        let (race, ready) = (Arc::clone(&race), Arc::clone(&ready));
        racing.spawn(async move {
            let mut pair = Pair::start(race, n, seed.wrapping_add(n as u64)).await;
            ready.wait().await;
            pair.race().await;
            pair
        });
    }
    let killer = {
        let race = Arc::clone(&race);
        async move {
            for part in 1..=2 {
                while race.raced.load(Ordering::Relaxed) < target * part / 3 {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                race.server.crash().await;
            }
        }
    };
    let mut raced = Vec::new();
    let gather = async {
        while let Some(pair) = racing.join_next().await {
            raced.push(pair.expect("a pair keeps the laws"));
        }
    };
    tokio::join!(killer, gather);
    let racing_took = started.elapsed();

    let (mut checking, mut tally) = (JoinSet::new(), Tally::default());
    for pair in raced {
        if checking.len() == CHECKS_MAX {
            tally.add(checking.join_next().await);
        }
        checking.spawn(verify::verify(pair));
    }
    while !checking.is_empty() {
        tally.add(checking.join_next().await);
    }
    let race = Arc::into_inner(race).expect("the pairs have ended");
    let crashes = race.server.crashes();
    Box::pin(race.server.end()).await;
    eprintln!(
        "races on {}: {tally:?}, {crashes} crashes, raced for {racing_took:?}, in all {:?}",
        set.name(),
        started.elapsed()
    );
    assert!(tally.raced >= target, "too few races");
    let share_min = tally.raced * SHARE_MIN / 100;
    assert!(tally.shown >= share_min && tally.hidden >= share_min, "hardly a race: {tally:?}");
}

impl Tally {
    fn add(&mut self, checked: Option<Result<Self, JoinError>>) {
        let other = checked.expect("there is one").expect("a pair keeps the laws");
        self.raced += other.raced;
        self.shown += other.shown;
        self.hidden += other.hidden;
        self.sends += other.sends;
        self.blocks += other.blocks;
    }
}
