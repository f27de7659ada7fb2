//! What is done to the system, when, to whom: decided by a seed before anything runs, so that a
//! run can be made again.
//!
//! Must not know: how a fault is injected, and how long a process really takes to come back.

mod draw;
mod schedule;

use crate::fault::FaultKind;
use std::{collections::BTreeMap, fmt, time::Duration};

/// A session with ZooKeeper ends after this time without contact; a pause is longer.
pub const SESSION: Duration = Duration::from_secs(6);

/// The faults of a run, in the order of their beginnings.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What decided it.
    pub seed: u64,
    /// In which it is to be over, where everything comes back as fast as expected.
    pub length: Duration,
    /// One after the other; the next one may begin before the one before is healed.
    pub steps: Vec<Step>,
    /// Each step begins at its time, whatever goes on: for plans that were made by hand.
    pub regardless: bool,
}

/// One fault of a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// When it begins, at the earliest.
    pub at: Duration,
    /// What is done.
    pub action: Action,
}

/// What is done to whom.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// `kill -9`, started again after `down`.
    Kill {
        /// Who.
        victim: Victim,
        /// How long it is not there.
        down: Duration,
    },
    /// SIGSTOP, then SIGCONT.
    Pause {
        /// Who.
        victim: Victim,
        /// How long it stands still.
        lasts: Duration,
    },
    /// A link is cut, late or lossy.
    Link {
        /// `Cut`, `OneWayCut`, `Delay` or `Loss`.
        kind: FaultKind,
        /// A service process, or `clients`.
        from: String,
        /// A process (`kafka-2`), or all of that name (`kafka`).
        to: String,
        /// For a one-way cut: it is the way back that is cut.
        back: bool,
        /// By how much bytes come later, for a delay.
        by: Duration,
        /// How long.
        lasts: Duration,
    },
    /// All brokers at once.
    KafkaRestart {
        /// How long none is there.
        down: Duration,
    },
    /// All brokers but the first stand still; then that one is killed, and the others go on.
    LoneBroker {
        /// How long it is alone.
        lasts: Duration,
    },
    /// Every service process, one after the other.
    RollingRestart,
}

/// A kind of process, and which one of those that are of this kind when it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Victim {
    /// The kind.
    pub kind: ProcessKind,
    /// Counted around among them.
    pub pick: usize,
}

/// A kind of process that must stand being killed and paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProcessKind {
    /// The public address.
    Gateway,
    /// Takes messages into the log.
    Sender,
    /// The fan-out.
    Generator,
    /// A delivery host.
    Delivery,
    /// The durable log.
    Messages,
    /// Contacts and blocks.
    Connections,
    /// The allocator that leads.
    AllocatorLeader,
    /// The one that would take over.
    AllocatorFollower,
    /// The broker that leads the controllers; it leads partitions too.
    KafkaLeader,
    /// Another one.
    KafkaFollower,
    /// The node that leads the ensemble.
    ZookeeperLeader,
    /// Another one.
    ZookeeperFollower,
    /// The CQL server.
    Cassandra,
}

impl ProcessKind {
    /// All kinds.
    pub const ALL: [Self; 13] = [
        Self::Gateway,
        Self::Sender,
        Self::Generator,
        Self::Delivery,
        Self::Messages,
        Self::Connections,
        Self::AllocatorLeader,
        Self::AllocatorFollower,
        Self::KafkaLeader,
        Self::KafkaFollower,
        Self::ZookeeperLeader,
        Self::ZookeeperFollower,
        Self::Cassandra,
    ];

    /// Its name in the report.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Sender => "sender",
            Self::Generator => "generator",
            Self::Delivery => "delivery",
            Self::Messages => "messages",
            Self::Connections => "connections",
            Self::AllocatorLeader => "allocator-leader",
            Self::AllocatorFollower => "allocator-follower",
            Self::KafkaLeader => "kafka-leader",
            Self::KafkaFollower => "kafka-follower",
            Self::ZookeeperLeader => "zookeeper-leader",
            Self::ZookeeperFollower => "zookeeper-follower",
            Self::Cassandra => "cassandra",
        }
    }

    /// The name that its processes have in common: `kafka` of `kafka-2`.
    #[must_use]
    pub const fn group(self) -> &'static str {
        match self {
            Self::AllocatorLeader | Self::AllocatorFollower => "allocator",
            Self::KafkaLeader | Self::KafkaFollower => "kafka",
            Self::ZookeeperLeader | Self::ZookeeperFollower => "zookeeper",
            one => one.name(),
        }
    }

    /// Whether it is one of ours, not a server that we stand on.
    #[must_use]
    pub fn is_service(self) -> bool {
        !matches!(self.group(), "kafka" | "zookeeper" | "cassandra")
    }
}

