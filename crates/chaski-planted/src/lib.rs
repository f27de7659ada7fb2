//! Bugs that are planted on purpose, to show that the fault harness finds them: which there are, and
//! whether one of them is to show itself in this process.
//!
//! Without the feature `planted` [`is`] is a constant `false`, and every hook compiles to nothing. With
//! it the environment variable `CHASKI_PLANTED` names one bug for the life of the process. Must not
//! know: what a hook breaks, and how it is found (`chaski-chaos` has the plan for each).

mod catalogue;

pub use catalogue::{Bug, Tier};

/// The environment variable that names the bug.
pub const VARIABLE: &str = "CHASKI_PLANTED";

/// Whether this program can have a bug at all.
pub const ON: bool = cfg!(feature = "planted");

/// Whether this bug is to show itself.
#[cfg(not(feature = "planted"))]
#[inline(always)]
#[must_use]
pub const fn is(_bug: Bug) -> bool {
    false
}

/// Whether this bug is to show itself.
///
/// # Panics
/// The variable names no bug: a run that looks for one must not go well because of a misspelt name.
#[cfg(feature = "planted")]
#[must_use]
pub fn is(bug: Bug) -> bool {
    chosen() == Some(bug)
}

#[cfg(feature = "planted")]
fn chosen() -> Option<Bug> {
    use std::sync::OnceLock;
    static CHOSEN: OnceLock<Option<Bug>> = OnceLock::new();
    *CHOSEN.get_or_init(|| {
        let name = std::env::var(VARIABLE).ok().filter(|name| !name.is_empty())?;
        let bug = Bug::of(&name);
        assert!(bug.is_some(), "{VARIABLE}: there is no planted bug {name:?}");
        bug
    })
}

/// What a program says for its version: one that can have planted bugs is no version of anything.
#[must_use]
pub const fn version(plain: &'static str) -> &'static str {
    if ON { "with PLANTED BUGS, for tests of the fault harness only" } else { plain }
}

/// What such a program says loudly at its start.
#[must_use]
pub fn warning() -> Option<String> {
    #[cfg(feature = "planted")]
    return Some(match chosen() {
        Some(bug) => format!("THIS PROGRAM HAS A PLANTED BUG: {}: {}", bug.name(), bug.what()),
        None => "THIS PROGRAM CAN HAVE PLANTED BUGS; none is chosen".into(),
    });
    #[cfg(not(feature = "planted"))]
    None
}

#[cfg(all(test, not(feature = "planted")))]
mod tests {
    use super::*;

    /// Known to the compiler: the hooks are gone.
    const _: () = assert!(!ON && !is(Bug::AcksOne));

    #[test]
    fn without_the_feature_no_bug_shows_itself_and_the_version_is_plain() {
        assert!(Bug::ALL.iter().all(|bug| !is(*bug)));
        assert_eq!(version("1.2.3"), "1.2.3");
        assert_eq!(warning(), None);
    }
}
