//! What was asked days ago, as the sender service appended it then.

use chaski_core::{
    ChatId,
    record::{Action, Body, Command, Content, Input, Send},
};
use chaski_ports::{Clock as _, Log, ProducePolicy, Record, SystemClock, Topic};
use chaski_proto::encode_input;
use chaski_tests::{Person, World};
use std::sync::Arc;

/// Appends what somebody asked of a chat so many days ago.
pub(crate) async fn ask(
    world: &World,
    log: &Arc<dyn Log>,
    (by, days): (&Person, i64),
    (chat, action): (ChatId, Action),
) {
    let (user, device) = (by.id.parse().expect("legal"), "phone".parse().expect("legal"));
    let accepted_at = SystemClock.now_ms() - days * 24 * 60 * 60 * 1000;
    let input = Input::Command(Command { chat, user, device, accepted_at, action });
    let record = Record {
        key: chat.to_string().into(),
        value: encode_input(&input),
        timestamp_ms: SystemClock.now_ms(),
        record_type: "command",
        schema: chaski_proto::SCHEMA,
        traceparent: None,
    };
    let producer = log.producer(ProducePolicy::GiveUp).expect("a producer");
    let partition = world.placement().of_chat(&chat);
    let appended = producer.append(Topic::NewMessages, partition, record).expect("admitted");
    appended.await.expect("appended");
}

/// A message whose client id is its text; `to` somebody where the chat is theirs alone.
pub(crate) fn say(text: &str, to: Option<&Person>) -> Action {
    let body = Body::Text(text.to_owned().into());
    let content = Arc::new(Content { body, attachments: Vec::new() });
    let to = to.map(|person| person.id.parse().expect("legal"));
    let key = text.parse().expect("legal");
    Action::Send(Send { to, key, content, sent_at: None })
}
