//! Leads a run: which chat goes on, who leaves and comes back, when to kill, when all is quiet.
//! Owns the schedule; the devices do the work.

use super::{
    device::{Order, Report},
    names::Name,
    plan::{AWAY_SHARE_MIN, Turn},
    progress::Progress,
    shared::Shared,
};
use anyhow::{Context as _, bail};
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval},
};

/// Quiet: nothing new came to any device for this long.
const QUIET: Duration = Duration::from_secs(30);

/// What is asked of a run.
pub(super) struct Terms {
    pub(super) parallel: usize,
    pub(super) kills: u32,
    pub(super) deadline: Instant,
}

/// What a run came to.
#[derive(Debug, Default)]
pub(super) struct Conducted {
    pub(super) chats: Vec<Option<Name>>,
    pub(super) accepted: Vec<Option<Name>>,
    /// From the first send to the last acceptance.
    pub(super) sending: Duration,
    /// From the first send until the last device had all it must have.
    pub(super) seconds: Duration,
    pub(super) timed_out: bool,
    pub(super) failures: Vec<String>,
    pub(super) away: Away,
}

/// How the absences went.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Away {
    pub(super) people: u64,
    /// The shortest absence, as a share of the run's messages.
    pub(super) share_min: Option<f64>,
    /// Who had to come back early, because nothing else could go on.
    pub(super) early: u64,
}

pub(super) struct Conductor {
    shared: Arc<Shared>,
    terms: Terms,
    orders: Vec<mpsc::Sender<Order>>,
    reports: mpsc::Receiver<(u32, Report)>,
    kills: mpsc::Sender<()>,
    kills_asked: u32,
    progress: Progress,
    /// How many messages of each chat are settled.
    next: Vec<usize>,
    waiting: VecDeque<u32>,
    in_flight: usize,
    /// Chats whose next speaker is away.
    parked: HashMap<u32, Vec<u32>>,
    /// Who is away, and since when: by the messages settled, once all devices have left.
    away: HashMap<u32, Option<u64>>,
    turns: VecDeque<Turn>,
    settled: u64,
    /// Copies that the accepted messages make.
    copies_due: u64,
    conducted: Conducted,
}

impl Conductor {
    pub(super) fn new(
        shared: Arc<Shared>,
        terms: Terms,
        orders: Vec<mpsc::Sender<Order>>,
        reports: mpsc::Receiver<(u32, Report)>,
        kills: mpsc::Sender<()>,
    ) -> Self {
        let log = &shared.plan.log;
        let mut chats: Vec<u32> = (0..log.chats.len() as u32).collect();
        chats.sort_by_key(|chat| log.chats[*chat as usize].messages.first().copied());
        Self {
            terms,
            orders,
            reports,
            kills,
            kills_asked: 0,
            progress: Progress::new(log.messages.len() as u64),
            next: vec![0; log.chats.len()],
            waiting: chats.into(),
            in_flight: 0,
            parked: HashMap::new(),
            away: HashMap::new(),
            turns: shared.plan.turns.iter().copied().collect(),
            settled: 0,
            copies_due: 0,
            conducted: Conducted {
                chats: vec![None; log.chats.len()],
                accepted: vec![None; log.messages.len()],
                ..Conducted::default()
            },
            shared,
        }
    }

    /// Conducts the run to its end; the devices end when this returns.
    pub(super) async fn run(mut self) -> anyhow::Result<Conducted> {
        let mut tick = interval(Duration::from_millis(200));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.connect(&mut tick).await?;
        let begun = Instant::now();
        self.start_more()?;
        while self.settled < self.messages() && !self.timed_out() {
            tokio::select! {
                report = self.reports.recv() => self.hear(report.context("all devices ended")?)?,
                _ = tick.tick() => self.show("sending"),
            }
        }
        self.conducted.sending = begun.elapsed();
        self.everybody_back()?;
        let last = self.settle_down(&mut tick).await?;
        self.conducted.seconds = last.saturating_duration_since(begun);
        self.progress.end();
        Ok(self.conducted)
    }

