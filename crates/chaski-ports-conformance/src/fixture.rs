//! How a backend lends itself to the suite, and how a case is run: with a fresh fixture, a time
//! limit, a clean-up whatever happens, and a marker file once it has succeeded.

use chaski_ports::{Log, MessageStore};
use futures::FutureExt;
use std::{
    fs,
    future::Future,
    panic::{AssertUnwindSafe, resume_unwind},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// No case takes longer; a backend that hangs is a failure, not a pause.
const CASE_MAX: Duration = Duration::from_secs(90);

/// How many days the fixtures' inboxes keep: not what a backend does unless it is told.
pub const INBOX_DAYS: u32 = 7;

/// A port with the message store beside it, which writes its rows.
pub struct Beside<P: ?Sized> {
    /// The port.
    pub port: Arc<P>,
    /// The message store of the same place.
    pub messages: Arc<dyn MessageStore>,
}

/// A fresh, isolated place in a backend: a directory, a topic prefix, a chroot of its own, or
/// random ids.
pub trait Fixture {
    /// What it gives: `dyn Log`, `dyn MessageStore`, …
    type Port: ?Sized;

    /// A client of this place. Called again it gives another client of the same data; called
    /// when all earlier ones are dropped, it opens the data anew.
    fn open(&self) -> impl Future<Output = anyhow::Result<Arc<Self::Port>>>;

    /// Removes the place. All clients are dropped before.
    fn clean_up(self) -> impl Future<Output = anyhow::Result<()>>;
}

/// What the log's cases need beside.
pub trait LogFixture: Fixture<Port = dyn Log> {
    /// A client whose producer holds at most about this many records of 10 kB.
    const SMALL_QUEUE: usize = 500;

    /// Such a client.
    fn open_small(&self) -> impl Future<Output = anyhow::Result<Arc<dyn Log>>>;
}

/// Runs one case; `names` are suite, backend and case.
///
/// # Panics
/// Where the case or its clean-up fails.
pub async fn run<F: Fixture>(names: (&str, &str, &str), fixture: F, case: impl AsyncFnOnce(&F)) {
    let (suite, backend, name) = names;
    let run = AssertUnwindSafe(case(&fixture)).catch_unwind();
    let outcome = tokio::time::timeout(CASE_MAX, run).await;
    let cleaned = fixture.clean_up().await;
    match outcome {
        Ok(Ok(())) => {}
        Ok(Err(panic)) => resume_unwind(panic),
        Err(_) => panic!("{name} did not end within {CASE_MAX:?}"),
    }
    cleaned.expect("the fixture cleans up after itself");
    let dir = target().join("reports/cases").join(suite).join(backend);
    fs::create_dir_all(&dir).expect("the target directory is writable");
    fs::write(dir.join(name), "").expect("the target directory is writable");
}

/// The workspace's target directory.
fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => dir.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"),
    }
}
