//! Changes of chats, contacts, blocks and devices: what is passed on, and how it is answered.

use crate::{World, check_problem};
use chaski_proto::{
    Problem,
    v1::{
        self, ConnectionStatus, modify_chat_participants::Operation, submit_change_request::Change,
    },
};
use reqwest::Method;
use serde_json::{Value, json};

#[tokio::test]
async fn a_change_of_a_chat_is_answered_with_the_chats_own_verdict() {
    let world = World::start().await;
    let (rename, participants) = ("/v1/chats/g.9", "/v1/chats/g.9/participants");
    let promote = json!({"userId": "bob", "operation": "PROMOTE", "chatId": "g.other"});
    for (path, body) in [(rename, json!({"name": "é"})), (participants, promote)] {
        let verdict = |changed, cause: v1::Cause| {
            let (chat_id, cause) = ("g.9".into(), cause.into());
            Some(Ok(v1::ChatVerdict { chat_id, changed, cause, ..Default::default() }))
        };
        for (said, status, code) in [
            (verdict(true, v1::Cause::Unspecified), 200, None),
            (verdict(false, v1::Cause::Unspecified), 200, None),
            (verdict(false, v1::Cause::NotAMember), 403, Some("not_a_member")),
            (verdict(false, v1::Cause::NotAllowed), 403, Some("not_allowed")),
            (verdict(false, v1::Cause::DirectChat), 403, Some("direct_chat")),
            (verdict(false, v1::Cause::NoSuchChat), 404, Some("no_such_chat")),
            (verdict(false, v1::Cause::NoSuchMember), 404, Some("no_such_member")),
            (verdict(false, v1::Cause::ChatFull), 409, Some("chat_full")),
            (verdict(false, v1::Cause::LastAdmin), 409, Some("last_admin")),
            (None, 503, Some("outcome_unknown")),
            (Some(Err(Problem::unavailable("not now"))), 503, Some("outcome_unknown")),
        ] {
            world.stub.state().verdict = said;
            let response = world.send(Method::PATCH, path, body.to_string()).await;
            match code {
                Some(code) => check_problem(code, response, status, code).await,
                None => {
                    assert_eq!(response.status().as_u16(), status, "{path}");
                    assert_eq!(response.headers()["chaski-token"], "1.2.5");
                    let answer: Value = response.json().await.unwrap();
                    assert_eq!(answer, json!({"chatId": "g.9"}));
                }
            }
        }
        let (submit, wait) = {
            let mut state = world.stub.state();
            (state.submit_change.take().unwrap(), state.await_verdict.take().unwrap())
        };
        assert_eq!(submit.caller.unwrap().device_id, "phone");
        assert_eq!((submit.request_id.len(), wait.timeout_ms), (16, 5000));
        assert_eq!(submit.request_id, wait.request_id, "the verdict waited for is this command's");
        let chat_id = "g.9".into();
        let expected = match path == rename {
            true => Change::Chat(v1::ModifyChat { chat_id, name: Some("é".into()) }),
            false => Change::Participants(v1::ModifyChatParticipants {
                chat_id,
                user_id: "bob".into(),
                operation: Operation::Promote.into(),
            }),
        };
        assert_eq!(submit.change, Some(expected), "the path names the chat, not the body");
    }
    world.end().await;
}

#[tokio::test]
async fn a_connection_is_set_and_ended_and_answered_with_its_state() {
    let world = World::start().await;
    let path = "/v1/connections/b~b";
    let blocked = |version: Value| json!({"status": "BLOCKED", "basedOnVersion": version});
    for (method, path, body, status, version) in [
        (Method::PUT, path, json!({"status": "ACTIVE"}), ConnectionStatus::Active, None),
        (Method::PUT, path, blocked(json!(7)), ConnectionStatus::Blocked, Some(7)),
        (Method::PUT, path, blocked(json!("7")), ConnectionStatus::Blocked, Some(7)),
        (Method::DELETE, path, Value::Null, ConnectionStatus::None, None),
        (
            Method::DELETE,
            "/v1/connections/b~b?basedOnVersion=0",
            Value::Null,
            ConnectionStatus::None,
            Some(0),
        ),
    ] {
        let response = world.send(method, path, body.to_string()).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["chaski-token"], "2.3.4");
        let answer: Value = response.json().await.unwrap();
        let max = u64::MAX.to_string();
        let expected = json!({"userId": "b~b", "status": status.as_str_name(), "version": max});
        assert_eq!(answer, expected);
        let asked = world.stub.state().set.take().unwrap().connection.unwrap();
        assert_eq!((asked.status(), asked.based_on_version), (status, version));
        assert_eq!(asked.user_id, "b~b");
    }
    world.end().await;
}

