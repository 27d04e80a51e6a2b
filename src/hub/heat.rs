//! How much happens in a room: in all, and lately.
//!
//! Rooms with members are in memory anyway, so each has counts of its own, which are exact however many rooms there are. A
//! sketch of the most frequent ones (space-saving, Metwally et al. 2005) would save 56 bytes in each, but cost a look-up and a
//! heap's repair for each batch, and list rooms of less than a 1/m share of all messages only by chance. The counts are the
//! room's and not a shard's, so that whichever shard has members in it knows how hot it is everywhere.

use crate::inspect::Recent;

/// The half-life of what counts as lately, in nanoseconds.
const HALF_LIFE: u64 = 30_000_000_000;

/// What has happened in one life of a room, on all shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heat {
    /// Messages published.
    pub messages: u64,
    /// Their bytes, frame headers included.
    pub bytes: u64,
    /// Messages given to members, once for each.
    pub deliveries: u64,
    recent: Cooling<Recent>,
}

/// Something that halves every half-life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cooling<T> {
    /// As of `period`.
    value: T,
    /// Half-lives of the gateway's clock.
    period: u32,
}

/// What can be halved again and again.
pub trait Halve {
    /// The value after so many halvings.
    #[must_use]
    fn halved(self, times: u32) -> Self;
}

impl<T: Halve + Copy> Cooling<T> {
    /// The value at `now` nanoseconds, or a little later when it has been changed since.
    pub fn at(self, now: u64) -> T {
        self.value.halved(period(now).saturating_sub(self.period))
    }

    /// The value at `now` nanoseconds, to be changed.
    pub fn at_mut(&mut self, now: u64) -> &mut T {
        let period = period(now);
        if period > self.period {
            self.value = self.value.halved(period - self.period);
            self.period = period;
        }
        &mut self.value
    }
}

impl Halve for u64 {
    fn halved(self, times: u32) -> Self {
        self.checked_shr(times).unwrap_or(0)
    }
}

impl Halve for Recent {
    fn halved(self, times: u32) -> Self {
        Self {
            messages: self.messages.halved(times),
            bytes: self.bytes.halved(times),
            deliveries: self.deliveries.halved(times),
        }
    }
}

impl Heat {
    /// What happened lately, as of `now` nanoseconds.
    pub fn recent(&self, now: u64) -> Recent {
        self.recent.at(now)
    }

    /// Adds one message of so many bytes.
    pub(super) fn add_message(&mut self, bytes: usize, now: u64) {
        self.messages += 1;
        self.bytes += bytes as u64;
        let recent = self.recent.at_mut(now);
        recent.messages += 1;
        recent.bytes += bytes as u64;
    }

    pub(super) fn add_deliveries(&mut self, count: usize, now: u64) {
        self.deliveries += count as u64;
        self.recent.at_mut(now).deliveries += count as u64;
    }
}

fn period(now: u64) -> u32 {
    u32::try_from(now / HALF_LIFE).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_all_exactly_and_forgets_half_of_lately_every_half_life() {
        let mut heat = Heat::default();
        heat.add_message(640, 1_000);
        heat.add_message(640, HALF_LIFE - 1);
        heat.add_deliveries(24, HALF_LIFE - 1);
        heat.add_message(640, HALF_LIFE);

        assert_eq!((heat.messages, heat.bytes, heat.deliveries), (3, 1920, 24));
        assert_eq!(heat.recent(HALF_LIFE), Recent { messages: 2, bytes: 1280, deliveries: 12 });
        assert_eq!(heat.recent(3 * HALF_LIFE), Recent { messages: 0, bytes: 320, deliveries: 3 });
    }

    #[test]
    fn is_cold_after_a_long_time() {
        let mut heat = Heat::default();
        heat.add_message(640, 1_000);

        assert_eq!(heat.recent(100 * HALF_LIFE), Recent::default());
        assert_eq!(heat.messages, 1);
    }
}
