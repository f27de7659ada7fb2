//! Who takes part: people, their devices and habits, their chats; all from a seed. Knows no server.

use crate::history::Chat;
use chaski_client::Format;
use fastrand::Rng;
use std::collections::HashSet;

/// Who takes part.
#[derive(Debug)]
pub(crate) struct Population {
    /// How many people.
    pub(crate) users: u32,
    /// The number in the id of each of them, ascending.
    pub(crate) numbers: Vec<u32>,
    /// Their chats.
    pub(crate) chats: Vec<Chat>,
    /// Of each chat: how often something is said, against the others.
    pub(crate) weights: Vec<u32>,
    /// Of each chat: who says something in it.
    pub(crate) voices: Vec<Vec<u32>>,
    /// Of each chat: whom its maker removes and adds again.
    pub(crate) removable: Vec<Vec<u32>>,
    /// Who blocks whom at times, and the chat that the two have.
    pub(crate) blocks: Vec<Block>,
    /// All devices: the first one of each person, the second ones, and one for each person that
    /// comes only in the end.
    pub(crate) devices: Vec<Device>,
    /// Of each person: the devices that send.
    pub(crate) devices_of: Vec<Vec<u32>>,
}

/// A device of somebody.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Device {
    /// Whose.
    pub(crate) user: u32,
    /// Which of theirs.
    pub(crate) nth: u32,
    /// What it does beside sending and reading.
    pub(crate) habit: Habit,
    /// Its subprotocol.
    pub(crate) format: Format,
}

/// What a device does beside sending and reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Habit {
    /// Nothing.
    Stays,
    /// Stops reading for a while.
    Stalls,
    /// Closes, and comes back.
    ComesAndGoes,
    /// Comes when all is over, and is shown everything.
    ComesLast,
}

/// Somebody who blocks somebody at times.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    /// Who.
    pub(crate) blocker: u32,
    /// Whom.
    pub(crate) peer: u32,
    /// The chat of the two; the blocker says nothing in it.
    pub(crate) chat: u32,
}

const GROUP_MIN: u32 = 3;
const GROUP_MAX: u32 = 20;

impl Population {
    /// People and chats; at least 4 people, and no more chats of two than there are pairs.
    #[must_use]
    pub(crate) fn new(seed: u64, users: u32, chats: u32) -> Self {
        let (users, mut random) = (users.max(4), Rng::with_seed(seed));
        let mut cast = Cast { users, deck: Vec::new(), pairs: HashSet::new() };
        let mut all = Vec::new();
        for n in 0..chats.max(2) {
            let is_group = n % 5 < 2;
            let members = match is_group {
                true => cast.group(&mut random),
                false => cast.pair(&mut random),
            };
            all.push(Chat { id: None, is_group: is_group || members.len() > 2, members });
        }
        let mut removable = vec![Vec::new(); all.len()];
        let mut blocks = Vec::new();
        for (n, chat) in all.iter().enumerate() {
            if chat.is_group && n % 2 == 0 {
                // The first one makes the chat and stays.
                removable[n] = chat.members[1..].iter().copied().take(2).collect();
            } else if !chat.is_group && n % 5 == 2 {
                let (blocker, peer) = (chat.members[0], chat.members[1]);
                blocks.push(Block { blocker, peer, chat: n as u32 });
            }
        }
        let weights = all.iter().map(|_| random.u32(1..=4)).collect();
        let (devices, devices_of) = devices(users, &mut random);
        let numbers = (0..users).collect();
        let voices = all.iter().map(|chat| chat.members.clone()).collect();
        Self { users, numbers, chats: all, weights, voices, removable, blocks, devices, devices_of }
    }

    /// The same people and chats where nobody goes, stalls, blocks or is removed: for what is
    /// measured.
    #[must_use]
    pub(crate) fn calm(seed: u64, users: u32, chats: u32) -> Self {
        let mut population = Self::new(seed, users, chats);
        for device in population.devices.iter_mut().filter(|d| d.habit != Habit::ComesLast) {
            device.habit = Habit::Stays;
        }
        population.removable.iter_mut().for_each(Vec::clear);
        population.blocks.clear();
        population
    }

