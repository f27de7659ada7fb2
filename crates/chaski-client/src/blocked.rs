//! Whom this user blocks, as far as the client has heard: a message to them is refused here, before
//! anybody else has to. The server decides all the same (L7); this spares the person a surprise.

use chaski_core::{ChatId, UserId};
use chaski_proto::v1::{
    Connection, ConnectionStatus, client_frame::Command, send_message::Target, server_frame::Body,
};
use std::collections::HashMap;

pub(crate) struct Blocked {
    user: Option<UserId>,
    /// By the other one; what was lifted stays for its version.
    peers: HashMap<String, Known>,
}

struct Known {
    version: u64,
    /// The 1:1 chat with them, while the block holds.
    chat: Option<String>,
}

impl Blocked {
    pub(crate) fn new(user: &str, connections: &[Connection]) -> Self {
        let mut blocked = Self { user: user.parse().ok(), peers: HashMap::new() };
        for connection in connections {
            blocked.learn(&connection.user_id, connection.status(), connection.version);
        }
        blocked
    }

    /// What a server frame tells of contacts and blocks.
    pub(crate) fn hear(&mut self, body: &Body) {
        match body {
            Body::ConnectionSet(set) => self.learn(&set.user_id, set.status(), set.version),
            Body::ConnectionUpdate(u) => self.learn(&u.user_id, u.status(), u.version),
            Body::Error(error) => {
                if let Some(present) = &error.connection {
                    self.learn(&present.user_id, present.status(), present.version);
                }
            }
            _ => {}
        }
    }

    fn learn(&mut self, peer: &str, status: ConnectionStatus, version: u64) {
        let (Some(user), Ok(other)) = (&self.user, peer.parse::<UserId>()) else { return };
        let blocked = status == ConnectionStatus::Blocked;
        let known = self.peers.get(peer);
        // An answer may come behind the event that is newer; who was never blocked is no matter.
        if known.map_or(!blocked, |known| known.version > version) {
            return;
        }
        let chat = blocked.then(|| ChatId::direct(user, &other).to_string());
        self.peers.insert(peer.to_owned(), Known { version, chat });
    }

    /// Whom a command would write to although they are blocked.
    pub(crate) fn refuses(&self, command: &Command) -> Option<&str> {
        let Command::SendMessage(message) = command else { return None };
        match message.target.as_ref()? {
            Target::To(peer) => {
                let (peer, known) = self.peers.get_key_value(peer)?;
                known.chat.is_some().then_some(peer.as_str())
            }
            Target::ChatId(chat) => {
                let of = |known: &Known| known.chat.as_deref() == Some(chat);
                self.peers.iter().find(|(_, known)| of(known)).map(|(peer, _)| peer.as_str())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chaski_proto::v1;

    fn to(target: Target) -> Command {
        Command::SendMessage(v1::SendMessage { target: Some(target), ..Default::default() })
    }

    fn update(version: u64, status: ConnectionStatus) -> Body {
        let (user_id, status) = ("eve".into(), status.into());
        Body::ConnectionUpdate(v1::ConnectionUpdate {
            user_id,
            status,
            version,
            ..Default::default()
        })
    }

    #[test]
    fn l7_a_message_to_whom_the_user_blocks_is_refused_while_the_block_is_known_to_hold() {
        let chat = ChatId::direct(&"ana".parse().unwrap(), &"eve".parse().unwrap()).to_string();
        let ways = || [to(Target::To("eve".into())), to(Target::ChatId(chat.clone()))];
        #[track_caller]
        fn check(blocked: &Blocked, ways: [Command; 2], refused: bool) {
            for way in ways {
                assert_eq!(blocked.refuses(&way), refused.then_some("eve"), "{way:?}");
            }
        }
        let mut blocked = Blocked::new("ana", &[]);
        check(&blocked, ways(), false);
        blocked.hear(&update(4, ConnectionStatus::Blocked));
        check(&blocked, ways(), true);
        assert_eq!(blocked.refuses(&to(Target::To("ben".into()))), None);
        assert_eq!(blocked.refuses(&to(Target::ChatId("g.1".into()))), None);
        blocked.hear(&update(3, ConnectionStatus::Active));
        check(&blocked, ways(), true);
        blocked.hear(&update(5, ConnectionStatus::None));
        check(&blocked, ways(), false);
        blocked.hear(&update(4, ConnectionStatus::Blocked));
        check(&blocked, ways(), false);

        let known = Connection { user_id: "eve".into(), version: 4, ..Default::default() };
        let status = ConnectionStatus::Blocked.into();
        check(&Blocked::new("ana", &[Connection { status, ..known }]), ways(), true);
    }
}
