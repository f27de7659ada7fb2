//! The servers that the system stands on: Kafka, ZooKeeper and Cassandra, by `backends.sh`.
//!
//! Must not know: when and why one of them is killed.

use super::leftovers::MARK;
use anyhow::{Context as _, bail, ensure};
use parking_lot::Mutex;
use rustix::process::{Pid, Signal};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::Command,
    time::timeout,
};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../infra/local/backends.sh");

/// How many there are of each.
pub(super) const SERVERS: [&str; 7] =
    ["kafka-1", "kafka-2", "kafka-3", "zookeeper-1", "zookeeper-2", "zookeeper-3", "cassandra-1"];

/// The running servers.
pub(super) struct Servers {
    /// The harness's, which marks its processes.
    dir: PathBuf,
    /// Where those listen that come over proxies.
    behind: BTreeMap<String, SocketAddr>,
    /// Where those listen that do not.
    direct: BTreeMap<String, SocketAddr>,
    /// Those that nobody has taken down.
    wanted: Mutex<BTreeSet<String>>,
}

impl Servers {
    /// Starts all of them. Kafka's clients are told the `brokers`' addresses.
    pub(super) async fn start(dir: &Path, brokers: &[SocketAddr]) -> anyhow::Result<Self> {
        let mut servers = Self {
            dir: dir.to_owned(),
            behind: BTreeMap::new(),
            direct: BTreeMap::new(),
            wanted: Mutex::new(SERVERS.map(str::to_owned).into()),
        };
        let advertise: Vec<_> = brokers.iter().map(ToString::to_string).collect();
        let mut up = servers.script(["up"]);
        up.env("CHASKI_BACKENDS_ADVERTISE", advertise.join(","));
        let exports = run(&mut up).await?;
        let lists = [
            ("kafka", addresses(&exports, "CHASKI_BACKENDS_BEHIND")?),
            ("zookeeper", addresses(&exports, "CHASKI_COORDINATOR")?),
            ("cassandra", addresses(&exports, "CHASKI_STORE")?),
        ];
        for (group, list) in lists {
            let named = (1..).map(|n| format!("{group}-{n}")).zip(list);
            servers.behind.extend(named);
        }
        servers.direct = servers.behind.clone();
        let brokers = addresses(&exports, "CHASKI_LOG")?;
        servers.direct.extend((1..).map(|n| format!("kafka-{n}")).zip(brokers));
        ensure!(servers.behind.len() == SERVERS.len(), "not all servers are there:\n{exports}");
        Ok(servers)
    }

    /// Where a server listens for those who come over a proxy.
    pub(super) fn behind(&self, name: &str) -> anyhow::Result<SocketAddr> {
        self.behind.get(name).copied().with_context(|| format!("no server {name}"))
    }

    /// The URLs of log, store and coordinator, past the proxies.
    pub(super) fn urls(&self) -> [String; 3] {
        urls(|name| self.direct.get(name).copied())
    }

    /// SIGKILL.
    pub(super) fn kill(&self, names: &[String]) -> anyhow::Result<()> {
        for name in names {
            self.wanted.lock().remove(name);
            self.signal(name, Signal::KILL)?;
        }
        Ok(())
    }

    /// With the data that they had; ready at the end.
    pub(super) async fn start_again(&self, names: &[String]) -> anyhow::Result<()> {
        let started = run(self.script(["start"]).args(names)).await;
        self.wanted.lock().extend(names.iter().cloned());
        started.map(drop)
    }

    /// Those that should run and do not.
    pub(super) fn ended(&self) -> Vec<String> {
        let wanted = self.wanted.lock().clone();
        let mut ended: Vec<_> =
            wanted.into_iter().filter(|name| self.pid(name).is_none()).collect();
        // One may have been killed meanwhile.
        let wanted = self.wanted.lock();
        ended.retain(|name| wanted.contains(name));
        ended
    }

    /// SIGSTOP and SIGCONT.
    pub(super) fn signal(&self, name: &str, signal: Signal) -> anyhow::Result<()> {
        let pid = self.pid(name).with_context(|| format!("{name} does not run"))?;
        rustix::process::kill_process(pid, signal)
            .with_context(|| format!("cannot signal {name} (pid {pid})"))
    }

