//! `frames.md`: the frames of `/v1/ws`. What a frame holds and what it is for comes from the schema;
//! here stands which reply a command has, which bodies are kept, and why a socket is closed.

use crate::schema::{Field, Kind, Schema};
use chaski_docs::{Example, Known, Step, story};
use serde_json::Value;
use std::fmt::Write as _;

/// Commands, and the reply of each; empty: none.
const COMMANDS: &[(&str, &str)] = &[
    ("hello", "welcome"),
    ("authenticate", "authenticated"),
    ("createChat", "chatCreated"),
    ("sendMessage", "messageAccepted"),
    ("modifyChat", "chatModified"),
    ("modifyChatParticipants", "chatModified"),
    ("markRead", ""),
    ("rejectMessage", ""),
    ("setConnection", "connectionSet"),
    ("setSettings", "settingsSet"),
    ("ping", "pong"),
];

/// What comes at a position.
const EVENTS: &[&str] =
    &["newMessage", "chatUpdate", "messageRejected", "connectionUpdate", "messageHidden", "resync"];

/// What comes unasked and without a position.
const NOTICES: &[&str] = &["receipt", "goAway"];

/// Close codes, when each comes, and what a client does.
#[rustfmt::skip]
pub(crate) const CLOSE_CODES: &[(u16, &str, &str)] = &[
    (1009, "A frame over the size limit (1.25 MiB in JSON, 0.5 MiB in protobuf).", "Send less."),
    (4001, "The user's host is elsewhere; `goAway` with its URL came before.", "Connect there."),
    (4002, "The host drains, or cannot serve now.", "Connect again, and resume."),
    (4003, "Slow consumer: the socket took no bytes for too long.", "Connect again, and resume."),
    (4004, "The token has expired.", "Get a new one, connect again."),
    (4005, "Nothing was heard for twice `heartbeatSeconds`.", "Connect again."),
    (4500, "No good token, or one device too many (`error` 403 came before).", "Get one; revoke a device."),
    (4501, "The device was revoked.", "Stop."),
    (4502, "A protocol error: no `hello` first, the wrong opcode for the subprotocol, an ack above \
        what was sent.", "Correct the client."),
    (4503, "A newer socket of the same device took over.", "Stop."),
];

const INTRODUCTION: &str = "\
# Frames of `GET /v1/ws`

Generated from `proto/chaski/v1/client.proto` and `crates/chaski-docs`: \
`UPDATE_DOCS=1 cargo test -p chaski-docs` writes it. Every example is sent to a running server by \
a test, in both formats. HTTP is in [openapi.json](openapi.json), refusals are in \
[errors](../errors.md).

Subprotocol `chaski.v1.json` (text frames, also where none is offered) or `chaski.v1.protobuf` \
(binary): one schema, `ClientFrame` and `ServerFrame`. In JSON 64-bit integers are strings (taken \
as string or number), bytes are base64, times RFC 3339 in UTC with milliseconds; defaults are \
written. Unknown fields are ignored, an unknown command is an error.
";

/// Whether this body of a server's frame comes at a position.
pub(crate) fn is_durable(body: &str) -> bool {
    EVENTS.contains(&body)
}

/// The page.
pub(crate) fn page(schema: &Schema) -> String {
    let mut page = Page { schema, text: INTRODUCTION.to_owned(), linked: Vec::new() };
    page.check();
    page.frame("Client frames", "ClientFrame");
    page.ack();
    page.frame("Server frames", "ServerFrame");
    page.line("## Commands");
    for (name, reply) in COMMANDS {
        page.command(name, reply);
    }
    page.line("## Refusals");
    page.body("error");
    page.line(
        "## Events\n\nAt a `position` in the user's order; a client ignores one at or below its \
         highest.",
    );
    EVENTS.iter().for_each(|name| page.body(name));
    page.line("## Notices\n\nWithout a position; not kept.");
    NOTICES.iter().for_each(|name| page.body(name));
    page.line("## Types");
    page.types();
    page.close_codes();
    page.text
}

struct Page<'a> {
    schema: &'a Schema,
    text: String,
    /// Types that fields name, in the order they come.
    linked: Vec<Kind>,
}