    fn messages(&self) -> u64 {
        self.shared.plan.log.messages.len() as u64
    }

    fn timed_out(&mut self) -> bool {
        self.conducted.timed_out |= Instant::now() >= self.terms.deadline;
        self.conducted.timed_out
    }

    fn show(&mut self, phase: &str) {
        let lag = self.copies_due.saturating_sub(self.shared.copies.load(Relaxed));
        self.progress.show(phase, self.settled, lag);
    }

    async fn connect(&mut self, tick: &mut tokio::time::Interval) -> anyhow::Result<()> {
        let mut connected = 0;
        while connected < self.orders.len() {
            if self.timed_out() {
                bail!("only {connected} of {} devices could connect", self.orders.len());
            }
            tokio::select! {
                report = self.reports.recv() => match report.context("all devices ended")?.1 {
                    Report::Connected => connected += 1,
                    other => bail!("{other:?} before anything was ordered"),
                },
                _ = tick.tick() => self.progress.connecting(connected, self.orders.len()),
            }
        }
        Ok(())
    }

    /// Waits until every device has what it must have, or nothing new comes.
    async fn settle_down(&mut self, tick: &mut tokio::time::Interval) -> anyhow::Result<Instant> {
        let devices = self.orders.len() as u64;
        let (mut copies, mut changed) = (0, Instant::now());
        loop {
            let present = self.shared.copies.load(Relaxed);
            if present != copies {
                (copies, changed) = (present, Instant::now());
            }
            let complete = self.shared.complete.load(Relaxed) == devices;
            if complete || changed.elapsed() >= QUIET || self.timed_out() {
                return Ok(changed);
            }
            tokio::select! {
                report = self.reports.recv() => self.hear(report.context("all devices ended")?)?,
                _ = tick.tick() => self.show("catching up"),
            }
        }
    }

    fn hear(&mut self, (device, report): (u32, Report)) -> anyhow::Result<()> {
        match report {
            Report::Connected => Ok(()),
            Report::Left => {
                let user = self.shared.plan.devices[device as usize].user;
                if let Some(since) = self.away.get_mut(&user) {
                    *since = Some(self.settled);
                }
                Ok(())
            }
            Report::Created { chat, id } => {
                self.conducted.chats[chat as usize] = Some(id);
                self.go_on(chat)
            }
            Report::Accepted { message, id } => {
                self.conducted.accepted[message as usize] = Some(id);
                let chat = self.shared.plan.log.messages[message as usize].chat;
                let log_chat = &self.shared.plan.log.chats[chat as usize];
                let devices = |user: &u32| self.shared.plan.devices_of[*user as usize].len() as u64;
                self.copies_due += log_chat.participants.iter().map(devices).sum::<u64>();
                self.settle(chat, 1)
            }
            Report::Failed { order, why } => {
                if self.conducted.failures.len() < 30 {
                    self.conducted.failures.push(format!("{order:?}: {why}"));
                }
                match order {
                    Order::Send(message) => {
                        self.settle(self.shared.plan.log.messages[message as usize].chat, 1)
                    }
                    Order::Create(chat) => {
                        let all = self.shared.plan.log.chats[chat as usize].messages.len();
                        self.settle(chat, all)
                    }
                    Order::Leave | Order::Return => bail!("{order:?} cannot fail"),
                }
            }
        }
    }

