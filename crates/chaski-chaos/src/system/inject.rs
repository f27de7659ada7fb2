//! Plays a plan: each fault is injected when its time has come and what goes on allows it, and
//! healed by itself.
//!
//! Must not know: which faults there should be.

use super::{CLIENTS, Condition, Parts, SERVERS};
use crate::{
    fault::{FaultKind, FaultRecord, Part, Timeline},
    plan::{Action, Plan, ProcessKind, Victim},
    proxy::{Flow, Proxies},
};
use anyhow::Context as _;
use futures::{StreamExt as _, stream::FuturesUnordered};
use rustix::process::Signal;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

/// So many faults go on at the same time.
const AT_ONCE: usize = 2;
/// An election that takes longer has failed.
const LEADER_MAX: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(200);

/// Until the plan is over, or `stop`: then what goes on is healed at once.
pub(super) async fn play(
    parts: &Parts,
    proxies: &Proxies,
    timeline: Timeline,
    plan: &Plan,
    stop: CancellationToken,
) -> anyhow::Result<Vec<FaultRecord>> {
    let injector = Injector { parts, proxies, timeline, stop: stop.clone() };
    let begun = Instant::now();
    let mut done = Vec::new();
    let mut going_on: Vec<(usize, &Action)> = Vec::new();
    let mut running = FuturesUnordered::new();
    let mut steps = plan.steps.iter().enumerate().peekable();
    loop {
        let next = steps.peek().copied().filter(|_| !stop.is_cancelled());
        if next.is_none() && running.is_empty() {
            return Ok(done);
        }
        let at = next.map(|(_, step)| begun + step.at);
        let may = next.is_some_and(|(_, step)| {
            let fits = going_on.iter().all(|(_, a)| a.may_overlap(&step.action));
            plan.regardless || (going_on.len() < AT_ONCE && fits)
        });
        tokio::select! {
            Some(ended) = running.next() => {
                let (n, record): (usize, anyhow::Result<FaultRecord>) = ended;
                going_on.retain(|(other, _)| *other != n);
                let what = || format!("step {n} of the plan: {:?}", plan.steps[n].action);
                let record = record.with_context(what)?;
                let took_ms = (record.until_us - record.from_us) / 1_000;
                tracing::info!(kind = ?record.kind, name = record.name, took_ms, "healed");
                done.push(record);
            }
            () = sleep_until(at.unwrap_or(begun)), if may => {
                let Some((n, step)) = steps.next() else { continue };
                going_on.push((n, &step.action));
                let injector = &injector;
                running.push(async move { (n, injector.perform(&step.action).await) });
            }
            () = stop.cancelled(), if next.is_some() => {}
        }
    }
}

struct Injector<'a> {
    parts: &'a Parts,
    proxies: &'a Proxies,
    timeline: Timeline,
    stop: CancellationToken,
}

