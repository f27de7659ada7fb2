//! A delivery host on a real log, with the services around it played by one scripted value, and
//! devices upon raw sockets.

use chaski_auth::{DevKey, Verifier};
use chaski_core::{
    DeviceId, Offset, Origin, Partition, SourceId, UserId, Watermark,
    connection::ConnectionChange,
    placement::Placement,
    record::{Body, ChatVerdict, Content, Event, Message, Output},
};
use chaski_delivery_service::host::{DeliveryHost, HostConfig, HostParts, Whereabouts};
use chaski_embedded::{Embedded, EmbeddedOptions};
use chaski_ports::{Clock, Log, ProducePolicy, Record, Topic};

use super::hearing::Hearing;
use chaski_proto::{EncodedEvent, Problem, SCHEMA, v1, watermark_to_proto};
use chaski_runtime::{Readiness, Tasks};
use futures::{SinkExt as _, StreamExt as _};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::{
    collections::VecDeque,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};
use tokio::{net::TcpStream, sync::watch, time::timeout};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite};

pub(crate) const NOW_MS: i64 = 1_800_000_000_000;
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const SOURCE: SourceId = SourceId(1);

pub(crate) struct FixedClock;

impl Clock for FixedClock {
    fn now_ms(&self) -> i64 {
        NOW_MS
    }
}

/// What the services around the host say, and what they were asked.
#[derive(Default)]
pub(crate) struct Script {
    pub(crate) watermarks: v1::WatermarksReply,
    pub(crate) blocks: Vec<v1::BlockEdge>,
    /// The answers to `OpenDevice`, the last one again and again; none: cursor 0.
    pub(crate) opens: VecDeque<Result<u64, Problem>>,
    pub(crate) hides_read: bool,
    pub(crate) refusals: Vec<v1::SubmitRefusalRequest>,
    pub(crate) receipts: Vec<v1::ChatReceipts>,
    pub(crate) saved: Vec<v1::Device>,
    /// What the message service has stored: events of whoever asks, and up to where.
    pub(crate) stored: (Vec<v1::ServerFrame>, u64),
    /// It does not answer.
    pub(crate) away: bool,
    /// Pages that it was asked for.
    pub(crate) pages: usize,
}

/// The services around the host.
pub(crate) struct Around {
    pub(crate) script: Mutex<Script>,
    log: Arc<dyn Log>,
    pub(crate) origins: AtomicU64,
    pub(crate) asked: watch::Sender<u64>,
    /// Whether a host that warms up is told from where.
    pub(crate) answers: watch::Sender<bool>,
}

impl Around {
    /// Appends a record to `recipients` as the generator does; its offset.
    pub(crate) async fn put(&self, users: &[&str], event: Event) -> Offset {
        let next = self.origins.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.put_from(users, event, next, None).await
    }

    /// The same, as what the input at this offset gives, behind what another one gave.
    pub(crate) async fn put_from(
        &self,
        users: &[&str],
        event: Event,
        next: u64,
        prev: Option<u64>,
    ) -> Offset {
        let prev = prev.map(|offset| Origin { offset: Offset(offset), index: 0 });
        let users = users.iter().map(|u| u.parse::<UserId>().unwrap()).collect();
        let partition = Partition(0);
        let output = Output { partition, index: 0, users, visible_from: None, event };
        let encoded = EncodedEvent::of(&output);
        let (key, value) = encoded.for_output(&output, (SOURCE, partition, Offset(next)), prev);
        let record = Record {
            key,
            value,
            timestamp_ms: encoded.at_ms(),
            record_type: encoded.record_type,
            schema: SCHEMA,
            traceparent: None,
        };
        let producer = self.log.producer(ProducePolicy::GiveUp).unwrap();
        producer.append(Topic::Recipients, partition, record).unwrap().await.unwrap()
    }

    pub(crate) async fn message(&self, users: &[&str], message: Message) -> Offset {
        self.put(users, Event::Message(Arc::new(message))).await
    }

    pub(crate) async fn verdict(&self, verdict: ChatVerdict) {
        self.put(&["ana"], Event::Verdict(verdict)).await;
    }

