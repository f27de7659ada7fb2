//! The command line from outside: a server and the client commands as processes of their own.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use bytes::Bytes;
use chaski_backends::BackendOptions;
use chaski_core::{
    ChatId, Partition, UserId,
    placement::Placement,
    record::{Action, Body, Command as Told, Content, Input, Send},
};
use chaski_ports::{Clock as _, Log, LogRecord, ProducePolicy, Record, SystemClock, Topic};
use chaski_proto::{encode_input, v1::DeadLetter};
use prost::Message as _;
use serde_json::Value;
use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpListener,
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::Arc,
};

const CHASKI: &str = env!("CARGO_BIN_EXE_chaski");

/// `chaski up --dev` with data of its own; killed at the end of the test at the latest.
struct Server {
    child: Child,
    url: String,
    dir: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap())
    }

    /// The same on the data of one that has ended.
    fn start_in(dir: tempfile::TempDir) -> Self {
        let mut up = chaski(dir.path(), "http://unused");
        up.args(["up", "--dev"]).env("CHASKI_LISTEN", "127.0.0.1:0");
        up.env("CHASKI_ADMIN_LISTEN", "127.0.0.1:0").stdout(Stdio::piped());
        up.stderr(File::create(dir.path().join("err")).unwrap());
        let mut child = up.spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        let url = said.find_map(|line| line.unwrap().strip_prefix("ready ").map(str::to_owned));
        // Read on, so that the server never writes to a closed pipe.
        std::thread::spawn(move || said.for_each(drop));
        Self { child, url: url.expect("the server ended before it was ready"), dir }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = chaski(self.dir.path(), &self.url);
        command.args(args);
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs a command and writes to its standard input.
    fn run_with(&self, args: &[&str], input: &str) -> Output {
        let mut command = self.command(args);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// What a command says that must succeed.
    fn says(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Waits until a user's own history has this text: what is shown may not be stored yet.
    fn stores(&self, user: &str, text: &str) {
        let has_it = || {
            let out = tempfile::tempdir().unwrap();
            self.says(&["download", "--user", user, "--out", out.path().to_str().unwrap()]);
            let files = std::fs::read_dir(out.path()).unwrap();
            let files = files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap());
            files.into_iter().any(|rows| rows.contains(&format!("\"{text}\"")))
        };
        assert!((0..100).any(|_| has_it()), "{text:?} is not stored");
    }

    /// What a command says that must fail.
    fn refuses(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(!output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8(output.stderr).unwrap()
    }

    /// SIGTERM; the server must drain and end well. Another one goes on with its data.
    fn restart(mut self) -> Self {
        self.stop();
        let dir = std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap());
        Self::start_in(dir)
    }

    /// SIGTERM; the server must drain and end well.
    fn stop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The binary with nothing of the caller's environment that would change what it does.
fn chaski(dir: &Path, url: &str) -> Command {
    let mut command = Command::new(CHASKI);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CHASKI_")) {
        command.env_remove(name);
    }
    command.env("CHASKI_DATA", dir.join("data")).env("CHASKI_URL", url).env("RUST_BACKTRACE", "0");
    command
}

fn json_lines(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn texts(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["newMessage"]["text"].as_str().unwrap()).collect()
}

#[test]
fn what_is_sent_is_listened_to_chatted_about_and_decoded() {
    let mut server = Server::start();

    // Words of one message, then lines of standard input.
    let one = json_lines(&server.run(&["send", "--user", "ana", "--to", "ben", "hello", "there"]));
    let more = ["send", "--user", "ana", "--to", "ben", "-"];
    let more = json_lines(&server.run_with(&more, "one\n\ntwo\n"));
    assert_eq!((one.len(), more.len()), (1, 2), "an empty line is no message");
    let chat = one[0]["chatId"].as_str().unwrap();
    assert!(more.iter().all(|accepted| accepted["chatId"] == chat));
    // The same id again is the same message, and no second event.
    let again = ["send", "--user", "ana", "--to", "ben", "--id", "order-7", "paid"];
    assert_eq!(json_lines(&server.run(&again)), json_lines(&server.run(&again)));

    let events = json_lines(&server.run(&["listen", "--user", "ben", "--max", "3"]));
    assert_eq!(texts(&events), ["hello there", "one", "two"]);
    // Behind a position; another device begins at the beginning.
    let after = events[2]["position"].as_str().unwrap();
    let next = ["listen", "--user", "ben", "--resume-after", after, "--max", "1", "--protobuf"];
    assert_eq!(texts(&json_lines(&server.run(&next))), ["paid"]);
    let other = ["listen", "--user", "ben", "--device", "d2", "--max", "1", "--json"];
    let events = json_lines(&server.run(&other));
    assert_eq!(texts(&events), ["hello there"]);

    // Ben's line is shown once, at its place, after the history.
    let said = server.run_with(&["chat", "--user", "ben", "--to", "ana"], "fine\n");
    assert!(said.status.success());
    let said = String::from_utf8(said.stdout).unwrap();
    let said: Vec<&str> =
        said.lines().filter_map(|line| line.split_once(' ')).map(|l| l.1).collect();
    assert_eq!(said, ["ana: hello there", "ana: one", "ana: two", "ana: paid", "ben: fine"]);

    // Everything into files, once it is stored (a run takes longer than that).
    let (out, history, whole) = (0..20)
        .map(|run| {
            let out = server.dir.path().join(format!("out{run}"));
            let download = ["download", "--user", "ben", "--out", out.to_str().unwrap()];
            assert!(server.run(&download).status.success());
            let history = out.join(format!("{chat}.jsonl"));
            let whole = std::fs::read_to_string(&history).unwrap_or_default();
            (out, history, whole)
        })
        .find(|(.., whole)| whole.contains("fine"))
        .unwrap();
    let rows: Vec<Value> = whole.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let got: Vec<_> = rows.iter().map(|row| row["text"].as_str().unwrap()).collect();
    assert_eq!(got, ["hello there", "one", "two", "paid", "fine"]);
    let seqs: Vec<_> = rows.iter().map(|row| row["seq"].as_str().unwrap()).collect();
    assert_eq!(seqs, ["1", "2", "3", "4", "5"]);
    // What a killed run wrote and did not note comes once all the same.
    let download = ["download", "--user", "ben", "--out", out.to_str().unwrap()];
    let noted = out.join("download.json");
    let known: Value = serde_json::from_slice(&std::fs::read(&noted).unwrap()).unwrap();
    let mut before = known.clone();
    before["lengths"].as_object_mut().unwrap().remove(&format!("{chat}.jsonl"));
    before["state"]["open"] = serde_json::json!([{"chat": chat, "after": 0, "last": 5}]);
    before["state"]["places"] = 0.into();
    std::fs::write(&noted, before.to_string()).unwrap();
    assert!(server.run(&download).status.success());
    assert_eq!(std::fs::read_to_string(&history).unwrap(), whole);
    assert_eq!(serde_json::from_slice::<Value>(&std::fs::read(&noted).unwrap()).unwrap(), known);

    // While the server has the log, `decode` says what to do; afterwards it reads it.
    let decode = ["decode", "chaski.recipients"];
    let refused = String::from_utf8(server.run(&decode).stderr).unwrap();
    assert!(refused.contains("stop that first"), "{refused}");
    server.stop();
    let records = json_lines(&server.run(&decode));
    let bens =
        records.iter().filter(|record| record["key"] == "ben" && record["type"] == "message");
    let bens: Vec<_> = bens.map(|record| record["text"].as_str().unwrap()).collect();
    assert_eq!(bens, ["hello there", "one", "two", "paid", "fine"]);
    assert!(records.iter().any(|record| record["messageId"] == one[0]["messageId"]));
    let cursors = String::from_utf8(server.run(&["cursor", "show"]).stdout).unwrap();
    assert_eq!(cursors.lines().count(), 1 + 3 * 12, "{cursors}");
    let letters = server.run(&["dead-letters", "list"]);
    assert_eq!(String::from_utf8(letters.stdout).unwrap(), "no dead letters\n");
}

/// The embedded log of a server that is stopped.
async fn log_of(server: &Server) -> Arc<dyn Log> {
    let url = format!("embedded:{}", server.dir.path().join("data").display());
    chaski_backends::open_log(&url.parse().unwrap(), &BackendOptions::default()).await.unwrap()
}

/// A record of ben's partition that holds this text.
async fn record_with(log: &dyn Log, partition: Partition, text: &str) -> LogRecord {
    let start = log.bounds(Topic::Recipients, partition).await.unwrap().start;
    let mut reader = log.reader(Topic::Recipients, partition, start).await.unwrap();
    loop {
        let records = reader.next().await.unwrap();
        let holds = |r: &LogRecord| r.value.windows(text.len()).any(|w| w == text.as_bytes());
        if let Some(found) = records.into_iter().find(holds) {
            return found;
        }
    }
}

async fn bury(log: &dyn Log, (topic, partition): (Topic, Partition), record: (u64, Bytes, Bytes)) {
    let (offset, key, value) = record;
    let (topic, cause) = (topic.name().into(), "an older version".into());
    let by_role = "test".into();
    let letter = DeadLetter { topic, partition: partition.0, offset, cause, key, value, by_role };
    let record = Record {
        key: "letter".into(),
        value: letter.encode_to_vec().into(),
        timestamp_ms: SystemClock.now_ms(),
        record_type: "dead-letter",
        schema: chaski_proto::SCHEMA,
        traceparent: None,
    };
    let producer = log.producer(ProducePolicy::GiveUp).unwrap();
    producer.append(Topic::DeadLetters, Partition(0), record).unwrap().await.unwrap();
}

#[test]
fn what_was_buried_takes_effect_once_and_a_consumer_goes_back_to_a_place_it_has_saved() {
    let server = Server::start();
    let send = ["send", "--user", "ana", "--to", "ben"];
    server.says(&[&send[..], &["one"]].concat());
    server.says(&["listen", "--user", "ben", "--max", "1"]);
    server.stores("ben", "one");
    let server = server.restart();
    server.says(&[&send[..], &["two"]].concat());
    server.says(&["listen", "--user", "ben", "--device", "d2", "--max", "2"]);
    server.stores("ben", "two");
    let mut server = server;
    server.stop();

    // Given a message that ana was told is accepted, twice among the dead letters, and a record of
    // ben's partition.
    let (ana, ben): (UserId, UserId) = ("ana".parse().unwrap(), "ben".parse().unwrap());
    let (placement, chat) = (Placement::new(12), ChatId::direct(&ana, &ben));
    let (bens, chats) = (placement.of_user(&ben), placement.of_chat(&chat));
    let content = Content { body: Body::Text("buried".into()), attachments: Vec::new() };
    let (to, key) = (Some(ben), "late".parse().unwrap());
    let message = Send { to, key, content: content.into(), sent_at: None };
    let accepted_at = SystemClock.now_ms() - 3_600_000;
    let (device, action) = ("cli".parse().unwrap(), Action::Send(message));
    let command = Told { chat, user: ana, device, accepted_at, action };
    let value = encode_input(&Input::Command(command));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let place = runtime.block_on(async {
        let log = log_of(&server).await;
        let two = record_with(&*log, bens, "two").await;
        for offset in [120, 120, 121] {
            let record = (offset, Bytes::from(chat.to_string()), value.clone());
            bury(&*log, (Topic::NewMessages, chats), record).await;
        }
        bury(&*log, (Topic::Recipients, bens), (two.offset.0, two.key, two.value)).await;
        two.offset
    });
    drop(runtime);

    // Then it is appended again where it is safe, and for the other one there is another way.
    let replay = ["dead-letters", "replay"];
    let dry = server.says(&[&replay[..], &["--dry-run"]].concat());
    assert!(dry.contains("2 would be appended again, 1 left"), "{dry}");
    for _ in 0..2 {
        let told = server.says(&replay);
        assert!(told.contains("2 appended again, 1 left"), "{told}");
    }
    let only = |place: &str| [&replay[..], &["--only", place]].concat().join(" ");
    let refused = |command: &str| server.refuses(&command.split(' ').collect::<Vec<_>>());
    assert!(refused(&only("new-messages/3/4711")).contains("there is no such dead letter"));
    assert!(refused(&only(&format!("recipients/{bens}/{place}"))).contains("see above"));
    let goes_back = format!("cursor set messages --partition {bens} --before {place}");
    assert!(dry.contains(&goes_back), "{dry}");

    let set = |rest: &str| format!("cursor set {rest} --partition {bens}");
    assert!(refused(&set("generator --to 1")).contains("snapshots"));
    assert!(refused(&set("delivery --to 1")).contains("keeps no cursor"));
    assert!(refused(&set("messages --to 999999")).contains("no watermark is stored with 999999"));
    assert!(refused(&set("messages")).contains("--before"));
    let says = |command: &str| server.says(&command.split(' ').collect::<Vec<_>>());
    let would = says(&format!("{goes_back} --dry-run"));
    assert!(would.contains("would go on from"), "{would}");
    let went = says(&goes_back);
    let went_to = went.split("goes on from ").nth(1).and_then(|rest| rest.split(',').next());
    let went_to: u64 = went_to.unwrap().parse().unwrap();
    assert!(went_to <= place.0, "{went}");
    assert!(says(&goes_back).contains("already"));

    // When it runs again, everything is there once, in ben's order.
    let server = Server::start_in(std::mem::replace(&mut server.dir, tempfile::tempdir().unwrap()));
    server.says(&[&send[..], &["three"]].concat());
    let listen = ["listen", "--user", "ben", "--device", "d3", "--max", "4"];
    let events = json_lines(&server.run(&listen));
    assert_eq!(texts(&events), ["one", "two", "buried", "three"]);
    server.stores("ben", "three");
    let mut server = server;
    server.stop();
    let shown = server.says(&["cursor", "show", "--partition", &bens.to_string()]);
    let row = shown.lines().find(|line| line.starts_with("messages")).unwrap();
    let next: u64 = row.split_whitespace().nth(4).unwrap().parse().unwrap();
    assert!(next > place.0, "it went on from there: {shown}");
    let stored = ["cursor", "show", "--stored", "--partition", &bens.to_string()];
    let stored = server.says(&stored);
    assert!(stored.lines().any(|line| line.contains(&format!(" {went_to} "))), "{stored}");
}

#[test]
fn errors_say_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let (data, send) = (dir.path().join("data"), ["send", "--user", "ana", "--to", "ben", "hi"]);
    // Free a moment ago, and nobody listens on it.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let refused = |args: &[&str]| {
        let url = format!("http://127.0.0.1:{port}");
        let output = chaski(dir.path(), &url).args(args).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(refused(&send).contains("export CHASKI_DEV_KEY="));
    std::fs::create_dir(&data).unwrap();
    chaski_auth::DevKey::load_or_create(data.join("dev-key.pem")).unwrap();
    assert!(refused(&send).contains("./dev up"));
    assert!(refused(&["listen", "--user", "ana"]).contains("./dev up"));
    assert!(refused(&["cluster", "up"]).contains("backends.sh up"));
    assert!(refused(&["decode", "nonsense"]).contains("new-messages"));
}

#[test]
fn values_from_standard_input_are_decoded() {
    let dir = tempfile::tempdir().unwrap();
    let mut decode = chaski(dir.path(), "http://unused");
    decode.args(["decode", "--stdin", "--topic", "alerts"]);
    let mut child = decode.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    // kind = "k", then a byte that begins no field.
    child.stdin.take().unwrap().write_all(b"CgFr\n/w==\n").unwrap();
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(child.wait().unwrap().success());
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["value"]["kind"], "k");
    assert!(lines[1]["undecodable"].is_string() && lines[1]["valueBase64"] == "/w==");
}
