//! Each call × each error of the contract, by every way there is: JSON and protobuf over a socket,
//! HTTP. The table stands in `errors/table.rs`; `errors/cover.rs` fails where a call, an error or a
//! field has no row.

#[path = "errors/cover.rs"]
mod cover;
#[path = "errors/fields.rs"]
mod fields;
#[path = "errors/line.rs"]
mod line;
#[path = "errors/stage.rs"]
mod stage;
#[path = "errors/table.rs"]
mod table;
#[path = "errors/web.rs"]
mod web;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use chaski_proto::v1::client_frame::Command;
use chaski_tests::{Format, PATIENCE, Set, World};
use line::{Line, Reply};
use reqwest::Method;
use serde_json::{Value, json};
use stage::{Stage, Token};

/// A way to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Json,
    Protobuf,
    Http,
}

use Way::{Http, Json, Protobuf};

/// How often it is tried to give up sooner than a verdict comes.
const HASTE_MAX: usize = 100;

/// The errors that carry the present state of a connection.
const WITH_STATE: [&str; 2] = ["connection_conflict", "block_not_synced"];

type Body = Box<dyn Fn(&Stage, Way) -> Value + Send + Sync>;

/// What is asked.
enum Ask {
    /// A command; over HTTP its members go into the path, the query or the body.
    Body(Body),
    /// What stands in JSON where the command's object should.
    Text(String),
    /// What only protobuf can say.
    Command(Command),
    /// The rest of a protobuf frame, after its id.
    Bytes(Vec<u8>),
    /// More than any limit of size.
    Huge,
    /// A method that the path does not take.
    Method(Method),
    /// A body that does not come.
    Stall,
}

/// How it is refused; over HTTP always by a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    /// Not at all: what is legal, to the limit.
    Not,
    /// By `error`; the socket stays open.
    Error,
    /// By `error`, and the socket is closed.
    ErrorAndClose(u16),
    /// The socket is closed.
    Close(u16),
    /// It is accepted, then `messageRejected`.
    Rejected,
}

/// One way to provoke one error of one call.
struct Row {
    call: &'static str,
    /// A column of [`cover::COLUMNS`]; empty where nothing is refused.
    error: &'static str,
    what: String,
    ask: Ask,
    ways: Vec<Way>,
    refusal: Refusal,
    token: Token,
    /// In the world that waits for nothing.
    hasty: bool,
}

/// What came of a row by one way.
#[derive(Debug, PartialEq)]
struct Answer {
    refusal: Refusal,
    problem: Option<(u16, String)>,
    connection: Value,
}

pub(crate) async fn each_call_answers_each_error_the_same_by_every_way(set: Set) {
    let rows = table::rows();
    cover::check(&rows);
    let mut stage = Stage::set(World::shared(set).await).await;
    run(&mut stage, rows.into_iter().filter(|row| !row.hasty)).await;
}

pub(crate) async fn what_does_not_come_in_time_is_503_or_408(set: Set) {
    let world = World::start(set, |config| {
        config.gateway.verdict_timeout_ms = 0;
        config.gateway.body_timeout_ms = 200;
        config.delivery.verdict_ms = 0;
        config.connections.verdict_ms = 0;
        config.connections.unblock_needs_sync = true;
        config.messages.read_your_write_ms = 1;
        config.sender.blocks = serde_json::from_value(json!("visible")).expect("a choice");
    });
    let world = world.await;
    let mut stage = Stage::hasty(&world).await;
    run(&mut stage, table::rows().into_iter().filter(|row| row.hasty)).await;
    drop(stage);
    world.end().await;
}

/// Runs the rows; fails with all that are not answered as they should be.
async fn run(stage: &mut Stage, rows: impl Iterator<Item = Row>) {
    let (mut wrong, mut asked) = (Vec::new(), 0);
    for row in rows {
        let mut connections = Vec::new();
        for &way in &row.ways {
            let expected = expected(&row, way);
            let as_expected =
                |answer: &Answer| (answer.refusal, &answer.problem) == (expected.0, &expected.1);
            let mut answer = answer(stage, &row, way).await;
            asked += 1;
            // A verdict can be quicker than no patience at all.
            let mut tries = if row.error == "outcome_unknown" { HASTE_MAX } else { 0 };
            while tries > 0 && !as_expected(&answer) {
                tries -= 1;
                answer = self::answer(stage, &row, way).await;
            }
            if !as_expected(&answer) {
                let Row { call, error, what, .. } = &row;
                wrong.push(format!("{call}, {error}, {what}, {way:?}: {answer:?}"));
            }
            connections.push(answer.connection);
        }
        let told = connections.iter().all(|c| c.is_object() == WITH_STATE.contains(&row.error));
        if !(told && connections.windows(2).all(|two| two[0] == two[1])) {
            wrong.push(format!("{}, {}: the connection {connections:?}", row.call, row.what));
        }
    }
    assert!(asked > 0);
    assert!(wrong.is_empty(), "{} of {asked}:\n{}", wrong.len(), wrong.join("\n"));
}

