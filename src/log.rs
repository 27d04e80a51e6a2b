//! What lines of the log have in common: how times are written, and that a fault which comes ten thousand times a second does
//! not fill a disk with one line.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The pause between two lines of one kind.
const PAUSE: Duration = Duration::from_secs(10);

/// Lets the first line of its kind through, and then one in ten seconds, with how many were left out.
///
/// One for each place that may have to say the same thing again and again.
#[derive(Debug, Default)]
pub struct Repeats(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// When the last line was let through, in nanoseconds of the gateway's clock.
    said_at: Option<u64>,
    left_out: u64,
}

impl Repeats {
    /// Whether the line may be written at `now` nanoseconds; if so, how many were left out before it.
    pub fn admit(&self, now: u64) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pause = PAUSE.as_nanos();
        if state.said_at.is_some_and(|said_at| u128::from(now.saturating_sub(said_at)) < pause) {
            state.left_out += 1;
            return None;
        }
        state.said_at = Some(now);
        Some(std::mem::take(&mut state.left_out))
    }
}

/// A time as lines tell it: in seconds, to the millisecond.
pub fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lets_one_line_in_ten_seconds_through_and_counts_the_others() {
        let repeats = Repeats::default();
        let second = 1_000_000_000;

        let admitted: Vec<_> = (0..=25).map(|at| repeats.admit(at * second)).collect();

        assert_eq!(admitted[0], Some(0));
        assert_eq!(admitted[10], Some(9));
        assert_eq!(admitted[20], Some(9));
        assert_eq!(admitted.iter().flatten().count(), 3);
    }
}
