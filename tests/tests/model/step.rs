//! Steps: what a case does next, with picks instead of names, so that every step stays meaningful
//! when others are taken away; and how a step becomes a command for the reference.
//!
//! Must not know: ids on the wire, the server.

use super::{
    chat::{Item, Name, Operation, User},
    reference::{Command, Model, Status},
};
use proptest::{prelude::*, strategy::BoxedStrategy};
use proptest_state_machine::ReferenceStateMachine;
use std::marker::PhantomData;

/// Most devices of a user that keep a socket.
pub(crate) const DEVICES_MAX: usize = 3;
/// Calls over HTTP bear the token of this device.
pub(crate) const WEB: &str = "web";

/// One of a list, whatever its length.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pick(u16);

impl Pick {
    pub(crate) fn of(self, count: usize) -> usize {
        usize::from(self.0) % count
    }
}

/// Over which connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    Http,
    Device(usize),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Key {
    Fresh,
    /// An earlier one of this sender in this chat, with its first or any content.
    Again(Pick),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum BasedOn {
    Nothing,
    Present,
    Old,
}

#[derive(Clone, Debug)]
pub(crate) enum Act {
    Create {
        key: u8,
        others: u8,
        title: u8,
        all: bool,
    },
    Send {
        chat: Pick,
        key: Key,
        text: u8,
    },
    SendTo {
        user: Pick,
        key: Key,
        text: u8,
    },
    /// By its id, whether the 1:1 chat exists or not.
    SendDirect {
        user: Pick,
        key: Key,
        text: u8,
    },
    Rename {
        chat: Pick,
        title: u8,
    },
    Participant {
        chat: Pick,
        user: Pick,
        operation: Operation,
    },
    Leave {
        chat: Pick,
    },
    Connect {
        user: Pick,
        status: Status,
        based_on: BasedOn,
    },
    Read {
        chat: Pick,
        seq: Pick,
    },
    Refuse {
        message: Pick,
    },
    Ack,
    Reconnect {
        resume: bool,
        json: bool,
    },
    Open {
        json: bool,
    },
    Settle,
}

#[derive(Clone, Debug)]
pub(crate) struct Step {
    by: Pick,
    http: bool,
    device: Pick,
    pub(crate) act: Act,
    /// The server is killed so many ms after the step has begun.
    pub(crate) crash: Option<u8>,
}

fn pick() -> impl Strategy<Value = Pick> {
    any::<u16>().prop_map(Pick)
}

fn key() -> impl Strategy<Value = Key> {
    prop_oneof![3 => Just(Key::Fresh), 1 => pick().prop_map(Key::Again)]
}

fn act() -> impl Strategy<Value = Act> {
    use Operation::{Add, Demote, Promote, Remove};
    let operation =
        prop_oneof![3 => Just(Add), 2 => Just(Remove), 2 => Just(Promote), 1 => Just(Demote)];
    let status =
        prop_oneof![1 => Just(Status::None), 2 => Just(Status::Active), 5 => Just(Status::Blocked)];
    let based_on = prop_oneof![
        2 => Just(BasedOn::Nothing),
        5 => Just(BasedOn::Present),
        1 => Just(BasedOn::Old),
    ];
    prop_oneof![
        4 => (0..2u8, any::<u8>(), 0..2u8, any::<bool>())
            .prop_map(|(key, others, title, all)| Act::Create { key, others, title, all }),
        10 => (pick(), key(), 0..2u8)
            .prop_map(|(chat, key, text)| Act::Send { chat, key, text }),
        4 => (pick(), key(), 0..2u8)
            .prop_map(|(user, key, text)| Act::SendTo { user, key, text }),
        1 => (pick(), key(), 0..2u8)
            .prop_map(|(user, key, text)| Act::SendDirect { user, key, text }),
        2 => (pick(), 0..3u8).prop_map(|(chat, title)| Act::Rename { chat, title }),
        6 => (pick(), pick(), operation)
            .prop_map(|(chat, user, operation)| Act::Participant { chat, user, operation }),
        1 => pick().prop_map(|chat| Act::Leave { chat }),
        6 => (pick(), status, based_on)
            .prop_map(|(user, status, based_on)| Act::Connect { user, status, based_on }),
        3 => (pick(), pick()).prop_map(|(chat, seq)| Act::Read { chat, seq }),
        2 => pick().prop_map(|message| Act::Refuse { message }),
        2 => Just(Act::Ack),
        3 => any::<(bool, bool)>().prop_map(|(resume, json)| Act::Reconnect { resume, json }),
        1 => any::<bool>().prop_map(|json| Act::Open { json }),
        3 => Just(Act::Settle),
    ]
}

/// One kill in so many steps.
pub(crate) trait Crashes: 'static {
    const ONE_IN: u32;
}

