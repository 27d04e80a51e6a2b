//! Carries a shard's plain counts to its instruments, once per batch of work and not per delivery.

use std::io;

use crate::metrics::{Layer, ShardMetrics, Source, WriteResult, count};

use super::counts::Tally;
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
    connections: usize,
    memberships: usize,
}

impl Report {
    pub(super) fn new(metrics: ShardMetrics) -> Self {
        Self {
            metrics,
            taken: 0,
            writes: Tally::default(),
            sent_bytes: 0,
            published_at: 0,
            connections: 0,
            memberships: 0,
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

    /// Records the way of a message from the socket it was read from to the one it was written to.
    pub(super) fn delivered(&self, nanoseconds: u64) {
        self.metrics.delivery[Source::Client].record(nanoseconds);
    }

    /// Publishes when the last time was long ago.
    pub(super) fn publish_sometimes(&mut self, core: &mut Core, connections: usize, now: u64) {
        if now - self.published_at >= BEHIND_MAX {
            self.published_at = now;
            self.publish(core, connections);
        }
    }

    /// Brings every instrument up to date.
    pub(super) fn publish(&mut self, core: &mut Core, connections: usize) {
        let metrics = &self.metrics;
        let counts = &mut core.counts;
        metrics.opened.increment(std::mem::take(&mut counts.opened));
        metrics.ping_timeouts.increment(std::mem::take(&mut counts.ping_timeouts));
        metrics.broadcasts[Source::Client].increment(std::mem::take(&mut counts.broadcasts));
        metrics.held.increment(std::mem::take(&mut counts.held));
        counts.closed.take(|reason, count| metrics.closed[reason].increment(count));
        counts.received.take(|kind, count| metrics.received[kind].increment(count));
        counts.sent.kinds.take(|kind, count| metrics.sent[kind].increment(count));
        counts.dropped.take(|reason, count| metrics.dropped[reason].increment(count));
        self.writes.take(|result, count| metrics.socket_writes[result].increment(count));
        for batch in counts.batches.drain(..) {
            metrics.recipients.record(batch.recipients as u64);
            metrics.write_batch.record(batch.publications as u64);
        }
        metrics.received_bytes[Layer::Wire].increment(std::mem::take(&mut counts.wire_received));
        metrics.received_bytes[Layer::Payload].increment(std::mem::take(&mut counts.payload_received));
        metrics.sent_bytes[Layer::Wire].increment(std::mem::take(&mut self.sent_bytes));
        metrics.sent_bytes[Layer::Payload].increment(std::mem::take(&mut counts.sent.payload));
        metrics.queue_bytes.set(count(counts.queue_bytes));
        metrics.slow.set(count(counts.slow));
        if connections != self.connections {
            // The gauge is shared by all shards, so that each adds its difference.
            metrics.connections.increment(count(connections) - count(self.connections));
            metrics.shard_connections.set(count(connections));
            self.connections = connections;
        }
        if counts.memberships != self.memberships {
            metrics.memberships.increment(count(counts.memberships) - count(self.memberships));
            self.memberships = counts.memberships;
        }
    }
}
