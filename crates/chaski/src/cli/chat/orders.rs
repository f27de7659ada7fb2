//! What can be typed into a chat beside messages: commands that begin with a slash. Knows their
//! words only; what they do is `chat/act.rs`.

use chaski_client::v1::modify_chat_participants::Operation;
use chaski_core::{ChatId, DeviceId, UserId};
use std::{fmt::Write as _, str::FromStr};

/// A typed line.
#[derive(Debug, PartialEq)]
pub(super) enum Typed {
    /// To be sent.
    Text(String),
    /// To be done.
    Order(Order),
    /// A command that is not one, and why.
    Wrong(String),
}

/// What to do.
#[derive(Debug, PartialEq)]
pub(super) enum Order {
    Help,
    Group { users: Vec<UserId>, name: String },
    Open(ChatId),
    Participant(Operation, UserId),
    Leave,
    Name(String),
    Read,
    Receipts,
    Members,
    Connect(Wish, Option<UserId>),
    Contacts,
    HideRead(bool),
    Devices,
    NameDevice(DeviceId, String),
    Revoke(DeviceId),
    Quit,
}

/// What somebody is to be from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Contact,
    Block,
    /// Neither.
    End,
}

/// How each command is written, and what it does.
const ORDERS: &[(&str, &str)] = &[
    ("/group USER,USER NAME", "make a group and go there; the name may be left out"),
    ("/open CHAT", "go to another chat you are in"),
    ("/members", "who is in the chat"),
    ("/add USER", "make somebody a member; /remove USER ends it"),
    ("/admin USER", "make a member an admin; /member USER takes it back"),
    ("/leave", "leave the chat"),
    ("/name NAME", "rename the chat"),
    ("/read", "tell the others that you have read all that is shown"),
    ("/receipts", "how far each member has got"),
    ("/hide on|off", "whether others are told what you read"),
    ("/block [USER]", "withhold somebody's messages (here: the other one); /unblock lifts it"),
    ("/contact [USER]", "make somebody a contact; /forget ends it"),
    ("/contacts", "your contacts and blocks"),
    ("/devices", "your devices; /revoke DEVICE shuts one out"),
    ("/device DEVICE NAME", "name one of your devices"),
    ("/quit", "end, as Ctrl-D does"),
];

/// The table of the commands.
pub(super) fn help() -> String {
    let mut text = String::from("Commands (a message that begins with a slash is typed with two):");
    for (usage, what) in ORDERS {
        let _ = write!(text, "\n  {usage:<22} {what}");
    }
    text
}

impl Typed {
    pub(super) fn of(line: String) -> Self {
        let Some(rest) = line.strip_prefix('/') else { return Self::Text(line) };
        if rest.starts_with('/') {
            return Self::Text(rest.to_owned());
        }
        let (word, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        match order(word, rest.trim()) {
            Ok(order) => Self::Order(order),
            Err(why) => Self::Wrong(format!("/{word}: {why}")),
        }
    }
}

fn order(word: &str, rest: &str) -> Result<Order, String> {
    let order = match word {
        "group" => {
            let (users, name) = split(rest);
            let users = users.split(',').map(id).collect::<Result<_, _>>()?;
            return Ok(Order::Group { users, name: name.into() });
        }
        "open" => return Ok(Order::Open(id(rest)?)),
        "add" => return Ok(Order::Participant(Operation::Add, id(rest)?)),
        "remove" => return Ok(Order::Participant(Operation::Remove, id(rest)?)),
        "admin" => return Ok(Order::Participant(Operation::Promote, id(rest)?)),
        "member" => return Ok(Order::Participant(Operation::Demote, id(rest)?)),
        "name" => return Ok(Order::Name(rest.into())),
        "block" => return Ok(Order::Connect(Wish::Block, who(rest)?)),
        "contact" => return Ok(Order::Connect(Wish::Contact, who(rest)?)),
        "unblock" | "forget" => return Ok(Order::Connect(Wish::End, who(rest)?)),
        "hide" => match rest {
            "on" => return Ok(Order::HideRead(true)),
            "off" => return Ok(Order::HideRead(false)),
            _ => return Err("say on or off".into()),
        },
        "device" => {
            let (device, name) = split(rest);
            return Ok(Order::NameDevice(id(device)?, name.into()));
        }
        "revoke" => return Ok(Order::Revoke(id(rest)?)),
        "help" => Order::Help,
        "leave" => Order::Leave,
        "read" => Order::Read,
        "receipts" => Order::Receipts,
        "members" => Order::Members,
        "contacts" => Order::Contacts,
        "devices" => Order::Devices,
        "quit" => Order::Quit,
        _ => return Err("there is no such command; /help lists them".into()),
    };
    // `/leave now` could mean somebody: better asked than done.
    if rest.is_empty() { Ok(order) } else { Err("takes nothing behind it".into()) }
}

fn split(text: &str) -> (&str, &str) {
    let (first, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    (first, rest.trim())
}

fn id<T: FromStr>(text: &str) -> Result<T, String>
where
    T::Err: ToString,
{
    text.parse().map_err(|error: T::Err| error.to_string())
}

fn who(text: &str) -> Result<Option<UserId>, String> {
    if text.is_empty() { Ok(None) } else { id(text).map(Some) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, order: Order) {
        assert_eq!(Typed::of(line.into()), Typed::Order(order), "{line}");
    }

    fn user(name: &str) -> UserId {
        name.parse().unwrap()
    }

    #[test]
    fn a_slash_begins_a_command_and_two_begin_a_text() {
        assert_eq!(Typed::of("hi /there".into()), Typed::Text("hi /there".into()));
        assert_eq!(Typed::of("//add ben".into()), Typed::Text("/add ben".into()));
        let users = vec![user("ben"), user("carol")];
        check("/group ben,carol Our  trip", Order::Group { users, name: "Our  trip".into() });
        check("/group ben", Order::Group { users: vec![user("ben")], name: String::new() });
        check("/add  ben ", Order::Participant(Operation::Add, user("ben")));
        check("/member ben", Order::Participant(Operation::Demote, user("ben")));
        check("/name", Order::Name(String::new()));
        check("/block", Order::Connect(Wish::Block, None));
        check("/unblock eve", Order::Connect(Wish::End, Some(user("eve"))));
        check("/hide on", Order::HideRead(true));
        check("/device old My phone", Order::NameDevice("old".parse().unwrap(), "My phone".into()));
        check("/open g.0a", Order::Open("g.0a".parse().unwrap()));
        for wrong in
            ["/", "/nonsense", "/add", "/add b@n", "/group ben,", "/leave now", "/hide", "/open x"]
        {
            assert!(matches!(Typed::of(wrong.into()), Typed::Wrong(_)), "{wrong}");
        }
    }

    #[test]
    fn every_command_of_the_help_is_one() {
        let examples = [("USER,USER", "ben,carol"), ("USER", "ben"), ("CHAT", "g.1")];
        for (usage, what) in ORDERS {
            let texts = [*usage].into_iter().chain(what.split("; ").filter(|t| t.starts_with('/')));
            for text in texts {
                let words = text.split(' ').take_while(|word| {
                    word.starts_with('/') || word.chars().any(|c| c.is_ascii_uppercase())
                });
                let line = words.collect::<Vec<_>>().join(" ").replace(['[', ']'], "");
                let line = examples.iter().fold(line, |line, (from, to)| line.replace(from, to));
                let line = if line == "/hide" { "/hide on".into() } else { line };
                assert!(matches!(Typed::of(line.clone()), Typed::Order(_)), "{line}");
            }
        }
    }
}
