//! Which processes a local cluster has, with what addresses and environment.

use super::{Settings, inherited};
use crate::{config::Config, replay::cluster::Process};
use anyhow::Context as _;
use std::{net::TcpListener, path::Path};

/// Name, role, and the roles it plays. A delivery host takes what comes over its WebSockets into
/// the log by itself.
const PROCESSES: [(&str, &str, &[&str]); 10] = [
    ("allocator-1", "allocator", &["allocator"]),
    ("connections-1", "connections", &["connections"]),
    ("delivery-1", "delivery", &["delivery", "sender"]),
    ("delivery-2", "delivery", &["delivery", "sender"]),
    ("gateway-1", "gateway", &["gateway"]),
    ("generator-1", "generator", &["generator"]),
    ("generator-2", "generator", &["generator"]),
    ("messages-1", "messages", &["messages"]),
    ("messages-2", "messages", &["messages"]),
    ("sender-1", "sender", &["sender"]),
];

/// What names the backends in the environment.
pub(super) const BACKENDS: [&str; 3] = ["CHASKI_LOG", "CHASKI_STORE", "CHASKI_COORDINATOR"];

pub(super) fn backends(config: &Config) -> [&String; 3] {
    [&config.log, &config.store, &config.coordinator]
}

/// The processes, not started yet.
pub(super) fn plan(
    config: &Config,
    settings: &Settings,
    dir: &Path,
    key: &Path,
) -> anyhow::Result<Vec<Process>> {
    let program = std::env::current_exe().context("cannot tell where this program is")?;
    let program = program.into_os_string().into_string().ok().context("its path is not UTF-8")?;
    let mut ports = Ports::default();
    let mut processes = Vec::new();
    for (name, role, roles) in PROCESSES {
        let mut argv = vec![program.clone(), "up".into(), "--dev".into()];
        argv.extend(roles.iter().flat_map(|role| ["--role".into(), (*role).into()]));
        argv.extend(settings.as_args()?);
        let mut env = inherited();
        let listen = match role {
            "gateway" => config.listen.clone(),
            _ => ports.address()?,
        };
        let mut set = |name: &str, value: String| env.insert(name.into(), value);
        set("CHASKI_LISTEN", listen);
        set("CHASKI_ADMIN_LISTEN", ports.address()?);
        set("CHASKI_RPC_LISTEN", ports.address()?);
        set("CHASKI_HOST_ID", name.into());
        set("CHASKI_ADVERTISED_URL", String::new());
        set("CHASKI_DATA", dir.display().to_string());
        set("CHASKI_DEV_KEY", key.display().to_string());
        for (name, url) in BACKENDS.into_iter().zip(backends(config)) {
            set(name, url.clone());
        }
        if role == "allocator" {
            // A killed process comes back within seconds, or its work is given to others.
            set("CHASKI_ALLOCATOR_GRACE_MS", "1000".into());
        }
        let log = dir.join(format!("{name}.log"));
        processes.push(Process { name: name.into(), role: role.into(), pid: 0, argv, env, log });
    }
    Ok(processes)
}

/// Free ports, held until all are chosen. Below those that the system gives to outgoing
/// connections (from 32768 on), one of which could sit on a port while its process is restarted.
#[derive(Default)]
struct Ports(Vec<TcpListener>);

const PORTS: std::ops::Range<u16> = 23_000..32_000;

impl Ports {
    fn address(&mut self) -> anyhow::Result<String> {
        let mut candidates = PORTS.filter_map(|port| TcpListener::bind(("127.0.0.1", port)).ok());
        let listener = candidates.next().context("no free port on 127.0.0.1")?;
        let address = listener.local_addr()?.to_string();
        self.0.push(listener);
        Ok(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_process_has_its_own_addresses_and_the_same_backends() {
        let config = Config { log: "kafka://h:1".into(), ..Config::default() };
        let settings = Settings { config: None, set: vec!["partitions=4".into()] };
        let dir = Path::new("/c");
        let processes = plan(&config, &settings, dir, Path::new("/c/key")).unwrap();
        let names: BTreeSet<_> = processes.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names.len(), PROCESSES.len());
        let mut addresses = BTreeSet::new();
        for process in &processes {
            for name in ["CHASKI_LISTEN", "CHASKI_ADMIN_LISTEN", "CHASKI_RPC_LISTEN"] {
                assert!(addresses.insert(process.env[name].clone()), "{name} twice");
            }
            assert_eq!(process.env["CHASKI_LOG"], "kafka://h:1");
            assert_eq!(process.env["CHASKI_HOST_ID"], process.name);
            assert!(process.argv.ends_with(&["--set".into(), "partitions=4".into()]));
        }
        let gateway = processes.iter().find(|p| p.role == "gateway").unwrap();
        assert_eq!(gateway.env["CHASKI_LISTEN"], config.listen);
        let delivery = processes.iter().find(|p| p.name == "delivery-2").unwrap();
        assert!(delivery.argv.join(" ").contains("--role delivery --role sender"));
    }
}
