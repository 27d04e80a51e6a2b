//! What is sent and what has arrived: pure but for the clock, which is read once for each read of a socket.
//!
//! Every message carries a stamp. Whoever receives one settles what it says about loss, order and delay; what was owed
//! and did not come is known at the end.

mod audience;
mod flight;
pub(crate) mod latency;
pub(crate) mod load;
mod publish;
mod receiver;
pub(crate) mod schedule;
mod stamp;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

use anyhow::Result;

use crate::clock::Clock;
use crate::dialect::Dialect;
use crate::tally::{Tally, Text};

use audience::Audience;
pub(crate) use audience::{Address, NOT_OWED, Seat};
use flight::Known;
use latency::{Kind, Latencies};
use load::{Load, Operation};
pub(crate) use publish::Due;
use receiver::Arrival;
use schedule::Schedule;
use stamp::Finder;

/// Which audiences a run has.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Layout {
    pub(crate) clients: u32,
    pub(crate) rooms: u32,
    /// Each client's user is written to.
    pub(crate) users: bool,
    /// Each client gets its own messages back.
    pub(crate) own: bool,
    /// Some messages are for everybody.
    pub(crate) everyone: bool,
}

impl Layout {
    /// Where the audiences of one client each begin, behind those of the rooms and of the users.
    fn own_at(&self) -> u32 {
        self.rooms + if self.users { self.clients } else { 0 }
    }

    /// Where the audience of everybody is.
    fn everyone_at(&self) -> u32 {
        self.own_at() + if self.own { self.clients } else { 0 }
    }
}

#[derive(Debug)]
pub(crate) struct Traffic {
    pub(crate) tally: Tally,
    pub(crate) latencies: Latencies,
    dialect: Rc<Dialect>,
    clock: Clock,
    /// When the bytes at hand were read; read from the clock only if a message is among them.
    now: Option<u64>,
    audiences: Vec<Audience>,
    layout: Layout,
    finder: Finder,
    /// Clients that can send.
    ready: Vec<u32>,
    load: Load,
    schedule: Option<Schedule>,
    /// Audiences that may have room in their window.
    due: Vec<u32>,
    /// What the server adds to a message, by kind of address; known once the first has come back.
    overhead: [Option<usize>; Address::KINDS],
    /// When the first message of a kind was sent.
    probed_at: [Option<u64>; Address::KINDS],
    turn: u32,
    random: fastrand::Rng,
    message: Vec<u8>,
    text: Vec<u8>,
    /// Messages that `gap` has named, by client and audience, and that have not been missed yet.
    announced: HashMap<(u32, u32), u64>,
    /// Messages whose order could not be checked, in a room with several publishers: they came to one who had just
    /// entered, or were too long ago.
    pub(crate) unverified: u64,
    /// Messages that were owed to receivers when they left.
    pub(crate) abandoned: u64,
    /// What the server does not offer.
    given_up: Vec<Operation>,
    /// Operations that were due and given up, as nobody was there or their client was still busy with another.
    pub(crate) unsent: u64,
}

impl Traffic {
    pub(crate) fn new(layout: Layout, dialect: Rc<Dialect>, seed: u64, clock: Clock) -> Result<Self> {
        let rooms = (0..layout.rooms).map(Address::Room);
        let users = (0..layout.clients).filter(|_| layout.users).map(Address::User);
        let own = (0..layout.clients).filter(|_| layout.own).map(Address::Own);
        let everyone = layout.everyone.then_some(Address::Everyone);
        let addresses = rooms.chain(users).chain(own).chain(everyone);
        Ok(Self {
            tally: Tally::default(),
            latencies: Latencies::new()?,
            dialect,
            clock,
            now: None,
            audiences: addresses.map(Audience::new).collect(),
            layout,
            finder: Finder::default(),
            ready: Vec::new(),
            load: Load::default(),
            schedule: None,
            due: Vec::new(),
            overhead: [None; Address::KINDS],
            probed_at: [None; Address::KINDS],
            turn: 0,
            random: fastrand::Rng::with_seed(seed),
            message: Vec::new(),
            text: Vec::new(),
            announced: HashMap::new(),
            unverified: 0,
            abandoned: 0,
            given_up: Vec::new(),
            unsent: 0,
        })
    }

    /// The audiences that a client belongs to besides its rooms.
    pub(crate) fn personal_seats(&self, client: u32) -> impl Iterator<Item = Seat> + use<> {
        let layout = self.layout;
        let user = layout.users.then_some(layout.rooms + client);
        user.into_iter()
            .chain(layout.own.then_some(layout.own_at() + client))
            .chain(layout.everyone.then_some(layout.everyone_at()))
            .map(Seat::new)
    }

