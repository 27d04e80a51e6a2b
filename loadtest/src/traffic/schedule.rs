//! When messages are due in an open loop: the plan goes on whether or not the server keeps up, so that a stall shows.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Arrivals {
    /// Evenly spaced.
    #[default]
    Constant,
    /// Independent of each other, as of very many users.
    Poisson,
}

/// A plan of moments, in nanoseconds of the run's clock.
#[derive(Debug)]
pub(crate) struct Schedule {
    interval: f64,
    next: f64,
    arrivals: Arrivals,
}

impl Schedule {
    /// `rate` moments a second from `start` on.
    pub(crate) fn new(rate: f64, arrivals: Arrivals, start: u64) -> Self {
        debug_assert!(rate > 0.0, "a rate of 0 is no schedule");
        #[expect(clippy::cast_precision_loss, reason = "exact up to 104 days")]
        let next = start as f64;
        Self { interval: 1e9 / rate, next, arrivals }
    }

    /// The moment that is due next.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "never negative, below 2^63")]
    pub(crate) fn next(&self) -> u64 {
        self.next as u64
    }

    /// Moves the whole plan: the load test itself has paused for so long.
    pub(crate) fn postpone(&mut self, nanos: u64) {
        #[expect(clippy::cast_precision_loss, reason = "exact up to 104 days")]
        let nanos = nanos as f64;
        self.next += nanos;
    }

    /// About how many moments have come that nobody has taken.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "never negative, below 2^63")]
    pub(crate) fn behind(&self, now: u64) -> u64 {
        let late = now.checked_sub(self.next());
        #[expect(clippy::cast_precision_loss, reason = "exact up to 104 days")]
        late.map_or(0, |late| (late as f64 / self.interval) as u64 + 1)
    }

    /// Takes one moment that has come; call it until `None`.
    pub(crate) fn take(&mut self, now: u64, random: &mut fastrand::Rng) -> Option<u64> {
        let due = self.next();
        if due > now {
            return None;
        }
        self.next += match self.arrivals {
            Arrivals::Constant => self.interval,
            // 1 - x is never 0, so that the logarithm is finite.
            Arrivals::Poisson => -(1.0 - random.f64()).ln() * self.interval,
        };
        Some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(arrivals: Arrivals, seed: u64, until: u64) -> Vec<u64> {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut schedule = Schedule::new(1000.0, arrivals, 5_000_000_000);
        std::iter::from_fn(|| schedule.take(until, &mut random)).collect()
    }

    #[test]
    fn a_stall_makes_up_all_that_was_due_meanwhile() {
        let late = moments(Arrivals::Constant, 1, 5_999_999_999);
        assert_eq!((late.len(), late[0], late[1]), (1000, 5_000_000_000, 5_001_000_000));
    }

    #[test]
    fn what_nobody_has_taken_is_known() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut schedule = Schedule::new(1000.0, Arrivals::Constant, 5_000_000_000);
        let behind = [4, 5, 6].map(|seconds| schedule.behind(seconds * 1_000_000_000));
        assert_eq!(behind, [0, 1, 1001]);
        schedule.take(6_000_000_000, &mut random);
        assert_eq!(schedule.behind(6_000_000_000), 1000);
    }

    #[test]
    fn poisson_arrivals_keep_the_rate_and_the_seed_repeats_them() {
        let one = moments(Arrivals::Poisson, 1, 15_000_000_000);
        assert!((9_600..10_400).contains(&one.len()), "{}", one.len());
        assert_eq!(one, moments(Arrivals::Poisson, 1, 15_000_000_000));
        assert_ne!(one, moments(Arrivals::Poisson, 2, 15_000_000_000));
        assert!(one.is_sorted());
    }
}
