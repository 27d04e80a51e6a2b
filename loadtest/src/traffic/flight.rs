//! The messages of one audience that are on their way, and the order in which they arrive.

use std::collections::HashMap;

use super::receiver::Receiver;

/// Slots that are kept at least, so that a straggler's message is still known when others have it.
const KEPT: usize = 16;
const UNPLACED: u64 = u64::MAX;
const NONE: u64 = u64::MAX;

/// What was sent to an audience.
///
/// Each message has a *sequence*, its number in the order of sending, and gets a *place* in the order of arrival. One
/// publisher's messages arrive as it sent them, so with one at a time the two are the same. The messages of several
/// may be put into any order by the server, but into the same for all members: whoever is first to get a message
/// settles its place, behind the earlier ones of its publisher. One who has just entered settles none as long as what
/// was sent before has no place, since it may not have been given that.
///
/// Invariant: `base <= oldest <= next`; all below `oldest` are resolved (got by all they are owed to, or given up).
#[derive(Debug, Default)]
pub(crate) struct Flight {
    /// A ring, whose length is 0 or a power of two.
    slots: Vec<Slot>,
    base: u64,
    oldest: u64,
    next: u64,
    next_place: u64,
    /// Messages of different publishers were on their way at once: places are no longer sequences.
    mixed: bool,
    last_publisher: u32,
    /// All before this one have a place.
    placed: u64,
    /// The last sequence of each publisher; only kept while mixed.
    last_of: HashMap<u32, u64>,
    chain: Vec<u64>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    /// When it was to be sent, and when it was, in nanoseconds.
    due: u64,
    sent: u64,
    place: u64,
    /// The publisher's message before it.
    previous: u64,
    remaining: u32,
    seen: bool,
}

/// What is known about an arriving message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// Its place among the arrivals, whether nobody had it before, when it was due and when it was sent.
    Placed { place: u64, first: bool, due: u64, sent: u64 },
    /// It was got by all long ago. The place is known if places are sequences.
    Past { place: Option<u64> },
    /// It was never sent.
    Never,
}

