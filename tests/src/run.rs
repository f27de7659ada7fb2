//! Runs one case on one set of backends. All cases of a process share one runtime, because they
//! share running worlds; each that passed leaves a marker below `target/reports/cases/e2e`.

use crate::{Set, World};
use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::{LazyLock, Mutex},
    time::Duration,
};
use tokio::runtime::Runtime;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    chaski_auth::install_crypto_provider();
    Runtime::new().expect("a runtime")
});

/// How many cases of a set have ended, passed or not.
static ENDED: LazyLock<Mutex<HashMap<Set, usize>>> = LazyLock::new(Mutex::default);

const CASE_MAX: Duration = Duration::from_secs(120);

/// Runs a case; the last of a set's `cases` takes the shared worlds down.
///
/// # Panics
/// Where the case fails.
pub fn run<F: Future<Output = ()>>(
    set: Set,
    name: &str,
    cases: usize,
    case: impl FnOnce(Set) -> F,
) {
    let ended = Ended { set, cases };
    let outcome = RUNTIME.block_on(async { tokio::time::timeout(CASE_MAX, case(set)).await });
    assert!(outcome.is_ok(), "{name} did not end within {CASE_MAX:?}");
    let dir = target().join("reports/cases/e2e").join(set.name());
    fs::create_dir_all(&dir).expect("the target directory is writable");
    fs::write(dir.join(name), "").expect("the target directory is writable");
    drop(ended);
}

/// Counts a case that ended, in whichever way.
struct Ended {
    set: Set,
    cases: usize,
}

impl Drop for Ended {
    fn drop(&mut self) {
        let last = {
            let mut ended = ENDED.lock().expect("nothing panics with it");
            let count = ended.entry(self.set).or_default();
            *count += 1;
            *count == self.cases
        };
        if last {
            RUNTIME.block_on(World::end_shared(self.set));
        }
    }
}

/// The workspace's target directory.
fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => dir.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
    }
}
