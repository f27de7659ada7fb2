//! The bytes of one connection, both ways: passed on, held, late, or lost for a while.
//!
//! Must not know: which link the connection is on.

use super::Condition;
use std::{collections::VecDeque, io, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    time::{Instant, sleep_until},
};

/// So many bytes of one direction may be on their way; then no more are read (L8).
const ON_THE_WAY_BYTES_MAX: usize = 1 << 20;
const CHUNK_BYTES: usize = 16 << 10;
/// Of how many chunks one has to be sent again on a link that loses.
const LOST_ONE_OF: u32 = 30;
/// Of how many chunks one breaks the connection there.
const BREAKS_ONE_OF: u32 = 200;
/// TCP's shortest time to a retransmission on Linux; each further one takes twice as long.
const RETRANSMISSION: Duration = Duration::from_millis(200);

/// What happens to the bytes of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Flow {
    /// They pass.
    #[default]
    Pass,
    /// They stay where they are, and so does the end of the connection.
    Hold,
    /// Each one comes so much later, in order.
    Late(Duration),
    /// Some have to be sent again, and now and then the connection breaks.
    Lossy,
}

/// Carries both directions until both have ended, or one breaks; then the other one does too.
pub(super) async fn both_ways(
    mut client: TcpStream,
    mut server: TcpStream,
    link: watch::Receiver<Condition>,
    mut random: fastrand::Rng,
) -> io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let carried = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let there = Pump::new(link.clone(), |c| c.there, random.fork());
        let back = Pump::new(link, |c| c.back, random.fork());
        tokio::try_join!(there.run(from_client, to_server), back.run(from_server, to_client))
    };
    if carried.is_err() {
        // A broken connection is no orderly end: nobody may take it for one.
        client.set_zero_linger()?;
        server.set_zero_linger()?;
    }
    carried.map(drop)
}

struct Pump {
    link: watch::Receiver<Condition>,
    direction: fn(&Condition) -> Flow,
    random: fastrand::Rng,
    /// Each chunk with the time before which it does not arrive.
    on_the_way: VecDeque<(Instant, Vec<u8>)>,
    bytes: usize,
    /// How much of the first chunk has been written.
    written: usize,
    last_due: Instant,
}

impl Pump {
    fn new(
        link: watch::Receiver<Condition>,
        direction: fn(&Condition) -> Flow,
        random: fastrand::Rng,
    ) -> Self {
        let last_due = Instant::now();
        Self { link, direction, random, on_the_way: <_>::default(), bytes: 0, written: 0, last_due }
    }

    /// Until the end of `source` has arrived at `target`; an error where either breaks.
    async fn run(mut self, mut source: ReadHalf<'_>, mut target: WriteHalf<'_>) -> io::Result<()> {
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut at_end = false;
        loop {
            let flow = (self.direction)(&self.link.borrow_and_update());
            let holds = flow == Flow::Hold;
            let may_wait = matches!(flow, Flow::Late(_) | Flow::Lossy);
            let first = self.on_the_way.front();
            let due = first.map(|(due, _)| *due).filter(|due| may_wait && *due > Instant::now());
            if at_end && first.is_none() && !holds {
                return target.shutdown().await;
            }
            let next = first.map_or(&[][..], |(_, chunk)| &chunk[self.written..]);
            tokio::select! {
                changed = self.link.changed() => {
                    if changed.is_err() {
                        return Err(io::ErrorKind::ConnectionAborted.into());
                    }
                }
                written = target.write(next), if !next.is_empty() && due.is_none() && !holds => {
                    let written = written?;
                    self.arrived(written);
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() && !holds => {}
                read = source.read(&mut buffer),
                    if !at_end && !holds && self.bytes < ON_THE_WAY_BYTES_MAX =>
                {
                    match read? {
                        0 => at_end = true,
                        bytes => self.send(&buffer[..bytes], flow)?,
                    }
                }
            }
        }
    }

    fn send(&mut self, bytes: &[u8], flow: Flow) -> io::Result<()> {
        let late = match flow {
            Flow::Pass | Flow::Hold => Duration::ZERO,
            Flow::Late(by) => by,
            Flow::Lossy if self.random.u32(0..BREAKS_ONE_OF) == 0 => {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            Flow::Lossy => {
                let mut late = Duration::ZERO;
                let mut again = RETRANSMISSION;
                while self.random.u32(0..LOST_ONE_OF) == 0 {
                    late += again;
                    again *= 2;
                }
                late
            }
        };
        // Order is kept: what comes behind something late is late too.
        self.last_due = self.last_due.max(Instant::now() + late);
        self.bytes += bytes.len();
        self.on_the_way.push_back((self.last_due, bytes.to_vec()));
        Ok(())
    }

    fn arrived(&mut self, written: usize) {
        self.bytes -= written;
        self.written += written;
        if self.on_the_way.front().is_some_and(|(_, chunk)| chunk.len() == self.written) {
            self.on_the_way.pop_front();
            self.written = 0;
        }
    }
}