#[tokio::test]
async fn a_conflict_carries_the_present_state() {
    let world = World::start().await;
    let present = v1::Connection {
        user_id: "bob".into(),
        status: ConnectionStatus::Blocked.into(),
        version: 4,
    };
    world.stub.state().refusal = Some(Problem::connection_conflict(present));
    let response = world.send(Method::DELETE, "/v1/connections/bob", "").await;
    assert_eq!(response.status(), 409);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let problem: Value = response.json().await.unwrap();
    assert_eq!(problem["code"], "connection_conflict");
    let expected = json!({"userId": "bob", "status": "BLOCKED", "version": "4"});
    assert_eq!(problem["connection"], expected);
    // Nowhere else.
    world.stub.state().refusal = Some(Problem::not_found("no"));
    let response = world.send(Method::DELETE, "/v1/connections/bob", "").await;
    let problem: Value = response.json().await.unwrap();
    assert_eq!(problem.get("connection"), None);
    world.end().await;
}

#[tokio::test]
async fn connections_come_in_pages_and_receipts_as_a_list() {
    let world = World::start().await;
    let one = v1::Connection { user_id: "zoe".into(), ..Default::default() };
    for more in [true, false] {
        let connections = vec![one.clone()];
        world.stub.state().list_reply = v1::ConnectionsReply { connections, more };
        let page = world.get("/v1/connections?after=bob&limit=3").await;
        let expected = json!([{"userId": "zoe", "status": "NONE", "version": "0"}]);
        assert_eq!(page["connections"], expected, "defaults are written");
        assert_eq!(page.get("next"), more.then(|| json!("zoe")).as_ref());
        let asked = world.stub.state().list.take().unwrap();
        assert_eq!((asked.after.as_str(), asked.limit), ("bob", 3));
    }
    let response = world.request(Method::GET, "/v1/chats/g.1/receipts");
    let response = response.header("chaski-token", "1.2.3").send().await.unwrap();
    let answer: Value = response.json().await.unwrap();
    let max = u64::MAX.to_string();
    let expected = json!([{"chatId": "g.1", "userId": "bob", "deliveredSeq": max, "readSeq": "0"}]);
    assert_eq!(answer, json!({"receipts": expected}));
    let asked = world.stub.state().receipts.take().unwrap();
    assert_eq!((asked.chat_id.as_str(), asked.token.as_str()), ("g.1", "1.2.3"));
    world.end().await;
}

#[tokio::test]
async fn devices_are_listed_renamed_and_revoked() {
    let world = World::start().await;
    let view = |id: &str, name: &str| {
        json!({
            "deviceId": id, "name": name, "lastActive": "2026-01-02T03:04:05.678Z",
            "position": u64::MAX.to_string(),
        })
    };
    assert_eq!(world.get("/v1/devices").await, json!({"devices": [view("phone", "")]}));
    let asked = world.stub.state().devices.take().unwrap();
    assert_eq!(asked.caller.unwrap().user_id, "alice");

    let response = world.send(Method::PATCH, "/v1/devices/tablet", r#"{"name":"My é"}"#).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers().get("chaski-token"), None);
    let answer: Value = response.json().await.unwrap();
    assert_eq!(answer, view("tablet", "My é"));

    let response = world.send(Method::DELETE, "/v1/devices/tablet", "").await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.json::<Value>().await.unwrap(), json!({}));
    assert_eq!(world.stub.state().revoke.take().unwrap().device_id, "tablet");
    world.end().await;
}
