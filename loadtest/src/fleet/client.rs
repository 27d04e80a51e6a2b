//! One simulated client: its connection, and where it is in its life.

use smallvec::SmallVec;

use super::stream::Stream;
use crate::traffic::Seat;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Not connected; it may be waiting to come back.
    Absent,
    Connecting,
    Upgrading,
    /// Entering its rooms.
    Joining,
    Ready,
    /// It has sent Close and waits for the server's.
    Closing,
}

/// The answer that a client waits for, besides those to its joins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Awaited {
    Nothing,
    Leave,
    /// To a ping or a question.
    Answer,
}

/// Whether a client takes what it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    Steady,
    /// It does not read: the server's bytes pile up.
    Stopped,
    /// It reads again; the server may end the connection for what it did before.
    Resumed,
}

pub(crate) struct Client {
    pub(crate) stream: Option<Stream>,
    pub(crate) stage: Stage,
    pub(crate) reading: Reading,
    /// It comes back after the connection has ended.
    pub(crate) returns: bool,
    /// The server has sent Close: nothing of its bytes was left unread.
    pub(crate) was_told: bool,
    /// Failed attempts since the last time that it was ready.
    pub(crate) attempts: u8,
    /// The server's advice, in nanoseconds, of how long to stay away.
    pub(crate) advice: Option<u64>,
    /// When the attempt to connect, or the request that is unanswered, began.
    pub(crate) asked_at: u64,
    /// Seats whose request to enter is unanswered.
    pub(crate) joining: std::ops::Range<usize>,
    /// What else it waits for.
    pub(crate) awaited: Awaited,
    /// Rooms first.
    pub(crate) seats: SmallVec<[Seat; 1]>,
    pub(crate) rooms: usize,
    /// The head of a frame whose rest has not come yet.
    pub(crate) inbound: Vec<u8>,
    /// The head of a message whose rest will come in another frame.
    pub(crate) partial: Vec<u8>,
    /// What the socket did not take yet.
    pub(crate) outbound: Vec<u8>,
}

impl Client {
    /// A client that has not connected yet, with its seats, of which the first `rooms` are in rooms.
    pub(crate) fn new(seats: SmallVec<[Seat; 1]>, rooms: usize) -> Self {
        Self {
            stream: None,
            stage: Stage::Absent,
            reading: Reading::Steady,
            returns: false,
            was_told: false,
            attempts: 0,
            advice: None,
            asked_at: 0,
            joining: 0..0,
            awaited: Awaited::Nothing,
            seats,
            rooms,
            inbound: Vec::new(),
            partial: Vec::new(),
            outbound: Vec::new(),
        }
    }

    /// Whether the server owes it an answer.
    pub(crate) fn is_waiting(&self) -> bool {
        match self.stage {
            Stage::Absent => false,
            Stage::Ready => self.awaited != Awaited::Nothing || !self.joining.is_empty(),
            Stage::Connecting | Stage::Upgrading | Stage::Joining | Stage::Closing => true,
        }
    }

    /// Forgets everything of the connection that has ended.
    pub(crate) fn reset(&mut self) {
        self.stream = None;
        self.stage = Stage::Absent;
        self.reading = Reading::Steady;
        self.was_told = false;
        self.joining = 0..0;
        self.awaited = Awaited::Nothing;
        for seat in &mut self.seats {
            seat.receiver.restart();
        }
        (self.inbound, self.partial, self.outbound) = (Vec::new(), Vec::new(), Vec::new());
    }
}
