//! The committed documents are those that the schema, the table of calls and the examples make, and
//! they leave nothing out: every command, event, call and close code is there.
//!
//! ```text
//! UPDATE_DOCS=1 cargo test -p chaski-docs
//! ```
//!
//! writes them.

#[path = "documents/fits.rs"]
mod fits;
#[path = "documents/frames.rs"]
mod frames;
#[path = "documents/openapi.rs"]
mod openapi;
#[path = "documents/schema.rs"]
mod schema;

use chaski_docs::{Known, Method, ROUTES, Step, story};
use chaski_proto::v1;
use frames::CLOSE_CODES;
use schema::{Kind, Schema};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
};

/// The documents: the file's name in `docs/api`, and its text.
fn documents() -> [(&'static str, String); 2] {
    let schema = Schema::read();
    [("openapi.json", openapi::document(&schema)), ("frames.md", frames::page(&schema))]
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn the_documents_are_up_to_date() {
    for (name, text) in documents() {
        let path = root().join("docs/api").join(name);
        if env::var_os("UPDATE_DOCS").is_some() {
            fs::create_dir_all(path.parent().expect("a folder")).expect("it can be made");
            fs::write(&path, &text).expect("the repository is writable");
        }
        let kept = fs::read_to_string(&path).unwrap_or_default();
        let line = kept.lines().zip(text.lines()).position(|(a, b)| a != b);
        let line = line.unwrap_or_else(|| kept.lines().count().min(text.lines().count()));
        let hint = "UPDATE_DOCS=1 cargo test -p chaski-docs writes it";
        assert!(kept == text, "docs/api/{name} differs from line {} on: {hint}", line + 1);
    }
}

/// The members of a frame that the schema has in a choice.
fn members(frame: &str, choice: &str) -> BTreeSet<String> {
    let schema = Schema::read();
    let fields = schema.message(frame).fields.iter();
    let chosen = fields.filter(|field| field.choice.as_deref() == Some(choice));
    let members: BTreeSet<_> = chosen.map(|field| field.name.clone()).collect();
    assert!(!members.is_empty(), "{frame} has a choice {choice}");
    members
}

/// Which of these members a frame of an example has.
fn seen_in(members: &BTreeSet<String>, frame: &str) -> Option<String> {
    let frame: Value = serde_json::from_str(frame).ok()?;
    members.iter().find(|member| frame.get(member).is_some()).cloned()
}

#[test]
fn every_command_and_every_body_has_an_example() {
    let (commands, bodies) = (members("ClientFrame", "command"), members("ServerFrame", "body"));
    let mut shown = BTreeSet::new();
    for example in story() {
        match example.step {
            Step::Frame { frame, reply, .. } => {
                shown.extend(seen_in(&commands, frame));
                shown.extend(seen_in(&bodies, reply));
            }
            Step::Event { frame, .. } => shown.extend(seen_in(&bodies, frame)),
            _ => {}
        }
    }
    let lacking: Vec<_> = commands.union(&bodies).filter(|name| !shown.contains(*name)).collect();
    assert!(lacking.is_empty(), "story.rs has no example of {lacking:?}");
}

#[test]
fn every_call_has_an_example_of_each_good_answer() {
    let names: BTreeSet<_> = story().map(|example| example.name).collect();
    let mut shown: BTreeMap<&str, BTreeSet<u16>> = BTreeMap::new();
    for example in story() {
        if let Step::Call { route, path, status, .. } = example.step {
            let known = ROUTES.iter().find(|known| known.id == route);
            let known = known.unwrap_or_else(|| panic!("there is no call {route}"));
            assert!(known.takes(path), "{}: {path} is no path of {route}", example.name);
            assert!(known.statuses().contains(&status), "{route} does not document {status}");
            shown.entry(route).or_default().insert(status);
        }
    }
    for route in ROUTES {
        let shown = shown.get(route.id).cloned().unwrap_or_default();
        let lacking: Vec<_> =
            route.statuses().into_iter().filter(|s| *s < 300 && !shown.contains(s)).collect();
        assert!(lacking.is_empty(), "story.rs has no example of {} with {lacking:?}", route.id);
    }
    assert!(names.len() > 40, "the story is told");
}

/// What stands in an example is all that the schema has: written again, defaults included, it is
/// the same.
#[test]
fn an_example_of_a_server_frame_is_whole() {
    let known = Known::samples();
    for example in story() {
        let text = match example.step {
            Step::Frame { reply, .. } => reply,
            Step::Event { frame, .. } => frame,
            _ => continue,
        };
        if !text.is_empty() {
            let given: Value = serde_json::from_str(&known.fill(text)).expect("JSON");
            let frame: v1::ServerFrame = serde_json::from_value(given.clone()).expect("a frame");
            assert_eq!(serde_json::to_value(frame).expect("JSON"), given, "{}", example.name);
        }
    }
}

/// The gateway's router and the table have the same calls.
#[test]
fn the_gateway_serves_the_documented_calls_and_no_other() {
    let text = fs::read_to_string(root().join("api-gateway/src/service.rs")).expect("the router");
    let methods = [
        ("get(", Method::Get),
        ("post(", Method::Post),
        ("patch(", Method::Patch),
        ("put(", Method::Put),
        ("delete(", Method::Delete),
    ];
    let mut served = BTreeSet::new();
    for part in text.split(".route(\"").skip(1) {
        let (path, rest) = part.split_once('"').expect("a path");
        let rest = rest.split(".fallback(").next().expect("there is a first part");
        for (word, method) in methods {
            // After a dot or a space: `.delete(write::…)`, not the end of another word.
            let found = rest.match_indices(word).any(|(at, _)| {
                let before = rest[..at].chars().last();
                before.is_some_and(|c| !c.is_alphanumeric() && c != '_')
            });
            if found {
                served.insert((path.to_owned(), method));
            }
        }
    }
    let documented: BTreeSet<_> =
        ROUTES.iter().map(|route| (route.path.to_owned(), route.method)).collect();
    assert_eq!(served, documented);
}

/// The codes that there are and those of the page are the same.
#[test]
fn every_close_code_is_documented() {
    let text = fs::read_to_string(root().join("proto/src/close.rs")).expect("the codes");
    let codes = text.lines().filter_map(|line| line.strip_prefix("pub const ")?.split_once("= "));
    let codes: BTreeSet<u16> =
        codes.map(|(_, code)| code.trim_end_matches(';').parse().expect("a close code")).collect();
    let documented: BTreeSet<u16> = CLOSE_CODES.iter().map(|(code, ..)| *code).collect();
    assert_eq!(codes, documented);
}

/// The schemas of the document are neither wider nor narrower than its examples.
#[test]
fn every_example_of_a_call_fits_its_schema() {
    let document = openapi();
    let operations = document["paths"].as_object().expect("paths").values();
    let operations = operations.flat_map(|path| path.as_object().expect("methods").values());
    let mut checked = 0;
    for operation in operations {
        let answers = operation["responses"].as_object().expect("responses").values();
        let bodies = answers.chain(operation.get("requestBody"));
        let contents = bodies.filter_map(|body| body.get("content")?.as_object());
        for content in contents.flat_map(|content| content.values()) {
            let examples = content.get("examples").and_then(Value::as_object);
            for (name, example) in examples.into_iter().flatten() {
                let fits = fits::check(&document, &content["schema"], &example["value"]);
                fits.unwrap_or_else(|why| panic!("{}, {name}: {why}", operation["operationId"]));
                checked += 1;
            }
        }
    }
    assert!(checked > 30, "the examples are found");
}

fn openapi() -> Value {
    let [(_, text), _] = documents();
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn every_reference_leads_somewhere() {
    let [(_, text), _] = documents();
    let document = openapi();
    assert_eq!(document["openapi"], "3.1.0");
    let schemas = document["components"]["schemas"].as_object().expect("schemas");
    let links = text.split("\"#/components/schemas/").skip(1);
    let names: BTreeSet<_> = links.filter_map(|rest| rest.split('"').next()).collect();
    let lost: Vec<_> = names.iter().filter(|name| !schemas.contains_key(**name)).collect();
    assert!(lost.is_empty(), "no such schemas: {lost:?}");
    let unused: Vec<_> = schemas.keys().filter(|name| !names.contains(name.as_str())).collect();
    assert!(unused.is_empty(), "nothing leads to {unused:?}");
    // A 64-bit integer is a string there as in the schema.
    let seq = &schemas["NewMessage"]["properties"]["seq"];
    assert_eq!(Schema::read().message("NewMessage").field("seq").expect("seq").kind, Kind::Big);
    assert_eq!(seq["type"], "string");
}
