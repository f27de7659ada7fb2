//! Identifiers: who, which device, which chat, which message. All are checked where they are
//! made, so a value of these types is always legal.

use arrayvec::ArrayString;
use sha2::{Digest, Sha256};
use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

/// An identifier that breaks its rule; the text says which rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("illegal {what}: {rule}")]
pub struct IllegalId {
    /// Which kind of identifier.
    pub what: &'static str,
    /// The rule it breaks.
    pub rule: &'static str,
}

const NAME_RULE: &str = "must be 1-64 characters of A-Z a-z 0-9 . _ ~ -";

fn is_name(text: &str, max: usize) -> bool {
    (1..=max).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'~' | b'-'))
}

macro_rules! name_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The identifier as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $name {
            type Err = IllegalId;
            fn from_str(text: &str) -> Result<Self, IllegalId> {
                if is_name(text, 64) {
                    Ok(Self(text.into()))
                } else {
                    Err(IllegalId { what: $what, rule: NAME_RULE })
                }
            }
        }
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name_id!(
    /// A user. There is no registry of users: any legal id may be addressed.
    UserId,
    "user id"
);
name_id!(
    /// A device of a user.
    DeviceId,
    "device id"
);

/// An idempotency key that a client chose (`clientMessageId`, `clientChatId`): 1-64 printable
/// ASCII characters, unique over all devices of the user.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ClientId(Box<str>);

impl ClientId {
    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
impl FromStr for ClientId {
    type Err = IllegalId;
    fn from_str(text: &str) -> Result<Self, IllegalId> {
        if (1..=64).contains(&text.len()) && text.bytes().all(|b| (0x20..0x7f).contains(&b)) {
            Ok(Self(text.into()))
        } else {
            Err(IllegalId { what: "client id", rule: "must be 1-64 printable ASCII characters" })
        }
    }
}

/// A chat: `d.` + hash for a 1:1 chat, `g.` + hash for all made by `createChat`.
///
/// Any `d.` or `g.` followed by 1-32 characters of the id alphabet is accepted as a *possible*
/// chat, so that a chat which does not exist is answered by the fold (404), not by a parser.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChatId(ArrayString<34>);

impl ChatId {
    /// The 1:1 chat of two people (or of one with themselves), whoever writes first.
    #[must_use]
    pub fn direct(a: &UserId, b: &UserId) -> Self {
        let (low, high) = if a <= b { (a, b) } else { (b, a) };
        Self::of(
            "d.",
            hash16(b"chaski direct", &[low.as_str().as_bytes(), high.as_str().as_bytes()]),
        )
    }

    /// The chat that `creator` makes under this idempotency key.
    #[must_use]
    pub fn created(creator: &UserId, key: &ClientId) -> Self {
        Self::of("g.", hash16(b"chaski group", &[creator.as_str().as_bytes(), key.0.as_bytes()]))
    }

    fn of(prefix: &str, hash: [u8; 16]) -> Self {
        let mut text = ArrayString::from(prefix).expect("a prefix of two bytes fits");
        push_hex(&hash, |c| text.push(c));
        Self(text)
    }

    /// Whether this is a 1:1 chat, whose membership is fixed.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.0.starts_with("d.")
    }

    /// The identifier as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
impl FromStr for ChatId {
    type Err = IllegalId;
    fn from_str(text: &str) -> Result<Self, IllegalId> {
        let rest = text.strip_prefix("d.").or_else(|| text.strip_prefix("g."));
        match (rest, ArrayString::from(text)) {
            (Some(rest), Ok(id)) if is_name(rest, 32) => Ok(Self(id)),
            _ => Err(IllegalId {
                what: "chat id",
                rule: "must be d. or g. and a hash, as the server gave it",
            }),
        }
    }
}
impl fmt::Display for ChatId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Debug for ChatId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A message: a hash of (sender, chat, clientMessageId), so every answer to a retry names the
/// same one without memory (L2). Written as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(pub [u8; 16]);

impl MessageId {
    /// The id of what `sender` sends to `chat` under this idempotency key.
    #[must_use]
    pub fn of(sender: &UserId, chat: &ChatId, key: &ClientId) -> Self {
        Self(hash16(
            b"chaski message",
            &[sender.as_str().as_bytes(), chat.as_str().as_bytes(), key.0.as_bytes()],
        ))
    }

