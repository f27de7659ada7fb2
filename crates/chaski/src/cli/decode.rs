//! `chaski decode`: records of the log as JSON lines. What a record means is `decode/record.rs`.

pub(super) mod record;

use crate::config::Config;
use anyhow::{Context as _, bail, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use chaski_core::{Offset, Partition};
use chaski_ports::{ErrorKind, Log, LogRecord, PortError, Topic};
use clap::Args;
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use std::{io::Write as _, str::FromStr, sync::Arc, time::Duration};
use tokio::time::timeout;

const EXAMPLES: &str = "\
Each line holds topic, partition, offset, key, timestamp, type and the decoded value; message text \
and message id stand beside it in readable form. A value that cannot be decoded is shown as \
`undecodable` (why) and `valueBase64`.

Examples:
  chaski decode new-messages
  chaski decode chaski.recipients --partition 3 --from end --follow
  chaski decode dead-letters | jq .value.cause
  base64 -w0 value.bin | chaski decode --stdin --topic alerts

The embedded log is locked by the process that serves it: stop that first.";

/// How long the end of a log that was there may take to come.
const TAIL_MAX: Duration = Duration::from_secs(10);

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct DecodeArgs {
    /// The topic: new-messages, recipients, alerts, dead-letters (`chaski.` before it is fine)
    #[arg(value_name = "TOPIC", value_parser = topic, required_unless_present = "stdin")]
    topic: Option<Topic>,
    /// Only this partition [default: all]
    #[arg(long)]
    partition: Option<u32>,
    /// Where to begin: an offset (with --partition), `start` or `end`
    #[arg(long, default_value = "start")]
    from: From,
    /// Go on with new records until Ctrl-C
    #[arg(long)]
    follow: bool,
    /// End after this many records
    #[arg(long, value_name = "N")]
    max: Option<usize>,
    /// Decode values from standard input, base64, one a line; needs no log
    #[arg(long, conflicts_with_all = ["partition", "from", "follow"], requires = "named")]
    stdin: bool,
    /// The topic of the values from standard input
    #[arg(id = "named", long = "topic", value_name = "TOPIC", value_parser = topic, requires = "stdin")]
    named: Option<Topic>,
}

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    Start,
    End,
    Offset(u64),
}

impl FromStr for From {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "start" => Ok(Self::Start),
            "end" => Ok(Self::End),
            digits => digits
                .parse()
                .map(Self::Offset)
                .map_err(|_| format!("{digits} is no offset; `start` and `end` are fine too")),
        }
    }
}

fn topic(text: &str) -> Result<Topic, String> {
    // No name has a dot in it, so whatever prefix is configured ends with the last one.
    let name = text.rsplit_once('.').map_or(text, |(_, name)| name);
    Topic::ALL.into_iter().find(|topic| topic.name() == name).ok_or_else(|| {
        let names = Topic::ALL.map(Topic::name).join(", ");
        format!("there is no topic {text}; there are: {names}")
    })
}

pub(super) async fn run(config: &Config, args: DecodeArgs) -> anyhow::Result<()> {
    if let Some(topic) = args.named.filter(|_| args.stdin) {
        return from_stdin(&config.topic_prefix, topic, args.max);
    }
    let topic = args.topic.context("give a topic")?;
    let log = open_log(config).await?;
    let partitions = match args.partition {
        Some(partition) => vec![Partition(partition)],
        None => all_partitions(&*log, topic).await?,
    };
    ensure!(
        partitions.len() == 1 || !matches!(args.from, From::Offset(_)),
        "an offset is a place in one partition: give --partition, too"
    );
    let end = crate::node::end_signal();
    let print = async {
        let records = read(log, topic, partitions, args.from, args.follow).await?;
        let mut records = std::pin::pin!(records.take(args.max.unwrap_or(usize::MAX)));
        while let Some((partition, record)) = records.try_next().await? {
            if print(&record::to_json((&config.topic_prefix, topic), partition, &record)).is_err() {
                // Nobody reads any more.
                break;
            }
        }
        Ok(())
    };
    tokio::select! {
        printed = print => printed,
        ended = end => ended,
    }
}

