//! What a run of all tests has covered. Each case that passes leaves a mark,
//! `cases/<suite>/<backend>/<case>` in the directory of reports; this gathers the marks into one
//! report and tells what is missing. Must not know how any case is run.

use anyhow::Context as _;
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

/// The suites that a whole run has, each with its backends: all of them pass the same cases.
/// Conformance suites are named after their port.
const SUITES: &[(&str, &[&str])] = &[
    ("log", &["embedded", "kafka"]),
    ("messages", &["embedded", "cql"]),
    ("chats", &["embedded", "cql"]),
    ("connections", &["embedded", "cql"]),
    ("devices", &["embedded", "cql"]),
    ("checkpoints", &["embedded", "cql"]),
    ("coordinator", &["embedded", "zookeeper"]),
    ("e2e", &["embedded", ALL_SERVERS]),
    ("model", &["embedded", ALL_SERVERS]),
    ("races", &["embedded", ALL_SERVERS]),
    ("chaos", &[ALL_SERVERS]),
    ("examples", &["embedded"]),
    ("edges", &["workspace"]),
    ("tidy", &["workspace"]),
    ("lint", &["workspace"]),
    ("licence", &["workspace"]),
];
/// How many of them, from the first, are a port's.
const PORTS: usize = 7;
/// The backends that are servers, and the server that stands for each in tests.
const SERVERS: &[(&str, &str)] =
    &[("kafka", "kafka"), ("cql", "cassandra"), ("zookeeper", "zookeeper")];
/// The set of them all.
const ALL_SERVERS: &str = "real";

/// Leaves the mark of a case that has passed.
///
/// # Errors
/// Where the target directory cannot be written.
pub fn passed(suite: &str, backend: &str, case: &str) -> io::Result<()> {
    let dir = reports().join("cases").join(suite).join(backend);
    fs::create_dir_all(&dir)?;
    fs::write(dir.join(case), "")
}

/// The workspace's directory of reports.
#[must_use]
pub fn reports() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    target
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"))
        .join("reports")
}

/// `test.json`.
#[derive(Debug, Serialize)]
pub struct Report {
    /// How many tests `cargo test` has passed.
    pub passed: u64,
    /// How many it has failed.
    pub failed: u64,
    /// What the failed ones have said.
    pub failures: Vec<String>,
    /// Each suite on each backend.
    pub suites: Vec<Suite>,
    /// Why this is not a whole and good run; empty if it is.
    pub problems: Vec<String>,
}

/// One suite on one backend.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Suite {
    /// `conformance/<port>` or the suite's own name.
    pub suite: String,
    /// What it ran on.
    pub backend: String,
    /// The version of the server that stood for the backend; with its name where it has another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_version: Option<String>,
    /// How many cases have passed.
    pub cases: usize,
    /// Their names.
    pub names: BTreeSet<String>,
}

/// suite → backend → cases.
type Marks = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

impl Report {
    /// Gathers what a run has left in the directory of reports; `log` is what `cargo test` has
    /// said, `versions` are the servers' as `kafka=4.3.1,zookeeper=…`.
    ///
    /// # Errors
    /// Where the marks cannot be read.
    pub fn gather(reports: &Path, log: &str, versions: &str) -> anyhow::Result<Self> {
        let marks = read_marks(&reports.join("cases"))?;
        let [passed, failed, ignored] =
            ["passed;", "failed;", "ignored;"].map(|word| total(log, word));
        let mut problems = missing(&marks);
        problems.extend(broken(log));
        if passed == 0 {
            problems.push("no test has run".into());
        }
        if ignored > 0 {
            problems.push(format!("{ignored} tests are ignored: a test runs or is not there"));
        }
        let suites = marks.into_iter().flat_map(|(suite, backends)| {
            let suite = full_name(&suite);
            backends.into_iter().map(move |(backend, names)| Suite {
                suite: suite.clone(),
                server_version: server_version(&backend, versions),
                backend,
                cases: names.len(),
                names,
            })
        });
        let failures = failures(log);
        Ok(Self { passed, failed, failures, suites: suites.collect(), problems })
    }
}

fn full_name(suite: &str) -> String {
    match suite {
        "e2e" => "end-to-end".into(),
        port if SUITES[..PORTS].iter().any(|(name, _)| *name == port) => {
            format!("conformance/{port}")
        }
        other => other.into(),
    }
}

fn server_version(backend: &str, versions: &str) -> Option<String> {
    if backend == ALL_SERVERS {
        return Some(versions.to_owned());
    }
    let (_, server) = SERVERS.iter().find(|(name, _)| *name == backend)?;
    let version = versions.split(',').find_map(|one| one.strip_prefix(server)?.strip_prefix('='));
    let version = version.unwrap_or("unknown");
    Some(if *server == backend { version.to_owned() } else { format!("{server} {version}") })
}

