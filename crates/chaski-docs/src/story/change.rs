//! Chats change, and are looked at. Must not know: what comes in the other parts, but for
//! the names that were learnt before.

use super::{event, frame, look, refused, write};
use crate::Example;

pub(super) const EXAMPLES: &[Example] = &[
    frame(
        "rejectMessage",
        "A later message of the same device is already shown",
        "ben/laptop",
        r#"{"id": 4, "rejectMessage": {"chatId": "{direct}", "messageId": "{m1}", "reason": "out of order"}}"#,
        "",
    ),
    event(
        "messageRejected",
        "To the sender's devices",
        "ana/phone",
        r#"{"position": "{p31}", "messageRejected": {"chatId": "{direct}", "messageId": "{m1}", "clientMessageId": "m1", "byUserId": "{ben}", "status": 422, "code": "rejected_by_recipient", "reason": "out of order"}}"#,
    ),
    frame(
        "modifyChat",
        "Another name",
        "ana/phone",
        r#"{"id": 5, "modifyChat": {"chatId": "{group}", "name": "Early lunch"}}"#,
        r#"{"replyTo": 5, "chatModified": {"chatId": "{group}", "token": "{w7}"}}"#,
    ),
    write(
        ("renameChat", "renamed"),
        "Another name",
        "ana/phone",
        ("/v1/chats/{group}", r#"{"name": "Lunch"}"#),
        (200, r#"{"chatId": "{group}"}"#),
        "{w8}",
    ),
    frame(
        "modifyChatParticipants",
        "Another admin",
        "ana/phone",
        r#"{"id": 6, "modifyChatParticipants": {"chatId": "{group}", "userId": "{ben}", "operation": "PROMOTE"}}"#,
        r#"{"replyTo": 6, "chatModified": {"chatId": "{group}", "token": "{w9}"}}"#,
    ),
    refused(
        ("changeParticipant", "notAnAdmin"),
        "By a member who is no admin",
        "eva/phone",
        ("/v1/chats/{group}/participants", r#"{"userId": "{ben}", "operation": "REMOVE"}"#),
        (
            403,
            r#"{"type": "about:blank", "title": "Forbidden", "status": 403, "detail": "only admins of this chat may do that", "code": "not_allowed"}"#,
        ),
    ),
    write(
        ("changeParticipant", "demoted"),
        "One admin less",
        "ana/phone",
        ("/v1/chats/{group}/participants", r#"{"userId": "{ben}", "operation": "DEMOTE"}"#),
        (200, r#"{"chatId": "{group}"}"#),
        "{w10}",
    ),
    look(
        ("getChat", "chat"),
        "A group",
        "eva/phone",
        "/v1/chats/{group}",
        "{w10}",
        r#"{"chatId": "{group}", "participants": ["{ana}", "{ben}", "{eva}"], "roles": ["ADMIN", "MEMBER", "MEMBER"], "name": "Lunch", "version": "5", "visibleFrom": "1", "lastSeq": "7", "readSeq": "0", "lastMessage": {"chatId": "{group}", "seq": "3", "messageId": "{m3}", "clientMessageId": "m3", "senderId": "{eva}", "senderDeviceId": "phone", "text": "At noon?", "attachments": [], "acceptedAt": "{at3}"}, "firstSeq": "1", "historyDays": 0}"#,
    ),
    refused(
        ("getChat", "noSuchChat"),
        "A chat that nobody has made",
        "eva/phone",
        ("/v1/chats/g.00000000000000000000000000000000", ""),
        (
            404,
            r#"{"type": "about:blank", "title": "Not Found", "status": 404, "detail": "there is no such chat", "code": "no_such_chat"}"#,
        ),
    ),
    look(
        ("listChats", "chats"),
        "All there are",
        "eva/phone",
        "/v1/chats",
        "{w10}",
        r#"{"chats": [{"chatId": "{group}", "participants": ["{ana}", "{ben}", "{eva}"], "roles": ["ADMIN", "MEMBER", "MEMBER"], "name": "Lunch", "version": "5", "visibleFrom": "1", "lastSeq": "7", "readSeq": "0", "lastMessage": {"chatId": "{group}", "seq": "3", "messageId": "{m3}", "clientMessageId": "m3", "senderId": "{eva}", "senderDeviceId": "phone", "text": "At noon?", "attachments": [], "acceptedAt": "{at3}"}, "firstSeq": "1", "historyDays": 0}]}"#,
    ),
    look(
        ("getHistory", "fromTheBeginning"),
        "From the beginning, two at a time",
        "eva/phone",
        "/v1/chats/{group}/messages?after=0&limit=2",
        "{w10}",
        r#"{"messages": [{"seq": "1", "chatUpdate": {"chatId": "{group}", "seq": "1", "participants": ["{ana}", "{ben}", "{eva}"], "roles": ["ADMIN", "MEMBER", "MEMBER"], "name": "Lunch", "version": "1", "visibleFrom": "1"}}, {"chatId": "{group}", "seq": "2", "messageId": "{m2}", "clientMessageId": "m2", "senderId": "{ana}", "senderDeviceId": "phone", "ciphertext": "3q2+7w==", "attachments": [], "acceptedAt": "{at2}"}], "firstSeq": "1", "next": "2"}"#,
    ),
    refused(
        ("getHistory", "ofOthers"),
        "A chat of others",
        "eva/phone",
        ("/v1/chats/{direct}/messages", ""),
        (
            403,
            r#"{"type": "about:blank", "title": "Forbidden", "status": 403, "detail": "you are not a member of this chat", "code": "not_a_member"}"#,
        ),
    ),
    look(
        ("getReceipts", "receipts"),
        "Of a chat of two",
        "ana/phone",
        "/v1/chats/{direct}/receipts",
        "{w10}",
        r#"{"receipts": [{"chatId": "{direct}", "userId": "{ana}", "deliveredSeq": "0", "readSeq": "0"}, {"chatId": "{direct}", "userId": "{ben}", "deliveredSeq": "1", "readSeq": "1"}]}"#,
    ),
];
