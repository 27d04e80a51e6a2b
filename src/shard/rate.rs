//! How much one client may say in a second: token buckets, filled by the passing of time.

/// What a client may say, over time; what is not set is not bounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Messages in a second.
    pub messages: Option<usize>,
    /// Their bytes in a second, decompressed.
    pub bytes: Option<usize>,
}

/// So many seconds' worth may come at once, after silence.
const BURST_SECONDS: f64 = 2.0;

/// What one client may say at the moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Buckets {
    messages: f64,
    bytes: f64,
    /// When they were last filled, in nanoseconds of the gateway's clock.
    filled_at: u64,
    /// Messages that were too many since the last that was not.
    refused: u16,
}

impl Rates {
    pub(super) fn is_any(&self) -> bool {
        self.messages.is_some() || self.bytes.is_some()
    }
}

impl Buckets {
    /// Those of a client that has said nothing by `now`.
    pub(super) fn full(rates: &Rates, now: u64) -> Self {
        Self { messages: most(rates.messages), bytes: most(rates.bytes), filled_at: now, refused: 0 }
    }

    /// Takes a message of so many bytes; `Err` when it is too much, with how many were in a row.
    ///
    /// A message that is larger than what a second allows passes when the bucket is not empty, and is paid for by later ones.
    pub(super) fn take(&mut self, rates: &Rates, bytes: usize, now: u64) -> Result<(), u16> {
        let seconds = std::time::Duration::from_nanos(now.saturating_sub(self.filled_at)).as_secs_f64();
        self.filled_at = self.filled_at.max(now);
        self.messages = filled(self.messages, rates.messages, seconds);
        self.bytes = filled(self.bytes, rates.bytes, seconds);
        if self.messages < 1.0 || self.bytes <= 0.0 {
            self.refused = self.refused.saturating_add(1);
            return Err(self.refused);
        }
        self.refused = 0;
        self.messages -= 1.0;
        self.bytes -= float(bytes);
        Ok(())
    }
}

fn filled(level: f64, rate: Option<usize>, seconds: f64) -> f64 {
    rate.map_or(f64::INFINITY, |rate| (level + float(rate) * seconds).min(most(Some(rate))))
}

fn most(rate: Option<usize>) -> f64 {
    rate.map_or(f64::INFINITY, |rate| (float(rate) * BURST_SECONDS).max(1.0))
}

#[expect(clippy::cast_precision_loss, reason = "rates are far below 2^52")]
fn float(number: usize) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn taken(buckets: &mut Buckets, rates: &Rates, bytes: usize, now: u64) -> usize {
        (0..10_000).take_while(|_| buckets.take(rates, bytes, now).is_ok()).count()
    }

    #[test]
    fn two_seconds_worth_may_come_at_once_and_then_what_each_second_allows() {
        let rates = Rates { messages: Some(10), bytes: None };
        let mut buckets = Buckets::full(&rates, 0);

        assert_eq!(taken(&mut buckets, &rates, 1 << 20, 0), 20);
        assert_eq!(taken(&mut buckets, &rates, 1, SECOND / 10), 1);
        assert_eq!(taken(&mut buckets, &rates, 1, SECOND), 9);
        assert_eq!(taken(&mut buckets, &rates, 1, 100 * SECOND), 20);
    }

    #[test]
    fn a_large_message_passes_and_is_paid_for_later() {
        let rates = Rates { messages: None, bytes: Some(1000) };
        let mut buckets = Buckets::full(&rates, 0);

        assert_eq!(taken(&mut buckets, &rates, 12_000, 0), 1);
        assert_eq!(taken(&mut buckets, &rates, 1, 10 * SECOND), 0);
        assert_eq!(taken(&mut buckets, &rates, 1000, 11 * SECOND), 1);
    }

    #[test]
    fn counts_what_was_too_much_in_a_row() {
        let rates = Rates { messages: Some(1), bytes: None };
        let mut buckets = Buckets::full(&rates, 0);
        assert_eq!(taken(&mut buckets, &rates, 1, 0), 2);
        assert_eq!(buckets.take(&rates, 1, 0), Err(2));
        assert_eq!(buckets.take(&rates, 1, SECOND), Ok(()));
        assert_eq!(buckets.take(&rates, 1, SECOND), Err(1));
    }

    #[test]
    fn a_clock_that_is_behind_takes_nothing_away() {
        let rates = Rates { messages: Some(10), bytes: Some(10) };
        let mut buckets = Buckets::full(&rates, SECOND);
        assert_eq!(buckets.take(&rates, 1, 0), Ok(()));
    }
}
