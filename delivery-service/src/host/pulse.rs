//! Whether a reader keeps up with the end of the log, as far as it can tell.
//!
//! Told in checks, not in time: a process that stood still for a while has had no occasion to read.

use chaski_core::Offset;

/// So many checks in a row may find that no end was reached.
pub(super) const CHECKS_MAX: u32 = 5;

/// Follows how a reader stands against the end of its partition. It keeps up once it has reached an
/// end, and until so many checks have gone by without another one: who cannot read, or cannot even
/// ask, does not know what it misses.
pub(super) struct Pulse {
    keeps_up: bool,
    /// Checks since an end was reached.
    checks: u32,
    /// An end that is not reached yet.
    goal: Option<Offset>,
}

impl Pulse {
    /// Of a reader that begins while the log ends at `end`.
    pub(super) fn new(end: Offset) -> Self {
        Self { keeps_up: false, checks: 0, goal: Some(end) }
    }

    /// Time has gone by, and it is asked where the log ends.
    pub(super) fn check(&mut self) {
        self.checks += 1;
    }

    /// The log ends at `end`.
    pub(super) fn heard(&mut self, end: Offset) {
        // Who is behind has to reach the newest end; who keeps up, one after the other.
        if !self.keeps_up || self.goal.is_none() {
            self.goal = Some(end);
        }
    }

    /// Whether a reader that has come to `next` keeps up.
    pub(super) fn keeps_up(&mut self, next: Offset) -> bool {
        if self.goal.is_some_and(|end| next >= end) {
            (self.goal, self.checks, self.keeps_up) = (None, 0, true);
        } else if self.checks > CHECKS_MAX {
            self.keeps_up = false;
        }
        self.keeps_up
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_not_reached_an_end_for_too_long_is_behind_until_it_reaches_the_newest() {
        let mut pulse = Pulse::new(Offset(10));
        (0..60).for_each(|_| pulse.check());
        assert!(!pulse.keeps_up(Offset(9)), "it warms up");
        assert!(pulse.keeps_up(Offset(10)), "however long that took");
        // A busy log: each end is reached one check later.
        for end in 11..30 {
            pulse.check();
            pulse.heard(Offset(end));
            assert!(pulse.keeps_up(Offset(end - 1)), "{end}");
            assert!(pulse.keeps_up(Offset(end)), "{end}");
        }
        // It reads nothing more: of the ends, the oldest counts, though newer ones are told.
        for check in 1..=CHECKS_MAX + 1 {
            pulse.check();
            pulse.heard(Offset(29 + u64::from(check)));
            assert_eq!(pulse.keeps_up(Offset(29)), check <= CHECKS_MAX, "{check}");
        }
        // Then it reads on: what it was to reach then is not enough now.
        pulse.heard(Offset(100));
        assert!(!pulse.keeps_up(Offset(99)));
        assert!(pulse.keeps_up(Offset(100)));
        // Nobody says where the log ends.
        (0..CHECKS_MAX).for_each(|_| pulse.check());
        assert!(pulse.keeps_up(Offset(100)));
        pulse.check();
        assert!(!pulse.keeps_up(Offset(100)));
    }
}
