//! The deadlines of one shard, in one lazy timing wheel.
//!
//! An entry is 8 bytes and is never moved or removed early: whoever scheduled it keeps the true deadline, and on
//! being woken acts, schedules again, or ignores an entry that has become stale. So touching a connection
//! costs one integer in its owner and nothing here.

use std::time::Duration;

use crate::id::ClientKey;

/// The length of one tick.
pub(super) const TICK: Duration = Duration::from_millis(64);

/// How many ticks ahead the wheel reaches; what is due later is woken at the horizon.
pub(super) const HORIZON_TICKS: u32 = 1024;

/// Which clients are to be woken at which tick.
///
/// Invariant: every entry is due in `now + 1 ..= now + HORIZON_TICKS`, so that a slot holds entries of one tick
/// only, and `occupied` has the bit of a slot set exactly when the slot is not empty.
#[derive(Debug)]
pub(super) struct Wheel {
    slots: Box<[Vec<ClientKey>]>,
    occupied: [u64; WORDS],
    now: u32,
}

impl Default for Wheel {
    fn default() -> Self {
        Self::new()
    }
}

impl Wheel {
    /// A wheel that stands at tick 0.
    pub(super) fn new() -> Self {
        Self { slots: vec![Vec::new(); SLOTS].into_boxed_slice(), occupied: [0; WORDS], now: 0 }
    }

    /// Has `client` woken at tick `at`, and returns the tick at which that is going to be.
    ///
    /// A tick that has passed becomes the next one, and one beyond the horizon becomes the horizon: the owner,
    /// woken early, schedules again. Remembering the returned tick tells later which entry is the valid one.
    pub(super) fn schedule(&mut self, client: ClientKey, at: u32) -> u32 {
        let at = at.clamp(self.now.saturating_add(1), self.now.saturating_add(HORIZON_TICKS));
        let slot = slot_of(at);
        self.slots[slot].push(client);
        self.occupied[slot / 64] |= 1 << (slot % 64);
        at
    }

    /// Moves to tick `to` and appends to `due` every entry up to it, with its tick, earliest first.
    ///
    /// A `to` in the past changes nothing.
    pub(super) fn advance(&mut self, to: u32, due: &mut Vec<(ClientKey, u32)>) {
        while let Some(tick) = self.next_tick().filter(|tick| *tick <= to) {
            let slot = slot_of(tick);
            due.extend(self.slots[slot].drain(..).map(|client| (client, tick)));
            // A crowd that is woken together wanders from slot to slot; what it needed must not stay in each.
            self.slots[slot].shrink_to(SLOT_CAPACITY_KEPT);
            self.occupied[slot / 64] &= !(1 << (slot % 64));
            self.now = tick;
        }
        self.now = self.now.max(to);
    }

    /// The tick of the earliest entry; none when there are no entries.
    pub(super) fn next_tick(&self) -> Option<u32> {
        let first = slot_of(self.now.wrapping_add(1));
        let (word, bit) = (first / 64, first % 64);
        let upper = self.occupied[word] & (u64::MAX << bit);
        if upper != 0 {
            return Some(self.tick_of(word, upper));
        }
        // All the way around: the word begun with comes last again, for its lower bits.
        (1..=WORDS)
            .map(|step| (word + step) % WORDS)
            .find(|word| self.occupied[*word] != 0)
            .map(|word| self.tick_of(word, self.occupied[word]))
    }

    /// The tick up to which the wheel has advanced.
    pub(super) fn now(&self) -> u32 {
        self.now
    }

    fn tick_of(&self, word: usize, bits: u64) -> u32 {
        let first = slot_of(self.now.wrapping_add(1));
        let slot = word * 64 + bits.trailing_zeros() as usize;
        let ahead = (slot + SLOTS - first) % SLOTS;
        self.now.saturating_add(1).saturating_add(u32::try_from(ahead).unwrap_or(HORIZON_TICKS - 1))
    }
}

/// The last tick that has begun when `elapsed` has passed since tick 0; what to advance to.
pub(super) fn ticks_passed(elapsed: Duration) -> u32 {
    u32::try_from(elapsed.as_millis() / TICK.as_millis()).unwrap_or(u32::MAX)
}

/// The first tick that begins no earlier than `elapsed` after tick 0; what to schedule a deadline at.
pub(super) fn tick_at_or_after(elapsed: Duration) -> u32 {
    u32::try_from(elapsed.as_nanos().div_ceil(TICK.as_nanos())).unwrap_or(u32::MAX)
}

