//! The roles a process can play.

use std::{collections::BTreeSet, fmt, str::FromStr};

/// A service, or a half of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// The public address.
    Gateway,
    /// Takes messages into the log.
    Sender,
    /// The fan-out.
    Generator,
    /// Delivery hosts.
    Delivery,
    /// The durable log.
    Messages,
    /// Contacts, blocks, settings, devices.
    Connections,
    /// Says which host owns what.
    Allocator,
}

impl Role {
    /// All of them.
    pub const ALL: [Role; 7] = [
        Role::Gateway,
        Role::Sender,
        Role::Generator,
        Role::Delivery,
        Role::Messages,
        Role::Connections,
        Role::Allocator,
    ];

    /// The role's name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Role::Gateway => "gateway",
            Role::Sender => "sender",
            Role::Generator => "generator",
            Role::Delivery => "delivery",
            Role::Messages => "messages",
            Role::Connections => "connections",
            Role::Allocator => "allocator",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Role {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Role::ALL.into_iter().find(|role| role.name() == text).ok_or_else(|| {
            let names: Vec<_> = Role::ALL.iter().map(|role| role.name()).collect();
            format!("there is no role {text}; there are: {}", names.join(", "))
        })
    }
}

/// The roles of one process.
#[derive(Clone, Debug)]
pub struct Roles(BTreeSet<Role>);

impl Roles {
    /// These roles; none named means all.
    #[must_use]
    pub fn of(roles: &[Role]) -> Self {
        match roles {
            [] => Self(Role::ALL.into()),
            some => Self(some.iter().copied().collect()),
        }
    }

    /// Whether this process plays the role.
    #[must_use]
    pub fn has(&self, role: Role) -> bool {
        self.0.contains(&role)
    }
}
