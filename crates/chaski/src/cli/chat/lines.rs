//! How a chat looks in a terminal. Text of other people is made harmless: a terminal obeys what is
//! printed on it.

use chaski_client::{Body, v1};
use chaski_ports::{Clock as _, SystemClock};
use chaski_proto::Timestamp;
use chrono::{DateTime, Local, NaiveDate, TimeZone};
use std::{
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
                Some(v1::new_message::Body::Ciphertext(bytes)) => {
                    format!("(encrypted, {} bytes)", bytes.len())
                }
                None => String::new(),
            };
            let mut line = format!("{at} {}: {text}", harmless(&message.sender_id));
            for file in &message.attachments {
                let _ = write!(line, " [{}, {} bytes]", harmless(&file.content_type), file.size);
            }
            line
        }
        Body::ChatUpdate(update) => {
            let name = match update.name.as_str() {
                "" => String::new(),
                name => format!(" \"{}\"", harmless(name)),
            };
            format!("-- chat{name}: {}", harmless(&update.participants.join(", ")))
        }
        _ => "-- a message is hidden".into(),
    }
}

fn local<Z: TimeZone>(at: Option<Timestamp>, zone: &Z) -> Option<DateTime<Z>> {
    zone.timestamp_millis_opt(at?.to_ms()).single()
}

/// No control characters, which a terminal would obey; further lines are indented.
fn harmless(text: &str) -> String {
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
}
