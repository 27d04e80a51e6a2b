//! The rooms of a run: who publishes, what is outstanding, what was received and when.

use std::io::Write as _;

use anyhow::{Result, bail};
use hdrhistogram::Histogram;

use crate::clock::Clock;
use crate::frames;
use crate::receiver::{Arrival, Receiver};
use crate::stamp::{Finder, Stamp};
use crate::window::{Receipt, Window};

/// One connection in so many has the latency of each of its messages recorded.
const SAMPLED: u32 = 100;
const LATENCY_MAX: u64 = 60_000_000_000;

/// Counts of the whole run; differences of two copies give those of a part of it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    /// Messages that arrived at one member each.
    pub(crate) deliveries: u64,
    /// Messages that have arrived at all members.
    pub(crate) completed: u64,
    pub(crate) duplicates: u64,
    pub(crate) reordered: u64,
    /// Messages of a room that the receiver is not in, or that were never sent.
    pub(crate) foreign: u64,
    /// Texts that were neither messages nor expected answers: errors, gaps.
    pub(crate) surprises: u64,
}

#[derive(Debug)]
pub(crate) struct Rooms {
    all: Vec<Room>,
    payload: usize,
    finder: Finder,
    clock: Clock,
    /// When the bytes at hand were read; read from the clock only if a sample needs it.
    now: Option<u64>,
    due: Vec<u32>,
    publishing: bool,
    pub(crate) counts: Counts,
    pub(crate) latency: Histogram<u64>,
    pub(crate) last_surprise: String,
    /// Length of the last message that was looked at closely, as delivered.
    pub(crate) delivered_length: usize,
}

/// Who receives: a connection, and the room that it is in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Member {
    pub(crate) connection: u32,
    pub(crate) room: Option<u32>,
}

#[derive(Debug)]
struct Room {
    window: Window,
    window_size: u32,
    publisher: u32,
    members: u32,
    /// Known once the first message has come back and shown what the server adds.
    padding: Option<usize>,
}

impl Rooms {
    /// Rooms whose members are the connections with their number modulo `count`; the first is the publisher.
    pub(crate) fn new(count: u32, window: u32, payload: u32, clock: Clock) -> Result<Self> {
        let room = |publisher| Room {
            window: Window::new(window),
            window_size: window,
            publisher,
            members: 0,
            padding: None,
        };
        Ok(Self {
            all: (0..count).map(room).collect(),
            payload: payload as usize,
            finder: Finder::default(),
            clock,
            now: None,
            due: Vec::new(),
            publishing: false,
            counts: Counts::default(),
            latency: Histogram::new_with_bounds(1_000, LATENCY_MAX, 3)?,
            last_surprise: String::new(),
            delivered_length: 0,
        })
    }

    /// The room of a connection, if there are rooms.
    pub(crate) fn of(&self, connection: u32) -> Option<u32> {
        connection.checked_rem(u32::try_from(self.all.len()).ok()?)
    }

    pub(crate) fn enter(&mut self, room: u32) {
        self.all[room as usize].members += 1;
    }

    /// A member is gone: what it had not got is waited for no longer.
    pub(crate) fn leave(&mut self, connection: u32, receiver: &Receiver) {
        let Some(number) = self.of(connection) else { return };
        let room = &mut self.all[number as usize];
        room.members -= 1;
        for sequence in receiver.next()..room.window.next() {
            room.window.receive(sequence);
        }
        if connection == room.publisher {
            room.members = 0;
        }
        self.due.push(number);
    }

    /// Starts all publishers.
    pub(crate) fn start(&mut self) {
        self.publishing = true;
        self.due.extend((0..).zip(&self.all).map(|(number, _)| number));
    }

    pub(crate) fn stop(&mut self) {
        self.publishing = false;
    }

    pub(crate) fn outstanding(&self) -> u64 {
        self.all.iter().map(|room| room.window.outstanding()).sum()
    }

    /// Messages sent to the room of a connection that it has not received.
    pub(crate) fn lost(&self, connection: u32, receiver: &Receiver) -> u64 {
        let sent = self.of(connection).map_or(0, |room| self.all[room as usize].window.next());
        sent.saturating_sub(receiver.next()) + receiver.lost()
    }

    /// New bytes were read: samples of them share one reading of the clock.
    pub(crate) fn bytes_arrived(&mut self) {
        self.now = None;
    }

