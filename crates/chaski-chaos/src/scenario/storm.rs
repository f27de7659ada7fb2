//! A delivery host dies with thousands of sockets on it: its clients come back and catch up, and
//! those of the others notice little.

use super::{
    Line, Percentiles, Played, Stage,
    flow::{Passage, SECOND, Us, latencies, passages},
    talk_while,
};
use crate::{
    fault::{FaultKind, FaultRecord},
    history::{Chat, Entry, Evidence},
    load::{
        population::{Device, Habit, Population},
        user_id,
    },
    progress::say,
    report::Report,
    run::tokens,
};
use anyhow::{Context as _, ensure};
use chaski::config::Config;
use chaski_client::Format;
use chaski_core::placement::Placement;
use fastrand::Rng;
use serde_json::json;
use std::{collections::BTreeMap, sync::atomic::Ordering::Relaxed, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, sleep},
};

/// People on the other hosts; two of them each have a chat.
const OTHERS: u32 = 300;
/// Messages of a second in their chats.
const OTHERS_RATE: f64 = 30.0;
/// People of the host that dies are in groups of so many …
const GROUP: usize = 50;
/// … in which so many messages of a second are said, by somebody on another host.
const GROUP_RATE: f64 = 0.1;
/// Talk before what is measured, and how long latency is measured before the host dies.
const WARM: Duration = Duration::from_secs(15);
const BEFORE: Duration = Duration::from_secs(45);
/// At least so long after it; at most so long for all to come back.
const AFTER: Duration = Duration::from_secs(60);
const BACK_MAX: Duration = Duration::from_secs(150);
/// What is wanted.
const BACK_WITHIN: Us = 60 * SECOND;
const LATENCY_GROWS: f64 = 2.0;

/// Who is where.
struct Cast {
    victim: String,
    population: Population,
    /// Of each user: whether they are on the victim.
    is_victims: Vec<bool>,
}

pub(super) async fn play(stage: &mut Stage<'_>, sockets: u32) -> anyhow::Result<Played> {
    let hosts = hosts(stage).await?;
    let cast = Cast::new(&stage.name, &hosts, sockets, stage.options.seed)?;
    let Cast { victim, population, is_victims } = cast;
    let groups = population.chats.iter().filter(|chat| chat.is_group).count();
    say(&format!("{sockets} people are on {victim}, {OTHERS} on the other hosts"));
    let rate = OTHERS_RATE + GROUP_RATE * groups as f64;
    let load = stage.load(population, rate).await?;
    let (shared, timeline, system) = (load.shared(), stage.timeline, &mut *stage.system);
    let all = shared.counts.connected.load(Relaxed);
    let doing = async {
        sleep(WARM + BEFORE).await;
        let killed = timeline.now_us();
        say(&format!("{victim} is killed"));
        system.kill_service(&victim).await?;
        let (begun, mut are_back) = (Instant::now(), None);
        while begun.elapsed() < AFTER || (are_back.is_none() && begun.elapsed() < BACK_MAX) {
            sleep(Duration::from_millis(250)).await;
            // Not all have noticed at once.
            if are_back.is_none()
                && begun.elapsed() > Duration::from_secs(5)
                && shared.counts.connected.load(Relaxed) == all
            {
                are_back = Some(begun.elapsed());
                say(&format!("all are back after {:.1} s", begun.elapsed().as_secs_f64()));
            }
        }
        let until = timeline.now_us();
        say(&format!("{victim} is started again"));
        system.heal().await?;
        let fault = FaultRecord {
            kind: FaultKind::Kill,
            process: "delivery".into(),
            name: victim.clone(),
            from_us: killed,
            until_us: timeline.now_us(),
            parts: Vec::new(),
        };
        sleep(Duration::from_secs(5)).await;
        anyhow::Ok((killed..until, fault))
    };
    let (window, fault) = talk_while(&load, rate, "talking", doing).await?;
    let clients = load.shared().population.devices_at_first();
    let measure = move |evidence: &Evidence, _: &Report| {
        let passages = passages(evidence, clients);
        let storm = Storm::of(evidence, &passages, &is_victims, window);
        (storm.lines(sockets), storm.figures())
    };
    Ok(Played { load, faults: vec![fault], measure: Box::new(measure) })
}

