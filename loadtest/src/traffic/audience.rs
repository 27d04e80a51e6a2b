//! Whom a message is for, and who is owed it.

use super::flight::Flight;
use super::receiver::Receiver;

/// How an audience is addressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Address {
    /// A room, by number.
    Room(u32),
    /// All connections of the user of this client.
    User(u32),
    /// This client alone, by what it sends itself.
    Own(u32),
    Everyone,
}

impl Address {
    pub(crate) const KINDS: usize = 4;

    pub(crate) fn kind(self) -> usize {
        match self {
            Self::Room(_) => 0,
            Self::User(_) => 1,
            Self::Own(_) => 2,
            Self::Everyone => 3,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Audience {
    pub(crate) address: Address,
    pub(crate) flight: Flight,
    /// Those that are owed each message from the moment on at which they were let in.
    pub(crate) members: Vec<u32>,
    /// Who publishes next.
    pub(crate) turn: u32,
}

impl Audience {
    pub(crate) fn new(address: Address) -> Self {
        Self { address, flight: Flight::default(), members: Vec::new(), turn: 0 }
    }

    pub(crate) fn receivers(&self) -> u32 {
        u32::try_from(self.members.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn admit(&mut self, client: u32) {
        self.members.push(client);
    }

    pub(crate) fn dismiss(&mut self, client: u32) {
        if let Some(at) = self.members.iter().position(|member| *member == client) {
            self.members.swap_remove(at);
        }
    }
}

/// A client's seat in one audience.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) audience: u32,
    /// Messages may come: entered, or at least asked to.
    pub(crate) inside: bool,
    /// Messages from this sequence on are owed; [`NOT_OWED`] while entering, leaving, or not reading.
    pub(crate) since: u64,
    pub(crate) receiver: Receiver,
}

pub(crate) const NOT_OWED: u64 = u64::MAX;

impl Seat {
    pub(crate) fn new(audience: u32) -> Self {
        Self { audience, inside: false, since: NOT_OWED, receiver: Receiver::default() }
    }

    pub(crate) fn is_owed(&self) -> bool {
        self.since != NOT_OWED
    }
}