    /// A text arrived at a member.
    #[inline]
    pub(crate) fn deliver(&mut self, member: Member, receiver: &mut Receiver, text: &[u8]) {
        let Some(stamp) = self.finder.find(text) else { return self.not_a_message(text) };
        let room = member.room.filter(|room| *room == stamp.publisher);
        let Some(room) = room.and_then(|room| self.all.get_mut(room as usize)) else {
            self.counts.foreign += 1;
            return;
        };
        if stamp.sequence >= room.window.next() {
            self.counts.foreign += 1;
            return;
        }
        match receiver.record(stamp.sequence) {
            Arrival::Next => {}
            other => return self.out_of_order(stamp, other),
        }
        self.counts.deliveries += 1;
        if let Some(receipt) = room.window.receive(stamp.sequence) {
            if receipt.last {
                self.completed(stamp.publisher, text.len());
            }
            if receipt.first || receipt.last || member.connection.is_multiple_of(SAMPLED) {
                self.sample(receipt);
            }
        }
    }

    /// Appends the frames that a room's publisher may send, and names the publisher's connection.
    pub(crate) fn next_due(&mut self, out: &mut Vec<u8>) -> Option<u32> {
        let number = self.due.pop()?;
        let room = &mut self.all[number as usize];
        if room.members == 0 || !self.publishing {
            return Some(room.publisher);
        }
        let mut text = Vec::new();
        while room.window.has_room() {
            let sent = self.clock.nanos();
            let stamp = Stamp { publisher: number, sequence: room.window.send(room.members, sent) };
            text.clear();
            let head = format_args!("{{\"type\":\"message\",\"room_id\":\"load-{number}\",\"content\":\"");
            text.write_fmt(head).expect("writing into a vector does not fail");
            stamp.write(sent, room.padding.unwrap_or(0), &mut text);
            text.extend_from_slice(b"\"}");
            frames::write_text(&text, out);
        }
        Some(room.publisher)
    }

    fn completed(&mut self, number: u32, length: usize) {
        self.counts.completed += 1;
        let room = &mut self.all[number as usize];
        if room.padding.is_none() {
            room.padding = Some(self.payload.saturating_sub(length));
            room.window.open(room.window_size);
        }
        self.delivered_length = length;
        if self.due.last() != Some(&number) {
            self.due.push(number);
        }
    }

    fn sample(&mut self, receipt: Receipt) {
        let clock = self.clock;
        let now = *self.now.get_or_insert_with(|| clock.nanos());
        self.latency.saturating_record(now.saturating_sub(receipt.sent));
    }

    /// A message that was passed over is waited for no longer, so that the loop goes on; when it
    /// comes late, it only counts as reordered.
    #[cold]
    fn out_of_order(&mut self, stamp: Stamp, arrival: Arrival) {
        let passed_over = match arrival {
            Arrival::Next => 0..0,
            Arrival::Ahead { lost } => lost,
            Arrival::Late => {
                self.counts.deliveries += 1;
                self.counts.reordered += 1;
                return;
            }
            Arrival::Duplicate => {
                self.counts.duplicates += 1;
                return;
            }
        };
        self.counts.deliveries += 1;
        let room = &mut self.all[stamp.publisher as usize];
        for sequence in passed_over.start..=stamp.sequence {
            room.window.receive(sequence);
        }
        self.due.push(stamp.publisher);
    }

    #[cold]
    fn not_a_message(&mut self, text: &[u8]) {
        let text = String::from_utf8_lossy(text);
        if !text.contains("\"type\":\"welcome\"") && !text.contains("\"type\":\"pong\"") {
            self.counts.surprises += 1;
            self.last_surprise = text.chars().take(300).collect();
        }
    }
}

/// The request that brings a connection into its room; its answer carries the same `id`.
pub(crate) fn join_request(room: u32) -> Vec<u8> {
    format!("{{\"type\":\"join\",\"room_id\":\"load-{room}\",\"id\":1}}").into_bytes()
}

