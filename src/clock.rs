//! Where drivers read the time.

use std::time::{Duration, Instant, SystemTime};

/// The gateway's monotonic time, as nanoseconds since it started.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// Starts at 0. One for the whole process, so that its times can be compared.
    #[expect(clippy::disallowed_methods, reason = "the one place where drivers read the clock")]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Nanoseconds since the start.
    #[expect(clippy::cast_possible_truncation, reason = "584 years")]
    pub fn now(&self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }

    /// Seconds since the Unix epoch; the wall clock, which may step.
    pub fn unix() -> u64 {
        Self::since_epoch().as_secs()
    }

    /// As [`Clock::unix`], with the fraction.
    #[expect(clippy::disallowed_methods, reason = "the one place where drivers read the clock")]
    pub fn since_epoch() -> Duration {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
    }
}
