//! What leaves a shard: the batches of its rooms, and what waits for those whose sockets would block.

use std::io::IoSlice;
use std::ops::Range;

use bytes::Bytes;

use crate::hub::OnOverflow;
use crate::id::{ClientKey, RoomKey};
use crate::metrics::{CloseReason, DropReason, Source};
use crate::protocol::{self, Gap};
use crate::ws::{self, CloseCode, PreparedMessage};

use super::backlog::{Backlog, Lane, Overflow, Stamp};
use super::client::{Client, Stage};
use super::counts::Counts;
use super::parked::{Message, Taken};
use super::queue::{Load, Queue, Worst};
use super::room::{self, Step, Trace};
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
    /// Whether this member's delay is to be recorded, from [`Core::delivery_trace`].
    pub(super) is_sample: bool,
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
            let local_overflow = local.room.overflow();
            match local.room.next_step() {
                Step::Deliver(delivery) => {
                    *budget -= 1;
                    self.served += 1;
                    let room::Delivery { client, publications: messages, payload_bytes, is_sample } =
                        delivery;
                    let is_direct = self.clients[client].queue.is_none();
                    // The bytes are not looked up for nobody.
                    if !self.taps.is_empty() {
                        self.tap_sent(client, messages, self.delivery_bytes().len(), !is_direct);
                    }
                    if is_direct {
                        return Some(Delivery { client, messages, payload_bytes, is_sample });
                    }
                    let bytes = self.keep_delivery();
                    let source = self.delivery_trace().map(|trace| trace.origin.source);
                    if local_overflow == OnOverflow::Disconnect {
                        self.enqueue_kept(client, bytes, Lane::Bulk, source);
                    } else {
                        self.park(client, &bytes, 0, source);
                    }
                }
                Step::Complete(batch) => self.complete(key, &batch),
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

    /// The same, counted among what waits.
    fn keep_delivery(&mut self) -> Bytes {
        let room = self.ready.front().and_then(|key| self.rooms.get_mut(*key));
        room.map_or_else(Bytes::new, |local| local.room.keep(&self.meter))
    }

    /// The way of what the last [`Core::next_delivery`] delivers.
    pub(super) fn delivery_trace(&self) -> Option<Trace> {
        self.rooms.get(*self.ready.front()?)?.room.trace()
    }

    /// Whether no more is to be read from a client for the time being.
    pub(super) fn reads_are_paused(&self, key: ClientKey) -> bool {
        self.clients.get(key).is_some_and(|client| {
            client.held.is_some() || (client.is_open() && self.has_many_replies_waiting(key))
        })
    }

    /// Whether a client is to take what it asked for before it asks for more.
    pub(super) fn has_many_replies_waiting(&self, key: ClientKey) -> bool {
        let queue = self.clients.get(key).and_then(|client| client.queue.as_ref());
        queue.is_some_and(|queue| queue.backlog().control_bytes() > CONTROL_BYTES_PAUSE)
    }

    pub(super) fn has_backlog(&self, key: ClientKey) -> bool {
        self.clients.get(key).is_some_and(|client| client.queue.is_some())
    }

    /// Queues whole frames behind what waits already; `source` is who said what is in them, none for replies and
    /// control frames. A full queue closes the client as a slow consumer.
    pub(super) fn enqueue(&mut self, key: ClientKey, frames: Bytes, lane: Lane, source: Option<Source>) {
        let frames = self.meter.charge(frames);
        self.enqueue_kept(key, frames, lane, source);
    }

    /// As [`Core::enqueue`], of what is counted already.
    fn enqueue_kept(&mut self, key: ClientKey, frames: Bytes, lane: Lane, source: Option<Source>) {
        let limit = self.options.outbound_bytes;
        let stamp = Stamp { since: self.time, source };
        let Some(client) = self.clients.get(key) else { return };
        // Answers to what came before a Close still go out before it.
        let is_wanted = client.is_open() || lane == Lane::Control;
        let form = client.form();
        if client.queue.is_none() || !is_wanted {
            self.counts.drop_frames(DropReason::Closing, form, &frames);
            return;
        }
        let messages = form.count(&frames);
        let pushed = self.change_queue(key, |queue, counts| {
            let left_out = queue.make_room(frames.len(), limit);
            counts.dropped.add(DropReason::DropOldest, left_out as u64);
            queue.push((lane, stamp), frames, messages, limit)
        });
        if let Some(Err(Overflow(frames))) = pushed {
            self.counts.drop_frames(DropReason::BytesLimit, form, &frames);
            self.overflow(key, "too much was waiting to be read");
        }
    }

    /// What is to be written to a client alone and at once; what must wait behind a backlog is queued on the way.
    pub(super) fn next_notice(&mut self) -> Option<Notice> {
        loop {
            let notice = self.notices.pop_front()?;
            let is_direct = !self.has_backlog(notice.client);
            let messages = notice.content.map_or(0, |content| content.messages);
            self.tap_sent(notice.client, messages, notice.frame.len(), !is_direct);
            if is_direct {
                return Some(notice);
            }
            if notice.is_close {
                self.enqueue_close(notice.client, notice.frame);
            } else {
                let source = notice.trace.map(|trace| trace.origin.source);
                self.enqueue(notice.client, notice.frame, notice.lane, source);
            }
        }
    }

    /// Makes a Close frame the last of what waits. Messages that wait are dropped, so that it is seen.
    fn enqueue_close(&mut self, key: ClientKey, frame: Bytes) {
        self.discard_bulk(key, DropReason::Closing);
        let frame = self.meter.charge(frame);
        let stamp = Stamp { since: self.time, source: None };
        self.change_queue(key, |queue, _| queue.close(frame, stamp));
    }

    /// Drops the messages of rooms and users that wait for a client; one that is partly written stays.
    pub(super) fn discard_bulk(&mut self, key: ClientKey, reason: DropReason) {
        let Some(form) = self.clients.get(key).map(Client::form) else { return };
        let meter = self.meter.clone();
        self.change_queue(key, |queue, counts| {
            queue.detach_torn(|frame| meter.charge(Bytes::copy_from_slice(frame)));
            queue.discard_bulk(|frames| counts.drop_frames(reason, form, frames));
        });
    }

    /// The socket took only `written` bytes of `frames`: the rest waits. `source` is as for [`Core::enqueue`].
    pub(super) fn blocked(
        &mut self,
        key: ClientKey,
        frames: &Bytes,
        written: usize,
        lane: Lane,
        source: Option<Source>,
    ) {
        let frames = self.meter.charge(frames.clone());
        self.blocked_kept(key, &frames, written, (lane, source));
    }

    /// As [`Core::blocked`], of what is counted already.
    fn blocked_kept(
        &mut self,
        key: ClientKey,
        frames: &Bytes,
        written: usize,
        (lane, source): (Lane, Option<Source>),
    ) {
        let now = self.now();
        let place = u32::try_from(self.backlogged.len()).expect("there are fewer clients than that");
        let Some(client) = self.clients.get_mut(key) else { return };
        debug_assert!(client.queue.is_none(), "a client with a queue is not written to directly");
        let stamp = Stamp { since: self.time, source };
        let backlog = Backlog::for_partial_write(lane, frames.clone(), written, stamp);
        let form = client.form();
        let ended = &frames[..written - backlog.begun_bytes()];
        self.counts.sent.add_frames(form, ended);
        let bytes = backlog.bytes();
        let queue = Queue::new(backlog, form.count(&frames[ended.len()..]), place);
        self.counts.queues.replace(Load::default(), queue.load(self.options.watermark()));
        client.queue = Some(Box::new(queue));
        client.blocked_at = now;
        self.backlogged.push(key);
        self.reschedule(key);
        self.tap_blocked(key, bytes);
    }

    /// As [`Core::blocked`], of the last [`Core::next_delivery`].
    pub(super) fn delivery_blocked(&mut self, key: ClientKey, written: usize) {
        let frames = self.keep_delivery();
        let source = self.delivery_trace().map(|trace| trace.origin.source);
        let room = self.ready.front().and_then(|room| self.rooms.get(*room));
        if room.is_none_or(|local| local.room.overflow() == OnOverflow::Disconnect) {
            return self.blocked_kept(key, &frames, written, (Lane::Bulk, source));
        }
        // What can be left out begins behind the frame that is to be written next.
        let mut next = 0;
        while next <= written
            && let Some(bytes) = ws::frame_end(&frames[next..])
        {
            next += bytes;
        }
        self.blocked_kept(key, &frames.slice(..next), written, (Lane::Bulk, source));
        self.park(key, &frames, next, source);
    }

    /// Has the frames of the last [`Core::next_delivery`] that begin at `begin` or later wait behind what waits already,
    /// message by message, so that some can be left out.
    fn park(&mut self, key: ClientKey, frames: &Bytes, begin: usize, source: Option<Source>) {
        let (limit, stamp) = (self.options.outbound_bytes, Stamp { since: self.time, source });
        let Some(room) = self.ready.front().copied() else { return };
        let Some(local) = self.rooms.get(room) else { return };
        let overflow = local.room.overflow();
        let mut parked = Vec::new();
        let mut at = 0;
        for (offset, about) in local.room.last_given() {
            let Some(bytes) = ws::frame_end(&frames[at..]) else { break };
            if at >= begin {
                let frame = self.share_or_copy(frames, at..at + bytes);
                parked.push(Message { offset, frame, key: about.cloned(), stamp });
            }
            at += bytes;
        }
        debug_assert_eq!(at, frames.len(), "a frame for each offset");
        self.change_queue(key, |queue, counts| {
            for message in parked {
                let (conflated, left_out) = queue.park((room, overflow), message, limit);
                counts.dropped.add(DropReason::Conflated, conflated as u64);
                counts.dropped.add(DropReason::DropOldest, left_out as u64);
            }
        });
    }

    /// Has what is parked follow in what is written next, with the gaps in it.
    fn unpark(&mut self, key: ClientKey) {
        while let Some(Some(taken)) = self.change_queue(key, |queue, _| queue.unpark()) {
            let (frame, stamp) = match taken {
                Taken::Message { frame, stamp } => (frame, stamp),
                Taken::Gap { room, from, to, overflow } => {
                    let Some(room) = self.rooms.get(room).and_then(|local| local.hub.id()) else { continue };
                    let gap = Gap {
                        room: room.as_ref(),
                        from_offset: from,
                        to_offset: to,
                        reason: if overflow == OnOverflow::Latest { "latest" } else { "drop_oldest" },
                    };
                    self.json.clear();
                    protocol::write_gap(&gap, self.timestamp, &mut self.json);
                    let stamp = Stamp { since: self.time, source: None };
                    (self.meter.charge(PreparedMessage::text(&self.json).frame().clone()), stamp)
                }
            };
            // It was within the limit while it was parked.
            self.change_queue(key, |queue, _| queue.push((Lane::Bulk, stamp), frame, 1, usize::MAX));
        }
    }

    /// A frame out of a buffer. It is shared where it is most of the buffer, so that what waits keeps no more memory than it
    /// says.
    fn share_or_copy(&self, buffer: &Bytes, frame: Range<usize>) -> Bytes {
        if frame.len() >= buffer.len() / 2 {
            return buffer.slice(frame);
        }
        self.meter.charge(Bytes::copy_from_slice(&buffer[frame]))
    }

    /// Closes a client that does not take what there is for it.
    pub(super) fn overflow(&mut self, key: ClientKey, text: &'static str) {
        self.close(key, CloseCode::SlowConsumer, text, CloseReason::SlowConsumer);
    }

    /// The socket of a client with a queue can take more: samples what waits.
    pub(super) fn begin_flush(&mut self, key: ClientKey) {
        if let Some(queue) = self.clients.get(key).and_then(|client| client.queue.as_ref()) {
            self.counts.samples.flush_bytes.record(queue.bytes() as u64);
            self.counts.samples.flush_messages.record(queue.messages() as u64);
        }
    }

    /// Fills `slices` with what waits for a client; returns how many, and their bytes.
    pub(super) fn backlog_slices<'a>(&'a self, key: ClientKey, slices: &mut [IoSlice<'a>]) -> (usize, usize) {
        let Some(queue) = self.clients.get(key).and_then(|client| client.queue.as_ref()) else {
            return (0, 0);
        };
        let count = queue.backlog().slices(slices);
        (count, slices[..count].iter().map(|slice| slice.len()).sum())
    }

    /// The socket took so many bytes of what waited.
    pub(super) fn drained(&mut self, key: ClientKey, written: usize) {
        let (now, time) = (self.now(), self.time);
        let Some(client) = self.clients.get_mut(key) else { return };
        client.blocked_at = now;
        let form = client.form();
        self.change_queue(key, |queue, counts| {
            queue.advance(written, |frames, stamp| {
                if let Some(source) = stamp.source {
                    counts.samples.client_queue[source].record(time.saturating_sub(stamp.since));
                }
                counts.sent.add_frames(form, frames)
            });
        });
        self.unpark(key);
        let queue = self.clients[key].queue.as_ref();
        if queue.is_some_and(|queue| queue.backlog().is_empty()) {
            self.forget_backlog(key);
            self.catch_ups.drained(key);
            self.tap_drained(key);
            if matches!(self.clients[key].stage, Stage::Leaving { .. }) {
                self.end_sending(key);
            }
        }
    }

    /// Drops what waits for a client, and takes it out of the counts.
    pub(super) fn forget_backlog(&mut self, key: ClientKey) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let Some(queue) = client.queue.take() else { return };
        let form = client.form();
        for frames in queue.frames() {
            self.counts.drop_frames(DropReason::Closing, form, frames);
        }
        self.counts.queues.replace(queue.load(self.options.watermark()), Load::default());
        self.backlogged.swap_remove(queue.place as usize);
        if let Some(moved) = self.backlogged.get(queue.place as usize) {
            let moved = self.clients[*moved].queue.as_mut();
            moved.expect("the list holds those with a queue").place = queue.place;
        }
    }

    /// Forgets what is parked of a room that a client leaves, as what is on its way to it. One that is closed is owed it.
    pub(super) fn forget_parked(&mut self, key: ClientKey, room: RoomKey) {
        if self.clients.get(key).is_some_and(Client::is_open) {
            self.change_queue(key, |queue, _| queue.forget(room));
        }
    }

    /// The worst of what waits for clients, over all of them.
    pub(super) fn worst_queues(&self) -> Worst {
        let queues = self.backlogged.iter().filter_map(|key| self.clients[*key].queue.as_ref());
        queues.fold(Worst::default(), |worst, queue| worst.or(queue))
    }

    /// Changes a client's queue, and with it the sum over all.
    fn change_queue<T>(
        &mut self,
        key: ClientKey,
        change: impl FnOnce(&mut Queue, &mut Counts) -> T,
    ) -> Option<T> {
        let queue = self.clients.get_mut(key)?.queue.as_mut()?;
        let watermark = self.options.watermark();
        let before = queue.load(watermark);
        let result = change(queue, &mut self.counts);
        self.counts.queues.replace(before, queue.load(watermark));
        Some(result)
    }
}
