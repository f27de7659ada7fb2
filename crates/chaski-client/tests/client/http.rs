//! The calls over HTTP against a server that answers one request: what is asked, what is read.

use chaski_client::{
    Http, HttpError, TokenProvider,
    v1::{self, ConnectionStatus, modify_chat_participants::Operation},
};
use serde_json::{Value, json};
use std::future::Future;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

/// Makes a call to a server that gives this answer; the request's first line and body, and what
/// the call gave.
async fn ask<T, F: Future<Output = T>>(
    (status, answer): (u16, Value),
    call: impl FnOnce(Http, TokenProvider) -> F,
) -> (String, Value, T) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let http = Http::new(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let serve = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        let (head, body) = loop {
            let mut chunk = [0; 4096];
            let count = socket.read(&mut chunk).await.unwrap();
            assert_ne!(count, 0, "the request ends before its end");
            request.extend_from_slice(&chunk[..count]);
            let text = String::from_utf8(request.clone()).unwrap();
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() == length.map_or(0, |length| length.parse().unwrap()) {
                break (head.to_owned(), body.to_owned());
            }
        };
        assert!(head.contains("\r\nauthorization: Bearer t0"), "{head}");
        let seen = head.lines().find_map(|line| line.strip_prefix("chaski-token: "));
        assert_eq!(seen, head.starts_with("GET /v1/chats").then_some("1.2.3"), "{head}");
        let answer = answer.to_string();
        let head_of_answer = format!("HTTP/1.1 {status} x\r\ncontent-length: {}", answer.len());
        let bytes = format!("{head_of_answer}\r\nconnection: close\r\n\r\n{answer}");
        socket.write_all(bytes.as_bytes()).await.unwrap();
        (head, body)
    };
    let ((head, body), gave) = tokio::join!(serve, call(http, TokenProvider::fixed("t0")));
    let line = head.lines().next().unwrap().trim_end_matches(" HTTP/1.1").to_owned();
    (line, serde_json::from_str(&body).unwrap_or_default(), gave)
}

#[tokio::test]
async fn changes_are_asked_for_as_the_contract_says() {
    let done = || (200, json!({"chatId": "g.1"}));
    let (line, body, _) =
        ask(done(), |http, t| async move { http.rename_chat(&t, "g.1", "é").await.unwrap() }).await;
    assert_eq!((line.as_str(), body), ("PATCH /v1/chats/g.1", json!({"name": "é"})));
    let (line, body, _) = ask(done(), |http, t| async move {
        http.change_participant(&t, "g.1", "ben", Operation::Demote).await.unwrap();
    })
    .await;
    assert_eq!(line, "PATCH /v1/chats/g.1/participants");
    assert_eq!((&body["userId"], &body["operation"]), (&json!("ben"), &json!("DEMOTE")));
    let (line, _, _) = ask((200, json!({})), |http, t| async move {
        http.revoke_device(&t, "old~phone").await.unwrap();
    })
    .await;
    assert_eq!(line, "DELETE /v1/devices/old~phone");

    let state = (200, json!({"userId": "eve", "status": "BLOCKED", "version": "3"}));
    let (line, body, set) = ask(state, |http, t| async move {
        let asked = v1::SetConnection {
            user_id: "eve".into(),
            status: ConnectionStatus::Blocked.into(),
            based_on_version: Some(2),
        };
        http.set_connection(&t, &asked).await.unwrap()
    })
    .await;
    assert_eq!(line, "PUT /v1/connections/eve");
    assert_eq!((&body["status"], &body["basedOnVersion"]), (&json!("BLOCKED"), &json!("2")));
    assert_eq!((set.status(), set.version), (ConnectionStatus::Blocked, 3));
}

#[tokio::test]
async fn a_conflict_gives_the_present_state() {
    let present = json!({"userId": "eve", "status": "BLOCKED", "version": "3"});
    let problem = json!({"code": "connection_conflict", "detail": "no", "connection": present});
    let (line, _, gave) =
        ask((409, problem), |http, t| async move { http.end_connection(&t, "eve", Some(2)).await })
            .await;
    assert_eq!(line, "DELETE /v1/connections/eve?basedOnVersion=2");
    let Err(HttpError::Problem { status, code, connection: Some(present), .. }) = gave else {
        panic!("{gave:?}")
    };
    assert_eq!((status, code.as_str(), present.version), (409, "connection_conflict", 3));
}

#[tokio::test]
async fn lists_are_read() {
    let page = json!({"connections": [{"userId": "zoe", "status": "ACTIVE", "version": "1"}],
        "next": "zoe"});
    let (line, _, page) =
        ask((200, page), |http, t| async move { http.connections(&t, "ana", 1).await.unwrap() })
            .await;
    assert_eq!(line, "GET /v1/connections?after=ana&limit=1");
    assert_eq!((page.items[0].user_id.as_str(), page.next.as_deref()), ("zoe", Some("zoe")));
    let receipts = json!({"receipts": [{"userId": "ben", "deliveredSeq": "9", "readSeq": "7"}]});
    let (_, _, receipts) = ask((200, receipts), |http, t| async move {
        http.seeing("1.2.3").receipts(&t, "g.1").await.unwrap()
    })
    .await;
    assert_eq!((receipts[0].delivered_seq, receipts[0].read_seq), (9, 7));
    let devices = json!({"devices": [{"deviceId": "phone", "name": "n", "position": "5"}]});
    let (_, _, devices) =
        ask((200, devices), |http, t| async move { http.devices(&t).await.unwrap() }).await;
    assert_eq!((devices[0].device_id.as_str(), devices[0].position), ("phone", 5));
    let chat = json!({"chatId": "g.1", "participants": ["ana"], "roles": ["ADMIN"]});
    let (_, _, chat) =
        ask(
            (200, chat),
            |http, t| async move { http.seeing("1.2.3").chat(&t, "g.1").await.unwrap() },
        )
        .await;
    assert_eq!(chat.participants, ["ana"]);
}