    /// Some messages of a chat are settled: the schedule moves.
    fn settle(&mut self, chat: u32, count: usize) -> anyhow::Result<()> {
        self.next[chat as usize] += count;
        self.settled += count as u64;
        while let Some(turn) = self.turns.front().copied().filter(|turn| turn.at <= self.settled) {
            self.turns.pop_front();
            if turn.leaves {
                self.away.insert(turn.user, None);
                self.conducted.away.people += 1;
                self.order(turn.user, Order::Leave)?;
            } else {
                self.come_back_when_due(turn)?;
            }
        }
        // At 1/(N+1), 2/(N+1), … of the messages.
        let due =
            u64::from(self.kills_asked + 1) * self.messages() / u64::from(self.terms.kills + 1);
        if self.kills_asked < self.terms.kills && self.settled >= due {
            self.kills_asked += 1;
            self.kills.try_send(()).context("the killer is gone")?;
        }
        self.go_on(chat)
    }

    fn go_on(&mut self, chat: u32) -> anyhow::Result<()> {
        self.step(chat)?;
        self.start_more()
    }

    fn start_more(&mut self) -> anyhow::Result<()> {
        loop {
            while self.in_flight < self.terms.parallel
                && let Some(chat) = self.waiting.pop_front()
            {
                self.in_flight += 1;
                self.step(chat)?;
            }
            if self.in_flight > 0 {
                return Ok(());
            }
            // All that is left waits for people who are away: the first to come back comes now.
            let returns = |user: &u32| self.turns.iter().position(|turn| turn.user == *user);
            let Some(user) = self.parked.keys().copied().min_by_key(returns) else { return Ok(()) };
            self.conducted.away.early += 1;
            self.come_back(user)?;
        }
    }

    /// Orders the next thing of a chat that is in flight.
    fn step(&mut self, chat: u32) -> anyhow::Result<()> {
        let plan = &self.shared.plan;
        let Some(&message) = plan.log.chats[chat as usize].messages.get(self.next[chat as usize])
        else {
            self.in_flight -= 1;
            return Ok(());
        };
        let speaker = plan.log.messages[message as usize].sender;
        if self.away.contains_key(&speaker) {
            self.in_flight -= 1;
            self.parked.entry(speaker).or_default().push(chat);
            return Ok(());
        }
        let order = if self.conducted.chats[chat as usize].is_none() {
            Order::Create(chat)
        } else {
            self.shared.mark_sent(message);
            Order::Send(message)
        };
        let device = plan.sends[message as usize];
        // A device has at most one order for each chat in flight, and its channel has that room.
        self.orders[device as usize].try_send(order).context("a device does not take orders")
    }

    fn order(&self, user: u32, order: Order) -> anyhow::Result<()> {
        for device in &self.shared.plan.devices_of[user as usize] {
            let sent = self.orders[*device as usize].try_send(order);
            sent.context("a device does not take orders")?;
        }
        Ok(())
    }

    /// Comes back, or later where leaving took its time: a send may have had to be answered first.
    fn come_back_when_due(&mut self, turn: Turn) -> anyhow::Result<()> {
        let Some(since) = self.away.get(&turn.user) else { return Ok(()) };
        let least = (AWAY_SHARE_MIN * self.messages() as f64).ceil() as u64;
        let at = since.unwrap_or(self.settled) + least;
        if at <= self.settled {
            return self.come_back(turn.user);
        }
        let place = self.turns.partition_point(|other| other.at <= at);
        self.turns.insert(place, Turn { at, ..turn });
        Ok(())
    }

    fn come_back(&mut self, user: u32) -> anyhow::Result<()> {
        let Some(since) = self.away.remove(&user) else { return Ok(()) };
        let gone = since.map_or(0, |since| self.settled - since) as f64 / self.messages() as f64;
        let shortest = self.conducted.away.share_min.get_or_insert(gone);
        *shortest = shortest.min(gone);
        for chat in self.parked.remove(&user).unwrap_or_default() {
            self.waiting.push_front(chat);
        }
        self.order(user, Order::Return)
    }

    fn everybody_back(&mut self) -> anyhow::Result<()> {
        for user in self.away.keys().copied().collect::<Vec<_>>() {
            self.come_back(user)?;
        }
        Ok(())
    }
}
