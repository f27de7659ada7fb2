//! The last step of `./dev test`: `test-report DIR` reads what the run has left in the directory of
//! reports, writes `test.json` there, and prints a table and the closing line.
#![expect(clippy::print_stdout, reason = "a command line tool answers on standard output")]

use anyhow::Context as _;
use chaski_testkit::report::Report;
use std::{env, fs, path::PathBuf, process::ExitCode};

fn main() -> anyhow::Result<ExitCode> {
    let dir: PathBuf = env::args_os().nth(1).context("test-report DIR")?.into();
    let log = fs::read(dir.join("test.log")).context("read test.log")?;
    let versions = env::var("CHASKI_BACKEND_VERSIONS").unwrap_or_default();
    let report = Report::gather(&dir, &String::from_utf8_lossy(&log), &versions)?;
    let file = dir.join("test.json");
    fs::write(&file, serde_json::to_string_pretty(&report)? + "\n").context("write test.json")?;

    println!("{:<26}{:<22}{:>5}  server", "suite", "backend", "cases");
    for suite in &report.suites {
        let version = suite.server_version.as_deref().unwrap_or_default();
        println!("{:<26}{:<22}{:>5}  {version}", suite.suite, suite.backend, suite.cases);
    }
    for failure in &report.failures {
        println!("{failure}");
    }
    for problem in &report.problems {
        println!("PROBLEM {problem}");
    }
    let Report { passed, failed, problems, .. } = &report;
    println!("{passed} passed, {failed} failed, {} problems", problems.len());
    Ok(ExitCode::from(u8::from(report.failed > 0 || !report.problems.is_empty())))
}
