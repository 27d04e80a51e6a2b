//! The members that one room has on this shard, and what is on its way to them.
//!
//! What arrives for a room in one turn of the loop is collected into a batch. Once sealed, the batch is one
//! buffer that every member is given: serving a member costs a look at its entry, and no copy, no queue and
//! no reference count. A batch may go out in slices; members come and go in between.

#[cfg(test)]
pub(super) mod tests;

use std::collections::VecDeque;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::hub::OnOverflow;
use crate::id::{ClientKey, MessageKey};
use crate::inbox::{Origin, Publication};
use crate::memory::Meter;

use super::batch::{Flight, Open, Part, count_for};

/// What is special about a member; nearly all are plain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u8);

impl Flags {
    /// Is given each batch as it is.
    pub const PLAIN: Self = Self(0);
    /// Takes several messages in one frame, joined by line feeds.
    pub const NDJSON: Self = Self(1);
    /// May be excluded from publications, its own; stays for as long as the membership.
    pub const PERSONAL: Self = Self(2);

    /// Takes compressed messages.
    pub const COMPRESSED: Self = Self(4);

    /// Both what `self` says and what `other` says.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What `self` says and `other` does not.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether all that `other` says is set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// One client in one room.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// Who.
    pub client: ClientKey,
    /// The member is given what has a greater offset than this.
    pub after: u64,
    /// How.
    pub flags: Flags,
    /// The client's own place for this membership; means nothing to the room.
    pub slot: u32,
}

/// What follows when a member leaves.
#[derive(Debug, PartialEq, Eq)]
pub struct Left {
    /// Publications on their way to it, which it is not given.
    pub missed: usize,
    /// Others that have another place from here on.
    pub moved: SmallVec<[Moved; 2]>,
}

/// A member that has another place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Who.
    pub client: ClientKey,
    /// As in [`Member::slot`].
    pub slot: u32,
    /// The place.
    pub index: u32,
}

/// What is to be done next for a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Give [`Room::bytes`] to this client.
    Deliver(Delivery),
    /// A batch has been given to all; there may be another one.
    Complete(Completed),
    /// Nothing, until something is appended.
    Idle,
}

/// One batch, or a part of it, for one member; the bytes are those of [`Room::bytes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// For whom.
    pub client: ClientKey,
    /// How many publications the bytes hold.
    pub publications: usize,
    /// The bytes without the frame headers.
    pub payload_bytes: usize,
    /// Set for the first and last member of a batch and one in [`SAMPLE_EVERY`] between: the latency of this
    /// delivery is to be recorded, from [`Room::trace`].
    pub is_sample: bool,
}

/// The way of the oldest publication of a batch, until the batch is given to the members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    /// Until it came into the shard's inbox.
    pub origin: Origin,
    /// When the shard took it from there, in nanoseconds of the gateway's clock.
    pub taken_at: u64,
}

/// What a batch was, when all have been served or nobody was there to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Completed {
    /// The sum of its frames as appended; the room's quota of pending bytes gets them back.
    pub bytes: usize,
    /// How many publications it held.
    pub publications: usize,
    /// How many members were given something of it.
    pub recipients: usize,
    /// How many publications they were given in all.
    pub deliveries: usize,
    /// When the oldest of its publications was read, in nanoseconds of the gateway's clock.
    pub read_at: u64,
}

/// The members of one room on one shard, and its batches.
///
/// Invariant: while a batch is in flight, `members[..cursor]` have been served and `members[cursor..]` have not;
/// with none in flight the cursor is 0.
#[derive(Debug)]
pub struct Room {
    members: Vec<Member>,
    cursor: usize,
    flight: Option<Flight>,
    /// What the last delivery was given, when that was not the shared buffer.
    own: Option<Bytes>,
    /// Batches to come, each filled before the next is begun.
    waiting: VecDeque<Open>,
    batch_bytes: usize,
    /// Members that take compressed messages.
    compressed_members: u32,
    overflow: OnOverflow,
}

