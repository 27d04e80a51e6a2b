//! The table of all metrics: names, kinds, units, labels and help, from which they are registered and documented.

use metrics::Unit;

use super::labels::{
    AcceptError, ApiAuth, AuthResult, CloseReason, CloseSent, Compressed, Direction, DropReason,
    HandshakeFailure, LabelValue, Layer, LimitScope, PublishResult, ReceivedClose, ReceivedType, Recovery,
    Refresh, RejectReason, ReloadResult, Resumption, SentType, Source, Stage, WriteResult,
};
use super::webhooks::{WebhookLoss, WebhookResult};

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Only grows; whole numbers.
    Counter,
    /// Only grows; seconds with fractions, kept by each shard and put together at scrape.
    Seconds,
    /// Goes up and down.
    Gauge,
    /// Counts observations in these buckets (upper bounds, ascending).
    Histogram(&'static [f64]),
    /// As [`Kind::Histogram`], kept by each shard and put together at scrape.
    ShardHistogram(&'static [f64]),
}

impl Kind {
    /// The type as Prometheus' text format calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter | Self::Seconds => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) | Self::ShardHistogram(_) => "histogram",
        }
    }
}

/// One label of a metric.
#[derive(Clone, Copy, Debug)]
pub struct LabelInfo {
    /// Its name.
    pub name: &'static str,
    /// What it can be.
    pub values: Values,
}