    /// How many devices there are from the beginning.
    #[must_use]
    pub(crate) fn devices_at_first(&self) -> usize {
        self.devices.iter().filter(|device| device.habit != Habit::ComesLast).count()
    }
}

fn devices(users: u32, random: &mut Rng) -> (Vec<Device>, Vec<Vec<u32>>) {
    let mut devices: Vec<Device> = Vec::new();
    let mut devices_of = vec![Vec::new(); users as usize];
    let mut add = |user: u32, nth: u32, habit: Habit| {
        // Half of them speak the one subprotocol, half the other, whatever their habit.
        let format = if random.bool() { Format::Json } else { Format::Protobuf };
        if habit != Habit::ComesLast {
            devices_of[user as usize].push(devices.len() as u32);
        }
        devices.push(Device { user, nth, habit, format });
    };
    for user in 0..users {
        let habit = match user % 8 {
            3 => Habit::Stalls,
            5 => Habit::ComesAndGoes,
            _ => Habit::Stays,
        };
        add(user, 0, habit);
    }
    for user in (0..users).filter(|user| user % 10 < 3) {
        let habit = match user % 3 {
            0 => Habit::ComesAndGoes,
            1 => Habit::Stalls,
            _ => Habit::Stays,
        };
        add(user, 1, habit);
    }
    (0..users).for_each(|user| add(user, 2, Habit::ComesLast));
    (devices, devices_of)
}

/// Deals people to chats, so that everybody is in one before anybody is in two.
struct Cast {
    users: u32,
    deck: Vec<u32>,
    pairs: HashSet<(u32, u32)>,
}

impl Cast {
    fn next(&mut self, random: &mut Rng) -> u32 {
        if self.deck.is_empty() {
            self.deck = (0..self.users).collect();
            random.shuffle(&mut self.deck);
        }
        self.deck.pop().expect("it was filled")
    }

    fn people(&mut self, count: u32, random: &mut Rng) -> Vec<u32> {
        let mut people = Vec::new();
        while people.len() < count.min(self.users) as usize {
            let person = self.next(random);
            if !people.contains(&person) {
                people.push(person);
            }
        }
        people
    }

    /// Small groups more often than large ones.
    fn group(&mut self, random: &mut Rng) -> Vec<u32> {
        let size = random.u32(GROUP_MIN..=GROUP_MAX).min(random.u32(GROUP_MIN..=GROUP_MAX));
        self.people(size, random)
    }

    /// Two who have no chat yet; where there are none, a group of three.
    fn pair(&mut self, random: &mut Rng) -> Vec<u32> {
        for _ in 0..100 {
            let pair = self.people(2, random);
            let sorted = (pair[0].min(pair[1]), pair[0].max(pair[1]));
            if self.pairs.insert(sorted) {
                return pair;
            }
        }
        self.people(3, random)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_has_a_chat_and_every_habit_is_there() {
        let population = Population::new(1, 200, 100);
        assert_eq!((population.users, population.chats.len()), (200, 100));
        let in_chats: HashSet<u32> =
            population.chats.iter().flat_map(|chat| chat.members.iter().copied()).collect();
        assert_eq!(in_chats.len(), 200);
        let groups = population.chats.iter().filter(|chat| chat.is_group);
        assert!(groups.clone().all(|c| (3..=20).contains(&c.members.len())), "{groups:?}");
        assert_eq!(groups.count(), 40);
        for habit in [Habit::Stays, Habit::Stalls, Habit::ComesAndGoes] {
            let of = |nth| population.devices.iter().filter(move |d| d.nth == nth);
            assert!(of(0).filter(|d| d.habit == habit).count() >= 20, "{habit:?}");
            assert!(of(1).any(|d| d.habit == habit), "{habit:?}");
        }
        assert_eq!(population.devices_at_first(), 260);
        assert!(population.blocks.len() >= 15);
        assert!(population.removable.iter().filter(|r| !r.is_empty()).count() >= 15);
        let again = Population::new(1, 200, 100);
        assert_eq!(format!("{population:?}"), format!("{again:?}"));
        assert_ne!(format!("{population:?}"), format!("{:?}", Population::new(2, 200, 100)));
    }
}