    /// By the mark that `backends.sh` gives each one.
    fn pid(&self, name: &str) -> Option<Pid> {
        let run = self.dir.join("backends/run").join(name);
        let mark = format!("-Dchaski.backend={}", run.display());
        let entries = fs::read_dir("/proc").ok()?;
        entries.flatten().find_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let line = fs::read(entry.path().join("cmdline")).ok()?;
            let ours = line.split(|byte| *byte == 0).any(|arg| arg == mark.as_bytes());
            ours.then(|| Pid::from_raw(pid)).flatten()
        })
    }

    /// Whether it answers, as a part of its cluster where it has one.
    pub(super) async fn is_ready(&self, name: &str) -> bool {
        match name.split_once('-') {
            Some(("kafka", _)) => self.kafka_leader(name).await.is_some(),
            Some(("zookeeper", _)) => self.zookeeper_mode(name).await.is_some(),
            // OPTIONS, answered by SUPPORTED.
            _ => {
                let answer = self.ask(name, &[4, 0, 0, 0, 5, 0, 0, 0, 0], 5).await;
                answer.is_some_and(|answer| answer.get(4) == Some(&6))
            }
        }
    }

    /// `leader` or `follower`; `None` without a quorum.
    pub(super) async fn zookeeper_mode(&self, name: &str) -> Option<String> {
        let answer = String::from_utf8(self.ask(name, b"srvr", usize::MAX).await?).ok()?;
        let mode = answer.lines().find_map(|line| line.strip_prefix("Mode: "))?;
        matches!(mode, "leader" | "follower").then(|| mode.to_owned())
    }

    /// The broker that leads the controllers, as this one knows.
    pub(super) async fn kafka_leader(&self, name: &str) -> Option<String> {
        // DescribeQuorum (KIP-595), version 0, of partition 0 of the log of the metadata.
        const TOPIC: &[u8] = b"__cluster_metadata";
        let mut request = vec![0, 55, 0, 0, 0, 0, 0, 1, 0xff, 0xff, 0, 2, TOPIC.len() as u8 + 1];
        request.extend_from_slice(TOPIC);
        request.extend_from_slice(&[2, 0, 0, 0, 0, 0, 0, 0]);
        let mut framed = (request.len() as u32).to_be_bytes().to_vec();
        framed.extend(request);
        // Size, correlation, no tags; error, one topic, its name; one partition, index, error.
        let leader_at = 4 + 4 + 1 + 2 + 1 + 1 + TOPIC.len() + 1 + 4 + 2;
        let answer = self.ask(name, &framed, leader_at + 4).await?;
        let leader = answer.get(leader_at..leader_at + 4)?;
        let leader = i32::from_be_bytes(leader.try_into().ok()?);
        (leader > 0).then(|| format!("kafka-{leader}"))
    }

    /// Sends bytes, and gives so many of the answer, or what comes until its end.
    async fn ask(&self, name: &str, bytes: &[u8], most: usize) -> Option<Vec<u8>> {
        let ask = async {
            let mut tcp = TcpStream::connect(self.direct.get(name)?).await.ok()?;
            tcp.write_all(bytes).await.ok()?;
            let mut answer = Vec::new();
            tcp.take(most as u64).read_to_end(&mut answer).await.ok()?;
            Some(answer)
        };
        timeout(Duration::from_secs(2), ask).await.ok()?
    }

    /// Removes what is left of them, data and logs.
    pub(super) async fn remove(dir: &Path) -> anyhow::Result<()> {
        run(&mut script(dir, ["down"])).await.map(drop)
    }

    fn script<const N: usize>(&self, args: [&str; N]) -> Command {
        script(&self.dir, args)
    }
}

fn script<const N: usize>(dir: &Path, args: [&str; N]) -> Command {
    let mut command = Command::new(SCRIPT);
    command
        .args(args)
        .env("CHASKI_BACKENDS_DIR", dir.join("backends"))
        .env(MARK, dir)
        // Ctrl-C is for the harness, which ends what it started in its own way.
        .process_group(0)
        .kill_on_drop(true)
        .stdin(Stdio::null());
    command
}

async fn run(command: &mut Command) -> anyhow::Result<String> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = command.spawn().context("cannot run backends.sh")?.wait_with_output().await?;
    if !output.status.success() {
        bail!("backends.sh failed:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// The URLs of log, store and coordinator, where the servers are at these addresses.
pub(super) fn urls(at: impl Fn(&str) -> Option<SocketAddr>) -> [String; 3] {
    let all = |group: &str| {
        let names = SERVERS.iter().filter(|name| name.starts_with(group));
        let list: Vec<_> = names.filter_map(|name| at(name)).map(|a| a.to_string()).collect();
        list.join(",")
    };
    [
        format!("kafka://{}", all("kafka")),
        format!("scylla://{}/chaski", all("cassandra")),
        format!("zookeeper://{}/chaski", all("zookeeper")),
    ]
}

/// The addresses in `export NAME=[scheme://]address,…[/path]`.
fn addresses(exports: &str, name: &str) -> anyhow::Result<Vec<SocketAddr>> {
    let prefix = format!("export {name}=");
    let value = exports.lines().find_map(|line| line.strip_prefix(&prefix));
    let value = value.with_context(|| format!("backends.sh does not print {name}"))?;
    let value = value.split_once("://").map_or(value, |(_, rest)| rest);
    let list = value.split_once('/').map_or(value, |(list, _)| list);
    list.split(',').map(|address| Ok(address.parse()?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_from_what_backends_sh_prints() {
        let exports = "export A=kafka://127.0.0.1:1,127.0.0.1:2\nexport B=127.0.0.1:3\n\
                       export C=zookeeper://127.0.0.1:4/chaski";
        let ports = |name| -> Vec<u16> {
            addresses(exports, name).unwrap().iter().map(SocketAddr::port).collect()
        };
        assert_eq!(ports("A"), [1, 2]);
        assert_eq!(ports("B"), [3]);
        assert_eq!(ports("C"), [4]);
        assert!(addresses(exports, "D").is_err());
        let [log, store, coordinator] = urls(|name| {
            let n: u16 = name.rsplit_once('-')?.1.parse().ok()?;
            Some(([127, 0, 0, 1], n).into())
        });
        assert_eq!(log, "kafka://127.0.0.1:1,127.0.0.1:2,127.0.0.1:3");
        assert_eq!(store, "scylla://127.0.0.1:1/chaski");
        assert_eq!(coordinator, "zookeeper://127.0.0.1:1,127.0.0.1:2,127.0.0.1:3/chaski");
    }
}