impl Room {
    /// A room without members, whose batches are of at most `batch_bytes` or one publication; `overflow` is for those who are
    /// slow.
    pub fn new(batch_bytes: usize, overflow: OnOverflow) -> Self {
        Self {
            members: Vec::new(),
            cursor: 0,
            flight: None,
            own: None,
            waiting: VecDeque::new(),
            batch_bytes,
            compressed_members: 0,
            overflow,
        }
    }

    /// What becomes of messages for slow members.
    pub fn overflow(&self) -> OnOverflow {
        self.overflow
    }

    /// The members, by their places.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Whether nobody is here.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Whether there is something to do in [`Room::next_step`].
    pub fn is_ready(&self) -> bool {
        self.flight.is_some() || !self.waiting.is_empty()
    }

    /// How many here take compressed messages.
    pub fn compressed_members(&self) -> usize {
        self.compressed_members as usize
    }

    /// Adds a publication to what is to be served; `compressed` is the same as a frame for those who take it so, `taken_at` is
    /// when the shard took it from its inbox.
    ///
    /// Offsets only rise. Nothing is refused: the bound is the room's quota, which was taken before the
    /// publication got its offset.
    pub fn append(&mut self, publication: &Publication, compressed: Option<Bytes>, taken_at: u64) {
        let frame_bytes = publication.message.frame().len();
        match self.waiting.back_mut() {
            Some(open) if open.bytes() + frame_bytes <= self.batch_bytes => {
                open.append(publication, compressed.as_ref(), taken_at);
            }
            _ => self.waiting.push_back(Open::new(publication, compressed, taken_at)),
        }
    }

    /// Adds a member that is given what has an offset above its `after` and is not complete yet; returns its place.
    pub fn join(&mut self, mut member: Member) -> u32 {
        if self.overflow != OnOverflow::Disconnect {
            // Each message comes in a frame of its own, as it may be left out by itself.
            member.flags = member.flags.without(Flags::NDJSON);
        }
        self.compressed_members += u32::from(member.flags.has(Flags::COMPRESSED));
        self.members.push(member);
        place(self.members.len() - 1)
    }

    /// Removes the member at `index`.
    ///
    /// # Panics
    ///
    /// When there is no such member.
    pub fn leave(&mut self, index: u32) -> Left {
        let index = index as usize;
        let missed = self.missed_by(index);
        self.compressed_members -= u32::from(self.members[index].flags.has(Flags::COMPRESSED));
        // A hole among those served is filled with the last one served, so that the last member, who may not
        // have been, comes to stand behind them.
        let mut hole = index;
        if index < self.cursor {
            self.cursor -= 1;
            hole = self.cursor;
            self.members[index] = self.members[hole];
        }
        self.members.swap_remove(hole);
        let now_at = |index: usize| {
            let Member { client, slot, .. } = *self.members.get(index)?;
            Some(Moved { client, slot, index: place(index) })
        };
        let into_index = if hole == index { None } else { now_at(index) };
        Left { missed, moved: [into_index, now_at(hole)].into_iter().flatten().collect() }
    }

    /// How much is on its way to the member at `index`.
    fn missed_by(&self, index: usize) -> usize {
        let member = self.members[index];
        let flight = self.flight.as_ref().filter(|_| index >= self.cursor).map(|flight| &flight.marks);
        let batches = flight.into_iter().chain(self.waiting.iter().map(|open| &open.marks));
        batches.map(|marks| count_for(marks, member)).sum()
    }

    /// Has the member at `index` remember another [`Member::slot`].
    ///
    /// # Panics
    ///
    /// When there is no such member.
    pub fn set_slot(&mut self, index: u32, slot: u32) {
        self.members[index as usize].slot = slot;
    }

    /// Has the member at `index` given what has an offset above `after`, of all that comes from here on.
    ///
    /// # Panics
    ///
    /// When there is no such member.
    pub fn set_after(&mut self, index: u32, after: u64) {
        self.members[index as usize].after = after;
    }

    /// Has the member at `index` left out of the publications that exclude it.
    ///
    /// To be called before the first such publication is appended: members without the flag are not asked.
    ///
    /// # Panics
    ///
    /// When there is no such member.
    pub fn set_personal(&mut self, index: u32) {
        let member = &mut self.members[index as usize];
        member.flags = member.flags.and(Flags::PERSONAL);
    }

