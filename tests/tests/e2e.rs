//! The whole system against its contract, on both sets of backends. Each case is written once and
//! becomes `embedded::case` and `real::case`. The real servers are named by `CHASKI_LOG`,
//! `CHASKI_STORE` and `CHASKI_COORDINATOR`; where one is missing its cases fail, they are never
//! skipped. `infra/local/backends.sh up` starts them and prints these variables.

#[path = "e2e/blocks.rs"]
mod blocks;
#[path = "e2e/devices.rs"]
mod devices;
#[path = "e2e/ends.rs"]
mod ends;
#[path = "e2e/errors.rs"]
mod errors;
#[path = "e2e/groups.rs"]
mod groups;
#[path = "e2e/late.rs"]
mod late;
#[path = "e2e/messages.rs"]
mod messages;
#[path = "e2e/past.rs"]
mod past;
#[path = "e2e/receipts.rs"]
mod receipts;
#[path = "e2e/refusals.rs"]
mod refusals;
#[path = "e2e/relay.rs"]
mod relay;
#[path = "e2e/resume.rs"]
mod resume;
#[path = "e2e/retention.rs"]
mod retention;
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
            sockets::a_client_that_does_not_read_is_cut_with_4003_and_loses_nothing
            errors::each_call_answers_each_error_the_same_by_every_way
            errors::what_does_not_come_in_time_is_503_or_408
            ends::a_drain_sends_clients_away_and_a_restart_forgets_nothing
            ends::a_record_that_cannot_be_read_is_buried
            ends::what_was_accepted_survives_kill_9
            groups::members_come_and_go_by_their_roles
            groups::a_new_member_sees_all_where_the_chat_says_so
            groups::a_removal_divides_the_messages_around_it
            groups::a_group_of_100_takes_no_other
            receipts::authors_are_told_what_was_delivered_and_read
            receipts::a_hundred_marks_of_a_moment_are_few_receipts
            receipts::hidden_read_marks_stay_with_their_user
            receipts::a_group_of_21_is_asked_for_receipts
            receipts::receipts_of_a_group_cost_far_less_than_pairs
            devices::a_revoked_device_is_cut_off_within_a_second
            devices::ten_devices_and_not_one_more
            devices::a_new_device_gets_everything_and_goes_on_where_it_stopped
            devices::sent_received_and_unreceived_are_stable_pages
            blocks::a_block_withholds_everywhere_and_the_blocked_sees_no_difference
            blocks::a_block_is_exact_among_messages_in_flight
            blocks::two_devices_agree_on_a_connection_by_its_version
            blocks::a_group_with_somebody_blocked_keeps_its_seq
            blocks::what_was_blocked_before_the_join_stays_hidden
            blocks::a_visible_block_refuses_the_blocked
            late::a_recipient_refuses_a_late_message_once
            retention::a_chat_keeps_its_messages_for_the_days_it_was_made_with
            retention::how_long_a_chat_is_kept_is_said_when_it_is_made
            late::events_that_have_expired_are_told_and_history_has_them
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