/// Which host serves which partition.
async fn hosts(stage: &Stage<'_>) -> anyhow::Result<Vec<String>> {
    let tokens = tokens(stage.system.dev_key())?;
    let partitions = Config::default().partitions;
    let placement = Placement::new(partitions);
    let mut hosts = vec![String::new(); partitions as usize];
    for number in 0.. {
        let Some(empty) = hosts.iter().position(String::is_empty) else { break };
        ensure!(number < 100_000, "nobody is in partition {empty}");
        let user = user_id(&stage.name, number);
        let host = &mut hosts[placement.of_user(&user.parse()?).0 as usize];
        if host.is_empty() {
            *host = look_up(stage.system.url(), &tokens(&user, "d0")?).await?;
        }
    }
    Ok(hosts)
}

/// `GET /v1/hosts/me`.
async fn look_up(url: &str, token: &str) -> anyhow::Result<String> {
    let at = url.strip_prefix("http://").context("a plain address")?;
    let mut tcp = TcpStream::connect(at).await?;
    let request = format!("GET /v1/hosts/me HTTP/1.0\r\nAuthorization: Bearer {token}\r\n\r\n");
    tcp.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).await?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let body: serde_json::Value = serde_json::from_str(body).context("hosts/me: no JSON")?;
    let host = body["host"].as_str().with_context(|| format!("hosts/me: {body}"))?;
    Ok(host.to_owned())
}

impl Cast {
    /// `sockets` people on the host with the most partitions, the others elsewhere.
    fn new(run: &str, hosts: &[String], sockets: u32, seed: u64) -> anyhow::Result<Self> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        hosts.iter().for_each(|host| *counts.entry(host).or_default() += 1);
        ensure!(counts.len() >= 2, "there is one delivery host only: {counts:?}");
        let most = counts.iter().max_by_key(|(_, partitions)| **partitions);
        let victim = most.map(|(host, _)| (*host).to_owned()).context("no host")?;

        let placement = Placement::new(hosts.len() as u32);
        let (mut numbers, mut is_victims) = (Vec::new(), Vec::new());
        let mut wanted = [OTHERS, sockets];
        for number in 0.. {
            if wanted == [0, 0] {
                break;
            }
            let user = user_id(run, number).parse()?;
            let is_victims_own = hosts[placement.of_user(&user).0 as usize] == victim;
            let left = &mut wanted[usize::from(is_victims_own)];
            if *left > 0 {
                *left -= 1;
                numbers.push(number);
                is_victims.push(is_victims_own);
            }
        }
        let population = people(numbers, &is_victims, seed);
        Ok(Self { victim, population, is_victims })
    }
}

fn people(numbers: Vec<u32>, is_victims: &[bool], seed: u64) -> Population {
    let users = numbers.len() as u32;
    let of = |theirs: bool| (0..users).filter(move |user| is_victims[*user as usize] == theirs);
    let (others, victims): (Vec<u32>, Vec<u32>) = (of(false).collect(), of(true).collect());
    let (mut chats, mut voices) = (Vec::new(), Vec::new());
    for pair in others.chunks_exact(2) {
        chats.push(Chat { id: None, is_group: false, members: pair.to_vec() });
        voices.push(pair.to_vec());
    }
    let pairs = chats.len();
    for (group, members) in victims.chunks(GROUP).enumerate() {
        // Who makes the group and talks in it stays connected.
        let maker = others[group % others.len()];
        let members = std::iter::once(maker).chain(members.iter().copied()).collect();
        chats.push(Chat { id: None, is_group: true, members });
        voices.push(vec![maker]);
    }
    let milli = |rate: f64| (rate * 1000.0) as u32;
    let weight = |n| if n < pairs { milli(OTHERS_RATE / pairs as f64) } else { milli(GROUP_RATE) };
    let mut random = Rng::with_seed(seed);
    let devices = (0..users).map(|user| Device {
        user,
        nth: 0,
        habit: Habit::Stays,
        format: if random.bool() { Format::Json } else { Format::Protobuf },
    });
    Population {
        users,
        numbers,
        weights: (0..chats.len()).map(weight).collect(),
        removable: vec![Vec::new(); chats.len()],
        blocks: Vec::new(),
        devices: devices.collect(),
        devices_of: (0..users).map(|user| vec![user]).collect(),
        voices,
        chats,
    }
}

