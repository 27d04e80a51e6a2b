//! A live look at one room or one connection.
//!
//! The shards concerned put events into one bounded queue, from which the operator's reader takes them. Nobody waits for that
//! reader: what does not fit is left out and counted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use metrics::Counter;
use serde::{Serialize, Serializer};
use tokio::sync::mpsc;

use crate::id::{ClientId, RoomId, UserId};

/// Events that wait for a tap's reader; at most [`TEXT_BYTES_MAX`] of text in each.
const EVENTS_MAX: usize = 256;

/// What a tap shows of one message, in bytes; the rest is cut off.
pub const TEXT_BYTES_MAX: usize = 1024;

/// What is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// What is said in a room, and who comes and goes; without a name the room of everyone.
    Room(Option<RoomId>),
    /// What one connection says and is given.
    Connection(ClientId),
}

/// The shard's end of a tap; cheap to clone.
#[derive(Clone, Debug)]
pub struct Tap {
    /// What it looks at.
    pub subject: Subject,
    events: mpsc::Sender<Tapped>,
    last_message: Arc<Mutex<LastMessage>>,
    lost: Arc<AtomicU64>,
    all_lost: Counter,
}

/// The operator's end of a tap.
#[derive(Debug)]
pub struct TapReader {
    events: mpsc::Receiver<Tapped>,
    lost: Arc<AtomicU64>,
}

/// An event, and the shard on which it happened.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Tapped {
    /// The shard.
    pub shard: u16,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What happened in a room or on a connection.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A shard begins to look.
    Tapped {
        /// Members of the room on this shard; 1 for a connection that is there.
        members: usize,
    },
    /// A message of the room reached a shard with members; of several shards, the first one shows it.
    Message {
        /// Which life of the room, as in the `ack` of `join`.
        #[serde(serialize_with = "as_hex")]
        epoch: u64,
        /// Its place in that life.
        offset: u64,
        /// How many members the shard has for it.
        members: usize,
        /// Bytes of its JSON.
        bytes: usize,
        /// The beginning of its JSON.
        text: String,
    },
    /// A batch of the room was given to all members on a shard.
    Delivered {
        /// Messages in it.
        messages: usize,
        /// Members that got some of it.
        recipients: usize,
        /// From reading the oldest message to the last member's turn.
        seconds: f64,
    },
    /// A connection entered the room.
    Joined {
        /// Which.
        client_id: ClientId,
        /// Whose.
        user: UserId,
    },
    /// A connection left the room, or ended.
    Left {
        /// Which.
        client_id: ClientId,
        /// Whose.
        user: UserId,
    },
    /// The connection said something.
    Received {
        /// Bytes of the message.
        bytes: usize,
        /// The beginning of it.
        text: String,
    },
    /// The connection was written to, or what is to be written was queued.
    Sent {
        /// Messages, control frames not counted.
        messages: usize,
        /// Bytes, frame headers included.
        bytes: usize,
        /// Whether it waits behind what the socket did not take.
        is_queued: bool,
    },
    /// The socket was full: from here on there is a queue.
    Blocked {
        /// Bytes in the queue.
        bytes: usize,
    },
    /// The socket took all of the queue.
    Drained,
    /// The connection ended, and with it the tap's subject.
    Closed {
        /// Why, as in `fanfare_connections_closed_total`.
        reason: &'static str,
    },
}

impl Event {
    /// The name that its JSON has as `event`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Tapped { .. } => "tapped",
            Self::Message { .. } => "message",
            Self::Delivered { .. } => "delivered",
            Self::Joined { .. } => "joined",
            Self::Left { .. } => "left",
            Self::Received { .. } => "received",
            Self::Sent { .. } => "sent",
            Self::Blocked { .. } => "blocked",
            Self::Drained => "drained",
            Self::Closed { .. } => "closed",
        }
    }
}

/// Makes a tap and its reader. `all_lost` counts the events that all taps lose.
pub fn tap(subject: Subject, all_lost: Counter) -> (Tap, TapReader) {
    let (events, receiver) = mpsc::channel(EVENTS_MAX);
    let lost = Arc::new(AtomicU64::new(0));
    let reader = TapReader { events: receiver, lost: Arc::clone(&lost) };
    (Tap { subject, events, last_message: Arc::default(), lost, all_lost }, reader)
}

impl Tap {
    /// Gives an event to the reader, or counts it as lost when too many wait already: then it is not even made.
    pub fn show(&self, event: impl FnOnce() -> Tapped) {
        if let Ok(place) = self.events.try_reserve() {
            place.send(event());
        } else if !self.is_over() {
            self.lost.fetch_add(1, Ordering::Relaxed);
            self.all_lost.increment(1);
        }
    }

    /// As [`Tap::show`], for a message in one life of the room, which is shown or lost once although several shards have
    /// members for it.
    pub fn show_message(&self, epoch: u64, offset: u64, event: impl FnOnce() -> Tapped) {
        // Held while the event is put into the queue, so that messages are there in their order.
        let mut last = self.last_message.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_followed_by(epoch, offset) {
            self.show(event);
        }
    }

    /// Whether nobody looks any more.
    pub fn is_over(&self) -> bool {
        self.events.is_closed()
    }
}

impl TapReader {
    /// The next event, if there is one.
    #[cfg(test)]
    pub(crate) fn try_next(&mut self) -> Option<Tapped> {
        self.events.try_recv().ok()
    }

    /// The next event; `None` when no shard has the tap any more.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Tapped>> {
        self.events.poll_recv(context)
    }

    /// How many events were lost since the last call.
    pub fn take_lost(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }
}

