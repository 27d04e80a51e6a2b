//! All clients of a run, on one thread: connecting, reading into one buffer, sending what is due.

mod client;
mod connect;
mod socket;
mod stream;
mod talk;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd as _;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::fd::OwnedFd;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use crate::clock::Clock;
use crate::dialect::Dialect;
use crate::target::Target;
use crate::traffic::schedule::{Arrivals, Schedule};
use crate::traffic::{Due, Traffic};

use client::{Client, Reading, Stage};
pub(crate) use connect::Seating;
use socket::Sources;
use stream::Stream;
pub(crate) use stream::Tls;

/// No frame of a run is longer than this.
const SCRATCH_BYTES: usize = 256 * 1024;
const EVENTS: usize = 1024;
/// Messages that go out before sockets are read again: an open loop that asks too much must not make the load test deaf.
const SENDS_PER_EVENT: usize = 16;
/// A client whose server takes no more than this is cut off: the run would only measure its own memory.
const OUTBOUND_BYTES_MAX: usize = 16 * 1024 * 1024;
const TIMER: Token = Token(usize::MAX);
/// How many different endings and failures are remembered in words.
const REMARKS: usize = 20;

/// What went wrong, or was not expected.
#[derive(Debug, Default)]
pub(crate) struct Troubles {
    /// Connections that ended without being asked to, or could not be opened.
    pub(crate) ended: u64,
    /// Requests answered with an error.
    pub(crate) refused: u64,
    /// Texts that were not understood.
    pub(crate) surprises: u64,
    /// Closes from the server, by code.
    pub(crate) closes: BTreeMap<u16, u64>,
    remarks: BTreeMap<String, u64>,
}

impl Troubles {
    pub(crate) fn remark(&mut self, text: &str) {
        if self.remarks.len() < REMARKS || self.remarks.contains_key(text) {
            *self.remarks.entry(text.chars().take(300).collect()).or_default() += 1;
        }
    }

    pub(crate) fn remarks(&self) -> Vec<String> {
        self.remarks.iter().map(|(text, count)| format!("{count} x {text}")).collect()
    }
}

pub(crate) struct Fleet {
    poll: Poll,
    timer: OwnedFd,
    targets: Vec<Target>,
    dialect: Rc<Dialect>,
    sources: Sources,
    clock: Clock,
    scratch: Vec<u8>,
    events: Events,
    frames: Vec<u8>,
    /// More is due than one event may send.
    more_due: bool,
    clients: Vec<Client>,
    pub(crate) traffic: Traffic,
    pub(crate) troubles: Troubles,
    /// What the reader of the outcome should know.
    pub(crate) notes: Vec<String>,
    /// Clients between `connect` and the end of their joins.
    opening: usize,
    /// Clients below this number are to be connected.
    goal: usize,
    /// Clients below this number have begun.
    begun: usize,
    connects: Option<Schedule>,
    /// Clients that come back, and when.
    waiting: BinaryHeap<Reverse<(u64, u32)>>,
    returning: VecDeque<u32>,
    /// Clients that do not read.
    paused: Vec<u32>,
    /// Clients that end and come back.
    churn: Option<Schedule>,
    aborts: bool,
    /// Clients come back when the server has ended their connection.
    pub(crate) returns: bool,
    random: fastrand::Rng,
}

/// With what a fleet is made.
pub(crate) struct Equipment {
    pub(crate) targets: Vec<Target>,
    pub(crate) dialect: Rc<Dialect>,
    pub(crate) sources: Vec<IpAddr>,
    pub(crate) seating: Seating,
    pub(crate) seed: u64,
    pub(crate) clock: Clock,
}

impl Fleet {
    pub(crate) fn new(equipment: Equipment, traffic: Traffic) -> Result<Self> {
        let Equipment { targets, dialect, sources, seating, seed, clock } = equipment;
        let poll = Poll::new()?;
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        poll.registry().register(&mut SourceFd(&timer.as_raw_fd()), TIMER, Interest::READABLE)?;
        let clients = seating.clients(&traffic);
        Ok(Self {
            poll,
            timer,
            targets,
            dialect,
            sources: Sources::new(sources),
            clock,
            scratch: vec![0; SCRATCH_BYTES],
            events: Events::with_capacity(EVENTS),
            frames: Vec::new(),
            more_due: false,
            clients,
            traffic,
            troubles: Troubles::default(),
            notes: Vec::new(),
            opening: 0,
            goal: 0,
            begun: 0,
            connects: None,
            waiting: BinaryHeap::new(),
            returning: VecDeque::new(),
            paused: Vec::new(),
            churn: None,
            aborts: false,
            returns: false,
            random: fastrand::Rng::with_seed(seed),
        })
    }

