//! How a chat looks in a terminal. Text of other people is made harmless: a terminal obeys what is
//! printed on it.

use super::sent::Tick;
use chaski_client::{
    Body,
    v1::{self, ConnectionStatus, Role},
};
use chaski_ports::{Clock as _, SystemClock};
use chaski_proto::Timestamp;
use chrono::{DateTime, Local, NaiveDate, TimeZone};
use std::{
    collections::BTreeSet,
    fmt::Write as _,
    io::{IsTerminal as _, Write as _},
};

/// Standard output and error as a chat uses them.
pub(super) struct Lines {
    /// People type on the terminal that lines appear on.
    interactive: bool,
    /// Of the last message; a new day is told.
    day: Option<NaiveDate>,
}

impl Default for Lines {
    fn default() -> Self {
        let interactive = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        let now = Timestamp::from_ms(SystemClock.now_ms());
        Self { interactive, day: local(Some(now), &Local).map(|now| now.date_naive()) }
    }
}

impl Lines {
    /// Shows something that happened in the chat.
    pub(super) fn body(&mut self, body: &Body) {
        if let Body::NewMessage(message) = body {
            let at = local(message.accepted_at, &Local);
            let day = at.map(|at| at.date_naive());
            if let Some(now) = day.filter(|_| self.day != day) {
                self.event(&format!("-- {now}"));
                self.day = day;
            }
        }
        self.event(&line(body, &Local));
    }

    /// A line on standard output.
    pub(super) fn event(&mut self, line: &str) {
        // Over what is being typed, which the terminal keeps.
        let over = if self.interactive { "\r\x1b[K" } else { "" };
        let mut out = std::io::stdout().lock();
        // Nobody reads any more: the end of the input or a signal follows.
        let _ = writeln!(out, "{over}{line}").and_then(|()| out.flush());
    }

    /// A line about the connection, on standard error.
    pub(super) fn note(&self, text: &str) {
        eprintln!("-- {text}");
    }

    /// A line was typed: it appears once more with its place, so the typed one goes.
    pub(super) fn typed(&self) {
        if self.interactive {
            let mut out = std::io::stdout().lock();
            let _ = write!(out, "\x1b[1A\r\x1b[K").and_then(|()| out.flush());
        }
    }
}

pub(super) fn not_sent(text: &str, why: &str) -> String {
    format!("!! not sent: {:?}: {}", short(text), harmless(why))
}

pub(super) fn rejected(text: &str, rejected: &v1::MessageRejected) -> String {
    let by = match rejected.by_user_id.as_str() {
        "" => "the chat".to_owned(),
        user => harmless(user),
    };
    let why = harmless(&rejected.reason);
    format!("!! refused by {by}: {:?}: {} {why}", short(text), rejected.status)
}

/// A message of somebody else that this client refuses, for it came too late.
pub(super) fn refused_here(message: &v1::NewMessage) -> String {
    let (from, text) = (harmless(&message.sender_id), said(message));
    format!("!! refused (422): {from} wrote {text:?} before what is shown already; they are told")
}

pub(super) fn wrong(why: &str) -> String {
    format!("!! {}", harmless(why))
}

/// What a message says, in short.
pub(super) fn said(message: &v1::NewMessage) -> String {
    match &message.body {
        Some(v1::new_message::Body::Text(text)) => short(text),
        Some(v1::new_message::Body::Ciphertext(bytes)) => encrypted(bytes.len()),
        None => String::new(),
    }
}

fn encrypted(bytes: usize) -> String {
    format!("(encrypted, {bytes} bytes)")
}

/// A member has, or has read, a message of this user.
pub(super) fn tick(user: &str, tick: &Tick) -> String {
    let (mark, text) = match tick {
        Tick::Delivered(text) => ("✓", text),
        Tick::Read(text) => ("✓✓", text),
    };
    format!("{mark} {}: {text:?}", harmless(user))
}

/// A chat with its members.
pub(super) fn chat(name: &str, members: &str) -> String {
    match name {
        "" => format!("-- chat: {members}"),
        name => format!("-- chat \"{}\": {members}", harmless(name)),
    }
}

pub(super) fn members(participants: &[String], roles: &[i32]) -> String {
    let mut roles = roles.iter();
    let member = |user: &String| match roles.next().map(|role| Role::try_from(*role)) {
        Some(Ok(Role::Admin)) => format!("{} (admin)", harmless(user)),
        _ => harmless(user),
    };
    participants.iter().map(member).collect::<Vec<_>>().join(", ")
}

