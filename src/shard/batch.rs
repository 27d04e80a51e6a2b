//! What is on its way to the members of a room: one buffer of frames that all of them share, and the parts of
//! it for those that cannot.

use std::mem;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::id::{ClientKey, MessageKey};
use crate::inbox::Publication;
use crate::memory::Meter;
use crate::ws;

use super::room::{Flags, Member, Trace};

/// One publication in a batch: its frame ends at `end` and begins where the one before ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    offset: u64,
    payload: usize,
    end: usize,
    exclude: Option<ClientKey>,
}

impl Mark {
    fn payload_bytes(&self) -> usize {
        self.end - self.payload
    }

    fn is_for(&self, member: Member) -> bool {
        self.offset > member.after && self.exclude != Some(member.client)
    }
}

/// Nearly all batches hold one publication, and then cost no allocation.
pub(super) type Marks = SmallVec<[Mark; 1]>;

/// A batch that is being filled.
#[derive(Debug)]
pub(super) struct Open {
    frames: Frames,
    pub(super) marks: Marks,
    /// The same, from the first publication on that was compressed.
    compressed: Option<Box<(Frames, Marks)>>,
    pub(super) trace: Trace,
    /// What publications are about, with their offsets, where that matters.
    keys: Vec<(u64, MessageKey)>,
}

#[derive(Debug)]
enum Frames {
    /// The buffer of the publication itself, shared with the other shards.
    One(Bytes),
    Many(Vec<u8>),
}

impl Frames {
    fn append(&mut self, frame: &Bytes) {
        match self {
            Self::One(first) => *self = Self::Many([&first[..], &frame[..]].concat()),
            Self::Many(frames) => frames.extend_from_slice(frame),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::One(frame) => frame,
            Self::Many(frames) => frames,
        }
    }

    fn seal(self) -> Bytes {
        match self {
            Self::One(frame) => frame,
            // Boxed, as a backlog that holds a slice holds the spare capacity with it, and counts only the slice.
            Self::Many(frames) => Bytes::from(frames.into_boxed_slice()),
        }
    }
}

impl Open {
    /// A batch that begins with this publication, which the shard took at `taken_at`.
    pub(super) fn new(publication: &Publication, compressed: Option<Bytes>, taken_at: u64) -> Self {
        let frame = publication.message.frame().clone();
        let mut marks = Marks::new();
        marks.push(mark(publication, publication.message.payload().len(), frame.len()));
        let compressed = compressed.map(|frame| {
            let marks = Marks::from_iter([mark(publication, payload_bytes(&frame), frame.len())]);
            Box::new((Frames::One(frame), marks))
        });
        let trace = Trace { origin: publication.origin, taken_at };
        let mut open = Self { frames: Frames::One(frame), marks, compressed, trace, keys: Vec::new() };
        open.keep_key(publication);
        open
    }

    /// Adds a publication of a higher offset.
    pub(super) fn append(&mut self, publication: &Publication, compressed: Option<&Bytes>, taken_at: u64) {
        debug_assert!(self.marks.last().is_none_or(|last| last.offset < publication.offset), "offsets rise");
        if compressed.is_some() && self.compressed.is_none() {
            let before = Bytes::copy_from_slice(self.frames.bytes());
            self.compressed = Some(Box::new((Frames::One(before), self.marks.clone())));
        }
        let frame = publication.message.frame();
        if let Some((frames, marks)) = self.compressed.as_deref_mut() {
            let frame = compressed.unwrap_or(frame);
            frames.append(frame);
            marks.push(mark(publication, payload_bytes(frame), frames.bytes().len()));
        }
        self.frames.append(frame);
        self.marks.push(mark(publication, publication.message.payload().len(), self.bytes()));
        if publication.origin.read_at < self.trace.origin.read_at {
            self.trace = Trace { origin: publication.origin, taken_at };
        }
        self.keep_key(publication);
    }

    fn keep_key(&mut self, publication: &Publication) {
        let key = publication.key.iter().map(|key| (publication.offset, key.clone()));
        self.keys.extend(key);
    }

    /// The bytes of all frames.
    pub(super) fn bytes(&self) -> usize {
        self.frames.bytes().len()
    }
}

/// A sealed batch on its way to the members.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) shared: Shared,
    /// The first offset.
    pub(super) first: u64,
    pub(super) marks: Marks,
    /// Its bytes without the frame headers.
    pub(super) payload_bytes: usize,
    pub(super) trace: Trace,
    keys: Vec<(u64, MessageKey)>,
    pub(super) recipients: usize,
    /// Publications given to them.
    pub(super) deliveries: usize,
    /// The whole batch for [`Flags::NDJSON`] members, once the first of them has been met.
    ndjson: Option<Joined>,
    /// The batch with its compressed publications, when there are any, for [`Flags::COMPRESSED`] members.
    compressed: Option<Box<(Shared, Marks)>>,
}

/// A buffer for many.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) bytes: Bytes,
    /// Whether it is counted among what waits for clients.
    is_charged: bool,
}

