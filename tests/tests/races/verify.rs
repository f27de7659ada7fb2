//! What must be right after the race: each message's fate follows from its place among the edges
//! of the block, in the same way at the socket, on a new device, in the inbox and in the history;
//! seq is whole on both ends, and the sender's side knows of nothing.
//!
//! Must not know: in what order things were asked, beyond what the pair wrote down.

use super::{
    Tally,
    pair::{Heard, Pair, Told, message_of, text, told},
    server::Server,
    side::Side,
};
use chaski_proto::v1;
use chaski_tests::{PATIENCE, Person, eventually};
use serde_json::Value;
use std::collections::BTreeMap;

/// Events and places of a page.
const PAGE: usize = 500;
/// One pair in so many opens a new device.
const NEW_DEVICE_ONE_IN: usize = 4;

pub(crate) async fn verify(mut pair: Pair) -> Tally {
    let first = u64::from(pair.group) + 1;
    let mut by_seq: BTreeMap<u64, usize> = BTreeMap::new();
    for (message, sent) in pair.sent.iter().enumerate() {
        by_seq.insert(sent.seq, message);
    }
    let whole = by_seq.keys().copied().eq(first..first + pair.sent.len() as u64);
    assert!(whole, "L3: the sender's seqs have holes: {:?}", by_seq.keys());

    let fates = fates(&pair, first, &by_seq);
    let server = &pair.race.server;
    let token = pair.blocker.person.token("web");
    let expected: Vec<(u64, Told)> = pair.heard.iter().map(|h| (h.position, h.told)).collect();
    eventually("the inbox", || inbox(server, &token, &expected)).await;
    for (person, hides) in [(&pair.blocker.person, true), (&pair.sender.person, false)] {
        let (chat, by) = (pair.chat.as_str(), &by_seq);
        let hidden = hides.then_some(&fates);
        eventually("history", || history(server, (person, chat), by, hidden)).await;
    }
    let mut tally = Tally { sends: pair.sent.len() as u64, ..Tally::default() };
    tally.blocks = pair.version / 2;
    for sent in pair.sent.iter().filter(|sent| sent.raced) {
        tally.raced += 1;
        match fates[&sent.seq] {
            true => tally.hidden += 1,
            false => tally.shown += 1,
        }
    }
    if pair.n.is_multiple_of(NEW_DEVICE_ONE_IN) {
        new_device(&mut pair, &expected).await;
    }
    tally
}

/// Whether each seq is hidden, as the blocker's socket was told; checked against its place.
fn fates(pair: &Pair, first: u64, by_seq: &BTreeMap<u64, usize>) -> BTreeMap<u64, bool> {
    let (mut blocked, mut version, mut next) = (false, 0, first);
    let mut fates = BTreeMap::new();
    for Heard { position, told, epoch, blocked: surely } in &pair.heard {
        let (seq, hidden) = match *told {
            Told::Edge { blocked: begins, version: edge } => {
                version += 1;
                assert_eq!((begins, edge), (!blocked, version), "at {position}");
                blocked = begins;
                continue;
            }
            Told::Update { seq } => {
                assert!(pair.group && seq == 1, "at {position}");
                continue;
            }
            Told::Shown { seq, message } => {
                assert_eq!(by_seq[&seq], message, "L3: both ends agree on {seq}");
                (seq, false)
            }
            Told::Hidden { seq } => (seq, true),
        };
        assert_eq!(seq, next, "L3: the blocker's seqs have no hole, at {position}");
        next += 1;
        let sent = pair.sent[by_seq[&seq]];
        let n = pair.n;
        assert_eq!(hidden, blocked, "L7: pair {n}: {seq} at {position}, by its place: {sent:?}");
        assert!(
            version >= sent.known,
            "L7: pair {n}: {seq} at {position} overtook an edge: {sent:?}"
        );
        if let (Some(surely), true) = (surely, *epoch == sent.epoch) {
            assert_eq!(hidden, *surely, "L7: pair {n}: {seq} at {position}: {sent:?}");
        }
        fates.insert(seq, hidden);
    }
    assert_eq!(fates.len(), pair.sent.len(), "L5: all are told");
    assert_eq!(version, pair.version, "every edge is told");
    fates
}

async fn pages(
    server: &Server,
    token: &str,
    (path, list): (&str, &str),
    mut each: impl FnMut(Value) -> Result<(), String>,
) -> Result<(), String> {
    let mut after = "0".to_owned();
    loop {
        let page = format!("{path}?after={after}&limit={PAGE}");
        let mut page = server.get(token, &page).await;
        for item in page[list].as_array_mut().expect("a list") {
            each(item.take())?;
        }
        match page.get("next").and_then(Value::as_str) {
            Some(next) => next.clone_into(&mut after),
            None => return Ok(()),
        }
    }
}

async fn inbox(server: &Server, token: &str, expected: &[(u64, Told)]) -> Result<(), String> {
    let mut expected = expected.iter();
    pages(server, token, ("/v1/inbox", "events"), |event| {
        let frame: v1::ServerFrame = serde_json::from_value(event).map_err(|e| e.to_string())?;
        let found = (frame.position.unwrap_or(0), told(&frame.body.expect("a body")));
        match expected.next() {
            Some(expected) if *expected == found => Ok(()),
            other => Err(format!("L7: the inbox has {found:?}, the socket had {other:?}")),
        }
    })
    .await?;
    match expected.next() {
        None => Ok(()),
        Some(lacks) => Err(format!("the inbox lacks {lacks:?}")),
    }
}

/// `fates`: which are hidden; without them nothing is.
async fn history(
    server: &Server,
    (person, chat): (&Person, &str),
    by_seq: &BTreeMap<u64, usize>,
    fates: Option<&BTreeMap<u64, bool>>,
) -> Result<(), String> {
    let (path, token) = (format!("/v1/chats/{chat}/messages"), person.token("web"));
    let mut expected = by_seq.iter();
    pages(server, &token, (&path, "messages"), |item| {
        if item["chatUpdate"].is_object() {
            return Ok(());
        }
        let Some((seq, message)) = expected.next() else { return Err(format!("more: {item}")) };
        let hidden = fates.is_some_and(|fates| fates[seq]);
        let right = match hidden {
            true => item["hidden"] == true && !item.to_string().contains("secret"),
            false => {
                message_of(item["clientMessageId"].as_str().unwrap_or("m")) == *message
                    && item["text"] == text(*message)
            }
        };
        match right && item["seq"].as_str() == Some(seq.to_string().as_str()) {
            true => Ok(()),
            false => Err(format!("L7: history at {seq} ({hidden}, m{message}): {item}")),
        }
    })
    .await?;
    match expected.next() {
        None => Ok(()),
        Some(lacks) => Err(format!("history lacks {lacks:?}")),
    }
}

/// A device that comes later is told the same.
async fn new_device(pair: &mut Pair, expected: &[(u64, Told)]) {
    let race = std::sync::Arc::clone(&pair.race);
    let person = race.server.person("unused").await;
    let blocker = std::mem::replace(&mut pair.blocker, Side::new(person, "phone"));
    let mut tablet = Side::new(blocker.person, "tablet");
    tablet.connect(&race.server).await;
    for expected in expected {
        let event = loop {
            let heard = tokio::time::timeout(PATIENCE, tablet.hear(&race.server)).await;
            let frame = heard.expect("a new device is told in time").expect("no crash");
            if frame.position.is_some() {
                break frame;
            }
        };
        let found = (event.position.unwrap_or(0), told(&event.body.expect("a body")));
        assert_eq!(found, *expected, "L7: a new device");
    }
}
