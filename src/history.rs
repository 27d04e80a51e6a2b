//! The last publications of a room, for those who come back and for those who look back.
//!
//! Pure: what is kept is of any type, its size and the time are told with it. Offsets are not stored, since those that are
//! kept have no hole: a publication that cannot be kept takes all before it with it.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// What a history keeps at most. A publication that passes any of these bounds drops the oldest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// So many publications; at least 1.
    pub messages: usize,
    /// Each for so long, to the next look, which comes every second.
    pub age: Duration,
    /// So many bytes, with [`ENTRY_BYTES`] for each publication.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { messages: 1000, age: Duration::from_secs(600), bytes: 1 << 20 }
    }
}

/// What a publication costs besides its own bytes: its entry here, and the head and rounding of its allocation.
pub const ENTRY_BYTES: usize = 96;

/// What a room costs that is kept for its history while nobody is in it.
pub const ROOM_BYTES: usize = 1024;

/// The bytes of all histories of the process, against their bound; cheap to clone.
#[derive(Clone, Debug)]
pub struct Budget {
    limit: usize,
    shared: Arc<Sums>,
}

#[derive(Debug, Default)]
struct Sums {
    bytes: AtomicUsize,
    messages: AtomicUsize,
}

impl Budget {
    /// Nothing of it taken.
    pub fn new(limit: usize) -> Self {
        Self { limit, shared: Arc::default() }
    }

    /// The bound.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// What is taken, in bytes.
    pub fn bytes(&self) -> usize {
        self.shared.bytes.load(Ordering::Relaxed)
    }

    /// How many publications are kept.
    pub fn messages(&self) -> usize {
        self.shared.messages.load(Ordering::Relaxed)
    }

    /// Whether more is taken than the bound allows.
    pub fn is_exceeded(&self) -> bool {
        self.bytes() > self.limit
    }

    /// Whether so little is taken that something can be kept which is of little use.
    pub fn has_plenty(&self) -> bool {
        self.bytes() <= self.limit / 4
    }

    /// Counts what is taken and what is given back at once; in a full history of equal messages that is nothing.
    fn exchange(&self, taken: (usize, usize), given: (usize, usize)) {
        for (sum, taken, given) in
            [(&self.shared.bytes, taken.0, given.0), (&self.shared.messages, taken.1, given.1)]
        {
            if taken > given {
                sum.fetch_add(taken - given, Ordering::Relaxed);
            } else if given > taken {
                sum.fetch_sub(given - taken, Ordering::Relaxed);
            }
        }
    }
}

/// The last publications of one room, the oldest first.
///
/// Invariant: the budget has exactly the bytes and messages of all histories, and [`ROOM_BYTES`] for each that is alone.
#[derive(Debug)]
pub struct History<T> {
    entries: VecDeque<Entry<T>>,
    /// The offset of the newest publication, kept or not.
    last: u64,
    bytes: usize,
    /// Whether nobody is in the room, so that it is kept for this alone.
    is_alone: bool,
    limits: Limits,
    budget: Budget,
}