/// A batch as lines.
#[derive(Debug)]
struct Joined {
    shared: Shared,
    publications: usize,
    payload_bytes: usize,
}

impl Shared {
    fn new(bytes: Bytes) -> Self {
        Self { bytes, is_charged: false }
    }

    /// The same part of the buffer, counted, if it is one.
    fn keep(&mut self, part: &Bytes, meter: &Meter) -> Option<Bytes> {
        let (whole, range) = (self.bytes.as_ptr_range(), part.as_ptr_range());
        if range.start < whole.start || range.end > whole.end {
            return None;
        }
        if !self.is_charged {
            self.is_charged = true;
            self.bytes = meter.charge(mem::take(&mut self.bytes));
        }
        Some(self.bytes.slice_ref(part))
    }
}

/// What one member gets of a batch.
#[derive(Clone, Debug)]
pub(super) enum Part {
    Nothing,
    All,
    Own { bytes: Bytes, publications: usize, payload_bytes: usize },
}

impl From<Open> for Flight {
    fn from(open: Open) -> Self {
        let shared = Shared::new(open.frames.seal());
        let compressed = open.compressed.map(|compressed| {
            let (frames, marks) = *compressed;
            Box::new((Shared::new(frames.seal()), marks))
        });
        let first = open.marks.first().map_or(0, |mark| mark.offset);
        let payload_bytes = open.marks.iter().map(Mark::payload_bytes).sum();
        Self {
            shared,
            first,
            marks: open.marks,
            payload_bytes,
            trace: open.trace,
            keys: open.keys,
            recipients: 0,
            deliveries: 0,
            ndjson: None,
            compressed,
        }
    }
}

impl Flight {
    /// What a member gets that is not simply given all.
    #[cold]
    pub(super) fn part_for(&mut self, member: Member) -> Part {
        let start = self.marks.partition_point(|mark| mark.offset <= member.after);
        let rest = &self.marks[start..];
        let is_excluded = |mark: &Mark| mark.exclude == Some(member.client);
        let is_personal = member.flags.has(Flags::PERSONAL);
        let excluded = if is_personal { rest.iter().filter(|mark| is_excluded(mark)).count() } else { 0 };
        let publications = rest.len() - excluded;
        let is_whole = publications == self.marks.len();
        if publications == 0 {
            return Part::Nothing;
        }
        if member.flags.has(Flags::NDJSON) && publications > 1 {
            if !is_whole {
                return self.join(start, |mark| !is_excluded(mark)).part();
            }
            if self.ndjson.is_none() {
                self.ndjson = Some(self.join(0, |_| true));
            }
            return self.ndjson.as_ref().map_or(Part::All, Joined::part);
        }
        let compressed = self.compressed.as_deref().filter(|_| member.flags.has(Flags::COMPRESSED));
        let (bytes, marks) = match compressed {
            Some((shared, marks)) => (&shared.bytes, marks),
            None if is_whole => return Part::All,
            None => (&self.shared.bytes, &self.marks),
        };
        if excluded == 0 {
            let payload_bytes = marks[start..].iter().map(Mark::payload_bytes).sum();
            return Part::Own { bytes: bytes.slice(begin(marks, start)..), publications, payload_bytes };
        }
        let mut own = Vec::with_capacity(bytes.len() - begin(marks, start));
        let mut payload_bytes = 0;
        for index in (start..marks.len()).filter(|index| !is_excluded(&marks[*index])) {
            own.extend_from_slice(&bytes[begin(marks, index)..marks[index].end]);
            payload_bytes += marks[index].payload_bytes();
        }
        Part::Own { bytes: own.into(), publications, payload_bytes }
    }

    /// A part of one of its buffers, or a copy made for one member, as it is kept for who could not take it: counted.
    pub(super) fn keep(&mut self, part: &Bytes, meter: &Meter) -> Bytes {
        let joined = self.ndjson.as_mut().map(|joined| &mut joined.shared);
        let compressed = self.compressed.as_deref_mut().map(|(shared, _)| shared);
        let buffers = [Some(&mut self.shared), joined, compressed];
        let kept = buffers.into_iter().flatten().find_map(|shared| shared.keep(part, meter));
        kept.unwrap_or_else(|| meter.charge(part.clone()))
    }

    /// The offsets of what a member is given, and what each is about.
    pub(super) fn given_to(&self, member: Member) -> impl Iterator<Item = (u64, Option<&MessageKey>)> {
        let is_for = move |mark: &&Mark| mark.is_for(member);
        self.marks.iter().filter(is_for).map(|mark| {
            let place = self.keys.binary_search_by_key(&mark.offset, |(offset, _)| *offset);
            (mark.offset, place.ok().map(|place| &self.keys[place].1))
        })
    }

