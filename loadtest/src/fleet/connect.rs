//! How clients come and go: at which pace, with what patience, and how a connection ends.

use std::cmp::Reverse;
use std::rc::Rc;

use anyhow::Result;
use mio::{Interest, Token};
use smallvec::SmallVec;
use tungstenite::handshake::client::Response;

use super::client::{Client, Reading, Stage};
use super::stream::Stream;
use super::{Fleet, id_of, socket};
use crate::frames;
use crate::target::Refusal;
use crate::traffic::latency::Kind;
use crate::traffic::schedule::{Arrivals, Schedule};
use crate::traffic::{Seat, Traffic};

/// Clients between `connect` and the end of their joins; fewer than any listener's backlog.
const OPENING: usize = 100;
/// How long a client stays away after its first failure, at most; it doubles with each.
const BACKOFF: u64 = 100_000_000;
const BACKOFF_DOUBLINGS: u8 = 6;

/// Who is in which rooms.
#[derive(Debug)]
pub(crate) struct Seating {
    /// For each client its rooms.
    pub(crate) rooms: Vec<SmallVec<[u32; 1]>>,
}

impl Seating {
    pub(super) fn clients(&self, traffic: &Traffic) -> Vec<Client> {
        let client = |(number, rooms): (u32, &SmallVec<[u32; 1]>)| {
            let seats = rooms.iter().copied().map(Seat::new).chain(traffic.personal_seats(number));
            Client::new(seats.collect(), rooms.len())
        };
        (0..).zip(&self.rooms).map(client).collect()
    }
}

impl Fleet {
    /// From now on so many clients are to be connected, at most `rate` new ones a second. Those above the number
    /// leave.
    pub(crate) fn connect_to(&mut self, goal: usize, rate: Option<f64>) {
        self.goal = goal.min(self.clients.len());
        self.connects = rate.map(|rate| Schedule::new(rate, Arrivals::Constant, self.clock.nanos()));
        for number in self.goal..self.begun {
            self.leave(number, false);
        }
        self.begun = self.begun.min(self.goal);
    }

    /// These many clients are cut off at once, and come back as fast as they may.
    pub(crate) fn cut(&mut self, count: usize) {
        let mut candidates: Vec<u32> = self.traffic.ready().to_vec();
        // The first members of the rooms publish, and go on doing so.
        candidates.sort_unstable();
        for number in candidates.into_iter().rev().take(count) {
            self.abort(number as usize);
        }
    }

    pub(super) fn next_connect(&self) -> Option<u64> {
        let is_waited_for = self.opening < OPENING && (self.begun < self.goal || !self.returning.is_empty());
        self.connects.as_ref().filter(|_| is_waited_for).map(Schedule::next)
    }

    /// Whether nothing is being opened, and the next connection is due only later, as planned or as the server has
    /// advised.
    pub(crate) fn is_opening_later(&self, now: u64) -> bool {
        let returning = self.waiting.peek().map(|Reverse((at, _))| *at);
        let next = [self.next_connect(), returning].into_iter().flatten().min();
        self.opening == 0 && next.is_some_and(|at| at > now + (BACKOFF << BACKOFF_DOUBLINGS))
    }

    /// Opens connections as far as pace and patience allow.
    pub(super) fn connect_some(&mut self) -> Result<()> {
        let now = self.clock.nanos();
        while let Some(Reverse((at, number))) = self.waiting.peek().copied() {
            if at > now {
                break;
            }
            self.waiting.pop();
            if (number as usize) < self.goal {
                self.returning.push_back(number);
            }
        }
        while self.opening < OPENING && (self.begun < self.goal || !self.returning.is_empty()) {
            if let Some(connects) = &mut self.connects
                && connects.take(now, &mut self.random).is_none()
            {
                break;
            }
            let number = self.returning.pop_front().map_or(self.begun, |number| number as usize);
            if number == self.begun {
                self.begun += 1;
            }
            if self.clients[number].stage == Stage::Absent {
                self.open(number, now)?;
            } else {
                // It is still saying goodbye.
                self.clients[number].returns = true;
            }
        }
        Ok(())
    }

