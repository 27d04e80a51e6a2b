//! Carries a scenario out, phase by phase, and makes one document of what was seen.

mod account;
mod environment;
mod progress;

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};

use crate::clock::Clock;
use crate::dialect::Dialect;
use crate::fleet::{Equipment, Fleet, Seating};
use crate::meter::{Meter, Page, Sampler, Seen, audit, own_cpu, settle};
use crate::outcome::{self, Audit, Figures, HdrLog, Outcome, SCHEMA, Sample};
use crate::scenario::{Phase, Scenario};
use crate::target::{Credentials, Target};
use crate::traffic::Traffic;
use crate::traffic::latency::{Kind, micros};
use crate::traffic::load::{Load, Operation, Pace, Share};

use account::{Account, Snapshot};
pub(crate) use environment::{env_check, raise_descriptor_limit};
pub(crate) use progress::{Mode, Progress};

/// How long nothing may move before the run gives up.
const STALL: u64 = 10_000_000_000;
/// How long messages under way at the end may take before they count as lost.
const LAST_WAIT: u64 = 5_000_000_000;
const INTERVAL: u64 = 1_000_000_000;
/// How often is looked whether the run still goes on.
const CHECK_EVERY: u64 = 50_000_000;
/// What a server needs to come to rest before its memory is read.
const SETTLE: u64 = 500_000_000;

/// Everything besides the scenario.
pub(crate) struct Options {
    pub(crate) credentials: Credentials,
    pub(crate) sources: Vec<std::net::IpAddr>,
    pub(crate) meter: Option<Meter>,
    pub(crate) progress: Mode,
    /// Set by Ctrl-C.
    pub(crate) interrupted: Arc<AtomicBool>,
    /// Keep the distribution of each second.
    pub(crate) log: bool,
}

/// Carries a scenario out.
///
/// # Errors
///
/// When it cannot begin. What goes wrong later is in the outcome, with all that was seen before.
pub(crate) fn run(scenario: &Scenario, options: &Options) -> Result<(Outcome, Option<HdrLog>)> {
    let mut run = Run::new(scenario, options)?;
    let result = run.phases();
    Ok(run.finish(result.err()))
}

struct Run<'a> {
    scenario: &'a Scenario,
    options: &'a Options,
    fleet: Fleet,
    clock: Clock,
    progress: Progress,
    sampler: Option<Sampler>,
    log: Option<HdrLog>,
    /// The gateway's counters before the first connection.
    page: Option<Page>,
    account: Account,
    last_sample: Snapshot,
    next_sample: u64,
    /// Until when the latencies are in the log.
    logged: u64,
    /// When the last phase ended, after which the load test sends nothing.
    idle_since: u64,
}

impl<'a> Run<'a> {
    fn new(scenario: &'a Scenario, options: &'a Options) -> Result<Self> {
        let clock = Clock::start();
        let mut dialect = Dialect::load(&scenario.dialect)?;
        dialect.prefix.clone_from(&options.credentials.prefix);
        let dialect = Rc::new(dialect);
        let layout = scenario.layout();
        if layout.rooms > 1 && !dialect.has_rooms() {
            bail!("the dialect {} has no rooms: everybody gets everything", dialect.name);
        }
        let asked = scenario.phases.iter().flat_map(|phase| phase.mix.keys());
        if let Some(unknown) = asked.copied().find(|operation| !dialect.speaks(*operation)) {
            let unknown = format!("{unknown:?}").to_lowercase();
            bail!("the dialect {} has no words for `{unknown}`, which is in the mix", dialect.name);
        }
        let targets: Result<Vec<Target>> = scenario
            .targets
            .iter()
            .map(|url| {
                Target::new(
                    &with_user(url, scenario, options),
                    dialect.path.as_ref(),
                    options.credentials.clone(),
                )
            })
            .collect();
        let traffic = Traffic::new(layout, Rc::clone(&dialect), scenario.seed, clock)?;
        let equipment = Equipment {
            targets: targets?,
            dialect,
            sources: options.sources.clone(),
            seating: Seating { rooms: scenario.seating() },
            seed: scenario.seed,
            clock,
        };
        let mut fleet = Fleet::new(equipment, traffic)?;
        fleet.returns = scenario.reconnect;
        let first =
            options.meter.as_ref().map(Meter::read).transpose().context("--metrics or --server-pid")?;
        let sampler = options.meter.clone().map(|meter| Sampler::start(meter, clock)).transpose()?;
        let last_sample = Snapshot { client_cpu: own_cpu()?, ..Snapshot::default() };
        Ok(Self {
            scenario,
            options,
            fleet,
            clock,
            progress: Progress::new(options.progress),
            sampler,
            log: options.log.then(|| HdrLog::new(clock.started())),
            account: Account::begin(first.as_ref().map(|reading| reading.resident)),
            page: first.and_then(|reading| reading.page),
            last_sample,
            next_sample: clock.nanos() + INTERVAL,
            logged: 0,
            idle_since: clock.nanos(),
        })
    }

