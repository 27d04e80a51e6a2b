//! Every metric's name, unit, help and labels in one table; a struct of handles per module.
//!
//! Handles are registered once, when a module is built, so that nothing looks a metric up by name
//! while messages flow and every series is there, at zero, from the first scrape on. Labels come
//! from enums only: no room, user, address or peer-chosen code can become a series.

mod admin;
mod docs;
mod handles;
mod labels;
mod merged;
mod table;
#[cfg(test)]
mod tests;
mod webhooks;

use std::sync::Arc;

use metrics::{Counter, Gauge, Key, Label, Level, Metadata, Recorder as _};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use self::merged::{Registry, Seconds};

pub use self::admin::{AdminMetrics, Sums};
pub use self::docs::docs;
pub use self::handles::{
    ConfigMetrics, HandshakeFailures, HttpMetrics, HubMetrics, JwksMetrics, ListenerMetrics, RoomMetrics,
    ServerMetrics, ShardMetrics, ShardSamples, TlsMetrics, VitalsMetrics,
};
pub use self::labels::{
    AcceptError, ApiAuth, AuthResult, CloseReason, CloseSent, Compressed, Direction, DropReason, Family,
    HandshakeFailure, LabelValue, Layer, LimitScope, PublishResult, ReceivedClose, ReceivedType, Recovery,
    Refresh, RejectReason, ReloadResult, Resumption, SentType, Source, Stage, WriteResult,
};
pub use self::merged::{Histogram, Samples, write_head};
pub use self::table::{Kind, LabelInfo, METRICS, Metric, Values, is_of_rooms};
pub use self::webhooks::{WebhookLoss, WebhookMetrics, WebhookResult};

/// Where all metrics of the process are kept; cheap to clone.
///
/// It is not installed as a global recorder: two gateways in one process do not mix.
#[derive(Clone)]
pub struct Recorder {
    instruments: Arc<PrometheusRecorder>,
    handle: PrometheusHandle,
    merged: Registry,
}

impl Recorder {
    /// An empty recorder that knows the table.
    pub fn new() -> Self {
        let mut builder = PrometheusBuilder::new();
        for metric in METRICS {
            if let Kind::Histogram(buckets) = metric.kind {
                builder = builder
                    .set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), buckets)
                    .expect("no bucket list in the table is empty");
            }
        }
        let recorder = builder.build_recorder();
        for metric in METRICS {
            let (name, help) = (metric.name.into(), metric.help.into());
            match metric.kind {
                Kind::Counter => recorder.describe_counter(name, metric.unit, help),
                Kind::Gauge => recorder.describe_gauge(name, metric.unit, help),
                Kind::Histogram(_) => recorder.describe_histogram(name, metric.unit, help),
                Kind::Seconds | Kind::ShardHistogram(_) => {}
            }
        }
        let handle = recorder.handle();
        Self { instruments: Arc::new(recorder), handle, merged: Registry::default() }
    }

    /// All registered metrics in the Prometheus text format, version 0.0.4.
    pub fn render(&self) -> String {
        let mut page = self.handle.render();
        self.merged.render(&mut page);
        page
    }

    /// Sorts what histograms have collected into their buckets; to be called every second or so,
    /// since what they collect is not bounded between two calls.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }

    fn counter(&self, metric: &Metric, labels: &[(&'static str, &str)]) -> Counter {
        debug_assert_eq!(metric.kind, Kind::Counter, "{}", metric.name);
        self.instruments.register_counter(&key(metric, labels), &METADATA)
    }

    fn gauge(&self, metric: &Metric, labels: &[(&'static str, &str)]) -> Gauge {
        debug_assert_eq!(metric.kind, Kind::Gauge, "{}", metric.name);
        self.instruments.register_gauge(&key(metric, labels), &METADATA)
    }

    /// A histogram for rare samples, from any thread.
    fn histogram(&self, metric: &Metric, labels: &[(&'static str, &str)]) -> metrics::Histogram {
        debug_assert!(matches!(metric.kind, Kind::Histogram(_)), "{}", metric.name);
        self.instruments.register_histogram(&key(metric, labels), &METADATA)
    }

    fn own_histogram(&self, metric: &Metric, labels: &[(&'static str, &str)]) -> Histogram {
        self.merged.histogram(metric, labels)
    }

    fn own_seconds(&self, metric: &Metric, labels: &[(&'static str, &str)]) -> Seconds {
        self.merged.seconds(metric, labels)
    }

    fn counters<L: LabelValue>(&self, metric: &Metric) -> Family<L, Counter> {
        Family::new(|label, value| self.counter(metric, &[(label, value)]))
    }

    fn own_histograms<L: LabelValue>(&self, metric: &Metric) -> Family<L, Histogram> {
        Family::new(|label, value| self.own_histogram(metric, &[(label, value)]))
    }
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

const METADATA: Metadata<'static> = Metadata::new("fanfare", Level::INFO, None);

fn key(metric: &Metric, labels: &[(&'static str, &str)]) -> Key {
    debug_assert!(has_labels(metric, labels), "labels of {}", metric.name);
    Key::from_parts(
        metric.name,
        labels.iter().map(|&(name, value)| Label::new(name, value.to_owned())).collect::<Vec<_>>(),
    )
}

fn has_labels(metric: &Metric, labels: &[(&'static str, &str)]) -> bool {
    labels.iter().map(|(name, _)| *name).eq(metric.labels.iter().map(|label| label.name))
}

/// A count as the number that instruments take.
#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
pub fn count(number: usize) -> f64 {
    number as f64
}
