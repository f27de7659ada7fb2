//! What the table must have: which calls there are, which errors, and which of them can meet.
//! Commands are read from the schema, paths from the gateway's router, codes from `docs/errors.md`.

use super::{Refusal, Row, fields};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// A command, or a path of the HTTP API.
pub(super) struct Call {
    pub(super) name: &'static str,
    /// Method and path; the members in braces are taken from the call's.
    pub(super) http: &'static [(&'static str, &'static str)],
}

const fn call_of(name: &'static str, http: &'static [(&'static str, &'static str)]) -> Call {
    Call { name, http }
}

#[rustfmt::skip]
pub(super) const CALLS: &[Call] = &[
    call_of("hello", &[("GET", "/v1/ws")]),
    call_of("authenticate", &[]),
    call_of("createChat", &[("POST", "/v1/chats")]),
    call_of("sendMessage", &[("POST", "/v1/messages")]),
    call_of("modifyChat", &[("PATCH", "/v1/chats/{chatId}")]),
    call_of("modifyChatParticipants", &[("PATCH", "/v1/chats/{chatId}/participants")]),
    call_of("markRead", &[]),
    call_of("rejectMessage", &[]),
    call_of("setConnection", &[("PUT", "/v1/connections/{userId}"), ("DELETE", "/v1/connections/{userId}")]),
    call_of("setSettings", &[]),
    call_of("ping", &[]),
    call_of("chats", &[("GET", "/v1/chats")]),
    call_of("chat", &[("GET", "/v1/chats/{chatId}")]),
    call_of("history", &[("GET", "/v1/chats/{chatId}/messages")]),
    call_of("receipts", &[("GET", "/v1/chats/{chatId}/receipts")]),
    call_of("inbox", &[("GET", "/v1/inbox")]),
    call_of("sent", &[("GET", "/v1/messages/sent")]),
    call_of("received", &[("GET", "/v1/messages/received")]),
    call_of("unreceived", &[("GET", "/v1/messages/unreceived")]),
    call_of("devices", &[("GET", "/v1/devices")]),
    call_of("renameDevice", &[("PATCH", "/v1/devices/{deviceId}")]),
    call_of("revokeDevice", &[("DELETE", "/v1/devices/{deviceId}")]),
    call_of("connections", &[("GET", "/v1/connections")]),
    call_of("host", &[("GET", "/v1/hosts/me")]),
    call_of(NO_PATH, &[("GET", "/v1/nothing")]),
];

/// What is asked at a path that there is not.
pub(super) const NO_PATH: &str = "no such path";

const READS: &[&str] =
    &["chats", "chat", "history", "receipts", "inbox", "sent", "received", "unreceived"];
const ABOUT_A_CHAT: &[&str] = &[
    "chat",
    "history",
    "receipts",
    "sendMessage",
    "modifyChat",
    "modifyChatParticipants",
    "rejectMessage",
];
const WITH_BODY: &[&str] = &[
    "createChat",
    "sendMessage",
    "modifyChat",
    "modifyChatParticipants",
    "setConnection",
    "renameDevice",
];
const SOCKET_ONLY: &[&str] = &["markRead", "rejectMessage", "setSettings", "ping", NO_PATH];

/// Which calls can meet an error.
pub(super) enum Can {
    Only(&'static [&'static str]),
    AllBut(&'static [&'static str]),
}

use Can::{AllBut, Only};

/// An error: its code, behind a slash which kind of it; which calls can meet it; why others cannot.
pub(super) struct Column {
    error: &'static str,
    status: u16,
    can: Can,
    why: &'static str,
}

