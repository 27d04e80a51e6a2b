//! When the keys are read next, pure. All times are in nanoseconds of the gateway's clock.

use std::time::Duration;

/// Between two readings that tokens with an unknown key bring about: anybody can make up such tokens.
pub(super) const EARLY_INTERVAL_MIN: Duration = Duration::from_secs(30);
/// The pause after the first failure; it doubles with each that follows.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// The longest pause after a failure, where `refresh` is not shorter.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Says when to read.
#[derive(Debug)]
pub(super) struct Schedule {
    refresh: Duration,
    due: u64,
    /// In a row.
    failures: u32,
    /// When the last early reading was due.
    early_at: Option<u64>,
}

impl Schedule {
    /// Due at once, and then each `refresh`.
    pub(super) fn new(refresh: Duration) -> Self {
        Self { refresh, due: 0, failures: 0, early_at: None }
    }

    /// Whether it is time.
    pub(super) fn is_due(&self, now: u64) -> bool {
        now >= self.due
    }

    /// The keys were read at `now`.
    pub(super) fn succeeded(&mut self, now: u64) {
        self.failures = 0;
        self.due = after(now, self.refresh);
    }

    /// The keys could not be read at `now`.
    pub(super) fn failed(&mut self, now: u64) {
        let pause = RETRY_FIRST.saturating_mul(1 << self.failures.min(16)).min(RETRY_MAX);
        self.failures = self.failures.saturating_add(1);
        self.due = after(now, pause.min(self.refresh));
    }

    /// A token came with a key that is not known: the next reading is brought forward, but to no less than
    /// [`EARLY_INTERVAL_MIN`] after the last that was.
    pub(super) fn bring_forward(&mut self, now: u64) {
        let at = self.early_at.map_or(now, |early_at| now.max(after(early_at, EARLY_INTERVAL_MIN)));
        if at < self.due {
            self.due = at;
            self.early_at = Some(at);
        }
    }
}

fn after(now: u64, pause: Duration) -> u64 {
    now.saturating_add(u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn is_due_at_once_and_then_each_refresh() {
        let mut schedule = Schedule::new(Duration::from_secs(300));
        assert!(schedule.is_due(0));

        schedule.succeeded(SECOND);

        assert_eq!(first_due(&schedule), 301);
    }

    #[test]
    fn waits_longer_after_each_failure_and_never_longer_than_to_the_next_refresh() {
        let pauses = |refresh| {
            let mut schedule = Schedule::new(Duration::from_secs(refresh));
            let pause = |_| {
                schedule.failed(0);
                first_due(&schedule)
            };
            (0..100).map(pause).collect::<Vec<_>>()
        };

        assert_eq!(pauses(300)[..7], [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(pauses(300)[99], 30);
        assert_eq!(pauses(2)[..3], [1, 2, 2]);
    }

    #[test]
    fn begins_with_the_short_pause_again_after_a_success() {
        let mut schedule = Schedule::new(Duration::from_secs(300));
        schedule.failed(0);
        schedule.failed(0);
        schedule.succeeded(0);

        schedule.failed(0);

        assert_eq!(first_due(&schedule), 1);
    }

    #[test]
    fn unknown_keys_bring_a_reading_forward_at_once_but_not_twice_in_thirty_seconds() {
        let mut schedule = Schedule::new(Duration::from_secs(300));
        schedule.succeeded(0);
        schedule.bring_forward(5 * SECOND);
        assert_eq!(first_due(&schedule), 5);
        schedule.succeeded(5 * SECOND);

        for at in 6..30 {
            schedule.bring_forward(at * SECOND);
            assert_eq!(first_due(&schedule), 35, "at {at}");
        }

        schedule.succeeded(35 * SECOND);
        schedule.bring_forward(36 * SECOND);
        assert_eq!(first_due(&schedule), 65);
        schedule.succeeded(65 * SECOND);
        schedule.bring_forward(200 * SECOND);
        assert_eq!(first_due(&schedule), 200);
    }

    #[test]
    fn unknown_keys_never_put_a_reading_off() {
        let mut schedule = Schedule::new(Duration::from_secs(2));
        schedule.succeeded(0);
        schedule.bring_forward(SECOND);
        schedule.succeeded(SECOND);

        schedule.bring_forward(SECOND);

        assert_eq!(first_due(&schedule), 3);
    }

    fn first_due(schedule: &Schedule) -> u64 {
        (0..1000).find(|second| schedule.is_due(second * SECOND)).unwrap()
    }
}
