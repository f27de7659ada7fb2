//! The conversation log that is replayed: read from a directory, or made up from a seed. Knows
//! nothing of devices, servers or what a run does with it.

use super::random::Random;
use anyhow::{Context as _, ensure};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use std::{
    collections::HashMap,
    fmt::Write as _,
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
};

/// A conversation log. People, conversations and messages are named by their index.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// Legal user ids, one for each nickname.
    pub(super) users: Vec<String>,
    pub(super) chats: Vec<Chat>,
    /// In the order they were said.
    pub(super) messages: Vec<Message>,
}

/// A conversation.
#[derive(Debug)]
pub(super) struct Chat {
    /// Its name in the input.
    pub(super) name: String,
    pub(super) participants: Vec<u32>,
    /// Its messages, in order.
    pub(super) messages: Vec<u32>,
}

/// Something that was said.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) line: u64,
    pub(super) chat: u32,
    pub(super) sender: u32,
    pub(super) text: String,
    /// SHA-256 of the text's bytes.
    pub(super) sha256: [u8; 32],
}

/// A user id for a nickname, one to one: bytes outside of `A-Za-z0-9._-` become `~XX`.
fn user_id(nickname: &str) -> String {
    let mut id = String::with_capacity(nickname.len());
    for byte in nickname.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-') {
            id.push(byte.into());
        } else {
            let _ = write!(id, "~{byte:02X}");
        }
    }
    if id.len() <= 64 {
        return id;
    }
    // No escaped nickname begins so.
    let hash = Sha256::digest(nickname);
    hash[..16].iter().fold("~~".to_owned(), |mut id, byte| {
        let _ = write!(id, "{byte:02x}");
        id
    })
}

