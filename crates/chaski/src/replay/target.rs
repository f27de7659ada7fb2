//! The system under replay: where it is, and how its processes are killed and started again.
//! Knows nothing of chats or devices.

use crate::{
    cluster::{self, Process},
    node::Role,
};
use anyhow::{Context as _, bail};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::{Child, Command},
    time::{sleep, timeout},
};

/// What is replayed against.
#[derive(Clone, Debug)]
pub enum Target {
    /// A system that somebody else runs; nothing is killed.
    Url(String),
    /// `chaski up` as a child of this process, with data of its own.
    Embedded {
        /// The `chaski` binary; `None`: this one.
        program: Option<PathBuf>,
    },
    /// The processes of `chaski cluster`.
    Cluster {
        /// Where their files are.
        dir: PathBuf,
        /// The public address; `None`: what the gateway's environment says.
        url: Option<String>,
    },
}

impl Target {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Url(_) => "url",
            Self::Embedded { .. } => "embedded",
            Self::Cluster { .. } => "cluster",
        }
    }
}

/// A start that takes longer has failed.
const READY_MAX: Duration = Duration::from_secs(60);
/// So has a drain.
const DRAIN_MAX: Duration = Duration::from_secs(30);

/// A target that takes traffic.
pub(super) struct Running {
    pub(super) url: String,
    pub(super) dev_key: Option<PathBuf>,
    /// How often each role was killed.
    pub(super) kills: BTreeMap<String, u32>,
    kind: Kind,
}

enum Kind {
    Url,
    Embedded(Box<Embedded>),
    Cluster(PathBuf),
}

impl Running {
    /// Starts the target where it is this process's to start, and waits until it is ready.
    pub(super) async fn start(target: &Target, log: &Path) -> anyhow::Result<Self> {
        let kills = BTreeMap::new();
        Ok(match target {
            Target::Url(url) => Self { url: url.clone(), dev_key: None, kills, kind: Kind::Url },
            Target::Embedded { program } => {
                let (embedded, said) = Embedded::start(program.clone(), log).await?;
                let kind = Kind::Embedded(Box::new(embedded));
                Self { url: said.url, dev_key: said.dev_key, kills, kind }
            }
            Target::Cluster { dir, url } => {
                let processes = cluster::load(dir)?;
                let from_env = |name: &str| processes.iter().find_map(|p| p.env.get(name)).cloned();
                let gateway = processes.iter().find(|p| p.role.contains("gateway"));
                let listen = gateway.and_then(|p| p.env.get("CHASKI_LISTEN"));
                let url = url.clone().or_else(|| listen.map(|at| format!("http://{at}")));
                Self {
                    url: url.context("no gateway in the cluster: give --url")?,
                    dev_key: from_env("CHASKI_DEV_KEY").map(PathBuf::from),
                    kills,
                    kind: Kind::Cluster(dir.clone()),
                }
            }
        })
    }

    /// Kills every process once, one after the other, and waits until each is ready again.
    pub(super) async fn kill_all(&mut self) -> anyhow::Result<()> {
        match &mut self.kind {
            Kind::Url => bail!("processes behind a URL cannot be killed"),
            Kind::Embedded(embedded) => {
                embedded.kill_and_restart().await?;
                // One process plays every role, so each of them was killed.
                for role in Role::ALL {
                    *self.kills.entry(role.name().into()).or_default() += 1;
                }
            }
            Kind::Cluster(dir) => {
                for mut process in cluster::load(dir)? {
                    process.kill9().await?;
                    process.start(dir)?;
                    *self.kills.entry(process.role.clone()).or_default() += 1;
                    ready(&process).await?;
                }
            }
        }
        Ok(())
    }

    /// Stops what was started.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        match self.kind {
            Kind::Embedded(embedded) => embedded.stop().await,
            Kind::Url | Kind::Cluster(_) => Ok(()),
        }
    }
}