    /// The key under which a retry with *other* content is remembered, so that it too is
    /// answered once.
    #[must_use]
    pub fn conflicting(self, content: u64) -> Self {
        Self(hash16(b"chaski conflict", &[&self.0, &content.to_be_bytes()]))
    }

    /// The key under which a recipient's refusal of this message is remembered, so that it is told
    /// once.
    #[must_use]
    pub fn refused_by(self, user: &UserId) -> Self {
        Self(hash16(b"chaski refusal", &[&self.0, user.as_str().as_bytes()]))
    }
}
impl FromStr for MessageId {
    type Err = IllegalId;
    fn from_str(text: &str) -> Result<Self, IllegalId> {
        let illegal = IllegalId { what: "message id", rule: "must be 32 hexadecimal digits" };
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(illegal);
        }
        let value = u128::from_str_radix(text, 16).map_err(|_| illegal)?;
        Ok(Self(value.to_be_bytes()))
    }
}
impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}
impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The first 16 bytes of SHA-256 over a domain and length-prefixed parts.
pub(crate) fn hash16(domain: &[u8], parts: &[&[u8]]) -> [u8; 16] {
    let mut hash = Sha256::new();
    hash.update(domain);
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let mut out = [0; 16];
    out.copy_from_slice(&hash.finalize()[..16]);
    out
}

fn push_hex(bytes: &[u8], mut push: impl FnMut(char)) {
    for byte in bytes {
        for nibble in [byte >> 4, byte & 15] {
            push(char::from_digit(nibble.into(), 16).expect("a nibble is below 16"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(text: &str) -> UserId {
        text.parse().unwrap()
    }

    #[test]
    fn ids_are_checked_at_the_limit_and_one_past_it() {
        assert!("a".repeat(64).parse::<UserId>().is_ok());
        assert!("a".repeat(65).parse::<UserId>().is_err());
        assert!("".parse::<UserId>().is_err());
        assert!("a b".parse::<DeviceId>().is_err());
        assert!("A.z_0~-".parse::<DeviceId>().is_ok());
        assert!("x".repeat(64).parse::<ClientId>().is_ok());
        assert!("x".repeat(65).parse::<ClientId>().is_err());
        assert!("é".parse::<ClientId>().is_err());
        assert!("a message id".parse::<ClientId>().is_ok());
        assert!("g.nope".parse::<ChatId>().is_ok());
        assert!(format!("g.{}", "0".repeat(33)).parse::<ChatId>().is_err());
        assert!("x.00".parse::<ChatId>().is_err());
        assert!("d.".parse::<ChatId>().is_err());
        assert!("+0000000000000000000000000000000".parse::<MessageId>().is_err());
    }

    #[test]
    fn a_direct_chat_is_the_same_from_both_sides() {
        let (ana, ben) = (user("ana"), user("ben"));
        assert_eq!(ChatId::direct(&ana, &ben), ChatId::direct(&ben, &ana));
        assert_ne!(ChatId::direct(&ana, &ana), ChatId::direct(&ana, &ben));
        assert!(ChatId::direct(&ana, &ben).is_direct());
    }

    #[test]
    fn derived_ids_never_change() {
        let (ana, key) = (user("ana"), "k1".parse::<ClientId>().unwrap());
        let chat = ChatId::created(&ana, &key);
        let message = MessageId::of(&ana, &chat, &key);
        assert_eq!(chat.as_str().parse::<ChatId>().unwrap(), chat);
        assert_eq!(message.to_string().parse::<MessageId>().unwrap(), message);
        assert_eq!(chat.as_str(), "g.340ba55f1195f34fc246ae923e46202e");
        assert_eq!(message.to_string(), "2089a72aaf7685b556ddab4230c8360f");
    }
}
