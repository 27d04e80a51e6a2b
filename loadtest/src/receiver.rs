//! What one connection has received: loss, duplicates and reordering, by sequence number.

use std::collections::BTreeSet;

/// The sequence numbers one connection has seen.
///
/// Invariant: every number below `next` was seen, or is in `missing`.
#[derive(Debug, Default)]
pub(crate) struct Receiver {
    next: u64,
    missing: BTreeSet<u64>,
}

/// What the arrival of one message says about the order of delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// The one that was expected.
    Next,
    /// Those in `lost` were passed over; the one after them arrived.
    Ahead { lost: std::ops::Range<u64> },
    /// One that had been passed over arrived late.
    Late,
    /// It had been seen already.
    Duplicate,
}

impl Receiver {
    /// The number that is expected next.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// How many were passed over and never arrived.
    pub(crate) fn lost(&self) -> u64 {
        self.missing.len() as u64
    }

    #[inline]
    pub(crate) fn record(&mut self, sequence: u64) -> Arrival {
        if sequence == self.next {
            self.next += 1;
            return Arrival::Next;
        }
        self.record_out_of_order(sequence)
    }

    #[cold]
    fn record_out_of_order(&mut self, sequence: u64) -> Arrival {
        if sequence > self.next {
            let lost = self.next..sequence;
            self.next = sequence + 1;
            self.missing.extend(lost.clone());
            return Arrival::Ahead { lost };
        }
        let was_missing = self.missing.remove(&sequence);
        if was_missing { Arrival::Late } else { Arrival::Duplicate }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_in_order_are_expected() {
        let mut receiver = Receiver::default();
        assert!((0..100).all(|sequence| receiver.record(sequence) == Arrival::Next));
        assert_eq!((receiver.next(), receiver.lost()), (100, 0));
    }

    #[test]
    fn a_hole_counts_as_loss_until_it_is_filled() {
        let mut receiver = Receiver::default();
        assert_eq!(receiver.record(0), Arrival::Next);
        assert_eq!(receiver.record(3), Arrival::Ahead { lost: 1..3 });
        assert_eq!(receiver.lost(), 2);
        assert_eq!(receiver.record(2), Arrival::Late);
        assert_eq!(receiver.lost(), 1);
        assert_eq!(receiver.record(4), Arrival::Next);
    }

    #[test]
    fn what_was_seen_is_a_duplicate_also_when_it_came_late() {
        let mut receiver = Receiver::default();
        let arrivals = [0, 0, 2, 1, 1, 2].map(|sequence| receiver.record(sequence));
        assert_eq!(arrivals[1], Arrival::Duplicate);
        assert_eq!(arrivals[3], Arrival::Late);
        assert_eq!(arrivals[4..], [Arrival::Duplicate, Arrival::Duplicate]);
    }
}
