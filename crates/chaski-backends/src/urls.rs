//! Where the backends are, as URLs: `embedded:./data`, `kafka://h:p,h:p`,
//! `scylla://h:p,h:p/keyspace`, `zookeeper://h:p,h:p/chroot`.
//!
//! Must not know: how a backend is opened.

use std::{path::PathBuf, str::FromStr};

/// A URL that names no backend; the text says what is expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("illegal {what} URL {url:?}: {why}; expected {expected}")]
pub struct IllegalUrl {
    what: &'static str,
    url: String,
    why: &'static str,
    expected: &'static str,
}

/// Where the log is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogUrl {
    /// In a directory.
    Embedded(PathBuf),
    /// `host:port`, separated by commas.
    Kafka(String),
}

/// Where the stores are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreUrl {
    /// In a directory.
    Embedded(PathBuf),
    /// On ScyllaDB or Apache Cassandra.
    Scylla {
        /// `host:port` of some nodes.
        nodes: Vec<String>,
        /// The keyspace.
        keyspace: String,
    },
}

/// Where the coordinator is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CoordinatorUrl {
    /// In memory; its epochs in a directory.
    Embedded(PathBuf),
    /// On ZooKeeper.
    ZooKeeper {
        /// `host:port`, separated by commas.
        servers: String,
        /// Empty, or a path that begins with `/`.
        chroot: String,
    },
}

/// Where all backends of one process are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Urls {
    /// The log.
    pub log: LogUrl,
    /// The stores.
    pub store: StoreUrl,
    /// The coordinator.
    pub coordinator: CoordinatorUrl,
}

impl Urls {
    /// Reads three URLs.
    ///
    /// # Errors
    /// Where one of them is illegal.
    pub fn parse(log: &str, store: &str, coordinator: &str) -> Result<Self, IllegalUrl> {
        Ok(Self { log: log.parse()?, store: store.parse()?, coordinator: coordinator.parse()? })
    }
}

/// A kind of URL: how its errors speak of it.
struct Kind {
    what: &'static str,
    expected: &'static str,
}

const LOG: Kind = Kind { what: "log", expected: "embedded:<directory> or kafka://<host:port>,…" };
const STORE: Kind =
    Kind { what: "store", expected: "embedded:<directory> or scylla://<host:port>,…/<keyspace>" };
const COORDINATOR: Kind = Kind {
    what: "coordinator",
    expected: "embedded:<directory> or zookeeper://<host:port>,…[/<chroot>]",
};

impl Kind {
    fn illegal(&self, url: &str, why: &'static str) -> IllegalUrl {
        IllegalUrl { what: self.what, url: url.to_owned(), why, expected: self.expected }
    }

    /// The directory of an `embedded:` URL.
    fn directory(&self, url: &str) -> Option<Result<PathBuf, IllegalUrl>> {
        let directory = url.strip_prefix("embedded:")?;
        Some(match directory {
            "" => Err(self.illegal(url, "the directory is missing")),
            // Not a host: `embedded://data` would silently become `//data`.
            _ if directory.starts_with("//") => Err(self.illegal(url, "it has no host")),
            _ => Ok(directory.into()),
        })
    }

    /// Servers and path of a `<scheme>://` URL.
    fn servers<'a>(&self, url: &'a str, scheme: &str) -> Result<(&'a str, &'a str), IllegalUrl> {
        let rest = url.strip_prefix(scheme).and_then(|rest| rest.strip_prefix("://"));
        let rest = rest.ok_or_else(|| self.illegal(url, "unknown scheme"))?;
        let (servers, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let legal = |server: &str| {
            let parts = server.rsplit_once(':');
            parts.is_some_and(|(host, port)| {
                !host.is_empty() && !host.contains('@') && port.parse::<u16>().is_ok_and(|p| p > 0)
            })
        };
        if servers.split(',').all(legal) {
            Ok((servers, path))
        } else {
            Err(self.illegal(url, "every server needs a host and a port"))
        }
    }
}

impl FromStr for LogUrl {
    type Err = IllegalUrl;

