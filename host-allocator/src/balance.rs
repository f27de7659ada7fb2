//! When to move a partition off a host with too much load, which one, and where to. A pure function of
//! loads and time, but for what it remembers of earlier looks.
//!
//! A host is overloaded while its load is above `overload_percent` of its fair share (of all hosts'
//! load, by their weights) and above `overload_least`. After `overload_seconds` of that without a
//! pause one partition is moved: the one, and to the host, by which the greater of the two is
//! relieved most. A move that would relieve nobody is not made, so a partition that is too hot for
//! any host stays where it is, and the others leave it. Then everybody is looked at anew, for as
//! long.
//!
//! What keeps partitions from going to and fro: a move relieves by at least a tenth of a fair share;
//! the same partition rests for `move_again_seconds`, twice as long with each move of the last day;
//! it goes home only when its home would then be no more than half-way to being overloaded, and would
//! have been for as long; and all moves of a minute are counted.
//!
//! Must not know: where loads come from, who carries moves out, what time it is.

use crate::AllocatorConfig;
use chaski_core::Partition;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// By so much of a fair share a move has to relieve.
const RELIEF: f64 = 0.1;

type HostId = Arc<str>;
type Weights = BTreeMap<HostId, u32>;

/// A partition as the balancer sees it.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    /// Who serves it.
    pub(crate) host: HostId,
    /// Whose it is by the placement.
    pub(crate) home: HostId,
    /// What it costs who serves it; any unit, the same for all.
    pub(crate) load: u32,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Move {
    pub(crate) partition: Partition,
    pub(crate) to: HostId,
}

/// Remembers since when hosts are overloaded, and what was moved. Times are those since any moment.
pub(crate) struct Balancer {
    config: AllocatorConfig,
    /// Since when a host is overloaded.
    above: BTreeMap<HostId, Duration>,
    /// Since when a partition that is lent out could go home.
    calm: BTreeMap<Partition, Duration>,
    /// When a partition was moved last, and how often, each time within a day of the one before.
    moved: BTreeMap<Partition, (Duration, u32)>,
    /// Moves of the last minute.
    recent: VecDeque<Duration>,
    /// Whether it has looked before.
    looked: bool,
}

impl Balancer {
    pub(crate) fn new(config: AllocatorConfig) -> Self {
        let (above, calm, moved) = Default::default();
        Self { config, above, calm, moved, recent: VecDeque::new(), looked: false }
    }

    /// What to do now, if anything. All partitions are in `held`, in order, on hosts of `hosts`. To
    /// be told by [`moved`](Self::moved) whether it was done.
    pub(crate) fn look(&mut self, now: Duration, held: &[Held], hosts: &Weights) -> Option<Move> {
        let scene = Scene::new(held, hosts);
        if !std::mem::replace(&mut self.looked, true) {
            // Who led before may just have moved them.
            let lent = (0..).map(Partition).zip(held).filter(|(_, h)| h.host != h.home);
            self.moved.extend(lent.map(|(partition, _)| (partition, (now, 1))));
        }
        self.moved.retain(|_, (at, _)| now.saturating_sub(*at) < DAY);
        while self.recent.front().is_some_and(|at| now.saturating_sub(*at) >= MINUTE) {
            self.recent.pop_front();
        }
        self.note(now, &scene);
        if self.recent.len() >= self.config.moves_per_minute as usize {
            return None;
        }
        self.relieve(now, &scene).or_else(|| self.give_back(now, &scene))
    }

    /// It was done. Everybody is looked at anew.
    pub(crate) fn moved(&mut self, now: Duration, partition: Partition) {
        self.recent.push_back(now);
        let (at, times) = self.moved.entry(partition).or_default();
        (*at, *times) = (now, *times + 1);
        self.calm.remove(&partition);
        self.above.clear();
    }

    /// Whether a partition was moved not long ago.
    fn rests(&self, now: Duration, partition: Partition) -> bool {
        self.moved.get(&partition).is_some_and(|(at, times)| {
            // 2^16 times the shortest setting is most of a day.
            let doubled = 1 << (times - 1).min(16);
            now.saturating_sub(*at).as_secs() < self.config.move_again_seconds * doubled
        })
    }

    /// How many hosts were overloaded at the last look.
    pub(crate) fn overloaded(&self) -> usize {
        self.above.len()
    }