    fn phases(&mut self) -> Result<()> {
        let phases = &self.scenario.phases;
        for (number, phase) in phases.iter().enumerate() {
            let is_followed = phases.get(number + 1).is_some_and(|next| next.load().pace != Pace::Quiet);
            self.phase(phase, is_followed).with_context(|| format!("phase {:?}", phase.name))?;
        }
        Ok(())
    }

    /// Carries out one phase; `is_followed` by one with messages. Its account is kept also when it fails.
    fn phase(&mut self, phase: &Phase, is_followed: bool) -> Result<()> {
        let mut before = self.snapshot()?;
        before.server = self.server()?;
        self.fleet.traffic.postpone(self.clock.nanos() - self.idle_since);
        self.progress.phase(&phase.name, phase.duration);
        let connections = phase.connections.map_or(self.fleet.goal(), |count| count as usize);
        let ramp = phase.duration.filter(|_| phase.ramp).map(|duration| {
            let added = u32::try_from(connections.saturating_sub(self.fleet.ready())).unwrap_or(u32::MAX);
            f64::from(added.max(1)) / duration.as_secs_f64().max(0.001)
        });
        self.fleet.connect_to(connections, ramp.or(phase.connect_rate));
        self.fleet.churn(phase.churn, phase.aborts);
        let slow = self.share(phase.slow_readers());
        self.fleet.pause(slow);
        self.fleet.traffic.begin(phase.load());
        let cut = self.share(phase.cut());
        self.fleet.cut(cut);
        let served = self.serve_phase(phase);
        self.idle_since = self.clock.nanos();
        let reading = self.fleet.reading();
        self.fleet.churn(None, false);
        let mut after = self.snapshot()?;
        let metered = self.server();
        after.server = metered.as_ref().ok().copied().flatten();
        // What has piled up for those that did not read is no part of what the phase brought.
        self.fleet.resume();
        if !is_followed && served.is_ok() {
            // The slowest messages count as well.
            self.fleet.traffic.begin(Load::default());
            self.wait_for_the_last()?;
        }
        self.write_log(self.clock.nanos())?;
        let latencies = self.fleet.traffic.latencies.end_phase(phase.measured);
        self.account.phase(phase, (&before, &after), reading, latencies);
        if let Ok(Some(back)) = &served {
            self.account.back(*back);
        }
        served.and(metered).map(|_| ())
    }

    /// This share of the clients that are ready.
    fn share(&self, share: Share) -> usize {
        share.of(u32::try_from(self.fleet.ready()).unwrap_or(u32::MAX)) as usize
    }

    /// Serves until the phase is over; returns after how long all that were cut off were back.
    fn serve_phase(&mut self, phase: &Phase) -> Result<Option<u64>> {
        let begin = self.clock.nanos();
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let end = begin.saturating_add(phase.duration.map_or(0, nanos));
        let mut back = None;
        // Whoever is lost once everybody was there is a fault, but is not waited for.
        let mut waits = phase.connections.is_some() || phase.cut.is_some();
        let mut moved = (begin, self.progress_mark(waits));
        let mut next_check = begin;
        loop {
            let now = self.clock.nanos();
            if waits && self.fleet.is_complete() && self.fleet.ready() >= self.fleet.goal() {
                waits = false;
                back = phase.cut.map(|_| now - begin);
            }
            if now >= end && !waits {
                return Ok(back);
            }
            if self.options.interrupted.load(Ordering::Relaxed) {
                bail!("interrupted");
            }
            if now >= next_check {
                next_check = now + CHECK_EVERY;
                self.check(now, &mut moved, waits)?;
            }
            if now >= self.next_sample {
                self.sample(now)?;
            }
            let wake = if now < end { end } else { now + INTERVAL };
            self.fleet.turn(wake.min(self.next_sample))?;
        }
    }

    /// What changes while things move.
    fn progress_mark(&self, connecting: bool) -> (u64, usize) {
        let tally = &self.fleet.traffic.tally;
        (if connecting { tally.opened } else { tally.deliveries }, self.fleet.ready())
    }

