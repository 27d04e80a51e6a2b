//! Who sends what next.

use super::Traffic;
use super::audience::Address;
use super::latency::Kind;
use super::load::{Load, Operation, Pace, choose};
use super::schedule::Schedule;
use super::stamp::Stamp;
use crate::dialect::Values;
use crate::tally::Text;

/// What a client is to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// To send the frames that were appended.
    Send(u32),
    /// To ask something, or to leave a room and enter it again.
    Ask(u32, Operation),
}

impl Traffic {
    /// Begins a phase's load.
    pub(crate) fn begin(&mut self, load: Load) {
        let mut load = load;
        load.mix.retain(|(operation, _)| !self.given_up.contains(operation));
        let keeps_going = self.load.pace == load.pace && self.load.mix == load.mix;
        self.load = load;
        if keeps_going {
            return;
        }
        self.due.clear();
        self.schedule = None;
        self.probed_at = [None; Address::KINDS];
        if let Pace::Window(_) = self.load.pace {
            self.all_are_due();
        }
    }

    /// Every audience is looked at for room in its window.
    fn all_are_due(&mut self) {
        self.due.extend((0..).zip(&self.audiences).map(|(number, _)| number));
    }

    /// Whether nothing is to be sent.
    pub(crate) fn is_quiet(&self) -> bool {
        self.load.pace == Pace::Quiet
    }

    /// The server does not offer this: it is not asked for any more.
    pub(crate) fn give_up(&mut self, operation: Operation) {
        self.load.mix.retain(|(mixed, _)| *mixed != operation);
        self.given_up.push(operation);
    }

    /// The load test has paused for so long, and has not meant to send anything meanwhile.
    pub(crate) fn postpone(&mut self, nanos: u64) {
        if let Some(schedule) = &mut self.schedule {
            schedule.postpone(nanos);
        }
    }

    /// Messages that were due until now and were not sent.
    pub(crate) fn unsent(&self, now: u64) -> u64 {
        self.unsent + self.schedule.as_ref().map_or(0, |schedule| schedule.behind(now))
    }

    /// When something is due next, in an open loop.
    pub(crate) fn next_moment(&self) -> Option<u64> {
        self.schedule.as_ref().map(Schedule::next)
    }

    /// What is to be done now; frames to be sent are appended. Call it until `None`.
    pub(crate) fn next_due(&mut self, frames: &mut Vec<u8>) -> Option<Due> {
        match self.load.pace {
            Pace::Quiet => {
                self.due.clear();
                None
            }
            Pace::Window(window) => {
                self.probe_again();
                while let Some(number) = self.due.pop() {
                    if let Some(publisher) = self.fill_window(number, window, frames) {
                        return Some(Due::Send(publisher));
                    }
                }
                None
            }
            Pace::Rate(rate, arrivals) => {
                self.due.clear();
                let now = self.clock.nanos();
                if self.schedule.is_none() {
                    // The first message of each kind shows what the server adds; then the plan begins.
                    if let Some(due) = self.probe(now, frames) {
                        return Some(due);
                    }
                    if (0..Address::KINDS).any(|kind| self.is_probing(kind)) {
                        return None;
                    }
                    self.schedule = Some(Schedule::new(rate, arrivals, now));
                }
                while let Some(due) = self.schedule.as_mut()?.take(now, &mut self.random) {
                    if let Some(what) = self.operate(due, now, frames) {
                        return Some(what);
                    }
                    self.unsent += 1;
                }
                None
            }
        }
    }

    fn operate(&mut self, due: u64, now: u64, frames: &mut Vec<u8>) -> Option<Due> {
        if self.load.mix.is_empty() {
            return None;
        }
        let operation = choose(&self.load.mix, &mut self.random);
        if operation.publishes() {
            let number = self.audience_for(operation)?;
            let publisher = self.publisher(number)?;
            self.latencies.record(Kind::Lag, now - due);
            self.write(number, publisher, (due, now), frames);
            return Some(Due::Send(publisher));
        }
        self.turn = self.turn.wrapping_add(1);
        let client = *self.ready.get(self.turn as usize % self.ready.len().max(1))?;
        self.latencies.record(Kind::Lag, now - due);
        Some(Due::Ask(client, operation))
    }

    /// An audience of this kind that has members.
    fn audience_for(&mut self, operation: Operation) -> Option<u32> {
        let numbers = self.range_of(operation);
        let count = numbers.end - numbers.start;
        for _ in 0..count.min(TRIES) {
            self.turn = self.turn.wrapping_add(1);
            let number = numbers.start + self.turn % count;
            if !self.audiences[number as usize].members.is_empty() {
                return Some(number);
            }
        }
        None
    }

    fn range_of(&self, operation: Operation) -> std::ops::Range<u32> {
        let (rooms, own_at, everyone_at) =
            (self.layout.rooms, self.layout.own_at(), self.layout.everyone_at());
        match operation {
            Operation::Message => 0..rooms,
            Operation::Direct => rooms..own_at,
            Operation::Echo => own_at..everyone_at,
            _ => everyone_at..u32::try_from(self.audiences.len()).unwrap_or(u32::MAX),
        }
    }

