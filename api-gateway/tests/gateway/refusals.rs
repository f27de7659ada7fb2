//! Every way to be refused before a service is asked, and how a service's refusal looks.

use crate::{NOW_MS, World, check_problem};
use chaski_api_gateway::GatewayConfig;
use chaski_proto::Problem;
use reqwest::Method;
use std::time::Duration;

const READS: [&str; 11] = [
    "/v1/chats",
    "/v1/chats/g.1",
    "/v1/chats/g.1/messages",
    "/v1/inbox",
    "/v1/messages/sent",
    "/v1/messages/received",
    "/v1/messages/unreceived",
    "/v1/connections",
    "/v1/chats/g.1/receipts",
    "/v1/devices",
    "/v1/hosts/me",
];
const WRITES: [&str; 2] = ["/v1/chats", "/v1/messages"];
/// What changes something that is there, with a body that is legal.
const CHANGES: [(Method, &str, &str); 6] = [
    (Method::PATCH, "/v1/chats/g.1", r#"{"name":"n"}"#),
    (Method::PATCH, "/v1/chats/g.1/participants", r#"{"userId":"bob","operation":"ADD"}"#),
    (Method::PATCH, "/v1/devices/tablet", r#"{"name":"n"}"#),
    (Method::DELETE, "/v1/devices/tablet", ""),
    (Method::PUT, "/v1/connections/bob", r#"{"status":"ACTIVE"}"#),
    (Method::DELETE, "/v1/connections/bob", ""),
];

#[tokio::test]
async fn nobody_is_served_without_a_good_token_in_the_header() {
    let world = World::start().await;
    let good = world.token("phone");
    let expired = {
        let (user, device) = ("alice".parse().unwrap(), "phone".parse().unwrap());
        world.key.sign(&user, &device, Duration::from_secs(60), NOW_MS - 60_000)
    };
    for path in READS {
        let none = world.anonymous(Method::GET, path).send().await.unwrap();
        check_problem(path, none, 401, "unauthenticated").await;
    }
    for path in WRITES {
        let none = world.anonymous(Method::POST, path).body("{}").send().await.unwrap();
        check_problem(path, none, 401, "unauthenticated").await;
    }
    for (method, path, body) in CHANGES {
        let none = world.anonymous(method, path).body(body).send().await.unwrap();
        check_problem(path, none, 401, "unauthenticated").await;
    }
    for (name, header, code) in [
        ("empty", String::new(), "unauthenticated"),
        ("another scheme", format!("Basic {good}"), "unauthenticated"),
        ("no scheme", good.clone(), "unauthenticated"),
        ("no token", "Bearer ".into(), "unauthenticated"),
        ("garbage", "Bearer a.b.c".into(), "unauthenticated"),
        ("expired", format!("Bearer {expired}"), "token_expired"),
    ] {
        let request = world.anonymous(Method::GET, "/v1/chats").header("authorization", header);
        check_problem(name, request.send().await.unwrap(), 401, code).await;
    }
    let twice = world.request(Method::GET, "/v1/chats").bearer_auth(&good);
    check_problem("two tokens", twice.send().await.unwrap(), 401, "unauthenticated").await;
    for name in ["token", "access_token"] {
        let query = world.anonymous(Method::GET, &format!("/v1/chats?{name}={good}"));
        check_problem("in the query", query.send().await.unwrap(), 401, "unauthenticated").await;
    }
    let lower = world.anonymous(Method::GET, "/v1/hosts/me");
    let lower = lower.header("authorization", format!("bearer {good}")).send().await.unwrap();
    assert_eq!(lower.status(), 200, "a scheme has no case (RFC 9110, 11.1)");
    world.end().await;
}

#[tokio::test]
async fn a_body_that_is_not_what_was_asked_for_is_refused() {
    let world = World::start().await;
    for (name, path, body) in [
        ("empty", "/v1/messages", ""),
        ("half", "/v1/messages", r#"{"to":"bob""#),
        ("trailing", "/v1/messages", r#"{"to":"bob"} x"#),
        ("an array", "/v1/messages", r#"["bob"]"#),
        ("a number for a text", "/v1/messages", r#"{"to":7}"#),
        ("two targets", "/v1/messages", r#"{"to":"bob","chatId":"d.1"}"#),
        ("two bodies", "/v1/messages", r#"{"text":"a","ciphertext":"YQ=="}"#),
        ("bad base64", "/v1/messages", r#"{"ciphertext":"%"}"#),
        ("bad time", "/v1/messages", r#"{"sentAt":"yesterday"}"#),
        ("a lone surrogate", "/v1/messages", r#"{"text":"\ud800"}"#),
        ("unknown enum value", "/v1/chats", r#"{"history":"SOME"}"#),
        ("participants not a list", "/v1/chats", r#"{"participants":"bob"}"#),
    ] {
        check_problem(name, world.post(path, body).await, 400, "invalid").await;
    }
    let participants = "/v1/chats/g.1/participants";
    for (name, method, path, body) in [
        ("no name", Method::PATCH, "/v1/chats/g.1", "{}"),
        ("no name but null", Method::PATCH, "/v1/chats/g.1", r#"{"name":null}"#),
        ("a number for a name", Method::PATCH, "/v1/chats/g.1", r#"{"name":7}"#),
        ("unknown operation", Method::PATCH, participants, r#"{"userId":"u","operation":"SHUN"}"#),
        ("no name of a device", Method::PATCH, "/v1/devices/tablet", "{}"),
        ("no status", Method::PUT, "/v1/connections/bob", "{}"),
        ("no connection", Method::PUT, "/v1/connections/bob", r#"{"status":"NONE"}"#),
        ("unknown status", Method::PUT, "/v1/connections/bob", r#"{"status":"FRIEND"}"#),
        (
            "a version that is none",
            Method::PUT,
            "/v1/connections/bob",
            r#"{"status":"ACTIVE","basedOnVersion":"-1"}"#,
        ),
        ("a version that is none", Method::DELETE, "/v1/connections/bob?basedOnVersion=x", ""),
        (
            "a version twice",
            Method::DELETE,
            "/v1/connections/b?basedOnVersion=1&basedOnVersion=1",
            "",
        ),
        ("a path that is not UTF-8", Method::DELETE, "/v1/devices/%FF", ""),
    ] {
        check_problem(name, world.send(method, path, body).await, 400, "invalid").await;
    }
    check_problem(
        "not UTF-8",
        world.post("/v1/messages", &b"{\"text\":\"\xff\"}"[..]).await,
        400,
        "invalid",
    )
    .await;
    let form = world.request(Method::POST, "/v1/messages");
    let form =
        form.header("content-type", "text/plain").body(r#"{"to":"bob"}"#).send().await.unwrap();
    assert_eq!(form.status(), 200, "JSON is JSON, whatever its content type");
    world.end().await;
}

#[tokio::test]
async fn a_body_may_have_its_greatest_size_and_not_one_byte_more() {
    let world = World::start().await;
    let max = GatewayConfig::default().body_bytes_max;
    let of = |size: usize| format!(r#"{{"to":"{}"}}"#, "b".repeat(size - r#"{"to":""}"#.len()));
    assert_eq!(max, 5 * 1024 * 1024 / 4);
    for path in WRITES {
        // For a chat the stub has no verdict, but it has been asked for one.
        let fits = world.post(path, of(max)).await.status();
        assert_eq!(fits, if path == "/v1/chats" { 503 } else { 200 }, "{path}");
        check_problem(path, world.post(path, of(max + 1)).await, 413, "too_large").await;
    }
    // Without a declared length, and so long that the gateway gives up on it.
    let chunk = Ok::<_, std::io::Error>(of(max / 4));
    let chunks = futures::stream::iter(
        (0..5).map(move |_| Ok::<_, std::io::Error>(chunk.as_ref().unwrap().clone())),
    );
    let chunked = world.post("/v1/messages", reqwest::Body::wrap_stream(chunks)).await;
    check_problem("chunked", chunked, 413, "too_large").await;
    world.end().await;
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems_too() {
    let world = World::start().await;
    for path in ["/", "/v1", "/v1/nothing", "/v1/chats/", "/v1/chats/g.1/", "/v2/chats"] {
        check_problem(
            path,
            world.request(Method::GET, path).send().await.unwrap(),
            404,
            "not_found",
        )
        .await;
    }
    for (method, path, allow) in [
        (Method::DELETE, "/v1/chats", "GET,HEAD,POST"),
        (Method::GET, "/v1/messages", "POST"),
        (Method::POST, "/v1/inbox", "GET,HEAD"),
        (Method::POST, "/v1/connections/bob", "PUT,DELETE"),
        (Method::PUT, "/v1/devices/tablet", "PATCH,DELETE"),
        (Method::POST, "/v1/ws", "GET,HEAD"),
    ] {
        let response = world.request(method, path).send().await.unwrap();
        assert_eq!(response.headers()["allow"], allow, "{path}");
        check_problem(path, response, 405, "method_not_allowed").await;
    }
    world.end().await;
}

#[tokio::test]
async fn numbers_of_a_query_are_checked_at_their_limits() {
    let world = World::start().await;
    let pages = &READS[..8];
    for path in pages.iter().filter(|path| **path != "/v1/chats/g.1") {
        for (query, status) in [
            ("limit=1", 200),
            ("limit=500", 200),
            ("limit=0", 400),
            ("limit=501", 400),
            ("limit=-1", 400),
            ("limit=%2B1", 400),
            ("limit=1.0", 400),
            ("limit=", 400),
            ("limit=ten", 400),
            ("limit=18446744073709551616", 400),
            ("limit=1&limit=1", 400),
            ("unknown=1", 200),
        ] {
            let what = format!("{path}?{query}");
            let response = world.request(Method::GET, &what).send().await.unwrap();
            if status == 400 {
                check_problem(&what, response, 400, "invalid").await;
            } else {
                assert_eq!(response.status(), status, "{what}");
            }
        }
    }
    for (query, status) in [
        ("after=18446744073709551615", 200),
        ("after=18446744073709551616", 400),
        ("after=x", 400),
        ("before=x", 400),
        ("after=1&before=9", 400),
        ("after=%FF", 400),
    ] {
        let path = format!("/v1/chats/g.1/messages?{query}");
        let response = world.request(Method::GET, &path).send().await.unwrap();
        assert_eq!(response.status(), status, "{query}");
    }
    let path = world.request(Method::GET, "/v1/chats/%FF").send().await.unwrap();
    check_problem("a path that is not UTF-8", path, 400, "invalid").await;
    world.end().await;
}

#[tokio::test]
async fn a_services_refusal_comes_through_and_says_when_to_come_back() {
    let world = World::start().await;
    let again =
        |ms| Problem { retry_after_ms: Some(ms), ..Problem::new(429, "too_fast", "slow down") };
    for (problem, retry_after) in [
        (Problem::not_found("no such chat"), None),
        (Problem::new(422, "odd", "odd"), None),
        (Problem::new(403, "not_a_member", "no"), None),
        (again(1), Some("1")),
        (again(1000), Some("1")),
        (again(1001), Some("2")),
        (Problem::new(503, "unavailable", "no time given"), Some("1")),
    ] {
        world.stub.state().refusal = Some(problem.clone());
        for (method, path) in [(Method::GET, "/v1/chats/g.1"), (Method::POST, "/v1/messages")] {
            let response = world.request(method, path).body("{}").send().await.unwrap();
            let header =
                response.headers().get("retry-after").map(|v| v.to_str().unwrap().to_owned());
            assert_eq!(header.as_deref(), retry_after, "{problem}");
            check_problem(path, response, problem.status, &problem.code).await;
        }
    }
    world.end().await;
}

#[tokio::test]
async fn a_service_that_does_not_answer_leaves_a_write_unknown_and_a_read_undone() {
    let config = GatewayConfig { service_timeout_ms: 50, ..GatewayConfig::default() };
    let world = World::with(config).await;
    let check = async || {
        let read = world.request(Method::GET, "/v1/chats").send().await.unwrap();
        check_problem("read", read, 503, "unavailable").await;
        for path in WRITES {
            check_problem(path, world.post(path, "{}").await, 503, "outcome_unknown").await;
        }
        for (method, path, body) in CHANGES {
            let change = world.send(method, path, body).await;
            check_problem(path, change, 503, "outcome_unknown").await;
        }
    };
    world.stub.state().hangs = true;
    check().await;
    world.stub.state().hangs = false;
    world.stub.state().refusal = Some(Problem::outcome_unknown());
    check().await;
    world.end().await;
}
