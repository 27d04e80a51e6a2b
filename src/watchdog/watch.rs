//! Decides which shards do not come round; pure.

use std::time::Duration;

use super::{LOOK_EVERY, Options};

/// How often is said that a shard still does not come round.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// Decides which shards do not come round. Times are nanoseconds of the gateway's clock.
///
/// When the look itself comes late, the whole process stood still, and no shard is to blame: nothing is found then, and
/// what shards did before does not count any more.
#[derive(Debug)]
pub struct Watch {
    /// Longer is a stall.
    stall: u64,
    looked_at: Option<u64>,
    /// Before this, nobody is blamed for not coming round.
    pardoned_until: u64,
    stalls: Vec<Option<Stall>>,
}

#[derive(Clone, Copy, Debug)]
struct Stall {
    /// Invariant: not before the shard's last beat until then, so that a later beat ends the stall.
    since: u64,
    said_at: u64,
}

/// What is to be told of one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its index.
    pub shard: usize,
    /// What it is.
    pub change: Change,
    /// How long it has not come round, or had not.
    pub lasted: Duration,
}

/// What became of a stall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is new.
    Began,
    /// It goes on, and was not mentioned for a while.
    Lasts,
    /// The shard came round again.
    Ended,
}

impl Watch {
    /// A watch over so many shards.
    pub fn new(options: &Options, shards: usize) -> Self {
        Self { stall: nanos(options.stall), looked_at: None, pardoned_until: 0, stalls: vec![None; shards] }
    }

    /// Looks at when each shard last came round.
    pub fn look(&mut self, now: u64, beats: impl IntoIterator<Item = u64>) -> Vec<Finding> {
        let late = self.looked_at.map_or(0, |at| now.saturating_sub(at.saturating_add(nanos(LOOK_EVERY))));
        self.looked_at = Some(now);
        // Half the limit: a shard's last beat was before the standstill, and its next one takes a moment after it.
        if late > self.stall / 2 {
            self.pardoned_until = now;
            return Vec::new();
        }
        let mut findings = Vec::new();
        for (shard, (beat, stall)) in beats.into_iter().zip(&mut self.stalls).enumerate() {
            let mut find = |change, nanoseconds| {
                findings.push(Finding { shard, change, lasted: Duration::from_nanos(nanoseconds) });
            };
            if let Some(ended) = stall.take_if(|stall| beat > stall.since) {
                find(Change::Ended, beat - ended.since);
            }
            match stall {
                Some(stall) if now.saturating_sub(stall.said_at) >= nanos(SAY_EVERY) => {
                    stall.said_at = now;
                    find(Change::Lasts, now.saturating_sub(stall.since));
                }
                Some(_) => {}
                None => {
                    let since = beat.max(self.pardoned_until);
                    let lasted = now.saturating_sub(since);
                    if lasted > self.stall {
                        *stall = Some(Stall { since, said_at: now });
                        find(Change::Began, lasted);
                    }
                }
            }
        }
        findings
    }

    /// Since when each shard does not come round, or `None` for those that do.
    pub fn stalled_since(&self) -> impl Iterator<Item = Option<u64>> {
        self.stalls.iter().map(|stall| stall.map(|stall| stall.since))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn names_a_stall_when_it_begins_each_ten_seconds_and_when_it_ends() {
        let mut watch = Watch::new(&Options::default(), 2);
        let mut found = Vec::new();
        for look in 1..=100 {
            let now = look * 250 * MS;
            // The second shard comes round at 2 s and then not before 24 s.
            let stalled = if now < 24_000 * MS { now.min(2000 * MS) } else { now };
            found.extend(watch.look(now, [now, stalled]).into_iter().map(|finding| (now / MS, finding)));
        }

        let finding = |change, ms| Finding { shard: 1, change, lasted: Duration::from_millis(ms) };
        let expected = [
            (3250, finding(Change::Began, 1250)),
            (13_250, finding(Change::Lasts, 11_250)),
            (23_250, finding(Change::Lasts, 21_250)),
            (24_000, finding(Change::Ended, 22_000)),
        ];
        assert_eq!(found, expected);
        assert!(watch.stalled_since().all(|since| since.is_none()));
    }

    #[test]
    fn a_shard_that_came_round_once_and_stalls_again_ends_one_stall_and_begins_another() {
        let mut watch = Watch::new(&Options::default(), 1);
        let mut beat = 0;
        let mut changes = Vec::new();
        for look in 0..=20 {
            let now = look * 250 * MS;
            if look == 10 {
                beat = now - 1100 * MS;
            }
            changes.extend(watch.look(now, [beat]).into_iter().map(|finding| finding.change));
        }

        assert_eq!(changes, [Change::Began, Change::Ended, Change::Began]);
        assert_eq!(watch.stalled_since().collect::<Vec<_>>(), [Some(1400 * MS)]);
    }

    #[test]
    fn blames_nobody_when_the_whole_process_stood_still() {
        let mut watch = Watch::new(&Options::default(), 1);
        assert_eq!(watch.look(0, [0]), []);

        let after = 60_000 * MS;
        assert_eq!(watch.look(after, [0]), [], "the look itself is late");
        assert_eq!(watch.look(after + 250 * MS, [0]), [], "the shard had 250 ms since");

        for look in 2..=4 {
            assert_eq!(watch.look(after + look * 250 * MS, [0]), []);
        }
        let [finding] = watch.look(after + 1250 * MS, [0])[..] else { panic!("the shard did have time") };
        assert_eq!((finding.change, finding.lasted), (Change::Began, Duration::from_millis(1250)));
    }

    #[test]
    fn a_stall_goes_on_over_a_standstill_of_the_process() {
        let mut watch = Watch::new(&Options::default(), 1);
        for look in 0..=8 {
            watch.look(look * 250 * MS, [0]);
        }

        watch.look(60_000 * MS, [0]);
        assert_eq!(watch.stalled_since().collect::<Vec<_>>(), [Some(0)]);
        let [finding] = watch.look(60_250 * MS, [60_100 * MS])[..] else { panic!("it came round") };

        assert_eq!((finding.change, finding.lasted), (Change::Ended, Duration::from_millis(60_100)));
    }

    #[test]
    fn an_early_or_repeated_look_finds_nothing_new() {
        let mut watch = Watch::new(&Options::default(), 1);
        for look in 0..=4 {
            watch.look(look * 250 * MS, [0]);
        }

        assert_eq!(watch.look(1250 * MS, [0]).len(), 1);
        assert_eq!(watch.look(1250 * MS, [0]), []);
        assert_eq!(watch.look(1000 * MS, [0]), []);
    }
}