/// What was kept of a history, which takes a while to be freed.
#[derive(Debug)]
#[must_use = "to be dropped where nobody waits"]
pub struct Forgotten<T>(#[expect(dead_code, reason = "only to be dropped")] VecDeque<Entry<T>>);

#[derive(Debug)]
struct Entry<T> {
    publication: T,
    bytes: usize,
    /// When it was published, in nanoseconds.
    at: u64,
}

impl<T> History<T> {
    /// A history that begins behind the publication with this offset, of a room with members.
    pub fn new(last: u64, limits: Limits, budget: Budget) -> Self {
        Self { entries: VecDeque::new(), last, bytes: 0, is_alone: false, limits, budget }
    }

    /// From here on nobody is in the room, or somebody is.
    pub fn set_alone(&mut self, is_alone: bool) {
        let charge = |is_alone| if is_alone { (ROOM_BYTES, 0) } else { (0, 0) };
        self.budget.exchange(charge(is_alone), charge(self.is_alone));
        self.is_alone = is_alone;
    }

    /// Adds the next publication, of `bytes` bytes, at `now` nanoseconds, and drops what the bounds no longer allow. When all
    /// histories together have too much, this one keeps less.
    pub fn push(&mut self, publication: T, bytes: usize, now: u64) {
        let bytes = bytes + ENTRY_BYTES;
        self.last += 1;
        self.bytes += bytes;
        self.entries.push_back(Entry { publication, bytes, at: now });
        let mut freed = (0, 0);
        while self.entries.len() > self.limits.messages || self.bytes > self.limits.bytes {
            let dropped = self.drop_oldest();
            freed = (freed.0 + dropped, freed.1 + 1);
        }
        self.budget.exchange((bytes, 1), freed);
        while self.budget.is_exceeded() && !self.entries.is_empty() {
            self.free_oldest();
        }
        self.drop_aged(now);
    }

    /// Counts a publication that cannot be kept, and forgets those before it.
    pub fn skip(&mut self) {
        self.last += 1;
        drop(self.clear());
    }

    /// Drops what is too old at `now` nanoseconds.
    pub fn drop_aged(&mut self, now: u64) {
        let age = u64::try_from(self.limits.age.as_nanos()).unwrap_or(u64::MAX);
        while self.entries.front().is_some_and(|entry| now.saturating_sub(entry.at) > age) {
            self.free_oldest();
        }
        // A burst must not keep its memory for ever.
        if self.entries.capacity() > 64 && self.entries.capacity() / 4 > self.entries.len() {
            self.entries.shrink_to(self.entries.len() * 2);
        }
    }

    /// Forgets all that is kept.
    pub fn clear(&mut self) -> Forgotten<T> {
        self.budget.exchange((0, 0), (self.bytes, self.entries.len()));
        self.bytes = 0;
        Forgotten(mem::take(&mut self.entries))
    }

    /// Goes on with other bounds.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
        while self.entries.len() > limits.messages || self.bytes > limits.bytes {
            self.free_oldest();
        }
    }

    /// How long publications are kept.
    pub fn age(&self) -> Duration {
        self.limits.age
    }

    /// How many are kept.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What they take, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The offset of the oldest that is kept; one more than that of the newest when none is.
    pub fn first(&self) -> u64 {
        self.last + 1 - self.entries.len() as u64
    }

    /// Whether everything behind this offset is kept.
    pub fn reaches(&self, offset: u64) -> bool {
        offset <= self.last && offset + 1 >= self.first()
    }

    /// What is kept behind this offset, oldest first, each with its offset.
    pub fn after(&self, offset: u64) -> impl Iterator<Item = (u64, &T)> {
        let first = self.first();
        let skipped = (offset + 1).saturating_sub(first).min(self.entries.len() as u64);
        let from = usize::try_from(skipped).unwrap_or(usize::MAX);
        (first + skipped..).zip(self.entries.range(from..).map(|entry| &entry.publication))
    }

    /// The offset behind which the last `count` that are kept are all there is.
    pub fn before_last(&self, count: usize) -> u64 {
        self.last - self.entries.len().min(count) as u64
    }

    fn free_oldest(&mut self) {
        let bytes = self.drop_oldest();
        self.budget.exchange((0, 0), (bytes, 1));
    }

    /// What is dropped, in bytes, which the budget still has.
    fn drop_oldest(&mut self) -> usize {
        let bytes = self.entries.pop_front().map_or(0, |entry| entry.bytes);
        self.bytes -= bytes;
        bytes
    }
}

