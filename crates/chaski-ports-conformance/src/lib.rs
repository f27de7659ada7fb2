//! The conformance suite of the ports: one module a port, each case listed once, every backend
//! runs them all. A law of a port's docs is a case of the same name here; a test below reads
//! both and compares.
//!
//! A backend's test module says how to make a [`Fixture`] and then one line a port:
//!
//! ```text
//! chaski_ports_conformance::log_suite!(embedded, crate::embedded_log);
//! ```
//!
//! Must not know: any backend.

pub mod chats;
pub mod checkpoints;
pub mod connections;
pub mod coordinator;
pub mod devices;
pub mod fixture;
pub mod log;
pub mod messages;

pub use fixture::{Beside, Fixture, INBOX_DAYS, LogFixture, run};

/// Hands the names of the log's cases to a macro.
#[macro_export]
macro_rules! log_cases {
    ($($then:ident)::+ $(, $arg:tt)*) => {
        $($then)::+! { log $(, $arg)* : append_is_durable order_of_admission offsets_grow
            read_from_offset reads_wait next_is_cancel_safe out_of_range_is_an_error
            full_is_refused bytes_are_kept topics_are_made_once unknown_places_are_not_found
            readers_and_writers_meet }
    };
}

/// Hands the names of the message store's cases to a macro.
#[macro_export]
macro_rules! messages_cases {
    ($($then:ident)::+ $(, $arg:tt)*) => {
        $($then)::+! { messages $(, $arg)* : durable_on_return rewrite_is_a_no_op
            the_first_of_a_day_stays slices_are_ordered inboxes_forget places_stay a_batch_is_not_atomic
            neighbours_stay_apart items_keep_the_order_asked }
    };
}

/// Hands the names of the chat store's cases to a macro.
#[macro_export]
macro_rules! chats_cases {
    ($($then:ident)::+ $(, $arg:tt)*) => {
        $($then)::+! { chats $(, $arg)* : durable_on_return newer_version_wins
            slices_are_ordered neighbours_stay_apart }
    };
}

/// Hands the names of the connection store's cases to a macro.
#[macro_export]
macro_rules! connections_cases {
    ($($then:ident)::+ $(, $arg:tt)*) => {
        $($then)::+! { connections $(, $arg)* : durable_on_return rewrite_is_a_no_op
            newer_version_wins slices_are_ordered neighbours_stay_apart }
    };
}

/// Hands the names of the device store's cases to a macro.
#[macro_export]
macro_rules! devices_cases {
    ($($then:ident)::+ $(, $arg:tt)*) => {
        $($then)::+! { devices $(, $arg)* : durable_on_return newer_version_wins
            notes_stand_beside_cursors devices_are_ordered }
    };
}

/// Hands the names of the checkpoint store's cases to a macro.
#[macro_export]
macro_rules! checkpoints_cases {
    ($($then:ident)::+ $(, $arg:tt)*) => {
        $($then)::+! { checkpoints $(, $arg)* : durable_on_return
            greatest_epoch_then_offset_wins a_claim_grows a_late_claim_is_refused the_newest_hundred_are_kept
            a_large_snapshot_is_kept }
    };
}

/// Hands the names of the coordinator's cases to a macro.
#[macro_export]
macro_rules! coordinator_cases {
    ($($then:ident)::+ $(, $arg:tt)*) => {
        $($then)::+! { coordinator $(, $arg)* : put_is_conditional epochs_grow ephemerals_end
            watch_misses_nothing one_leader sessions_tell a_session_is_followed children_are_sorted }
    };
}

/// The log's suite: `log_suite!(backend, path::to::factory)`. The factory is an `async fn` that
/// gives a fresh, isolated [`LogFixture`].
#[macro_export]
macro_rules! log_suite {
    ($backend:ident, $factory:path) => {
        $crate::log_cases!($crate::__tests, $backend, ($factory));
    };
}

