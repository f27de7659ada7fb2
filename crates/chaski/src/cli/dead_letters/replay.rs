//! `chaski dead-letters replay`: appends what this version can read again to where it came from.
//!
//! Which letters those are is a pure function ([`fate`]): only such whose replay takes effect once,
//! however often it is done (L2), and gives nobody an order that others do not see (L3, L4).

use crate::cli::decode::{self, record};
use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use chaski_core::{
    Offset, Partition,
    placement::Placement,
    record::{Action, Input, UnixMs},
};
use chaski_ports::{
    Clock as _, ErrorKind, Log, LogRecord, ProducePolicy, Record, SystemClock, Topic,
};
use chaski_proto::{
    RecipientRecord, SCHEMA, decode_connection_request, decode_input, v1::DeadLetter,
};
use clap::Args;
use futures::TryStreamExt as _;
use std::{collections::BTreeMap, fmt, io::Write as _, str::FromStr, sync::Arc, time::Duration};

const ABOUT: &str = "\
Run it after the cause is gone: mostly after an upgrade to a version that can read the records. What \
cannot be read yet is left where it is, so it may be run again, and again.

Appended again to its partition of new-messages, at a new place:
  messages        they take effect once (L2), also where their sender sent them again; not those that \
were accepted more than 7 days ago, as nobody knows any more whether they were
  new groups      a group is made once
  marks           the furthest counts
Only where it is named with --only, because it takes effect now, over whatever was decided since:
  changes of a chat, refusals, and requests of connection-requests. Whoever asked for it was told \
that the outcome is unknown, and has probably asked again.
Never appended:
  records of recipients. Their place in their users' order has passed; a copy behind it would come \
after what followed, and be taken for a repeat. `chaski cursor set messages` goes back before the \
place, and the message service stores it there.

Examples:
  chaski dead-letters list
  chaski dead-letters replay --dry-run
  chaski dead-letters replay
  chaski dead-letters replay --only new-messages/3/120

The embedded log is locked by the process that serves it: stop that first; it takes up what was \
appended when it starts.";

/// For so long a message that is sent again is known (L2).
const KNOWN_MS: UnixMs = 7 * 24 * 60 * 60 * 1000;
/// So long a full producer is left alone.
const FULL_PAUSE: Duration = Duration::from_millis(50);

#[derive(Args)]
#[command(after_help = ABOUT)]
pub(in crate::cli) struct ReplayArgs {
    /// Only this record, as `list` names it; may be repeated
    #[arg(long, value_name = "TOPIC/PARTITION/OFFSET")]
    only: Vec<Place>,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

/// Where a buried record stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    topic: Topic,
    partition: Partition,
    offset: Offset,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.topic.name(), self.partition, self.offset)
    }
}

impl FromStr for Place {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.rsplit('/').collect::<Vec<_>>();
        let place = match parts[..] {
            [offset, partition, topic] => Self::of(topic, partition.parse(), offset.parse()),
            _ => None,
        };
        place.ok_or_else(|| format!("{text} names no record, such as new-messages/3/120"))
    }
}

impl Place {
    fn of<E>(topic: &str, partition: Result<u32, E>, offset: Result<u64, E>) -> Option<Self> {
        let topic = Topic::ALL.into_iter().find(|t| t.name() == topic)?;
        let (partition, offset) = (Partition(partition.ok()?), Offset(offset.ok()?));
        Some(Self { topic, partition, offset })
    }
}

/// What is to become of a letter.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// It is appended again as this type, with this time.
    Again(&'static str, UnixMs),
    /// It stays where it is, and why.
    Stays(String),
}

fn stays(why: impl Into<String>) -> Fate {
    Fate::Stays(why.into())
}

pub(super) async fn run(config: &crate::config::Config, args: ReplayArgs) -> anyhow::Result<()> {
    let log = decode::open_log(config).await?;
    let (letters, unreadable) = letters(Arc::clone(&log)).await?;
    for place in &args.only {
        ensure!(letters.contains_key(place), "{place}: there is no such dead letter (any more)");
    }
    let placement = Placement::new(log.partitions(Topic::NewMessages).await?);
    let now_ms = SystemClock.now_ms();
    let (mut again, mut left, mut refused) = (0_usize, 0_usize, 0_usize);
    let mut out = std::io::stdout();
    for (place, letter) in &letters {
        let named = args.only.contains(place);
        if !args.only.is_empty() && !named {
            continue;
        }
        let told = match fate(place, letter, named, placement, now_ms) {
            Fate::Again(kind, _) if args.dry_run => {
                again += 1;
                format!("{kind}: would be appended again")
            }
            Fate::Again(kind, at_ms) => {
                let offset = append(&*log, place, letter, (kind, at_ms)).await.with_context(|| {
                    format!("{place}, after {again} others; run it again: what was appended twice takes effect once")
                })?;
                again += 1;
                format!("{kind}: appended again at {offset}")
            }
            Fate::Stays(why) => {
                left += 1;
                refused += usize::from(named);
                format!("left: {why}")
            }
        };
        writeln!(out, "{place}  {told}")?;
    }
    let done = if args.dry_run { "would be appended again" } else { "appended again" };
    writeln!(out, "{} {done}, {left} left{unreadable}", again)?;
    ensure!(refused == 0, "{refused} of the named letters cannot be replayed: see above");
    Ok(())
}