    fn open(&mut self, number: usize, now: u64) -> Result<()> {
        let target = &self.targets[number % self.targets.len()];
        let socket = self.sources.connect(target.address)?;
        let mut stream = Stream::new(socket, target.tls.as_ref())?;
        self.poll.registry().register(&mut stream, Token(number), Interest::READABLE | Interest::WRITABLE)?;
        let client = &mut self.clients[number];
        client.stream = Some(stream);
        client.stage = Stage::Connecting;
        client.asked_at = now;
        self.opening += 1;
        Ok(())
    }

    /// The socket is connected, or will never be: sends the request for the upgrade.
    pub(super) fn connected(&mut self, number: usize) {
        let client = &mut self.clients[number];
        let Some(stream) = &client.stream else { return };
        match stream.socket().take_error() {
            Ok(Some(error)) | Err(error) => return self.broken(number, &format!("connect: {error}")),
            // An event of the socket before this one may still have been on its way.
            Ok(None) if stream.socket().peer_addr().is_err() => return,
            Ok(None) => {}
        }
        client.stage = Stage::Upgrading;
        let room =
            client.seats.first().filter(|_| client.rooms > 0).and_then(|seat| self.traffic.room_of(seat));
        let target = &self.targets[number % self.targets.len()];
        let request = target.request(id_of(number), room);
        self.send(number, &request);
    }

    /// The answer to the request has come.
    ///
    /// # Errors
    ///
    /// The refusal in words; [`Refusal::Later`] is no error but makes the client wait.
    pub(super) fn answered(&mut self, number: usize, response: &Response) -> Result<bool> {
        let target = &self.targets[number % self.targets.len()];
        match target.verify(response) {
            Ok(()) => {}
            Err(Refusal::Later { after }) if self.returns => {
                self.traffic.tally.rejected += 1;
                self.clients[number].advice = Some(after);
                self.gone(number, true);
                return Ok(false);
            }
            Err(refusal) => {
                self.traffic.tally.rejected += 1;
                return Err(refusal.into());
            }
        }
        let now = self.clock.nanos();
        let client = &mut self.clients[number];
        self.traffic.latencies.record(Kind::Connect, now.saturating_sub(client.asked_at));
        self.traffic.tally.opened += 1;
        Ok(true)
    }

    /// Everything is said: the client takes part.
    pub(super) fn ready_now(&mut self, number: usize) {
        let client = &mut self.clients[number];
        let id = id_of(number);
        client.stage = Stage::Ready;
        client.attempts = 0;
        client.advice = None;
        for seat in &mut client.seats {
            self.traffic.admit(id, seat);
        }
        self.traffic.is_ready(id);
        self.opening -= 1;
    }

    /// Lets clients end and come back, as far as it is due.
    pub(super) fn churn_some(&mut self) {
        let Some(mut churn) = self.churn.take() else { return };
        let now = self.clock.nanos();
        while churn.take(now, &mut self.random).is_some() {
            let ready = self.traffic.ready();
            if ready.is_empty() {
                continue;
            }
            let number = ready[self.random.usize(..ready.len())] as usize;
            if self.aborts && self.random.bool() {
                self.abort(number);
            } else {
                self.leave(number, true);
            }
        }
        self.churn = Some(churn);
    }

    /// Says Close, and waits for the server's.
    pub(super) fn leave(&mut self, number: usize, returns: bool) {
        let client = &mut self.clients[number];
        client.returns = returns;
        if client.stage == Stage::Absent || client.stage == Stage::Closing {
            return;
        }
        if matches!(client.stage, Stage::Connecting | Stage::Upgrading | Stage::Joining) {
            self.traffic.tally.cut += u64::from(client.stage == Stage::Joining);
            return self.gone(number, returns);
        }
        client.stage = Stage::Closing;
        let id = id_of(number);
        self.traffic.retire(id, &mut client.seats);
        let mut frame = Vec::new();
        frames::write_close(1000, &mut frame);
        self.traffic.tally.wire_sent += frame.len() as u64;
        self.send(number, &frame);
    }

