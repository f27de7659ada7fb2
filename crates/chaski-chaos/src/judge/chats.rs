//! What each chat is as a whole: its numbers, its order against time, its members, and that every
//! send has one fate.

use super::{
    Kind, Verdict,
    facts::{Facts, seconds},
};
use crate::history::Event;

pub(super) fn judge(facts: &Facts<'_>, verdict: &mut Verdict) {
    for chat in 0..facts.evidence.chats.len() as u32 {
        holes(facts, chat, verdict);
        order(facts, chat, verdict);
        members(facts, chat, verdict);
    }
    for message in 0..facts.sends.len() as u32 {
        fate(facts, message, verdict);
    }
}

/// A chat counts 1, 2, 3 …
fn holes(facts: &Facts<'_>, chat: u32, verdict: &mut Verdict) {
    let places = &facts.places[chat as usize];
    let Some((last, _)) = places.last_key_value() else { return };
    for seq in (1..*last).filter(|seq| !places.contains_key(seq)) {
        if facts.hidden.contains(&(chat, seq)) {
            continue;
        }
        let next = places.range(seq..).next();
        let at_us = next.map_or(0, |(_, standing)| standing.at_us);
        let text = format!("chat {chat} has no seq {seq}, which is below {last}");
        verdict.add(Kind::Holes, at_us, text);
    }
}

/// What was in the log before something else was asked stands before it.
fn order(facts: &Facts<'_>, chat: u32, verdict: &mut Verdict) {
    // From the end: of what stands behind, the one that was known to be in the log first.
    let mut earliest: Option<(u64, u32)> = None;
    for standing in facts.places[chat as usize].values().rev() {
        let Event::Message { message, .. } = *standing.event else { continue };
        let Some(fate) = facts.sends.get(message as usize) else { continue };
        if let (Some(invoked_us), Some((known_us, behind))) = (fate.invoked_us, earliest)
            && known_us < invoked_us
        {
            let text = format!(
                "{} was in the log before {} was asked, and stands behind it",
                facts.tell(behind),
                facts.tell(message)
            );
            verdict.add(Kind::OutOfOrder, invoked_us, text);
        }
        let shown = fate.placed.map(|(_, at)| at);
        let known = shown.into_iter().chain(fate.accepted.map(|(at, _)| at)).min();
        if let Some(known_us) = known
            && earliest.is_none_or(|(first, _)| known_us < first)
        {
            earliest = Some((known_us, message));
        }
    }
}

/// A chat begins with those it was made with, and each change is one that was asked for.
fn members(facts: &Facts<'_>, chat: u32, verdict: &mut Verdict) {
    let mut before: Option<&[u32]> = None;
    for (seq, standing) in &facts.places[chat as usize] {
        let Event::Update { members, .. } = standing.event else { continue };
        let planned = &facts.evidence.chats[chat as usize];
        let is_asked = match before {
            None => {
                let mut first = planned.members.clone();
                first.sort_unstable();
                planned.is_group && **members == *first
            }
            Some(before) => {
                let out = before.iter().filter(|user| !members.contains(user));
                let came = members.iter().filter(|user| !before.contains(user));
                let changed: Vec<(u32, bool)> =
                    out.map(|user| (*user, false)).chain(came.map(|user| (*user, true))).collect();
                let asked = |(user, is_in): &(u32, bool)| {
                    let invoked = facts.changes.get(&(chat, *user, *is_in));
                    invoked.is_some_and(|at_us| *at_us <= standing.at_us)
                };
                changed.len() == 1 && changed.iter().all(asked)
            }
        };
        if !is_asked {
            let text = format!(
                "chat {chat} seq {seq} at {}: members {members:?} after {before:?}, which nobody \
                 asked for",
                seconds(standing.at_us)
            );
            verdict.add(Kind::Phantom, standing.at_us, text);
        }
        before = Some(members);
    }
}

/// What was accepted stands in the chat or was rejected, and not both.
fn fate(facts: &Facts<'_>, message: u32, verdict: &mut Verdict) {
    let fate = &facts.sends[message as usize];
    let sent = &facts.evidence.messages[message as usize];
    let told = || facts.tell(message);
    match (fate.accepted, fate.placed, fate.rejected) {
        (Some((at_us, _)), None, None) => {
            verdict.add(Kind::Lost, at_us, format!("accepted and never seen again: {}", told()));
        }
        (_, Some(_), Some((at_us, _))) => {
            verdict.add(Kind::Disagree, at_us, format!("both shown and rejected: {}", told()));
        }
        (_, None, Some((at_us, status))) => {
            if status != 403 || !facts.was_out(sent.sender, sent.chat) {
                let text = format!("rejected with {status} without a reason: {}", told());
                verdict.add(Kind::Lost, at_us, text);
            }
        }
        (Some((at_us, accepted)), Some((place, _)), None) => {
            let shown = facts.standing(place).map(|standing| standing.event);
            if matches!(shown, Some(Event::Message { id, .. }) if *id != accepted) {
                let text = format!("accepted with another id than shown: {}", told());
                verdict.add(Kind::Disagree, at_us, text);
            }
        }
        (None, _, None) => {}
    }
}
