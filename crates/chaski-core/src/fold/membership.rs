//! Changes of a chat: name, members, roles. Each takes a seq, so a message is before or after it.

use super::{Bucket, Chat, MemberState, Step};
use crate::{
    UserId,
    record::{Cause, History, Managers, Member, Operation, Outcome, Role, Span, What},
};
use std::sync::Arc;

/// Most former members a chat remembers; one who was forgotten and comes back sees the chat as a
/// new member does.
const FORMER_MAX: usize = 1000;
/// Most earlier spans of one person; the oldest is given up.
const SPANS_MAX: usize = 16;

impl Bucket {
    /// What becomes of a change; the chat is told to its members where it changed.
    pub(super) fn change(&mut self, step: &mut Step<'_>, what: &What) -> Outcome {
        let Some(chat) = self.chats.get_mut(&step.command.chat) else {
            return Outcome::Refused(Cause::NoSuchChat);
        };
        let done = match what {
            What::Name(name) => chat.rename(step, name),
            What::Participant(user, operation) => chat.participant(step, user, *operation),
        };
        match done {
            Ok(None) => Outcome::Unchanged,
            Ok(Some(left)) => {
                chat.tell(step, left);
                Outcome::Changed
            }
            Err(cause) => Outcome::Refused(cause),
        }
    }
}

/// `None`: nothing changes. Otherwise who has left.
type Changed = Result<Option<Arc<[Member]>>, Cause>;

impl Chat {
    fn rename(&mut self, step: &Step<'_>, name: &str) -> Changed {
        self.may_manage(step)?;
        if *self.name == *name {
            return Ok(None);
        }
        self.name = name.into();
        self.next();
        Ok(Some(Arc::new([])))
    }

    fn participant(&mut self, step: &Step<'_>, user: &UserId, operation: Operation) -> Changed {
        let command = step.command;
        let place = self.place_of(user);
        let leaves = operation == Operation::Remove && *user == command.user;
        if leaves && place.is_none() && self.former.iter().any(|(f, _)| f.user == *user) {
            return Ok(None);
        }
        if self.place_of(&command.user).is_none() {
            return Err(Cause::NotAMember);
        }
        if command.chat.is_direct() {
            return Err(Cause::DirectChat);
        }
        if !leaves {
            self.may_manage(step)?;
        }
        let mut members = self.members().to_vec();
        let mut left = Vec::new();
        match (operation, place) {
            (Operation::Add, Some(_)) | (Operation::Remove, None) => return Ok(None),
            (Operation::Add, None) => {
                if members.len() >= step.rules.participants_max as usize {
                    return Err(Cause::ChatFull);
                }
                let (member, state) = self.join(user);
                members.push(member);
                self.states.push(state);
            }
            (Operation::Remove, Some(place)) => {
                let state = self.states.remove(place);
                left.push(self.leave(members.remove(place), state));
                appoint(&mut members);
            }
            (Operation::Promote | Operation::Demote, None) => return Err(Cause::NoSuchMember),
            (Operation::Promote, Some(place)) => {
                if members[place].role == Role::Admin {
                    return Ok(None);
                }
                members[place].role = Role::Admin;
            }
            (Operation::Demote, Some(place)) => {
                if members[place].role == Role::Member {
                    return Ok(None);
                }
                members[place].role = Role::Member;
                if !members.iter().any(|m| m.role == Role::Admin) {
                    return Err(Cause::LastAdmin);
                }
            }
        }
        self.next();
        self.set_members(step.placement, members);
        Ok(Some(left.into()))
    }

    fn may_manage(&self, step: &Step<'_>) -> Result<(), Cause> {
        let place = self.place_of(&step.command.user).ok_or(Cause::NotAMember)?;
        match (step.rules.managers, self.members()[place].role) {
            (Managers::Everyone, _) | (_, Role::Admin) => Ok(()),
            (Managers::Admins, Role::Member) => Err(Cause::NotAllowed),
        }
    }

    /// A change takes a place in the chat's order.
    fn next(&mut self) {
        self.last_seq += 1;
        self.version += 1;
    }

    /// A new member, who sees the change that makes them one first, or the whole history; and
    /// again what they saw as a member before. Marks go on from where they were: they only grow.
    fn join(&mut self, user: &UserId) -> (Member, MemberState) {
        let joined = self.last_seq + 1;
        let visible_from = match self.history {
            History::FromJoin => joined,
            History::All => 1,
        };
        let place = self.former.iter().position(|(former, _)| former.user == *user);
        let (earlier, state) = match place.map(|place| self.former.remove(place)) {
            Some((former, state)) => {
                let apart = former.earlier.iter().filter(|span| span.last < visible_from);
                (apart.copied().collect(), state)
            }
            None => (Arc::default(), MemberState::default()),
        };
        let role = Role::Member;
        (Member { user: user.clone(), role, joined, visible_from, earlier }, state)
    }

    /// The member as one who may see everything up to the change that removes them.
    fn leave(&mut self, mut member: Member, state: MemberState) -> Member {
        let last = self.last_seq + 1;
        let mut spans = member.earlier.to_vec();
        spans.push(Span { first: member.visible_from, last });
        let excess = spans.len().saturating_sub(SPANS_MAX);
        member.earlier = spans.drain(excess..).collect();
        member.role = Role::Member;
        if self.former.len() == FORMER_MAX {
            self.former.remove(0);
        }
        self.former.push((member.clone(), state));
        member
    }
}

/// A chat whose last admin has left goes to who has been in it longest.
fn appoint(members: &mut [Member]) {
    if !members.iter().any(|m| m.role == Role::Admin)
        && let Some(eldest) = members.first_mut()
    {
        eldest.role = Role::Admin;
    }
}
