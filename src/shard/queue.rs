//! What waits for one client whose socket was full, with what operators want to know of it.

use bytes::Bytes;

use super::backlog::{Backlog, Lane, Overflow, Stamp};

/// The queue of one client.
#[derive(Debug)]
pub(super) struct Queue {
    backlog: Backlog,
    /// Messages in it that are not written to their end.
    messages: usize,
    /// Index into the shard's list of clients with a queue.
    pub(super) place: u32,
}

/// A sum over queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) bytes: usize,
    pub(super) messages: usize,
    /// Queues above the watermark.
    pub(super) slow: usize,
}

/// The worst over queues, which need not be of one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Worst {
    /// The most bytes.
    pub(super) bytes: usize,
    /// Since when the oldest has been waiting, in nanoseconds.
    pub(super) oldest_at: Option<u64>,
}

impl Worst {
    /// With one more queue.
    pub(super) fn or(self, backlog: &Backlog) -> Self {
        let oldest_at = self.oldest_at.into_iter().chain(backlog.oldest()).min();
        Self { bytes: self.bytes.max(backlog.bytes()), oldest_at }
    }
}

impl Queue {
    pub(super) fn new(backlog: Backlog, messages: usize, place: u32) -> Self {
        Self { backlog, messages, place }
    }

    pub(super) fn backlog(&self) -> &Backlog {
        &self.backlog
    }

    pub(super) fn messages(&self) -> usize {
        self.messages
    }

    /// What this queue is of the sum over all. Slow is who has more than `watermark` bytes waiting.
    pub(super) fn load(&self, watermark: usize) -> Load {
        let bytes = self.backlog.bytes();
        Load { bytes, messages: self.messages, slow: usize::from(bytes > watermark) }
    }

    /// As [`Backlog::push`], of frames with so many messages.
    pub(super) fn push(
        &mut self,
        (lane, stamp): (Lane, Stamp),
        frames: Bytes,
        messages: usize,
        limit: usize,
    ) -> Result<(), Overflow> {
        self.backlog.push(lane, frames, stamp, limit)?;
        self.messages += messages;
        Ok(())
    }

    /// As [`Backlog::close`]; the bulk has been taken out before.
    pub(super) fn close(&mut self, frame: Bytes, stamp: Stamp) {
        debug_assert_eq!(self.backlog.bulk().count(), 0, "its messages are counted by whoever drops them");
        self.backlog.close(frame, stamp);
    }

    /// Drops all bulk; `count` says how many messages are in frames.
    pub(super) fn discard_bulk(&mut self, count: impl FnMut(&[u8]) -> usize) {
        self.messages -= self.backlog.bulk().map(count).sum::<usize>();
        self.backlog.discard_bulk();
    }

    /// As [`Backlog::advance_over`]; `ended` says how many messages are in the frames that ended.
    pub(super) fn advance(&mut self, written: usize, mut ended: impl FnMut(&[u8], Stamp) -> usize) {
        let messages = &mut self.messages;
        self.backlog.advance_over(written, |frames, stamp| *messages -= ended(frames, stamp));
    }
}

impl Load {
    /// Replaces one queue's part in the sum.
    pub(super) fn replace(&mut self, before: Self, after: Self) {
        self.bytes = self.bytes - before.bytes + after.bytes;
        self.messages = self.messages - before.messages + after.messages;
        self.slow = self.slow - before.slow + after.slow;
    }
}
