//! The handles of each module: registered once, when it is built.

use metrics::{Counter, Gauge};

use super::labels::{
    AcceptError, AuthResult, CloseReason, CloseSent, Compressed, Direction, DropReason, Family,
    HandshakeFailure, LabelValue, Layer, LimitScope, ReceivedClose, ReceivedType, Recovery, Refresh,
    RejectReason, ReloadResult, Resumption, SentType, Source, Stage, WriteResult,
};
use super::merged::{Histogram, Samples, Seconds};
use super::{Recorder, table};

/// What belongs to the process as a whole.
#[derive(Clone)]
pub struct ServerMetrics {
    /// 1 while new connections are welcome.
    pub ready: Gauge,
    /// 1 while shutting down.
    pub draining: Gauge,
    /// What all connections take.
    pub memory: Gauge,
    /// Above it no new ones are let in.
    pub memory_soft_limit: Gauge,
    /// Above it those that hold most are closed.
    pub memory_hard_limit: Gauge,
    /// The part of the connections that a drain has ended.
    pub drain_progress: Gauge,
    /// What may wait for one client.
    pub queue_limit: Gauge,
    /// What waits for a slow client.
    pub queue_watermark: Gauge,
    /// What one inbox takes.
    pub inbox_limit: Gauge,
}

impl ServerMetrics {
    /// Registers the handles and says which build this is.
    pub fn new(recorder: &Recorder) -> Self {
        let revision = env!("BUILD_REVISION");
        let version = env!("CARGO_PKG_VERSION");
        let labels = [("version", version), ("revision", revision), ("rust_version", env!("BUILD_RUSTC"))];
        recorder.gauge(&table::BUILD_INFO, &labels).set(1.0);
        Self {
            ready: recorder.gauge(&table::READY, &[]),
            draining: recorder.gauge(&table::DRAINING, &[]),
            memory: recorder.gauge(&table::MEMORY_BYTES, &[]),
            memory_soft_limit: recorder.gauge(&table::MEMORY_SOFT_LIMIT, &[]),
            memory_hard_limit: recorder.gauge(&table::MEMORY_HARD_LIMIT, &[]),
            drain_progress: recorder.gauge(&table::DRAIN_PROGRESS, &[]),
            queue_limit: recorder.gauge(&table::QUEUE_LIMIT, &[]),
            queue_watermark: recorder.gauge(&table::QUEUE_WATERMARK, &[]),
            inbox_limit: recorder.gauge(&table::INBOX_LIMIT, &[]),
        }
    }
}

/// What becomes of the certificate; there only where TLS is spoken.
#[derive(Clone)]
pub struct TlsMetrics {
    /// Attempts to use a new one.
    pub reloads: Family<ReloadResult, Counter>,
    /// When the one in force runs out, in seconds since the Unix epoch.
    pub not_after: Gauge,
}

impl TlsMetrics {
    /// Registers the handles.
    pub fn new(recorder: &Recorder) -> Self {
        Self {
            reloads: Family::new(|key, value| recorder.counter(&table::TLS_RELOADS, &[(key, value)])),
            not_after: recorder.gauge(&table::TLS_NOT_AFTER, &[]),
        }
    }
}