impl Page<'_> {
    /// The tables above name all commands and bodies of the schema, and no other.
    fn check(&self) {
        let choice = |frame, of: &str| {
            let fields = self.schema.message(frame).fields.iter();
            let chosen = fields.filter(|field| field.choice.as_deref() == Some(of));
            let mut names: Vec<_> = chosen.map(|field| &*field.name).collect();
            names.sort_unstable();
            names
        };
        let sorted = |mut names: Vec<&'static str>| {
            names.sort_unstable();
            names.dedup();
            names
        };
        let commands = sorted(COMMANDS.iter().map(|(name, _)| *name).collect());
        assert_eq!(choice("ClientFrame", "command"), commands, "frames.rs lists all commands");
        let replies = COMMANDS.iter().map(|(_, reply)| *reply).filter(|name| !name.is_empty());
        let others = EVENTS.iter().chain(NOTICES).copied();
        let bodies = sorted(replies.chain(others).chain(["error"]).collect());
        assert_eq!(choice("ServerFrame", "body"), bodies, "frames.rs lists all bodies");
    }

    fn line(&mut self, text: &str) {
        self.text.push('\n');
        self.text.push_str(text);
        self.text.push('\n');
    }

    /// What stands in a frame beside its one command or body.
    fn frame(&mut self, title: &str, name: &str) {
        let message = self.schema.message(name);
        self.line(&format!("## {title}\n\n{}", message.comment));
        let beside: Vec<_> = message.fields.iter().filter(|f| f.choice.is_none()).collect();
        self.fields(&beside);
    }

    fn ack(&mut self) {
        let only = |frame: &str| {
            let frame: Value = serde_json::from_str(frame).expect("an example is JSON");
            frame.get("ack").is_some().then_some(())
        };
        for example in story() {
            if let Step::Frame { frame, .. } = example.step
                && only(frame).is_some()
            {
                self.example(example);
            }
        }
    }

    fn command(&mut self, name: &str, reply: &str) {
        self.line(&format!("### `{name}`"));
        self.message_of("ClientFrame", name);
        if reply.is_empty() {
            self.line("Reply: none.");
        } else {
            self.line(&format!("Reply: `{reply}`"));
            self.message_of("ServerFrame", reply);
        }
        for example in story() {
            if let Step::Frame { frame, reply, .. } = example.step
                && has(frame, name)
                && !has(reply, "error")
            {
                self.example(example);
            }
        }
    }

    /// A body of a server's frame that is no reply to one command.
    fn body(&mut self, name: &str) {
        self.line(&format!("### `{name}`"));
        self.message_of("ServerFrame", name);
        for example in story() {
            match example.step {
                Step::Event { frame, .. } if has(frame, name) => self.example(example),
                Step::Frame { reply, .. } if has(reply, name) => self.example(example),
                _ => {}
            }
        }
    }

    /// The fields of the message that this member of a frame holds.
    fn message_of(&mut self, frame: &str, member: &str) {
        let field = self.schema.message(frame).field(member);
        let Some(Field { kind: Kind::Message(name), .. }) = field else {
            panic!("{frame} has no message {member}");
        };
        self.message(name);
    }

    fn message(&mut self, name: &str) {
        let message = self.schema.message(name);
        if !message.comment.is_empty() {
            self.line(&message.comment);
        }
        self.fields(&message.fields.iter().collect::<Vec<_>>());
    }

    fn fields(&mut self, fields: &[&Field]) {
        if fields.is_empty() {
            return self.line("No fields.");
        }
        self.line("| field | type | |\n|---|---|---|");
        for field in fields {
            let optional = if field.optional { "?" } else { "" };
            let kind = self.kind(field);
            let row =
                writeln!(self.text, "| `{}`{optional} | {kind} | {} |", field.name, field.comment);
            row.expect("a text takes all");
        }
    }

    fn kind(&mut self, field: &Field) -> String {
        let one = match &field.kind {
            Kind::Text => "text".to_owned(),
            Kind::Bool => "boolean".to_owned(),
            Kind::Number => "integer".to_owned(),
            Kind::Big => "64-bit integer".to_owned(),
            Kind::Bytes => "bytes".to_owned(),
            Kind::Time => "time".to_owned(),
            Kind::Message(name) | Kind::Enum(name) => {
                if !self.linked.contains(&field.kind) {
                    self.linked.push(field.kind.clone());
                }
                format!("[{name}](#{})", name.to_lowercase().replace('.', ""))
            }
        };
        if field.list { format!("list of {one}") } else { one }
    }

    /// The types that fields have named.
    fn types(&mut self) {
        let mut at = 0;
        while let Some(kind) = self.linked.get(at).cloned() {
            at += 1;
            match kind {
                Kind::Message(name) => {
                    self.line(&format!("### {name}"));
                    self.message(&name);
                }
                Kind::Enum(name) => {
                    let one = self.schema.enumeration(&name);
                    self.line(&format!("### {name}"));
                    if !one.comment.is_empty() {
                        self.line(&one.comment);
                    }
                    let values: Vec<_> = one.values.iter().map(|v| format!("`{v}`")).collect();
                    self.line(&values.join(", "));
                }
                _ => unreachable!("only these are linked"),
            }
        }
    }

    fn example(&mut self, example: &Example) {
        let known = Known::samples();
        let (sent, heard) = match example.step {
            Step::Frame { frame, reply, .. } => (known.fill(frame), known.fill(reply)),
            Step::Event { frame, .. } => (String::new(), known.fill(frame)),
            _ => return,
        };
        self.line(&format!("{}:\n\n```", example.shows));
        for (sign, text) in [('→', sent), ('←', heard)] {
            if !text.is_empty() {
                writeln!(self.text, "{sign} {text}").expect("a text takes all");
            }
        }
        self.text.push_str("```\n");
    }

    fn close_codes(&mut self) {
        self.line("## Close codes\n\n4000-4499: connect again; 4500-4999: do not.\n");
        self.text.push_str("| code | when | then |\n|---|---|---|\n");
        for (code, when, then) in CLOSE_CODES {
            writeln!(self.text, "| {code} | {when} | {then} |").expect("a text takes all");
        }
    }
}

/// Whether a frame has this member.
fn has(frame: &str, member: &str) -> bool {
    let frame: Option<Value> = serde_json::from_str(frame).ok();
    frame.is_some_and(|frame| frame.get(member).is_some())
}
