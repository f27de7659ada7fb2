//! Where partitions go: rendezvous hashing with bounded load and weights. A pure function.
//!
//! Rendezvous hashing: Thaler and Ravishankar, "A name-based mapping scheme for rendezvous", 1996;
//! with weights: Schindelhauer and Schomaker, "Weighted distributed hash tables", 2005.
//! The bound: a host of weight w among hosts of weight W together owns ⌊P·w/W⌋ or ⌈P·w/W⌉ of P
//! partitions. Both sides of it count: with an upper bound alone a host that joins four hosts with
//! 3 of 12 partitions each would stay idle.

use chaski_core::Partition;
use hrw_hash::{HrwNode, HrwNodes};
use std::{
    cmp::Reverse,
    collections::BTreeMap,
    hash::{Hash, Hasher},
    sync::Arc,
};

type HostId = Arc<str>;

/// The owner of each partition among these hosts, each with its weight, where `current` tells who
/// owns it now. A weight of 0 counts as 1.
///
/// As few partitions move as the bound allows: those without a living owner, and those that a host
/// has too many of (it keeps the ones it is ranked highest for). A result given back as `current`
/// with the same hosts comes back unchanged. Without hosts there is nothing to decide: `current`.
#[must_use]
pub fn place(current: &[Option<HostId>], hosts: &BTreeMap<HostId, u32>) -> Vec<Option<HostId>> {
    if hosts.is_empty() {
        return current.to_vec();
    }
    let ranks = rankings(current.len(), hosts);
    let mut owned = owned_by(current, hosts);
    let mut free = BTreeMap::new();
    for (host, quota) in quotas(current.len(), &owned, hosts) {
        let partitions = owned.get_mut(host).expect("quotas are of the owning hosts");
        partitions.sort_by_key(|p| ranks[p.0 as usize].iter().position(|h| *h == host));
        partitions.truncate(quota);
        free.insert(host, quota - partitions.len());
    }

    let mut placed = vec![None; current.len()];
    for (host, partitions) in &owned {
        for partition in partitions {
            placed[partition.0 as usize] = Some(Arc::clone(host));
        }
    }
    for (owner, rank) in placed.iter_mut().zip(&ranks) {
        if owner.is_none() {
            let mut ranked = rank.iter().filter_map(|host| free.get_key_value(host));
            let (host, _) = ranked
                .find(|(_, free)| **free > 0)
                .expect("the quotas add up to the number of partitions");
            let host = *host;
            free.entry(host).and_modify(|free| *free -= 1);
            *owner = Some(Arc::clone(host));
        }
    }
    placed
}

/// A host in the ranking: its name is hashed, its weight scales its scores.
#[derive(PartialEq, Eq)]
struct Ranked<'a> {
    host: &'a HostId,
    weight: u32,
}

impl Hash for Ranked<'_> {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.host.hash(hasher);
    }
}

impl HrwNode for Ranked<'_> {
    fn capacity(&self) -> usize {
        self.weight as usize
    }
}

/// The hosts in the order each partition prefers them.
fn rankings(partitions: usize, hosts: &BTreeMap<HostId, u32>) -> Vec<Vec<&HostId>> {
    let nodes = hosts.iter().map(|(host, weight)| Ranked { host, weight: (*weight).max(1) });
    let nodes = HrwNodes::new(nodes);
    let keys = 0..partitions as u32;
    keys.map(|key| nodes.sorted(&key).map(|ranked| ranked.host).collect()).collect()
}

/// What each living host owns now.
fn owned_by<'a>(
    current: &[Option<HostId>],
    hosts: &'a BTreeMap<HostId, u32>,
) -> BTreeMap<&'a HostId, Vec<Partition>> {
    let mut owned: BTreeMap<_, _> = hosts.keys().map(|host| (host, Vec::new())).collect();
    for (partition, owner) in (0..).map(Partition).zip(current) {
        if let Some(partitions) = owner.as_ref().and_then(|owner| owned.get_mut(owner)) {
            partitions.push(partition);
        }
    }
    owned
}

