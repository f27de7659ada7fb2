//! A value of each stored type, all fields set to something that tells it from its neighbours.

use crate::Sample;
use bytes::Bytes;
use chaski_core::{ChatId, UserId};
use chaski_proto::v1::{
    self, content::Body, create_chat::History, modify_chat_participants::Operation,
    new_messages_record::Action, recipients_record::Event, stored_event, stored_item,
};
use prost::Message;

const AT_MS: i64 = 1_700_000_000_123;

fn sample<M: Message + Default + PartialEq>(
    of: &'static str,
    name: &'static str,
    value: M,
) -> Sample {
    let comes_back = |golden: &[u8], written: &[u8]| match (M::decode(golden), M::decode(written)) {
        (Ok(golden), Ok(written)) => golden == written && golden != M::default(),
        _ => false,
    };
    // What is decoded is compared with what was encoded, so neither side can hide a loss.
    let bytes = value.encode_to_vec();
    assert!(M::decode(&bytes[..]).as_ref() == Ok(&value), "{of} {name} does not come back");
    Sample { of, name, bytes, comes_back }
}

fn id(first: u8) -> Bytes {
    (first..first + 16).collect::<Vec<u8>>().into()
}

fn chat() -> String {
    let ana: UserId = "ana".parse().expect("legal");
    ChatId::created(&ana, &"client-chat-1".parse().expect("legal")).to_string()
}

fn attachment() -> v1::Attachment {
    v1::Attachment {
        id: "attachment-1".into(),
        size: u64::MAX - 1,
        content_type: "image/png".into(),
        sha256: vec![0xab; 32].into(),
    }
}

fn content(body: Body) -> v1::Content {
    v1::Content { body: Some(body), attachments: vec![attachment()] }
}

fn text() -> v1::Content {
    content(Body::Text("Grüße\n".into()))
}

fn place() -> v1::Place {
    v1::Place { offset: 1 << 40, index: 3 }
}

fn origin() -> v1::Origin {
    v1::Origin { source: 0x0123_4567_89ab_cdef, partition: 11, place: Some(place()) }
}

fn member(user: &str, role: v1::Role, visible_from: u64) -> v1::Member {
    v1::Member { user_id: user.into(), role: role.into(), visible_from, ..Default::default() }
}

fn members() -> Vec<v1::Member> {
    vec![member("ana", v1::Role::Admin, 1), member("ben", v1::Role::Member, 7)]
}

fn former() -> v1::Member {
    let earlier = vec![v1::SeqSpan { first: 7, last: Some(43) }];
    v1::Member { earlier, joined: 7, ..member("eva", v1::Role::Member, 7) }
}

fn submit() -> v1::SubmitMessage {
    v1::SubmitMessage {
        to: "ben".into(),
        client_message_id: "client-message-1".into(),
        content: Some(text()),
        sent_at_ms: Some(AT_MS - 5),
    }
}

fn create() -> v1::SubmitChat {
    v1::SubmitChat {
        request_id: id(1),
        participants: vec!["ben".into(), "eva".into()],
        name: "the name".into(),
        client_chat_id: "client-chat-1".into(),
        history: History::All.into(),
        history_days: 0,
    }
}

fn change() -> v1::SubmitChatChange {
    let participants = v1::ModifyChatParticipants {
        chat_id: chat(),
        user_id: "eva".into(),
        operation: Operation::Promote.into(),
    };
    let name = Some("another name".into());
    v1::SubmitChatChange { request_id: id(2), name, participants: Some(participants) }
}

fn message() -> v1::Message {
    v1::Message {
        chat_id: chat(),
        seq: 42,
        message_id: id(3),
        client_message_id: "client-message-1".into(),
        sender_id: "ana".into(),
        sender_device_id: "phone".into(),
        content: Some(text()),
        sent_at_ms: Some(AT_MS - 5),
        accepted_at_ms: AT_MS,
        members: members(),
        history_days: 0,
    }
}

fn chat_change() -> v1::ChatChange {
    v1::ChatChange {
        chat_id: chat(),
        seq: 43,
        members: members(),
        name: "the name".into(),
        version: 2,
        visible_from: vec![1, 7],
        accepted_at_ms: AT_MS,
        left: vec![],
        history_days: 0,
    }
}

fn rejection() -> v1::Rejection {
    v1::Rejection {
        chat_id: chat(),
        message_id: id(4),
        client_message_id: "client-message-2".into(),
        by_user_id: "ben".into(),
        cause: v1::Cause::OtherContent.into(),
        reason: "because".into(),
    }
}

