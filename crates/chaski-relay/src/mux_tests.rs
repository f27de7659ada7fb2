use super::*;
use futures::FutureExt as _;
use std::future::poll_fn;

const LIMITS: Limits = Limits { sockets_max: 3, window_bytes: FIRST_WINDOW };

/// Both ends of a stream, and what the serving one was asked to serve.
struct Pair {
    accepting: (Mux, Outgoing),
    serving: (Mux, Outgoing),
    opened: Vec<Tunnel>,
}

impl Pair {
    fn new(accepting: Limits, serving: Limits) -> Self {
        let end = |side, limits| {
            let mux = Mux::new(side, limits);
            let outgoing = mux.outgoing();
            (mux, outgoing)
        };
        Self {
            accepting: end(Side::Accepting, accepting),
            serving: end(Side::Serving, serving),
            opened: Vec::new(),
        }
    }

    fn open(&self) -> Option<Tunnel> {
        self.accepting.0.open(RelayOpen::default())
    }

    /// Moves all frames that there are, in both directions, until there are none.
    fn flow(&mut self) {
        loop {
            let there = futures::StreamExt::next(&mut self.accepting.1).now_or_never().flatten();
            let back = futures::StreamExt::next(&mut self.serving.1).now_or_never().flatten();
            if there.is_none() && back.is_none() {
                return;
            }
            if let Some((_, tunnel)) = there.and_then(|f| self.serving.0.take(f).unwrap()) {
                self.opened.push(tunnel);
            }
            if let Some(frame) = back {
                assert!(self.accepting.0.take(frame).unwrap().is_none());
            }
        }
    }
}

fn text(words: &str) -> Message {
    Message::Text(words.into())
}

fn has_room(tunnel: &Tunnel) -> bool {
    poll_fn(|cx| tunnel.poll_room(cx)).now_or_never().is_some_and(|room| room.is_ok())
}

/// What comes next: nothing yet, the end, or a message.
fn heard(tunnel: &Tunnel) -> Option<Option<Message>> {
    poll_fn(|cx| tunnel.poll_recv(cx)).now_or_never()
}

#[test]
fn l8_a_socket_that_takes_nothing_holds_its_window_and_delays_no_other() {
    let mut pair = Pair::new(LIMITS, LIMITS);
    let (slow, quick) = (pair.open().unwrap(), pair.open().unwrap());
    pair.flow();
    let (to_slow, to_quick) = (pair.opened.remove(0), pair.opened.remove(0));
    // Full with messages of a quarter of what is left each, and with one that exceeds it.
    let mut sent = 0;
    while has_room(&to_slow) {
        to_slow.send(Message::Binary(vec![0; 10_000].into())).unwrap();
        pair.flow();
        sent += 1;
    }
    assert_eq!(sent, 7, "60,384 bytes leave room for one more");
    // Another one says and hears what it likes.
    for n in 0..100 {
        let words = format!("{n} {}", "x".repeat(5_000));
        assert!(has_room(&to_quick));
        to_quick.send(text(&words)).unwrap();
        pair.flow();
        assert_eq!(heard(&quick), Some(Some(text(&words))));
    }
    // What is taken makes room: half of the window at once.
    for _ in 0..3 {
        assert!(heard(&slow).flatten().is_some());
        pair.flow();
        assert!(!has_room(&to_slow));
    }
    heard(&slow);
    pair.flow();
    assert!(has_room(&to_slow));
    // Empty messages are bounded too.
    let mut empty = 0;
    while has_room(&quick) {
        quick.send(text("")).unwrap();
        empty += 1;
    }
    assert_eq!(empty, FIRST_WINDOW / MESSAGE_COST);
}