/// Whether a text is the answer to the join request.
///
/// # Errors
///
/// The text, when the server refused.
pub(crate) fn is_join_answer(text: &[u8]) -> Result<bool> {
    let is = |needle: &str| memchr::memmem::find(text, needle.as_bytes()).is_some();
    if is("\"type\":\"error\"") {
        bail!("the server refused the join: {}", String::from_utf8_lossy(text));
    }
    Ok(is("\"type\":\"ack\"") && is("\"id\":1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes the frames that are due and returns the JSON texts in them.
    fn published(rooms: &mut Rooms) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        while rooms.next_due(&mut frames).is_some() {}
        let mut texts = Vec::new();
        let mut rest = &frames[..];
        while let [_, short, tail @ ..] = rest {
            let (length, tail) = match short & 0x7F {
                126 => (usize::from(u16::from_be_bytes([tail[0], tail[1]])), &tail[2..]),
                length => (usize::from(length), tail),
            };
            let (mask, tail) = tail.split_at(4);
            texts
                .push(tail[..length].iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key).collect());
            rest = &tail[length..];
        }
        texts
    }

    fn room_of_two(window: u32) -> (Rooms, [Receiver; 2]) {
        let mut rooms = Rooms::new(1, window, 128, Clock::start()).unwrap();
        rooms.enter(0);
        rooms.enter(0);
        rooms.start();
        (rooms, [Receiver::default(), Receiver::default()])
    }

    const MEMBERS: [Member; 2] =
        [Member { connection: 0, room: Some(0) }, Member { connection: 1, room: Some(0) }];

    fn to_both(rooms: &mut Rooms, receivers: &mut [Receiver; 2], text: &[u8]) {
        for (member, receiver) in MEMBERS.into_iter().zip(receivers) {
            rooms.deliver(member, receiver, text);
        }
    }

    #[test]
    fn the_first_message_teaches_the_padding_and_opens_the_window() {
        let (mut rooms, mut receivers) = room_of_two(4);
        let first = published(&mut rooms);
        assert_eq!(first.len(), 1);
        to_both(&mut rooms, &mut receivers, &first[0]);
        let more = published(&mut rooms);
        assert_eq!(more.iter().map(Vec::len).collect::<Vec<_>>(), [128; 4]);
        assert_eq!((rooms.counts.deliveries, rooms.counts.completed), (2, 1));
    }

    #[test]
    fn a_message_passed_over_is_lost_and_does_not_stop_the_loop() {
        let (mut rooms, mut receivers) = room_of_two(2);
        let first = published(&mut rooms);
        to_both(&mut rooms, &mut receivers, &first[0]);
        let texts = published(&mut rooms);
        rooms.deliver(MEMBERS[0], &mut receivers[0], &texts[1]);
        rooms.deliver(MEMBERS[1], &mut receivers[1], &texts[0]);
        rooms.deliver(MEMBERS[1], &mut receivers[1], &texts[1]);
        assert_eq!((rooms.outstanding(), rooms.lost(0, &receivers[0])), (0, 1));
        rooms.deliver(MEMBERS[0], &mut receivers[0], &texts[0]);
        assert_eq!((rooms.counts.reordered, rooms.lost(0, &receivers[0])), (1, 0));
        rooms.deliver(MEMBERS[0], &mut receivers[0], &texts[0]);
        assert_eq!(rooms.counts.duplicates, 1);
        assert_eq!(published(&mut rooms).len(), 2);
    }

    #[test]
    fn one_that_leaves_is_waited_for_no_longer() {
        let (mut rooms, mut receivers) = room_of_two(1);
        let first = published(&mut rooms);
        rooms.deliver(MEMBERS[0], &mut receivers[0], &first[0]);
        assert_eq!(rooms.outstanding(), 1);
        rooms.leave(1, &receivers[1]);
        assert_eq!(rooms.outstanding(), 0);
        assert_eq!(published(&mut rooms).len(), 1);
    }

    #[test]
    fn what_was_never_sent_here_is_foreign_and_an_error_is_a_surprise() {
        let (mut rooms, [mut receiver, _]) = room_of_two(1);
        for (publisher, sequence) in [(0, 5_000_000_000), (1, 0)] {
            let mut text = b"{\"content\":\"".to_vec();
            Stamp { publisher, sequence }.write(0, 0, &mut text);
            rooms.deliver(MEMBERS[0], &mut receiver, &text);
        }
        rooms.deliver(MEMBERS[0], &mut receiver, b"{\"type\":\"error\"}");
        rooms.deliver(MEMBERS[0], &mut receiver, b"{\"type\":\"welcome\"}");
        assert_eq!((rooms.counts.foreign, rooms.counts.surprises), (2, 1));
    }

    #[test]
    fn the_answer_to_a_join_is_told_from_the_rest() {
        assert!(is_join_answer(b"{\"type\":\"ack\",\"id\":1}").unwrap());
        assert!(!is_join_answer(b"{\"type\":\"welcome\"}").unwrap());
        assert!(is_join_answer(b"{\"type\":\"error\",\"id\":1}").is_err());
    }
}
