//! A row over HTTP: the members of a command go into the path, the query or the body.

use super::{
    Answer, Ask, Refusal, Row, Way, cover, fields::sample, problem, rejected, stage::Stage,
};
use reqwest::Method;
use serde_json::{Map, Value};
use std::fmt::Write as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// The limits of a body and of a JSON frame, and of a protobuf frame.
pub(super) const BODY_MAX: usize = 1_310_720;
pub(super) const BINARY_MAX: usize = 524_288;

pub(super) async fn ask(stage: &mut Stage, row: &Row) -> Answer {
    let members = match &row.ask {
        Ask::Body(body) => body(stage, Way::Http),
        _ => sample(stage, row.call, Way::Http),
    };
    if let Some(sent) = members["clientMessageId"].as_str() {
        stage.sent = sent.to_owned();
    }
    let Value::Object(mut members) = members else { panic!("{}: not an object", row.what) };
    let (mut method, path) = route(row.call, &members);
    let seen = members.remove("Chaski-Token");
    let mut path = fill(path, &mut members);
    let takes_body = takes_body(method);
    if !takes_body {
        let query = members.iter().map(|(name, value)| format!("{name}={}", encode(&text(value))));
        let query: Vec<_> = query.collect();
        let _ = write!(path, "?{}", query.join("&"));
    }
    let body = match &row.ask {
        Ask::Text(text) => text.clone(),
        Ask::Huge => format!("{{\"pad\":\"{}\"}}", "x".repeat(BODY_MAX - 9)),
        _ => Value::Object(members).to_string(),
    };
    if let Ask::Method(other) = &row.ask {
        method = other.as_str();
    }
    let token = stage.bearer(row.token, "http");
    if matches!(row.ask, Ask::Stall) {
        return stalled(stage, method, &path, &token.expect("a good one")).await;
    }
    let method = Method::from_bytes(method.as_bytes()).expect("a method");
    let mut request = stage.client.request(method, format!("{}{path}", stage.url));
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    if let Some(seen) = seen {
        request = request.header("Chaski-Token", text(&seen));
    }
    if row.call == "hello" {
        for (name, value) in [
            ("connection", "upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA=="),
        ] {
            request = request.header(name, value);
        }
    } else if takes_body {
        request = request.body(body);
    }
    let answer = request.send().await.expect("the server answers");
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    let bytes = answer.bytes().await.expect("a whole answer");
    let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    if status < 400 {
        return rejected(stage, row, Way::Http).await;
    }
    let kind = headers.get("content-type").map(|kind| kind.to_str().expect("text"));
    let sound = kind == Some("application/problem+json")
        && body["status"] == status
        && headers.contains_key("www-authenticate") == (status == 401)
        && headers.contains_key("retry-after") == (status == 503)
        && headers.contains_key("allow") == (status == 405);
    let problem = match sound {
        true => problem(&body),
        false => (status, format!("not as a problem should be: {headers:?} {body}")),
    };
    let connection = body["connection"].clone();
    Answer { refusal: Refusal::Error, problem: Some(problem), connection }
}

/// The method and the path with its `{members}`.
fn route(call: &str, members: &Map<String, Value>) -> (&'static str, &'static str) {
    let http = cover::call(call).http;
    // `setConnection` is two calls.
    let ends = members.get("status").is_some_and(|status| status == "NONE");
    let (method, path) = http[usize::from(ends && http.len() > 1)];
    (method, path)
}

pub(super) fn takes_body(method: &str) -> bool {
    !matches!(method, "GET" | "DELETE")
}

/// Moves members into the path; `status` is said by the method where it ends a connection.
fn fill(path: &str, members: &mut Map<String, Value>) -> String {
    if members.get("status").is_some_and(|status| status == "NONE") {
        members.remove("status");
    }
    let part = |part: &str| match part.strip_prefix('{').and_then(|p| p.strip_suffix('}')) {
        Some(name) => encode(&text(&members.remove(name).expect("the path has it"))),
        None => part.to_owned(),
    };
    path.split('/').map(part).collect::<Vec<_>>().join("/")
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'.' | b'_' | b'~' | b'-' => encoded.push(byte.into()),
            _ if byte.is_ascii_alphanumeric() => encoded.push(byte.into()),
            _ => {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}

/// A request whose body never comes.
async fn stalled(stage: &Stage, method: &str, path: &str, token: &str) -> Answer {
    let address = stage.url.strip_prefix("http://").expect("an address");
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("it is reached");
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\
         Content-Length: 10\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("it is taken");
    let mut heard = Vec::new();
    let hear = async {
        while !heard.contains(&b'}') && stream.read_buf(&mut heard).await.is_ok_and(|n| n > 0) {}
    };
    let in_time = tokio::time::timeout(chaski_tests::PATIENCE, hear).await;
    let heard = String::from_utf8_lossy(&heard);
    assert!(in_time.is_ok(), "{method} {path}: {heard}");
    let body = heard.find('{').map_or(Value::Null, |at| {
        serde_json::from_str(&heard[at..]).expect("the body is a problem")
    });
    Answer { refusal: Refusal::Error, problem: Some(problem(&body)), connection: Value::Null }
}
