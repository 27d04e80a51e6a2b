//! The table of all metrics.

use metrics::Unit;

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations in these buckets (upper bounds, ascending).
    Histogram(&'static [f64]),
}

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// The name as Prometheus sees it.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// The base unit, where the value has one.
    pub unit: Option<Unit>,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// One sentence for people.
    pub help: &'static str,
}

const LATENCY: &[f64] = &[
    0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
    0.5, 1.0, 2.5, 5.0, 10.0,
];
const HANDSHAKE: &[f64] = &[0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const FAN_OUT: &[f64] =
    &[1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1e3, 2.5e3, 5e3, 1e4, 2.5e4, 5e4, 1e5];
const BATCH: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// Writes the table: a constant for each metric, and [`METRICS`] with all of them.
macro_rules! table {
    ($($id:ident: $kind:expr, $name:literal, $unit:expr, [$($label:literal),*], $help:literal;)*) => {
        $(pub(super) const $id: Metric =
            Metric { name: $name, kind: $kind, unit: $unit, labels: &[$($label),*], help: $help };)*
        /// All metrics of this program.
        pub const METRICS: &[Metric] = &[$($id),*];
    };
}

table! {
    BUILD_INFO: Kind::Gauge, "fanfare_build_info", None, ["version", "revision"],
        "Always 1; the labels name the build.";
    DRAINING: Kind::Gauge, "fanfare_draining", None, [], "1 while the gateway is shutting down.";
    CONNECTIONS: Kind::Gauge, "fanfare_connections", Some(Unit::Count), ["transport"],
        "Open WebSocket connections.";
    CONNECTIONS_LIMIT: Kind::Gauge, "fanfare_connections_limit", Some(Unit::Count), [],
        "Connections the gateway accepts at once.";
    ACCEPTED: Kind::Counter, "fanfare_accepted_connections_total", Some(Unit::Count), ["listener"],
        "TCP connections accepted.";
    ACCEPT_ERRORS: Kind::Counter, "fanfare_accept_errors_total", Some(Unit::Count), ["reason"],
        "Failed attempts to accept a connection.";
    OPENED: Kind::Counter, "fanfare_connections_opened_total", Some(Unit::Count),
        ["transport", "compression"], "Upgrades to WebSocket completed.";
    CLOSED: Kind::Counter, "fanfare_connections_closed_total", Some(Unit::Count), ["reason"],
        "WebSocket connections that ended.";
    HANDSHAKE_FAILURES: Kind::Counter, "fanfare_handshake_failures_total", Some(Unit::Count), ["reason"],
        "Connections that ended before they became a WebSocket.";
    HANDSHAKE_DURATION: Kind::Histogram(HANDSHAKE), "fanfare_handshake_duration_seconds",
        Some(Unit::Seconds), ["stage"], "Time from accepting a connection to its answer 101.";
    RECEIVED: Kind::Counter, "fanfare_messages_received_total", Some(Unit::Count), ["type"],
        "Messages from clients.";
    SENT: Kind::Counter, "fanfare_messages_sent_total", Some(Unit::Count), ["type"],
        "Messages written to clients to their last byte; a broadcast counts once for each recipient.";
    RECEIVED_BYTES: Kind::Counter, "fanfare_received_bytes_total", Some(Unit::Bytes), ["layer"],
        "Bytes from clients.";
    SENT_BYTES: Kind::Counter, "fanfare_sent_bytes_total", Some(Unit::Bytes), ["layer"], "Bytes to clients.";
    BROADCASTS: Kind::Counter, "fanfare_broadcasts_total", Some(Unit::Count), ["source"],
        "Messages published to a room or to everyone.";
    RECIPIENTS: Kind::Histogram(FAN_OUT), "fanfare_broadcast_recipients", Some(Unit::Count), [],
        "Recipients of a broadcast on one shard.";
    DELIVERY: Kind::Histogram(LATENCY), "fanfare_delivery_duration_seconds", Some(Unit::Seconds), ["source"],
        "Time from reading a message to its acceptance by a recipient's socket, for the first and the last recipient of a batch and some between.";
    WRITE_BATCH: Kind::Histogram(BATCH), "fanfare_write_batch_messages", Some(Unit::Count), [],
        "Messages that one write of a batch carries.";
    SOCKET_WRITES: Kind::Counter, "fanfare_socket_writes_total", Some(Unit::Count), ["result"],
        "Writes to client sockets.";
    QUEUE_BYTES: Kind::Gauge, "fanfare_outbound_queue_bytes", Some(Unit::Bytes), ["shard"],
        "Bytes that wait for clients whose sockets are full.";
    SLOW: Kind::Gauge, "fanfare_slow_connections", Some(Unit::Count), ["shard"],
        "Connections with a backlog.";
    DROPPED: Kind::Counter, "fanfare_messages_dropped_total", Some(Unit::Count), ["reason"],
        "Messages that a recipient was not given, counted for each recipient.";
    SHARD_CONNECTIONS: Kind::Gauge, "fanfare_shard_connections", Some(Unit::Count), ["shard"],
        "Open WebSocket connections of a shard.";
    PING_TIMEOUTS: Kind::Counter, "fanfare_ping_timeouts_total", Some(Unit::Count), [],
        "Connections closed because nothing came from the client for too long.";
    ROOMS: Kind::Gauge, "fanfare_rooms", Some(Unit::Count), [], "Rooms with at least one member.";
    USERS: Kind::Gauge, "fanfare_users", Some(Unit::Count), [], "Users with at least one connection.";
    MEMBERSHIPS: Kind::Gauge, "fanfare_room_memberships", Some(Unit::Count), [],
        "Memberships: each connection counts once for each room it is in.";
    HELD: Kind::Counter, "fanfare_publications_held_total", Some(Unit::Count), [],
        "Messages that waited because a room or a shard had too much under way; their senders were not read on.";
    PROCESS_RSS: Kind::Gauge, "process_resident_memory_bytes", Some(Unit::Bytes), [],
        "Resident memory of the process.";
    PROCESS_CPU: Kind::Counter, "process_cpu_seconds_total", Some(Unit::Seconds), [],
        "User and system CPU time of the process.";
    PROCESS_FDS: Kind::Gauge, "process_open_fds", Some(Unit::Count), [], "Open file descriptors.";
    PROCESS_MAX_FDS: Kind::Gauge, "process_max_fds", Some(Unit::Count), [],
        "Limit of open file descriptors.";
    PROCESS_START: Kind::Gauge, "process_start_time_seconds", Some(Unit::Seconds), [],
        "Start of the process, in seconds since the Unix epoch.";
}