#[rustfmt::skip]
pub(super) const COLUMNS: &[Column] = &[
    column("invalid/malformed", 400, AllBut(&["devices", "host", NO_PATH]), "nothing is read but the token"),
    column("invalid/limit", 400, AllBut(&["hello", "authenticate", "markRead", "setSettings", "ping", "chat", "receipts", "devices", "host", NO_PATH]), "it has no field with a limit: what is too long is no token, no chat id, not this device"),
    column("invalid/enum", 400, Only(&["createChat", "modifyChatParticipants", "setConnection"]), "it has no enum"),
    column("unauthenticated", 401, AllBut(SOCKET_ONLY), "a socket's caller is known since hello; an unknown path asks for no token"),
    column("token_expired", 401, AllBut(SOCKET_ONLY), "a socket is closed with 4004"),
    column("revoked", 401, AllBut(SOCKET_ONLY), "a socket is closed with 4501"),
    column("not_a_member", 403, Only(ABOUT_A_CHAT), "it is about no chat; markRead has no reply: the chat drops a stranger's mark"),
    column("other_identity", 403, Only(&["authenticate"]), "only there a second token is shown"),
    column("no_such_chat", 404, Only(ABOUT_A_CHAT), "it is about no chat, or makes it; markRead has no reply"),
    column("not_found", 404, Only(&["rejectMessage", NO_PATH]), "its path exists"),
    column("method_not_allowed", 405, AllBut(&["authenticate", "markRead", "rejectMessage", "setSettings", "ping", NO_PATH]), "it has no path"),
    column("request_timeout", 408, Only(WITH_BODY), "no body is waited for; a socket that is silent is closed with 4005"),
    column("id_reused", 409, Only(&["createChat", "sendMessage"]), "it has no client id"),
    column("too_large", 413, AllBut(&["chats", "chat", "history", "receipts", "inbox", "sent", "received", "unreceived", "devices", "revokeDevice", "connections", "host", NO_PATH]), "no body is read"),
    column("not_a_websocket", 400, Only(&["hello"]), "its path is no socket's"),
    column("corrupt", 500, AllBut(&["hello", "authenticate", "createChat", "sendMessage", "modifyChat", "modifyChatParticipants", "markRead", "setSettings", "ping", "renameDevice", "revokeDevice", "devices", "host", NO_PATH]), "it decodes no stored row, or what fails is told as outcome_unknown"),
    column("not_implemented", 501, Only(&[]), "reserved"),
    column("unavailable", 503, AllBut(&["authenticate", "ping", NO_PATH]), "it asks nobody"),
    column("outcome_unknown", 503, Only(&["createChat", "sendMessage", "modifyChat", "modifyChatParticipants", "rejectMessage", "setConnection", "setSettings", "renameDevice", "revokeDevice"]), "it changes nothing whose outcome is told"),
    column("too_many_connections", 503, AllBut(&["authenticate", "markRead", "rejectMessage", "setSettings", "ping"]), "its connection was counted at hello"),
    column("rejected_by_recipient", 422, Only(&["rejectMessage"]), "only a recipient can refuse a message"),
    column("not_allowed", 403, Only(&["modifyChat", "modifyChatParticipants"]), "it needs no admin"),
    column("direct_chat", 403, Only(&["modifyChatParticipants"]), "it does not touch a membership"),
    column("no_such_member", 404, Only(&["modifyChatParticipants"]), "it names no member"),
    column("chat_full", 409, Only(&["modifyChatParticipants"]), "it adds nobody; a chat made too large is invalid"),
    column("last_admin", 409, Only(&["modifyChatParticipants"]), "it takes no role away"),
    column("you_blocked", 403, Only(&["sendMessage"]), "it is no message to a person"),
    column("connection_conflict", 409, Only(&["setConnection"]), "it has no version"),
    column("block_not_synced", 409, Only(&["setConnection"]), "it lifts no block"),
    column("blocked", 403, Only(&["sendMessage"]), "it is no message to a person"),
    column("too_many_devices", 403, Only(&["hello"]), "only hello adds a device"),
    column("no_such_device", 404, Only(&["renameDevice", "revokeDevice"]), "it names no device"),
    column(FIRST, 0, AllBut(&["hello", "chats", "chat", "history", "receipts", "inbox", "sent", "received", "unreceived", "devices", "renameDevice", "revokeDevice", "connections", "host", NO_PATH]), "it may come first, or is no command"),
];

/// A command before `hello`: no error, the socket is closed.
pub(super) const FIRST: &str = "close 4502";

