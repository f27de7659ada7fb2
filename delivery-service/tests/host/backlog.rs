//! What is sent faster than it comes back.

use crate::{
    settings,
    world::{Socket, World, text},
};
use chaski_core::record::Event;
use chaski_delivery_service::host::HostConfig;
use serde_json::{Value, json};
use std::sync::Arc;

/// So many may be under way, whatever is known.
const FEW: u64 = 256;

/// Ana sends a message; the reply: where it is in the log, or why not.
async fn send(ana: &mut Socket, n: u64) -> Result<u64, Value> {
    let message = json!({"to": "ben", "clientMessageId": n.to_string(), "text": "x"});
    ana.say(json!({"id": n, "sendMessage": message})).await;
    let reply = ana.next().await.unwrap().into_text().unwrap();
    let reply: Value = serde_json::from_str(&reply).unwrap();
    match reply["messageAccepted"]["token"].as_str() {
        Some(token) => Ok(token.strip_prefix("1.0.").unwrap().parse().unwrap()),
        None => Err(reply["error"].clone()),
    }
}

/// Her message comes back, as the fan-out has it.
async fn comes_back(world: &World, ana: &mut Socket, at: u64) {
    let message = Event::Message(Arc::new(text("g.1", at + 1, "ana", "x")));
    world.around.put_from(&["ana"], message, at, None).await;
    ana.hear("newMessage").await;
}

#[tokio::test]
async fn l8_what_is_sent_faster_than_it_comes_back_is_told_when_to_come_again() {
    let world = World::start(HostConfig { backlog_ms_max: 1, ..settings() }, |_| async {}).await;
    let mut ana = world.device("ana", "phone", None).await;
    // So few are no backlog, however slowly they come back.
    let mut last = 0;
    for n in 2..2 + FEW + 1 {
        last = send(&mut ana, n).await.expect("nothing is known yet");
    }
    let (mut oldest, mut n) = (last - FEW, 2 + FEW + 1);
    let refused = loop {
        comes_back(&world, &mut ana, oldest).await;
        match send(&mut ana, n).await {
            // On a machine that stood still it is long ago that one came back.
            Ok(next) => last = next,
            Err(refused) => break refused,
        }
        (oldest, n) = (oldest + 1, n + 1);
        assert!(n < 1000, "as many are under way as may be");
    };
    assert_eq!((&refused["status"], &refused["code"]), (&json!(503), &json!("unavailable")));
    assert!(refused["retryAfterMs"].as_u64().unwrap() >= 250, "{refused}");
    // It had no effect on the log, and when the one before is back there is room.
    comes_back(&world, &mut ana, last).await;
    assert_eq!(send(&mut ana, n + 1).await.expect("there is room"), last + 1);
    world.end().await;
}