fn verdict() -> v1::ChatVerdict {
    let cause = v1::Cause::OtherChat.into();
    v1::ChatVerdict { request_id: id(5), chat_id: chat(), changed: true, cause }
}

fn ask_connection() -> v1::SetConnection {
    let status = v1::ConnectionStatus::Blocked.into();
    v1::SetConnection { user_id: "ben".into(), status, based_on_version: Some(9) }
}

fn request(ask: v1::connection_request::Request) -> v1::ConnectionRequest {
    v1::ConnectionRequest {
        request_id: id(6),
        user_id: "ana".into(),
        by_device_id: "phone".into(),
        at_ms: AT_MS,
        request: Some(ask),
    }
}

fn connection_change() -> v1::ConnectionChange {
    v1::ConnectionChange {
        peer_id: "ben".into(),
        status: v1::ConnectionStatus::Blocked.into(),
        version: 10,
        by_device_id: "phone".into(),
        lifted: true,
    }
}

fn settings_change() -> v1::SettingsChange {
    v1::SettingsChange { hide_read_marks: true, by_device_id: "phone".into() }
}

fn member_mark() -> v1::MemberMark {
    v1::MemberMark { user_id: "ben".into(), delivered_seq: 41, read_seq: 40, public_read_seq: 39 }
}

fn marks() -> v1::ReceiptMarks {
    v1::ReceiptMarks { chat_id: chat(), marks: vec![member_mark()], own: true }
}

fn user_mark() -> v1::UserMark {
    v1::UserMark { user_id: "ben".into(), delivered_seq: 41, read_seq: 40, hide_read: true }
}

fn rules() -> v1::ChatRules {
    v1::ChatRules {
        participants_max: 100,
        managers: v1::chat_rules::Managers::Everyone.into(),
        receipts_push_max: 20,
    }
}

fn connection_verdict() -> v1::ConnectionVerdict {
    let connection = v1::Connection {
        user_id: "ben".into(),
        status: v1::ConnectionStatus::Blocked.into(),
        version: 10,
    };
    v1::ConnectionVerdict { connection: Some(connection), conflict: true, offset: Some(1 << 40) }
}

fn member_state() -> v1::StoredMemberState {
    v1::StoredMemberState { delivered_seq: 41, read_seq: 40, public_read_seq: 39, sent_seq: 38 }
}

fn seen() -> v1::StoredSeen {
    v1::StoredSeen { day: 19_675, keys: vec![0x5a; 48].into() }
}

fn chat_state() -> v1::StoredChatState {
    v1::StoredChatState {
        chat_id: chat(),
        creation: 0xfedc_ba98_7654_3210,
        name: "the name".into(),
        history: History::All.into(),
        version: 2,
        last_seq: 43,
        members: members(),
        former: vec![],
        states: vec![],
        former_states: vec![],
        history_days: 0,
    }
}

fn input(name: &'static str, action: Action) -> Sample {
    let record = v1::NewMessagesRecord {
        chat_id: chat(),
        user_id: "ana".into(),
        device_id: "phone".into(),
        accepted_at_ms: AT_MS,
        action: Some(action),
    };
    sample("NewMessagesRecord", name, record)
}

fn output(name: &'static str, event: Event) -> Sample {
    let record = v1::RecipientsRecord {
        origin: Some(origin()),
        prev: Some(v1::Place { offset: 5, index: 2 }),
        users: vec!["ana".into(), "ben".into()],
        at_ms: AT_MS,
        event: Some(event),
    };
    sample("RecipientsRecord", name, record)
}

/// Marks name their users themselves.
fn marks_input(marks: v1::SubmitMarks) -> Sample {
    let record = v1::NewMessagesRecord {
        chat_id: chat(),
        accepted_at_ms: AT_MS,
        action: Some(Action::Marks(marks)),
        ..Default::default()
    };
    sample("NewMessagesRecord", "marks", record)
}

/// A record that is for one user alone.
fn own(name: &'static str, event: Event) -> Sample {
    let record = v1::RecipientsRecord {
        origin: Some(origin()),
        prev: Some(v1::Place { offset: 5, index: 0 }),
        users: vec!["ana".into()],
        at_ms: AT_MS,
        event: Some(event),
    };
    sample("RecipientsRecord", name, record)
}

