//! Nothing stays behind: every process that the harness starts carries a mark in its environment,
//! and all with this mark end with the harness, however it ends.
//!
//! Must not know: what these processes are.

use anyhow::Context as _;
use std::{
    fs::{self, File},
    io,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// The name of the mark; its value is the harness's directory.
pub(super) const MARK: &str = "CHASKI_CHAOS_RUN";

/// Waits for the end of its standard input, which comes with the end of the harness, and kills
/// what has the mark. A process that is being started at this moment is found the next time.
const WATCH: &str = r#"
read -r _ || true
for _ in 1 2 3 4 5 6 7 8 9 10; do
  pids=$(grep -lzxF -e "$1" /proc/[0-9]*/environ 2>/dev/null | cut -d/ -f3)
  [ -n "$pids" ] || exit 0
  kill -KILL $pids 2>/dev/null
  sleep 0.2
done
"#;

/// A directory that one harness has for itself, and the end of all its processes.
pub(super) struct Leftovers {
    mark: String,
    _lock: File,
    watchdog: Child,
}

impl Leftovers {
    /// Takes the directory, and ends what an earlier harness has left running there.
    ///
    /// # Errors
    /// Another harness has it.
    pub(super) fn take(dir: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let lock = File::create(dir.join("lock"))?;
        lock.try_lock().with_context(|| format!("another harness runs in {}", dir.display()))?;
        let mark = format!("{MARK}={}", dir.display());
        kill(&mark);
        let watchdog = Command::new("bash")
            .args(["-c", WATCH, "chaos-watchdog", &mark])
            // A signal to the harness's group is not for whoever cleans up behind it.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start the watchdog")?;
        Ok(Self { mark, _lock: lock, watchdog })
    }

    /// Ends all processes that have the mark, at once.
    pub(super) fn kill(&self) {
        kill(&self.mark);
    }
}

impl Drop for Leftovers {
    fn drop(&mut self) {
        kill(&self.mark);
        drop(self.watchdog.stdin.take());
        // It finds nothing and ends; a zombie otherwise.
        let _ = self.watchdog.wait();
    }
}

/// Until none is left: one may be starting another meanwhile.
fn kill(mark: &str) {
    for _ in 0..1_000 {
        let pids = marked(mark);
        if pids.is_empty() {
            return;
        }
        for pid in pids {
            // It may have ended by itself.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        std::thread::yield_now();
    }
}

fn marked(mark: &str) -> Vec<rustix::process::Pid> {
    let has_mark = |file: PathBuf| -> io::Result<bool> {
        Ok(fs::read(file)?.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes()))
    };
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = processes.flatten().filter_map(|process| {
        let pid = process.file_name().to_str()?.parse().ok()?;
        has_mark(process.path().join("environ")).ok()?.then_some(pid)
    });
    pids.filter_map(rustix::process::Pid::from_raw).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn sleeper(dir: &Path) -> Child {
        let mut sleeper = Command::new("sleep");
        sleeper.arg("1000").env(MARK, dir).stdout(Stdio::null()).spawn().unwrap()
    }

    /// Ended by a signal, within a while.
    fn ends(child: &mut Child) -> bool {
        let late = Instant::now() + Duration::from_secs(10);
        while Instant::now() < late {
            if let Some(status) = child.try_wait().unwrap() {
                return !status.success();
            }
            std::thread::yield_now();
        }
        child.kill().unwrap();
        false
    }

    #[test]
    fn what_has_the_mark_ends_with_the_harness_and_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let mut left = sleeper(dir);
        let leftovers = Leftovers::take(dir).unwrap();
        assert!(ends(&mut left), "what was left ended at the start");
        assert!(Leftovers::take(dir).is_err(), "the directory is taken");
        let (mut ours, mut other) = (sleeper(dir), sleeper(&dir.join("other")));
        drop(leftovers);
        assert!(ends(&mut ours));
        assert!(other.try_wait().unwrap().is_none(), "another mark is another harness's");

        // Killed with -9 it cannot drop anything: its end of the pipe is closed all the same.
        let mut leftovers = Leftovers::take(dir).unwrap();
        let mut ours = sleeper(dir);
        drop(leftovers.watchdog.stdin.take());
        assert!(ends(&mut ours));
        other.kill().unwrap();
        other.wait().unwrap();
        drop(leftovers);
    }
}
