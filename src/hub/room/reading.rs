//! What was said in a room, for those who come back and those who look back.

use super::{Room, Sequencer, StreamPosition};
use crate::ws::PreparedMessage;

/// Where somebody begins to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Behind the publication with this offset, in this life of the room; `None` for an epoch that is none of this process.
    Behind(Option<u64>, u64),
    /// With the last so many publications that are kept.
    Last(usize),
}

impl Start {
    /// Behind a position as it was told to somebody: an epoch in the form in which it is printed, and an offset.
    pub fn behind(epoch: &str, offset: u64) -> Self {
        // Whoever gives another form did not get it from here.
        let is_printed = epoch.len() == 16 && epoch.bytes().all(|byte| byte.is_ascii_hexdigit());
        let epoch = u64::from_str_radix(epoch, 16).ok().filter(|_| is_printed);
        Self::Behind(epoch, offset)
    }
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

/// How much is read at once: so many messages, and so many bytes of frames, but one message in any case that there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Portion {
    /// Messages.
    pub messages: usize,
    /// Bytes.
    pub bytes: usize,
}

impl Room {
    /// Where the room stands, and the offset behind which a reader who begins there is given everything, if that can be done.
    pub fn begin_reading(&self, start: Start) -> (StreamPosition, Option<u64>) {
        let sequencer = self.lock();
        (self.position_of(&sequencer), sequencer.begin(start, self.epoch))
    }

    /// Reads on behind `after`.
    pub fn read(&self, after: u64, most: Portion) -> Passage {
        self.lock().read(after, most)
    }

    /// Looks back; `None` without a history.
    ///
    /// Behind a position the oldest come first, and else the last. Behind one that is not of this life of the room, or is not
    /// reached any more, all that is kept counts as behind it, and the page is not complete.
    pub fn look_back(&self, start: Start, most: Portion) -> Option<HistoryPage> {
        let sequencer = self.lock();
        sequencer.history.as_ref()?;
        let start = match start {
            Start::Last(count) => Start::Last(count.min(most.messages)),
            Start::Behind(..) => start,
        };
        let after = sequencer.begin(start, self.epoch);
        let passage = sequencer.read(after.unwrap_or(0), most);
        let is_complete = after.is_some() && passage.missing.is_none();
        Some(HistoryPage { position: self.position_of(&sequencer), messages: passage.messages, is_complete })
    }
}

impl Sequencer {
    fn begin(&self, start: Start, epoch: u64) -> Option<u64> {
        let history = self.history.as_ref();
        match start {
            Start::Last(count) => Some(history.map_or(self.offset, |history| history.before_last(count))),
            Start::Behind(of, _) if of != Some(epoch) => None,
            // Who missed nothing can be told so without a history.
            Start::Behind(_, offset) if offset == self.offset => Some(offset),
            Start::Behind(_, offset) => {
                history.is_some_and(|history| history.reaches(offset)).then_some(offset)
            }
        }
    }

    fn read(&self, after: u64, most: Portion) -> Passage {
        let Some(history) = self.history.as_ref() else {
            let missing = (after < self.offset).then_some((after + 1, self.offset));
            return Passage { until: self.offset, missing, is_end: true, ..Passage::default() };
        };
        let begin = after.max(history.first().saturating_sub(1));
        let mut passage = Passage { until: begin, ..Passage::default() };
        passage.missing = (begin > after).then_some((after + 1, begin));
        let mut bytes = 0;
        for (offset, message) in history.after(begin).take(most.messages) {
            bytes += message.frame().len();
            if bytes > most.bytes && !passage.messages.is_empty() {
                break;
            }
            passage.messages.push(message.clone());
            passage.until = offset;
        }
        passage.is_end = passage.until == self.offset;
        passage
    }
}