    /// Resets the connection without a word; the client comes back.
    fn abort(&mut self, number: usize) {
        if let Some(stream) = &self.clients[number].stream {
            socket::reset_on_close(stream.socket());
        }
        self.traffic.tally.cut += 1;
        self.gone(number, true);
    }

    /// The server has ended its side of the connection.
    pub(super) fn ended(&mut self, number: usize) {
        let client = &self.clients[number];
        match client.stage {
            Stage::Closing => {
                let returns = client.returns;
                if !client.was_told {
                    self.traffic.tally.cut += 1;
                }
                self.gone(number, returns);
            }
            _ if client.was_told => self.gone(number, self.returns),
            _ => self.broken(number, "the server closed without a Close frame"),
        }
    }

    /// The server has said Close; whether that was expected is settled here.
    pub(super) fn told(&mut self, number: usize, code: Option<u16>, words: &str) {
        let client = &mut self.clients[number];
        client.was_told = true;
        if client.stage == Stage::Closing {
            return;
        }
        *self.troubles.closes.entry(code.unwrap_or(1005)).or_default() += 1;
        let was_advised = client.advice.is_some() && self.returns;
        // Who did not read for a time is told what the server thinks of that.
        if client.reading == Reading::Steady && !was_advised {
            self.troubles.ended += 1;
            self.troubles.remark(words);
        }
        let mut frame = Vec::new();
        frames::write_close(code.filter(|code| *code != 1005).unwrap_or(1000), &mut frame);
        self.traffic.tally.wire_sent += frame.len() as u64;
        self.send(number, &frame);
        self.gone(number, self.returns);
    }

    /// The connection broke, or could not be made.
    pub(super) fn broken(&mut self, number: usize, words: &str) {
        let client = &mut self.clients[number];
        if client.stage == Stage::Absent {
            return;
        }
        if client.stage != Stage::Connecting && client.stage != Stage::Upgrading {
            self.traffic.tally.cut += 1;
        }
        if client.stage != Stage::Closing && client.reading == Reading::Steady {
            self.troubles.ended += 1;
            self.troubles.remark(words);
        }
        let returns = self.returns || (client.stage == Stage::Closing && client.returns);
        self.gone(number, returns);
    }

    /// Takes a client out of the run, to come back if it may.
    fn gone(&mut self, number: usize, returns: bool) {
        self.depart(number);
        let client = &mut self.clients[number];
        if matches!(client.stage, Stage::Connecting | Stage::Upgrading | Stage::Joining) {
            self.opening -= 1;
        }
        if let Some(mut stream) = client.stream.take() {
            // Of two errors in one the second adds nothing: the socket is closed either way.
            let _ = self.poll.registry().deregister(&mut stream);
            if client.stage != Stage::Connecting {
                stream.end();
            }
        }
        let id = id_of(number);
        if client.reading == Reading::Stopped {
            self.paused.retain(|paused| *paused != id);
        }
        let was_ready = matches!(client.stage, Stage::Ready | Stage::Closing);
        let advice = client.advice.take();
        client.reset();
        if !returns || number >= self.goal {
            return;
        }
        let delay = match advice {
            Some(advice) => advice,
            None if was_ready => 0,
            None => {
                client.attempts = (client.attempts + 1).min(BACKOFF_DOUBLINGS);
                self.random.u64(..=BACKOFF << client.attempts)
            }
        };
        self.waiting.push(Reverse((self.clock.nanos() + delay, id)));
    }

    fn depart(&mut self, number: usize) {
        let id = id_of(number);
        self.traffic.depart(id, &mut self.clients[number].seats);
    }

    /// How a room's or user's text is addressed by a client.
    pub(super) fn dialect(&self) -> Rc<crate::dialect::Dialect> {
        Rc::clone(&self.dialect)
    }
}
