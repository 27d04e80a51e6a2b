//! What one receiver has got of one audience's messages: loss, duplicates and reordering.

use std::collections::BTreeSet;

/// The places in the audience's order that a receiver has seen.
///
/// Invariant: once it has begun, every place from its first up to `next` was seen, or is in `missing`.
#[derive(Debug, Default)]
pub(crate) struct Receiver {
    /// The place that is expected next; 0 before the first message, and one more than the place after it.
    next: u64,
    missing: BTreeSet<u64>,
    /// Sequences that came before places could be told.
    early: BTreeSet<u64>,
}

/// What the arrival of one message says about the order of delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// The one that was expected.
    Next,
    /// The first of all.
    Begin,
    /// Those in `lost` were passed over; the one after them arrived.
    Ahead { lost: std::ops::Range<u64> },
    /// One that had been passed over arrived late.
    Late,
    /// It had been seen already.
    Duplicate,
}

impl Receiver {
    /// The place that is expected next, or `None` before the first message.
    pub(crate) fn expected(&self) -> Option<u64> {
        self.next.checked_sub(1)
    }

    /// Places before the first message that had been owed all the same.
    pub(crate) fn missed(&mut self, places: impl IntoIterator<Item = u64>) {
        self.missing.extend(places);
    }

    /// A `gap` has named these places: they do not count as lost.
    pub(crate) fn forgive(&mut self, places: &std::ops::Range<u64>) {
        self.missing.retain(|place| !places.contains(place));
    }

    /// What comes next is the first again, as after leaving and entering the room.
    pub(crate) fn restart(&mut self) {
        self.next = 0;
        self.early.clear();
    }

    /// A message came whose place cannot be told; returns whether it is the first time.
    pub(crate) fn note(&mut self, sequence: u64) -> bool {
        self.early.insert(sequence)
    }

    pub(crate) fn has_noted(&self, sequence: u64) -> bool {
        self.early.contains(&sequence)
    }

    /// How many were passed over and never arrived.
    pub(crate) fn lost(&self) -> u64 {
        self.missing.len() as u64
    }

    #[inline]
    pub(crate) fn record(&mut self, place: u64) -> Arrival {
        if place + 1 == self.next {
            self.next = place + 2;
            return Arrival::Next;
        }
        self.record_out_of_order(place)
    }

    #[cold]
    fn record_out_of_order(&mut self, place: u64) -> Arrival {
        let Some(expected) = self.expected() else {
            self.next = place + 2;
            return Arrival::Begin;
        };
        if place > expected {
            let lost = expected..place;
            self.next = place + 2;
            self.missing.extend(lost.clone());
            return Arrival::Ahead { lost };
        }
        let was_missing = self.missing.remove(&place);
        if was_missing { Arrival::Late } else { Arrival::Duplicate }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_in_order_are_expected_from_whatever_comes_first() {
        for first in [0, 7] {
            let mut receiver = Receiver::default();
            assert_eq!((receiver.expected(), receiver.record(first)), (None, Arrival::Begin));
            assert!((first + 1..100).all(|place| receiver.record(place) == Arrival::Next));
            assert_eq!((receiver.expected(), receiver.lost()), (Some(100), 0));
        }
    }

    #[test]
    fn a_hole_counts_as_loss_until_it_is_filled_or_forgiven() {
        let mut receiver = Receiver::default();
        receiver.record(0);
        assert_eq!(receiver.record(4), Arrival::Ahead { lost: 1..4 });
        assert_eq!(receiver.lost(), 3);
        assert_eq!(receiver.record(2), Arrival::Late);
        assert_eq!(receiver.lost(), 2);
        assert_eq!(receiver.record(5), Arrival::Next);
        receiver.forgive(&(3..4));
        assert_eq!(receiver.lost(), 1);
    }

    #[test]
    fn what_had_been_owed_before_the_first_message_counts_as_lost() {
        let mut receiver = Receiver::default();
        receiver.record(7);
        receiver.missed(5..7);
        assert_eq!((receiver.lost(), receiver.record(6)), (2, Arrival::Late));
    }

    #[test]
    fn what_was_seen_is_a_duplicate_also_when_it_came_late() {
        let mut receiver = Receiver::default();
        let arrivals = [0, 0, 2, 1, 1, 2].map(|place| receiver.record(place));
        assert_eq!(arrivals[..2], [Arrival::Begin, Arrival::Duplicate]);
        assert_eq!(arrivals[3], Arrival::Late);
        assert_eq!(arrivals[4..], [Arrival::Duplicate, Arrival::Duplicate]);
    }
}
