//! What the phases have cost and brought, as figures.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{count, is_open_loop, seconds};
use crate::fleet::Fleet;
use crate::meter::Measured;
use crate::outcome::{self, Faults, Figures, Sample};
use crate::scenario::{Phase, Scenario};
use crate::tally::Tally;

/// Above this share of a core the client is what limits the figures.
const BUSY: f64 = 0.9;
/// An open loop whose messages go out later than this, in one of a hundred, measures itself.
const LATE_US: f64 = 5_000.0;
/// A client that is late by more than this in one of a hundred adds to what it measures.
const CALM_US: f64 = 1_000.0;
/// An open loop that sends less than this share of what it should is no longer one.
const ACHIEVED_PERCENT: f64 = 98.0;
/// Fewer new connections tell nothing of the memory of one.
const CONNECTIONS_FOR_MEMORY: u64 = 100;

/// The state of things at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Snapshot {
    pub(super) at: u64,
    /// For how long before nothing was done.
    pub(super) rested: u64,
    pub(super) tally: Tally,
    pub(super) connections: u64,
    pub(super) client_cpu: f64,
    /// CPU seconds and resident bytes.
    pub(super) server: Option<(f64, f64)>,
    /// Operations that were due and not done.
    pub(super) unsent: u64,
}

/// Sums over the measured phases.
#[derive(Debug, Default)]
struct Sums {
    seconds: f64,
    /// Of the time, and of the messages, in phases with messages.
    busy_seconds: f64,
    published: u64,
    deliveries: u64,
    opened: u64,
    opening_seconds: f64,
    wire_sent: u64,
    wire_received: u64,
    client_cpu: f64,
    server_cpu: Option<f64>,
    /// Of the phases that only connect.
    connecting_cpu: Option<f64>,
    asked: f64,
    unsent: f64,
}

/// The account of the run.
#[derive(Debug, Default)]
pub(super) struct Account {
    phases: Vec<outcome::Phase>,
    samples: Vec<Sample>,
    sums: Sums,
    last_measured: Option<Measured>,
    /// Connections and resident bytes at the ends of phases without messages.
    at_rest: Vec<(u64, f64)>,
    /// Resident bytes before the first connection.
    before: Option<f64>,
    resident: Option<f64>,
    /// Deliveries a second for each client that reads, in phases without and with slow readers beside them.
    per_reader: [Vec<f64>; 2],
    back: Option<u64>,
    was_busy: bool,
    was_late: bool,
}

impl Account {
    /// The index of the phase that is going on.
    pub(super) fn phases(&self) -> usize {
        self.phases.len()
    }

    /// An account that begins with a server that holds so much.
    pub(super) fn begin(before: Option<f64>) -> Self {
        Self { before, ..Self::default() }
    }

    pub(super) fn sample(&mut self, sample: Sample) {
        self.samples.push(sample);
    }

    pub(super) fn into_parts(self) -> (Vec<outcome::Phase>, Vec<Sample>) {
        (self.phases, self.samples)
    }

    /// All that were cut off were back after so long.
    pub(super) fn back(&mut self, nanos: u64) {
        self.back = Some(nanos);
        if let Some(phase) = self.phases.last_mut() {
            phase.figures.insert("back_seconds".to_owned(), seconds(nanos));
        }
    }

    /// The server's share of a core since its last measurement, and its memory.
    pub(super) fn server(&mut self, measured: Measured) -> (Option<f64>, Option<f64>) {
        let percent = self.last_measured.map(|last| {
            let passed = measured.at.saturating_sub(last.at).max(Duration::from_micros(1));
            (measured.cpu - last.cpu) / passed.as_secs_f64() * 100.0
        });
        self.last_measured = Some(measured);
        (percent, Some(measured.resident))
    }

    /// Takes a phase in.
    pub(super) fn phase(
        &mut self,
        phase: &Phase,
        (before, after): (&Snapshot, &Snapshot),
        reading: usize,
        latencies: Figures,
    ) {
        let passed = seconds(after.at - before.at).max(1e-9);
        let mut figures = latencies;
        let since = |of: fn(&Tally) -> u64| of(&after.tally) - of(&before.tally);
        let (published, deliveries) = (since(|tally| tally.published), since(|tally| tally.deliveries));
        let opened = since(|tally| tally.opened);
        let client_cpu = after.client_cpu - before.client_cpu;
        let server_cpu = before.server.zip(after.server).map(|(before, after)| after.0 - before.0);
        let mut put = |name: &str, value: f64| _ = figures.insert(name.to_owned(), value);
        put("seconds", passed);
        put("connections", count(after.connections));
        put("client_cpu_percent", client_cpu / passed * 100.0);
        if published > 0 {
            put("published", count(published));
            put("published_per_second", count(published) / passed);
            put("deliveries", count(deliveries));
            put("deliveries_per_second", count(deliveries) / passed);
        }
        if opened > 0 {
            put("opened", count(opened));
            put(
                "connects_per_second",
                count(opened) / seconds(after.at - before.at - after.rested).max(1e-9),
            );
        }
        put("sent_bytes_per_second", count(since(|tally| tally.wire_sent)) / passed);
        put("received_bytes_per_second", count(since(|tally| tally.wire_received)) / passed);
        if let (Some(cpu), Some((_, resident))) = (server_cpu, after.server) {
            put("server_cpu_percent", cpu / passed * 100.0);
            put("server_resident_bytes", resident);
            if deliveries > 0 {
                put("server_cpu_us_per_delivery", cpu * 1e6 / count(deliveries));
            } else if opened > 0 {
                put("server_cpu_us_per_connect", cpu * 1e6 / count(opened));
            }
        }
        if let Some(rate) = phase.rate {
            put("asked_per_second", rate);
            put("unsent", f64::max(count(after.unsent) - count(before.unsent), 0.0));
        }
        self.judge_client(phase, &figures, client_cpu / passed);
        self.rest_and_readers(phase, after, (reading, deliveries, passed));
        if phase.measured {
            self.sum(phase, (before, after), (published, deliveries, opened), server_cpu);
        }
        self.phases.push(outcome::Phase {
            name: phase.name.clone(),
            measured: phase.measured,
            begin: seconds(before.at),
            end: seconds(after.at),
            figures,
        });
    }

