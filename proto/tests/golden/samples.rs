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
    v1::Member { user_id: user.into(), role: role.into(), visible_from }
}

fn members() -> Vec<v1::Member> {
    vec![member("ana", v1::Role::Admin, 1), member("ben", v1::Role::Member, 7)]
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

fn request() -> v1::ConnectionRequest {
    v1::ConnectionRequest {
        request_id: id(6),
        user_id: "ana".into(),
        peer_id: "ben".into(),
        status: v1::ConnectionStatus::Blocked.into(),
        based_on_version: Some(9),
        by_device_id: "phone".into(),
    }
}

fn marks() -> v1::ReceiptMarks {
    v1::ReceiptMarks { chat_id: chat(), user_id: "ben".into(), delivered_seq: 41, read_seq: 40 }
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

fn item(name: &'static str, item: stored_item::Item) -> Sample {
    sample("StoredItem", name, v1::StoredItem { item: Some(item) })
}

fn event(name: &'static str, event: stored_event::Event) -> Sample {
    sample("StoredEvent", name, v1::StoredEvent { event: Some(event) })
}

/// All of them.
pub(crate) fn all() -> Vec<Sample> {
    let mark = v1::SubmitMark { delivered_seq: 41, read_seq: 40 };
    let refusal = v1::SubmitRejection { message_id: "ab12".into(), reason: "because".into() };
    let tick = v1::Tick { now_ms: AT_MS };
    let pointer = v1::MessagePointer { chat_id: chat(), seq: 42, sent: true };
    let span = v1::SeqSpan { first: 7, last: Some(43) };
    let update = chat_change().as_seen(7);
    vec![
        input("submit", Action::Submit(submit())),
        input("create", Action::Create(create())),
        input("change", Action::Change(change())),
        input("mark", Action::Mark(mark)),
        input("rejection", Action::Rejection(refusal.clone())),
        input("tick", Action::Tick(tick)),
        sample("SubmitMessage", "full", submit()),
        sample("Content", "text", text()),
        sample("Content", "ciphertext", content(Body::Ciphertext(vec![0, 255, 0].into()))),
        sample("SubmitChat", "full", create()),
        sample("SubmitChatChange", "full", change()),
        sample("SubmitMark", "full", mark),
        sample("SubmitRejection", "full", refusal),
        sample("Tick", "full", tick),
        output("message", Event::Message(message())),
        output("chat-change", Event::ChatChange(chat_change())),
        output("rejection", Event::Rejection(rejection())),
        output("verdict", Event::Verdict(verdict())),
        output("duplicate", Event::Duplicate(id(7))),
        output("connection-request", Event::ConnectionRequest(request())),
        output("marks", Event::Marks(marks())),
        sample("Origin", "full", origin()),
        sample("Place", "full", place()),
        sample("Message", "full", message()),
        sample("Member", "full", member("ben", v1::Role::Admin, 7)),
        sample("ChatChange", "full", chat_change()),
        sample("Rejection", "full", rejection()),
        sample("ChatVerdict", "full", verdict()),
        sample("ConnectionRequest", "full", request()),
        sample("ReceiptMarks", "full", marks()),
        sample("DeadLetter", "full", dead_letter()),
        sample("Alert", "full", alert()),
        item("message", stored_item::Item::Message(message())),
        item("chat-change", stored_item::Item::ChatChange(chat_change())),
        event("message", stored_event::Event::Message(pointer.clone())),
        event("chat-update", stored_event::Event::ChatUpdate(update)),
        event("rejection", stored_event::Event::Rejection(rejection())),
        sample("MessagePointer", "full", pointer),
        sample("StoredChat", "full", stored_chat()),
        sample("StoredMembership", "full", v1::StoredMembership { visible: vec![span] }),
        sample("SeqSpan", "full", span),
        sample("StoredVerdict", "full", v1::StoredVerdict { verdict: Some(verdict()) }),
        sample("StoredBucket", "full", bucket()),
        sample("StoredChatState", "full", chat_state()),
    ]
}

fn stored_chat() -> v1::StoredChat {
    v1::StoredChat { members: members(), name: "the name".into(), version: 2 }
}

fn bucket() -> v1::StoredBucket {
    v1::StoredBucket { chats: vec![chat_state()], seen: vec![0x5a; 48].into() }
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
    }
}
