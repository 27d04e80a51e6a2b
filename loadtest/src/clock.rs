//! The one place where the clock is read.

use std::time::{Duration, Instant, SystemTime};

/// Nanoseconds since the start of the run, on the monotonic clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: Instant,
    started: SystemTime,
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "the load test's one reading of the clocks")]
    pub(crate) fn start() -> Self {
        Self { start: Instant::now(), started: SystemTime::now() }
    }

    /// When the run began, on the wall clock.
    pub(crate) fn started(&self) -> SystemTime {
        self.started
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    pub(crate) fn nanos(&self) -> u64 {
        u64::try_from(self.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}