/// Waits until a process of the cluster says that it is ready, where it has an admin address.
async fn ready(process: &Process) -> anyhow::Result<()> {
    let Some(address) = process.env.get("CHASKI_ADMIN_LISTEN") else { return Ok(()) };
    let is_ready = async || {
        let mut tcp = TcpStream::connect(address).await.ok()?;
        tcp.write_all(b"GET /health/ready HTTP/1.0\r\n\r\n").await.ok()?;
        let mut answer = String::new();
        tcp.read_to_string(&mut answer).await.ok()?;
        answer.lines().next()?.contains(" 200").then_some(())
    };
    let waiting = async {
        while is_ready().await.is_none() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    let late = || format!("{} is not ready {READY_MAX:?} after its start", process.name);
    timeout(READY_MAX, waiting).await.with_context(late)
}

/// `chaski up` as a child.
struct Embedded {
    program: PathBuf,
    env: Vec<(&'static str, String)>,
    log: PathBuf,
    child: Child,
    /// Removed at the end.
    _data: tempfile::TempDir,
}

/// What `chaski up` prints.
struct Said {
    url: String,
    dev_key: Option<PathBuf>,
}

impl Embedded {
    async fn start(program: Option<PathBuf>, log: &Path) -> anyhow::Result<(Self, Said)> {
        let data = tempfile::tempdir()?;
        let program = program.map_or_else(std::env::current_exe, Ok)?;
        let env = vec![
            ("CHASKI_DATA", data.path().display().to_string()),
            ("CHASKI_LISTEN", free_address()?),
            ("CHASKI_ADMIN_LISTEN", free_address()?),
        ];
        let child = spawn(&program, &env, log)?;
        let mut embedded = Self { program, env, log: log.into(), child, _data: data };
        let said = embedded.until_ready(0).await?;
        Ok((embedded, said))
    }

    async fn kill_and_restart(&mut self) -> anyhow::Result<()> {
        let before = fs::metadata(&self.log)?.len();
        // `kill` is SIGKILL, and waits.
        self.child.kill().await?;
        self.child = spawn(&self.program, &self.env, &self.log)?;
        self.until_ready(before).await.map(drop)
    }

    /// Reads the child's output from `from` on until it says `ready`.
    async fn until_ready(&mut self, from: u64) -> anyhow::Result<Said> {
        let waiting = async {
            loop {
                let text = fs::read(&self.log)?;
                let text = String::from_utf8_lossy(&text[from as usize..]).into_owned();
                // A line without its end may be half of one.
                let lines = || text.split_inclusive('\n').filter_map(|l| l.strip_suffix('\n'));
                if let Some(url) = lines().find_map(|line| line.strip_prefix("ready ")) {
                    let key = lines().find_map(|l| l.strip_prefix("export CHASKI_DEV_KEY="));
                    let dev_key = key.map(|k| PathBuf::from(k.trim_matches(['"', '\''])));
                    return Ok(Said { url: url.trim().into(), dev_key });
                }
                if let Some(status) = self.child.try_wait()? {
                    bail!("`chaski up` ended ({status}):\n{text}");
                }
                sleep(Duration::from_millis(10)).await;
            }
        };
        let late = || format!("`chaski up` is not ready: see {}", self.log.display());
        timeout(READY_MAX, waiting).await.with_context(late)?
    }

    async fn stop(mut self) -> anyhow::Result<()> {
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok());
        if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        }
        let status =
            timeout(DRAIN_MAX, self.child.wait()).await.context("no end of the drain")??;
        if !status.success() {
            bail!("`chaski up` ended with {status}: see {}", self.log.display());
        }
        Ok(())
    }
}

fn spawn(program: &Path, env: &[(&str, String)], log: &Path) -> anyhow::Result<Child> {
    let log = File::options().create(true).append(true).open(log)?;
    Command::new(program)
        .args(["up", "--dev"])
        .envs(env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))
}

/// An address that was free a moment ago; a restart needs the same again, so port 0 will not do.
fn free_address() -> anyhow::Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[tokio::test]
    async fn the_embedded_system_is_started_killed_and_drained() {
        let dir = tempfile::tempdir().unwrap();
        let (program, log) = (dir.path().join("chaski"), dir.path().join("log"));
        let script = "#!/bin/sh\n\
            trap 'echo drained; exit 0' TERM\n\
            echo \"export CHASKI_DEV_KEY='$CHASKI_DATA/key'\"\n\
            echo \"ready http://$CHASKI_LISTEN\"\n\
            while :; do sleep 0.01; done\n";
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let target = Target::Embedded { program: Some(program) };
        let mut running = Running::start(&target, &log).await.unwrap();
        assert!(running.url.starts_with("http://127.0.0.1:"));
        assert!(running.dev_key.as_ref().is_some_and(|key| key.ends_with("key")));
        running.kill_all().await.unwrap();
        assert_eq!(running.kills, Role::ALL.map(|role| (role.name().to_owned(), 1)).into());
        running.stop().await.unwrap();
        let said = fs::read_to_string(&log).unwrap();
        assert_eq!(said.matches("ready").count(), 2);
        assert_eq!(said.matches("drained").count(), 1, "killed first, drained at the end");
    }
}