fn step(one_crash_in: u32) -> impl Strategy<Value = Step> {
    let crash = prop_oneof![
        one_crash_in - 1 => Just(None),
        1 => (0..20u8).prop_map(Some),
    ];
    (pick(), prop::bool::weighted(0.3), pick(), act(), crash)
        .prop_map(|(by, http, device, act, crash)| Step { by, http, device, act, crash })
}

impl Step {
    /// Who does it.
    pub(crate) fn by(&self, model: &Model) -> User {
        self.by.of(model.users)
    }

    /// Over which of their connections.
    pub(crate) fn via(&self, model: &Model) -> Via {
        let only_sockets = matches!(
            self.act,
            Act::Read { .. } | Act::Refuse { .. } | Act::Ack | Act::Reconnect { .. }
        );
        match self.http && !only_sockets {
            true => Via::Http,
            false => Via::Device(self.device.of(model.devices[self.by(model)])),
        }
    }

    /// The command in this state; `None` where it would not mean anything.
    pub(crate) fn command(&self, model: &Model) -> Option<Command> {
        let by = self.by(model);
        let device = match self.via(model) {
            Via::Http => WEB.to_owned(),
            Via::Device(n) => device_name(n),
        };
        let chat_of = |pick: Pick| {
            let names: Vec<Name> = model.chats.keys().copied().collect();
            (!names.is_empty()).then(|| names[pick.of(names.len())])
        };
        let send = |chat, to, key, text| {
            let (key, text) = content(model, (by, chat), key, text)?;
            let device = device.clone();
            Some(Command::Send { chat, by, device, to, key, text })
                .filter(|_| sendable(model, by, chat))
        };
        match &self.act {
            Act::Create { key, others, title, all } => {
                let others: Vec<User> =
                    (0..model.users).filter(|user| others >> user & 1 == 1).collect();
                let chat = Name::Group(by, *key);
                Some(Command::Create { chat, by, others, title: *title, all: *all })
            }
            Act::Send { chat, key, text } => send(chat_of(*chat)?, None, *key, *text),
            Act::SendTo { user, key, text } => {
                let user = user.of(model.users);
                send(Name::direct(by, user), Some(user), *key, *text)
            }
            Act::SendDirect { user, key, text } => {
                send(Name::direct(by, user.of(model.users)), None, *key, *text)
            }
            Act::Rename { chat, title } => {
                Some(Command::Rename { chat: chat_of(*chat)?, by, title: *title })
            }
            Act::Participant { chat, user, operation } => {
                let (chat, user) = (chat_of(*chat)?, user.of(model.users));
                Some(Command::Participant { chat, by, user, operation: *operation })
            }
            Act::Leave { chat } => {
                let chat = chat_of(*chat)?;
                Some(Command::Participant { chat, by, user: by, operation: Operation::Remove })
            }
            Act::Connect { user, status, based_on } => {
                let peer = user.of(model.users);
                let version = model.connection(by, peer).1;
                let based_on = match based_on {
                    BasedOn::Nothing => None,
                    BasedOn::Present => Some(version),
                    BasedOn::Old => Some(version.checked_sub(1)?),
                };
                let status = *status;
                (peer != by).then_some(Command::Connect { by, device, peer, status, based_on })
            }
            Act::Read { chat, seq } => {
                let chat = chat_of(*chat)?;
                let known = &model.chats[&chat];
                let first = known.member(by)?.from;
                let count = usize::try_from((known.last_seq() + 1).checked_sub(first)?).ok()?;
                let seq = first + seq.of(count.max(1)) as u64;
                (seq <= known.last_seq()).then_some(Command::Read { chat, by, seq })
            }
            Act::Refuse { message } => {
                let found = model.refusable(by);
                let (chat, seq) = *found.get(message.of(found.len().max(1)))?;
                Some(Command::Refuse { chat, by, seq })
            }
            Act::Open { .. } => (model.devices[by] < DEVICES_MAX).then_some(Command::Device),
            Act::Ack | Act::Reconnect { .. } => Some(Command::Device),
            Act::Settle => Some(Command::Settle),
        }
    }
}