/// The message store's suite: `messages_suite!(backend, path::to::factory)`.
#[macro_export]
macro_rules! messages_suite {
    ($backend:ident, $factory:path) => {
        $crate::messages_cases!($crate::__tests, $backend, ($factory));
    };
}

/// The chat store's suite: `chats_suite!(backend, path::to::factory)`.
#[macro_export]
macro_rules! chats_suite {
    ($backend:ident, $factory:path) => {
        $crate::chats_cases!($crate::__tests, $backend, ($factory));
    };
}

/// The connection store's suite: `connections_suite!(backend, path::to::factory)`.
#[macro_export]
macro_rules! connections_suite {
    ($backend:ident, $factory:path) => {
        $crate::connections_cases!($crate::__tests, $backend, ($factory));
    };
}

/// The device store's suite: `devices_suite!(backend, path::to::factory)`.
#[macro_export]
macro_rules! devices_suite {
    ($backend:ident, $factory:path) => {
        $crate::devices_cases!($crate::__tests, $backend, ($factory));
    };
}

/// The checkpoint store's suite: `checkpoints_suite!(backend, path::to::factory)`.
#[macro_export]
macro_rules! checkpoints_suite {
    ($backend:ident, $factory:path) => {
        $crate::checkpoints_cases!($crate::__tests, $backend, ($factory));
    };
}

/// The coordinator's suite: `coordinator_suite!(backend, path::to::factory)`.
#[macro_export]
macro_rules! coordinator_suite {
    ($backend:ident, $factory:path) => {
        $crate::coordinator_cases!($crate::__tests, $backend, ($factory));
    };
}

/// One test for each case of a suite.
#[doc(hidden)]
#[macro_export]
macro_rules! __tests {
    ($suite:ident, $backend:ident, ($factory:path) : $($case:ident)+) => {
        mod $suite {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $case() {
                    $crate::run(
                        (stringify!($suite), stringify!($backend), stringify!($case)),
                        $factory().await,
                        $crate::$suite::$case,
                    )
                    .await;
                }
            )+
        }
    };
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    macro_rules! names {
        ($suite:ident : $($case:ident)+) => {
            [$(stringify!($case)),+]
        };
    }

    /// The names that stand between two marks at the beginnings of lines.
    fn named<'a>(source: &'a str, before: &str, after: &str) -> BTreeSet<&'a str> {
        let lines = source.lines().filter_map(|line| line.strip_prefix(before));
        lines.filter_map(|rest| Some(rest.split_once(after)?.0)).collect()
    }

    #[track_caller]
    fn check(laws: &str, suites: &[(&str, &[&str])]) {
        let laws = named(laws, "//! - **", "**");
        assert!(!laws.is_empty(), "the port's docs name laws");
        let listed: BTreeSet<&str> = suites.iter().flat_map(|(_, cases)| *cases).copied().collect();
        let missing: Vec<_> = laws.difference(&listed).collect();
        assert!(missing.is_empty(), "laws without a case: {missing:?}");
        for (source, cases) in suites {
            let written = named(source, "pub async fn ", "<");
            assert_eq!(written, cases.iter().copied().collect(), "every case is listed");
        }
    }

    #[test]
    fn every_law_has_a_case_and_every_case_is_listed() {
        check(
            include_str!("../../chaski-ports/src/log.rs"),
            &[(include_str!("log.rs"), &log_cases!(names))],
        );
        check(
            include_str!("../../chaski-ports/src/store.rs"),
            &[
                (include_str!("messages.rs"), &messages_cases!(names)),
                (include_str!("chats.rs"), &chats_cases!(names)),
                (include_str!("connections.rs"), &connections_cases!(names)),
                (include_str!("devices.rs"), &devices_cases!(names)),
                (include_str!("checkpoints.rs"), &checkpoints_cases!(names)),
            ],
        );
        check(
            include_str!("../../chaski-ports/src/coordinator.rs"),
            &[(include_str!("coordinator.rs"), &coordinator_cases!(names))],
        );
    }
}