/// What needs faults, or another process: error, calls (none: all that can), and where it is
/// provoked instead: a file and a test in it, or why nowhere.
#[rustfmt::skip]
const ELSEWHERE: &[(&str, &[&str], &str, &str)] = &[
    ("not_a_websocket", &["hello"], "api-gateway/tests/gateway/websocket.rs", "what_is_not_a_hello_ends_the_session"),
    ("too_many_connections", &[], "api-gateway/tests/gateway/connections.rs", "one_connection_too_many_is_told_so_and_a_websocket_counts_until_it_ends"),
    ("outcome_unknown", &["sendMessage", "renameDevice", "revokeDevice"], "api-gateway/tests/gateway/refusals.rs", "a_service_that_does_not_answer_leaves_a_write_unknown_and_a_read_undone"),
    ("outcome_unknown", &["rejectMessage"], "", "needs a log that takes a record and does not say so"),
    ("unavailable", &["devices", "connections", "host"], "api-gateway/tests/gateway/refusals.rs", "a_service_that_does_not_answer_leaves_a_write_unknown_and_a_read_undone"),
    ("unavailable", &["hello", "createChat", "sendMessage", "modifyChat", "modifyChatParticipants", "markRead", "rejectMessage", "setConnection", "setSettings", "renameDevice", "revokeDevice"], "", "needs a log or a store that is down"),
    ("corrupt", &[], "", "needs a damaged row"),
];

/// The close codes that no row ends with, and where they are met, or why nowhere.
#[rustfmt::skip]
const CLOSES_ELSEWHERE: &[(u16, &str, &str)] = &[
    (4001, "api-gateway/tests/gateway/websocket.rs", "hello_is_answered_with_the_place_of_the_users_host"),
    (4002, "tests/tests/e2e/ends.rs", "a_drain_sends_clients_away_and_a_restart_forgets_nothing"),
    (4003, "tests/tests/e2e/sockets.rs", "a_client_that_does_not_read_is_cut_with_4003_and_loses_nothing"),
    (4004, "tests/tests/e2e/sockets.rs", "a_token_that_ends_closes_with_4004"),
    (4005, "tests/tests/e2e/sockets.rs", "silence_closes_with_4005"),
    (4501, "tests/tests/e2e/errors/stage.rs", "closed().await, 4501"),
    (4503, "tests/tests/e2e/sockets.rs", "a_newer_socket_replaces_the_older"),
];

const fn column(error: &'static str, status: u16, can: Can, why: &'static str) -> Column {
    Column { error, status, can, why }
}

impl Column {
    fn can(&self, call: &str) -> bool {
        match self.can {
            Only(calls) => calls.contains(&call),
            AllBut(calls) => !calls.contains(&call),
        }
    }
}

pub(super) fn call(name: &str) -> &'static Call {
    CALLS.iter().find(|call| call.name == name).unwrap_or_else(|| panic!("{name}: not in CALLS"))
}

pub(super) fn reads() -> impl Iterator<Item = &'static str> {
    READS.iter().copied()
}

pub(super) fn can(call: &str, error: &str) -> bool {
    COLUMNS.iter().any(|column| column.error == error && column.can(call))
}

pub(super) fn status_and_code(error: &str) -> (u16, &'static str) {
    let column = COLUMNS.iter().find(|column| column.error == error);
    let column = column.unwrap_or_else(|| panic!("{error}: not in COLUMNS"));
    (column.status, column.error.split('/').next().unwrap_or_default())
}

