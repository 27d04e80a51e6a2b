//! How much happens in a room: in all, and lately.
//!
//! Rooms with members are in memory anyway, so each has counts of its own, which are exact however many rooms there are. A
//! sketch of the most frequent ones (space-saving, Metwally et al. 2005) would save 64 bytes in each, but cost a look-up and a
//! heap's repair for each batch, and list rooms of less than a 1/m share of all messages only by chance.

use crate::inspect::Recent;

use super::room::Completed;

/// The half-life of what counts as lately, in nanoseconds.
const HALF_LIFE: u64 = 30_000_000_000;

/// What has happened in one room on one shard, since its first member there.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Heat {
    pub(super) messages: u64,
    pub(super) bytes: u64,
    pub(super) deliveries: u64,
    /// As of `period`.
    recent: Recent,
    /// The greatest age of a batch when all had been given it, in nanoseconds; as of `period`.
    recent_age: u64,
    /// Half-lives of the gateway's clock.
    period: u32,
}

impl Heat {
    /// Adds a batch that was given to all at `now` nanoseconds.
    pub(super) fn add(&mut self, batch: &Completed, now: u64) {
        self.cool(now);
        let (messages, bytes) = (batch.publications as u64, batch.bytes as u64);
        let deliveries = batch.deliveries as u64;
        self.messages += messages;
        self.bytes += bytes;
        self.deliveries += deliveries;
        self.recent.messages += messages;
        self.recent.bytes += bytes;
        self.recent.deliveries += deliveries;
        self.recent_age = self.recent_age.max(now.saturating_sub(batch.read_at));
    }

    /// What happened lately, as of `now`.
    pub(super) fn recent(mut self, now: u64) -> Recent {
        self.cool(now);
        self.recent
    }

    /// How old a batch was lately at most, in nanoseconds, as of `now`.
    pub(super) fn recent_age(mut self, now: u64) -> u64 {
        self.cool(now);
        self.recent_age
    }

    fn cool(&mut self, now: u64) {
        let period = u32::try_from(now / HALF_LIFE).unwrap_or(u32::MAX);
        let halvings = period.saturating_sub(self.period);
        if halvings == 0 {
            return;
        }
        self.period = period;
        for value in [
            &mut self.recent.messages,
            &mut self.recent.bytes,
            &mut self.recent.deliveries,
            &mut self.recent_age,
        ] {
            *value = value.checked_shr(halvings).unwrap_or(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(read_at: u64) -> Completed {
        Completed { bytes: 640, publications: 4, recipients: 3, deliveries: 12, read_at }
    }

    #[test]
    fn counts_all_exactly_and_forgets_half_of_lately_every_half_life() {
        let mut heat = Heat::default();
        heat.add(&batch(0), 1_000);
        heat.add(&batch(HALF_LIFE), HALF_LIFE + 500);

        assert_eq!((heat.messages, heat.bytes, heat.deliveries), (8, 1280, 24));
        let now = HALF_LIFE + 500;
        assert_eq!(heat.recent(now), Recent { messages: 6, bytes: 960, deliveries: 18 });
        assert_eq!(heat.recent_age(now), 500);
        let later = 3 * HALF_LIFE;
        assert_eq!(heat.recent(later), Recent { messages: 1, bytes: 240, deliveries: 4 });
        assert_eq!(heat.recent_age(later), 125);
    }

    #[test]
    fn is_cold_after_a_long_time() {
        let mut heat = Heat::default();
        heat.add(&batch(0), 1_000);

        assert_eq!(heat.recent(100 * HALF_LIFE), Recent::default());
        assert_eq!(heat.messages, 4);
    }
}