impl Log {
    /// Reads `chats.jsonl` and `messages.jsonl.gz`.
    pub(super) fn read(dir: &Path) -> anyhow::Result<Self> {
        #[derive(Deserialize)]
        struct ChatLine {
            chat: String,
            participants: Vec<String>,
        }
        #[derive(Deserialize)]
        struct MessageLine {
            line: u64,
            chat: String,
            sender: String,
            text: String,
        }
        let open = |name: &str| {
            let path = dir.join(name);
            File::open(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let mut log = Self::default();
        let (mut users, mut chats) = (HashMap::new(), HashMap::new());
        for line in BufReader::new(open("chats.jsonl")?).lines() {
            let line: ChatLine = serde_json::from_str(&line?).context("chats.jsonl")?;
            let mut participants = Vec::with_capacity(line.participants.len());
            for nickname in &line.participants {
                participants.push(*users.entry(user_id(nickname)).or_insert_with_key(|id| {
                    log.users.push(id.clone());
                    log.users.len() as u32 - 1
                }));
            }
            chats.insert(line.chat.clone(), log.chats.len() as u32);
            log.chats.push(Chat { name: line.chat, participants, messages: Vec::new() });
        }
        let unzipped = flate2::read::MultiGzDecoder::new(open("messages.jsonl.gz")?);
        for line in BufReader::new(unzipped).lines() {
            let line: MessageLine = serde_json::from_str(&line?).context("messages.jsonl.gz")?;
            let named = || format!("line {} of {}", line.line, line.chat);
            let chat = *chats.get(&line.chat).with_context(named)?;
            let sender = *users.get(&user_id(&line.sender)).with_context(named)?;
            log.push(chat, sender, line.line, line.text);
        }
        log.checked()
    }

    fn push(&mut self, chat: u32, sender: u32, line: u64, text: String) {
        let sha256 = Sha256::digest(&text).into();
        self.chats[chat as usize].messages.push(self.messages.len() as u32);
        self.messages.push(Message { line, chat, sender, text, sha256 });
    }

    fn checked(mut self) -> anyhow::Result<Self> {
        for message in &self.messages {
            let chat = &self.chats[message.chat as usize];
            ensure!(
                chat.participants.contains(&message.sender),
                "{}: the sender of line {} is no participant",
                chat.name,
                message.line
            );
        }
        for chat in &mut self.chats {
            let count = chat.participants.len();
            chat.participants.sort_unstable();
            chat.participants.dedup();
            ensure!(chat.participants.len() == count, "{}: a participant twice", chat.name);
            ensure!(!chat.messages.is_empty(), "{}: a conversation without messages", chat.name);
        }
        ensure!(!self.messages.is_empty(), "the log is empty");
        Ok(self)
    }

    /// A made-up log of the same shape: 300 people, 120 conversations, at least a message in each; many small
    /// conversations and few large ones, a few people who say most, texts of all scripts and sizes.
    pub(super) fn synthetic(seed: u64, messages: u64) -> Self {
        const PEOPLE: u32 = 300;
        const CHATS: u32 = 120;
        let mut random = Random::new(seed);
        let mut log = Self::default();
        for person in 0..PEOPLE {
            let odd = ["", "[away]", "|", "`", "^_^", "~"][random.below(6) as usize];
            log.users.push(user_id(&format!("person{person}{odd}")));
        }
        for chat in 0..CHATS {
            // 2 to 40 people, mostly few.
            let size =
                2 + random.below(6) + if random.below(8) == 0 { random.below(33) } else { 0 };
            let mut participants = Vec::new();
            while (participants.len() as u64) < size {
                let person = random.skewed(PEOPLE.into()) as u32;
                if !participants.contains(&person) {
                    participants.push(person);
                }
            }
            log.chats.push(Chat {
                name: format!("synthetic-{seed}#{chat}"),
                participants,
                messages: Vec::new(),
            });
        }
        for line in 0..messages.max(CHATS.into()) {
            // Every conversation has one at least.
            let chat = if line < CHATS.into() { line } else { random.skewed(CHATS.into()) };
            let speakers = &log.chats[chat as usize].participants;
            let sender = speakers[random.skewed(speakers.len() as u64) as usize];
            let text = text(&mut random, line);
            log.push(chat as u32, sender, line, text);
        }
        log.checked().expect("made to be legal")
    }

    /// Copies that must arrive beside the senders' own: one for each other participant.
    pub(super) fn deliveries(&self) -> u64 {
        self.messages
            .iter()
            .map(|m| self.chats[m.chat as usize].participants.len() as u64 - 1)
            .sum()
    }
}

fn text(random: &mut Random, line: u64) -> String {
    const WORDS: [&str; 12] = [
        "apt-get",
        "kernel",
        "why?",
        "ñandú",
        "日本語",
        "\u{1F999}",
        "<b>",
        "\"quoted\"",
        "\\",
        "\t",
        "e\u{301}",
        "\u{200f}שלום",
    ];
    let words = if random.below(200) == 0 { 600 } else { 1 + random.below(15) };
    let mut text = format!("{line}:");
    for _ in 0..words {
        text.push(' ');
        text.push_str(WORDS[random.below(WORDS.len() as u64) as usize]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn nicknames_map_one_to_one() {
        let ids = ["a[b", "a~5Bb", "a|b", "a", "é", &"[".repeat(22)].map(user_id);
        assert_eq!(ids[..5], ["a~5Bb", "a~7E5Bb", "a~7Cb", "a", "~C3~A9"]);
        assert!(ids[5].len() <= 64 && ids[5].starts_with("~~"));
    }

    #[test]
    fn a_log_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let chats = r#"{"chat": "c#1", "participants": ["b|", "a"]}"#;
        std::fs::write(dir.path().join("chats.jsonl"), chats).unwrap();
        let write = |lines: &str| {
            let file = File::create(dir.path().join("messages.jsonl.gz")).unwrap();
            let mut zipped = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
            zipped.write_all(lines.as_bytes()).unwrap();
            zipped.finish().unwrap();
        };
        write(r#"{"line": 7, "chat": "c#1", "at": "", "sender": "a", "text": "h\u00e9"}"#);
        let log = Log::read(dir.path()).unwrap();
        assert_eq!(log.users, ["b~7C", "a"]);
        assert_eq!((log.messages[0].line, log.messages[0].sender), (7, 1));
        assert_eq!(log.messages[0].text, "hé");
        assert_eq!(log.deliveries(), 1);
        write(r#"{"line": 7, "chat": "c#1", "at": "", "sender": "x", "text": ""}"#);
        assert!(Log::read(dir.path()).is_err(), "an unknown sender");
    }

    #[test]
    fn a_seed_always_gives_the_same_log() {
        let (a, b, c) = (Log::synthetic(1, 5000), Log::synthetic(1, 5000), Log::synthetic(2, 5000));
        let hashes = |log: &Log| log.messages.iter().map(|m| m.sha256).collect::<Vec<_>>();
        assert_eq!((a.users.len(), a.chats.len(), a.messages.len()), (300, 120, 5000));
        assert_eq!(hashes(&a), hashes(&b));
        assert_ne!(hashes(&a), hashes(&c));
    }
}
