//! What one slow member has waiting: slices of the buffers that it shares with everybody else.
//!
//! Only a client whose socket would block has a backlog; all others are written to directly. There are two
//! lanes: control frames and replies overtake bulk messages, but never a frame that is partly on the wire.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::{iter, mem};

use bytes::Bytes;

use crate::metrics::Source;
use crate::ws;

/// Which of the two lanes of a backlog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Control frames, replies, advice and close: ahead of all bulk.
    Control,
    /// What rooms and users say.
    Bulk,
}

/// The bytes waiting for one client would be more than its limit: it is a slow consumer. The frames come back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the outbound queue is full")]
pub struct Overflow(pub Bytes);

/// What is remembered of frames that wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// Since when, in nanoseconds of the gateway's clock.
    pub since: u64,
    /// Who said it; none for control frames and replies.
    pub source: Option<Source>,
}

/// What waits to be written to one socket, in the order torn, control, bulk.
///
/// Invariants: each slice in a lane is not empty, and begins and ends on a frame border; `bytes` is the sum of both
/// lanes and what is left of the torn frame, `control_bytes` of the first lane.
#[derive(Debug, Default)]
pub struct Backlog {
    torn: Torn,
    control: VecDeque<Waiting>,
    bulk: VecDeque<Waiting>,
    bytes: usize,
    control_bytes: usize,
}

/// The one frame that is partly written, whole; or none, and empty.
#[derive(Debug, Default)]
struct Torn {
    frame: Bytes,
    /// How many of its bytes the socket has.
    written: usize,
    stamp: Stamp,
}

/// Whole frames in a lane.
#[derive(Debug)]
struct Waiting {
    frames: Bytes,
    stamp: Stamp,
}

impl Torn {
    fn rest(&self) -> &[u8] {
        &self.frame[self.written..]
    }
}

impl Backlog {
    /// A backlog with nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// The backlog of a client whose socket took only `written` bytes of `frames`.
    ///
    /// The frame that was cut is torn, whole frames behind it wait in `lane`. This is not held
    /// against the limit (it is one batch at most, and the frame that was begun must be ended before a Close can
    /// be said); the next push is.
    pub fn for_partial_write(lane: Lane, mut frames: Bytes, written: usize, stamp: Stamp) -> Self {
        let (_, torn) = tear(&mut frames, written, stamp);
        let mut backlog = Self { bytes: torn.rest().len(), torn, ..Self::default() };
        backlog.append(lane, frames, stamp);
        backlog
    }

    /// Appends whole frames to a lane.
    ///
    /// # Errors
    ///
    /// [`Overflow`] when more than `limit` bytes would be held; the backlog is then as before, and the caller
    /// disconnects the client as a slow consumer.
    pub fn push(&mut self, lane: Lane, frames: Bytes, stamp: Stamp, limit: usize) -> Result<(), Overflow> {
        if self.footprint_with(frames.len()) > limit {
            return Err(Overflow(frames));
        }
        self.append(lane, frames, stamp);
        Ok(())
    }

    /// The bytes that all of it takes, and one more slice of so many.
    ///
    /// The place in the queue counts as well, or a flood of 2-byte pongs would hold many times the limit.
    pub fn footprint_with(&self, frames: usize) -> usize {
        self.bytes + frames + (self.control.len() + self.bulk.len() + 1) * size_of::<Waiting>()
    }

    /// Makes `frame` (a Close) the last thing to be written: bulk is discarded, replies still precede it.
    ///
    /// A Close has room above every limit, as a full backlog is what it may have to tell of.
    pub fn close(&mut self, frame: Bytes, stamp: Stamp) {
        self.discard_bulk();
        self.append(Lane::Control, frame, stamp);
    }

    /// Replaces the frame that is partly written by a copy of it, so that it keeps no buffer of many frames alive.
    pub fn detach_torn(&mut self, copy: impl FnOnce(&[u8]) -> Bytes) {
        if !self.torn.frame.is_empty() {
            self.torn.frame = copy(&self.torn.frame);
        }
    }

    /// Drops all bulk; what is partly written stays, or the peer could not read what follows.
    pub fn discard_bulk(&mut self) {
        self.bytes -= self.bulk.iter().map(|waiting| waiting.frames.len()).sum::<usize>();
        self.bulk = VecDeque::new();
    }

