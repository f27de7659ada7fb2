//! What stands for a `{name}` in an example: a sample in the documents, and what the server has
//! really answered in the test. A name is learnt where it first comes in an answer; from there on
//! it must be the same.

use serde_json::Value;
use std::collections::BTreeMap;

/// Values by name.
#[derive(Clone, Debug, Default)]
pub struct Known {
    values: BTreeMap<String, String>,
    /// Unknown names are given their samples.
    samples: bool,
}

/// 2^48: the first position of the first generation.
const FIRST_POSITION: u64 = 1 << 48;

/// What the documents show for a name. Numbered ones are families: `p7` a position, `at7` a time,
/// `w7` a write token.
fn sample(name: &str) -> String {
    if let Some((family, number)) = family(name) {
        return match family {
            Family::Position => (FIRST_POSITION + number).to_string(),
            Family::Time => format!("2026-01-02T03:04:{number:02}.678Z"),
            Family::Write => format!("1.3.{number}"),
        };
    }
    let text = match name {
        "ana" | "ben" | "eva" => name,
        "direct" => "d.c2a5f0e1937b4d68a1e0f4c7b92d5386",
        "group" => "g.8f14e45fceea467a9d2b1c3e5f607182",
        "second" => "g.1679091c5a880faf6fb5e6087eb1b2dc",
        "m1" => "45c48cce2e2d7fbdea1afc51c7c6ad26",
        "m2" => "d3d9446802a44259755d38e6d163e820",
        "m3" => "6512bd43d9caa6e02c990b0a82652dca",
        "m5" => "c20ad4d76fe97759aa27a0c99bff6710",
        "benToken" | "freshToken" => "eyJ0eXAiOiJKV1QiLCJhbGciOiJFZERTQSJ9.eyJzdWIi….8fKq…",
        "expires" | "benExpires" | "evaExpires" | "tabletExpires" | "newExpiry" => {
            "2026-01-03T03:04:05.000Z"
        }
        "url" => "wss://host-2.chat.example/v1/ws",
        "host" => "host-2",
        "epoch" => "17",
        "future" => "18446744073709551615",
        other => panic!("the example's {{{other}}} has no sample in known.rs"),
    };
    text.to_owned()
}

#[derive(Clone, Copy)]
enum Family {
    Position,
    Time,
    Write,
}

fn family(name: &str) -> Option<(Family, u64)> {
    let families = [("p", Family::Position), ("at", Family::Time), ("w", Family::Write)];
    families.into_iter().find_map(|(prefix, family)| {
        let number = name.strip_prefix(prefix)?.parse().ok()?;
        Some((family, number))
    })
}

/// Whether a value can stand for a name, as far as its name tells.
fn fits(name: &str, value: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match family(name) {
        None => !value.is_empty(),
        Some((Family::Position, _)) => digits(value),
        Some((Family::Time, _)) => value.len() == 24 && value.ends_with('Z'),
        Some((Family::Write, _)) => value.split('.').count() == 3 && value.split('.').all(digits),
    }
}

/// The name where the text is `{name}` and nothing else.
fn name_of(text: &str) -> Option<&str> {
    let name = text.strip_prefix('{')?.strip_suffix('}')?;
    name.bytes().all(|b| b.is_ascii_alphanumeric()).then_some(name).filter(|n| !n.is_empty())
}

impl Known {
    /// Knows the documents' sample for every name.
    #[must_use]
    pub fn samples() -> Self {
        Self { samples: true, ..Self::default() }
    }

    /// From now on `name` stands for `value`.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.values.insert(name.to_owned(), value.into());
    }

    fn get(&self, name: &str) -> Option<String> {
        self.values.get(name).cloned().or_else(|| self.samples.then(|| sample(name)))
    }

    /// The text with every `{name}` replaced.
    ///
    /// # Panics
    /// Where a name is not known.
    #[must_use]
    pub fn fill(&self, text: &str) -> String {
        let mut filled = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('{') {
            let (before, from) = rest.split_at(at);
            filled.push_str(before);
            let end = from.find('}').map_or(from.len(), |end| end + 1);
            match name_of(&from[..end]) {
                Some(name) => {
                    let value = self.get(name);
                    filled.push_str(&value.unwrap_or_else(|| panic!("{{{name}}} is not known")));
                    rest = &from[end..];
                }
                None => {
                    filled.push('{');
                    rest = &from[1..];
                }
            }
        }
        filled + rest
    }

    /// Compares an answer with the documented one and learns the names in it.
    ///
    /// # Errors
    /// Where and how they differ; then nothing is learnt.
    pub fn learn(&mut self, documented: &Value, answer: &Value) -> Result<(), String> {
        let mut learnt = self.clone();
        learnt.compare("", documented, answer)?;
        *self = learnt;
        Ok(())
    }

    fn compare(&mut self, place: &str, documented: &Value, answer: &Value) -> Result<(), String> {
        match (documented, answer) {
            (Value::Object(expected), Value::Object(fields)) => {
                for (name, value) in expected {
                    let field = fields.get(name);
                    let field = field.ok_or_else(|| format!("{place}.{name} is not there"))?;
                    self.compare(&format!("{place}.{name}"), value, field)?;
                }
                let extra = fields.keys().find(|name| !expected.contains_key(*name));
                extra.map_or(Ok(()), |name| Err(format!("{place}.{name} is not documented")))
            }
            (Value::Array(expected), Value::Array(items)) => {
                if expected.len() != items.len() {
                    let (has, wants) = (items.len(), expected.len());
                    return Err(format!("{place} has {has} items, {wants} are documented"));
                }
                let mut pairs = (0..).zip(expected.iter().zip(items));
                pairs.try_for_each(|(at, (e, i))| self.compare(&format!("{place}[{at}]"), e, i))
            }
            (Value::String(expected), Value::String(text)) => {
                if let Some(name) = name_of(expected)
                    && !self.values.contains_key(name)
                {
                    if !fits(name, text) {
                        return Err(format!("{place} is {text:?}, which is no {expected}"));
                    }
                    self.set(name, text);
                }
                match self.fill(expected) {
                    expected if expected == *text => Ok(()),
                    expected => Err(format!("{place} is {text:?}, documented is {expected:?}")),
                }
            }
            _ if documented == answer => Ok(()),
            _ => Err(format!("{place} is {answer}, documented is {documented}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_answer_must_have_exactly_the_documented_fields() {
        let documented = json!({"a": "{x}", "b": {"c": ["{x}", 1]}, "at": "{at1}"});
        let at = "2026-01-02T03:04:05.678Z";
        let answer = json!({"a": "v", "b": {"c": ["v", 1]}, "at": at});
        let mut known = Known::default();
        known.learn(&documented, &answer).expect("they agree");
        assert_eq!(known.fill("/v1/{x}?{}{\"y\"}"), "/v1/v?{}{\"y\"}");
        for wrong in [
            json!({"a": "v", "b": {"c": ["w", 1]}, "at": at}),
            json!({"a": "v", "b": {"c": ["v", 2]}, "at": at}),
            json!({"a": "v", "b": {"c": ["v"]}, "at": at}),
            json!({"a": "v", "b": {"c": ["v", 1]}}),
            json!({"a": "v", "b": {"c": ["v", 1]}, "at": at, "more": null}),
            json!({"a": "v", "b": {"c": ["v", 1]}, "at": "today"}),
            json!({"a": "", "b": {"c": ["", 1]}, "at": at}),
        ] {
            let mut known = Known::default();
            assert!(known.learn(&documented, &wrong).is_err(), "{wrong}");
            assert!(known.values.is_empty(), "nothing is learnt from a wrong answer");
        }
    }
}