fn from_stdin(prefix: &str, topic: Topic, max: Option<usize>) -> anyhow::Result<()> {
    for line in std::io::stdin().lines().take(max.unwrap_or(usize::MAX)) {
        let line = line.context("cannot read standard input")?;
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        let value = match BASE64_STANDARD.decode(line) {
            Ok(value) => record::value_to_json((prefix, topic), &value.into()),
            Err(error) => bail!("not base64: {error}: {line}"),
        };
        if print(&value).is_err() {
            break;
        }
    }
    Ok(())
}

fn print(line: &serde_json::Value) -> std::io::Result<()> {
    writeln!(std::io::stdout().lock(), "{line}")
}

/// Opens the configured log to read it.
pub(super) async fn open_log(config: &Config) -> anyhow::Result<Arc<dyn Log>> {
    let url = config.urls()?.log;
    let opened = chaski_backends::open_log(&url, &config.backends()).await;
    opened.map_err(|error| locked(error, "log"))
}

/// Says what to do where the embedded backend is in use.
pub(super) fn locked(error: PortError, what: &str) -> anyhow::Error {
    let in_use = error.kind == ErrorKind::Conflict;
    let error = anyhow::Error::new(error);
    match in_use {
        true => error.context(format!(
            "the embedded {what} is in use by the process that serves it: stop that first (CHASKI_LOG, \
             CHASKI_STORE and CHASKI_DATA say where this looks)"
        )),
        false => error.context(format!("cannot open the {what}")),
    }
}

/// The partitions of a topic.
pub(super) async fn all_partitions(log: &dyn Log, topic: Topic) -> anyhow::Result<Vec<Partition>> {
    let count =
        log.partitions(topic).await.context("no topics yet? `chaski migrate` makes them")?;
    Ok((0..count).map(Partition).collect())
}

/// The records of some partitions: each partition's in order, to the end as of now or on and on.
pub(super) async fn read(
    log: Arc<dyn Log>,
    topic: Topic,
    partitions: Vec<Partition>,
    from: From,
    follow: bool,
) -> anyhow::Result<impl Stream<Item = Result<(Partition, LogRecord), PortError>>> {
    let mut streams = Vec::new();
    for partition in partitions {
        let bounds = log.bounds(topic, partition).await?;
        let from = match from {
            From::Start => bounds.start,
            From::End => bounds.end,
            From::Offset(offset) => Offset(offset),
        };
        let end = if follow { None } else { Some(bounds.end) };
        if end.is_some_and(|end| from >= end) {
            continue;
        }
        let reader = log.reader(topic, partition, from).await?;
        let batches = stream::try_unfold((reader, false), move |(mut reader, done)| async move {
            if done {
                return Ok(None);
            }
            let mut records = match end {
                None => reader.next().await?,
                // Offsets are not dense: the last one before the end may not exist.
                Some(_) => match timeout(TAIL_MAX, reader.next()).await {
                    Ok(records) => records?,
                    Err(_) => return Ok(None),
                },
            };
            let past = |offset: Offset| end.is_some_and(|end| offset.next() >= end);
            let done = records.last().is_some_and(|last| past(last.offset));
            records.retain(|record| end.is_none_or(|end| record.offset < end));
            Ok::<_, PortError>(Some((records, (reader, done))))
        });
        let records = batches
            .map_ok(move |records| {
                stream::iter(records.into_iter().map(move |r| Ok((partition, r))))
            })
            .try_flatten();
        streams.push(records.boxed());
    }
    Ok(stream::select_all(streams))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_named_with_and_without_prefix() {
        assert_eq!(topic("chaski.dead-letters"), Ok(Topic::DeadLetters));
        assert_eq!(topic("recipients"), Ok(Topic::Recipients));
        assert!(topic("messages").unwrap_err().contains("new-messages"));
    }

    #[test]
    fn a_reading_begins_at_a_named_place_or_an_offset() {
        assert_eq!("start".parse(), Ok(From::Start));
        assert_eq!("end".parse(), Ok(From::End));
        assert_eq!("17".parse(), Ok(From::Offset(17)));
        assert!("-1".parse::<From>().is_err());
    }
}
