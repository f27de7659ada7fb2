//! The client against a scripted server: what it says, when, and what its owner is told.
#![expect(
    clippy::unwrap_used,
    reason = "a test may panic; the lint knows only `#[test]` functions"
)]

mod http;
mod patience;
mod server;

use chaski_client::{
    Body, Client, Command, Config, Disconnect, Error, Event, Format, Outcome, SendError, Token,
    TokenProvider,
    v1::{self, ClientFrame, ServerFrame},
};
use futures::{SinkExt as _, StreamExt as _};
use server::Server;
use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio_tungstenite::{
    accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{ErrorResponse, Request, Response},
    },
};

fn message(seq: u64) -> Body {
    Body::NewMessage(v1::NewMessage { seq, ..v1::NewMessage::default() })
}

fn text(key: &str) -> Command {
    Command::SendMessage(v1::SendMessage {
        target: Some(v1::send_message::Target::To("ben".into())),
        client_message_id: key.into(),
        body: Some(v1::send_message::Body::Text("hi".into())),
        ..v1::SendMessage::default()
    })
}

fn key(frame: &ClientFrame) -> &str {
    match &frame.command {
        Some(Command::SendMessage(send)) => &send.client_message_id,
        other => panic!("{other:?}"),
    }
}

fn config(server: &Server) -> Config {
    Config::new(server.url(), "ana", "phone", TokenProvider::fixed("t0"))
}

/// Events until one fits.
async fn until(client: &mut Client, fits: impl Fn(&Event) -> bool) -> Vec<Event> {
    let mut events = Vec::new();
    while !events.last().is_some_and(&fits) {
        let next = tokio::time::timeout(Duration::from_secs(20), client.next()).await;
        events.push(next.expect("an event comes in time").unwrap());
    }
    events
}