/// The letters that are kept, each record once, in the order of their places; beside them a word on
/// those that cannot be read themselves.
async fn letters(log: Arc<dyn Log>) -> anyhow::Result<(BTreeMap<Place, DeadLetter>, String)> {
    let partitions = decode::all_partitions(&*log, Topic::DeadLetters).await?;
    let records = decode::read(log, Topic::DeadLetters, partitions, decode::From::Start, false);
    let records: Vec<(Partition, LogRecord)> = records.await?.try_collect().await?;
    let (mut letters, mut unreadable) = (BTreeMap::new(), 0);
    for (_, record) in records {
        let letter = record::parse::<DeadLetter>(&record.value).ok();
        let placed = letter.and_then(|letter| {
            let (partition, offset) = (Ok::<_, ()>(letter.partition), Ok(letter.offset));
            Some((Place::of(&letter.topic, partition, offset)?, letter))
        });
        match placed {
            Some((place, letter)) => drop(letters.insert(place, letter)),
            None => unreadable += 1,
        }
    }
    let unreadable = match unreadable {
        0 => String::new(),
        some => format!(", {some} letters that are no letters (`chaski dead-letters list`)"),
    };
    Ok((letters, unreadable))
}

/// What is to become of a letter; `named`: the operator means this one.
fn fate(
    place: &Place,
    letter: &DeadLetter,
    named: bool,
    placement: Placement,
    now_ms: UnixMs,
) -> Fate {
    let unreadable = |cause| stays(format!("this version cannot read it either: {cause}"));
    let here = |belongs: Partition, what: &str| match belongs == place.partition {
        true => None,
        false => Some(stays(format!("{what} belongs to partition {belongs}: not ours"))),
    };
    match place.topic {
        Topic::NewMessages => match decode_input(letter.value.clone()) {
            Err(cause) => unreadable(cause),
            Ok(Input::Tick(_)) => stays("a tick: time goes on without it"),
            Ok(Input::Marks(marks)) => here(placement.of_chat(&marks.chat), "its chat")
                .unwrap_or(Fate::Again("marks", marks.at)),
            Ok(Input::Command(command)) => {
                let at_ms = command.accepted_at;
                let (kind, once) = match &command.action {
                    Action::Send(_) => ("submit", true),
                    Action::Create(_) => ("create", true),
                    Action::Change(_) => ("change", false),
                    Action::Refuse(_) => ("rejection", false),
                };
                if let Some(strange) = here(placement.of_chat(&command.chat), "its chat") {
                    strange
                } else if kind == "submit" && now_ms.saturating_sub(at_ms) > KNOWN_MS {
                    stays(
                        "accepted more than 7 days ago: it may have been sent again, and would take effect twice",
                    )
                } else if once || named {
                    Fate::Again(kind, at_ms)
                } else {
                    stays(late(place, kind))
                }
            }
        },
        Topic::ConnectionRequests => match decode_connection_request(letter.value.clone()) {
            Err(cause) => unreadable(cause),
            Ok(request) => match here(placement.of_user(&request.user), "its user") {
                Some(strange) => strange,
                None if named => Fate::Again("connection-request", request.at),
                None => stays(late(place, "connection-request")),
            },
        },
        Topic::Recipients => match RecipientRecord::decode(letter.value.clone()) {
            Err(cause) => unreadable(cause),
            Ok(RecipientRecord { entry: Err(cause), .. }) => unreadable(cause),
            Ok(_) => {
                let Place { partition, offset, .. } = place;
                stays(format!(
                    "its place in its users' order has passed. `chaski cursor set messages --partition \
                     {partition} --before {offset}` goes back, and it is stored where it stands"
                ))
            }
        },
        _ => stays(format!("nothing is replayed into {}", place.topic.name())),
    }
}

fn late(place: &Place, kind: &str) -> String {
    format!(
        "{kind}: it would take effect now, over what was decided since; `--only {place}` does it"
    )
}

