//! What waits for one client whose socket was full, with what operators want to know of it.

use bytes::Bytes;

use crate::hub::OnOverflow;
use crate::id::RoomKey;

use super::backlog::{Backlog, Lane, Overflow, Stamp};
use super::parked::{self, Parked, Taken};

/// The queue of one client.
#[derive(Debug)]
pub(super) struct Queue {
    /// In the order in which it is written.
    backlog: Backlog,
    /// Messages in it that are not written to their end.
    messages: usize,
    /// What goes to the backlog when that has no bulk, and can be left out until then. Nothing is parked while nothing is in
    /// the backlog.
    parked: Option<Box<Parked>>,
    /// Index into the shard's list of clients with a queue.
    pub(super) place: u32,
}

/// Bytes that are taken out of what is parked at once, and from then on are not left out any more; or one message.
const UNPARKED_BYTES_MAX: usize = 16 << 10;

/// A sum over queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) bytes: usize,
    pub(super) messages: usize,
    /// Queues above the watermark.
    pub(super) slow: usize,
    /// What the lists take, besides the bytes in them.
    pub(super) overhead: usize,
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
    pub(super) fn or(self, queue: &Queue) -> Self {
        let oldest_at = self.oldest_at.into_iter().chain(queue.oldest()).min();
        Self { bytes: self.bytes.max(queue.bytes()), oldest_at }
    }
}

impl Queue {
    pub(super) fn new(backlog: Backlog, messages: usize, place: u32) -> Self {
        Self { backlog, messages, parked: None, place }
    }

    pub(super) fn backlog(&self) -> &Backlog {
        &self.backlog
    }

    /// Messages that are not written to their end.
    pub(super) fn messages(&self) -> usize {
        self.messages + self.parked.as_ref().map_or(0, |parked| parked.messages())
    }

    /// Bytes that wait to be written.
    pub(super) fn bytes(&self) -> usize {
        self.backlog.bytes() + self.parked.as_ref().map_or(0, |parked| parked.bytes())
    }

    /// Since when the oldest of it has been waiting, in nanoseconds.
    pub(super) fn oldest(&self) -> Option<u64> {
        let parked = self.parked.as_ref().and_then(|parked| parked.oldest());
        self.backlog.oldest().into_iter().chain(parked).min()
    }

    /// All frames that are not written to their end, each whole.
    pub(super) fn frames(&self) -> impl Iterator<Item = &[u8]> {
        self.backlog.frames().chain(self.parked.iter().flat_map(|parked| parked.frames()))
    }

    /// What this queue is of the sum over all. Slow is who has more than `watermark` bytes waiting.
    pub(super) fn load(&self, watermark: usize) -> Load {
        let bytes = self.bytes();
        let parked = self.parked.as_ref().map_or(0, |parked| parked.footprint() - parked.bytes());
        let overhead = size_of::<Self>() + self.backlog.footprint_with(0) - self.backlog.bytes() + parked;
        Load { bytes, messages: self.messages(), slow: usize::from(bytes > watermark), overhead }
    }

    /// Leaves out what is parked, the oldest first, until so many more bytes fit, or nothing is parked; returns how many
    /// messages that were.
    pub(super) fn make_room(&mut self, bytes: usize, limit: usize) -> usize {
        let Some(parked) = &mut self.parked else { return 0 };
        let wanted = self.backlog.footprint_with(bytes);
        let mut left_out = 0;
        while wanted.saturating_add(parked.footprint()) > limit && parked.shed(None) {
            left_out += 1;
        }
        left_out
    }

    /// Has a message wait so that it can be left out, and leaves out as much as the limit asks for, of its own room first;
    /// returns how many were left out as older ones about the same, and for the limit.
    pub(super) fn park(
        &mut self,
        (room, overflow): (RoomKey, OnOverflow),
        message: parked::Message,
        limit: usize,
    ) -> (usize, usize) {
        let parked = self.parked.get_or_insert_default();
        let conflated = parked.park(room, overflow, message);
        let backlog = self.backlog.footprint_with(0);
        let mut left_out = 0;
        while backlog + parked.footprint() > limit && parked.shed(Some(room)) {
            left_out += 1;
        }
        (conflated, left_out)
    }

    /// Takes what is parked and to be written next, if nothing else of bulk is to be written before.
    pub(super) fn unpark(&mut self) -> Option<Taken> {
        let parked = self.parked.as_mut().filter(|_| self.backlog.bulk_bytes() < UNPARKED_BYTES_MAX)?;
        let taken = parked.take();
        if taken.is_none() {
            self.parked = None;
        }
        taken
    }

    /// Forgets what is parked of a room.
    pub(super) fn forget(&mut self, room: RoomKey) {
        if let Some(parked) = &mut self.parked {
            parked.forget(room);
        }
    }

    /// As [`Backlog::push`], of frames with so many messages.
    pub(super) fn push(
        &mut self,
        (lane, stamp): (Lane, Stamp),
        frames: Bytes,
        messages: usize,
        limit: usize,
    ) -> Result<(), Overflow> {
        let parked = self.parked.as_ref().map_or(0, |parked| parked.footprint());
        self.backlog.push(lane, frames, stamp, limit.saturating_sub(parked))?;
        self.messages += messages;
        Ok(())
    }

    /// As [`Backlog::close`]; the bulk has been taken out before.
    pub(super) fn close(&mut self, frame: Bytes, stamp: Stamp) {
        debug_assert_eq!(self.backlog.bulk().count(), 0, "its messages are counted by whoever drops them");
        self.backlog.close(frame, stamp);
    }

    /// Drops all bulk, also what is parked; `count` says how many messages are in frames.
    pub(super) fn discard_bulk(&mut self, mut count: impl FnMut(&[u8]) -> usize) {
        self.messages -= self.backlog.bulk().map(&mut count).sum::<usize>();
        self.backlog.discard_bulk();
        for frame in self.parked.take().iter().flat_map(|parked| parked.frames()) {
            count(frame);
        }
    }

    /// As [`Backlog::detach_torn`].
    pub(super) fn detach_torn(&mut self, copy: impl FnOnce(&[u8]) -> Bytes) {
        self.backlog.detach_torn(copy);
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
        self.overhead = self.overhead - before.overhead + after.overhead;
    }
}
