//! Which process a connection on this machine comes from: its port in the kernel's table of
//! connections gives a socket, and the processes' open files tell who has it.
//!
//! Must not know: what is done with the answer.

use parking_lot::Mutex;
use std::{collections::HashMap, fs, io, net::SocketAddr, time::Instant};

/// The processes of interest: their pids and names at this moment.
pub type Pids = Box<dyn Fn() -> Vec<(u32, String)> + Send + Sync>;

/// Looks up where connections come from.
pub struct Sources {
    pids: Pids,
    seen: Mutex<(Option<Instant>, HashMap<String, String>)>,
}

impl Sources {
    /// Among these processes.
    #[must_use]
    pub fn new(pids: Pids) -> Self {
        Self { pids, seen: Mutex::default() }
    }

    /// The process at this end of a connection (IPv4); `None` where it is none of them. Blocks.
    /// One look at the tables answers all who have asked before it began.
    #[must_use]
    pub fn of(&self, end: SocketAddr) -> Option<String> {
        let asked = Instant::now();
        let mut seen = self.seen.lock();
        if seen.0.is_none_or(|looked| looked < asked) {
            *seen = (Some(Instant::now()), self.look().unwrap_or_default());
        }
        seen.1.get(&hex(end)?).cloned()
    }

    /// The local ends of the processes' connections, as the kernel writes them, with their names.
    fn look(&self) -> io::Result<HashMap<String, String>> {
        let mut names = HashMap::new();
        for (pid, name) in (self.pids)() {
            // A process that has ended has no connections.
            let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
            for file in files.flatten() {
                let target = fs::read_link(file.path()).unwrap_or_default();
                let socket = target.to_str().and_then(|t| t.strip_prefix("socket:["));
                if let Some(inode) = socket.and_then(|socket| socket.strip_suffix(']')) {
                    names.insert(inode.to_owned(), name.clone());
                }
            }
        }
        let table = fs::read_to_string("/proc/net/tcp")?;
        let ends = table.lines().filter_map(|line| {
            // sl local rem st tx:rx tr:when retrnsmt uid timeout inode
            let mut fields = line.split_ascii_whitespace().skip(1);
            let (local, inode) = (fields.next()?, fields.nth(7)?);
            Some((local.to_owned(), names.get(inode)?.clone()))
        });
        Ok(ends.collect())
    }
}

/// As the kernel writes it: the address as a number in the machine's byte order.
fn hex(address: SocketAddr) -> Option<String> {
    let SocketAddr::V4(address) = address else { return None };
    let ip = u32::from_ne_bytes(address.ip().octets());
    Some(format!("{ip:08X}:{:04X}", address.port()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_connection_of_this_process_is_told_from_those_of_others() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connect = || {
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let end = client.local_addr().unwrap();
            (client, end)
        };
        let ours = || vec![(1, "the first".to_owned()), (std::process::id(), "ours".to_owned())];
        let sources = Sources::new(Box::new(ours));
        let (one, end) = connect();
        assert_eq!(sources.of(end).as_deref(), Some("ours"));
        // One that did not exist at the first look.
        let (_two, end_of_two) = connect();
        assert_eq!(sources.of(end_of_two).as_deref(), Some("ours"));
        let others = Sources::new(Box::new(|| vec![(1, "the first".to_owned())]));
        assert_eq!(others.of(end), None, "the first process has no such socket");
        drop(one);
        assert_eq!(sources.of(end), None);
    }
}