/// Appends a letter's record again; its new place.
async fn append(
    log: &dyn Log,
    place: &Place,
    letter: &DeadLetter,
    (record_type, timestamp_ms): (&'static str, UnixMs),
) -> anyhow::Result<Offset> {
    let (key, value): (Bytes, Bytes) = (letter.key.clone(), letter.value.clone());
    let traceparent = None;
    let record = Record { key, value, timestamp_ms, record_type, schema: SCHEMA, traceparent };
    let producer = log.producer(ProducePolicy::GiveUp)?;
    loop {
        match producer.append(place.topic, place.partition, record.clone()) {
            Ok(appending) => return Ok(appending.await?),
            Err(error) if error.kind == ErrorKind::Full => tokio::time::sleep(FULL_PAUSE).await,
            Err(error) => bail!(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chaski_core::{
        ChatId, UserId,
        connection::{Ask, Request},
        record::{Body, Change, Command, Content, Output, Rules, Send, Tick, What},
    };
    use chaski_proto::{EncodedEvent, encode_connection_request, encode_input};

    const NOW_MS: UnixMs = 1_800_000_000_000;

    fn command(action: Action, accepted_at: UnixMs) -> Input {
        let (ana, ben): (UserId, UserId) = ("ana".parse().unwrap(), "ben".parse().unwrap());
        let (chat, device) = (ChatId::direct(&ana, &ben), "phone".parse().unwrap());
        Input::Command(Command { chat, user: ana, device, accepted_at, action })
    }

    fn send() -> Action {
        let content = Content { body: Body::Text("hi".into()), attachments: Vec::new() };
        let (to, key) = (Some("ben".parse().unwrap()), "k1".parse().unwrap());
        Action::Send(Send { to, key, content: Arc::new(content), sent_at: None })
    }

    /// What becomes of a record, unless it is named and where it is.
    #[track_caller]
    fn check(topic: Topic, partition: Partition, value: Bytes, expected: [Result<&str, &str>; 2]) {
        let place = Place { topic, partition, offset: Offset(120) };
        let letter = DeadLetter { value, ..DeadLetter::default() };
        for (named, expected) in [false, true].into_iter().zip(expected) {
            match (fate(&place, &letter, named, Placement::new(12), NOW_MS), expected) {
                (Fate::Again(kind, _), Ok(expected)) => assert_eq!(kind, expected),
                (Fate::Stays(why), Err(expected)) => assert!(why.contains(expected), "{why}"),
                (fate, expected) => panic!("{expected:?} expected, not {fate:?}"),
            }
        }
    }

    #[test]
    fn l2_what_is_replayed_takes_effect_once_or_is_meant() {
        let (ana, ben) = ("ana".parse().unwrap(), "ben".parse().unwrap());
        let (chat, days) = (ChatId::direct(&ana, &ben), |days: i64| NOW_MS - days * 86_400_000);
        let here = Placement::new(12).of_chat(&chat);
        let input = |input: Input, expected| {
            check(Topic::NewMessages, here, encode_input(&input), expected);
        };
        input(command(send(), days(7)), [Ok("submit"); 2]);
        input(command(send(), days(7) - 1), [Err("7 days"); 2]);
        let name = Change { request: [1; 16], what: What::Name("n".into()) };
        let named = [Err("--only new-messages/"), Ok("change")];
        input(command(Action::Change(name), days(1)), named);
        input(Input::Tick(Tick { now: 1, rules: Rules::default() }), [Err("tick"); 2]);
        let other = Partition((here.0 + 1) % 12);
        let strange = encode_input(&command(send(), NOW_MS));
        check(Topic::NewMessages, other, strange, [Err("not ours"); 2]);
        check(Topic::NewMessages, here, Bytes::from_static(b"\xff"), [Err("cannot read"); 2]);
        let ask = Ask::Settings { hide_read_marks: true };
        let device = "phone".parse().unwrap();
        let request = Request { id: [1; 16], user: ana.clone(), device, at: 7, ask };
        let value = encode_connection_request(&request);
        let place = Placement::new(12).of_user(&ana);
        let expected = [Err("over what was decided"), Ok("connection-request")];
        check(Topic::ConnectionRequests, place, value, expected);
    }

    #[test]
    fn l4_nothing_comes_into_an_order_behind_its_place() {
        let event = chaski_core::record::Event::Duplicate {
            id: chaski_core::MessageId([7; 16]),
            accepted_at: 7,
        };
        let (partition, users) = (Partition(3), vec!["ana".parse().unwrap()].into());
        let output = Output { partition, index: 0, users, visible_from: None, event };
        let source = (chaski_core::SourceId(1), partition, Offset(9));
        let (_, value) = EncodedEvent::of(&output).for_output(&output, source, None);
        let remedy = "cursor set messages --partition 3 --before 120";
        check(Topic::Recipients, partition, value, [Err(remedy); 2]);
        let broken = Bytes::from_static(b"\xff");
        check(Topic::Recipients, partition, broken, [Err("cannot read"); 2]);
    }

    #[test]
    fn a_record_is_named_as_it_is_listed() {
        let place = Place { topic: Topic::NewMessages, partition: Partition(3), offset: Offset(7) };
        assert_eq!(place.to_string().parse(), Ok(place));
        for wrong in ["new-messages/3", "messages/3/7", "new-messages/x/7", "new-messages/3/-1"] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
    }
}
