use super::*;
use chaski_proto::v1::recipients_record::Event;

fn user(text: &str) -> UserId {
    text.parse().unwrap()
}

fn entry(offset: u64, users: &[&str]) -> Entry {
    let rejection = Event::Rejection(v1::Rejection::default());
    Entry::new(Offset(offset), users.iter().map(|u| user(u)).collect(), rejection, 100)
}

#[track_caller]
fn check(ring: &Ring, who: &str, after: Position, expected: Option<&[u64]>) {
    let found = match ring.read(&user(who), after, 1 << 20) {
        Read::Behind | Read::Expired(_) => None,
        Read::Events { events, .. } => {
            Some(events.iter().map(|(e, _)| e.position.0 & 0xffff).collect::<Vec<_>>())
        }
    };
    assert_eq!(found.as_deref(), expected);
}

#[test]
fn a_user_finds_exactly_their_own_events_after_a_cursor() {
    let ring = Ring::new(Offset(0), 1 << 20, 10);
    ring.push(vec![entry(1, &["ana", "ben"]), entry(4, &["ben"]), entry(5, &["ana"])], Offset(6));
    check(&ring, "ana", Position::BEGINNING, Some(&[1, 5]));
    check(&ring, "ana", Position::at(Offset(1)), Some(&[5]));
    check(&ring, "ben", Position::at(Offset(2)), Some(&[4]));
    check(&ring, "eve", Position::BEGINNING, Some(&[]));
    assert!(ring.knows(Position::at(Offset(5))) && !ring.knows(Position::at(Offset(6))));
}

#[test]
fn l5_a_cursor_before_the_ring_is_behind_never_skipped() {
    let ring = Ring::new(Offset(0), 1000, 10); // two entries of 400 bytes
    ring.push(vec![entry(1, &["ana"]), entry(3, &["ben"]), entry(7, &["ana"])], Offset(8));
    check(&ring, "ana", Position::BEGINNING, None);
    check(&ring, "ana", Position::at(Offset(1)), Some(&[7]));
    let warm = Ring::new(Offset(10), 1000, 10);
    check(&warm, "ana", Position::at(Offset(8)), None);
    check(&warm, "ana", Position::at(Offset(9)), Some(&[]));
}

#[test]
fn an_idle_device_does_not_fall_behind_a_busy_partition() {
    let ring = Ring::new(Offset(0), 1000, 10);
    let here = ring.subscribe((&user("ana"), &"phone".parse().unwrap()), 7, 1);
    ring.push((1..50).map(|offset| entry(offset, &["ben"])).collect(), Offset(50));
    check(&ring, "ana", Position::BEGINNING, Some(&[]));
    check(&ring, "eve", Position::BEGINNING, None);
    ring.push(vec![entry(50, &["ana"])], Offset(51));
    check(&ring, "ana", Position::BEGINNING, Some(&[50]));
    ring.push((51..99).map(|offset| entry(offset, &["ben"])).collect(), Offset(99));
    check(&ring, "ana", Position::BEGINNING, None);
    ring.unsubscribe(&user("ana"), &here);
}

#[test]
fn a_newer_socket_of_a_device_replaces_the_older_one() {
    let ring = Ring::new(Offset(0), 1000, 10);
    let (phone, desk) = ("phone".parse().unwrap(), "desk".parse().unwrap());
    let first = ring.subscribe((&user("ana"), &phone), 7, 2);
    let other = ring.subscribe((&user("ana"), &desk), 7, 3);
    let second = ring.subscribe((&user("ana"), &phone), 7, 4);
    assert_eq!(first.dismissed(), Some(CloseReason::Replaced));
    assert_eq!((other.dismissed(), second.dismissed()), (None, None));
    // The `hello` of a socket that its client gave up before the others.
    let late = ring.subscribe((&user("ana"), &phone), 7, 1);
    assert_eq!(late.dismissed(), Some(CloseReason::Replaced));
    assert_eq!(second.dismissed(), None, "the newer one stays");
    for subscriber in [&first, &other, &second, &late] {
        ring.unsubscribe(&user("ana"), subscriber);
    }
    assert_eq!(ring.sessions(), 0);
    assert!(ring.inner.lock().users.is_empty(), "nothing is kept for who is not here");
}