fn item(name: &'static str, item: stored_item::Item) -> Sample {
    sample("StoredItem", name, v1::StoredItem { item: Some(item), origin: None })
}

fn placed(item: stored_item::Item) -> Sample {
    let item = v1::StoredItem { item: Some(item), origin: Some(origin()) };
    sample("StoredItem", "with-origin", item)
}

fn event(name: &'static str, event: stored_event::Event) -> Sample {
    sample("StoredEvent", name, v1::StoredEvent { event: Some(event) })
}

/// All of them.
pub(crate) fn all() -> Vec<Sample> {
    use v1::connection_request::Request;
    let marked = v1::SubmitMarks { marks: vec![user_mark()] };
    let refusal = v1::SubmitRejection {
        message_id: id(4),
        reason: "because".into(),
        sender_id: "ben".into(),
        client_message_id: "client-message-2".into(),
        message_accepted_at_ms: AT_MS - 7,
    };
    let tick = v1::Tick { now_ms: AT_MS, rules: Some(rules()) };
    let by_name = v1::SubmitChatChange { participants: None, ..change() };
    let by_participant = v1::SubmitChatChange {
        name: None,
        participants: Some(v1::ModifyChatParticipants {
            user_id: "eva".into(),
            operation: Operation::Promote.into(),
            ..Default::default()
        }),
        ..change()
    };
    let left = v1::ChatChange { left: vec![former()], ..chat_change() };
    let lived = v1::StoredChatState {
        former: vec![former()],
        states: vec![member_state(); 2],
        former_states: vec![member_state()],
        ..chat_state()
    };
    let kept = v1::StoredMembership { history_days: 40, ..membership(7) };
    let chat_kept = v1::StoredChatState { history_days: 40, ..chat_state() };
    let settings = v1::SetSettings { hide_read_marks: true };
    let stored_connection = v1::StoredConnection {
        status: v1::ConnectionStatus::Blocked.into(),
        request_offset: 1 << 40,
        by_device_id: "phone".into(),
        at_ms: 0,
    };
    let connection_at = v1::StoredConnection { at_ms: AT_MS, ..stored_connection.clone() };
    let stored_mark = v1::StoredMark { delivered_seq: 41, read_seq: 40, public_read_seq: 39 };
    let state = v1::ConnectionState { status: v1::ConnectionStatus::Blocked.into(), version: 10 };
    let pointer = v1::MessagePointer { chat_id: chat(), seq: 42, sent: true };
    let span = v1::SeqSpan { first: 7, last: Some(43) };
    let update = chat_change().as_seen(7);
    let chat_verdict = v1::StoredVerdict { verdict: Some(verdict()), connection: None };
    let connection_answer =
        v1::StoredVerdict { verdict: None, connection: Some(connection_verdict()) };
    vec![
        input("submit", Action::Submit(submit())),
        input("create", Action::Create(create())),
        input("change", Action::Change(change())),
        input("rename", Action::Change(by_name)),
        input("promote", Action::Change(by_participant)),
        marks_input(marked.clone()),
        input("rejection", Action::Rejection(refusal.clone())),
        input("tick", Action::Tick(tick)),
        sample("SubmitMessage", "full", submit()),
        sample("Content", "text", text()),
        sample("Content", "ciphertext", content(Body::Ciphertext(vec![0, 255, 0].into()))),
        sample("SubmitChat", "full", create()),
        sample("SubmitChat", "kept-40-days", v1::SubmitChat { history_days: 40, ..create() }),
        sample("SubmitChatChange", "full", change()),
        sample("SubmitMarks", "full", marked),
        sample("UserMark", "full", user_mark()),
        sample("ChatRules", "full", rules()),
        sample("SubmitRejection", "full", refusal),
        sample("Tick", "full", tick),
        output("message", Event::Message(message())),
        output("chat-change", Event::ChatChange(chat_change())),
        output("rejection", Event::Rejection(rejection())),
        output("verdict", Event::Verdict(verdict())),
        output("duplicate", Event::Duplicate(id(7))),
        output("chat-change-left", Event::ChatChange(left.clone())),
        output("marks", Event::Marks(marks())),
        own("connection-change", Event::ConnectionChange(connection_change())),
        own("settings-change", Event::SettingsChange(settings_change())),
        sample("Origin", "full", origin()),
        sample("Place", "full", place()),
        sample("Message", "full", message()),
        sample("Message", "kept-40-days", v1::Message { history_days: 40, ..message() }),
        sample("Member", "full", member("ben", v1::Role::Admin, 7)),
        sample("Member", "former", former()),
        sample("ChatChange", "full", chat_change()),
        sample("ChatChange", "left", left),
        sample("ChatChange", "kept-40-days", v1::ChatChange { history_days: 40, ..chat_change() }),
        sample("Rejection", "full", rejection()),
        sample("ChatVerdict", "full", verdict()),
        sample("ConnectionRequest", "connection", request(Request::Connection(ask_connection()))),
        sample("ConnectionRequest", "settings", request(Request::Settings(settings))),
        sample("ConnectionChange", "full", connection_change()),
        sample("SettingsChange", "full", settings_change()),
        sample("ConnectionState", "full", state),
        sample("Revocation", "full", v1::Revocation { revoked_at: AT_MS / 1000 }),
        sample("ReceiptMarks", "full", marks()),
        sample("MemberMark", "full", member_mark()),
        sample("DeadLetter", "full", dead_letter()),
        sample("Alert", "full", alert()),
        sample("Alert", "of-a-message", alert_of_a_message()),
        item("message", stored_item::Item::Message(message())),
        item("chat-change", stored_item::Item::ChatChange(chat_change())),
        placed(stored_item::Item::Message(message())),
        event("message", stored_event::Event::Message(pointer.clone())),
        event("chat-update", stored_event::Event::ChatUpdate(update)),
        event("rejection", stored_event::Event::Rejection(rejection())),
        event("connection-change", stored_event::Event::ConnectionChange(connection_change())),
        event("hidden", stored_event::Event::Hidden(pointer.clone())),
        sample("MessagePointer", "full", pointer),
        sample("StoredChat", "full", stored_chat()),
        sample("StoredChat", "kept-40-days", v1::StoredChat { history_days: 40, ..stored_chat() }),
        sample("StoredMembership", "full", membership(0)),
        sample("StoredMembership", "joined", membership(7)),
        sample("StoredMembership", "kept-40-days", kept),
        sample("SeqSpan", "full", span),
        sample("StoredVerdict", "full", chat_verdict),
        sample("StoredVerdict", "connection", connection_answer),
        sample("ConnectionVerdict", "full", connection_verdict()),
        sample("StoredConnection", "full", stored_connection),
        sample("StoredConnection", "with-its-time", connection_at),
        sample("StoredSettings", "full", v1::StoredSettings { hide_read_marks: true }),
        sample("StoredMark", "full", stored_mark),
        sample("StoredBucket", "full", bucket()),
        sample("StoredSeen", "full", seen()),
        sample(
            "StoredControl",
            "full",
            v1::StoredControl { now_ms: AT_MS, rules: Some(rules()), next: None },
        ),
        sample(
            "StoredControl",
            "cursor",
            v1::StoredControl { now_ms: AT_MS, rules: Some(rules()), next: Some(7) },
        ),
        sample("StoredChatState", "full", chat_state()),
        sample("StoredChatState", "lived", lived),
        sample("StoredChatState", "kept-40-days", chat_kept),
        sample("StoredMemberState", "full", member_state()),
    ]
}

