//! When what is asked: an open loop. What is planned is ordered at its time, whether or not
//! anything before it was answered.

use super::{
    device::Order,
    population::{Block, Population},
    shared::Shared,
};
use crate::history::Ask;
use fastrand::Rng;
use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    /// Something is said in a chat.
    Say(u32),
    /// A chat's members change.
    Change(u32),
    /// A block is made or lifted.
    Block(u32),
}

/// How often somebody is removed or added. Chaski remembers 16 memberships of one person in a chat and
/// gives up the oldest beyond that: as it says, but a judge would miss it.
const CHANGES_MAX: u32 = 2 * 16;

/// The open loop.
pub(crate) struct Pacer {
    shared: Arc<Shared>,
    orders: Vec<mpsc::Sender<Order>>,
    random: Rng,
    /// Messages of a second, over all chats.
    rate: f64,
    /// How often each (chat, user) was removed or added.
    changes: HashMap<(u32, u32), u32>,
}

impl Pacer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        orders: Vec<mpsc::Sender<Order>>,
        seed: u64,
        rate: f64,
    ) -> Self {
        let (random, changes) = (Rng::with_seed(seed), HashMap::new());
        Self { shared, orders, random, rate, changes }
    }

    /// Orders until it is stopped.
    pub(crate) async fn run(mut self, stop: &CancellationToken) {
        let started = Instant::now();
        let shared = self.shared.clone();
        let population = &shared.population;
        let mut turns = BinaryHeap::new();
        for chat in 0..population.chats.len() as u32 {
            turns.push(Reverse((self.after(started, Turn::Say(chat)), Turn::Say(chat))));
            if !population.removable[chat as usize].is_empty() {
                turns.push(Reverse((self.after(started, Turn::Change(chat)), Turn::Change(chat))));
            }
        }
        for block in 0..population.blocks.len() as u32 {
            turns.push(Reverse((self.after(started, Turn::Block(block)), Turn::Block(block))));
        }
        while let Some(Reverse((at, turn))) = turns.pop() {
            tokio::select! {
                () = sleep_until(at) => {}
                () = stop.cancelled() => return,
            }
            self.take(population, turn);
            // Behind the planned time, not behind this moment: nothing is left out after a stall.
            turns.push(Reverse((self.after(at, turn), turn)));
        }
    }

    fn after(&mut self, at: Instant, turn: Turn) -> Instant {
        let population = &self.shared.population;
        let mean = match turn {
            Turn::Say(chat) => {
                let all: u32 = population.weights.iter().sum();
                let share = f64::from(population.weights[chat as usize]) / f64::from(all);
                1.0 / (self.rate * share)
            }
            Turn::Change(_) => 12.0,
            Turn::Block(_) => 9.0,
        };
        at + Duration::from_secs_f64(mean * (0.2 + 1.6 * self.random.f64()))
    }

    fn take(&mut self, population: &Population, turn: Turn) {
        match turn {
            Turn::Say(chat) => {
                let members = &population.voices[chat as usize];
                let silent = population.blocks.iter().find(|block| block.chat == chat);
                let mut sender = members[self.random.usize(..members.len())];
                // A blocker's own message would be refused, at times.
                if silent.is_some_and(|block| block.blocker == sender) {
                    sender = members[1];
                }
                let devices = &population.devices_of[sender as usize];
                let device = devices[self.random.usize(..devices.len())];
                let message = self.shared.new_message(chat, device);
                self.order(device, Order::Ask(Ask::Send { message }));
            }
            Turn::Change(chat) => {
                let users = &population.removable[chat as usize];
                let user = users[self.random.usize(..users.len())];
                let changes = self.changes.entry((chat, user)).or_default();
                if *changes == CHANGES_MAX {
                    return;
                }
                *changes += 1;
                let maker = population.chats[chat as usize].members[0];
                self.order(population.devices_of[maker as usize][0], Order::Member { chat, user });
            }
            Turn::Block(block) => {
                let Block { blocker, peer, .. } = population.blocks[block as usize];
                self.order(population.devices_of[blocker as usize][0], Order::Block { peer });
            }
        }
    }

    /// An order that the device has no room for is not asked: the loop waits for nobody.
    fn order(&self, device: u32, order: Order) {
        if self.orders[device as usize].try_send(order).is_err() {
            self.shared.counts.not_asked.fetch_add(1, Relaxed);
        }
    }
}
