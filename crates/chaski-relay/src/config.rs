//! When sockets are relayed, and how many.

use serde::{Deserialize, Serialize};

/// When a socket at a host that does not serve its user is relayed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum When {
    /// At the second wrong host in a row: the first one tells the client the right one.
    #[default]
    Second,
    /// At once. No client is told where a host is.
    Always,
    /// Never.
    Never,
}

/// How long a client that was told to move counts as coming from there, in seconds.
const ROW_SECONDS: i64 = 60;
/// Tells a host, in the query of its address, when its client was told to come to it.
const MOVED: &str = "moved=";

/// The address for a client that is at a wrong host now.
pub(crate) fn marked(url: &str, now_ms: i64) -> String {
    let sign = if url.contains('?') { '&' } else { '?' };
    format!("{url}{sign}{MOVED}{}", now_ms.div_euclid(1000))
}

/// Whether the client that asked for this was at a wrong host just before. The clocks of two hosts
/// differ, so what lies ahead counts too.
pub(crate) fn was_moved(query: Option<&str>, now_ms: i64) -> bool {
    let mut fields = query.unwrap_or_default().split('&');
    fields.find_map(|field| field.strip_prefix(MOVED)).is_some_and(|at| {
        let at = at.parse::<i64>().unwrap_or(i64::MIN);
        at.abs_diff(now_ms.div_euclid(1000)) <= ROW_SECONDS.unsigned_abs()
    })
}

/// What a pair of processes may have open (L8).
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most sockets.
    pub sockets_max: usize,
    /// What one socket may hold in each direction that is not taken yet, in bytes; one message may
    /// exceed it. At least 65,536.
    pub window_bytes: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_was_told_to_move_just_now_counts_as_moved() {
        const NOW_MS: i64 = 1_800_000_000_000;
        assert_eq!(marked("ws://h/v1/ws", NOW_MS), "ws://h/v1/ws?moved=1800000000");
        assert_eq!(marked("ws://h/v1/ws?a=b", NOW_MS), "ws://h/v1/ws?a=b&moved=1800000000");
        for (query, moved) in [
            (None, false),
            (Some(""), false),
            (Some("moved"), false),
            (Some("moved=1"), false),
            (Some("moved=x"), false),
            (Some("removed=1800000000"), false),
            (Some("moved=1800000000"), true),
            (Some("a=b&moved=1799999940"), true),
            (Some("moved=1799999939"), false),
            (Some("moved=1800000060&a=b"), true),
            (Some("moved=1800000061"), false),
        ] {
            assert_eq!(was_moved(query, NOW_MS), moved, "{query:?}");
        }
    }
}
