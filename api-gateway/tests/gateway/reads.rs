//! What reads pass on, and the shape of their answers.

use crate::World;
use chaski_proto::v1::{
    self, history_item::Item, history_request::Range, inbox_request::Filter, server_frame::Body,
};
use reqwest::Method;
use serde_json::{Value, json};

fn message(seq: u64) -> v1::NewMessage {
    v1::NewMessage {
        chat_id: "g.1".into(),
        seq,
        message_id: format!("m{seq}"),
        body: Some(v1::new_message::Body::Text("hi".into())),
        ..Default::default()
    }
}

fn message_json(seq: u64) -> Value {
    json!({
        "chatId": "g.1", "seq": seq.to_string(), "messageId": format!("m{seq}"),
        "clientMessageId": "", "senderId": "", "senderDeviceId": "", "text": "hi", "attachments": [],
    })
}

fn history(more: bool) -> v1::HistoryReply {
    let item = |seq, item| v1::HistoryItem { seq, item: Some(item) };
    let update = v1::ChatUpdate { chat_id: "g.1".into(), seq: 5, ..Default::default() };
    let items = vec![
        item(4, Item::Message(message(4))),
        item(5, Item::ChatUpdate(update)),
        item(6, Item::Hidden(true)),
        item(7, Item::Expired(true)),
    ];
    v1::HistoryReply { items, more, first_seq: 2 }
}

#[tokio::test]
async fn history_is_flat_and_goes_on_in_its_direction() {
    let world = World::start().await;
    for (query, range, next) in [
        ("", None, "4"),
        ("?before=7", Some(Range::Before(7)), "4"),
        ("?after=3", Some(Range::After(3)), "7"),
        ("?after=0", Some(Range::After(0)), "7"),
    ] {
        let path = format!("/v1/chats/g.1/messages{query}");
        world.stub.state().history_reply = history(true);
        let page = world.get(&path).await;
        assert_eq!(page["next"], next, "{query}");
        assert_eq!(page["messages"][0], message_json(4));
        let update = &page["messages"][1];
        assert_eq!((&update["seq"], &update["chatUpdate"]["seq"]), (&json!("5"), &json!("5")));
        assert_eq!(update.as_object().unwrap().len(), 2);
        assert_eq!(page["messages"][2], json!({"seq": "6", "hidden": true}));
        assert_eq!(page["messages"][3], json!({"seq": "7", "expired": true}));
        assert_eq!(page["firstSeq"], "2");
        let asked = world.stub.state().history.take().unwrap();
        assert_eq!((asked.range, asked.limit, asked.token.as_str()), (range, 50, ""));
        assert_eq!(asked.chat_id, "g.1");

        world.stub.state().history_reply = history(false);
        assert_eq!(world.get(&path).await.get("next"), None, "{query}");
    }
    world.end().await;
}