/// Runs the client while the server's script runs, which ends first.
async fn beside<T>(client: &mut Client, script: impl Future<Output = T>) -> T {
    let both = async {
        tokio::select! {
            biased;
            done = script => done,
            stopped = async { loop { client.next().await.map_err(|e| e.to_string())?; } } => {
                let stopped: Result<(), String> = stopped;
                panic!("the client stopped: {stopped:?}")
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), both).await.expect("the script ends in time")
}

fn is_durable(at: u64) -> impl Fn(&Event) -> bool {
    move |event| matches!(event, Event::Durable { position, .. } if *position == at)
}

#[tokio::test]
async fn it_says_who_it_is_resumes_where_its_owner_stopped_and_ignores_repeats() {
    for format in [Format::Json, Format::Protobuf] {
        let server = Server::start().await;
        let mut client = Client::new(Config { format, ..config(&server) }).unwrap();
        let script = async {
            let mut conn = server.accept().await;
            assert_eq!(conn.format, format);
            assert_eq!(conn.authorization, "Bearer t0");
            assert_eq!(conn.hello.device_id, "phone");
            assert_eq!(conn.hello.resume_after, None);
            conn.welcome(10).await;
            for position in [11, 12, 12, 11, 15] {
                conn.event(position).await;
            }
            // The owner is given 15 and does not ask for more yet: 12 is the highest taken.
            conn
        };
        let (conn, events) = tokio::join!(script, until(&mut client, is_durable(15)));
        let positions: Vec<u64> = events
            .iter()
            .filter_map(|e| {
                if let Event::Durable { position, .. } = e { Some(*position) } else { None }
            })
            .collect();
        assert_eq!(events[0], Event::Connected { position: 10 });
        assert_eq!(positions, [11, 12, 15]);
        assert_eq!((client.taken(), client.repeats_ignored()), (Some(12), 2));
        drop(conn);
        beside(&mut client, async {
            let conn = server.accept().await;
            assert_eq!(conn.hello.resume_after, Some(15), "next() was called again: 15 is taken");
        })
        .await;
    }
}

#[tokio::test]
async fn it_acknowledges_soon_in_bulk_and_beside_commands() {
    let server = Server::start().await;
    let mut client = Client::new(config(&server)).unwrap();
    client.send(text("a")).unwrap();
    beside(&mut client, async {
        let mut conn = server.accept().await;
        conn.welcome(0).await;
        let first = conn.recv().await;
        assert_eq!((key(&first), first.ack), ("a", None));
        conn.accepted(first.id).await;
        // A single event: alone, within 100 ms.
        conn.event(1).await;
        let frame = conn.recv().await;
        assert_eq!((frame.ack.unwrap().position, frame.command), (1, None));
        // Many at once: one ack for each 64 or less, never one for each.
        for position in 2..=129 {
            conn.event(position).await;
        }
        let mut frames = 0;
        while conn.recv().await.ack.unwrap().position < 129 {
            frames += 1;
        }
        assert!(frames <= 10, "{frames} acks");
    })
    .await;
    // An ack that is owed travels with the next command.
    let script = async {
        let mut conn = server.accept().await;
        conn.welcome(129).await;
        conn.event(130).await;
        conn
    };
    let (mut conn, _) = tokio::join!(script, until(&mut client, is_durable(130)));
    client.send(text("b")).unwrap();
    beside(&mut client, async {
        let frame = conn.recv().await;
        assert_eq!((key(&frame), frame.ack.unwrap().position), ("b", 130));
    })
    .await;
}

#[tokio::test]
async fn unanswered_commands_are_sent_again_oldest_first_or_settled_as_unknown() {
    let server = Server::start().await;
    let mut client = Client::new(config(&server)).unwrap();
    let ids = ["a", "b", "c"].map(|key| client.send(text(key)).unwrap());
    let rename = client.send(Command::ModifyChat(v1::ModifyChat::default())).unwrap();
    let mark = client.send(Command::MarkRead(v1::MarkRead::default())).unwrap();
    let script = async {
        let mut conn = server.accept().await;
        conn.welcome(0).await;
        let frames = [
            conn.recv().await,
            conn.recv().await,
            conn.recv().await,
            conn.recv().await,
            conn.recv().await,
        ];
        assert_eq!([key(&frames[0]), key(&frames[1]), key(&frames[2])], ["a", "b", "c"]);
        conn.accepted(frames[1].id).await;
        conn.close(4003).await;
        let mut conn = server.accept().await;
        conn.welcome(0).await;
        let again = [conn.recv().await, conn.recv().await];
        assert_eq!([key(&again[0]), key(&again[1])], ["a", "c"]);
        // `a` is deferred, `c` refused; then `a` comes again on the same socket.
        let error = |code: &str, status, retry_after_ms| {
            let code = code.into();
            Body::Error(v1::Error { code, status, retry_after_ms, ..v1::Error::default() })
        };
        let deferred = error("outcome_unknown", 503, Some(20));
        conn.send(ServerFrame::reply(again[0].id, deferred)).await;
        conn.send(ServerFrame::reply(again[1].id, error("forbidden", 403, None))).await;
        let third = conn.recv().await;
        assert_eq!(key(&third), "a");
        conn.accepted(third.id).await;
        conn.accepted(third.id).await;
        conn
    };
    let settled_a = |e: &Event| matches!(e, Event::Settled { id, .. } if *id == ids[0]);
    let (_conn, events) = tokio::join!(script, until(&mut client, settled_a));
    let outcome = |wanted| {
        let mut found = events.iter().filter_map(|event| match event {
            Event::Settled { id, outcome } if *id == wanted => Some(outcome),
            _ => None,
        });
        let outcome = found.next().unwrap();
        assert!(found.next().is_none(), "settled once");
        outcome
    };
    assert!(matches!(outcome(ids[0]), Outcome::Done(Body::MessageAccepted(_))));
    assert!(matches!(outcome(ids[1]), Outcome::Done(Body::MessageAccepted(_))));
    assert!(matches!(outcome(ids[2]), Outcome::Refused(e) if e.status == 403));
    assert!(matches!(outcome(rename), Outcome::Unknown));
    assert!(matches!(outcome(mark), Outcome::Written));
    assert_eq!(client.unsettled(), 0);
}

#[tokio::test]
async fn it_goes_where_it_is_sent_and_home_when_that_fails() {
    let (home, owner) = (Server::start().await, Server::start().await);
    let mut client = Client::new(config(&home)).unwrap();
    beside(&mut client, async {
        let mut conn = home.accept().await;
        conn.go_away("MOVED", Some(owner.url() + "/v1/ws")).await;
        let mut conn = owner.accept().await;
        conn.welcome(0).await;
        // Lost: first again where it was welcome.
        drop(conn);
        let mut conn = owner.accept().await;
        conn.welcome(0).await;
        conn.go_away("DRAINING", None).await;
        drop(owner);
        home.accept().await.welcome(0).await;
    })
    .await;
}

#[tokio::test]
async fn close_codes_say_whether_to_come_back() {
    for code in [1000, 1011, 4001, 4002, 4003, 4004, 4005, 4499] {
        let server = Server::start().await;
        let mut client = Client::new(config(&server)).unwrap();
        beside(&mut client, async {
            let mut conn = server.accept().await;
            conn.welcome(0).await;
            conn.close(code).await;
            server.accept().await;
        })
        .await;
    }
    for (code, wanted) in [
        (4500, Error::NotAuthenticated("as told".into())),
        (4501, Error::Revoked),
        (4502, Error::Protocol("as told".into())),
        (4503, Error::Replaced),
        (4999, Error::Closed { code: 4999, reason: "as told".into() }),
    ] {
        let server = Server::start().await;
        let mut client = Client::new(config(&server)).unwrap();
        let id = client.send(text("a")).unwrap();
        let script = async {
            let mut conn = server.accept().await;
            conn.welcome(0).await;
            conn.close(code).await;
        };
        let settled = |e: &Event| matches!(e, Event::Settled { .. });
        let ((), events) = tokio::join!(script, until(&mut client, settled));
        assert_eq!(*events.last().unwrap(), Event::Settled { id, outcome: Outcome::GaveUp });
        assert_eq!(client.next().await, Err(wanted.clone()));
        assert_eq!(client.next().await, Err(wanted.clone()));
        assert_eq!(client.send(text("b")), Err(SendError::Stopped(wanted)));
    }
}

#[tokio::test]
async fn a_refused_upgrade_stops_it() {
    let server = Server::start().await;
    let mut client = Client::new(config(&server)).unwrap();
    let script = async {
        let (tcp, _) = server.0.accept().await.unwrap();
        let refuse = |_: &Request, _: Response| {
            let mut answer = ErrorResponse::new(None);
            *answer.status_mut() = ::http::StatusCode::UNAUTHORIZED;
            Err::<Response, _>(answer)
        };
        assert!(accept_hdr_async(tcp, refuse).await.is_err());
    };
    let ((), stopped) = tokio::join!(script, client.next());
    assert!(matches!(stopped, Err(Error::NotAuthenticated(_))), "{stopped:?}");
}

#[tokio::test]
async fn a_device_too_many_and_a_revoked_one_stop_for_good() {
    for (status, code, wanted) in
        [(403, "too_many_devices", Error::TooManyDevices), (401, "revoked", Error::Revoked)]
    {
        let server = Server::start().await;
        let mut client = Client::new(config(&server)).unwrap();
        let script = async {
            let mut conn = server.accept().await;
            let error = v1::Error { status, code: code.into(), ..v1::Error::default() };
            conn.send(ServerFrame::reply(conn.hello_id, Body::Error(error))).await;
            conn
        };
        let (_conn, stopped) = tokio::join!(script, client.next());
        assert_eq!(stopped, Err(wanted));
    }
}

#[tokio::test]
async fn it_pings_when_quiet_and_leaves_a_silent_host() {
    let server = Server::start().await;
    let mut client = Client::new(config(&server)).unwrap();
    let script = async {
        let mut conn = server.accept().await;
        conn.welcome(0).await;
        let ping = conn.recv().await;
        assert!(matches!(ping.command, Some(Command::Ping(_))));
        // Never answered: the socket stays open, and yet the client comes anew.
        let _open = conn;
        server.accept().await
    };
    let silent = |e: &Event| matches!(e, Event::Disconnected { cause: Disconnect::Silent(_), .. });
    let both = async {
        until(&mut client, silent).await;
        // Drives the second connection.
        client.next().await
    };
    tokio::select! {
        _ = both => panic!("no second welcome was given"),
        conn = script => assert_eq!(conn.hello.resume_after, Some(0)),
    }
}

#[tokio::test]
async fn nothing_that_a_server_sends_breaks_it() {
    let server = Server::start().await;
    let new_client = || Client::new(Config { format: Format::Json, ..config(&server) }).unwrap();
    for nasty in [
        Message::Text("{".into()),
        Message::Text("[]".into()),
        Message::Text(r#"{"replyTo":"x"}"#.into()),
        Message::Text(r#"{"replyTo":2,"position":"1","pong":{}}"#.into()),
        Message::Text(r#"{"goAway":{"reason":"MOVED","url":"nowhere"}}"#.into()),
        Message::Binary(vec![0xff; 100].into()),
        Message::Text("x".repeat(2 << 20).into()),
    ] {
        let mut client = new_client();
        let script = async {
            let mut conn = server.accept().await;
            conn.welcome(0).await;
            // It may hang up before all is written.
            let _ = conn.socket.send(nasty).await;
        };
        let down = |e: &Event| matches!(e, Event::Disconnected { .. });
        let ((), events) = tokio::join!(script, until(&mut client, down));
        let Some(Event::Disconnected { cause, .. }) = events.last() else { unreachable!() };
        assert!(matches!(cause, Disconnect::Unreadable(_)), "{cause}");
    }
    let mut client = new_client();
    beside(&mut client, async {
        // Odd but harmless: newer events and members, answers to nothing, no body at all.
        let mut conn = server.accept().await;
        conn.welcome(0).await;
        for odd in [
            r#"{"position":"7","typing":{"chatId":"g.1"}}"#,
            r#"{"replyTo":999999,"messageAccepted":{}}"#,
            r#"{"replyTo":0,"error":{"code":"invalid","status":4000000000}}"#,
            "{}",
            r#"{"newMessage":{"seq":"3"}}"#,
        ] {
            conn.socket.send(Message::Text(odd.into())).await.unwrap();
        }
        conn.socket.send(Message::Ping(vec![1].into())).await.unwrap();
        let mut ack = None;
        while ack.is_none() {
            if let Message::Text(text) = conn.socket.next().await.unwrap().unwrap() {
                ack = serde_json::from_str::<ClientFrame>(&text).unwrap().ack;
            }
        }
        assert_eq!(ack.unwrap().position, 7, "an unknown event is taken");
    })
    .await;
}

#[tokio::test]
async fn after_resync_the_order_may_begin_below() {
    let server = Server::start().await;
    let mut client = Client::new(Config { resume_after: Some(1000), ..config(&server) }).unwrap();
    let script = async {
        let mut conn = server.accept().await;
        assert_eq!(conn.hello.resume_after, Some(1000));
        conn.welcome(1000).await;
        let resync = v1::Resync { reason: "unknown_position".into(), from_position: 5 };
        conn.send(ServerFrame::event(5, Body::Resync(resync))).await;
        conn.event(6).await;
        conn
    };
    let (_conn, events) = tokio::join!(script, until(&mut client, is_durable(6)));
    assert!(matches!(events[1], Event::Durable { position: 5, body: Some(Body::Resync(_)) }));
    assert_eq!(client.taken(), Some(5));
}

#[tokio::test]
async fn limits_are_refused_before_anything_is_sent() {
    let server = Server::start().await;
    let mut client = Client::new(Config {
        outbox_commands_max: 2,
        give_up_after: Duration::from_millis(50),
        ..config(&server)
    })
    .unwrap();
    let large = |bytes: usize| {
        Command::SendMessage(v1::SendMessage {
            body: Some(v1::send_message::Body::Ciphertext(vec![0; bytes].into())),
            ..v1::SendMessage::default()
        })
    };
    assert!(matches!(client.send(large(1 << 19)), Err(SendError::TooLarge { .. })));
    assert_eq!(client.send(Command::Ping(v1::Ping {})), Err(SendError::OwnCommand("ping")));
    let ids = [client.send(large(400_000)).unwrap(), client.send(text("b")).unwrap()];
    assert_eq!(client.send(text("c")), Err(SendError::OutboxFull));
    // Nobody answers: both are given up, and there is room again.
    for id in ids {
        assert_eq!(client.next().await, Ok(Event::Settled { id, outcome: Outcome::GaveUp }));
    }
    assert!(client.send(text("c")).is_ok());
}

#[tokio::test]
async fn a_token_is_renewed_before_it_ends() {
    let server = Server::start().await;
    let given = Arc::new(AtomicU32::new(0));
    let tokens = TokenProvider::local({
        let given = given.clone();
        move || {
            let bearer = format!("t{}", given.fetch_add(1, Ordering::Relaxed));
            let renew_in = (bearer == "t0").then_some(Duration::from_millis(50));
            Ok(Token { bearer, renew_in })
        }
    });
    let mut client = Client::new(Config { tokens, ..config(&server) }).unwrap();
    beside(&mut client, async {
        let mut conn = server.accept().await;
        assert_eq!(conn.authorization, "Bearer t0");
        conn.welcome(0).await;
        let frame = conn.recv().await;
        let Some(Command::Authenticate(renewed)) = frame.command else { panic!("{frame:?}") };
        assert_eq!(renewed.token, "t1");
    })
    .await;
    assert_eq!(given.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn closing_acknowledges_what_was_taken() {
    let server = Server::start().await;
    let mut client = Client::new(config(&server)).unwrap();
    let script = async {
        let mut conn = server.accept().await;
        conn.welcome(0).await;
        conn.event(4).await;
        conn
    };
    let (mut conn, _) = tokio::join!(script, until(&mut client, is_durable(4)));
    let script = async {
        assert_eq!(conn.recv().await.ack.unwrap().position, 4);
        assert!(matches!(conn.socket.next().await, Some(Ok(Message::Close(_)))));
        while let Some(Ok(_)) = conn.socket.next().await {}
    };
    let ((), taken) = tokio::join!(script, client.close());
    assert_eq!(taken, Some(4));
}
