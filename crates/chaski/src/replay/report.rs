//! What a run came to, as JSON, as a table, and the list of all that was shown.

use super::{
    check::{Shown, Verdict, What},
    conductor::Conducted,
    shared::Shared,
};
use flate2::{Compression, write::GzEncoder};
use hdrhistogram::Histogram;
use serde::Serialize;
use std::{
    collections::BTreeMap,
    fmt::{self, Display},
    fs::File,
    io::{BufWriter, Write as _},
    path::Path,
    sync::{PoisonError, atomic::Ordering::Relaxed},
};

/// The result of a replay; `target/reports/replay-<time>.json`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names are the report's; `Verdict` explains the counts")]
pub struct ReplayReport {
    pub lost: u64,
    pub duplicated: u64,
    pub out_of_order: u64,
    pub holes: u64,
    pub history_differs: u64,
    pub not_accepted: u64,
    pub altered: u64,
    pub devices_differ: u64,
    /// Not within `--timeout`.
    pub timed_out: bool,
    pub messages: u64,
    pub deliveries: u64,
    /// What `deliveries` must be.
    pub deliveries_expected: u64,
    pub chats: u64,
    pub people: u64,
    pub devices: u64,
    /// How often each role was killed.
    pub kills: BTreeMap<String, u32>,
    /// From the first send until the last device had all it must have.
    pub seconds: f64,
    /// From the first send to the last acceptance.
    pub sending_seconds: f64,
    pub messages_per_second: f64,
    /// From the intended send to `messageAccepted`.
    pub accept_ms: Percentiles,
    /// From the intended send to the recipients' devices whose socket was open all the while.
    pub delivery_ms: Percentiles,
    /// The same, with the devices that a kill cut off meanwhile.
    pub delivery_with_reconnects_ms: Percentiles,
    pub people_away: u64,
    /// The shortest absence, as a share of the run.
    pub away_share_min: Option<f64>,
    /// Who came back early, because nothing else could go on.
    pub back_early: u64,
    pub reconnects: u64,
    /// How often connections ended or did not come about, by cause.
    pub disconnects: BTreeMap<&'static str, u64>,
    /// Events that came again at or below a device's highest position.
    pub repeats_ignored: u64,
    /// `messageRejected` events.
    pub rejected: u64,
    pub resyncs: u64,
    /// Events of chats that are not of this run.
    pub foreign: u64,
    /// Reads that were repeated because they were not complete yet.
    pub reads_repeated: u64,
    pub target: String,
    pub input: String,
    pub seed: u64,
    pub parallel: u64,
    pub started_at: String,
    /// The first few violations and failures.
    pub examples: Vec<String>,
}

/// A distribution in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Percentiles {
    pub count: u64,
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

impl From<&Histogram<u64>> for Percentiles {
    fn from(us: &Histogram<u64>) -> Self {
        let ms = |us: u64| us as f64 / 1000.0;
        Self {
            count: us.len(),
            p50: ms(us.value_at_quantile(0.5)),
            p99: ms(us.value_at_quantile(0.99)),
            max: ms(us.max()),
        }
    }
}

impl Display for Percentiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, p50, p99, max } = self;
        write!(f, "p50 {p50:.1}  p99 {p99:.1}  max {max:.1}  ({count})")
    }
}

/// What the report repeats of the options.
pub(super) struct Asked {
    pub(super) target: String,
    pub(super) input: String,
    pub(super) seed: u64,
    pub(super) parallel: u64,
    pub(super) started_at: String,
}

impl ReplayReport {
    pub(super) fn new(
        asked: Asked,
        shared: &Shared,
        conducted: &Conducted,
        verdict: Verdict,
        kills: BTreeMap<String, u32>,
    ) -> Self {
        let log = &shared.plan.log;
        let latencies = shared.latencies(|l| l.clone());
        let accepted = conducted.accepted.iter().flatten().count() as u64;
        let sending = conducted.sending.as_secs_f64();
        let examples = verdict.examples.iter().chain(&conducted.failures).cloned().collect();
        Self {
            lost: verdict.lost,
            duplicated: verdict.duplicated,
            out_of_order: verdict.out_of_order,
            holes: verdict.holes,
            history_differs: verdict.history_differs,
            not_accepted: verdict.not_accepted,
            altered: verdict.altered,
            devices_differ: verdict.devices_differ,
            timed_out: conducted.timed_out,
            messages: accepted,
            deliveries: verdict.deliveries,
            deliveries_expected: log.deliveries(),
            chats: log.chats.len() as u64,
            people: log.users.len() as u64,
            devices: shared.plan.devices.len() as u64,
            kills,
            seconds: conducted.seconds.as_secs_f64(),
            sending_seconds: sending,
            messages_per_second: accepted as f64 / sending.max(0.001),
            accept_ms: (&latencies.accept_us).into(),
            delivery_ms: (&latencies.delivery_us).into(),
            delivery_with_reconnects_ms: (&latencies.delivery_with_reconnects_us).into(),
            people_away: conducted.away.people,
            away_share_min: conducted.away.share_min,
            back_early: conducted.away.early,
            reconnects: shared.reconnects.load(Relaxed),
            disconnects: shared.disconnects.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            repeats_ignored: shared.repeats_ignored.load(Relaxed),
            rejected: shared.rejected.load(Relaxed),
            resyncs: shared.resyncs.load(Relaxed),
            foreign: verdict.foreign,
            reads_repeated: 0,
            target: asked.target,
            input: asked.input,
            seed: asked.seed,
            parallel: asked.parallel,
            started_at: asked.started_at,
            examples,
        }
    }

