//! The reference's idea of one chat: members, roles, what each may see, and the places of its
//! order. Written from the contract alone.
//!
//! Must not know: ids on the wire, devices, connections, blocks.

use std::collections::{BTreeMap, BTreeSet};

/// A user of the case, by number.
pub(crate) type User = usize;

/// Names a chat, whether it exists or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Name {
    /// The lower number first; both are the same for notes to oneself.
    Direct(User, User),
    /// Made by this user under this `clientChatId`.
    Group(User, u8),
}

impl Name {
    pub(crate) fn direct(a: User, b: User) -> Self {
        Self::Direct(a.min(b), a.max(b))
    }
}

/// An operation on a participant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Add,
    Remove,
    Promote,
    Demote,
}

/// A place of a chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    Message(Message),
    Update(Update),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) sender: User,
    pub(crate) device: String,
    pub(crate) key: u16,
    pub(crate) text: u8,
    /// Who blocked the sender, and knew it from the answer, before this was sent.
    pub(crate) blocked_by: BTreeSet<User>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Update {
    pub(crate) members: Vec<(User, bool)>,
    pub(crate) title: u8,
    pub(crate) version: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) user: User,
    pub(crate) admin: bool,
    /// The first seq of this membership that they may see.
    pub(crate) from: u64,
    /// What they may see of earlier ones: first and last.
    pub(crate) earlier: Vec<(u64, u64)>,
}

#[derive(Clone, Debug)]
pub(crate) struct Chat {
    pub(crate) title: u8,
    /// Later members see the chat from its beginning.
    pub(crate) all: bool,
    pub(crate) version: u64,
    pub(crate) members: Vec<Member>,
    pub(crate) former: Vec<Member>,
    /// The place of seq 1 first.
    pub(crate) items: Vec<Item>,
    pub(crate) read: BTreeMap<User, u64>,
    /// Whoever has left once: what marks of theirs were in time is not known.
    pub(crate) ever_left: BTreeSet<User>,
    made_with: BTreeSet<User>,
    made_as: u8,
}

/// Who is told of a change, and from where each may see the chat.
pub(crate) type Told = Vec<(User, u64)>;

impl Chat {
    pub(crate) fn direct(a: User, b: User) -> Self {
        let mut users = vec![a, b];
        users.dedup();
        Self::new(users, false, 0, true)
    }

    pub(crate) fn group(by: User, others: &[User], title: u8, all: bool) -> Self {
        let mut users = vec![by];
        users.extend(others.iter().filter(|user| **user != by));
        let mut chat = Self::new(users, true, title, all);
        chat.change();
        chat
    }

    fn new(users: Vec<User>, admin: bool, title: u8, all: bool) -> Self {
        let made_with = users.iter().copied().collect();
        let member = |(n, user)| Member { user, admin: admin && n == 0, from: 1, earlier: vec![] };
        let members = users.into_iter().enumerate().map(member).collect();
        let (read, ever_left) = (BTreeMap::new(), BTreeSet::new());
        let (former, items) = (Vec::new(), Vec::new());
        let made_as = title;
        Self { title, all, version: 0, members, former, items, read, ever_left, made_with, made_as }
    }

    /// Whether making it again means this chat.
    pub(crate) fn is_made_by(&self, by: User, others: &[User], title: u8) -> bool {
        let with: BTreeSet<User> = others.iter().copied().chain([by]).collect();
        with == self.made_with && title == self.made_as
    }

    pub(crate) fn last_seq(&self) -> u64 {
        self.items.len() as u64
    }

    pub(crate) fn item(&self, seq: u64) -> &Item {
        &self.items[usize::try_from(seq).expect("small") - 1]
    }

    pub(crate) fn member(&self, user: User) -> Option<&Member> {
        self.members.iter().find(|m| m.user == user)
    }

    /// The place at which the user last came into the chat.
    pub(crate) fn joined(&self, user: User) -> u64 {
        let (mut was_in, mut joined) = (false, 1);
        for (seq, item) in (1..).zip(&self.items) {
            let Item::Update(update) = item else { continue };
            let is_in = update.members.iter().any(|(member, _)| *member == user);
            if is_in && !was_in {
                joined = seq;
            }
            was_in = is_in;
        }
        joined
    }