    /// Waits until what the services were asked satisfies this.
    pub(crate) async fn until<T>(&self, mut found: impl FnMut(&mut Script) -> Option<T>) -> T {
        let mut asked = self.asked.subscribe();
        let looking = async {
            loop {
                asked.borrow_and_update();
                if let Some(found) = found(&mut self.script.lock()) {
                    return found;
                }
                asked.changed().await.unwrap();
            }
        };
        timeout(PATIENCE, looking).await.expect("the host asks for it")
    }
}

/// A watermark right behind this record.
pub(crate) fn behind(offset: Offset) -> v1::StoredWatermark {
    let mut mark = Watermark { next: offset.next(), ..Default::default() };
    mark.high.insert((SOURCE, Partition(0)), Origin { offset: Offset(0), index: 0 });
    watermark_to_proto(&mark)
}

pub(crate) fn change(peer: &str, to: chaski_core::connection::Status, lifted: bool) -> Event {
    let to = chaski_core::connection::Connection { status: to, version: 1 };
    let (peer, device) = (peer.parse().unwrap(), "desk".parse().unwrap());
    Event::Connection(ConnectionChange { peer, to, device, lifted, at: NOW_MS })
}

pub(crate) fn text(chat: &str, seq: u64, sender: &str, said: impl Into<Vec<u8>>) -> Message {
    let (chat, sender): (chaski_core::ChatId, UserId) =
        (chat.parse().unwrap(), sender.parse().unwrap());
    let key = format!("k{seq}").parse().unwrap();
    Message {
        id: chaski_core::MessageId::of(&sender, &chat, &key),
        chat,
        seq,
        key,
        sender,
        device: "desk".parse().unwrap(),
        content: Arc::new(Content { body: Body::Text(said.into().into()), attachments: vec![] }),
        sent_at: None,
        accepted_at: NOW_MS,
        members: None,
        history_days: 0,
    }
}

pub(crate) struct World {
    pub(crate) around: Arc<Around>,
    pub(crate) host: Arc<DeliveryHost>,
    pub(crate) log: Arc<dyn Log>,
    /// Who serves the one partition, as the host is told.
    pub(crate) whereabouts: watch::Sender<Whereabouts>,
    /// Whether the host hears of nothing new in the log.
    pub(crate) deaf: watch::Sender<bool>,
    /// The log keeps nothing before this.
    pub(crate) kept_from: watch::Sender<Offset>,
    /// How often the log was read from some place on.
    pub(crate) reads: Arc<AtomicU64>,
    readiness: Readiness,
    pub(crate) key: DevKey,
    url: String,
    pub(crate) tasks: Tasks,
    folder: tempfile::TempDir,
}

impl World {
    /// A log and the services around the host, which is warm; `before` writes what is there when it
    /// starts.
    pub(crate) async fn start<F: Future<Output = ()>>(
        config: HostConfig,
        before: impl FnOnce(Arc<Around>) -> F,
    ) -> Self {
        let world = Self::open(config, before).await;
        timeout(PATIENCE, world.readiness.ready()).await.expect("the host warms up");
        world
    }

    /// The same; the host warms up when it can.
    pub(crate) async fn open<F: Future<Output = ()>>(
        config: HostConfig,
        before: impl FnOnce(Arc<Around>) -> F,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let embedded = Embedded::open(folder.path(), EmbeddedOptions::default()).unwrap();
        let log = embedded.log();
        log.create_topics(1).await.unwrap();
        let around = Arc::new(Around {
            script: Mutex::default(),
            log: Arc::clone(&log),
            origins: AtomicU64::new(0),
            asked: watch::Sender::new(0),
            answers: watch::Sender::new(true),
        });
        before(Arc::clone(&around)).await;
        let key = DevKey::load_or_create(folder.path().join("key")).unwrap();
        let (deaf, hears) = watch::channel(false);
        let (kept_from, kept) = watch::channel(Offset(0));
        let reads = Arc::new(AtomicU64::new(0));
        let heard = Arc::clone(&reads);
        let owned = Whereabouts { owned: [Partition(0)].into(), ..Whereabouts::default() };
        let (whereabouts, told) = watch::channel(owned);
        let parts = HostParts {
            log: Arc::new(Hearing { log: Arc::clone(&log), deaf: hears, kept, reads: heard }),
            sender: Arc::clone(&around) as _,
            messages: Arc::clone(&around) as _,
            connections: Arc::clone(&around) as _,
            whereabouts: told,
            verifier: Arc::new(Verifier::new([key.public_pem()]).unwrap()),
            clock: Arc::new(FixedClock),
            placement: Placement::new(1),
            source: SOURCE,
            blocks_visible: false,
            relays: None,
        };
        let host = DeliveryHost::new(parts, config);
        let tasks = Tasks::new();
        let readiness = Readiness::default();
        let (gate, all, own) = (readiness.gate("warm"), tasks.clone(), Arc::clone(&host));
        tasks.spawn("delivery", async move {
            own.run(&all, std::future::ready(()), gate).await;
            Ok::<_, String>(())
        });
        let url = serve(&host, &tasks).await;
        Self {
            around,
            host,
            log,
            whereabouts,
            deaf,
            kept_from,
            reads,
            readiness,
            key,
            url,
            tasks,
            folder,
        }
    }