    /// The room of a seat, if it is one in a room.
    pub(crate) fn room_of(&self, seat: &Seat) -> Option<u32> {
        match self.audiences[seat.audience as usize].address {
            Address::Room(number) => Some(number),
            _ => None,
        }
    }

    /// A client can send from now on.
    pub(crate) fn is_ready(&mut self, client: u32) {
        self.ready.push(client);
    }

    pub(crate) fn ready(&self) -> &[u32] {
        &self.ready
    }

    /// From now on a client is owed what is sent to this audience.
    pub(crate) fn admit(&mut self, client: u32, seat: &mut Seat) {
        seat.inside = true;
        if !seat.is_owed() {
            let audience = &mut self.audiences[seat.audience as usize];
            audience.admit(client);
            seat.since = audience.flight.next();
            if audience.flight.is_unsettled(seat.since) {
                seat.receiver.restart();
            }
            self.due.push(seat.audience);
        }
    }

    /// A client is owed nothing any more: it left, stopped reading, or was cut off. What it had not got is waited for
    /// no longer.
    pub(crate) fn dismiss(&mut self, client: u32, seat: &mut Seat) {
        if !seat.is_owed() {
            return;
        }
        let audience = &mut self.audiences[seat.audience as usize];
        for sequence in audience.flight.owed(seat.since, &seat.receiver) {
            audience.flight.resolve(sequence);
            self.abandoned += 1;
        }
        audience.dismiss(client);
        seat.since = NOT_OWED;
        self.due.push(seat.audience);
    }

    /// A client is gone, with all its seats.
    pub(crate) fn depart(&mut self, client: u32, seats: &mut [Seat]) {
        self.retire(client, seats);
        for seat in seats {
            seat.inside = false;
            self.announced.remove(&(client, seat.audience));
        }
    }

    /// A client says goodbye: it sends nothing more and is owed nothing, but messages may still come.
    pub(crate) fn retire(&mut self, client: u32, seats: &mut [Seat]) {
        for seat in seats {
            self.dismiss(client, seat);
        }
        if let Some(at) = self.ready.iter().position(|ready| *ready == client) {
            self.ready.swap_remove(at);
        }
    }

    /// Messages that somebody is still owed.
    pub(crate) fn outstanding(&self) -> u64 {
        self.audiences.iter().map(|audience| audience.flight.outstanding()).sum()
    }

    /// New bytes were read: all messages in them have arrived at one moment.
    #[inline]
    pub(crate) fn bytes_arrived(&mut self) {
        self.now = None;
    }

    fn now(&mut self) -> u64 {
        let clock = self.clock;
        *self.now.get_or_insert_with(|| clock.nanos())
    }

    /// A text arrived at a client. Returns false when it is no message of this run.
    #[inline]
    pub(crate) fn deliver(&mut self, client: u32, seats: &mut [Seat], text: &[u8]) -> bool {
        let Some(stamp) = self.finder.find(text) else { return false };
        self.count_message();
        let seat = seats.iter_mut().find(|seat| seat.audience == stamp.audience && seat.inside);
        let (Some(seat), Some(audience)) = (seat, self.audiences.get_mut(stamp.audience as usize)) else {
            self.tally.foreign += 1;
            return true;
        };
        let is_settled = !audience.flight.is_unsettled(seat.since);
        let known = audience.flight.arrive(stamp.sequence, is_settled);
        let Known::Placed { place, first, due, sent } = known else {
            self.past_or_never(client, seat, stamp.sequence, known);
            return true;
        };
        let arrival =
            if is_settled { seat.receiver.record(place) } else { self.arrived_early(seat, stamp.sequence) };
        let was_given_up = arrival == Arrival::Late;
        if arrival != Arrival::Next && !self.out_of_order(client, seat, place, arrival) {
            return true;
        }
        self.tally.deliveries += 1;
        if stamp.sequence < seat.since {
            // It comes to one who is just entering or leaving, or who did not read: nobody waited for it.
            return true;
        }
        let flight = &mut self.audiences[stamp.audience as usize].flight;
        let last = !was_given_up && flight.resolve(stamp.sequence);
        let now = self.now();
        let (delay, service) = (now.saturating_sub(due), now.saturating_sub(sent));
        self.latencies.record(Kind::Delivery, delay);
        if due != sent {
            self.latencies.record(Kind::Service, service);
        }
        if first {
            self.learn(stamp.audience, text.len());
            self.latencies.record(Kind::First, delay);
            self.record_end(service);
        }
        if last {
            self.latencies.record(Kind::Last, delay);
            if !first {
                self.record_end(service);
            }
            self.completed(stamp.audience);
        }
        true
    }

