//! What was said in a room, for those who come back and those who look back.

use super::{Room, StreamPosition};
use crate::ws::PreparedMessage;

/// Where somebody begins to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Behind the publication with this offset, in this life of the room; `None` for an epoch that is none of this process.
    Behind(Option<u64>, u64),
    /// With the last so many publications that are kept.
    Last(usize),
}

/// A part of what is kept, oldest first.
#[derive(Debug, Default)]
pub struct Passage {
    /// In the order of their offsets, without a hole.
    pub messages: Vec<PreparedMessage>,
    /// The offset of the last of them, or where the reader was when there are none.
    pub until: u64,
    /// What should have come before them and is not kept any more: the first and the last offset.
    pub missing: Option<(u64, u64)>,
    /// Whether nothing has been published behind `until`.
    pub is_end: bool,
}

/// The answer to who looks back.
#[derive(Debug)]
pub struct HistoryPage {
    /// Where the room stands.
    pub position: StreamPosition,
    /// Oldest first.
    pub messages: Vec<PreparedMessage>,
    /// Whether nothing is missing between where the reader began and the first of them.
    pub is_complete: bool,
}

impl Room {
    /// Where the room stands, and the offset behind which a reader who begins there is given everything, if that can be done.
    pub fn begin_reading(&self, start: Start) -> (StreamPosition, Option<u64>) {
        let sequencer = self.lock();
        let position = self.position_of(&sequencer);
        let history = sequencer.history.as_ref();
        let after = match start {
            Start::Last(count) => Some(history.map_or(position.offset, |history| history.before_last(count))),
            Start::Behind(epoch, _) if epoch != Some(self.epoch) => None,
            // Who missed nothing can be told so without a history.
            Start::Behind(_, offset) if offset == position.offset => Some(offset),
            Start::Behind(_, offset) => {
                history.is_some_and(|history| history.reaches(offset)).then_some(offset)
            }
        };
        (position, after)
    }

    /// Reads on behind `after`: at most `bytes_max` bytes of frames, but at least one message when there is one.
    pub fn read(&self, after: u64, bytes_max: usize) -> Passage {
        let sequencer = self.lock();
        let Some(history) = sequencer.history.as_ref() else {
            let last = sequencer.offset;
            let missing = (after < last).then_some((after + 1, last));
            return Passage { until: last, missing, is_end: true, ..Passage::default() };
        };
        let begin = after.max(history.first().saturating_sub(1));
        let mut passage = Passage { until: begin, ..Passage::default() };
        passage.missing = (begin > after).then_some((after + 1, begin));
        let mut bytes = 0;
        for (offset, message) in history.after(begin) {
            bytes += message.frame().len();
            if bytes > bytes_max && !passage.messages.is_empty() {
                break;
            }
            passage.messages.push(message.clone());
            passage.until = offset;
        }
        passage.is_end = passage.until == sequencer.offset;
        passage
    }

    /// Looks back: at most `limit` messages, and `bytes_max` bytes of them but at least one; `None` without a history.
    ///
    /// Behind a position the oldest come first, and else the last. Behind one that is not of this life of the room, or is not
    /// reached any more, all that is kept counts as behind it, and the page is not complete.
    pub fn look_back(&self, start: Start, limit: usize, bytes_max: usize) -> Option<HistoryPage> {
        self.lock().history.as_ref()?;
        let (position, after) = match start {
            Start::Last(count) => self.begin_reading(Start::Last(count.min(limit))),
            Start::Behind(..) => self.begin_reading(start),
        };
        let is_complete = after.is_some();
        let passage = self.read(after.unwrap_or(0), bytes_max);
        let is_complete = is_complete && passage.missing.is_none();
        let mut messages = passage.messages;
        messages.truncate(limit);
        Some(HistoryPage { position, messages, is_complete })
    }
}
