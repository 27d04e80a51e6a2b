//! What waits for one slow client of rooms that leave out messages rather than close it.
//!
//! Each message waits by itself, so that it can be left out by itself; what was left out is remembered as a gap before the
//! next message of the room, so that the client is told of it in its place.

use std::collections::VecDeque;
use std::mem;

use bytes::Bytes;
use hashbrown::HashMap;

use crate::hub::OnOverflow;
use crate::id::{MessageKey, RoomKey};

use super::backlog::Stamp;

/// Entries of messages that were left out, above as many as wait, before they are put together.
const DEAD_MAX: usize = 32;

/// What waits, by room. Invariant: no shelf is without messages and gaps.
#[derive(Debug, Default)]
pub(super) struct Parked {
    /// The first is the next to be taken from.
    shelves: VecDeque<Shelf>,
    load: Load,
}

/// A message that waits.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) offset: u64,
    /// One whole frame.
    pub(super) frame: Bytes,
    pub(super) key: Option<MessageKey>,
    pub(super) stamp: Stamp,
}

/// What is to be said next.
#[derive(Debug)]
pub(super) enum Taken {
    /// The client was not given these.
    Gap { room: RoomKey, from: u64, to: u64, overflow: OnOverflow },
    /// One whole frame.
    Message { frame: Bytes, stamp: Stamp },
}

/// A sum over what waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Load {
    bytes: usize,
    messages: usize,
    /// Places in the lists, those of messages that were left out as well.
    entries: usize,
}

impl Parked {
    /// Has a message of a room wait, which is above all offsets of the room before; returns how many others are left out
    /// for it, because they are about the same.
    pub(super) fn park(&mut self, room: RoomKey, overflow: OnOverflow, message: Message) -> usize {
        let index = self.shelf_of(room).unwrap_or_else(|| {
            self.shelves.push_back(Shelf::new(room, overflow));
            self.shelves.len() - 1
        });
        self.change(index, |shelf| shelf.park(message))
    }

    /// Leaves out the oldest message of a room, or where that has none, of the one whose turn is next. False when nothing
    /// waits at all.
    pub(super) fn shed(&mut self, room: Option<RoomKey>) -> bool {
        let own = room.and_then(|room| self.shelf_of(room));
        let others = 0..self.shelves.len();
        own.into_iter().chain(others).any(|index| self.change(index, Shelf::shed))
    }

    /// Takes what is to be said next, round robin over the rooms.
    pub(super) fn take(&mut self) -> Option<Taken> {
        while !self.shelves.is_empty() {
            match self.change(0, Shelf::take) {
                None => _ = self.shelves.pop_front(),
                Some(taken) => {
                    // A gap goes with what is behind it.
                    if matches!(taken, Taken::Message { .. }) {
                        self.shelves.rotate_left(1);
                    }
                    return Some(taken);
                }
            }
        }
        None
    }

    /// Forgets a room that the client is no longer in.
    pub(super) fn forget(&mut self, room: RoomKey) {
        if let Some(index) = self.shelf_of(room) {
            self.change(index, Shelf::clear);
            self.shelves.remove(index);
        }
    }

    /// The frames that wait.
    pub(super) fn frames(&self) -> impl Iterator<Item = &[u8]> {
        let entries = self.shelves.iter().flat_map(|shelf| &shelf.waiting);
        entries.map(|entry| &entry.frame[..]).filter(|frame| !frame.is_empty())
    }

    /// The bytes of the frames that wait.
    pub(super) fn bytes(&self) -> usize {
        self.load.bytes
    }

    /// How many messages wait.
    pub(super) fn messages(&self) -> usize {
        self.load.messages
    }

    /// The bytes that all of it takes.
    pub(super) fn footprint(&self) -> usize {
        self.load.bytes + self.load.entries * size_of::<Entry>()
    }

    /// Since when the oldest has been waiting, in nanoseconds.
    pub(super) fn oldest(&self) -> Option<u64> {
        let oldest =
            |shelf: &Shelf| shelf.waiting.iter().find(|entry| entry.is_live()).map(|entry| entry.stamp.since);
        self.shelves.iter().filter_map(oldest).min()
    }

    fn shelf_of(&self, room: RoomKey) -> Option<usize> {
        self.shelves.iter().position(|shelf| shelf.room == room)
    }

    fn change<T>(&mut self, index: usize, change: impl FnOnce(&mut Shelf) -> T) -> T {
        let changed = &mut self.shelves[index];
        let before = changed.load();
        let result = change(changed);
        let after = changed.load();
        self.load = Load {
            bytes: self.load.bytes - before.bytes + after.bytes,
            messages: self.load.messages - before.messages + after.messages,
            entries: self.load.entries - before.entries + after.entries,
        };
        result
    }
}