/// Fails with every pair of call and error that has no row, and with every row that has no pair.
pub(super) fn check(rows: &[Row]) {
    let mut wrong = differences("commands", fields::names(), socket_calls());
    wrong.extend(differences("paths", routes(), paths()));
    wrong.extend(codes(rows));
    for call in CALLS {
        for Column { error, why, .. } in COLUMNS {
            let (can, called) = (can(call.name, error), call.name);
            let here = rows.iter().any(|row| (row.call, row.error) == (called, *error));
            let elsewhere = ELSEWHERE.iter().any(|(e, calls, ..)| {
                e == error && can && (calls.is_empty() || calls.contains(&called))
            });
            match (can, here, elsewhere) {
                (true, false, false) => wrong.push(format!("{called}, {error}: no row")),
                (false, true, _) => wrong.push(format!("{called}, {error}: a row, but {why}")),
                (true, true, true) => wrong.push(format!("{called}, {error}: here and elsewhere")),
                _ => {}
            }
        }
        if !rows.iter().any(|row| row.call == call.name && row.refusal == Refusal::Not)
            && call.name != NO_PATH
        {
            wrong.push(format!("{}: nothing shows that its sample is legal", call.name));
        }
    }
    let stale = rows.iter().filter(|r| !r.error.is_empty() && !can(r.call, r.error));
    wrong.extend(stale.map(|row| format!("{}, {}: no such pair", row.call, row.error)));
    let tests = ELSEWHERE.iter().map(|(.., file, test)| (*file, *test));
    for (file, test) in tests.chain(CLOSES_ELSEWHERE.iter().map(|(_, file, test)| (*file, *test))) {
        if !file.is_empty() && !text(file).contains(test) {
            wrong.push(format!("{file} has no {test}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The codes and close codes of the docs against the table.
fn codes(rows: &[Row]) -> Vec<String> {
    let docs = text("docs/errors.md");
    let tables = docs.lines().filter_map(|line| line.strip_prefix('|')?.strip_suffix('|'));
    let mut statuses = BTreeMap::new();
    let mut closes = BTreeSet::new();
    for cells in tables.map(|line| line.split('|').map(str::trim).collect::<Vec<_>>()) {
        if let [number, status, code, ..] = cells[..]
            && number.parse::<u16>().is_ok()
            && let Some(code) = code.strip_prefix('`').and_then(|code| code.strip_suffix('`'))
        {
            statuses.insert(code.to_owned(), status.to_owned());
        } else if let Ok(code) = cells[0].parse::<u16>() {
            closes.insert(code);
        }
    }
    let known = COLUMNS.iter().filter(|column| column.status != 0);
    let known: Vec<_> = known.map(|column| status_and_code(column.error)).collect();
    let mut wrong = differences(
        "codes",
        statuses.keys().map(String::as_str),
        known.iter().map(|(_, code)| *code),
    );
    for (status, code) in known {
        let told = statuses.get(code).is_some_and(|told| told.contains(&status.to_string()));
        wrong.extend((!told).then(|| format!("docs/errors.md tells no {status} {code}")));
    }
    let met = rows.iter().filter_map(|row| match row.refusal {
        Refusal::Close(code) | Refusal::ErrorAndClose(code) => Some(code),
        _ => None,
    });
    let met: BTreeSet<u16> = met.chain(CLOSES_ELSEWHERE.iter().map(|(code, ..)| *code)).collect();
    if closes != met {
        wrong.push(format!("close codes: docs/errors.md {closes:?}, here {met:?}"));
    }
    wrong
}

/// What stands in one of two sets only.
fn differences<T: AsRef<str>, U: AsRef<str>>(
    what: &str,
    there: impl Iterator<Item = T>,
    here: impl Iterator<Item = U>,
) -> Vec<String> {
    let there: BTreeSet<String> = there.map(|t| t.as_ref().to_owned()).collect();
    let here: BTreeSet<String> = here.map(|t| t.as_ref().to_owned()).collect();
    assert!(!there.is_empty(), "{what} are not found");
    there.symmetric_difference(&here).map(|one| format!("{what}: {one} is not in both")).collect()
}

fn socket_calls() -> impl Iterator<Item = &'static str> {
    CALLS.iter().map(|call| call.name).filter(|name| fields::tag(name) > 0)
}

fn paths() -> impl Iterator<Item = String> {
    let calls = CALLS.iter().filter(|call| !["hello", NO_PATH].contains(&call.name));
    calls.flat_map(|call| call.http).map(|(method, path)| format!("{method} {path}"))
}

/// `.route("<path>", get(…).post(…))` of the gateway's router.
fn routes() -> impl Iterator<Item = String> {
    let mut routes = Vec::new();
    for line in text("api-gateway/src/service.rs").lines() {
        let Some(rest) = line.trim().strip_prefix(".route(\"") else { continue };
        let (path, handlers) = rest.split_once('"').expect("a path ends");
        for method in ["get", "post", "put", "patch", "delete"] {
            let call = format!("{method}(");
            for (at, _) in handlers.match_indices(&call) {
                // Not the end of a longer name.
                if matches!(handlers.as_bytes()[at - 1], b' ' | b'.') {
                    routes.push(format!("{} {path}", method.to_uppercase()));
                }
            }
        }
    }
    routes.into_iter()
}

/// The text of a file of the repository, or of all files in a folder.
fn text(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    match fs::read_dir(&path) {
        Ok(entries) => entries
            .filter_map(|entry| {
                let path = entry.expect("an entry").path();
                path.is_file().then(|| fs::read_to_string(path).expect("text"))
            })
            .collect(),
        Err(_) => fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())),
    }
}