    /// Whether the client was what limited the phase.
    fn judge_client(&mut self, phase: &Phase, figures: &Figures, cores: f64) {
        if !phase.measured {
            return;
        }
        self.was_busy |= cores > BUSY;
        if is_open_loop(phase) {
            self.was_late |= figures.get("lag_p99_us").is_some_and(|late| *late > LATE_US);
        }
    }

    fn rest_and_readers(
        &mut self,
        phase: &Phase,
        after: &Snapshot,
        (reading, deliveries, passed): (usize, u64, f64),
    ) {
        let is_quiet = phase.rate.is_none() && phase.window.is_none();
        if let Some((_, resident)) = after.server {
            self.resident = Some(resident);
            if is_quiet && after.connections > 0 {
                self.at_rest.push((after.connections, resident));
            }
        }
        if phase.measured && !is_quiet && reading > 0 {
            let per_reader = count(deliveries) / passed / count(reading as u64);
            self.per_reader[usize::from(phase.slow_readers.is_some())].push(per_reader);
        }
    }

    fn sum(
        &mut self,
        phase: &Phase,
        (before, after): (&Snapshot, &Snapshot),
        (published, deliveries, opened): (u64, u64, u64),
        server_cpu: Option<f64>,
    ) {
        let sums = &mut self.sums;
        let passed = seconds(after.at - before.at);
        sums.seconds += passed;
        sums.published += published;
        sums.deliveries += deliveries;
        sums.wire_sent += after.tally.wire_sent - before.tally.wire_sent;
        sums.wire_received += after.tally.wire_received - before.tally.wire_received;
        sums.client_cpu += after.client_cpu - before.client_cpu;
        let is_quiet = phase.rate.is_none() && phase.window.is_none();
        if is_quiet {
            if opened > 0 {
                sums.opened += opened;
                sums.opening_seconds += passed - seconds(after.rested);
                add(&mut sums.connecting_cpu, server_cpu);
            }
        } else {
            sums.busy_seconds += passed;
            add(&mut sums.server_cpu, server_cpu);
        }
        if let Some(rate) = phase.rate {
            sums.asked += rate * passed;
            // What one phase left behind the next may have made up for.
            sums.unsent += count(after.unsent) - count(before.unsent);
        }
    }

    /// Whether what the clients waited, they waited for the server: an open loop that the client kept up with.
    pub(super) fn is_paced(&self, fleet: &Fleet, scenario: &Scenario) -> bool {
        let with_messages = |phase: &&Phase| phase.rate.is_some() || phase.window.is_some();
        let calm = |phase: &Phase| is_open_loop(phase) && phase.slow_readers.is_none() && phase.cut.is_none();
        let lag = fleet.traffic.latencies.figures().get("lag_p99_us").copied();
        scenario.phases.iter().filter(with_messages).all(calm)
            && lag.is_some_and(|lag| lag < CALM_US)
            && !self.was_busy
            && !self.was_late
            && fleet.traffic.unsent == 0
    }

    /// What went wrong.
    pub(super) fn faults(fleet: &mut Fleet) -> Faults {
        let lost = fleet.lost();
        let tally = fleet.traffic.tally;
        let troubles = &fleet.troubles;
        Faults {
            lost,
            duplicates: tally.duplicates,
            reordered: tally.reordered,
            foreign: tally.foreign,
            false_gaps: fleet.traffic.false_gaps(),
            refused: troubles.refused,
            ended: troubles.ended,
            surprises: troubles.surprises,
            unanswered: fleet.unanswered() as u64,
            remarks: troubles.remarks(),
        }
    }