/// What waits of one room.
///
/// Invariant: `newest` has the number of the one live entry of each key where only the newest waits, and is empty elsewhere.
#[derive(Debug)]
struct Shelf {
    room: RoomKey,
    overflow: OnOverflow,
    /// The offsets left out before the first entry.
    gap: Option<(u64, u64)>,
    waiting: VecDeque<Entry>,
    /// The number of the first entry.
    base: u64,
    newest: HashMap<Option<MessageKey>, u64, foldhash::fast::RandomState>,
    bytes: usize,
    dead: usize,
}

/// A message that waits, or some in a row that were left out.
#[derive(Debug)]
struct Entry {
    /// The first and the last offset; one for a message.
    offsets: (u64, u64),
    /// Empty when it was left out.
    frame: Bytes,
    key: Option<MessageKey>,
    stamp: Stamp,
}

impl Entry {
    fn is_live(&self) -> bool {
        !self.frame.is_empty()
    }
}

impl Shelf {
    fn new(room: RoomKey, overflow: OnOverflow) -> Self {
        let (waiting, newest) = Default::default();
        Self { room, overflow, gap: None, waiting, base: 0, newest, bytes: 0, dead: 0 }
    }

    fn park(&mut self, message: Message) -> usize {
        let Message { offset, frame, key, stamp } = message;
        debug_assert!(!frame.is_empty(), "a frame has a head");
        debug_assert!(self.waiting.back().is_none_or(|last| last.offsets.1 < offset), "offsets rise");
        let number = self.base + self.waiting.len() as u64;
        let is_latest = self.overflow == OnOverflow::Latest;
        let older = if is_latest { self.newest.insert(key.clone(), number) } else { None };
        self.bytes += frame.len();
        self.waiting.push_back(Entry { offsets: (offset, offset), frame, key, stamp });
        let Some(older) = older else { return 0 };
        let at = usize::try_from(older - self.base).expect("it is in the list");
        self.bytes -= mem::take(&mut self.waiting[at].frame).len();
        self.dead += 1;
        if self.dead > self.waiting.len() - self.dead + DEAD_MAX {
            self.compact();
        }
        1
    }

    fn shed(&mut self) -> bool {
        while let Some(entry) = self.pop() {
            self.leave_out(entry.offsets);
            if entry.is_live() {
                return true;
            }
        }
        false
    }

    fn take(&mut self) -> Option<Taken> {
        loop {
            let is_message = self.waiting.front().is_some_and(Entry::is_live);
            if (is_message || self.waiting.is_empty())
                && let Some((from, to)) = self.gap.take()
            {
                return Some(Taken::Gap { room: self.room, from, to, overflow: self.overflow });
            }
            let Entry { offsets, frame, stamp, .. } = self.pop()?;
            if is_message {
                return Some(Taken::Message { frame, stamp });
            }
            self.leave_out(offsets);
        }
    }

    fn clear(&mut self) {
        *self = Self::new(self.room, self.overflow);
    }

    fn pop(&mut self) -> Option<Entry> {
        let entry = self.waiting.pop_front()?;
        self.bytes -= entry.frame.len();
        self.dead -= usize::from(!entry.is_live());
        if self.newest.get(&entry.key) == Some(&self.base) {
            self.newest.remove(&entry.key);
        }
        self.base += 1;
        Some(entry)
    }

    /// Whatever lies between two messages that are left out one after the other was not for the client.
    fn leave_out(&mut self, (from, to): (u64, u64)) {
        let from = self.gap.map_or(from, |(first, _)| first);
        self.gap = Some((from, to));
    }

    /// Puts those in a row that were left out into one entry.
    fn compact(&mut self) {
        let mut kept: VecDeque<Entry> = VecDeque::with_capacity(self.waiting.len() - self.dead);
        for entry in mem::take(&mut self.waiting) {
            match kept.back_mut() {
                Some(last) if !last.is_live() && !entry.is_live() => last.offsets.1 = entry.offsets.1,
                _ => kept.push_back(entry),
            }
        }
        self.base = 0;
        self.dead = kept.iter().filter(|entry| !entry.is_live()).count();
        for (number, entry) in (0..).zip(&kept).filter(|(_, entry)| entry.is_live()) {
            self.newest.insert(entry.key.clone(), number);
        }
        self.waiting = kept;
    }