    /// The spans of seq that the user may see, ascending; none for a stranger.
    pub(crate) fn visible(&self, user: User) -> Vec<(u64, u64)> {
        if let Some(member) = self.member(user) {
            let mut spans = member.earlier.clone();
            spans.push((member.from, self.last_seq()));
            return spans;
        }
        let former = self.former.iter().find(|m| m.user == user);
        former.map(|m| m.earlier.clone()).unwrap_or_default()
    }

    pub(crate) fn message(&mut self, message: Message) -> Told {
        self.items.push(Item::Message(message));
        self.everyone()
    }

    pub(crate) fn rename(&mut self, by: User, title: u8) -> Result<Told, u16> {
        self.may_manage(by)?;
        if self.title == title {
            return Ok(Told::new());
        }
        self.title = title;
        self.change();
        Ok(self.everyone())
    }

    /// A change of a group's membership or roles; nobody is told where nothing changes.
    pub(crate) fn participant(
        &mut self,
        by: User,
        user: User,
        operation: Operation,
        direct: bool,
    ) -> Result<Told, u16> {
        let leaves = operation == Operation::Remove && by == user;
        let present = self.members.iter().position(|m| m.user == user);
        if leaves && present.is_none() && self.former.iter().any(|m| m.user == user) {
            return Ok(Told::new());
        }
        if self.member(by).is_none() || direct {
            return Err(403);
        }
        if !leaves {
            self.may_manage(by)?;
        }
        let mut gone = Told::new();
        match (operation, present) {
            (Operation::Add, Some(_)) | (Operation::Remove, None) => return Ok(Told::new()),
            (Operation::Add, None) => self.join(user),
            (Operation::Remove, Some(place)) => gone.push(self.leave(place)),
            (Operation::Promote | Operation::Demote, None) => return Err(404),
            (Operation::Promote, Some(place)) if self.members[place].admin => {
                return Ok(Told::new());
            }
            (Operation::Promote, Some(place)) => self.members[place].admin = true,
            (Operation::Demote, Some(place)) if !self.members[place].admin => {
                return Ok(Told::new());
            }
            (Operation::Demote, Some(place)) => {
                if self.members.iter().filter(|m| m.admin).count() == 1 {
                    return Err(409);
                }
                self.members[place].admin = false;
            }
        }
        self.change();
        let mut told = self.everyone();
        told.extend(gone);
        Ok(told)
    }

    fn join(&mut self, user: User) {
        let from = if self.all { 1 } else { self.last_seq() + 1 };
        let place = self.former.iter().position(|m| m.user == user);
        let former = place.map(|place| self.former.remove(place));
        let earlier = former.map(|m| m.earlier).unwrap_or_default();
        let earlier = earlier.into_iter().filter(|(_, last)| *last < from).collect();
        self.members.push(Member { user, admin: false, from, earlier });
    }

    /// The member sees the change that removes them last.
    fn leave(&mut self, place: usize) -> (User, u64) {
        let mut member = self.members.remove(place);
        let (user, from) = (member.user, member.from);
        member.earlier.push((from, self.last_seq() + 1));
        self.former.push(member);
        self.read.remove(&user);
        self.ever_left.insert(user);
        if !self.members.iter().any(|m| m.admin)
            && let Some(eldest) = self.members.first_mut()
        {
            eldest.admin = true;
        }
        (user, from)
    }

    fn may_manage(&self, by: User) -> Result<(), u16> {
        match self.member(by) {
            Some(member) if member.admin => Ok(()),
            _ => Err(403),
        }
    }

    fn change(&mut self) {
        self.version += 1;
        let members = self.members.iter().map(|m| (m.user, m.admin)).collect();
        let (title, version) = (self.title, self.version);
        self.items.push(Item::Update(Update { members, title, version }));
    }

    pub(crate) fn everyone(&self) -> Told {
        self.members.iter().map(|m| (m.user, m.from)).collect()
    }
}