    /// # Errors
    ///
    /// When the run cannot or should not go on.
    fn check(&self, now: u64, moved: &mut (u64, (u64, usize)), connecting: bool) -> Result<()> {
        let fleet = &self.fleet;
        if connecting && !fleet.returns && fleet.troubles.ended > 0 {
            let reason = fleet.troubles.remarks().pop().unwrap_or_default();
            bail!("a connection ended when {} of {} were open: {reason}", fleet.ready(), fleet.goal());
        }
        if fleet.is_deserted() {
            let reason = fleet.troubles.remarks().pop().unwrap_or_default();
            bail!("no connection is left: {reason}");
        }
        let mark = self.progress_mark(connecting);
        // A slow rate of connections or messages is no stall.
        let waits = if connecting { fleet.is_opening_later(now) } else { fleet.traffic.outstanding() == 0 };
        if mark != moved.1 || waits {
            *moved = (now, mark);
        } else if now - moved.0 > STALL {
            if connecting {
                let last = fleet.troubles.remarks().pop();
                let reason = last.unwrap_or_else(|| "the server says nothing".to_owned());
                let (ready, goal) = (fleet.ready(), fleet.goal());
                bail!("no answer for 10 s when {ready} of {goal} connections were open: {reason}");
            }
            let hint = if fleet.traffic.tally.deliveries == 0 {
                ": does the server do at this URL what the dialect says?"
            } else {
                ""
            };
            bail!(
                "stalled: {} messages are under way, none has arrived for 10 s{hint}",
                fleet.traffic.outstanding()
            );
        }
        Ok(())
    }

    /// The state of things but for the server; at rest, once that has had the time to come to rest.
    fn snapshot(&mut self) -> Result<Snapshot> {
        let begin = self.clock.nanos();
        if self.fleet.traffic.is_quiet() && self.fleet.ready() > 0 {
            let until = begin + SETTLE;
            while self.clock.nanos() < until && !self.options.interrupted.load(Ordering::Relaxed) {
                self.fleet.turn(until)?;
            }
        }
        let at = self.clock.nanos();
        Ok(Snapshot {
            at,
            rested: at - begin,
            tally: self.fleet.traffic.tally,
            connections: self.fleet.ready() as u64,
            client_cpu: own_cpu()?,
            server: None,
            unsent: self.fleet.traffic.unsent(at),
        })
    }

    /// CPU seconds and resident bytes of the server.
    fn server(&self) -> Result<Option<(f64, f64)>> {
        let reading = self.options.meter.as_ref().map(Meter::read).transpose()?;
        Ok(reading.map(|reading| (reading.cpu, reading.resident)))
    }

    fn sample(&mut self, now: u64) -> Result<()> {
        self.next_sample = now + INTERVAL;
        let last = &self.last_sample;
        let next = Snapshot {
            at: now,
            tally: self.fleet.traffic.tally,
            connections: self.fleet.ready() as u64,
            client_cpu: own_cpu()?,
            ..Snapshot::default()
        };
        let seconds = seconds(now - last.at).max(1e-9);
        let measured = self.sampler.as_mut().and_then(Sampler::try_latest);
        let delay = self.fleet.traffic.latencies.of_interval(Kind::Delivery);
        let of = |quantile| (!delay.is_empty()).then(|| micros(delay.value_at_quantile(quantile)));
        let mut sample = Sample {
            at: self::seconds(now),
            phase: self.account.phases(),
            connections: next.connections,
            published_per_second: count(next.tally.published - last.tally.published) / seconds,
            deliveries_per_second: count(next.tally.deliveries - last.tally.deliveries) / seconds,
            p50_us: of(0.5),
            p99_us: of(0.99),
            max_us: of(1.0),
            client_cpu_percent: (next.client_cpu - last.client_cpu) / seconds * 100.0,
            server_cpu_percent: None,
            server_resident_bytes: None,
        };
        if let Some(measured) = measured {
            (sample.server_cpu_percent, sample.server_resident_bytes) = self.account.server(measured);
        }
        self.write_log(now)?;
        self.progress.tick(&sample);
        self.account.sample(sample);
        self.fleet.traffic.latencies.end_interval();
        self.last_sample = next;
        Ok(())
    }

    fn write_log(&mut self, now: u64) -> Result<()> {
        let begin = Duration::from_nanos(std::mem::replace(&mut self.logged, now));
        let end = Duration::from_nanos(now);
        if let Some(log) = &mut self.log {
            for kind in Kind::ALL {
                let histogram = self.fleet.traffic.latencies.of_interval(kind);
                if !histogram.is_empty() {
                    log.interval(kind.as_str(), begin, end, histogram)?;
                }
            }
        }
        Ok(())
    }

