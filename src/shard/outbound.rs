//! What leaves a shard: the batches of its rooms, and what waits for those whose sockets would block.

use std::io::IoSlice;

use bytes::Bytes;

use crate::id::ClientKey;
use crate::metrics::{CloseReason, DropReason};
use crate::ws::CloseCode;

use super::backlog::{Backlog, Lane, Overflow};
use super::client::Stage;
use super::room::{self, Step};
use super::state::{Core, Notice};

/// Deliveries from one room before the next room, or somebody else's message, has its turn: so many writes are what the
/// members of a small room have to wait for beside a large one.
const ROOM_QUANTUM: u32 = 16;

/// Replies that wait for a client before no more is read from it: it must take what it asked for.
const CONTROL_BYTES_PAUSE: usize = 16 * 1024;

/// Part of a batch for one member, whose bytes are [`Core::delivery_bytes`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Delivery {
    pub(super) client: ClientKey,
    /// How many messages it is.
    pub(super) messages: usize,
    /// Its bytes without the frame headers.
    pub(super) payload_bytes: usize,
    /// When the oldest message in it was read, where this member's delay is to be recorded.
    pub(super) sample: Option<u64>,
}

impl Core {
    pub(super) fn has_deliveries(&self) -> bool {
        !self.ready.is_empty()
    }

    /// The next write to a member, round robin over the rooms. What a member with a backlog gets is queued on the way.
    /// Each member served costs one of `budget`. `None` when it is used up, when there is nothing to deliver, or when a
    /// large room gives way to the next one, so that the driver can look whether somebody else wants something.
    pub(super) fn next_delivery(&mut self, budget: &mut usize) -> Option<Delivery> {
        while *budget > 0 {
            let key = *self.ready.front()?;
            if self.served >= ROOM_QUANTUM {
                self.served = 0;
                self.ready.rotate_left(1);
                return None;
            }
            let Some(local) = self.rooms.get_mut(key) else {
                self.ready.pop_front();
                self.served = 0;
                continue;
            };
            match local.room.next_step() {
                Step::Deliver(delivery) => {
                    *budget -= 1;
                    self.served += 1;
                    let room::Delivery { client, publications: messages, payload_bytes, sample } = delivery;
                    if self.clients[client].backlog.is_none() {
                        return Some(Delivery { client, messages, payload_bytes, sample });
                    }
                    let bytes = local.room.bytes().clone();
                    self.enqueue(client, bytes, Lane::Bulk);
                }
                Step::Complete(completed) => {
                    local.hub.release(self.index, key, completed.bytes);
                    self.counts.batches.push(completed);
                }
                Step::Idle => {
                    local.queued = false;
                    self.served = 0;
                    self.ready.pop_front();
                }
            }
        }
        None
    }

    /// The bytes of the last [`Core::next_delivery`].
    pub(super) fn delivery_bytes(&self) -> &Bytes {
        static NOTHING: Bytes = Bytes::new();
        self.ready.front().and_then(|key| self.rooms.get(*key)).map_or(&NOTHING, |local| local.room.bytes())
    }

    /// Whether no more is to be read from a client for the time being.
    pub(super) fn reads_are_paused(&self, key: ClientKey) -> bool {
        self.clients.get(key).is_some_and(|client| {
            let replies = client.backlog.as_ref().map_or(0, |backlog| backlog.control_bytes());
            client.held.is_some() || (client.is_open() && replies > CONTROL_BYTES_PAUSE)
        })
    }

    pub(super) fn has_backlog(&self, key: ClientKey) -> bool {
        self.clients.get(key).is_some_and(|client| client.backlog.is_some())
    }

    /// Queues whole frames behind what waits already. A full queue closes the client as a slow consumer.
    pub(super) fn enqueue(&mut self, key: ClientKey, frames: Bytes, lane: Lane) {
        let limit = self.options.outbound_bytes;
        let Some(client) = self.clients.get_mut(key) else { return };
        // Answers to what came before a Close still go out before it.
        let is_wanted = client.is_open() || lane == Lane::Control;
        let form = client.form();
        let Some(backlog) = client.backlog.as_mut().filter(|_| is_wanted) else {
            return self.counts.drop_frames(DropReason::Closing, form, &frames);
        };
        let length = frames.len();
        let pushed = match lane {
            Lane::Control => backlog.push_control(frames, limit),
            Lane::Bulk => backlog.push_bulk(frames, limit),
        };
        match pushed {
            Ok(()) => self.counts.queue_bytes += length,
            Err(Overflow(frames)) => {
                self.counts.drop_frames(DropReason::BytesLimit, form, &frames);
                self.overflow(key, "too much was waiting to be read");
            }
        }
    }

