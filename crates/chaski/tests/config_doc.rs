//! The reference page of the configuration names every key with its default, and no other key.

use chaski::config::Config;
use std::collections::BTreeMap;

const PAGE: &str = include_str!("../../../docs/configuration.md");

/// `key = value` lines of TOML, with the table's name before the key.
fn defaults(toml: &str) -> BTreeMap<String, String> {
    let (mut keys, mut table) = (BTreeMap::new(), String::new());
    for line in toml.lines() {
        if let Some(name) = line.strip_prefix('[') {
            table = format!("{}.", name.trim_end_matches(']'));
        } else if let Some((key, value)) = line.split_once(" = ") {
            keys.insert(format!("{table}{key}"), value.to_owned());
        }
    }
    keys
}

/// Rows that begin with a key and a default, both as code: "| `key` | `default` | …".
fn documented(page: &str) -> BTreeMap<String, String> {
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    let pairs = rows.filter_map(|row| {
        let (key, rest) = row.split_once("` | `")?;
        let (value, _) = rest.split_once("` |")?;
        Some((key.to_owned(), value.to_owned()))
    });
    pairs.collect()
}

#[test]
fn the_page_lists_every_key_with_its_default_and_no_other() {
    let toml = chaski_runtime::to_toml(&Config::default()).expect("the defaults are TOML");
    let (code, page) = (defaults(&toml), documented(PAGE));
    assert!(code.len() > 40, "the defaults are read: {code:?}");
    for (key, value) in &code {
        assert_eq!(page.get(key), Some(value), "docs/configuration.md, key {key}");
    }
    let unknown: Vec<_> = page.keys().filter(|key| !code.contains_key(*key)).collect();
    assert!(unknown.is_empty(), "docs/configuration.md names keys that do not exist: {unknown:?}");
}