    /// Waits for what is under way, settles all accounts and compares them with the server's.
    fn finish(mut self, failure: Option<anyhow::Error>) -> (Outcome, Option<HdrLog>) {
        let mut failure = failure;
        self.fleet.traffic.begin(Load::default());
        if let Err(error) = self.wait_for_the_last().and_then(|()| self.write_log(self.clock.nanos())) {
            failure = failure.or(Some(error));
        }
        self.fleet.traffic.latencies.end_phase(false);
        self.progress.end();
        let counted = if failure.is_some() { Ok(None) } else { self.audit() };
        let (audit, error) = match counted {
            Ok(audit) => (audit, None),
            Err(error) => (None, Some(error)),
        };
        let failure = failure.or(error);
        let faults = Account::faults(&mut self.fleet);
        let (figures, bottleneck) = self.account.figures(&self.fleet, self.scenario);
        let is_ok = failure.is_none() && faults.none() && audit.as_ref().is_none_or(|audit| audit.ok);
        let latencies = &self.fleet.traffic.latencies;
        let spectra = [
            Kind::Delivery,
            Kind::First,
            Kind::Last,
            Kind::Service,
            Kind::Connect,
            Kind::Join,
            Kind::Request,
        ]
        .into_iter()
        .map(|kind| (kind.as_str().to_owned(), latencies.spectrum(kind)))
        .filter(|(_, spectrum)| !spectrum.is_empty())
        .collect();
        let (phases, samples) = self.account.into_parts();
        if !self.scenario.phases.iter().any(|phase| phase.measured) {
            self.fleet
                .notes
                .push("no phase is `measured`: there are figures for the single phases only".to_owned());
        }
        let outcome = Outcome {
            schema: SCHEMA.to_owned(),
            name: self.scenario.name.clone(),
            targets: self.scenario.targets.iter().map(|url| environment::without_token(url)).collect(),
            seed: self.scenario.seed,
            started: self.clock.started().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            environment: environment::environment(&self.scenario.targets),
            ok: is_ok && has_worked(self.scenario, &phases, &figures),
            stopped: failure.map(|error| format!("{error:#}")),
            client_was_bottleneck: bottleneck,
            notes: std::mem::take(&mut self.fleet.notes),
            figures,
            spectra,
            faults,
            phases,
            samples,
            audit,
            thresholds: Vec::new(),
        };
        (outcome, self.log)
    }

    fn wait_for_the_last(&mut self) -> Result<()> {
        let until = self.clock.nanos() + LAST_WAIT;
        while self.fleet.traffic.outstanding() > 0 || self.fleet.unanswered() > 0 {
            let now = self.clock.nanos();
            if now >= until {
                break;
            }
            self.fleet.turn(until.min(now + INTERVAL / 10))?;
        }
        Ok(())
    }

    /// The gateway's own account, once it agrees or has had its time.
    fn audit(&mut self) -> Result<Option<Audit>> {
        let (Some(meter), Some(before)) = (self.options.meter.clone(), self.page.take()) else {
            return Ok(None);
        };
        let paced = self.account.is_paced(&self.fleet, self.scenario);
        let clock = self.clock;
        settle(clock, |pause| {
            let until = clock.nanos() + u64::try_from(pause.as_nanos()).unwrap_or(0);
            while clock.nanos() < until {
                self.fleet.turn(until)?;
            }
            let reading = meter.read()?;
            let Some(after) = reading.page else { return Ok(None) };
            let seen = Seen {
                tally: self.fleet.traffic.tally,
                open: self.fleet.ready() as u64,
                latency: self.fleet.traffic.latencies.ends(),
                paced,
            };
            Ok(audit(&before, &after, &seen))
        })
    }
}

/// A run that was to deliver messages and has delivered none, or a phase that has sent none, proves nothing.
fn has_worked(scenario: &Scenario, phases: &[outcome::Phase], figures: &Figures) -> bool {
    let is_silent = |(plan, phase): (&Phase, &outcome::Phase)| {
        plan.measured && plan.publishes() && !phase.figures.contains_key("published")
    };
    let has_some = |name| figures.get(name).is_some_and(|count| *count > 0.0);
    !scenario.phases.iter().zip(phases).any(is_silent) && has_some("published") == has_some("deliveries")
}

/// Fanfare's users without a token are told apart by the query.
fn with_user(url: &str, scenario: &Scenario, options: &Options) -> String {
    let needs_users = scenario.phases.iter().any(|phase| phase.mix.contains_key(&Operation::Direct));
    let is_named = options.credentials.token.is_some() || options.credentials.jwt_secret.is_some();
    if !needs_users || is_named || url.contains("{user}") || scenario.dialect != "fanfare" {
        return url.to_owned();
    }
    let separator = if url.contains('?') { '&' } else { '?' };
    format!("{url}{separator}user={{user}}")
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn count(number: u64) -> f64 {
    number as f64
}

fn seconds(nanos: u64) -> f64 {
    Duration::from_nanos(nanos).as_secs_f64()
}

/// Whether a phase paces its messages by the clock.
fn is_open_loop(phase: &Phase) -> bool {
    matches!(phase.load().pace, Pace::Rate(..))
}
