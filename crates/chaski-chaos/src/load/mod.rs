//! The load: a few hundred people at real WebSocket clients, who talk at planned times whatever
//! happens, and note all they ask and are shown. Knows the public contract only; judges nothing.

mod device;
mod pacer;
pub(crate) mod population;
mod reads;
mod shared;

pub(crate) use shared::{Counts, Shared, user_id};

use crate::{
    fault::Timeline,
    history::{Ask, Evidence},
    judge::{Kind, judge},
    progress::tell,
};
use anyhow::{Context as _, bail, ensure};
use chaski::replay::{TokenSource, enough_files};
use device::{Order, Phase};
use pacer::Pacer;
use population::Population;
use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

/// How much load.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// Decides who does what and when.
    pub seed: u64,
    /// People.
    pub users: u32,
    /// Chats.
    pub chats: u32,
    /// Messages of a second, over all chats.
    pub rate: f64,
    /// How long a read in the end is repeated that fails, or lacks something.
    pub read_patience: Duration,
}

/// Everybody connects, and all chats are made, within this.
const START_MAX: Duration = Duration::from_secs(120);
/// And so much more for each device.
const START_EACH: Duration = Duration::from_millis(30);
/// Orders that a device has not looked at yet.
const ORDERS_MAX: usize = 1024;
/// Nothing new came for this long: it is quiet.
const CALM: Duration = Duration::from_secs(3);

/// The clients of a run.
pub struct Load {
    shared: Arc<Shared>,
    options: LoadOptions,
    orders: Vec<mpsc::Sender<Order>>,
    phase: watch::Sender<Phase>,
    devices: JoinSet<anyhow::Result<()>>,
}

impl Load {
    /// Connects everybody and makes the chats. `run` makes the users' ids unlike those of another
    /// run.
    ///
    /// # Errors
    /// The system does not take them in time.
    pub async fn start(
        options: LoadOptions,
        run: String,
        url: String,
        tokens: TokenSource,
        timeline: Timeline,
    ) -> anyhow::Result<Self> {
        let population = Population::new(options.seed, options.users, options.chats);
        Self::of(population, options, run, url, tokens, timeline).await
    }

    /// The same with these people and chats, whatever `options` say of them.
    ///
    /// # Errors
    /// The system does not take them in time.
    pub(crate) async fn of(
        population: Population,
        options: LoadOptions,
        run: String,
        url: String,
        tokens: TokenSource,
        timeline: Timeline,
    ) -> anyhow::Result<Self> {
        ensure!(options.rate > 0.0, "--rate must be above 0");
        enough_files(population.devices.len())?;
        let first = population.devices_at_first();
        let shared = Arc::new(Shared::new(run, population, url, tokens, timeline));
        let (phase, _) = watch::channel(Phase::Start);
        let devices = JoinSet::new();
        let mut load = Self { shared, options, orders: Vec::new(), phase, devices };
        load.spawn(first);
        let shared = load.shared();
        let started = async {
            let all = first as u64;
            let connected = |counts: &Counts| counts.connected.load(Relaxed) == all;
            load.until("everybody is connected", connected).await?;
            load.make_chats().await
        };
        tokio::select! {
            started = started => started?,
            () = tell(&shared, "connecting") => unreachable!("it tells for ever"),
        }
        load.phase.send_replace(Phase::Load);
        Ok(load)
    }

