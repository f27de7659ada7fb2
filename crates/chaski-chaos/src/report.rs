//! What a run came to, as JSON, as a table, and as the history of every client.

mod recovery;
mod times;

pub use recovery::{Cause, Recovery};

use crate::{
    fault::{FaultKind, FaultRecord},
    history::{Entry, Event, Evidence, Noted},
    judge::{Kind, Sends, Verdict, Violation},
};
use chaski::replay::Percentiles;
use flate2::{Compression, write::GzEncoder};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    fmt::{self, Display},
    fs::File,
    io::{BufWriter, Write as _},
    path::Path,
    sync::Arc,
};
use times::Times;

/// The result of a run; `target/reports/chaos-<time>.json`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(
    missing_docs,
    reason = "the names are the report's; `Kind`, `Sends` and `FaultKind` say more"
)]
pub struct Report {
    pub seed: u64,
    pub minutes: f64,
    pub started_at: String,
    pub target: String,
    pub accepted: u64,
    /// Sends whose outcome was in doubt for a while and was known in the end.
    pub unknown_settled: u64,
    pub violations: BTreeMap<Kind, u64>,
    pub faults: BTreeMap<FaultKind, u64>,
    /// Service processes that ended without being killed, and were started again.
    pub ended_by_themselves: BTreeMap<String, u32>,
    /// Of each kind of process: the faults that it had.
    pub by_process: BTreeMap<String, BTreeMap<FaultKind, u64>>,
    /// From the last frame that a client had before its connection ended to its next `welcome`.
    pub gap_ms_p50: f64,
    pub gap_ms_p99: f64,
    pub gap_ms_max: f64,
    pub gaps: u64,
    /// The same by what had been done, and how sends went then.
    pub recovery: Recovery,
    /// From asking to being shown, on devices that were meant to be there, whatever the faults did
    /// to their connections.
    pub delivery_ms: Percentiles,
    /// From asking to `messageAccepted`.
    pub accept_ms: Percentiles,
    pub sends: Sends,
    pub clients: Clients,
    /// The first few violations of each kind, with the faults around them.
    pub examples: Vec<String>,
    pub fault_log: Vec<FaultRecord>,
    /// Why this is no pass, where there is no violation.
    pub problems: Vec<String>,
    pub passed: bool,
}

/// Who took part, and how it went for them.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names say it")]
pub struct Clients {
    pub users: u64,
    pub devices: u64,
    pub chats: u64,
    pub connects: u64,
    pub disconnects: u64,
    /// Closed by themselves, and came back.
    pub absences: u64,
    pub stalls: u64,
    /// Ended for good by the server, and begun anew: by the reason.
    pub ended: BTreeMap<String, u64>,
    pub events_shown: u64,
    /// Came again at or below the highest position, as they may.
    pub events_repeated: u64,
    /// Planned sends that were not asked, because the client had too many open.
    pub not_asked: u64,
    pub hidden: u64,
    pub member_changes: u64,
}

/// What a run is told of beside its evidence.
pub struct Asked {
    /// What decided it.
    pub seed: u64,
    /// How long the load was meant to go on.
    pub minutes: f64,
    /// When it began, as in the files' names.
    pub started_at: String,
    /// What it ran against.
    pub target: String,
    /// Planned sends that were not asked.
    pub not_asked: u64,
    /// Service processes that ended without being killed.
    pub ended_by_themselves: BTreeMap<String, u32>,
    /// What is no violation and no pass either.
    pub problems: Vec<String>,
}

/// Around a violation: faults that ended up to this long before it count too.
const AFTERMATH_US: u64 = 15_000_000;