fn slot_of(tick: u32) -> usize {
    tick as usize % SLOTS
}

const SLOTS: usize = HORIZON_TICKS as usize;
const WORDS: usize = SLOTS / 64;
const SLOT_CAPACITY_KEPT: usize = 16;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use slotmap::SlotMap;

    use super::*;

    #[test]
    fn wakes_at_the_tick_and_not_before() {
        let (mut wheel, clients) = (Wheel::new(), clients(1));

        assert_eq!(wheel.schedule(clients[0], 10), 10);

        assert_eq!(wheel.next_tick(), Some(10));
        assert_eq!(advance(&mut wheel, 9), []);
        assert_eq!(advance(&mut wheel, 10), [(clients[0], 10)]);
        assert_eq!(wheel.next_tick(), None);
        assert_eq!(advance(&mut wheel, 5000), []);
    }

    #[test]
    fn a_tick_that_has_passed_becomes_the_next_one() {
        let (mut wheel, clients) = (Wheel::new(), clients(1));
        advance(&mut wheel, 100);

        assert_eq!(wheel.schedule(clients[0], 7), 101);
    }

    #[test]
    fn a_far_deadline_is_woken_at_the_horizon() {
        let (mut wheel, clients) = (Wheel::new(), clients(1));
        advance(&mut wheel, 100);

        assert_eq!(wheel.schedule(clients[0], u32::MAX), 100 + HORIZON_TICKS);
        assert_eq!(advance(&mut wheel, 100 + HORIZON_TICKS), [(clients[0], 100 + HORIZON_TICKS)]);
    }

    #[test]
    fn a_late_advance_wakes_all_that_was_due_in_order() {
        let (mut wheel, clients) = (Wheel::new(), clients(3));
        wheel.schedule(clients[0], 1024);
        wheel.schedule(clients[1], 1);
        wheel.schedule(clients[2], 64);

        let due = advance(&mut wheel, 1_000_000);

        assert_eq!(due, [(clients[1], 1), (clients[2], 64), (clients[0], 1024)]);
        assert_eq!(wheel.now(), 1_000_000);
    }

    #[test]
    fn a_crowd_leaves_no_memory_behind() {
        let (mut wheel, clients) = (Wheel::new(), clients(10_000));
        for client in clients {
            wheel.schedule(client, 3);
        }

        advance(&mut wheel, 3);

        assert!(wheel.slots[3].capacity() <= SLOT_CAPACITY_KEPT);
    }

    #[test]
    fn a_deadline_is_rounded_up_and_the_present_down() {
        assert_eq!(ticks_passed(Duration::from_millis(127)), 1);
        assert_eq!(ticks_passed(Duration::from_millis(128)), 2);
        assert_eq!(tick_at_or_after(Duration::from_millis(128)), 2);
        assert_eq!(tick_at_or_after(Duration::from_micros(128_001)), 3);
    }

    proptest! {
        #[test]
        fn wakes_what_a_sorted_list_would(steps in prop::collection::vec((any::<bool>(), 0_u32..1500), 1..200)) {
            let (mut wheel, clients) = (Wheel::new(), clients(steps.len()));
            let mut waiting: Vec<(u32, ClientKey)> = Vec::new();
            for ((is_schedule, ticks), client) in steps.into_iter().zip(clients) {
                let tick = wheel.now() + ticks;
                if is_schedule {
                    let at = wheel.schedule(client, tick);
                    prop_assert_eq!(at, tick.clamp(wheel.now() + 1, wheel.now() + HORIZON_TICKS));
                    waiting.push((at, client));
                } else {
                    waiting.sort_by_key(|(at, _)| *at);
                    let split = waiting.partition_point(|(at, _)| *at <= tick);
                    let expected: Vec<_> = waiting.drain(..split).map(|(at, client)| (client, at)).collect();
                    prop_assert_eq!(advance(&mut wheel, tick), expected);
                }
                prop_assert_eq!(wheel.next_tick(), waiting.iter().map(|(at, _)| *at).min());
            }
        }
    }

    fn advance(wheel: &mut Wheel, to: u32) -> Vec<(ClientKey, u32)> {
        let mut due = Vec::new();
        wheel.advance(to, &mut due);
        due
    }

    fn clients(count: usize) -> Vec<ClientKey> {
        let mut slab = SlotMap::with_key();
        (0..count).map(|_| slab.insert(())).collect()
    }
}
