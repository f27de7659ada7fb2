//! Which crate of this workspace may depend on which: every edge that `cargo metadata` knows, compared
//! with the tables below. Direction: `chaski` → services → {proto, runtime, ports} → core; services
//! never see one another, and only programs see the backends. Vendor crates are `deny.toml`'s.

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};
use chaski_testkit::report::passed;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// A crate, the crates of ours that it may depend on, and the rule behind that.
type Rule = (&'static str, &'static [&'static str], &'static str);

#[rustfmt::skip]
const EDGES: &[Rule] = &[
    // The core, and what stands on it.
    ("chaski-planted", &[], "a switch for bugs on purpose, off in every program but one: it sees nothing of ours"),
    ("chaski-core", &[], "the core is ids, events and pure folds: it sees nothing of ours"),
    ("chaski-ports", &["core"], "ports are traits and their laws, in the core's words"),
    ("chaski-proto", &["core"], "proto holds wire and stored types and how they map to the core's"),
    ("chaski-runtime", &["core"], "the runtime knows processes and tasks, no wire type and no port"),
    ("chaski-auth", &["core", "proto"], "tokens know ids and problems, no port"),
    ("chaski-rpc", &["core", "proto"], "gRPC knows the wire only, and where the core places a user"),
    ("chaski-relay", &["auth", "core", "proto"], "a relay knows whose socket it carries, not what is said on it, nor the network"),
    ("chaski-records", &["core", "ports", "proto"], "reading the logs is for all services, so it sees none"),
    // Backends: one vendor each.
    ("chaski-embedded", &["core", "ports"], "a backend sees its ports only"),
    ("chaski-log-kafka", &["core", "planted", "ports"], "a backend sees its ports only"),
    ("chaski-store-cql", &["core", "ports"], "a backend sees its ports only"),
    ("chaski-coordinator-zookeeper", &["core", "ports"], "a backend sees its ports only"),
    ("chaski-backends",
        &["core", "ports", "embedded", "log-kafka", "store-cql", "coordinator-zookeeper"],
        "chaski-backends makes ports from URLs, it is no service"),
    // Services: never one another, never a backend.
    ("chaski-api-gateway", &["auth", "ports", "proto", "relay"], "a service sees neither services nor backends; the gateway no domain rule"),
    ("chaski-sender-service", &["core", "planted", "ports", "proto", "runtime"], "a service sees neither services nor backends"),
    ("chaski-delivery-service", &["auth", "core", "planted", "ports", "proto", "records", "relay", "runtime"], "a service sees neither services nor backends"),
    ("chaski-message-service", &["core", "planted", "ports", "proto", "records", "runtime"], "a service sees neither services nor backends"),
    ("chaski-connection-service", &["core", "planted", "ports", "proto", "records", "runtime"], "a service sees neither services nor backends"),
    ("chaski-host-allocator", &["core", "ports", "proto", "runtime"], "a service sees neither services nor backends"),
    // Clients, programs, tests.
    ("chaski-client", &["core", "proto"], "a client knows the wire, and how ids are made: what it can do, anybody's client can"),
    ("chaski",
        &["api-gateway", "auth", "backends", "client", "connection-service", "core", "delivery-service", "host-allocator",
          "message-service", "planted", "ports", "proto", "relay", "rpc", "runtime", "sender-service"],
        "the binary composes; it sees neither a vendor's backend nor test code"),
    ("chaski-chaos", &["chaski", "auth", "client", "core", "planted", "ports", "runtime"],
        "the fault harness sees the system from outside: as processes and by the public contract"),
    ("chaski-docs", &[], "what the documents say is checked from outside: it sees no code of ours"),
    ("chaski-ports-conformance", &["core", "ports"], "the suite sees no backend: it runs on all of them"),
    ("chaski-ownership-model", &["core"], "the model knows the origin filter and no code it is a model of; nothing depends on it"),
    ("chaski-testkit", &[], "the kit is for all tests, so it sees none of ours"),
    ("chaski-tests",
        &["chaski", "auth", "backends", "client", "core", "docs", "ports", "ports-conformance", "proto", "testkit"],
        "tests compose whole systems as the binary does, and look at them by ports, wire and processes"),
];

/// What a crate's own tests, examples and benches may see beside.
const DEV_EDGES: &[Rule] = &[
    (
        "chaski-connection-service",
        &["embedded"],
        "a service's tests may use the embedded backend, never another service or a server's backend",
    ),
    (
        "chaski-delivery-service",
        &["embedded"],
        "a service's tests may use the embedded backend, never another service or a server's backend",
    ),
    (
        "chaski-docs",
        &["proto"],
        "the documents are made from the schema: no service, so nothing is told that only code knows",
    ),
    (
        "chaski-host-allocator",
        &["embedded"],
        "a service's tests may use the embedded backend, never another service or a server's backend",
    ),
    (
        "chaski-message-service",
        &["embedded"],
        "a service's tests may use the embedded backend, never another service or a server's backend",
    ),
    (
        "chaski-sender-service",
        &["embedded"],
        "a service's tests may use the embedded backend, never another service or a server's backend",
    ),
];

/// What the core must not bring in: it has no I/O, no clock, no randomness and no tasks.
const NOT_IN_CORE: &[&str] = &[
    "tokio",
    "async-",
    "futures",
    "mio",
    "hyper",
    "socket2",
    "smol",
    "rand",
    "fastrand",
    "getrandom",
    "uuid",
    "time",
    "chrono",
    "tracing",
    "metrics",
    "serde",
];

fn metadata() -> Metadata {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    let mut command = MetadataCommand::new();
    command.manifest_path(manifest).other_options(["--locked".to_owned()]);
    command.exec().expect("cargo metadata")
}

type Edges = BTreeSet<(String, String)>;

fn edges_of(metadata: &Metadata, of: impl Fn(DependencyKind) -> bool) -> Edges {
    let ours = metadata.workspace_packages();
    let names: BTreeSet<&str> = ours.iter().map(|package| package.name.as_str()).collect();
    let edges = ours.iter().flat_map(|package| {
        let used = package.dependencies.iter().filter(|d| of(d.kind));
        used.map(|d| (package.name.to_string(), d.name.clone()))
    });
    edges.filter(|(_, to)| names.contains(to.as_str())).collect()
}

/// The tables leave the prefix out.
fn full_name(name: &str) -> String {
    if name == "chaski" { name.to_owned() } else { format!("chaski-{name}") }
}

#[track_caller]
fn check(edges: &Edges, table: &[Rule], kind: &str) {
    let allowed: Edges = table
        .iter()
        .flat_map(|(from, to, _)| to.iter().map(|to| ((*from).to_owned(), full_name(to))))
        .collect();
    let mut wrong = Vec::new();
    for (from, to) in edges.difference(&allowed) {
        let rule = table.iter().find(|(name, ..)| name == from);
        let rule = rule.map_or("a crate must have a row in the table", |(_, _, rule)| rule);
        wrong.push(format!("{from} → {to} ({kind}) is not allowed: {rule}"));
    }
    for (from, to) in allowed.difference(edges) {
        wrong.push(format!("{from} → {to} ({kind}) is in the table, but is gone: remove it there"));
    }
    assert!(wrong.is_empty(), "see tests/tests/edges.rs\n{}", wrong.join("\n"));
}

#[test]
fn every_edge_is_allowed() {
    let metadata = metadata();
    for package in metadata.workspace_packages() {
        let name = package.name.as_str();
        assert!(
            EDGES.iter().any(|(n, ..)| *n == name),
            "{name} has no row in tests/tests/edges.rs"
        );
    }
    check(&edges_of(&metadata, |kind| kind != DependencyKind::Development), EDGES, "normal");
    passed("edges", "workspace", "every_edge_is_allowed").expect("the mark");
}

#[test]
fn every_dev_edge_is_allowed() {
    let edges = edges_of(&metadata(), |kind| kind == DependencyKind::Development);
    check(&edges, DEV_EDGES, "dev");
    passed("edges", "workspace", "every_dev_edge_is_allowed").expect("the mark");
}

#[test]
fn the_core_is_pure() {
    let metadata = metadata();
    let nodes = &metadata.resolve.as_ref().expect("a resolved graph").nodes;
    let nodes: BTreeMap<_, _> = nodes.iter().map(|node| (&node.id, node)).collect();
    let core = metadata.packages.iter().find(|p| p.name.as_str() == "chaski-core");
    let mut open = vec![&core.expect("chaski-core").id];
    let mut seen: BTreeSet<_> = open.iter().copied().collect();
    while let Some(id) = open.pop() {
        let linked = |kind| matches!(kind, DependencyKind::Normal);
        let deps = nodes[id].deps.iter().filter(|d| d.dep_kinds.iter().any(|k| linked(k.kind)));
        open.extend(deps.map(|d| &d.pkg).filter(|id| seen.insert(id)));
    }
    for id in seen {
        let name = metadata[id].name.as_str();
        let banned = NOT_IN_CORE.iter().find(|word| match word.strip_suffix('-') {
            Some(_) => name.starts_with(**word),
            None => name == **word || name.starts_with(&format!("{word}-")),
        });
        assert_eq!(
            banned, None,
            "chaski-core brings in {name}: it has no I/O, clock or randomness"
        );
    }
    passed("edges", "workspace", "the_core_is_pure").expect("the mark");
}

/// A service's crate may hold a program; its library stays blind to the backends.
#[test]
fn only_programs_name_the_backends() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let services = [
        "api-gateway",
        "sender-service",
        "delivery-service",
        "message-service",
        "connection-service",
        "host-allocator",
    ];
    for service in services {
        let mut open = vec![root.join(service).join("src")];
        while let Some(path) = open.pop() {
            if path.is_dir() {
                let entries = fs::read_dir(&path).expect("a readable folder");
                open.extend(entries.map(|entry| entry.expect("an entry").path()));
            } else if !path.ends_with("main.rs") {
                let text = fs::read_to_string(&path).expect("a readable file");
                let path = path.display();
                assert!(
                    !text.contains("chaski_backends"),
                    "{path} names chaski_backends: only main.rs may"
                );
            }
        }
    }
    passed("edges", "workspace", "only_programs_name_the_backends").expect("the mark");
}