impl Report {
    /// Puts together what a run came to.
    #[must_use]
    pub fn new(
        asked: Asked,
        evidence: &Evidence,
        verdict: &Verdict,
        faults: Vec<FaultRecord>,
    ) -> Self {
        let mut problems = asked.problems;
        if verdict.sends.accepted == 0 {
            problems.push("no message was accepted: nothing was proved".into());
        }
        if verdict.unread > 0 {
            problems.push(format!("{} histories and inboxes could not be read", verdict.unread));
        }
        let clients = clients(evidence, asked.not_asked);
        for (reason, times) in &clients.ended {
            problems.push(format!(
                "{times} clients were told to stay away for good, though nobody had done anything \
                 wrong: {reason}"
            ));
        }
        let (mut by_kind, mut by_process) = (BTreeMap::new(), BTreeMap::new());
        for fault in &faults {
            *by_kind.entry(fault.kind).or_default() += 1;
            let process: &mut BTreeMap<_, _> = by_process.entry(fault.process.clone()).or_default();
            *process.entry(fault.kind).or_default() += 1;
        }
        let times = Times::of(evidence);
        let recovery = Recovery::of(evidence, &faults, &verdict.examples, AFTERMATH_US);
        let gaps = Percentiles::from(&times.gap_us);
        let examples = verdict.examples.iter().map(|found| with_faults(found, &faults)).collect();
        Self {
            seed: asked.seed,
            minutes: asked.minutes,
            started_at: asked.started_at,
            target: asked.target,
            accepted: verdict.sends.accepted,
            unknown_settled: verdict.sends.unknown_settled,
            violations: verdict.violations.clone(),
            faults: by_kind,
            ended_by_themselves: asked.ended_by_themselves,
            by_process,
            gap_ms_p50: gaps.p50,
            gap_ms_p99: gaps.p99,
            gap_ms_max: gaps.max,
            gaps: gaps.count,
            recovery,
            delivery_ms: (&times.delivery_us).into(),
            accept_ms: (&times.accept_us).into(),
            sends: verdict.sends,
            clients,
            examples,
            fault_log: faults,
            passed: verdict.total() == 0 && problems.is_empty(),
            problems,
        }
    }

    /// All violations together.
    #[must_use]
    pub fn violated(&self) -> u64 {
        self.violations.values().sum()
    }
}

fn with_faults(found: &Violation, faults: &[FaultRecord]) -> String {
    let near = |fault: &&FaultRecord| {
        fault.from_us <= found.at_us && found.at_us <= fault.until_us + AFTERMATH_US
    };
    let near: Vec<String> = faults.iter().filter(near).map(tell_fault).collect();
    let near = if near.is_empty() { "no fault".into() } else { near.join(", ") };
    let kind = name(found.kind);
    format!("{kind} at {:.3} s (around it: {near}): {}", found.at_us as f64 / 1e6, found.text)
}

fn tell_fault(fault: &FaultRecord) -> String {
    let (from, until) = (fault.from_us as f64 / 1e6, fault.until_us as f64 / 1e6);
    format!("{} {} {from:.1}-{until:.1} s", name(fault.kind), fault.name)
}