    /// Fills `slices` from the front with what is to be written next, and returns how many were filled.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let torn = Some(self.torn.rest()).filter(|rest| !rest.is_empty());
        let waiting = self.lanes().map(|waiting| &waiting.frames[..]);
        let waiting = torn.into_iter().chain(waiting);
        slices.iter_mut().zip(waiting).map(|(slice, bytes)| *slice = IoSlice::new(bytes)).count()
    }

    /// Takes away the first `written` bytes, as the socket has them.
    ///
    /// `written` is at most what [`Backlog::slices`] gave.
    pub fn advance(&mut self, written: usize) {
        self.advance_over(written, |_, _| {});
    }

    /// As [`Backlog::advance`]; tells the frames whose last byte is among those that were written, whole.
    pub fn advance_over(&mut self, written: usize, mut ended: impl FnMut(&[u8], Stamp)) {
        debug_assert!(written <= self.bytes, "a socket cannot take more than there is");
        self.bytes -= written;
        let from_torn = written.min(self.torn.rest().len());
        self.torn.written += from_torn;
        if from_torn > 0 && self.torn.rest().is_empty() {
            let Torn { frame, stamp, .. } = mem::take(&mut self.torn);
            ended(&frame, stamp);
        }
        let mut left = written - from_torn;
        while left > 0 {
            let is_control = !self.control.is_empty();
            let lane = if is_control { &mut self.control } else { &mut self.bulk };
            let Some(Waiting { frames: front, stamp }) = lane.front_mut() else { return };
            let before = front.len();
            if left < front.len() {
                let (whole, torn) = tear(front, left, *stamp);
                if !whole.is_empty() {
                    ended(&whole, *stamp);
                }
                self.torn = torn;
                left = 0;
            } else {
                left -= front.len();
                ended(&mem::take(front), *stamp);
            }
            self.control_bytes -= if is_control { before - front.len() } else { 0 };
            if front.is_empty() {
                lane.pop_front();
            }
        }
    }

    /// How many bytes of the frame that is partly written the socket has.
    pub fn begun_bytes(&self) -> usize {
        self.torn.written
    }

    /// How many bytes are whole frames of the bulk lane.
    pub fn bulk_bytes(&self) -> usize {
        self.bytes - self.control_bytes - self.torn.rest().len()
    }

    /// The frames of the bulk lane.
    pub fn bulk(&self) -> impl Iterator<Item = &[u8]> {
        self.bulk.iter().map(|waiting| &waiting.frames[..])
    }

    /// All frames that are not written to their end, each whole.
    pub fn frames(&self) -> impl Iterator<Item = &[u8]> {
        iter::once(&self.torn.frame[..]).chain(self.lanes().map(|waiting| &waiting.frames[..]))
    }

    /// How many bytes wait to be written.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many of them are whole frames of the control lane.
    pub fn control_bytes(&self) -> usize {
        self.control_bytes
    }

    /// Since when the oldest of it has been waiting; none when nothing waits.
    pub fn oldest(&self) -> Option<u64> {
        let torn = Some(&self.torn.stamp).filter(|_| !self.torn.rest().is_empty());
        // Each lane is in the order in which things came to wait.
        let fronts = [self.control.front(), self.bulk.front()].into_iter().flatten();
        torn.into_iter().chain(fronts.map(|front| &front.stamp)).map(|stamp| stamp.since).min()
    }

    /// Whether nothing waits, so that the backlog can be dropped and the client be written to directly again.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    fn lanes(&self) -> impl Iterator<Item = &Waiting> {
        self.control.iter().chain(&self.bulk)
    }

    fn append(&mut self, lane: Lane, frames: Bytes, stamp: Stamp) {
        self.bytes += frames.len();
        if frames.is_empty() {
            return;
        }
        match lane {
            Lane::Control => {
                self.control_bytes += frames.len();
                self.control.push_back(Waiting { frames, stamp });
            }
            Lane::Bulk => self.bulk.push_back(Waiting { frames, stamp }),
        }
    }
}