/// What a change has changed; all of the chat where nothing is known of before.
pub(super) fn change(before: Option<&v1::ChatUpdate>, now: &v1::ChatUpdate, own: &str) -> String {
    let Some(before) = before.filter(|before| before.seq < now.seq) else {
        return chat(&now.name, &members(&now.participants, &now.roles));
    };
    let set =
        |update: &v1::ChatUpdate| update.participants.iter().cloned().collect::<BTreeSet<_>>();
    let admins = |update: &v1::ChatUpdate| {
        let both = update.participants.iter().zip(&update.roles);
        let admins = both.filter(|(_, role)| **role == i32::from(Role::Admin));
        admins.map(|(user, _)| user.clone()).collect::<BTreeSet<_>>()
    };
    let mut news = Vec::new();
    let mut tell = |users: Vec<&String>, what: &str| {
        if !users.is_empty() {
            let users: Vec<_> = users.into_iter().map(|user| harmless(user)).collect();
            news.push(format!("{} {what}", users.join(", ")));
        }
    };
    let (were, are) = (set(before), set(now));
    let (led, lead) = (admins(before), admins(now));
    tell(are.difference(&were).collect(), "joined");
    tell(were.difference(&are).collect(), "left");
    tell(lead.difference(&led).collect(), "may manage the chat now");
    tell(led.difference(&lead).filter(|user| are.contains(*user)).collect(), "may not any more");
    if before.name != now.name {
        news.push(format!("the chat is called \"{}\" now", harmless(&now.name)));
    }
    if !are.contains(own) {
        news.push("you are not in this chat any more".into());
    }
    format!("-- {}", news.join("; "))
}

/// A change of a chat that is not on the screen.
pub(super) fn elsewhere(update: &v1::ChatUpdate) -> String {
    let (id, who) = (harmless(&update.chat_id), members(&update.participants, &update.roles));
    format!("elsewhere: chat {id} \"{}\": {who}", harmless(&update.name))
}

/// How far a member has got.
pub(super) fn receipt(receipt: &v1::Receipt) -> String {
    let (has, read) = (receipt.delivered_seq, receipt.read_seq);
    format!("-- {}: has {has}, has read {read}", harmless(&receipt.user_id))
}

pub(super) fn connection(state: &v1::Connection) -> String {
    let status = match state.status() {
        ConnectionStatus::None => "neither contact nor blocked",
        ConnectionStatus::Active => "a contact",
        ConnectionStatus::Blocked => "blocked",
    };
    format!("-- {} is {status} (version {})", harmless(&state.user_id), state.version)
}

/// The same, when another device has done it.
pub(super) fn connection_update(update: &v1::ConnectionUpdate) -> String {
    let (user_id, status, version) = (update.user_id.clone(), update.status, update.version);
    let state = connection(&v1::Connection { user_id, status, version });
    format!("{state}, by {}", harmless(&update.by_device_id))
}

pub(super) fn device(device: &v1::DeviceView, own: &str) -> String {
    device_line(device, own, &Local)
}

fn device_line<Z: TimeZone>(device: &v1::DeviceView, own: &str, zone: &Z) -> String
where
    Z::Offset: std::fmt::Display,
{
    let mut line = format!("-- {}", harmless(&device.device_id));
    if !device.name.is_empty() {
        let _ = write!(line, " \"{}\"", harmless(&device.name));
    }
    if device.device_id == own {
        line.push_str(" (this one)");
    }
    if let Some(at) = local(device.last_active, zone) {
        let _ = write!(line, ", active {}", at.format("%Y-%m-%d %H:%M"));
    }
    let _ = write!(line, ", has all up to {}", device.position);
    line
}

fn line<Z: TimeZone>(body: &Body, zone: &Z) -> String
where
    Z::Offset: std::fmt::Display,
{
    match body {
        Body::NewMessage(message) => {
            let at = local(message.accepted_at, zone);
            let at = at.map_or_else(|| "--:--:--".into(), |at| at.format("%H:%M:%S").to_string());
            let text = match &message.body {
                Some(v1::new_message::Body::Text(text)) => harmless(text),
                Some(v1::new_message::Body::Ciphertext(bytes)) => encrypted(bytes.len()),
                None => String::new(),
            };
            let mut line = format!("{at} {}: {text}", harmless(&message.sender_id));
            for file in &message.attachments {
                let _ = write!(line, " [{}, {} bytes]", harmless(&file.content_type), file.size);
            }
            line
        }
        Body::MessageHidden(hidden) if hidden.reason == "EXPIRED" => {
            "-- a message has expired: this chat does not keep it any more".into()
        }
        _ => "-- a message is hidden: you block its sender, or did when it came".into(),
    }
}

fn local<Z: TimeZone>(at: Option<Timestamp>, zone: &Z) -> Option<DateTime<Z>> {
    zone.timestamp_millis_opt(at?.to_ms()).single()
}

/// No control characters, which a terminal would obey; further lines are indented.
pub(super) fn harmless(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\n    "),
            '\t' => out.push(c),
            // Also the marks that turn the direction of what stands behind them.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => out.extend(c.escape_unicode()),
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}

