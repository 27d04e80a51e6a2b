//! Carries a shard's plain counts to its instruments, once per batch of work and not per delivery.

use std::{io, mem};

use metrics::Counter;

use crate::metrics::{
    CloseReason, Layer, LimitScope, RejectReason, ShardMetrics, Source, Stage, WriteResult, count,
};

use super::counts::Tally;
use super::room::Trace;
use super::state::Core;

/// How long counts may be behind while a shard is busy, in nanoseconds.
const BEHIND_MAX: u64 = 50_000_000;

/// What the driver counts itself, and where all counts go.
pub(super) struct Report {
    metrics: ShardMetrics,
    /// How many bytes the last write took.
    pub(super) taken: usize,
    writes: Tally<WriteResult>,
    sent_bytes: u64,
    published_at: u64,
    levels: Levels,
}

/// What goes up and down, as it was last published.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Levels {
    connections: usize,
    handshakes: usize,
    memberships: usize,
    queue_bytes: usize,
    queue_messages: usize,
    backlogged: usize,
    slow: usize,
    held: usize,
}

impl Report {
    pub(super) fn new(metrics: ShardMetrics) -> Self {
        Self {
            metrics,
            taken: 0,
            writes: Tally::default(),
            sent_bytes: 0,
            published_at: 0,
            levels: Levels::default(),
        }
    }

    /// Counts a write of `length` bytes and says how it ended.
    pub(super) fn wrote(&mut self, result: io::Result<usize>, length: usize) -> WriteResult {
        let (taken, result) = match result {
            Ok(taken) if taken == length => (taken, WriteResult::Ok),
            Ok(taken) => (taken, WriteResult::Partial),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => (0, WriteResult::WouldBlock),
            Err(_) => (0, WriteResult::Error),
        };
        self.taken = taken;
        self.sent_bytes += taken as u64;
        self.writes.add(result, 1);
        result
    }

    /// Records the way of a message to a socket that took it at `now` nanoseconds.
    pub(super) fn delivered(&self, trace: &Trace, now: u64) {
        let Trace { origin, taken_at } = trace;
        // One clock is read on several threads, and what is equal within its resolution may be in either order.
        let dispatched_at = origin.dispatched_at.max(origin.read_at);
        let taken_at = (*taken_at).max(dispatched_at);
        let now = now.max(taken_at);
        let stages = &self.metrics.stages[origin.source];
        stages[Stage::Ingress].record(dispatched_at - origin.read_at);
        stages[Stage::Inbox].record(taken_at - dispatched_at);
        stages[Stage::FanOut].record(now - taken_at);
        self.metrics.delivery[origin.source].record(now - origin.read_at);
    }

    /// Records how late the shard came round, in nanoseconds.
    pub(super) fn lag(&self, nanoseconds: u64) {
        self.metrics.lag.record(nanoseconds);
    }

    /// Says how many bytes wait for the client for which most wait.
    pub(super) fn largest_queue(&self, bytes: usize) {
        self.metrics.queue_largest.set(count(bytes));
    }

    /// Counts time in which the shard did not sleep, in nanoseconds.
    pub(super) fn busy(&self, nanoseconds: u64) {
        self.metrics.busy.add(nanoseconds);
    }

    /// Counts a panic that was caught.
    pub(super) fn panicked(&self) {
        self.metrics.panics.increment(1);
    }

    /// Whether the last time that a busy shard published was long ago.
    pub(super) fn is_due(&mut self, now: u64) -> bool {
        let is_due = now - self.published_at >= BEHIND_MAX;
        if is_due {
            self.published_at = now;
        }
        is_due
    }

    /// Brings every instrument up to date.
    pub(super) fn publish(&mut self, core: &mut Core, connections: usize, handshakes: usize) {
        let metrics = &self.metrics;
        let counts = &mut core.counts;
        move_to(&metrics.compression_input, &mut counts.compression_input);
        move_to(&metrics.compression_output, &mut counts.compression_output);
        move_to(&metrics.ping_timeouts, &mut counts.ping_timeouts);
        move_to(&metrics.broadcasts[Source::Client], &mut counts.broadcasts);
        move_to(&metrics.direct[Source::Client], &mut counts.direct);
        move_to(&metrics.held, &mut counts.held);
        counts.opened.take(|compressed, count| metrics.opened[compressed].increment(count));
        counts.closed.take(|reason, count| {
            metrics.closed[reason].increment(count);
            if reason == CloseReason::UserLimit {
                metrics.limited[LimitScope::User].increment(count);
            }
        });
        counts.close_sent.take(|code, count| metrics.close_sent[code].increment(count));
        counts.close_received.take(|class, count| metrics.close_received[class].increment(count));
        counts.received.take(|kind, count| metrics.received[kind].increment(count));
        counts.rejected.take(|reason, count| {
            metrics.rejected[reason].increment(count);
            if reason == RejectReason::RateLimited {
                metrics.limited[LimitScope::Connection].increment(count);
            }
        });
        counts.sent.kinds.take(|kind, count| metrics.sent[kind].increment(count));
        counts.dropped.take(|reason, count| metrics.dropped[reason].increment(count));
        counts.recoveries.take(|result, count| metrics.recoveries[result].increment(count));
        counts.resumes.take(|result, count| metrics.resumes[result].increment(count));
        self.writes.take(|result, count| metrics.socket_writes[result].increment(count));
        move_to(&metrics.received_bytes[Layer::Wire], &mut counts.wire_received);
        move_to(&metrics.received_bytes[Layer::Payload], &mut counts.payload_received);
        move_to(&metrics.sent_bytes[Layer::Wire], &mut self.sent_bytes);
        move_to(&metrics.sent_bytes[Layer::Payload], &mut counts.sent.payload);
        metrics.absorb(&mut counts.samples);
        let levels = Levels {
            connections,
            handshakes,
            memberships: counts.memberships,
            queue_bytes: counts.queues.bytes,
            queue_messages: counts.queues.messages,
            backlogged: core.backlogged.len(),
            slow: counts.queues.slow,
            held: core.held.len(),
        };
        if levels != self.levels {
            self.publish_levels(levels);
        }
    }

    fn publish_levels(&mut self, levels: Levels) {
        let before = mem::replace(&mut self.levels, levels);
        let metrics = &self.metrics;
        // These gauges are shared by all shards, so that each adds its difference.
        metrics.connections.increment(count(levels.connections) - count(before.connections));
        metrics.memberships.increment(count(levels.memberships) - count(before.memberships));
        metrics.shard_connections.set(count(levels.connections));
        metrics.handshakes.set(count(levels.handshakes));
        metrics.queue_bytes.set(count(levels.queue_bytes));
        metrics.queue_messages.set(count(levels.queue_messages));
        metrics.backlogged.set(count(levels.backlogged));
        metrics.slow.set(count(levels.slow));
        metrics.held_connections.set(count(levels.held));
    }
}

fn move_to(counter: &Counter, count: &mut u64) {
    if *count > 0 {
        counter.increment(mem::take(count));
    }
}