    /// A socket of a device whose `hello` was said; the reply to it is heard by the caller.
    pub(crate) async fn socket(
        &self,
        user: &str,
        device: &str,
        resume_after: Option<u64>,
    ) -> Socket {
        self.socket_at(&self.url, user, device, resume_after).await
    }

    /// The same, at this address.
    pub(crate) async fn socket_at(
        &self,
        url: &str,
        user: &str,
        device: &str,
        resume_after: Option<u64>,
    ) -> Socket {
        let (user, device): (UserId, DeviceId) = (user.parse().unwrap(), device.parse().unwrap());
        let token = self.key.sign(&user, &device, Duration::from_secs(3600), NOW_MS);
        let (socket, _) = connect_async(url).await.unwrap();
        let mut socket = Socket(socket);
        let mut hello = json!({"token": token, "deviceId": device.as_str()});
        if let Some(position) = resume_after {
            hello["resumeAfter"] = position.into();
        }
        socket.say(json!({"id": 1, "hello": hello})).await;
        socket
    }

    /// The same, welcomed.
    pub(crate) async fn device(
        &self,
        user: &str,
        device: &str,
        resume_after: Option<u64>,
    ) -> Socket {
        let mut socket = self.socket(user, device, resume_after).await;
        socket.hear("welcome").await;
        socket
    }

    pub(crate) async fn end(self) {
        assert_eq!(self.tasks.shut_down(PATIENCE).await, None);
        drop(self.folder);
    }
}

/// Serves the host's clients on a port of its own; the URL.
pub(crate) async fn serve(host: &Arc<DeliveryHost>, tasks: &Tasks) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/v1/ws", listener.local_addr().unwrap());
    let (router, stop) = (host.router(), tasks.stop());
    tasks.spawn("public", async move {
        let served = axum::serve(listener, router);
        tokio::select! {
            () = stop.cancelled() => Ok(()),
            end = served => end,
        }
    });
    url
}

pub(crate) struct Socket(pub(crate) WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    pub(crate) async fn say(&mut self, frame: Value) {
        self.0.send(tungstenite::Message::text(frame.to_string())).await.unwrap();
    }

    /// The next message from the host, whatever it is; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<tungstenite::Message> {
        timeout(PATIENCE, self.0.next()).await.expect("the host says something")?.ok()
    }

    /// The body of the next frame, which must be of this kind; beside it the frame.
    #[track_caller]
    pub(crate) fn hear<'a>(&'a mut self, kind: &'a str) -> impl Future<Output = Value> + 'a {
        let place = std::panic::Location::caller();
        async move {
            let message = self.next().await;
            let Some(tungstenite::Message::Text(text)) = &message else {
                panic!("{place}: {kind} expected, not {message:?}")
            };
            let mut frame: Value = serde_json::from_str(text).unwrap();
            let mut body = frame[kind].take();
            assert!(!body.is_null(), "{place}: {kind} expected, not {text}");
            body["position"] = frame["position"].take();
            body
        }
    }

    /// The close code, which must come next.
    pub(crate) async fn closed(&mut self) -> u16 {
        match self.next().await {
            Some(tungstenite::Message::Close(Some(frame))) => frame.code.into(),
            other => panic!("a close expected, not {other:?}"),
        }
    }
}