    /// The order is not known yet in which a message came that is for one who has just entered, or who does not read.
    #[cold]
    fn arrived_early(&mut self, seat: &mut Seat, sequence: u64) -> Arrival {
        if !seat.receiver.note(sequence) {
            return Arrival::Duplicate;
        }
        self.unverified += 1;
        Arrival::Next
    }

    #[inline]
    fn count_message(&mut self) {
        self.tally.texts_received.add(if self.dialect.typed { Text::Message } else { Text::Other });
    }

    /// The gateway measures the messages of its protocol alone.
    fn record_end(&mut self, service: u64) {
        if self.dialect.typed {
            self.latencies.record(Kind::Ends, service);
        }
    }

    /// Everybody has a message: its audience has room for another.
    fn completed(&mut self, number: u32) {
        self.tally.completed += 1;
        if self.due.last() != Some(&number) {
            self.due.push(number);
        }
    }

    /// Handles what is not simply the next message; returns whether the message still counts as arrived.
    #[cold]
    fn out_of_order(&mut self, client: u32, seat: &mut Seat, place: u64, arrival: Arrival) -> bool {
        match arrival {
            Arrival::Begin if seat.is_owed() => {
                let flight = &mut self.audiences[seat.audience as usize].flight;
                let mut missed = flight.at_places(0..place, seat.since);
                missed.retain(|(_, sequence)| !seat.receiver.has_noted(*sequence));
                seat.receiver.missed(missed.iter().map(|(place, _)| *place));
                if let Some(first) = missed.iter().map(|(place, _)| *place).min() {
                    self.passed_over(client, seat, first..place, missed.len() as u64);
                }
            }
            Arrival::Next | Arrival::Begin => {}
            Arrival::Ahead { lost } => {
                let missed = lost.end - lost.start;
                self.passed_over(client, seat, lost, missed);
            }
            Arrival::Late => self.tally.reordered += 1,
            Arrival::Duplicate => {
                self.tally.duplicates += 1;
                return false;
            }
        }
        true
    }

    /// What was passed over is waited for no longer, so that a closed loop goes on.
    fn passed_over(&mut self, client: u32, seat: &mut Seat, places: Range<u64>, missed: u64) {
        if let Some(announced) = self.announced.get_mut(&(client, seat.audience))
            && *announced >= missed
        {
            *announced -= missed;
            seat.receiver.forgive(&places);
        }
        let flight = &mut self.audiences[seat.audience as usize].flight;
        for (_, sequence) in flight.at_places(places, seat.since) {
            if !seat.receiver.has_noted(sequence) {
                flight.resolve(sequence);
            }
        }
        self.due.push(seat.audience);
    }

    /// A message that all others have had long ago, or that was never sent.
    #[cold]
    fn past_or_never(&mut self, client: u32, seat: &mut Seat, sequence: u64, known: Known) {
        let Known::Past { place } = known else {
            self.tally.foreign += 1;
            return;
        };
        if let Some(place) = place {
            let arrival = seat.receiver.record(place);
            if arrival != Arrival::Next && !self.out_of_order(client, seat, place, arrival) {
                return;
            }
        } else if sequence < seat.since {
            // It comes to one who did not read for a time, and whose place is not known.
            seat.receiver.restart();
            self.unverified += 1;
        } else if seat.receiver.lost() == 0 {
            // It was owed and is no longer: this one had it.
            self.tally.duplicates += 1;
            return;
        } else {
            self.unverified += 1;
        }
        self.tally.deliveries += 1;
    }

    /// The server has told a client that it was not given so many messages of an audience.
    pub(crate) fn gap(&mut self, client: u32, audience: u32, messages: u64) {
        self.tally.gaps += 1;
        self.tally.gap_messages += messages;
        *self.announced.entry((client, audience)).or_default() += messages;
    }

    /// At the end of the run, what a client was owed and never got, though no `gap` named it.
    pub(crate) fn settle(&mut self, client: u32, seats: &mut [Seat]) -> u64 {
        let mut lost = 0;
        for seat in seats {
            lost += seat.receiver.lost();
            if !seat.is_owed() {
                continue;
            }
            let flight = &mut self.audiences[seat.audience as usize].flight;
            let owed = flight.owed(seat.since, &seat.receiver).len() as u64;
            let named = self.announced.get_mut(&(client, seat.audience));
            let forgiven = named.map_or(0, |announced| {
                let forgiven = owed.min(*announced);
                *announced -= forgiven;
                forgiven
            });
            lost += owed - forgiven;
        }
        lost
    }

    /// Messages that `gap` has named and that were not missing.
    pub(crate) fn false_gaps(&self) -> u64 {
        self.announced.values().sum()
    }
}