/// How many partitions each host may own: its share rounded down, and one more for as many hosts
/// as it takes to add up to all. First for those that have one more now, so that the fewest move;
/// then by what was rounded off, the greatest first.
fn quotas<'a>(
    partitions: usize,
    owned: &BTreeMap<&'a HostId, Vec<Partition>>,
    hosts: &BTreeMap<HostId, u32>,
) -> Vec<(&'a HostId, usize)> {
    let weight = |host: &HostId| u64::from(hosts[host].max(1));
    let all: u64 = owned.keys().map(|host| weight(host)).sum();
    let mut shares: Vec<_> = owned
        .iter()
        .map(|(host, has)| {
            let share = partitions as u64 * weight(host);
            let (whole, rest) = ((share / all) as usize, share % all);
            (*host, whole, rest, has.len() > whole)
        })
        .collect();
    let mut more = partitions - shares.iter().map(|(_, whole, ..)| whole).sum::<usize>();
    // Whose share is a whole number gets no more: that would be above its bound.
    shares.sort_by_key(|(_, _, rest, has_more)| Reverse((*rest > 0, *has_more, *rest)));
    shares
        .into_iter()
        .map(|(host, whole, ..)| {
            let one = usize::from(more > 0);
            more -= one;
            (host, whole + one)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Hosts = BTreeMap<HostId, u32>;

    fn hosts(names: impl IntoIterator<Item = usize>) -> Hosts {
        weighted(names.into_iter().map(|n| (n, 1)))
    }

    fn weighted(hosts: impl IntoIterator<Item = (usize, u32)>) -> Hosts {
        hosts.into_iter().map(|(n, weight)| (format!("host-{n}").into(), weight)).collect()
    }

    fn loads(placed: &[Option<HostId>], hosts: &Hosts) -> Vec<usize> {
        let load = |host| placed.iter().flatten().filter(|owner| *owner == host).count();
        hosts.keys().map(load).collect()
    }

    fn moves(before: &[Option<HostId>], after: &[Option<HostId>]) -> usize {
        before.iter().zip(after).filter(|(b, a)| b != a).count()
    }

    /// The least and the most that each host may own.
    fn bounds(partitions: usize, hosts: &Hosts) -> Vec<(usize, usize)> {
        let all: usize = hosts.values().map(|weight| *weight as usize).sum();
        let shares = hosts.values().map(|weight| partitions * *weight as usize);
        shares.map(|share| (share / all, share.div_ceil(all))).collect()
    }

    /// The fewest moves that any placement within the bounds needs, found without hashing: what
    /// has no living owner, what is above the bounds, and what must go so that others reach theirs.
    fn ideal_moves(before: &[Option<HostId>], hosts: &Hosts) -> usize {
        let loads = loads(before, hosts);
        let bounds = bounds(before.len(), hosts);
        let sides = || loads.iter().zip(&bounds);
        let orphans = before.len() - loads.iter().sum::<usize>();
        let over: usize = sides().map(|(load, (_, most))| load.saturating_sub(*most)).sum();
        let under: usize = sides().map(|(load, (least, _))| least.saturating_sub(*load)).sum();
        (orphans + over).max(under)
    }

    #[track_caller]
    fn check(before: &[Option<HostId>], hosts: &Hosts) -> Vec<Option<HostId>> {
        let placed = place(before, hosts);
        assert!(placed.iter().flatten().all(|owner| hosts.contains_key(owner)));
        assert_eq!(placed.iter().flatten().count(), before.len(), "every partition has an owner");
        for (load, (least, most)) in loads(&placed, hosts).iter().zip(bounds(before.len(), hosts)) {
            assert!((least..=most).contains(load), "balanced: {load} of {least}..={most}");
        }
        assert_eq!(moves(before, &placed), ideal_moves(before, hosts), "as few move as can");
        assert_eq!(place(&placed, hosts), placed, "nothing moves without a reason");
        placed
    }

    #[test]
    fn twelve_partitions_follow_their_hosts() {
        let two = check(&vec![None; 12], &hosts([1, 2]));
        assert_eq!(loads(&two, &hosts([1, 2])), [6, 6]);

        let three = check(&two, &hosts([1, 2, 3]));
        assert_eq!(moves(&two, &three), 4, "a third host takes its third");

        let without_one = check(&three, &hosts([2, 3]));
        assert_eq!(moves(&three, &without_one), 4, "only what the dead host had");

        let one = check(&without_one, &hosts([3]));
        assert_eq!(moves(&without_one, &one), 6);
        assert_eq!(place(&one, &Hosts::new()), one, "nobody there: nothing to decide");
    }

    #[test]
    fn a_host_of_twice_the_weight_owns_twice_as_much() {
        let hosts = weighted([(1, 1), (2, 2), (3, 1)]);
        let placed = check(&vec![None; 12], &hosts);
        assert_eq!(loads(&placed, &hosts), [3, 6, 3]);
        let lighter = weighted([(1, 1), (2, 1), (3, 1)]);
        let after = check(&placed, &lighter);
        assert_eq!((loads(&after, &lighter), moves(&placed, &after)), (vec![4, 4, 4], 2));
    }

    #[test]
    fn a_new_cluster_mostly_gets_what_rendezvous_hashing_prefers() {
        for hosts in [hosts(0..8), weighted((0..8).map(|n| (n, 1 + n as u32 % 3)))] {
            let placed = check(&vec![None; 384], &hosts);
            let ranks = rankings(384, &hosts);
            let first_choice = placed.iter().zip(&ranks).filter(|(o, r)| o.as_ref() == Some(r[0]));
            let share = first_choice.count() * 100 / 384;
            assert!(share >= 75, "{share}% where the hash puts them");
        }
    }

    /// The table of docs/allocation.md: partitions that move when the n-th host joins n - 1, and
    /// when it leaves again, beside what cannot be avoided.
    #[test]
    fn the_documented_table_is_true() {
        let mut table = String::new();
        for n in 1..=8 {
            let row = [12, 384].map(|partitions| {
                let fewer =
                    (1..n).fold(vec![None; partitions], |placed, n| place(&placed, &hosts(0..n)));
                let joined = check(&fewer, &hosts(0..n));
                let left = place(&joined, &hosts(0..n - 1));
                let leaving = if n == 1 { 0 } else { moves(&joined, &left) };
                let ideal = partitions / n;
                format!("{} | {leaving} | {ideal}", moves(&fewer, &joined))
            });
            table.push_str(&format!("| {n} | {} |\n", row.join(" | ")));
        }
        let page = include_str!("../../docs/allocation.md");
        assert!(page.contains(&table), "docs/allocation.md must hold:\n{table}");
    }

    proptest! {
        #[test]
        fn hosts_come_and_go(
            partitions in 1_usize..200,
            changes in proptest::collection::vec(
                proptest::collection::btree_map(0_usize..12, 1_u32..5, 1..12),
                1..12,
            ),
        ) {
            let mut placed = vec![None; partitions];
            for alive in changes {
                placed = check(&placed, &weighted(alive));
            }
        }

        #[test]
        fn hosts_of_one_weight_come_and_go(
            partitions in 1_usize..200,
            changes in proptest::collection::vec(proptest::collection::btree_set(0_usize..12, 1..12), 1..12),
        ) {
            let mut placed = vec![None; partitions];
            for alive in changes {
                placed = check(&placed, &hosts(alive));
            }
        }
    }
}
