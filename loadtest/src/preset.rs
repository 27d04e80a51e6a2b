//! The presets: what is done in which order, and what of it is measured.

use std::io::IsTerminal as _;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::cli::{Preset, Run};
use crate::clock::Clock;
use crate::fleet::Fleet;
use crate::process::{Cost, Meter, own_cpu};
use crate::report::{Broadcast, Faults, Idle, IdleServer, Report, Server, was_bottleneck};
use crate::rooms::{Counts, Rooms};
use crate::target::Target;

/// Descriptors that are not connections.
const OTHER_DESCRIPTORS: u64 = 64;
/// What the server needs to come to rest after a change.
const SETTLE: Duration = Duration::from_millis(500);
/// How long messages in flight at the end may take before they count as lost.
const DRAIN: Duration = Duration::from_secs(5);
const SCHEMA: u32 = 1;

/// Runs a preset. The descriptors must have been raised and the flags checked.
pub(crate) fn run(run: &Run, target: Target) -> Result<Report> {
    let clock = Clock::start();
    let rooms = Rooms::new(run.rooms(), run.window, run.payload, clock)?;
    let sources = run.source_ip.concat();
    let fleet = Fleet::new(target, sources, run.connect_rate, clock, rooms)?;
    let meter = match (run.server_pid, &run.metrics) {
        (Some(id), _) => Some(Meter::Process(id)),
        (None, Some(url)) => Some(Meter::Metrics(url.clone())),
        (None, None) => None,
    };
    let mut course = Course { run, fleet, meter, clock };
    match run.preset {
        Preset::Broadcast => course.broadcast().map(Report::Broadcast),
        Preset::Idle => course.idle().map(Report::Idle),
    }
}

/// Raises the limit of descriptors as far as the connections need.
///
/// # Errors
///
/// When the hard limit is too low: one process cannot open so many connections here.
pub(crate) fn raise_descriptor_limit(connections: u32) -> Result<()> {
    let needed = u64::from(connections) + OTHER_DESCRIPTORS;
    let limit = getrlimit(Resource::Nofile);
    if limit.maximum.is_some_and(|maximum| maximum < needed) {
        let most = limit.maximum.unwrap_or(0).saturating_sub(OTHER_DESCRIPTORS);
        bail!("the limit of open files allows {most} connections; run several processes for {connections}");
    }
    if limit.current.is_some_and(|current| current < needed) {
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
            .context("raising the limit of open files")?;
    }
    Ok(())
}

struct Course<'a> {
    run: &'a Run,
    fleet: Fleet,
    meter: Option<Meter>,
    clock: Clock,
}

/// The state of things at one moment.
struct Snapshot {
    at: Duration,
    server: Option<Cost>,
    client_cpu: f64,
    counts: Counts,
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
impl Course<'_> {
    fn broadcast(&mut self) -> Result<Broadcast> {
        let run = self.run;
        let took = self.open(run.connections)?;
        self.serve_for(SETTLE)?;
        self.fleet.rooms.start();
        self.fleet.publish();
        self.serve_for(run.warmup)?;
        self.fleet.rooms.latency.reset();
        let before = self.snapshot()?;
        self.serve_for(run.duration)?;
        let after = self.snapshot()?;
        self.fleet.rooms.stop();
        self.fleet.serve(self.clock.elapsed() + DRAIN, true)?;

        let seconds = after.at.saturating_sub(before.at).as_secs_f64();
        let deliveries = after.counts.deliveries - before.counts.deliveries;
        let client_cpu = after.client_cpu - before.client_cpu;
        let server = before.server.zip(after.server).map(|(before, after)| Server {
            server_cpu_percent: (after.cpu - before.cpu) / seconds * 100.0,
            server_cpu_us_per_delivery: (after.cpu - before.cpu) * 1e6 / (deliveries.max(1) as f64),
            server_resident_bytes: after.resident,
        });
        let faults = self.faults();
        let latency = &self.fleet.rooms.latency;
        let micros = |nanos: u64| nanos as f64 / 1e3;
        Ok(Broadcast {
            schema: SCHEMA,
            preset: "broadcast",
            connections: run.connections,
            rooms: run.rooms(),
            window: run.window,
            message_bytes: self.fleet.rooms.delivered_length,
            connects_per_second: f64::from(run.connections) / took.as_secs_f64(),
            seconds,
            deliveries,
            deliveries_per_second: deliveries as f64 / seconds,
            messages_per_second: (after.counts.completed - before.counts.completed) as f64 / seconds,
            latency_p50_us: micros(latency.value_at_quantile(0.5)),
            latency_p99_us: micros(latency.value_at_quantile(0.99)),
            latency_max_us: micros(latency.max()),
            server,
            client_cpu_percent: client_cpu / seconds * 100.0,
            client_was_bottleneck: was_bottleneck(client_cpu, seconds),
            ok: faults.none() && deliveries > 0,
            faults,
        })
    }