/// As in the report.
fn name(kind: impl Serialize) -> String {
    let value = serde_json::to_value(kind).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

fn clients(evidence: &Evidence, not_asked: u64) -> Clients {
    let mut clients = Clients {
        users: evidence.users.into(),
        devices: evidence.clients.len() as u64,
        chats: evidence.chats.len() as u64,
        not_asked,
        ..Clients::default()
    };
    for noted in evidence.clients.iter().flat_map(|client| &client.entries) {
        let count = match &noted.entry {
            Entry::Connected { .. } => &mut clients.connects,
            Entry::Disconnected { .. } => &mut clients.disconnects,
            Entry::Away { error: None } => &mut clients.absences,
            Entry::Away { error: Some(error) } => clients.ended.entry(error.clone()).or_default(),
            Entry::Stalls => &mut clients.stalls,
            Entry::Repeated(_) => &mut clients.events_repeated,
            Entry::Shown(shown) => {
                match shown.event {
                    Event::Hidden { .. } => clients.hidden += 1,
                    Event::Update { seq, .. } if seq > 1 => clients.member_changes += 1,
                    _ => {}
                }
                &mut clients.events_shown
            }
            _ => continue,
        };
        *count += 1;
    }
    clients
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, minutes, target, .. } = self;
        writeln!(f, "chaos, seed {seed}, {minutes} minutes, against {target}")?;
        for (kind, count) in &self.violations {
            writeln!(f, "  {:<18} {count}", name(kind))?;
        }
        let gaps = format!(
            "p50 {:.0}  p99 {:.0}  max {:.0}  ({})",
            self.gap_ms_p50, self.gap_ms_p99, self.gap_ms_max, self.gaps
        );
        let Sends { asked, accepted, refused, rejected, unknown, unknown_settled } = self.sends;
        let sends =
            format!("{asked} asked, {accepted} accepted, {refused} refused, {rejected} rejected");
        let unknown = format!("{unknown}, settled {unknown_settled}");
        let c = &self.clients;
        let clients = format!(
            "{} people, {} devices, {} chats; {} connects, {} disconnects, {} absences, {} stalls",
            c.users, c.devices, c.chats, c.connects, c.disconnects, c.absences, c.stalls
        );
        let events = format!(
            "{} shown ({} hidden, {} changes of members), {} repeated",
            c.events_shown, c.hidden, c.member_changes, c.events_repeated
        );
        let faults = match self.faults.is_empty() {
            true => "none".into(),
            false => counts(&self.faults),
        };
        let rows: [(&str, &dyn Display); 8] = [
            ("sends", &sends),
            ("unknown", &unknown),
            ("accept ms", &self.accept_ms),
            ("delivery ms", &self.delivery_ms),
            ("gap ms", &gaps),
            ("clients", &clients),
            ("events", &events),
            ("faults", &faults),
        ];
        for (name, value) in rows {
            writeln!(f, "  {name:<18} {value}")?;
        }
        for (process, kinds) in &self.by_process {
            writeln!(f, "    {process:<16} {}", counts(kinds))?;
        }
        for line in self.recovery.lines() {
            writeln!(f, "    {line}")?;
        }
        for (process, times) in &self.ended_by_themselves {
            writeln!(f, "    {process} ended by itself {times} times")?;
        }
        for example in &self.examples {
            writeln!(f, "  ! {example}")?;
        }
        for problem in &self.problems {
            writeln!(f, "  ? {problem}")?;
        }
        write!(f, "{}", if self.passed { "PASSED" } else { "FAILED" })
    }
}

fn counts(kinds: &BTreeMap<FaultKind, u64>) -> String {
    let each: Vec<_> = kinds.iter().map(|(kind, n)| format!("{} {n}", name(kind))).collect();
    each.join(", ")
}

/// The reports of several seeds, a line for each.
#[must_use]
pub fn table(reports: &[Report]) -> String {
    let mut text = format!(
        "{:>6} {:>8} {:>9} {:>16} {:>10} {:>10}  faults\n",
        "seed", "result", "accepted", "unknown settled", "violations", "gap p99 ms"
    );
    for report in reports {
        text.push_str(&format!(
            "{:>6} {:>8} {:>9} {:>16} {:>10} {:>10.0}  {}\n",
            report.seed,
            if report.passed { "passed" } else { "FAILED" },
            report.accepted,
            report.unknown_settled,
            report.violated(),
            report.gap_ms_p99,
            counts(&report.faults)
        ));
    }
    let together = Recovery::together(reports.iter().map(|report| &report.recovery));
    for line in together.lines() {
        text.push_str(&format!("  {line}\n"));
    }
    text
}

/// Writes what every client noted, a line for each entry; ids of chats and messages are numbers, of
/// which the first line has the texts.
///
/// # Errors
/// The file cannot be written.
pub fn write_history(path: &Path, evidence: &Evidence, names: &[Arc<str>]) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Row<'a> {
        client: usize,
        user: u32,
        #[serde(flatten)]
        noted: &'a Noted,
    }
    let mut out = BufWriter::new(GzEncoder::new(File::create(path)?, Compression::fast()));
    let names: Vec<&str> = names.iter().map(|name| &**name).collect();
    serde_json::to_writer(&mut out, &serde_json::json!({ "names": names }))?;
    out.write_all(b"\n")?;
    for (client, history) in evidence.clients.iter().enumerate() {
        for noted in &history.entries {
            serde_json::to_writer(&mut out, &Row { client, user: history.user, noted })?;
            out.write_all(b"\n")?;
        }
    }
    out.into_inner()?.finish()?;
    Ok(())
}
