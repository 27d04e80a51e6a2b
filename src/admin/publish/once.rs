//! What was published lately with a key by which repeats are known, so that it is not published again.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::super::keys::Caller;
use super::Published;

/// For how long a repeat is known.
const KEPT: Duration = Duration::from_secs(5 * 60);

/// What an entry takes beside its key: two references, their counts, the answer, its time, and free places in both lists.
const ENTRY_BYTES: usize = 192;

/// By what a repeat is known: each caller has keys of its own.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) caller: Caller,
    pub(super) text: Box<str>,
}

/// The answers that were given in the last five minutes to what had a key. When they take more than they may, the oldest are
/// forgotten before their time, which is counted.
#[derive(Debug)]
pub(super) struct Once {
    bytes_max: usize,
    bytes: usize,
    answers: HashMap<Arc<Key>, Published>,
    /// The keys, oldest first, with when they were given; in nanoseconds.
    order: VecDeque<(u64, Arc<Key>)>,
}

impl Once {
    /// Remembers nothing yet, and never more than so many bytes.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, bytes: 0, answers: HashMap::new(), order: VecDeque::new() }
    }

    /// The answer to what was published with this key before.
    pub(super) fn find(&mut self, key: &Key, now: u64) -> Option<Published> {
        self.forget_old(now);
        self.answers.get(key).copied()
    }

    /// Keeps the answer to what has just been published with this key for the first time. Returns how many others are forgotten
    /// before their time.
    pub(super) fn remember(&mut self, key: Key, answer: Published, now: u64) -> u64 {
        let key = Arc::new(key);
        self.bytes += footprint(&key);
        self.order.push_back((now, Arc::clone(&key)));
        self.answers.insert(key, answer);
        let mut forgotten = 0;
        while self.bytes > self.bytes_max && self.forget_oldest() {
            forgotten += 1;
        }
        forgotten
    }

    fn forget_old(&mut self, now: u64) {
        let kept = u64::try_from(KEPT.as_nanos()).unwrap_or(u64::MAX);
        while self.order.front().is_some_and(|(at, _)| now.saturating_sub(*at) >= kept) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) -> bool {
        let Some((_, key)) = self.order.pop_front() else { return false };
        self.bytes -= footprint(&key);
        self.answers.remove(&key);
        if self.order.is_empty() {
            // A burst must not keep its memory for ever.
            (self.answers, self.order) = Default::default();
        }
        true
    }
}

fn footprint(key: &Key) -> usize {
    key.text.len() + ENTRY_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000_000_000;

    fn key(text: &str) -> Key {
        Key { caller: Caller::default(), text: text.into() }
    }

    #[test]
    fn knows_a_repeat_for_five_minutes() {
        let mut once = Once::new(1 << 20);
        once.remember(key("a"), Published::User(1), MINUTE);
        once.remember(key("b"), Published::User(2), 2 * MINUTE);

        assert_eq!(once.find(&key("a"), 6 * MINUTE - 1), Some(Published::User(1)));
        assert_eq!(once.find(&key("a"), 6 * MINUTE), None);
        assert_eq!(once.find(&key("b"), 6 * MINUTE), Some(Published::User(2)));
        assert_eq!(once.find(&key("b"), 7 * MINUTE), None);
        assert_eq!((once.bytes, once.answers.capacity()), (0, 0));
    }

    #[test]
    fn forgets_the_oldest_rather_than_pass_its_bound() {
        let mut once = Once::new(3 * (ENTRY_BYTES + 1));
        let forgotten: Vec<_> =
            ["a", "b", "c", "d"].map(|text| once.remember(key(text), Published::Everyone, 0)).into();

        assert_eq!(forgotten, [0, 0, 0, 1]);
        assert_eq!(once.find(&key("a"), 0), None);
        assert_eq!(once.find(&key("b"), 0), Some(Published::Everyone));
        assert_eq!(once.remember(key(&"x".repeat(1 << 20)), Published::Everyone, 0), 4, "not even itself");
    }
}