    fn idle(&mut self) -> Result<Idle> {
        let Run { connections, baseline, duration, .. } = *self.run;
        self.open(baseline)?;
        self.serve_for(SETTLE * 2)?;
        let base = self.snapshot()?;
        let took = self.open(connections)?;
        let opened = self.snapshot()?;
        self.serve_for(SETTLE * 2)?;
        let held = self.snapshot()?;
        self.serve_for(duration)?;
        let end = self.snapshot()?;

        let added = f64::from(connections - baseline);
        let client_cpu = opened.client_cpu - base.client_cpu;
        let held_seconds = end.at.saturating_sub(held.at).as_secs_f64();
        let server = base.server.zip(opened.server).zip(held.server.zip(end.server));
        let server = server.map(|((base, opened), (held, end))| IdleServer {
            server_bytes_per_connection: (end.resident - base.resident) / added,
            server_resident_bytes: end.resident,
            server_cpu_us_per_connect: (opened.cpu - base.cpu) * 1e6 / added,
            server_held_cpu_percent: (end.cpu - held.cpu) / held_seconds.max(1e-9) * 100.0,
        });
        let faults = self.faults();
        Ok(Idle {
            schema: SCHEMA,
            preset: "idle",
            connections,
            baseline,
            connects_per_second: added / took.as_secs_f64(),
            held_seconds,
            server,
            client_cpu_percent: client_cpu / took.as_secs_f64() * 100.0,
            client_was_bottleneck: was_bottleneck(client_cpu, took.as_secs_f64()),
            ok: faults.none(),
            faults,
        })
    }

    fn open(&mut self, total: u32) -> Result<Duration> {
        let bar = if self.run.json || !std::io::stderr().is_terminal() {
            ProgressBar::hidden()
        } else {
            ProgressBar::new(u64::from(total))
        };
        bar.set_style(ProgressStyle::with_template("connecting {bar:30} {human_pos}/{human_len} {per_sec}")?);
        let took = self.fleet.open(total as usize, &mut |ready| bar.set_position(ready as u64));
        bar.finish_and_clear();
        took
    }

    fn serve_for(&mut self, duration: Duration) -> Result<()> {
        self.fleet.serve(self.clock.elapsed() + duration, false)
    }

    fn snapshot(&self) -> Result<Snapshot> {
        Ok(Snapshot {
            at: self.clock.elapsed(),
            server: self.meter.as_ref().map(Meter::read).transpose()?,
            client_cpu: own_cpu()?,
            counts: self.fleet.rooms.counts,
        })
    }

    fn faults(&self) -> Faults {
        let fleet = &self.fleet;
        let Counts { duplicates, reordered, foreign, surprises, .. } = fleet.rooms.counts;
        let mut remarks: Vec<String> =
            fleet.ended.iter().take(5).map(|(reason, count)| format!("{count} x {reason}")).collect();
        if surprises > 0 {
            remarks.push(format!("last unexpected text: {}", fleet.rooms.last_surprise));
        }
        let ended = u64::from(self.run.connections).saturating_sub(fleet.ready() as u64);
        Faults { lost: fleet.lost(), duplicates, reordered, foreign, surprises, ended, remarks }
    }
}