/// What a shard counts.
///
/// Only the gauges with a `shard` label are the shard's own, to be `set`; the others are shared by
/// all shards, which add to them and take away.
pub struct ShardMetrics {
    /// Open connections of the gateway.
    pub connections: Gauge,
    /// Open connections of this shard.
    pub shard_connections: Gauge,
    /// Connections that wait for the rest of their request.
    pub handshakes: Gauge,
    /// Upgrades completed.
    pub opened: Family<Compressed, Counter>,
    /// Bytes of publications that were compressed.
    pub compression_input: Counter,
    /// Bytes of the frames that they became.
    pub compression_output: Counter,
    /// Connections ended.
    pub closed: Family<CloseReason, Counter>,
    connection_duration: Histogram,
    /// Close frames that the gateway said.
    pub close_sent: Family<CloseSent, Counter>,
    /// Close frames that clients said.
    pub close_received: Family<ReceivedClose, Counter>,
    ping_rtt: Histogram,
    /// Connections closed after silence.
    pub ping_timeouts: Counter,
    /// Messages from clients.
    pub received: Family<ReceivedType, Counter>,
    /// Messages written to clients to their last byte, counted for each recipient.
    pub sent: Family<SentType, Counter>,
    /// Requests answered with an error.
    pub rejected: Family<RejectReason, Counter>,
    /// Connections and messages over a limit of a user or a connection.
    pub limited: Family<LimitScope, Counter>,
    /// Bytes from clients.
    pub received_bytes: Family<Layer, Counter>,
    /// Bytes to clients.
    pub sent_bytes: Family<Layer, Counter>,
    message_size: Family<Direction, Histogram>,
    /// Memberships of clients in rooms.
    pub memberships: Gauge,
    /// Messages published to a room or to everyone.
    pub broadcasts: Family<Source, Counter>,
    /// Messages sent to users.
    pub direct: Family<Source, Counter>,
    recipients: Histogram,
    write_batch: Histogram,
    /// Clients that wanted what they missed in a room.
    pub recoveries: Family<Recovery, Counter>,
    /// Clients that wanted to go on with a session.
    pub resumes: Family<Resumption, Counter>,
    replayed: Histogram,
    /// Messages that had to wait for a room or shard to take more.
    pub held: Counter,
    /// Message read to socket written, in nanoseconds.
    pub delivery: Family<Source, Histogram>,
    /// The stages of that, in nanoseconds.
    pub stages: Family<Source, Family<Stage, Histogram>>,
    /// Bytes in the backlogs of this shard.
    pub queue_bytes: Gauge,
    /// Bytes that wait for the client for which most wait.
    pub queue_largest: Gauge,
    /// Messages in them.
    pub queue_messages: Gauge,
    /// Connections of this shard with a backlog.
    pub backlogged: Gauge,
    /// Those with a backlog above the watermark.
    pub slow: Gauge,
    /// Those that are not read from.
    pub held_connections: Gauge,
    flush_bytes: Histogram,
    flush_messages: Histogram,
    /// Writes to sockets.
    pub socket_writes: Family<WriteResult, Counter>,
    /// Messages that a recipient was not given.
    pub dropped: Family<DropReason, Counter>,
    /// How late this shard's timer ran, in nanoseconds.
    pub lag: Histogram,
    /// Time in which this shard did not sleep.
    pub busy: Seconds,
    /// Panics caught on this shard's thread.
    pub panics: Counter,
}

impl ShardMetrics {
    /// Registers the handles of the shard with this index.
    pub fn new(recorder: &Recorder, shard: usize) -> Self {
        let shard = shard.to_string();
        let shard = [("shard", shard.as_str())];
        let stages = |label, source| {
            let stage = |key, stage| recorder.own_histogram(&table::STAGE, &[(label, source), (key, stage)]);
            Family::new(stage)
        };
        Self {
            connections: recorder.gauge(&table::CONNECTIONS, &[("transport", "ws")]),
            shard_connections: recorder.gauge(&table::SHARD_CONNECTIONS, &shard),
            handshakes: recorder.gauge(&table::HANDSHAKES, &shard),
            opened: Family::new(|key, value| {
                recorder.counter(&table::OPENED, &[("transport", "ws"), (key, value)])
            }),
            compression_input: recorder.counter(&table::COMPRESSION_INPUT, &[]),
            compression_output: recorder.counter(&table::COMPRESSION_OUTPUT, &[]),
            closed: recorder.counters(&table::CLOSED),
            connection_duration: recorder.own_histogram(&table::CONNECTION_DURATION, &[]),
            close_sent: recorder.counters(&table::CLOSE_SENT),
            close_received: recorder.counters(&table::CLOSE_RECEIVED),
            ping_rtt: recorder.own_histogram(&table::PING_RTT, &[]),
            ping_timeouts: recorder.counter(&table::PING_TIMEOUTS, &[]),
            received: recorder.counters(&table::RECEIVED),
            sent: recorder.counters(&table::SENT),
            rejected: recorder.counters(&table::REJECTED),
            limited: recorder.counters(&table::RATE_LIMITED),
            received_bytes: recorder.counters(&table::RECEIVED_BYTES),
            sent_bytes: recorder.counters(&table::SENT_BYTES),
            message_size: recorder.own_histograms(&table::MESSAGE_SIZE),
            memberships: recorder.gauge(&table::MEMBERSHIPS, &[]),
            broadcasts: recorder.counters(&table::BROADCASTS),
            direct: recorder.counters(&table::DIRECT),
            recipients: recorder.own_histogram(&table::RECIPIENTS, &[]),
            write_batch: recorder.own_histogram(&table::WRITE_BATCH, &[]),
            recoveries: recorder.counters(&table::RECOVERIES),
            resumes: recorder.counters(&table::RESUMES),
            replayed: recorder.own_histogram(&table::REPLAYED, &[]),
            held: recorder.counter(&table::HELD, &[]),
            delivery: recorder.own_histograms(&table::DELIVERY),
            stages: Family::new(stages),
            queue_bytes: recorder.gauge(&table::QUEUE_BYTES, &shard),
            queue_largest: recorder.gauge(&table::QUEUE_LARGEST, &shard),
            queue_messages: recorder.gauge(&table::QUEUE_MESSAGES, &shard),
            backlogged: recorder.gauge(&table::BACKLOGGED, &shard),
            slow: recorder.gauge(&table::SLOW, &shard),
            held_connections: recorder.gauge(&table::HELD_CONNECTIONS, &shard),
            flush_bytes: recorder.own_histogram(&table::FLUSH_BYTES, &[]),
            flush_messages: recorder.own_histogram(&table::FLUSH_MESSAGES, &[]),
            socket_writes: recorder.counters(&table::SOCKET_WRITES),
            dropped: recorder.counters(&table::DROPPED),
            lag: recorder.own_histogram(&table::LAG, &shard),
            busy: recorder.own_seconds(&table::BUSY, &shard),
            panics: recorder.counter(&table::PANICS, &shard),
        }
    }

