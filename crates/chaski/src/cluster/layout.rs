//! Which processes a local cluster has, with what addresses and environment.

use super::Process;
use anyhow::Context as _;
use std::{
    collections::BTreeMap,
    hash::{BuildHasher as _, RandomState},
    net::TcpListener,
    path::{Path, PathBuf},
};

/// Name, role, and the roles it plays. A delivery host takes what comes over its WebSockets into
/// the log by itself.
const PROCESSES: [(&str, &str, &[&str]); 15] = [
    ("allocator-1", "allocator", &["allocator"]),
    ("allocator-2", "allocator", &["allocator"]),
    ("connections-1", "connections", &["connections"]),
    ("connections-2", "connections", &["connections"]),
    ("delivery-1", "delivery", &["delivery", "sender"]),
    ("delivery-2", "delivery", &["delivery", "sender"]),
    ("delivery-3", "delivery", &["delivery", "sender"]),
    ("gateway-1", "gateway", &["gateway"]),
    ("gateway-2", "gateway", &["gateway"]),
    ("generator-1", "generator", &["generator"]),
    ("generator-2", "generator", &["generator"]),
    ("messages-1", "messages", &["messages"]),
    ("messages-2", "messages", &["messages"]),
    ("sender-1", "sender", &["sender"]),
    ("sender-2", "sender", &["sender"]),
];

/// What the processes of a cluster have in common.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The `chaski` binary.
    pub program: PathBuf,
    /// Arguments for all of them, behind those that tell their roles.
    pub args: Vec<String>,
    /// The environment of all of them; what tells them apart is set above it.
    pub env: BTreeMap<String, String>,
    /// The public address, which the first gateway has. Empty: a free one.
    pub listen: String,
    /// The file of the development key.
    pub dev_key: PathBuf,
}

impl Layout {
    /// What names the log, the store and the coordinator in the environment.
    pub const BACKENDS: [&str; 3] = ["CHASKI_LOG", "CHASKI_STORE", "CHASKI_COORDINATOR"];

    /// The processes, not started yet, with free addresses and their logs in `dir`.
    ///
    /// # Errors
    /// No ports are free, or a path is not UTF-8.
    pub fn plan(&self, dir: &Path) -> anyhow::Result<Vec<Process>> {
        let program = self.program.to_str().context("the program's path is not UTF-8")?;
        let mut ports = Ports::new();
        let mut processes = Vec::new();
        for (name, role, roles) in PROCESSES {
            let mut argv = vec![program.to_owned(), "up".into(), "--dev".into()];
            argv.extend(roles.iter().flat_map(|role| ["--role".into(), (*role).into()]));
            argv.extend(self.args.iter().cloned());
            let listen = match name {
                "gateway-1" if !self.listen.is_empty() => self.listen.clone(),
                _ => ports.address()?,
            };
            let mut env = self.env.clone();
            let mut set = |name: &str, value: String| env.insert(name.into(), value);
            set("CHASKI_LISTEN", listen);
            set("CHASKI_ADMIN_LISTEN", ports.address()?);
            set("CHASKI_RPC_LISTEN", ports.address()?);
            set("CHASKI_HOST_ID", name.into());
            set("CHASKI_ADVERTISED_URL", String::new());
            set("CHASKI_RPC_ADVERTISED", String::new());
            set("CHASKI_DATA", dir.display().to_string());
            set("CHASKI_DEV_KEY", self.dev_key.display().to_string());
            if role == "allocator" {
                // A killed process comes back within seconds, or its work is given to others.
                set("CHASKI_ALLOCATOR_GRACE_MS", "1000".into());
            }
            let log = dir.join(format!("{name}.log"));
            processes.push(Process {
                name: name.into(),
                role: role.into(),
                pid: 0,
                argv,
                env,
                log,
            });
        }
        Ok(processes)
    }
}

/// Free ports, held until all are chosen. Below those that the system gives to outgoing
/// connections (from 32768 on), one of which could sit on a port while its process is restarted;
/// and not the first ones there are, or another cluster would take one at such a moment.
struct Ports {
    first: u16,
    held: Vec<TcpListener>,
}

const PORTS: std::ops::Range<u16> = 23_000..32_000;

impl Ports {
    fn new() -> Self {
        let random = RandomState::new().hash_one(());
        let first = PORTS.start + (random % PORTS.len() as u64) as u16;
        Self { first, held: Vec::new() }
    }

    fn address(&mut self) -> anyhow::Result<String> {
        let after = PORTS.filter(|port| *port >= self.first);
        let mut candidates = after.chain(PORTS.filter(|port| *port < self.first));
        let free = candidates.find_map(|port| TcpListener::bind(("127.0.0.1", port)).ok());
        let listener = free.context("no free port on 127.0.0.1")?;
        let address = listener.local_addr()?.to_string();
        self.held.push(listener);
        Ok(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_process_has_its_own_addresses_and_the_same_backends() {
        let layout = Layout {
            program: "/bin/chaski".into(),
            args: vec!["--set".into(), "partitions=4".into()],
            env: BTreeMap::from([("CHASKI_LOG".into(), "kafka://h:1".into())]),
            listen: "127.0.0.1:8080".into(),
            dev_key: "/c/key".into(),
        };
        let processes = layout.plan(Path::new("/c")).unwrap();
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
        assert_eq!(gateway.env["CHASKI_LISTEN"], layout.listen);
        let delivery = processes.iter().find(|p| p.name == "delivery-2").unwrap();
        assert!(delivery.argv.join(" ").contains("--role delivery --role sender"));
    }
}