    /// Says what to do next. A batch is sealed when the one before is complete, with all that has come by then.
    #[inline]
    pub fn next_step(&mut self) -> Step {
        self.own = None;
        if self.flight.is_none() && !self.seal() {
            return Step::Idle;
        }
        loop {
            let (Some(flight), Some(member)) = (&mut self.flight, self.members.get(self.cursor)) else {
                return Step::Complete(self.complete());
            };
            self.cursor += 1;
            let all = (flight.marks.len(), flight.payload_bytes);
            let (publications, payload_bytes) = if member.flags == Flags::PLAIN && member.after < flight.first
            {
                all
            } else {
                match flight.part_for(*member) {
                    Part::Nothing => continue,
                    Part::All => all,
                    Part::Own { bytes, publications, payload_bytes } => {
                        self.own = Some(bytes);
                        (publications, payload_bytes)
                    }
                }
            };
            let is_sample =
                flight.recipients.is_multiple_of(SAMPLE_EVERY) || self.cursor == self.members.len();
            flight.recipients += 1;
            flight.deliveries += publications;
            return Step::Deliver(Delivery { client: member.client, publications, payload_bytes, is_sample });
        }
    }

    /// The bytes of the last [`Step::Deliver`]: whole frames, shared by all members for whom they are the same.
    #[inline]
    pub fn bytes(&self) -> &Bytes {
        static NOTHING: Bytes = Bytes::new();
        match (&self.own, &self.flight) {
            (Some(bytes), _) => bytes,
            (None, Some(flight)) => &flight.shared.bytes,
            (None, None) => &NOTHING,
        }
    }

    /// The bytes of the last [`Step::Deliver`], counted as they are kept for who could not take them.
    pub fn keep(&mut self, meter: &Meter) -> Bytes {
        let given = self.bytes().clone();
        match &mut self.flight {
            Some(flight) => flight.keep(&given, meter),
            None => given,
        }
    }

    /// The offsets of the publications in the last [`Step::Deliver`], with what each is about; one for each frame of
    /// [`Room::bytes`] where slow members are not disconnected.
    pub fn last_given(&self) -> impl Iterator<Item = (u64, Option<&MessageKey>)> {
        let member = self.cursor.checked_sub(1).and_then(|index| self.members.get(index));
        let given = self.flight.as_ref().zip(member);
        given.into_iter().flat_map(|(flight, member)| flight.given_to(*member))
    }

    /// When the oldest publication was read that not all members were given, in nanoseconds of the gateway's clock.
    pub fn oldest(&self) -> Option<u64> {
        let waiting = self.waiting.iter().map(|open| open.trace);
        self.trace().into_iter().chain(waiting).map(|trace| trace.origin.read_at).min()
    }

    /// The way of the oldest publication of the batch that is being given to the members; none without one.
    pub fn trace(&self) -> Option<Trace> {
        self.flight.as_ref().map(|flight| flight.trace)
    }

    fn seal(&mut self) -> bool {
        self.flight = self.waiting.pop_front().map(Flight::from);
        self.flight.is_some()
    }

    fn complete(&mut self) -> Completed {
        self.cursor = 0;
        let mut completed = Completed { read_at: u64::MAX, ..Completed::default() };
        if let Some(flight) = self.flight.take() {
            completed.add(flight.shared.bytes.len(), flight.marks.len(), flight.trace);
            completed.recipients = flight.recipients;
            completed.deliveries = flight.deliveries;
        }
        if self.members.is_empty() {
            for open in std::mem::take(&mut self.waiting) {
                completed.add(open.bytes(), open.marks.len(), open.trace);
            }
        }
        completed
    }
}

impl Completed {
    fn add(&mut self, bytes: usize, publications: usize, trace: Trace) {
        self.bytes += bytes;
        self.publications += publications;
        self.read_at = self.read_at.min(trace.origin.read_at);
    }
}

fn place(index: usize) -> u32 {
    u32::try_from(index).expect("there are fewer clients than that")
}

/// Of how many members one has the latency of its delivery recorded.
pub const SAMPLE_EVERY: usize = 256;