/// What values a label has.
#[derive(Clone, Copy, Debug)]
pub enum Values {
    /// These and no others.
    Listed(fn() -> Vec<&'static str>),
    /// Bounded as this sentence says.
    Described(&'static str),
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
    /// Its labels, in the order of the series.
    pub labels: &'static [LabelInfo],
    /// One sentence for people.
    pub help: &'static str,
    /// The heading under which it is documented.
    pub section: &'static str,
}

const LATENCY: &[f64] = &[
    0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
    0.5, 1.0, 2.5, 5.0, 10.0,
];
const HANDSHAKE: &[f64] = &[0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const LIFETIME: &[f64] = &[1.0, 10.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 43_200.0, 86_400.0];
const SIZE: &[f64] = &[64.0, 256.0, 1024.0, 4096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0];
const FAN_OUT: &[f64] =
    &[1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1e3, 2.5e3, 5e3, 1e4, 2.5e4, 5e4, 1e5];
const BATCH: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

const fn listed<L: LabelValue>() -> LabelInfo {
    LabelInfo { name: L::KEY, values: Values::Listed(names::<L>) }
}

const fn described(name: &'static str, what: &'static str) -> LabelInfo {
    LabelInfo { name, values: Values::Described(what) }
}

fn names<L: LabelValue>() -> Vec<&'static str> {
    L::ALL.iter().map(|value| value.as_str()).collect()
}

const SHARD: LabelInfo = described("shard", "index of the shard, from 0");
const ROOM: LabelInfo = described("room", "name of a room; at most as many as the endpoint says");
const TRANSPORT: LabelInfo = described("transport", "`ws`");

/// Writes the table: a constant for each metric, and [`METRICS`] with all of them.
macro_rules! table {
    ($($section:literal {
        $($id:ident: $kind:expr, $name:literal, $unit:expr, [$($label:expr),*], $help:literal;)*
    })*) => {
        $($(pub(super) const $id: Metric = Metric {
            name: $name,
            kind: $kind,
            unit: $unit,
            labels: &[$($label),*],
            help: $help,
            section: $section,
        };)*)*
        /// All metrics of this program.
        pub const METRICS: &[Metric] = &[$($($id),*),*];
    };
}

table! {
    "The gateway" {
        BUILD_INFO: Kind::Gauge, "fanfare_build_info", None,
            [
                described("version", "the release"),
                described("revision", "the commit"),
                described("rust_version", "the compiler")
            ],
            "Always 1; the labels name the build.";
        READY: Kind::Gauge, "fanfare_ready", None, [],
            "1 while new connections are welcome, as `/readyz` says.";
        CONFIG_SUCCESSFUL: Kind::Gauge, "fanfare_config_last_reload_successful", None, [],
            "1 when the configuration was sound the last time it was read, 0 when the old one stays in force.";
        CONFIG_SUCCEEDED_AT: Kind::Gauge, "fanfare_config_last_reload_success_timestamp_seconds", Some(Unit::Seconds), [],
            "When the configuration that is in force was read, in Unix seconds.";
        DRAINING: Kind::Gauge, "fanfare_draining", None, [], "1 while all clients are sent away and no new ones are taken.";
        DRAIN_PROGRESS: Kind::Gauge, "fanfare_drain_progress_ratio", None, [], "The part of the connections that were open when the drain began and have ended; 0 without a drain.";
    }
    "Connections" {
        CONNECTIONS: Kind::Gauge, "fanfare_connections", Some(Unit::Count), [TRANSPORT],
            "Open WebSocket connections.";
        CONNECTIONS_LIMIT: Kind::Gauge, "fanfare_connections_limit", Some(Unit::Count), [],
            "Connections the gateway accepts at once.";
        ACCEPTED: Kind::Counter, "fanfare_accepted_connections_total", Some(Unit::Count),
            [described("listener", "`public`")], "TCP connections accepted.";
        ACCEPT_ERRORS: Kind::Counter, "fanfare_accept_errors_total", Some(Unit::Count),
            [listed::<AcceptError>()], "Failed attempts to accept a connection.";
        HANDSHAKES: Kind::Gauge, "fanfare_handshakes", Some(Unit::Count), [SHARD],
            "Connections that wait for the rest of their request.";
        HANDSHAKE_FAILURES: Kind::Counter, "fanfare_handshake_failures_total", Some(Unit::Count),
            [listed::<HandshakeFailure>()], "Connections that ended before they became a WebSocket.";
        TLS_RELOADS: Kind::Counter, "fanfare_tls_reloads_total", None, [listed::<ReloadResult>()],
            "Attempts to use a certificate whose files have changed, or on SIGHUP; none without TLS.";
        TLS_NOT_AFTER: Kind::Gauge, "fanfare_tls_certificate_not_after_timestamp_seconds", Some(Unit::Seconds), [],
            "When the first of the certificates in force runs out, in seconds since the Unix epoch; none without TLS.";
        RATE_LIMITED: Kind::Counter, "fanfare_rate_limited_total", Some(Unit::Count), [listed::<LimitScope>()],
            "What was refused because there was too much of it or it came too fast, by whose limit that was: connections of an address (`ip`), of a user, or of all together (`global`), and messages of a connection.";
        HANDSHAKE_DURATION: Kind::Histogram(HANDSHAKE), "fanfare_handshake_duration_seconds",
            Some(Unit::Seconds), [described("stage", "`total`")],
            "Time from accepting a connection to its answer 101.";
        AUTH_ATTEMPTS: Kind::Counter, "fanfare_auth_attempts_total", Some(Unit::Count),
            [listed::<AuthResult>()], "Checks of a token at the upgrade, where one is required.";
        AUTH_DURATION: Kind::Histogram(LATENCY), "fanfare_auth_duration_seconds", Some(Unit::Seconds), [],
            "Time that the check of a token took.";
        JWKS_REFRESHES: Kind::Counter, "fanfare_jwks_refreshes_total", Some(Unit::Count), [listed::<Refresh>()],
            "How often `auth.jwks` was read: every `auth.jwks_refresh`, a file every 2 s.";
        JWKS_LAST_SUCCESS: Kind::Gauge, "fanfare_jwks_last_success_timestamp_seconds", Some(Unit::Seconds), [],
            "When it was last read well, in Unix seconds; 0 before that, and without `auth.jwks`.";
        OPENED: Kind::Counter, "fanfare_connections_opened_total", Some(Unit::Count),
            [TRANSPORT, listed::<Compressed>()], "Upgrades to WebSocket completed.";
        CLOSED: Kind::Counter, "fanfare_connections_closed_total", Some(Unit::Count),
            [listed::<CloseReason>()], "WebSocket connections that ended.";
        CONNECTION_DURATION: Kind::ShardHistogram(LIFETIME), "fanfare_connection_duration_seconds",
            Some(Unit::Seconds), [], "How long connections were open, in steps of 64 ms.";
        CLOSE_SENT: Kind::Counter, "fanfare_close_frames_sent_total", Some(Unit::Count),
            [listed::<CloseSent>()], "Close frames to clients, by the code that the gateway chose.";
        CLOSE_RECEIVED: Kind::Counter, "fanfare_close_frames_received_total", Some(Unit::Count),
            [listed::<ReceivedClose>()], "Close frames from clients, by the class of their code.";
        PING_RTT: Kind::ShardHistogram(LATENCY), "fanfare_ping_rtt_seconds", Some(Unit::Seconds), [],
            "Time from a WebSocket ping to the client's pong: the network both ways, and the client.";
        PING_TIMEOUTS: Kind::Counter, "fanfare_ping_timeouts_total", Some(Unit::Count), [],
            "Connections closed because nothing came from the client for too long.";
        USERS: Kind::Gauge, "fanfare_users", Some(Unit::Count), [], "Users with at least one connection.";
    }
    "Messages" {
        RECEIVED: Kind::Counter, "fanfare_messages_received_total", Some(Unit::Count),
            [listed::<ReceivedType>()], "Messages from clients.";
        SENT: Kind::Counter, "fanfare_messages_sent_total", Some(Unit::Count), [listed::<SentType>()],
            "Messages written to clients to their last byte; a broadcast counts once for each recipient.";
        REJECTED: Kind::Counter, "fanfare_messages_rejected_total", Some(Unit::Count),
            [listed::<RejectReason>()], "Requests answered with an error, by the error's code.";
        RECEIVED_BYTES: Kind::Counter, "fanfare_received_bytes_total", Some(Unit::Bytes),
            [listed::<Layer>()], "Bytes from clients.";
        SENT_BYTES: Kind::Counter, "fanfare_sent_bytes_total", Some(Unit::Bytes), [listed::<Layer>()],
            "Bytes to clients.";
        COMPRESSION_INPUT: Kind::Counter, "fanfare_compression_input_bytes_total", Some(Unit::Bytes), [],
            "Bytes of publications that were compressed, once for each shard with members that can take it.";
        COMPRESSION_OUTPUT: Kind::Counter, "fanfare_compression_output_bytes_total", Some(Unit::Bytes), [],
            "Bytes of the frames that they became, each shared by all those members.";
        MESSAGE_SIZE: Kind::ShardHistogram(SIZE), "fanfare_message_size_bytes", Some(Unit::Bytes),
            [listed::<Direction>()],
            "Size of messages from clients, and of publications once for each member they are for.";
    }
    "Rooms and publications" {
        ROOMS: Kind::Gauge, "fanfare_rooms", Some(Unit::Count), [], "Rooms with at least one member.";
        MEMBERSHIPS: Kind::Gauge, "fanfare_room_memberships", Some(Unit::Count), [],
            "Memberships: each connection counts once for each room it is in.";
        BROADCASTS: Kind::Counter, "fanfare_broadcasts_total", Some(Unit::Count), [listed::<Source>()],
            "Messages published to a room or to everyone.";
        DIRECT: Kind::Counter, "fanfare_direct_messages_total", Some(Unit::Count), [listed::<Source>()],
            "Messages sent to a user, whether that user was here or not.";
        RECIPIENTS: Kind::ShardHistogram(FAN_OUT), "fanfare_broadcast_recipients", Some(Unit::Count), [],
            "Recipients of a batch of publications on one shard.";
        WRITE_BATCH: Kind::ShardHistogram(BATCH), "fanfare_write_batch_messages", Some(Unit::Count), [],
            "Messages that one write of a batch carries.";
        RECOVERIES: Kind::Counter, "fanfare_recoveries_total", Some(Unit::Count), [listed::<Recovery>()],
            "Rooms that clients entered with `recover`: whether all that they had missed was still there.";
        RESUMES: Kind::Counter, "fanfare_resumes_total", Some(Unit::Count), [listed::<Resumption>()],
            "Clients that came back with `resume`: whether their session was still known.";
        REPLAYED: Kind::ShardHistogram(FAN_OUT), "fanfare_recovery_replayed_messages", Some(Unit::Count), [],
            "Messages of a room's history that a client was given when it came in.";
        HISTORY_MESSAGES: Kind::Gauge, "fanfare_history_messages", Some(Unit::Count), [],
            "Messages kept in the histories of all rooms.";
        HISTORY_BYTES: Kind::Gauge, "fanfare_history_bytes", Some(Unit::Bytes), [],
            "What the histories of all rooms take.";
        HISTORY_LIMIT: Kind::Gauge, "fanfare_history_limit_bytes", Some(Unit::Bytes), [],
            "What they may take: `history.bytes`.";
        HELD: Kind::Counter, "fanfare_publications_held_total", Some(Unit::Count), [],
            "Messages that waited because a room or a shard had too much under way; their senders were not read on.";
    }
    "Delivery latency" {
        DELIVERY: Kind::ShardHistogram(LATENCY), "fanfare_delivery_duration_seconds", Some(Unit::Seconds),
            [listed::<Source>()],
            "Time from reading a message to its acceptance by the socket of a recipient that was not behind, for the first and the last recipient of a batch and some between; the sum of the stages ingress, inbox and fan_out.";
        STAGE: Kind::ShardHistogram(LATENCY), "fanfare_delivery_stage_duration_seconds", Some(Unit::Seconds),
            [listed::<Source>(), listed::<Stage>()],
            "Where delivery takes its time: ingress (read, parsed, given to the shards), inbox (until the recipient's shard took it), fan_out (until the recipient's socket had it); or instead of being written, client_queue (until a socket that was full took it; what is dropped with a slow client never was).";
    }
    "Backpressure" {
        QUEUE_BYTES: Kind::Gauge, "fanfare_outbound_queue_bytes", Some(Unit::Bytes), [SHARD],
            "Bytes that wait for clients whose sockets are full.";
        QUEUE_MESSAGES: Kind::Gauge, "fanfare_outbound_queue_messages", Some(Unit::Count), [SHARD],
            "Messages that wait for clients whose sockets are full.";
        QUEUE_LARGEST: Kind::Gauge, "fanfare_outbound_queue_largest_bytes", Some(Unit::Bytes), [SHARD],
            "Bytes that wait for the client for which most wait.";
        QUEUE_AGE: Kind::Gauge, "fanfare_outbound_queue_oldest_age_seconds", Some(Unit::Seconds), [SHARD],
            "How long the oldest of what waits for clients has been waiting; 0 when nothing waits.";
        MEMORY_BYTES: Kind::Gauge, "fanfare_memory_bytes", Some(Unit::Bytes), [],
            "What all connections take: their entries, unfinished input and queues, where a buffer that many wait for counts once for each shard. Not the kernel's buffers, nor what the allocator keeps.";
        MEMORY_SOFT_LIMIT: Kind::Gauge, "fanfare_memory_soft_limit_bytes", Some(Unit::Bytes), [],
            "Above it new connections are refused.";
        MEMORY_HARD_LIMIT: Kind::Gauge, "fanfare_memory_hard_limit_bytes", Some(Unit::Bytes), [],
            "Above it the connections that hold most are closed.";
        QUEUE_LIMIT: Kind::Gauge, "fanfare_outbound_queue_limit_bytes", Some(Unit::Bytes), [],
            "What may wait for one client, before it is closed as a slow consumer.";
        QUEUE_WATERMARK: Kind::Gauge, "fanfare_outbound_queue_watermark_bytes", Some(Unit::Bytes), [],
            "What waits for one client at least, for it to count as slow.";
        BACKLOGGED: Kind::Gauge, "fanfare_backlogged_connections", Some(Unit::Count), [SHARD],
            "Connections for which something waits, be it for an instant.";
        SLOW: Kind::Gauge, "fanfare_slow_connections", Some(Unit::Count), [SHARD],
            "Connections for which more than the watermark waits.";
        HELD_CONNECTIONS: Kind::Gauge, "fanfare_held_connections", Some(Unit::Count), [SHARD],
            "Connections that are not read from, because a room takes no more of what they say.";
        FLUSH_BYTES: Kind::ShardHistogram(SIZE), "fanfare_outbound_queue_flush_bytes", Some(Unit::Bytes), [],
            "Bytes that waited for a client when its socket could take more.";
        FLUSH_MESSAGES: Kind::ShardHistogram(BATCH), "fanfare_outbound_queue_flush_messages",
            Some(Unit::Count), [], "Messages that waited for a client when its socket could take more.";
        SOCKET_WRITES: Kind::Counter, "fanfare_socket_writes_total", Some(Unit::Count),
            [listed::<WriteResult>()], "Writes to client sockets.";
        DROPPED: Kind::Counter, "fanfare_messages_dropped_total", Some(Unit::Count), [listed::<DropReason>()],
            "Messages that a recipient was not given, counted for each recipient: who was a member when its shard took the message, and did not leave.";
    }
    "Shards" {
        SHARD_CONNECTIONS: Kind::Gauge, "fanfare_shard_connections", Some(Unit::Count), [SHARD],
            "Open WebSocket connections of a shard.";
        INBOX_MESSAGES: Kind::Gauge, "fanfare_shard_inbox_messages", Some(Unit::Count), [SHARD],
            "Messages in a shard's inbox that the shard has not taken yet.";
        INBOX_BYTES: Kind::Gauge, "fanfare_shard_inbox_bytes", Some(Unit::Bytes), [SHARD],
            "Bytes of the messages in a shard's inbox.";
        INBOX_LIMIT: Kind::Gauge, "fanfare_shard_inbox_limit_bytes", Some(Unit::Bytes), [],
            "What one inbox takes, before publishers are held back.";
        LAG: Kind::ShardHistogram(LATENCY), "fanfare_shard_lag_seconds", Some(Unit::Seconds), [SHARD],
            "How much later than asked for a shard's timer ran, ten times a second: what everything on that shard waits.";
        BUSY: Kind::Seconds, "fanfare_shard_busy_seconds_total", Some(Unit::Seconds), [SHARD],
            "Time in which a shard did not sleep; its rate is the shard's utilisation.";
        STALLED: Kind::Gauge, "fanfare_shard_stalled_seconds", Some(Unit::Seconds), [SHARD],
            "How long a shard has not come round, once that is over the watchdog's limit; 0 when all is well.";
        STALLS: Kind::Counter, "fanfare_shard_stalls_total", Some(Unit::Count), [SHARD],
            "How often the watchdog found a shard that did not come round.";
        PANICS: Kind::Counter, "fanfare_shard_panics_total", Some(Unit::Count), [SHARD],
            "Panics of a shard's thread: its clients are closed with 1011 and it begins anew, or one handshake fails.";
    }
    "The webhook" {
        WEBHOOK_SENT: Kind::Counter, "fanfare_webhook_events_sent_total", Some(Unit::Count), [],
            "Events that the webhook's server took.";
        WEBHOOK_LOST: Kind::Counter, "fanfare_webhook_events_lost_total", Some(Unit::Count), [listed::<WebhookLoss>()],
            "Events that the webhook's server was not given: too much waited (queue_full), it refused them (rejected), they were tried for five minutes (expired), or the gateway ended (shutdown).";
        WEBHOOK_REQUESTS: Kind::Counter, "fanfare_webhook_requests_total", Some(Unit::Count),
            [listed::<WebhookResult>()], "Attempts to send a batch of events, by how they ended.";
        WEBHOOK_DURATION: Kind::Histogram(HANDSHAKE), "fanfare_webhook_request_duration_seconds", Some(Unit::Seconds), [],
            "How long those attempts took.";
        WEBHOOK_QUEUE_EVENTS: Kind::Gauge, "fanfare_webhook_queue_events", Some(Unit::Count), [],
            "Events that wait to be taken, those under way included.";
        WEBHOOK_QUEUE_BYTES: Kind::Gauge, "fanfare_webhook_queue_bytes", Some(Unit::Bytes), [], "What they take of memory.";
        WEBHOOK_QUEUE_LIMIT: Kind::Gauge, "fanfare_webhook_queue_limit_bytes", Some(Unit::Bytes), [],
            "What they may take, before the oldest is left out.";
        WEBHOOK_QUEUE_AGE: Kind::Gauge, "fanfare_webhook_queue_oldest_age_seconds", Some(Unit::Seconds), [],
            "How long the oldest of them has been waiting; 0 when nothing waits.";
    }
    "The admin listener" {
        HTTP_REQUESTS: Kind::Counter, "fanfare_http_requests_total", Some(Unit::Count),
            [
                described("route", "template of a path, or `other`"),
                described("method", "`GET`, `HEAD`, `POST` or `other`"),
                described("code", "status of the answer")
            ],
            "Requests to the admin listener.";
        HTTP_DURATION: Kind::Histogram(HANDSHAKE), "fanfare_http_request_duration_seconds",
            Some(Unit::Seconds), [described("route", "template of a path; `/api/v1` for all there but `publish`; or `other`")],
            "Time from a request to the admin listener to its answer.";
        API_KEYS: Kind::Counter, "fanfare_api_key_checks_total", Some(Unit::Count), [listed::<ApiAuth>()],
            "Requests to the API, by what became of their key; not counted without `api.keys`.";
        API_PUBLISHES: Kind::Counter, "fanfare_api_publishes_total", Some(Unit::Count), [listed::<PublishResult>()],
            "Messages that applications wanted to publish, by what became of them; each line counts.";
        API_FORGOTTEN: Kind::Counter, "fanfare_api_idempotency_forgotten_total", Some(Unit::Count), [],
            "Idempotency keys that were forgotten before five minutes, for want of `api.idempotency_bytes`.";
        TAPS: Kind::Gauge, "fanfare_debug_taps", Some(Unit::Count), [], "Live taps that somebody looks at.";
        TAP_LOST: Kind::Counter, "fanfare_debug_tap_events_lost_total", Some(Unit::Count), [],
            "Events that a live tap left out because its reader was too slow.";
    }
    "The process" {
        PROCESS_RSS: Kind::Gauge, "process_resident_memory_bytes", Some(Unit::Bytes), [],
            "Resident memory of the process.";
        PROCESS_VIRTUAL: Kind::Gauge, "process_virtual_memory_bytes", Some(Unit::Bytes), [],
            "Address space of the process.";
        PROCESS_CPU: Kind::Seconds, "process_cpu_seconds_total", Some(Unit::Seconds), [],
            "User and system CPU time of the process.";
        PROCESS_FDS: Kind::Gauge, "process_open_fds", Some(Unit::Count), [], "Open file descriptors.";
        PROCESS_MAX_FDS: Kind::Gauge, "process_max_fds", Some(Unit::Count), [],
            "Limit of open file descriptors.";
        PROCESS_THREADS: Kind::Gauge, "process_threads", Some(Unit::Count), [], "Threads of the process.";
        PROCESS_START: Kind::Gauge, "process_start_time_seconds", Some(Unit::Seconds), [],
            "Start of the process, in seconds since the Unix epoch.";
    }
    "Hot rooms" {
        ROOM_MESSAGES: Kind::Counter, "fanfare_room_messages_total", Some(Unit::Count), [ROOM],
            "Messages published to a room since it has members on this node.";
        ROOM_BYTES: Kind::Counter, "fanfare_room_published_bytes_total", Some(Unit::Bytes), [ROOM],
            "Bytes of those messages, frame headers included, once for each message.";
        ROOM_DELIVERIES: Kind::Counter, "fanfare_room_deliveries_total", Some(Unit::Count), [ROOM],
            "Messages given to a room's members, once for each of them: its fan-out.";
        ROOM_MEMBERS: Kind::Gauge, "fanfare_room_members", Some(Unit::Count), [ROOM],
            "Connections in a room on this node.";
        ROOM_AGE: Kind::Gauge, "fanfare_room_queue_age_seconds", Some(Unit::Seconds), [ROOM],
            "How long the oldest message of a room that not all members were given has been under way, or lately was at most.";
        ROOM_SHARDS_MISSING: Kind::Gauge, "fanfare_rooms_missing_shards", Some(Unit::Count), [],
            "Shards that did not say in time what rooms they have; what is listed is then incomplete.";
    }
}

/// The metrics of rooms, which have an endpoint of their own as their label comes from clients.
pub fn is_of_rooms(metric: &Metric) -> bool {
    metric.section == ROOM_MESSAGES.section
}
