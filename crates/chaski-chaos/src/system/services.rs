//! The service processes, and a supervisor that starts again what ended by itself, as whatever
//! runs them in production does.
//!
//! Must not know: when and why one of them is killed.

use anyhow::{Context as _, bail};
use chaski::cluster::Process;
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// Who takes longer than this to become ready does not come back by itself.
const READY_MAX: Duration = Duration::from_secs(120);
/// Who drains for longer is killed, and that is a finding.
const DRAIN_MAX: Duration = Duration::from_secs(30);
/// Ready is who says so for so long without a break: a process that was paused learns only after
/// a moment that it has to end.
const STEADY: Duration = Duration::from_millis(1_000);
const POLL: Duration = Duration::from_millis(50);
/// The supervisor's.
const ROUND: Duration = Duration::from_millis(250);
/// In rounds. Not the first one: between fork and exec a process does not look like itself.
const PATIENCE_LEAST: u32 = 2;
const PATIENCE_MOST: u32 = 12;
/// Who has run for so long did not end because of what it found at its start.
const RUNS_WELL: Duration = Duration::from_secs(15);

/// The service processes of the system.
pub(super) struct Services {
    dir: PathBuf,
    processes: Mutex<BTreeMap<String, Entry>>,
}

struct Entry {
    process: Process,
    /// What it is given beside the settings of one trial.
    env: BTreeMap<String, String>,
    /// Nobody has taken it down.
    wanted: bool,
    /// In how many of the supervisor's rounds it was not there.
    missed: u32,
    /// After how many of them it is started again: more each time, until it has run for a while.
    patience: u32,
    started: Instant,
    /// How often it ended by itself.
    ends: u32,
}

impl Services {
    /// Not started yet.
    pub(super) fn new(dir: &Path, processes: Vec<Process>) -> Self {
        let entry = |process: Process| {
            let (name, started) = (process.name.clone(), Instant::now());
            let entry = Entry {
                env: process.env.clone(),
                process,
                wanted: false,
                missed: 0,
                patience: PATIENCE_LEAST,
                started,
                ends: 0,
            };
            (name, entry)
        };
        let processes = Mutex::new(processes.into_iter().map(entry).collect());
        Self { dir: dir.to_owned(), processes }
    }

    /// Their names.
    pub(super) fn names(&self) -> Vec<String> {
        self.processes.lock().keys().cloned().collect()
    }

    /// What each was given.
    pub(super) fn get(&self, name: &str) -> anyhow::Result<Process> {
        let processes = self.processes.lock();
        let entry = processes.get(name).with_context(|| format!("no service process {name}"))?;
        Ok(entry.process.clone())
    }

    /// Whether nobody has taken it down.
    pub(super) fn is_wanted(&self, name: &str) -> bool {
        self.processes.lock().get(name).is_some_and(|entry| entry.wanted)
    }

    /// The pid of each, as of its last start.
    pub(super) fn pids(&self) -> Vec<(u32, String)> {
        let processes = self.processes.lock();
        let started = processes.values().map(|entry| &entry.process).filter(|p| p.pid != 0);
        started.map(|process| (process.pid, process.name.clone())).collect()
    }

    /// Starts one that was taken down.
    pub(super) fn start(&self, name: &str) -> anyhow::Result<()> {
        self.with(name, |entry, dir| {
            entry.process.start(dir)?;
            (entry.wanted, entry.missed, entry.patience) = (true, 0, PATIENCE_LEAST);
            entry.started = Instant::now();
            Ok(())
        })
    }

    /// What all of them are given as of their next start, beside what is their own.
    pub(super) fn set(&self, settings: &BTreeMap<String, String>) {
        for entry in self.processes.lock().values_mut() {
            entry.process.env = entry.env.clone();
            entry.process.env.extend(settings.clone());
            entry.ends = 0;
        }
    }

