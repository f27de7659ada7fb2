//! What stands in the coordinator, and where. Both are stored formats: other versions read them.
//!
//! | path | content | life |
//! |---|---|---|
//! | `/hosts/<role>/<host id>` | [`Host`] as JSON | the host's session |
//! | `/assignments/<role>/<partition, 5 digits>` | `{"host": "<host id>"}`, lent out also `"home"`; its epoch is the owner's | for ever |
//! | `/allocator/…` | the candidates for leading | their sessions |
//!
//! Few nodes: one per host and per partition, never one per user.

use bytes::Bytes;
use chaski_core::Partition;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

/// Where allocators contend for leading.
pub(crate) const ALLOCATOR: &str = "/allocator";

/// A kind of work that is cut into partitions, each owned by one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// The fan-out: owns partitions of `new-messages`.
    Generator,
    /// The delivery hosts: own partitions of `recipients` and the sockets of their users.
    Delivery,
    /// The durable log: owns partitions of `recipients`.
    Messages,
    /// Contacts, blocks, settings: owns partitions of `connection-requests`.
    Connections,
    /// Takes messages into the log; owns nothing, registers so that others find it.
    Sender,
}

impl Role {
    /// Those that own partitions.
    pub const OWNERS: [Role; 4] =
        [Role::Generator, Role::Delivery, Role::Messages, Role::Connections];

    /// The role's name, in paths, checkpoints and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Role::Generator => "generator",
            Role::Delivery => "delivery",
            Role::Messages => "messages",
            Role::Connections => "connections",
            Role::Sender => "sender",
        }
    }

    pub(crate) fn hosts(self) -> String {
        format!("/hosts/{self}")
    }

    pub(crate) fn host(self, id: &str) -> String {
        format!("/hosts/{self}/{id}")
    }

    pub(crate) fn assignment(self, partition: Partition) -> String {
        format!("/assignments/{self}/{:05}", partition.0)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A host that can own partitions of a role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Host {
    /// Its name, the same after a restart; part of a path, so without slashes.
    pub id: Arc<str>,
    /// What clients connect to: a full `ws(s)://…/v1/ws`. Empty where clients do not come.
    #[serde(default)]
    pub advertised_url: Arc<str>,
    /// What other services call. Empty where they do not.
    #[serde(default)]
    pub rpc_url: Arc<str>,
    /// The version of its software.
    #[serde(default)]
    pub version: Arc<str>,
    /// Where it stands, for people: every partition has one owner, so there is no choice between
    /// hosts that a region could decide.
    #[serde(default)]
    pub region: Arc<str>,
    /// How much it can take, compared with other hosts: its weight in the placement.
    #[serde(default = "one")]
    pub capacity: u32,
    /// It is about to end: its partitions go to others while it still serves.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub draining: bool,
    /// The partitions that it can serve at once, whoever owns them (delivery hosts: the ring is
    /// full). Their former owner sends its clients away once the new one says this.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub warm: BTreeSet<u32>,
    /// What each partition that runs there costs it, in thousandths of a core. `None`: it does not
    /// tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<BTreeMap<u32, u32>>,
}

fn one() -> u32 {
    1
}

impl Host {
    /// A host of this process's version.
    pub fn new(
        id: impl Into<Arc<str>>,
        advertised_url: impl Into<Arc<str>>,
        rpc_url: impl Into<Arc<str>>,
    ) -> Self {
        Self {
            id: id.into(),
            advertised_url: advertised_url.into(),
            rpc_url: rpc_url.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            region: "".into(),
            capacity: 1,
            draining: false,
            warm: BTreeSet::new(),
            load: None,
        }
    }

    pub(crate) fn encode(&self) -> Bytes {
        encode(self)
    }

    pub(crate) fn decode(data: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(data)
    }
}

/// Who owns a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Assignment {
    /// Who serves it.
    pub(crate) host: Arc<str>,
    /// Whose it is by the placement, where that host has too much load and has lent it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) home: Option<Arc<str>>,
}

impl Assignment {
    /// To the host whose it is.
    pub(crate) const fn to(host: Arc<str>) -> Self {
        Self { host, home: None }
    }

    pub(crate) fn encode(&self) -> Bytes {
        encode(self)
    }

    pub(crate) fn decode(data: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(data)
    }
}

fn encode(value: &impl Serialize) -> Bytes {
    let json = serde_json::to_vec(value);
    json.expect("strings and numbers have a JSON form").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_bytes_stay_the_same_and_newer_fields_are_ignored() {
        let host = Host {
            version: "1.2.3".into(),
            ..Host::new("h1", "ws://h1:8080/v1/ws", "http://h1:9090")
        };
        let golden = r#"{"id":"h1","advertisedUrl":"ws://h1:8080/v1/ws","rpcUrl":"http://h1:9090","version":"1.2.3","region":"","capacity":1}"#;
        assert_eq!(host.encode(), golden);
        let newer = golden.replace("\"region\"", "\"zone\":\"b\",\"region\"");
        assert_eq!(Host::decode(newer.as_bytes()).unwrap(), host);

        let loaded = Host { load: Some([(3, 120), (7, 0)].into()), ..host.clone() };
        let golden_loaded = golden.replace("1}", r#"1,"load":{"3":120,"7":0}}"#);
        assert_eq!(loaded.encode(), golden_loaded);
        assert_eq!(Host::decode(golden_loaded.as_bytes()).unwrap(), loaded);

        let leaving = Host { draining: true, warm: [3, 7].into(), ..host };
        let golden = golden.replace("1}", r#"1,"draining":true,"warm":[3,7]}"#);
        assert_eq!(leaving.encode(), golden);
        assert_eq!(Host::decode(golden.as_bytes()).unwrap(), leaving);

        assert_eq!(Assignment::to("h1".into()).encode(), r#"{"host":"h1"}"#);
        let lent = Assignment { host: "h2".into(), home: Some("h1".into()) };
        assert_eq!(lent.encode(), r#"{"host":"h2","home":"h1"}"#);
        assert_eq!(Assignment::decode(br#"{"host":"h2","home":"h1"}"#).unwrap(), lent);
        assert_eq!(Role::Delivery.assignment(Partition(7)), "/assignments/delivery/00007");
    }
}
