//! The whole system as a process of its own, for cases that kill it.

use crate::{PATIENCE, Person, Set, place::Place, world::Address};
use chaski::config::Config;
use chaski_auth::DevKey;
use std::{
    fs::File,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::Arc,
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    sync::OnceCell,
};

/// `chaski up --dev` with data of its own.
pub struct Process {
    place: Place,
    config: Config,
    child: Child,
    address: Arc<Address>,
}

impl Process {
    /// A process that is ready.
    ///
    /// # Panics
    /// Where it does not become ready.
    pub async fn start(set: Set) -> Self {
        let place = Place::new(set).await.expect("a place for the process's data");
        let mut config = place.config();
        // The port stays free for the restarts: nobody else asks for this one.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        config.listen = listener.local_addr().expect("it is bound").to_string();
        drop(listener);
        let child = spawn(&config).await;
        let key = DevKey::load_or_create(config.dev_key()).expect("it was made");
        let address = Arc::new(Address { url: format!("http://{}", config.listen), key });
        Self { place, config, child, address }
    }

    /// `kill -9`, and once more from the beginning.
    ///
    /// # Panics
    /// Where it does not become ready again.
    pub async fn kill_and_start(&mut self) {
        self.child.kill().await.expect("it was running");
        self.child = spawn(&self.config).await;
    }

    /// SIGTERM; how it ended. Its data is removed.
    ///
    /// # Panics
    /// Where it does not end.
    pub async fn terminate(mut self) -> ExitStatus {
        let pid = self.child.id().expect("it runs").to_string();
        let told = Command::new("kill").args(["-TERM", &pid]).status().await;
        assert!(told.expect("kill runs").success());
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        self.place.remove().await.expect("its data is removed");
        ended.expect("it drains in time").expect("it is our child")
    }

    /// The public address: `http://…`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.address.url
    }

    /// A new person.
    #[must_use]
    pub fn person(&self, name: &str) -> Person {
        Person::new(&self.address, name)
    }
}

async fn spawn(config: &Config) -> Child {
    let mut child = Command::new(binary().await)
        .args(["up", "--dev"])
        .env("CHASKI_DATA", &config.data)
        .env("CHASKI_LISTEN", &config.listen)
        .env("CHASKI_ADMIN_LISTEN", &config.admin_listen)
        .env("CHASKI_PARTITIONS", config.partitions.to_string())
        .env("CHASKI_TOPIC_PREFIX", &config.topic_prefix)
        .env("CHASKI_LOG", &config.log)
        .env("CHASKI_STORE", &config.store)
        .env("CHASKI_COORDINATOR", &config.coordinator)
        .env("CHASKI_LOG_FILTER", "error")
        .env_remove("CHASKI_DEV_KEY")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        // Not inherited: where the test itself is killed, its process must not hold its output open.
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("chaski starts");
    let errors = child.stderr.take().and_then(|errors| errors.into_owned_fd().ok());
    let mut errors = File::from(errors.expect("it is piped"));
    std::thread::spawn(move || std::io::copy(&mut errors, &mut std::io::stderr()));
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let ready = async {
        while let Some(line) = lines.next_line().await.expect("lines of text") {
            if line.starts_with("ready ") {
                return;
            }
        }
        panic!("chaski ended before it was ready");
    };
    tokio::time::timeout(2 * PATIENCE, ready).await.expect("it becomes ready in time");
    child
}

/// The binary that `./dev test` built (`CHASKI_TEST_BINARY`); else the one beside this test, built
/// from the present sources.
async fn binary() -> &'static PathBuf {
    static BINARY: OnceCell<PathBuf> = OnceCell::const_new();
    let build = || async {
        if let Some(built) = std::env::var_os("CHASKI_TEST_BINARY") {
            return built.into();
        }
        let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
        let build = Command::new(cargo)
            .args(["build", "--quiet", "--package", "chaski", "--bin", "chaski"])
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .status();
        assert!(build.await.expect("cargo runs").success(), "chaski is built");
        let test = std::env::current_exe().expect("this test is a file");
        test.ancestors().nth(2).expect("target/<profile>/deps").join("chaski")
    };
    BINARY.get_or_init(build).await
}