    /// Sends what a window allows, by one publisher.
    fn fill_window(&mut self, number: u32, window: u32, frames: &mut Vec<u8>) -> Option<u32> {
        let audience = &self.audiences[number as usize];
        let kind = audience.address.kind();
        let window = match self.overhead[kind] {
            Some(_) => u64::from(window),
            None if self.is_probing(kind) => return None,
            None => 1,
        };
        if audience.flight.outstanding() >= window || !self.is_in_the_mix(audience.address) {
            return None;
        }
        let publisher = self.publisher(number)?;
        while self.audiences[number as usize].flight.outstanding() < window {
            let now = self.clock.nanos();
            self.write(number, publisher, (now, now), frames);
        }
        if self.overhead[kind].is_none() {
            self.probed_at[kind] = Some(self.clock.nanos());
        }
        Some(publisher)
    }

    fn is_in_the_mix(&self, address: Address) -> bool {
        let operation = match address {
            Address::Room(_) => Operation::Message,
            Address::User(_) => Operation::Direct,
            Address::Own(_) => Operation::Echo,
            Address::Everyone => Operation::Everyone,
        };
        self.load.mix.iter().any(|(mixed, weight)| *mixed == operation && *weight > 0)
    }

    /// The first message of a kind whose overhead is not known.
    fn probe(&mut self, now: u64, frames: &mut Vec<u8>) -> Option<Due> {
        for (operation, _) in self.load.mix.clone() {
            let Some(number) = operation.publishes().then(|| self.audience_for(operation)).flatten() else {
                continue;
            };
            let kind = self.audiences[number as usize].address.kind();
            if self.overhead[kind].is_some() || self.is_probing(kind) {
                continue;
            }
            let Some(publisher) = self.publisher(number) else { continue };
            self.probed_at[kind] = Some(now);
            self.write(number, publisher, (now, now), frames);
            return Some(Due::Send(publisher));
        }
        None
    }

    /// Whether the first message of a kind is under way. One that does not come back, as its receivers have left, is
    /// given up after a second.
    fn is_probing(&self, kind: usize) -> bool {
        let is_fresh = |at: u64| self.clock.nanos().saturating_sub(at) < PROBE_PATIENCE;
        self.overhead[kind].is_none() && self.probed_at[kind].is_some_and(is_fresh)
    }

    /// Lets all audiences try again when the first message of a kind has been given up.
    fn probe_again(&mut self) {
        for kind in 0..Address::KINDS {
            if self.overhead[kind].is_none() && self.probed_at[kind].is_some() && !self.is_probing(kind) {
                self.probed_at[kind] = None;
                self.all_are_due();
            }
        }
    }

    /// A message has come back with this length: the first of its kind shows what the server adds.
    #[inline]
    pub(super) fn learn(&mut self, number: u32, length: usize) {
        let kind = self.audiences[number as usize].address.kind();
        if self.overhead[kind].is_some() {
            return;
        }
        let mut bare = Vec::new();
        Stamp { audience: number, sequence: 0 }.write(0, &mut bare);
        self.overhead[kind] = Some(length.saturating_sub(bare.len()));
        self.all_are_due();
    }

    /// Who sends to an audience next.
    fn publisher(&mut self, number: u32) -> Option<u32> {
        let audience = &mut self.audiences[number as usize];
        let count = u32::try_from(audience.members.len()).unwrap_or(u32::MAX);
        match audience.address {
            Address::Room(_) | Address::Everyone => {
                let publishers = self.load.publishers.of(count).max(1);
                audience.turn = audience.turn.wrapping_add(1);
                audience.members.get((audience.turn % publishers) as usize).copied()
            }
            Address::Own(_) => audience.members.first().copied(),
            Address::User(user) => {
                if audience.members.is_empty() {
                    return None;
                }
                // Anybody but the user; in a run of one client, that one.
                let ready = &self.ready;
                let at = self.random.usize(..ready.len().max(1));
                let other = ready.get(at).filter(|client| **client != user);
                other.or_else(|| ready.get((at + 1) % ready.len().max(1))).copied()
            }
        }
    }

    fn write(&mut self, number: u32, publisher: u32, (due, sent): (u64, u64), frames: &mut Vec<u8>) {
        let audience = &mut self.audiences[number as usize];
        let receivers = audience.receivers();
        let sequence = audience.flight.send(publisher, receivers, due, sent);
        let address = audience.address;
        let length = self.overhead[address.kind()].map_or(0, |overhead| {
            (choose(&self.load.payload, &mut self.random) as usize).saturating_sub(overhead)
        });
        self.message.clear();
        Stamp { audience: number, sequence }.write(length, &mut self.message);
        let mut values = Values { prefix: &self.dialect.prefix, message: &self.message, ..Values::default() };
        let template = match address {
            Address::Room(room) => {
                values.room = room;
                &self.dialect.publish
            }
            Address::User(user) => {
                values.user = user;
                self.dialect.direct.as_ref().unwrap_or(&self.dialect.publish)
            }
            Address::Own(_) => &self.dialect.publish,
            Address::Everyone => self.dialect.everyone.as_ref().unwrap_or(&self.dialect.publish),
        };
        self.text.clear();
        template.write(&values, &mut self.text);
        let before = frames.len();
        self.dialect.frames.write(&self.text, frames);
        let tally = &mut self.tally;
        tally.published += 1;
        tally.texts_sent.add(if self.dialect.typed { Text::Message } else { Text::Other });
        tally.payload_sent += self.text.len() as u64;
        tally.wire_sent += (frames.len() - before) as u64;
    }
}

/// How long the first message of a kind is waited for, in nanoseconds.
const PROBE_PATIENCE: u64 = 1_000_000_000;

/// Audiences that are looked at for one with members: more would take long where all have left.
const TRIES: u32 = 1000;
