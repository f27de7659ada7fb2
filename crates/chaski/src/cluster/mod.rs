//! The service processes of a local cluster, as files: `<dir>/<name>.json` for each. Used by
//! `chaski cluster` and by the harnesses that kill and restart. Knows processes, not services.

mod layout;

pub use layout::Layout;

use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// A service process that can be killed and started again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Unique in the cluster; the name of its file.
    pub name: String,
    /// Which service it is.
    pub role: String,
    /// As of the last start.
    pub pid: u32,
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Set beside the environment of whoever starts it.
    pub env: BTreeMap<String, String>,
    /// Where its output goes, appended.
    pub log: PathBuf,
}

/// The processes of a cluster, by name.
///
/// # Errors
/// The directory or a file in it cannot be read.
pub fn load(dir: &Path) -> anyhow::Result<Vec<Process>> {
    let mut processes = Vec::new();
    let entries = fs::read_dir(dir)
        .with_context(|| format!("no cluster in {}: start one first", dir.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "json") {
            let text = fs::read_to_string(&path)?;
            let process: Process = serde_json::from_str(&text)
                .with_context(|| format!("{} is not a process", path.display()))?;
            processes.push(process);
        }
    }
    processes.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(processes)
}

impl Process {
    /// Writes the process's file, at once or not at all.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, dir: &Path) -> anyhow::Result<()> {
        let path = dir.join(format!("{}.json", self.name));
        let part = path.with_extension("part");
        fs::write(&part, serde_json::to_vec_pretty(self)?)?;
        fs::rename(&part, &path).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Whether the process with this pid runs and is the one that was started: pids are used
    /// again.
    #[must_use]
    pub fn is_running(&self) -> bool {
        let Ok(cmdline) = fs::read(format!("/proc/{}/cmdline", self.pid)) else { return false };
        let args: Vec<&[u8]> =
            cmdline.strip_suffix(&[0]).unwrap_or(&cmdline).split(|b| *b == 0).collect();
        // A process that ended and that nobody has waited for has no command line.
        !cmdline.is_empty() && args.iter().copied().eq(self.argv.iter().map(String::as_bytes))
    }