impl Flight {
    /// The sequence of the next message to be sent.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    pub(crate) fn outstanding(&self) -> u64 {
        self.next - self.oldest
    }

    /// Counts a message as sent to so many receivers, and returns its sequence.
    pub(crate) fn send(&mut self, publisher: u32, receivers: u32, due: u64, sent: u64) -> u64 {
        let sequence = self.next;
        self.make_room();
        if self.outstanding() > 0 && publisher != self.last_publisher && !self.mixed {
            self.mixed = true;
            if let Some(last) = sequence.checked_sub(1) {
                self.last_of.insert(self.last_publisher, last);
            }
        }
        self.last_publisher = publisher;
        let previous = if self.mixed {
            self.last_of.insert(publisher, sequence).unwrap_or(NONE)
        } else {
            sequence.checked_sub(1).unwrap_or(NONE)
        };
        self.next += 1;
        let slot = Slot { due, sent, place: UNPLACED, previous, remaining: receivers, seen: false };
        *self.slot(sequence) = slot;
        sequence
    }

    /// Whether places must wait for somebody who has been there for longer than one who is owed the messages from
    /// `since` on: others may come before what this one sees.
    #[inline]
    pub(crate) fn is_unsettled(&mut self, since: u64) -> bool {
        self.mixed && self.first_unplaced() < since
    }

    #[cold]
    fn first_unplaced(&mut self) -> u64 {
        self.placed = self.placed.max(self.base);
        while self.placed < self.next && self.slot(self.placed).place != UNPLACED {
            self.placed += 1;
        }
        self.placed
    }

    /// A message has arrived somewhere; whether that settles its place.
    #[inline]
    pub(crate) fn arrive(&mut self, sequence: u64, settles: bool) -> Known {
        if sequence >= self.next {
            return Known::Never;
        }
        if sequence < self.base {
            return Known::Past { place: (!self.mixed).then_some(sequence) };
        }
        if settles && self.slot(sequence).place == UNPLACED {
            self.settle(sequence);
        }
        let slot = self.slot(sequence);
        let first = !std::mem::replace(&mut slot.seen, true);
        Known::Placed { place: slot.place, first, due: slot.due, sent: slot.sent }
    }

    /// One of those that the message is owed to has it, or is waited for no longer. Returns whether it was the last.
    #[inline]
    pub(crate) fn resolve(&mut self, sequence: u64) -> bool {
        if sequence < self.oldest || sequence >= self.next {
            return false;
        }
        let slot = self.slot(sequence);
        if slot.remaining == 0 {
            return false;
        }
        slot.remaining -= 1;
        let last = slot.remaining == 0;
        if last {
            self.advance();
        }
        last
    }

    /// The unresolved messages, from `since` on, at places in this range: place and sequence of each.
    pub(crate) fn at_places(&mut self, places: std::ops::Range<u64>, since: u64) -> Vec<(u64, u64)> {
        let from = self.oldest.max(since);
        let unresolved = (from..self.next).map(|sequence| (self.slot(sequence).place, sequence));
        unresolved.filter(|(place, _)| places.contains(place)).collect()
    }

    /// The unresolved messages, from `since` on, that a receiver has not got.
    pub(crate) fn owed(&mut self, since: u64, receiver: &Receiver) -> Vec<u64> {
        let from = self.oldest.max(since);
        let expected = receiver.expected();
        (from..self.next)
            .filter(|sequence| {
                let at = self.slot(*sequence).place;
                let is_ahead = at == UNPLACED || expected.is_none_or(|expected| at >= expected);
                is_ahead && !receiver.has_noted(*sequence)
            })
            .collect()
    }

    /// Settles the place of a message, behind those of its publisher that have none yet.
    #[cold]
    fn settle(&mut self, sequence: u64) {
        let mut chain = std::mem::take(&mut self.chain);
        let mut at = sequence;
        while at != NONE && at >= self.base && self.slot(at).place == UNPLACED {
            chain.push(at);
            at = self.slot(at).previous;
        }
        while let Some(earlier) = chain.pop() {
            self.slot(earlier).place = self.next_place;
            self.next_place += 1;
        }
        self.chain = chain;
    }

    fn advance(&mut self) {
        while self.oldest < self.next && self.slot(self.oldest).remaining == 0 {
            if self.slot(self.oldest).place == UNPLACED {
                self.settle(self.oldest);
            }
            self.oldest += 1;
        }
    }

    /// Makes room for one more message: forgets the oldest that are resolved, or takes more memory.
    fn make_room(&mut self) {
        if self.next - self.base < self.slots.len() as u64 {
            return;
        }
        let resolved = self.oldest - self.base;
        if resolved * 2 >= self.slots.len() as u64 && resolved > 0 {
            // A quarter of the ring keeps what others have had already.
            self.base += resolved.div_ceil(2);
            return;
        }
        let length = (self.slots.len() * 2).max(KEPT);
        let mut slots = vec![Slot::default(); length];
        for sequence in self.base..self.next {
            slots[index(sequence, length)] = *self.slot(sequence);
        }
        self.slots = slots;
    }

    #[inline]
    fn slot(&mut self, sequence: u64) -> &mut Slot {
        let length = self.slots.len();
        &mut self.slots[index(sequence, length)]
    }
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "only the low bits choose the slot")]
fn index(sequence: u64, length: usize) -> usize {
    sequence as usize & (length - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(flight: &mut Flight, sequence: u64) -> u64 {
        match flight.arrive(sequence, true) {
            Known::Placed { place, .. } => place,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_publishers_places_are_its_sequences_also_when_one_is_lost_to_all() {
        let mut flight = Flight::default();
        for _ in 0..5 {
            flight.send(1, 2, 0, 0);
        }
        assert_eq!([0, 1, 3, 4].map(|sequence| place(&mut flight, sequence)), [0, 1, 3, 4]);
        assert!(!flight.mixed);
    }

    #[test]
    fn a_message_is_resolved_when_all_it_is_owed_to_have_it() {
        let mut flight = Flight::default();
        let sequence = flight.send(1, 3, 70, 77);
        for first in [true, false] {
            let known = Known::Placed { place: 0, first, due: 70, sent: 77 };
            assert_eq!(flight.arrive(sequence, true), known);
        }
        assert_eq!([0; 4].map(|_| flight.resolve(sequence)), [false, false, true, false]);
        assert_eq!(flight.outstanding(), 0);
    }

    #[test]
    fn several_publishers_get_the_places_of_the_first_to_see_them() {
        let mut flight = Flight::default();
        let a0 = flight.send(1, 2, 0, 0);
        let b0 = flight.send(2, 2, 0, 0);
        let a1 = flight.send(1, 2, 0, 0);
        assert!(flight.mixed);
        assert_eq!(place(&mut flight, b0), 0);
        assert_eq!(place(&mut flight, a1), 2, "behind the earlier message of the same publisher");
        assert_eq!(place(&mut flight, a0), 1);
    }

    #[test]
    fn taking_turns_without_overlap_keeps_places_and_sequences_the_same() {
        let mut flight = Flight::default();
        for round in 0..100 {
            let sequence = flight.send(round % 7, 1, 0, 0);
            assert_eq!(place(&mut flight, sequence), sequence);
            assert!(flight.resolve(sequence));
        }
        assert!(!flight.mixed);
    }

    #[test]
    fn what_was_never_sent_and_what_is_long_past_are_told_apart() {
        let mut flight = Flight::default();
        assert_eq!(flight.arrive(0, true), Known::Never);
        for _ in 0..1000 {
            let sequence = flight.send(1, 1, 0, 0);
            flight.arrive(sequence, true);
            flight.resolve(sequence);
        }
        assert_eq!(flight.arrive(3, true), Known::Past { place: Some(3) });
        assert_eq!(flight.arrive(1000, true), Known::Never);
        assert!(matches!(flight.arrive(998, true), Known::Placed { first: false, .. }));
        assert!(flight.slots.len() <= 2 * KEPT, "memory follows what is outstanding");
    }

    #[test]
    fn any_number_may_be_outstanding() {
        let mut flight = Flight::default();
        for _ in 0..10_000 {
            flight.send(1, 1, 0, 0);
        }
        let mut receiver = Receiver::default();
        receiver.record(9_994);
        assert_eq!(flight.owed(9_990, &receiver).len(), 10, "nobody has seen any of them");
        for sequence in 0..10_000 {
            assert_eq!(place(&mut flight, sequence), sequence);
        }
        assert_eq!(flight.owed(9_990, &receiver).len(), 5);
        assert_eq!(flight.at_places(10..12, 0), [(10, 10), (11, 11)]);
        assert_eq!(flight.at_places(10..12, 11), [(11, 11)]);
        assert_eq!(flight.outstanding(), 10_000);
    }
}