fn message(seq: u64, sender: &str) -> Event {
    let id = bytes::Bytes::copy_from_slice(&[seq as u8; 16]);
    Event::Message(v1::Message {
        chat_id: "g.1".into(),
        seq,
        message_id: id,
        sender_id: sender.into(),
        ..Default::default()
    })
}

#[test]
fn l7_a_message_is_hidden_from_those_who_block_its_sender_and_shown_to_others() {
    let ring = Ring::new(Offset(0), 1 << 20, 10);
    let users = vec![user("ana"), user("ben"), user("eve")];
    let entry = Entry::new(Offset(1), users, message(1, "eve"), 100).hide_from(vec![1]);
    ring.push(vec![entry], Offset(2));
    let shown = |who: &str| {
        let Read::Events { events, .. } = ring.read(&user(who), Position::BEGINNING, 1 << 20)
        else {
            panic!("the ring begins at 0")
        };
        let (entry, index) = &events[0];
        let twice = [entry.frame(*index, true), entry.frame(*index, true)].map(Option::unwrap);
        assert_eq!(twice[0].as_ptr(), twice[1].as_ptr(), "encoded once");
        let frame: serde_json::Value = serde_json::from_slice(&twice[0]).unwrap();
        frame
            .get("messageHidden")
            .or(frame.get("newMessage"))
            .cloned()
            .map(|body| (frame.get("messageHidden").is_some(), body["seq"].clone()))
    };
    assert_eq!(shown("ana"), Some((false, "1".into())));
    assert_eq!(shown("ben"), Some((true, "1".into())));
    let (chat, id) = ("g.1".parse().unwrap(), MessageId([1; 16]));
    assert!(ring.find(&user("ana"), &chat, id).is_some());
    assert!(ring.find(&user("ben"), &chat, id).is_none(), "what is hidden is not found");
    let upto = Position::at(Offset(1));
    assert_eq!(ring.taken(&user("ana"), upto), [(chat, 1)]);
    assert!(ring.taken(&user("ana"), Position::BEGINNING).is_empty(), "not before it was shown");
    assert!(ring.taken(&user("ben"), upto).is_empty(), "what is hidden is not delivered");
    assert!(ring.taken(&user("eve"), upto).is_empty(), "one's own message is not delivered");
}

#[test]
fn l5_a_cursor_before_what_inboxes_keep_is_told_where_to_go_on() {
    let ring = Ring::new(Offset(20), 1000, 10);
    let read = |after| match ring.read(&user("ana"), after, 1 << 20) {
        Read::Expired(last) => Err(Some(last)),
        Read::Behind => Err(None),
        Read::Events { .. } => Ok(()),
    };
    assert_eq!(read(Position::BEGINNING), Err(None), "nothing has expired");
    ring.expire_before(Offset(10));
    let last = Position::at(Offset(9));
    assert_eq!(read(Position::BEGINNING), Err(Some(last)));
    assert_eq!(read(Position::at(Offset(8))), Err(Some(last)));
    assert_eq!(read(last), Err(None), "from there on there are pages");
    assert_eq!(read(Position::at(Offset(19))), Ok(()));
}