    /// The figures of all measured phases, and whether the client was the bottleneck.
    pub(super) fn figures(&self, fleet: &Fleet, scenario: &Scenario) -> (Figures, bool) {
        let sums = &self.sums;
        let mut figures = fleet.traffic.latencies.figures();
        let mut put = |name: &str, value: f64| _ = figures.insert(name.to_owned(), value);
        put("seconds", sums.seconds);
        put("connections", f64::from(scenario.clients()));
        put("client_cpu_percent", sums.client_cpu / sums.seconds.max(1e-9) * 100.0);
        if sums.published > 0 {
            let busy = sums.busy_seconds.max(1e-9);
            put("published", count(sums.published));
            put("published_per_second", count(sums.published) / busy);
            put("deliveries", count(sums.deliveries));
            put("deliveries_per_second", count(sums.deliveries) / busy);
            put("sent_bytes_per_second", count(sums.wire_sent) / sums.seconds);
            put("received_bytes_per_second", count(sums.wire_received) / sums.seconds);
        }
        let mut was_short = false;
        if sums.asked > 0.0 {
            let achieved = ((sums.asked - sums.unsent) / sums.asked * 100.0).clamp(0.0, 100.0);
            was_short = achieved < ACHIEVED_PERCENT;
            put("asked_per_second", sums.asked / sums.busy_seconds.max(1e-9));
            put("achieved_percent", achieved);
        }
        if let Some(resident) = self.resident {
            put("server_resident_bytes", resident);
        }
        if let Some(cpu) = sums.server_cpu {
            put("server_cpu_percent", cpu / sums.busy_seconds.max(1e-9) * 100.0);
            if sums.deliveries > 0 {
                put("server_cpu_us_per_delivery", cpu * 1e6 / count(sums.deliveries));
            }
        }
        self.put_connections(&mut put);
        self.put_derived(fleet, &mut put);
        (figures, self.was_busy || self.was_late || was_short)
    }

    fn put_connections(&self, put: &mut impl FnMut(&str, f64)) {
        let sums = &self.sums;
        if let Some(rate) = self.connects_per_second() {
            put("connects_per_second", rate);
        }
        if let (Some(cpu), true) = (sums.connecting_cpu, sums.opened > 0) {
            put("server_cpu_us_per_connect", cpu * 1e6 / count(sums.opened));
        }
        // Of several readings with as many connections the last: what opening them took is free again. A run that rests
        // only once is held against the server without connections.
        let fewest = self.at_rest.iter().rev().min_by_key(|(connections, _)| *connections);
        let before = self.before.map(|resident| (0, resident));
        let fewest = if self.at_rest.len() > 1 { fewest.copied() } else { before };
        let most = self.at_rest.iter().max_by_key(|(connections, _)| *connections);
        if let (Some(fewest), Some(most)) = (fewest, most)
            && most.0 >= fewest.0 + CONNECTIONS_FOR_MEMORY
        {
            put("server_bytes_per_connection", (most.1 - fewest.1) / count(most.0 - fewest.0));
        }
        let idle =
            self.phases.iter().rfind(|phase| phase.measured && !phase.figures.contains_key("published"));
        if let Some(percent) = idle
            .filter(|phase| !phase.figures.contains_key("opened"))
            .and_then(|phase| phase.figures.get("server_cpu_percent"))
        {
            put("server_idle_cpu_percent", *percent);
        }
    }

    /// Of the measured phases that connect, or else of all.
    fn connects_per_second(&self) -> Option<f64> {
        let sums = &self.sums;
        if sums.opened > 0 {
            return Some(count(sums.opened) / sums.opening_seconds.max(1e-9));
        }
        let is_opening = |phase: &&outcome::Phase| !phase.figures.contains_key("published");
        let opening = self.phases.iter().filter(is_opening).filter_map(|phase| {
            let opened = phase.figures.get("opened")?;
            Some((opened, opened / phase.figures.get("connects_per_second")?))
        });
        let (opened, passed) =
            opening.fold((0.0, 0.0), |(opened, passed), (more, seconds)| (opened + more, passed + seconds));
        (opened > 0.0).then(|| opened / f64::max(passed, 1e-9))
    }

    fn put_derived(&self, fleet: &Fleet, put: &mut impl FnMut(&str, f64)) {
        let mean = |of: &[f64]| of.iter().sum::<f64>() / count(of.len().max(1) as u64);
        if self.per_reader.iter().all(|phases| !phases.is_empty()) {
            // Before and after: what is measured may still be getting faster.
            let [without, with] = [0, 1].map(|index| mean(&self.per_reader[index]));
            put("kept_percent", with / without.max(1e-9) * 100.0);
        }
        if let Some(back) = self.back {
            put("back_seconds", seconds(back));
        }
        let tally = &fleet.traffic.tally;
        for (name, number) in [
            ("gaps", tally.gaps),
            ("gap_messages", tally.gap_messages),
            ("rejected", tally.rejected),
            ("unverified", fleet.traffic.unverified),
            ("abandoned", fleet.traffic.abandoned),
        ] {
            if number > 0 {
                put(name, count(number));
            }
        }
        let closes: &BTreeMap<u16, u64> = &fleet.troubles.closes;
        for (code, number) in closes {
            put(&format!("closed_{code}"), count(*number));
        }
    }
}

fn add(sum: &mut Option<f64>, more: Option<f64>) {
    if let Some(more) = more {
        *sum = Some(sum.unwrap_or(0.0) + more);
    }
}
