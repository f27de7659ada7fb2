//! What writes pass on, and how they are answered.

use crate::{World, check_problem};
use chaski_proto::{
    Problem, Timestamp,
    v1::{self, create_chat::History, send_message},
};
use serde_json::{Value, json};

#[tokio::test]
async fn a_message_reaches_the_sender_service_with_its_caller() {
    let world = World::start().await;
    let body = json!({
        "to": "bob", "clientMessageId": "c1", "text": "hé\u{0}llo", "sentAt": "2026-01-02T03:04:05.678Z",
        "attachments": [{"id": "a", "size": "7", "contentType": "image/png", "sha256": "AAE="}],
        "fromTheFuture": {"x": 1},
    });
    let response = world.post("/v1/messages", body.to_string()).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["chaski-token"], "1.2.3");
    let answer: Value = response.json().await.unwrap();
    assert_eq!(answer, json!({"messageId": "m", "chatId": "d.1", "clientMessageId": "c1"}));

    let asked = world.stub.state().submit.take().unwrap();
    let message = asked.message.unwrap();
    assert_eq!(
        asked.caller.unwrap(),
        v1::Caller { user_id: "alice".into(), device_id: "phone".into() }
    );
    assert_eq!(message.target, Some(send_message::Target::To("bob".into())));
    assert_eq!(message.body, Some(send_message::Body::Text("hé\u{0}llo".into())));
    assert_eq!(message.sent_at, Some(Timestamp::from_ms(1_767_323_045_678)));
    assert_eq!((message.attachments[0].size, &message.attachments[0].sha256[..]), (7, &[0, 1][..]));
    world.end().await;
}

#[tokio::test]
async fn a_new_chat_is_answered_with_its_own_verdict() {
    let world = World::start().await;
    let body = json!({"participants": ["bob", "carol"], "clientChatId": "k", "history": "ALL"});
    let verdict = |changed, cause: v1::Cause| {
        Some(Ok(v1::ChatVerdict {
            chat_id: "g.9".into(),
            changed,
            cause: cause.into(),
            ..Default::default()
        }))
    };
    for (said, status, code) in [
        (verdict(true, v1::Cause::Unspecified), 201, None),
        (verdict(false, v1::Cause::Unspecified), 200, None),
        (verdict(false, v1::Cause::OtherChat), 409, Some("id_reused")),
        (None, 503, Some("outcome_unknown")),
        // The command is in the log: whatever happens to the question, it may have happened.
        (Some(Err(Problem::unavailable("not now"))), 503, Some("outcome_unknown")),
        (Some(Err(Problem::invalid("what?"))), 503, Some("outcome_unknown")),
    ] {
        world.stub.state().verdict = said;
        let response = world.post("/v1/chats", body.to_string()).await;
        match code {
            Some(code) => check_problem(code, response, status, code).await,
            None => {
                assert_eq!(response.status().as_u16(), status);
                assert_eq!(response.headers()["chaski-token"], "1.2.4");
                let answer: Value = response.json().await.unwrap();
                assert_eq!(answer, json!({"chatId": "g.9"}));
            }
        }
    }
    let (submit, wait) = {
        let mut state = world.stub.state();
        (state.submit_chat.take().unwrap(), state.await_verdict.take().unwrap())
    };
    assert_eq!(submit.request_id.len(), 16);
    assert_eq!(submit.request_id, wait.request_id, "the verdict waited for is this command's");
    assert_eq!(wait.timeout_ms, 5000);
    let chat = submit.chat.unwrap();
    assert_eq!((chat.participants.len(), chat.history()), (2, History::All));

    world.post("/v1/chats", body.to_string()).await;
    let other = world.stub.state().submit_chat.take().unwrap().request_id;
    assert_ne!(other, submit.request_id, "every request has its own id");
    world.end().await;
}
