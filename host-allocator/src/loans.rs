//! Partitions that are lent out: the placement gives each a home, and a home with too much load lends
//! some to hosts with less. A pure function.
//!
//! The placement is made of homes alone, so its bounds and its few moves stay what they are,
//! whatever is lent. A loan lasts while both its hosts are there and the placement leaves the
//! partition its home. Where the home goes, the partition stays with who serves it; where the
//! borrower goes, it goes home.
//!
//! Must not know: why something is lent (`balance`).

use crate::{place, znode::Assignment};
use std::{collections::BTreeMap, sync::Arc};

/// Who is to serve each partition among these hosts, each with its weight, where `current` tells who
/// serves it now. A result given back with the same hosts comes back unchanged.
pub(crate) fn settle(
    current: &[Option<Assignment>],
    hosts: &BTreeMap<Arc<str>, u32>,
) -> Vec<Option<Assignment>> {
    let homes: Vec<_> =
        current.iter().map(|a| a.as_ref().map(|a| Arc::clone(home(a, hosts)))).collect();
    let placed = place(&homes, hosts).into_iter();
    let settled = placed.zip(homes).zip(current).map(|((placed, home), current)| match current {
        Some(now) if placed == home && stays(now, hosts) => Some(now.clone()),
        _ => placed.map(Assignment::to),
    });
    settled.collect()
}

/// Whose partition it is: where its home is not there, of who serves it.
pub(crate) fn home<'a>(
    assignment: &'a Assignment,
    hosts: &BTreeMap<Arc<str>, u32>,
) -> &'a Arc<str> {
    let home = assignment.home.as_ref().filter(|home| hosts.contains_key(*home));
    home.unwrap_or(&assignment.host)
}

/// Nobody there: nothing to decide.
fn stays(assignment: &Assignment, hosts: &BTreeMap<Arc<str>, u32>) -> bool {
    hosts.is_empty() || hosts.contains_key(&assignment.host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Hosts = BTreeMap<Arc<str>, u32>;

    fn hosts(names: impl IntoIterator<Item = usize>) -> Hosts {
        names.into_iter().map(|n| (format!("h{n}").into(), 1)).collect()
    }

    fn lend(placed: &mut [Option<Assignment>], partition: usize, to: &str, hosts: &Hosts) {
        let home = home(placed[partition].as_ref().unwrap(), hosts).clone();
        let home = Some(home).filter(|home| **home != *to);
        placed[partition] = Some(Assignment { host: to.into(), home });
    }

    fn moved(before: &[Option<Assignment>], after: &[Option<Assignment>]) -> usize {
        let host = |a: &Option<Assignment>| a.as_ref().map(|a| a.host.clone());
        before.iter().zip(after).filter(|(b, a)| host(b) != host(a)).count()
    }

    fn served(placed: &[Option<Assignment>], host: &str) -> usize {
        placed.iter().flatten().filter(|a| *a.host == *host).count()
    }

    #[test]
    fn a_loan_lasts_until_one_of_its_hosts_goes() {
        let three = hosts(1..=3);
        let mut placed = settle(&vec![None; 12], &three);
        let of_h1 = placed.iter().position(|a| *a.as_ref().unwrap().host == *"h1").unwrap();
        lend(&mut placed, of_h1, "h2", &three);
        assert_eq!(settle(&placed, &three), placed, "it is left as it is");
        assert_eq!((served(&placed, "h1"), served(&placed, "h2")), (3, 5));

        // The home goes: what it served moves, the loan does not.
        let two = settle(&placed, &hosts([2, 3]));
        assert_eq!(moved(&placed, &two), 3);
        assert_eq!(two[of_h1], placed[of_h1], "not even its epoch changes");
        assert_eq!((served(&two, "h2"), served(&two, "h3")), (6, 6));
        // It comes back: it takes no more than it had.
        let again = settle(&two, &three);
        assert_eq!((served(&again, "h1"), moved(&two, &again)), (3, 3));

        // The borrower goes: what was lent goes home, its own goes where the placement says.
        let home = settle(&placed, &hosts([1, 3]));
        assert_eq!(home[of_h1], Some(Assignment::to("h1".into())));
        assert_eq!(moved(&placed, &home), 5);

        // Nobody is there.
        assert_eq!(settle(&placed, &Hosts::new()), placed);
    }

    proptest! {
        /// With loans as without them: all are served by hosts that are there, homes keep their
        /// bounds, nothing moves without a reason, and the reasons are these: the placement gives
        /// another home, or who serves is gone.
        #[test]
        fn hosts_come_and_go_while_partitions_are_lent(
            partitions in 1_usize..100,
            changes in proptest::collection::vec(
                (
                    proptest::collection::btree_set(0_usize..8, 1..8),
                    proptest::collection::vec((0_usize..100, 0_usize..8), 0..10),
                ),
                1..8,
            ),
        ) {
            let mut placed = vec![None; partitions];
            for (alive, loans) in changes {
                let hosts = hosts(alive);
                let after = settle(&placed, &hosts);
                prop_assert_eq!(&settle(&after, &hosts), &after);
                let homes = |of: &[Option<Assignment>]| -> Vec<Option<Arc<str>>> {
                    of.iter().map(|a| a.as_ref().map(|a| home(a, &hosts).clone())).collect()
                };
                let (before_homes, after_homes) = (homes(&placed), homes(&after));
                prop_assert_eq!(&place(&after_homes, &hosts), &after_homes);
                for p in 0..partitions {
                    let (before, after) = (&placed[p], after[p].as_ref().unwrap());
                    prop_assert!(hosts.contains_key(&after.host));
                    if let Some(before) = before.as_ref().filter(|b| b.host != after.host) {
                        let served = hosts.contains_key(&before.host);
                        prop_assert!(before_homes[p] != after_homes[p] || !served);
                    }
                }
                placed = after;
                for (partition, host) in loans {
                    let to = hosts.keys().nth(host % hosts.len()).unwrap().clone();
                    lend(&mut placed, partition % partitions, &to, &hosts);
                }
            }
        }
    }
}
