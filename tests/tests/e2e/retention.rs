//! Chats that keep their messages for some days only.

use super::past::{ask, say};
use chaski_core::{
    ChatId,
    record::{Action, Create, History},
};
use chaski_tests::{Set, World, until};
use serde_json::{Value, json};

/// Ben's messages of ten days ago are in a chat that is kept for a week.
pub(crate) async fn a_chat_keeps_its_messages_for_the_days_it_was_made_with(set: Set) {
    let world = World::shared(set).await;
    let (ana, ben) = (world.person("ana"), world.person("ben"));
    let (mut phone, http) = (ana.device("phone").await, ana.http("phone"));
    let log = world.log().await;
    let key = "kept".parse().expect("legal");
    let chat = ChatId::created(&ben.id.parse().expect("legal"), &key);
    let create = Create {
        request: [1; 16],
        participants: vec![ana.id.parse().expect("legal")],
        name: String::new(),
        key,
        history: History::All,
        history_days: 7,
    };
    ask(world, &log, (&ben, 12), (chat, Action::Create(create))).await;
    for (text, days) in [("old 2", 11), ("old 3", 10), ("young 4", 6), ("young 5", 0)] {
        ask(world, &log, (&ben, days), (chat, say(text, None))).await;
    }
    drop(log);
    // Live they are shown, however old.
    assert!(phone.event().await["chatUpdate"].is_object());
    for text in ["old 2", "old 3", "young 4", "young 5"] {
        assert_eq!(phone.message().await["text"], text);
    }
    let path = format!("/v1/chats/{chat}/messages");
    until("all is stored", || async {
        let page = http.get(&format!("{path}?limit=2")).await.body;
        (page["messages"][1]["text"] == "young 5").then_some(())
    })
    .await;
    // Asked anew: that page may have been begun before all was.
    let newest = http.get(&format!("{path}?limit=2")).await.expect(200);
    let texts = |page: &Value| -> Vec<Value> {
        let items = page["messages"].as_array().expect("a list");
        items.iter().map(|item| item["text"].clone()).collect()
    };
    let rest = json!(["young 4", "young 5"]);
    assert_eq!((json!(texts(&newest)), &newest["firstSeq"]), (rest.clone(), &json!("4")));
    assert!(newest.get("next").is_none(), "nothing is before it: {newest}");
    let first = http.get(&format!("{path}?after=0")).await.expect(200);
    assert_eq!((json!(texts(&first)), &first["firstSeq"]), (rest, &json!("4")));
    let view = http.get(&format!("/v1/chats/{chat}")).await.expect(200);
    let told = [&view["firstSeq"], &view["lastSeq"], &view["historyDays"], &view["visibleFrom"]];
    assert_eq!(told, [&json!("4"), &json!("5"), &json!(7), &json!("1")]);

    // In the user's order they keep their places.
    let gone = |seq: &str| json!({"chatId": chat.to_string(), "seq": seq, "reason": "EXPIRED"});
    let inbox = http.get("/v1/inbox").await.expect(200);
    let events = inbox["events"].as_array().expect("a list");
    let hidden = [&events[1]["messageHidden"], &events[2]["messageHidden"]];
    assert_eq!(hidden, [&gone("2"), &gone("3")], "{inbox}");
    assert_eq!(events[3]["newMessage"]["text"], "young 4");
    let received = http.get("/v1/messages/received").await.expect(200);
    let expired = json!({"position": events[1]["position"], "chatId": chat.to_string(),
        "seq": "2", "expired": true});
    assert_eq!(received["messages"][0], expired);
    assert_eq!(json!(texts(&received)), json!([null, null, "young 4", "young 5"]));
}

pub(crate) async fn how_long_a_chat_is_kept_is_said_when_it_is_made(set: Set) {
    let world = World::shared(set).await;
    let (ana, ben) = (world.person("ana"), world.person("ben"));
    let http = ana.http("phone");
    let create =
        |days: u32| json!({"participants": [ben.id], "clientChatId": "c", "historyDays": days});
    assert_eq!(http.post("/v1/chats", &create(36_501)).await.problem(400), "invalid");
    let made = http.post("/v1/chats", &create(36_500)).await;
    let token = made.token();
    let chat = made.expect(201)["chatId"].as_str().expect("an id").to_owned();
    assert_eq!(http.post("/v1/chats", &create(36_500)).await.expect(200)["chatId"], chat.as_str());
    assert_eq!(http.post("/v1/chats", &create(7)).await.problem(409), "id_reused");
    let view = http.get_seeing(&format!("/v1/chats/{chat}"), &token).await.expect(200);
    assert_eq!((&view["historyDays"], &view["firstSeq"]), (&json!(36_500), &json!("1")));
}
