//! `chaski download`: everything that a device of a user may know, into files; it may be stopped
//! anywhere and goes on there.

use super::identity::Identity;
use crate::{config::Config, node::end_signal};
use anyhow::Context as _;
use chaski_client::{Download, DownloadState, HistoryItem, HistoryRow, Http, HttpError, Part, v1};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{IsTerminal as _, Write as _, stderr},
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::{Instant, sleep};

const EXAMPLES: &str = "\
Writes JSON lines: connections.jsonl (contacts and blocks), chats.jsonl (chats and their members), \
and <chatId>.jsonl for each chat: its history in order, as GET /v1/chats/{chatId}/messages gives it. \
download.json tells how far it is: stopped and started again, it goes on there.

Examples:
  chaski download --user ana --out ana/
  jq -r 'select(.text) | .text' ana/g.*.jsonl";

/// Pause after an answer that may be another one soon.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// So long the server may be away.
const GIVE_UP_AFTER: Duration = Duration::from_secs(60);
/// How often a line is written where there is no terminal.
const TELL_EVERY: Duration = Duration::from_secs(5);

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct DownloadArgs {
    #[command(flatten)]
    identity: Identity,
    /// The directory to write to; made where it is not there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

pub(super) async fn run(config: &Config, args: DownloadArgs) -> anyhow::Result<()> {
    let signal = end_signal();
    tokio::pin!(signal);
    let speaker = args.identity.resolve(config)?;
    speaker.reach().await?;
    let (mut files, state) = Files::open(&args.out)?;
    let mut download = Download::new(Http::new(&speaker.url)?, speaker.tokens.clone(), state);
    let mut progress = Progress::new();
    let mut give_up_at = None;
    loop {
        let part = tokio::select! {
            part = download.next() => part,
            ended = &mut signal => {
                ended?;
                anyhow::bail!("stopped; the same command goes on in {}", args.out.display());
            }
        };
        match part {
            Ok(None) => break,
            Ok(Some(part)) => {
                give_up_at = None;
                files.write(&part, download.state())?;
                progress.show(download.state().progress());
            }
            Err(HttpError::Transport(_) | HttpError::Problem { status: 429 | 503, .. })
                if Instant::now()
                    < *give_up_at.get_or_insert_with(|| Instant::now() + GIVE_UP_AFTER) =>
            {
                sleep(AGAIN_AFTER).await;
            }
            Err(error) => return Err(speaker.explain_http(error)),
        }
    }
    progress.end();
    eprintln!("all of {} is in {}", speaker.user, args.out.display());
    Ok(())
}

/// What `download.json` holds: what is in the files up to these lengths, and what comes after.
#[derive(Default, Serialize, Deserialize)]
struct Known {
    lengths: BTreeMap<String, u64>,
    state: DownloadState,
}

struct Files {
    dir: PathBuf,
    known: Known,
}

impl Files {
    fn open(dir: &Path) -> anyhow::Result<(Self, DownloadState)> {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let path = dir.join("download.json");
        let known: Known = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .with_context(|| format!("{} is not of a download", path.display()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Known::default(),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        let state = known.state.clone();
        Ok((Self { dir: dir.to_owned(), known }, state))
    }

    /// Appends a part, then notes that it is there. What was written and not noted, because the
    /// program was killed in between, is cut off and comes again.
    fn write(&mut self, part: &Part, state: &DownloadState) -> anyhow::Result<()> {
        let (name, lines): (String, Vec<Value>) = match part {
            Part::Connections(rows) => ("connections.jsonl".into(), values(rows)?),
            Part::Chats(rows) => ("chats.jsonl".into(), values(rows)?),
            Part::History { chat_id, rows } => {
                (format!("{chat_id}.jsonl"), rows.iter().map(place).collect::<Result<_, _>>()?)
            }
        };
        let path = self.dir.join(&name);
        let length = self.known.lengths.entry(name).or_default();
        let failed = || format!("cannot write {}", path.display());
        let mut text = Vec::new();
        for line in lines {
            serde_json::to_writer(&mut text, &line)?;
            text.push(b'\n');
        }
        let file = File::options().create(true).append(true).open(&path).with_context(failed)?;
        file.set_len(*length).with_context(failed)?;
        (&file).write_all(&text).with_context(failed)?;
        *length += text.len() as u64;
        self.known.state = state.clone();
        let (known, part) = (self.dir.join("download.json"), self.dir.join("download.json.part"));
        fs::write(&part, serde_json::to_vec(&self.known)?).with_context(failed)?;
        fs::rename(&part, &known).with_context(failed)
    }
}

fn values(rows: &[impl Serialize]) -> Result<Vec<Value>, serde_json::Error> {
    rows.iter().map(serde_json::to_value).collect()
}

/// A place as the history call gives it.
fn place(row: &HistoryRow) -> Result<Value, serde_json::Error> {
    let seq = row.seq.to_string();
    Ok(match &row.item {
        HistoryItem::Message(message) => serde_json::to_value(message)?,
        HistoryItem::ChatUpdate(update) => {
            let update: &v1::ChatUpdate = update;
            json!({"seq": seq, "chatUpdate": update})
        }
        HistoryItem::Hidden => json!({"seq": seq, "hidden": true}),
    })
}

/// A bar on a terminal, a line every few seconds elsewhere.
struct Progress {
    bar: Option<ProgressBar>,
    said: Instant,
}

impl Progress {
    fn new() -> Self {
        let bar = stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{bar:30} {pos}/{len} places {elapsed}");
            ProgressBar::new(0).with_style(style.expect("the template is well-formed"))
        });
        Self { bar, said: Instant::now() }
    }

    fn show(&mut self, (places, of): (u64, u64)) {
        match &self.bar {
            Some(bar) => {
                bar.set_length(of);
                bar.set_position(places);
            }
            None if self.said.elapsed() >= TELL_EVERY => {
                eprintln!("{places} of {of} places");
                self.said = Instant::now();
            }
            None => {}
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