    /// Whether no law was violated and everything arrived in time.
    #[must_use]
    pub fn passed(&self) -> bool {
        let violations = self.lost
            + self.duplicated
            + self.out_of_order
            + self.holes
            + self.history_differs
            + self.not_accepted
            + self.altered
            + self.devices_differ;
        violations == 0 && !self.timed_out && self.deliveries == self.deliveries_expected
    }
}

impl Display for ReplayReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kills = self.kills.iter().map(|(role, n)| format!("{role} {n}")).collect::<Vec<_>>();
        let kills = if kills.is_empty() { "none".into() } else { kills.join(", ") };
        let deliveries = format!("{} of {}", self.deliveries, self.deliveries_expected);
        let rate = format!("{:.0}/s for {:.1} s", self.messages_per_second, self.sending_seconds);
        let rows: [(&str, &dyn Display); 19] = [
            ("lost", &self.lost),
            ("duplicated", &self.duplicated),
            ("out of order", &self.out_of_order),
            ("holes", &self.holes),
            ("history differs", &self.history_differs),
            ("not accepted", &self.not_accepted),
            ("altered", &self.altered),
            ("devices differ", &self.devices_differ),
            ("timed out", &self.timed_out),
            ("messages", &self.messages),
            ("deliveries", &deliveries),
            ("devices", &self.devices),
            ("sent", &rate),
            ("accept ms", &self.accept_ms),
            ("delivery ms", &self.delivery_ms),
            ("with reconnects ms", &self.delivery_with_reconnects_ms),
            ("kills", &kills),
            ("reconnects", &self.reconnects),
            ("people away", &self.people_away),
        ];
        writeln!(f, "replay of {} against {}, seed {}", self.input, self.target, self.seed)?;
        for (name, value) in rows {
            writeln!(f, "  {name:<20} {value}")?;
        }
        for example in &self.examples {
            writeln!(f, "  ! {example}")?;
        }
        write!(f, "{}", if self.passed() { "PASSED" } else { "FAILED" })
    }
}

/// Writes what each device was shown, a line for each event: everything that is needed to judge
/// the run again beside its input. `chat` is the server's id; `conversation` and `line` name the
/// place in the input, where the event is of this run.
pub(super) fn write_shown(
    path: &Path,
    shared: &Shared,
    conducted: &Conducted,
    devices: &[(u32, Vec<Shown>)],
) -> anyhow::Result<()> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Row<'a> {
        user: &'a str,
        device: &'a str,
        position: String,
        chat: &'a str,
        seq: String,
        message_id: Option<&'a str>,
        sha256: Option<String>,
        sender: Option<&'a str>,
        conversation: Option<&'a str>,
        line: Option<u64>,
    }
    let names = shared.names.texts();
    let log = &shared.plan.log;
    let index = |ids: &[Option<u32>]| -> BTreeMap<u32, usize> {
        ids.iter().enumerate().filter_map(|(i, id)| id.map(|id| (id, i))).collect()
    };
    let (chats, messages) = (index(&conducted.chats), index(&conducted.accepted));
    let mut out = BufWriter::new(GzEncoder::new(File::create(path)?, Compression::fast()));
    for (device, (user, shown)) in shared.plan.devices.iter().zip(devices) {
        for event in shown {
            let (id, sha256, sender) = match event.what {
                What::Message { id, sender, sha256 } => (Some(id), Some(sha256), Some(sender)),
                What::Update | What::Hidden => (None, None, None),
            };
            let line = id.and_then(|id| messages.get(&id)).map(|m| log.messages[*m].line);
            let row = Row {
                user: &log.users[*user as usize],
                device: &device.name,
                position: event.position.to_string(),
                chat: &names[event.chat as usize],
                seq: event.seq.to_string(),
                message_id: id.map(|id| &*names[id as usize]),
                sha256: sha256.map(|bytes| hex(&bytes)),
                sender: sender.map(|name| &*names[name as usize]),
                conversation: chats.get(&event.chat).map(|chat| log.chats[*chat].name.as_str()),
                line,
            };
            serde_json::to_writer(&mut out, &row)?;
            out.write_all(b"\n")?;
        }
    }
    out.into_inner()?.finish()?;
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