#[tokio::test]
async fn the_inbox_gives_frames_and_its_slices_give_messages() {
    let world = World::start().await;
    let hidden = |seq, reason: &str| {
        let (chat_id, reason) = ("g.1".into(), reason.into());
        Body::MessageHidden(v1::MessageHidden { chat_id, seq, reason })
    };
    let events = vec![
        v1::ServerFrame::event(90, Body::NewMessage(message(4))),
        v1::ServerFrame::event(91, hidden(5, "EXPIRED")),
        v1::ServerFrame::event(u64::MAX, hidden(6, "BLOCKED")),
    ];
    let reply = v1::InboxReply { events, upto: u64::MAX, more: true, expired_upto: 0 };
    world.stub.state().inbox_reply = reply;
    let inbox = world.get("/v1/inbox?after=7&limit=2").await;
    let max = u64::MAX.to_string();
    assert_eq!(inbox["next"], max);
    assert_eq!(inbox["events"][0], json!({"position": "90", "newMessage": message_json(4)}));
    let asked = world.stub.state().inbox.take().unwrap();
    assert_eq!((asked.after, asked.limit, asked.filter()), (7, 2, Filter::Events));
    assert!(asked.tell_expired);

    for (path, filter) in [
        ("/v1/messages/sent", Filter::Sent),
        ("/v1/messages/received", Filter::Received),
        ("/v1/messages/unreceived", Filter::Unreceived),
    ] {
        let page = world.get(path).await;
        let mut placed = message_json(4);
        placed["position"] = json!("90");
        let expired = json!({"position": "91", "chatId": "g.1", "seq": "5", "expired": true});
        let hidden = json!({"position": max, "chatId": "g.1", "seq": "6", "hidden": true});
        assert_eq!(page, json!({"messages": [placed, expired, hidden], "next": max}), "{path}");
        let asked = world.stub.state().inbox.take().unwrap();
        assert_eq!((asked.filter(), asked.after, asked.limit), (filter, 0, 50));
        assert_eq!(asked.caller.unwrap().device_id, "phone");
    }

    // Nothing passed the filter in the part looked at, but there is more behind it.
    world.stub.state().inbox_reply = v1::InboxReply { upto: 70, more: true, ..Default::default() };
    assert_eq!(world.get("/v1/messages/sent").await, json!({"messages": [], "next": "70"}));
    world.stub.state().inbox_reply.more = false;
    assert_eq!(world.get("/v1/inbox").await, json!({"events": []}));

    // L5: what has expired is told, as on a socket.
    world.stub.state().inbox_reply.expired_upto = 60;
    let resync = json!({"reason": "EXPIRED", "fromPosition": "60"});
    let told = json!({"position": "60", "resync": resync});
    assert_eq!(world.get("/v1/inbox").await, json!({"events": [told]}));
    let page = world.get("/v1/messages/received").await;
    assert_eq!(page, json!({"resync": resync, "messages": []}));
    world.end().await;
}

#[tokio::test]
async fn chats_come_with_strings_for_numbers_and_members_where_they_are_known() {
    let world = World::start().await;
    let full = v1::ChatView {
        chat_id: "g.2".into(),
        participants: vec!["alice".into()],
        roles: vec![v1::Role::Admin.into()],
        last_seq: 9,
        last_message: Some(message(9)),
        ..Default::default()
    };
    let short = v1::ChatView { chat_id: "d.1".into(), ..Default::default() };
    let chats = vec![short, full];
    world.stub.state().chats_reply = v1::ChatsReply { chats, more: true };
    let page = world.get("/v1/chats?after=d.0&limit=500").await;
    let short = json!({
        "chatId": "d.1", "name": "", "version": "0", "visibleFrom": "0", "lastSeq": "0", "readSeq": "0",
        "firstSeq": "0", "historyDays": 0,
    });
    assert_eq!(page["chats"][0], short);
    assert_eq!(page["chats"][1]["roles"], json!(["ADMIN"]));
    assert_eq!(page["chats"][1]["lastMessage"], message_json(9));
    assert_eq!(page["next"], "g.2");
    let asked = world.stub.state().chats.take().unwrap();
    assert_eq!((asked.after.as_str(), asked.limit), ("d.0", 500));
    world.stub.state().chats_reply = v1::ChatsReply::default();
    assert_eq!(world.get("/v1/chats?after=").await, json!({"chats": []}));

    assert_eq!(world.get("/v1/chats/d.1").await, short);
    let place = world.get("/v1/hosts/me").await;
    let epoch = u64::MAX.to_string();
    assert_eq!(place, json!({"url": "wss://h1/alice/v1/ws", "host": "h1", "epoch": epoch}));
    world.end().await;
}

#[tokio::test]
async fn a_read_passes_the_write_on_that_it_must_show() {
    let world = World::start().await;
    for path in ["/v1/chats", "/v1/chats/g.1", "/v1/chats/g.1/messages", "/v1/inbox"] {
        let request = world.request(Method::GET, path).header("chaski-token", "1.2.3");
        assert_eq!(request.send().await.unwrap().status(), 200);
    }
    let tokens = {
        let state = &mut *world.stub.state();
        [
            state.chats.take().unwrap().token,
            state.chat.take().unwrap().token,
            state.history.take().unwrap().token,
            state.inbox.take().unwrap().token,
        ]
    };
    assert_eq!(tokens, ["1.2.3"; 4]);
    world.end().await;
}