/// A suite that did not run on all of its backends, or not with the same cases.
fn missing(marks: &Marks) -> Vec<String> {
    let none = BTreeSet::new();
    let mut problems = Vec::new();
    for (suite, backends) in SUITES {
        let of = |backend: &&str| marks.get(*suite).and_then(|m| m.get(*backend)).unwrap_or(&none);
        let all: BTreeSet<&String> = backends.iter().flat_map(of).collect();
        for backend in *backends {
            let cases = of(backend);
            let lacks: Vec<_> = all.iter().filter(|case| !cases.contains(**case)).collect();
            let suite = full_name(suite);
            if cases.is_empty() {
                problems.push(format!("{suite}: no case has passed on {backend}"));
            } else if !lacks.is_empty() {
                problems
                    .push(format!("{suite}: not passed on {backend}, but elsewhere: {lacks:?}"));
            }
        }
    }
    problems
}

/// The sum of the numbers before a word in the lines `test result: ok. 3 passed; 0 failed; …`.
fn total(log: &str, word: &str) -> u64 {
    let results = log.lines().filter(|line| line.starts_with("test result: "));
    let numbers = results.filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.windows(2).find(|pair| pair[1] == word)?[0].parse::<u64>().ok()
    });
    numbers.sum()
}

/// What `cargo test` says before a program of tests that failed, and between quotes which one.
const TO_RERUN: &str = "failed, to rerun pass `";
/// What it says where one did not end by itself, with the reason in brackets at the end.
const NOT_BY_ITSELF: &str = "  process didn't exit successfully: ";
/// What a test is told of that runs on.
const RUNS_ON: &str = " has been running for over ";

/// The programs of tests that failed, by `cargo test`'s name for them: one that is killed or hangs
/// sums nothing up. Also one whose end the log does not tell, because `cargo` itself was killed.
fn broken(log: &str) -> Vec<String> {
    let mut failed: BTreeMap<&str, Option<String>> = BTreeMap::new();
    // The program that runs, its tests that have run for long, and the last one that failed.
    let (mut running, mut long, mut last) = (None, BTreeSet::new(), None);
    let mut unended = Vec::new();
    let mut listed = false;
    for line in log.lines() {
        if line.starts_with("     Running ") || line.starts_with("   Doc-tests ") {
            unended.extend(running.replace(line.trim()));
            long.clear();
        } else if line.starts_with("test result: ") {
            running = None;
        } else if let Some((test, _)) = line.split_once(RUNS_ON) {
            long.insert(test);
        } else if let Some((test, _)) = line.split_once(" ... ") {
            long.remove(test);
        }
        // Behind the name of a test, perhaps, that had not ended.
        if let Some((_, target)) = line.split_once(TO_RERUN) {
            let target = target.trim_end_matches('`');
            failed.entry(target).or_default();
            (running, last) = (None, Some(target));
        } else if let (Some(how), Some(target)) = (line.strip_prefix(NOT_BY_ITSELF), last) {
            let how = how.rsplit_once(" (").map_or(how, |(_, reason)| reason.trim_end_matches(')'));
            let tests: Vec<_> = std::mem::take(&mut long).into_iter().collect();
            let during =
                if tests.is_empty() { String::new() } else { format!(", in {}", tests.join(", ")) };
            failed.insert(target, Some(format!("{how}{during}")));
        }
        match line.strip_prefix("    `").and_then(|rest| rest.strip_suffix('`')) {
            Some(target) if listed => _ = failed.entry(target).or_default(),
            _ => listed = line.starts_with("error: ") && line.ends_with(" failed:"),
        }
    }
    unended.extend(running);
    let failed = failed.into_iter().map(|(target, how)| match how {
        Some(how) => format!("{target}: did not end by itself: {how}"),
        None => format!("{target}: has failed"),
    });
    failed.chain(unended.into_iter().map(|target| format!("{target}: has no result"))).collect()
}

/// The most lines of a failed test's output that a report repeats.
const FAILURE_LINES: usize = 60;

/// The sections `---- the_test stdout ----` of a log, long ones without their middle.
fn failures(log: &str) -> Vec<String> {
    let mut found: Vec<Vec<&str>> = Vec::new();
    let mut inside = false;
    for line in log.lines() {
        if line.starts_with("---- ") && line.ends_with(" ----") {
            found.push(Vec::new());
            inside = true;
        } else if line == "failures:" || line.starts_with("test result: ") {
            inside = false;
        }
        if inside && let Some(section) = found.last_mut() {
            section.push(line);
        }
    }
    let shorten = |mut lines: Vec<&str>| {
        if lines.len() > FAILURE_LINES {
            let half = FAILURE_LINES / 2;
            lines.splice(half..lines.len() - half, ["[…]"]);
        }
        lines.join("\n").trim_end().to_owned()
    };
    found.into_iter().map(shorten).collect()
}