    /// Clients that are connected and in their rooms.
    pub(crate) fn ready(&self) -> usize {
        self.traffic.ready().len()
    }

    /// Clients that are ready and read what they are sent.
    pub(crate) fn reading(&self) -> usize {
        self.ready() - self.paused.len()
    }

    /// Clients that wait for an answer: to their connection, to a request, or to their Close.
    pub(crate) fn unanswered(&self) -> usize {
        self.clients.iter().filter(|client| client.is_waiting()).count()
    }

    /// Whether nobody is connected any more, or will be.
    pub(crate) fn is_deserted(&self) -> bool {
        let is_absent = |client: &Client| client.stage == Stage::Absent;
        self.goal > 0 && self.ready() == 0 && self.is_complete() && self.clients.iter().all(is_absent)
    }

    /// Clients that should be connected.
    pub(crate) fn goal(&self) -> usize {
        self.goal
    }

    /// Whether everybody is where they should be.
    pub(crate) fn is_complete(&self) -> bool {
        self.opening == 0 && self.begun >= self.goal && self.waiting.is_empty() && self.returning.is_empty()
    }

    /// Lets clients end and come back, so many a second; aborted ones reset their connection.
    pub(crate) fn churn(&mut self, rate: Option<f64>, aborts: bool) {
        self.churn = rate.map(|rate| Schedule::new(rate, Arrivals::Poisson, self.clock.nanos()));
        self.aborts = aborts;
    }

    /// One turn of the loop: does what is due, waits for events until `until` at most, and handles them.
    ///
    /// # Errors
    ///
    /// When the machine gives no more sockets or the poller fails.
    pub(crate) fn turn(&mut self, until: u64) -> Result<()> {
        self.churn_some();
        self.connect_some()?;
        self.publish();
        self.wait(until)?;
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        let mut scratch = std::mem::take(&mut self.scratch);
        for event in &events {
            if event.token() == TIMER {
                // What it says is that the time has come, which the loop sees by itself.
                let _ = rustix::io::read(&self.timer, &mut [0_u8; 8]);
            } else {
                self.handle(event, &mut scratch);
            }
            self.publish();
        }
        (self.events, self.scratch) = (events, scratch);
        Ok(())
    }

    /// Does what the traffic has due, as far as one turn may.
    fn publish(&mut self) {
        let mut frames = std::mem::take(&mut self.frames);
        self.more_due = true;
        for _ in 0..SENDS_PER_EVENT {
            let Some(due) = self.traffic.next_due(&mut frames) else {
                self.more_due = false;
                break;
            };
            match due {
                Due::Send(publisher) => self.send(publisher as usize, &frames),
                Due::Ask(client, operation) => self.ask(client as usize, operation),
            }
            frames.clear();
        }
        self.frames = frames;
    }