/// What the evidence says.
struct Storm {
    /// From the host's death to the last `welcome`, of those that came back.
    back: Percentiles,
    /// The same until all that was accepted before it was shown.
    caught_up: Percentiles,
    never_back: usize,
    never_caught_up: usize,
    others_before: Percentiles,
    others_after: Percentiles,
    /// The worst of ten seconds each, after the host's death.
    others_worst: f64,
}

impl Storm {
    fn of(
        evidence: &Evidence,
        passages: &[Passage],
        is_victims: &[bool],
        window: std::ops::Range<Us>,
    ) -> Self {
        let killed = window.start;
        let theirs = |client: u32| is_victims[client as usize];
        let mut for_chat: Vec<Vec<usize>> = vec![Vec::new(); evidence.chats.len()];
        for (message, sent) in evidence.messages.iter().enumerate() {
            for_chat[sent.chat as usize].push(message);
        }
        let mut chat_of = vec![None; evidence.users as usize];
        for (number, chat) in evidence.chats.iter().enumerate() {
            chat.members.iter().for_each(|user| chat_of[*user as usize] = Some(number));
        }
        let (mut back, mut caught_up) = (Vec::new(), Vec::new());
        let (mut never_back, mut never_caught_up) = (0, 0);
        for client in (0..is_victims.len() as u32).filter(|client| theirs(*client)) {
            let entries = evidence.clients[client as usize].entries.iter();
            let within = entries.filter(|noted| window.contains(&noted.at_us));
            // The last word counts: who was welcome and was cut off again is not back.
            let mut welcome = None;
            for noted in within {
                match noted.entry {
                    Entry::Connected { .. } => welcome = Some(noted.at_us),
                    Entry::Disconnected { .. } => welcome = None,
                    _ => {}
                }
            }
            let Some(welcome) = welcome else {
                never_back += 1;
                continue;
            };
            back.push(welcome - killed);
            let chat = chat_of[client as usize];
            let due = chat.into_iter().flat_map(|chat| &for_chat[chat]).map(|m| &passages[*m]);
            let due = due.filter(|p| p.accepted.is_some_and(|at| at <= welcome));
            let shown = due.map(|p| {
                let here = p.shown.iter().find(|(to, _)| *to == client);
                here.map(|(_, at)| *at).filter(|at| *at < window.end)
            });
            match shown.collect::<Option<Vec<Us>>>() {
                Some(shown) => {
                    let last = shown.into_iter().max().unwrap_or(0).max(welcome);
                    caught_up.push(last - killed);
                }
                None => never_caught_up += 1,
            }
        }
        let (before, ten) = (BEFORE.as_micros() as Us, 10 * SECOND);
        let others = |within| latencies(passages, within, |client| !theirs(client));
        let tens = (window.start..window.end).step_by(ten as usize);
        Self {
            back: Percentiles::of(back),
            caught_up: Percentiles::of(caught_up),
            never_back,
            never_caught_up,
            others_before: others(killed.saturating_sub(before)..killed),
            others_after: others(window),
            others_worst: tens.map(|from| others(from..from + ten).p99).fold(0.0, f64::max),
        }
    }

    fn lines(&self, sockets: u32) -> Vec<Line> {
        let seconds = |ms: f64| format!("{:.1} s", ms / 1000.0);
        let here = self.never_back + self.never_caught_up;
        let all = here == 0 && self.caught_up.count == sockets as usize;
        let (before, after) = (self.others_before.p99, self.others_after.p99);
        vec![
            Line::new(
                "all back and caught up",
                format!("{sockets} within {}", seconds(BACK_WITHIN as f64 / 1000.0)),
                format!(
                    "{} of {sockets} within {} (p50 {})",
                    self.caught_up.count,
                    seconds(self.caught_up.max),
                    seconds(self.caught_up.p50)
                ),
                all && self.caught_up.max * 1000.0 <= BACK_WITHIN as f64,
            ),
            Line::new(
                "p99 of the other hosts, accepted to shown",
                "at most doubled",
                format!("{before:.0} ms before, {after:.0} ms after"),
                self.others_before.count > 0 && after <= before * LATENCY_GROWS,
            ),
        ]
    }