    fn load(&self) -> Load {
        let entries = self.waiting.len();
        Load { bytes: self.bytes, messages: entries - self.dead, entries }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use slotmap::KeyData;

    use super::*;

    #[test]
    fn the_oldest_is_left_out_and_told_in_its_place() {
        let mut parked = Parked::default();
        park(&mut parked, 1, OnOverflow::DropOldest, &[(1, None), (2, None), (4, None)]);

        assert!(parked.shed(Some(room(1))) && parked.shed(Some(room(1))));

        assert_eq!(said(&mut parked), ["gap 1..2 of 1", "4"]);
        assert_eq!(parked.load, Load::default());
    }

    #[test]
    fn only_the_newest_of_a_key_waits() {
        let mut parked = Parked::default();
        let keys = [(1, Some("a")), (2, Some("b")), (3, Some("a")), (4, None), (5, Some("b")), (6, None)];
        park(&mut parked, 1, OnOverflow::Latest, &keys);

        assert_eq!(parked.messages(), 3);
        assert_eq!(said(&mut parked), ["gap 1..2 of 1", "3", "gap 4..4 of 1", "5", "6"]);
    }

    #[test]
    fn a_gap_at_the_end_is_told_without_a_message_behind_it() {
        let mut parked = Parked::default();
        park(&mut parked, 1, OnOverflow::DropOldest, &[(7, None)]);
        parked.shed(None);
        assert!(!parked.shed(None), "nothing waits");

        assert_eq!(said(&mut parked), ["gap 7..7 of 1"]);
        assert_eq!(said(&mut parked), [""; 0]);
    }

    #[test]
    fn rooms_take_turns_and_one_that_was_left_is_forgotten() {
        let mut parked = Parked::default();
        for number in [1, 2, 3] {
            park(
                &mut parked,
                number,
                OnOverflow::DropOldest,
                &[(10 * number, None), (10 * number + 1, None)],
            );
        }
        parked.shed(Some(room(2)));
        parked.forget(room(3));

        assert_eq!(parked.oldest(), Some(10));
        assert_eq!(said(&mut parked), ["10", "gap 20..20 of 2", "21", "11"]);
    }

    #[test]
    fn a_key_that_is_said_for_ever_takes_no_more_and_more_memory() {
        let mut parked = Parked::default();
        park(&mut parked, 1, OnOverflow::Latest, &[(1, Some("rare"))]);
        for offset in 2..10_000 {
            park(&mut parked, 1, OnOverflow::Latest, &[(offset, Some("often"))]);
            assert!(parked.footprint() < 4 * DEAD_MAX * size_of::<Entry>(), "at {offset}");
        }

        assert_eq!(said(&mut parked), ["1", "gap 2..9998 of 1", "9999"]);
    }

    proptest! {
        #[test]
        fn what_is_given_and_the_gaps_are_all_there_was_in_order(
            steps in prop::collection::vec((0..8_u8, 0..3_u64, 0..4_u8), 1..200),
            is_latest: bool,
        ) {
            let overflow = if is_latest { OnOverflow::Latest } else { OnOverflow::DropOldest };
            let mut parked = Parked::default();
            let (mut last, mut told) = ([0; 3], [0; 3]);
            for (step, number, key) in steps {
                let index = usize::try_from(number).unwrap();
                match step {
                    0..5 => {
                        last[index] += 1;
                        let key = key.to_string();
                        park(&mut parked, number, overflow, &[(last[index], Some(&key))]);
                    }
                    5 => _ = parked.shed(Some(room(number))),
                    6 => _ = parked.shed(None),
                    _ => parked.take().iter().for_each(|taken| tell(taken, &mut told)),
                }
                let live: usize = parked.frames().map(<[u8]>::len).sum();
                prop_assert_eq!((live, parked.frames().count()), (parked.bytes(), parked.messages()));
            }
            while let Some(taken) = parked.take() {
                tell(&taken, &mut told);
            }
            prop_assert_eq!(told, last);
            prop_assert_eq!(parked.load, Load::default());
        }
    }

    /// Checks that something comes right behind what was told of its room.
    fn tell(taken: &Taken, told: &mut [u64; 3]) {
        let (number, from, to) = match taken {
            Taken::Gap { room: key, from, to, .. } => {
                ((0..3).find(|number| room(*number) == *key).unwrap(), *from, *to)
            }
            Taken::Message { frame, .. } => {
                let text = str::from_utf8(frame).unwrap();
                let (number, offset) = text.split_once(':').unwrap();
                let offset = offset.parse().unwrap();
                (number.parse().unwrap(), offset, offset)
            }
        };
        let told = &mut told[usize::try_from(number).unwrap()];
        assert_eq!(from, *told + 1, "{taken:?}");
        assert!(to >= from);
        *told = to;
    }

    fn park(parked: &mut Parked, number: u64, overflow: OnOverflow, messages: &[(u64, Option<&str>)]) {
        for (offset, key) in messages {
            let frame = Bytes::from(format!("{number}:{offset}"));
            let key = key.map(|key| MessageKey::parse(key).unwrap());
            let stamp = Stamp { since: *offset, source: None };
            parked.park(room(number), overflow, Message { offset: *offset, frame, key, stamp });
        }
    }

    fn said(parked: &mut Parked) -> Vec<String> {
        let said = |taken| match taken {
            Taken::Gap { room: key, from, to, .. } => {
                let number = (0..10).find(|number| room(*number) == key).unwrap();
                format!("gap {from}..{to} of {number}")
            }
            Taken::Message { frame, .. } => {
                let text = String::from_utf8(frame.to_vec()).unwrap();
                text.split_once(':').unwrap().1.to_owned()
            }
        };
        std::iter::from_fn(|| parked.take().map(said)).collect()
    }

    fn room(number: u64) -> RoomKey {
        RoomKey::from(KeyData::from_ffi(1 << 32 | (number + 1)))
    }
}