fn stored_chat() -> v1::StoredChat {
    v1::StoredChat { members: members(), name: "the name".into(), version: 2, history_days: 0 }
}

fn membership(joined: u64) -> v1::StoredMembership {
    let visible = vec![v1::SeqSpan { first: 7, last: Some(43) }];
    v1::StoredMembership { visible, joined, history_days: 0 }
}

fn bucket() -> v1::StoredBucket {
    v1::StoredBucket { chats: vec![chat_state()], seen: vec![seen()] }
}

fn dead_letter() -> v1::DeadLetter {
    v1::DeadLetter {
        topic: "new-messages".into(),
        partition: 11,
        offset: 1 << 40,
        cause: "a record without an action".into(),
        key: "key".into(),
        value: vec![0xff, 0x00].into(),
        by_role: "generator".into(),
    }
}

fn alert() -> v1::Alert {
    v1::Alert {
        kind: "undecodable-record".into(),
        detail: "new-messages/11/1".into(),
        by_role: "generator".into(),
        at_ms: AT_MS,
        ..v1::Alert::default()
    }
}

fn alert_of_a_message() -> v1::Alert {
    v1::Alert {
        sender_id: "ana".into(),
        recipient_id: "eve".into(),
        message_id: "5".repeat(32),
        tier: "sender".into(),
        dropped: 7,
        ..alert()
    }
}