    /// What the run has come to, for who looks on.
    pub(crate) fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
    }

    fn spawn(&mut self, until: usize) {
        for device in self.orders.len()..until {
            let (order, orders) = mpsc::channel(ORDERS_MAX);
            self.orders.push(order);
            let phase = self.phase.subscribe();
            self.devices.spawn(device::run(self.shared.clone(), device as u32, orders, phase));
        }
    }

    /// A device that fails has met an error of the harness.
    fn check_devices(&mut self) -> anyhow::Result<()> {
        match self.devices.try_join_next() {
            Some(ended) => bail!("a device ended: {:?}", ended?),
            None => Ok(()),
        }
    }

    async fn until(&mut self, what: &str, is: impl Fn(&Counts) -> bool) -> anyhow::Result<()> {
        let start_max = START_MAX + START_EACH * self.orders.len() as u32;
        let by = Instant::now() + start_max;
        while !is(&self.shared.counts) {
            self.check_devices()?;
            ensure!(Instant::now() < by, "waited for {start_max:?} until {what}, in vain");
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    async fn make_chats(&mut self) -> anyhow::Result<()> {
        let shared = self.shared.clone();
        for (chat, planned) in shared.population.chats.iter().enumerate() {
            let chat = chat as u32;
            let maker = shared.population.devices_of[planned.members[0] as usize][0];
            let ask = match planned.is_group {
                true => Ask::Create { chat },
                // A chat of two begins with its first message.
                false => Ask::Send { message: shared.new_message(chat, maker) },
            };
            let sent = self.orders[maker as usize].try_send(Order::Ask(ask));
            sent.context("a device has no room for an order")?;
        }
        let made = shared.clone();
        self.until("all chats are made", move |_| {
            made.chat_ids.iter().all(|chat| chat.get().is_some())
        })
        .await
    }

    /// Talks until it is stopped.
    pub async fn talk(&self, stop: &CancellationToken) {
        self.talk_at(self.options.rate, stop).await;
    }

    /// The same at another rate.
    pub(crate) async fn talk_at(&self, rate: f64, stop: &CancellationToken) {
        let seed = self.options.seed;
        Pacer::new(self.shared(), self.orders.clone(), seed, rate).run(stop).await;
    }

    /// Nobody asks for anything new, and everybody is there and reads; waits until all is settled
    /// and everybody was shown all there is. Then everybody's new device comes, and is shown all
    /// of it too. Whether it came to that in time.
    ///
    /// # Errors
    /// The harness itself failed.
    pub async fn quiet(&mut self, timeout: Duration) -> anyhow::Result<bool> {
        self.settle(timeout, timeout).await
    }

    /// The same, but does not wait on once nothing is open and nothing has come for `still`: what is
    /// missing then does not come.
    ///
    /// # Errors
    /// The harness itself failed.
    pub async fn settle(&mut self, timeout: Duration, still: Duration) -> anyhow::Result<bool> {
        self.phase.send_replace(Phase::Quiet);
        let by = Instant::now() + timeout;
        let old = self.whole(by, still).await?;
        self.spawn(self.shared.population.devices.len());
        // What was not shown in all the time will not be, but new devices have just come.
        let by = by.max(Instant::now() + timeout / 4);
        Ok(self.whole(by, still).await? && old)
    }

    async fn whole(&mut self, by: Instant, still: Duration) -> anyhow::Result<bool> {
        let (mut shown, mut since) = (u64::MAX, Instant::now());
        loop {
            self.check_devices()?;
            let counts = &self.shared.counts;
            let now = counts.shown.load(Relaxed);
            if now != std::mem::replace(&mut shown, now) {
                since = Instant::now();
            }
            let (connected, all) = (counts.connected.load(Relaxed), self.orders.len() as u64);
            let is_calm = since.elapsed() >= CALM;
            if is_calm && connected == all && counts.open.load(Relaxed) == 0 {
                let evidence = self.shared.evidence();
                let verdict = tokio::task::spawn_blocking(move || judge(&evidence)).await?;
                if verdict.of(Kind::Lost) + verdict.of(Kind::Unsettled) == 0 {
                    return Ok(true);
                }
                if since.elapsed() >= still {
                    return Ok(false);
                }
                // It costs a moment: not more often than something can have changed.
                sleep(Duration::from_secs(1)).await;
            }
            if Instant::now() >= by {
                return Ok(false);
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Reads everything back, and ends all clients.
    ///
    /// # Errors
    /// The harness itself failed.
    pub async fn finish(mut self) -> anyhow::Result<Evidence> {
        let (histories, inboxes) = self.read().await?;
        self.orders.clear();
        while let Some(ended) = self.devices.join_next().await {
            ended??;
        }
        Ok(Evidence { histories, inboxes, ..self.shared.evidence() })
    }

    /// What devices were shown is in the store within seconds: a read that lacks something is made
    /// again for a while.
    async fn read(&self) -> anyhow::Result<(Histories, Inboxes)> {
        let patience = self.options.read_patience;
        let by = Instant::now() + patience;
        loop {
            let histories = reads::histories(&self.shared, patience).await?;
            let inboxes = reads::inboxes(&self.shared, patience).await?;
            let evidence = Evidence {
                histories: histories.clone(),
                inboxes: inboxes.clone(),
                ..self.shared.evidence()
            };
            let verdict = tokio::task::spawn_blocking(move || judge(&evidence)).await?;
            if verdict.of(Kind::Lost) + verdict.unread == 0 || Instant::now() >= by {
                return Ok((histories, inboxes));
            }
            sleep(Duration::from_secs(1)).await;
        }
    }

    /// Ends all clients at once.
    pub async fn abort(mut self) {
        self.devices.shutdown().await;
    }
}

type Histories = Vec<crate::history::Read<crate::history::HistoryRow>>;
type Inboxes = Vec<crate::history::Read<crate::history::Shown>>;