    /// Since when hosts are overloaded, and loans not needed.
    fn note(&mut self, now: Duration, scene: &Scene<'_>) {
        let overload = f64::from(self.config.overload_percent) / 100.0;
        let least = f64::from(self.config.overload_least);
        let is_above = |host: &HostId| scene.share(host) > overload && scene.loads[host] > least;
        self.above.retain(|host, _| scene.hosts.contains_key(host) && is_above(host));
        for host in scene.hosts.keys().filter(|host| is_above(host)) {
            self.above.entry(Arc::clone(host)).or_insert(now);
        }
        let half_way = 1.0 + (overload - 1.0) / 2.0;
        for (partition, held) in scene.partitions() {
            let at_home = scene.share_with(&held.home, f64::from(held.load));
            if held.host != held.home && at_home <= half_way {
                self.calm.entry(partition).or_insert(now);
            } else {
                self.calm.remove(&partition);
            }
        }
    }

    /// The move that relieves most, off the host that is overloaded most.
    fn relieve(&self, now: Duration, scene: &Scene<'_>) -> Option<Move> {
        let long = Duration::from_secs(self.config.overload_seconds);
        let mut above: Vec<_> = self.above.iter().filter(|(_, at)| now - **at >= long).collect();
        above.sort_by(|(a, _), (b, _)| scene.share(b).total_cmp(&scene.share(a)));
        above.into_iter().find_map(|(host, _)| {
            let mine = scene.partitions().filter(|(_, held)| held.host == *host);
            let may_move = mine.filter(|(partition, _)| !self.rests(now, *partition));
            let moves = may_move.flat_map(|(partition, held)| {
                let others = scene.hosts.keys().filter(|other| *other != host);
                others.map(move |to| (partition, f64::from(held.load), to))
            });
            let relieving = moves.filter_map(|(partition, load, to)| {
                let target = scene.share_with(to, load);
                let after = scene.share_with(host, -load).max(target);
                let relieves = after <= scene.share(host) - RELIEF;
                relieves.then_some(((after, target, load), partition, to))
            });
            let best = relieving.min_by(|((a, b, c), ..), ((d, e, f), ..)| {
                a.total_cmp(d).then(b.total_cmp(e)).then(c.total_cmp(f))
            });
            best.map(|(_, partition, to)| Move { partition, to: Arc::clone(to) })
        })
    }

    /// A partition that could have been at home for long.
    fn give_back(&self, now: Duration, scene: &Scene<'_>) -> Option<Move> {
        let again = Duration::from_secs(self.config.move_again_seconds);
        let mut calm = self.calm.iter().filter(|(_, at)| now - **at >= again);
        let (partition, _) = calm.find(|(partition, _)| !self.rests(now, **partition))?;
        let to = Arc::clone(&scene.held[partition.0 as usize].home);
        Some(Move { partition: *partition, to })
    }
}

/// The loads of one look.
struct Scene<'a> {
    held: &'a [Held],
    hosts: &'a Weights,
    loads: BTreeMap<&'a HostId, f64>,
    /// All loads by all weights: what a host of weight 1 would have.
    fair: f64,
}

impl<'a> Scene<'a> {
    fn new(held: &'a [Held], hosts: &'a Weights) -> Self {
        let mut loads: BTreeMap<_, _> = hosts.keys().map(|host| (host, 0.0)).collect();
        for held in held {
            *loads.get_mut(&held.host).expect("partitions are on these hosts") +=
                f64::from(held.load);
        }
        let weights = hosts.values().map(|weight| weight_of(*weight));
        // Where there is no load at all nobody has too much.
        let fair = (loads.values().sum::<f64>() / weights.sum::<f64>()).max(f64::MIN_POSITIVE);
        Self { held, hosts, loads, fair }
    }

    fn partitions(&self) -> impl Iterator<Item = (Partition, &'a Held)> {
        (0..).map(Partition).zip(self.held)
    }

    /// The host's load by its fair share.
    fn share(&self, host: &HostId) -> f64 {
        self.share_with(host, 0.0)
    }

    /// With so much more.
    fn share_with(&self, host: &HostId, more: f64) -> f64 {
        (self.loads[host] + more) / (self.fair * weight_of(self.hosts[host]))
    }
}

/// As the placement counts them: 0 is 1.
fn weight_of(weight: u32) -> f64 {
    f64::from(weight.max(1))
}

#[cfg(test)]
#[path = "balance_tests.rs"]
mod tests;
