//! Where the servers are and how they are spoken to.

use crate::{error, invalid};
use chaski_ports::{ErrorKind, PortError};
use scylla::{
    client::{
        PoolSize, execution_profile::ExecutionProfile, session::Session,
        session_builder::SessionBuilder,
    },
    statement::{Consistency, SerialConsistency},
};
use std::{num::NonZeroUsize, time::Duration};

/// How to reach the store.
#[derive(Clone, Debug)]
pub struct CqlOptions {
    /// `host:port` of some nodes; the others are found through them.
    pub nodes: Vec<String>,
    /// The keyspace: a lower-case letter, then at most 47 of `a-z0-9_`.
    pub keyspace: String,
    /// Copies of each row, where `migrate` makes the keyspace. 3 in production.
    pub replication: u32,
    /// How long inboxes are kept, from a record's time on.
    pub inbox_ttl: Duration,
    /// The data center whose nodes are asked; all nodes where there is only one.
    pub datacenter: Option<String>,
    /// After this a request's outcome is unknown.
    pub request_timeout: Duration,
}

impl Default for CqlOptions {
    fn default() -> Self {
        Self {
            nodes: vec!["127.0.0.1:9042".to_owned()],
            keyspace: "chaski".to_owned(),
            replication: 1,
            inbox_ttl: Duration::from_secs(30 * 24 * 3600),
            datacenter: None,
            request_timeout: Duration::from_secs(5),
        }
    }
}

impl CqlOptions {
    /// The keyspace stands in statements as it is, so it must be a plain name.
    pub(crate) fn check(&self) -> Result<(), PortError> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        if !(1..=48).contains(&self.keyspace.len())
            || !self.keyspace.as_bytes()[0].is_ascii_lowercase()
            || !self.keyspace.bytes().all(plain)
        {
            return Err(invalid(format!(
                "keyspace {:?}: must be a lower-case letter, then at most 47 of a-z 0-9 _",
                self.keyspace
            )));
        }
        if self.replication == 0 {
            return Err(invalid("replication: must be at least 1"));
        }
        if self.inbox_ttl < Duration::from_secs(1) {
            return Err(invalid("inbox_ttl: must be at least 1 s"));
        }
        Ok(())
    }

    pub(crate) async fn session(&self) -> Result<Session, PortError> {
        let profile = ExecutionProfile::builder()
            .consistency(Consistency::LocalQuorum)
            .serial_consistency(Some(SerialConsistency::Serial))
            .request_timeout(Some(self.request_timeout))
            .build();
        // Cassandra counts as one shard; a single connection would queue small reads behind batches.
        let connections = NonZeroUsize::new(2).expect("two is not zero");
        let mut builder = SessionBuilder::new()
            .known_nodes(&self.nodes)
            .default_execution_profile_handle(profile.into_handle())
            .pool_size(PoolSize::PerHost(connections))
            .keyspaces_to_fetch([&self.keyspace])
            .connection_timeout(self.request_timeout);
        if let Some(datacenter) = &self.datacenter {
            builder = builder.prefer_datacenter(datacenter.clone());
        }
        builder.build().await.map_err(|e| {
            let context = format!("connect to the store at {}", self.nodes.join(","));
            PortError::new(ErrorKind::Unavailable, context).caused_by(error::Vendor::from(e))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keyspace_is_a_plain_name() {
        let check = |keyspace: &str| {
            let options = CqlOptions { keyspace: keyspace.to_owned(), ..CqlOptions::default() };
            options.check().is_ok()
        };
        assert!(check("chaski"));
        assert!(check(&"k".repeat(48)));
        assert!(!check(&"k".repeat(49)));
        assert!(!check(""));
        assert!(!check("1st"));
        assert!(!check("a; drop keyspace b"));
    }
}