    fn wait(&mut self, until: u64) -> Result<()> {
        let moments = [
            self.traffic.next_moment(),
            self.churn.as_ref().map(Schedule::next),
            self.next_connect(),
            self.waiting.peek().map(|Reverse((at, _))| *at),
        ];
        let next = if self.more_due { 0 } else { moments.into_iter().flatten().fold(until, u64::min) };
        let left = Duration::from_nanos(next.saturating_sub(self.clock.nanos()));
        if !left.is_zero() {
            // The poller itself counts in milliseconds, which would make a load test late.
            let it_value =
                Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
            let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
            timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        }
        match self.poll.poll(&mut self.events, left.is_zero().then_some(Duration::ZERO)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.events.clear();
                Ok(())
            }
            other => Ok(other?),
        }
    }

    fn handle(&mut self, event: &Event, scratch: &mut [u8]) {
        let Token(number) = event.token();
        if event.is_writable() {
            self.writable(number);
        }
        let is_over = event.is_read_closed() || event.is_error();
        if event.is_readable() || is_over {
            self.readable(number, scratch, is_over);
        }
    }

    /// Reads what there is; `is_over` when the server has ended its side, which only reading to the end shows.
    fn readable(&mut self, number: usize, scratch: &mut [u8], is_over: bool) {
        let client = &self.clients[number];
        if client.reading == Reading::Stopped || client.stream.is_none() {
            return;
        }
        if let Err(error) = self.read(number, scratch, is_over) {
            self.broken(number, &format!("{error:#}"));
        }
    }

    fn read(&mut self, number: usize, scratch: &mut [u8], is_over: bool) -> Result<()> {
        loop {
            let client = &mut self.clients[number];
            let Some(stream) = client.stream.as_mut().filter(|_| client.stage != Stage::Connecting) else {
                return Ok(());
            };
            let is_tls = stream.is_tls();
            let kept = client.inbound.len();
            scratch[..kept].copy_from_slice(&client.inbound);
            let read = match stream.read(&mut scratch[kept..]) {
                Ok(0) => {
                    self.ended(number);
                    return Ok(());
                }
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).context("read"),
            };
            let filled = kept + read;
            if client.stage != Stage::Upgrading {
                self.traffic.tally.wire_received += read as u64;
            }
            let used = self.digest(number, &scratch[..filled])?;
            if used == 0 && filled == scratch.len() {
                bail!("a frame longer than {SCRATCH_BYTES} bytes");
            }
            let inbound = &mut self.clients[number].inbound;
            inbound.clear();
            inbound.extend_from_slice(&scratch[used..filled]);
            // A short read has emptied the socket: what comes later raises a new event. Only the end does not.
            if filled < scratch.len() && !is_over && !is_tls {
                return Ok(());
            }
        }
    }

    fn writable(&mut self, number: usize) {
        let client = &mut self.clients[number];
        if client.stage == Stage::Connecting {
            self.connected(number);
        } else if !client.outbound.is_empty() {
            let waiting = std::mem::take(&mut client.outbound);
            self.send(number, &waiting);
        } else if let Some(Err(error)) = client.stream.as_mut().map(Stream::flush) {
            self.broken(number, &format!("write: {error}"));
        }
    }

    /// Writes what the socket takes, and keeps the rest.
    fn send(&mut self, number: usize, bytes: &[u8]) {
        let client = &mut self.clients[number];
        let Some(stream) = client.stream.as_mut() else { return };
        let mut rest = bytes;
        while client.outbound.is_empty() && !rest.is_empty() {
            match stream.write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return self.broken(number, &format!("write: {error}")),
            }
        }
        client.outbound.extend_from_slice(rest);
        if client.outbound.len() > OUTBOUND_BYTES_MAX {
            self.broken(number, "the server stopped reading: 16 MiB wait to be sent");
        }
    }

    /// Some clients read no more from now on; they are owed nothing meanwhile.
    pub(crate) fn pause(&mut self, count: usize) {
        let mut candidates: Vec<u32> = self.traffic.ready().to_vec();
        // Publishers are the first members of their rooms: whoever publishes should also read.
        candidates.sort_unstable();
        for number in candidates.into_iter().rev().take(count.saturating_sub(self.paused.len())) {
            let client = &mut self.clients[number as usize];
            client.reading = Reading::Stopped;
            for seat in &mut client.seats {
                self.traffic.dismiss(number, seat);
            }
            self.paused.push(number);
        }
    }

    /// All read again.
    pub(crate) fn resume(&mut self) {
        let mut scratch = std::mem::take(&mut self.scratch);
        for number in std::mem::take(&mut self.paused) {
            let client = &mut self.clients[number as usize];
            if client.stage != Stage::Ready {
                continue;
            }
            client.reading = Reading::Resumed;
            for seat in &mut client.seats {
                self.traffic.admit(number, seat);
            }
            self.readable(number as usize, &mut scratch, true);
        }
        self.scratch = scratch;
    }

    /// Ends the run's account: what was owed and never came.
    pub(crate) fn lost(&mut self) -> u64 {
        let (traffic, clients) = (&mut self.traffic, &mut self.clients);
        (0..).zip(clients).map(|(number, client)| traffic.settle(number, &mut client.seats)).sum()
    }
}

/// A client's number as the traffic has it.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "clients are counted in 32 bits")]
fn id_of(number: usize) -> u32 {
    number as u32
}