#[test]
fn receipts_reach_the_sessions_they_are_for_and_only_the_latest_waits() {
    let ring = Ring::new(Offset(0), 1000, 1);
    let ana = ring.subscribe((&user("ana"), &"phone".parse().unwrap()), 7, 5);
    let ben = ring.subscribe((&user("ben"), &"phone".parse().unwrap()), 7, 6);
    let marks = |own, of: &[(&str, u64, u64)]| v1::ReceiptMarks {
        chat_id: "g.1".into(),
        marks: of
            .iter()
            .map(|(who, read_seq, public_read_seq)| v1::MemberMark {
                user_id: (*who).into(),
                delivered_seq: 9,
                read_seq: *read_seq,
                public_read_seq: *public_read_seq,
            })
            .collect(),
        own,
    };
    let both = [user("ana"), user("ben"), user("eve")];
    let told = |session: &Subscriber| {
        let receipts = session.receipts(Position::BEGINNING).into_iter();
        receipts.map(|r| (r.user_id, r.delivered_seq, r.read_seq)).collect::<Vec<_>>()
    };
    ring.tell(&both, &marks(true, &[("ana", 5, 2)]));
    assert_eq!(told(&ana), [("ana".to_owned(), 9, 5)], "one's own mark as it is");
    assert_eq!(told(&ben), [], "not others' own copy");
    ring.tell(&both, &marks(false, &[("ana", 3, 3), ("ben", 1, 1)]));
    ring.tell(&both, &marks(false, &[("ana", 6, 4), ("eve", 1, 1)]));
    assert_eq!(told(&ben), [("ana".to_owned(), 9, 4)], "the latest; no room for another");
    assert_eq!(told(&ana), [("ben".to_owned(), 9, 1)], "of oneself the own copy tells");
    assert_eq!(told(&ben), [], "told once");
}

#[test]
fn a_revocation_ends_sessions_with_tokens_issued_up_to_that_second() {
    let ring = Ring::new(Offset(0), 1000, 10);
    let (phone, desk) = ("phone".parse().unwrap(), "desk".parse().unwrap());
    let other = ring.subscribe((&user("ana"), &desk), 7, 7);
    let session = ring.subscribe((&user("ana"), &phone), 8, 8);
    ring.revoke(&user("ana"), &phone, 7);
    assert_eq!(session.dismissed(), None, "its token is newer");
    ring.revoke(&user("ana"), &phone, 8);
    assert_eq!(session.dismissed(), Some(CloseReason::Revoked));
    let session = ring.subscribe((&user("ana"), &phone), 8, 9);
    session.renew(9);
    ring.revoke(&user("ana"), &phone, 8);
    assert_eq!((session.dismissed(), other.dismissed()), (None, None));
}

#[test]
fn a_change_of_settings_outlasts_what_was_asked_before_it() {
    let ring = Ring::new(Offset(0), 500, 10); // one entry
    let ana = user("ana");
    let session = ring.subscribe((&ana, &"phone".parse().unwrap()), 7, 10);
    assert_eq!(ring.hide_read(&ana), None);
    let change = v1::SettingsChange { hide_read_marks: true, by_device_id: "desk".into() };
    let entry = Entry::new(Offset(1), vec![ana.clone()], Event::SettingsChange(change), 100);
    assert!(entry.frame(0, true).is_none(), "no device is shown it");
    ring.push(vec![entry], Offset(2));
    assert!(ring.learn_hide_read(&ana, false), "the answer is older than the change");
    ring.push((2..9).map(|offset| self::entry(offset, &["ben"])).collect(), Offset(9));
    assert_eq!(ring.hide_read(&ana), Some(true), "kept while somebody is here");
    ring.set_hide_read(&ana, false);
    assert_eq!(ring.hide_read(&ana), Some(false));
    ring.unsubscribe(&ana, &session);
    assert_eq!(ring.hide_read(&ana), None);
}

#[test]
fn a_session_that_comes_while_all_are_sent_away_goes_too() {
    let ring = Ring::new(Offset(0), 1000, 10);
    let first = ring.subscribe((&user("ana"), &"phone".parse().unwrap()), 7, 11);
    ring.dismiss(CloseReason::Moved);
    let late = ring.subscribe((&user("ana"), &"desk".parse().unwrap()), 7, 12);
    assert_eq!([first.dismissed(), late.dismissed()], [Some(CloseReason::Moved); 2]);
}
