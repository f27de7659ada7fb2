//! Golden bytes: every message that stands in a log or a store, with all its fields set, encodes
//! to the bytes in `proto/golden/<Type>.hex` and comes back from them. A line there is a name and
//! the bytes in hex; a message with a choice (`oneof`) has a line for each alternative.
//!
//! What is written stays readable for ever, so a line is never changed. A new field or type needs
//! a new line: add a sample below, then
//!
//! ```text
//! UPDATE_GOLDEN=1 cargo test -p chaski-proto --test golden
//! ```
//!
//! which writes lines that are missing and leaves those that are there.

#[path = "golden/samples.rs"]
mod samples;

use bytes::Bytes;
use chaski_core::record::Input;
use chaski_proto::{
    RecipientRecord, decode_connection_request, decode_input, encode_connection_request,
    encode_input,
};
use prost::{
    Message as _,
    encoding::{DecodeContext, decode_key, skip_field},
};
use prost_types::{DescriptorProto, FileDescriptorSet};
use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    fmt::Write as _,
    fs,
    path::PathBuf,
};

/// One encoded sample: type, name, bytes, and whether decoding gives the same value again.
pub(crate) struct Sample {
    pub(crate) of: &'static str,
    pub(crate) name: &'static str,
    pub(crate) bytes: Vec<u8>,
    pub(crate) comes_back: fn(&[u8], &[u8]) -> bool,
}

fn file(of: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "golden", &format!("{of}.hex")].iter().collect()
}

/// The lines of a type's file: name to bytes.
fn golden(of: &str) -> BTreeMap<String, Vec<u8>> {
    let text = fs::read_to_string(file(of)).unwrap_or_default();
    let line = |line: &str| {
        let (name, hex) = line.split_once(' ').expect("a name and hex");
        (name.to_owned(), unhex(hex))
    };
    text.lines().map(line).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("a string takes all");
        hex
    })
}

fn unhex(hex: &str) -> Vec<u8> {
    let digits = (0..hex.len()).step_by(2).map(|at| &hex[at..at + 2]);
    digits.map(|pair| u8::from_str_radix(pair, 16).expect("hex")).collect()
}

#[test]
fn stored_types_keep_their_bytes() {
    for sample in samples::all() {
        let mut lines = golden(sample.of);
        if !lines.contains_key(sample.name) && env::var_os("UPDATE_GOLDEN").is_some() {
            lines.insert(sample.name.into(), sample.bytes.clone());
            let text = lines.iter().fold(String::new(), |t, (n, b)| t + n + " " + &hex(b) + "\n");
            fs::write(file(sample.of), text).expect("the repository is writable");
        }
        let place = format!("{} {}", sample.of, sample.name);
        let expected = lines.get(sample.name).unwrap_or_else(|| panic!("no golden {place}"));
        assert_eq!(hex(&sample.bytes), hex(expected), "{place} is written in another way");
        assert!((sample.comes_back)(expected, &sample.bytes), "{place} is read as something else");
    }
}

/// The messages of `log.proto` and `stored.proto`.
fn stored_types() -> Vec<DescriptorProto> {
    let schema = FileDescriptorSet::decode(chaski_proto::DESCRIPTORS).expect("the build wrote it");
    let stored = |name: &str| name.ends_with("/log.proto") || name.ends_with("/stored.proto");
    let files = schema.file.into_iter().filter(|file| stored(file.name()));
    files.flat_map(|file| file.message_type).collect()
}

/// The numbers of the fields that these bytes hold.
fn fields_of(mut bytes: &[u8]) -> BTreeSet<i32> {
    let mut fields = BTreeSet::new();
    while !bytes.is_empty() {
        let (tag, wire) = decode_key(&mut bytes).expect("a key");
        skip_field(wire, tag, &mut bytes, DecodeContext::default()).expect("a value");
        fields.insert(tag as i32);
    }
    fields
}

#[test]
fn every_stored_field_has_golden_bytes() {
    let types = stored_types();
    assert!(types.len() > 20, "log.proto and stored.proto are found");
    for stored in types {
        let lines = golden(stored.name());
        let kept: BTreeSet<_> = lines.values().flat_map(|bytes| fields_of(bytes)).collect();
        let all: BTreeSet<_> = stored.field.iter().map(|field| field.number()).collect();
        assert!(kept.is_superset(&all), "{}: golden has {kept:?} of {all:?}", stored.name());
    }
}

/// The domain's own encoding is that of the schema.
#[test]
fn commands_and_entries_are_read_and_written_as_the_golden_bytes() {
    let inputs = ["submit", "create", "rename", "promote", "rejection", "marks"];
    for name in inputs {
        let bytes = Bytes::from(golden("NewMessagesRecord")[name].clone());
        let input = decode_input(bytes.clone()).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(hex(&encode_input(&input)), hex(&bytes), "{name}");
    }
    // The owner's tick names nobody.
    let tick = decode_input(golden("NewMessagesRecord")["tick"].clone().into()).expect("a tick");
    assert!(matches!(tick, Input::Tick(_)));
    assert_eq!(decode_input(encode_input(&tick)).expect("a tick"), tick);
    for (name, bytes) in golden("ConnectionRequest") {
        let bytes = Bytes::from(bytes);
        let request = decode_connection_request(bytes.clone()).expect("a legal request");
        assert_eq!(hex(&encode_connection_request(&request)), hex(&bytes), "{name}");
    }
    let events = golden("RecipientsRecord");
    assert_eq!(events.len(), 9);
    for (name, bytes) in events {
        let record = RecipientRecord::decode(bytes.into()).expect("a record");
        let entry = record.entry.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(record.origin.is_some() && record.prev.is_some(), "{name}");
        let users = if name.ends_with("change") && name != "chat-change" { 1 } else { 2 };
        assert_eq!((entry.at_ms, entry.users.len()), (1_700_000_000_123, users), "{name}");
    }
}
