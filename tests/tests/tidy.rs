//! Rules about the text of this repository that no lint knows (CONTRIBUTING.md tells their reasons).

use chaski_testkit::report::passed;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A file is read at one sitting.
const LINES_MAX: usize = 500;
/// Files that may be longer, and why.
const LONG: &[(&str, &str)] = &[];
/// Laws that nothing upholds or tests yet, and why.
const LATER: &[(&str, &str)] = &[];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the repository")
}

/// All text files of the repository by their path in it, but what is built, kept by git, or a
/// dependency's.
fn files() -> Vec<(String, String)> {
    let root = root();
    let mut files = Vec::new();
    let mut open = vec![root.clone()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).expect("a readable folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            if path.is_dir() {
                let skipped = dir == root && matches!(name.as_str(), ".git" | "target" | "data");
                if !skipped && name != "node_modules" && name != "dist" {
                    open.push(path);
                }
            } else if let Ok(text) = fs::read_to_string(&path) {
                let path = path.strip_prefix(&root).expect("inside");
                files.push((path.to_string_lossy().into_owned(), text));
            }
        }
    }
    assert!(files.len() > 100, "the repository is found");
    files
}

/// Fails with everything that a rule finds.
#[track_caller]
fn check(case: &str, rule: &str, find: impl Fn(&str, &str) -> Option<String>) {
    let found: Vec<_> = files()
        .iter()
        .filter_map(|(path, text)| Some(format!("{path}: {}", find(path, text)?)))
        .collect();
    assert!(found.is_empty(), "{rule}\n{}", found.join("\n"));
    passed("tidy", "workspace", case).expect("the mark");
}

#[test]
fn every_file_says_what_it_is_for() {
    let rule = "a file begins with `//!`: what it is for and what it must not know";
    check("every_file_says_what_it_is_for", rule, |path, text| {
        let tests_of_a_file = path.ends_with("/tests.rs") || path.ends_with("_tests.rs");
        let exempt = !path.ends_with(".rs") || tests_of_a_file;
        (!exempt && !text.starts_with("//! ")).then(|| "has no header".into())
    });
}

#[test]
fn files_are_short() {
    check("files_are_short", "a file of more than 500 lines is two", |path, text| {
        let lines = text.lines().count();
        let long = LONG.iter().find(|(name, _)| *name == path);
        match (path.ends_with(".rs") && lines > LINES_MAX, long) {
            (true, None) => Some(format!("{lines} lines")),
            (false, Some(_)) => Some("is short now: take it from the list".into()),
            _ => None,
        }
    });
}

#[test]
fn no_path_of_a_machine() {
    // Put together, so that this file does not find itself.
    let paths = [
        concat!("/ho", "me/"),
        concat!("/ro", "ot/"),
        concat!("/wo", "rk/"),
        concat!("/Us", "ers/"),
    ];
    check("no_path_of_a_machine", "the repository works wherever it is cloned", |path, text| {
        // Where programs inside a container live is the container's own matter.
        let container = path.ends_with("Dockerfile") || path.ends_with("compose.yaml");
        let found = paths.iter().find(|p| text.contains(**p))?;
        (!container).then(|| format!("names a place under {found}"))
    });
}

#[test]
fn no_test_is_ignored() {
    let mark = concat!("#[ig", "nore");
    check("no_test_is_ignored", "a test runs or is not there", |path, text| {
        (path.ends_with(".rs") && text.contains(mark)).then(|| "has an ignored test".into())
    });
}

#[test]
fn every_law_is_named_where_it_is_kept() {
    let sources: Vec<_> = files()
        .into_iter()
        .filter(|(path, _)| path.ends_with(".rs") && !path.starts_with("crates/chaski-core/"))
        .filter(|(path, _)| path != "tests/tests/tidy.rs")
        .collect();
    for n in 1..=8 {
        let law = format!("L{n}");
        let named = |text: &str| text.split(|c: char| !c.is_alphanumeric()).any(|word| word == law);
        let found = sources.iter().any(|(_, text)| named(text));
        let later = LATER.iter().find(|(name, _)| *name == law);
        match later {
            None => assert!(
                found,
                "{law}: no code outside of chaski-core says that it keeps or tests it"
            ),
            Some((_, why)) => assert!(!found, "{law} is named now: take it from the list ({why})"),
        }
    }
    passed("tidy", "workspace", "every_law_is_named_where_it_is_kept").expect("the mark");
}
