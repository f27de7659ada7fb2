//! The whole system against its contract, on both sets of backends. Each case is written once and
//! becomes `embedded::case` and `real::case`. The real servers are named by `CHASKI_LOG`,
//! `CHASKI_STORE` and `CHASKI_COORDINATOR`; where one is missing its cases fail, they are never
//! skipped. `infra/local/backends.sh up` starts them and prints these variables.

#[path = "e2e/ends.rs"]
mod ends;
#[path = "e2e/messages.rs"]
mod messages;
#[path = "e2e/refusals.rs"]
mod refusals;
#[path = "e2e/resume.rs"]
mod resume;
#[path = "e2e/sockets.rs"]
mod sockets;

/// Hands all cases to a macro.
macro_rules! cases {
    ($then:ident $(, $arg:tt)*) => {
        $then! { $($arg),* :
            messages::a_message_by_http_reaches_every_device
            messages::a_message_by_websocket_is_accepted_and_echoed
            messages::a_chat_is_made_once
            messages::history_inbox_and_sockets_agree
            messages::a_write_token_shows_the_write
            messages::a_retry_is_the_same_message
            messages::texts_are_kept_byte_for_byte
            resume::everything_after_resume_after_and_no_more
            resume::without_resume_after_the_stored_cursor_counts
            resume::a_device_far_behind_catches_up_while_others_talk
            resume::a_position_from_the_future_is_told_to_resync
            refusals::strangers_are_rejected_once_and_nobody_sees
            refusals::illegal_values_are_refused_and_nothing_is_written
            refusals::limits_hold_at_the_limit_and_one_past_it
            refusals::bad_tokens_open_nothing
            refusals::wrong_frames_leave_the_socket_open
            sockets::both_subprotocols_say_the_same
            sockets::protocol_errors_close_with_4502
            sockets::a_frame_over_the_limit_closes_with_1009
            sockets::a_newer_socket_replaces_the_older
            sockets::a_token_that_ends_closes_with_4004
            sockets::silence_closes_with_4005
            ends::a_drain_sends_clients_away_and_a_restart_forgets_nothing
            ends::a_record_that_cannot_be_read_is_buried
            ends::what_was_accepted_survives_kill_9
        }
    };
}

macro_rules! count {
    (: $($module:ident::$case:ident)+) => {
        [$(stringify!($case)),+].len()
    };
}

const COUNT: usize = cases!(count);

macro_rules! tests {
    ($set:ident : $($module:ident::$case:ident)+) => {
        $(
            #[test]
            fn $case() {
                let set = chaski_tests::Set::$set;
                chaski_tests::run(set, stringify!($case), crate::COUNT, |set| {
                    Box::pin(crate::$module::$case(set))
                });
            }
        )+
    };
}

mod embedded {
    cases!(tests, Embedded);
}

mod real {
    cases!(tests, Real);
}