    /// Takes over what the pure parts have sampled.
    pub fn absorb(&self, samples: &mut ShardSamples) {
        self.connection_duration.absorb(&mut samples.connection_duration);
        self.ping_rtt.absorb(&mut samples.ping_rtt);
        for direction in Direction::ALL {
            self.message_size[*direction].absorb(&mut samples.message_size[*direction]);
        }
        self.recipients.absorb(&mut samples.recipients);
        self.write_batch.absorb(&mut samples.write_batch);
        self.replayed.absorb(&mut samples.replayed);
        for source in Source::ALL {
            self.stages[*source][Stage::ClientQueue].absorb(&mut samples.client_queue[*source]);
        }
        self.flush_bytes.absorb(&mut samples.flush_bytes);
        self.flush_messages.absorb(&mut samples.flush_messages);
    }
}

/// What the pure parts of a shard sample, until [`ShardMetrics::absorb`].
#[derive(Debug)]
pub struct ShardSamples {
    /// How long connections were open, in nanoseconds.
    pub connection_duration: Samples,
    /// Ping to pong, in nanoseconds.
    pub ping_rtt: Samples,
    /// Bytes of a message.
    pub message_size: Family<Direction, Samples>,
    /// Recipients of a batch.
    pub recipients: Samples,
    /// Messages in a batch.
    pub write_batch: Samples,
    /// Messages of a history that a client was given when it came in.
    pub replayed: Samples,
    /// How long what a socket did not take at once waited for it, in nanoseconds.
    pub client_queue: Family<Source, Samples>,
    /// Bytes in a backlog when its socket could take more.
    pub flush_bytes: Samples,
    /// Messages in it.
    pub flush_messages: Samples,
}

impl Default for ShardSamples {
    fn default() -> Self {
        Self {
            connection_duration: Samples::new(&table::CONNECTION_DURATION),
            ping_rtt: Samples::new(&table::PING_RTT),
            message_size: Family::new(|_, _| Samples::new(&table::MESSAGE_SIZE)),
            recipients: Samples::new(&table::RECIPIENTS),
            write_batch: Samples::new(&table::WRITE_BATCH),
            replayed: Samples::new(&table::REPLAYED),
            client_queue: Family::new(|_, _| Samples::new(&table::STAGE)),
            flush_bytes: Samples::new(&table::FLUSH_BYTES),
            flush_messages: Samples::new(&table::FLUSH_MESSAGES),
        }
    }
}

/// What is told of a shard by others than itself, since it may be what does not answer.
#[derive(Clone)]
pub struct VitalsMetrics {
    /// Age of the oldest that waits for a client, in seconds.
    pub queue_age: Gauge,
    /// Messages in its inbox.
    pub inbox_messages: Gauge,
    /// Their bytes.
    pub inbox_bytes: Gauge,
    /// For how long it has not come round, in seconds.
    pub stalled: Gauge,
    /// How often that was found.
    pub stalls: Counter,
}

impl VitalsMetrics {
    /// Registers the handles of the shard with this index.
    pub fn new(recorder: &Recorder, shard: usize) -> Self {
        let shard = shard.to_string();
        let shard = [("shard", shard.as_str())];
        Self {
            queue_age: recorder.gauge(&table::QUEUE_AGE, &shard),
            inbox_messages: recorder.gauge(&table::INBOX_MESSAGES, &shard),
            inbox_bytes: recorder.gauge(&table::INBOX_BYTES, &shard),
            stalled: recorder.gauge(&table::STALLED, &shard),
            stalls: recorder.counter(&table::STALLS, &shard),
        }
    }
}

/// Connections that did not become a WebSocket, among them those that were over a limit.
#[derive(Clone)]
pub struct HandshakeFailures {
    reasons: Family<HandshakeFailure, Counter>,
    limited: Family<LimitScope, Counter>,
}