/// The last message of a room that was shown, of what several shards say of the same messages.
///
/// Each shard with members shows a room's messages in the order of their offsets, and what belongs to one life of the
/// room comes before what belongs to the next, because a life ends only when the last shard has left it. So a message
/// is new when it is further in its life than the last one that was shown, or of another life.
#[derive(Debug, Default)]
struct LastMessage(Option<(u64, u64)>);

impl LastMessage {
    /// Whether a message comes after the last one; takes it as the last if it does.
    fn is_followed_by(&mut self, epoch: u64, offset: u64) -> bool {
        let is_new = self.0.is_none_or(|(life, last)| life != epoch || last < offset);
        if is_new {
            self.0 = Some((epoch, offset));
        }
        is_new
    }
}

/// The beginning of a message, for people: cut at a character, and what is not UTF-8 replaced.
pub fn beginning(message: &[u8]) -> String {
    let text = String::from_utf8_lossy(&message[..message.len().min(TEXT_BYTES_MAX)]);
    match text.char_indices().next_back() {
        // A character that the cut went through shows as a replacement, which the message does not have.
        Some((at, char::REPLACEMENT_CHARACTER)) if message.len() > TEXT_BYTES_MAX => text[..at].to_owned(),
        _ => text.into_owned(),
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn as_hex<S: Serializer>(epoch: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{epoch:016x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_out_and_counts_what_a_slow_reader_does_not_take() {
        let (tap, mut reader) = tap(Subject::Room(None), Counter::noop());

        let mut made = 0;
        for _ in 0..EVENTS_MAX + 7 {
            tap.show(|| {
                made += 1;
                Tapped { shard: 0, event: Event::Drained }
            });
        }

        assert_eq!((reader.take_lost(), reader.take_lost()), (7, 0));
        assert_eq!(made, EVENTS_MAX, "an event that is lost is not made");
        let mut taken = 0;
        drop(tap);
        while reader.try_next().is_some() {
            taken += 1;
        }
        assert_eq!(taken, EVENTS_MAX);
    }

    #[test]
    fn a_message_is_shown_or_lost_once_in_each_life_of_its_room() {
        let (tap, mut reader) = tap(Subject::Room(None), Counter::noop());
        let other = tap.clone();
        let seen = [(7, 4), (7, 5), (7, 4), (7, 6), (7, 5), (7, 6), (3, 1), (3, 1), (3, 2), (8, 2)];
        for (index, (epoch, offset)) in seen.into_iter().enumerate() {
            let shard = if index % 2 == 0 { &tap } else { &other };
            shard.show_message(epoch, offset, || Tapped { shard: 0, event: message(epoch, offset) });
        }
        let shown = std::iter::from_fn(|| reader.try_next().map(|tapped| tapped.event));
        let expected = [(7, 4), (7, 5), (7, 6), (3, 1), (3, 2), (8, 2)];
        assert_eq!(shown.collect::<Vec<_>>(), expected.map(|(epoch, offset)| message(epoch, offset)));

        for offset in 3..1003 {
            for shard in [&tap, &other] {
                shard.show_message(8, offset, || Tapped { shard: 0, event: message(8, offset) });
            }
        }
        assert_eq!(reader.take_lost(), 1000 - EVENTS_MAX as u64);
    }

    fn message(epoch: u64, offset: u64) -> Event {
        Event::Message { epoch, offset, members: 1, bytes: 0, text: String::new() }
    }

    #[test]
    fn is_over_when_its_reader_is_gone() {
        let (tap, reader) = tap(Subject::Connection(ClientId(7)), Counter::noop());
        assert!(!tap.is_over());

        drop(reader);

        assert!(tap.is_over());
    }

    #[test]
    fn an_event_is_one_flat_object() {
        let user = UserId::parse("ann").unwrap();
        let event = Event::Joined { client_id: ClientId(7), user };

        let json = serde_json::to_string(&Tapped { shard: 1, event }).unwrap();

        assert_eq!(json, r#"{"shard":1,"event":"joined","client_id":"0000000000000007","user":"ann"}"#);
    }

    #[test]
    fn an_event_is_called_what_its_json_says() {
        let (client_id, user, text) = (ClientId(7), UserId::from_u64(7), String::new());
        let events = [
            Event::Tapped { members: 1 },
            Event::Message { epoch: 10, offset: 1, members: 1, bytes: 0, text: text.clone() },
            Event::Delivered { messages: 1, recipients: 1, seconds: 0.5 },
            Event::Joined { client_id, user: user.clone() },
            Event::Left { client_id, user },
            Event::Received { bytes: 0, text },
            Event::Sent { messages: 1, bytes: 2, is_queued: false },
            Event::Blocked { bytes: 2 },
            Event::Drained,
            Event::Closed { reason: "client" },
        ];

        for event in events {
            let json = serde_json::to_value(&event).unwrap();
            assert_eq!(json["event"], event.name());
            assert!(event.name() != "message" || json["epoch"] == "000000000000000a", "{json}");
        }
    }

    #[test]
    fn a_message_is_cut_between_characters() {
        let long = "ä".repeat(TEXT_BYTES_MAX);
        let shifted = format!("x{long}");

        assert_eq!(beginning(long.as_bytes()), "ä".repeat(TEXT_BYTES_MAX / 2));
        assert_eq!(beginning(shifted.as_bytes()), format!("x{}", "ä".repeat(TEXT_BYTES_MAX / 2 - 1)));
        assert_eq!(beginning(b"short"), "short");
        assert_eq!(beginning(b"\xff"), "\u{fffd}");
    }
}