fn read_marks(cases: &Path) -> anyhow::Result<Marks> {
    let mut marks = Marks::new();
    for suite in entries(cases)? {
        for backend in entries(&cases.join(&suite))? {
            let names = entries(&cases.join(&suite).join(&backend))?;
            marks.entry(suite.clone()).or_default().insert(backend, names);
        }
    }
    Ok(marks)
}

fn entries(dir: &Path) -> anyhow::Result<BTreeSet<String>> {
    let read = fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))?;
    read.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "running 2 tests\n\
        test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n\
        a test said: 9 passed;\n\
        ---- a::test stdout ----\n\
        assertion failed\n\
        \n\
        failures:\n\
        test result: FAILED. 40 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out\n";

    /// What `cargo test --no-fail-fast` says of a test that fails, one that aborts, one that hangs
    /// until its time is over, and of what was killed together with it.
    const BROKEN: &str = "     Running tests/a.rs (target/debug/deps/a-1)\n\
        test b ... ok\n\
        test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out\n\
        \n\
        error: test failed, to rerun pass `-p x --test a`\n     \
             Running tests/b.rs (target/debug/deps/b-1)\n\
        test d ... error: test failed, to rerun pass `-p x --test b`\n\
        \n\
        Caused by:\n  \
          process didn't exit successfully: `b-1 (1)` (signal: 6, SIGABRT: process abort signal)\n     \
             Running tests/c.rs (target/debug/deps/c-1)\n\
        test e has been running for over 60 seconds\n\
        test f has been running for over 60 seconds\n\
        test f ... ok\n\
        error: test failed, to rerun pass `-p x --test c`\n\
        \n\
        Caused by:\n  \
          process didn't exit successfully: `timeout 40m c-1` (exit status: 124)\n   \
           Doc-tests x\n\
        error: 4 targets failed:\n    \
            `-p x --test a`\n    \
            `-p x --test b`\n    \
            `-p x --test c`\n    \
            `-p x --lib`\n\
        error: `-p x --test no`\n";

    #[test]
    fn programs_of_tests_that_are_killed_or_hang_are_named() {
        let expected = [
            "-p x --lib: has failed",
            "-p x --test a: has failed",
            "-p x --test b: did not end by itself: signal: 6, SIGABRT: process abort signal",
            "-p x --test c: did not end by itself: exit status: 124, in test e",
            "Doc-tests x: has no result",
        ];
        assert_eq!(broken(BROKEN), expected);
        assert_eq!(after_log(BROKEN, |_| {}).problems, expected);
        assert_eq!(broken(LOG), [""; 0]);
    }

    /// A run in which every suite has passed two cases on every backend, then changed.
    fn after(change: impl FnOnce(&Path)) -> Report {
        after_log(LOG, change)
    }

    fn after_log(log: &str, change: impl FnOnce(&Path)) -> Report {
        let dir = tempfile::tempdir().unwrap();
        for (suite, backends) in SUITES {
            for backend in *backends {
                let cases = dir.path().join("cases").join(suite).join(backend);
                fs::create_dir_all(&cases).unwrap();
                fs::write(cases.join("one"), "").unwrap();
                fs::write(cases.join("two"), "").unwrap();
            }
        }
        change(&dir.path().join("cases"));
        Report::gather(dir.path(), log, "kafka=4.3.1,zookeeper=3.9.5,cassandra=5.0.6").unwrap()
    }

    #[test]
    fn a_whole_run_is_summed_up() {
        let report = after(|_| {});
        assert!(report.problems.is_empty(), "{:?}", report.problems);
        assert_eq!((report.passed, report.failed), (42, 1));
        assert_eq!(report.failures, ["---- a::test stdout ----\nassertion failed"]);
        let version = |suite: &str, backend: &str| {
            let found = report.suites.iter().find(|s| s.suite == suite && s.backend == backend);
            found.map(|s| (s.cases, s.server_version.as_deref()))
        };
        assert_eq!(version("conformance/log", "kafka"), Some((2, Some("4.3.1"))));
        assert_eq!(version("conformance/devices", "cql"), Some((2, Some("cassandra 5.0.6"))));
        assert_eq!(version("conformance/coordinator", "embedded"), Some((2, None)));
        assert_eq!(version("edges", "workspace"), Some((2, None)));
    }

    #[test]
    fn what_did_not_run_is_named() {
        let report = after(|cases| {
            fs::remove_file(cases.join("log/kafka/two")).unwrap();
            fs::remove_dir_all(cases.join("messages/cql")).unwrap();
            fs::remove_dir_all(cases.join("licence")).unwrap();
        });
        let expected = [
            "conformance/log: not passed on kafka, but elsewhere: [\"two\"]",
            "conformance/messages: no case has passed on cql",
            "licence: no case has passed on workspace",
        ];
        assert_eq!(report.problems, expected);
    }
}
