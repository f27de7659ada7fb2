//! The command line from outside: a server and the client commands as processes of their own.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use serde_json::Value;
use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpListener,
    path::Path,
    process::{Child, Command, Output, Stdio},
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
        let dir = tempfile::tempdir().unwrap();
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