/// Takes from `frames` those that the `written` bytes end, and the one that they end in.
fn tear(frames: &mut Bytes, written: usize, stamp: Stamp) -> (Bytes, Torn) {
    let (mut begin, mut end) = (0, 0);
    while end < written {
        let Some(frame_bytes) = ws::frame_end(&frames[end..]) else {
            debug_assert!(false, "a slice ends on a frame border");
            end = frames.len();
            break;
        };
        (begin, end) = (end, end + frame_bytes);
    }
    if end == written {
        return (frames.split_to(end), Torn::default());
    }
    let mut whole = frames.split_to(end);
    let frame = whole.split_off(begin);
    (whole, Torn { frame, written: written - begin, stamp })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ws::encode_text;

    const NO_LIMIT: usize = usize::MAX;
    const NO_STAMP: Stamp = Stamp { since: 0, source: None };

    #[test]
    fn a_write_cut_at_every_place_leaves_the_rest_and_lets_control_in_only_between_frames() {
        let batch = frames(&["one", "", "three"]);
        let pong = frames(&["pong"]);
        let borders = [5, 7, 14];
        for written in 0..batch.len() {
            let mut backlog = Backlog::for_partial_write(Lane::Bulk, batch.clone(), written, NO_STAMP);
            backlog.push(Lane::Control, pong.clone(), NO_STAMP, NO_LIMIT).unwrap();

            let border = if written == 0 { 0 } else { *borders.iter().find(|end| **end >= written).unwrap() };
            let expected = [&batch[written..border], &pong, &batch[border..]].concat();
            assert_eq!(rest(&backlog), expected, "cut at {written}");
            assert_eq!(backlog.bytes(), expected.len());
            let whole = written - backlog.begun_bytes();
            assert!(whole == 0 || borders.contains(&whole), "cut at {written}");
            assert_eq!(backlog.frames().map(<[u8]>::len).sum::<usize>(), batch.len() - whole + pong.len());
        }
    }

    #[test]
    fn replies_that_were_cut_stay_ahead_of_later_replies() {
        let replies = frames(&["first", "second"]);
        let mut backlog = Backlog::for_partial_write(Lane::Control, replies.clone(), 1, NO_STAMP);

        backlog.push(Lane::Control, frames(&["third"]), NO_STAMP, NO_LIMIT).unwrap();

        assert_eq!(rest(&backlog), [&replies[1..], &frames(&["third"])].concat());
    }

    #[test]
    fn a_complete_write_leaves_nothing() {
        let batch = frames(&["one", "two"]);
        let bytes = batch.len();

        let backlog = Backlog::for_partial_write(Lane::Bulk, batch, bytes, NO_STAMP);

        assert!(backlog.is_empty());
        assert_eq!(backlog.slices(&mut [IoSlice::new(&[])]), 0);
    }

    #[test]
    fn refuses_what_passes_the_limit_and_is_then_as_before() {
        let mut backlog = Backlog::new();
        let batch = frames(&["one"]);
        let limit = 2 * (batch.len() + size_of::<Waiting>());
        backlog.push(Lane::Bulk, batch.clone(), NO_STAMP, limit).unwrap();
        backlog.push(Lane::Control, batch.clone(), NO_STAMP, limit).unwrap();

        let empty = frames(&[""]);
        assert_eq!(backlog.push(Lane::Control, empty.clone(), NO_STAMP, limit), Err(Overflow(empty.clone())));
        assert_eq!(backlog.push(Lane::Bulk, empty.clone(), NO_STAMP, limit), Err(Overflow(empty)));

        assert_eq!(backlog.bytes(), 2 * batch.len());
    }

    #[test]
    fn two_byte_frames_cannot_hold_many_times_the_limit() {
        let mut backlog = Backlog::new();
        let pushed = (0..100_000)
            .take_while(|_| backlog.push(Lane::Control, frames(&[""]), NO_STAMP, 64 << 10).is_ok())
            .count();

        assert!(pushed * size_of::<Waiting>() <= 64 << 10);
    }

    #[test]
    fn a_close_ends_the_cut_frame_and_the_replies_but_drops_the_bulk() {
        let batch = frames(&["one", "two"]);
        let mut backlog = Backlog::for_partial_write(Lane::Bulk, batch.clone(), 1, NO_STAMP);
        backlog.push(Lane::Control, frames(&["ack"]), NO_STAMP, NO_LIMIT).unwrap();

        backlog.close(frames(&["bye"]), NO_STAMP);

        let expected = [&batch[1..5], &frames(&["ack"]), &frames(&["bye"])].concat();
        assert_eq!(rest(&backlog), expected);
        assert_eq!(backlog.bytes(), expected.len());
    }

    #[test]
    fn gives_no_more_slices_than_there_is_room_for() {
        let mut backlog = Backlog::new();
        (0..10).for_each(|_| backlog.push(Lane::Bulk, frames(&["one"]), NO_STAMP, NO_LIMIT).unwrap());

        assert_eq!(backlog.slices(&mut [IoSlice::new(&[]); 4]), 4);
    }

    #[test]
    fn what_was_written_tells_since_when_it_waited_and_the_rest_how_old_it_is() {
        let at = |since| Stamp { since, source: Some(Source::Client) };
        let batch = frames(&["one", "two"]);
        let mut backlog = Backlog::for_partial_write(Lane::Bulk, batch.clone(), 1, at(10));
        backlog.push(Lane::Control, frames(&["ack"]), at(20), NO_LIMIT).unwrap();
        backlog.push(Lane::Bulk, frames(&["new"]), at(30), NO_LIMIT).unwrap();
        assert_eq!(backlog.oldest(), Some(10));

        let mut told = Vec::new();
        // The rest of the first frame, the reply, and the first byte of the second.
        backlog.advance_over(4 + 5 + 1, |frames, stamp| told.push((frames.len(), stamp.since)));
        assert_eq!((told.as_slice(), backlog.oldest()), (&[(5, 10), (5, 20)][..], Some(10)));
        backlog.advance_over(4, |frames, stamp| told.push((frames.len(), stamp.since)));
        assert_eq!((told[2], backlog.oldest()), ((5, 10), Some(30)));
        backlog.advance(5);
        assert_eq!(backlog.oldest(), None);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Bulk(Vec<usize>),
        Control(Vec<usize>),
        Write(usize),
        Discard,
    }

    fn step() -> impl Strategy<Value = Step> {
        let lengths = || prop::collection::vec(prop_oneof![0_usize..5, 120_usize..130], 0..4);
        prop_oneof![
            3 => lengths().prop_map(Step::Bulk),
            3 => lengths().prop_map(Step::Control),
            6 => (0_usize..300).prop_map(Step::Write),
            1 => Just(Step::Discard),
        ]
    }

    proptest! {
        #[test]
        fn the_wire_carries_whole_frames_and_each_lane_in_its_order(steps in prop::collection::vec(step(), 1..60)) {
            let (mut backlog, mut wire, mut pushed) = (Backlog::new(), Wire::default(), 0_u32);
            let mut batch = |lane: char, lengths: Vec<usize>| {
                let texts: Vec<_> = lengths.into_iter().map(|length| {
                    pushed += 1;
                    format!("{lane}{pushed}:{}", "x".repeat(length))
                }).collect();
                frames(&texts.iter().map(String::as_str).collect::<Vec<_>>())
            };
            let (mut discarded, mut pushed_bytes) = (0, 0);
            for step in steps {
                match step {
                    Step::Bulk(lengths) => {
                        let batch = batch('b', lengths);
                        pushed_bytes += batch.len();
                        backlog.push(Lane::Bulk, batch, NO_STAMP, NO_LIMIT).unwrap();
                    }
                    Step::Control(lengths) => {
                        let batch = batch('c', lengths);
                        pushed_bytes += batch.len();
                        backlog.push(Lane::Control, batch, NO_STAMP, NO_LIMIT).unwrap();
                    }
                    Step::Write(bytes) => write(&mut backlog, bytes, &mut wire),
                    Step::Discard => {
                        let before = backlog.bytes();
                        backlog.discard_bulk();
                        discarded += before - backlog.bytes();
                    }
                }
                prop_assert_eq!(rest(&backlog).len(), backlog.bytes());
                prop_assert_eq!(&wire.ended[..], &wire.bytes[..wire.bytes.len() - backlog.begun_bytes()]);
                prop_assert_eq!(backlog.control.iter().map(|waiting| waiting.frames.len()).sum::<usize>(), backlog.control_bytes());
            }
            write(&mut backlog, usize::MAX, &mut wire);
            prop_assert!(backlog.is_empty());
            prop_assert_eq!(wire.bytes.len() + discarded, pushed_bytes);
            let numbers = |lane| numbers(&wire.bytes, lane).is_sorted();
            prop_assert!(numbers(b'b') && numbers(b'c'));
        }
    }

    #[derive(Default)]
    struct Wire {
        bytes: Vec<u8>,
        /// The frames that were told to have ended.
        ended: Vec<u8>,
    }

    fn write(backlog: &mut Backlog, bytes: usize, wire: &mut Wire) {
        let mut taken = rest(backlog);
        taken.truncate(bytes);
        backlog.advance_over(taken.len(), |frames, _| wire.ended.extend_from_slice(frames));
        wire.bytes.extend(taken);
    }

    /// The numbers of the frames of one lane, as the peer reads them; panics when the frames do not line up.
    fn numbers(mut wire: &[u8], lane: u8) -> Vec<u32> {
        let mut numbers = Vec::new();
        while !wire.is_empty() {
            let (frame, behind) = wire.split_at(ws::frame_end(wire).unwrap());
            let payload = &frame[if frame[1] < 126 { 2 } else { 4 }..];
            if payload[0] == lane {
                let number = payload[1..].split(|byte| *byte == b':').next().unwrap();
                numbers.push(str::from_utf8(number).unwrap().parse().unwrap());
            }
            wire = behind;
        }
        numbers
    }

    fn rest(backlog: &Backlog) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); 256];
        let count = backlog.slices(&mut slices);
        slices[..count].iter().flat_map(|slice| slice.to_vec()).collect()
    }

    fn frames(texts: &[&str]) -> Bytes {
        let mut frames = Vec::new();
        for text in texts {
            encode_text(&mut frames, text.as_bytes());
        }
        frames.into()
    }
}