    /// Whether it takes traffic, as it says itself at `/health/ready`; an error is what it waits
    /// for. A process without an operators' address counts as ready.
    ///
    /// # Errors
    /// It is not ready, or does not answer.
    pub async fn ready(&self) -> Result<(), String> {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let Some(address) = self.env.get("CHASKI_ADMIN_LISTEN") else { return Ok(()) };
        let ask = async {
            let mut tcp = tokio::net::TcpStream::connect(address).await?;
            tcp.write_all(b"GET /health/ready HTTP/1.0\r\n\r\n").await?;
            let mut answer = String::new();
            tcp.read_to_string(&mut answer).await?;
            std::io::Result::Ok(answer)
        };
        let answer = match tokio::time::timeout(Duration::from_secs(2), ask).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(format!("no answer: {error}")),
            Err(_) => return Err("no answer".into()),
        };
        match answer.lines().next().is_some_and(|status| status.contains(" 200")) {
            true => Ok(()),
            false => Err(answer.lines().last().unwrap_or_default().to_owned()),
        }
    }

    /// Waits until it is ready; an error where it ends first or takes longer.
    ///
    /// # Errors
    /// With what it waits for, and the end of its log.
    pub async fn until_ready(&self, patience: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + patience;
        let mut gone = 0;
        loop {
            let Err(waiting) = self.ready().await else { return Ok(()) };
            // Between fork and exec it does not look like itself.
            gone = if self.is_running() { 0 } else { gone + 1 };
            let why = match gone {
                10.. => "has ended".to_owned(),
                _ if Instant::now() > until => {
                    format!("is not ready after {patience:?} ({waiting})")
                }
                _ => {
                    sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            bail!("{} {why}; the end of {}:\n{}", self.name, self.log.display(), self.log_end());
        }
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log_end(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// SIGKILL, and waits until it is gone.
    ///
    /// # Errors
    /// It does not run, is somebody else's by now, or does not go.
    pub async fn kill9(&self) -> anyhow::Result<()> {
        self.signal(rustix::process::Signal::KILL)?;
        self.gone(Duration::from_secs(10)).await
    }

    /// SIGTERM, and waits until it has drained.
    ///
    /// # Errors
    /// It does not run, is somebody else's by now, or does not go.
    pub async fn terminate(&self, deadline: Duration) -> anyhow::Result<()> {
        self.signal(rustix::process::Signal::TERM)?;
        self.gone(deadline).await
    }

    /// SIGSTOP: it stands still until [`Process::go_on`].
    ///
    /// # Errors
    /// It does not run, or is somebody else's by now.
    pub fn stand_still(&self) -> anyhow::Result<()> {
        self.signal(rustix::process::Signal::STOP)
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// It does not run, or is somebody else's by now.
    pub fn go_on(&self) -> anyhow::Result<()> {
        self.signal(rustix::process::Signal::CONT)
    }

    fn signal(&self, signal: rustix::process::Signal) -> anyhow::Result<()> {
        ensure!(self.is_running(), "{} (pid {}) does not run", self.name, self.pid);
        let pid = i32::try_from(self.pid).ok().and_then(rustix::process::Pid::from_raw);
        let pid = pid.with_context(|| format!("{} is not a pid", self.pid))?;
        rustix::process::kill_process(pid, signal)
            .with_context(|| format!("cannot signal {} (pid {})", self.name, self.pid))
    }

    async fn gone(&self, deadline: Duration) -> anyhow::Result<()> {
        let gone = async {
            while self.is_running() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(deadline, gone).await.is_err() {
            bail!("{} (pid {}) is still there after {deadline:?}", self.name, self.pid);
        }
        Ok(())
    }

    /// Starts it in a process group of its own, so that Ctrl-C in a terminal does not reach it,
    /// and writes its file.
    ///
    /// # Errors
    /// It runs already, or cannot be started.
    pub fn start(&mut self, dir: &Path) -> anyhow::Result<()> {
        use std::os::unix::process::CommandExt as _;
        ensure!(!self.is_running(), "{} (pid {}) runs already", self.name, self.pid);
        let (program, args) = self.argv.split_first().context("a process without argv")?;
        let log = fs::OpenOptions::new().create(true).append(true).open(&self.log)?;
        let mut child = std::process::Command::new(program)
            .args(args)
            .envs(&self.env)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        self.pid = child.id();
        // Whoever started it has to wait for it, or it stays as a zombie until they end.
        std::thread::spawn(move || child.wait());
        self.save(dir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_is_started_found_killed_and_started_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut process = Process {
            name: "sleeper-1".into(),
            role: "sleeper".into(),
            pid: 0,
            argv: vec!["sleep".into(), "1000".into()],
            env: BTreeMap::from([("A".into(), "B".into())]),
            log: dir.path().join("sleeper.log"),
        };
        process.start(dir.path()).unwrap();
        let mut found = load(dir.path()).unwrap().remove(0);
        assert_eq!(found, process);
        // Between fork and exec it still has the name of this process.
        while !found.is_running() {
            tokio::task::yield_now().await;
        }
        assert!(found.start(dir.path()).is_err(), "it runs already");
        let other = Process { argv: vec!["other".into()], ..process.clone() };
        assert!(other.kill9().await.is_err(), "a pid that is somebody else's is not killed");
        assert!(found.is_running());
        found.kill9().await.unwrap();
        assert!(!found.is_running() && found.kill9().await.is_err());
        found.start(dir.path()).unwrap();
        assert_ne!(load(dir.path()).unwrap()[0].pid, process.pid);
        while !found.is_running() {
            tokio::task::yield_now().await;
        }
        found.terminate(Duration::from_secs(5)).await.unwrap();
    }
}
