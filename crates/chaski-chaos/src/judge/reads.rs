//! The histories as they were read in the end: what stands there, and that nothing is missing.

use super::{Kind, Verdict, facts::Facts};
use crate::history::{HistoryRow, Read};
use std::collections::HashSet;

pub(super) fn judge(facts: &Facts<'_>, verdict: &mut Verdict) {
    for read in &facts.evidence.histories {
        match &read.rows {
            Some(rows) => history(facts, read, rows, verdict),
            None => verdict.unread += 1,
        }
    }
}

fn history(facts: &Facts<'_>, read: &Read<HistoryRow>, rows: &[HistoryRow], verdict: &mut Verdict) {
    let (user, chat) = (read.user, read.chat);
    let name = format!("user {user}'s history of chat {chat}");
    let mut seen = HashSet::new();
    let mut last = 0;
    for row in rows {
        let place = (chat, row.seq);
        let at_us = facts.heard_us(place, read.at_us);
        let mut add = |kind, text: String| verdict.add(kind, at_us, format!("{name}: {text}"));
        if !seen.insert(row.seq) {
            add(Kind::Duplicated, format!("once more: {}", facts.tell_place(place)));
            continue;
        }
        if row.seq < last {
            add(Kind::OutOfOrder, format!("behind seq {last}: {}", facts.tell_place(place)));
        }
        last = last.max(row.seq);
        if row.event.place().is_none_or(|(id, _)| facts.chat(id) != Some(chat)) {
            add(Kind::WrongChat, format!("{:?}", row.event));
            continue;
        }
        if !facts.may_see(user, place) {
            add(Kind::WrongChat, format!("no member at {}", facts.tell_place(place)));
        }
        let position = facts.users[user as usize].position_of.get(&place).copied();
        let wrong = facts.event(user, place, position, &row.event, read.at_us);
        if let Some((kind, text)) = wrong {
            add(kind, text);
        }
    }
    for (seq, standing) in &facts.places[chat as usize] {
        let place = (chat, *seq);
        if !seen.contains(seq) && facts.may_see(user, place) {
            let text = format!("{name} lacks {}", facts.tell_place(place));
            verdict.add(Kind::Lost, standing.at_us, text);
        }
    }
}
