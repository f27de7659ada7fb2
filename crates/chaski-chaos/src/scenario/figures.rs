//! What a scenario came to: each line of what is wanted, the figures behind it, and the judge's
//! report.

use crate::report::Report;
use serde::Serialize;
use std::fmt::{self, Display};

/// One line of what is wanted.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names say it")]
pub struct Line {
    pub what: String,
    pub wanted: String,
    pub measured: String,
    pub passed: bool,
}

impl Line {
    pub(super) fn new(
        what: &str,
        wanted: impl Into<String>,
        measured: impl Into<String>,
        passed: bool,
    ) -> Self {
        Self { what: what.into(), wanted: wanted.into(), measured: measured.into(), passed }
    }
}

/// The result of a scenario.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names say it")]
pub struct ScenarioReport {
    pub scenario: &'static str,
    pub started_at: String,
    pub lines: Vec<Line>,
    /// What the lines rest on.
    pub figures: serde_json::Value,
    /// What the judge says, as of a run with faults.
    pub run: Report,
    /// All lines, and no violation.
    pub passed: bool,
}

impl ScenarioReport {
    pub(super) fn new(
        scenario: &'static str,
        started_at: String,
        mut lines: Vec<Line>,
        figures: serde_json::Value,
        run: Report,
    ) -> Self {
        let measured = format!(
            "{} violations in {} accepted; {} problems",
            run.violated(),
            run.accepted,
            run.problems.len()
        );
        lines.push(Line::new("nothing lost", "no violation, all settled", measured, run.passed));
        let passed = lines.iter().all(|line| line.passed);
        Self { scenario, started_at, lines, figures, run, passed }
    }
}

impl Display for ScenarioReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.run)?;
        writeln!(f, "{}", self.scenario)?;
        for line in &self.lines {
            let passed = if line.passed { "PASSED" } else { "FAILED" };
            let Line { what, wanted, measured, .. } = line;
            writeln!(f, "  {passed}  {what}: {measured} (wanted: {wanted})")?;
        }
        write!(f, "{}", serde_json::to_string_pretty(&self.figures).unwrap_or_default())
    }
}