impl<T> Drop for History<T> {
    fn drop(&mut self) {
        drop(self.clear());
        self.set_alone(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn keeps_the_newest_and_knows_their_offsets() {
        let mut history = history(Limits { messages: 3, ..Limits::default() });
        for number in 1..=5 {
            history.push(number, 10, 0);
        }

        assert_eq!(history.first(), 3);
        assert_eq!(after(&history, 0), [(3, 3), (4, 4), (5, 5)]);
        assert_eq!(after(&history, 3), [(4, 4), (5, 5)]);
        assert_eq!(after(&history, 5), []);
        assert_eq!(after(&history, 99), []);
    }

    #[test]
    fn reaches_back_to_the_one_before_the_oldest_and_no_further_nor_into_the_future() {
        let mut history = history(Limits { messages: 3, ..Limits::default() });
        assert!(history.reaches(0) && !history.reaches(1));
        for number in 1..=5 {
            history.push(number, 10, 0);
        }
        let reached: Vec<_> = (0..8).filter(|offset| history.reaches(*offset)).collect();
        assert_eq!(reached, [2, 3, 4, 5]);
    }

    #[test]
    fn is_bounded_by_bytes_and_keeps_nothing_larger_than_the_bound() {
        let mut history = history(Limits { bytes: 3 * (ENTRY_BYTES + 10), ..Limits::default() });
        for number in 1..=5 {
            history.push(number, 10, 0);
        }
        assert_eq!(after(&history, 0), [(3, 3), (4, 4), (5, 5)]);
        history.push(6, 1000, 0);
        assert!(history.is_empty() && !history.reaches(5) && history.reaches(6));
    }

    #[test]
    fn forgets_what_is_too_old() {
        let mut history = history(Limits { age: Duration::from_secs(10), ..Limits::default() });
        history.push(1, 10, 0);
        history.push(2, 10, 5 * SECOND);
        history.drop_aged(10 * SECOND);
        assert_eq!(history.len(), 2);
        history.push(3, 10, 12 * SECOND);
        assert_eq!(after(&history, 0), [(2, 2), (3, 3)]);
        history.drop_aged(30 * SECOND);
        assert!(history.is_empty() && history.reaches(3));
    }

    #[test]
    fn what_cannot_be_kept_leaves_no_hole() {
        let mut history = history(Limits::default());
        history.push(1, 10, 0);
        history.skip();
        history.push(3, 10, 0);
        assert_eq!(after(&history, 0), [(3, 3)]);
        assert!(!history.reaches(1) && history.reaches(2));
    }

    #[test]
    fn tells_where_the_last_few_begin() {
        let mut history = history(Limits::default());
        assert_eq!(history.before_last(10), 0);
        for number in 1..=5 {
            history.push(number, 10, 0);
        }
        assert_eq!((history.before_last(2), history.before_last(10)), (3, 0));
    }

    #[test]
    fn the_budget_counts_all_histories_and_makes_those_that_grow_keep_less() {
        let budget = Budget::new(4 * (ENTRY_BYTES + 10));
        let mut loud = History::new(0, Limits::default(), budget.clone());
        let mut quiet = History::new(0, Limits::default(), budget.clone());
        for number in 1..=2 {
            quiet.push(number, 10, 0);
        }
        for number in 1..=20 {
            loud.push(number, 10, 0);
        }

        assert!(!budget.is_exceeded());
        assert_eq!((quiet.len(), loud.len(), budget.messages()), (2, 2, 4));
        drop(loud);
        drop(quiet);
        assert_eq!((budget.bytes(), budget.messages()), (0, 0));
    }

    #[test]
    fn a_room_costs_something_by_itself_only_while_it_is_alone() {
        let budget = Budget::new(1 << 20);
        let mut room: History<u64> = History::new(0, Limits::default(), budget.clone());
        assert_eq!(budget.bytes(), 0);
        room.set_alone(true);
        room.set_alone(true);
        assert_eq!(budget.bytes(), ROOM_BYTES);
        room.set_alone(false);
        assert_eq!(budget.bytes(), 0);
        room.set_alone(true);
        drop(room);
        assert_eq!(budget.bytes(), 0);
    }

    #[test]
    fn other_bounds_hold_at_once() {
        let mut history = history(Limits::default());
        for number in 1..=5 {
            history.push(number, 10, 0);
        }
        history.set_limits(Limits { messages: 2, ..Limits::default() });
        assert_eq!(after(&history, 0), [(4, 4), (5, 5)]);
    }

    fn history(limits: Limits) -> History<u64> {
        History::new(0, limits, Budget::new(1 << 30))
    }

    fn after(history: &History<u64>, offset: u64) -> Vec<(u64, u64)> {
        history.after(offset).map(|(offset, publication)| (offset, *publication)).collect()
    }
}