    /// SIGKILL.
    pub(super) async fn kill(&self, name: &str) -> anyhow::Result<()> {
        let process = self.take_down(name)?;
        // One that had ended by itself at this moment is as dead.
        if process.is_running() { process.kill9().await } else { Ok(()) }
    }

    /// SIGTERM, and its end.
    pub(super) async fn drain(&self, name: &str) -> anyhow::Result<()> {
        let process = self.take_down(name)?;
        if let Err(error) = process.terminate(DRAIN_MAX).await
            && process.is_running()
        {
            tracing::error!(name, %error, "it does not drain: killing it");
            process.kill9().await?;
        }
        Ok(())
    }

    /// SIGSTOP; it is still wanted.
    pub(super) fn stand_still(&self, name: &str) -> anyhow::Result<()> {
        self.get(name)?.stand_still()
    }

    /// SIGCONT, where it still runs.
    pub(super) fn go_on(&self, name: &str) -> anyhow::Result<()> {
        let process = self.get(name)?;
        if process.is_running() { process.go_on() } else { Ok(()) }
    }

    /// Waits until it is ready and stays so; when it became ready.
    pub(super) async fn until_ready(&self, name: &str) -> anyhow::Result<Instant> {
        let late = Instant::now() + READY_MAX;
        let mut since: Option<(u32, Instant)> = None;
        loop {
            let process = self.get(name)?;
            // Its address could be another process's while it is not there.
            let answer = match process.is_running() {
                true => process.ready().await,
                false => Err("it does not run".to_owned()),
            };
            let now = Instant::now();
            match (&answer, since) {
                (Ok(()), Some((pid, at))) if pid == process.pid => {
                    if now - at >= STEADY {
                        return Ok(at);
                    }
                }
                (Ok(()), _) => since = Some((process.pid, now)),
                (Err(_), _) => since = None,
            }
            if let Err(waiting) = answer
                && now > late
            {
                let log = process.log.display();
                let end = process.log_end();
                bail!("{name} is not ready after {READY_MAX:?} ({waiting}); end of {log}:\n{end}");
            }
            sleep(POLL).await;
        }
    }

    /// Starts again what ended by itself, for ever.
    pub(super) async fn supervise(&self) {
        loop {
            for name in self.names() {
                // It is tried again in the next round.
                let looked = self.with(&name, |entry, dir| {
                    if !entry.wanted || entry.process.is_running() {
                        entry.missed = 0;
                        return Ok(());
                    }
                    entry.missed += 1;
                    if entry.missed < entry.patience {
                        return Ok(());
                    }
                    let (at, now) = (entry.started, Instant::now());
                    entry.patience = match now - at > RUNS_WELL {
                        true => PATIENCE_LEAST,
                        false => (2 * entry.patience).min(PATIENCE_MOST),
                    };
                    (entry.missed, entry.ends, entry.started) = (0, entry.ends + 1, now);
                    tracing::warn!(name, ends = entry.ends, "ended by itself, started again");
                    entry.process.start(dir)
                });
                if let Err(error) = looked {
                    tracing::error!(name, %error, "cannot be started again");
                }
            }
            sleep(ROUND).await;
        }
    }

    /// How often each has ended by itself.
    pub(super) fn ends(&self) -> BTreeMap<String, u32> {
        let processes = self.processes.lock();
        let ended = processes.iter().filter(|(_, entry)| entry.ends > 0);
        ended.map(|(name, entry)| (name.clone(), entry.ends)).collect()
    }

    fn take_down(&self, name: &str) -> anyhow::Result<Process> {
        self.with(name, |entry, _| {
            entry.wanted = false;
            Ok(entry.process.clone())
        })
    }

    fn with<T>(
        &self,
        name: &str,
        change: impl FnOnce(&mut Entry, &Path) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let mut processes = self.processes.lock();
        let entry = processes.get_mut(name).with_context(|| format!("no process {name}"))?;
        change(entry, &self.dir)
    }
}
