//! The system against a reference: random commands of several users over several connections,
//! with crashes and reconnects at any step, must give what a few maps say. On a failure the case
//! is shrunk and its seed printed; `CHASKI_MODEL_SEED=<seed>` runs that case alone, until it
//! fails or [`AGAIN`] times. `CHASKI_MODEL_CASES` makes a run shorter that leaves no mark.
//!
//! Must not know: any service's insides.

#[path = "model/case.rs"]
mod case;
#[path = "model/chat.rs"]
mod chat;
#[path = "model/device.rs"]
mod device;
#[path = "model/reference.rs"]
mod reference;
#[path = "model/reference_tests.rs"]
mod reference_tests;
#[path = "model/server.rs"]
mod server;
#[path = "model/step.rs"]
mod step;
#[path = "model/stories.rs"]
mod stories;
#[path = "model/verify.rs"]
mod verify;

use case::Driver;
use chaski_testkit::report::passed;
use chaski_tests::{PATIENCE, Set};
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};
use proptest_state_machine::{ReferenceStateMachine as _, StateMachineTest as _};
use server::Server;
use std::{
    cell::RefCell,
    panic::AssertUnwindSafe,
    sync::{
        Arc, LazyLock, Once,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use step::{Crashes, Machine};
use tokio::runtime::Runtime;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    chaski_auth::install_crypto_provider();
    Runtime::new().expect("a runtime")
});

thread_local! {
    /// The server of this thread's cases.
    static SERVER: RefCell<Option<Arc<Server>>> = const { RefCell::new(None) };
}

fn server() -> Arc<Server> {
    SERVER.with_borrow(|server| server.clone().expect("the thread has one"))
}

/// How often a case that is named by its seed is run.
const AGAIN: usize = 20;
/// Steps of a case.
const STEPS: std::ops::Range<usize> = 6..22;
/// Runs that may be spent on shrinking a failure.
const SHRINKS_MAX: u32 = 100;
const SHRINKING_MS_MAX: u32 = 120_000;

struct Rare;
impl Crashes for Rare {
    const ONE_IN: u32 = 1500;
}

struct Often;
impl Crashes for Often {
    const ONE_IN: u32 = 150;
}

#[test]
fn embedded() {
    run::<Rare>(Set::Embedded, 2000, 24);
}

#[test]
fn real() {
    run::<Often>(Set::Real, 60, 12);
}

/// Runs so many cases, some at the same time, against one server.
fn run<C: Crashes>(set: Set, cases: usize, threads: usize) {
    let started = Instant::now();
    be_quiet();
    let named = std::env::var("CHASKI_MODEL_SEED").ok();
    let named = named.map(|seed| seed.parse::<u64>().expect("CHASKI_MODEL_SEED is a number"));
    let fewer = std::env::var("CHASKI_MODEL_CASES").ok();
    let cases = fewer.as_ref().map_or(cases, |fewer| fewer.parse().expect("a number"));
    let base = named.unwrap_or_else(rand_seed);
    let server = Arc::new(RUNTIME.block_on(Server::start(set)));
    let (cases, threads) = if named.is_some() { (AGAIN, 1) } else { (cases, threads) };
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let told = quietly(&server, || {
        stories::stories();
        Ok(())
    });
    // Where the stories fail already, random cases add nothing.
    let failed = AtomicBool::new(told.is_err());
    let failures: Vec<String> = std::thread::scope(|scope| {
        let one = || {
            let _entered = RUNTIME.enter();
            loop {
                let case = next.fetch_add(1, Ordering::SeqCst);
                if case >= cases || failed.load(Ordering::SeqCst) {
                    break None;
                }
                let seed = if named.is_some() { base } else { base.wrapping_add(case as u64) };
                match quietly(&server, || one_case::<C>(seed)) {
                    Ok(()) => done.fetch_add(1, Ordering::SeqCst),
                    Err(failure) => {
                        failed.store(true, Ordering::SeqCst);
                        break Some(format!("CHASKI_MODEL_SEED={seed}: {failure}"));
                    }
                };
            }
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        threads.into_iter().filter_map(|t| t.join().expect("it catches panics")).collect()
    });
    let failures: Vec<String> = told.err().into_iter().chain(failures).collect();
    let server = Arc::into_inner(server).expect("the cases have ended");
    let (crashes, busy) = (server.crashes(), server.busy.load(Ordering::Relaxed));
    RUNTIME.block_on(server.end());
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    let (done, name) = (done.into_inner(), set.name());
    eprintln!(
        "model on {name}: {done} cases, {crashes} crashes, {busy} answers 503, {:?}, base seed {base}",
        started.elapsed()
    );
    assert_eq!(done, cases);
    if named.is_none() && fewer.is_none() {
        passed("model", name, "the_system_does_what_the_reference_says").expect("the mark");
    }
}

/// Whether a case has failed: from then on less patience is needed.
static FAILED: AtomicBool = AtomicBool::new(false);

/// How long what must happen may take, restarts included.
fn patience() -> Duration {
    if FAILED.load(Ordering::SeqCst) { PATIENCE / 5 } else { 2 * PATIENCE }
}

/// The panics of cases are told once, at the end.
fn be_quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| match SERVER.with_borrow(Option::is_some) {
            true => FAILED.store(true, Ordering::SeqCst),
            false => loud(panic),
        }));
    });
}

/// Runs something against the server; a panic is a failure.
fn quietly(server: &Arc<Server>, run: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    SERVER.set(Some(Arc::clone(server)));
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(run));
    SERVER.set(None);
    outcome.unwrap_or_else(|panic| match panic.downcast::<String>() {
        Ok(words) => Err(*words),
        Err(_) => Err("a panic without words".into()),
    })
}

/// One case from its seed, shrunk where it fails.
fn one_case<C: Crashes>(seed: u64) -> Result<(), String> {
    let config = Config {
        cases: 1,
        failure_persistence: None,
        max_shrink_iters: SHRINKS_MAX,
        max_shrink_time: SHRINKING_MS_MAX,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config.clone(), rng);
    let outcome = runner.run(&Machine::<C>::sequential_strategy(STEPS), |(model, steps, seen)| {
        Driver::<C>::test_sequential(config.clone(), model, steps, seen);
        Ok(())
    });
    match outcome {
        Ok(()) => Ok(()),
        Err(TestError::Fail(reason, (model, steps, _))) => {
            let by_steps = step::story::<C>(model, &steps);
            Err(format!("{reason}\n{by_steps}"))
        }
        Err(TestError::Abort(reason)) => Err(format!("no case was made: {reason}")),
    }
}

fn rand_seed() -> u64 {
    let bytes = *uuid::Uuid::new_v4().as_bytes();
    u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"))
}