    fn figures(&self) -> serde_json::Value {
        json!({
            "backMs": self.back,
            "caughtUpMs": self.caught_up,
            "neverBack": self.never_back,
            "neverCaughtUp": self.never_caught_up,
            "othersBeforeMs": self.others_before,
            "othersAfterMs": self.others_after,
            "othersWorstTenSecondsP99Ms": self.others_worst,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{super::flow::tests::shown, *};
    use crate::history::{Ask, ClientHistory, Message, Noted};

    const KILLED: Us = 100 * SECOND;

    /// User 0 talks to user 1 on another host, and to user 2 on the host that dies.
    fn storm(theirs: Vec<(Us, Entry)>, late: Us) -> Storm {
        let entry = |(at, entry): (Us, Entry)| Noted { at_us: at, entry };
        let said = [(0, KILLED - 5 * SECOND), (1, KILLED + 5 * SECOND), (2, KILLED + 6 * SECOND)];
        let sender = said.into_iter().flat_map(|(message, at)| {
            let ask = Ask::Send { message };
            let accepted = Noted { at_us: at, entry: Entry::Accepted { ask, id: 1 } };
            [Noted { at_us: at, entry: Entry::Invoked { ask } }, accepted]
        });
        let other = vec![shown(said[0].1 + SECOND, 0), shown(said[1].1 + late, 1)];
        let client = |user, entries| ClientHistory { user, entries };
        let message = |chat| Message { chat, sender: 0, client: 0, hash: 0 };
        let chat = |members: &[u32]| Chat { id: None, is_group: true, members: members.into() };
        let evidence = Evidence {
            users: 3,
            chats: vec![chat(&[0, 1]), chat(&[0, 2])],
            messages: vec![message(0), message(0), message(1)],
            clients: vec![
                client(0, sender.collect()),
                client(1, other),
                client(2, theirs.into_iter().map(entry).collect()),
            ],
            ..Evidence::default()
        };
        let passages = passages(&evidence, 3);
        Storm::of(&evidence, &passages, &[false, false, true], KILLED..KILLED + 90 * SECOND)
    }

    fn back(at: Us) -> (Us, Entry) {
        (at, Entry::Connected { position: 0 })
    }

    fn passed(storm: &Storm) -> Vec<bool> {
        storm.lines(1).iter().map(|line| line.passed).collect()
    }

    #[test]
    fn who_is_back_and_was_shown_what_was_accepted_meanwhile_has_caught_up() {
        let shown = |at, message| (at, shown(at, message).entry);
        let here = vec![back(SECOND), back(KILLED + 20 * SECOND), shown(KILLED + 21 * SECOND, 2)];
        let caught_up = storm(here.clone(), 2 * SECOND);
        assert_eq!((caught_up.back.max, caught_up.caught_up.max), (20_000.0, 21_000.0));
        assert_eq!(passed(&caught_up), [true, true]);
        assert_eq!(
            passed(&storm(here.clone(), 2 * SECOND + 1000)),
            [true, false],
            "more than twice"
        );
        assert_eq!(passed(&storm(here[..2].to_vec(), SECOND)), [false, true], "it was not shown");
        assert_eq!(passed(&storm(vec![back(SECOND)], SECOND)), [false, true], "it never came back");
        let cut = (KILLED + 30 * SECOND, Entry::Disconnected { heard_us: 0, cause: "".into() });
        let gone = storm([here, vec![cut]].concat(), SECOND);
        assert_eq!((gone.never_back, passed(&gone)[0]), (1, false), "and was cut off again");
        let late = vec![back(KILLED + 20 * SECOND), shown(KILLED + 61 * SECOND, 2)];
        assert_eq!(passed(&storm(late, SECOND)), [false, true], "too late");
    }
}
