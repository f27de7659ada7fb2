//! Where partitions go: rendezvous hashing with bounded load. A pure function.
//!
//! Rendezvous hashing: Thaler and Ravishankar, "A name-based mapping scheme for rendezvous", 1996.
//! The bound: every host owns ⌊P/H⌋ or ⌈P/H⌉ of P partitions. Both sides of it count: with an
//! upper bound alone a host that joins four hosts with 3 of 12 partitions each would stay idle.

use chaski_core::Partition;
use hrw_hash::HrwNodes;
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

type HostId = Arc<str>;

/// The owner of each partition, where `current` tells who owns it now.
///
/// As few partitions move as the bound allows: those without a living owner, and those that a host
/// has too many of (it keeps the ones it is ranked highest for). A result given back as `current`
/// with the same hosts comes back unchanged. Without hosts there is nothing to decide: `current`.
#[must_use]
pub fn place(current: &[Option<HostId>], hosts: &BTreeSet<HostId>) -> Vec<Option<HostId>> {
    if hosts.is_empty() {
        return current.to_vec();
    }
    let ranks = rankings(current.len(), hosts);
    let mut owned = owned_by(current, hosts);
    let mut free = BTreeMap::new();
    for (host, quota) in quotas(current.len(), &owned) {
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

/// The hosts in the order each partition prefers them.
fn rankings(partitions: usize, hosts: &BTreeSet<HostId>) -> Vec<Vec<&HostId>> {
    let nodes = HrwNodes::new(hosts.iter().map(|host| &**host));
    let keys = 0..partitions as u32;
    keys.map(|key| {
        let ranked = nodes.sorted(&key);
        ranked.filter_map(|id| hosts.get(*id)).collect()
    })
    .collect()
}

/// What each living host owns now.
fn owned_by<'a>(
    current: &[Option<HostId>],
    hosts: &'a BTreeSet<HostId>,
) -> BTreeMap<&'a HostId, Vec<Partition>> {
    let mut owned: BTreeMap<_, _> = hosts.iter().map(|host| (host, Vec::new())).collect();
    for (partition, owner) in (0..).map(Partition).zip(current) {
        if let Some(partitions) = owner.as_ref().and_then(|owner| owned.get_mut(owner)) {
            partitions.push(partition);
        }
    }
    owned
}

/// How many partitions each host may own; they add up to all. Where not all can have the same,
/// those with most now keep one more: so the fewest move.
fn quotas<'a>(
    partitions: usize,
    owned: &BTreeMap<&'a HostId, Vec<Partition>>,
) -> Vec<(&'a HostId, usize)> {
    let (each, more) = (partitions / owned.len(), partitions % owned.len());
    let mut hosts: Vec<_> = owned.iter().map(|(host, has)| (*host, has.len())).collect();
    hosts.sort_by_key(|(_, has)| Reverse(*has));
    let quotas = hosts.into_iter().enumerate();
    quotas.map(|(i, (host, _))| (host, each + usize::from(i < more))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hosts(names: impl IntoIterator<Item = usize>) -> BTreeSet<HostId> {
        names.into_iter().map(|n| format!("host-{n}").into()).collect()
    }

    fn loads(placed: &[Option<HostId>], hosts: &BTreeSet<HostId>) -> Vec<usize> {
        let load = |host| placed.iter().flatten().filter(|owner| *owner == host).count();
        hosts.iter().map(load).collect()
    }

    fn moves(before: &[Option<HostId>], after: &[Option<HostId>]) -> usize {
        before.iter().zip(after).filter(|(b, a)| b != a).count()
    }

    /// The fewest moves that any balanced placement needs, found without hashing: give the
    /// greatest shares to whom has most, count what is over the shares or without an owner.
    fn ideal_moves(before: &[Option<HostId>], hosts: &BTreeSet<HostId>) -> usize {
        let mut loads = loads(before, hosts);
        loads.sort_unstable();
        let orphans = before.len() - loads.iter().sum::<usize>();
        let mut left = before.len();
        let mut over = 0;
        for (i, load) in loads.iter().enumerate() {
            let share = left / (loads.len() - i); // least first, so the remainder goes to the most
            left -= share;
            over += load.saturating_sub(share);
        }
        orphans + over
    }

    #[track_caller]
    fn check(before: &[Option<HostId>], hosts: &BTreeSet<HostId>) -> Vec<Option<HostId>> {
        let placed = place(before, hosts);
        assert!(placed.iter().flatten().all(|owner| hosts.contains(owner)));
        assert_eq!(placed.iter().flatten().count(), before.len(), "every partition has an owner");
        let (least, most) = (before.len() / hosts.len(), before.len().div_ceil(hosts.len()));
        for load in loads(&placed, hosts) {
            assert!((least..=most).contains(&load), "balanced: {load} of {least}..={most}");
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
        assert_eq!(place(&one, &BTreeSet::new()), one, "nobody there: nothing to decide");
    }

    #[test]
    fn a_new_cluster_mostly_gets_what_rendezvous_hashing_prefers() {
        let hosts = hosts(0..8);
        let placed = check(&vec![None; 384], &hosts);
        let ranks = rankings(384, &hosts);
        let first_choice = placed.iter().zip(&ranks).filter(|(o, r)| o.as_ref() == Some(r[0]));
        let share = first_choice.count() * 100 / 384;
        assert!(share >= 75, "{share}% where the hash puts them");
    }

    proptest! {
        #[test]
        fn hosts_come_and_go(
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