impl Plan {
    /// The plan of a run: the faults that count most first where there is little time; with
    /// enough of it every process kind is killed and paused, every kind of fault is there, and
    /// what is left of the time is filled with more.
    #[must_use]
    pub fn new(seed: u64, length: Duration) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let steps = schedule::steps(length, &mut random);
        Self { seed, length, steps, regardless: false }
    }

    /// A plan made by hand: each step begins at its time.
    #[must_use]
    pub fn by_hand(length: Duration, mut steps: Vec<Step>) -> Self {
        steps.sort_by_key(|step| step.at);
        Self { seed: 0, length, steps, regardless: true }
    }

    /// How many faults of each kind there are.
    #[must_use]
    pub fn kinds(&self) -> BTreeMap<FaultKind, usize> {
        let mut kinds = BTreeMap::new();
        for step in &self.steps {
            *kinds.entry(step.action.kind()).or_default() += 1;
        }
        kinds
    }

    /// The kinds of processes to which this is done.
    #[must_use]
    pub fn victims(&self, kind: FaultKind) -> Vec<ProcessKind> {
        let done_to = |step: &Step| step.action.victim().map(|victim| victim.kind);
        let of_kind = self.steps.iter().filter(|step| step.action.kind() == kind);
        let mut victims: Vec<_> = of_kind.filter_map(done_to).collect();
        victims.sort_unstable();
        victims.dedup();
        victims
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}, {} s:", self.seed, self.length.as_secs())?;
        for (kind, count) in self.kinds() {
            write!(f, " {kind:?} {count}")?;
            let victims: Vec<_> = self.victims(kind).iter().map(|victim| victim.name()).collect();
            if victims.len() == ProcessKind::ALL.len() {
                write!(f, " (every kind of process)")?;
            } else if !victims.is_empty() {
                write!(f, " ({})", victims.join(", "))?;
            }
            write!(f, ";")?;
        }
        Ok(())
    }
}

impl Action {
    /// Its kind in the report.
    #[must_use]
    pub const fn kind(&self) -> FaultKind {
        match self {
            Self::Kill { .. } => FaultKind::Kill,
            Self::Pause { .. } => FaultKind::Pause,
            Self::Link { kind, .. } => *kind,
            Self::KafkaRestart { .. } => FaultKind::KafkaRestart,
            Self::LoneBroker { .. } => FaultKind::LoneBroker,
            Self::RollingRestart => FaultKind::RollingRestart,
        }
    }

    const fn victim(&self) -> Option<Victim> {
        match self {
            Self::Kill { victim, .. } | Self::Pause { victim, .. } => Some(*victim),
            _ => None,
        }
    }

    /// Whether it may go on at the same time as another one. Never two processes of one group
    /// (two brokers have no quorum, two generators nobody to take over), never two things on the
    /// links of one process, and nothing beside a restart of many.
    #[must_use]
    pub fn may_overlap(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::KafkaRestart { .. } | Self::LoneBroker { .. } | Self::RollingRestart, _)
            | (_, Self::KafkaRestart { .. } | Self::LoneBroker { .. } | Self::RollingRestart) => {
                false
            }
            (Self::Link { from, .. }, Self::Link { from: other, .. }) => from != other,
            (one, other) => match (one.victim(), other.victim()) {
                (Some(one), Some(other)) => one.kind.group() != other.kind.group(),
                _ => true,
            },
        }
    }

    /// How long it takes until everything is well again, as a rule; the plan's measure.
    #[must_use]
    pub fn length(&self) -> Duration {
        let back = |kind: ProcessKind| match kind.group() {
            "kafka" => Duration::from_secs(15),
            "cassandra" => Duration::from_secs(25),
            _ => Duration::from_secs(5),
        };
        match self {
            Self::Kill { victim, down } => *down + back(victim.kind),
            Self::Pause { lasts, .. } => *lasts + Duration::from_secs(4),
            Self::Link { lasts, .. } => *lasts,
            Self::KafkaRestart { down } => *down + Duration::from_secs(25),
            Self::LoneBroker { lasts } => *lasts + Duration::from_secs(15),
            Self::RollingRestart => Duration::from_secs(60),
        }
    }
}

#[cfg(test)]
mod tests;