async fn answer(stage: &mut Stage, row: &Row, way: Way) -> Answer {
    match way {
        Http => web::ask(stage, row).await,
        Json | Protobuf => {
            let answer = tokio::time::timeout(PATIENCE / 2, ask(stage, row, way)).await;
            answer.unwrap_or_else(|_| {
                let problem = Some((0, "nothing is said".into()));
                Answer { refusal: Refusal::Not, problem, connection: Value::Null }
            })
        }
    }
}

fn expected(row: &Row, way: Way) -> (Refusal, Option<(u16, String)>) {
    let refusal = match row.refusal {
        Refusal::ErrorAndClose(_) | Refusal::Close(_) if way == Http => Refusal::Error,
        refusal => refusal,
    };
    let problem = match refusal {
        Refusal::Not | Refusal::Close(_) => None,
        _ => {
            let (status, code) = cover::status_and_code(row.error);
            Some((status, code.to_owned()))
        }
    };
    (refusal, problem)
}

/// Asks over a socket.
async fn ask(stage: &mut Stage, row: &Row, way: Way) -> Answer {
    let format = if way == Json { Format::Json } else { Format::Protobuf };
    // What ends the socket gets one of its own.
    let closes = matches!(row.refusal, Refusal::Close(_) | Refusal::ErrorAndClose(_));
    let mut own = match (row.greets(), row.error, closes) {
        (true, ..) | (_, cover::FIRST, _) => Some(Line::open(&stage.url, None, format).await),
        (_, _, true) => Some(Line::hello(&stage.url, &stage.token("spare"), "spare", format).await),
        _ => None,
    };
    let message = stage.message(row, way);
    let line = own.as_mut().unwrap_or(&mut stage.lines[way as usize]);
    // These have no reply: that of the ping behind them comes after an error, if there is one.
    let silent = matches!(row.call, "markRead" | "rejectMessage");
    let reply = match silent && matches!(row.refusal, Refusal::Not | Refusal::Rejected) {
        true => line.say_and_ping(message).await,
        false => line.ask(message).await,
    };
    let frame = match reply {
        Reply::Closed(code) => {
            return Answer {
                refusal: Refusal::Close(code),
                problem: None,
                connection: Value::Null,
            };
        }
        Reply::Frame(frame) => frame,
    };
    if frame["error"].is_object() {
        let error = &frame["error"];
        let problem = problem(error);
        let connection = error["connection"].clone();
        assert!(error["message"].as_str().is_some_and(|m| !m.is_empty()), "{frame}");
        assert_eq!(error["retryAfterMs"].is_u64(), problem.0 == 503, "{frame}");
        let refusal = match closes {
            true => Refusal::ErrorAndClose(line.closed().await),
            // It is still usable.
            false => match line.ask(Line::ping).await {
                Reply::Frame(frame) if frame["pong"].is_object() => Refusal::Error,
                other => panic!("{} after {}: {other:?}", row.call, row.what),
            },
        };
        return Answer { refusal, problem: Some(problem), connection };
    }
    rejected(stage, row, way).await
}

/// What becomes of what was accepted.
async fn rejected(stage: &mut Stage, row: &Row, way: Way) -> Answer {
    let none = Answer { refusal: Refusal::Not, problem: None, connection: Value::Null };
    if row.refusal != Refusal::Rejected {
        return none;
    }
    let (name, value, line) = match row.call {
        "rejectMessage" => ("messageId", stage.ids.bens[way as usize].clone(), &mut stage.ben_line),
        // What is sent over HTTP is told to the sockets.
        _ => ("clientMessageId", stage.sent.clone(), &mut stage.lines[way as usize % 2]),
    };
    let event = line.event(|frame| frame["messageRejected"][name] == json!(value)).await;
    let rejection = &event["messageRejected"];
    let by = if row.call == "rejectMessage" { &stage.ids.ana } else { "" };
    assert_eq!(rejection["byUserId"], by, "{event}");
    Answer {
        refusal: Refusal::Rejected,
        problem: Some(problem(rejection)),
        connection: Value::Null,
    }
}

fn problem(refused: &Value) -> (u16, String) {
    let status = refused["status"].as_u64().and_then(|status| status.try_into().ok());
    (status.expect("a status"), refused["code"].as_str().expect("a code").to_owned())
}

fn base64(bytes: usize) -> String {
    BASE64_STANDARD.encode(vec![7_u8; bytes])
}
