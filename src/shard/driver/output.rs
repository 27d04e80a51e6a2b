//! What leaves a shard: replies, notices, batches, and what had to wait.

use std::io::IoSlice;
use std::mem;

use bytes::Bytes;

use crate::id::ClientKey;
use crate::metrics::{CloseReason, DropReason, SentType, Source, WriteResult};

use super::super::backlog::Lane;
use super::super::outbound::Delivery;
use super::super::room::Trace;
use super::super::state::{Content, Notice};
use super::{DELIVERIES_PER_TURN, Driver, SCRATCH_BYTES};

/// Slices gathered into one write of a backlog.
const SLICES_PER_WRITE: usize = 64;

impl Driver {
    pub(super) fn write_replies(&mut self, key: ClientKey) {
        if self.replies.is_empty() {
            return;
        }
        let messages = mem::take(&mut self.shard.core.counts.replies);
        let is_queued = self.shard.core.has_backlog(key);
        // The messages are not counted for nobody.
        if !self.shard.core.taps.is_empty() {
            self.shard.core.tap_sent(key, messages.count(), self.replies.len(), is_queued);
        }
        if is_queued {
            let frames = Bytes::copy_from_slice(&self.replies);
            self.shard.core.enqueue(key, frames, Lane::Control, None);
        } else if let Some(socket) = self.sockets.get_mut(key) {
            match self.report.wrote(socket.transport.write(&self.replies), self.replies.len()) {
                WriteResult::Ok => self.shard.core.counts.sent.append(messages),
                WriteResult::Error => {
                    self.shard.core.counts.drop_messages(DropReason::Closing, messages);
                    self.shard.core.lost(key, CloseReason::IoError);
                }
                WriteResult::Partial | WriteResult::WouldBlock => {
                    let frames = Bytes::copy_from_slice(&self.replies);
                    self.blocked(key, &frames, Lane::Control, None);
                }
            }
        }
        self.replies.clear();
        // A burst of replies must not keep its memory for ever.
        self.replies.shrink_to(SCRATCH_BYTES);
    }

    /// Writes what is for single clients.
    pub(super) fn notices(&mut self) {
        while let Some(notice) = self.shard.core.next_notice() {
            let Notice { client, frame, lane, content, trace, is_sample, .. } = notice;
            let Some(socket) = self.sockets.get_mut(client) else { continue };
            match self.report.wrote(socket.transport.write(&frame), frame.len()) {
                WriteResult::Ok => {
                    if let Some(Content { kind, messages, payload }) = content {
                        self.shard.core.counts.sent.add(kind, messages, payload);
                    }
                    if let Some(trace) = trace.filter(|_| is_sample) {
                        self.delivered(&trace);
                    }
                }
                WriteResult::Error => {
                    let messages = content.map_or(0, |content| content.messages as u64);
                    self.shard.core.counts.dropped.add(DropReason::Closing, messages);
                    self.shard.core.lost(client, CloseReason::IoError);
                }
                WriteResult::Partial | WriteResult::WouldBlock => {
                    let source = trace.map(|trace| trace.origin.source);
                    self.blocked(client, &frame, lane, source);
                }
            }
        }
    }

    pub(super) fn deliver(&mut self) {
        let mut budget = DELIVERIES_PER_TURN;
        loop {
            self.deliver_some(&mut budget);
            if budget == 0 || !self.shard.core.has_deliveries() {
                return;
            }
            // A large room has given way: what somebody else wants meanwhile must not wait for the rest of it.
            self.more_events = true;
            self.poll_sockets();
            if !self.readable.is_empty() {
                return;
            }
        }
    }

    pub(super) fn deliver_some(&mut self, budget: &mut usize) {
        while let Some(delivery) = self.shard.core.next_delivery(budget) {
            let Delivery { client, messages, payload_bytes, is_sample } = delivery;
            let Some(socket) = self.sockets.get_mut(client) else { continue };
            let bytes = self.shard.core.delivery_bytes();
            match self.report.wrote(socket.transport.write(bytes), bytes.len()) {
                WriteResult::Ok => {
                    self.shard.core.counts.sent.add(SentType::Message, messages, payload_bytes);
                    if is_sample && let Some(trace) = self.shard.core.delivery_trace() {
                        self.delivered(&trace);
                    }
                }
                WriteResult::Error => {
                    self.shard.core.counts.dropped.add(DropReason::Closing, messages as u64);
                    self.shard.core.lost(client, CloseReason::IoError);
                }
                WriteResult::Partial | WriteResult::WouldBlock => {
                    self.read_clock();
                    self.shard.core.delivery_blocked(client, self.report.taken);
                }
            }
        }
    }

    /// Records the way of a message that a socket has just taken.
    fn delivered(&mut self, trace: &Trace) {
        let now = self.read_clock();
        self.report.delivered(trace, now);
    }

    /// The socket took only a part of what was last written to it.
    fn blocked(&mut self, key: ClientKey, frames: &Bytes, lane: Lane, source: Option<Source>) {
        self.read_clock();
        self.shard.core.blocked(key, frames, self.report.taken, lane, source);
    }

    /// A socket takes more: what the transport has waiting goes first, and may be all there is.
    pub(super) fn go_on_writing(&mut self, key: ClientKey) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        if socket.transport.flush().is_err() {
            return self.shard.core.lost(key, CloseReason::IoError);
        }
        if !socket.transport.wants_flush() && self.shard.core.has_backlog(key) {
            self.drain_backlog(key);
        }
    }

    fn drain_backlog(&mut self, key: ClientKey) {
        self.read_clock();
        let Some(socket) = self.sockets.get_mut(key) else { return };
        self.shard.core.begin_flush(key);
        loop {
            let mut slices = [IoSlice::new(&[]); SLICES_PER_WRITE];
            let (count, bytes) = self.shard.core.backlog_slices(key, &mut slices);
            if count == 0 {
                break;
            }
            match self.report.wrote(socket.transport.write_vectored(&slices[..count]), bytes) {
                WriteResult::Error => return self.shard.core.lost(key, CloseReason::IoError),
                WriteResult::WouldBlock => break,
                WriteResult::Partial => {
                    self.shard.core.drained(key, self.report.taken);
                    break;
                }
                WriteResult::Ok => self.shard.core.drained(key, bytes),
            }
        }
        if !self.shard.core.reads_are_paused(key) {
            // Edges that came while reading was paused are not told again.
            self.read_later(key);
        }
    }
}
