//! The handles of the admin listener, and what it sums up of those of others.

use metrics::{Counter, Gauge};

use super::labels::{ApiAuth, Family, LabelValue, PublishResult, Source};
use super::{Recorder, table};

/// What the admin listener counts.
#[derive(Clone)]
pub struct AdminMetrics {
    recorder: Recorder,
    /// Live taps.
    pub taps: Gauge,
    /// Events that a tap left out.
    pub tap_lost: Counter,
    /// Requests by what became of their key.
    pub keys: Family<ApiAuth, Counter>,
    /// Messages of applications by what became of them.
    pub publishes: Family<PublishResult, Counter>,
    /// Those that went to a room or to everyone.
    pub broadcasts: Counter,
    /// Those that went to a user.
    pub direct: Counter,
    /// Idempotency keys forgotten before their time.
    pub once_forgotten: Counter,
}

impl AdminMetrics {
    /// Registers the handles.
    pub fn new(recorder: &Recorder) -> Self {
        let api = [(Source::KEY, Source::Api.as_str())];
        Self {
            recorder: recorder.clone(),
            taps: recorder.gauge(&table::TAPS, &[]),
            tap_lost: recorder.counter(&table::TAP_LOST, &[]),
            keys: recorder.counters(&table::API_KEYS),
            publishes: recorder.counters(&table::API_PUBLISHES),
            broadcasts: recorder.counter(&table::BROADCASTS, &api),
            direct: recorder.counter(&table::DIRECT, &api),
            once_forgotten: recorder.counter(&table::API_FORGOTTEN, &[]),
        }
    }

    /// Shows the series of a kind of request and answer before there is one.
    pub fn register(&self, route: &'static str, method: &'static str, code: u16) {
        let labels = [("route", route), ("method", method), ("code", &code.to_string())];
        // Registering is all there is to do; what comes back is for counting.
        let _ = self.recorder.counter(&table::HTTP_REQUESTS, &labels);
        let _ = self.recorder.histogram(&table::HTTP_DURATION, &[("route", timed_as(route))]);
    }

    /// Counts a request and its time in seconds. `route` and `method` come from lists, `code` is an answer's status.
    ///
    /// Looks the series up by name: requests to this listener are rare.
    pub fn served(&self, route: &'static str, method: &'static str, code: u16, seconds: f64) {
        let labels = [("route", route), ("method", method), ("code", &code.to_string())];
        self.recorder.counter(&table::HTTP_REQUESTS, &labels).increment(1);
        self.recorder.histogram(&table::HTTP_DURATION, &[("route", timed_as(route))]).record(seconds);
    }
}

/// The route by which the time of a request is told: the many that applications seldom use are one, since a histogram is many
/// series.
fn timed_as(route: &'static str) -> &'static str {
    if route.starts_with("/api/v1/") && route != "/api/v1/publish" { "/api/v1" } else { route }
}

/// What all series of some metrics add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Open connections.
    pub connections: u64,
    /// Messages of clients.
    pub messages_received: u64,
    /// Messages to clients.
    pub messages_sent: u64,
    /// What the connections take.
    pub memory_bytes: u64,
}

impl AdminMetrics {
    /// What some metrics of all modules add up to, as a scrape would show them: they are put together for that.
    pub fn sums(&self) -> Sums {
        let page = self.recorder.render();
        let sum = |metric: &table::Metric| {
            let values = page.lines().filter_map(|line| {
                let rest = line.strip_prefix(metric.name)?;
                let is_series = rest.starts_with(['{', ' ']);
                rest.rsplit_once(' ').filter(|_| is_series)?.1.parse::<f64>().ok()
            });
            whole(values.sum())
        };
        Sums {
            connections: sum(&table::CONNECTIONS),
            messages_received: sum(&table::RECEIVED),
            messages_sent: sum(&table::SENT),
            memory_bytes: sum(&table::MEMORY_BYTES),
        }
    }
}

/// The whole number that a sample is, 0 for one below.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
fn whole(sample: f64) -> u64 {
    sample.round() as u64
}