/// The name of a user's n-th device.
pub(crate) fn device_name(n: usize) -> String {
    format!("d{n}")
}

/// Whether the sender service may refuse to send to somebody the sender has blocked is up to its
/// cache: such messages are left out.
fn sendable(model: &Model, by: User, chat: Name) -> bool {
    match chat {
        Name::Direct(a, b) => !model.ever_blocked.contains(&(by, if a == by { b } else { a })),
        Name::Group(..) => true,
    }
}

fn content(model: &Model, (by, chat): (User, Name), key: Key, text: u8) -> Option<(u16, u8)> {
    let Key::Again(pick) = key else { return Some((model.next_key, text)) };
    let from = (by, chat, 0)..=(by, chat, u16::MAX);
    let earlier: Vec<u16> = model.sent.range(from).map(|((.., key), _)| *key).collect();
    let key = *earlier.get(pick.of(earlier.len().max(1)))?;
    Some((key, text))
}

/// The steps of a case as commands, one a line.
pub(crate) fn story<C: Crashes>(mut model: Model, steps: &[Step]) -> String {
    let mut story = format!("{} users\n", model.users);
    for step in steps {
        let (by, via, command) = (step.by(&model), step.via(&model), step.command(&model));
        let what = match command {
            Some(Command::Device) | None => format!("{:?}", step.act),
            Some(command) => format!("{command:?}"),
        };
        let crash = step.crash.map(|ms| format!(", killed after {ms} ms")).unwrap_or_default();
        story += &format!("  user {by} over {via:?}: {what}{crash}\n");
        model = Machine::<C>::apply(model, step);
    }
    story
}

/// The reference, as proptest drives it.
pub(crate) struct Machine<C>(PhantomData<C>);

impl<C: Crashes> ReferenceStateMachine for Machine<C> {
    type State = Model;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Model> {
        prop_oneof![2 => Just(3), 1 => Just(4)].prop_map(Model::new).boxed()
    }

    fn transitions(_: &Model) -> BoxedStrategy<Step> {
        step(C::ONE_IN).boxed()
    }

    fn apply(mut model: Model, step: &Step) -> Model {
        if let Some(command) = step.command(&model) {
            if let Command::Send { key, .. } = &command {
                model.next_key = model.next_key.max(key + 1);
            }
            if matches!(step.act, Act::Open { .. }) {
                let by = step.by(&model);
                model.devices[by] += 1;
            }
            model.take(command);
        }
        model
    }

    fn preconditions(model: &Model, step: &Step) -> bool {
        step.command(model).is_some()
    }
}

impl Item {
    /// The message here.
    pub(crate) fn message(&self) -> Option<&super::chat::Message> {
        match self {
            Self::Message(message) => Some(message),
            Self::Update(_) => None,
        }
    }
}