impl Injector<'_> {
    async fn perform(&self, action: &Action) -> anyhow::Result<FaultRecord> {
        let kind = action.kind();
        match action {
            Action::Kill { victim, down } => {
                let name = self.find(*victim).await?;
                let from_us = self.begin(kind, &name);
                let until_us = match victim.kind.is_service() {
                    true => self.kill_service(&name, *down).await?,
                    false => self.kill_servers(std::slice::from_ref(&name), *down).await?,
                };
                Ok(record(kind, victim.kind.name(), &name, from_us, until_us))
            }
            Action::Pause { victim, lasts } => {
                let name = self.find(*victim).await?;
                if victim.kind.is_service() {
                    // It may have ended by itself a moment ago.
                    self.parts.services.until_ready(&name).await?;
                }
                let from_us = self.begin(kind, &name);
                let until_us = match victim.kind.is_service() {
                    true => self.pause_service(&name, *lasts).await?,
                    false => self.pause_server(&name, *lasts).await?,
                };
                Ok(record(kind, victim.kind.name(), &name, from_us, until_us))
            }
            Action::Link { from, to, back, by, lasts, .. } => {
                let (first, second) = if *back { (to, from) } else { (from, to) };
                let name = format!("{first} -> {second}");
                let condition = match kind {
                    FaultKind::OneWayCut if *back => {
                        Condition { there: Flow::Pass, back: Flow::Hold }
                    }
                    FaultKind::OneWayCut => Condition { there: Flow::Hold, back: Flow::Pass },
                    FaultKind::Delay => Condition::both(Flow::Late(*by)),
                    FaultKind::Loss => Condition::both(Flow::Lossy),
                    _ => Condition::both(Flow::Hold),
                };
                let from_us = self.begin(kind, &name);
                self.link(from, to, condition);
                self.wait(*lasts).await;
                self.link(from, to, Condition::WHOLE);
                Ok(record(kind, group(first), &name, from_us, self.timeline.now_us()))
            }
            Action::KafkaRestart { down } => {
                let brokers = SERVERS.iter().filter(|name| group(name) == "kafka");
                let brokers: Vec<_> = brokers.map(ToString::to_string).collect();
                let from_us = self.begin(kind, "kafka");
                let until_us = self.kill_servers(&brokers, *down).await?;
                Ok(record(kind, "kafka", "kafka", from_us, until_us))
            }
            Action::LoneBroker { lasts } => {
                let brokers = SERVERS.iter().filter(|name| group(name) == "kafka");
                let mut brokers: Vec<_> = brokers.map(ToString::to_string).collect();
                let lone = brokers.remove(0);
                let from_us = self.begin(kind, &lone);
                let until_us = self.leave_alone(lone.clone(), &brokers, *lasts).await?;
                Ok(record(kind, "kafka", &lone, from_us, until_us))
            }
            Action::RollingRestart => {
                let from_us = self.begin(kind, "services");
                let mut parts = Vec::new();
                for name in self.parts.services.names() {
                    if self.stop.is_cancelled() {
                        break;
                    }
                    let (begun, from_us) = (Instant::now(), self.timeline.now_us());
                    self.parts.services.drain(&name).await?;
                    let until_us = self.timeline.now_us();
                    parts.push(Part { name: name.clone(), from_us, until_us });
                    let drained = begun.elapsed();
                    self.parts.services.start(&name)?;
                    let ready = self.parts.services.until_ready(&name).await? - begun;
                    tracing::info!(name, ?drained, ?ready, "restarted");
                }
                let until_us = self.timeline.now_us();
                Ok(FaultRecord { parts, ..record(kind, "services", "services", from_us, until_us) })
            }
        }
    }

    fn begin(&self, kind: FaultKind, name: &str) -> u64 {
        tracing::info!(?kind, name, "injected");
        self.timeline.now_us()
    }

    async fn kill_service(&self, name: &str, down: Duration) -> anyhow::Result<u64> {
        self.parts.services.kill(name).await?;
        self.wait(down).await;
        let started = Instant::now();
        self.parts.services.start(name)?;
        let ready = self.parts.services.until_ready(name).await?;
        tracing::info!(name, ready_ms = (ready - started).as_millis(), "started again");
        Ok(self.us(ready))
    }

    async fn kill_servers(&self, names: &[String], down: Duration) -> anyhow::Result<u64> {
        self.parts.servers.kill(names)?;
        self.wait(down).await;
        let started = Instant::now();
        self.parts.servers.start_again(names).await?;
        tracing::info!(?names, ready_ms = started.elapsed().as_millis(), "started again");
        Ok(self.timeline.now_us())
    }

    async fn pause_service(&self, name: &str, lasts: Duration) -> anyhow::Result<u64> {
        self.parts.services.stand_still(name)?;
        self.wait(lasts).await;
        let woken = Instant::now();
        self.parts.services.go_on(name)?;
        let ready = self.parts.services.until_ready(name).await?;
        tracing::info!(name, ready_ms = (ready - woken).as_millis(), "woken");
        Ok(self.us(ready))
    }

    async fn pause_server(&self, name: &str, lasts: Duration) -> anyhow::Result<u64> {
        self.parts.servers.signal(name, Signal::STOP)?;
        self.wait(lasts).await;
        self.parts.servers.signal(name, Signal::CONT)?;
        self.parts.server_ready(name).await?;
        Ok(self.timeline.now_us())
    }

    async fn leave_alone(
        &self,
        lone: String,
        others: &[String],
        lasts: Duration,
    ) -> anyhow::Result<u64> {
        let servers = &self.parts.servers;
        for name in others {
            servers.signal(name, Signal::STOP)?;
        }
        self.wait(lasts).await;
        let lone = [lone];
        servers.kill(&lone)?;
        for name in others {
            servers.signal(name, Signal::CONT)?;
        }
        servers.start_again(&lone).await?;
        for name in others {
            self.parts.server_ready(name).await?;
        }
        Ok(self.timeline.now_us())
    }

    fn link(&self, from: &str, to: &str, condition: Condition) {
        let services = self.parts.services.names();
        let all = SERVERS.iter().copied().chain(services.iter().map(String::as_str));
        for name in all.filter(|name| *name == to || group(name) == to) {
            self.proxies.set(from, name, condition);
        }
    }

    /// Cut short by `stop`.
    async fn wait(&self, lasts: Duration) {
        let _ = self.stop.run_until_cancelled(sleep(lasts)).await;
    }

    fn us(&self, at: Instant) -> u64 {
        let ago = u64::try_from(at.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.timeline.now_us().saturating_sub(ago)
    }

    /// The process that the victim is at this moment.
    async fn find(&self, victim: Victim) -> anyhow::Result<String> {
        let (services, group_of) = (self.parts.services.names(), victim.kind.group());
        let all = SERVERS.iter().copied().chain(services.iter().map(String::as_str));
        let mut names: Vec<_> = all.filter(|name| group(name) == group_of).collect();
        use ProcessKind as P;
        match victim.kind {
            P::AllocatorLeader | P::KafkaLeader | P::ZookeeperLeader => {
                return Ok(self.leader(&names).await?.to_owned());
            }
            P::AllocatorFollower | P::KafkaFollower | P::ZookeeperFollower => {
                let leader = self.leader(&names).await?;
                names.retain(|name| *name != leader);
            }
            _ => {}
        }
        let name = names.get(victim.pick % names.len().max(1));
        Ok(name.with_context(|| format!("there is no {group_of}"))?.to_string())
    }

    async fn leader<'n>(&self, names: &[&'n str]) -> anyhow::Result<&'n str> {
        let found = async {
            loop {
                for name in names {
                    if self.leads(name).await {
                        return *name;
                    }
                }
                sleep(POLL).await;
            }
        };
        timeout(LEADER_MAX, found).await.with_context(|| format!("none of {names:?} leads"))
    }

    async fn leads(&self, name: &str) -> bool {
        let servers = &self.parts.servers;
        match group(name) {
            "kafka" => servers.kafka_leader(name).await.as_deref() == Some(name),
            "zookeeper" => servers.zookeeper_mode(name).await.as_deref() == Some("leader"),
            _ => self.leads_allocation(name).await.unwrap_or(false),
        }
    }

    async fn leads_allocation(&self, name: &str) -> Option<bool> {
        let process = self.parts.services.get(name).ok()?;
        let ask = async {
            let mut tcp = TcpStream::connect(process.env.get("CHASKI_ADMIN_LISTEN")?).await.ok()?;
            tcp.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.ok()?;
            let mut metrics = String::new();
            tcp.read_to_string(&mut metrics).await.ok()?;
            Some(metrics.lines().any(|line| line == "chaski_allocator_leading 1"))
        };
        timeout(Duration::from_secs(2), ask).await.ok()?
    }
}

/// `kafka` of `kafka-2`.
fn group(name: &str) -> &str {
    match name {
        CLIENTS => CLIENTS,
        name => name.split_once('-').map_or(name, |(group, _)| group),
    }
}

fn record(kind: FaultKind, process: &str, name: &str, from_us: u64, until_us: u64) -> FaultRecord {
    let (process, name) = (process.into(), name.into());
    FaultRecord { kind, process, name, from_us, until_us, parts: Vec::new() }
}