impl HandshakeFailures {
    fn new(recorder: &Recorder) -> Self {
        Self {
            reasons: recorder.counters(&table::HANDSHAKE_FAILURES),
            limited: recorder.counters(&table::RATE_LIMITED),
        }
    }

    /// Counts one.
    pub fn count(&self, reason: HandshakeFailure) {
        self.reasons[reason].increment(1);
        if let Some(scope) = reason.scope() {
            self.limited[scope].increment(1);
        }
    }
}

/// What the handshake counts.
#[derive(Clone)]
pub struct HttpMetrics {
    /// Connections that did not become a WebSocket.
    pub failures: HandshakeFailures,
    /// Accept to 101, in seconds.
    pub duration: metrics::Histogram,
    /// Checks of tokens.
    pub auth: Family<AuthResult, Counter>,
    /// How long those took, in seconds.
    pub auth_duration: metrics::Histogram,
}

impl HttpMetrics {
    /// Registers the handles.
    pub fn new(recorder: &Recorder) -> Self {
        Self {
            failures: HandshakeFailures::new(recorder),
            duration: recorder.histogram(&table::HANDSHAKE_DURATION, &[("stage", "total")]),
            auth: recorder.counters(&table::AUTH_ATTEMPTS),
            auth_duration: recorder.histogram(&table::AUTH_DURATION, &[]),
        }
    }
}

/// What reading the keys of tokens counts.
#[derive(Clone)]
pub struct JwksMetrics {
    /// Attempts.
    pub refreshes: Family<Refresh, Counter>,
    /// When one last went well, in Unix seconds.
    pub last_success: Gauge,
}

impl JwksMetrics {
    /// Registers the handles.
    pub fn new(recorder: &Recorder) -> Self {
        Self {
            refreshes: recorder.counters(&table::JWKS_REFRESHES),
            last_success: recorder.gauge(&table::JWKS_LAST_SUCCESS, &[]),
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
    /// Connections closed unanswered, since even the places to refuse were taken.
    pub refused: HandshakeFailures,
    /// The connection limit.
    pub limit: Gauge,
}

impl ListenerMetrics {
    /// Registers the handles of the public listener.
    pub fn new(recorder: &Recorder) -> Self {
        Self {
            accepted: recorder.counter(&table::ACCEPTED, &[("listener", "public")]),
            errors: recorder.counters(&table::ACCEPT_ERRORS),
            refused: HandshakeFailures::new(recorder),
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
    /// Messages in all histories.
    pub history_messages: Gauge,
    /// What they take.
    pub history_bytes: Gauge,
    /// What they may take.
    pub history_limit: Gauge,
}

impl HubMetrics {
    /// Registers the handles.
    pub fn new(recorder: &Recorder) -> Self {
        Self {
            rooms: recorder.gauge(&table::ROOMS, &[]),
            users: recorder.gauge(&table::USERS, &[]),
            history_messages: recorder.gauge(&table::HISTORY_MESSAGES, &[]),
            history_bytes: recorder.gauge(&table::HISTORY_BYTES, &[]),
            history_limit: recorder.gauge(&table::HISTORY_LIMIT, &[]),
        }
    }
}

/// How reading the configuration again went.
#[derive(Debug)]
pub struct ConfigMetrics {
    /// Whether it was sound the last time.
    pub is_successful: Gauge,
    /// When it last was.
    pub succeeded_at: Gauge,
}

impl ConfigMetrics {
    /// Registers the handles.
    pub fn new(recorder: &Recorder) -> Self {
        Self {
            is_successful: recorder.gauge(&table::CONFIG_SUCCESSFUL, &[]),
            succeeded_at: recorder.gauge(&table::CONFIG_SUCCEEDED_AT, &[]),
        }
    }
}

/// The metrics of rooms, for `/metrics/rooms`, which prints them itself.
pub struct RoomMetrics;

impl RoomMetrics {
    /// Messages published.
    pub const MESSAGES: &table::Metric = &table::ROOM_MESSAGES;
    /// Their bytes.
    pub const BYTES: &table::Metric = &table::ROOM_BYTES;
    /// Messages given to members.
    pub const DELIVERIES: &table::Metric = &table::ROOM_DELIVERIES;
    /// Members.
    pub const MEMBERS: &table::Metric = &table::ROOM_MEMBERS;
    /// Age of the oldest message under way.
    pub const AGE: &table::Metric = &table::ROOM_AGE;
    /// Shards that did not answer.
    pub const SHARDS_MISSING: &table::Metric = &table::ROOM_SHARDS_MISSING;
}
