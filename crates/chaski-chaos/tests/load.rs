//! Load, history and judge against a whole system on embedded storage in this process, which is
//! restarted meanwhile. Faults from outside are another matter: they need processes.

use chaski::{
    config::Config,
    node::{Node, Roles},
};
use chaski_chaos::{
    judge::Kind,
    load::LoadOptions,
    run::{Interrupted, RunOptions, Target, run},
};
use flate2::read::GzDecoder;
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufRead as _, BufReader},
    path::Path,
    time::Duration,
};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(60);

fn config(data: &Path) -> Config {
    Config {
        data: data.into(),
        listen: "127.0.0.1:0".into(),
        admin_listen: "127.0.0.1:0".into(),
        log_filter: "off".into(),
        ..Config::default()
    }
}

async fn start(config: &Config) -> Node {
    let node = Box::pin(Node::start(config.clone(), &Roles::of(&[]), true)).await;
    let node = node.expect("the system starts");
    let ready = timeout(PATIENCE, node.ready()).await.expect("ready in time");
    ready.expect("no part of it failed");
    node
}

async fn stop(node: Node) {
    let ended = timeout(PATIENCE, Box::pin(node.run_until(async {}))).await;
    ended.expect("drains in time").expect("no part of it failed");
}

fn options(config: &Config, reports: &Path) -> RunOptions {
    RunOptions {
        load: LoadOptions {
            seed: 7,
            users: 40,
            chats: 20,
            rate: 40.0,
            read_patience: Duration::from_secs(30),
        },
        length: Duration::from_secs(12),
        quiet_timeout: PATIENCE,
        target: Target::Url { url: format!("http://{}", config.listen), dev_key: config.dev_key() },
        reports: reports.into(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_system_that_restarts_under_load_breaks_no_law() {
    chaski_auth::install_crypto_provider();
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&dir.path().join("data"));
    let mut node = start(&config).await;
    config.listen = node.public_url.strip_prefix("http://").unwrap().into();

    let stop_token = CancellationToken::new();
    let options = options(&config, dir.path());
    let mut table = Vec::new();
    let restarts = async {
        for _ in 0..2 {
            sleep(Duration::from_secs(4)).await;
            stop(node).await;
            node = start(&config).await;
        }
        node
    };
    let (report, node) = tokio::join!(Box::pin(run(&options, &stop_token, &mut table)), restarts);
    stop(node).await;

    let (report, table) = (report.unwrap(), String::from_utf8(table).unwrap());
    assert!(report.passed, "{table}");
    let all: BTreeMap<Kind, u64> = Kind::ALL.into_iter().map(|kind| (kind, 0)).collect();
    assert_eq!(report.violations, all);
    // It was no idle run: everything that is judged was there.
    let clients = &report.clients;
    assert!(report.accepted > 300 && report.sends.unknown_settled == report.sends.unknown);
    assert!(report.gaps >= 40 && report.gap_ms_max > 0.0, "{table}");
    assert!(clients.hidden > 0 && clients.member_changes > 0, "{table}");
    assert_eq!((clients.devices, clients.users, clients.chats), (92, 40, 20));

    // The file of the run says the same as the report.
    let path = dir.path().join(format!("chaos-{}.history.jsonl.gz", report.started_at));
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for line in BufReader::new(GzDecoder::new(File::open(path).unwrap())).lines().skip(1) {
        let entry: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
        *counts.entry(entry["type"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    assert_eq!(counts["shown"], clients.events_shown);
    assert_eq!(counts["connected"], clients.connects);
    let json = dir.path().join(format!("chaos-{}.json", report.started_at));
    let json: serde_json::Value = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
    assert_eq!(json["violations"]["shownAfterBlock"], 0);
    assert_eq!(json["accepted"], report.accepted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_stopped_ends_at_once() {
    let dir = tempfile::tempdir().unwrap();
    // Nobody is there to connect to.
    let config = config(&dir.path().join("data"));
    fs::create_dir_all(&config.data).unwrap();
    let mut options = options(&config, dir.path());
    options.target =
        Target::Url { url: "http://127.0.0.1:1".into(), dev_key: dir.path().join("key.pem") };
    let stop_token = CancellationToken::new();
    let stopping = async {
        sleep(Duration::from_millis(300)).await;
        stop_token.cancel();
    };
    let mut table = Vec::new();
    let ended =
        async { tokio::join!(Box::pin(run(&options, &stop_token, &mut table)), stopping).0 };
    let error = timeout(PATIENCE, ended).await.expect("it ends").unwrap_err();
    assert!(error.is::<Interrupted>(), "{error:#}");
}