    fn from_str(url: &str) -> Result<Self, IllegalUrl> {
        if let Some(directory) = LOG.directory(url) {
            return directory.map(Self::Embedded);
        }
        let (brokers, path) = LOG.servers(url, "kafka")?;
        if !path.trim_end_matches('/').is_empty() {
            return Err(LOG.illegal(url, "it has no path: the topic prefix is an option"));
        }
        Ok(Self::Kafka(brokers.to_owned()))
    }
}

impl FromStr for StoreUrl {
    type Err = IllegalUrl;

    fn from_str(url: &str) -> Result<Self, IllegalUrl> {
        if let Some(directory) = STORE.directory(url) {
            return directory.map(Self::Embedded);
        }
        let (nodes, path) = STORE.servers(url, "scylla")?;
        let keyspace = path.trim_matches('/');
        if keyspace.is_empty() || keyspace.contains('/') {
            return Err(STORE.illegal(url, "the path must be one keyspace"));
        }
        Ok(Self::Scylla {
            nodes: nodes.split(',').map(str::to_owned).collect(),
            keyspace: keyspace.to_owned(),
        })
    }
}

impl FromStr for CoordinatorUrl {
    type Err = IllegalUrl;

    fn from_str(url: &str) -> Result<Self, IllegalUrl> {
        if let Some(directory) = COORDINATOR.directory(url) {
            return directory.map(Self::Embedded);
        }
        let (servers, chroot) = COORDINATOR.servers(url, "zookeeper")?;
        Ok(Self::ZooKeeper {
            servers: servers.to_owned(),
            chroot: chroot.trim_end_matches('/').to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read() {
        let urls =
            Urls::parse("kafka://a:1,b:2", "scylla://c:3,d:4/chaski", "zookeeper://e:5,f:6/x/y/");
        let expected = Urls {
            log: LogUrl::Kafka("a:1,b:2".into()),
            store: StoreUrl::Scylla {
                nodes: vec!["c:3".into(), "d:4".into()],
                keyspace: "chaski".into(),
            },
            coordinator: CoordinatorUrl::ZooKeeper {
                servers: "e:5,f:6".into(),
                chroot: "/x/y".into(),
            },
        };
        assert_eq!(urls, Ok(expected));
        let embedded = Urls::parse("embedded:./data", "embedded:/var/x", "embedded:data").unwrap();
        assert_eq!(embedded.log, LogUrl::Embedded("./data".into()));
        assert_eq!(embedded.store, StoreUrl::Embedded("/var/x".into()));
        let root = "zookeeper://e:5".parse();
        let (servers, chroot) = ("e:5".into(), String::new());
        assert_eq!(root, Ok(CoordinatorUrl::ZooKeeper { servers, chroot }));
    }

    #[test]
    fn illegal_urls_say_what_is_expected() {
        #[track_caller]
        fn check<T: FromStr<Err = IllegalUrl> + std::fmt::Debug>(url: &str, why: &str) {
            let error = url.parse::<T>().unwrap_err().to_string();
            assert!(error.contains(why) && error.contains("expected embedded:"), "{error}");
        }
        check::<LogUrl>("", "unknown scheme");
        check::<LogUrl>("kafka:a:1", "unknown scheme");
        check::<LogUrl>("scylla://a:1/x", "unknown scheme");
        check::<LogUrl>("kafka://", "host and a port");
        check::<LogUrl>("kafka://a", "host and a port");
        check::<LogUrl>("kafka://a:1,", "host and a port");
        check::<LogUrl>("kafka://a:99999", "host and a port");
        check::<LogUrl>("kafka://a:1/prefix", "topic prefix");
        check::<LogUrl>("embedded:", "directory is missing");
        check::<LogUrl>("embedded://data", "no host");
        check::<StoreUrl>("scylla://a:1", "one keyspace");
        check::<StoreUrl>("scylla://a:1/x/y", "one keyspace");
        check::<CoordinatorUrl>("zookeeper://user@a:1", "host and a port");
    }
}
