//! The state of one chat, and the way of an event to its members.

use super::Step;
use crate::{
    Partition, UserId,
    placement::Placement,
    record::{ChatUpdate, Command, Create, Event, History, Member, Output, Role},
};
use std::{collections::BTreeMap, sync::Arc};

/// The state of a chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chat {
    /// Tells a repeated creation from another one under the same key; 0 for a 1:1 chat.
    pub creation: u64,
    /// The chat's name.
    pub name: Arc<str>,
    /// What later members may see.
    pub history: History,
    /// For how many days its history is kept; 0: as the whole system does. Never changes.
    pub history_days: u32,
    /// Counts the changes.
    pub version: u64,
    /// The last seq given out (L3).
    pub last_seq: u64,
    /// Who was a member, the latest last: all that they may see is in `earlier`. With how far they
    /// had come.
    pub former: Vec<(Member, MemberState)>,
    /// One for each member.
    pub states: Vec<MemberState>,
    members: Arc<[Member]>,
    /// The members by partition of `recipients`; follows from `members`, never stored.
    routes: Arc<[Route]>,
}

/// How far a member has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemberState {
    /// A device has taken everything up to here.
    pub delivered: u64,
    /// The member has read everything up to here.
    pub read: u64,
    /// What others may know of `read`.
    pub public_read: u64,
    /// The member's last message.
    pub sent: u64,
}

#[derive(Debug, PartialEq, Eq)]
struct Route {
    partition: Partition,
    users: Arc<[UserId]>,
    visible_from: Arc<[u64]>,
}

impl Chat {
    /// A chat with these members, routed by `placement`; nobody has been here before, and its
    /// history is kept as the whole system does.
    #[must_use]
    pub fn new(
        placement: Placement,
        creation: u64,
        name: Arc<str>,
        history: History,
        (version, last_seq): (u64, u64),
        members: Arc<[Member]>,
    ) -> Self {
        let states = vec![MemberState::default(); members.len()];
        let routes = routes(placement, members.iter());
        let former = Vec::new();
        let history_days = 0;
        Self {
            creation,
            name,
            history,
            history_days,
            version,
            last_seq,
            former,
            states,
            members,
            routes,
        }
    }

    /// The chat that the first message to a person makes.
    pub(super) fn direct(placement: Placement, a: &UserId, b: &UserId) -> Self {
        let mut users = vec![a.clone()];
        if a != b {
            users.push(b.clone());
        }
        let members = users.into_iter().map(|user| Member::founding(user, Role::Member)).collect();
        Self::new(placement, 0, "".into(), History::All, (0, 0), members)
    }

    /// A new group: the creator first and admin, then the others as listed.
    pub(super) fn group(
        placement: Placement,
        command: &Command,
        create: &Create,
        creation: u64,
    ) -> Self {
        let mut members = vec![Member::founding(command.user.clone(), Role::Admin)];
        for user in &create.participants {
            if !members.iter().any(|m| m.user == *user) {
                members.push(Member::founding(user.clone(), Role::Member));
            }
        }
        let name = create.name.as_str().into();
        let chat = Self::new(placement, creation, name, create.history, (1, 1), members.into());
        Self { history_days: create.history_days, ..chat }
    }

    /// The members.
    #[must_use]
    pub fn members(&self) -> &Arc<[Member]> {
        &self.members
    }

    /// Puts other members in the place of the present ones; `states` is the caller's to keep in
    /// step.
    pub(super) fn set_members(&mut self, placement: Placement, members: Vec<Member>) {
        self.members = members.into();
        self.routes = routes(placement, self.members.iter());
    }

    /// Which of the members this user is.
    #[must_use]
    pub fn place_of(&self, user: &UserId) -> Option<usize> {
        self.members.iter().position(|m| m.user == *user)
    }

    /// One output for each partition with members, the acting user's partition first.
    pub(super) fn fan_out(&self, first: Partition, event: &Event, out: &mut Vec<Output>) {
        send(&self.routes, first, event, out);
    }

    /// Tells the chat as it is now to its members and to those who have just left.
    pub(super) fn tell(&self, step: &mut Step<'_>, left: Arc<[Member]>) {
        let command = step.command;
        let routes = match left.is_empty() {
            true => Arc::clone(&self.routes),
            false => routes(step.placement, self.members.iter().chain(&*left)),
        };
        let update = ChatUpdate {
            chat: command.chat,
            seq: self.last_seq,
            members: Arc::clone(&self.members),
            name: Arc::clone(&self.name),
            version: self.version,
            left,
            accepted_at: command.accepted_at,
            history_days: self.history_days,
        };
        let own = step.placement.of_user(&command.user);
        send(&routes, own, &Event::ChatUpdate(Arc::new(update)), step.out);
    }
}

fn send(routes: &[Route], first: Partition, event: &Event, out: &mut Vec<Output>) {
    let update = matches!(event, Event::ChatUpdate(_));
    let (own, others): (Vec<_>, Vec<_>) = routes.iter().partition(|r| r.partition == first);
    for (index, route) in own.into_iter().chain(others).enumerate() {
        out.push(Output {
            partition: route.partition,
            index: index as u32,
            users: Arc::clone(&route.users),
            visible_from: update.then(|| Arc::clone(&route.visible_from)),
            event: event.clone(),
        });
    }
}

fn routes<'a>(placement: Placement, members: impl Iterator<Item = &'a Member>) -> Arc<[Route]> {
    let mut by_partition = BTreeMap::<Partition, (Vec<UserId>, Vec<u64>)>::new();
    for member in members {
        let (users, visible) = by_partition.entry(placement.of_user(&member.user)).or_default();
        users.push(member.user.clone());
        visible.push(member.visible_from);
    }
    by_partition
        .into_iter()
        .map(|(partition, (users, visible))| Route {
            partition,
            users: users.into(),
            visible_from: visible.into(),
        })
        .collect()
}