#[test]
fn l8_there_are_as_many_sockets_as_there_may_be_and_not_one_more() {
    let mut pair = Pair::new(LIMITS, LIMITS);
    let mut tunnels: Vec<_> = (0..3).map(|_| pair.open().unwrap()).collect();
    assert!(pair.open().is_none());
    pair.flow();
    assert_eq!(pair.opened.len(), 3);
    // The place of one that ends, at either end, is free once the other knows.
    drop(tunnels.pop());
    pair.flow();
    tunnels.push(pair.open().unwrap());
    pair.flow();
    assert_eq!(heard(&pair.opened[2]), Some(None));
    // The serving end counts for itself.
    let few = Limits { sockets_max: 1, ..LIMITS };
    let mut pair = Pair::new(LIMITS, few);
    let (one, two) = (pair.open().unwrap(), pair.open().unwrap());
    pair.flow();
    assert_eq!((pair.opened.len(), heard(&one)), (1, None));
    let Some(Some(Message::Close(Some(close)))) = heard(&two) else { panic!("it is closed") };
    assert_eq!((close.code, heard(&two)), (close::DRAINING, Some(None)));
}

#[test]
fn an_end_comes_behind_what_was_sent_and_needs_no_room() {
    let mut pair = Pair::new(LIMITS, Limits { window_bytes: 100_000, ..LIMITS });
    let client = pair.open().unwrap();
    client.send(text("hello")).unwrap();
    pair.flow();
    let served = pair.opened.remove(0);
    assert_eq!(heard(&served), Some(Some(text("hello"))));
    client.alive();
    client.alive();
    pair.flow();
    assert!(matches!(heard(&served), Some(Some(Message::Pong(_)))));
    assert_eq!(heard(&served), None, "once");
    // A larger window was granted.
    client.send(Message::Binary(vec![0; 80_000].into())).unwrap();
    assert!(has_room(&client));
    served.send(Message::Binary(vec![0; FIRST_WINDOW].into())).unwrap();
    assert!(!has_room(&served));
    served.close(4501, "revoked");
    pair.flow();
    assert!(matches!(heard(&client), Some(Some(Message::Binary(_)))));
    let Some(Some(Message::Close(Some(close)))) = heard(&client) else { panic!("it is closed") };
    assert_eq!((close.code, &*close.reason), (4501, "revoked"));
    assert!(client.send(text("x")).is_err());
    drop(client);
    let left = |mux: &Mux| mux.0.inner.lock().sockets.len();
    assert_eq!((left(&pair.accepting.0), left(&pair.serving.0)), (0, 0), "nothing is kept");
}

#[test]
fn with_the_stream_all_its_sockets_end() {
    let mut pair = Pair::new(LIMITS, LIMITS);
    let client = pair.open().unwrap();
    pair.flow();
    let served = pair.opened.remove(0);
    served.send(text("last")).unwrap();
    pair.flow();
    drop(pair.accepting.1);
    assert_eq!(heard(&client), Some(Some(text("last"))));
    assert_eq!(heard(&client), Some(None));
    assert!(!has_room(&client));
    assert!(pair.accepting.0.open(RelayOpen::default()).is_none());
    pair.serving.0.end();
    assert_eq!(heard(&served), Some(None));
}

#[test]
fn who_does_not_keep_to_the_protocol_is_cut_off() {
    let frame = |socket, what| RelayFrame { socket, what: Some(what) };
    let open = |socket| frame(socket, What::Open(RelayOpen::default()));
    let serving = || {
        let mux = Mux::new(Side::Serving, LIMITS);
        let (_, tunnel) = mux.take(open(1)).unwrap().unwrap();
        (mux, tunnel)
    };
    let (mux, _tunnel) = serving();
    assert!(mux.take(open(1)).is_err(), "a number is used once");
    assert!(mux.take(frame(1, What::Text(vec![0xff].into()))).is_err());
    assert!(mux.take(frame(9, What::Text("of nobody any more".into()))).is_ok());
    assert!(mux.take(RelayFrame { socket: 1, what: None }).is_ok(), "a newer peer's");
    let (mux, _tunnel) = serving();
    let much = || frame(1, What::Binary(vec![0; FIRST_WINDOW].into()));
    assert!(mux.take(much()).is_ok());
    assert!(mux.take(much()).is_err(), "more than there was credit for");
    assert!(Mux::new(Side::Accepting, LIMITS).take(open(1)).is_err());
}
