//! Every metric's name, unit, help and labels in one table; a struct of handles per module.
//!
//! Handles are registered once, when a module is built, so that nothing looks a metric up by name
//! while messages flow and every series is there, at zero, from the first scrape on. Labels come
//! from enums only: no room, user, address or peer-chosen code can become a series.

mod labels;
mod table;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder as _};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

pub use self::labels::{
    AcceptError, CloseReason, DropReason, Family, HandshakeFailure, LabelValue, Layer, ReceivedType,
    SentType, Source, WriteResult,
};
pub use self::table::{Kind, METRICS, Metric};

/// Where all metrics of the process are kept; cheap to clone.
///
/// It is not installed as a global recorder: two gateways in one process do not mix.
#[derive(Clone)]
pub struct Recorder {
    recorder: Arc<PrometheusRecorder>,
    handle: PrometheusHandle,
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
            }
        }
        let handle = recorder.handle();
        Self { recorder: Arc::new(recorder), handle }
    }

    /// All registered metrics in the Prometheus text format, version 0.0.4.
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Sorts what histograms have collected into their buckets; to be called every second or so,
    /// since what they collect is not bounded between two calls.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }

    fn counter(&self, metric: &Metric, labels: &[(&'static str, &str)]) -> Counter {
        debug_assert_eq!(metric.kind, Kind::Counter, "{}", metric.name);
        self.recorder.register_counter(&key(metric, labels), &METADATA)
    }

    fn gauge(&self, metric: &Metric, labels: &[(&'static str, &str)]) -> Gauge {
        debug_assert_eq!(metric.kind, Kind::Gauge, "{}", metric.name);
        self.recorder.register_gauge(&key(metric, labels), &METADATA)
    }

    fn histogram(&self, metric: &Metric, labels: &[(&'static str, &str)]) -> Histogram {
        debug_assert!(matches!(metric.kind, Kind::Histogram(_)), "{}", metric.name);
        self.recorder.register_histogram(&key(metric, labels), &METADATA)
    }

    fn counters<L: LabelValue>(&self, metric: &Metric) -> Family<L, Counter> {
        Family::new(|label, value| self.counter(metric, &[(label, value)]))
    }

    fn histograms<L: LabelValue>(&self, metric: &Metric) -> Family<L, Histogram> {
        Family::new(|label, value| self.histogram(metric, &[(label, value)]))
    }
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

/// What belongs to the process as a whole.
#[derive(Clone)]
pub struct ServerMetrics {
    /// 1 while shutting down.
    pub draining: Gauge,
}

impl ServerMetrics {
    /// Registers the handles and says which build this is.
    pub fn new(recorder: &Recorder) -> Self {
        let revision = option_env!("FANFARE_REVISION").unwrap_or("unknown");
        let labels = [("version", env!("CARGO_PKG_VERSION")), ("revision", revision)];
        recorder.gauge(&table::BUILD_INFO, &labels).set(1.0);
        Self { draining: recorder.gauge(&table::DRAINING, &[]) }
    }
}

/// What a shard counts.
///
/// Only the gauges with a `shard` label are the shard's own, to be `set`; the others are shared by
/// all shards, which add to them and take away.
#[derive(Clone)]
pub struct ShardMetrics {
    /// Open connections of the gateway.
    pub connections: Gauge,
    /// Open connections of this shard.
    pub shard_connections: Gauge,
    /// Upgrades completed.
    pub opened: Counter,
    /// Connections ended.
    pub closed: Family<CloseReason, Counter>,
    /// Messages from clients.
    pub received: Family<ReceivedType, Counter>,
    /// Messages written to clients to their last byte, counted for each recipient.
    pub sent: Family<SentType, Counter>,
    /// Bytes from clients.
    pub received_bytes: Family<Layer, Counter>,
    /// Bytes to clients.
    pub sent_bytes: Family<Layer, Counter>,
    /// Recipients of a broadcast on this shard.
    pub recipients: Histogram,
    /// Message read to socket written, in seconds.
    pub delivery: Family<Source, Histogram>,
    /// Messages in one write of a batch.
    pub write_batch: Histogram,
    /// Writes to sockets.
    pub socket_writes: Family<WriteResult, Counter>,
    /// Messages that a recipient was not given.
    pub dropped: Family<DropReason, Counter>,
    /// Bytes in the backlogs of this shard.
    pub queue_bytes: Gauge,
    /// Connections of this shard with a backlog.
    pub slow: Gauge,
    /// Connections closed after silence.
    pub ping_timeouts: Counter,
    /// Memberships of clients in rooms.
    pub memberships: Gauge,
    /// Messages published to a room or to everyone.
    pub broadcasts: Family<Source, Counter>,
    /// Messages that had to wait for a room or shard to take more.
    pub held: Counter,
}

impl ShardMetrics {
    /// Registers the handles of the shard with this index.
    pub fn new(recorder: &Recorder, shard: usize) -> Self {
        let shard = shard.to_string();
        let shard = [("shard", shard.as_str())];
        Self {
            connections: recorder.gauge(&table::CONNECTIONS, &[("transport", "ws")]),
            shard_connections: recorder.gauge(&table::SHARD_CONNECTIONS, &shard),
            opened: recorder.counter(&table::OPENED, &[("transport", "ws"), ("compression", "none")]),
            closed: recorder.counters(&table::CLOSED),
            received: recorder.counters(&table::RECEIVED),
            sent: recorder.counters(&table::SENT),
            received_bytes: recorder.counters(&table::RECEIVED_BYTES),
            sent_bytes: recorder.counters(&table::SENT_BYTES),
            recipients: recorder.histogram(&table::RECIPIENTS, &[]),
            delivery: recorder.histograms(&table::DELIVERY),
            write_batch: recorder.histogram(&table::WRITE_BATCH, &[]),
            socket_writes: recorder.counters(&table::SOCKET_WRITES),
            dropped: recorder.counters(&table::DROPPED),
            queue_bytes: recorder.gauge(&table::QUEUE_BYTES, &shard),
            slow: recorder.gauge(&table::SLOW, &shard),
            ping_timeouts: recorder.counter(&table::PING_TIMEOUTS, &[]),
            memberships: recorder.gauge(&table::MEMBERSHIPS, &[]),
            broadcasts: recorder.counters(&table::BROADCASTS),
            held: recorder.counter(&table::HELD, &[]),
        }
    }
}

/// What the handshake counts.
#[derive(Clone)]
pub struct HttpMetrics {
    /// Connections that did not become a WebSocket.
    pub failures: Family<HandshakeFailure, Counter>,
    /// Accept to 101, in seconds.
    pub duration: Histogram,
}

impl HttpMetrics {
    /// Registers the handles.
    pub fn new(recorder: &Recorder) -> Self {
        Self {
            failures: recorder.counters(&table::HANDSHAKE_FAILURES),
            duration: recorder.histogram(&table::HANDSHAKE_DURATION, &[("stage", "total")]),
        }
    }
}

/// What the listener counts.
#[derive(Clone)]
pub struct ListenerMetrics {
    /// Connections accepted.
    pub accepted: Counter,
    /// Failures to accept.
    pub errors: Family<AcceptError, Counter>,
    /// The connection limit.
    pub limit: Gauge,
}

impl ListenerMetrics {
    /// Registers the handles of the public listener.
    pub fn new(recorder: &Recorder) -> Self {
        Self {
            accepted: recorder.counter(&table::ACCEPTED, &[("listener", "public")]),
            errors: recorder.counters(&table::ACCEPT_ERRORS),
            limit: recorder.gauge(&table::CONNECTIONS_LIMIT, &[]),
        }
    }
}

/// What the hub counts.
#[derive(Clone)]
pub struct HubMetrics {
    /// Rooms with members.
    pub rooms: Gauge,
    /// Users with connections.
    pub users: Gauge,
}

impl HubMetrics {
    /// Registers the handles.
    pub fn new(recorder: &Recorder) -> Self {
        Self { rooms: recorder.gauge(&table::ROOMS, &[]), users: recorder.gauge(&table::USERS, &[]) }
    }
}

const METADATA: Metadata<'static> = Metadata::new("fanfare", Level::INFO, None);

fn key(metric: &Metric, labels: &[(&'static str, &str)]) -> Key {
    debug_assert!(labels.iter().map(|(name, _)| name).eq(metric.labels), "labels of {}", metric.name);
    Key::from_parts(
        metric.name,
        labels.iter().map(|&(name, value)| Label::new(name, value.to_owned())).collect::<Vec<_>>(),
    )
}

/// A count as the number that instruments take.
#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
pub fn count(number: usize) -> f64 {
    number as f64
}