    /// The wanted messages from `start` on, joined by line feeds into as few frames as the limit allows.
    fn join(&self, start: usize, is_wanted: impl Fn(&Mark) -> bool) -> Joined {
        let mut frames = Vec::with_capacity(self.shared.bytes.len() - begin(&self.marks, start));
        let mut lines = Vec::new();
        let (mut publications, mut payload_bytes) = (0, 0);
        for mark in self.marks[start..].iter().filter(|mark| is_wanted(mark)) {
            let line = &self.shared.bytes[mark.payload..mark.end];
            if !lines.is_empty() && lines.len() + 1 + line.len() > NDJSON_FRAME_BYTES_MAX {
                ws::encode_text(&mut frames, &lines);
                payload_bytes += lines.len();
                lines.clear();
            }
            if !lines.is_empty() {
                lines.push(b'\n');
            }
            lines.extend_from_slice(line);
            publications += 1;
        }
        ws::encode_text(&mut frames, &lines);
        payload_bytes += lines.len();
        Joined { shared: Shared::new(frames.into()), publications, payload_bytes }
    }
}

impl Joined {
    fn part(&self) -> Part {
        let (publications, payload_bytes) = (self.publications, self.payload_bytes);
        Part::Own { bytes: self.shared.bytes.clone(), publications, payload_bytes }
    }
}

/// Where the frame of publication `index` begins.
fn begin(marks: &[Mark], index: usize) -> usize {
    index.checked_sub(1).map_or(0, |before| marks[before].end)
}

/// How many of these publications are for a member.
pub(super) fn count_for(marks: &[Mark], member: Member) -> usize {
    marks.iter().filter(|mark| mark.is_for(member)).count()
}

/// The mark of a publication whose frame ends at `end`, with so many bytes behind its head.
fn mark(publication: &Publication, payload_bytes: usize, end: usize) -> Mark {
    Mark { offset: publication.offset, payload: end - payload_bytes, end, exclude: publication.exclude }
}

/// The bytes behind the head of a frame.
fn payload_bytes(frame: &Bytes) -> usize {
    ws::message_payloads(frame).map(|(_, payload)| payload.len()).sum()
}

/// A bound on the joined message that a client must take in one piece; a single message may be longer.
const NDJSON_FRAME_BYTES_MAX: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::super::room::Room;
    use super::super::room::tests::{append, append_text, clients, payloads, room_of, serve, step};
    use super::*;
    use crate::hub::OnOverflow;
    use crate::ws::PreparedMessage;

    #[test]
    fn a_single_publication_goes_out_in_its_own_buffer() {
        let (mut room, [_]) = room_of(Flags::NDJSON);
        let frame = append(&mut room, 1, None);

        assert_eq!(serve(&mut room)[0].1.as_ptr(), frame.as_ptr());
    }

    #[test]
    fn a_member_is_given_only_what_is_after_its_offset() {
        let mut room = Room::new(1 << 20, OnOverflow::Disconnect);
        let [all, some, none] = clients();
        for (client, after) in [(all, 0), (some, 2), (none, 3)] {
            room.join(Member { client, after, flags: Flags::PLAIN, slot: 0 });
        }
        (1..=3).for_each(|offset| _ = append(&mut room, offset, None));

        assert_eq!(step(&mut room), Some((all, vec![1, 2, 3])));
        assert_eq!(step(&mut room), Some((some, vec![3])));
        assert_eq!(step(&mut room), None);
    }

    #[test]
    fn an_excluded_member_is_given_all_but_its_own() {
        let (mut room, [own, other]) = room_of(Flags::PLAIN);
        room.set_personal(0);
        append(&mut room, 1, Some(own));
        assert_eq!(step(&mut room), Some((other, vec![1])));
        assert_eq!(step(&mut room), None);

        (2..=4).for_each(|offset| _ = append(&mut room, offset, Some(own).filter(|_| offset == 3)));

        assert_eq!(step(&mut room), Some((own, vec![2, 4])));
        assert_eq!(step(&mut room), Some((other, vec![2, 3, 4])));
    }

    #[test]
    fn ndjson_members_share_one_frame_of_lines() {
        let (mut room, [_, _]) = room_of(Flags::NDJSON);
        (1..=3).for_each(|offset| _ = append(&mut room, offset, None));

        let served = serve(&mut room);

        assert_eq!(served[0].1, PreparedMessage::text(b"1\n2\n3").frame());
        assert_eq!(served[0].1.as_ptr(), served[1].1.as_ptr());
    }

    #[test]
    fn ndjson_frames_are_bounded_but_for_a_single_message() {
        let mut room = Room::new(1 << 20, OnOverflow::Disconnect);
        let [client] = clients();
        room.join(Member { client, after: 0, flags: Flags::NDJSON, slot: 0 });
        let texts = [30_000, 30_000, 30_000, 70_000, 5].map(|length| "x".repeat(length));
        (1..).zip(&texts).for_each(|(offset, text)| _ = append_text(&mut room, offset, text));

        let frames: Vec<_> = payloads(&serve(&mut room)[0].1).iter().map(Vec::len).collect();

        assert_eq!(frames, [60_001, 30_000, 70_000, 5]);
    }
}
