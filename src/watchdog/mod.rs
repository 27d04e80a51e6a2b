//! Watches over the shards: who does not come round is named in the log, in metrics and in the readiness.
//!
//! [`Watch`] decides, from the time and when each shard last came round; [`run`] looks at the clock and tells. It looks
//! from the outside and waits for no shard, since a shard that stands still answers nothing.

mod watch;

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::clock::Clock;
use crate::inbox::{Gate, Outlet};
use crate::inspect::Vitals;
use crate::log;
use crate::metrics::{Recorder, VitalsMetrics, count};
use crate::readiness::{Cause, Readiness};

pub use self::watch::{Change, Finding, Watch};

/// How often is looked.
pub const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What the watchdog is given.
#[derive(Clone, Debug)]
pub struct Options {
    /// A shard that has not come round for longer is stalled. Much more than [`LOOK_EVERY`].
    pub stall: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { stall: Duration::from_secs(1) }
    }
}

/// Everything that the watchdog works with.
pub struct Parts {
    /// What counts as a stall.
    pub options: Options,
    /// Whom it watches.
    pub shards: Shards,
    /// What bounds the connections.
    pub gate: Gate,
    /// Where it says why no connections should come.
    pub ready: Readiness,
    /// The process's monotonic time.
    pub clock: Clock,
}

/// Watches until it is dropped.
pub async fn run(parts: Parts) {
    let clock = parts.clock;
    let mut driver = Driver::new(parts);
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        driver.look(clock.now());
    }
}

/// The shards as they look from the outside; cheap to clone.
#[derive(Clone)]
pub struct Shards(Arc<[Shard]>);

struct Shard {
    outlet: Outlet,
    vitals: Arc<Vitals>,
    metrics: VitalsMetrics,
    /// What [`Watch`] found, in nanoseconds of the gateway's clock.
    stalled_since: AtomicU64,
}

impl Shards {
    /// Registers what is told of each shard. The outlet and the vitals at one index belong to one shard.
    pub fn new(recorder: &Recorder, outlets: &[Outlet], vitals: &[Arc<Vitals>]) -> Self {
        debug_assert_eq!(outlets.len(), vitals.len());
        let shard = |(index, (outlet, vitals)): (usize, (&Outlet, &Arc<Vitals>))| Shard {
            outlet: outlet.clone(),
            vitals: Arc::clone(vitals),
            metrics: VitalsMetrics::new(recorder, index),
            stalled_since: AtomicU64::new(NOT_STALLED),
        };
        Self(outlets.iter().zip(vitals).enumerate().map(shard).collect())
    }

    /// Sets the gauges of all shards; for each scrape.
    pub fn refresh(&self, now: u64) {
        for shard in &*self.0 {
            let age = |since: Option<u64>| since.map_or(0.0, |since| seconds(now.saturating_sub(since)));
            let waiting = shard.outlet.waiting();
            shard.metrics.queue_age.set(age(shard.vitals.oldest_queued_at()));
            shard.metrics.inbox_messages.set(count(waiting.items));
            shard.metrics.inbox_bytes.set(count(waiting.bytes));
            shard.metrics.stalled.set(age(shard.stalled_since()));
        }
    }
}

impl Shard {
    /// Since when it does not come round, if it has not come round since the last look either.
    fn stalled_since(&self) -> Option<u64> {
        let since = self.stalled_since.load(Ordering::Relaxed);
        (since != NOT_STALLED && self.vitals.beat_at() <= since).then_some(since)
    }
}

struct Driver {
    watch: Watch,
    shards: Shards,
    gate: Gate,
    ready: Readiness,
}

impl Driver {
    fn new(parts: Parts) -> Self {
        let Parts { options, shards, gate, ready, clock: _ } = parts;
        Self { watch: Watch::new(&options, shards.0.len()), shards, gate, ready }
    }

    fn look(&mut self, now: u64) {
        let findings = self.watch.look(now, self.shards.0.iter().map(|shard| shard.vitals.beat_at()));
        for finding in &findings {
            self.tell(finding);
        }
        for (shard, since) in self.shards.0.iter().zip(self.watch.stalled_since()) {
            shard.stalled_since.store(since.unwrap_or(NOT_STALLED), Ordering::Relaxed);
        }
        // The cause is as old as the stall, which is found later.
        let since = self.watch.stalled_since().flatten().min();
        self.set(Cause::ShardStalled, stalled(&self.watch, now), since.unwrap_or(now));
        self.set(Cause::Full, full(&self.gate), now);
        let short = self.gate.is_short_of_memory();
        let detail = "the connections take more memory than `limits.memory_soft`";
        self.set(Cause::MemoryShort, short.then(|| detail.to_owned()), now);
    }

    fn tell(&self, &Finding { shard, change, lasted }: &Finding) {
        let seconds = log::seconds(lasted);
        match change {
            Change::Began => {
                self.shards.0[shard].metrics.stalls.increment(1);
                tracing::warn!(shard, seconds, "a shard does not come round");
            }
            Change::Lasts => tracing::warn!(shard, seconds, "a shard does not come round"),
            Change::Ended => tracing::info!(shard, seconds, "a shard comes round again"),
        }
    }

    /// Says it, if there is a detail, of the time since then, or takes it back.
    fn set(&self, cause: Cause, detail: Option<String>, since: u64) {
        match detail {
            Some(detail) => self.ready.block(cause, detail, since),
            None => self.ready.clear(cause),
        }
    }
}