    /// What is to be written to a client alone and at once; what must wait behind a backlog is queued on the way.
    pub(super) fn next_notice(&mut self) -> Option<Notice> {
        loop {
            let notice = self.notices.pop_front()?;
            if !self.has_backlog(notice.client) {
                return Some(notice);
            }
            if notice.is_close {
                self.enqueue_close(notice.client, notice.frame);
            } else {
                self.enqueue(notice.client, notice.frame, notice.lane);
            }
        }
    }

    /// Makes a Close frame the last of what waits. Messages that wait are dropped, so that it is seen.
    fn enqueue_close(&mut self, key: ClientKey, frame: Bytes) {
        self.discard_bulk(key, DropReason::Closing);
        if let Some(backlog) = self.clients.get_mut(key).and_then(|client| client.backlog.as_mut()) {
            self.counts.queue_bytes += frame.len();
            backlog.close(frame);
        }
    }

    /// Drops the messages of rooms and users that wait for a client; one that is partly written stays.
    fn discard_bulk(&mut self, key: ClientKey, reason: DropReason) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let form = client.form();
        let Some(backlog) = &mut client.backlog else { return };
        backlog.bulk().for_each(|frames| self.counts.drop_frames(reason, form, frames));
        let before = backlog.bytes();
        backlog.discard_bulk();
        self.counts.queue_bytes -= before - backlog.bytes();
    }

    /// The socket took only `written` bytes of `frames`: the rest waits.
    pub(super) fn blocked(&mut self, key: ClientKey, frames: &Bytes, written: usize, lane: Lane) {
        let now = self.now();
        let Some(client) = self.clients.get_mut(key) else { return };
        debug_assert!(client.backlog.is_none(), "a client with a backlog is not written to directly");
        let backlog = Backlog::for_partial_write(lane, frames.clone(), written);
        self.counts.sent.add_frames(client.form(), &frames[..written - backlog.begun_bytes()]);
        self.counts.queue_bytes += backlog.bytes();
        self.counts.slow += 1;
        client.backlog = Some(Box::new(backlog));
        client.blocked_at = now;
        self.reschedule(key);
    }

    /// Closes a client that does not take what there is for it.
    pub(super) fn overflow(&mut self, key: ClientKey, text: &str) {
        self.discard_bulk(key, DropReason::BytesLimit);
        self.close(key, CloseCode::SlowConsumer, text, CloseReason::SlowConsumer);
    }

    /// Fills `slices` with what waits for a client; returns how many, and their bytes.
    pub(super) fn backlog_slices<'a>(&'a self, key: ClientKey, slices: &mut [IoSlice<'a>]) -> (usize, usize) {
        let Some(backlog) = self.clients.get(key).and_then(|client| client.backlog.as_ref()) else {
            return (0, 0);
        };
        let count = backlog.slices(slices);
        (count, slices[..count].iter().map(|slice| slice.len()).sum())
    }

    /// The socket took so many bytes of what waited.
    pub(super) fn drained(&mut self, key: ClientKey, written: usize) {
        let now = self.now();
        let Some(client) = self.clients.get_mut(key) else { return };
        let form = client.form();
        let Some(backlog) = &mut client.backlog else { return };
        backlog.advance_over(written, |frames| self.counts.sent.add_frames(form, frames));
        client.blocked_at = now;
        self.counts.queue_bytes -= written;
        if backlog.is_empty() {
            self.forget_backlog(key);
            if matches!(self.clients[key].stage, Stage::Leaving { .. }) {
                self.end_sending(key);
            }
        }
    }

    /// Drops what waits for a client, and takes it out of the counts.
    pub(super) fn forget_backlog(&mut self, key: ClientKey) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let Some(backlog) = client.backlog.take() else { return };
        let form = client.form();
        backlog.frames().for_each(|frames| self.counts.drop_frames(DropReason::Closing, form, frames));
        self.counts.queue_bytes -= backlog.bytes();
        self.counts.slow -= 1;
    }
}
