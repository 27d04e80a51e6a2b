//! The closed loop of one publisher: so many messages outstanding, and no more.

/// The messages of one publisher that some member has not got yet.
///
/// Invariant: the numbers in `oldest..next` are outstanding, at most `limit` of them, and
/// each has its own slot.
#[derive(Debug)]
pub(crate) struct Window {
    slots: Vec<Slot>,
    oldest: u64,
    next: u64,
    limit: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    remaining: u32,
    of: u32,
    sent: u64,
}

/// One member got one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Receipt {
    /// When it was sent, in nanoseconds.
    pub(crate) sent: u64,
    /// Nobody had got it before.
    pub(crate) first: bool,
    /// Everybody has got it now.
    pub(crate) last: bool,
}

impl Window {
    /// A window that lets one message out; see [`Self::open`].
    pub(crate) fn new(size: u32) -> Self {
        let slots = vec![Slot::default(); size.next_power_of_two() as usize];
        Self { slots, oldest: 0, next: 0, limit: 1 }
    }

    /// Opens the window to this many messages, at most the size it was made with.
    pub(crate) fn open(&mut self, limit: u32) {
        self.limit = u64::from(limit).min(self.slots.len() as u64);
    }

    /// The number of the next message to be sent.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    pub(crate) fn outstanding(&self) -> u64 {
        self.next - self.oldest
    }

    pub(crate) fn has_room(&self) -> bool {
        self.outstanding() < self.limit
    }

    /// Counts a message as sent to so many members, and returns its number.
    pub(crate) fn send(&mut self, members: u32, sent: u64) -> u64 {
        debug_assert!(self.has_room() && members > 0, "the caller asks for room first");
        let sequence = self.next;
        self.next += 1;
        *self.slot(sequence) = Slot { remaining: members, of: members, sent };
        sequence
    }

    /// Counts a message as received by one member; `None` when it is not outstanding.
    #[inline]
    pub(crate) fn receive(&mut self, sequence: u64) -> Option<Receipt> {
        if sequence < self.oldest || sequence >= self.next {
            return None;
        }
        let slot = self.slot(sequence);
        if slot.remaining == 0 {
            return None;
        }
        let first = slot.remaining == slot.of;
        slot.remaining -= 1;
        let receipt = Receipt { sent: slot.sent, first, last: slot.remaining == 0 };
        if receipt.last {
            self.close_done();
        }
        Some(receipt)
    }

    fn close_done(&mut self) {
        while self.oldest < self.next && self.slot(self.oldest).remaining == 0 {
            self.oldest += 1;
        }
    }

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "only the low bits choose the slot")]
    fn slot(&mut self, sequence: u64) -> &mut Slot {
        let mask = self.slots.len() - 1;
        &mut self.slots[sequence as usize & mask]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lets_one_out_until_it_is_opened() {
        let mut window = Window::new(4);
        assert_eq!(window.send(1, 0), 0);
        assert!(!window.has_room());
        window.open(3);
        assert_eq!((window.send(1, 0), window.send(1, 0)), (1, 2));
        assert!(!window.has_room());
    }

    #[test]
    fn a_message_is_done_when_all_members_have_it() {
        let mut window = Window::new(1);
        let sequence = window.send(3, 77);
        let receipts: Vec<_> = (0..4).map(|_| window.receive(sequence)).collect();
        assert_eq!(receipts[0], Some(Receipt { sent: 77, first: true, last: false }));
        assert_eq!(receipts[1], Some(Receipt { sent: 77, first: false, last: false }));
        assert_eq!(receipts[2], Some(Receipt { sent: 77, first: false, last: true }));
        assert_eq!(receipts[3], None);
        assert!(window.has_room());
    }

    #[test]
    fn done_out_of_order_still_holds_the_slot_of_the_oldest() {
        let mut window = Window::new(2);
        window.open(2);
        window.send(1, 0);
        window.send(1, 0);
        assert!(window.receive(1).is_some_and(|receipt| receipt.last));
        assert_eq!((window.outstanding(), window.has_room()), (2, false));
        assert!(window.receive(0).is_some());
        assert_eq!((window.outstanding(), window.has_room()), (0, true));
    }

    #[test]
    fn what_was_never_sent_is_not_counted() {
        let mut window = Window::new(8);
        assert_eq!(window.receive(0), None);
        window.send(1, 0);
        assert_eq!(window.receive(1), None);
        assert_eq!(window.receive(u64::MAX), None);
    }
}