/// Which shards do not come round, for people.
fn stalled(watch: &Watch, now: u64) -> Option<String> {
    let mut detail = String::new();
    for (shard, since) in watch.stalled_since().enumerate() {
        let Some(since) = since else { continue };
        let (comma, verb) = if detail.is_empty() { ("", " has not come round") } else { (", ", "") };
        // Writing to a `String` cannot fail.
        let _ = write!(detail, "{comma}shard {shard}{verb} for {:.1} s", seconds(now.saturating_sub(since)));
    }
    Some(detail).filter(|detail| !detail.is_empty())
}

/// That there is no place left, for people.
fn full(gate: &Gate) -> Option<String> {
    let (open, limit) = (gate.open(), gate.limit());
    (open >= limit).then(|| format!("{open} connections are open; `limits.connections` allows {limit}"))
}

const NOT_STALLED: u64 = u64::MAX;

fn seconds(nanoseconds: u64) -> f64 {
    Duration::from_nanos(nanoseconds).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbox::{Admission, Inbox, Limits};

    const MS: u64 = 1_000_000;

    struct World {
        driver: Driver,
        recorder: Recorder,
        vitals: Vec<Arc<Vitals>>,
    }

    fn world(shards: usize, connections: usize) -> World {
        let recorder = Recorder::new();
        let outlets: Vec<_> = (0..shards).map(|_| Inbox::pair(Limits::default()).0).collect();
        let vitals: Vec<_> = (0..shards).map(|_| Vitals::new(0)).collect();
        let driver = Driver::new(Parts {
            options: Options::default(),
            shards: Shards::new(&recorder, &outlets, &vitals),
            gate: Gate::new(connections),
            ready: Readiness::default(),
            clock: Clock::start(),
        });
        World { driver, recorder, vitals }
    }

    impl World {
        fn look_until(&mut self, end: u64) {
            (0..=end / (250 * MS)).for_each(|look| self.driver.look(look * 250 * MS));
        }

        fn details(&self, now: u64) -> Vec<(Cause, String)> {
            let reasons = self.driver.ready.reasons(now).into_iter();
            reasons.map(|reason| (reason.reason, reason.detail)).collect()
        }

        fn shows(&self, line: &str) -> bool {
            self.recorder.render().lines().any(|shown| shown == line)
        }
    }

    #[test]
    fn is_not_ready_while_a_shard_does_not_come_round() {
        let mut world = world(3, 10);
        world.vitals[0].beat(10_000 * MS);
        world.vitals[2].beat(1000 * MS);

        world.look_until(2500 * MS);
        world.driver.shards.refresh(2600 * MS);

        let detail = "shard 1 has not come round for 2.5 s, shard 2 for 1.5 s".to_owned();
        assert_eq!(world.details(2600 * MS), [(Cause::ShardStalled, detail)]);
        let for_seconds = world.driver.ready.reasons(2600 * MS)[0].for_seconds;
        assert!(
            (for_seconds - 2.6).abs() < 1e-9,
            "all the time that shard 1 did not come round: {for_seconds}"
        );
        assert!(world.shows("fanfare_shard_stalled_seconds{shard=\"0\"} 0"));
        assert!(world.shows("fanfare_shard_stalled_seconds{shard=\"1\"} 2.6"));
        assert!(world.shows("fanfare_shard_stalls_total{shard=\"1\"} 1"));

        world.vitals.iter().for_each(|vitals| vitals.beat(2700 * MS));
        world.driver.shards.refresh(2700 * MS);
        assert!(world.shows("fanfare_shard_stalled_seconds{shard=\"1\"} 0"), "already before the next look");
        world.driver.look(2750 * MS);

        assert_eq!(world.details(2750 * MS), []);
        assert!(world.shows("fanfare_shard_stalls_total{shard=\"1\"} 1"));
    }

    #[test]
    fn is_not_ready_while_all_places_are_taken() {
        let mut world = world(1, 2);
        let taken: Vec<_> = (0..2).map(|_| world.driver.gate.admit()).collect();
        assert!(taken.iter().all(|place| matches!(place, Admission::Admitted(_))));

        world.driver.look(0);
        let detail = "2 connections are open; `limits.connections` allows 2".to_owned();
        assert_eq!(world.details(0), [(Cause::Full, detail)]);
        drop(taken);
        world.driver.look(250 * MS);

        assert_eq!(world.details(0), []);
    }

    #[test]
    fn shows_at_each_scrape_what_waits_for_a_shard_and_for_its_clients() {
        let world = world(2, 1);
        let outlet = &world.driver.shards.0[1].outlet;
        world.vitals[1].set_oldest_queued_at(Some(500 * MS));
        let under_way = [outlet.reserve(500).unwrap(), outlet.reserve(700).unwrap()];

        world.driver.shards.refresh(2000 * MS);

        assert!(world.shows("fanfare_outbound_queue_oldest_age_seconds{shard=\"0\"} 0"));
        assert!(world.shows("fanfare_outbound_queue_oldest_age_seconds{shard=\"1\"} 1.5"));
        assert!(world.shows("fanfare_shard_inbox_messages{shard=\"1\"} 2"));
        assert!(world.shows("fanfare_shard_inbox_bytes{shard=\"1\"} 1200"));
        drop(under_way);
    }
}