fn short(text: &str) -> String {
    let mut short: String = text.chars().take(40).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::Utc;

    fn message(text: &str) -> Body {
        Body::NewMessage(v1::NewMessage {
            sender_id: "ben".into(),
            body: Some(v1::new_message::Body::Text(text.into())),
            accepted_at: Some(Timestamp::from_ms(((12 * 60) + 3) * 60_000 + 4_567)),
            ..Default::default()
        })
    }

    #[test]
    fn a_message_is_a_line_with_time_and_sender() {
        assert_eq!(line(&message("hello"), &Utc), "12:03:04 ben: hello");
        assert_eq!(line(&message("a\nb"), &Utc), "12:03:04 ben: a\n    b");
    }

    #[test]
    fn a_terminal_is_not_given_what_it_would_obey() {
        let shown = line(&message("\x1b[2J\u{9b}31m\r\u{202e}x\tü"), &Utc);
        assert_eq!(shown, "12:03:04 ben: \\u{1b}[2J\\u{9b}31m\\r\\u{202e}x\tü");
    }

    #[test]
    fn a_refusal_says_who_and_why() {
        let refusal = v1::MessageRejected {
            status: 403,
            reason: "not a member".into(),
            ..Default::default()
        };
        assert_eq!(rejected("hi", &refusal), "!! refused by the chat: \"hi\": 403 not a member");
    }

    fn update(seq: u64, people: &[(&str, Role)], name: &str) -> v1::ChatUpdate {
        v1::ChatUpdate {
            chat_id: "g.1".into(),
            seq,
            participants: people.iter().map(|(user, _)| (*user).into()).collect(),
            roles: people.iter().map(|(_, role)| i32::from(*role)).collect(),
            name: name.into(),
            ..Default::default()
        }
    }

    #[test]
    fn a_change_says_what_is_new() {
        use Role::{Admin, Member};
        let first = update(1, &[("ana", Admin), ("ben", Member)], "trip");
        assert_eq!(change(None, &first, "ana"), "-- chat \"trip\": ana (admin), ben");
        assert_eq!(elsewhere(&first), "elsewhere: chat g.1 \"trip\": ana (admin), ben");
        for (people, name, told) in [
            (&[("ana", Admin), ("ben", Member), ("eve", Member)][..], "trip", "eve joined"),
            (&[("ana", Admin)], "trip", "ben left"),
            (&[("ana", Admin), ("ben", Admin)], "trip", "ben may manage the chat now"),
            (&[("ana", Member), ("ben", Member)], "trip", "ana may not any more"),
            (&[("ana", Admin), ("ben", Member)], "\x1b", "the chat is called \"\\u{1b}\" now"),
            (
                &[("ben", Admin)],
                "trip",
                "ana left; ben may manage the chat now; you are not in this chat any more",
            ),
        ] {
            assert_eq!(change(Some(&first), &update(2, people, name), "ana"), format!("-- {told}"));
        }
    }

    #[test]
    fn ticks_receipts_connections_and_devices_are_lines() {
        assert_eq!(tick("ben", &Tick::Delivered("hi".into())), "✓ ben: \"hi\"");
        assert_eq!(tick("ben", &Tick::Read("hi".into())), "✓✓ ben: \"hi\"");
        let (chat_id, user_id) = (String::new(), "ben".into());
        let mark = v1::Receipt { chat_id, user_id, delivered_seq: 9, read_seq: 7 };
        assert_eq!(receipt(&mark), "-- ben: has 9, has read 7");
        let update = v1::ConnectionUpdate {
            user_id: "eve".into(),
            status: ConnectionStatus::Blocked.into(),
            version: 3,
            by_device_id: "laptop".into(),
        };
        assert_eq!(connection_update(&update), "-- eve is blocked (version 3), by laptop");
        let phone = v1::DeviceView {
            device_id: "phone".into(),
            name: "My \x1b".into(),
            last_active: Some(Timestamp::from_ms(0)),
            position: 5,
        };
        let line = device_line(&phone, "phone", &Utc);
        let told = "-- phone \"My \\u{1b}\" (this one), active 1970-01-01 00:00, has all up to 5";
        assert_eq!(line, told);
    }

    #[test]
    fn a_refusal_by_a_recipient_is_told_on_both_sides() {
        let Body::NewMessage(late) = message("old\x07") else { unreachable!() };
        let told =
            "!! refused (422): ben wrote \"old\\u{7}\" before what is shown already; they are told";
        assert_eq!(refused_here(&late), told);
        let refusal = v1::MessageRejected {
            by_user_id: "ana".into(),
            status: 422,
            reason: "too late".into(),
            ..Default::default()
        };
        assert_eq!(rejected("old", &refusal), "!! refused by ana: \"old\": 422 too late");
    }
}
